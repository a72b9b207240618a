"""Mean Teacher, and the moving-average teacher that is shared with other methods."""

import copy
from numbers import Real
from typing import Any, ClassVar

import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.baselines._views import weak_view


class TeacherLoss(BagLoss):
    """Base class for losses with a teacher, the exponential moving average of the weights of the net.

    Weights are averaged once per training step: at the start of the next step, and after the last one. At
    the end of training, the net receives the weights of the teacher.

    Parameters
    ----------
    decay : float in [0, 1)
        Weight of the old average; at most ``1 - 1 / (t + 1)`` after step t = 1, 2, ..., so that the random
        initial weights are soon forgotten.
    """

    def __init__(self, decay: float):
        super().__init__()
        self.decay, self.step = decay, 0

    def start(self, module: nn.Module, n_steps: int) -> None:
        self.teacher = copy.deepcopy(module).requires_grad_(False)

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        if self.step:
            self._average(module)
        self.step += 1
        return self.consistency(module, batch)

    def consistency(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        """Scalar loss for the difference between net and teacher."""
        raise NotImplementedError

    def finish(self, module: nn.Module) -> None:
        self._average(module)
        module.load_state_dict(self.teacher.state_dict())

    @torch.no_grad()
    def _average(self, module: nn.Module) -> None:
        decay = min(self.decay, 1.0 - 1.0 / (self.step + 1))
        for mean, new in zip(self.teacher.parameters(), module.parameters(), strict=True):
            mean.lerp_(new, 1.0 - decay)
        for kept, latest in zip(self.teacher.buffers(), module.buffers(), strict=True):
            kept.copy_(latest)


class MeanTeacherLoss(TeacherLoss):
    """Mean squared difference between class probabilities of net and teacher under independent noise."""

    def __init__(self, decay: float, noise: float):
        super().__init__(decay)
        self.noise = noise

    def consistency(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        X = batch.everything
        with torch.no_grad():
            target = self.teacher(weak_view(X, batch.scale, self.noise)).softmax(dim=1)
        predicted = module(weak_view(X, batch.scale, self.noise)).softmax(dim=1)
        return nn.functional.mse_loss(predicted, target)


class MeanTeacherClassifier(TwoStreamClassifier):
    """Mean Teacher: predictions under noise must agree with those of a moving average of the net.

    Labeled patches and bag patches are used as unlabeled data; proportions are not used. The teacher is used
    for prediction.

    Parameters
    ----------
    decay : float in [0, 1), default=0.999
        Decay of the teacher weights.
    noise : float, default=0.15
        Standard deviation of the noise on features, relative to that of the features of the labeled patches.
        Images are rotated and mirrored instead. Dropout is active in net and teacher.
    weight : float, default=10.0
        Weight of the consistency loss relative to the cross-entropy.
    ramp_up : float, default=0.4
        Fraction of the steps over which the weight increases from 0.
    **kwargs
        As in :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        Settings of the authors for CIFAR-10: weight 100, reached after 40,000 of 150,000 steps.

    References
    ----------
    .. [1] Tarvainen, Valpola. "Mean teachers are better role models: Weight-averaged consistency targets
       improve semi-supervised deep learning results". NIPS 2017.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TwoStreamClassifier._parameter_constraints,
        "decay": [Interval(Real, 0, 1, closed="left")],
        "noise": [Interval(Real, 0, None, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {"decay": 0.999, "weight": 100.0, "ramp_up": 0.27}

    def __init__(
        self,
        estimator: Any = None,
        *,
        decay: float = 0.999,
        noise: float = 0.15,
        weight: float = 10.0,
        ramp_up: float = 0.4,
        **kwargs: Any,
    ):
        super().__init__(estimator, weight=weight, ramp_up=ramp_up, **kwargs)
        self.decay = decay
        self.noise = noise

    def _make_bag_loss(self) -> BagLoss:
        return MeanTeacherLoss(self.decay, self.noise)
