"""NP-SVM: alternate between fitting a plane per class and labeling the bags."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._kept import Array
from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._linear import LinearMachines, frame_of, inverse_mean_square
from proportion_ssl.baselines._svm_steps import scores_of
from proportion_ssl.estimators._base import BagClassifier
from proportion_ssl.proportions.weak_records import refuse_weak_records
from proportion_ssl.pseudo_labels.exact_assignment import assign, count_bounds


class NonparallelSVMClassifier(LinearMachines):
    """Nonparallel support vector machine for bags with recorded counts (LLP-NPSVM).

    Each class has a plane that is close to its own instances and at a distance of at least 1, on one side,
    from all others. An instance is assigned to the class with the nearest plane. The fit alternates between
    fitting the planes to the labels and giving each bag the labels with the smallest loss among those with
    the recorded counts. Features should be standardized.

    Parameters
    ----------
    C_own : float, default=None
        Weight of the loss for the distance of an instance from the plane of its class beyond ``epsilon``.
        Default: inverse of the mean squared distance of the instances from their mean.
    C_other : float, default=None
        Weight of the loss for instances closer than 1 to the plane of another class, or on its wrong side.
        Default: as ``C_own``.
    epsilon : float, default=0.1
        Distance from the own plane without loss, in units of the margin.
    tol : float, default=1e-4
        Stop when the relative decrease of the objective is smaller.
    max_iter : int, default=50
        Maximum number of alternations.
    classes : array-like of shape (n_classes,), default=None
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (n_classes, n_features)
        One plane per class, also with two classes.
    intercept_ : ndarray of shape (n_classes,)
    bag_labels_ : ndarray of int64, shape (n_bag_instances,)
        Class indices. Only with bags.
    history_ : list of dict
        ``objective`` after each alternation; it never increases.
    n_iter_ : int
        Number of alternations; 1 without bags.
    C_own_, C_other_ : float
        Values used for ``C_own`` and ``C_other``.
    n_features_in_ : int

    Notes
    -----
    Follows Qi et al. [1]_ with a linear kernel: minimizes over planes and labels y of the bags
    ``sum_c |w_c|^2 / 2 + C_own sum_i max(0, |f_yi(x_i)| - epsilon)^2
    + C_other sum_i sum_{c != yi} max(0, 1 + f_c(x_i))^2`` with ``f_c(x) = w_c x + b_c``. The paper has two
    classes; with one plane per class, this generalizes to more. The losses are squared, so that each fit can
    start from the last planes. The labels of a bag minimize the same objective exactly, by assignment. The
    paper starts from random labels; here the planes of the labeled instances give the initial labels. If a
    proportion is an interval, any count within it is allowed.

    There is no ``predict_proba``, because distances are not probabilities.

    References
    ----------
    .. [1] Qi, Wang, Meng, Niu. "Learning with Label Proportions via NPSVM". IEEE Transactions on Cybernetics
       47, 2017.

    Examples
    --------
    >>> from proportion_ssl.baselines import NonparallelSVMClassifier
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, random_state=0)
    >>> clf = NonparallelSVMClassifier().fit(data.X_labeled, data.y, data.bags)
    >>> clf.predict(data.X_test).shape == data.y_test.shape
    True
    """

    random_state = None  # required by the base class; nothing is random

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **BagClassifier._parameter_constraints,
        "C_own": [Interval(Real, 0, None, closed="neither"), None],
        "C_other": [Interval(Real, 0, None, closed="neither"), None],
        "epsilon": [Interval(Real, 0, 1, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    _kept = LinearMachines._kept.extended(
        always={
            "C_own_": (float, int),
            "C_other_": (float, int),
            "history_": (list,),
            "n_iter_": (int,),
        },
        arrays={
            "coef_": Array("float64", ("classes", "features")),
            "intercept_": Array("float64", ("classes",)),
            "bag_labels_": Array("int64", (None,), always=False),
        },
    )

    def __init__(
        self,
        *,
        C_own: float | None = None,
        C_other: float | None = None,
        epsilon: float = 0.1,
        tol: float = 1e-4,
        max_iter: int = 50,
        classes: Any = None,
    ):
        self.C_own = C_own
        self.C_other = C_other
        self.epsilon = epsilon
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def decision_function(self, X: Any) -> np.ndarray:
        """Compute negative distances from the planes; the largest belongs to the nearest plane.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features)

        Returns
        -------
        scores : ndarray of shape (n_instances, n_classes), or (n_instances,) if there are two classes
            With two classes, the difference of the two distances; above 0 means the second class.

        Raises
        ------
        ValueError
            If X does not have the shape or the feature names seen in ``fit``.
        """
        check_is_fitted(self)
        X = np.asarray(self._check_instances(X), dtype=np.float64)
        values = X @ self.coef_.T + self.intercept_
        lengths = np.linalg.norm(self.coef_, axis=1)
        # a plane with zero normal vector is infinitely far away
        distances = np.divide(
            np.abs(values), lengths, out=np.full_like(values, 1e300), where=lengths > 0
        )
        return distances[:, 0] - distances[:, 1] if len(self.classes_) == 2 else -distances

    def _fit(self, X, codes, bags, groups, random_state):
        n_classes = len(self.classes_)
        joined = X if bags is None else np.concatenate([X, np.asarray(bags.X)])
        self.C_own_ = inverse_mean_square(joined) if self.C_own is None else self.C_own
        self.C_other_ = self.C_own_ if self.C_other is None else self.C_other
        origin, unit = frame_of(joined)
        X, joined = (X - origin) / unit, (joined - origin) / unit
        settings = (self.C_own_ * unit**2, self.C_other_ * unit**2, self.epsilon)
        start = np.zeros((X.shape[1] + 1, n_classes))
        planes = fit_planes(X, codes, np.ones(len(X)), start, settings, 1e-9)
        self.history_: list[dict] = []
        if bags is None:
            objective = objective_of(planes, X, codes, 1.0, settings)
            self.history_.append({"objective": objective / unit**2})
        else:
            refuse_weak_records(bags.record, "NonparallelSVMClassifier")
            weights = np.concatenate([np.ones(len(X)), bags.weights[bags.index]])
            bounds = count_bounds(bags.lower, bags.upper, bags.sizes)
            last = np.inf
            for _ in range(self.max_iter):
                costs = label_costs(scores_of(joined[len(X) :], planes), settings)
                self.bag_labels_ = assign(-costs, bags.index, *bounds)
                labels = np.concatenate([codes, self.bag_labels_])
                planes = fit_planes(joined, labels, weights, planes, settings, self.tol / 10)
                objective = objective_of(planes, joined, labels, weights, settings)
                self.history_.append({"objective": objective / unit**2})
                if last - objective <= self.tol * objective:
                    break
                last = objective
        self.coef_ = np.ascontiguousarray(planes[:-1].T) / unit
        self.intercept_ = planes[-1] - self.coef_ @ origin.astype(np.float64)
        self.n_iter_ = len(self.history_)


def label_costs(scores: np.ndarray, settings: tuple[float, float, float]) -> np.ndarray:
    """Loss of each possible label of each instance.

    Parameters
    ----------
    scores : ndarray of shape (n_instances, n_classes)
        Values of the planes.
    settings : tuple of float
        ``C_own``, ``C_other`` and ``epsilon``.

    Returns
    -------
    costs : ndarray of shape (n_instances, n_classes)
    """
    C_own, C_other, epsilon = settings
    own = C_own * np.maximum(0.0, np.abs(scores) - epsilon) ** 2
    other = C_other * np.maximum(0.0, 1.0 + scores) ** 2
    return own + other.sum(axis=1, keepdims=True) - other


def objective_of(
    planes: np.ndarray,
    X: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | float,
    settings: tuple[float, float, float],
) -> float:
    """Regularizer and losses of all planes together."""
    costs = label_costs(scores_of(X, planes), settings)[np.arange(len(X)), labels]
    return float((planes[:-1] ** 2).sum() / 2 + (weights * costs).sum())


def fit_planes(
    X: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    settings: tuple[float, float, float],
    tol: float,
) -> np.ndarray:
    """Fit planes close to the instances of their class and at a distance of 1 from the others.

    Parameters
    ----------
    X : ndarray of shape (n_instances, n_features)
    labels : ndarray of int, shape (n_instances,)
    weights : ndarray of shape (n_instances,)
    start : ndarray of shape (n_features + 1, n_classes)
        Initial planes; the last row is the intercept, which is not regularized.
    settings : tuple of float
        ``C_own``, ``C_other`` and ``epsilon``.
    tol : float
        Stop when the relative decrease of the objective in a step is smaller.

    Returns
    -------
    planes : ndarray of shape (n_features + 1, n_classes)
    """
    C_own, C_other, epsilon = settings
    is_own = labels[:, np.newaxis] == np.arange(start.shape[1])
    costs = weights[:, np.newaxis] * np.where(is_own, C_own, C_other)

    def objective(flat):
        planes = flat.reshape(start.shape)
        values = scores_of(X, planes)
        beyond = np.sign(values) * np.maximum(0.0, np.abs(values) - epsilon)
        missed = np.where(is_own, beyond, np.maximum(0.0, 1.0 + values))
        slope = 2.0 * costs * missed
        gradient = np.vstack([planes[:-1] + X.T @ slope.astype(X.dtype), slope.sum(axis=0)])
        return (planes[:-1] ** 2).sum() / 2 + (costs * missed**2).sum(), gradient.ravel()

    options = {"ftol": tol, "gtol": 1e-10, "maxiter": 1000}
    result = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return result.x.reshape(start.shape)
