"""Random targets for random subsets of bags, as in LLP-LargeBags."""

from dataclasses import replace

import numpy as np
import torch
from scipy.special import gammaln
from sklearn.base import BaseEstimator

from proportion_ssl.baselines._bag_batches import BagBatch
from proportion_ssl.nets.random_numbers import generator
from proportion_ssl.proportions.weak_records import refuse_weak_records
from proportion_ssl.pseudo_labels.exact_assignment import largest_remainder


class HypergeometricTargets(BaseEstimator):
    """Draw random target proportions for random subsets of bags.

    If m patches are drawn from a bag with recorded counts k, their counts follow the multivariate
    hypergeometric distribution of k and m. The target of each drawn subset is a random draw from this
    distribution, divided by m. Its mean is the recorded proportion and its variance that of the share in
    such subsets. This prevents overfitting to proportions of the whole bag, which the subset does not have
    exactly.

    Pass it as ``augmentation`` of :class:`ProportionLossClassifier`: the method of LLP-LargeBags [1]_.

    Parameters
    ----------
    weigh_by_probability : bool, default=False
        Whether bags are weighted by the probability of the drawn counts, with mean 1 over the batch: the
        loss weighting of [1]_, where all bags have the same size. Bags of a single class, whose counts are
        certain, then have much more weight than others.

    Notes
    -----
    Bags that are used completely keep their record. If a record is an interval, subsets are drawn from
    proportions within it that sum to 1; counts are rounded by the largest remainder method.

    References
    ----------
    .. [1] Kubo, Matsuo, Suehiro, Terada, Ito, Yoshizawa, Bise. "Theoretical Proportion Label Perturbation
       for Learning from Label Proportions in Large Bags". ECAI 2024.
    """

    _parameter_constraints = {"weigh_by_probability": ["boolean"]}  # noqa: RUF012

    def __init__(self, weigh_by_probability: bool = False):
        self.weigh_by_probability = weigh_by_probability

    def __call__(self, batch: BagBatch) -> BagBatch:
        """Return the same instances with random proportions."""
        self._validate_params()
        refuse_weak_records(batch.record, "HypergeometricTargets")
        if batch.sizes is None or batch.shares is None:
            raise ValueError(
                "The batch has no sizes and shares of the whole bags, which are needed to draw targets; "
                "apply HypergeometricTargets before MixBag or another augmentation that mixes bags."
            )
        sizes, shares = batch.sizes.cpu().numpy(), batch.shares.cpu().numpy()
        counts = largest_remainder(shares, sizes)
        n_drawn = torch.bincount(batch.bag, minlength=batch.n_bags).cpu().numpy()
        if (n_drawn == sizes).all():
            return batch
        seed = torch.randint(2**62, (), generator=generator())
        drawn = draw_counts(counts, n_drawn, np.random.default_rng(int(seed)))
        whole = (n_drawn == sizes)[:, np.newaxis]
        lower, upper = (
            torch.as_tensor(np.where(whole, end.cpu().numpy(), drawn / n_drawn[:, np.newaxis]))
            for end in (batch.lower, batch.upper)
        )
        weights = batch.weights
        if self.weigh_by_probability:
            log_p = log_probability(counts, drawn)
            relative = np.exp(log_p - log_p.max())
            weights = weights * torch.as_tensor(relative / relative.mean()).to(weights)
        return replace(
            batch, lower=lower.to(batch.lower), upper=upper.to(batch.upper), weights=weights
        )


def draw_counts(counts: np.ndarray, n_drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw counts of the classes in random subsets of bags.

    Parameters
    ----------
    counts : ndarray of int, shape (n_bags, n_classes)
        Counts of the whole bags.
    n_drawn : ndarray of int, shape (n_bags,)
        Number of instances in each subset.
    rng : numpy.random.Generator

    Returns
    -------
    drawn : ndarray of int, shape (n_bags, n_classes)
        Rows sum to ``n_drawn``; at most ``counts``.
    """
    parts = [
        rng.multivariate_hypergeometric(row, m) for row, m in zip(counts, n_drawn, strict=True)
    ]
    return np.stack(parts)


def log_probability(counts: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Logarithm of the probability of the counts in a random subset of each bag.

    Parameters
    ----------
    counts, drawn : ndarray of int, shape (n_bags, n_classes)
        Counts of the whole bags and of the subsets.

    Returns
    -------
    log_probability : ndarray of shape (n_bags,)

    Examples
    --------
    >>> import numpy as np
    >>> np.exp(log_probability(np.array([[2, 2]]), np.array([[1, 1]]))).round(4)
    array([0.6667])
    """

    def log_choose(n, k):
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)

    return log_choose(counts, drawn).sum(axis=1) - log_choose(counts.sum(axis=1), drawn.sum(axis=1))
