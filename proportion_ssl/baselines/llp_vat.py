"""LLP-VAT: proportion loss with virtual adversarial training."""

from numbers import Real
from typing import Any

import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss, ramp
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.baselines.vat import VATClassifier


class ProportionAndConsistencyLoss(BagLoss):
    """Proportion loss plus a consistency loss with increasing weight.

    Parameters
    ----------
    consistency : BagLoss
    weight : float
        Weight of the consistency loss after the ramp-up.
    ramp_up : float in [0, 1]
        Fraction of the steps over which this weight increases from 0.
    """

    def __init__(self, consistency: BagLoss, weight: float, ramp_up: float):
        super().__init__()
        self.proportions, self.consistency = MeanProportionLoss(), consistency
        self.weight, self.ramp_up, self.step = weight, ramp_up, 0

    def start(self, module: nn.Module, n_steps: int) -> None:
        self.ramp_length = self.ramp_up * n_steps

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        weight = self.weight * ramp(self.step, self.ramp_length)
        self.step += 1
        return self.proportions(module, batch) + weight * self.consistency(module, batch)


class LLPVATClassifier(VATClassifier):
    """Classifier with proportion loss of bags and virtual adversarial training (LLP-VAT).

    Parameters
    ----------
    adversarial_weight : float, default=0.05
        Weight of the adversarial loss relative to the proportion loss.
    adversarial_ramp_up : float in [0, 1], default=0.4
        Fraction of the steps over which this weight increases from 0.
    **kwargs
        As in :class:`VATClassifier`; ``weight`` and ``ramp_up`` apply to both losses together.

    References
    ----------
    .. [1] Tsai, Lin. "Learning from Label Proportions with Consistency Regularization". ACML 2020.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **VATClassifier._parameter_constraints,
        "adversarial_weight": [Interval(Real, 0, None, closed="left")],
        "adversarial_ramp_up": [Interval(Real, 0, 1, closed="both")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        adversarial_weight: float = 0.05,
        adversarial_ramp_up: float = 0.4,
        **kwargs: Any,
    ):
        super().__init__(estimator, **kwargs)
        self.adversarial_weight = adversarial_weight
        self.adversarial_ramp_up = adversarial_ramp_up

    def _make_bag_loss(self) -> BagLoss:
        return ProportionAndConsistencyLoss(
            super()._make_bag_loss(), self.adversarial_weight, self.adversarial_ramp_up
        )
