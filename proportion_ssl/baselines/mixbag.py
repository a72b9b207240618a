"""MixBag: new bags from parts of two."""

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
    """Bags that are mixed of parts of two: MixBag of Asanomi et al.

    Each bag stays whole with probability 1/2. From the others a share g, drawn uniformly from (0, 1), makes a
    new bag with a share 1 - g of another bag of the batch; the proportions are mixed by the numbers of
    instances taken. Since parts of bags differ from the whole by chance, the loss is 0 while the
    prediction lies within a confidence interval of the mixed proportions.

    Parameters
    ----------
    confidence : float in [0, 1), default=0.99
        Confidence of the interval, whose half width is
        ``z * sum over the two of (their share) * sqrt(p (1 - p) / (instances taken))``.

    Attributes
    ----------
    SOURCE_SETTINGS : dict
        The authors' setting for the :class:`~proportion_ssl.baselines.ProportionLossClassifier` around it: 32
        bags in each step. Each pass over the bags then makes a sixteenth of the steps of 2 bags per step; for
        equal numbers of steps multiply ``max_epochs`` by 16.

    Notes
    -----
    Outside the interval the distance is taken to its nearest end, where the authors' code takes that to its
    middle: the loss then has no jump. A bag that is alone in its batch stays whole.

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
        """As many bags as there are in the batch, some of them mixed."""
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
    """A random share of the rows, at least one."""
    return rows[
        torch.randperm(len(rows), generator=generator())[: max(1, round(share * len(rows)))]
    ]


def _mix(batch, bags, n_taken, z):
    """Ends of the interval of the mixed proportions, and the mixed weight."""
    share = torch.tensor(n_taken, dtype=batch.lower.dtype, device=batch.lower.device)[:, None]
    lower, upper = batch.lower[list(bags)], batch.upper[list(bags)]
    middle = (lower + upper) / 2
    error = z * (middle * (1 - middle) / share).sqrt()
    share = share / share.sum()
    low, high = (share * (lower - error)).sum(dim=0), (share * (upper + error)).sum(dim=0)
    weight = (share[:, 0] * batch.weights[list(bags)]).sum().to(batch.weights.dtype)
    return low.clamp(0, 1), high.clamp(0, 1), weight
