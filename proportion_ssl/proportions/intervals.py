"""How far recorded proportions can be trusted: intervals of the shares of each bag."""

from typing import Any

import numpy as np

#: How far the proportions of a bag may be from summing to 1: shares are often rounded.
SUM_TOLERANCE = 0.01 + 1e-9


def rounding_interval(proportions: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Shares that could have been rounded to the recorded ones.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
    step : float
        In (0, 1]: 0.1 where shares were written in steps of ten per cent.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)
        ``proportions -+ step / 2``, within [0, 1]. A recorded 0 may be anything up to half a step.

    Examples
    --------
    >>> rounding_interval(np.array([[0.25, 0.75]]), 0.5)
    (array([[0. , 0.5]]), array([[0.5, 1. ]]))
    """
    proportions = np.asarray(proportions, dtype=np.float64)
    return np.clip(proportions - step / 2, 0.0, 1.0), np.clip(proportions + step / 2, 0.0, 1.0)


def deviation_interval(
    proportions: np.ndarray, standard_deviation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares within one standard deviation of the recorded ones; a class recorded as absent stays absent.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
    standard_deviation : float or array broadcastable to the shape of ``proportions``
        Of the estimate of a share, in shares: 0.1 is ten percentage points.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Within [0, 1]. Equal where the standard deviation or the recorded share is 0: a reader
        who is unsure how much of a class there is has still seen it.

    Examples
    --------
    >>> deviation_interval(np.array([[0.25, 0.75, 0.0]]), 0.125)
    (array([[0.125, 0.625, 0.   ]]), array([[0.375, 0.875, 0.   ]]))
    """
    proportions = np.asarray(proportions, dtype=np.float64)
    width = np.where(proportions > 0, standard_deviation, 0.0)
    return np.clip(proportions - width, 0.0, 1.0), np.clip(proportions + width, 0.0, 1.0)


def missing_interval(proportions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares that were not stated: anything between nothing and what the stated ones leave.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
        NaN: not stated. 0 is a statement: the class was not seen.

    Returns
    -------
    filled : ndarray of shape (n_bags, n_classes)
        Without NaN: what is left is shared equally among the classes that were not stated.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Equal to the recorded share where it was stated. One class not stated is certain too.

    Examples
    --------
    >>> filled, lower, upper = missing_interval(np.array([[0.5, np.nan, np.nan]]))
    >>> filled.tolist(), lower.tolist(), upper.tolist()
    ([[0.5, 0.25, 0.25]], [[0.5, 0.0, 0.0]], [[0.5, 0.5, 0.5]])
    """
    proportions = np.asarray(proportions, dtype=np.float64)
    missing = np.isnan(proportions)
    n_missing = missing.sum(axis=1, keepdims=True)
    rest = np.maximum(0.0, 1.0 - np.nansum(proportions, axis=1, keepdims=True))
    filled = np.where(missing, rest / np.maximum(n_missing, 1), proportions)
    lower = np.where(missing & (n_missing > 1), 0.0, filled)
    upper = np.where(missing, rest, filled)
    return filled, lower, upper


def readers_interval(readings: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What several readers wrote: their mean, and the span between their smallest and largest share.

    Parameters
    ----------
    readings : ndarray of shape (n_readers, n_bags, n_classes)
        A row of NaN: this reader did not read this bag. At least one has read each bag.

    Returns
    -------
    mean, lower, upper : ndarray of shape (n_bags, n_classes)

    Examples
    --------
    >>> mean, lower, upper = readers_interval(np.array([[[0.5, 0.5]], [[0.75, 0.25]]]))
    >>> mean.tolist(), lower.tolist(), upper.tolist()
    ([[0.625, 0.375]], [[0.5, 0.25]], [[0.75, 0.5]])
    """
    readings = np.asarray(readings, dtype=np.float64)
    return np.nanmean(readings, axis=0), np.nanmin(readings, axis=0), np.nanmax(readings, axis=0)


def nearest_proportions(predicted: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Recorded share that is nearest to the predicted one, within each interval.

    Parameters
    ----------
    predicted, lower, upper : ndarray of shape (n_bags, n_classes)

    Returns
    -------
    proportions : ndarray of shape (n_bags, n_classes)
        The prediction itself where it lies within the interval: nothing is then over- or
        under-predicted. The recorded share where the interval has no width.

    Examples
    --------
    >>> nearest_proportions(np.array([[0.7, 0.3]]), np.array([[0.4, 0.2]]), np.array([[0.6, 0.4]]))
    array([[0.6, 0.3]])
    """
    return np.clip(predicted, lower, upper)


def check_intervals(lower: Any, upper: Any, shape: tuple[int, int], names: np.ndarray) -> tuple:
    """Intervals as arrays that admit shares summing to 1.

    Parameters
    ----------
    lower, upper : array-like of shape (n_bags, n_classes)
    shape : tuple of int
        Expected shape.
    names : ndarray of shape (n_bags,)
        Bag names, for the messages.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)

    Raises
    ------
    ValueError
        Naming the bag: another shape, ends that are not finite or not in [0, 1], a lower end above the
        upper one, intervals that no shares with sum 1 satisfy (within 0.01).
    """
    ends = []
    for name, values in (("lower", lower), ("upper", upper)):
        values = np.array(values, dtype=np.float64)
        if values.shape != shape:
            raise ValueError(f"{name} has shape {values.shape}, but the proportions have {shape}.")
        ends.append(values)
    lower, upper = ends
    for problem, rows in (
        (
            "has an interval whose end is not a finite number",
            ~np.isfinite(lower + upper).all(axis=1),
        ),
        ("has an interval outside [0, 1]", ((lower < 0) | (upper > 1 + SUM_TOLERANCE)).any(axis=1)),
        (
            "has an interval whose lower end is above its upper end",
            (lower > upper + 1e-12).any(axis=1),
        ),
        ("has upper ends that sum to less than 1", upper.sum(axis=1) < 1 - SUM_TOLERANCE),
        ("has lower ends that sum to more than 1", lower.sum(axis=1) > 1 + SUM_TOLERANCE),
    ):
        if rows.any():
            bag = int(np.flatnonzero(rows)[0])
            raise ValueError(
                f"Bag {names.tolist()[bag]!r} {problem}: {lower[bag].tolist()} to {upper[bag].tolist()}."
            )
    return lower, upper
