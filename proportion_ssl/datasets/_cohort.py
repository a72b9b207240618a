"""The manifest of a cohort: which slides there are, what is known of each, what it is used for."""

import csv
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

ROLES = ("labeled", "bag", "test")
_OWN_COLUMNS = ("slide", "annotation", "role", "mpp")

#: How far the percentages of a slide may be from summing to 100: they are often rounded.
SUM_TOLERANCE = 1.0 + 1e-9


@dataclass(frozen=True)
class Cohort:
    """Slides of a cohort, their roles and their recorded class proportions.

    Attributes
    ----------
    slides : DataFrame indexed by slide id (the file name without its ending)
        Columns ``path``, ``annotation`` (path, or None), ``role``, ``mpp`` (microns per pixel that
        replace what the file says; NaN: the file's own).
    proportions : DataFrame of shape (n_slides, n_classes), same index
        Recorded shares in [0, 1]; rows of NaN where none are recorded.
    classes : list of str
        Columns of ``proportions``, in the order of the manifest.
    """

    slides: pd.DataFrame
    proportions: pd.DataFrame
    classes: list[str]

    @property
    def labeled(self) -> list[str]:
        """Ids of the slides with outlines to train on."""
        return self._of_role("labeled")

    @property
    def bags(self) -> list[str]:
        """Ids of the slides of which only proportions are used."""
        return self._of_role("bag")

    @property
    def test(self) -> list[str]:
        """Ids of the slides to evaluate on."""
        return self._of_role("test")

    def _of_role(self, role):
        return self.slides.index[self.slides["role"] == role].tolist()


def load_cohort(manifest: str | PathLike) -> Cohort:
    """Read the manifest of a cohort.

    Parameters
    ----------
    manifest : path-like
        CSV file, UTF-8 with or without byte-order mark, separated by commas or, with decimal points
        or commas, by semicolons. One row per slide; paths are relative to the file's folder. Columns:

        - ``slide``: path of the slide;
        - ``annotation``: path of its outlines; may be empty unless the role is "labeled";
        - ``role``: "labeled", "bag" or "test";
        - ``mpp`` (optional): microns per pixel, where the file lacks them;
        - every other column is a class: its share of the slide's tumour area in percent. All
          or none of a row are filled in; a bag needs them.

    Returns
    -------
    cohort : Cohort
        Percentages become shares; rounded ones that sum to 99 to 101 are kept as they are.

    Raises
    ------
    FileNotFoundError
        If the manifest, a slide or an annotation is missing.
    ValueError
        If the table is not as above; the message names the slide.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.tif").write_bytes(b"")
    ...     text = "slide,annotation,role,acinar,solid\\na.tif,,bag,70,30\\n"
    ...     _ = Path(folder, "cohort.csv").write_text(text)
    ...     cohort = load_cohort(Path(folder, "cohort.csv"))
    >>> cohort.proportions.loc["a"].to_dict()
    {'acinar': 0.7, 'solid': 0.3}
    """
    manifest = Path(manifest)
    table, decimal = _read_table(manifest)
    classes = [name for name in table.columns if name not in _OWN_COLUMNS]
    ids = [Path(path).stem for path in table["slide"]]
    twice = pd.Index(ids)[pd.Index(ids).duplicated()]
    if len(twice):
        raise ValueError(f"{manifest}: slide {twice[0]!r} is listed more than once.")
    rows = [
        _check_row(manifest, slide, row, classes, decimal)
        for slide, row in zip(ids, table.to_dict("records"), strict=True)
    ]
    index = pd.Index(ids, name="slide")
    return Cohort(
        slides=pd.DataFrame([row for row, _ in rows], index=index, dtype=object).astype(
            {"mpp": float}
        ),
        proportions=pd.DataFrame([shares for _, shares in rows], index=index, columns=classes),
        classes=classes,
    )


def _read_table(manifest):
    """All cells as stripped text, and the decimal sign."""
    try:
        text = manifest.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{manifest} is not UTF-8 ({error}); save it as 'CSV UTF-8'.") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2:
        raise ValueError(
            f"{manifest} lists no slides; give a line of column names and one per slide."
        )
    delimiter = ";" if ";" in lines[0] else ","
    names, *records = (
        [cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)
    )
    missing = [name for name in ("slide", "annotation", "role") if name not in names]
    if missing:
        raise ValueError(f"{manifest} has no column {missing[0]!r}; its columns are {names}.")
    if len(set(names)) < len(names) or "" in names:
        raise ValueError(f"{manifest}: every column needs a name of its own; got {names}.")
    if not set(names) - set(_OWN_COLUMNS):
        raise ValueError(f"{manifest} has no class columns; add one per class, with percentages.")
    for number, record in enumerate(records, start=2):
        if len(record) != len(names):
            raise ValueError(
                f"{manifest}, line {number}: {len(record)} cells for {len(names)} columns."
            )
    return pd.DataFrame(records, columns=names, dtype=object), "," if delimiter == ";" else "."


def _check_row(manifest, slide, row, classes, decimal):
    """What is known of one slide, and its shares."""
    where = f"{manifest}, slide {slide!r}"
    if not slide:
        raise ValueError(f"{manifest}: a row has no slide.")
    if row["role"] not in ROLES:
        raise ValueError(f"{where}: role is {row['role']!r}; give one of {', '.join(ROLES)}.")
    if row["role"] == "labeled" and not row["annotation"]:
        raise ValueError(f"{where} is labeled but has no annotation.")
    path = _existing(manifest.parent / row["slide"], where, "slide")
    annotation = None
    if row["annotation"]:
        annotation = _existing(manifest.parent / row["annotation"], where, "annotation")
    mpp = _number(row.get("mpp", ""), where, "mpp", decimal)
    if mpp <= 0:
        raise ValueError(f"{where}: mpp is {mpp:g}; give microns per pixel, above 0.")
    percent = np.array([_number(row[name], where, name, decimal) for name in classes])
    known = {"path": path, "annotation": annotation, "role": row["role"], "mpp": mpp}
    if np.isnan(percent).all():
        if row["role"] == "bag":
            raise ValueError(f"{where} is a bag but has no percentages.")
        return known, percent
    if np.isnan(percent).any():
        raise ValueError(
            f"{where}: class {classes[np.isnan(percent).argmax()]!r} is empty; write 0 or a share."
        )
    if (percent < 0).any():
        raise ValueError(f"{where}: class {classes[(percent < 0).argmax()]!r} is negative.")
    total = percent.sum()
    if abs(total - 100) > SUM_TOLERANCE:
        hint = " Give percent, not fractions." if abs(total - 1) <= SUM_TOLERANCE / 100 else ""
        raise ValueError(f"{where}: the classes sum to {total:g}, not 100 (within 1).{hint}")
    return known, percent / 100


def _number(text, where, column, decimal):
    """A cell as a number, NaN where it is empty."""
    if not text:
        return np.nan
    try:
        value = float(text.replace(decimal, "."))
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(f"{where}: {column} is {text!r}, not a number.")
    return value


def _existing(path, where, what):
    if not path.is_file():
        raise FileNotFoundError(f"{where}: there is no {what} file {path}.")
    return path
