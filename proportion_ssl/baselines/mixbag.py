"""MixBag: bag augmentation by mixing parts of two bags."""

from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import torch
from scipy.stats import norm
from sklearn.base import BaseEstimator

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagBatch, bag_of_each
from proportion_ssl.nets.random_numbers import generator
from proportion_ssl.proportions.weak_records import refuse_weak_records


class MixBag(BaseEstimator):
    """Augment a batch by mixing parts of two bags: MixBag of Asanomi et al.

    Each bag is kept with probability 1/2. Otherwise a fraction g of its instances, with g uniform in (0, 1),
    is combined with a fraction 1 - g of another bag of the batch. The proportions are averaged, weighted by
    the numbers of instances. Because parts of bags differ from the whole by chance, the loss is 0 if the
    prediction lies within a confidence interval of the mixed proportions.

    Parameters
    ----------
    confidence : float in [0, 1), default=0.99
        Confidence level of the interval, whose half-width is
        ``z * sum over both bags of (fraction of the new bag) * sqrt(p (1 - p) / (number of instances))``.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        Setting of the authors for the :class:`~proportion_ssl.baselines.ProportionLossClassifier` that uses
        it: 32 bags per step. A pass over the bags then has a sixteenth of the steps of 2 bags per step; for
        equal numbers of steps multiply ``max_epochs`` by 16.

    Notes
    -----
    Outside the interval, the loss is computed from its nearest end, which makes it continuous; the authors'
    code uses the midpoint. A single bag in a batch is kept.

    References
    ----------
    .. [1] Asanomi, Matsuo, Suehiro, Bise. "MixBag: Bag-Level Data Augmentation for Learning from Label
       Proportions". ICCV 2023.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        "confidence": [Interval(Real, 0, 1, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {"bags_per_batch": 32}

    def __init__(self, confidence: float = 0.99):
        self.confidence = confidence

    def __call__(self, batch: BagBatch) -> BagBatch:
        """Return as many bags as in the batch, some of them mixed."""
        self._validate_params()
        refuse_weak_records(batch.record, "MixBag")
        z = float(norm.ppf(0.5 + self.confidence / 2))
        order = torch.randperm(batch.n_bags, generator=generator())
        partner = torch.empty_like(order)
        partner[order] = order.roll(1)  # never the bag itself
        stays = torch.rand(batch.n_bags, generator=generator()) < 0.5
        members = [torch.nonzero(batch.bag == bag).flatten() for bag in range(batch.n_bags)]
        rows, recorded = [], []
        for bag, other in enumerate(partner.tolist()):
            if stays[bag] or bag == other:
                rows.append(members[bag])
                recorded.append((batch.lower[bag], batch.upper[bag], batch.weights[bag]))
                continue
            share = float(torch.rand((), generator=generator()))
            parts = [_part(members[bag], share), _part(members[other], 1.0 - share)]
            rows.append(torch.cat(parts))
            recorded.append(_mix(batch, (bag, other), [len(part) for part in parts], z))
        lower, upper, weights = (torch.stack(values) for values in zip(*recorded, strict=True))
        bag_index = bag_of_each(rows).to(batch.bag.device)
        X = batch.X[torch.cat(rows)]
        mixed = replace(batch, X=X, bag=bag_index, lower=lower, upper=upper, weights=weights)
        return replace(mixed, sizes=None, shares=None)


def _part(rows, share):
    """Random fraction of the rows, at least one row."""
    return rows[
        torch.randperm(len(rows), generator=generator())[: max(1, round(share * len(rows)))]
    ]


def _mix(batch, bags, n_taken, z):
    """Interval of the mixed proportions, and the mixed weight."""
    share = torch.tensor(n_taken, dtype=batch.lower.dtype, device=batch.lower.device)[:, None]
    lower, upper = batch.lower[list(bags)], batch.upper[list(bags)]
    middle = (lower + upper) / 2
    error = z * (middle * (1 - middle) / share).sqrt()
    share = share / share.sum()
    low, high = (share * (lower - error)).sum(dim=0), (share * (upper + error)).sum(dim=0)
    weight = (share[:, 0] * batch.weights[list(bags)]).sum().to(batch.weights.dtype)
    return low.clamp(0, 1), high.clamp(0, 1), weight
