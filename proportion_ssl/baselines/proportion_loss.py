"""Proportion loss: the mean prediction of a bag against its recorded proportions."""

from dataclasses import replace
from typing import Any

import torch
from scipy.stats import norm
from sklearn.base import BaseEstimator
from torch import nn

from proportion_ssl.baselines._two_streams import TwoStreamClassifier
from proportion_ssl.losses import proportion_loss
from proportion_ssl.nets.streams import BagBatch, BagLoss


class MeanProportionLoss(BagLoss):
    """Weighted mean over the bags of :func:`~proportion_ssl.proportion_loss`.

    Parameters
    ----------
    augmentation : callable or None
        From a :class:`~proportion_ssl.nets.BagBatch` to the one that is paid for, such as :class:`MixBag`.
    """

    def __init__(self, augmentation: Any = None):
        super().__init__()
        self.augmentation = augmentation

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        if self.augmentation is not None:
            batch = self.augmentation(batch)
        # in double precision the logarithm of a mean stays finite for logits that differ by 700
        means = batch.bag_means(module(batch.X).double().softmax(dim=1))
        losses = proportion_loss(means, batch.lower.double(), batch.upper.double())
        total = batch.weights.sum().clamp(min=torch.finfo(batch.weights.dtype).tiny)
        return (losses * batch.weights).sum() / total


class MixBag(BaseEstimator):
    """Bags that are mixed of parts of two: MixBag of Asanomi et al.

    A share g of one bag, drawn uniformly from (0, 1), and a share 1 - g of another make a new bag with
    the mixed proportions. Since parts of bags differ from the whole by chance, nothing is paid while the
    prediction lies within a confidence interval.

    Parameters
    ----------
    confidence : float in [0, 1), default=0.99
        Of the interval, ``z * sum over the two of (their share) * sqrt(p (1 - p) / (instances taken))``.

    References
    ----------
    .. [1] Asanomi, Matsuo, Suehiro, Bise. "MixBag: Bag-Level Data Augmentation for Learning from Label
       Proportions". ICCV 2023.
    """

    def __init__(self, confidence: float = 0.99):
        self.confidence = confidence

    def __call__(self, batch: BagBatch) -> BagBatch:
        """As many mixed bags as there are bags in the batch."""
        z = float(norm.ppf(0.5 + self.confidence / 2))
        members = [torch.nonzero(batch.bag == bag).flatten() for bag in range(batch.n_bags)]
        partner = torch.randperm(batch.n_bags)
        rows, lower, upper, weights = [], [], [], []
        for bag, other in enumerate(partner.tolist()):
            share = float(torch.rand(()))
            taken, low, high, weight = [], 0.0, 0.0, 0.0
            for one, part in ((bag, share), (other, 1.0 - share)):
                here = members[one][torch.randperm(len(members[one]))]
                taken.append(here[: max(1, round(part * len(here)))])
            n_taken = sum(map(len, taken))
            for one, part in ((bag, taken[0]), (other, taken[1])):
                share = len(part) / n_taken
                middle = (batch.lower[one] + batch.upper[one]) / 2
                error = z * (middle * (1 - middle) / len(part)).sqrt()
                low = low + share * (batch.lower[one] - error)
                high = high + share * (batch.upper[one] + error)
                weight = weight + share * batch.weights[one]
            rows.append(torch.cat(taken))
            lower.append(low.clamp(0, 1)), upper.append(high.clamp(0, 1)), weights.append(weight)
        return replace(
            batch,
            X=batch.X[torch.cat(rows)],
            bag=torch.repeat_interleave(torch.as_tensor([len(taken) for taken in rows])),
            lower=torch.stack(lower),
            upper=torch.stack(upper),
            weights=torch.stack(weights),
        )


class ProportionLossClassifier(TwoStreamClassifier):
    """Cross-entropy of the labelled patches and proportion loss of the bags (DLLP).

    Parameters
    ----------
    augmentation : MixBag or None, default=None
        Mixes the bags of a batch; any callable from a :class:`~proportion_ssl.nets.BagBatch` to another.
    **kwargs
        ``weight`` (default 1), ``ramp_up`` (0) and all else as of
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
