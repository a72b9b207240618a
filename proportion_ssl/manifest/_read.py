"""Read a manifest: what each row says, and everything that cannot be right."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import islice
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from proportion_ssl.manifest._cells import looks_like_a_date, read_number
from proportion_ssl.manifest._cohort import Cohort
from proportion_ssl.manifest._records import (
    EXACT_SUM,
    SUM_TOLERANCE,
    Column,
    Records,
    choose_columns,
    gather,
)
from proportion_ssl.manifest._table import read_table

ROLES = ("labeled", "bag", "test")
FINEST_MPP, COARSEST_MPP = 0.02, 20.0
LONGEST_NAME = 200  # characters; a name becomes part of file names
_RESERVED = ("slide", "annotation", "role", "mpp", "case")
_AT_ONCE = 2_000  # rows; more would only burden the garbage collector
_SHOWN = 12  # problems listed in one message
_NO_RECORD = "is a bag but has no proportions; give the percentage of every class"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Finding(NamedTuple):
    """Something in a manifest that cannot be right."""

    rows: tuple[int, ...]  # counted from 0; none: the table as a whole
    slide: str | None
    message: str


class Rows(NamedTuple):
    """The columns of a manifest, one entry per row, as written."""

    lines: list[int]
    paths: list[str]
    slides: list[str]  # ids
    annotations: list[str]
    roles: list[str]  # in lower case
    mpps: list[str]
    cases: list[str]

    def place(self, row: int) -> str:
        """How messages about a row begin."""
        return f"line {self.lines[row]}: slide {self.slides[row]!r}"

    def places(self, rows: Iterable[int]) -> str:
        """How messages call several rows."""
        listed = [f"{self.slides[row]!r} (line {self.lines[row]})" for row in rows]
        if len(listed) > _SHOWN:
            listed[_SHOWN:] = [f"{len(listed) - _SHOWN} more"]
        return f"slide{'s' * (len(listed) > 1)} {', '.join(listed)}"


def load_cohort(
    path: str | PathLike,
    *,
    classes: Sequence[str] | None = None,
    rounding_step: float | None = None,
    standard_deviation: float | None = None,
) -> Cohort:
    """Read and check a manifest of slides.

    Parameters
    ----------
    path : path-like
        A text table with a header and one slide per row. Columns, in any order:

        - ``slide``: file of the slide, absolute or relative to the folder of the manifest;
        - ``role``: "labeled" (outlines to learn from), "bag" (only proportions known) or "test";
        - ``annotation``: file with the outlines; needed for labeled slides, may be empty for
          others (outlines of test slides are used for evaluation only);
        - ``mpp`` (optional): microns per pixel of the full-resolution image, for files that do
          not say; empty where the file is right;
        - ``case`` (optional): patient or tumor, for slides that belong together; where it is empty
          the slide is its own case;
        - one column per class with the percentage of the cancer area; needed for bags, may be
          empty for others. In a row with percentages an empty cell counts as 0.

        What spreadsheet programs write is understood: UTF-8 with or without byte order mark;
        fields separated by comma, semicolon or tab, quoted where needed; a first line such as
        ``sep=;``; decimal commas (quoted, where the comma also separates fields); percent signs;
        empty lines. Upper and lower case of roles and of the names of the columns that are not
        classes do not matter.
    classes : sequence of str or None
        Columns that are classes, in the order wanted; other unknown columns are then left unread.
        None takes every column that is not named above, and refuses those that do not look like
        classes.
    rounding_step : float in (0, 0.5], optional
        Percentages were rounded to multiples of this, as a fraction: 0.05 for steps of 5 points.
        Each may be half a step off.
    standard_deviation : float in [0, 0.5], optional
        Standard deviation of the percentages, as a fraction: 0.1 for 10 points; a recorded 0 stays
        0. Give at most one of the two; they mean the same as in :class:`~proportion_ssl.Bags`.

    Returns
    -------
    cohort : Cohort

    Raises
    ------
    FileNotFoundError
        If the manifest, a slide or an annotation does not exist.
    ValueError
        If the table is empty, lacks a column, or has rows that cannot be right: all such rows are
        named, each with its slide and line.

    Notes
    -----
    *Percentages.* Besides numbers a cell may hold a range ("70-80", "75 ± 5"), a limit ("<5" is 0
    to 5, ">90" is 90 to 100), an approximate number ("~10", "ca. 10", "about 10" are 5 to 15: 5
    points either way) or "trace" (0 to 5). A range says for itself how far it can be off:
    `rounding_step` and `standard_deviation` are for the plain numbers.

    *Sums.* Without a stated error the numbers of a row must sum to 100 within 1 point, and are
    divided by 100 and *not* rescaled: a row 33, 33, 33 stays at 0.33 each. With ranges or a stated
    error any row is accepted whose intervals admit a sum of 100 (within 1 point); the proportions
    are then the point within the intervals that sums to 1 and is nearest to what was written.
    What is further off is more likely a slip than rounding, and is for the person who wrote it to
    mend.

    *Cases.* The rows of a case carry the same record, or only one of them carries it: it is the
    record of the whole case. All slides of a case have the same role: what is outlined or recorded
    of a patient would otherwise leak into the scores of the patient's other slides.

    *Columns that are no classes.* Without `classes` a column is refused if most of its cells are
    no percentages, if the rows sum to 100 only without it, or if it is 0 in every record.

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
    cohort, findings, absent, columns = read_manifest(
        path,
        classes=classes,
        rounding_step=rounding_step,
        standard_deviation=standard_deviation,
    )
    if findings:
        read = f"columns read as classes: {', '.join(columns) or 'none'}"
        start = f"{path} cannot be used as a cohort ({read}):"
        raise ValueError(_listed(start, [finding.message for finding in findings]))
    if absent:
        start = (
            f"{path} names files that do not exist (paths are absolute, or relative to the"
            " manifest's folder):"
        )
        raise FileNotFoundError(_listed(start, [finding.message for finding in absent]))
    return cohort


def read_manifest(
    path: str | PathLike,
    *,
    classes: Sequence[str] | None,
    rounding_step: float | None,
    standard_deviation: float | None,
) -> tuple[Cohort, list[Finding], list[Finding], list[str]]:
    """Read a manifest as far as it can be read.

    Parameters are those of :func:`load_cohort`, and so are the errors about the table as a whole.

    Returns
    -------
    cohort : Cohort
        The rows in which nothing is wrong, whether their files exist or not.
    findings : list of Finding
        What is wrong with the others, and with columns.
    absent : list of Finding
        Files that do not exist.
    columns : list of str
        What was taken for columns of classes.
    """
    path = Path(path)
    step, deviation = _check_error(rounding_step, standard_deviation)
    header, lines = read_table(path, _RESERVED)
    reserved, candidates = _find_columns(path, header, classes)
    columns = [Column(name) for name in candidates]
    rows = _collect(lines, header, reserved, columns)
    if not rows.lines:
        raise ValueError(f"{path} has a header but no slides; give one row per slide.")
    records = gather(columns, len(rows.lines))
    findings = [
        Finding((), None, _unreadable(column, rows)) for column in columns if column.unreadable
    ]
    widened = records.widened(step, deviation)
    kept = list(range(len(columns)))
    if classes is None:
        kept, found = _check_columns(rows, records, widened, candidates)
        findings += found
    records = widened.of(kept)
    mpps, found = _check_mpps(rows)
    findings += found
    findings += _check_slides(rows) + _check_roles(rows)
    findings += _check_sums(rows, records)
    findings += _check_bags(rows, records)
    findings += _check_cases(rows, records)
    findings.sort(key=lambda finding: finding.rows[:1])
    is_good = records.is_readable
    for finding in findings:
        is_good[list(finding.rows)] = False
    good = np.flatnonzero(is_good).tolist()
    cohort = _make_cohort(path.parent, rows, mpps, records, [candidates[k] for k in kept], good)
    return cohort, findings, _absent_files(path.parent, rows), candidates


def _absent_files(folder: Path, rows: Rows) -> list[Finding]:
    """Slides and annotations that do not exist."""
    findings = []
    for row, (slide, annotation) in enumerate(zip(rows.paths, rows.annotations, strict=True)):
        for name, what in ((slide, "no file"), (annotation, "no annotation file")):
            path = os.path.join(folder, name)
            if name and not os.path.exists(path):
                hint = " (write / between folders)" if os.sep == "/" and "\\" in name else ""
                message = f"{rows.place(row)} is incomplete: {what} {path}{hint}."
                findings.append(Finding((row,), rows.slides[row], message))
    return findings


def _listed(start: str, problems: list[str]) -> str:
    shown = [f"  - {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  - and {len(problems) - _SHOWN} more")
    return "\n".join([start, *shown])


def _check_error(step: float | None, deviation: float | None) -> tuple[float | None, float | None]:
    """The stated error in percentage points."""
    if step is not None and deviation is not None:
        raise ValueError(
            "rounding_step and standard_deviation are given together; state the error in one way."
        )
    for name, value in (("rounding_step", step), ("standard_deviation", deviation)):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"{name} is {value!r}; give a number, such as 0.05 for 5 points.")
        if not 0 <= value <= 0.5 or (name == "rounding_step" and value == 0):
            raise ValueError(
                f"{name} is {value!r}; give a fraction up to 0.5: 0.05 for 5 percentage points."
            )
    return (None if step is None else 100 * step), (None if deviation is None else 100 * deviation)


def _find_columns(
    path: Path, header: list[str], classes: Sequence[str] | None
) -> tuple[dict[str, str], list[str]]:
    """Names of the reserved columns as the header spells them, and the classes."""
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise ValueError(f"{path} has columns of the same name: {twice}; name each once.")
    if "" in header:
        raise ValueError(
            f"column {header.index('') + 1} of {path} has no name; name it or remove it."
        )
    columns: dict[str, str] = {}
    for name in header:
        if name.lower() in _RESERVED:
            if name.lower() in columns:
                raise ValueError(
                    f"{path} has columns of the same name: {[columns[name.lower()], name]};"
                    " name each once."
                )
            columns[name.lower()] = name
    missing = [name for name in ("slide", "role") if name not in columns]
    if missing:
        raise ValueError(
            f"{path} has no column {' and no column '.join(map(repr, missing))}; its header reads"
            f" {header}. Needed are slide, role, annotation (for labeled slides) and one column"
            " per class; fields are separated by comma, semicolon or tab."
        )
    if classes is None:
        return columns, [name for name in header if name not in columns.values()]
    if isinstance(classes, str):
        raise TypeError(f"classes is the string {classes!r}; give a list of column names.")
    classes = list(classes)
    if len(set(classes)) < len(classes):
        raise ValueError(f"classes {classes} names a class twice; name each once.")
    unknown = [name for name in classes if name not in header or name in columns.values()]
    if unknown:
        raise ValueError(f"{path} has no class column {unknown}; its header reads {header}.")
    return columns, classes


def _collect(
    lines: Iterable[tuple[int, list[str]]],
    header: list[str],
    reserved: dict[str, str],
    columns: list[Column],
) -> Rows:
    """Read all rows; the cells of classes go into `columns`."""
    rows = Rows([], [], [], [], [], [], [])
    fields = {
        "slide": rows.paths,
        "annotation": rows.annotations,
        "role": rows.roles,
        "mpp": rows.mpps,
        "case": rows.cases,
    }
    at = {name: header.index(spelled) for name, spelled in reserved.items()}
    known: dict[str, str] = {}  # equal texts share one object
    while block := list(islice(lines, _AT_ONCE)):
        rows.lines.extend([line for line, _ in block])
        for name, found in fields.items():
            if name not in at:
                found.extend([""] * len(block))
            elif name in ("role", "mpp"):
                found.extend([known.setdefault(row[at[name]], row[at[name]]) for _, row in block])
            else:
                found.extend([row[at[name]] for _, row in block])
        for column in columns:
            position = header.index(column.name)
            column.add([row[position] for _, row in block])
    rows.slides.extend(map(_stem, rows.paths))
    rows.roles[:] = map(str.lower, rows.roles)
    return rows


def _stem(name: str) -> str:
    """Name of a file without its last suffix, as ``Path(name).stem``."""
    name = name.rstrip("/")
    base = name[max(name.rfind("/"), name.rfind(os.sep)) + 1 :]
    dot = base.rfind(".")
    return base[:dot] if 0 < dot < len(base) - 1 else base


def _plain(name: str) -> str:
    """What names that some file system takes for equal have in common."""
    if not name.isascii():
        name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return name.lower().rstrip(" .")


def _check_slides(rows: Rows) -> list[Finding]:
    """Names that cannot be ids of slides, since these become names of files."""
    findings = []
    first: dict[str, int] = {}
    for row, (slide, line, path) in enumerate(
        zip(rows.slides, rows.lines, rows.paths, strict=True)
    ):
        if slide in ("", ".", ".."):
            said = f"{path!r} names no file" if path else "the slide column is empty"
            findings.append(Finding((row,), None, f"line {line}: {said}; give the slide's file."))
            continue
        wrong = None
        if len(slide) > LONGEST_NAME:
            wrong = f"has a name of {len(slide)} characters"
        elif _CONTROL.search(slide):
            wrong = "has control characters in its name"
        if wrong:
            message = (
                f"{rows.place(row)} {wrong}; results are written to files of that name: rename it"
                f" (at most {LONGEST_NAME} characters)."
            )
            findings.append(Finding((row,), slide, message))
        before = first.setdefault(_plain(slide), row)
        if before != row:
            message = (
                f"slide {slide!r} occurs twice (lines {rows.lines[before]} and {line}); the file"
                " name without suffix is a slide's id and must be unique."
                if slide == rows.slides[before]
                else f"{rows.places([before, row])} have names that some file systems take for the"
                " same; rename one."
            )
            findings.append(Finding((row,), slide, message))
    return findings


def _check_roles(rows: Rows) -> list[Finding]:
    findings = []
    for row, (role, annotation) in enumerate(zip(rows.roles, rows.annotations, strict=True)):
        if role not in ROLES:
            wrong = f"has role {role!r}; roles are {', '.join(map(repr, ROLES))}."
        elif role == "labeled" and not annotation:
            wrong = (
                "is labeled but has no annotation; give the file with its outlines, or make it a"
                " bag or a test slide."
            )
        else:
            continue
        findings.append(Finding((row,), rows.slides[row], f"{rows.place(row)} {wrong}"))
    return findings


def _check_mpps(rows: Rows) -> tuple[np.ndarray, list[Finding]]:
    """Microns per pixel, NaN where not stated, and those that cannot be right."""
    known = {text: read_number(text) for text in set(rows.mpps)}
    values = np.array([known[text] for text in rows.mpps], dtype=float)
    stated = np.array([bool(text) for text in rows.mpps])
    wrong = stated & ~((values >= FINEST_MPP) & (values <= COARSEST_MPP))
    return values, [
        Finding(
            (row,),
            rows.slides[row],
            f"{rows.place(row)} has mpp {rows.mpps[row]!r}; give microns per pixel of the"
            f" full-resolution image, from {FINEST_MPP:g} to {COARSEST_MPP:g}, or leave it empty to"
            " use what the file says.",
        )
        for row in np.flatnonzero(wrong).tolist()
    ]


def _unreadable(column: Column, rows: Rows) -> str:
    """What is wrong with the cells of a column that are no percentages, in one line."""
    (row, text), *others = column.unreadable
    more = column.n_unreadable - len(column.unreadable)
    listed = [f"line {rows.lines[other]}: {said!r}" for other, said in others]
    listed += [f"{more} more"] * (more > 0)
    hint = ""
    if any(looks_like_a_date(said) for _, said in column.unreadable):
        hint = " Spreadsheet programs turn 10-12 into a date: format the column as text."
    return (
        f"{rows.place(row)} has {text!r} for class {column.name!r}"
        f"{' (also ' * bool(listed) + ', '.join(listed) + ')' * bool(listed)}; give a percentage"
        " from 0 to 100, written as 70, 70-80, <5, >90, ~10 or trace (or, if the column is no"
        f" class, name the classes: load_cohort(..., classes=[...])).{hint}"
    )


def _check_columns(
    rows: Rows, records: Records, widened: Records, names: list[str]
) -> tuple[list[int], list[Finding]]:
    """Columns that may be classes, and a finding for each that does not look like one."""
    kept, zero, breaking = choose_columns(records, widened)
    advice = f"name the classes: load_cohort(..., classes={[names[k] for k in kept]})"
    wrong = dict.fromkeys(zero, "it is 0 in every record")
    if breaking:
        total = records.value.sum(axis=1)
        row = int(np.flatnonzero(records.is_recorded & (np.abs(total - 100) > EXACT_SUM))[0])
        example = f"with it those of slide {rows.slides[row]!r} sum to {total[row]:.10g}"
        wrong |= dict.fromkeys(breaking, f"without it the percentages sum to 100, {example}")
    return kept, [
        Finding(
            (),
            None,
            f"column {names[k]!r} does not look like a class: {wrong[k]}; {advice}, with"
            f" {names[k]!r} if it is one.",
        )
        for k in sorted(wrong)
        if records.of([k]).is_readable.all()  # otherwise there is a finding already
    ]


def _check_sums(rows: Rows, records: Records) -> list[Finding]:
    """Records that cannot sum to 100."""
    wrong = records.is_recorded & records.is_readable & ~records.can_sum
    findings = []
    for row in np.flatnonzero(wrong).tolist():
        lower, upper = records.lower[row].sum(), records.upper[row].sum()
        said = f"sum to {lower:.10g}" if lower == upper else f"sum to {lower:.4g} to {upper:.4g}"
        advice = f"they must sum to 100 within {SUM_TOLERANCE:g} point"
        if abs(records.value[row].sum() - 1) <= 0.02:
            advice = "these look like fractions: give percent"
        elif lower == upper:
            advice += " (or write ranges, or state rounding_step= or standard_deviation=)"
        message = f"line {rows.lines[row]}: the percentages of slide {rows.slides[row]!r} {said}; {advice}."
        findings.append(Finding((row,), rows.slides[row], message))
    return findings


def _check_bags(rows: Rows, records: Records) -> list[Finding]:
    """Bags without a record, among the slides that are cases of their own."""
    is_recorded = records.is_recorded
    return [
        Finding((row,), rows.slides[row], f"{rows.place(row)} {_NO_RECORD}.")
        for row, (role, case) in enumerate(zip(rows.roles, rows.cases, strict=True))
        if role == "bag" and not case and not is_recorded[row]
    ]


def _check_cases(rows: Rows, records: Records) -> list[Finding]:
    """Cases that would leak from learning to testing, and records that contradict each other."""
    named = np.flatnonzero([bool(case) for case in rows.cases])
    if not len(named):
        return []
    of_row, cases = pd.factorize(np.array([rows.cases[row] for row in named], dtype=object))
    in_order = named[np.argsort(of_row, kind="stable")]
    members = np.split(in_order, np.cumsum(np.bincount(of_row))[:-1])
    role = np.array([ROLES.index(role) if role in ROLES else -1 for role in rows.roles])[named]
    n_outlined, n_bags, n_tested = (
        np.bincount(of_row[role == k], minlength=len(cases)) for k in range(len(ROLES))
    )
    is_recorded = records.is_recorded[named]
    n_recorded = np.bincount(of_row[is_recorded], minlength=len(cases))
    wrong = {
        "no record": (n_bags > 0) & (n_recorded == 0),
        "leak": (n_tested > 0) & (n_outlined + n_bags > 0),
        "shared": (n_outlined > 0) & (n_bags > 0),
        "contradiction": _contradictions(records.take(named), of_row, len(cases)),
    }
    findings = _check_case_names(rows, dict(zip(cases.tolist(), members, strict=True)))
    for k in np.flatnonzero(np.any(list(wrong.values()), axis=0)).tolist():
        own = members[k].tolist()
        labeled, bags, tested = ([row for row in own if rows.roles[row] == role] for role in ROLES)
        recorded = [row for row in own if records.is_recorded[row]]
        messages = {
            "no record": f"{rows.place(own[0])} {_NO_RECORD}, in a row of case {cases[k]!r}.",
            "leak": (
                f"case {cases[k]!r} is learned from ({rows.places(labeled + bags)}) and tested on"
                f" ({rows.places(tested)}); give all its slides to one of the two."
            ),
            "shared": (
                f"case {cases[k]!r} has outlined slides ({rows.places(labeled)}) beside bags"
                f" ({rows.places(bags)}), whose record would leak when the outlined ones are left out in"
                " cross-validation; leave one of the two kinds out."
            ),
            "contradiction": (
                f"the rows of case {cases[k]!r} contradict each other ({rows.places(recorded)}); a"
                " record is that of the whole case: repeat it or give it once. If records are"
                " those of slides, leave the case of bags empty."
            ),
        }
        slide = rows.slides[own[0]] if len(own) == 1 else None
        findings += [
            Finding(tuple(own), slide, messages[kind]) for kind, found in wrong.items() if found[k]
        ]
    return findings


def _contradictions(records: Records, case: np.ndarray, n_cases: int) -> np.ndarray:
    """Cases of which two rows say different things, shape (n_cases,)."""
    recorded = np.flatnonzero(records.is_recorded)
    first = np.zeros(n_cases, dtype=int)
    first[case[recorded[::-1]]] = recorded[::-1]
    other = first[case[recorded]]
    differs = np.any([(part[recorded] != part[other]).any(axis=1) for part in records[:3]], axis=0)
    return np.bincount(case[recorded[differs]], minlength=n_cases) > 0


def _check_case_names(rows: Rows, members: dict[str, np.ndarray]) -> list[Finding]:
    """Different names of perhaps one case, and slides without a case named like a case."""
    findings = []
    first: dict[str, str] = {}
    for case, own in members.items():
        before = first.setdefault(_plain(case), case)
        if before != case:
            both = (*members[before].tolist(), *own.tolist())
            message = (
                f"cases {before!r} and {case!r} ({rows.places(both)}) differ in upper and lower"
                " case or in how accents are stored; spell a case in one way."
            )
            findings.append(Finding(both, None, message))
    for row, (slide, case) in enumerate(zip(rows.slides, rows.cases, strict=True)):
        if not case and slide in members:
            own = members[slide].tolist()
            message = (
                f"{rows.place(row)} names no case, but {slide!r} is the case of"
                f" {rows.places(own)}; name its case too, or rename that one."
            )
            findings.append(Finding((row, *own), slide, message))
    return findings


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
    for row in good:
        if not is_recorded[bearer.setdefault(cases[row], row)]:
            bearer[cases[row]] = row
    chosen = list(bearer.values())
    shown = records.take(chosen)
    known = shown.is_recorded[:, np.newaxis]
    tables = [
        pd.DataFrame(
            np.where(known, part / 100, np.nan), pd.Index(list(bearer), name="case"), classes
        )
        for part in (shown.points(), shown.lower, shown.upper)
    ]
    return Cohort(slides, tables[0], tables[1], tables[2], classes)
