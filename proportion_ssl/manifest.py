"""Manifest of a cohort of slides: files, roles and recorded class proportions."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["Cohort", "load_cohort"]

ROLES = ("labeled", "bag", "test")
SUM_TOLERANCE = 1.0  # percentage points: three thirds written 33 33 33 pass
_RESERVED = ("slide", "annotation", "role", "mpp", "case")
_SHOWN = 12  # problems listed in one message


@dataclass(frozen=True)
class Cohort:
    """Slides, their roles, the cases that they belong to, and the recorded proportions of the cases.

    Attributes
    ----------
    slides : DataFrame
        Indexed by slide id (file name without its last suffix), in the order of the manifest;
        columns ``path`` (Path), ``annotation`` (Path, None where there is none), ``role``
        ("labeled", "bag" or "test"), ``mpp`` (microns per pixel, NaN where not stated) and ``case``
        (id of the patient or tumor; the slide's own id where the manifest names no case).
    proportions : DataFrame
        Case id x class, in the order in which the cases occur: fractions (percentages / 100), NaN in
        rows where nothing was recorded. Rows sum to 1 within 0.01.
    lower, upper : DataFrame
        Same rows and columns: the interval of each fraction, equal to `proportions` where these are
        exact. ``lower <= proportions <= upper``; NaN where nothing was recorded.
    classes : list of str
        Classes, in the order of the columns of `proportions`.

    Notes
    -----
    A recorded row belongs to its case. The bag of a case is the patches of all its slides
    (`case_slides`), and whoever splits the cohort keeps the slides of a case together (`cases`).
    Without a column ``case`` every slide is a case with the slide's id, so that
    ``proportions.loc[slide]`` is the record of the slide.
    """

    slides: pd.DataFrame
    proportions: pd.DataFrame
    lower: pd.DataFrame
    upper: pd.DataFrame
    classes: list[str]

    def _with_role(self, role: str) -> list[str]:
        return self.slides.index[self.slides["role"] == role].tolist()

    @property
    def labeled(self) -> list[str]:
        """Ids of the slides with outlines to learn from."""
        return self._with_role("labeled")

    @property
    def bags(self) -> list[str]:
        """Ids of the slides of which only the proportions are known."""
        return self._with_role("bag")

    @property
    def test(self) -> list[str]:
        """Ids of the slides to predict."""
        return self._with_role("test")

    @property
    def cases(self) -> pd.Series:
        """Case id of each slide, indexed by slide id."""
        return self.slides["case"]

    @property
    def bag_cases(self) -> list[str]:
        """Ids of the cases that are bags: those with a slide of role "bag", each once."""
        return self.slides.loc[self.slides["role"] == "bag", "case"].unique().tolist()

    def case_of(self, slide: str) -> str:
        """Id of the case that a slide belongs to."""
        return self.slides.at[slide, "case"]

    def case_slides(self, case: str) -> list[str]:
        """Ids of all slides of a case, in the order of the manifest."""
        found = self.slides.index[self.slides["case"] == case].tolist()
        if not found:
            raise KeyError(f"the cohort has no case {case!r}.")
        return found


def load_cohort(path: str | PathLike, *, classes: Sequence[str] | None = None) -> Cohort:
    """Read and check a manifest of slides.

    Parameters
    ----------
    path : path-like
        A text table with a header and one slide per row. Columns, in any order:

        - ``slide``: file of the slide, absolute or relative to the folder of the manifest;
        - ``role``: "labeled" (outlines to learn from), "bag" (only proportions known) or "test";
        - ``annotation``: file with the outlines; needed for labelled slides, may be empty for
          others (outlines of test slides are used for evaluation only);
        - ``mpp`` (optional): microns per pixel of the full-resolution image, for files that do
          not say; empty where the file is right;
        - one column per class with the percentage of the slide's cancer area; needed for bags,
          may be empty for others. In a row with percentages an empty cell counts as 0.

        What spreadsheet programs write is understood: UTF-8 with or without byte order mark;
        fields separated by comma, semicolon or tab, quoted where needed; a first line such as
        ``sep=;``; decimal commas (quoted, where the comma also separates fields); percent signs;
        empty lines. Upper and lower case of roles and of the names of the columns that are not
        classes do not matter.
    classes : sequence of str or None
        Columns that are classes, in the order wanted; other unknown columns are then left unread.
        None takes every column that is not named above.

    Returns
    -------
    cohort : Cohort

    Raises
    ------
    FileNotFoundError
        If the manifest, a slide or an annotation does not exist.
    ValueError
        If the table is empty, lacks a column, or has rows that cannot be right: all such rows are
        named, each with its slide.

    Notes
    -----
    Percentages must sum to 100 within 1 point, and are then divided by 100 and *not* rescaled: a
    row 33, 33, 33 stays at 0.33 each. What is further off is more likely a slip than rounding, and
    is for the person who wrote it to mend.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("a.svs", "a.geojson", "b.svs"):
    ...         Path(folder, name).touch()
    ...     manifest = Path(folder, "cohort.csv")
    ...     _ = manifest.write_text(
    ...         "slide;annotation;role;acinar;solid\\n"
    ...         "a.svs;a.geojson;labeled;;\\n"
    ...         "b.svs;;bag;62,5;37,5\\n"
    ...     )
    ...     cohort = load_cohort(manifest)
    >>> cohort.labeled, cohort.bags
    (['a'], ['b'])
    >>> cohort.proportions.loc["b"].tolist()
    [0.625, 0.375]
    """
    path = Path(path)
    header, rows = _read_table(path)
    columns, classes = _find_columns(path, header, classes)
    problems: list[str] = []
    absent: list[str] = []
    entries: dict[str, dict] = {}
    lines: dict[str, int] = {}
    for line, row in rows:
        cells = dict(zip(header, row, strict=True))
        name = cells[columns["slide"]]
        if not name:
            problems.append(f"line {line}: the slide column is empty; give the slide's file.")
            continue
        slide_path = path.parent / name
        slide = slide_path.stem
        if slide in entries:
            problems.append(
                f"slide {slide!r} occurs twice (lines {lines[slide]} and {line}); the file name"
                " without suffix is a slide's id and must be unique."
            )
            continue
        lines[slide] = line
        entry, found = _check_row(slide, cells, columns, classes)
        problems += found
        if not slide_path.exists():
            absent.append(f"slide {slide!r} (line {line}): no file {slide_path}")
        if entry["annotation"] is not None:
            entry["annotation"] = path.parent / entry["annotation"]
            if not entry["annotation"].exists():
                absent.append(
                    f"slide {slide!r} (line {line}): no annotation file {entry['annotation']}"
                )
        entries[slide] = {"path": slide_path, **entry}
    if problems:
        read = f"columns read as classes: {', '.join(classes) or 'none'}"
        raise ValueError(_listed(f"{path} cannot be used as a cohort ({read}):", problems))
    if absent:
        raise FileNotFoundError(
            _listed(
                f"{path} names files that do not exist (paths are absolute, or relative to the"
                " manifest's folder):",
                absent,
            )
        )
    index = pd.Index(list(entries), name="slide")
    slides = pd.DataFrame(
        {
            "path": pd.Series([e["path"] for e in entries.values()], index, dtype=object),
            "annotation": pd.Series([e["annotation"] for e in entries.values()], index, object),
            "role": [e["role"] for e in entries.values()],
            "mpp": [e["mpp"] for e in entries.values()],
            "case": [e["case"] for e in entries.values()],
        },
        index=index,
    )
    recorded = {}
    for entry in entries.values():
        case, shares = entry["case"], entry["shares"]
        if case not in recorded or (classes and math.isnan(recorded[case][0])):
            recorded[case] = shares
    cases = pd.Index(list(recorded), name="case")
    shares = np.array(list(recorded.values()), dtype=float).reshape(len(cases), len(classes))
    proportions = pd.DataFrame(shares, cases, classes)
    return Cohort(slides, proportions, proportions.copy(), proportions.copy(), classes)


def _listed(start: str, problems: list[str]) -> str:
    shown = [f"  - {problem}" for problem in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        shown.append(f"  - and {len(problems) - _SHOWN} more")
    return "\n".join([start, *shown])


def _read_table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header and rows (line number, stripped cells) of the manifest."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no manifest {path}; give the path of a cohort.csv"
        ) from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); in a spreadsheet"
            " program, save it as 'CSV UTF-8'."
        ) from error
    lines = text.splitlines()
    delimiter, skipped = None, 0
    if lines and lines[0].strip().strip('"').lower().startswith("sep="):
        delimiter, skipped = lines[0].strip().strip('"')[4:5] or "\t", 1
    first = next((line for line in lines[skipped:] if line.strip()), None)
    if first is None:
        raise ValueError(f"{path} is empty; a manifest has a header and one row per slide.")
    if delimiter is None:
        delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO("\n".join(lines[skipped:])), delimiter=delimiter)
    table = [
        (reader.line_num + skipped, [cell.strip() for cell in row])
        for row in reader
        if any(cell.strip() for cell in row)
    ]
    header = table[0][1]
    while header and not header[-1]:  # spreadsheets pad with empty columns
        header.pop()
    rows = []
    for line, cells in table[1:]:
        if any(cells[len(header) :]):
            raise ValueError(
                f"{path}, line {line} has {len(cells)} fields but the header has {len(header)};"
                f" fields are separated by {delimiter!r}: quote those that contain it."
            )
        rows.append((line, (cells + [""] * len(header))[: len(header)]))
    if not rows:
        raise ValueError(f"{path} has a header but no slides; give one row per slide.")
    return header, rows


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
            f" {header}. Needed are slide, role, annotation (for labelled slides) and one column"
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


def _number(text: str) -> float:
    """A number as people write it; NaN if it is none."""
    text = text.removesuffix("%").strip()
    if text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _check_row(
    slide: str, cells: dict[str, str], columns: dict[str, str], classes: list[str]
) -> tuple[dict, list[str]]:
    """What a row says about its slide, and what is wrong with it."""
    problems = []
    role = cells[columns["role"]].lower()
    if role not in ROLES:
        problems.append(
            f"slide {slide!r} has role {cells[columns['role']]!r}; roles are"
            f" {', '.join(map(repr, ROLES))}."
        )
    annotation = cells[columns["annotation"]] if "annotation" in columns else ""
    if role == "labeled" and not annotation:
        problems.append(
            f"slide {slide!r} is labeled but has no annotation; give the file with its outlines,"
            " or make it a bag or a test slide."
        )
    mpp = math.nan
    stated = cells[columns["mpp"]] if "mpp" in columns else ""
    if stated:
        mpp = _number(stated)
        if not mpp > 0:
            problems.append(
                f"slide {slide!r} has mpp {stated!r}; give microns per pixel as a positive number,"
                " or leave it empty to use what the file says."
            )
    shares, found = _check_percentages(slide, {name: cells[name] for name in classes})
    problems += found
    if role == "bag" and not found and (not classes or math.isnan(shares[0])):
        problems.append(
            f"slide {slide!r} is a bag but has no proportions; give the percentage of every class."
        )
    case = cells[columns["case"]] if "case" in columns else ""
    entry = {
        "annotation": annotation or None,
        "role": role,
        "mpp": mpp,
        "case": case or slide,
        "shares": shares,
    }
    return entry, problems


def _check_percentages(slide: str, given: dict[str, str]) -> tuple[list[float], list[str]]:
    """Fractions of the classes (NaN if no cell is filled), and what is wrong with them."""
    unknown = [math.nan] * len(given)
    if not any(given.values()):
        return unknown, []
    percentages = {name: _number(text) if text else 0.0 for name, text in given.items()}
    problems = [
        f"slide {slide!r} has {given[name]!r} for class {name!r}; give a percentage from 0 to 100"
        " (or, if the column is no class, name the classes: load_cohort(..., classes=[...]))."
        for name, value in percentages.items()
        if not value >= 0
    ]
    if problems:
        return unknown, problems
    total = sum(percentages.values())
    if abs(total - 100) > SUM_TOLERANCE + 1e-9:
        advice = (
            "these look like fractions: give percent."
            if abs(total - 1) <= 0.02
            else f"they must sum to 100 within {SUM_TOLERANCE:g} point."
        )
        return unknown, [f"the percentages of slide {slide!r} sum to {total:g}; {advice}"]
    return [value / 100 for value in percentages.values()], []
