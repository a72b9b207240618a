"""Scores of single or stacked confusion matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from proportion_ssl._checks import check_ids
from proportion_ssl.evaluation._codes import class_codes, factorize

#: Names of the scores of :func:`confusion_scores`.
SCORES = ("OP", "PC", "mIoU", "tumor_recall", "tumor_precision")

Metric = str | Callable[[np.ndarray], np.ndarray]


def confusion_scores(confusions: Any, n_classes: int | None = None) -> dict[str, np.ndarray]:
    """Scores of confusion matrices, alone or stacked.

    Parameters
    ----------
    confusions : array-like of shape (..., n_rows, n_columns)
        Non-negative counts or weights. Rows: true classes; columns: predicted classes in the same order.
        Rows and columns from ``n_classes`` on are "non-cancer". Additional columns are predictions that are
        never right, such as patches that were dropped.
    n_classes : int, optional
        Number of cancer classes. Default: all rows.

    Returns
    -------
    scores : dict of str to ndarray of shape (...)
        Over patches with a cancer class as true class: ``OP``, the accuracy; ``PC``, the mean over the
        classes of TP / (TP + FP); ``mIoU``, the mean of TP / (TP + FP + FN). Classes that are neither true
        nor predicted are left out of the means; a class that is true but never predicted has a PC of 0.
        Over all patches: ``tumor_recall`` and ``tumor_precision`` of cancer against "non-cancer". NaN for
        undefined scores (no cancer patch, or no "non-cancer").

    Examples
    --------
    >>> scores = confusion_scores([[[8, 2], [1, 9]], [[5, 0], [5, 0]]])
    >>> scores["OP"], scores["mIoU"].round(3)
    (array([0.85, 0.5 ]), array([0.739, 0.25 ]))
    """
    matrices = np.asarray(confusions, dtype=np.float64)
    n_rows = matrices.shape[-2]
    n = n_rows if n_classes is None else n_classes
    cancer = matrices[..., :n, :]
    right = np.diagonal(cancer, axis1=-2, axis2=-1)
    n_true, n_predicted = cancer.sum(axis=-1), cancer[..., :n].sum(axis=-2)
    occurs = (n_true > 0) | (n_predicted > 0)
    total, called = n_true.sum(axis=-1), matrices[..., :n].sum(axis=(-2, -1))
    found = n_predicted.sum(axis=-1)
    has_rest = matrices[..., n:, :].sum(axis=(-2, -1)) > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = right / (n_true + n_predicted - right)
        precision = np.where(n_predicted > 0, right / n_predicted, 0.0)
        return {
            "OP": right.sum(axis=-1) / total,
            "PC": _mean_where(precision, occurs),
            "mIoU": _mean_where(iou, occurs),
            "tumor_recall": np.where(has_rest, found / total, np.nan),
            "tumor_precision": np.where(has_rest, found / called, np.nan),
        }


def slide_confusions(
    y_true: Any, y_pred: Any, slides: Any, classes: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the confusion matrix of each slide from the labels of all patches.

    Parameters
    ----------
    y_true, y_pred : array-like of str or int, shape (n_patches,)
    slides : array-like of shape (n_patches,)
        Slide (or case) of each patch.
    classes : array-like of shape (n_classes,), optional
        Order of rows and columns. Default: the sorted labels.

    Returns
    -------
    confusions : ndarray of int, shape (n_slides, n_classes, n_classes)
    names : ndarray of shape (n_slides,)
        Sorted names of the slides.

    Raises
    ------
    ValueError
        If lengths differ, values are missing, or a label is not among the classes.

    Examples
    --------
    >>> confusions, names = slide_confusions([0, 1, 1], [0, 0, 1], ["s1", "s1", "s2"])
    >>> confusions.tolist(), names.tolist()
    ([[[1, 0], [1, 0]], [[0, 0], [0, 1]]], ['s1', 's2'])
    """
    true, predicted, slides = np.asarray(y_true), np.asarray(y_pred), np.asarray(slides)
    if not true.shape == predicted.shape == slides.shape or true.ndim != 1 or not len(true):
        raise ValueError(
            "y_true, y_pred and slides need one value per patch, got shapes "
            f"{true.shape}, {predicted.shape} and {slides.shape}."
        )
    if classes is None:
        labels = sorted({*factorize(true, "y_true")[1], *factorize(predicted, "y_pred")[1]})
    else:
        labels = np.asarray(classes).tolist()
    codes = [class_codes(true, labels, "y_true"), class_codes(predicted, labels, "y_pred")]
    first, seen = factorize(slides, "slides")
    names, order = np.unique(np.asarray(seen), return_inverse=True)
    slide_codes = order[first]
    n = len(labels)
    flat = (slide_codes * n + codes[0]) * n + codes[1]
    counts = np.bincount(flat, minlength=len(names) * n * n)
    return counts.reshape(len(names), n, n), names


def sum_groups(matrices: np.ndarray, groups: Any) -> np.ndarray:
    """Sum the matrices of the slides of each group; without groups, return them unchanged.

    Parameters
    ----------
    matrices : ndarray of shape (n_slides, ...)
    groups : array-like of shape (n_slides,) or None
        Group of each slide, such as its case.
    """
    if groups is None:
        return matrices
    groups = np.asarray(groups)
    if len(groups) != len(matrices):
        raise ValueError(
            f"groups has {len(groups)} values, but there are {len(matrices)} slides; give one each."
        )
    names, codes = np.unique(
        check_ids(groups, len(matrices), "groups", "slides"), return_inverse=True
    )
    total = np.zeros((len(names), *matrices.shape[1:]))
    np.add.at(total, codes, matrices)
    return total


def check_confusions(confusions: Any, what: str = "confusions") -> np.ndarray:
    """Stacked matrices as floats; raises ValueError if invalid."""
    matrices = np.asarray(confusions, dtype=np.float64)
    if matrices.ndim != 3 or not matrices.size or matrices.shape[1] > matrices.shape[2]:
        raise ValueError(
            f"{what} must have shape (n_slides, n_classes, n_classes), one matrix per slide, got "
            f"{matrices.shape}."
        )
    if not np.isfinite(matrices).all() or (matrices < 0).any():
        raise ValueError(f"{what} contain a count that is negative or not finite; correct it.")
    return matrices


def metric_function(metric: Metric, n_classes: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """Function that reduces stacked matrices (..., n_rows, n_columns) to scores (...)."""
    if callable(metric):
        return metric
    if metric not in SCORES:
        raise ValueError(
            f"metric must be one of {', '.join(SCORES)} or a function, got {metric!r}."
        )
    return lambda matrices: confusion_scores(matrices, n_classes)[metric]


def _mean_where(values, chosen):
    with np.errstate(invalid="ignore"):
        return np.where(chosen, values, 0.0).sum(axis=-1) / chosen.sum(axis=-1)
