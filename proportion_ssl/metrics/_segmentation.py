"""Segmentation scores, each computed from a confusion matrix."""

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
    """Confusion matrix accumulated map by map, for slides that do not fit in memory together.

    Parameters
    ----------
    labels : array-like of str or int, shape (n_classes,)
        The classes, in the order of the rows and columns of :attr:`matrix`.
    ignore_label : str, int or sequence of these, default=None
        Ground-truth labels to leave out, such as vague regions. Positions with such a label are dropped
        before counting, regardless of the prediction.

    Attributes
    ----------
    matrix : ndarray of shape (n_classes, n_classes)
        Number of positions by true (row) and predicted (column) class (int64), or their total weight
        (float64) after an update with weights.

    Raises
    ------
    ValueError
        If labels are repeated, missing, or also ignored.
    TypeError
        If labels are neither all strings nor all whole numbers.

    Notes
    -----
    Counts are pooled, so a large slide has more weight than a small one. For the average over slides,
    use one object per slide and take the mean of their scores. Merging the objects gives the pooled score.

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
            True and predicted label of each position; both of the same shape. May be empty or
            contain only ignored positions.
        sample_weight : array-like of float, same shape, default=None
            Non-negative weight of each position. Default: 1 each.

        Returns
        -------
        self : SegmentationConfusion

        Raises
        ------
        ValueError
            If the shapes differ, a label is unknown or missing, or a weight is negative or not
            finite. The counts then stay unchanged.
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
            # The last row holds ignored true labels, the last column the predictions there.
            counts += cells.reshape(n_classes + 1, -1)[:n_classes, :n_classes]
        self._matrix = self._matrix + counts
        return self

    def merge(self, other: "SegmentationConfusion") -> Self:
        """Add the counts of another object, such as one from another process.

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
                f"Only a SegmentationConfusion can be merged, got {type(other).__name__}; create "
                f"one and update() it with the labels."
            )
        for what in ("labels", "ignore_label"):
            ours, theirs = getattr(self, what).tolist(), getattr(other, what).tolist()
            if ours != theirs:
                raise ValueError(
                    f"Confusion matrices with different {what} cannot be added: {ours} and "
                    f"{theirs}; create both with the same {what}, in the same order."
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
        """Error of the class shares with all positions as *one* bag, in [0, 1].

        With one object per slide, :func:`proportion_error` is the mean of these errors.
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
        Classes in the order of rows and columns. Default: all that occur, sorted. Giving them makes
        counting large maps faster.
    ignore_label : str, int or sequence of these, default=None
        Ground-truth labels to leave out, such as vague regions; predictions there do not matter. At other
        positions an ignored label must not be predicted.
    sample_weight : array-like of float, same shape as ``y_true``, default=None
        Non-negative weight of each position.

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
    SegmentationConfusion : the same, accumulated over maps that do not fit in memory together.

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
        In [0, 1]; higher is better.

    Raises
    ------
    ValueError, TypeError
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`.

    Notes
    -----
    Equation (7) of [1]_, ``sum_c TP_c / sum_c (TP_c + FP_c)``, which is accuracy. Positions are
    pooled over all maps; for the average over slides, take the mean of one call per slide.

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
    """Mean precision or recall over classes (PC).

    Parameters
    ----------
    y_true, y_pred, labels, ignore_label, sample_weight
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`.
    definition : {"precision", "recall"}, default="precision"
        "precision" is the equation of the paper, ``TP / (TP + FP)``; "recall" is the per-class accuracy
        used in most of the segmentation literature, ``TP / (TP + FN)``.
    average : {"macro", None}, default="macro"
        "macro" is the plain mean over classes; None returns one score per class.
    zero_division : {0.0, 1.0, numpy.nan}, default=0.0
        Precision of a class that is in the ground truth but never predicted (0 / 0). NaN leaves it out of
        the mean, which rewards a model for never predicting a difficult class. Not used for recall.

    Returns
    -------
    score : float, or ndarray of shape (n_classes,)
        In [0, 1]; higher is better. NaN per class where the score is undefined.

    Raises
    ------
    ValueError, TypeError
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`, or for unknown options.

    Notes
    -----
    Equation (7) of [1]_, ``1 / M * sum_c TP_c / (TP_c + FP_c)``. This is macro-averaged precision,
    although the name suggests recall; both are available.

    Classes without a score are NaN, and M is the number of the others:

    - a class that is neither true nor predicted anywhere is NaN under both definitions;
    - a class that is predicted but never true has precision 0, as the formula says, and recall NaN (0 / 0);
    - a class that is true but never predicted has recall 0 and precision ``zero_division``.

    Positions are pooled over all maps; for the average over slides, take the mean of one call
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
    """Mean intersection over union of the classes (mIoU).

    Parameters
    ----------
    y_true, y_pred, labels, ignore_label, sample_weight
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`.
    average : {"macro", None}, default="macro"
        "macro" is the plain mean over classes; None returns one score per class.

    Returns
    -------
    score : float, or ndarray of shape (n_classes,)
        In [0, 1]; higher is better. Per class: NaN where the class does not occur.

    Raises
    ------
    ValueError, TypeError
        As in :func:`~proportion_ssl.metrics.segmentation_confusion_matrix`, or for an unknown average.

    Notes
    -----
    Equation (7) of [1]_, ``1 / M * sum_c TP_c / (TP_c + FP_c + FN_c)``. A class that is neither true nor
    predicted anywhere is NaN (0 / 0), and M is the number of the others. A class that is predicted but
    never true, or true but never predicted, has score 0.

    Positions are pooled over all maps; for the average over slides, take the mean of one call
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
    """True positives, true count and predicted count of each class, each (n_classes,)."""
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
