"""Pseudo labels for all patches of a bag by assignment to the recorded counts."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.pseudo_labels.exact_assignment import assign, count_bounds, sinkhorn


class AssignmentLoss(BagLoss):
    """Cross-entropy of jointly assigned labels that match the counts of a bag, plus its proportion loss.

    Parameters
    ----------
    share : float in [0, 1]
        Weight of the proportion loss; the weight of the cross-entropy is ``1 - share``.
    gate : float in [0, 1]
        Smallest predicted probability of a label that is used.
    temperature : float or None
        None: hard labels by exact assignment. A number: soft labels by entropic transport at this
        temperature.
    """

    def __init__(self, share: float, gate: float, temperature: float | None):
        super().__init__()
        self.share, self.gate, self.temperature = share, gate, temperature
        self.proportions = MeanProportionLoss()

    def targets(self, logits: torch.Tensor, batch: BagBatch) -> torch.Tensor:
        """Assigned labels of the batch, shape (n_instances, n_classes); rows sum to 1."""
        scores = logits.detach().double().log_softmax(dim=1).cpu().numpy()
        means = batch.bag_means(logits.detach().double().softmax(dim=1))
        bag, lower, upper = (part.cpu().numpy() for part in (batch.bag, *batch.ends(means)))
        if self.temperature is None:
            labels = assign(scores, bag, *count_bounds(lower, upper, np.bincount(bag)))
            soft = np.eye(scores.shape[1])[labels]
        else:
            soft, _ = sinkhorn(scores, bag, lower, upper, temperature=self.temperature)
        return torch.as_tensor(soft, dtype=logits.dtype, device=logits.device)

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        logits = module(batch.X)
        targets = self.targets(logits, batch)
        believed = (logits.detach().softmax(dim=1) * targets).sum(dim=1) >= self.gate
        losses = -(targets * logits.log_softmax(dim=1)).sum(dim=1)
        labeled = (losses * believed * batch.weights[batch.bag]).mean()
        proportions = self.proportions.of_logits(logits, batch)
        return self.share * proportions + (1 - self.share) * labeled


class AssignmentClassifier(TwoStreamClassifier):
    """Classifier trained on joint pseudo labels that match the recorded proportions of each bag.

    Labels are updated in every step for the patches of that step. From bags with more than
    ``instances_per_bag`` instances, a random subset is drawn in each step. Its proportions are allowed to
    deviate from the recorded ones by one standard deviation of the share in such a subset.

    Parameters
    ----------
    share : float in [0, 1], default=0.5
        Weight of the proportion loss; the weight of the cross-entropy of the pseudo labels is ``1 - share``.
    gate : float in [0, 1], default=0.0
        Smallest predicted probability of a label that is used. ``gate=0.6, share=2/3, weight=1.5`` is the
        loss of LLP-DC [2]_ without its weak and strong views.
    temperature : float or None, default=None
        None: hard labels by exact assignment. A number: soft labels by entropic optimal transport (Sinkhorn)
        at this temperature, as in ROT [1]_, which uses a share of 0.6.
    **kwargs
        ``weight`` (default 1), ``ramp_up`` (0) and other parameters of
        :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    References
    ----------
    .. [1] Dulac-Arnold, Zeghidour, Cuturi, Beyer, Vert. "Deep multi-class learning from label proportions".
       arXiv:1905.12909.
    .. [2] Ma, Li, Li, Guan. "Learning from Label Proportions with Dual-proportion Constraints". CVPR Findings
       2026, arXiv:2603.21153.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TwoStreamClassifier._parameter_constraints,
        "share": [Interval(Real, 0, 1, closed="both")],
        "gate": [Interval(Real, 0, 1, closed="both")],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        share: float = 0.5,
        gate: float = 0.0,
        temperature: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(estimator, **kwargs)
        self.share = share
        self.gate = gate
        self.temperature = temperature

    def _make_bag_loss(self) -> BagLoss:
        return AssignmentLoss(self.share, self.gate, self.temperature)
