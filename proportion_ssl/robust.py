"""Proportions as people write them: how far they can be trusted, and a classifier that finds out."""

from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_is_fitted

from proportion_ssl.bags import Bags
from proportion_ssl.base import BagClassifier
from proportion_ssl.classifier import NegativePseudoLabelClassifier
from proportion_ssl.identifiability import warn_if_not_identifiable
from proportion_ssl.intervals import nearest_proportions
from proportion_ssl.selection import SoftAssignmentSelector

#: Median distance at which the records as a whole deserve no trust: about that of an error of ten points.
ROUGH = 0.2

#: Standard deviation of recorded shares at first, and at most and at least the second time.
LARGEST_DEVIATION, SMALLEST_DEVIATION = 0.1, 0.01


class RobustProportionClassifier(BagClassifier):
    """Classifier for proportions as people write them: rough, rounded, sometimes of another slide.

    Pseudo labels are soft and weigh the net's predictions against the proportions of the bag, which are taken
    for what they are: estimates (:class:`~proportion_ssl.SoftAssignmentSelector`). Learns twice: how far bags
    are from their recorded proportions after the first time says how exact these are. Bags whose record is
    far off are reported, and left out the second time.

    Parameters
    ----------
    estimator : NegativePseudoLabelClassifier, default=None
        Net and training of both times; its selectors are replaced. Default:
        ``NegativePseudoLabelClassifier()``.
    n_rounds : int, default=30
        Rounds of the first time, at one epoch each.
    doubt : float in [0, 2], default=0.4
        Smallest distance at which a bag can be doubtful; it must also be three times the median of all.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    classifier_ : NegativePseudoLabelClassifier
        Fitted the second time, with its history and its audit trail.
    scout_ : NegativePseudoLabelClassifier
        Fitted the first time.
    bag_reliability_ : DataFrame of n_bags rows
        The most doubtful bags first, indexed by name: ``distance`` in [0, 2], the sum over the classes of the
        absolute differences between recorded (nearest within the interval) and supported proportions;
        ``doubtful``; and per class ``recorded_...`` and ``supported_...``. Only with bags.
    trust_ : float in [0, 1]
        How exact the records are as a whole: ``max(0, 1 - median(distance) / 0.2)``. Only with bags.
    bags_ : Bags
        What the second time learned from: weights 0 for doubtful bags. Only with bags.

    Warns
    -----
    IdentifiabilityWarning
        When the recorded proportions cannot tell classes apart; see
        :func:`~proportion_ssl.identifiability`.

    Notes
    -----
    ``supported = proportions of the predictions of the scout``, a net that was trained on the labelled
    patches and on all bags, with records whose shares have a standard deviation of 0.1. The second time
    this is the median distance, where that lies between 0.01 and 0.1. A bag cannot confirm a wrong record
    of its own: errors of whole records follow a t distribution, so that one far off counts for little.

    Images pass the frozen layers of a net three times; give features of
    :class:`~proportion_ssl.PatchEmbedder` where that takes long.

    Examples
    --------
    >>> from proportion_ssl import NegativePseudoLabelClassifier, RobustProportionClassifier
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, proportion_noise=0.1, random_state=0)
    >>> quick = NegativePseudoLabelClassifier(max_epochs=10)
    >>> clf = RobustProportionClassifier(quick, random_state=0).fit(data.X_labeled, data.y, data.bags)
    >>> bool(clf.bag_reliability_["distance"].is_monotonic_decreasing)
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **BagClassifier._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict_proba"]), None],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "doubt": [Interval(Real, 0, 2, closed="both")],
    }

    def __init__(
        self,
        estimator: NegativePseudoLabelClassifier | None = None,
        *,
        n_rounds: int = 30,
        doubt: float = 0.4,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.n_rounds = n_rounds
        self.doubt = doubt
        self.random_state = random_state

    def _fit(self, X, codes, bags, groups, random_state):
        y = self.classes_[codes]
        if bags is None:
            self.classifier_ = self._make(random_state, LARGEST_DEVIATION).fit(X, y, groups=groups)
            return
        warn_if_not_identifiable(bags.proportions, self.classes_)
        scout = self._make(random_state, LARGEST_DEVIATION, refit=False)
        scout.set_params(max_epochs=self.n_rounds, epochs_per_round=1)
        self.scout_ = scout.fit(X, y, bags, groups=groups)
        supported = bags.proportions_of(self.scout_.predict(bags.X), self.classes_)
        self.bags_, typical = self._judge(bags, supported)
        deviation = float(np.clip(typical, SMALLEST_DEVIATION, LARGEST_DEVIATION))
        self.classifier_ = self._make(random_state, deviation)
        self.classifier_.fit(X, y, self.bags_, groups=groups)

    def _make(self, random_state, standard_deviation, **settings):
        estimator = (
            NegativePseudoLabelClassifier() if self.estimator is None else clone(self.estimator)
        )
        seed = random_state.randint(np.iinfo(np.int32).max)
        return estimator.set_params(
            positive_selector=SoftAssignmentSelector(standard_deviation),
            negative_selector=None,
            random_state=seed,
            **settings,
        )

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

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features) or (n_instances, height, width, 3)
            As in ``fit``.

        Returns
        -------
        probabilities : ndarray of float32, shape (n_instances, n_classes)
            Columns in the order of ``classes_``; rows sum to 1.
        """
        check_is_fitted(self)
        return self.classifier_.predict_proba(self._check_instances(X))
