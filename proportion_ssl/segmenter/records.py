"""Recorded proportions of new slides, from a table."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

SUM_TOLERANCE = 1.0  # percentage points


def read_records(path: str | PathLike, classes: Sequence[str]) -> pd.DataFrame:
    """Percentages by slide as fractions.

    Parameters
    ----------
    path : path-like
        A table with a header; fields separated by comma, semicolon or tab. Column ``slide``: file name of the
        slide, with or without folder and suffix; one column per class with percentages, an empty one is 0.
        Other columns are left unread.
    classes : sequence of str
        Of the model.

    Returns
    -------
    proportions : DataFrame
        Slide names by classes; fractions.

    Raises
    ------
    ValueError
        If a column is missing, or a row is no list of percentages that sum to 100 within 1 point; the row is
        named.
    """
    table = pd.read_csv(path, sep=None, engine="python", encoding="utf-8-sig")
    missing = [name for name in ("slide", *classes) if name not in table.columns]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(map(repr, missing))}; its header reads {list(table.columns)}."
        )
    shares = table[list(classes)].apply(pd.to_numeric, errors="coerce")
    unreadable = shares.isna() & table[list(classes)].notna()
    shares = shares.fillna(0.0)
    wrong = unreadable.any(axis=1) | (shares < 0).any(axis=1)
    wrong |= np.abs(shares.sum(axis=1) - 100) > SUM_TOLERANCE + 1e-9
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{path}, line {row + 2}: the percentages of {table['slide'][row]!r} are "
            f"{table[list(classes)].iloc[row].to_dict()}; give numbers from 0 that sum to 100 within 1 point."
        )
    names = [
        Path(str(name)).stem if Path(str(name)).suffix else str(name) for name in table["slide"]
    ]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{path} has several rows of {', '.join(twice)}; give one row per slide.")
    shares.index = pd.Index(names, name="slide")
    return shares / 100
