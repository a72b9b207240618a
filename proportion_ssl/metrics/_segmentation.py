"""Segmentation scores: every one a reduction of a confusion matrix, or of the shares per bag."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from proportion_ssl.proportions import count_per_bag, sum_absolute_error

# Positions are encoded and counted in blocks, so that memory does not grow with the map, and what is
# made of a block stays in a processor's cache.
_BLOCK = 2**17
# Integer labels this close together are looked up in a table; others are compared one by one.
_TABLE_SPAN = 2**16
# Recorded proportions are rounded by hand: their sum may be off by this much.
_SUM_TOLERANCE = 0.01

_SHOWN = 5
_NOTHING_LEFT = (
    "Nothing to score: no position is left (all of them ignored, without weight, or none given); "
    "check ignore_label and that the labels are not empty."
)


class SegmentationConfusion:
    """Confusion matrix that grows map by map, for slides too large to hold at once.

    Parameters
    ----------
    labels : array-like of str or int, shape (n_classes,)
        The classes, in the order of the rows and columns of :attr:`matrix`.
    ignore_label : str, int or sequence of these, default=None
        Ground-truth labels to leave out, such as vague regions. Positions that carry one are
        dropped before counting, whatever is predicted there.

    Attributes
    ----------
    matrix : ndarray of shape (n_classes, n_classes)
        Number of positions with the row's true and the column's predicted class (int64), or
        their total weight (float64) once an update was weighted.

    Raises
    ------
    ValueError
        If labels are repeated, missing, or also ignored.
    TypeError
        If labels are neither all strings nor all whole numbers.

    Notes
    -----
    Counts are pooled over everything added, so a large slide weighs more than a small one. For
    the other number, the average over slides, keep one object per slide, take the mean of
    their scores, and call it that. Merging the objects gives the pooled score again.

    Examples
    --------
    >>> import numpy as np
    >>> confusion = SegmentationConfusion(["acinar", "solid"], ignore_label="vague")
    >>> truth = np.array([["acinar", "solid"], ["vague", "solid"]])
    >>> predicted = np.array([["acinar", "acinar"], ["solid", "solid"]])
    >>> for true_row, predicted_row in zip(truth, predicted):
    ...     confusion = confusion.update(true_row, predicted_row)
    >>> confusion.matrix
    array([[1, 0],
           [1, 1]])
    >>> confusion.mean_iou_score()
    0.5
    """

    def __init__(self, labels: ArrayLike, ignore_label: ArrayLike | None = None):
        self._labels = _check_labels(labels, "labels")
        self._ignored = _check_ignored(ignore_label, self._labels)
        self._matrix: np.ndarray = np.zeros((len(self._labels), len(self._labels)), dtype=np.int64)

    @property
    def labels(self) -> np.ndarray:
        """Classes in the order of the rows and columns, shape (n_classes,)."""
        return self._labels.copy()

    @property
    def ignore_label(self) -> np.ndarray:
        """Ground-truth labels that are left out, shape (n_ignored,)."""
        return self._ignored.copy()

    @property
    def matrix(self) -> np.ndarray:
        """Counts by true (row) and predicted (column) class, shape (n_classes, n_classes)."""
        return self._matrix.copy()

    def update(
        self, y_true: ArrayLike, y_pred: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Count the positions of one more label vector or label map.

        Parameters
        ----------
        y_true, y_pred : array-like of str or int, any shape
            True and predicted label of each position; both of the same shape. May be empty, or
            hold ignored positions only.
        sample_weight : array-like of float, same shape, default=None
            Weight of each position, not negative. Default: 1 each.

        Returns
        -------
        self : SegmentationConfusion

        Raises
        ------
        ValueError
            If the shapes differ, a label is unknown or missing, or a weight is negative or not
            finite. What was counted before stays as it was.
        TypeError
            If an array holds something other than strings or numbers.
        """
        y_true, y_pred = _check_pair(y_true, y_pred)
        if sample_weight is not None:
            sample_weight = _check_weight(sample_weight, y_true)
        dtype = self._matrix.dtype if sample_weight is None else np.dtype(np.float64)
        counts: np.ndarray = np.zeros(self._matrix.shape, dtype)
        n_classes = len(self._labels)
        for block, true, predicted in _encoded_blocks(y_true, y_pred, self._labels, self._ignored):
            weight = None if sample_weight is None else sample_weight[block]
            cells = np.bincount(
                true * (n_classes + 1) + predicted, weight, minlength=(n_classes + 1) ** 2
            )
            # The last row holds ignored truth, the last column what was predicted there.
            counts += cells.reshape(n_classes + 1, -1)[:n_classes, :n_classes]
        self._matrix = self._matrix + counts
        return self

    def merge(self, other: "SegmentationConfusion") -> Self:
        """Add the counts of another object, for example of another process, to this one.

        Parameters
        ----------
        other : SegmentationConfusion
            With the same ``labels``, in the same order, and the same ``ignore_label``.

        Returns
        -------
        self : SegmentationConfusion

        Raises
        ------
        ValueError
            If labels or ignored labels differ.
        TypeError
            If ``other`` is not a SegmentationConfusion.
        """
        if not isinstance(other, SegmentationConfusion):
            raise TypeError(
                f"Only a SegmentationConfusion can be merged, got {type(other).__name__}; build "
                f"one and update() it with the labels."
            )
        for what in ("labels", "ignore_label"):
            ours, theirs = getattr(self, what).tolist(), getattr(other, what).tolist()
            if ours != theirs:
                raise ValueError(
                    f"Confusion matrices with different {what} cannot be added: {ours} and "
                    f"{theirs}; build both with the same {what}, in the same order."
                )
        self._matrix = self._matrix + other._matrix
        return self

    def __add__(self, other: "SegmentationConfusion") -> "SegmentationConfusion":
        if not isinstance(other, SegmentationConfusion):
            return NotImplemented
        return SegmentationConfusion(self._labels, self._ignored).merge(self).merge(other)

    def __repr__(self) -> str:
        ignored = f", ignore_label={self._ignored.tolist()}" if len(self._ignored) else ""
        return f"SegmentationConfusion({self._labels.tolist()}{ignored}): {self._matrix.tolist()}"

    def overall_pixel_score(self) -> float:
        """Share of correct positions; see :func:`overall_pixel_score`."""
        matrix = self._counted()
        return float(np.trace(matrix) / matrix.sum())

    def per_class_score(
        self,
        definition: Literal["precision", "recall"] = "precision",
        average: Literal["macro"] | None = "macro",
        zero_division: float = 0.0,
    ) -> float | np.ndarray:
        """Precision or recall of the classes; see :func:`per_class_score`."""
        if definition not in ("precision", "recall"):
            raise ValueError(f'definition must be "precision" or "recall", got {definition!r}.')
        if zero_division not in (0, 1) and zero_division == zero_division:
            raise ValueError(f"zero_division must be 0, 1 or NaN, got {zero_division!r}.")
        matrix = self._counted()
        true_positives, n_true, n_predicted = _margins(matrix)
        scores = _divide(true_positives, n_predicted if definition == "precision" else n_true)
        if definition == "precision":
            scores[(n_true > 0) & (n_predicted == 0)] = zero_division
        return _average(scores, average)

    def mean_iou_score(self, average: Literal["macro"] | None = "macro") -> float | np.ndarray:
        """Intersection over union of the classes; see :func:`mean_iou_score`."""
        true_positives, n_true, n_predicted = _margins(self._counted())
        return _average(_divide(true_positives, n_true + n_predicted - true_positives), average)

    def proportion_error(self) -> float:
        """Error of the class shares when everything counted is *one* bag, in [0, 1].

        One object per slide gives the terms of which :func:`proportion_error` is the mean.
        """
        matrix = self._counted()
        _, n_true, n_predicted = _margins(matrix)
        return float(sum_absolute_error(_shares(n_true[None]), _shares(n_predicted[None]))[0])

    def _counted(self) -> np.ndarray:
        if not self._matrix.sum() > 0:
            raise ValueError(_NOTHING_LEFT)
        return self._matrix


def segmentation_confusion_matrix(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    ignore_label: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> np.ndarray:
    """Count positions by true and predicted class.

    Parameters
    ----------
    y_true, y_pred : array-like of str or int, any shape
        True and predicted label of each position: vectors of patch labels, a label map
        (height, width), or a stack of maps. Both of the same shape.
    labels : array-like of str or int, shape (n_classes,), default=None
        Classes in the order of rows and columns. Default: all that occur, sorted. Large maps
        are counted faster when it is given.
    ignore_label : str, int or sequence of these, default=None
        Ground-truth labels to leave out, such as vague regions; whatever is predicted there
        does not matter. Elsewhere an ignored label is not a class and may not be predicted.
    sample_weight : array-like of float, same shape as ``y_true``, default=None
        Weight of each position, not negative.

    Returns
    -------
    matrix : ndarray of shape (n_classes, n_classes)
        Rows are true, columns predicted classes, as in
        :func:`sklearn.metrics.confusion_matrix`; int64, or float64 with weights.

    Raises
    ------
    ValueError
        If shapes differ, a label is not in ``labels``, labels are missing (NaN), or no
        position is left after ignoring.
    TypeError
        If labels are neither all strings nor all whole numbers.

    See Also
    --------
    SegmentationConfusion : the same, accumulated over maps that are too large together.

    Examples
    --------
    >>> segmentation_confusion_matrix([0, 0, 1, 9], [0, 1, 1, 1], ignore_label=9)
    array([[1, 1],
           [0, 1]])
    """
    confusion = _confusion(y_true, y_pred, labels, ignore_label, sample_weight)
    return confusion._counted().copy()


def overall_pixel_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    ignore_label: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Share of positions with the right class (OP).

    Parameters
    ----------
    y_true, y_pred, labels, ignore_label, sample_weight
        As in :func:`segmentation_confusion_matrix`.

    Returns
    -------
    score : float
        In [0, 1]; the higher, the better.

    Raises
    ------
    ValueError, TypeError
        As in :func:`segmentation_confusion_matrix`.

    Notes
    -----
    Equation (7) of [1]_, ``sum_c TP_c / sum_c (TP_c + FP_c)``, which is accuracy. Positions are
    pooled over all maps; for the average per slide, take the mean of one call per slide.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> overall_pixel_score(["solid", "solid", "acinar"], ["solid", "acinar", "acinar"])
    0.6666666666666666
    """
    return _confusion(y_true, y_pred, labels, ignore_label, sample_weight).overall_pixel_score()


def per_class_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    ignore_label: ArrayLike | None = None,
    definition: Literal["precision", "recall"] = "precision",
    average: Literal["macro"] | None = "macro",
    zero_division: float = 0.0,
    sample_weight: ArrayLike | None = None,
) -> float | np.ndarray:
    """Mean over classes of their precision, or of their recall (PC).

    Parameters
    ----------
    y_true, y_pred, labels, ignore_label, sample_weight
        As in :func:`segmentation_confusion_matrix`.
    definition : {"precision", "recall"}, default="precision"
        "precision" is the printed equation, ``TP / (TP + FP)``; "recall" is the per-class
        accuracy of most of the segmentation literature, ``TP / (TP + FN)``.
    average : {"macro", None}, default="macro"
        "macro" is the plain mean over classes; None returns one score per class.
    zero_division : {0.0, 1.0, numpy.nan}, default=0.0
        Precision of a class that is in the ground truth and never predicted (0 / 0). NaN leaves
        it out of the mean, which rewards a model for never predicting a difficult class.
        Recall never needs it.

    Returns
    -------
    score : float, or ndarray of shape (n_classes,)
        In [0, 1]; the higher, the better. NaN per class where the score is undefined.

    Raises
    ------
    ValueError, TypeError
        As in :func:`segmentation_confusion_matrix`, or for unknown options.

    Notes
    -----
    Equation (7) of [1]_, ``1 / M * sum_c TP_c / (TP_c + FP_c)``. It is macro precision, although
    the name and the evaluation literature suggest recall; both are offered.

    Classes without a score are NaN, and M is the number of the others:

    - a class neither true nor predicted anywhere is NaN under both definitions;
    - a class predicted without being true anywhere has precision 0, as the formula says, and
      no recall (0 / 0): NaN;
    - a class true somewhere and never predicted has recall 0 and precision ``zero_division``.

    Positions are pooled over all maps; for the average per slide, take the mean of one call
    per slide.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> truth, predicted = ["solid", "solid", "acinar"], ["solid", "acinar", "acinar"]
    >>> per_class_score(truth, predicted, labels=["acinar", "solid"], average=None)
    array([0.5, 1. ])
    >>> per_class_score(truth, predicted, definition="recall")
    0.75
    """
    confusion = _confusion(y_true, y_pred, labels, ignore_label, sample_weight)
    return confusion.per_class_score(definition, average, zero_division)


def mean_iou_score(
    y_true: ArrayLike,
    y_pred: ArrayLike,
    *,
    labels: ArrayLike | None = None,
    ignore_label: ArrayLike | None = None,
    average: Literal["macro"] | None = "macro",
    sample_weight: ArrayLike | None = None,
) -> float | np.ndarray:
    """Mean over classes of intersection over union (mIoU).

    Parameters
    ----------
    y_true, y_pred, labels, ignore_label, sample_weight
        As in :func:`segmentation_confusion_matrix`.
    average : {"macro", None}, default="macro"
        "macro" is the plain mean over classes; None returns one score per class.

    Returns
    -------
    score : float, or ndarray of shape (n_classes,)
        In [0, 1]; the higher, the better. Per class NaN where a class does not occur.

    Raises
    ------
    ValueError, TypeError
        As in :func:`segmentation_confusion_matrix`, or for an unknown average.

    Notes
    -----
    Equation (7) of [1]_, ``1 / M * sum_c TP_c / (TP_c + FP_c + FN_c)``. A class neither true nor
    predicted anywhere is 0 / 0: NaN, and M is the number of the others. A class that is
    predicted without being true anywhere, or the reverse, has a union and counts as 0.

    Positions are pooled over all maps; for the average per slide, take the mean of one call
    per slide.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[0, 0], [1, 1]])
    >>> predicted = np.array([[0, 1], [1, 1]])
    >>> mean_iou_score(truth, predicted, labels=[0, 1, 2], average=None)
    array([0.5       , 0.66666667,        nan])
    >>> round(mean_iou_score(truth, predicted, labels=[0, 1, 2]), 4)
    0.5833
    """
    confusion = _confusion(y_true, y_pred, labels, ignore_label, sample_weight)
    return confusion.mean_iou_score(average)


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
        In [0, 1]; the lower, the better. 0 if each bag's shares are right, wherever the
        predicted classes lie within the bag.

    Raises
    ------
    ValueError, TypeError
        As in :func:`segmentation_confusion_matrix`, or for bag ids of another shape, missing,
        or of mixed types.

    See Also
    --------
    bag_proportion_error : for bags whose proportions are recorded and labels unknown.

    Notes
    -----
    ``mean_b min(1, sum_c |t_bc - p_bc|)`` with t and p the true and predicted shares among the
    positions of bag b: equation (2) of [1]_, averaged. Every bag counts the same, whatever
    its size. The shares are taken after ignored positions are dropped, from truth and
    prediction alike; a bag of which nothing is left has no shares and is not averaged.

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
    y_true, y_pred = _check_pair(y_true, y_pred)
    bag_ids, bags = _check_bags(bag_ids, y_true, "y_true")
    labels, ignored = _resolve_labels(y_true, y_pred, labels, ignore_label)
    shape = (len(bags), len(labels))
    n_true, n_predicted = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    positions = _positions_in(bags)
    blocks = _encoded_blocks(y_true, y_pred, labels, ignored, at_least=4 * n_true.size)
    for block, true, predicted in blocks:
        keep = true < len(labels)
        bag = positions(bag_ids[block][keep])
        n_true += count_per_bag(true[keep], bag, n_bags=shape[0], n_classes=shape[1])
        n_predicted += count_per_bag(predicted[keep], bag, n_bags=shape[0], n_classes=shape[1])
    scored = n_true.sum(axis=1) > 0
    if not scored.any():
        raise ValueError(_NOTHING_LEFT)
    errors = sum_absolute_error(_shares(n_true[scored]), _shares(n_predicted[scored]))
    return float(errors.mean())


def bag_proportion_error(
    bag_proportions: ArrayLike,
    y_pred: ArrayLike,
    *,
    bag_ids: ArrayLike,
    labels: ArrayLike,
) -> float:
    """Mean over bags of the distance between recorded and predicted class shares.

    For bags of which only the proportions are known, so that no instance can be scored.

    Parameters
    ----------
    bag_proportions : array-like or DataFrame of shape (n_bags, n_classes)
        Recorded share of each class; rows sum to 1 within 0.01. In an array, row i belongs to
        the i-th of the *sorted* bag ids (as in ``numpy.unique(bag_ids)``), column c to
        ``labels[c]``. A DataFrame is matched by name: bag ids are its index and classes its
        columns, in any order.
    y_pred : array-like of str or int, any shape
        Predicted label of each position. Leave positions out that no record speaks of.
    bag_ids : array-like of str or int, same shape as ``y_pred``
        Bag (slide) of each position.
    labels : array-like of str or int, shape (n_classes,)
        The classes.

    Returns
    -------
    error : float
        In [0, 1]; the lower, the better.

    Raises
    ------
    ValueError
        If bags or classes of the two sides do not match, proportions are negative, missing or
        do not sum to 1, a predicted label is unknown, or nothing is given.
    TypeError
        If labels or bag ids are neither all strings nor all whole numbers.

    See Also
    --------
    proportion_error : for bags whose instances have labels.

    Notes
    -----
    ``mean_b min(1, sum_c |TCR_bc - PCR_bc|)``, equation (2) of [1]_, averaged; every bag counts
    the same.

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
    y_pred = _as_array(y_pred, "y_pred")
    if y_pred.size == 0:
        raise ValueError("Nothing to score: y_pred is empty.")
    labels = _check_labels(labels, "labels")
    bag_ids, bags = _check_bags(bag_ids, y_pred, "y_pred")
    recorded = _check_recorded(bag_proportions, bags, labels)
    counts = np.zeros(recorded.shape, dtype=np.int64)
    y_pred = y_pred.reshape(-1)
    positions = _positions_in(bags)
    for block in _blocks(y_pred.size, at_least=4 * counts.size):
        codes = _encode(y_pred[block], labels)
        _refuse_unknown(y_pred[block], codes == len(labels), "y_pred", labels, ())
        bag = positions(bag_ids[block])
        counts += count_per_bag(codes, bag, n_bags=len(bags), n_classes=len(labels))
    return float(sum_absolute_error(recorded, _shares(counts)).mean())


# --- from the matrix to scores ------------------------------------------------------------------


def _confusion(y_true, y_pred, labels, ignore_label, sample_weight) -> SegmentationConfusion:
    y_true, y_pred = _check_pair(y_true, y_pred)
    labels, ignored = _resolve_labels(y_true, y_pred, labels, ignore_label)
    return SegmentationConfusion(labels, ignored).update(y_true, y_pred, sample_weight)


def _margins(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, number truly of the class, number predicted, each (n_classes,)."""
    return matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    undefined = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True)


def _average(scores: np.ndarray, average: str | None) -> float | np.ndarray:
    if average is None:
        return scores
    if average != "macro":
        raise ValueError(f'average must be "macro" or None, got {average!r}.')
    return float(np.nanmean(scores))


# --- from user formats to class indices ---------------------------------------------------------


def _blocks(size: int, at_least: int = 0) -> Iterator[slice]:
    length = max(_BLOCK, at_least)
    return (slice(start, start + length) for start in range(0, size, length))


def _encoded_blocks(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    labels: np.ndarray,
    ignored: np.ndarray,
    at_least: int = 0,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Class indices of true and predicted labels, block by block of the flattened arrays.

    Ignored truth has index n_classes; what is predicted there may be n_classes, too, and
    nothing else can be: labels that are not among the classes are refused.
    """
    n_classes = len(labels)
    known = np.concatenate([labels, ignored]) if len(ignored) else labels
    y_true, y_pred = y_true.reshape(-1), y_pred.reshape(-1)
    for block in _blocks(y_true.size, at_least):
        true = _encode(y_true[block], known)
        _refuse_unknown(y_true[block], true == len(known), "y_true", labels, ignored)
        np.minimum(true, n_classes, out=true)
        predicted = _encode(y_pred[block], labels)
        unknown = predicted == n_classes
        if len(ignored):
            unknown &= true < n_classes
        _refuse_unknown(y_pred[block], unknown, "y_pred", labels, ignored)
        yield block, true, predicted


def _encode(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Position of each value in labels; ``len(labels)`` if it is none of them, NaN included."""
    n_labels = len(labels)
    if n_labels and labels.dtype.kind == "i" and values.dtype.kind in "iub":
        lowest, highest = int(labels.min()), int(labels.max())
        fits = values.dtype.kind != "u" or values.dtype.itemsize < 8
        if fits and highest - lowest < _TABLE_SPAN and lowest > -(2**62):
            # One entry more at either end, for whatever lies outside.
            table = np.full(highest - lowest + 3, n_labels, dtype=np.intp)
            table[labels - lowest + 1] = np.arange(n_labels)
            return table.take(values.astype(np.int64) - (lowest - 1), mode="clip")
    codes = np.full(values.shape, n_labels, dtype=np.intp)
    for code, label in enumerate(labels.tolist()):
        codes[values == label] = code
    return codes


def _resolve_labels(
    y_true: np.ndarray, y_pred: np.ndarray, labels: ArrayLike | None, ignore_label
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and ignored labels, checked; without ``labels`` all that occur, sorted."""
    if labels is not None:
        labels = _check_labels(labels, "labels")
        return labels, _check_ignored(ignore_label, labels)
    ignored = _check_ignored(ignore_label, None)
    found = set()
    flat_true, flat_pred = y_true.reshape(-1), y_pred.reshape(-1)
    for block in _blocks(y_true.size):
        true, predicted = flat_true[block], flat_pred[block]
        if len(ignored):
            keep = _encode(true, ignored) == len(ignored)
            true, predicted = true[keep], predicted[keep]
        for name, values in (("y_true", true), ("y_pred", predicted)):
            present = _distinct(values)
            if any(value != value for value in present):
                raise ValueError(_missing_message(name))
            found |= present
    if not found:
        raise ValueError(_NOTHING_LEFT)
    # Predicted where the truth counts, an ignored label is no class either, and refused later.
    found -= set(ignored.tolist())
    labels = np.sort(_check_labels(list(found), "the labels of y_true and y_pred"))
    return labels, _check_ignored(ignored if len(ignored) else None, labels)


def _distinct(values: np.ndarray) -> set:
    if values.size and values.dtype.kind in "iub":
        lowest, highest = int(values.min()), int(values.max())
        if highest - lowest < _TABLE_SPAN and highest < 2**62:
            counts = np.bincount(values.astype(np.int64) - lowest)
            return {lowest + step for step in np.flatnonzero(counts).tolist()}
    if values.dtype.kind in "UO":  # faster than sorting strings
        return set(values.tolist())
    return set(np.unique(values).tolist())


def _as_array(values: ArrayLike, name: str) -> np.ndarray:
    """The values as an array of integers, floats, strings, or objects to be compared."""
    try:
        array = np.asarray(values)
        if array.dtype.kind == "U" and not hasattr(values, "dtype"):
            # Mixed lists would silently become strings, NaN included.
            array = np.asarray(values, dtype=object)
    except ValueError as error:
        raise ValueError(
            f"{name} is not one array: {error}. For several maps of different size, update one "
            f"SegmentationConfusion map by map."
        ) from error
    if array.dtype.kind == "T":
        array = array.astype(object)
    if array.dtype.kind not in "iubfUO":
        raise TypeError(f"{name} must hold whole numbers or strings, got dtype {array.dtype}.")
    if array.dtype.kind == "O":
        _check_comparable(array, name)
    return array


def _check_comparable(array: np.ndarray, name: str) -> None:
    try:
        array == array  # noqa: B015 - pandas' NA refuses to be compared, unlike NaN and None
    except TypeError as error:
        raise ValueError(_missing_message(name)) from error


def _check_pair(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    y_true, y_pred = _as_array(y_true, "y_true"), _as_array(y_pred, "y_pred")
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"y_true has shape {y_true.shape} and y_pred {y_pred.shape}; give one label per "
            f"position in both (for probabilities, the arg-max class)."
        )
    return y_true, y_pred


def _check_weight(sample_weight: ArrayLike, y_true: np.ndarray) -> np.ndarray:
    weight = np.asarray(sample_weight, dtype=np.float64)
    if weight.shape != y_true.shape:
        raise ValueError(
            f"sample_weight has shape {weight.shape} and y_true {y_true.shape}; give one weight "
            f"per position."
        )
    if not (np.isfinite(weight).all() and (weight >= 0).all()):
        raise ValueError("sample_weight must be finite and not negative.")
    return weight.reshape(-1)


def _check_labels(labels: ArrayLike, name: str) -> np.ndarray:
    """Distinct labels as an int64 or a string array of shape (n_labels,)."""
    if isinstance(labels, str) or not isinstance(labels, Iterable) or np.ndim(labels) == 0:
        raise TypeError(f"{name} must be a sequence of classes, got {labels!r}.")
    listed: list[Any] = labels.tolist() if isinstance(labels, np.ndarray) else list(labels)
    if not listed:
        raise ValueError(f"{name} is empty; give at least one class.")
    if all(isinstance(label, str) for label in listed):
        checked = np.array(listed, dtype=str)
    elif all(_is_whole_number(label) for label in listed):
        listed = [int(label) for label in listed]
        if not all(-(2**63) <= label < 2**63 for label in listed):
            raise ValueError(f"{name} holds {_shown(listed)}, beyond 64-bit integers.")
        checked = np.array(listed, dtype=np.int64)
    else:
        raise TypeError(
            f"{name} must be all strings or all whole numbers, got "
            f"{_shown(sorted(listed, key=repr))}; use one kind throughout."
        )
    if len(set(checked.tolist())) < len(checked):
        raise ValueError(f"{name} holds a class more than once: {checked.tolist()}.")
    return checked


def _is_whole_number(label) -> bool:
    if isinstance(label, int | np.integer | np.bool_):
        return True
    return isinstance(label, float | np.floating) and float(label).is_integer()


def _check_ignored(ignore_label, labels: np.ndarray | None) -> np.ndarray:
    """Ignored labels as an array of the same kind as labels, shape (n_ignored,)."""
    if ignore_label is None:
        return np.array([], dtype=np.int64 if labels is None else labels.dtype)
    if isinstance(ignore_label, str) or np.ndim(ignore_label) == 0:
        ignore_label = [ignore_label]
    if len(ignore_label) == 0:
        return _check_ignored(None, labels)
    ignored = _check_labels(ignore_label, "ignore_label")
    if labels is None:
        return ignored
    if ignored.dtype.kind != labels.dtype.kind:
        raise TypeError(
            f"ignore_label {ignored.tolist()} and labels {_shown(labels.tolist())} are of "
            f"different types; use strings for both, or whole numbers for both."
        )
    both = sorted(set(ignored.tolist()) & set(labels.tolist()))
    if both:
        raise ValueError(
            f"{both} stand in both labels and ignore_label; an ignored label is not a class, "
            f"take it out of labels."
        )
    return ignored


def _refuse_unknown(values, unknown, name, labels, ignored) -> None:
    if not unknown.any():
        return
    strays = values[unknown]
    if strays.dtype.kind in "fO" and (strays != strays).any():
        raise ValueError(_missing_message(name))
    distinct = list(dict.fromkeys(strays[: 2**16].tolist()))
    allowed = f"labels {_shown(labels.tolist())}"
    if len(ignored):
        allowed += f" (ignored in y_true: {_shown(ignored.tolist())})"
    raise ValueError(
        f"{name} holds {_shown(distinct)} at {int(unknown.sum())} positions, not among the "
        f"{allowed}; add the class to labels, or mark such positions in y_true and name the "
        f"mark in ignore_label."
    )


def _missing_message(name: str) -> str:
    return (
        f"{name} holds NaN or missing labels; to leave positions out, give them a label of their "
        f"own in y_true and name it in ignore_label."
    )


def _shown(items: Sequence) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"[{', '.join(map(repr, items[:_SHOWN]))}]{more}"


# --- bags ---------------------------------------------------------------------------------------


def _check_bags(bag_ids: ArrayLike, values: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Flattened ids, one per position, and the sorted distinct ones, shape (n_bags,)."""
    ids = _as_array(bag_ids, "bag_ids")
    if ids.shape != values.shape:
        raise ValueError(
            f"bag_ids has shape {ids.shape} and {name} {values.shape}; give one id per position."
        )
    ids = ids.reshape(-1)
    found = set().union(*(_distinct(ids[block]) for block in _blocks(ids.size)))
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
    """What gives the positions of ids, all of them known, among the sorted distinct ones."""
    if bags.dtype.kind != "i" or int(bags[-1]) - int(bags[0]) >= max(_TABLE_SPAN, 4 * len(bags)):
        return lambda ids: np.searchsorted(bags, ids)
    table = np.zeros(int(bags[-1] - bags[0]) + 1, dtype=np.intp)
    table[bags - bags[0]] = np.arange(len(bags))
    return lambda ids: table.take(ids.astype(np.int64) - bags[0])


def _check_recorded(bag_proportions, bags: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Recorded proportions as floats (n_bags, n_classes), rows as in bags, columns as in labels."""
    if hasattr(bag_proportions, "columns") and hasattr(bag_proportions, "index"):
        bag_proportions = _select_by_name(bag_proportions, bags, labels)
    recorded = np.asarray(bag_proportions, dtype=np.float64)
    if recorded.shape != (len(bags), len(labels)):
        raise ValueError(
            f"bag_proportions has shape {recorded.shape}, but there are {len(bags)} bags in "
            f"bag_ids and {len(labels)} labels; give one row per bag, in sorted order of the "
            f"ids, and one column per label."
        )
    wrong = ~np.isfinite(recorded).all(axis=1) | (recorded < 0).any(axis=1)
    if wrong.any():
        raise ValueError(
            f"bag_proportions is negative or not finite for bags {_shown(bags[wrong].tolist())}."
        )
    sums = recorded.sum(axis=1)
    wrong = np.abs(sums - 1) > _SUM_TOLERANCE + 1e-9
    if wrong.any():
        percent = np.abs(sums[wrong] - 100) <= 100 * _SUM_TOLERANCE
        hint = "; these look like percent, divide by 100" if percent.all() else ""
        raise ValueError(
            f"bag_proportions must sum to 1 (within {_SUM_TOLERANCE}) in each bag, but sums to "
            f"{_shown(sums[wrong].round(4).tolist())} for bags "
            f"{_shown(bags[wrong].tolist())}{hint}."
        )
    return recorded


def _select_by_name(table, bags: np.ndarray, labels: np.ndarray) -> np.ndarray:
    for axis, wanted, what in (
        ("index", bags.tolist(), "bag ids"),
        ("columns", labels.tolist(), "labels"),
    ):
        names = list(getattr(table, axis))
        if len(set(names)) < len(names):
            raise ValueError(f"bag_proportions has repeated entries in its {axis}.")
        missing = [name for name in wanted if name not in set(names)]
        extra = sorted(set(names) - set(wanted), key=repr)
        if missing or extra:
            raise ValueError(
                f"The {axis} of bag_proportions must be the {what}: missing {_shown(missing)}, "
                f"without counterpart {_shown(extra)}."
            )
    return table.loc[bags.tolist(), labels.tolist()].to_numpy(dtype=np.float64)
