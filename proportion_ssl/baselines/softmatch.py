"""SoftMatch: FixMatch with lower weights instead of a threshold for uncertain pseudo labels."""

from numbers import Real
from typing import Any, ClassVar

import torch

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagLoss
from proportion_ssl.baselines.fixmatch import ViewClassifier, ViewLoss


class SoftMatchLoss(ViewLoss):
    """View loss with a truncated Gaussian weight for pseudo labels below the mean confidence.

    Mean m and variance v of the confidence are moving averages over the batches. The weight is
    ``exp(-min(confidence - m, 0)^2 / (2 v / 4))``; its width is half a standard deviation, as in the
    authors' code.
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
    """SoftMatch: FixMatch with all pseudo labels, weighted by their confidence.

    Patches of the bags are used as unlabeled data; proportions are not used. Uniform alignment is omitted,
    because it assumes equally frequent classes.

    Parameters
    ----------
    momentum : float in [0, 1), default=0.999
        Momentum of the moving mean and variance of the confidence.
    **kwargs
        As in :class:`FixMatchClassifier`, without ``threshold``.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        Settings of the authors: 7 unlabeled patches per labeled one; see :class:`FixMatchClassifier`.

    Notes
    -----
    The moving variance starts at 1. With a momentum of 0.999 it is still about 0.5 after 700 steps, so in
    shorter trainings few labels have a weight below 0.5. With a momentum of 0.99 it takes 70 steps.

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
