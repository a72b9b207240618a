"""The job of ``proportion-ssl run``: fit, compare systems, segment the test slides, write a report."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl._atomic import replacing
from proportion_ssl._checks import check_fraction
from proportion_ssl.evaluation import (
    IASLC_2020,
    adjust_p_values,
    compare_systems,
    expected_gain,
    grade,
    predominant_class,
    proportion_agreement,
    reliability,
)
from proportion_ssl.manifest import Cohort
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.proportions.identifiability import told_once
from proportion_ssl.segmenter.anonymous import anonymize_cohort
from proportion_ssl.segmenter.evaluation import Evaluation, evaluate_segmentations
from proportion_ssl.segmenter.feature_folder import as_cohort
from proportion_ssl.segmenter.outlook import LEAST_CASES, outline_curve
from proportion_ssl.segmenter.prediction import Models, models_of, segment_known
from proportion_ssl.segmenter.slide_segmentation import (
    UNCERTAIN,
    UNCERTAIN_COLOR,
    SlideSegmentation,
    files_of,
)
from proportion_ssl.segmenter.slide_segmenter import SlideSegmenter
from proportion_ssl.segmenter.systems import System, standard_systems
from proportion_ssl.segmenter.training import (
    CohortFeatures,
    check_outlined_classes,
    fit_classifier,
    make_bags,
    with_non_cancer_class,
)
from proportion_ssl.slides import write_table

MODEL = "model.segmenter"
RUN = "run.json"
SLIDES = "slides"

#: Tables that not every run writes.
TABLES = (
    "agreement.csv",
    "comparisons.csv",
    "confusion.csv",
    "cross_validation.csv",
    "doubtful_records.csv",
    "learning_curve.csv",
    "patterns.csv",
    "suggested_slides.csv",
    "test.csv",
    "test_by_case.csv",
    "test_by_slide.csv",
)

SMOOTHED_NOTE = (
    " Systems are compared patch by patch. Maps are also smoothed over neighboring patches, with a weight "
    "chosen on left-out outlined slides: the row 'smoothed'."
)

N_MORE = 5
"""Largest number of outlined cases for which the report states the gain."""

#: Scores that have intervals in the tables.
WITH_INTERVAL = ("OP", "PC", "mIoU")


class OutputFolderError(ValueError):
    """The output folder holds another run, or cannot be written to."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a run.

    Parameters
    ----------
    output : Path
    system : str
        Name of the system that segments and is saved; see :func:`standard_systems`.
    compare : sequence of str
        Names of further systems to score.
    folds : int
        Number of cross-validation folds; 0: no cross-validation.
    seed : int
    classes : sequence of str or None
        Columns of the manifest that are classes.
    rounding_step, standard_deviation : float or None
        Error of the recorded proportions, as in :func:`~proportion_ssl.load_cohort`.
    features : Path or None
        Folder of feature files, of this or another program; None: ``features`` in the output folder.
    overwrite : bool
        Whether to write to the output folder of another run.
    anonymize : bool
        Whether to replace the names of slides and cases by numbers in all output; the key is written beside
        the output folder.
    reject_below : float or None
        Cells of the test slides with a largest probability below this are "uncertain".
    """

    output: Path
    system: str = "robust"
    compare: Sequence[str] = ("supervised", "published")
    folds: int = 5
    seed: int = 0
    classes: Sequence[str] | None = None
    rounding_step: float | None = None
    standard_deviation: float | None = None
    features: Path | None = None
    overwrite: bool = False
    anonymize: bool = False
    reject_below: float | None = None


@dataclass
class RunResult:
    """Result of a run.

    Attributes
    ----------
    segmenter : SlideSegmenter
    scores : DataFrame
        Pooled scores of the systems on the test slides; empty if none has outlines or a record.
    comparisons : DataFrame
        Differences between the chosen system and the others, paired by case.
    cross_validation : DataFrame
        One row per fold and system; empty without cross-validation.
    learning_curve : DataFrame
        Score by the number of outlined cases; empty with fewer than four, or without cross-validation.
    suggestions : DataFrame or None
        Recorded cases to outline next, and records to review.
    segmentations : dict of str to SlideSegmentation
        Segmentations of the test slides.
    problems : list of str
        Slides and stages that failed; all others are complete.
    seconds : dict of str to float
        Seconds by stage.
    """

    segmenter: SlideSegmenter
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    comparisons: pd.DataFrame = field(default_factory=pd.DataFrame)
    cross_validation: pd.DataFrame = field(default_factory=pd.DataFrame)
    learning_curve: pd.DataFrame = field(default_factory=pd.DataFrame)
    suggestions: pd.DataFrame | None = None
    segmentations: dict[str, SlideSegmentation] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, *, needed: bool = False) -> Iterator[None]:
        """Time a stage; a failure is recorded, and earlier results are kept.

        Parameters
        ----------
        name : str
        needed : bool, default=False
            Whether to raise if the stage fails, because later stages need it.
        """
        print(f"{name} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            if needed:
                raise
            self.problems.append(f"{name}: {type(error).__name__}: {error}")
            traceback.print_exc()
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 1)
            print(f"{name}: {self.seconds[name]:.0f} s", file=sys.stderr, flush=True)


def run_cohort_job(
    manifest: str | Path, segmenter: SlideSegmenter, options: RunOptions
) -> RunResult:
    """Fit on a cohort, segment its test slides, score the systems, and write everything.

    Parameters
    ----------
    manifest : path-like
    segmenter : SlideSegmenter
        Not fitted. Its classifier is replaced by that of the system.
    options : RunOptions

    Returns
    -------
    result : RunResult

    Raises
    ------
    OutputFolderError
        If the output folder holds another run and ``overwrite`` is False, or cannot be written to.
    ValueError, FileNotFoundError
        If an option is out of range or the cohort cannot be used.
    """
    _check(options)
    segmenter._check_parameters()
    systems = _chosen(options)
    cohort = as_cohort(
        manifest,
        options.features,
        classes=options.classes,
        rounding_step=options.rounding_step,
        standard_deviation=options.standard_deviation,
    )
    output = options.output
    identity = _identity(Path(manifest), segmenter, options)
    if not options.overwrite:
        _refuse_other_run(output, identity)
    _make_folder(output)
    check_outlined_classes(cohort)
    if options.anonymize:
        cohort, masks = anonymize_cohort(cohort, segmenter.tissue_mask, output)
        segmenter.set_params(tissue_mask=masks)
    result = RunResult(segmenter)
    features = options.features or output / "features"
    if options.features is not None:
        say_of_new_folder(features)
    with result.stage("tissue, reading and embedding", needed=True):
        data = segmenter.read_cohort(cohort, features=features)
    result.problems += [f"slide {failure}" for failure in data.failures.values()]
    with result.stage("fit", needed=True):
        chosen = systems[options.system]
        segmenter.set_params(classifier=chosen.classifier)
        segmenter.fit_features(data if chosen.records else _without_bags(data))
        data = with_non_cancer_class(data, segmenter.proposer_)
    _begin_results(output, identity)
    if options.folds:
        with result.stage("calibration"):
            _calibrate(result, data, options.folds, chosen.records, output)
    with result.stage("model file"):
        _save(segmenter, output / MODEL)
    with result.stage("test slides"):
        _segment_test_slides(result, cohort, data, options, features)
    scored = _Scored(options.system)
    with result.stage("scores"):
        scored = _score(result, systems, data, options.system)
        _write_scores(result, scored, output)
    if options.folds:
        with result.stage("cross-validation"):
            _cross_validate(result, systems, data, options.folds, output)
        with result.stage("learning curve"):
            _learn_with_fewer(result, chosen, data, options.seed, output)
    with result.stage("report"):
        _report(result, systems, data, output, options.system, scored)
    return result


def say_of_new_folder(features: Path) -> None:
    """Tell that a folder of features does not exist yet, so that features are computed into it.

    Parameters
    ----------
    features : Path
    """
    if not features.exists():
        print(
            f"The folder {features} does not exist yet; it is created for the features of the slides. (For "
            "features of another program, give the folder that holds them.)",
            file=sys.stderr,
            flush=True,
        )


def _check(options: RunOptions) -> None:
    if options.folds < 0 or options.folds == 1:
        raise ValueError(
            f"folds is {options.folds}; cross-validation needs two or more (0: no cross-validation)."
        )
    if options.reject_below is not None:
        check_fraction(options.reject_below, "reject_below")


def _chosen(options: RunOptions) -> dict[str, System]:
    known = standard_systems(options.seed)
    names = dict.fromkeys([*options.compare, options.system])
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"unknown system {unknown[0]!r}; the systems are {', '.join(known)}.")
    return {name: known[name] for name in known if name in names}


# --- the output folder --------------------------------------------------------------------------


def _identity(manifest: Path, segmenter, options: RunOptions) -> dict[str, Any]:
    """What identifies a run: manifest and options."""
    settings = {
        key: str(value)
        for key, value in asdict(options).items()
        if key not in ("output", "overwrite")
    }
    unset = ("classifier", "verbose", "n_jobs")
    parameters = {k: str(v) for k, v in segmenter.get_params(deep=False).items() if k not in unset}
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return {"manifest": digest, "options": settings, "segmenter": parameters}


def _refuse_other_run(output: Path, identity: Mapping[str, Any]) -> None:
    """Raise if the folder holds results of another run; features alone do not count."""
    try:
        before = json.loads((output / RUN).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if (output / MODEL).exists():
            raise OutputFolderError(
                f"{output} holds a model of another run; give another --output."
            ) from None
        return
    except ValueError:
        before = {}
    if before != identity:
        raise OutputFolderError(
            f"{output} holds the results of another run: {_difference(before, identity)}. Give another "
            "--output, or --overwrite to replace the results; features that still apply are reused."
        )


def _difference(before: Any, now: Mapping[str, Any]) -> str:
    """Differences between two runs, in words."""
    if not isinstance(before, dict) or set(before) != set(now):
        return f"its {RUN} is of another version or damaged"
    found = ["the manifest has changed"] if before["manifest"] != now["manifest"] else []
    for part in ("options", "segmenter"):
        for name, value in now[part].items():
            was = before[part].get(name)
            if was != value:
                found.append(f"{name} was {was} and is {value}")
    return "; ".join(found) or "its options are of another version"


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise OutputFolderError(f"{output} is a file, or is inside one; give a folder.") from None
    if not os.access(output, os.W_OK | os.X_OK):
        raise OutputFolderError(f"{output} cannot be written to; give another --output.")


def _begin_results(output: Path, identity: Mapping[str, Any]) -> None:
    """Write the identity of the run, and remove tables and maps of another run."""
    path = output / RUN
    text = json.dumps(identity, indent=1)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        for name in TABLES:
            (output / name).unlink(missing_ok=True)
        _remove_maps(output / SLIDES)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _remove_maps(folder: Path) -> None:
    """Remove the table of a folder and the files of the slides in it."""
    table = folder / "slides.csv"
    if not table.exists():
        return
    for name in pd.read_csv(table, dtype=str, keep_default_na=False)["slide"]:
        if Path(name).name == name:
            for path in files_of(name, folder).values():
                path.unlink(missing_ok=True)
    table.unlink()


def _without_bags(data: CohortFeatures) -> CohortFeatures:
    slides = data.cohort.slides
    return replace(data, cohort=replace(data.cohort, slides=slides[slides["role"] != "bag"]))


def _save(segmenter: SlideSegmenter, path: Path) -> None:
    from proportion_ssl.embedding import NotInstalledError

    can_export = hasattr(getattr(segmenter, "embedder_", None), "export")
    try:
        segmenter.save(path, network=can_export)
    except NotInstalledError as error:
        segmenter.save(path, network=False)
        raise RuntimeError(
            f"the model is written without its network, so applying it needs --weights ({error})"
        ) from error


# --- test slides and scores ---------------------------------------------------------------------


@dataclass
class _Scored:
    """Evaluations of the systems on the test slides, patch by patch, and of the smoothed maps if any."""

    own: str  # name of the row for the written maps
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    maps: dict[str, dict[str, SlideSegmentation]] = field(default_factory=dict)


def _calibrate(result, data: CohortFeatures, folds: int, records: bool, output: Path) -> None:
    n_cases = len({*data.cases_of(data.labeled).tolist(), *data.cohort.bag_cases})
    if n_cases < 2:
        print(f"{n_cases} case to learn from: no calibration.", file=sys.stderr)
        return
    found = result.segmenter.calibrate_features(data, folds, records=records)
    result.suggestions = found.suggestions
    print(
        f"temperature {found.temperature:.2f}, from {found.source}; weight of neighboring patches "
        f"{found.smoothing:g}",
        file=sys.stderr,
    )
    if found.suggestions is not None:
        write_table(output / "suggested_slides.csv", found.suggestions.reset_index())


def _segment_test_slides(result, cohort: Cohort, data, options: RunOptions, features: Path) -> None:
    names = [name for name in cohort.test if name in data.slides]
    if not names:
        print("No test slide: nothing to segment.", file=sys.stderr)
        return
    # not segment_cohort: reading the cohort has warned of nominal resolutions
    run, _ = result.segmenter._segment_cohort(
        cohort,
        options.output / SLIDES,
        features=features,
        slides=names,
        reject_below=options.reject_below,
    )
    result.segmentations = run.results
    result.problems += [f"slide {failure}" for failure in run.failures.values()]


def _score(result, systems, data: CohortFeatures, chosen: str) -> _Scored:
    """Evaluate all systems with the same proposals on the test slides, and smoothed maps of one."""
    names = [name for name in data.cohort.test if name in data.slides]
    judged = [name for name in names if name in data.outlined or _has_record(data.cohort, name)]
    scored = _Scored(chosen)
    if not judged:
        print("No test slide has outlines or a record: no scores.", file=sys.stderr)
        return scored
    segmenter = result.segmenter
    bags, _ = make_bags(data, segmenter.proposer_)
    outlined = {name: data.outlined[name] for name in judged if name in data.outlined}
    predictors: dict[str, Models] = {}
    for name, system in systems.items():
        if name == chosen:
            predictors[name] = replace(segmenter.models_, smoothing=0.0)
            continue
        with told_once():
            model = fit_classifier(data, data.labeled, bags, system.classifier, system.records)
        predictors[name] = models_of(model, segmenter.proposer_)
    if segmenter.smoothing_:
        scored.own = f"{chosen}, smoothed"
        predictors[scored.own] = segmenter.models_
    for name, models in predictors.items():
        scored.maps[name] = segment_known(data, names, models)
        maps = {slide: scored.maps[name][slide] for slide in judged}
        scored.evaluations[name] = evaluate_segmentations(maps, outlined, data.cohort)
    return scored


def _has_record(cohort: Cohort, name: str) -> bool:
    return bool(cohort.proportions.loc[cohort.case_of(name)].notna().all())


def _write_scores(result, scored: _Scored, output: Path) -> None:
    evaluations, chosen = scored.evaluations, scored.own
    if not evaluations:
        return
    pooled = {name: evaluation.pooled for name, evaluation in evaluations.items()}
    scores = pd.DataFrame(pooled).T.rename_axis("system").astype({"patches": int})
    for score in WITH_INTERVAL:
        ends = [evaluations[name].interval(score) for name in scores.index]
        place = scores.columns.get_loc(score) + 1
        scores.insert(place, f"{score}_low", [low for low, _ in ends])
        scores.insert(place + 1, f"{score}_high", [high for _, high in ends])
    result.scores = scores
    result.comparisons = _compare(evaluations, chosen)
    write_table(output / "test.csv", scores.reset_index())
    if len(result.comparisons):
        write_table(output / "comparisons.csv", result.comparisons)
    for level in ("by_slide", "by_case"):
        parts = {name: getattr(evaluation, level) for name, evaluation in evaluations.items()}
        write_table(output / f"test_{level}.csv", pd.concat(parts, names=["system"]).reset_index())
    own = evaluations[chosen]
    write_table(output / "confusion.csv", own.confusion.reset_index())
    known = own.recorded.notna().all(axis=1) & own.predicted.notna().all(axis=1)
    if known.any():
        agreement = proportion_agreement(own.recorded[known], own.predicted[known])
        write_table(output / "agreement.csv", agreement.reset_index())
    write_table(output / "patterns.csv", _patterns(own).reset_index())


def _compare(evaluations: Mapping[str, Evaluation], chosen: str) -> pd.DataFrame:
    """Compare the maps of the chosen system with every other row by OP and mIoU, with one correction."""
    cases = list(evaluations[chosen].confusion_by_case)
    stacks = {
        name: np.stack([evaluation.confusion_by_case[case] for case in cases])
        for name, evaluation in evaluations.items()
    }
    if len(stacks) < 2 or not stacks[chosen].sum():
        return pd.DataFrame()
    n_classes = stacks[chosen].shape[1] - 1
    tables = [
        compare_systems(
            {chosen: stacks[chosen], name: stack}, metric=score, n_classes=n_classes
        ).assign(score=score)
        for score in ("OP", "mIoU")
        for name, stack in stacks.items()
        if name != chosen
    ]
    table = pd.concat(tables, ignore_index=True)
    table["p_adjusted"] = adjust_p_values(table["p"])
    return table


def _patterns(evaluation: Evaluation) -> pd.DataFrame:
    """Predominant class and grade of each case, as recorded and as predicted."""
    columns = {}
    for name in ("recorded", "predicted"):
        shares = getattr(evaluation, name)
        columns[f"predominant_{name}"] = predominant_class(shares)
        if IASLC_2020.knows(shares.columns):
            columns[f"grade_{name}"] = grade(shares)
    return pd.DataFrame(columns, index=evaluation.recorded.index)


def _cross_validate(result, systems, data: CohortFeatures, folds: int, output: Path) -> None:
    n_cases = len(np.unique(data.cases_of(data.labeled)))
    if n_cases < 2:
        print(f"{n_cases} outlined case: no cross-validation.", file=sys.stderr)
        return
    with told_once():
        table = result.segmenter.cross_validate_features(data, folds, systems=systems)
    result.cross_validation = table
    write_table(output / "cross_validation.csv", table)


def _learn_with_fewer(
    result, system: System, data: CohortFeatures, seed: int, output: Path
) -> None:
    curve = outline_curve(
        data,
        result.segmenter.proposer_,
        system.classifier,
        records=system.records,
        n_jobs=result.segmenter.n_jobs,
        random_state=seed,
    )
    if curve is None:
        print(f"Fewer than {LEAST_CASES} outlined cases: no learning curve.", file=sys.stderr)
        return
    result.learning_curve = curve
    write_table(output / "learning_curve.csv", curve)


# --- report -------------------------------------------------------------------------------------


def _report(result, systems, data: CohortFeatures, output: Path, chosen: str, scored: _Scored):
    from proportion_ssl.reporting import report

    segmenter = result.segmenter
    model = segmenter.classifier_
    doubtful = getattr(model, "bag_reliability_", None)
    if doubtful is not None:
        write_table(output / "doubtful_records.csv", doubtful.reset_index())
    folds = result.cross_validation
    shown = ["system", "OP", "PC", "mIoU", "proportion_error"]
    others = {name: maps for name, maps in scored.maps.items() if name != scored.own}
    is_rejected = any(UNCERTAIN in one.map_classes for one in result.segmentations.values())
    classes = [*data.cohort.classes, NON_CANCER, *([UNCERTAIN] if is_rejected else [])]
    report(
        output / "report.html",
        slides=[
            one.report_slide(
                classes,
                truth=_outlined(one, data),
                others={name: maps[one.name] for name, maps in others.items()},
            )
            for one in result.segmentations.values()
        ],
        classes=classes,
        test=_report_test(result, data, scored),
        outlook=_report_outlook(result, data, chosen),
        metrics=folds[shown] if len(folds) else None,
        history=getattr(model, "history_", None),
        history_classes=getattr(model, "classes_", None),
        settings={
            "system": chosen,
            "features": segmenter.features_,
            "reference of colors": segmenter.reference_slide_,
            "temperature of the probabilities": round(segmenter.temperature_, 3),
            "weight of neighboring patches": segmenter.smoothing_,
            "slides left out": sorted(data.failures) or "none",
            **systems[chosen].classifier.get_params(),
        },
        colors={**segmenter.colors_, **({UNCERTAIN: UNCERTAIN_COLOR} if is_rejected else {})},
        features=segmenter.features_,
    )


def _outlined(segmentation: SlideSegmentation, data: CohortFeatures) -> Any:
    """Outlined classes of the cells; None without outlines on this grid."""
    outlined = data.outlined.get(segmentation.name)
    if outlined is None or len(outlined.labels) != len(segmentation.grid):
        return None
    return outlined.labels


def _report_test(result, data: CohortFeatures, scored: _Scored) -> Any:
    from proportion_ssl.reporting import ReportTest

    if not scored.evaluations:
        return None
    own = scored.evaluations[scored.own]
    n_slides, n_cases = len(own.by_slide), len(own.by_case)
    return ReportTest(
        scores=result.scores,
        comparisons=result.comparisons if len(result.comparisons) else None,
        recorded=own.recorded,
        predicted=own.predicted,
        reliability=_test_reliability(result.segmenter, data),
        note=(
            f"{n_slides} slides of {n_cases} cases, predicted without their records. The parts after the "
            f"tables of systems describe {scored.own}."
            + (SMOOTHED_NOTE if result.segmenter.smoothing_ else "")
        ),
    )


def _report_outlook(result, data: CohortFeatures, chosen: str) -> Any:
    from proportion_ssl.reporting import ReportOutlook

    curve, n_cases = result.learning_curve, len(np.unique(data.cases_of(data.labeled)))
    if not len(curve):
        if result.suggestions is None:
            return None
        note = (
            f"{n_cases} outlined cases are too few for a learning curve: it needs {LEAST_CASES}, one of "
            "them for testing."
            if n_cases < LEAST_CASES
            else ""
        )
        return ReportOutlook(suggestions=result.suggestions, note=note)
    most = int(curve["n_outlined"].max())
    n_more = min(N_MORE, most)
    return ReportOutlook(
        curve,
        expected_gain(curve, n_more),
        n_more,
        result.suggestions,
        f"{chosen}, trained on fewer outlined cases and all records, tested on the outlined cancer of "
        "left-out cases; mean and standard deviation over draws.",
    )


def _test_reliability(segmenter, data: CohortFeatures) -> Any:
    """Calibration of the class probabilities on outlined cancer of the test slides; None without outlines."""
    names = [n for n in data.cohort.test if n in data.outlined and n in data.slides]
    true, probabilities = [], []
    for name in names:
        labels = data.outlined[name].labels.astype(str)
        of_cancer = np.isin(labels, data.cohort.classes)
        true.append(labels[of_cancer])
        shares = segmenter.models_.shares(data.slides[name], data.cohort.classes)
        probabilities.append(shares[of_cancer])
    if not sum(len(labels) for labels in true):
        return None
    return reliability(
        np.concatenate(true), np.concatenate(probabilities), classes=data.cohort.classes
    )


def mean_and_spread(table: pd.DataFrame) -> pd.DataFrame:
    """Scores of each system as mean +- standard deviation over the folds.

    Parameters
    ----------
    table : DataFrame
        Output of :meth:`SlideSegmenter.cross_validate`.

    Returns
    -------
    shown : DataFrame of str
        Without scores that no fold has; "-" where only a system has none; without the deviation where only
        one fold has the score.

    Examples
    --------
    >>> import pandas as pd
    >>> fold = {"system": "robust", "cases": "a", "patches": 9, "proportion_error": float("nan")}
    >>> table = pd.DataFrame([{**fold, "fold": k, "mIoU": 0.5 + k / 10} for k in range(2)])
    >>> mean_and_spread(table).loc["robust"].to_dict()
    {'mIoU': '0.550 +- 0.071'}
    """
    groups = table.drop(columns=["fold", "cases", "patches"]).groupby("system", sort=False)
    mean, spread = groups.mean().dropna(axis=1, how="all"), groups.std()
    shown = mean.map(lambda value: "-" if np.isnan(value) else f"{value:.3f}")
    return shown + spread[mean.columns].map(
        lambda value: "" if np.isnan(value) else f" +- {value:.3f}"
    )
