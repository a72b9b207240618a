"""Multinomial logistic regression on soft labels."""

from numbers import Real
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from proportion_ssl._sklearn import Interval
from proportion_ssl.heads._base import SoftLabelHead
from proportion_ssl.heads._discriminant import ABSENT

#: Most steps of the solver.
MAX_ITER = 200


class SoftLogisticRegression(SoftLabelHead):
    """Multinomial logistic regression on labels or soft labels, classes balanced, solved by L-BFGS.

    A classifier of features by itself, and a head of
    :class:`~proportion_ssl.NegativePseudoLabelClassifier` in place of a net.

    Parameters
    ----------
    ridge : float, default=0.01
        Half of it times the sum of the squared weights is added to the mean cross-entropy. Weights are
        those of principal components of standardized features.
    n_components : int, default=None
        As in :class:`DiscriminantClassifier`.
    temperature : float, default=None
        As in :class:`DiscriminantClassifier`.
    random_state : int, RandomState instance or None, default=None
        As in :class:`DiscriminantClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of float64, shape (n_classes, n_features)
    intercept_ : ndarray of float64, shape (n_classes,)
    temperature_ : float
        What the logits were divided by; ``coef_`` and ``intercept_`` contain it.
    n_features_in_ : int

    Notes
    -----
    Minimizes ``sum_c 1/C sum_i w_ic / sum_j w_jc * -log f_c(x_i) + ridge / 2 |W|^2`` with w the soft
    labels and f the softmax of a linear map: classes count the same, however many labels each has.

    Examples
    --------
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, random_state=0)
    >>> clf = SoftLogisticRegression().fit(data.X_labeled, data.y, groups=data.groups)
    >>> bool(clf.score(data.X_test, data.y_test) > 0.7)
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **SoftLabelHead._parameter_constraints,
        "ridge": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        ridge: float = 0.01,
        *,
        n_components: int | None = None,
        temperature: float | None = None,
        random_state: Any = None,
    ):
        self.ridge = ridge
        self.n_components = n_components
        self.temperature = temperature
        self.random_state = random_state

    def solve(
        self, X: np.ndarray, labels: np.ndarray, groups: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        return soft_logistic_regression(X, labels, self.ridge)


def soft_logistic_regression(
    X: np.ndarray, labels: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weights that minimize the class-balanced cross-entropy of soft labels.

    Parameters
    ----------
    X : ndarray of float, shape (n_instances, n_features)
    labels : ndarray of float, shape (n_instances, n_classes)
        Share of each instance in each class, times the weight of the instance; not negative.
    ridge : float

    Returns
    -------
    coef : ndarray of float64, shape (n_features, n_classes)
    intercept : ndarray of float64, shape (n_classes,)

    Notes
    -----
    As in :class:`SoftLogisticRegression`. A class without labels gets a probability of 0.
    """
    sums = labels.sum(axis=0)
    present = np.flatnonzero(sums)
    rows = np.flatnonzero(labels.any(axis=1))
    weights = (labels[rows][:, present] / sums[present] / len(present)).astype(np.float64)
    X = X[rows]
    of_instance = weights.sum(axis=1, keepdims=True)
    n_features, n_classes = X.shape[1], len(present)

    def loss(parameters):
        coef = parameters[:-n_classes].reshape(n_features, n_classes)
        logits = (X @ coef.astype(X.dtype)).astype(np.float64) + parameters[-n_classes:]
        log_f = logits - logsumexp(logits, axis=1, keepdims=True)
        slopes = of_instance * np.exp(log_f) - weights
        gradient = (X.T @ slopes.astype(X.dtype)).astype(np.float64) + ridge * coef
        value = 0.5 * ridge * float((coef**2).sum()) - float((weights * log_f).sum())
        return value, np.concatenate([gradient.ravel(), slopes.sum(axis=0)])

    start = np.zeros((n_features + 1) * n_classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_ITER}).x
    coef = np.zeros((n_features, labels.shape[1]))
    coef[:, present] = found[:-n_classes].reshape(n_features, n_classes)
    intercept = np.full(labels.shape[1], ABSENT)
    intercept[present] = found[-n_classes:]
    return coef, intercept
