"""Pseudo labels selected in each round: table rows and geometry of the drawings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

KEYS = ("train_loss", "valid_loss", "sum_absolute_error")
COUNTS = ("n_positive", "n_negative")


class Round(NamedTuple):
    """One entry of a classifier's history; nan or None for missing values."""

    name: str
    n_epochs: int | None
    train_loss: float
    valid_loss: float
    sum_absolute_error: float
    n_positive: tuple[int, ...] | None  # per class
    n_negative: tuple[int, ...] | None

    def in_order(self, order: Sequence[int]) -> Round:
        """Copy with the classes in another order."""

        def permuted(counts):
            return None if counts is None else tuple(counts[i] for i in order)

        return self._replace(
            n_positive=permuted(self.n_positive), n_negative=permuted(self.n_negative)
        )


class Bar(NamedTuple):
    """A segment of the stacked bar of one round; lengths in units of the drawing."""

    x: float
    y: float
    height: float
    class_code: int
    is_negative: bool


class CountDrawing(NamedTuple):
    """Bars of positive labels above and negative labels below a line; height 100, one unit per round."""

    bars: tuple[Bar, ...]
    rounds: tuple[Round, ...]  # rounds with counts, left to right
    most_positive: int  # largest number in a round
    most_negative: int
    zero: float  # height of the line, from the top


class LineDrawing(NamedTuple):
    """Curves over the rounds; height 100, from 0 at the bottom to ``most`` at the top."""

    curves: tuple[tuple[str, str], ...]  # name of the value, SVG path
    rounds: tuple[Round, ...]
    most: float


def read_history(history: Any, n_classes: int) -> list[Round]:
    """Check and read the entries of ``history_``.

    Raises
    ------
    TypeError
        If the history is not a sequence of mappings.
    ValueError
        If an entry has no round, or counts that are not one whole number per class.
    """
    if isinstance(history, Mapping | str) or not isinstance(history, Sequence):
        raise TypeError(
            "history must be a list of dictionaries such as classifier.history_, got "
            f"{type(history).__name__}."
        )
    return [_read_round(entry, i, n_classes) for i, entry in enumerate(history)]


def has_counts(history: Any) -> bool:
    """Whether an entry has numbers of labels."""
    return any(key in entry for entry in history if isinstance(entry, Mapping) for key in COUNTS)


def _read_round(entry, i, n_classes):
    if not isinstance(entry, Mapping):
        raise TypeError(f"history[{i}] must be a dictionary, got {type(entry).__name__}.")
    if "round" not in entry:
        raise ValueError(f"history[{i}] has no 'round', only {sorted(map(str, entry))}.")
    values = {key: _number(entry.get(key), f"history[{i}][{key!r}]") for key in KEYS}
    counts = {key: _counts(entry.get(key), f"history[{i}][{key!r}]", n_classes) for key in COUNTS}
    return Round(str(entry["round"]), entry.get("n_epochs"), **values, **counts)


def _number(value, where):
    if value is None:
        return np.nan
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} must be a number, got {value!r}.") from error


def _counts(values, where, n_classes):
    if values is None:
        return None
    counts = np.asarray(values)
    if counts.shape != (n_classes,) or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(
            f"{where} must hold one count for each of the {n_classes} history_classes, got {values!r}."
        )
    return tuple(counts.tolist())


def draw_counts(rounds: Sequence[Round], codes: Sequence[int]) -> CountDrawing | None:
    """Stacked bars of the labels given in each round; None if no round has labels.

    Parameters
    ----------
    rounds : sequence of Round
    codes : sequence of int
        Color index of each of the counted classes.
    """
    shown = [r for r in rounds if r.n_positive or r.n_negative]
    most_positive = max((sum(r.n_positive or ()) for r in shown), default=0)
    most_negative = max((sum(r.n_negative or ()) for r in shown), default=0)
    if most_positive + most_negative == 0:
        return None
    unit = 100 / (most_positive + most_negative)
    zero = most_positive * unit
    bars = []
    for x, entry in enumerate(shown):
        top = bottom = zero
        for code, count in zip(codes, entry.n_positive or (), strict=False):
            top -= count * unit
            bars.append(Bar(x, top, count * unit, code, False))
        for code, count in zip(codes, entry.n_negative or (), strict=False):
            bars.append(Bar(x, bottom, count * unit, code, True))
            bottom += count * unit
    seen = tuple(bar for bar in bars if bar.height > 0)
    return CountDrawing(seen, tuple(shown), most_positive, most_negative, zero)


def draw_lines(
    rounds: Sequence[Round], keys: Sequence[str], most: float | None = None
) -> LineDrawing | None:
    """Curves of some values of the history; None if there are fewer than two values of each."""
    values = {key: np.array([getattr(r, key) for r in rounds], dtype=float) for key in keys}
    values = {key: curve for key, curve in values.items() if np.isfinite(curve).sum() > 1}
    if not values:
        return None
    if most is None:
        most = max(curve[np.isfinite(curve)].max() for curve in values.values())
    curves = tuple((key, _path(curve, most or 1.0)) for key, curve in values.items())
    return LineDrawing(curves, tuple(rounds), float(most))


def _path(curve, most):
    """SVG path through the finite values, interrupted at other values."""
    steps, pen_is_down = [], False
    for x, value in enumerate(curve):
        if np.isfinite(value):
            steps.append(
                f"{'L' if pen_is_down else 'M'}{x + 0.5:g} {100 - 100 * value / most:.2f}h0"
            )
        pen_is_down = bool(np.isfinite(value))
    return "".join(steps)
