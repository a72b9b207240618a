"""Mean map: class means solved from bag means, and logistic regression on these means."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._kept import Array
from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._linear import FeaturesOnly, inverse_mean_square
from proportion_ssl.estimators._base import BagClassifier, ProbabilisticBagClassifier
from proportion_ssl.estimators._class_means import class_means
from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.intervals import consistent_proportions
from proportion_ssl.proportions.weak_records import refuse_weak_records


class MeanMapClassifier(FeaturesOnly, ProbabilisticBagClassifier):
    """Logistic regression that needs of the bags only their means and proportions.

    The mean of a bag is the mix of the class means by its proportions. So many bags give the class
    means by least squares, and multinomial logistic regression needs no more of the labels than the
    sums of the instances of each class. Features should be standardized.

    Parameters
    ----------
    C : float, default=None
        Inverse strength of the regularization, as in :class:`sklearn.linear_model.LogisticRegression`.
        Default: ten times one over the mean squared distance of the instances to their mean; a hundredth
        of that with bags, whose class means are estimates.
    tol : float, default=1e-4
        Training ends when no partial derivative of the mean loss is larger.
    max_iter : int, default=1000
    classes : array-like of shape (n_classes,), default=None
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    class_means_ : ndarray of shape (n_classes, n_features)
        Without bags, means of the labeled instances; NaN for a class that has none.
    coef_ : ndarray of shape (n_classes, n_features)
    intercept_ : ndarray of shape (n_classes,)
    C_ : float
        What ``C`` was.
    n_iter_ : int
    n_features_in_ : int

    Notes
    -----
    Mean map of Quadrianto et al. [1]_ with a linear kernel. The labeled instances of each class enter
    the least squares as a bag of this class alone, so that proportions which cannot tell the classes apart
    still have a solution; in it every bag counts by its number of instances times its weight. Recorded
    intervals are not used, only the proportions themselves. In the regression the labeled instances enter
    with their labels, and all instances in the normalizing term, those of a bag with its weight.

    All instances of a class are taken to have the same distribution in every bag. Slides that are stained
    differently break this, and the class means with it. (The Laplacian mean map of Patrini et al. [2]_,
    with class means of each bag that are alike in similar bags, was tried on stained slides and was not
    better.) Without bags this is plain logistic regression, with an intercept that is not regularized.

    References
    ----------
    .. [1] Quadrianto, Smola, Caetano, Le. "Estimating Labels from Label Proportions". JMLR 10, 2009.
    .. [2] Patrini, Nock, Rivera, Caetano. "(Almost) No Label No Cry". NeurIPS 2014.

    Examples
    --------
    >>> from proportion_ssl.baselines import MeanMapClassifier
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, random_state=0)
    >>> clf = MeanMapClassifier().fit(data.X_labeled, data.y, data.bags)
    >>> clf.predict(data.X_test).shape == data.y_test.shape
    True
    """

    random_state = None  # of the base; nothing here is drawn

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **BagClassifier._parameter_constraints,
        "C": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    _kept = FeaturesOnly._kept.extended(
        always={"C_": (float, int), "n_iter_": (int,)},
        arrays={
            "class_means_": Array("float64", ("classes", "features"), finite=False),
            "coef_": Array("float64", ("classes", "features")),
            "intercept_": Array("float64", ("classes",)),
        },
    )

    def __init__(
        self,
        *,
        C: float | None = None,
        tol: float = 1e-4,
        max_iter: int = 1000,
        classes: Any = None,
    ):
        self.C = C
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def _fit(self, X, codes, bags, groups, random_state):
        X = X.astype(np.float64)
        signed = np.eye(len(self.classes_))[codes]
        counts, sums, weights = signed.sum(axis=0), signed.T @ X, np.ones(len(X))
        if bags is None:
            with np.errstate(invalid="ignore"):  # NaN for a class of `classes` that nothing shows
                self.class_means_ = sums / counts[:, np.newaxis]
        else:
            instances = np.asarray(bags.X, dtype=np.float64)
            self.class_means_ = class_means(
                X, codes, instances, bags.index, _shares(bags), bags.weights
            )
            in_bags = (bags.weights * bags.sizes) @ _shares(bags)
            counts = counts + in_bags
            sums = sums + in_bags[:, np.newaxis] * self.class_means_
            X = np.concatenate([X, instances])
            weights = np.concatenate([weights, bags.weights[bags.index]])
        self.C_: Any = self.C
        if self.C is None:
            self.C_ = inverse_mean_square(X) * (10.0 if bags is None else 0.1)
        self._fit_exponential_family(X, weights, counts, sums)

    def _fit_exponential_family(self, X, weights, counts, sums):
        """Maximize the likelihood, which knows the labels by counts and sums of the classes only."""
        n_classes, n_features = sums.shape
        statistic = np.column_stack([sums, counts])
        total = weights.sum()

        def loss(flat):
            theta = flat.reshape(n_classes, n_features + 1)
            logits = X @ theta[:, :-1].T + theta[:, -1]
            normalizer = weights @ logsumexp(logits, axis=1)
            penalty = (theta[:, :-1] ** 2).sum() / (2 * self.C_)
            expected = softmax(logits, axis=1) * weights[:, np.newaxis]
            gradient = np.column_stack([expected.T @ X, expected.sum(axis=0)]) - statistic
            gradient[:, :-1] += theta[:, :-1] / self.C_
            value = normalizer - (theta * statistic).sum() + penalty
            return value / total, gradient.ravel() / total

        start = np.zeros(statistic.size)
        options = {"maxiter": self.max_iter, "gtol": self.tol, "ftol": 64 * np.finfo(float).eps}
        result = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
        theta = result.x.reshape(n_classes, n_features + 1)
        self.coef_, self.intercept_ = theta[:, :-1].copy(), theta[:, -1].copy()
        self.n_iter_ = int(result.nit)

    def _probabilities(self, X: Any) -> np.ndarray:
        return np.exp(self._log_probabilities(X))

    def _log_probabilities(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = np.asarray(self._check_instances(X), dtype=np.float64)
        return log_softmax(X @ self.coef_.T + self.intercept_, axis=1)


def _shares(bags: Bags) -> np.ndarray:
    """Recorded proportions, freed of the rounding that lets a row miss 1."""
    refuse_weak_records(bags.record, "MeanMapClassifier")
    return consistent_proportions(bags.proportions, bags.lower, bags.upper)
