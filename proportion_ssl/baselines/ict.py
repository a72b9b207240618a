"""Interpolation consistency training."""

from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.baselines.mean_teacher import TeacherLoss
from proportion_ssl.nets.random_numbers import generator


class InterpolationLoss(TeacherLoss):
    """Mean squared difference between the prediction for a mixed instance and the mixed teacher predictions.

    Parameters
    ----------
    decay : float in [0, 1)
        Decay of the teacher's weights.
    alpha : float
        The mixing coefficient is drawn from Beta(alpha, alpha), once per batch.
    """

    def __init__(self, decay: float, alpha: float):
        super().__init__(decay)
        self.alpha = alpha

    def draw_share(self) -> float:
        """Draw the mixing coefficient, the weight of the first instance."""
        seed = torch.randint(2**63 - 1, (), generator=generator())
        return np.random.default_rng(int(seed)).beta(self.alpha, self.alpha)

    def consistency(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        X, share = batch.X, self.draw_share()
        other = torch.randperm(len(X), generator=generator())
        with torch.no_grad():
            predicted = self.teacher(X).softmax(dim=1)
            target = torch.lerp(predicted[other], predicted, share)
        return nn.functional.mse_loss(module(torch.lerp(X[other], X, share)).softmax(dim=1), target)


class ICTClassifier(TwoStreamClassifier):
    """Interpolation consistency training (ICT): predictions are linear between two patches.

    Patches of the bags are used as unlabeled data; proportions are not used. The teacher, a moving average
    of the net, is used for prediction.

    Parameters
    ----------
    alpha : float, default=0.5
        Mixing coefficients are drawn from Beta(alpha, alpha).
    decay : float in [0, 1), default=0.999
        Decay of the teacher weights.
    weight : float, default=10.0
        Weight of the consistency loss relative to the cross-entropy.
    ramp_up : float, default=0.25
        Fraction of the steps over which the weight increases from 0.
    **kwargs
        As in :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        Settings of the authors for CIFAR-10: weight 100 and uniform mixing coefficients.

    References
    ----------
    .. [1] Verma, Lamb, Kannala, Bengio, Lopez-Paz. "Interpolation Consistency Training for Semi-Supervised
       Learning". IJCAI 2019. Its algorithm 1; labeled patches are not mixed, as the authors' code can do.
    """

    _needs_real_numbers = True

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TwoStreamClassifier._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="neither")],
        "decay": [Interval(Real, 0, 1, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {
        "alpha": 1.0,
        "decay": 0.999,
        "weight": 100.0,
        "ramp_up": 0.25,
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        alpha: float = 0.5,
        decay: float = 0.999,
        weight: float = 10.0,
        ramp_up: float = 0.25,
        **kwargs: Any,
    ):
        super().__init__(estimator, weight=weight, ramp_up=ramp_up, **kwargs)
        self.alpha = alpha
        self.decay = decay

    def _make_bag_loss(self) -> BagLoss:
        return InterpolationLoss(self.decay, self.alpha)
