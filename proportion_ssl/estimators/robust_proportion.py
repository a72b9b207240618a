"""Uncertain proportions: a classifier that estimates how accurate the records are."""

from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from proportion_ssl._sklearn import Interval
from proportion_ssl.estimators._learners import SolvedLearner, rounds, share_exchanged
from proportion_ssl.estimators._out_of_core import StreamedLearner, stays_out_of_core
from proportion_ssl.estimators._records import ends_of
from proportion_ssl.estimators._rules_of_bags import OneSelector, select
from proportion_ssl.estimators._with_net import NetBagClassifier, mean_absolute_error
from proportion_ssl.heads import DiscriminantClassifier
from proportion_ssl.nets.classifiers import HeadClassifier, MobileNetV2Classifier
from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.identifiability import warn_if_not_identifiable
from proportion_ssl.proportions.intervals import consistent_proportions
from proportion_ssl.proportions.weak_records import PartialRecord
from proportion_ssl.pseudo_labels.label_log import LabelLog, LoggedLabels
from proportion_ssl.pseudo_labels.recorded import INSTANCE_WEIGHT
from proportion_ssl.pseudo_labels.selectors import SoftAssignmentSelector
from proportion_ssl.pseudo_labels.soft_assignment import SMALLEST_MASS

#: Median distance at which ``trust_`` is 0: about that of an error of ten percentage points.
ROUGH = 0.2

#: Standard deviation of recorded shares in the first round, small because few labels alone may mislead.
FIRST_DEVIATION = 0.02

#: Standard deviation in the following rounds, and its limits once it has been estimated.
LARGEST_DEVIATION, SMALLEST_DEVIATION = 0.1, 0.01

#: Degrees of freedom of the t distribution of the errors of a record.
DEGREES_OF_FREEDOM = 3.0

#: Increase of the weight of predictions over records, as a multiple of the share of records of other bags.
WEIGHT_OF_DOUBT = 5.0

#: Number of rounds with the estimated standard deviation.
N_LAST_ROUNDS = 4


class RobustProportionClassifier(LoggedLabels, NetBagClassifier):
    """Classifier for uncertain proportions: rough, rounded, or sometimes those of another slide.

    Alternates between soft-labeling the bags and refitting the head of a net with frozen layers in closed
    form, by linear discriminant analysis on the labeled patches and the soft labels. The soft labels balance
    the predictions against the recorded proportions, which are treated as estimates with errors
    (:class:`~proportion_ssl.SoftAssignmentSelector`). After some rounds, the error of the records is
    estimated from the distances between predicted and recorded proportions. Bags with an outlying record are
    reported and left out of the last rounds.

    Parameters
    ----------
    estimator : HeadClassifier or MobileNetV2Classifier, default=None
        Net with frozen layers, whose head is refitted. Default: :class:`~proportion_ssl.HeadClassifier` on
        features, :class:`~proportion_ssl.MobileNetV2Classifier` on images.
    n_components : int, default=None
        As in :class:`~proportion_ssl.heads.DiscriminantClassifier`.
    shrinkage : float in (0, 1], default=None
        As in :class:`~proportion_ssl.heads.DiscriminantClassifier`; bags count as slides.
    temperature : float, default=None
        Final divisor of the logits, above 0; discriminant analysis with many features is overconfident.
        Default: estimated by cross-validation on the labeled patches, by slide if ``groups`` are given. With
        bags, the larger of this and the estimate from the soft labels of held-out bags.
    n_rounds : int, default=7
        Rounds before the error of the records is estimated; four more follow.
    doubt : float in [0, 2], default=0.4
        A bag is doubtful if its distance exceeds this value and three times the median distance.
    classes : array-like of shape (n_classes,), default=None
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
    n_jobs : int, default=None
        Number of bags processed in parallel if features stay in their files (see Notes), as in joblib. The
        backend is that of ``joblib.parallel_config`` (processes, threads, Dask).
    random_state : int, RandomState instance or None, default=None
        Controls the sample of instances for scale and principal components if there are more than 20,000
        instances or 30 million values, and the randomized method for components of more than 1536 features.
        Nothing else is random.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : skorch.NeuralNet
        The net, with its new head.
    history_ : list of dict
        One entry per round: ``round``, ``standard_deviation`` of the records, and ``sum_absolute_error``, the
        mean over the bags of :func:`~proportion_ssl.proportions.sum_absolute_error` between recorded
        proportions (nearest within the interval) and those predicted by the new head. Only with bags.
    bag_reliability_ : DataFrame of n_bags rows
        Indexed by bag, largest distance first: ``distance`` in [0, 2], the sum over the classes of the
        absolute differences between recorded (nearest within the interval) and supported proportions;
        ``doubtful``; and per class ``recorded_...`` and ``supported_...``. Only with bags.
    fell_back_ : bool
        Whether the supervised classifier was kept because the bags were harmful.
    instance_weight_ : float
        Weight of the prediction of an instance relative to the record of its bag, in predictions with
        records: 0.3 at the geometric mean of the two temperatures estimated from held-out slides and bags,
        more at the larger of them, and more if records of the fit seem to be those of other bags: twice as
        much for a fifth.
    record_deviation_ : float in [0.01, 0.1]
        Estimated standard deviation of a recorded share. Only with bags.
    temperature_ : float
        Divisor of the logits of ``estimator_``.
    trust_ : float in [0, 1]
        Overall accuracy of the records: ``max(0, 1 - median(distance) / 0.2)``. Only with bags.
    bags_ : Bags
        Bags used in the last rounds, with weight 0 for doubtful bags. Only with bags.
    label_log_, signed_labels_, label_rounds_, bag_index_, bag_names_
        Pseudo labels as in :class:`~proportion_ssl.NegativePseudoLabelClassifier`; soft labels above 0.5.

    Warns
    -----
    HarmfulLabelsWarning
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
    IdentifiabilityWarning
        If the recorded proportions cannot distinguish some classes; see
        :func:`~proportion_ssl.proportions.identifiability`.

    Notes
    -----
    Each round labels every bag with the net of the previous round and fits a new head. The standard
    deviation of the records is 0.02 in the first round, when predictions rest on the labeled patches only,
    then 0.1. After ``n_rounds`` it is estimated, within 0.01 and 0.1, from the differences d between recorded
    and supported shares of each bag: ``sqrt(median_b(sum_c d_bc^2 / (C - 1)) / F)``. F is the median of the
    F distribution with C - 1 and 3 degrees of freedom, the distribution of the mean squares of C - 1 free
    differences if record errors have a t distribution. ``supported`` are the predicted proportions at that
    point. A bag cannot confirm its own wrong record, because an outlying record has little weight under the
    t distribution.

    Records are doubtful if they are wrong, or if the classifier is. The share of wrong ones, on which
    ``instance_weight_`` depends, is therefore also estimated from the number of records that are nearer to
    most of the other bags than to their own (Storey's estimate); the smaller of both estimates is used.

    Discriminant analysis is used instead of gradient descent because the within-class covariance contains
    the variation between slides, mainly of the stain, and the discriminant functions suppress these
    directions. Settings were chosen on virtual slides of real patches, MobileNetV2 features, and two sets of
    real bags; see ``benchmarks/accuracy/heads_and_rules.py``.

    No bag weighs more than a labeled slide does on average: labels of larger bags have smaller weights, and
    scale and principal components are taken from a systematic sample of their instances, at equal distances
    in the order of their lengths as vectors.

    If the bags are a :class:`~proportion_ssl.slides.FeatureSequence` whose components would need more than
    1 GiB of memory, features stay in their files. Each round is then a map over the bags, each read once, and
    a sum of their contributions to class means and covariance. The result equals that of a fit in memory up
    to rounding. Individual pseudo labels are not stored in this case (no ``label_log_``).

    Images pass through the frozen layers of a net once per fit.

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
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "shrinkage": [Interval(Real, 0, 1, closed="right"), None],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "doubt": [Interval(Real, 0, 2, closed="both")],
        "n_jobs": [Integral, None],
    }

    _kept = NetBagClassifier._kept.extended(
        sometimes={
            "history_": (list,),
            "bag_reliability_": (pd.DataFrame,),
            "trust_": (float,),
            "temperature_": (float,),
            "fell_back_": (bool,),
            "record_deviation_": (float,),
            "instance_weight_": (float,),
        },
        left_out={"bags_": "training data"},
    )

    def __init__(
        self,
        estimator: HeadClassifier | MobileNetV2Classifier | None = None,
        *,
        n_components: int | None = None,
        shrinkage: float | None = None,
        temperature: float | None = None,
        n_rounds: int = 7,
        doubt: float = 0.4,
        classes: Any = None,
        n_jobs: int | None = None,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.n_components = n_components
        self.shrinkage = shrinkage
        self.temperature = temperature
        self.n_rounds = n_rounds
        self.doubt = doubt
        self.classes = classes
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _fit_net(self, net, X, codes, bags, groups, random_state):
        if not isinstance(net, HeadClassifier | MobileNetV2Classifier) or len(X.shape) != 2:
            raise ValueError(
                f"estimator is a {type(net).__name__} that learns from instances of shape "
                f"{tuple(X.shape[1:])}; its head is refitted in closed form, which needs features or, "
                "for images, a MobileNetV2Classifier with freeze=True."
            )
        head = DiscriminantClassifier(
            self.n_components, shrinkage=self.shrinkage, temperature=self.temperature
        )
        if bags is not None:
            shares = consistent_proportions(bags.proportions, bags.lower, bags.upper)
            told: Any = slice(None)
            if isinstance(bags.record, PartialRecord):  # other classes are for labels to show
                told = bags.record.among.any(axis=0)
            warn_if_not_identifiable(shares[:, told], self.classes_[told])
        given = (head, net, X, codes, bags, groups, self.classes_, random_state)
        if bags is not None and stays_out_of_core(
            bags.X, len(codes) + bags.n_instances, self.n_components
        ):
            learner: Any = StreamedLearner(self.n_jobs, *given)
            self._fit_streamed(learner, bags)
        else:
            learner = SolvedLearner(*given)
            learner.fit_labeled()
            if bags is not None:
                self._fit_rounds(learner, bags)
            self.temperature_ = learner.finish()
        self.fell_back_ = learner.fell_back
        doubt = 1 + WEIGHT_OF_DOUBT * learner.share_exchanged
        self.instance_weight_ = INSTANCE_WEIGHT * learner.caution * doubt

    def _fit_rounds(self, learner, bags):
        """Alternate between labeling the bags and solving for a new head; estimate record errors between."""
        self.label_log_ = LabelLog(bags.index, bags.names, self.classes_)
        self.history_ = []
        for deviation in self._first_deviations():
            self._round(learner, bags, deviation)
        learner.share_exchanged = self._judge(bags, learner.predicted_shares())
        learner.records_judged = True
        for _ in range(N_LAST_ROUNDS):
            self._round(learner, self.bags_, self.record_deviation_)

    def _fit_streamed(self, learner, bags):
        """The same with features in files; the predictions of a round are counted in the next pass."""
        learner.fit_labeled()
        self.history_ = []
        for deviation in self._first_deviations():
            results = learner.round(OneSelector(_selector(deviation)), bags)
            self._tell_error(learner.shares_before(results), bags)
            self._append_round(deviation)
        learner.share_exchanged = self._judge(bags, learner.predicted_shares())
        learner.records_judged = True
        for _ in range(N_LAST_ROUNDS):
            results = learner.round(OneSelector(_selector(self.record_deviation_)), self.bags_)
            self._tell_error(learner.shares_before(results), bags)
            self._append_round(self.record_deviation_)
        self.temperature_ = learner.finish()
        self._tell_error(learner.last_shares(), bags)

    def _tell_error(self, shares, bags):
        """Add the error of the proportions predicted by the last round to the history."""
        if self.history_:
            self.history_[-1]["sum_absolute_error"] = mean_absolute_error(shares, bags)

    def _append_round(self, deviation):
        self.history_.append({"round": len(self.history_) + 1, "standard_deviation": deviation})

    def _first_deviations(self):
        return [FIRST_DEVIATION] + [LARGEST_DEVIATION] * (self.n_rounds - 1)

    def _round(self, learner, bags, deviation):
        """Label the bags given this standard deviation of the records, and learn from the labels."""
        selector = _selector(deviation)

        def give_labels(probabilities):
            return select(selector, probabilities, bags.index, bags.recorded), None

        for _ in rounds(learner, give_labels, bags, self.label_log_, [0]):
            codes = learner.logits().argmax(axis=1)
            self._append_round(deviation)
            self.history_[-1]["sum_absolute_error"] = self._sum_absolute_error(codes, bags)

    def _judge(self, bags: Bags, supported: np.ndarray) -> float:
        """Find doubtful bags, set their weight to 0, and estimate the standard deviation of the records.

        Returns the share of the bags whose record is doubtful and seems to be that of another bag.
        """
        differences = bags.nearest(supported) - supported
        distance = np.abs(differences).sum(axis=1)
        counting = bags.weights > 0 if bags.weights.any() else np.ones(bags.n_bags, dtype=bool)
        typical = float(np.median(distance[counting]))
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
        self.bags_ = judged
        n_free: Any = differences.shape[1] - 1
        if isinstance(bags.record, PartialRecord):
            differences = differences / np.maximum(bags.record.mass(supported), SMALLEST_MASS)
            n_free = bags.record.n_free[counting, 0]
        deviation = _standard_deviation(differences[counting], n_free)
        self.record_deviation_ = float(np.clip(deviation, SMALLEST_DEVIATION, LARGEST_DEVIATION))
        if not bags.weights.any():
            return 0.0
        exchanged = share_exchanged(supported[counting], *(end[counting] for end in ends_of(bags)))
        return min(exchanged, float(doubtful[counting].mean()))


def _selector(deviation):
    """Selector for records with this standard deviation."""
    return SoftAssignmentSelector(deviation, degrees_of_freedom=DEGREES_OF_FREEDOM)


def _standard_deviation(differences: np.ndarray, n_free: Any) -> float:
    """Standard deviation of a recorded share, from differences (n_bags, n_classes) to supported shares.

    ``n_free`` is the degrees of freedom of the shares of a record, one number or one per bag: the number of
    recorded classes minus one. Records of a single class carry no information.

    In the model of :func:`~proportion_ssl.pseudo_labels.soft_assignment.posterior_labels` the errors d of a
    record sum to 0 and have a t distribution with nu degrees of freedom and scale s. With C - 1 free
    differences, ``|d|^2 / ((C - 1) s^2)`` has an F distribution with C - 1 and nu degrees of freedom. Its
    median over the bags gives s, so outlying records have no influence.
    """
    n_free = np.broadcast_to(n_free, len(differences))
    err = n_free > 0
    if not err.any():
        return 0.0
    variances = (differences[err] ** 2).sum(axis=1) / n_free[err]
    variances = variances / stats.f.median(n_free[err], DEGREES_OF_FREEDOM)
    return float(np.sqrt(np.median(variances)))
