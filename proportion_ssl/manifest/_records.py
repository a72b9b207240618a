"""Recorded percentages of all rows: the columns that hold them, and checks of their sums."""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import NamedTuple

import numpy as np

from proportion_ssl._checks import GUARD
from proportion_ssl._checks import SUM_TOLERANCE as TOLERANCE
from proportion_ssl.manifest._cells import is_unknown, read_percentage
from proportion_ssl.proportions.intervals import (
    deviation_interval,
    move_to_sum_one,
    rounding_interval,
)

SUM_TOLERANCE = 100 * TOLERANCE  # percentage points; admits thirds written as 33 33 33
EXACT_SUM = 100 * GUARD  # tolerance of exact sums
_NEARLY_ALL = 0.8  # share of rows that sum to 100 without a column that is no class
_SETS = 20_000  # largest number of sets of columns tried as other than classes
_MANY = 3  # number of unreadable cells from which a column may be text
_SHOWN = 3  # number of unreadable cells that are stored
_EMPTY, _NUMBER, _INTERVAL, _UNREADABLE, _UNKNOWN = range(5)


class Column:
    """The cells of one column, read block by block."""

    def __init__(self, name: str):
        self.name = name
        self.unreadable: list[tuple[int, str]] = []  # row and text of the first unreadable cells
        self.n_unreadable = 0
        self._blocks: list[np.ndarray] = []
        self._n_rows = 0

    def add(self, texts: Sequence[str]) -> None:
        """Read the cells of the next rows."""
        number = {text: k for k, text in enumerate(dict.fromkeys(texts))}
        known = np.array([_read(text) for text in number])
        block = known[np.fromiter(map(number.__getitem__, texts), np.intp, len(texts))]
        wrong = np.flatnonzero(block[:, 3] == _UNREADABLE)
        for row in wrong[: _SHOWN - len(self.unreadable)].tolist():
            self.unreadable.append((self._n_rows + row, texts[row]))
        self.n_unreadable += len(wrong)
        self._n_rows += len(texts)
        self._blocks.append(block)

    def cells(self) -> np.ndarray:
        """Value, lower and upper end, and state of each cell, shape (n_rows, 4)."""
        return np.concatenate(self._blocks)


class Records(NamedTuple):
    """Percentages of all rows, arrays of shape (n_rows, n_classes); an empty cell is a 0."""

    value: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    states: np.ndarray

    @property
    def is_recorded(self) -> np.ndarray:
        """Mask of rows with a percentage or an unreadable cell, shape (n_rows,)."""
        return ((self.states != _EMPTY) & (self.states != _UNKNOWN)).any(axis=1)

    @property
    def is_unknown(self) -> np.ndarray:
        """Mask of unknown shares, shape (n_rows, n_classes)."""
        return self.states == _UNKNOWN

    @property
    def is_partial(self) -> np.ndarray:
        """Mask of rows with unknown shares whose other cells sum to 100, shape (n_rows,)."""
        known = self.of_known()
        return (
            self.is_unknown.any(axis=1)
            & self.is_recorded
            & _can_sum(known.lower.sum(axis=1), known.upper.sum(axis=1))
        )

    @property
    def is_readable(self) -> np.ndarray:
        """Mask of rows without unreadable cells, shape (n_rows,)."""
        return (self.states != _UNREADABLE).all(axis=1)

    @property
    def is_exact(self) -> np.ndarray:
        """Mask of rows of plain numbers and empty cells with zero-width intervals, shape (n_rows,)."""
        return self.is_plain & (self.lower == self.upper).all(axis=1)

    @property
    def is_plain(self) -> np.ndarray:
        """Mask of rows written as plain numbers and empty cells, shape (n_rows,)."""
        return np.all(self.states <= _NUMBER, axis=1)

    @property
    def can_sum(self) -> np.ndarray:
        """Mask of rows whose intervals admit a sum of 100 within the tolerance, shape (n_rows,)."""
        return _can_sum(self.lower.sum(axis=1), self.upper.sum(axis=1))

    def is_filled_beside(self, columns: Sequence[int]) -> np.ndarray:
        """Mask of rows with something in any other column, shape (n_rows,)."""
        return (np.delete(self.states, columns, axis=1) != _EMPTY).any(axis=1)

    def of(self, columns: Sequence[int]) -> "Records":
        """The records of some of the classes."""
        return Records(*(part[:, list(columns)] for part in self))

    def take(self, rows: Sequence[int] | np.ndarray) -> "Records":
        """The records of some of the rows."""
        return Records(*(part[rows] for part in self))

    def of_known(self) -> "Records":
        """The records with 0 in place of unknown shares."""
        value, lower, upper = (np.where(self.is_unknown, 0.0, part) for part in self[:3])
        return Records(value, lower, upper, self.states)

    def widened(self, step: float | None, deviation: float | None) -> "Records":
        """Apply the error stated for the whole table to plain numbers.

        `step` is the rounding step, `deviation` the standard deviation of shares above 0; both in
        percentage points.
        """
        if step is not None:
            lower, upper = rounding_interval(self.value / 100, step / 100)
        elif deviation is not None:
            lower, upper = deviation_interval(self.value / 100, np.array(deviation / 100))
        else:
            return self
        is_number = self.states <= _NUMBER
        return self._replace(
            lower=np.where(is_number, 100 * lower, self.lower),
            upper=np.where(is_number, 100 * upper, self.upper),
        )

    def points(self) -> np.ndarray:
        """Percentages within the intervals: as written in exact rows, moved to a sum of 100 in others."""
        points = self.value.copy()
        free = ~self.is_exact & (np.abs(points.sum(axis=1) - 100) > EXACT_SUM)
        shares = [part[free] / 100 for part in (points, self.lower, self.upper)]
        points[free] = 100 * move_to_sum_one(*shares)
        return np.clip(points, self.lower, self.upper)


def gather(columns: Sequence[Column], n_rows: int) -> Records:
    """The cells of several columns as arrays."""
    cells = np.zeros((4, n_rows, len(columns)))
    for k, column in enumerate(columns):
        cells[:, :, k] = column.cells().T
    return Records(cells[0], cells[1], cells[2], cells[3].astype(np.int8))


def choose_columns(records: Records, widened: Records) -> tuple[list[int], list[int], list[int]]:
    """Columns that may be classes, columns that are 0 in every record, and columns that break the sum.

    `records` are as written, `widened` includes the error stated for the whole table. Columns of text
    are in none of the three lists.
    """
    is_unreadable = (records.states == _UNREADABLE).sum(axis=0)
    n_filled = (records.states != _EMPTY).sum(axis=0)
    is_text = (is_unreadable >= _MANY) & (2 * is_unreadable > n_filled)
    columns = np.flatnonzero(~is_text)
    part, wide = records.of(columns.tolist()), widened.of(columns.tolist())
    is_used = part.is_recorded & part.is_readable
    part, wide = part.take(is_used), wide.take(is_used)
    if not len(part.value):
        return columns.tolist(), [], []
    zero = columns[(part.upper == 0).all(axis=0)].tolist()
    # rows with unknown shares are little evidence of the columns that sum to 100
    is_whole = np.flatnonzero(~part.is_unknown.any(axis=1))
    breaking = columns[_breaking(part.take(is_whole), wide.take(is_whole))].tolist()
    return [k for k in columns.tolist() if k not in zero + breaking], zero, breaking


def _breaking(records: Records, widened: Records) -> list[int]:
    """Columns that are probably not classes, because the others sum to 100 without them.

    Either most rows sum to 100 only without these columns, or rows are within the tolerance but nearly all
    sum to exactly 100 only without them (such as an extra column of zeros and ones), and none only with them.
    Rows with nothing in any other column, such as those of outlined slides with an age but no percentages,
    say nothing about these columns.
    """
    n_rows, n_columns = records.value.shape
    if n_columns < 2 or not n_rows:
        return []
    if widened.can_sum.mean() > 0.5:
        return _inexact(records)
    lower, upper = widened.lower.sum(axis=1), widened.upper.sum(axis=1)
    least = max(1, np.count_nonzero((records.states != _EMPTY).sum(axis=1) > 1) / 2)
    for size in range(1, n_columns):
        if comb(n_columns, size) > _SETS:
            break
        best: list[int] = []
        share = _NEARLY_ALL
        for left_out in combinations(range(n_columns), size):
            columns = list(left_out)
            without = (
                lower - widened.lower[:, columns].sum(axis=1),
                upper - widened.upper[:, columns].sum(axis=1),
            )
            is_record = records.is_filled_beside(columns)
            if is_record.sum() < least:
                continue
            fitting = _can_sum(*without)[is_record].mean()
            if fitting > share or (fitting == share and not best):
                best, share = columns, fitting
        if best:
            return best
    return []


def _inexact(records: Records) -> list[int]:
    # a column with ranges is one of percentages
    candidates = np.flatnonzero((records.states <= _NUMBER).all(axis=0)).tolist()
    exact = records.take(records.is_exact)
    total = exact.value.sum(axis=1)
    if (np.abs(total - 100) <= EXACT_SUM).all():
        return []
    for size in (1, 2):
        for left_out in map(list, combinations(candidates, size)):
            rest = np.delete(np.arange(records.value.shape[1]), left_out)
            if (records.can_sum & ~records.of(rest.tolist()).can_sum).any():
                continue  # a row that sums to 100 only with these columns shows that they are classes
            values = exact.value[:, left_out]
            is_record = exact.is_filled_beside(left_out)
            is_exact = np.abs(total - values.sum(axis=1) - 100) <= EXACT_SUM
            parts = (is_record, *(is_record & (values > 0).T))
            is_enough = all(np.count_nonzero(part) >= 2 for part in parts[1:])
            if is_enough and all(is_exact[part].mean() >= _NEARLY_ALL for part in parts):
                return left_out
    return []


def _can_sum(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    tolerance = SUM_TOLERANCE + EXACT_SUM
    return (lower <= 100 + tolerance) & (upper >= 100 - tolerance)


def _read(text: str) -> tuple[float, float, float, int]:
    if not text:
        return 0.0, 0.0, 0.0, _EMPTY
    if is_unknown(text):
        return 50.0, 0.0, 100.0, _UNKNOWN
    cell = read_percentage(text)
    if cell is None:
        return 0.0, 0.0, 0.0, _UNREADABLE
    return cell.value, cell.lower, cell.upper, _NUMBER if cell.is_exact else _INTERVAL
