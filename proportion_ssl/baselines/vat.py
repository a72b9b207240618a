"""Virtual adversarial training."""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.nets.random_numbers import generator


def divergence(logits: torch.Tensor, target_logits: torch.Tensor) -> torch.Tensor:
    """``KL(softmax(target_logits) || softmax(logits))`` per instance, shape (n_instances,)."""
    target = target_logits.log_softmax(dim=1)
    return (target.exp() * (target - logits.log_softmax(dim=1))).sum(dim=1)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of ``softmax(logits)`` per instance in nats, shape (n_instances,)."""
    log_p = logits.log_softmax(dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)


def adversarial_direction(
    module: nn.Module,
    X: torch.Tensor,
    target: torch.Tensor,
    scale: torch.Tensor,
    *,
    n_iter: int,
    xi: float,
) -> torch.Tensor:
    """Direction in which a small step changes the prediction of each instance the most.

    Parameters
    ----------
    module : torch.nn.Module
        Maps instances to logits, without randomness.
    X : torch.Tensor of shape (n_instances, n_features)
    target : torch.Tensor of shape (n_instances, n_classes)
        Logits at X, without gradient.
    scale : torch.Tensor of shape (n_features,)
        Unit of each feature.
    n_iter : int
        Number of power iterations, which start in a random direction.
    xi : float
        Step length of the finite differences.

    Returns
    -------
    direction : torch.Tensor of shape (n_instances, n_features)
        Length 1 in units of ``scale``; without gradient.

    Notes
    -----
    Section 3.3 of Miyato et al.: the gradient of the divergence is 0 at the instance. A small step away in
    direction d it is the Hessian times d, so ``d <- H d / |H d|`` converges to the eigenvector of largest
    curvature.
    """
    direction = nn.functional.normalize(
        torch.randn(X.shape, dtype=X.dtype, device=X.device, generator=generator()), dim=1
    )
    for _ in range(n_iter):
        step = (xi * direction).requires_grad_()
        change = divergence(module(X + step * scale), target).sum()
        (gradient,) = torch.autograd.grad(change, step)
        # with zero gradient (a saturated prediction) the direction is kept
        flat = gradient.norm(dim=1, keepdim=True) == 0
        direction = torch.where(flat, direction, nn.functional.normalize(gradient, dim=1, eps=0.0))
    return direction.detach()


@contextmanager
def without_dropout(module: nn.Module) -> Iterator[None]:
    """Context with the module in evaluation mode, so that two passes differ only by their input."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


class AdversarialLoss(BagLoss):
    """Divergence between predictions at each instance and after a step in its most sensitive direction.

    Parameters
    ----------
    epsilon : float
        Length of the step.
    n_iter : int
    xi : float
        See :func:`adversarial_direction`.
    entropy_weight : float, default=0.0
        Weight of the mean entropy of the predictions relative to the divergence.
    """

    def __init__(self, epsilon: float, n_iter: int, xi: float, entropy_weight: float = 0.0):
        super().__init__()
        self.epsilon, self.n_iter, self.xi = epsilon, n_iter, xi
        self.entropy_weight = entropy_weight

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        X = batch.everything
        with without_dropout(module):
            with torch.set_grad_enabled(self.entropy_weight > 0):
                logits = module(X)
            target = logits.detach()
            direction = adversarial_direction(
                module, X, target, batch.scale, n_iter=self.n_iter, xi=self.xi
            )
            moved = module(X + self.epsilon * direction * batch.scale)
        loss = divergence(moved, target).mean()
        if self.entropy_weight > 0:
            loss = loss + self.entropy_weight * entropy(logits).mean()
        return loss


class VATClassifier(TwoStreamClassifier):
    """Virtual adversarial training (VAT): predictions must not change in their most sensitive direction.

    Labeled patches and bag patches are used as unlabeled data; proportions are not used.

    Parameters
    ----------
    epsilon : float, default=2.0
        Length of the adversarial step, in standard deviations of the features of the labeled patches.
    n_iter : int, default=1
        Number of power iterations.
    xi : float, default=0.01
        Step length of the finite differences in the power iterations.
    entropy_weight : float, default=0.0
        Weight of the mean entropy of the predictions relative to the adversarial divergence; above 0 it
        favors confident predictions. 1 is "VAT + EntMin" of [1]_.
    **kwargs
        ``weight`` (default 1), ``ramp_up`` (0) and other parameters of
        :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    References
    ----------
    .. [1] Miyato, Maeda, Koyama, Ishii. "Virtual Adversarial Training: A Regularization Method for Supervised
       and Semi-Supervised Learning". IEEE TPAMI 41, 2019.
    .. [2] Grandvalet, Bengio. "Semi-supervised Learning by Entropy Minimization". NIPS 2004.
    """

    _needs_real_numbers = True

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TwoStreamClassifier._parameter_constraints,
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter": [Interval(Integral, 1, None, closed="left")],
        "xi": [Interval(Real, 0, None, closed="neither")],
        "entropy_weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        epsilon: float = 2.0,
        n_iter: int = 1,
        xi: float = 0.01,
        entropy_weight: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(estimator, **kwargs)
        self.epsilon = epsilon
        self.n_iter = n_iter
        self.xi = xi
        self.entropy_weight = entropy_weight

    def _make_bag_loss(self) -> BagLoss:
        return AdversarialLoss(self.epsilon, self.n_iter, self.xi, self.entropy_weight)
