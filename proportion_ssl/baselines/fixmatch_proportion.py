"""FixMatch with a proportion loss and random targets for random subsets of bags."""

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
    """FixMatch loss plus the weighted proportion loss of weak views with random targets."""

    def __init__(self, proportion_weight: float, threshold: float, *views: float):
        super().__init__(threshold, *views)
        self.proportion_weight = proportion_weight
        self.proportions, self.targets = MeanProportionLoss(), HypergeometricTargets()

    def consistency(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        logits = module(weak_view(batch.X, batch.scale, self.weak_noise))
        proportions = self.proportions.of_logits(logits, self.targets(batch))
        return super().consistency(module, batch) + self.proportion_weight * proportions


class FixMatchProportionClassifier(FixMatchClassifier):
    """FixMatch with a proportion loss that uses random targets for random subsets of bags.

    Parameters
    ----------
    proportion_weight : float, default=1.0
        Weight of the proportion loss relative to the loss of the pseudo labels.
    **kwargs
        As in :class:`FixMatchClassifier`; ``weight`` and ``ramp_up`` apply to both losses together.

    Notes
    -----
    Follows [1]_, where the proportions of all unlabeled images together are known and each batch is a random
    subset. Here each bag has its own record, and :class:`HypergeometricTargets` draws the targets. The
    proportion loss averages the predictions on weak views, with gradient.

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
