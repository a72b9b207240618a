"""Check slides, outlines and records of a cohort and report all problems before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl._checks import suggestion
from proportion_ssl.manifest import Cohort
from proportion_ssl.manifest._cohort import NON_CANCER, VAGUE
from proportion_ssl.manifest._read import read_manifest
from proportion_ssl.manifest._rows import ROLES
from proportion_ssl.segmenter.preparation import LARGEST_DROP
from proportion_ssl.segmenter.slide_features import (
    SlideFeatures,
    is_feature_file,
    label_windows,
    nominal_message,
    read_slide_features,
)
from proportion_ssl.segmenter.training import KEEP_THEM, OUTLINE_THEM
from proportion_ssl.slides import (
    FeatureFileError,
    PatchGrid,
    magnification_to_mpp,
    open_slide,
    process_slides,
    read_annotations,
    tissue_grid,
)
from proportion_ssl.slides.features.files import is_own_file
from proportion_ssl.slides.features.folder import find_features, is_foreign_folder
from proportion_ssl.slides.patches.mask_file import read_tissue_mask
from proportion_ssl.slides.reading._resolution import PLAUSIBLE_MPP, contradicts

LARGEST_CONTRADICTION = 1.5  # largest ratio of stated resolution to nominal magnification
CAN_UPSAMPLE = 1.02  # largest ratio of the slide's mpp to that of the patches


@dataclass(frozen=True)
class CohortProblem:
    """An error or a doubtful point in a cohort.

    Attributes
    ----------
    slide : str or None
        Slide id; None if the problem concerns a class, a case or the whole cohort.
    message : str
        What is wrong, and what to do.
    fatal : bool
        Whether the cohort cannot be used until this is fixed.
    """

    slide: str | None
    message: str
    fatal: bool

    def __str__(self) -> str:
        where = "" if self.slide is None or repr(self.slide) in self.message else f"{self.slide}: "
        return f"{'Error' if self.fatal else 'Warning'}: {where}{self.message}"


@dataclass(frozen=True, eq=False)
class CohortCheck:
    """Result of :func:`check_cohort`.

    Attributes
    ----------
    slides : DataFrame
        By slide id: ``role``, ``case``, ``width`` and ``height`` at level 0, ``mpp``, ``is_nominal`` (whether
        ``mpp`` is not stated but inferred from the nominal magnification), ``reader`` ("features" for a
        feature file), ``n_patches`` with enough tissue, and ``error``, the reason why the slide cannot be
        used (empty if it can).
    outlines : DataFrame
        By slide id and class name: ``area`` in square millimeters, ``n_patches`` with this label and enough
        tissue, and ``dropped``, the share of the area in windows without enough tissue.
    records : DataFrame
        By case id: ``kind`` ("exact", "interval", "partial" or "predominant"), number of ``slides``, ``sum``
        of the percentages, ``least`` and ``most``, the smallest and largest sum within the intervals, and
        ``intervals``, those of non-zero width, as text.
    mean_shares : Series
        By class: mean of the recorded percentages over the cases that state them; NaN without such a case.
    problems : list of CohortProblem
        Fatal problems first.
    """

    slides: pd.DataFrame
    outlines: pd.DataFrame
    records: pd.DataFrame
    mean_shares: pd.Series
    problems: list[CohortProblem]

    @property
    def fatal(self) -> bool:
        """Whether any problem is fatal."""
        return any(problem.fatal for problem in self.problems)

    def __str__(self) -> str:
        parts = []
        for title, table in (
            ("Slides", self.slides),
            ("Outlines", self.outlines),
            ("Records", self.records),
        ):
            if len(table):
                parts.append(f"{title}\n{_as_text(table)}")
        if len(self.records):
            parts[-1] += f"\n\n{self._summary()}"
        n_fatal = sum(problem.fatal for problem in self.problems)
        n_others = len(self.problems) - n_fatal
        counts = f"{_count(n_fatal, 'error')}, {_count(n_others, 'warning')}"
        parts.append("\n".join([counts, *map(str, self.problems)]))
        return "\n\n".join(parts)

    def _summary(self) -> str:
        """Kinds of records and mean shares, in two lines."""
        kinds = [
            f"{kind} ({_count(len(part), 'case')}, {_count(int(part['slides'].sum()), 'slide')})"
            for kind, part in self.records.groupby("kind", sort=False)
        ]
        shares = ", ".join(
            f"{name} {'not recorded' if np.isnan(share) else f'{share:.3g}%'}"
            for name, share in self.mean_shares.items()
        )
        return f"Kinds of record: {', '.join(kinds)}\nMean recorded share: {shares}"


def check_cohort(
    cohort: str | PathLike | Cohort,
    *,
    features: str | PathLike | None = None,
    classes: Sequence[str] | None = None,
    rounding_step: float | None = None,
    standard_deviation: float | None = None,
    magnification: float = 10,
    patch_size: int = 224,
    min_tissue: float = 0.25,
    tissue_mask: Mapping[str, Any] | None = None,
    bags_may_teach: bool = False,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> CohortCheck:
    """Open all slides and outlines of a cohort and list all problems, without computing features.

    Parameters
    ----------
    cohort : path-like or Cohort
        A manifest, or the result of :func:`~proportion_ssl.load_cohort`. Rows of a manifest with errors are
        reported; the other rows are still checked.
    features : path-like, optional
        Folder with feature files of another program, which are checked instead of the slides. A slide without
        a feature file is a problem.
    classes, rounding_step, standard_deviation
        Options for reading a manifest, as in :func:`~proportion_ssl.load_cohort`.
    magnification : float, default=10
        Magnification of the patches.
    patch_size : int, default=224
        Side of a patch in pixels.

    min_tissue : float in (0, 1], default=0.25
        Smallest share of tissue in a patch.
    tissue_mask : mapping of str to path-like or ndarray, optional
        Your own tissue masks by slide, as in :class:`~proportion_ssl.SlideSegmenter`.
    bags_may_teach : bool, default=False
        Whether a class without outlines may be learned from the records of bags alone. If False, such a class
        is a fatal problem.
    n_jobs : int, optional
        Number of slides checked in parallel, as in joblib.
    verbose : bool, default=False
        Whether to show a progress bar.

    Returns
    -------
    check : CohortCheck

    Raises
    ------
    FileNotFoundError
        If the manifest or the folder of features does not exist.
    TypeError, ValueError
        If the manifest is not a table of slides, or an argument is out of range.

    Notes
    -----
    Fatal: errors in the manifest; slides and outlines that cannot be read; a resolution outside 0.08 to 20
    microns per pixel, or coarser than that of the patches; no tissue; outlines whose name is not a class; a
    labeled slide whose outlines label no patch; no labeled slide; a class that only bags have. Problems that
    may follow from another reported error are left out.

    Warnings: resolutions of feature files that are inferred from the nominal magnification; a resolution that
    differs from the magnification in the file by more than a factor of 1.5; a resolution in the manifest that
    differs from that in the file by more than 2%; more than 5% of a class's outlined area in windows that the
    tissue mask drops; a class without outlines and records, or with outlines in one case only; fewer than two
    outlined cases, which cross-validation needs; no test slides; test slides without outlines and
    proportions.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from proportion_ssl.segmenter import check_cohort
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     manifest = Path(folder, "cohort.csv")
    ...     _ = manifest.write_text("slide,annotation,role,acinar,solid\\na.svs,,bag,60,50\\n")
    ...     check = check_cohort(manifest)
    >>> check.fatal
    True
    >>> check.problems[0].message[:55]
    "line 2: the percentages of slide 'a' sum to 110; they m"
    """
    if not 0 < min_tissue <= 1:
        raise ValueError(f"min_tissue must lie in (0, 1], got {min_tissue!r}.")
    magnification_to_mpp(magnification)
    problems: list[CohortProblem] = []
    rejected, rejected_columns = pd.DataFrame(columns=["role", "case"]), []
    files = None if features is None else _foreign_files(features)
    if not isinstance(cohort, Cohort):
        read = read_manifest(
            Path(cohort),
            classes=classes,
            rounding_step=rounding_step,
            standard_deviation=standard_deviation,
            need_slides=files is None,
        )
        problems += [
            CohortProblem(finding.slide, finding.message, True)
            for finding in read.findings + read.absent
        ]
        cohort, rejected = read.cohort, read.rejected
        rejected_columns = [name for name in read.columns if name not in cohort.classes]
    elif classes is not None or rounding_step is not None or standard_deviation is not None:
        raise ValueError(
            "classes, rounding_step and standard_deviation apply to a manifest; pass them to load_cohort."
        )
    else:
        problems += [
            CohortProblem(row.Index, f"file not found: {path}.", True)
            for row in cohort.slides.itertuples()
            for path in (row.path if files is None else None, row.annotation)
            if not _exists(path)
        ]
    if files is not None:
        cohort, without = _with_files(cohort, files, features)
        problems += without
    entries = {
        row.Index: _Entry(
            row.path,
            row.annotation if _exists(row.annotation) else None,
            None if np.isnan(row.mpp) else float(row.mpp),
            (tissue_mask or {}).get(row.Index),
            tuple(cohort.classes),
            float(magnification),
            patch_size,
            min_tissue,
            getattr(row, "image", None),
        )
        for row in cohort.slides.itertuples()
        if row.path is not None and _exists(row.path)
    }
    run = process_slides(entries, _look, on_error="skip", n_jobs=n_jobs, verbose=verbose)
    views = {
        name: run.results[name]
        if name in run.results
        else _View(error=f"{run.failures[name].error}: {run.failures[name].reason}")
        for name in entries
    }
    for name, view in views.items():
        for column in rejected_columns:  # the rejected column is already reported
            view.unknown.pop(column, None)
        problems += _slide_problems(name, cohort.slides.loc[name], view, cohort.classes)
    problems += _cohort_problems(cohort, views, bags_may_teach, rejected)
    nominal = [name for name, view in views.items() if view.is_nominal]
    if nominal:
        problems.append(CohortProblem(None, nominal_message(nominal), False))
    problems.sort(key=lambda problem: not problem.fatal)
    return CohortCheck(
        _slide_table(cohort, views),
        _outline_table(views),
        _record_table(cohort),
        (100 * cohort.proportions).mean(),
        problems,
    )


def _foreign_files(folder: Any) -> dict[str, Path] | None:
    """Feature files of another program by slide; None if this package wrote them from the slides."""
    files = find_features(folder)
    own = set()
    for path in files.values():
        try:
            own.add(is_own_file(path))
        except FeatureFileError:  # reported with its slide
            continue
    if own == {True, False}:
        is_foreign_folder(folder)  # raises, naming two files
    return None if own == {True} else files


def _with_files(
    cohort: Cohort, files: Mapping[str, Path], folder: Any
) -> tuple[Cohort, list[CohortProblem]]:
    """The cohort with feature files in place of slides, and a problem for each slide without one."""
    missing = [name for name in cohort.slides.index if name not in files]
    message = (
        f"{folder} has no feature file for this slide; a feature file has the name of its slide."
    )
    slides = cohort.slides.assign(
        path=[files.get(name) for name in cohort.slides.index], image=cohort.slides["path"]
    )
    problems = [CohortProblem(name, message, True) for name in missing]
    return replace(cohort, slides=slides), problems


# --- one slide ----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Entry:
    """A slide to check."""

    path: Any
    annotation: Any
    mpp: float | None
    mask: Any
    classes: tuple[str, ...]
    magnification: float
    patch_size: int
    min_tissue: float
    image: Any


@dataclass(eq=False)
class _View:
    """Findings for one slide."""

    error: str = ""  # why it cannot be used
    dimensions: tuple[int, int] | None = None
    mpp: float = np.nan
    is_nominal: bool = False  # mpp is inferred from the nominal magnification
    reader: str = ""
    magnification: float | None = None
    stated_mpp: float | None = None
    n_patches: int = 0
    outlines: dict[str, tuple[float, int, float]] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)  # labeled patches outside the tissue
    unknown: dict[str, int] = field(default_factory=dict)  # outlines whose name is not a class
    outline_error: str = ""


def _look(entry: _Entry) -> _View:
    """Open a slide and its outlines; errors are recorded, not raised."""
    view = _View()
    try:
        if is_feature_file(entry.path):
            stored = read_slide_features(
                entry.path, Path(entry.path).stem, mpp=entry.mpp, image=entry.image
            )
            view.dimensions, view.reader = stored.dimensions, "features"
            view.mpp = float(np.sqrt(stored.mpp[0] * stored.mpp[1]))
            view.is_nominal = stored.is_nominal
            view.n_patches = len(stored.grid)
            _look_at_outlines(view, entry, stored, stored.full_grid(), stored.grid)
            return view
        with open_slide(entry.path, mpp=entry.mpp) as slide:
            view.dimensions, view.reader = slide.dimensions, slide.source
            view.mpp, view.magnification = slide.mpp, slide.magnification
            view.stated_mpp = slide.stated_mpp
            view.error = _resolution_error(slide.mpp, entry.magnification)
            if view.error:
                return view
            grid = slide.grid(magnification=entry.magnification, size=entry.patch_size)
            mask = None if entry.mask is None else read_tissue_mask(entry.mask)
            kept = grid[:0]
            try:
                kept = tissue_grid(slide, grid, min_fraction=entry.min_tissue, mask=mask)
            except (
                OSError,
                ValueError,
            ) as error:  # no tissue, damaged pixels, a mask that does not fit
                view.error = _reason(error)
            view.n_patches = len(kept)
            _look_at_outlines(view, entry, slide, grid, kept)
    except (OSError, ValueError, ImportError) as error:
        view.error = _reason(error)
    return view


def _exists(path: Any) -> bool:
    return path is None or Path(path).exists()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _resolution_error(mpp: float, magnification: float) -> str:
    finest, coarsest = PLAUSIBLE_MPP
    if not finest <= mpp <= coarsest:
        return f"{mpp:g} microns per pixel is implausible; give the true value in column mpp."
    wanted = magnification_to_mpp(magnification)
    if mpp > wanted * CAN_UPSAMPLE:
        return (
            f"its pixels ({mpp:g} microns) are coarser than those of patches at {magnification:g}x"
            f" ({wanted:g}); use a lower magnification."
        )
    return ""


def _look_at_outlines(
    view: _View, entry: _Entry, slide: Any, grid: PatchGrid, kept: PatchGrid
) -> None:
    """Areas, labeled patches and dropped shares of the outlined classes."""
    if entry.annotation is None:
        return
    try:
        regions = (
            slide.read_outlines(entry.annotation)
            if isinstance(slide, SlideFeatures)
            else read_annotations(entry.annotation, slide=slide)
        )
    except (OSError, ValueError) as error:
        view.outline_error = _reason(error)
        return
    names = {*entry.classes, NON_CANCER, VAGUE}
    for region in regions:
        if region.class_name not in names:
            view.unknown[region.class_name] = view.unknown.get(region.class_name, 0) + 1
    known = [region for region in regions if region.class_name in names]
    found = label_windows(known, grid, kept, entry.classes)
    view.missed = dict(found.missed)
    window = grid.mpp**2 * np.prod(grid.size) / 1e6
    for name, area in found.areas.items():
        n_patches = int((found.labels == name).sum())
        view.outlines[name] = (area * window, n_patches, found.dropped.get(name, np.nan))


# --- tables -------------------------------------------------------------------------------------


def _slide_table(cohort: Cohort, views: Mapping[str, _View]) -> pd.DataFrame:
    columns = [
        "role",
        "case",
        "width",
        "height",
        "mpp",
        "is_nominal",
        "reader",
        "n_patches",
        "error",
    ]
    rows = [
        (
            cohort.slides.at[name, "role"],
            cohort.case_of(name),
            *(view.dimensions or (0, 0)),
            view.mpp,
            view.is_nominal,
            view.reader,
            view.n_patches,
            view.error or view.outline_error,
        )
        for name, view in views.items()
    ]
    return pd.DataFrame(rows, pd.Index(list(views), name="slide", dtype=object), columns)


def _outline_table(views: Mapping[str, _View]) -> pd.DataFrame:
    rows = {
        (name, label): numbers
        for name, view in views.items()
        for label, numbers in view.outlines.items()
    }
    index = pd.MultiIndex.from_arrays(
        [[name for name, _ in rows], [label for _, label in rows]], names=["slide", "class"]
    )
    return pd.DataFrame(list(rows.values()), index, ["area", "n_patches", "dropped"])


def _record_table(cohort: Cohort) -> pd.DataFrame:
    known = cohort.proportions.notna()
    said = known.any(axis=1) | known.index.isin(list(cohort.orders))
    shares = 100 * cohort.proportions[said]
    lower, upper = 100 * cohort.lower.loc[shares.index], 100 * cohort.upper.loc[shares.index]
    kinds = [
        "predominant"
        if case in cohort.orders
        else "partial"
        if not known.loc[case].all()
        else "interval"
        if (lower.loc[case] != upper.loc[case]).any()
        else "exact"
        for case in shares.index
    ]
    wide = [
        " > ".join(cohort.orders[case])
        if case in cohort.orders
        else ", ".join(
            f"{name} unknown" if np.isnan(low) else f"{name} {low:.4g} to {high:.4g}"
            for name, low, high in zip(
                cohort.classes, lower.loc[case], upper.loc[case], strict=True
            )
            if low != high
        )
        for case in shares.index
    ]
    return pd.DataFrame(
        {
            "kind": pd.Series(kinds, shares.index, dtype=object),
            "slides": cohort.cases.value_counts().reindex(shares.index),
            "sum": shares.sum(axis=1, min_count=1).round(6),
            "least": lower.sum(axis=1, min_count=1).round(6),
            "most": upper.sum(axis=1, min_count=1).round(6),
            "intervals": pd.Series(wide, shares.index, dtype=object),
        }
    )


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"


def _as_text(table: pd.DataFrame) -> str:
    formats = {"mpp": "{:.4g}", "area": "{:.2f} mm2", "dropped": "{:.0%}"}
    if "error" in table.columns:
        table = table.assign(error=np.where(table["error"] == "", "", "see below"))
    shown = table.assign(
        **{
            name: table[name].map(form.format)
            for name, form in formats.items()
            if name in table.columns
        }
    )
    if "is_nominal" in shown.columns:
        shown["mpp"] += shown.pop("is_nominal").map({True: " nominal", False: ""})
    return shown.to_string(sparsify=False)


# --- problems -----------------------------------------------------------------------------------


def _slide_problems(
    name: str, row: pd.Series, view: _View, classes: Sequence[str]
) -> list[CohortProblem]:
    """Problems of one slide."""
    found = []
    if view.error:
        found.append(CohortProblem(name, view.error, True))
    if view.magnification and not np.isnan(view.mpp):
        factor = view.mpp / magnification_to_mpp(view.magnification)
        if max(factor, 1 / factor) > LARGEST_CONTRADICTION:
            message = (
                f"has {view.mpp:.4g} microns per pixel, but the file states a magnification of"
                f" {view.magnification:g}x, which is about {10 / view.magnification:.4g}; check which"
                " is right."
            )
            found.append(CohortProblem(name, message, False))
    if not view.error and contradicts(view.stated_mpp, view.mpp):
        message = (
            f"the manifest gives {view.mpp:.4g} microns per pixel, the file states {view.stated_mpp:.4g};"
            " that of the manifest is used. Leave the cell empty if the file is right."
        )
        found.append(CohortProblem(name, message, False))
    if view.outline_error:
        found.append(CohortProblem(name, f"outlines: {view.outline_error}", True))
    if view.unknown:
        listed = ", ".join(f"{label!r} ({count})" for label, count in sorted(view.unknown.items()))
        message = (
            f"outlines are named {listed}, which is not a class ({', '.join(classes)}), {NON_CANCER!r} or"
            f" {VAGUE!r}; rename them or the columns of the manifest."
            f"{suggestion(min(view.unknown), [*classes, NON_CANCER, VAGUE])}"
        )
        found.append(CohortProblem(name, message, True))
    shows = any(n for label, (_, n, _) in view.outlines.items() if label in classes)
    is_broken = view.error or view.outline_error or view.unknown or not _exists(row["annotation"])
    n_missed = sum(n for label, n in view.missed.items() if label in classes)
    if row["role"] == "labeled" and not (shows or is_broken):
        if n_missed:
            message = (
                f"is labeled, but the tissue mask drops all {n_missed} patches that lie within outlines of"
                f" classes. Do the outlines belong to this slide? {KEEP_THEM}."
            )
        else:
            message = (
                "is labeled, but no patch lies at least half within an outline of a class. Do the outlines"
                " belong to this slide?"
            )
        return [*found, CohortProblem(name, message, True)]
    for label, (_, _, dropped) in view.outlines.items():
        if dropped > LARGEST_DROP and label != NON_CANCER and not view.error:
            message = f"the tissue mask drops {dropped:.0%} of the area outlined as {label!r}. {KEEP_THEM}."
            found.append(CohortProblem(name, message, False))
    return found


def _cohort_problems(
    cohort: Cohort, views: Mapping[str, _View], bags_may_teach: bool, rejected: pd.DataFrame
) -> list[CohortProblem]:
    """Problems of the slides together, without those that may follow from an error reported already.

    A rejected row, or a labeled slide that could not be read, may have shown what seems to be missing.
    """
    found = []
    lost_roles = set(rejected["role"])
    is_lost = {role: bool(lost_roles - {*ROLES} | lost_roles & {role}) for role in ROLES}
    is_lost["labeled"] |= any(
        _is_unread(views.get(name)) or not _exists(cohort.slides.at[name, "annotation"])
        for name in cohort.labeled
    )
    shown_in: dict[str, set[str]] = {label: set() for label in cohort.classes}
    for name in cohort.labeled:
        for label, (_, n_patches, _) in views[name].outlines.items() if name in views else ():
            if n_patches and label in shown_in:
                shown_in[label].add(cohort.case_of(name))
    outlined_cases = set().union(*shown_in.values())
    if not cohort.labeled and not is_lost["labeled"]:
        message = (
            "no slide has the role 'labeled', so there is nothing to learn from. Outline a slide."
        )
        found.append(CohortProblem(None, message, True))
    if outlined_cases and not is_lost["labeled"]:
        found += _class_problems(cohort, views, shown_in, bags_may_teach, is_lost["bag"])
    if len(outlined_cases) == 1 and not is_lost["labeled"]:
        message = "only one case is outlined, but cross-validation needs at least two."
        found.append(CohortProblem(None, message, False))
    if not cohort.test and not is_lost["test"]:
        message = "no slide has the role 'test', so none is segmented."
        found.append(CohortProblem(None, message, False))
    recorded = cohort.proportions.notna().all(axis=1) & bool(cohort.classes)
    for name in cohort.test:
        case = cohort.case_of(name)
        is_compared = cohort.slides.at[name, "annotation"] is not None or recorded[case]
        if not is_compared and case not in set(rejected["case"]):
            message = (
                "this test slide has neither outlines nor proportions to compare its map with."
            )
            found.append(CohortProblem(name, message, False))
    return found


def _is_unread(view: _View | None) -> bool:
    """Whether a labeled slide or its outlines could not be read, so that its classes are not known."""
    return view is None or bool(view.error or view.outline_error or view.unknown)


def _class_problems(
    cohort: Cohort,
    views: Mapping[str, _View],
    shown_in: Mapping[str, set[str]],
    bags_may_teach: bool,
    bags_are_lost: bool,
) -> list[CohortProblem]:
    """Classes that no labeled slide, or only one case, shows."""
    found = []
    in_bags = (cohort.upper.loc[cohort.bag_cases] > 0).sum()
    n_outlined = len(set().union(*shown_in.values()))
    for label, cases in shown_in.items():
        dropped_in = [name for name in cohort.labeled if views[name].missed.get(label)]
        if not cases and in_bags[label]:
            remedy = f"no labeled slide shows a patch of it. {OUTLINE_THEM}."
            if dropped_in:
                remedy = (
                    "the tissue mask drops all its outlined patches in"
                    f" {', '.join(dropped_in)}. {KEEP_THEM}."
                )
            message = (
                f"class {label!r} is recorded in {_count(int(in_bags[label]), 'bag')}, but {remedy}"
            )
            found.append(CohortProblem(None, message, not bags_may_teach))
        elif not cases and not dropped_in and not bags_are_lost:
            message = (
                f"class {label!r} has neither outlines nor a record in a bag, so it is never predicted. Is it"
                " a class?"
            )
            found.append(CohortProblem(None, message, False))
        elif len(cases) == 1 and n_outlined > 1:
            message = (
                f"class {label!r} is outlined in one case only ({next(iter(cases))}), so cross-validation"
                " cannot assess it."
            )
            found.append(CohortProblem(None, message, False))
    return found
