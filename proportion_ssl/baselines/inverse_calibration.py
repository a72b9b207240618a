"""Inverse calibration: regression of the bags' means on the logits of their proportions."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize

from proportion_ssl._kept import Array
from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._linear import LinearMachines, inverse_mean_square
from proportion_ssl.estimators._base import BagClassifier
from proportion_ssl.proportions.weak_records import refuse_weak_records

#: Widths, in logits, over which the corner of the loss is rounded in fits that follow each other.
ROUNDED = (1.0, 0.1, 0.01, 0.001)


class InverseCalibrationClassifier(LinearMachines):
    """Support vector regression whose value at the mean of a bag is the logit of its proportion.

    One machine per class against the rest. A labeled instance is a bag of one, whose proportions are 0
    and 1. Features should be standardized.

    Parameters
    ----------
    C : float, default=None
        Weight of the loss of a bag. Default: ten times one over the mean squared distance of the instances
        to their mean.
    epsilon : float, default=0.0
        Half the width of the interval of proportions that costs nothing; in logits
        ``epsilon / (p (1 - p))``.
    smallest : float in (0, 0.5), default=None
        Proportions are moved into [smallest, 1 - smallest], since those of 0 and 1 have no finite logits.
        Default: one over the number of all instances.
    max_iter : int, default=1000
        Most steps of each fit.
    classes : array-like of shape (n_classes,), default=None
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (n_machines, n_features)
        A machine per class, or one, for the second class, if there are two.
    intercept_ : ndarray of shape (n_machines,)
    objective_ : ndarray of shape (n_machines,)
    C_, smallest_ : float
        What ``C`` and ``smallest`` were.
    n_iter_ : int
    n_features_in_ : int
    SOURCE_SETTINGS : dict
        As Yu et al. [2]_ ran the method: proportions moved by one over the number of instances, no interval.

    Notes
    -----
    Rueping's inverse calibration [1]_ with a linear kernel: minimizes
    ``|w|^2 / 2 + C sum_b max(0, |w xbar_b + b - y_b| - epsilon_b)`` with ``y_b = -log(1 / p_b - 1)`` and
    ``epsilon_b = epsilon / (p_b (1 - p_b))``, in which a bag counts by its weight, not by its size. Where a
    proportion is an interval, values between the logits of its ends cost nothing either. The corner of the
    loss is rounded over 0.001 logits. The paper has no labeled instances; as bags of one they follow from its
    formula. Its interval is wide where p is near 0 or 1: with n instances ``epsilon`` must be well
    below ``log(n) / n`` for labeled instances to count.

    There is no ``predict_proba``: the logits belong to means of bags, not to single instances.

    References
    ----------
    .. [1] Rueping. "SVM Classifier Estimation from Group Probabilities". ICML 2010.
    .. [2] Yu, Liu, Kumar, Jebara, Chang. "pSVM for Learning with Label Proportions". ICML 2013.

    Examples
    --------
    >>> from proportion_ssl.baselines import InverseCalibrationClassifier
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, random_state=0)
    >>> clf = InverseCalibrationClassifier().fit(data.X_labeled, data.y, data.bags)
    >>> clf.predict(data.X_test).shape == data.y_test.shape
    True
    """

    random_state = None  # of the base; nothing here is drawn

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **BagClassifier._parameter_constraints,
        "C": [Interval(Real, 0, None, closed="neither"), None],
        "epsilon": [Interval(Real, 0, None, closed="left")],
        "smallest": [Interval(Real, 0, 0.5, closed="neither"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {"epsilon": 0.0, "smallest": None}

    _kept = LinearMachines._kept.extended(
        always={"C_": (float, int), "smallest_": (float, int), "n_iter_": (int,)},
        arrays={
            "coef_": Array("float64", ("machines", "features")),
            "intercept_": Array("float64", ("machines",)),
            "objective_": Array("float64", ("machines",)),
        },
    )

    def __init__(
        self,
        *,
        C: float | None = None,
        epsilon: float = 0.0,
        smallest: float | None = None,
        max_iter: int = 1000,
        classes: Any = None,
    ):
        self.C = C
        self.epsilon = epsilon
        self.smallest = smallest
        self.max_iter = max_iter
        self.classes = classes

    def _fit(self, X, codes, bags, groups, random_state):
        kept = slice(1, None) if len(self.classes_) == 2 else slice(None)
        means, lower = X.astype(np.float64), np.eye(len(self.classes_))[codes][:, kept]
        upper, weights, joined = lower, np.ones(len(X)), X
        if bags is not None:
            refuse_weak_records(bags.record, "InverseCalibrationClassifier")
            instances = np.asarray(bags.X)
            sums = np.zeros((bags.n_bags, X.shape[1]))
            np.add.at(sums, bags.index, instances)
            means = np.concatenate([means, sums / bags.sizes[:, np.newaxis]])
            lower = np.concatenate([lower, bags.lower[:, kept]])
            upper = np.concatenate([upper, bags.upper[:, kept]])
            weights = np.concatenate([weights, bags.weights])
            joined = np.concatenate([X, instances])
        self.C_ = 10 * inverse_mean_square(joined) if self.C is None else self.C
        self.smallest_ = 1 / max(3, len(joined)) if self.smallest is None else self.smallest
        low, high = free_intervals(lower, upper, self.smallest_, self.epsilon)
        found = fit_regressions(means, low, high, self.C_ * weights, self.max_iter)
        self.objective_, self.n_iter_ = found[1], found[2]
        self.coef_, self.intercept_ = np.ascontiguousarray(found[0][:-1].T), found[0][-1].copy()


def free_intervals(
    lower: np.ndarray, upper: np.ndarray, smallest: float, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the logits that cost nothing.

    Parameters
    ----------
    lower, upper : ndarray of shape (n_bags, n_machines)
        Intervals of the recorded proportions.
    smallest : float in (0, 0.5)
    epsilon : float

    Returns
    -------
    low, high : ndarray of shape (n_bags, n_machines)
        Infinite where an interval of several proportions reaches 0 or 1.

    Examples
    --------
    >>> free_intervals(np.array([[0.0]]), np.array([[0.5]]), 0.1, 0.25)[1]  # 0.25 / (0.5 * 0.5) beyond
    array([[1.]])
    """
    is_wide = lower < upper
    lower, upper = (np.clip(end, smallest, 1 - smallest) for end in (lower, upper))
    low = -np.log(1 / lower - 1) - epsilon / (lower * (1 - lower))
    high = -np.log(1 / upper - 1) + epsilon / (upper * (1 - upper))
    low = np.where(is_wide & (lower <= smallest), -np.inf, low)
    high = np.where(is_wide & (upper >= 1 - smallest), np.inf, high)
    return low, high


def fit_regressions(
    X: np.ndarray, low: np.ndarray, high: np.ndarray, costs: np.ndarray, max_iter: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights of linear regressions whose values should lie in intervals.

    Parameters
    ----------
    X : ndarray of shape (n_bags, n_features)
    low, high : ndarray of shape (n_bags, n_machines)
        Values between cost nothing, others their distance times the cost.
    costs : ndarray of shape (n_bags,)
    max_iter : int

    Returns
    -------
    weights : ndarray of shape (n_features + 1, n_machines)
        The last row is the intercept, which is not regularized.
    objectives : ndarray of shape (n_machines,)
    n_iter : int
        Steps of all fits.
    """
    # all that matters of the features lies in the span of the bags, which are often fewer
    span = np.linalg.qr(X.T)[0] if len(X) < X.shape[1] else np.eye(X.shape[1])
    inner, costs = X @ span, costs[:, np.newaxis]
    shape = (inner.shape[1] + 1, low.shape[1])

    def objectives(weights, width):
        values = inner @ weights[:-1] + weights[-1]
        missed = np.maximum(values - high, 0) - np.maximum(low - values, 0)
        rounded = np.minimum(np.abs(missed), width)
        losses = rounded**2 / (2 * width) + np.abs(missed) - rounded
        slope = costs * np.clip(missed / width, -1, 1)
        gradient = np.vstack([weights[:-1] + inner.T @ slope, slope.sum(axis=0)])
        return (weights[:-1] ** 2).sum(axis=0) / 2 + (costs * losses).sum(axis=0), gradient

    def total(flat, width):
        value, gradient = objectives(flat.reshape(shape), width)
        return value.sum(), gradient.ravel()

    found, n_iter = np.zeros(shape).ravel(), 0
    options = {"ftol": 1e-12, "gtol": 1e-9, "maxiter": max_iter, "maxcor": 20}
    for width in ROUNDED:
        result = minimize(total, found, args=(width,), jac=True, method="L-BFGS-B", options=options)
        found, n_iter = result.x, n_iter + int(result.nit)
    inner_weights = found.reshape(shape)
    weights = np.vstack([span @ inner_weights[:-1], inner_weights[-1:]])
    return weights, objectives(inner_weights, ROUNDED[-1])[0], n_iter
