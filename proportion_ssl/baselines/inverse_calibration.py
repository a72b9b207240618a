"""Inverse calibration: regression of the logits of bag proportions on bag means."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize

from proportion_ssl._kept import Array
from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._linear import LinearMachines, inverse_mean_square
from proportion_ssl.estimators._base import BagClassifier
from proportion_ssl.proportions.weak_records import refuse_weak_records

#: Widths, in logits, over which the corner of the loss is smoothed in successive fits.
ROUNDED = (1.0, 0.1, 0.01, 0.001)


class InverseCalibrationClassifier(LinearMachines):
    """Support vector regression of the logits of bag proportions on bag means (inverse calibration).

    One machine per class against the rest. A labeled instance is a bag of size one with proportions 0
    and 1. Features should be standardized.

    Parameters
    ----------
    C : float, default=None
        Weight of the loss of a bag. Default: ten divided by the mean squared distance of the instances from
        their mean.
    epsilon : float, default=0.0
        Half-width of the interval of proportions without loss; in logits ``epsilon / (p (1 - p))``.
    smallest : float in (0, 0.5), default=None
        Proportions are clipped to [smallest, 1 - smallest], because 0 and 1 have no finite logits.
        Default: one divided by the total number of instances.
    max_iter : int, default=1000
        Maximum number of steps of each fit.
    classes : array-like of shape (n_classes,), default=None
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (n_machines, n_features)
        One machine per class; with two classes, one for the second class.
    intercept_ : ndarray of shape (n_machines,)
    objective_ : ndarray of shape (n_machines,)
        Final objective of each machine.
    C_, smallest_ : float
        Values used for ``C`` and ``smallest``.
    n_iter_ : int
        Total number of steps.
    n_features_in_ : int
    SOURCE_SETTINGS : dict
        Settings used by Yu et al. [2]_: proportions clipped at one divided by the number of instances, no
        interval.

    Notes
    -----
    Rueping's inverse calibration [1]_ with a linear kernel: minimizes
    ``|w|^2 / 2 + C sum_b max(0, |w xbar_b + b - y_b| - epsilon_b)`` with ``y_b = -log(1 / p_b - 1)`` and
    ``epsilon_b = epsilon / (p_b (1 - p_b))``. Bags are weighted by their weight, not by their size. If a
    proportion is an interval, values between the logits of its ends have no loss. The corner of the loss is
    smoothed over 0.001 logits. The paper has no labeled instances; treating them as bags of size one follows
    from its formula. The interval is wide for p near 0 or 1: with n instances, ``epsilon`` must be well
    below ``log(n) / n`` for labeled instances to have an effect.

    There is no ``predict_proba``, because the logits apply to means of bags, not to single instances.

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

    random_state = None  # required by the base class; nothing is random

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
    """Intervals of the logits without loss.

    Parameters
    ----------
    lower, upper : ndarray of shape (n_bags, n_machines)
        Intervals of the recorded proportions.
    smallest : float in (0, 0.5)
    epsilon : float

    Returns
    -------
    low, high : ndarray of shape (n_bags, n_machines)
        Infinite where an interval of non-zero width reaches 0 or 1.

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
    """Fit linear regressions whose values should lie in intervals.

    Parameters
    ----------
    X : ndarray of shape (n_bags, n_features)
    low, high : ndarray of shape (n_bags, n_machines)
        Values in between have no loss; others have their distance times the weight as loss.
    costs : ndarray of shape (n_bags,)
        Weight of the loss of each bag.
    max_iter : int

    Returns
    -------
    weights : ndarray of shape (n_features + 1, n_machines)
        The last row is the intercept, which is not regularized.
    objectives : ndarray of shape (n_machines,)
    n_iter : int
        Total number of steps.
    """
    # along these axes the curvature of the loss is about the same, so L-BFGS needs far fewer steps;
    # they span the bag means, outside of which the solution is zero
    total_cost = costs.sum()
    costs = costs[:, np.newaxis] / total_cost  # tolerances are absolute
    center = (costs * X).sum(axis=0)
    _, lengths, axes = np.linalg.svd(np.sqrt(costs) * (X - center), full_matrices=False)
    axes = axes.T / np.sqrt(1 / total_cost + lengths**2)
    inner, norms = (X - center) @ axes, 1 / (1 + total_cost * lengths[:, np.newaxis] ** 2)
    shape = (inner.shape[1] + 1, low.shape[1])

    def objectives(weights, width):
        values = inner @ weights[:-1] + weights[-1]
        missed = np.maximum(values - high, 0) - np.maximum(low - values, 0)
        rounded = np.minimum(np.abs(missed), width)
        losses = rounded**2 / (2 * width) + np.abs(missed) - rounded
        slope = costs * np.clip(missed / width, -1, 1)
        regularized = norms * weights[:-1]
        gradient = np.vstack([regularized + inner.T @ slope, slope.sum(axis=0)])
        return (regularized * weights[:-1]).sum(axis=0) / 2 + (costs * losses).sum(axis=0), gradient

    def total(flat, width):
        value, gradient = objectives(flat.reshape(shape), width)
        return value.sum(), gradient.ravel()

    found, n_iter = np.zeros(shape).ravel(), 0
    options = {"ftol": 1e-12, "gtol": 1e-9, "maxiter": max_iter, "maxcor": 20}
    for width in ROUNDED:
        result = minimize(total, found, args=(width,), jac=True, method="L-BFGS-B", options=options)
        found, n_iter = result.x, n_iter + int(result.nit)
    inner_weights = found.reshape(shape)
    coef = axes @ inner_weights[:-1]
    weights = np.vstack([coef, inner_weights[-1:] - center @ coef])
    return weights, total_cost * objectives(inner_weights, ROUNDED[-1])[0], n_iter
