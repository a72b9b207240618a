"""Proportion loss between the mean prediction of a bag and its recorded proportions."""

from typing import Any

import torch
from torch import nn

from proportion_ssl.baselines._bag_batches import BagBatch, BagLoss
from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.losses.signed_labels import proportion_loss
from proportion_ssl.proportions.weak_records import PartialRecord


class MeanProportionLoss(BagLoss):
    """Mean over the bags of :func:`~proportion_ssl.losses.proportion_loss`, weighted by bag.

    Parameters
    ----------
    augmentation : callable or None
        Maps a :class:`~proportion_ssl.baselines.BagBatch` to the one for which the loss is computed, such as
        :class:`~proportion_ssl.baselines.MixBag`.
    """

    def __init__(self, augmentation: Any = None):
        super().__init__()
        self.augmentation = augmentation

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        if self.augmentation is not None:
            batch = self.augmentation(batch)
        return self.of_logits(module(batch.X), batch)

    def of_logits(self, logits: torch.Tensor, batch: BagBatch) -> torch.Tensor:
        """Scalar loss of a batch for the logits (n_instances, n_classes) of its instances."""
        # in double precision the logarithm of a mean is finite for logits that differ by up to 700
        means = batch.bag_means(logits.double().softmax(dim=1))
        if isinstance(batch.record, PartialRecord):
            mass = batch.record.mass(means.detach().cpu().numpy())
            recorded = (*batch.record.within(mass), batch.record.among)
            of_bags = proportion_loss(
                means, *(torch.as_tensor(part, device=means.device) for part in recorded)
            )
        else:
            of_bags = proportion_loss(means, *batch.ends(means))
        return (of_bags * batch.weights).mean()


class ProportionLossClassifier(TwoStreamClassifier):
    """Classifier with cross-entropy of labeled patches and proportion loss of bags (DLLP).

    Parameters
    ----------
    augmentation : MixBag or None, default=None
        Augmentation of the bags of a batch, or any callable that maps a
        :class:`~proportion_ssl.baselines.BagBatch` to another.
    **kwargs
        ``weight`` (default 1), ``ramp_up`` (0) and other parameters of
        :class:`~proportion_ssl.baselines.TwoStreamClassifier`.

    References
    ----------
    .. [1] Ardehaly, Culotta. "Co-training for Demographic Classification Using Deep Learning from
       Label Proportions". ICDM workshops 2017.

    Examples
    --------
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, random_state=0)
    >>> clf = ProportionLossClassifier(max_epochs=5, random_state=0).fit(data.X_labeled, data.y, data.bags)
    >>> clf.predict(data.X_test).shape == data.y_test.shape
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TwoStreamClassifier._parameter_constraints,
        "augmentation": [callable, None],
    }

    def __init__(self, estimator: Any = None, *, augmentation: Any = None, **kwargs: Any):
        super().__init__(estimator, **kwargs)
        self.augmentation = augmentation

    def _make_bag_loss(self) -> BagLoss:
        return MeanProportionLoss(self.augmentation)
