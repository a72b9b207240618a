"""Agreement of recorded and predicted proportions, class by class."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from proportion_ssl._checks import check_fraction
from proportion_ssl.evaluation._codes import columns_in_order


class Estimate(NamedTuple):
    """A number with its confidence interval.

    Attributes
    ----------
    value : float
        NaN if undefined.
    low, high : float
        Ends of the interval; NaN if undefined.
    n : int
        Number of observations used.
    """

    value: float
    low: float
    high: float
    n: int


def proportion_agreement(
    recorded: Any, predicted: Any, *, classes: Any = None, level: float = 0.95
) -> pd.DataFrame:
    """Agreement of predicted with recorded proportions, per class.

    Parameters
    ----------
    recorded, predicted : array-like or DataFrame of shape (n_bags, n_classes)
        Shares in [0, 1], one row per slide or, preferably, per case. Rows with NaN in either are left out.
    classes : sequence of n_classes names, optional
        Default: columns of a DataFrame, or positions.
    level : float in (0, 1), default=0.95
        Level of intervals and limits of agreement.

    Returns
    -------
    table : DataFrame
        One row per class: ``n`` bags; ``mean_absolute_error``; ``bias``, the mean of predicted minus
        recorded, with its interval ``bias_low`` to ``bias_high``; ``limit_low`` and ``limit_high``, the
        Bland-Altman limits of agreement [1]_, between which a fraction ``level`` of the differences is
        expected; ``ICC`` with ``ICC_low`` and ``ICC_high`` (:func:`intraclass_correlation`);
        ``concordance`` (:func:`concordance_correlation`); ``note``, the reason why a number is missing, else
        empty.

    Raises
    ------
    ValueError
        If shapes differ, a share lies outside [0, 1], or no row is complete.

    References
    ----------
    .. [1] Bland, Altman. "Statistical Methods for Assessing Agreement Between Two Methods of Clinical
       Measurement". Lancet 327 (1986), 307-310.

    Examples
    --------
    >>> recorded = [[0.2, 0.8], [0.5, 0.5], [0.9, 0.1], [0.4, 0.6]]
    >>> predicted = [[0.3, 0.7], [0.5, 0.5], [0.8, 0.2], [0.5, 0.5]]
    >>> table = proportion_agreement(recorded, predicted, classes=["acinar", "solid"])
    >>> table.loc["acinar", ["bias", "limit_low", "limit_high", "ICC"]].astype(float).round(3).tolist()
    [0.025, -0.163, 0.213, 0.941]
    """
    check_fraction(level, "level", closed="neither")
    names = getattr(recorded, "columns", None) if classes is None else classes
    recorded = columns_in_order(recorded, classes, "recorded")
    predicted = columns_in_order(predicted, classes, "predicted")
    true, guess = check_pairs(recorded, predicted)
    names = range(true.shape[1]) if names is None else list(names)
    if len(names) != true.shape[1]:
        raise ValueError(
            f"classes has {len(names)} names, but there are {true.shape[1]} classes; give one per column."
        )
    rows = {name: _row(true[:, c], guess[:, c], level) for c, name in enumerate(names)}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("class")


def intraclass_correlation(ratings: Any, *, level: float = 0.95) -> Estimate:
    r"""Intraclass correlation ICC(2,1): two-way random effects, absolute agreement, single rater.

    Parameters
    ----------
    ratings : array-like of shape (n_subjects, n_raters)
        Every rater rates every subject.
    level : float in (0, 1), default=0.95

    Returns
    -------
    icc : Estimate
        At most 1; NaN with fewer than two subjects or if all ratings are equal.

    Raises
    ------
    ValueError
        If there are fewer than two raters, or a rating is not finite.

    Notes
    -----
    With the mean squares of subjects, raters and residuals, and k raters of n subjects,
    :math:`\frac{MS_S - MS_E}{MS_S + (k - 1) MS_E + k (MS_R - MS_E) / n}` [1]_; the interval follows [2]_.

    References
    ----------
    .. [1] Shrout, Fleiss. "Intraclass Correlations: Uses in Assessing Rater Reliability". Psychological
       Bulletin 86 (1979), 420-428.
    .. [2] McGraw, Wong. "Forming Inferences About Some Intraclass Correlation Coefficients".
       Psychological Methods 1 (1996), 30-46, table 7, ICC(A,1).

    Examples
    --------
    >>> ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    >>> round(intraclass_correlation(ratings).value, 2)
    0.29
    """
    check_fraction(level, "level", closed="neither")
    x = np.asarray(ratings, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] < 2:
        raise ValueError(
            f"ratings must have shape (n_subjects, n_raters) with two or more raters, got {x.shape}."
        )
    if not np.isfinite(x).all():
        raise ValueError("ratings hold a value that is not finite; leave such subjects out.")
    n, k = x.shape
    if n < 2 or np.ptp(x) == 0:
        return Estimate(np.nan, np.nan, np.nan, n)
    mean = x.mean()
    rows, columns = x.mean(axis=1) - mean, x.mean(axis=0) - mean
    rest = x - mean - rows[:, np.newaxis] - columns
    ms_s, ms_r = k * (rows**2).sum() / (n - 1), n * (columns**2).sum() / (k - 1)
    ms_e = (rest**2).sum() / ((n - 1) * (k - 1))
    icc = (ms_s - ms_e) / (ms_s + (k - 1) * ms_e + k * (ms_r - ms_e) / n)
    if ms_e == 0 and ms_r == 0:
        return Estimate(float(icc), float(icc), float(icc), n)
    low, high = _icc_interval(icc, (ms_s, ms_r, ms_e), n, k, level)
    return Estimate(float(icc), low, high, n)


def concordance_correlation(first: Any, second: Any, *, level: float = 0.95) -> Estimate:
    r"""Lin's concordance correlation coefficient of two measurements of the same quantity.

    Parameters
    ----------
    first, second : array-like of shape (n,)
    level : float in (0, 1), default=0.95

    Returns
    -------
    concordance : Estimate
        :math:`2 s_{xy} / (s_x^2 + s_y^2 + (\bar x - \bar y)^2)`, with variances divided by n, in [-1, 1].
        NaN with fewer than two values or if both are the same constant. The interval, from Lin's
        z transform, is NaN with fewer than three values or if one measurement is constant.

    Raises
    ------
    ValueError
        If lengths differ or a value is not finite.

    References
    ----------
    .. [1] Lin. "A Concordance Correlation Coefficient to Evaluate Reproducibility". Biometrics 45 (1989),
       255-268; the variance with the correction of 56 (2000), 324-325.

    Examples
    --------
    >>> round(concordance_correlation([0.1, 0.5, 0.9], [0.2, 0.5, 0.8]).value, 3)
    0.96
    """
    x, y = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"Give two vectors of the same length, got {x.shape} and {y.shape}.")
    if not np.isfinite(x + y).all():
        raise ValueError("A value is not finite; leave such pairs out.")
    n = len(x)
    if n < 2 or (np.ptp(x) == 0 and np.ptp(y) == 0 and x[0] == y[0]):
        return Estimate(np.nan, np.nan, np.nan, n)
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    shift = x.mean() - y.mean()
    ccc = float(2 * covariance / (x.var() + y.var() + shift**2))
    if n < 3 or x.var() == 0 or y.var() == 0 or abs(ccc) == 1 or ccc == 0:
        return Estimate(ccc, np.nan, np.nan, n)
    r = covariance / np.sqrt(x.var() * y.var())
    u2 = shift**2 / np.sqrt(x.var() * y.var())
    variance = (
        (1 - r**2) * ccc**2 / ((1 - ccc**2) * r**2)
        + 2 * ccc**3 * (1 - ccc) * u2 / (r * (1 - ccc**2) ** 2)
        - ccc**4 * u2**2 / (2 * r**2 * (1 - ccc**2) ** 2)
    ) / (n - 2)
    reach = stats.norm.ppf((1 + level) / 2) * np.sqrt(max(variance, 0.0))
    z = np.arctanh(ccc)
    return Estimate(ccc, float(np.tanh(z - reach)), float(np.tanh(z + reach)), n)


def check_pairs(recorded: Any, predicted: Any) -> tuple[np.ndarray, np.ndarray]:
    """Rows of shares that are complete in both; raises ValueError if there are none."""
    if hasattr(recorded, "columns") and hasattr(predicted, "columns"):
        predicted = predicted.reindex(index=recorded.index, columns=recorded.columns)
    true, guess = np.asarray(recorded, dtype=float), np.asarray(predicted, dtype=float)
    if true.ndim != 2 or true.shape != guess.shape:
        raise ValueError(
            "recorded and predicted need one row per bag and one column per class, got shapes "
            f"{true.shape} and {guess.shape}."
        )
    for what, shares in (("recorded", true), ("predicted", guess)):
        check_fraction(shares[~np.isnan(shares)], f"{what} shares")
    complete = ~np.isnan(true + guess).any(axis=1)
    if not complete.any():
        raise ValueError(
            "No bag has both recorded and predicted proportions; give at least one complete row."
        )
    return true[complete], guess[complete]


def bland_altman(recorded: np.ndarray, predicted: np.ndarray, level: float = 0.95) -> np.ndarray:
    """Bias and limits of agreement of predicted minus recorded shares.

    Parameters
    ----------
    recorded, predicted : ndarray of shape (n_bags,)
    level : float in (0, 1), default=0.95
        Share of the differences between the limits.

    Returns
    -------
    lines : ndarray of shape (3,)
        Lower limit, bias, upper limit; limits are NaN for a single bag.
    """
    difference = predicted - recorded
    spread = difference.std(ddof=1) if len(difference) > 1 else np.nan
    reach = stats.norm.ppf((1 + level) / 2) * spread
    return difference.mean() + np.array([-reach, 0.0, reach])


def _row(true, guess, level):
    n, difference = len(true), guess - true
    low, bias, high = bland_altman(true, guess, level)
    standard_error = difference.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    reach = stats.t.ppf((1 + level) / 2, n - 1) * standard_error if n > 1 else np.nan
    icc = intraclass_correlation(np.column_stack([true, guess]), level=level)
    note = ""
    if n < 2:
        note = "one bag: no spread"
    elif np.ptp(np.concatenate([true, guess])) == 0:
        note = "all shares are equal: no correlation"
    return {
        "n": n,
        "mean_absolute_error": float(np.abs(difference).mean()),
        "bias": bias,
        "bias_low": bias - reach,
        "bias_high": bias + reach,
        "limit_low": low,
        "limit_high": high,
        "ICC": icc.value,
        "ICC_low": icc.low,
        "ICC_high": icc.high,
        "concordance": concordance_correlation(true, guess).value,
        "note": note,
    }


def _icc_interval(icc, mean_squares, n, k, level):
    ms_s, ms_r, ms_e = mean_squares
    a = k * icc / (n * (1 - icc))
    b = 1 + k * icc * (n - 1) / (n * (1 - icc))
    scale = a * ms_r + b * ms_e
    parts = (a * ms_r) ** 2 / (k - 1) + (b * ms_e) ** 2 / ((n - 1) * (k - 1))
    v = scale**2 / parts
    tail = (1 + level) / 2
    f_low, f_high = stats.f.ppf(tail, n - 1, v), stats.f.ppf(tail, v, n - 1)
    rest = k * ms_r + (k * n - k - n) * ms_e
    low = n * (ms_s - f_low * ms_e) / (f_low * rest + n * ms_s)
    high = n * (f_high * ms_s - ms_e) / (rest + n * f_high * ms_s)
    return float(low), float(high)
