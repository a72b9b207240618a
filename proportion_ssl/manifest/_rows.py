"""Rows of a manifest, and checks of slides, roles, resolutions and files."""

import os
import re
import unicodedata
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from proportion_ssl._checks import suggestion
from proportion_ssl.manifest._cells import read_number, read_order
from proportion_ssl.manifest._records import Column

ROLES = ("labeled", "bag", "test")
RESERVED = ("slide", "annotation", "role", "mpp", "case", "predominant")
SHOWN = 12  # problems or slides listed in one message
FINEST_MPP, COARSEST_MPP = 0.02, 20.0
LONGEST_NAME = 200  # characters; a name becomes part of file names
_ABSENT = 1_000  # largest number of missing files that are named
_SUGGESTED, _LISTED = (
    10,
    10_000,
)  # of these, files for which their folder is listed; names that are read
_AT_ONCE = 2_000  # rows per block; larger blocks only burden the garbage collector
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Finding(NamedTuple):
    """An error in a manifest."""

    rows: tuple[int, ...]  # counted from 0; empty: the whole table
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
    orders: list[tuple[str, ...]]  # classes, the most frequent first; empty where not stated

    def line(self, row: int) -> str:
        """Where a row is, for messages."""
        return f"line {self.lines[row]}"

    def name(self, row: int) -> str:
        """What a row is about, for messages."""
        return f"slide {self.slides[row]!r}"

    def without_column(self) -> str:
        """What to do with a column that is not a class, for messages."""
        return "list the classes: classes=[...], on the command line --classes ..."

    def place(self, row: int) -> str:
        """Start of messages about a row."""
        return f"{self.line(row)}: {self.name(row)}"

    def places(self, rows: Iterable[int]) -> str:
        """Several rows, for messages."""
        listed = [f"{self.slides[row]!r} (line {self.lines[row]})" for row in rows]
        if len(listed) > SHOWN:
            listed[SHOWN:] = [f"{len(listed) - SHOWN} more"]
        return f"slide{'s' * (len(listed) > 1)} {', '.join(listed)}"


def collect(
    lines: Iterable[tuple[int, list[str]]],
    header: list[str],
    reserved: dict[str, str],
    columns: list[Column],
) -> Rows:
    """Read all rows; the cells of classes are added to `columns`."""
    rows = Rows([], [], [], [], [], [], [], [])
    predominant: list[str] = []
    fields = {
        "slide": rows.paths,
        "annotation": rows.annotations,
        "role": rows.roles,
        "mpp": rows.mpps,
        "case": rows.cases,
        "predominant": predominant,
    }
    at = {name: header.index(spelled) for name, spelled in reserved.items()}
    known: dict[str, str] = {}  # equal strings share one object
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
            if column.name in header:
                position = header.index(column.name)
                column.add([row[position] for _, row in block])
            else:  # a class that occurs only in the column "predominant"
                column.add([""] * len(block))
    rows.slides.extend(map(stem, rows.paths))
    rows.orders.extend(map(read_order, predominant))
    rows.roles[:] = map(str.lower, rows.roles)
    return rows


def check_slides(rows: Rows) -> list[Finding]:
    """Find names that cannot be slide ids, which become file names."""
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
                f"{rows.place(row)} {wrong}; results are written to files with this name: rename it"
                f" (at most {LONGEST_NAME} characters)."
            )
            findings.append(Finding((row,), slide, message))
        before = first.setdefault(plain_name(slide), row)
        if before != row:
            message = (
                f"slide {slide!r} occurs twice (lines {rows.lines[before]} and {line}); the file"
                " name without suffix is a slide's id and must be unique."
                if slide == rows.slides[before]
                else f"{rows.places([before, row])} have names that some file systems treat as the"
                " same; rename one."
            )
            findings.append(Finding((row,), slide, message))
    return findings


def check_roles(rows: Rows) -> list[Finding]:
    findings = []
    for row, (role, annotation) in enumerate(zip(rows.roles, rows.annotations, strict=True)):
        if role not in ROLES:
            known = ", ".join(map(repr, ROLES))
            wrong = f"has role {role!r}; roles are {known}.{suggestion(role, ROLES)}"
        elif role == "labeled" and not annotation:
            wrong = (
                "is labeled but has no annotation; give the file with its outlines, or change its"
                " role to bag or test."
            )
        else:
            continue
        findings.append(Finding((row,), rows.slides[row], f"{rows.place(row)} {wrong}"))
    return findings


def check_mpps(rows: Rows) -> tuple[np.ndarray, list[Finding]]:
    """Microns per pixel, NaN if not stated, and findings for implausible values."""
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
            " use the value in the file.",
        )
        for row in np.flatnonzero(wrong).tolist()
    ]


def absent_files(folder: Path, rows: Rows, *, slides: bool = True) -> list[Finding]:
    """Slides (unless left out) and annotation files that do not exist.

    The first 1,000 are named, the others are counted.
    """
    findings: list[Finding] = []
    n_absent = 0
    for row, (slide, annotation) in enumerate(zip(rows.paths, rows.annotations, strict=True)):
        wanted = slide if slides else ""
        for name, what in ((wanted, "file"), (annotation, "annotation file")):
            if not name or os.path.exists(os.path.join(folder, name)):
                continue
            n_absent += 1
            if len(findings) < _ABSENT:
                hint = " (write / between folders)" if os.sep == "/" and "\\" in name else ""
                path = os.path.join(folder, name)
                if name == annotation and len(findings) < _SUGGESTED:
                    hint += _same_stem(path)
                message = f"{rows.place(row)}: {what} not found: {path}{hint}."
                findings.append(Finding((row,), rows.slides[row], message))
    if n_absent > len(findings):
        message = f"{n_absent - len(findings)} more files were not found."
        findings.append(Finding((), None, message))
    return findings


def _same_stem(path: str) -> str:
    """Hint that names a file of the same folder and name with another suffix, if there is one."""
    parent, name = os.path.split(path)
    try:
        with os.scandir(parent) as entries:
            there = [entry.name for entry in islice(entries, _LISTED)]
    except OSError:  # the folder is missing as well
        return ""
    alike = sorted(other for other in there if plain_name(stem(other)) == plain_name(stem(name)))
    return f" (the folder has {alike[0]!r})" if alike else ""


def plain_name(name: str) -> str:
    """Normal form of a name: equal for names that some file system treats as the same."""
    if not name.isascii():
        name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return name.lower().rstrip(" .")


def stem(name: str) -> str:
    """Name of a file without its last suffix, as ``Path(name).stem``."""
    name = name.rstrip("/")
    base = name[max(name.rfind("/"), name.rfind(os.sep)) + 1 :]
    dot = base.rfind(".")
    return base[:dot] if 0 < dot < len(base) - 1 else base
