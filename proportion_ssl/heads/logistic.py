"""Multinomial logistic regression on soft labels."""

from numbers import Real
from typing import Any

import numpy as np

from proportion_ssl._sklearn import Interval
from proportion_ssl.heads._base import SoftLabelHead
from proportion_ssl.heads._logistic import soft_logistic_regression


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
    Solved by a preconditioned L-BFGS until no entry of the gradient is above 3e-5; a
    ``ConvergenceWarning`` says so if that is not reached.

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

    def solve_from(
        self,
        start: tuple[np.ndarray, np.ndarray],
        X: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        return soft_logistic_regression(X, labels, self.ridge, start=start)
