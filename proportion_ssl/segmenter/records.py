"""Recorded proportions of new slides, from a table."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pandas as pd

from proportion_ssl.manifest._read import listed, points_of_error
from proportion_ssl.manifest._records import Column, gather
from proportion_ssl.manifest._rows import check_slides, collect
from proportion_ssl.manifest._rules import check_sums, unreadable
from proportion_ssl.manifest._table import read_table


def read_records(
    path: str | PathLike,
    classes: Sequence[str],
    *,
    rounding_step: float | None = None,
    standard_deviation: float | None = None,
) -> dict[str, pd.DataFrame]:
    """Read recorded percentages by slide, in the form of :meth:`SlideSegmenter.segment`.

    Parameters
    ----------
    path : path-like
        A text table with a header, read like a manifest. Column ``slide``: file name of the slide, with or
        without folder; one column per class with percentages, ranges or limits. An empty cell is 0. Other
        columns and rows without any percentage are ignored.
    classes : sequence of str
        Classes of the model.
    rounding_step, standard_deviation : float, optional
        Error of the percentages, as in :func:`~proportion_ssl.load_cohort`.

    Returns
    -------
    records : dict of str to DataFrame
        By slide name: classes by ``share``, ``lower`` and ``upper``, in fractions.

    Raises
    ------
    FileNotFoundError
        If the table does not exist.
    ValueError
        If a column is missing, a cell cannot be read, a row cannot sum to 100 within 1 point, or a slide
        occurs twice; the line is named.
    """
    path = Path(path)
    step, deviation = points_of_error(rounding_step, standard_deviation)
    header, lines = read_table(path, ("slide",))
    missing = [name for name in ("slide", *classes) if name not in header]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(map(repr, missing))}; its header reads {header}."
        )
    columns = [Column(name) for name in classes]
    rows = collect(lines, header, {"slide": "slide"}, columns)
    if not rows.lines:
        raise ValueError(f"{path} has a header but no slides; give one row per slide.")
    records = gather(columns, len(rows.lines)).widened(step, deviation)
    problems = [unreadable(column, rows) for column in columns if column.unreadable]
    problems += [
        f"{rows.place(row)} has an unknown share, but a segmentation needs all shares: give a range, "
        "such as 0-100, or leave the row empty."
        for row in np.flatnonzero(records.is_unknown.any(axis=1)).tolist()
    ]
    problems += [
        finding.message for finding in check_slides(rows) + check_sums(rows, records, classes)
    ]
    if problems:
        raise ValueError(listed(f"{path} cannot be used:", problems))
    tables = {"share": records.points(), "lower": records.lower, "upper": records.upper}
    return {
        rows.slides[row]: pd.DataFrame(
            {name: table[row] / 100 for name, table in tables.items()}, index=list(classes)
        )
        for row in np.flatnonzero(records.is_recorded).tolist()
    }
