"""Gradient of the loss of signed labels with respect to logits, in numpy, one class behind the other."""

import functools
from typing import NamedTuple

import numpy as np

#: Logits are at most so far below the largest of their instance: exp in double precision stays above 0.
LARGEST_DIFFERENCE = 700.0


class Targets(NamedTuple):
    """What the loss needs of signed labels, each divided by the number of labeled instances of its batch."""

    positive: np.ndarray  # (n_classes, n_instances)
    negative: np.ndarray  # (n_classes, n_instances), weights of negative labels
    attraction: np.ndarray  # (n_classes, n_instances): negative, plus the sum of the positive ones
    has_negative: np.ndarray  # (n_batches,)


class LossParts(NamedTuple):
    """What the values of the loss follow from."""

    logits: np.ndarray  # (n_classes, n_instances), less the largest of the instance
    others: np.ndarray  # (n_classes, n_instances): sum of exp(logits) of the other classes
    total: np.ndarray  # (n_instances,): sum of exp(logits)


def targets_of(signed: np.ndarray, starts: np.ndarray, *, weigh_down: bool) -> Targets:
    """Prepare the signed labels of several batches.

    Parameters
    ----------
    signed : ndarray of shape (n_instances, n_classes)
    starts : ndarray of int, shape (n_batches,)
        Where each batch begins.
    weigh_down : bool
        As in :func:`signed_label_gradient`.

    Returns
    -------
    targets : Targets
        In float64.
    """
    signed = np.ascontiguousarray(signed.T, dtype=np.float32)
    negative = np.maximum(-signed, 0)
    if weigh_down:
        n_classes = len(signed)
        n_negative = np.count_nonzero(negative, axis=0)
        negative *= ((n_classes - n_negative) / np.float32(n_classes - 1)).astype(np.float32)
    n_labeled = np.add.reduceat(signed.any(axis=0).astype(np.int64), starts)
    sizes = np.diff(np.append(starts, signed.shape[1]))
    share = np.repeat(1 / np.maximum(n_labeled, 1), sizes)
    positive, negative = np.maximum(signed, 0) * share, negative * share
    has_negative = np.logical_or.reduceat((negative > 0).any(axis=0), starts)
    return Targets(positive, negative, negative + positive.sum(axis=0), has_negative)


def loss_parts(n_classes: int, n_instances: int) -> LossParts:
    """Room for the parts of the loss of so many instances, in float64."""
    shape = n_classes, n_instances
    return LossParts(np.empty(shape), np.empty(shape), np.empty(n_instances))


def gradient_of(
    logits: np.ndarray, targets: Targets, rows: slice, parts: LossParts, *, has_negative: bool
) -> np.ndarray:
    """Gradient with respect to the logits of some instances.

    Parameters
    ----------
    logits : ndarray of float32, shape (n_classes, n_rows)
    targets : Targets
        Of all instances.
    rows : slice
        The instances.
    parts : LossParts
        Where the parts of the loss are written to.
    has_negative : bool
        Whether any of the instances has a negative label.

    Returns
    -------
    gradient : ndarray of float64, shape (n_classes, n_rows)

    Notes
    -----
    With f the softmax, the gradient of ``-log f_c`` is ``f - e_c``. That of ``-log(1 - f_c)`` is
    ``o_c (e_c - f)`` with the odds ``o_c = f_c / (1 - f_c)``, whose own component ``o_c (1 - f_c)`` is
    ``f_c``. Together ``f_k (a_k - sum_{c != k} w_c o_c) - p_k``, with p the positive labels, w the negative
    ones and ``a = w + sum(p)``: no difference of nearly equal numbers, however sure a prediction is.
    """
    shifted, others, total = parts.logits[:, rows], parts.others[:, rows], parts.total[rows]
    np.subtract(logits, np.maximum.reduce(logits, axis=0), out=shifted)
    exponentials = np.exp(np.maximum(shifted, -LARGEST_DIFFERENCE))
    np.add.reduce(exponentials, axis=0, out=total)
    gradient = exponentials / total
    if has_negative:
        all_others = _all_others(len(logits))
        np.matmul(all_others, exponentials, out=others)
        exponentials /= others
        exponentials *= targets.negative[:, rows]
        gradient *= targets.attraction[:, rows] - all_others @ exponentials
    else:
        gradient *= targets.attraction[:, rows]
    gradient -= targets.positive[:, rows]
    return gradient


def losses_of(targets: Targets, parts: LossParts, starts: np.ndarray) -> np.ndarray:
    """Value of the loss in each batch.

    Parameters
    ----------
    targets : Targets
    parts : LossParts
        As :func:`gradient_of` has left them.
    starts : ndarray of int, shape (n_batches,)
        Where each batch begins.

    Returns
    -------
    losses : ndarray of float64, shape (n_batches,)
    """
    log_total = np.log(parts.total)
    losses = (targets.positive * (log_total - parts.logits)).sum(axis=0)
    c, i = np.nonzero(targets.negative)
    log_not = np.log(parts.others[c, i]) - log_total[i]
    losses -= np.bincount(i, targets.negative[c, i] * log_not, minlength=len(losses))
    return np.add.reduceat(losses, starts)


def signed_label_gradient(
    logits: np.ndarray, signed: np.ndarray, *, weigh_down: bool
) -> tuple[float, np.ndarray]:
    """Value and gradient of :class:`~proportion_ssl.losses.SignedLabelLoss`.

    Parameters
    ----------
    logits : ndarray of float32, shape (n_instances, n_classes)
    signed : ndarray of shape (n_instances, n_classes)
        Signed labels.
    weigh_down : bool
        Whether several negative labels of an instance are weighed down, as in
        :func:`~proportion_ssl.losses.multi_negative_loss`; otherwise
        :func:`~proportion_ssl.losses.negative_loss`.

    Returns
    -------
    loss : float
    gradient : ndarray of float64, shape (n_instances, n_classes)
        With respect to the logits.

    Examples
    --------
    >>> loss, gradient = signed_label_gradient(
    ...     np.zeros((1, 2), np.float32), np.array([[1, 0]]), weigh_down=True
    ... )
    >>> round(loss, 4), gradient.tolist()
    (0.6931, [[-0.5, 0.5]])
    """
    start = np.zeros(1, dtype=np.int64)
    targets = targets_of(signed, start, weigh_down=weigh_down)
    parts = loss_parts(*logits.T.shape)
    has_negative = bool(targets.has_negative[0])
    gradient = gradient_of(logits.T, targets, slice(None), parts, has_negative=has_negative)
    return float(losses_of(targets, parts, start)[0]), gradient.T


@functools.cache
def _all_others(n_classes):
    """Matrix that adds up the other classes."""
    return 1.0 - np.eye(n_classes)
