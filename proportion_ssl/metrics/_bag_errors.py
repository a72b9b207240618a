"""Errors of predicted class proportions of bags."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from proportion_ssl._checks import check_intervals, check_shares
from proportion_ssl.metrics._label_codes import (
    NOTHING_LEFT,
    TABLE_SPAN,
    as_array,
    blocks,
    check_labels,
    check_pair,
    distinct,
    encode,
    encoded_blocks,
    refuse_unknown,
    resolve_labels,
    shown,
)
from proportion_ssl.proportions.counts import count_per_bag, shares, sum_absolute_error
from proportion_ssl.proportions.intervals import missing_interval, nearest_proportions


def proportion_error(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    bag_ids: ArrayLike,
    labels: ArrayLike | None = None,
    ignore_label: ArrayLike | None = None,
) -> float:
    """Mean over bags of the distance between true and predicted class shares.

    Parameters
    ----------
    y_true, y_pred, labels, ignore_label
        As in :func:`segmentation_confusion_matrix`.
    bag_ids : array-like of str or int, same shape as ``y_true``
        Bag (slide) of each position.

    Returns
    -------
    error : float
        In [0, 1]; lower is better. 0 if the shares of each bag are right, regardless of where in the bag
        the classes are predicted.

    Raises
    ------
    ValueError, TypeError
        As in :func:`segmentation_confusion_matrix`, or if bag ids have another shape, are missing or
        have mixed types.

    See Also
    --------
    proportion_ssl.bag_proportion_error : for bags with recorded proportions and unknown labels.

    Notes
    -----
    ``mean_b min(1, sum_c |t_bc - p_bc|)`` with t and p the true and predicted shares among the
    positions of bag b: the mean of equation (2) of [1]_. Every bag has the same weight, regardless of its
    size. Ignored positions are dropped from both truth and prediction before the shares are computed; a
    bag without remaining positions is left out of the mean.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> truth = ["solid", "solid", "acinar", "solid"]
    >>> predicted = ["solid", "acinar", "solid", "acinar"]
    >>> proportion_error(truth, predicted, bag_ids=["s1", "s1", "s1", "s2"])
    0.5
    """
    y_true, y_pred = check_pair(y_true, y_pred)
    bag_ids, bags = _check_bags(bag_ids, y_true, "y_true")
    labels, ignored = resolve_labels(y_true, y_pred, labels, ignore_label)
    shape = (len(bags), len(labels))
    n_true, n_predicted = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    positions = _positions_in(bags)
    blocks = encoded_blocks(y_true, y_pred, labels, ignored, at_least=4 * n_true.size)
    for block, true, predicted in blocks:
        keep = true < len(labels)
        bag = positions(bag_ids[block][keep])
        n_true += count_per_bag(true[keep], bag, n_bags=shape[0], n_classes=shape[1])
        n_predicted += count_per_bag(predicted[keep], bag, n_bags=shape[0], n_classes=shape[1])
    scored = n_true.sum(axis=1) > 0
    if not scored.any():
        raise ValueError(NOTHING_LEFT)
    errors = sum_absolute_error(shares(n_true[scored]), shares(n_predicted[scored]))
    return float(errors.mean())


def bag_proportion_error(
    bag_proportions: ArrayLike,
    y_pred: ArrayLike,
    *,
    bag_ids: ArrayLike,
    labels: ArrayLike,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
) -> float:
    """Mean over bags of the distance between recorded and predicted class shares.

    For bags whose instances have no labels, only recorded proportions.

    Parameters
    ----------
    bag_proportions : array-like or DataFrame of shape (n_bags, n_classes)
        Recorded share of each class, in [0, 1]; rows sum to 1 within 0.01. NaN: not recorded; the share may
        be anything that the recorded ones leave. In an array, row i belongs to the i-th of the *sorted* bag
        ids (as in ``numpy.unique(bag_ids)``), column c to ``labels[c]``. A DataFrame is matched by name:
        bag ids are its index and classes its columns, in any order.
    y_pred : array-like of str or int, any shape
        Predicted label of each position. Leave out positions that the record does not cover.
    bag_ids : array-like of str or int, same shape as ``y_pred``
        Bag (slide) of each position.
    labels : array-like of str or int, shape (n_classes,)
        The classes.
    lower, upper : array-like or DataFrame of shape (n_bags, n_classes), optional
        Interval that contains each recorded share, in the same order as ``bag_proportions``, such as those
        of :class:`~proportion_ssl.Bags`. Give both or neither; with intervals, rows of ``bag_proportions``
        need not sum to 1.

    Returns
    -------
    error : float
        In [0, 1]; lower is better. 0 if all predicted shares lie within their intervals.

    Raises
    ------
    ValueError
        If bags or classes do not match, proportions are missing, negative, infinite, outside their
        intervals or do not sum to 1, a predicted label is unknown, or there are no positions.
    TypeError
        If labels or bag ids are neither all strings nor all whole numbers.

    See Also
    --------
    proportion_ssl.metrics.proportion_error : for bags whose instances have labels.

    Notes
    -----
    ``mean_b min(1, sum_c |TCR_bc - PCR_bc|)``, the mean of equation (2) of [1]_; every bag has the same
    weight. With intervals, TCR is the share in the interval nearest to the predicted one.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> recorded = [[0.5, 0.5], [0.0, 1.0]]
    >>> bag_proportion_error(
    ...     recorded, ["a", "a", "a", "b", "b"], bag_ids=[1, 1, 1, 1, 2], labels=["a", "b"]
    ... )
    0.25
    """
    y_pred = as_array(y_pred, "y_pred")
    if y_pred.size == 0:
        raise ValueError("Nothing to score: y_pred is empty.")
    labels = check_labels(labels, "labels")
    bag_ids, bags = _check_bags(bag_ids, y_pred, "y_pred")
    lower, upper = _check_recorded(bag_proportions, lower, upper, bags, labels)
    counts = np.zeros(lower.shape, dtype=np.int64)
    y_pred = y_pred.reshape(-1)
    positions = _positions_in(bags)
    for block in blocks(y_pred.size, at_least=4 * counts.size):
        codes = encode(y_pred[block], labels)
        refuse_unknown(y_pred[block], codes == len(labels), "y_pred", labels, ())
        bag = positions(bag_ids[block])
        counts += count_per_bag(codes, bag, n_bags=len(bags), n_classes=len(labels))
    predicted = shares(counts)
    nearest = nearest_proportions(predicted, lower, upper)
    return float(sum_absolute_error(nearest, predicted).mean())


def _check_bags(bag_ids: ArrayLike, values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Flattened bag ids, one per position, and the sorted distinct ids, shape (n_bags,)."""
    ids = as_array(bag_ids, "bag_ids")
    if ids.shape != values.shape:
        raise ValueError(
            f"bag_ids has shape {ids.shape} and {name} {values.shape}; give one id per position."
        )
    ids = ids.reshape(-1)
    found = set().union(*(distinct(ids[block]) for block in blocks(ids.size)))
    if any(bag != bag for bag in found):
        raise ValueError("bag_ids holds NaN; give every position the id of its bag.")
    try:
        return ids, np.array(sorted(found))
    except TypeError as error:
        raise TypeError(
            f"bag_ids mixes types or has missing entries ({error}); use all strings or all "
            f"whole numbers."
        ) from error


def _positions_in(bags: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that maps known ids to their positions in the sorted distinct ids."""
    if bags.dtype.kind != "i" or int(bags[-1]) - int(bags[0]) >= max(TABLE_SPAN, 4 * len(bags)):
        return lambda ids: np.searchsorted(bags, ids)
    table = np.zeros(int(bags[-1] - bags[0]) + 1, dtype=np.intp)
    table[bags - bags[0]] = np.arange(len(bags))
    return lambda ids: table.take(ids.astype(np.int64) - bags[0])


def _check_recorded(
    bag_proportions, lower, upper, bags: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the recorded shares, (n_bags, n_classes), in the order of bags and labels."""
    recorded = _as_floats(bag_proportions, "bag_proportions", bags, labels)
    check_shares(recorded, "bag_proportions", bags=bags, may_miss=True, any_sum=lower is not None)
    if lower is None and upper is None:
        return missing_interval(recorded, recorded)
    if lower is None or upper is None:
        raise ValueError("lower and upper belong together; give both.")
    least = _as_floats(lower, "lower", bags, labels)
    most = _as_floats(upper, "upper", bags, labels)
    check_intervals(least, most, bags, recorded)
    return least, most


def _as_floats(table, name: str, bags: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if hasattr(table, "columns") and hasattr(table, "index"):
        table = _select_by_name(table, name, bags, labels)
    values = np.asarray(table, dtype=np.float64)
    if values.shape != (len(bags), len(labels)):
        raise ValueError(
            f"{name} has shape {values.shape}, but there are {len(bags)} bags in "
            f"bag_ids and {len(labels)} labels; give one row per bag, in sorted order of the "
            f"ids, and one column per label."
        )
    return values


def _select_by_name(table, name: str, bags: np.ndarray, labels: np.ndarray) -> np.ndarray:
    for axis, wanted, what in (
        ("index", bags.tolist(), "bag ids"),
        ("columns", labels.tolist(), "labels"),
    ):
        found = list(getattr(table, axis))
        if len(set(found)) < len(found):
            raise ValueError(f"{name} has repeated entries in its {axis}; make them unique.")
        missing = [each for each in wanted if each not in set(found)]
        extra = sorted(set(found) - set(wanted), key=repr)
        if missing or extra:
            raise ValueError(
                f"The {axis} of {name} must be the {what}: missing {shown(missing)}, "
                f"without counterpart {shown(extra)}."
            )
    return table.loc[bags.tolist(), labels.tolist()].to_numpy(dtype=np.float64)
