"""Read a manifest into a cohort, and report its errors."""

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from proportion_ssl._checks import check_distinct, check_stated_error, suggestion
from proportion_ssl.manifest._cases import check_cases
from proportion_ssl.manifest._cohort import NON_CANCER, VAGUE, Cohort
from proportion_ssl.manifest._records import Column, Records, gather
from proportion_ssl.manifest._resolutions import read_resolutions
from proportion_ssl.manifest._rows import (
    RESERVED,
    SHOWN,
    Finding,
    Rows,
    absent_files,
    check_mpps,
    check_roles,
    check_slides,
    collect,
)
from proportion_ssl.manifest._rules import (
    check_bags,
    check_columns,
    check_orders,
    check_sums,
    unreadable,
)
from proportion_ssl.manifest._table import read_table

FEATURES_ONLY = (
    "\nIf you have features instead of the slides: load_cohort(..., need_slides=False); fit and the commands "
    "take the folder of the features (features=, --features)."
)


def load_cohort(
    path: str | PathLike,
    *,
    classes: Sequence[str] | None = None,
    rounding_step: float | None = None,
    standard_deviation: float | None = None,
    need_slides: bool = True,
    resolutions: str | PathLike | None = None,
) -> Cohort:
    """Read and check a manifest of slides.

    Parameters
    ----------
    path : path-like
        A text table with a header and one slide per row. Columns, in any order:

        - ``slide``: file of the slide, absolute or relative to the folder of the manifest;
        - ``role``: "labeled" (outlines for training), "bag" (only proportions known) or "test";
        - ``annotation``: file with the outlines; needed for labeled slides, may be empty for
          others (outlines of test slides are used for evaluation only);
        - ``mpp`` (optional): microns per pixel of the full-resolution image, for files that do not
          state it; leave it empty if the file is right;
        - ``case`` (optional): patient or tumor, for slides that belong together; if it is empty,
          the slide is its own case;
        - ``predominant`` (optional): for rows without percentages, the class with the largest share, or
          several with the most frequent first ("acinar > solid"); then no column per class is needed;
        - one column per class with the percentage of the cancer area; needed for bags, may be
          empty for others. In a row with percentages an empty cell counts as 0.

        The formats of spreadsheet programs are accepted: UTF-8 with or without byte order mark; fields
        separated by comma, semicolon or tab, quoted where needed; a first line such as ``sep=;``; decimal
        commas (quoted if the comma also separates fields); percent signs; empty lines. Roles and the names of
        columns other than classes are case-insensitive.
    classes : sequence of str or None
        Columns that are classes, in the desired order; other unknown columns are ignored. None: every column
        not named above; columns that do not look like classes are an error.
    rounding_step : float in (0, 0.5], optional
        Percentages were rounded to multiples of this, as a fraction: 0.05 for steps of 5 points. The error of
        each is up to half a step.
    standard_deviation : float in [0, 0.5], optional
        Standard deviation of the percentages, as a fraction: 0.1 for 10 points; a recorded 0 is exact. Give
        at most one of the two; they have the same meaning as in :class:`~proportion_ssl.Bags`.
    need_slides : bool, default=True
        False: slides need not exist, for use with features of other programs only. Outline files must exist.
    resolutions : path-like, optional
        A table of microns per pixel (see :func:`~proportion_ssl.manifest.read_resolutions`) for slides with
        empty ``mpp``.

    Returns
    -------
    cohort : Cohort

    Raises
    ------
    FileNotFoundError
        If the manifest, a slide or an annotation does not exist.
    ValueError
        If the table is empty, lacks a column, or has rows with errors; all of them are listed with slide and
        line.

    Notes
    -----
    *Percentages.* A cell may hold a number, a range ("70-80", "75 ± 5"), a limit ("<5" is 0 to 5, ">90" is 90
    to 100), an approximate number ("~10", "ca. 10", "about 10" are 5 to 15: 5 points either way) or "trace"
    (0 to 5). A range states its own error: `rounding_step` and `standard_deviation` apply to plain numbers
    only.

    *Unknown shares.* "?", "unknown" or "n/a": this class was not assessed; in the column ``predominant``: no
    predominant class is recorded. If the other cells of the row sum to 100, they are shares among their
    classes, and the share of the unknown classes in the slide is not known
    (:class:`~proportion_ssl.proportions.PartialRecord`). If they sum to less, the unknown classes take the
    remainder.

    *Predominant classes.* If no bag has percentages, they are used as an order of classes
    (:class:`~proportion_ssl.proportions.OrderRecord`), otherwise as the widest intervals that the order
    admits.

    *Sums.* Without a stated error the numbers of a row must sum to 100 within 1 point. They are divided by
    100 and *not* rescaled: 33, 33, 33 become 0.33 each. With ranges or a stated error a row is accepted if
    its intervals admit a sum of 100 (within 1 point); the proportions are then the point within the intervals
    that sums to 1 and is nearest to the written values. A larger deviation is more likely a typing error than
    rounding and must be corrected in the manifest.

    *Cases.* A record describes the whole case: all rows of a case have the same record, or only one row has
    it. All slides of a case have the same role; otherwise outlines or records of a patient would leak into
    the scores of the patient's other slides.

    *Columns other than classes.* Without `classes`, a column is an error if most of its cells are not
    percentages, if the rows sum to 100 only without it, or if it is 0 in every record.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.svs", "a.geojson", "b.svs", "c.svs"):
    ...         Path(folder, name).touch()
    ...     manifest = Path(folder, "cohort.csv")
    ...     _ = manifest.write_text(
    ...         "slide;annotation;role;case;acinar;solid\\n"
    ...         "a.svs;a.geojson;labeled;P1;;\\n"
    ...         "b.svs;;bag;P2;62,5;37,5\\n"
    ...         "c.svs;;bag;P3;70-80;~20\\n"
    ...     )
    ...     cohort = load_cohort(manifest)
    >>> cohort.labeled, cohort.bags, cohort.bag_cases
    (['a'], ['b', 'c'], ['P2', 'P3'])
    >>> cohort.proportions.loc["P2"].tolist()
    [0.625, 0.375]
    >>> cohort.lower.loc["P3"].tolist(), cohort.upper.loc["P3"].tolist()
    ([0.7, 0.15], [0.8, 0.25])
    """
    read = read_manifest(
        path,
        classes=classes,
        rounding_step=rounding_step,
        standard_deviation=standard_deviation,
        need_slides=need_slides,
    )
    cohort = read.cohort
    if read.findings:
        taken = f"columns read as classes: {', '.join(read.columns) or 'none'}"
        start = f"{path} cannot be used as a cohort ({taken}):"
        problems = [finding.message for finding in read.findings + read.absent]
        raise ValueError(listed(start, problems))
    if read.absent:
        start = (
            f"{path} names files that do not exist (paths are absolute, or relative to the"
            " manifest's folder):"
        )
        text = listed(start, [finding.message for finding in read.absent])
        lacks_slides = need_slides and any(not path.exists() for path in cohort.slides["path"])
        raise FileNotFoundError(text + FEATURES_ONLY * lacks_slides)
    if resolutions is not None:
        found = read_resolutions(resolutions)
        stated = cohort.slides["mpp"]
        beside = pd.Series(cohort.slides.index.map(found), cohort.slides.index, dtype=float)
        cohort = replace(cohort, slides=cohort.slides.assign(mpp=stated.fillna(beside)))
    return cohort


class ManifestContent(NamedTuple):
    """Result of :func:`read_manifest`.

    Attributes
    ----------
    cohort : Cohort
        The rows without errors, whether their files exist or not.
    findings : list of Finding
        Errors in the other rows and in columns.
    absent : list of Finding
        Files that do not exist.
    columns : list of str
        Columns read as classes.
    rejected : DataFrame
        Columns ``role`` (as written, in lower case) and ``case`` of each row with errors.
    """

    cohort: Cohort
    findings: list[Finding]
    absent: list[Finding]
    columns: list[str]
    rejected: pd.DataFrame


def read_manifest(
    path: str | PathLike,
    *,
    classes: Sequence[str] | None,
    rounding_step: float | None,
    standard_deviation: float | None,
    need_slides: bool = True,
) -> ManifestContent:
    """Read a manifest and collect its errors.

    Parameters are those of :func:`load_cohort`. Errors in the table as a whole are raised as there.
    """
    path = Path(path)
    step, deviation = points_of_error(rounding_step, standard_deviation)
    header, lines = read_table(path, RESERVED)
    reserved, candidates = _find_columns(path, header, classes)
    columns = [Column(name) for name in candidates]
    rows = collect(lines, header, reserved, columns)
    if not rows.lines:
        raise ValueError(f"{path} has a header but no slides; give one row per slide.")
    if not columns:  # the classes are those in the column "predominant"
        candidates = sorted({name for order in rows.orders for name in order if name})
        columns = [Column(name) for name in candidates]
        for column in columns:
            column.add([""] * len(rows.lines))
    records = gather(columns, len(rows.lines))
    findings = [
        Finding((), None, unreadable(column, rows)) for column in columns if column.unreadable
    ]
    widened = records.widened(step, deviation)
    kept = list(range(len(columns)))
    if classes is None:
        kept, found = check_columns(rows, records, widened, candidates)
        findings += found
    records = widened.of(kept)
    mpps, found = check_mpps(rows)
    findings += found
    findings += check_slides(rows) + check_roles(rows)
    names = [candidates[k] for k in kept]
    findings += check_sums(rows, records, names)
    findings += check_orders(rows, records, names)
    findings += check_bags(rows, records)
    findings += check_cases(rows, records)
    findings.sort(key=lambda finding: finding.rows[:1])
    is_good = records.is_readable
    for finding in findings:
        is_good[list(finding.rows)] = False
    good, bad = np.flatnonzero(is_good).tolist(), np.flatnonzero(~is_good).tolist()
    cohort = _make_cohort(path.parent, rows, mpps, records, names, good)
    absent = absent_files(path.parent, rows, slides=need_slides)
    rejected = pd.DataFrame(
        {
            "role": pd.Series([rows.roles[row] for row in bad], dtype=object),
            "case": pd.Series([rows.cases[row] or rows.slides[row] for row in bad], dtype=object),
        }
    )
    return ManifestContent(cohort, findings, absent, candidates, rejected)


def listed(start: str, problems: list[str]) -> str:
    """Message with the first problems, one per line."""
    shown = [f"  - {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        shown.append(f"  - and {len(problems) - SHOWN} more")
    return "\n".join([start, *shown])


def points_of_error(
    step: float | None, deviation: float | None
) -> tuple[float | None, float | None]:
    """The stated error in percentage points."""
    if step is not None and deviation is not None:
        raise ValueError(
            "rounding_step and standard_deviation are both given; state the error in one way."
        )
    for name, value in (("rounding_step", step), ("standard_deviation", deviation)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} is {value!r}; give a number, such as 0.05 for 5 points.")
        check_stated_error(value, name)
    return (None if step is None else 100 * step), (None if deviation is None else 100 * deviation)


def _find_columns(
    path: Path, header: list[str], classes: Sequence[str] | None
) -> tuple[dict[str, str], list[str]]:
    """Reserved columns as spelled in the header, and the classes."""
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise ValueError(
            f"{path} has several columns with the same name: {twice}; rename or remove one."
        )
    if "" in header:
        raise ValueError(
            f"column {header.index('') + 1} of {path} has no name; name it or remove it."
        )
    columns: dict[str, str] = {}
    for name in header:
        if name.lower() in RESERVED:
            if name.lower() in columns:
                raise ValueError(
                    f"{path} has several columns with the same name: {[columns[name.lower()], name]};"
                    " rename or remove one."
                )
            columns[name.lower()] = name
    others = [name for name in header if name not in columns.values()]
    missing = [name for name in ("slide", "role") if name not in columns]
    if missing:
        raise ValueError(
            f"{path} has no column {' and no column '.join(map(repr, missing))}; its header reads"
            f" {header}.{suggestion(missing[0], others)} Needed are slide, role, annotation (for labeled"
            " slides) and one column per class; fields are separated by comma, semicolon or tab."
        )
    if classes is None:
        check_distinct(others, f"Columns of {path},")
        _refuse_outline_names(path, others)
        for name in others:
            meant = suggestion(name, [known for known in RESERVED if known not in columns])
            if meant:
                raise ValueError(
                    f"{path} has a column {name!r}.{meant} Rename it or, if it is a class, list the classes: "
                    "classes=[...], on the command line --classes ..."
                )
        return columns, others
    if isinstance(classes, str):
        raise TypeError(f"classes is the string {classes!r}; give a list of column names.")
    classes = list(classes)
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes {classes} names a class twice; name each once.")
    _refuse_outline_names(path, classes)
    unknown = [
        name
        for name in classes
        if (name not in header and "predominant" not in columns) or name in columns.values()
    ]
    if unknown:
        raise ValueError(
            f"{path} has no class column {unknown[0]!r}; its header reads {header}."
            f"{suggestion(unknown[0], others)}"
        )
    return columns, classes


def _refuse_outline_names(path: Path, classes: Sequence[str]) -> None:
    wrong = [name for name in classes if name in (NON_CANCER, VAGUE)]
    if wrong:
        raise ValueError(
            f"{path} has {wrong[0]!r} as a class, which is a name for outlines of other tissue. Recorded "
            "percentages are shares of the cancer: remove the column, and divide the other percentages of "
            "its rows by the share of cancer."
        )


def _make_cohort(
    folder: Path,
    rows: Rows,
    mpps: np.ndarray,
    records: Records,
    classes: list[str],
    good: list[int],
) -> Cohort:
    cases = [case or slide for case, slide in zip(rows.cases, rows.slides, strict=True)]
    index = pd.Index([rows.slides[row] for row in good], name="slide", dtype=object)
    annotations = [rows.annotations[row] for row in good]
    slides = pd.DataFrame(
        {
            "path": pd.Series([folder / rows.paths[row] for row in good], index, dtype=object),
            "annotation": pd.Series(
                [folder / name if name else None for name in annotations], index, dtype=object
            ),
            "role": pd.Series([rows.roles[row] for row in good], index, dtype=object),
            "mpp": mpps[good],
            "case": pd.Series([cases[row] for row in good], index, dtype=object),
        },
        index=index,
    )
    is_recorded = records.is_recorded
    bearer: dict[str, int] = {}  # the row that holds the record of each case
    orders: dict[str, tuple[str, ...]] = {}
    for row in good:
        if not is_recorded[bearer.setdefault(cases[row], row)]:
            bearer[cases[row]] = row
        if rows.orders[row]:
            orders.setdefault(cases[row], rows.orders[row])
    chosen = list(bearer.values())
    shown = records.take(chosen)
    is_partial = shown.is_partial[:, np.newaxis]
    known = shown.is_recorded[:, np.newaxis] & ~(is_partial & shown.is_unknown)
    orders = {
        case: orders[case]
        for case, row in bearer.items()
        if case in orders and not is_recorded[row]
    }
    value, lower, upper = (
        np.where(is_partial, a, b) for a, b in zip(shown.of_known()[:3], shown[:3], strict=True)
    )
    shown = Records(value, lower, upper, shown.states)
    tables = [
        pd.DataFrame(
            np.where(known, part / 100, np.nan), pd.Index(list(bearer), name="case"), classes
        )
        for part in (shown.points(), shown.lower, shown.upper)
    ]
    return Cohort(slides, tables[0], tables[1], tables[2], classes, orders)
