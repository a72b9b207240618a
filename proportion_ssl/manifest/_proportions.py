"""Recorded percentages of bags whose features are at hand, from a table without files."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from proportion_ssl._checks import check_distinct, suggestion
from proportion_ssl.manifest._read import listed, points_of_error
from proportion_ssl.manifest._records import Column, choose_columns, gather
from proportion_ssl.manifest._rows import Rows
from proportion_ssl.manifest._rules import check_sums, row_that_breaks, unreadable


class _BagRows(Rows):
    """Rows of a table of bags."""

    def line(self, row: int) -> str:
        return f"row {self.lines[row]}"

    def name(self, row: int) -> str:
        return f"bag {self.slides[row]!r}"

    def without_column(self) -> str:
        return "leave it out"


def read_proportions(
    table: pd.DataFrame,
    *,
    classes: Sequence | None = None,
    rounding_step: float | None = None,
    standard_deviation: float | None = None,
) -> dict[str, pd.DataFrame]:
    """Read recorded percentages as people write them: numbers, ranges, limits.

    Parameters
    ----------
    table : DataFrame of shape (n_bags, n_classes)
        Percentages, indexed by bag, with a column per class. A cell holds a number or a text as in a manifest
        (:func:`~proportion_ssl.load_cohort`): "70", "62,5", "70-80", "75 ± 5", "<5", ">90", "~10", "trace".
        An empty or missing cell is 0; a bag without any percentage has no record.
    classes : sequence of column names, optional
        Columns that are classes. Default: all, which are then checked for columns of something else.
    rounding_step, standard_deviation : float, optional
        Error of plain numbers, as in :func:`~proportion_ssl.load_cohort`.

    Returns
    -------
    records : dict of str to DataFrame
        ``proportions``, ``lower`` and ``upper``: arguments of :class:`~proportion_ssl.Bags`, in fractions.
        Bags without a record are left out.

    Raises
    ------
    TypeError
        If the table is not a DataFrame, or `classes` is a string.
    ValueError
        If no bag has a record, a bag or class has no name, several levels of names or occurs twice, a cell
        cannot be read or holds "?", a column seems to be something else than a class (the others sum to 100
        without it, or it has neither name nor percentage), a row cannot sum to 100 within 1 point, or
        numbers are fractions. Errors of cells and rows are listed, with bag and row.

    See Also
    --------
    proportion_ssl.load_cohort : The same for slides, from a file.

    Notes
    -----
    An empty cell is 0 here. In tables for ``among`` of :class:`~proportion_ssl.Bags`, NaN means that a share
    was not assessed: give such tables to ``Bags`` directly, as fractions, or write a range such as "0-30".

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from proportion_ssl import Bags
    >>> table = pd.DataFrame({"acinar": ["70-80", 100, None], "solid": ["~25", None, None]}, ["b", "a", "c"])
    >>> records = read_proportions(table)
    >>> records["lower"].loc["b"].tolist(), records["upper"].loc["b"].tolist()
    ([0.7, 0.2], [0.8, 0.3])
    >>> slide, features = np.array(["a", "b", "b", "c"]), np.zeros((4, 2))
    >>> known = np.isin(slide, records["proportions"].index)
    >>> Bags(features[known], slide[known], **records).proportions
    array([[1.  , 0.  ],
           [0.75, 0.25]])
    """
    step, deviation = points_of_error(rounding_step, standard_deviation)
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table must be a DataFrame, got {type(table).__name__}.")
    for what, names in (("bag", table.index), ("class", table.columns)):
        if isinstance(names, pd.MultiIndex):
            raise ValueError(
                f"table has {names.nlevels} levels of names of a {what}; give each one name, for example by "
                "table.droplevel(...) or '/'.join."
            )
        if not names.is_unique:
            twice = names[names.duplicated()][0]
            raise ValueError(f"table names {what} {twice!r} twice; name each once.")
        if pd.isna(names).any():
            raise ValueError(f"table has a {what} without a name (NaN); name it, or leave it out.")
    if classes is not None:
        if isinstance(classes, str):
            raise TypeError(
                f"classes names columns in a sequence, got {classes!r}; give [{classes!r}]."
            )
        classes = list(dict.fromkeys(classes))
        missing = [name for name in classes if name not in table.columns]
        if missing:
            raise ValueError(
                f"classes names {missing[0]!r}, which is no column of the table ({list(table.columns)})."
                f"{suggestion(str(missing[0]), list(map(str, table.columns)))}"
            )
        table = table[classes]
    check_distinct(table.columns.tolist(), "Columns")
    if table.empty:
        raise ValueError(f"The table has shape {table.shape}, so no bag has a percentage.")
    n_rows = len(table)
    rows = _BagRows(list(range(1, n_rows + 1)), [], table.index.tolist(), [], [], [], [], [])
    columns = [Column(name) for name in table.columns]
    for number, column in enumerate(columns):
        cells = table.iloc[:, number]
        column.add(["" if pd.isna(cell) else str(cell).strip() for cell in cells])
    written = gather(columns, n_rows)
    records = written.widened(step, deviation)
    problems = [unreadable(column, rows) for column in columns if column.unreadable]
    if classes is None and not problems:
        problems += _no_classes(written, records, table)
    problems += [
        f"{rows.place(row)} has an unknown share; give a range, such as 0-30, or give Bags the classes that "
        "were assessed, among=."
        for row in np.flatnonzero(records.is_unknown.any(axis=1)).tolist()
    ]
    problems += [finding.message for finding in check_sums(rows, records, list(table.columns))]
    if problems:
        raise ValueError(listed("The table of percentages cannot be used:", problems))
    recorded = records.is_recorded
    if not recorded.any():
        raise ValueError(f"No bag has a percentage in a table of shape {table.shape}.")
    parts = {"proportions": records.points(), "lower": records.lower, "upper": records.upper}
    return {
        name: pd.DataFrame(part[recorded] / 100, table.index[recorded], table.columns)
        for name, part in parts.items()
    }


def _no_classes(written, records, table):
    """Problems for the columns that seem to be no classes."""
    _, zero, breaking = choose_columns(written, records)
    names = table.columns.tolist()
    # pandas' name of a column without one, such as that behind a comma at the end of each line
    nameless = [k for k in zero if re.fullmatch(r"Unnamed: \d+", str(names[k]))]
    problems = [
        f"{names[k]!r} has neither a name nor a percentage; drop the column, or list the classes: "
        f"classes={_others(names, nameless)}."
        for k in nameless[:1]
    ]
    if breaking:
        row, total = row_that_breaks(written, breaking)
        shown, is_one = ", ".join(repr(names[k]) for k in breaking), len(breaking) == 1
        problems.append(
            f"the other columns sum to 100 without {shown}; with {'it' if is_one else 'them'} bag "
            f"{table.index.tolist()[row]!r} has {total:.10g}. List the classes: "
            f"classes={_others(names, breaking)}, with {shown} if {'it is one' if is_one else 'they are'}."
        )
    return problems


def _others(names, left_out):
    return [name for k, name in enumerate(names) if k not in left_out]
