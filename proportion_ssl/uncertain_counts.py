"""Soft labels of all instances of a bag at once, from a net and from proportions that may be wrong."""

import numpy as np

from proportion_ssl.intervals import nearest_proportions


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
        Rows sum to 1.

    Notes
    -----
    With the variance ``v`` of a bag's record given, maximises over soft labels y

    ``sum_ic y_ic s_ic - sum_c (m_c - p_c)^2 / (2 v) + temperature * entropy(y)``,

    m the mean of y over the bag, p the shares within the interval that are nearest to it: entropic
    transport with a quadratic penalty on the counts instead of a constraint [1]_. Its dual is smooth and
    convex in one price per class and is minimised by Newton's method. In turn, with nu degrees of freedom
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
    order = np.argsort(bag_index, kind="stable")
    bags = _Bags(scores[order] / temperature, np.bincount(bag_index))
    prices = np.zeros(lower.shape)
    soft, _ = bags.soft_labels(prices)
    nu, variance = degrees_of_freedom, standard_deviation**2
    for turn in range(n_renewals):
        means = bags.sums(soft) / bags.sizes
        nearest = nearest_proportions(means, lower, upper)
        # at first the scores have not met the record: their distance says nothing about it yet
        distance = ((means - nearest) ** 2).sum(axis=1, keepdims=True) if turn else 0.0
        variances = (nu * variance + distance) / (nu + lower.shape[1] - 1)
        prices, soft = bags.fit_prices(prices, nearest, variances * temperature)
    result = np.empty_like(soft)
    result[order] = soft
    return result


class _Bags:
    """Scores in the order of their bags, and sums over bags; prices and penalties in units of entropy."""

    def __init__(self, scores, sizes):
        self.scores, self.sizes = scores, sizes[:, np.newaxis].astype(np.float64)
        self.bag = np.repeat(np.arange(len(sizes)), sizes)
        self.starts = np.cumsum(sizes) - sizes

    def sums(self, values):
        """Sum over the instances of each bag."""
        return np.add.reduceat(values, self.starts, axis=0)

    def soft_labels(self, prices):
        """``softmax(scores - prices)``, and the logarithms of its denominators."""
        logits = self.scores - prices[self.bag]
        largest = logits.max(axis=1, keepdims=True)
        exponent = np.exp(logits - largest)
        total = exponent.sum(axis=1, keepdims=True)
        return exponent / total, (largest + np.log(total))[:, 0]

    def dual(self, prices, target, variances):
        """What Newton's method minimises, per bag, and the soft labels of these prices."""
        soft, normalizers = self.soft_labels(prices)
        linear = (self.sizes * target * prices).sum(axis=1)
        square = (variances * (self.sizes * prices) ** 2).sum(axis=1) / 2
        return self.sums(normalizers) + linear + square, soft

    def fit_prices(self, prices, target, variances, *, max_iter=50, tol=1e-3, longest=4.0):
        """Prices that minimise the dual of every bag, by damped Newton steps, and their soft labels.

        Where labels are nearly hard the dual is nearly flat, and a step would be far too long.
        """
        n_classes = prices.shape[1]
        curvature = variances * self.sizes**2
        value, soft = self.dual(prices, target, variances)
        for _ in range(max_iter):
            counts = self.sums(soft)
            gradient = self.sizes * target - counts + curvature * prices
            if (np.abs(gradient) <= tol * self.sizes).all():
                break
            hessian = np.stack(
                [-self.sums(soft * soft[:, c, np.newaxis]) for c in range(n_classes)], axis=1
            )
            diagonal = np.arange(n_classes)
            hessian[:, diagonal, diagonal] += counts + curvature + 1e-6 * self.sizes
            step = np.linalg.solve(hessian, gradient[..., np.newaxis])[..., 0]
            damping = np.minimum(
                1.0, longest / np.abs(step).max(axis=1, keepdims=True, initial=longest)
            )
            for _ in range(8):
                new_value, new_soft = self.dual(prices - damping * step, target, variances)
                worse = new_value > value + 1e-9 * np.abs(value)
                if not worse.any():
                    break
                damping[worse] /= 4
            prices, value, soft = prices - damping * step, new_value, new_soft
        return prices, soft
