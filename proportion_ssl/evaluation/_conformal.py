"""Conformal intervals for the proportions of a new slide, from records of held-out slides."""

from __future__ import annotations

from typing import Any

import numpy as np

from proportion_ssl._checks import check_fraction

#: Added to p (1 - p), so that the scale is not 0 for shares of 0 and 1.
LEAST_VARIANCE = 0.01


def conformal_errors(predicted: Any, lower: Any, upper: Any, *, level: float = 0.9) -> np.ndarray:
    r"""Errors of predicted proportions that a fraction ``level`` of new slides does not exceed.

    Parameters
    ----------
    predicted : array-like of shape (n_bags, n_classes)
        Predicted shares of bags **from models that did not see them**: from a cross-validation over bags,
        or of held-out slides. Rows with NaN are left out.
    lower, upper : array-like of shape (n_bags, n_classes)
        Intervals of the recorded shares, such as those of :class:`~proportion_ssl.Bags`; equal for exact
        records. Rows with NaN are left out.
    level : float in (0, 1), default=0.9
        Fraction of new slides whose interval contains the true share, for each class separately.

    Returns
    -------
    errors : ndarray of shape (n_classes,)
        For :func:`conformal_intervals`, in standard deviations of a share. Infinite with fewer than
        ``level / (1 - level)`` bags (9 for 0.9, 19 for 0.95); intervals are then [0, 1].

    Raises
    ------
    ValueError
        If shapes differ, a value lies outside [0, 1], or no row is complete.

    Notes
    -----
    Split conformal prediction [1]_. With the predicted share p and the ends l and u of the record, the score
    of bag i and class c is the largest error that the record allows,
    :math:`\max(|p_{ic} - l_{ic}|, |p_{ic} - u_{ic}|) / \sqrt{p_{ic} (1 - p_{ic}) + .01}`; the returned
    error is the :math:`\lceil (n + 1)\, level \rceil`-th smallest score. If bags are exchangeable with the
    new slide and the true shares lie within the recorded intervals, the interval contains the true share
    of a class with a probability of at least ``level``. Coarse records make the intervals wider. The
    guarantee is marginal: it holds on average over slides, not for each kind of slide, and not for another
    scanner or hospital.

    References
    ----------
    .. [1] Lei, G'Sell, Rinaldo, Tibshirani, Wasserman. "Distribution-Free Predictive Inference for
       Regression". JASA 113 (2018), 1094-1111.

    Examples
    --------
    >>> import numpy as np
    >>> predicted = np.column_stack([np.linspace(0.1, 0.9, 9), np.linspace(0.9, 0.1, 9)])
    >>> record = np.clip(predicted + np.array([0.05, -0.05]), 0, 1)
    >>> errors = conformal_errors(predicted, record, record)
    >>> low, high = conformal_intervals([[0.5, 0.5]], errors)
    >>> low.round(2).tolist(), high.round(2).tolist()
    ([[0.42, 0.42]], [[0.58, 0.58]])
    """
    check_fraction(level, "level", closed="neither")
    p, low, high = (np.asarray(values, dtype=float) for values in (predicted, lower, upper))
    if p.ndim != 2 or not p.shape == low.shape == high.shape:
        raise ValueError(
            "predicted, lower and upper need one row per bag and one column per class, got shapes "
            f"{p.shape}, {low.shape} and {high.shape}."
        )
    complete = ~np.isnan(p + low + high).any(axis=1)
    p, low, high = p[complete], low[complete], high[complete]
    if not len(p):
        raise ValueError(
            "No bag has both a prediction and a record; give at least one complete row."
        )
    for what, values in (("predicted", p), ("lower", low), ("upper", high)):
        check_fraction(values, what)
    scores = np.maximum(np.abs(p - low), np.abs(p - high)) / _scale(p)
    rank = int(np.ceil((len(p) + 1) * level - 1e-9))
    if rank > len(p):
        return np.full(p.shape[1], np.inf)
    return np.sort(scores, axis=0)[rank - 1]


def conformal_intervals(predicted: Any, errors: Any) -> tuple[np.ndarray, np.ndarray]:
    """Conformal intervals around predicted proportions.

    Parameters
    ----------
    predicted : array-like of shape (n_slides, n_classes)
        Predicted shares in [0, 1]; NaN without a prediction.
    errors : array-like of shape (n_classes,)
        From :func:`conformal_errors`.

    Returns
    -------
    low, high : ndarray of shape (n_slides, n_classes)
        Within [0, 1]; NaN without a prediction.

    Raises
    ------
    ValueError
        If shapes are inconsistent or a share lies outside [0, 1].
    """
    p, errors = np.asarray(predicted, dtype=float), np.asarray(errors, dtype=float)
    if p.ndim != 2 or errors.shape != p.shape[1:]:
        raise ValueError(
            f"predicted has shape {p.shape}, errors {errors.shape}; give one error per class."
        )
    check_fraction(p[~np.isnan(p)], "predicted")
    reach = errors * _scale(p)
    return np.clip(p - reach, 0.0, 1.0), np.clip(p + reach, 0.0, 1.0)


def _scale(p):
    return np.sqrt(p * (1 - p) + LEAST_VARIANCE)
