"""Intervals of the recorded shares of each bag."""

import numpy as np

#: Added to half a rounding step, so that floating-point errors do not exclude shares half a step off.
ROUNDING_GUARD = 1e-12


def rounding_interval(proportions: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of shares that round to the recorded ones.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
        Recorded shares, not normalized. NaN: not recorded.
    step : float
        In (0, 0.5]; 0.1 for shares in steps of ten percent.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)
        ``proportions -+ step / 2``, within [0, 1]. A recorded 0 may be anything up to half a step. NaN where
        no share is recorded.

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
    """Intervals of one standard deviation around the recorded shares; absent classes stay absent.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
        Recorded shares. NaN: not recorded.
    standard_deviation : float or array broadcastable to the shape of ``proportions``
        Standard deviation of a recorded share; 0.1 means ten percentage points.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Within [0, 1]. Equal where the standard deviation or the recorded share is 0: a reader may be unsure
        of the amount of a class, but not of its absence. NaN where no share is recorded.

    Examples
    --------
    >>> deviation_interval(np.array([[0.25, 0.75, 0.0]]), 0.125)
    (array([[0.125, 0.625, 0.   ]]), array([[0.375, 0.875, 0.   ]]))
    """
    proportions = np.asarray(proportions, dtype=np.float64)
    width = np.where(proportions > 0, standard_deviation, 0.0)
    return np.clip(proportions - width, 0.0, 1.0), np.clip(proportions + width, 0.0, 1.0)


def missing_interval(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intervals for missing shares: the least and most that the recorded shares leave.

    Parameters
    ----------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Intervals of the recorded shares, equal for exact shares. NaN: not recorded. A share of 0 is a
        recorded share: the class is absent.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Without NaN. A single missing share is as certain as all others together; if several are missing,
        each may be 0.

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
    """Fill in missing shares so that the proportions sum to 1 if possible.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
        Recorded shares. NaN: not recorded.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Intervals, without NaN.

    Returns
    -------
    filled : ndarray of shape (n_bags, n_classes)
        Recorded shares unchanged, the others all at the same relative position in their intervals.

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
    """Proportions that sum to 1, as near to the recorded ones as their intervals allow.

    For methods that need one number per class: rounded shares need not sum to 1.

    Parameters
    ----------
    proportions : ndarray of shape (n_bags, n_classes)
        Recorded shares, within their intervals.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Intervals that admit a sum of 1 (within 0.01).

    Returns
    -------
    proportions : ndarray of shape (n_bags, n_classes)
        Rows sum to 1. Each share moves by the same fraction of what its interval allows. A remaining
        difference, where intervals have no width, is removed by dividing by the sum.

    Examples
    --------
    >>> written = np.array([[0.3, 0.3, 0.3]])
    >>> consistent_proportions(written, *rounding_interval(written, 0.1)).round(3).tolist()
    [[0.333, 0.333, 0.333]]
    """
    moved = move_to_sum_one(proportions, lower, upper)
    return moved / moved.sum(axis=1, keepdims=True)


def move_to_sum_one(shares: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Move shares toward the ends of their intervals, all by the same fraction, until they sum to 1.

    Parameters
    ----------
    shares, lower, upper : ndarray of shape (n_bags, n_classes)
        ``lower <= shares <= upper``.

    Returns
    -------
    shares : ndarray of shape (n_bags, n_classes)
        Within the intervals; at their ends if they do not admit a sum of 1.

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
    """Mean share of several readers, and the interval from their smallest to their largest share.

    Parameters
    ----------
    readings : ndarray of shape (n_readers, n_bags, n_classes)
        A row of NaN: the reader did not read the bag. Each bag needs at least one reader.

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
    """Variance of the share of a class in a random subset of a bag, divided by ``p (1 - p)``.

    Parameters
    ----------
    n_instances, n_drawn : array-like of int, shape (n_bags,)
        Size of each bag, and number of instances drawn without replacement; at least 1.

    Returns
    -------
    variance : ndarray of shape (n_bags,)
        ``(n - m) / (m (n - 1))``, in [0, 1]; 0 where the whole bag is drawn.

    Notes
    -----
    The count of a class in the subset follows a hypergeometric distribution.

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
    """Intervals of the shares in random subsets of bags: one standard deviation wider at each end.

    Parameters
    ----------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Intervals of the shares in whole bags.
    variance : ndarray of shape (n_bags, 1) or float
        As from :func:`sampling_variance`.

    Returns
    -------
    lower, upper : ndarray of shape (n_bags, n_classes)
        Within [0, 1]; shares of 0 and 1 hold in every subset. Unchanged where the variance is 0.

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
    """Distance of predicted proportions from the intervals of the recorded ones.

    Parameters
    ----------
    predicted, lower, upper : ndarray of shape (n_bags, n_classes)
        As in :func:`nearest_proportions`.

    Returns
    -------
    distance : ndarray of shape (n_bags,)
        Sum over the classes of the absolute differences from the nearest proportions, in [0, 2]. Capped at 1
        it is equation (2); see :func:`~proportion_ssl.proportions.sum_absolute_error`.

    Examples
    --------
    >>> import numpy as np
    >>> lower, upper = np.array([[0.2, 0.6]]), np.array([[0.4, 0.8]])
    >>> proportion_distance(np.array([[0.5, 0.5]]), lower, upper).round(6)
    array([0.2])
    """
    return np.abs(nearest_proportions(predicted, lower, upper) - predicted).sum(axis=1)


def nearest_proportions(predicted: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Share within each interval that is nearest to the predicted one.

    Parameters
    ----------
    predicted, lower, upper : ndarray of shape (n_bags, n_classes)

    Returns
    -------
    proportions : ndarray of shape (n_bags, n_classes)
        The prediction where it lies within the interval (neither over- nor under-predicted), otherwise the
        nearest end of the interval.

    Examples
    --------
    >>> nearest_proportions(np.array([[0.7, 0.3]]), np.array([[0.4, 0.2]]), np.array([[0.6, 0.4]]))
    array([[0.6, 0.3]])
    """
    return np.clip(predicted, lower, upper)
