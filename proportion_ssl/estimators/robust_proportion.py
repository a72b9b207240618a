"""Proportions as people write them: how far they can be trusted, and a classifier that finds out."""

from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.decomposition import PCA

from proportion_ssl._sklearn import Interval
from proportion_ssl.estimators._class_means import class_means
from proportion_ssl.estimators._discriminant import linear_discriminant
from proportion_ssl.estimators._with_net import NetBagClassifier, weighted_labels
from proportion_ssl.nets.classifiers import (
    PREDICTED_AT_ONCE,
    HeadClassifier,
    MobileNetV2Classifier,
)
from proportion_ssl.nets.signed_dataset import BatchesInOrder, SignedDataset
from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.identifiability import warn_if_not_identifiable
from proportion_ssl.proportions.intervals import consistent_proportions, nearest_proportions
from proportion_ssl.pseudo_labels.label_log import LabelLog, LoggedLabels
from proportion_ssl.pseudo_labels.selectors import SoftAssignmentSelector

#: Median distance at which the records as a whole deserve no trust: about that of an error of ten points.
ROUGH = 0.2

#: Standard deviation of recorded shares in the first round: few labels alone would lead astray.
FIRST_DEVIATION = 0.02

#: In the rounds that follow, and at most and at least once the records have been judged.
LARGEST_DEVIATION, SMALLEST_DEVIATION = 0.1, 0.01

#: Rounds with the deviation that the records were found to have.
N_LAST_ROUNDS = 4

#: Instances from which scale and principal components are taken, drawn at random where there are more.
N_COMPONENT_INSTANCES = 20_000


class RobustProportionClassifier(LoggedLabels, NetBagClassifier):
    """Classifier for proportions as people write them: rough, rounded, sometimes of another slide.

    The head of a net with frozen layers is not trained by gradients but solved for: linear discriminant
    analysis on the labelled patches and on soft labels of the bags, in turns. The soft labels weigh its
    predictions against the proportions of the bag, which are taken for what they are: estimates
    (:class:`~proportion_ssl.SoftAssignmentSelector`). How far bags are from their recorded proportions after
    some rounds says how exact these are; bags whose record is far off are reported, and left out of the last
    rounds.

    Parameters
    ----------
    estimator : HeadClassifier or MobileNetV2Classifier, default=None
        Net whose head is solved for, with frozen layers. Default: :class:`~proportion_ssl.HeadClassifier` on
        features, :class:`~proportion_ssl.MobileNetV2Classifier` on images.
    n_components : int, default=400
        Principal components of the standardised features that the discriminant functions are made of; at most
        the number of features.
    shrinkage : float in (0, 1], default=0.3
        Of the covariance within classes: how far it is moved towards a multiple of the identity matrix.
    temperature : float, default=5.0
        Logits are divided by it: the normal distributions of many features are far too sure.
    n_rounds : int, default=7
        Rounds before the records are judged; four more follow.
    doubt : float in [0, 2], default=0.4
        Smallest distance at which a bag can be doubtful; it must also be three times the median of all.
    classes : array-like of shape (n_classes,), default=None
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
    random_state : int, RandomState instance or None, default=None
        Chooses the instances that principal components are taken from where there are more than 20,000;
        nothing else is random.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : skorch.NeuralNet
        The net, with its new head.
    history_ : list of dict
        One entry per round: ``round``, ``standard_deviation`` of the records, and ``sum_absolute_error``, the
        mean over the bags of :func:`~proportion_ssl.proportions.sum_absolute_error` of the recorded
        proportions (nearest within the interval) and those that the new head predicts. Only with bags.
    bag_reliability_ : DataFrame of n_bags rows
        The most doubtful bags first, indexed by name: ``distance`` in [0, 2], the sum over the classes of the
        absolute differences between recorded (nearest within the interval) and supported proportions;
        ``doubtful``; and per class ``recorded_...`` and ``supported_...``. Only with bags.
    trust_ : float in [0, 1]
        How exact the records are as a whole: ``max(0, 1 - median(distance) / 0.2)``. Only with bags.
    bags_ : Bags
        What the last rounds learned from: weights 0 for doubtful bags. Only with bags.
    label_log_, signed_labels_, label_rounds_, bag_index_, bag_names_
        Pseudo labels as in :class:`~proportion_ssl.NegativePseudoLabelClassifier`: those above one half.

    Warns
    -----
    IdentifiabilityWarning
        When the recorded proportions cannot tell classes apart; see
        :func:`~proportion_ssl.proportions.identifiability`.

    Notes
    -----
    A round labels every bag by the net of the last one and solves for a new head. In the first round, which
    has only the labelled patches to go by, records count as nearly exact (standard deviation 0.02); then 0.1;
    after the judgement it is the median distance, where that lies between 0.01 and 0.1. ``supported`` are
    proportions of the predictions at the judgement. A bag cannot confirm a wrong record of its own:
    errors of whole records follow a t distribution, so that one far off counts for little.

    Why not gradients: the covariance within classes holds what differs from slide to slide, above all the
    stain, and the discriminant functions do not look there. Settings were found on virtual slides of real
    patches and MobileNetV2 features; see ``benchmarks/accuracy/robustness.py``.

    Images pass the frozen layers of a net once per fit.

    Examples
    --------
    >>> from proportion_ssl import RobustProportionClassifier
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, proportion_noise=0.1, random_state=0)
    >>> clf = RobustProportionClassifier(random_state=0).fit(data.X_labeled, data.y, data.bags)
    >>> bool(clf.bag_reliability_["distance"].is_monotonic_decreasing)
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **NetBagClassifier._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "shrinkage": [Interval(Real, 0, 1, closed="right")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "doubt": [Interval(Real, 0, 2, closed="both")],
    }

    _kept = NetBagClassifier._kept.extended(
        sometimes={
            "history_": (list,),
            "bag_reliability_": (pd.DataFrame,),
            "trust_": (float,),
        },
        left_out={"bags_": "training data"},
    )

    def __init__(
        self,
        estimator: HeadClassifier | MobileNetV2Classifier | None = None,
        *,
        n_components: int = 400,
        shrinkage: float = 0.3,
        temperature: float = 5.0,
        n_rounds: int = 7,
        doubt: float = 0.4,
        classes: Any = None,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.temperature = temperature
        self.n_rounds = n_rounds
        self.doubt = doubt
        self.classes = classes
        self.random_state = random_state

    def _fit_net(self, net, X, codes, bags, groups, random_state):
        if not isinstance(net, HeadClassifier | MobileNetV2Classifier) or len(X.shape) != 2:
            raise ValueError(
                f"estimator is a {type(net).__name__} that learns from instances of shape "
                f"{tuple(X.shape[1:])}; its head is solved for, which needs features or, "
                "for images, a MobileNetV2Classifier with freeze=True."
            )
        parts = [X] if bags is None else [X, bags.X]
        components = self._principal_components(net, parts, random_state)
        projected = np.concatenate([_project(net, components, part) for part in parts])
        known = np.eye(len(self.classes_), dtype=projected.dtype)[codes]
        if bags is None:
            head = linear_discriminant(projected, known, shrinkage=self.shrinkage)
        else:
            shares = consistent_proportions(bags.proportions, bags.lower, bags.upper)
            warn_if_not_identifiable(shares, self.classes_)
            first = _with_unlabeled_classes(projected, codes, known, bags, shares)
            head = linear_discriminant(*first, shrinkage=self.shrinkage)
            head = self._fit_rounds(head, projected, known, bags)
        self._set_head(net, components, *head)

    def _fit_rounds(self, head, X, known, bags):
        """Label the bags and solve for a new head, in turns; judge the records in between."""
        self.label_log_ = LabelLog(bags.index, bags.names, self.classes_)
        self.history_ = []
        logits = _logits(X[len(known) :], head)
        for deviation in [FIRST_DEVIATION] + [LARGEST_DEVIATION] * (self.n_rounds - 1):
            head, logits = self._round(logits, X, known, bags, deviation)

        predicted = self.classes_[logits.argmax(axis=1)]
        self.bags_, typical = self._judge(bags, bags.proportions_of(predicted, self.classes_))
        deviation = float(np.clip(typical, SMALLEST_DEVIATION, LARGEST_DEVIATION))
        for _ in range(N_LAST_ROUNDS):
            head, logits = self._round(logits, X, known, self.bags_, deviation)
        return head

    def _round(self, logits, X, known, bags, deviation):
        """Label the bags by the logits of the last head; a new head, and its logits."""
        soft = SoftAssignmentSelector(deviation).transform(
            softmax(logits / self.temperature, axis=1),
            bag_ids=bags.index,
            bag_proportions=bags.recorded,
        )
        soft = np.asarray(soft)  # a DataFrame where scikit-learn is set to give these
        self.label_log_.record(soft)
        labels = np.concatenate([known, weighted_labels(soft, bags)])
        head = linear_discriminant(X, labels, shrinkage=self.shrinkage)
        logits = _logits(X[len(known) :], head)
        self.history_.append(
            {
                "round": len(self.history_) + 1,
                "standard_deviation": deviation,
                "sum_absolute_error": self._sum_absolute_error(logits.argmax(axis=1), bags),
            }
        )
        return head, logits

    def _principal_components(self, net, parts, random_state):
        """New weights for the net, its scale set; principal components (n_components, n_features)."""
        everything = SignedDataset(parts)
        rows = np.arange(len(everything))
        if len(rows) > N_COMPONENT_INSTANCES:
            rows = np.sort(random_state.choice(rows, N_COMPONENT_INSTANCES, replace=False))
        sample = everything.__getitems__(rows.tolist())[0].numpy()
        net.initialize_for(sample, np.arange(len(sample)), self.classes_)
        n_components = min(self.n_components, *sample.shape)
        pca = PCA(n_components, svd_solver="covariance_eigh").fit(_standardized(net, sample))
        return pca.components_

    def _judge(self, bags: Bags, supported: np.ndarray) -> tuple[Bags, float]:
        """The same bags, with weight 0 where doubtful, and the median distance."""
        recorded = nearest_proportions(supported, bags.lower, bags.upper)
        distance = np.abs(recorded - supported).sum(axis=1)
        typical = float(np.median(distance))
        doubtful = distance > max(self.doubt, 3 * typical)
        self.trust_ = max(0.0, 1.0 - typical / ROUGH)
        table = pd.DataFrame(
            {"distance": distance, "doubtful": doubtful}, index=pd.Index(bags.names, name="bag")
        )
        for name, shares in (("recorded", bags.proportions), ("supported", supported)):
            table[[f"{name}_{c}" for c in self.classes_]] = shares
        self.bag_reliability_ = table.sort_values("distance", ascending=False, kind="stable")

        judged = bags.with_instances(bags.X)
        judged.weights = np.where(doubtful, 0.0, bags.weights)
        return judged, typical

    def _set_head(self, net, components, coef, intercept):
        """Write discriminant functions of principal components into the linear layer of the head."""
        weight = (components.T @ coef / self.temperature).T
        net.head.set_linear(weight, intercept / self.temperature)


def _with_unlabeled_classes(X, codes, known, bags, shares):
    """Labeled instances and their labels, and for a class that has none the mean that the bags tell."""
    n_labeled, without = len(known), np.flatnonzero(known.sum(axis=0) == 0)
    if not len(without):
        return X[:n_labeled], known
    means = class_means(X[:n_labeled], codes, X[n_labeled:], bags.index, shares, bags.weights)
    labels = np.eye(known.shape[1], dtype=known.dtype)[without]
    return np.concatenate([X[:n_labeled], means[without].astype(X.dtype)]), np.concatenate(
        [known, labels]
    )


def _logits(X, head):
    """Values of the discriminant functions (coef, intercept), before the temperature."""
    coef, intercept = head
    return X @ coef.astype(X.dtype) + intercept


def _standardized(net, features):
    """Features as the linear layer of a head sees them."""
    head = net.head
    return (features - head.mean.numpy(force=True)) / head.scale.numpy(force=True)


def _project(net, components, X):
    """Principal components of features, read a part at a time: (n_instances, n_components)."""
    parts = BatchesInOrder(SignedDataset(X), PREDICTED_AT_ONCE)
    return np.concatenate([_standardized(net, part.numpy()) @ components.T for part, _ in parts])
