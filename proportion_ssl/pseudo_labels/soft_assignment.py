"""Soft labels of all instances of a bag at once, from a net and from proportions that may be wrong."""

from dataclasses import dataclass

import numpy as np

from proportion_ssl.proportions.intervals import nearest_proportions
from proportion_ssl.proportions.weak_records import OrderRecord, PartialRecord
from proportion_ssl.pseudo_labels._dual import BLOCK, BagDuals, blocks_of_bags

#: Share of a bag that the classes of a partial record have at least, for the error of their record: of none
#: at all it would be certain.
SMALLEST_MASS = 0.01


def posterior_labels(
    scores: np.ndarray,
    bag_index: np.ndarray,
    lower: np.ndarray | PartialRecord | OrderRecord,
    upper: np.ndarray | None = None,
    *,
    standard_deviation: float,
    degrees_of_freedom: float,
    temperature: float,
    effective_size: float = np.inf,
    n_renewals: int = 4,
) -> np.ndarray:
    """Soft labels that weigh the scores of the instances against the recorded proportions of their bag.

    Parameters
    ----------
    scores : ndarray of float, shape (n_instances, n_classes)
        Log-probabilities, or any finite scores.
    bag_index : ndarray of int, shape (n_instances,)
        0 to n_bags - 1, each at least once.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Interval of each recorded share; equal where it is exact. A record that says less than the share of
        every class takes the place of ``lower``.
    standard_deviation : float
        Of the recorded shares, above 0.
    degrees_of_freedom : float
        Of Student's t distribution, which the errors of a bag's record follow: the fewer, the more readily a
        record that is far off is not believed.
    temperature : float
        Above 0; towards 0 labels become hard.
    effective_size : float, default=inf
        Instances that a bag counts as at most.
    n_renewals : int, default=4
        How often it is renewed what each record is worth, and what is nearest within an interval.

    Returns
    -------
    soft : ndarray of float, shape (n_instances, n_classes)
        Rows sum to 1. Of the type of the scores, in which they are also computed.

    Notes
    -----
    With the variance ``v`` of a bag's record given, maximizes over soft labels y

    ``sum_ic y_ic s_ic - sum_c (m_c - p_c)^2 / (2 v) + temperature * entropy(y)``,

    m the mean of y over the bag, p the shares within the interval that are nearest to it: entropic
    transport with a quadratic penalty on the counts instead of a constraint [1]_. Its dual is smooth and
    convex in one variable per class and is minimized by Newton's method. In turn, with nu degrees of freedom
    and C classes,
    ``v = (nu * standard_deviation^2 + |m - p|^2) / (nu + C - 1)``: the EM algorithm for errors with a t
    distribution [2]_. With more instances n than ``effective_size`` v is multiplied by ``effective_size / n``
    in the penalty: the instances together are then no more evidence against the record than so many.

    What a partial record expects, its recorded shares times the share s of its K classes
    in m, is renewed in turn as well; of these, the standard deviation is s times that of the recorded
    shares, and C is K.

    References
    ----------
    .. [1] Chizat, Peyre, Schmitzer, Vialard. "Scaling Algorithms for Unbalanced Optimal
       Transport Problems". Mathematics of Computation 87, 2018.
    .. [2] Lange, Little, Taylor. "Robust Statistical Modeling Using the t Distribution". JASA 84, 1989.

    Examples
    --------
    >>> import numpy as np
    >>> scores, one_bag = np.log([[0.6, 0.4]] * 4), np.zeros(4, dtype=int)
    >>> recorded = np.array([[0.5, 0.5]])
    >>> for deviation in (0.001, 10.0):  # the record is believed, or the scores are
    ...     options = {"standard_deviation": deviation, "degrees_of_freedom": 1e9, "temperature": 1.0}
    ...     print(posterior_labels(scores, one_bag, recorded, recorded, **options)[0].round(3))
    [0.5 0.5]
    [0.6 0.4]
    """
    soft = np.empty_like(scores)
    sizes = np.bincount(bag_index)
    nu, variance = degrees_of_freedom, standard_deviation**2
    for rows, here in blocks_of_bags(bag_index, sizes, 2 * BLOCK):
        by_classes = np.ascontiguousarray(scores[rows].T)
        scaled = np.divide(by_classes, temperature, dtype=scores.dtype)
        bags = BagDuals(scaled, sizes[here], np.zeros(lower[here].shape))
        n = bags.sizes[:, np.newaxis]
        for turn in range(n_renewals):
            means = bags.counts / n
            nearest, mass, n_free = _expected(means, lower, upper, here)
            # at first the scores have not met the record: their distance says nothing about it yet
            distance = ((means - nearest) ** 2).sum(axis=1, keepdims=True) if turn else 0.0
            variances = (nu * variance * mass**2 + distance) / (nu + n_free)
            variances = variances * np.minimum(1.0, effective_size / n)
            penalty = _Misfit(n * nearest, temperature * variances * n**2)
            bags.minimize(penalty, tol=1e-5)
        # class by class: numpy transposes many times more slowly
        for of_class, found in zip(soft.T, bags.soft, strict=True):
            of_class[rows] = found
    return soft


def _expected(means, lower, upper, bags):
    """Shares that the records of some bags expect, by how much their errors are scaled, and how many err."""
    if upper is not None:
        return nearest_proportions(means, lower[bags], upper[bags]), 1.0, lower.shape[1] - 1
    record = lower[bags]
    mass = np.maximum(record.mass(means), SMALLEST_MASS)
    return record.nearest(means), mass, record.n_free


@dataclass
class _Misfit:
    """Penalty where counts err normally around a target: the conjugate of a squared distance."""

    target: np.ndarray  # counts, shape (n_bags, n_classes)
    variance: np.ndarray  # of the counts, shape (n_bags, 1)

    def __call__(self, duals):
        return self.variance * duals - self.target, self.variance

    def of(self, bags):
        return _Misfit(self.target[bags], self.variance[bags])
