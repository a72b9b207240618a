"""Complementary-label losses: alternatives to the paper's loss for negative labels.

Each is a function for :class:`~proportion_ssl.losses.NegativeLoss`. The negative labels of an instance are
treated as one set; their mean absolute value is the weight of the instance. An instance whose classes are
all negative has zero loss.
"""

from collections.abc import Callable

import torch

#: Maps logits to the loss of each class if it were the label; both (n_instances, n_classes).
ClassLosses = Callable[[torch.Tensor], torch.Tensor]


def _cross_entropies(logits: torch.Tensor) -> torch.Tensor:
    return -logits.log_softmax(dim=-1)


def pairwise_comparison_loss(logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
    """Unbiased estimate of the pairwise-comparison loss from negative labels, per instance.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
    signed : torch.Tensor of shape (n_instances, n_classes)
        Signed labels; entries below 0 count.

    Returns
    -------
    loss : torch.Tensor of shape (n_instances,)
        Between ``-(C - 1) (C - 2) / 2`` and ``C (C - 1) / 2`` for C classes; 0 without negative labels.

    Notes
    -----
    With the sigmoid loss ``l(z) = 1 / (1 + exp(z))`` the loss of class y is ``sum_(k != y) l(g_y - g_k)``,
    and the loss of a negative label n is ``L(n) = sum_(k != n) l(g_k - g_n)``. If n is drawn uniformly from
    the wrong classes, the expectation of ``(C - 1) L(n) - (C - 1) (C - 2) / 2`` is the loss of the true
    class ([1]_; this requires ``l(z) + l(-z) = 1``). With several negative labels, drawn uniformly without
    replacement, ``L`` is averaged, which keeps the estimate unbiased.

    The loss is bounded, which limits the influence of wrong negative labels. Its gradient vanishes where
    the network is most confident, right or wrong.

    References
    ----------
    .. [1] Ishida, Niu, Hu, Sugiyama. "Learning from Complementary Labels". NeurIPS 2017.

    Examples
    --------
    >>> import torch
    >>> pairwise_comparison_loss(torch.zeros(1, 4), torch.tensor([[0, -1, 0, 0]]))
    tensor([1.5000])
    """
    margins = logits.unsqueeze(-1) - logits.unsqueeze(-2)
    complementary = margins.sigmoid().sum(dim=-1) - 0.5  # a class against itself
    constant = (logits.shape[-1] - 1) * (logits.shape[-1] - 2) / 2
    return _from_mean(complementary, signed, constant)


def one_versus_all_loss(logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
    """Unbiased estimate of the one-versus-all loss from negative labels, per instance.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
    signed : torch.Tensor of shape (n_instances, n_classes)
        Signed labels; entries below 0 count.

    Returns
    -------
    loss : torch.Tensor of shape (n_instances,)
        Between ``-(C - 2)`` and C for C classes; 0 without negative labels.

    Notes
    -----
    As :func:`pairwise_comparison_loss`, with ``l(g_y) + sum_(k != y) l(-g_k) / (C - 1)`` as the loss of class
    y. The loss of a negative label n is ``L(n) = l(-g_n) + sum_(k != n) l(g_k) / (C - 1)``; the estimate is
    ``(C - 1) L(n) - (C - 2)``.

    References
    ----------
    .. [1] Ishida, Niu, Hu, Sugiyama. "Learning from Complementary Labels". NeurIPS 2017.

    Examples
    --------
    >>> import torch
    >>> one_versus_all_loss(torch.zeros(1, 4), torch.tensor([[0, -1, 0, 0]]))
    tensor([1.])
    """
    n_others = logits.shape[-1] - 1
    of_being = torch.sigmoid(-logits)
    others = (of_being.sum(dim=-1, keepdim=True) - of_being) / n_others
    return _from_mean(logits.sigmoid() + others, signed, n_others - 1)


def unbiased_complementary_loss(
    logits: torch.Tensor,
    signed: torch.Tensor,
    class_losses: ClassLosses = _cross_entropies,
) -> torch.Tensor:
    """Unbiased estimate of an arbitrary loss from negative labels, per instance.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
    signed : torch.Tensor of shape (n_instances, n_classes)
        Signed labels; entries below 0 count.
    class_losses : callable, optional
        Maps logits to the loss of each class if it were the label; both (n_instances, n_classes).
        Default: cross-entropy.

    Returns
    -------
    loss : torch.Tensor of shape (n_instances,)
        May be negative; 0 without negative labels.

    Notes
    -----
    ``sum_(k not in N) l_k - (C - 1 - |N|) / |N| sum_(k in N) l_k`` for the set N of negative labels:
    theorem 1 of Ishida et al. [1]_ for one label, extended by Feng et al. [2]_ to several. Its expectation
    over uniformly drawn sets is the loss of the true class. Negative labels from a selector are not drawn
    uniformly, so the estimate is then only approximate.

    With cross-entropy the estimate is unbounded below and can be minimized without limit. For training,
    prefer :func:`non_negative_complementary_loss`.

    References
    ----------
    .. [1] Ishida, Niu, Menon, Sugiyama. "Complementary-Label Learning for Arbitrary Losses and Models".
       ICML 2019.
    .. [2] Feng, Kaneko, Han, Niu, An, Sugiyama. "Learning with Multiple Complementary Labels". ICML 2020.

    Examples
    --------
    >>> import torch
    >>> unbiased_complementary_loss(torch.zeros(1, 4), torch.tensor([[0, -1, 0, 0]]))
    tensor([1.3863])
    """
    return _risks_of_classes(logits, signed, class_losses).sum(dim=-1)


def multi_complementary_loss(logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
    """Negative log probability that the class is none of the negative labels, per instance.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
    signed : torch.Tensor of shape (n_instances, n_classes)
        Signed labels; entries below 0 count.

    Returns
    -------
    loss : torch.Tensor of shape (n_instances,)
        At least 0; 0 without negative labels.

    Notes
    -----
    The LOG loss of Feng et al. [1]_ without its factor ``(2 C - 2) / |N|``, so that the weight of an
    instance does not depend on its number of negative labels. With one negative label it equals
    :func:`~proportion_ssl.losses.negative_loss`; with one remaining class, the cross-entropy with that class.

    References
    ----------
    .. [1] Feng, Kaneko, Han, Niu, An, Sugiyama. "Learning with Multiple Complementary Labels". ICML 2020.

    Examples
    --------
    >>> import torch
    >>> multi_complementary_loss(torch.zeros(1, 4), torch.tensor([[0, -1, -1, -1]]))
    tensor([1.3863])
    """
    is_negative = signed < 0
    is_ruled_out = is_negative & ~is_negative.all(dim=-1, keepdim=True)
    left = logits.masked_fill(is_ruled_out, -torch.inf).logsumexp(dim=-1)
    return _weights(signed) * (logits.logsumexp(dim=-1) - left)


def non_negative_complementary_loss(
    logits: torch.Tensor,
    signed: torch.Tensor,
    class_losses: ClassLosses = _cross_entropies,
) -> torch.Tensor:
    """Unbiased complementary loss with negative class risks set to 0, per instance.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
    signed : torch.Tensor of shape (n_instances, n_classes)
        Signed labels; entries below 0 count.
    class_losses : callable, optional
        As in :func:`unbiased_complementary_loss`; at least 0.

    Returns
    -------
    loss : torch.Tensor of shape (n_instances,)
        The sum over the batch is at least 0; the loss of an instance depends on the others in the batch.

    Notes
    -----
    :func:`unbiased_complementary_loss` is a sum over classes. The term of a class, summed over the batch,
    estimates the loss of the instances of that class. Its expectation is at least 0, so a negative sum is
    replaced by 0 [1]_. The correction applies to the batch because a single instance always has a negative
    term for each of its negative labels.

    References
    ----------
    .. [1] Ishida, Niu, Menon, Sugiyama. "Complementary-Label Learning for Arbitrary Losses and Models".
       ICML 2019.

    Examples
    --------
    >>> import torch
    >>> non_negative_complementary_loss(torch.zeros(1, 4), torch.tensor([[0, -1, 0, 0]]))
    tensor([4.1589])
    """
    risks = _risks_of_classes(logits, signed, class_losses)
    return risks[:, risks.sum(dim=0) >= 0].sum(dim=-1)


def gradient_ascent_complementary_loss(
    logits: torch.Tensor,
    signed: torch.Tensor,
    class_losses: ClassLosses = _cross_entropies,
) -> torch.Tensor:
    """Unbiased complementary loss with gradient ascent on negative class risks, per instance.

    Parameters
    ----------
    logits : torch.Tensor of shape (n_instances, n_classes)
    signed : torch.Tensor of shape (n_instances, n_classes)
        Signed labels; entries below 0 count.
    class_losses : callable, optional
        As in :func:`unbiased_complementary_loss`; at least 0.

    Returns
    -------
    loss : torch.Tensor of shape (n_instances,)
        Use it for training only; the value does not measure the quality of the fit.

    Notes
    -----
    As :func:`non_negative_complementary_loss`, but if the sum of some classes over the batch is negative,
    the loss of the batch is the negated sum of these classes ([1]_, algorithm 1).

    References
    ----------
    .. [1] Ishida, Niu, Menon, Sugiyama. "Complementary-Label Learning for Arbitrary Losses and Models".
       ICML 2019.

    Examples
    --------
    >>> import torch
    >>> gradient_ascent_complementary_loss(torch.zeros(1, 4), torch.tensor([[0, -1, 0, 0]]))
    tensor([2.7726])
    """
    risks = _risks_of_classes(logits, signed, class_losses)
    is_below = risks.sum(dim=0) < 0
    return -risks[:, is_below].sum(dim=-1) if is_below.any() else risks.sum(dim=-1)


def _weights(signed: torch.Tensor) -> torch.Tensor:
    """Mean absolute negative label of each instance; 0 where all classes are negative."""
    n_negative = (signed < 0).sum(dim=-1)
    mean_size = -signed.clamp(max=0).sum(dim=-1) / n_negative.clamp(min=1)
    return mean_size * (n_negative < signed.shape[-1])


def _from_mean(complementary: torch.Tensor, signed: torch.Tensor, constant: float) -> torch.Tensor:
    """``(C - 1) * mean over the negative labels - constant``, weighted."""
    is_negative = signed < 0
    mean = (complementary * is_negative).sum(dim=-1) / is_negative.sum(dim=-1).clamp(min=1)
    return _weights(signed) * ((signed.shape[-1] - 1) * mean - constant)


def _risks_of_classes(
    logits: torch.Tensor, signed: torch.Tensor, class_losses: ClassLosses
) -> torch.Tensor:
    """Terms of the unbiased estimate, (n_instances, n_classes)."""
    is_negative = signed < 0
    n_negative = is_negative.sum(dim=-1, keepdim=True).to(logits.dtype)
    factor = (signed.shape[-1] - 1 - n_negative) / n_negative.clamp(min=1)
    signs = torch.where(is_negative, -factor, 1.0)
    return _weights(signed).unsqueeze(-1) * signs * class_losses(logits)
