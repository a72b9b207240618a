"""Losses for signed labels: +1 "is of this class", -1 "is not of this class", 0 unknown.

Functions return one value per instance. Modules average over the instances that have a label of their
kind. Signed labels may be real numbers; their absolute values are weights.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def log_not(logits: torch.Tensor) -> torch.Tensor:
    """Logarithm of one minus each class probability, ``log(1 - softmax(logits))``.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
        At least two classes.

    Returns
    -------
    log_not : torch.Tensor of shape (n_instances, n_classes)
        Finite, with finite gradients, for any finite logits.

    Raises
    ------
    ValueError
        With fewer than two classes: "not the only class" has probability 0.

    Notes
    -----
    Only the largest probability can be close to 1. For that class the others are summed in log
    space, ``logsumexp(others) - logsumexp(all)``. The gradient with respect to its logit is ``-p``, not 0
    or NaN as for ``log(1 - p + eps)`` and ``log1p(-p)``. The other probabilities are at most 1/2, where
    ``log1p(-p)`` is accurate.

    Examples
    --------
    >>> import torch
    >>> log_not(torch.tensor([[200.0, 0.0, 0.0]]))[0, 0].round(decimals=2)
    tensor(-199.3100)
    """
    if logits.shape[-1] < 2:
        raise ValueError(
            f"Negative labels need at least two classes, but logits have {logits.shape[-1]} column(s). "
            "Give one logit per class."
        )
    is_top = torch.zeros_like(logits, dtype=torch.bool)
    is_top.scatter_(-1, logits.argmax(dim=-1, keepdim=True), True)
    log_sum = logits.logsumexp(dim=-1, keepdim=True)
    log_not_top = logits.masked_fill(is_top, -torch.inf).logsumexp(dim=-1, keepdim=True) - log_sum
    log_rest = (logits - log_sum).masked_fill(is_top, -1.0)
    return torch.where(is_top, log_not_top, torch.log1p(-log_rest.exp()))


def positive_loss(logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the positive labels, per instance.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
    signed : torch.Tensor of shape (n_instances, n_classes)
        Signed labels; entries above 0 count.

    Returns
    -------
    loss : torch.Tensor of shape (n_instances,)
        0 where an instance has no positive label.

    Notes
    -----
    Equation (6) of [1]_: ``-sum_c y_c log f_c``.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> import torch
    >>> positive_loss(torch.zeros(2, 4), torch.tensor([[1, 0, 0, 0], [0, -1, 0, 0]]))
    tensor([1.3863, 0.0000])
    """
    return (signed.clamp(min=0) * -logits.log_softmax(dim=-1)).sum(dim=-1)


def negative_loss(logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
    """Negative-learning loss of the negative labels, per instance.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
    signed : torch.Tensor of shape (n_instances, n_classes)
        Signed labels; entries below 0 count.

    Returns
    -------
    loss : torch.Tensor of shape (n_instances,)
        0 where an instance has no negative label.

    Notes
    -----
    Equation (3) of [1]_ with ``log(1 - f)``: ``-sum_c y_c log(1 - f_c)``, as in the negative learning of
    Kim et al. [2]_, which the paper cites. The printed ``log(1 - log f)`` makes the loss unbounded below,
    and its gradient vanishes where the prediction is most confidently wrong.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.
    .. [2] Kim, Yim, Yun, Kim. "NLNL: Negative Learning for Noisy Labels". ICCV 2019.

    Examples
    --------
    >>> import torch
    >>> negative_loss(torch.zeros(2, 4), torch.tensor([[1, 0, 0, 0], [0, -1, 0, 0]]))
    tensor([0.0000, 0.2877])
    """
    return (signed.clamp(max=0) * log_not(logits)).sum(dim=-1)


def multi_negative_loss(logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
    """Loss of several negative labels per instance, with less weight the more there are.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
    signed : torch.Tensor of shape (n_instances, n_classes)
        Signed labels; entries below 0 count.

    Returns
    -------
    loss : torch.Tensor of shape (n_instances,)
        Equal to :func:`negative_loss` for one negative label; 0 when all classes are negative.

    Notes
    -----
    Equation (4) of [1]_: :func:`negative_loss` times ``(C - |y|) / (C - 1)``, with ``|y|`` the number
    of negative labels of the instance.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> import torch
    >>> multi_negative_loss(torch.zeros(1, 4), torch.tensor([[0, -1, -1, 0]]))
    tensor([0.3836])
    """
    n_classes = logits.shape[-1]
    n_negative = (signed < 0).sum(dim=-1)
    return negative_loss(logits, signed) * (n_classes - n_negative) / (n_classes - 1)


def proportion_loss(
    means: torch.Tensor,
    lower: torch.Tensor,
    upper: torch.Tensor,
    among: torch.Tensor | None = None,
) -> torch.Tensor:
    """KL divergence between recorded proportions and the mean prediction, per bag.

    Parameters
    ----------
    means : torch.Tensor of shape (n_bags, n_classes)
        Mean class probabilities of the instances of each bag; rows sum to 1.
    lower, upper : torch.Tensor of shape (n_bags, n_classes)
        Interval of each recorded proportion, in [0, 1]; equal for exact proportions.
    among : torch.Tensor of bool, shape (n_bags, n_classes), optional
        Classes among which the proportions of a bag were recorded; the recorded proportions of the other
        classes are 0. Default: all classes.

    Returns
    -------
    loss : torch.Tensor of shape (n_bags,)
        At least 0 and finite; 0, with zero gradient, within the interval.

    Notes
    -----
    ``KL(p || mean f)``, the proportion loss of [1]_ up to the entropy of p, which has no gradient. The
    predictions are averaged *before* taking the logarithm; a mean of logarithms would pull every instance
    toward the proportions of its bag. For an interval, p is the value in it nearest to the prediction. As
    p then need not sum to 1, ``sum_c (mean f_c - p_c)`` is added, which keeps the divergence non-negative.

    With ``among``, the mean f is divided by its sum s over these classes: the proportion loss of LPLP [2]_.
    Each instance is weighted by its predicted probability of belonging to these classes. The loss depends
    only on the ratios of the means within these classes, not on s.

    References
    ----------
    .. [1] Ardehaly, Culotta. "Co-training for Demographic Classification Using Deep Learning from
       Label Proportions". ICDM workshops 2017.
    .. [2] Matsuo, Suehiro, Uchida, Ito, Terada, Yoshizawa, Bise. "Learning from Partial Label Proportions for
       Whole Slide Image Segmentation". MICCAI 2024.

    Examples
    --------
    >>> import torch
    >>> recorded = torch.tensor([[0.5, 0.5]])
    >>> proportion_loss(torch.tensor([[0.75, 0.25]]), recorded, recorded)
    tensor([0.1438])
    """
    if among is not None:
        recorded = means.where(among, 0.0)
        total = recorded.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(means.dtype).tiny)
        # records of all classes need no normalization
        means = recorded / total.where(~among.all(dim=-1, keepdim=True), 1.0)
    target = torch.clamp(means.detach(), lower, upper)
    positive = means.clamp(min=torch.finfo(means.dtype).tiny)  # a probability may underflow to 0
    divergence = torch.xlogy(target, target) - torch.xlogy(target, positive)
    return (divergence + means - target).sum(dim=-1)


class _SignedLoss(nn.Module):
    """Mean of a per-instance loss over the instances that have a label of its kind."""

    def instance_losses(self, logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
        """One loss per instance, shape (n_instances,)."""
        raise NotImplementedError

    def selected(self, signed: torch.Tensor) -> torch.Tensor:
        """Which instances the average runs over, bool of shape (n_instances,)."""
        raise NotImplementedError

    def forward(self, logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
        """Mean over the selected instances; 0 with zero gradients when there are none."""
        if logits.shape != signed.shape:
            raise ValueError(
                f"logits have shape {tuple(logits.shape)}, but signed labels have shape "
                f"{tuple(signed.shape)}. Give one signed label per instance and class (one-hot rows instead "
                "of class indices)."
            )
        n_selected = self.selected(signed).sum().clamp(min=1)
        return self.instance_losses(logits, signed).sum() / n_selected


class PositiveLoss(_SignedLoss):
    """Mean cross-entropy over the instances with a positive label; see :func:`positive_loss`.

    Examples
    --------
    >>> import torch
    >>> PositiveLoss()(torch.zeros(2, 4), torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0]]))
    tensor(1.3863)
    """

    def instance_losses(self, logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
        return positive_loss(logits, signed)

    def selected(self, signed: torch.Tensor) -> torch.Tensor:
        return (signed > 0).any(dim=-1)


class NegativeLoss(_SignedLoss):
    """Mean of a negative-label loss over the instances with a negative label.

    Parameters
    ----------
    loss : callable, default=negative_loss
        Maps logits and signed labels, both (n_instances, n_classes), to one loss per instance
        (n_instances,): :func:`negative_loss`, :func:`multi_negative_loss`, a complementary-label loss
        (see ``proportion_ssl.losses``), or your own. Set further arguments with ``functools.partial``.

    Raises
    ------
    TypeError
        If ``loss`` is not callable.

    Examples
    --------
    >>> import torch
    >>> logits, signed = torch.zeros(2, 4), torch.tensor([[0, -1, -1, 0], [0, 0, 0, 0]])
    >>> NegativeLoss()(logits, signed), NegativeLoss(multi_negative_loss)(logits, signed)
    (tensor(0.5754), tensor(0.3836))
    """

    def __init__(self, loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = negative_loss):
        super().__init__()
        if not callable(loss):
            raise TypeError(
                f"loss is {loss!r}; give a function of logits and signed labels, such as negative_loss."
            )
        self.loss = loss

    def instance_losses(self, logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
        return self.loss(logits, signed)

    def selected(self, signed: torch.Tensor) -> torch.Tensor:
        return (signed < 0).any(dim=-1)

    def extra_repr(self) -> str:
        """Name of the loss function."""
        return f"loss={getattr(self.loss, '__name__', repr(self.loss))}"


class SignedLabelLoss(_SignedLoss):
    """Loss of positive and negative labels, averaged over all labeled instances with equal weight.

    Parameters
    ----------
    positive, negative : loss module, optional
        Modules with ``instance_losses(logits, signed)``.
        Default: ``PositiveLoss()`` and ``NegativeLoss(multi_negative_loss)``.

    Notes
    -----
    The paper adds pseudo-labeled samples "to the training data", so a negative sample has the weight of
    one sample in the mean over all. A separate mean would give the few negatives of a batch as much weight
    as all positives, and the result would depend on the batch.

    Examples
    --------
    >>> import torch
    >>> SignedLabelLoss()(torch.zeros(2, 4), torch.tensor([[1, 0, 0, 0], [0, -1, 0, 0]]))
    tensor(0.8370)
    """

    def __init__(self, positive: nn.Module | None = None, negative: nn.Module | None = None):
        super().__init__()
        self.positive: Any = PositiveLoss() if positive is None else positive
        self.negative: Any = NegativeLoss(multi_negative_loss) if negative is None else negative

    def instance_losses(self, logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
        loss = self.positive.instance_losses(logits, signed)
        if (signed < 0).any():  # slower, and not needed for most batches
            loss = loss + self.negative.instance_losses(logits, signed)
        return loss

    def selected(self, signed: torch.Tensor) -> torch.Tensor:
        return (signed != 0).any(dim=-1)
