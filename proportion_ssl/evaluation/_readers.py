"""Agreement between readers, and between a model and readers: Cohen's kappa."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from proportion_ssl._checks import check_fraction
from proportion_ssl.evaluation._agreement import Estimate

WEIGHTS = (None, "linear", "quadratic")


def cohen_kappa(
    first: Any,
    second: Any,
    *,
    weights: str | None = None,
    categories: Sequence | None = None,
    level: float = 0.95,
) -> Estimate:
    """Cohen's kappa of two readers with its large-sample interval.

    Parameters
    ----------
    first, second : array-like of shape (n_cases,)
        Category of each case by each reader, such as class or grade. Cases with None or NaN in either are
        left out.
    weights : {None, "linear", "quadratic"}, default=None
        Weight of a disagreement by its distance, for ordered categories such as grades.
    categories : sequence, optional
        All categories, in order. Default: sorted categories that occur.
    level : float in (0, 1), default=0.95

    Returns
    -------
    kappa : Estimate
        At most 1; 0 for chance agreement. NaN without cases, or if both use the same single category for
        all cases, because chance agreement is then complete. The ends of the interval are clipped to
        [-1, 1]; with fewer than about 30 cases the interval is only approximate.

    Raises
    ------
    ValueError
        If lengths differ, weights are unknown, or a value is not among the categories.

    References
    ----------
    .. [1] Fleiss, Cohen, Everitt. "Large Sample Standard Errors of Kappa and Weighted Kappa". Psychological
       Bulletin 72 (1969), 323-327.

    Examples
    --------
    >>> kappa = cohen_kappa([1, 1, 2, 3, 3, 2], [1, 2, 2, 3, 3, 2], weights="quadratic")
    >>> round(kappa.value, 3)
    0.857
    """
    check_fraction(level, "level", closed="neither")
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be one of {WEIGHTS}, got {weights!r}.")
    one, other = np.asarray(first, dtype=object), np.asarray(second, dtype=object)
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(
            f"Both readers need one value per case, got shapes {one.shape} and {other.shape}."
        )
    known = ~(pd.isna(one) | pd.isna(other))
    one, other = one[known].tolist(), other[known].tolist()
    names = sorted({*one, *other}) if categories is None else list(categories)
    unknown = [value for value in (*one, *other) if value not in names]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is not among the categories {names}.")
    if len({*one, *other}) < 2:
        return Estimate(np.nan, np.nan, np.nan, len(one))
    position = {name: i for i, name in enumerate(names)}
    table = np.zeros((len(names), len(names)))
    np.add.at(table, ([position[v] for v in one], [position[v] for v in other]), 1)
    kappa, error = _kappa_and_error(table / len(one), _agreement_weights(len(names), weights))
    reach = stats.norm.ppf((1 + level) / 2) * error / np.sqrt(len(one))
    return Estimate(kappa, max(-1.0, kappa - reach), min(1.0, kappa + reach), len(one))


def compare_readers(
    readers: Mapping[str, Any],
    model: Any = None,
    *,
    weights: str | None = None,
    categories: Sequence | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """Compute Cohen's kappa for every pair of readers, and for a model with each reader.

    A model that agrees with readers as well as they agree with each other is equivalent to another reader.

    Parameters
    ----------
    readers : dict of str to array-like of shape (n_cases,)
        Category of each case by each reader; None or NaN for cases that a reader did not read.
    model : array-like of shape (n_cases,), optional
        Category of each case by the model.
    weights, categories, level
        As in :func:`cohen_kappa`.

    Returns
    -------
    table : DataFrame
        One row per pair: ``kind`` ("readers" or "model"), ``first``, ``second``, ``kappa``, ``low``,
        ``high``, ``n``. The means over the pairs of a kind are ``table.groupby("kind")["kappa"].mean()``.

    Raises
    ------
    ValueError
        If there is nothing to compare, lengths differ, or a reader is called "model".

    Examples
    --------
    >>> readers = {"A": [1, 2, 3, 3], "B": [1, 2, 3, 2]}
    >>> compare_readers(readers, [1, 2, 3, 3])[["kind", "first", "second", "kappa"]].round(2).values.tolist()
    [['readers', 'A', 'B', 0.64], ['model', 'model', 'A', 1.0], ['model', 'model', 'B', 0.64]]
    """
    if "model" in readers:
        raise ValueError("A reader is called 'model', a reserved name; rename the reader.")
    pairs = [("readers", *pair) for pair in combinations(readers, 2)]
    said = dict(readers)
    if model is not None:
        said["model"] = model
        pairs += [("model", "model", name) for name in readers]
    if not pairs:
        raise ValueError("Give two or more readers, or a model and a reader.")
    rows = []
    for kind, first, second in pairs:
        kappa = cohen_kappa(
            said[first], said[second], weights=weights, categories=categories, level=level
        )
        rows.append((kind, first, second, *kappa))
    return pd.DataFrame(rows, columns=["kind", "first", "second", "kappa", "low", "high", "n"])


def _agreement_weights(n, weights):
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / max(n - 1, 1)
    if weights is None:
        return (distance == 0).astype(float)
    return 1 - (distance if weights == "linear" else distance**2)


def _kappa_and_error(shares, weights):
    """Weighted kappa and its asymptotic standard error times sqrt(n); equation 13 of the paper."""
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    seen, chance = (weights * shares).sum(), rows @ weights @ columns
    kappa = (seen - chance) / (1 - chance)
    mean = (weights @ columns)[:, np.newaxis] + rows @ weights
    variance = (shares * (weights - mean * (1 - kappa)) ** 2).sum()
    variance -= (kappa - chance * (1 - kappa)) ** 2
    return float(kappa), float(np.sqrt(max(variance, 0.0)) / (1 - chance))
