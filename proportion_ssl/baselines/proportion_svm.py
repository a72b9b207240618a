"""Proportion-SVM: alternate between fitting support vector machines and labeling the bags."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np

from proportion_ssl._kept import Array
from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._linear import LinearMachines, frame_of, inverse_mean_square
from proportion_ssl.baselines._svm_steps import alternate, fit_machines, objectives_of
from proportion_ssl.estimators._base import BagClassifier
from proportion_ssl.nets.content_order import content_order
from proportion_ssl.proportions.weak_records import refuse_weak_records


class ProportionSVMClassifier(LinearMachines):
    """Linear support vector machine that labels bag instances by the proportions (proportion-SVM).

    One machine per class against the rest. The fit alternates between fitting the machine to the labels and
    giving each bag the labels that minimize the loss plus the deviation from the recorded proportion. The
    weight of the loss increases during the fit. Features should be standardized.

    Parameters
    ----------
    C : float, default=None
        Weight of the loss of an instance, as in :class:`sklearn.svm.LinearSVC`. Default: inverse of the mean
        squared distance of the instances from their mean.
    C_p : float, default=None
        Penalty for each instance by which labels and proportion of a bag differ. Default: ten times ``C``.
    growth : float, default=10.0
        The weight of the loss starts at ``1e-4 * C`` and is multiplied by this factor until it reaches ``C``.
    n_init : int, default=1
        Number of random initial labelings; for each class, the one with the smallest final objective is used.
    tol : float, default=1e-4
        Increase the weight of the loss when the relative decrease of the objective is smaller.
    max_iter : int, default=50
        Maximum number of alternations for each weight of the loss.
    classes : array-like of shape (n_classes,), default=None
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
    random_state : int, RandomState instance or None, default=None
        Controls the initial labels of the bags.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of shape (n_machines, n_features)
        One machine per class; with two classes, one for the second class.
    intercept_ : ndarray of shape (n_machines,)
    bag_labels_ : ndarray of int8, shape (n_bag_instances, n_machines)
        Labels of the bag instances, 1 or -1. Only with bags.
    objective_ : ndarray of shape (n_machines,)
        Final objective of each machine.
    history_ : list of dict
        ``start``, ``C`` and ``objective`` (of all machines together) after each alternation.
    n_iter_ : int
        Number of alternations of all starts; 1 without bags.
    C_, C_p_ : float
        Values used for ``C`` and ``C_p``.
    n_features_in_ : int
    SOURCE_SETTINGS : dict
        Settings of the authors' program: a growth of 1.5 and the best of 20 starts.

    Notes
    -----
    alter-pSVM of Yu et al. [1]_ with a linear kernel: minimizes
    ``|w|^2 / 2 + C sum_i loss(y_i, w x_i + b) + C_p sum_b |count_b(y) - n_b p_b|`` over w, b and the labels y
    of the bags. Labels of labeled instances are fixed. If a proportion is an interval, counts within it have
    no penalty. The weight of a bag multiplies its terms in both sums. Deviations are counted in instances, as
    in the authors' program.

    The squared hinge loss is used instead of the hinge loss, so that each fit can start from the last
    weights. The paper uses a growth of 1.5 and keeps the best of several random starts. With labeled
    instances, the starts lead to similar results: on stained slides, three starts were no better than one,
    and a growth of 10 scored like 1.5 with about a fifth of the evaluations.

    There is no ``predict_proba``, because scores of the machines are not probabilities.

    References
    ----------
    .. [1] Yu, Liu, Kumar, Jebara, Chang. "pSVM for Learning with Label Proportions". ICML 2013.

    Examples
    --------
    >>> from proportion_ssl.baselines import ProportionSVMClassifier
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, random_state=0)
    >>> clf = ProportionSVMClassifier(random_state=0).fit(data.X_labeled, data.y, data.bags)
    >>> clf.predict(data.X_test).shape == data.y_test.shape
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **BagClassifier._parameter_constraints,
        "C": [Interval(Real, 0, None, closed="neither"), None],
        "C_p": [Interval(Real, 0, None, closed="left"), None],
        "growth": [Interval(Real, 1, None, closed="neither")],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {"growth": 1.5, "n_init": 20}

    _kept = LinearMachines._kept.extended(
        always={"C_": (float, int), "C_p_": (float, int), "history_": (list,), "n_iter_": (int,)},
        arrays={
            "coef_": Array("float64", ("machines", "features")),
            "intercept_": Array("float64", ("machines",)),
            "objective_": Array("float64", ("machines",)),
            "bag_labels_": Array("int8", (None, "machines"), always=False),
        },
    )

    def __init__(
        self,
        *,
        C: float | None = None,
        C_p: float | None = None,
        growth: float = 10.0,
        n_init: int = 1,
        tol: float = 1e-4,
        max_iter: int = 50,
        classes: Any = None,
        random_state: Any = None,
    ):
        self.C = C
        self.C_p = C_p
        self.growth = growth
        self.n_init = n_init
        self.tol = tol
        self.max_iter = max_iter
        self.classes = classes
        self.random_state = random_state

    def _fit(self, X, codes, bags, groups, random_state):
        kept = slice(1, None) if len(self.classes_) == 2 else slice(None)
        labels = (2 * np.eye(len(self.classes_), dtype=np.int8)[codes] - 1)[:, kept]
        joined = X if bags is None else np.concatenate([X, np.asarray(bags.X)])
        self.C_ = inverse_mean_square(joined) if self.C is None else self.C
        self.C_p_ = 10 * self.C_ if self.C_p is None else self.C_p
        self.history_: list[dict] = []
        origin, unit = frame_of(joined)
        X, joined = (X - origin) / unit, (joined - origin) / unit
        C, C_p = self.C_ * unit**2, self.C_p_ * unit**2
        if bags is None:
            start, costs = np.zeros((X.shape[1] + 1, labels.shape[1])), np.full(len(X), C)
            weights = fit_machines(X.astype(np.float64), labels, costs, start, 1e-8)
            objectives = objectives_of(weights, X, labels, costs)
        else:
            refuse_weak_records(bags.record, "ProportionSVMClassifier")
            ends = np.stack([bags.lower, bags.upper])[:, :, kept]
            settings: Any = {"growth": self.growth, "tol": self.tol, "max_iter": self.max_iter}
            order, starts = content_order(bags.X, bags.index), []
            for i in range(self.n_init):
                share = ends.mean(axis=0)[bags.index]
                drawn = np.empty(share.shape)
                drawn[order] = random_state.random_sample(share.shape)
                first = np.where(drawn < share, 1, -1).astype(np.int8)
                *found, steps = alternate(
                    *(joined, labels, first, bags, ends), C=C, C_p=C_p, **settings
                )
                starts.append(found)
                in_unit = [{name: value / unit**2 for name, value in one.items()} for one in steps]
                self.history_ += [{"start": i, **step} for step in in_unit]
            best = np.argmin([objectives for *_, objectives in starts], axis=0)
            weights, self.bag_labels_, objectives = (
                np.stack([parts[i][..., machine] for machine, i in enumerate(best)], axis=-1)
                for parts in zip(*starts, strict=True)
            )
        self.objective_ = objectives / unit**2
        self.coef_ = np.ascontiguousarray(weights[:-1].T) / unit
        self.intercept_ = weights[-1] - self.coef_ @ origin.astype(np.float64)
        self.n_iter_ = max(1, len(self.history_))
