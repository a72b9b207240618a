"""Soft labels of all instances of a bag at once, from a net and from proportions that may be wrong."""

from dataclasses import dataclass

import numpy as np

from proportion_ssl.proportions.intervals import nearest_proportions
from proportion_ssl.pseudo_labels._dual import BLOCK, BagDuals, blocks_of_bags


def posterior_labels(
    scores: np.ndarray,
    bag_index: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    standard_deviation: float,
    degrees_of_freedom: float,
    temperature: float,
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
        Interval of each recorded share; equal where it is exact.
    standard_deviation : float
        Of the recorded shares, above 0.
    degrees_of_freedom : float
        Of Student's t distribution, which the errors of a bag's record follow: the fewer, the more readily a
        record that is far off is not believed.
    temperature : float
        Above 0; towards 0 labels become hard.
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
    distribution [2]_.

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
            nearest = nearest_proportions(means, lower[here], upper[here])
            # at first the scores have not met the record: their distance says nothing about it yet
            distance = ((means - nearest) ** 2).sum(axis=1, keepdims=True) if turn else 0.0
            variances = (nu * variance + distance) / (nu + lower.shape[1] - 1)
            penalty = _Misfit(n * nearest, temperature * variances * n**2)
            bags.minimize(penalty, tol=1e-5)
        # class by class: numpy transposes many times more slowly
        for of_class, found in zip(soft.T, bags.soft, strict=True):
            of_class[rows] = found
    return soft


@dataclass
class _Misfit:
    """Penalty where counts err normally around a target: the conjugate of a squared distance."""

    target: np.ndarray  # counts, shape (n_bags, n_classes)
    variance: np.ndarray  # of the counts, shape (n_bags, 1)

    def __call__(self, duals):
        return self.variance * duals - self.target, self.variance

    def of(self, bags):
        return _Misfit(self.target[bags], self.variance[bags])
