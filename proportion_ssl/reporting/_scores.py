"""Scores as table rows: mean, standard deviation and individual values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

SYSTEM = "system"

#: Meanings of the scores of this package, for readers of the page.
EXPLAINED = {
    "OP": "overall pixel score: share of the outlined patches of cancer with the correct class",
    "PC": "per-class precision: mean over the classes of the share of correct predictions",
    "mIoU": "intersection over union of predicted and outlined patches, mean over the classes",
    "proportion_error": (
        "distance of predicted from recorded proportions: 0 if they agree, 1 if at least half of the tumor "
        "is misclassified; measured from the nearest proportions that the record allows"
    ),
    "tumor_recall": "share of the outlined cancer that is predicted as cancer",
    "tumor_precision": "share of outlined cancer among the outlined patches that are predicted as cancer",
}


class Score(NamedTuple):
    """Values of one score of one system."""

    mean: float
    spread: float  # sample standard deviation; nan for fewer than two values
    values: tuple[float, ...]  # finite values
    dots: tuple[float, ...]  # positions on the axis, 0..100
    axis: tuple[float, float]

    def __str__(self):
        if not self.values:
            return "–"
        if np.isnan(self.spread):
            return figure(self.mean)
        return f"{figure(self.mean)} ± {figure(self.spread)}"


class ScoreTable(NamedTuple):
    """One row per system, one column per score."""

    names: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Score, ...]], ...]


def score_table(metrics: Any, system: str | None = SYSTEM) -> ScoreTable:
    """Mean and spread of each column, by system.

    Parameters
    ----------
    metrics : DataFrame, or mapping of str to float or array-like of shape (n_repeats,)
        One column per score.
    system : str or None, default="system"
        Column with the name of the system of each row, if present; None: no such column.

    Raises
    ------
    TypeError
        If `metrics` is not a table, or a score is not a number.
    ValueError
        If columns differ in length, have the same name, or are empty.
    """
    table = _as_table(metrics)
    if not table.columns.is_unique:
        raise ValueError(f"metrics: column names must be unique, got {list(table.columns)}.")
    systems = [str(name) for name in table.pop(system)] if system in table else [""] * len(table)
    if table.empty:
        raise ValueError("metrics holds no score; give at least one value, or leave metrics out.")
    for name in table:
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise TypeError(
                f"metrics[{name!r}] holds {table[name].dtype} values; give numbers, one per fold or "
                f"slide, and the name of a system in a column {SYSTEM!r}."
            )
    table = table.astype(float)
    axes = [_axis(table[name].to_numpy()) for name in table]
    rows = []
    for system in dict.fromkeys(systems):
        own = table[[name == system for name in systems]]
        scores = tuple(
            _score(own[name].to_numpy(), axis) for name, axis in zip(own, axes, strict=True)
        )
        rows.append((system, scores))
    return ScoreTable(tuple(str(name) for name in table), tuple(rows))


def figure(value: float) -> str:
    """Format a number: three decimals, or four digits if it is large."""
    if not np.isfinite(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def _as_table(metrics):
    if isinstance(metrics, pd.DataFrame):
        return metrics.copy()
    if not hasattr(metrics, "items"):
        raise TypeError(
            f"metrics must be a DataFrame or a mapping of score to values, got {type(metrics).__name__}."
        )
    columns = {name: np.atleast_1d(values) for name, values in metrics.items()}
    wrong = {name: values.shape for name, values in columns.items() if values.ndim != 1}
    if wrong:
        raise ValueError(
            f"metrics: each score is a number or one number per fold, got shapes {wrong}."
        )
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"metrics: all scores need equally many values, got {lengths}.")
    return pd.DataFrame(columns)


def _axis(values):
    """Range of the axis: [0, 1] if it contains the values, else their range."""
    values = values[np.isfinite(values)]
    if not len(values) or (values.min() >= 0 and values.max() <= 1):
        return 0.0, 1.0
    return float(values.min()), float(values.max())


def _score(values, axis):
    values = values[np.isfinite(values)]
    low, high = axis
    dots = 100 * (values - low) / (high - low) if high > low else np.full(len(values), 50.0)
    return Score(
        mean=float(values.mean()) if len(values) else np.nan,
        spread=float(values.std(ddof=1)) if len(values) > 1 else np.nan,
        values=tuple(values.tolist()),
        dots=tuple(np.round(dots, 2).tolist()),
        axis=axis,
    )
