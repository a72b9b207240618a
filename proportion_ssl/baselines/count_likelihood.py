"""Likelihood of the recorded class counts of a bag (LLP-PVC)."""

from typing import Any, ClassVar

import torch
from torch import nn

from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.losses.counts import count_loss
from proportion_ssl.pseudo_labels.exact_assignment import count_bounds


class CountLoss(BagLoss):
    """Mean over the bags of :func:`~proportion_ssl.losses.count_loss`, weighted by bag."""

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        logits = module(batch.X)
        means = batch.bag_means(logits.detach().double().softmax(dim=1))
        lower, upper = (end.cpu().numpy() for end in batch.ends(means))
        sizes = torch.bincount(batch.bag, minlength=batch.n_bags).cpu().numpy()
        fewest, most = (
            torch.as_tensor(end, device=logits.device) for end in count_bounds(lower, upper, sizes)
        )
        return (count_loss(logits, batch.bag, fewest, most) * batch.weights).mean()


class CountLikelihoodClassifier(TwoStreamClassifier):
    """Classifier with cross-entropy of labeled patches and likelihood of the counts of bags (LLP-PVC).

    The proportion loss is minimal for any predictions that are right on average, such as the proportions of
    the bag for each of its patches. The likelihood of the counts also rewards confident predictions.

    Parameters
    ----------
    **kwargs
        ``weight`` (default 1), ``ramp_up`` (0) and other parameters of
        :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        Settings of the authors: 64 bags of 16 images per step.

    Notes
    -----
    LLP-PVC [1]_, whose loss is :func:`~proportion_ssl.losses.count_loss`. If a record is an interval, or a
    random subset of a larger bag is drawn, the likelihood is that of any count within the interval. Kuck and
    de Freitas [2]_ introduced the likelihood of counts and sampled the labels.

    References
    ----------
    .. [1] "Learning from Label Proportions via Proportional Value Classification". ICLR 2026.
    .. [2] Kuck, de Freitas. "Learning about individuals from group statistics". UAI 2005.

    Examples
    --------
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, random_state=0)
    >>> clf = CountLikelihoodClassifier(max_epochs=3, random_state=0)
    >>> clf.fit(data.X_labeled, data.y, data.bags).predict(data.X_test).shape == data.y_test.shape
    True
    """

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {"bags_per_batch": 64, "instances_per_bag": 16}

    def _make_bag_loss(self) -> BagLoss:
        return CountLoss()
