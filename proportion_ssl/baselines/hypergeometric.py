"""Random targets for random parts of bags, as LLP-LargeBags draws them."""

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
    """Proportions of drawn parts of bags, drawn anew as well, from what such parts may hold.

    When m patches are drawn from a bag with recorded counts k, the counts in the part follow the
    multivariate hypergeometric distribution of k and m. Each time a part is drawn its target is a draw
    from this distribution, divided by m: on average the recorded proportions, with the spread that the
    shares of such parts have. A net then does not overfit proportions of the whole, which no part has.

    Give it as ``augmentation`` of :class:`ProportionLossClassifier`: the method of LLP-LargeBags [1]_.

    Parameters
    ----------
    weigh_by_probability : bool, default=False
        Whether bags weigh in proportion to the probability of the drawn counts, with mean 1 over the batch:
        the loss weighting of [1]_, whose bags all have the same size. Bags of one class, whose counts are
        certain, then weigh much more than others.

    Notes
    -----
    A bag that is taken whole keeps what is recorded of it. Where a record is an interval, parts are drawn
    from proportions within it that sum to 1; counts are those of the method of largest remainders.

    References
    ----------
    .. [1] Kubo, Matsuo, Suehiro, Terada, Ito, Yoshizawa, Bise. "Theoretical Proportion Label Perturbation
       for Learning from Label Proportions in Large Bags". ECAI 2024.
    """

    _parameter_constraints = {"weigh_by_probability": ["boolean"]}  # noqa: RUF012

    def __init__(self, weigh_by_probability: bool = False):
        self.weigh_by_probability = weigh_by_probability

    def __call__(self, batch: BagBatch) -> BagBatch:
        """The same instances with drawn proportions."""
        self._validate_params()
        refuse_weak_records(batch.record, "HypergeometricTargets")
        if batch.sizes is None or batch.shares is None:
            raise ValueError(
                "The batch has no sizes and shares of the whole bags, from which targets are drawn; give it "
                "to HypergeometricTargets before MixBag or another augmentation mixes the bags."
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
    """Counts of the classes in random parts of bags.

    Parameters
    ----------
    counts : ndarray of int, shape (n_bags, n_classes)
        Of the whole bags.
    n_drawn : ndarray of int, shape (n_bags,)
        Instances of each part.
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
    """Logarithm of the probability of the counts in a random part of each bag.

    Parameters
    ----------
    counts, drawn : ndarray of int, shape (n_bags, n_classes)
        Of the whole bags and of the parts.

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
