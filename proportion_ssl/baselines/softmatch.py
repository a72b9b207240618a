"""SoftMatch: as FixMatch, but unsure labels weigh less instead of nothing."""

from numbers import Real
from typing import Any, ClassVar

import torch

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagLoss
from proportion_ssl.baselines.fixmatch import ViewClassifier, ViewLoss


class SoftMatchLoss(ViewLoss):
    """Pseudo labels below the mean confidence weigh less, by a Gaussian of its spread.

    Mean m and variance v of the confidence are running averages over the batches; the weight is
    ``exp(-min(confidence - m, 0)^2 / (2 v / 4))``, the width being half a standard deviation
    as in the authors' code.
    """

    def __init__(self, n_classes: int, momentum: float, *views: float):
        super().__init__(*views)
        self.momentum = momentum
        self.mean, self.variance = torch.tensor(1.0 / n_classes), torch.tensor(1.0)

    def label_weights(self, confidence: torch.Tensor) -> torch.Tensor:
        variance = confidence.var(correction=int(len(confidence) > 1))
        new = 1.0 - self.momentum
        self.mean = self.momentum * self.mean + new * confidence.mean()
        self.variance = self.momentum * self.variance + new * variance
        below = (confidence - self.mean).clamp(max=0)
        return torch.exp(-(below**2) / (2 * self.variance.clamp(min=1e-12) / 4))


class SoftMatchClassifier(ViewClassifier):
    """SoftMatch: as FixMatch, with every prediction on a weak view a label that weighs by its confidence.

    Patches of the bags are taken as unlabeled data; proportions are not used. Without uniform alignment,
    which is for classes that are equally frequent.

    Parameters
    ----------
    momentum : float in [0, 1), default=0.999
        Momentum of the running mean and variance of the confidence.
    **kwargs
        As in :class:`FixMatchClassifier`, without ``threshold``.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        The authors' settings: 7 unlabeled patches beside each labeled one; see :class:`FixMatchClassifier`.

    Notes
    -----
    The running variance begins at 1. With a momentum of 0.999 it is still about one half after 700 steps, so
    that in shorter trainings hardly a label weighs less than one half; a momentum of 0.99 is there
    after 70 steps.

    References
    ----------
    .. [1] Chen et al. "SoftMatch: Addressing the Quantity-Quality Trade-off in Semi-supervised Learning".
       ICLR 2023.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **ViewClassifier._parameter_constraints,
        "momentum": [Interval(Real, 0, 1, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {
        "momentum": 0.999,
        "decay": 0.999,
        "batch_size": 64,
        "bags_per_batch": 7,
        "instances_per_bag": 64,
    }

    def __init__(self, estimator: Any = None, *, momentum: float = 0.999, **kwargs: Any):
        super().__init__(estimator, **kwargs)
        self.momentum = momentum

    def _make_bag_loss(self) -> BagLoss:
        return SoftMatchLoss(len(self.classes_), self.momentum, *self._views)
