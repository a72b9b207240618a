"""Segmentation scores: every one a reduction of a confusion matrix."""

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from proportion_ssl.metrics._label_codes import (
    NOTHING_LEFT,
    check_ignored,
    check_labels,
    check_pair,
    check_weight,
    encoded_blocks,
    resolve_labels,
)
from proportion_ssl.proportions.counts import shares, sum_absolute_error


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
        self._labels = check_labels(labels, "labels")
        self._ignored = check_ignored(ignore_label, self._labels)
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
        y_true, y_pred = check_pair(y_true, y_pred)
        if sample_weight is not None:
            sample_weight = check_weight(sample_weight, y_true)
        dtype = self._matrix.dtype if sample_weight is None else np.dtype(np.float64)
        counts: np.ndarray = np.zeros(self._matrix.shape, dtype)
        n_classes = len(self._labels)
        for block, true, predicted in encoded_blocks(y_true, y_pred, self._labels, self._ignored):
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
        return float(sum_absolute_error(shares(n_true[None]), shares(n_predicted[None]))[0])

    def _counted(self) -> np.ndarray:
        if not self._matrix.sum() > 0:
            raise ValueError(NOTHING_LEFT)
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
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`.

    Returns
    -------
    score : float
        In [0, 1]; the higher, the better.

    Raises
    ------
    ValueError, TypeError
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`.

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
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`.
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
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`, or for unknown options.

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
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`.
    average : {"macro", None}, default="macro"
        "macro" is the plain mean over classes; None returns one score per class.

    Returns
    -------
    score : float, or ndarray of shape (n_classes,)
        In [0, 1]; the higher, the better. Per class NaN where a class does not occur.

    Raises
    ------
    ValueError, TypeError
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`, or for an unknown average.

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


# --- from the matrix to scores ------------------------------------------------------------------


def _confusion(y_true, y_pred, labels, ignore_label, sample_weight) -> SegmentationConfusion:
    y_true, y_pred = check_pair(y_true, y_pred)
    labels, ignored = resolve_labels(y_true, y_pred, labels, ignore_label)
    return SegmentationConfusion(labels, ignored).update(y_true, y_pred, sample_weight)


def _margins(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, number truly of the class, number predicted, each (n_classes,)."""
    return matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    undefined = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def _average(scores: np.ndarray, average: str | None) -> float | np.ndarray:
    if average is None:
        return scores
    if average != "macro":
        raise ValueError(f'average must be "macro" or None, got {average!r}.')
    return float(np.nanmean(scores))


# --- from user formats to class indices ---------------------------------------------------------


# --- bags ---------------------------------------------------------------------------------------
