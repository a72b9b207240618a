"""Joint soft labels of all instances of a bag, from predictions and possibly wrong proportions."""

from dataclasses import dataclass

import numpy as np

from proportion_ssl.proportions.intervals import nearest_proportions
from proportion_ssl.proportions.weak_records import OrderRecord, PartialRecord
from proportion_ssl.pseudo_labels._dual import BLOCK, BagDuals, blocks_of_bags

#: Lower limit for the total share of the classes of a partial record when its error is scaled; at a share of
#: 0 the error would be 0.
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
    """Soft labels that balance the scores of instances against the recorded proportions of their bag.

    Parameters
    ----------
    scores : ndarray of float, shape (n_instances, n_classes)
        Log-probabilities, or any finite scores.
    bag_index : ndarray of int, shape (n_instances,)
        0 to n_bags - 1, each at least once.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Interval of each recorded share; equal for exact shares. Pass a
        :class:`~proportion_ssl.proportions.PartialRecord` or
        :class:`~proportion_ssl.proportions.OrderRecord` as ``lower`` and omit ``upper``.
    standard_deviation : float
        Standard deviation of the recorded shares, above 0.
    degrees_of_freedom : float
        Degrees of freedom of Student's t distribution for the errors of a record, above 0. The fewer, the
        less weight an outlying record has.
    temperature : float
        Above 0; labels become hard as it approaches 0.
    effective_size : float, default=inf
        Maximum effective number of instances of a bag.
    n_renewals : int, default=4
        Number of updates of the record variances and of the nearest shares within the intervals.

    Returns
    -------
    soft : ndarray of float, shape (n_instances, n_classes)
        Rows sum to 1. Computed and returned in the dtype of the scores.

    Notes
    -----
    Given the variance ``v`` of the record of a bag, maximizes over soft labels y

    ``sum_ic y_ic s_ic - sum_c (m_c - p_c)^2 / (2 v) + temperature * entropy(y)``,

    where m is the mean of y over the bag and p are the shares within the interval nearest to m. This is
    entropic transport with a quadratic penalty on the counts instead of a constraint [1]_. Its dual is
    smooth and convex in one variable per class and is minimized by Newton's method. The variance is then
    updated, with nu degrees of freedom and C classes, to
    ``v = (nu * standard_deviation^2 + |m - p|^2) / (nu + C - 1)``: the EM algorithm for errors with a t
    distribution [2]_. If a bag has more instances n than ``effective_size``, v is multiplied by
    ``effective_size / n`` in the penalty, so that the evidence against the record is that of
    ``effective_size`` instances.

    A partial record expects its recorded shares times the total share s of its K classes in m; this is
    updated as well. Its standard deviation is multiplied by s, and C is replaced by K.

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
            # before the first solution, the distance to the scores says nothing about the record
            distance = ((means - nearest) ** 2).sum(axis=1, keepdims=True) if turn else 0.0
            variances = (nu * variance * mass**2 + distance) / (nu + n_free)
            variances = variances * np.minimum(1.0, effective_size / n)
            penalty = _Misfit(n * nearest, temperature * variances * n**2)
            bags.minimize(penalty, tol=1e-5)
        # class by class: a numpy transpose is many times slower
        for of_class, found in zip(soft.T, bags.soft, strict=True):
            of_class[rows] = found
    return soft


def _expected(means, lower, upper, bags):
    """Expected shares of the records of some bags, scale of their errors, and degrees of freedom."""
    if upper is not None:
        return nearest_proportions(means, lower[bags], upper[bags]), 1.0, lower.shape[1] - 1
    record = lower[bags]
    mass = np.maximum(record.mass(means), SMALLEST_MASS)
    return record.nearest(means), mass, record.n_free


@dataclass
class _Misfit:
    """Penalty for counts with normal errors around a target: the conjugate of a squared distance."""

    target: np.ndarray  # counts, shape (n_bags, n_classes)
    variance: np.ndarray  # of the counts, shape (n_bags, 1)

    def __call__(self, duals):
        return self.variance * duals - self.target, self.variance

    def of(self, bags):
        return _Misfit(self.target[bags], self.variance[bags])
