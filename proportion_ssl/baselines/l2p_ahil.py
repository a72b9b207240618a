"""L2P-AHIL: pseudo labels weighted by their confidence and by how well their class matches its count."""

from numbers import Real
from typing import Any, ClassVar

import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._views import strong_view, weak_view
from proportion_ssl.baselines.fixmatch import ViewClassifier, ViewLoss
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss


def entropy_weights(
    probabilities: torch.Tensor,
    labels: torch.Tensor,
    batch: BagBatch,
    *,
    instance_width: float,
    bag_width: float,
) -> torch.Tensor:
    """Weight of each pseudo label from the entropy of the instance and of its class in the bag.

    Parameters
    ----------
    probabilities : torch.Tensor of shape (n_instances, n_classes)
    labels : torch.Tensor of int64, shape (n_instances,)
    batch : BagBatch
    instance_width, bag_width : float
        Squared entropy (nats squared) at which a weight has decreased to 1 / e.

    Returns
    -------
    weights : torch.Tensor of float64, shape (n_instances,)
        In [0, 1]; 0 for a class that is not in the record of the bag.

    Notes
    -----
    ``exp(-H_i^2 / b_i) exp(-(H_c - log k_c)^2 / b_b)``, with the entropy ``H_i`` of the prediction. ``H_c``
    is the entropy over the instances of the bag of the predictions of class c, normalized to sum to 1. For
    confident predictions it is the logarithm of the predicted count of c; ``k_c`` is the recorded count.
    """
    p = probabilities.double()
    means = batch.bag_means(p)
    sizes = torch.bincount(batch.bag, minlength=batch.n_bags).unsqueeze(1)
    share = p / (means * sizes).clamp(min=torch.finfo(p.dtype).tiny)[batch.bag]
    of_class = -batch.bag_means(torch.xlogy(share, share)) * sizes
    counts = sizes * torch.clamp(means, *batch.ends(means))
    fit = torch.exp(-((of_class - counts.log()) ** 2) / bag_width).where(counts > 0, 0.0)
    of_instance = -torch.xlogy(p, p).sum(dim=1)
    sure = torch.exp(-(of_instance**2) / instance_width)
    return sure * fit[batch.bag, labels]


class AuxiliaryLabelLoss(ViewLoss):
    """Proportion loss of weak views plus cross-entropy of strong views with weighted pseudo labels."""

    def __init__(self, label_weight: float, instance_width: float, bag_width: float, *views: float):
        super().__init__(*views)
        self.label_weight = label_weight
        self.instance_width, self.bag_width = instance_width, bag_width
        self.proportions = MeanProportionLoss()

    def consistency(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        weak = module(weak_view(batch.X, batch.scale, self.weak_noise))
        with torch.no_grad():
            p = weak.double().softmax(dim=1)
            labels = p.argmax(dim=1)
            weights = entropy_weights(
                *(p, labels, batch),
                instance_width=self.instance_width,
                bag_width=self.bag_width,
            )
        strong = module(strong_view(batch.X, batch.scale, self.strong_noise, self.drop))
        losses = nn.functional.cross_entropy(strong, labels, reduction="none")
        labeled = (losses * weights * batch.weights[batch.bag]).mean()
        return self.proportions.of_logits(weak, batch) + self.label_weight * labeled


class L2PAHILClassifier(ViewClassifier):
    """Classifier with proportion loss and weighted pseudo labels of all bag patches (L2P-AHIL).

    A pseudo label has more weight the more confident its prediction is, and the better the predictions of
    its class in the bag match the recorded number of patches.

    Parameters
    ----------
    label_weight : float, default=0.5
        Weight of the pseudo labels relative to the proportion loss.
    instance_width, bag_width : float, default=5.0
        Squared entropy of a prediction, and squared difference between the entropy of a class and that of
        its recorded number of patches, at which a weight has decreased to 1 / e (nats squared).
    **kwargs
        ``weight`` (default 1) applies to both losses together. Views, ``decay`` (0.999) and other parameters
        as in :class:`FixMatchClassifier`, without ``threshold``.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        Settings of the authors: 64 bags of 16 images per step.

    Notes
    -----
    The weights are those of the authors' code. If a record is an interval, the value nearest to the
    predicted number is used.

    References
    ----------
    .. [1] Ma, Chen, Hu, Zhu, Li. "Forming Auxiliary High-confident Instance-level Loss to Promote Learning
       from Label Proportions". CVPR 2025, arXiv:2411.10364.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **ViewClassifier._parameter_constraints,
        "label_weight": [Interval(Real, 0, None, closed="left")],
        "instance_width": [Interval(Real, 0, None, closed="neither")],
        "bag_width": [Interval(Real, 0, None, closed="neither")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {
        "label_weight": 0.5,
        "instance_width": 5.0,
        "bag_width": 5.0,
        "decay": 0.999,
        "bags_per_batch": 64,
        "instances_per_bag": 16,
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        label_weight: float = 0.5,
        instance_width: float = 5.0,
        bag_width: float = 5.0,
        **kwargs: Any,
    ):
        super().__init__(estimator, **kwargs)
        self.label_weight = label_weight
        self.instance_width = instance_width
        self.bag_width = bag_width

    def _make_bag_loss(self) -> BagLoss:
        return AuxiliaryLabelLoss(
            self.label_weight, self.instance_width, self.bag_width, *self._views
        )
