"""Mean map: class means estimated from bag means, and logistic regression with these means."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._kept import Array
from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._laplacian_means import class_means_by_bag, similarities
from proportion_ssl.baselines._linear import FeaturesOnly, frame_of, inverse_mean_square
from proportion_ssl.estimators._base import BagClassifier, ProbabilisticBagClassifier
from proportion_ssl.estimators._class_means import class_means
from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.intervals import consistent_proportions
from proportion_ssl.proportions.weak_records import refuse_weak_records
from proportion_ssl.pseudo_labels.exact_assignment import assign, count_bounds

#: Relative decrease of the loss below which the alternating mean map stops, and maximum number of rounds.
SMALLEST_GAIN, MOST_ROUNDS = 1e-5, 50


class MeanMapClassifier(FeaturesOnly, ProbabilisticBagClassifier):
    """Logistic regression from the means and proportions of bags (mean map).

    The mean of a bag is the average of the class means, weighted by its proportions. Class means are
    therefore estimated from several bags by least squares. Multinomial logistic regression depends on the
    labels only through the sums of the instances of each class. Features should be standardized.

    Parameters
    ----------
    C : float, default=None
        Inverse strength of the regularization, as in :class:`sklearn.linear_model.LogisticRegression`.
        Default: ten divided by the mean squared distance of the instances from their mean; with bags a
        hundredth of that, because class means are only estimates.
    laplacian : float, default=None
        None: class means are the same in all bags (mean map). A number: each bag has its own class means, and
        this is the weight of the differences between similar bags (Laplacian mean map).
    alternating : bool, default=False
        Whether to alternate between labeling the bag instances with the recorded counts and refitting to
        these labels until convergence (alternating mean map).
    tol : float, default=1e-4
        Stop when no partial derivative of the mean loss is larger in absolute value, with features divided by
        a power of two near the root of their mean variance.
    max_iter : int, default=1000
        Maximum number of steps of each fit.
    classes : array-like of shape (n_classes,), default=None
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    class_means_ : ndarray of shape (n_classes, n_features)
        Estimated class means. Without bags: means of the labeled instances, NaN for a class without any.
        With ``laplacian``: mean over the bags, weighted by the number of instances of the class.
    coef_ : ndarray of shape (n_classes, n_features)
    intercept_ : ndarray of shape (n_classes,)
    C_ : float
        Value used for ``C``.
    n_iter_ : int
        Number of steps of the last fit.
    losses_ : list of float
        Mean loss after the first fit and, with ``alternating``, after the fit of each round.
    bag_labels_ : ndarray of int64, shape (n_bag_instances,)
        Class indices of the last round. Only with bags and ``alternating``.
    n_features_in_ : int
    SOURCE_SETTINGS : dict
        Settings of Patrini et al.: alternating mean map, initialized with the Laplacian mean map with gamma
        0.01, as in the demonstration of their program.

    Notes
    -----
    Mean map of Quadrianto et al. [1]_ with a linear kernel. In the least squares, the labeled instances of
    each class form a bag of this class only, so a solution exists even if the proportions do not distinguish
    all classes. Each bag is weighted by its number of instances times its weight. Recorded intervals are not
    used, only the proportions. In the regression, labeled instances are used with their labels, and all
    instances in the normalizing term, those of a bag with its weight.

    The plain mean map assumes that the instances of a class have the same distribution in every bag.
    Differences in stain between slides violate this. The Laplacian mean map [2]_ estimates separate class
    means for each bag. The similarity of two bags is ``exp(-|difference of their means| / sigma)``, where
    sigma is the median distance of two bags; the paper chooses it by cross-validation. The alternating mean
    map [2]_ ("min") uses class means only for initialization; if a proportion is an interval, any count
    within it is allowed. The paper considers two classes; here any number is supported.

    Without bags this is plain logistic regression with an unregularized intercept.

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

    random_state = None  # required by the base class; nothing is random

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **BagClassifier._parameter_constraints,
        "C": [Interval(Real, 0, None, closed="neither"), None],
        "laplacian": [Interval(Real, 0, None, closed="neither"), None],
        "alternating": ["boolean"],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {"laplacian": 0.01, "alternating": True}

    _kept = FeaturesOnly._kept.extended(
        always={"C_": (float, int), "n_iter_": (int,)},
        sometimes={"losses_": (list,)},  # missing in files of earlier versions
        arrays={
            "class_means_": Array("float64", ("classes", "features"), finite=False),
            "coef_": Array("float64", ("classes", "features")),
            "intercept_": Array("float64", ("classes",)),
            "bag_labels_": Array("int64", (None,), always=False),
        },
    )

    def __init__(
        self,
        *,
        C: float | None = None,
        laplacian: float | None = None,
        alternating: bool = False,
        tol: float = 1e-4,
        max_iter: int = 1000,
        classes: Any = None,
    ):
        self.C = C
        self.laplacian = laplacian
        self.alternating = alternating
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes

    def _fit(self, X, codes, bags, groups, random_state):
        X = X.astype(np.float64)
        signed = np.eye(len(self.classes_))[codes]
        counts, sums = signed.sum(axis=0), signed.T @ X
        labeled, weights = np.column_stack([sums, counts]), np.ones(len(X))
        statistic = labeled
        if bags is None:
            with np.errstate(invalid="ignore"):  # NaN for a class without instances
                self.class_means_ = sums / counts[:, np.newaxis]
        else:
            instances = np.asarray(bags.X, dtype=np.float64)
            statistic = labeled + self._expected_in_bags(X, codes, instances, bags)
            X = np.concatenate([X, instances])
            weights = np.concatenate([weights, bags.weights[bags.index]])
        self.C_: Any = self.C
        if self.C is None:
            self.C_ = inverse_mean_square(X) * (10.0 if bags is None else 0.1)
        theta, frame = np.zeros_like(statistic), frame_of(X)
        X = (X - frame[0]) / frame[1]
        theta, loss, self.n_iter_ = self._fit_exponential_family(
            X, weights, statistic, theta, *frame
        )
        self.losses_ = [loss]
        if bags is not None and self.alternating:
            bounds = count_bounds(bags.lower, bags.upper, bags.sizes)
            extended = np.column_stack([instances, np.ones(len(instances))])
            of_bag = bags.weights[bags.index][:, np.newaxis]
            for _ in range(MOST_ROUNDS):
                self.bag_labels_ = assign(extended @ theta.T, bags.index, *bounds)
                given = np.eye(len(self.classes_))[self.bag_labels_] * of_bag
                statistic = labeled + given.T @ extended
                theta, loss, self.n_iter_ = self._fit_exponential_family(
                    X, weights, statistic, theta, *frame
                )
                self.losses_.append(loss)
                of_labels = self.losses_[1:]  # the first loss is for class means, not labels
                if len(of_labels) > 1 and of_labels[-2] - loss <= SMALLEST_GAIN * abs(loss):
                    break
        self.coef_, self.intercept_ = theta[:, :-1].copy(), theta[:, -1].copy()

    def _expected_in_bags(self, X, codes, instances, bags):
        """Expected sums and counts of the classes in the bags, shape (n_classes, n_features + 1)."""
        shares, n_classes = _shares(bags), len(self.classes_)
        in_bags = (bags.weights * bags.sizes)[:, np.newaxis] * shares
        counts = in_bags.sum(axis=0)
        if self.laplacian is None:
            found = class_means(X, codes, instances, bags.index, shares, bags.weights)
            self.class_means_ = found.means
            return np.column_stack([counts[:, np.newaxis] * self.class_means_, counts])
        present = np.unique(codes)
        labeled = np.stack([X[codes == code].mean(axis=0) for code in present])
        means = np.zeros((bags.n_bags, X.shape[1]))
        np.add.at(means, bags.index, instances)
        means = np.concatenate([labeled, means / bags.sizes[:, np.newaxis]])
        by_bag = class_means_by_bag(
            means,
            np.concatenate([np.eye(n_classes)[present], shares]),
            np.concatenate([np.bincount(codes)[present], bags.weights * bags.sizes]),
            similarities(means),
            self.laplacian,
        )[len(present) :]
        sums = np.einsum("bc,bcf->cf", in_bags, by_bag)
        absent = counts == 0
        self.class_means_ = sums / np.where(absent, 1, counts)[:, np.newaxis]
        self.class_means_[absent] = by_bag[:, absent].mean(axis=0)
        return np.column_stack([sums, counts])

    def _fit_exponential_family(self, X, weights, statistic, start, origin, unit):
        """Maximize the likelihood, which depends on labels only through sums and counts of the classes.

        ``X`` has this origin and unit; ``statistic`` and ``start`` are those of the features as given.
        """
        total, C = weights.sum(), self.C_ * unit**2
        sums, counts = statistic[:, :-1], statistic[:, -1:]
        statistic = np.hstack([(sums - counts * origin) / unit, counts])
        start = np.hstack(
            [start[:, :-1] * unit, start[:, -1:] + start[:, :-1] @ origin[:, np.newaxis]]
        )

        def loss(flat):
            theta = flat.reshape(statistic.shape)
            logits = X @ theta[:, :-1].T + theta[:, -1]
            normalizer = weights @ logsumexp(logits, axis=1)
            penalty = (theta[:, :-1] ** 2).sum() / (2 * C)
            expected = softmax(logits, axis=1) * weights[:, np.newaxis]
            gradient = np.column_stack([expected.T @ X, expected.sum(axis=0)]) - statistic
            gradient[:, :-1] += theta[:, :-1] / C
            value = normalizer - (theta * statistic).sum() + penalty
            return value / total, gradient.ravel() / total

        options = {"maxiter": self.max_iter, "gtol": self.tol, "ftol": 64 * np.finfo(float).eps}
        result = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
        theta = result.x.reshape(statistic.shape)
        weights = theta[:, :-1] / unit
        intercepts = theta[:, -1:] - weights @ origin[:, np.newaxis]
        return np.hstack([weights, intercepts]), float(result.fun), int(result.nit)

    def _probabilities(self, X: Any) -> np.ndarray:
        return np.exp(self._log_probabilities(X))

    def _log_probabilities(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = np.asarray(self._check_instances(X), dtype=np.float64)
        return log_softmax(X @ self.coef_.T + self.intercept_, axis=1)


def _shares(bags: Bags) -> np.ndarray:
    """Recorded proportions, adjusted for rounding so that rows sum to 1."""
    refuse_weak_records(bags.record, "MeanMapClassifier")
    return consistent_proportions(bags.proportions, bags.lower, bags.upper)
