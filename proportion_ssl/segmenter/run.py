"""The job of the command line: fit, compare, segment the test slides, report."""

from __future__ import annotations

import hashlib
import json
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
from proportion_ssl.manifest import Cohort
from proportion_ssl.segmenter.evaluation import Evaluation
from proportion_ssl.segmenter.feature_folder import as_cohort
from proportion_ssl.segmenter.prediction import Models, evaluate_models, models_of
from proportion_ssl.segmenter.slide_features import NON_CANCER
from proportion_ssl.segmenter.slide_segmentation import SlideSegmentation
from proportion_ssl.segmenter.slide_segmenter import SlideSegmenter
from proportion_ssl.segmenter.systems import System, standard_systems
from proportion_ssl.segmenter.training import CohortFeatures, fit_classifier, make_bags
from proportion_ssl.slides import stitch, write_table

MODEL = "model.segmenter"
RUN = "run.json"


class OutputFolderError(ValueError):
    """The output folder holds another run."""


@dataclass(frozen=True)
class RunOptions:
    """What a run is asked to do.

    Parameters
    ----------
    output : Path
    system : str
        Name of the system that segments and is saved, of :func:`standard_systems`.
    compare : sequence of str
        Names of further systems to score beside it.
    folds : int
        Of the cross-validation; 0: none.
    seed : int
    classes : sequence of str or None
        Columns of the manifest that are classes.
    features : Path or None
        Folder of feature files, perhaps of another program; None: ``features`` in the output folder.
    overwrite : bool
        Whether an output folder of another run is written to.
    """

    output: Path
    system: str = "robust"
    compare: Sequence[str] = ("supervised", "published")
    folds: int = 5
    seed: int = 0
    classes: Sequence[str] | None = None
    features: Path | None = None
    overwrite: bool = False


@dataclass
class RunResult:
    """What came of a run.

    Attributes
    ----------
    segmenter : SlideSegmenter
    scores : DataFrame
        Of the systems on the test slides, pooled; empty if none has outlines or a record.
    cross_validation : DataFrame
        One row per fold and system; empty if there was none.
    segmentations : dict of str to SlideSegmentation
        Of the test slides.
    problems : list of str
        Slides and stages that failed; the others are complete.
    seconds : dict of str to float
        By stage.
    """

    segmenter: SlideSegmenter
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    cross_validation: pd.DataFrame = field(default_factory=pd.DataFrame)
    segmentations: dict[str, SlideSegmentation] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, *, needed: bool = False) -> Iterator[None]:
        """Time a stage; a failing one is noted, and what was computed before is kept.

        Parameters
        ----------
        name : str
        needed : bool, default=False
            Whether nothing can follow if it fails.
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
        Not fitted; its classifier is replaced by that of the system.
    options : RunOptions

    Returns
    -------
    result : RunResult

    Raises
    ------
    OutputFolderError
        If the output folder holds another run, and is not to be overwritten.
    ValueError, FileNotFoundError
        If the cohort cannot be used.
    """
    cohort = as_cohort(manifest, options.features, classes=options.classes)
    systems = _chosen(options)
    output = options.output
    _claim(output, _identity(Path(manifest), segmenter, options), options.overwrite)
    result = RunResult(segmenter)
    features = options.features or output / "features"
    with result.stage("tissue, reading and embedding", needed=True):
        data = segmenter.read_cohort(cohort, features=features)
    result.problems += [f"slide {failure}" for failure in data.failures.values()]
    with result.stage("fit", needed=True):
        chosen = systems[options.system]
        segmenter.set_params(classifier=chosen.classifier)
        segmenter.fit_features(data if chosen.records else _without_bags(data))
    with result.stage("model file"):
        _save(segmenter, output / MODEL)
    with result.stage("test slides"):
        _segment_test_slides(result, cohort, data, output, features)
    with result.stage("scores"):
        evaluations = _score(result, systems, data, options.system)
        _write_scores(result, evaluations, output, options.system)
    if options.folds:
        with result.stage("cross-validation"):
            _cross_validate(result, systems, data, options.folds, output)
    with result.stage("report"):
        _report(result, systems, data, output, options.system)
    return result


def _chosen(options: RunOptions) -> dict[str, System]:
    known = standard_systems(options.seed)
    names = dict.fromkeys([*options.compare, options.system])
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"there is no system {unknown[0]!r}; systems are {', '.join(known)}.")
    return {name: known[name] for name in known if name in names}


# --- the output folder --------------------------------------------------------------------------


def _identity(manifest: Path, segmenter, options: RunOptions) -> dict[str, Any]:
    """What makes two runs the same run."""
    settings = {
        key: str(value)
        for key, value in asdict(options).items()
        if key not in ("output", "overwrite")
    }
    unset = ("classifier", "verbose", "n_jobs")
    parameters = {k: str(v) for k, v in segmenter.get_params(deep=False).items() if k not in unset}
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    return {"manifest": digest, "options": settings, "segmenter": parameters}


def _claim(output: Path, identity: Mapping[str, Any], overwrite: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    path = output / RUN
    if path.exists() and not overwrite:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            before = None
        if before != identity:
            raise OutputFolderError(
                f"{output} holds the results of another run (other manifest or options). Give "
                "another --output, or "
                "--overwrite; features that still fit are used again in any case."
            )
    elif not path.exists() and not overwrite and (output / MODEL).exists():
        raise OutputFolderError(f"{output} holds a model of another run; give another --output.")
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(identity, indent=1), encoding="utf-8")


def _without_bags(data: CohortFeatures) -> CohortFeatures:
    slides = data.cohort.slides
    return replace(data, cohort=replace(data.cohort, slides=slides[slides["role"] != "bag"]))


def _save(segmenter: SlideSegmenter, path: Path) -> None:
    from proportion_ssl.embedding import NotInstalledError

    has_network = hasattr(getattr(segmenter, "embedder_", None), "export")
    try:
        segmenter.save(path, network=has_network)
    except NotInstalledError as error:
        segmenter.save(path, network=False)
        raise RuntimeError(
            f"the model is written without its network, so that applying it needs --weights ({error})"
        ) from error


# --- test slides and scores ---------------------------------------------------------------------


def _segment_test_slides(result, cohort: Cohort, data, output: Path, features: Path) -> None:
    names = [name for name in cohort.test if name in data.slides]
    if not names:
        print("No test slide: nothing to segment.", file=sys.stderr)
        return
    run = result.segmenter.segment_cohort(
        cohort, output / "slides", features=features, slides=names
    )
    result.segmentations = run.results
    result.problems += [f"slide {failure}" for failure in run.failures.values()]


def _score(result, systems, data: CohortFeatures, chosen: str) -> dict[str, Evaluation]:
    """Scores of every system on the test slides, on the same proposals."""
    names = [name for name in data.cohort.test if name in data.slides]
    judged = [name for name in names if name in data.outlined or _has_record(data.cohort, name)]
    if not judged:
        print("No test slide has outlines or a record: no scores.", file=sys.stderr)
        return {}
    segmenter = result.segmenter
    bags, _ = make_bags(data, segmenter.proposer_)
    evaluations = {}
    for name, system in systems.items():
        models: Models = segmenter.models_
        if name != chosen:
            model = fit_classifier(data, data.labeled, bags, system.classifier, system.records)
            models = models_of(model, segmenter.proposer_)
        evaluations[name] = evaluate_models(data, judged, models)
    return evaluations


def _has_record(cohort: Cohort, name: str) -> bool:
    return bool(cohort.proportions.loc[cohort.case_of(name)].notna().all())


def _write_scores(result, evaluations: Mapping[str, Evaluation], output: Path, chosen: str) -> None:
    if not evaluations:
        return
    pooled = {name: evaluation.pooled for name, evaluation in evaluations.items()}
    result.scores = pd.DataFrame(pooled).T.rename_axis("system").astype({"patches": int})
    intervals = {name: evaluation.interval("mIoU") for name, evaluation in evaluations.items()}
    place = result.scores.columns.get_loc("mIoU") + 1
    for offset, bound in enumerate(("mIoU_low", "mIoU_high")):
        values = [intervals[name][offset] for name in result.scores.index]
        result.scores.insert(place + offset, bound, values)
    write_table(output / "test.csv", result.scores.reset_index())
    for level in ("by_slide", "by_case"):
        parts = {name: getattr(evaluation, level) for name, evaluation in evaluations.items()}
        write_table(output / f"test_{level}.csv", pd.concat(parts, names=["system"]).reset_index())
    write_table(output / "confusion.csv", evaluations[chosen].confusion.reset_index())


def _cross_validate(result, systems, data: CohortFeatures, folds: int, output: Path) -> None:
    n_cases = len(np.unique(data.cases_of(data.labeled)))
    if n_cases < 2:
        print(f"{n_cases} outlined case: no cross-validation.", file=sys.stderr)
        return
    table = result.segmenter.cross_validate_features(data, folds, systems=systems)
    result.cross_validation = table
    write_table(output / "cross_validation.csv", table)


# --- report -------------------------------------------------------------------------------------


def _report(result, systems, data: CohortFeatures, output: Path, chosen: str) -> None:
    from proportion_ssl.reporting import report

    segmenter = result.segmenter
    model = segmenter.classifier_
    doubtful = getattr(model, "bag_reliability_", None)
    if doubtful is not None:
        write_table(output / "doubtful_records.csv", doubtful.reset_index())
    folds = result.cross_validation
    shown = ["system", "OP", "PC", "mIoU", "proportion_error"]
    report(
        output / "report.html",
        slides=[report_slide(one, data) for one in result.segmentations.values()],
        classes=[*data.cohort.classes, NON_CANCER],
        metrics=folds[shown] if len(folds) else None,
        history=getattr(model, "history_", None),
        history_classes=getattr(model, "classes_", None),
        settings={
            "system": chosen,
            "features": segmenter.features_,
            "reference of colors": segmenter.reference_slide_,
            "slides left out": sorted(data.failures) or "none",
            **systems[chosen].classifier.get_params(),
        },
        colors=segmenter.colors_,
    )


def report_slide(segmentation: SlideSegmentation, data: CohortFeatures) -> Any:
    """The part of a report about one slide.

    Parameters
    ----------
    segmentation : SlideSegmentation
    data : CohortFeatures
        For the outlines of the slide, if it has any.

    Returns
    -------
    slide : ReportSlide
    """
    from proportion_ssl.reporting import ReportSlide

    grid, names = segmentation.grid, [*data.cohort.classes, NON_CANCER]
    truth, outlined = None, data.outlined.get(segmentation.name)
    if outlined is not None and len(outlined.labels) == len(grid):
        codes = [names.index(label) if label in names else -1 for label in outlined.labels]
        truth = stitch(np.array(codes), grid.cells, grid.shape)
    proportions = segmentation.proportions
    return ReportSlide(
        segmentation.name,
        _picture(segmentation),
        segmentation.label_map(),
        truth=truth,
        **segmentation.record(),
        predicted=None if proportions.isna().any() else proportions.to_dict(),
        cell_pixels=segmentation.cell_um / _picture_mpp(segmentation),
        mpp=_picture_mpp(segmentation),
    )


def _picture(segmentation: SlideSegmentation) -> np.ndarray:
    """The overview; without a slide at hand a white picture with a pixel per cell."""
    if segmentation.overview is not None:
        return segmentation.overview
    return np.full((*segmentation.grid.shape, 3), 255, dtype=np.uint8)


def _picture_mpp(segmentation: SlideSegmentation) -> float:
    return segmentation.cell_um if segmentation.overview is None else segmentation.overview_mpp


def mean_and_spread(table: pd.DataFrame) -> pd.DataFrame:
    """Scores of each system as mean +- standard deviation over the folds.

    Parameters
    ----------
    table : DataFrame
        Of :meth:`SlideSegmenter.cross_validate`.

    Returns
    -------
    shown : DataFrame of str
    """
    groups = table.drop(columns=["fold", "cases", "patches"]).groupby("system", sort=False)
    spread = groups.std().map("{:.3f}".format)
    return groups.mean().map("{:.3f}".format) + " +- " + spread
