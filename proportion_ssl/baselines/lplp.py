"""LPLP: learning from recorded shares among tumor subtypes, without the share of tumor."""

from numbers import Real
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.losses.signed_labels import proportion_loss
from proportion_ssl.proportions.weak_records import PartialRecord, refuse_weak_records


class PartialProportionLoss(BagLoss):
    """Proportion loss among the tumor classes plus cross-entropy of the presence of tumor in a bag.

    Parameters
    ----------
    mil_weight : float
        Weight of the cross-entropy.
    tumor : torch.Tensor of bool, shape (n_classes,), or None
        Columns of the tumor classes; None: the classes that each record covers.
    """

    def __init__(self, mil_weight: float, tumor: torch.Tensor | None = None):
        super().__init__()
        self.mil_weight, self.tumor = mil_weight, tumor
        self.proportions = MeanProportionLoss()

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        logits = module(batch.X)
        means = batch.bag_means(logits.double().softmax(dim=1))
        if self.tumor is None:
            if not isinstance(batch.record, PartialRecord):
                return self.proportions.of_logits(logits, batch)
            among = torch.as_tensor(batch.record.among, device=means.device)
            partial = ~among.all(dim=1)
            tumor_loss = presence_loss(means, among, partial, torch.zeros_like(partial))
            proportions = self.proportions.of_logits(logits, batch)
            return proportions + self.mil_weight * (tumor_loss * batch.weights).mean()
        refuse_weak_records(batch.record, "tumor_classes of LPLPClassifier")
        tumor = self.tumor.to(means.device)
        among = tumor.expand_as(means)
        lower, upper = shares_among(batch.lower, batch.upper, tumor)
        absent = ~(batch.upper[:, tumor] > 0).any(dim=1)
        present = (batch.lower[:, tumor] > 0).any(dim=1)
        of_bags = proportion_loss(means, lower, upper, among).masked_fill(absent, 0.0)
        of_bags = of_bags + self.mil_weight * presence_loss(means, among, present, absent)
        return (of_bags * batch.weights).mean()


class LPLPClassifier(TwoStreamClassifier):
    """Learning from partial label proportions (LPLP): the share of tumor in a bag is not used.

    Parameters
    ----------
    tumor_classes : array-like, default=None
        Tumor classes. From complete records, only the shares among these classes are used, and whether
        their total is 0. Default: records are used as given: partial records for
        ``Bags(..., among=tumor_classes)``; for complete records the loss is the proportion loss.
    mil_weight : float, default=0.01
        Weight of the cross-entropy of the presence of tumor, relative to the proportion loss.
    **kwargs
        ``weight`` (default 1), ``ramp_up`` (0) and other parameters of
        :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        Settings of the authors: 16 bags of 32 images per step.

    Notes
    -----
    LPLP [1]_ predicts a tumor score s (logistic) and shares of the subtypes (softmax) for each patch. The
    predicted proportions of a bag are ``sum_i s_i softmax_i / sum_i s_i``, and its probability of tumor is
    the mean of s, as in the authors' code. Here both come from one softmax f over all classes: s is the sum
    of f over the tumor classes, and ``s softmax = f``. With a single other class, the two parametrizations
    are equivalent. Bags whose record allows both tumor and no tumor are left out of the cross-entropy.

    References
    ----------
    .. [1] Matsuo, Suehiro, Uchida, Ito, Terada, Yoshizawa, Bise. "Learning from Partial Label Proportions for
       Whole Slide Image Segmentation". MICCAI 2024.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TwoStreamClassifier._parameter_constraints,
        "tumor_classes": ["array-like", None],
        "mil_weight": [Interval(Real, 0, None, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {
        "mil_weight": 0.01,
        "bags_per_batch": 16,
        "instances_per_bag": 32,
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        tumor_classes: Any = None,
        mil_weight: float = 0.01,
        **kwargs: Any,
    ):
        super().__init__(estimator, **kwargs)
        self.tumor_classes = tumor_classes
        self.mil_weight = mil_weight

    def _make_bag_loss(self) -> BagLoss:
        if self.tumor_classes is None:
            return PartialProportionLoss(self.mil_weight)
        tumor = np.isin(self.classes_, np.asarray(self.tumor_classes))
        if tumor.sum() != len(np.unique(self.tumor_classes)) or tumor.all() or not tumor.any():
            raise ValueError(
                f"tumor_classes must be some, but not all, of the classes {self.classes_.tolist()}; got "
                f"{list(self.tumor_classes)!r}."
            )
        return PartialProportionLoss(self.mil_weight, torch.as_tensor(tumor))


def presence_loss(
    means: torch.Tensor, among: torch.Tensor, present: torch.Tensor, absent: torch.Tensor
) -> torch.Tensor:
    """Cross-entropy of the mean tumor score of each bag.

    Parameters
    ----------
    means : torch.Tensor of float64, shape (n_bags, n_classes)
        Mean predictions.
    among : torch.Tensor of bool, shape (n_bags, n_classes)
        Tumor classes.
    present, absent : torch.Tensor of bool, shape (n_bags,)
        Whether the bag is known to contain tumor, or no tumor; if neither, the loss is 0.

    Returns
    -------
    loss : torch.Tensor of shape (n_bags,)
        ``-log s`` or ``-log(1 - s)``; finite.
    """
    tiny = torch.finfo(means.dtype).tiny
    score = means.where(among, 0.0).sum(dim=1).clamp(min=tiny)
    rest = means.where(~among, 0.0).sum(dim=1).clamp(min=tiny)
    return -(score.log().where(present, 0.0) + rest.log().where(absent, 0.0))


def shares_among(
    lower: torch.Tensor, upper: torch.Tensor, tumor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Intervals of the shares among the tumor classes, from intervals of the shares of all classes.

    Parameters
    ----------
    lower, upper : torch.Tensor of shape (n_bags, n_classes)
    tumor : torch.Tensor of bool, shape (n_classes,)

    Returns
    -------
    lower, upper : torch.Tensor of shape (n_bags, n_classes)
        Smallest and largest share if there is tumor; 0 for the other classes.

    Examples
    --------
    >>> import torch
    >>> shares = torch.tensor([[0.1, 0.3, 0.6]])
    >>> shares_among(shares, shares, torch.tensor([True, True, False]))
    (tensor([[0.2500, 0.7500, 0.0000]]), tensor([[0.2500, 0.7500, 0.0000]]))
    """
    low, high = lower * tumor, upper * tumor
    least, most = (part.sum(dim=1, keepdim=True) - part for part in (low, high))
    alone = (most <= 0) & (high > 0)  # all tumor is of this class
    smallest = torch.where(alone, 1.0, low / (low + most).where(low > 0, 1.0))
    largest = high / (high + least).where(high > 0, 1.0)
    return smallest, largest
