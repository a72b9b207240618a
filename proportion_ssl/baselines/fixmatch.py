"""FixMatch: train strongly augmented patches on pseudo labels from weakly augmented ones."""

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
    """Weighted cross-entropy of strong views with pseudo labels from weak views.

    A subclass defines :meth:`label_weights`. Labels come from the net itself; the averaged weights are used
    only for prediction after training.

    Parameters
    ----------
    weak_noise, strong_noise, drop : float
        Settings of the views, see :func:`~proportion_ssl.baselines._views.strong_view`.
    decay : float in [0, 1), default=0.0
        Decay of the moving average of the weights; 0: no averaging.
    """

    def __init__(self, weak_noise: float, strong_noise: float, drop: float, decay: float = 0.0):
        super().__init__(decay)
        self.weak_noise, self.strong_noise, self.drop = weak_noise, strong_noise, drop

    def label_weights(self, confidence: torch.Tensor) -> torch.Tensor:
        """Weight in [0, 1] of each pseudo label from its probability, shape (n_instances,)."""
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
    """View loss that uses pseudo labels above a fixed confidence."""

    def __init__(self, threshold: float, *views: float):
        super().__init__(*views)
        self.threshold = threshold

    def label_weights(self, confidence: torch.Tensor) -> torch.Tensor:
        return (confidence >= self.threshold).to(confidence.dtype)


class ViewClassifier(TwoStreamClassifier):
    """Base class for methods with a :class:`ViewLoss`; has the parameters of the views."""

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

    Patches of the bags are used as unlabeled data; proportions are not used.

    Parameters
    ----------
    threshold : float in [0, 1], default=0.95
        Smallest probability of a pseudo label.
    weak_noise, strong_noise : float, default=0.05, 0.3
        Standard deviation of the noise on features, relative to that of the features of the labeled patches.
        Images are instead mirrored (weak), or mirrored and changed by RandAugment (strong).
    drop : float in [0, 1), default=0.3
        Probability of dropping a feature in the strong view.
    decay : float in [0, 1), default=0.999
        Decay of the exponential moving average of the weights, used for prediction; 0: last weights.
    **kwargs
        ``weight`` (default 1), ``ramp_up`` (0) and other parameters of
        :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        Settings of the authors: 7 unlabeled patches per labeled one. A pass over the bags then has 2/7 of the
        steps of 2 bags per step; for equal numbers of steps multiply ``max_epochs`` by 3.5.

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
