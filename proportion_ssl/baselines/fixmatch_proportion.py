"""FixMatch beside the proportion loss, with random targets for random parts of bags."""

from numbers import Real
from typing import Any

import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._views import weak_view
from proportion_ssl.baselines.fixmatch import FixMatchClassifier, FixMatchLoss
from proportion_ssl.baselines.hypergeometric import HypergeometricTargets
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss


class FixMatchProportionLoss(FixMatchLoss):
    """Loss of FixMatch plus the weighted proportion loss of weak views with drawn targets."""

    def __init__(self, proportion_weight: float, threshold: float, *views: float):
        super().__init__(threshold, *views)
        self.proportion_weight = proportion_weight
        self.proportions, self.targets = MeanProportionLoss(), HypergeometricTargets()

    def consistency(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        logits = module(weak_view(batch.X, batch.scale, self.weak_noise))
        proportions = self.proportions.of_logits(logits, self.targets(batch))
        return super().consistency(module, batch) + self.proportion_weight * proportions


class FixMatchProportionClassifier(FixMatchClassifier):
    """FixMatch and the proportion loss, whose targets are drawn where only a part of a bag is.

    Parameters
    ----------
    proportion_weight : float, default=1.0
        Weight of the proportion loss beside that of the pseudo labels.
    **kwargs
        As in :class:`FixMatchClassifier`; ``weight`` and ``ramp_up`` are those of both losses together.

    Notes
    -----
    After [1]_, who know the proportions of all unlabeled images together, and take each batch of them as a
    random part. Here each bag has its record; :class:`HypergeometricTargets` draws. The predictions that are
    averaged are those on weak views, with gradient.

    References
    ----------
    .. [1] Akiba, Matsuo, Harada, Bise. "Leveraging Label Proportion Prior for Class-Imbalanced
       Semi-Supervised Learning". arXiv:2603.02957, 2026.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **FixMatchClassifier._parameter_constraints,
        "proportion_weight": [Interval(Real, 0, None, closed="left")],
    }

    def __init__(self, estimator: Any = None, *, proportion_weight: float = 1.0, **kwargs: Any):
        super().__init__(estimator, **kwargs)
        self.proportion_weight = proportion_weight

    def _make_bag_loss(self) -> BagLoss:
        return FixMatchProportionLoss(self.proportion_weight, self.threshold, *self._views)
