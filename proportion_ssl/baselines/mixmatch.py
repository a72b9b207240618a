"""MixMatch: sharpened pseudo labels of several views, mixed with the labeled patches."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.baselines._views import weak_view
from proportion_ssl.baselines.mean_teacher import TeacherLoss
from proportion_ssl.nets.random_numbers import generator


def sharpen(probabilities: torch.Tensor, temperature: float) -> torch.Tensor:
    """Raise probabilities to the power of ``1 / temperature`` and normalize them.

    Parameters
    ----------
    probabilities : torch.Tensor of shape (n_instances, n_classes)
    temperature : float
        Above 0; as it approaches 0, the largest probability approaches 1.

    Returns
    -------
    sharpened : torch.Tensor of shape (n_instances, n_classes)

    Examples
    --------
    >>> sharpen(torch.tensor([[0.75, 0.25]]), 0.5)
    tensor([[0.9000, 0.1000]])
    """
    return (probabilities.log() / temperature).softmax(dim=1)


class MixMatchLoss(TeacherLoss):
    """Mean squared difference between predictions and pseudo labels of mixed instances.

    The labeled patches of the step are mixed with the same instances; :meth:`of_labeled` is the loss of the
    mixed labels.

    Parameters
    ----------
    n_views : int
    temperature : float
        See :func:`sharpen`.
    alpha : float
        The mixing coefficient is the larger of lambda and ``1 - lambda``, with lambda drawn from
        Beta(alpha, alpha).
    noise : float
        Noise of the views, see :func:`~proportion_ssl.baselines._views.weak_view`.
    decay : float in [0, 1)
        Decay of the moving average of the weights, used for prediction after training.
    """

    def __init__(self, n_views: int, temperature: float, alpha: float, noise: float, decay: float):
        super().__init__(decay)
        self.n_views, self.temperature = n_views, temperature
        self.alpha, self.noise = alpha, noise
        self.mixed_labeled: Any = None

    def draw_shares(self, n_instances: int) -> np.ndarray:
        """Draw the weight of the instance itself in each mix, at least 0.5."""
        seed = torch.randint(2**63 - 1, (), generator=generator())
        shares = np.random.default_rng(int(seed)).beta(self.alpha, self.alpha, n_instances)
        return np.maximum(shares, 1 - shares)

    def consistency(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        assert batch.signed is not None
        views = [weak_view(batch.X, batch.scale, self.noise) for _ in range(self.n_views)]
        with torch.no_grad():
            guessed = torch.stack([module(view).softmax(dim=1) for view in views]).mean(dim=0)
            guessed = sharpen(guessed, self.temperature)
        labeled = weak_view(batch.labeled, batch.scale, self.noise)
        X = torch.cat([labeled, *views])
        targets = torch.cat([batch.signed.to(guessed.dtype), guessed.repeat(self.n_views, 1)])
        share = torch.as_tensor(self.draw_shares(len(X)), dtype=X.dtype, device=X.device)[:, None]
        other = torch.randperm(len(X), generator=generator()).to(X.device)
        X, targets = torch.lerp(X[other], X, share), torch.lerp(targets[other], targets, share)
        logits = module(X)
        n_labeled = len(labeled)
        self.mixed_labeled = logits[:n_labeled], targets[:n_labeled]
        return nn.functional.mse_loss(logits[n_labeled:].softmax(dim=1), targets[n_labeled:])

    def of_labeled(
        self, loss: nn.Module, logits: torch.Tensor, signed: torch.Tensor
    ) -> torch.Tensor:
        return loss(*self.mixed_labeled)


class MixMatchClassifier(TwoStreamClassifier):
    """MixMatch: train on mixes of labeled patches and unlabeled patches with pseudo labels.

    Patches of the bags are used as unlabeled data; proportions are not used. A moving average of the weights
    of the net is used for prediction.

    Parameters
    ----------
    n_views : int, default=2
        Number of views of each patch; their mean prediction is the pseudo label.
    temperature : float, default=0.5
        Pseudo labels are sharpened: probabilities to the power of ``1 / temperature``.
    alpha : float, default=0.75
        Mixing coefficients are drawn from Beta(alpha, alpha); the larger part is the patch itself.
    noise : float, default=0.05
        Standard deviation of the noise of a view, relative to that of the features of the labeled patches.
    decay : float in [0, 1), default=0.999
        Decay of the moving average of the weights.
    weight : float, default=10.0
        Weight of the mean squared difference relative to the cross-entropy.
    ramp_up : float, default=0.4
        Fraction of the steps over which the weight increases from 0.
    **kwargs
        As in :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        Settings of the authors for CIFAR-10: weight 75, reached after 1/64 of the steps.

    References
    ----------
    .. [1] Berthelot, Carlini, Goodfellow, Papernot, Oliver, Raffel. "MixMatch: A Holistic Approach to
       Semi-Supervised Learning". NeurIPS 2019. Its views are crops and mirror images, here noise on features.
    """

    _needs_real_numbers = True
    _balances_beside = True

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TwoStreamClassifier._parameter_constraints,
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "noise": [Interval(Real, 0, None, closed="left")],
        "decay": [Interval(Real, 0, 1, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {
        "n_views": 2,
        "temperature": 0.5,
        "alpha": 0.75,
        "decay": 0.999,
        "weight": 75.0,
        "ramp_up": 1 / 64,
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_views: int = 2,
        temperature: float = 0.5,
        alpha: float = 0.75,
        noise: float = 0.05,
        decay: float = 0.999,
        weight: float = 10.0,
        ramp_up: float = 0.4,
        **kwargs: Any,
    ):
        super().__init__(estimator, weight=weight, ramp_up=ramp_up, **kwargs)
        self.n_views = n_views
        self.temperature = temperature
        self.alpha = alpha
        self.noise = noise
        self.decay = decay

    def _make_bag_loss(self) -> BagLoss:
        return MixMatchLoss(self.n_views, self.temperature, self.alpha, self.noise, self.decay)
