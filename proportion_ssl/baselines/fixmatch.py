"""FixMatch: pseudo labels from a weak view of a patch train its strong view."""

from numbers import Real
from typing import Any, ClassVar

import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.baselines._views import strong_view, weak_view
from proportion_ssl.baselines.mean_teacher import TeacherLoss


class ViewLoss(TeacherLoss):
    """Weighted cross-entropy of the strong views, labeled by the net itself on the weak ones.

    A subclass writes :meth:`label_weights`. The average of the net's weights labels nothing; it predicts
    after the last step.

    Parameters
    ----------
    weak_noise, strong_noise, drop : float
        Settings of the views, see :func:`~proportion_ssl.baselines._views.strong_view`.
    decay : float in [0, 1), default=0.0
        Decay of the averaged weights; 0: the last weights.
    """

    def __init__(self, weak_noise: float, strong_noise: float, drop: float, decay: float = 0.0):
        super().__init__(decay)
        self.weak_noise, self.strong_noise, self.drop = weak_noise, strong_noise, drop

    def label_weights(self, confidence: torch.Tensor) -> torch.Tensor:
        """Weight of each pseudo label in [0, 1], from its probability; shape (n_instances,)."""
        raise NotImplementedError

    def consistency(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        with torch.no_grad():
            weak = module(weak_view(batch.X, batch.scale, self.weak_noise)).softmax(dim=1)
            confidence, labels = weak.max(dim=1)
            weights = self.label_weights(confidence)
        strong = module(strong_view(batch.X, batch.scale, self.strong_noise, self.drop))
        losses = nn.functional.cross_entropy(strong, labels, reduction="none")
        return (losses * weights).mean()


class FixMatchLoss(ViewLoss):
    """Pseudo labels count from a fixed confidence on."""

    def __init__(self, threshold: float, *views: float):
        super().__init__(*views)
        self.threshold = threshold

    def label_weights(self, confidence: torch.Tensor) -> torch.Tensor:
        return (confidence >= self.threshold).to(confidence.dtype)


class ViewClassifier(TwoStreamClassifier):
    """Base of the systems whose loss is a :class:`ViewLoss`: the parameters of the views."""

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TwoStreamClassifier._parameter_constraints,
        "weak_noise": [Interval(Real, 0, None, closed="left")],
        "strong_noise": [Interval(Real, 0, None, closed="left")],
        "drop": [Interval(Real, 0, 1, closed="left")],
        "decay": [Interval(Real, 0, 1, closed="left")],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        weak_noise: float = 0.05,
        strong_noise: float = 0.3,
        drop: float = 0.3,
        decay: float = 0.999,
        **kwargs: Any,
    ):
        super().__init__(estimator, **kwargs)
        self.weak_noise = weak_noise
        self.strong_noise = strong_noise
        self.drop = drop
        self.decay = decay

    @property
    def _views(self) -> tuple[float, float, float, float]:
        return self.weak_noise, self.strong_noise, self.drop, self.decay


class FixMatchClassifier(ViewClassifier):
    """FixMatch: confident predictions on weak views are the labels of strong views.

    Patches of the bags are taken as unlabeled data; proportions are not used.

    Parameters
    ----------
    threshold : float in [0, 1], default=0.95
        Smallest probability of a label.
    weak_noise, strong_noise : float, default=0.05, 0.3
        Standard deviation of the noise on features, in those of the features over the labeled patches.
        Images: mirrored; mirrored and RandAugment.
    drop : float in [0, 1), default=0.3
        Probability that the strong view loses a feature.
    decay : float in [0, 1), default=0.999
        The net predicts with the exponential moving average of its weights; 0: with the last ones.
    **kwargs
        ``weight`` (default 1), ``ramp_up`` (0) and all else as in
        :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        The authors' settings: 7 unlabeled patches beside each labeled one. Each pass over the bags then makes
        2/7 of the steps of 2 bags per step; for equal numbers of steps multiply ``max_epochs`` by 3.5.

    References
    ----------
    .. [1] Sohn et al. "FixMatch: Simplifying Semi-Supervised Learning with Consistency and Confidence".
       NeurIPS 2020.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **ViewClassifier._parameter_constraints,
        "threshold": [Interval(Real, 0, 1, closed="both")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {
        "threshold": 0.95,
        "decay": 0.999,
        "batch_size": 64,
        "bags_per_batch": 7,
        "instances_per_bag": 64,
    }

    def __init__(self, estimator: Any = None, *, threshold: float = 0.95, **kwargs: Any):
        super().__init__(estimator, **kwargs)
        self.threshold = threshold

    def _make_bag_loss(self) -> BagLoss:
        return FixMatchLoss(self.threshold, *self._views)
