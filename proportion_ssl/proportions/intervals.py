"""How far recorded proportions can be trusted: intervals of the shares of each bag."""

import numpy as np

#: Added to half a rounding step: a share of exactly half a step more or less must not be lost to float error.
ROUNDING_GUARD = 1e-12


def rounding_interval(proportions: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Shares that could have been rounded to the recorded ones.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
        As they were written, not divided by their sum. NaN: not stated.
    step : float
        In (0, 1]: 0.1 where shares were written in steps of ten per cent.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)
        ``proportions -+ step / 2``, within [0, 1]. A recorded 0 may be anything up to half a step. NaN where
        nothing is stated.

    Examples
    --------
    >>> lower, upper = rounding_interval(np.array([[0.25, 0.75]]), 0.5)
    >>> lower.round(3).tolist(), upper.round(3).tolist()
    ([[0.0, 0.5]], [[0.5, 1.0]])
    """
    proportions = np.asarray(proportions, dtype=np.float64)
    half = step / 2 + ROUNDING_GUARD
    return np.clip(proportions - half, 0.0, 1.0), np.clip(proportions + half, 0.0, 1.0)


def deviation_interval(
    proportions: np.ndarray, standard_deviation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shares within one standard deviation of the recorded ones; a class recorded as absent stays absent.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
        As they were written. NaN: not stated.
    standard_deviation : float or array broadcastable to the shape of ``proportions``
        Of the estimate of a share, in shares: 0.1 is ten percentage points.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Within [0, 1]. Equal where the standard deviation or the recorded share is 0: a reader
        who is unsure how much of a class there is has still seen it. NaN where nothing is stated.

    Examples
    --------
    >>> deviation_interval(np.array([[0.25, 0.75, 0.0]]), 0.125)
    (array([[0.125, 0.625, 0.   ]]), array([[0.375, 0.875, 0.   ]]))
    """
    proportions = np.asarray(proportions, dtype=np.float64)
    width = np.where(proportions > 0, standard_deviation, 0.0)
    return np.clip(proportions - width, 0.0, 1.0), np.clip(proportions + width, 0.0, 1.0)


def missing_interval(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of shares that were not stated: what the stated ones leave, at most and at least.

    Parameters
    ----------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Intervals of the stated shares, equal where they are exact. NaN: not stated. A share of 0 is
        stated: the class was not seen.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Without NaN. One class that was not stated is as certain as all others together; of several, each may
        be absent.

    Examples
    --------
    >>> stated = np.array([[0.5, np.nan, np.nan]])
    >>> [ends.tolist() for ends in missing_interval(stated, stated)]
    [[[0.5, 0.0, 0.0]], [[0.5, 0.5, 0.5]]]
    >>> [ends.round(3).tolist() for ends in missing_interval(*rounding_interval(stated, 0.1))]
    [[[0.45, 0.0, 0.0]], [[0.55, 0.55, 0.55]]]
    """
    missing = np.isnan(lower)
    is_alone = missing.sum(axis=1, keepdims=True) == 1
    most = np.clip(1.0 - np.nansum(lower, axis=1, keepdims=True), 0.0, 1.0)
    least = np.clip(1.0 - np.nansum(upper, axis=1, keepdims=True), 0.0, 1.0)
    return (
        np.where(missing, np.where(is_alone, least, 0.0), lower),
        np.where(missing, most, upper),
    )


def fill_missing(proportions: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Proportions with a share for each class that was not stated, so that they sum to 1 if they can.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
        As they were written. NaN: not stated.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Intervals, without NaN.

    Returns
    -------
    filled : ndarray of shape (n_bags, n_classes)
        Stated shares unchanged, the others all at the same relative place of their intervals.

    Examples
    --------
    >>> stated = np.array([[0.5, np.nan, np.nan]])
    >>> fill_missing(stated, *missing_interval(stated, stated)).tolist()
    [[0.5, 0.25, 0.25]]
    """
    missing = np.isnan(proportions)
    start = np.where(missing, lower, proportions)
    return move_to_sum_one(start, start, np.where(missing, upper, proportions))


def consistent_proportions(
    proportions: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """Proportions that sum to 1, as near to the written ones as their intervals allow.

    For what needs one number per class; written numbers that were rounded may sum to something else.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
        As they were written, within their intervals.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Intervals that admit a sum of 1 (within 0.01).

    Returns
    -------
    proportions : ndarray of shape (n_bags, n_classes)
        Rows sum to 1: each share is moved by the same part of what its interval allows. What is then left of
        the difference, where intervals have no width, is removed by a division by the sum.

    Examples
    --------
    >>> written = np.array([[0.3, 0.3, 0.3]])
    >>> consistent_proportions(written, *rounding_interval(written, 0.1)).round(3).tolist()
    [[0.333, 0.333, 0.333]]
    """
    moved = move_to_sum_one(proportions, lower, upper)
    return moved / moved.sum(axis=1, keepdims=True)


def move_to_sum_one(shares: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Shares moved towards the ends of their intervals until they sum to 1, all by the same part of the way.

    Parameters
    ----------
    shares, lower, upper : ndarray of shape (n_bags, n_classes)
        ``lower <= shares <= upper``.

    Returns
    -------
    shares : ndarray of shape (n_bags, n_classes)
        Within the intervals; at their ends where these do not admit a sum of 1.

    Examples
    --------
    >>> shares = np.array([[0.2, 0.4]])
    >>> move_to_sum_one(shares, shares, np.array([[0.4, 1.0]])).round(3).tolist()
    [[0.3, 0.7]]
    """
    gap = 1.0 - shares.sum(axis=1, keepdims=True)
    way = np.where(gap > 0, upper, lower) - shares
    total = way.sum(axis=1, keepdims=True)
    part = np.divide(gap, total, out=np.zeros_like(gap), where=total != 0)
    return shares + np.clip(part, 0.0, 1.0) * way


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


def sampling_variance(n_instances: np.ndarray, n_drawn: np.ndarray) -> np.ndarray:
    """Variance of the share of a class in a random part of a bag, divided by ``p (1 - p)``.

    Parameters
    ----------
    n_instances, n_drawn : array-like of int, shape (n_bags,)
        Instances of each bag, and how many of them are drawn without replacement; at least 1.

    Returns
    -------
    variance : ndarray of shape (n_bags,)
        ``(n - m) / (m (n - 1))``, in [0, 1]; 0 where the whole bag is drawn.

    Notes
    -----
    Counts of a class in the part follow a hypergeometric distribution.

    Examples
    --------
    >>> sampling_variance([100, 64], [4, 64]).round(4)
    array([0.2424, 0.    ])
    """
    n, m = np.asarray(n_instances, dtype=np.float64), np.asarray(n_drawn, dtype=np.float64)
    return (n - m) / (m * np.maximum(n - 1, 1))


def spread_interval(
    lower: np.ndarray, upper: np.ndarray, variance: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the shares in random parts of bags: one standard deviation wider at either end.

    Parameters
    ----------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Intervals of the shares in whole bags.
    variance : ndarray of shape (n_bags, 1) or float
        As from :func:`sampling_variance`.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Within [0, 1]; shares of 0 and 1 are certain in every part. Unchanged where the variance is 0.

    Examples
    --------
    >>> half = np.array([[0.5, 0.5, 0.0]])
    >>> lower, upper = spread_interval(half, half, sampling_variance([121], [25])[:, np.newaxis])
    >>> lower.round(3).tolist(), upper.round(3).tolist()
    ([[0.411, 0.411, 0.0]], [[0.589, 0.589, 0.0]])
    """
    low, high = (np.sqrt(end * (1.0 - end) * variance) for end in (lower, upper))
    return np.clip(lower - low, 0.0, 1.0), np.clip(upper + high, 0.0, 1.0)


def proportion_distance(predicted: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Distance of predicted proportions from the intervals of recorded ones.

    Parameters
    ----------
    predicted, lower, upper : ndarray of shape (n_bags, n_classes)
        As in :func:`nearest_proportions`.

    Returns
    -------
    distance : ndarray of shape (n_bags,)
        Sum over the classes of the absolute differences from the nearest proportions, in [0, 2]. Its minimum
        with 1 is equation (2); see :func:`~proportion_ssl.proportions.sum_absolute_error`.

    Examples
    --------
    >>> import numpy as np
    >>> lower, upper = np.array([[0.2, 0.6]]), np.array([[0.4, 0.8]])
    >>> proportion_distance(np.array([[0.5, 0.5]]), lower, upper).round(6)
    array([0.2])
    """
    return np.abs(nearest_proportions(predicted, lower, upper) - predicted).sum(axis=1)


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
