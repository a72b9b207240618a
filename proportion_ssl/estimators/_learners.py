"""Learners for the rounds of pseudo labels: predict the bags, learn from labels, choose the final model.

Both learners have the same interface. A net is trained for some more epochs in each round. A head with a
direct solver (discriminant analysis, logistic regression) is solved from scratch for each set of labels.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import softmax
from sklearn.metrics import confusion_matrix
from skorch import NeuralNet

from proportion_ssl._warnings import warn
from proportion_ssl.estimators._class_means import class_means
from proportion_ssl.estimators._records import ends_of
from proportion_ssl.estimators._with_net import weighted_labels
from proportion_ssl.heads import SoftLabelHead
from proportion_ssl.heads._base import several, typical_temperature
from proportion_ssl.heads._discriminant import ABSENT
from proportion_ssl.heads._projection import (
    Projection,
    blocks,
    default_components,
    gather,
    principal_components,
    sample_rows,
)
from proportion_ssl.heads._temperature import most_probable_temperature, temperature_sums
from proportion_ssl.nets.content_order import content_hashes, content_order
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.training import train_epochs, train_until_settled, training_rows
from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.counts import class_proportions
from proportion_ssl.proportions.intervals import consistent_proportions, nearest_proportions
from proportion_ssl.proportions.weak_records import OrderRecord, PartialRecord
from proportion_ssl.pseudo_labels.label_log import LabelLog
from proportion_ssl.pseudo_labels.recorded import EFFECTIVE_SIZE

#: Losses of a directly solved head.
NO_LOSSES = {"n_epochs": 0, "train_loss": None, "valid_loss": None}

#: Normal quantile below which a change on held-out slides counts as harm.
HARM = -1.645
#: Level of the tests of records.
LEVEL = 0.05

#: Standard errors, of instances taken as independent, that a change exceeds to count as clear.
CLEAR = 3.0

#: Share of the accuracy above chance that may be lost on held-out patches of unknown slides.
MOST_LOST = 0.5

#: Minimum number of bags to test whether their records are informative, and maximum number used.
FEWEST_JUDGED, MOST_JUDGED = 10, 500

#: Lower limit of the mean recorded share of a class, which is weighted by the inverse of this share.
RAREST = 0.01

#: Ratio of the distances of held-out bags from their records above which labels are harmful.
AWAY = 1.1
#: Minimum increase of that distance, as a share of a class.
LEAST_AWAY = 0.005

#: Folds in which bags are held out to choose the temperature.
N_BAG_FOLDS = 3


def rounds(
    learner: "NetLearner | SolvedLearner",
    give_labels: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]],
    bags: Bags,
    log: LabelLog | None,
    epochs: Sequence[int],
) -> Iterator[tuple[np.ndarray, dict]]:
    """Run rounds of pseudo labels: predict the bags, label them, learn from the labels.

    Parameters
    ----------
    learner : NetLearner or SolvedLearner
    give_labels : callable
        Maps class probabilities of the bag instances to their signed labels and a mask of labels remembered
        from earlier rounds (or None).
    bags : Bags
    log : LabelLog or None
        Records the labels.
    epochs : sequence of int
        Number of epochs of each round.

    Yields
    ------
    probabilities : ndarray of shape (n_bag_instances, n_classes)
        Predictions from which the labels of the round were derived.
    losses : dict
        Losses of the training in the round.
    """
    for n_epochs in epochs:
        probabilities = learner.probabilities()
        labels, remembered = give_labels(probabilities)
        if log is not None:
            log.record(labels, remembered=remembered)
        yield probabilities, learner.learn(weighted_labels(labels, bags), n_epochs)


# --- nets ---------------------------------------------------------------------------------------


@dataclass
class NetLearner:
    """Learner with a net trained by gradient descent.

    Parameters
    ----------
    net : skorch.NeuralNet
    X : array of shape (n_labeled, ...)
    bags : Bags or None
    known : ndarray of shape (n_labeled, n_classes)
        Signed labels of the labeled instances; 0 for those used for validation.
    validation : SignedDataset or None
    initialize : callable
        Gives the net new weights.
    settings : dict
        ``max_epochs``, ``patience`` and ``epoch_size`` of training with early stopping, and ``oversample``.
    groups : array-like of shape (n_labeled,) or None
        Slide of each labeled instance.
    random_state : numpy.random.RandomState
    """

    net: NeuralNet
    X: Any
    bags: Any
    known: np.ndarray
    validation: Any
    initialize: Callable[[], None]
    settings: dict
    groups: Any
    random_state: np.random.RandomState
    signed: np.ndarray | None = field(default=None, init=False)
    supervised: dict | None = field(default=None, init=False)  # weights
    fell_back: bool = field(default=False, init=False)

    def __post_init__(self):
        order = np.arange(len(self.known))
        if self.bags is not None:
            order = np.append(order, len(order) + content_order(self.bags.X, self.bags.index))
        self.order = order  # order of labeled and bag rows for drawing
        self.gathered = None if self.validation is None else self.validation.gathered()

    def fit_labeled(self, *, new_weights: bool = True) -> dict:
        """Train on the labeled instances only; return the losses."""
        losses = self._settle(self.known, new_weights)
        if self.bags is not None:  # to judge the effect of bags
            self.supervised = copy.deepcopy(self.net.module_.state_dict())
        return losses

    def probabilities(self) -> np.ndarray:
        """Class probabilities of the instances of the bags."""
        return self.net.predict_proba(SignedDataset(self.bags.X))

    def learn(self, labels: np.ndarray, n_epochs: int) -> dict:
        """Continue training on labeled instances and signed labels of the bags; return the losses."""
        self.signed = np.concatenate([self.known, labels])
        data = self._data(self.signed)
        train_epochs(
            *(self.net, data, self.gathered, n_epochs), epoch_size=self.settings["epoch_size"]
        )
        return losses_of(self.net)

    def refit(self) -> dict:
        """Train new weights on the last labels; return the losses."""
        return self._settle(self.signed, new_weights=True)

    def finish(self) -> None:
        """Restore the supervised weights if pseudo labels degraded predictions on validation patches."""
        needed = (self.supervised, self.signed, self.validation)
        if any(one is None for one in needed):
            return
        rows = self.validation.rows
        codes = self.validation.signed[rows].argmax(axis=1)
        found = copy.deepcopy(self.net.module_.state_dict())
        after = self.net.predict_proba(self.validation).argmax(axis=1)
        self.net.module_.load_state_dict(self.supervised)
        before = self.net.predict_proba(self.validation).argmax(axis=1)
        groups = None if self.groups is None else np.asarray(self.groups)[rows]
        self.fell_back = labels_say_so(before, after, codes, groups)
        if not self.fell_back:
            self.net.module_.load_state_dict(found)

    def _settle(self, signed, new_weights):
        if new_weights:
            self.initialize()
        n_before = len(self.net.history)
        settings = {name: self.settings[name] for name in ("max_epochs", "patience", "epoch_size")}
        train_until_settled(self.net, self._data(signed), self.gathered, **settings)
        return {"n_epochs": len(self.net.history) - n_before, **losses_of(self.net, n_before)}

    def _data(self, signed):
        parts = self.X if len(signed) == len(self.known) else [self.X, self.bags.X]
        order = self.order[: len(signed)]
        rows = training_rows(
            signed, self.random_state, balance=self.settings["oversample"], order=order
        )
        return SignedDataset(parts, signed, rows)


def losses_of(net: NeuralNet, best_since: int | None = None) -> dict:
    """Losses of the last epoch, or of the best epoch since a given one; None if not measured.

    Parameters
    ----------
    net : skorch.NeuralNet
    best_since : int, optional

    Returns
    -------
    losses : dict
        ``train_loss`` and ``valid_loss``.
    """
    row = net.history[-1]
    if best_since is not None and "valid_loss" in row:
        row = min(net.history[best_since:], key=lambda epoch: epoch["valid_loss"])
    return {
        name: float(row[name]) if name in row else None for name in ("train_loss", "valid_loss")
    }


# --- directly solved heads ----------------------------------------------------------------------


class SolvedLearner:
    """Learner with a directly solved head, from labeled instances and labels of the bags.

    The solution is written into the head of a net, which predicts and can be saved and exported as usual.

    Parameters
    ----------
    head : SoftLabelHead
    net : HeadClassifier or MobileNetV2Classifier
        With frozen layers.
    X : array of shape (n_labeled, n_features)
    codes : ndarray of int, shape (n_labeled,)
    bags : Bags or None
    groups : array-like of shape (n_labeled,) or None
        Slide of each labeled instance.
    classes : ndarray of shape (n_classes,)
    random_state : numpy.random.RandomState

    Raises
    ------
    ValueError
        If the net does not learn from features.
    """

    def __init__(
        self,
        head: SoftLabelHead,
        net: Any,
        X: Any,
        codes: np.ndarray,
        bags: Bags | None,
        groups: Any,
        classes: np.ndarray,
        random_state: np.random.RandomState,
    ):
        self.head, self.net, self.codes = head, net, codes
        self.bags: Any = bags
        self.groups = np.full(len(codes), -1)
        if groups is not None:
            self.groups = np.unique(np.asarray(groups), return_inverse=True)[1]
        n_slides = 1 if (self.groups < 0).any() else len(np.unique(self.groups))
        self.slide_size = max(len(codes) / n_slides, EFFECTIVE_SIZE)  # most that a bag counts
        self._read(X, classes, random_state)
        self.known = np.eye(len(classes), dtype=np.float32)[codes]
        self.labels: Any = None  # soft, of the bags
        self.learned_from: Any = None  # instances of the bags, as a mask; None: all
        self.records_fit = True  # until it is tested
        self.independent: np.ndarray | None = (
            None  # shares from heads that never used the record of the bag
        )
        self.records_judged = False  # whether bags with wrong records have weight 0
        self.share_exchanged = 0.0  # share of the bags with records of other bags
        self.round_temperature = head.usual_temperature
        self.caution = 1.0  # temperature relative to the mean over held-out slides and bags
        self.fell_back = False

    def _read(self, X, classes, random_state):
        """Project all instances and keep them in memory."""
        parts = [X] if self.bags is None else [X, self.bags.X]
        self.projection = self._project(parts, classes, random_state)
        n_instances = sum(part.shape[0] for part in parts)
        self.X_all = np.empty((n_instances, len(self.projection.components)), dtype=np.float32)
        self.X, self.X_bags = self.X_all[: len(X)], self.X_all[len(X) :]
        for part, out in zip(parts, (self.X, self.X_bags), strict=False):
            self.projection(part, out)

    def _project(self, parts, classes, random_state) -> Projection:
        n_labeled, n_features = parts[0].shape
        n_instances = sum(part.shape[0] for part in parts)
        n_components = self.head.n_components or default_components(n_instances)
        order = np.arange(n_labeled)
        if self.bags is not None:  # the order of instances in a bag must not matter
            of_bags = n_labeled + length_order(self.bags.X, self.bags.index)
            order = np.append(order, of_bags)[self._offered(n_components)]
        rows = sample_rows(len(order), n_features, n_components, random_state, order)
        return self._projection_of(gather(parts, rows), n_components, classes, random_state)

    def _offered(self, n_components):
        """Positions from which the sample for scale and components is drawn, bags in :func:`length_order`.

        A bag offers as many instances as its labels count (:attr:`instance_weights`), or more if the
        components need more, at equal distances in this order.
        """
        n_labeled, sizes = len(self.codes), self.bags.sizes
        needed = (2 * n_components - n_labeled) / len(sizes)
        n_offered = np.minimum(sizes, int(np.ceil(max(self.slide_size, needed))))
        starts = n_labeled + np.cumsum(sizes) - sizes
        of_bags = [
            start + (2 * np.arange(n) + 1) * size // (2 * n)
            for start, size, n in zip(starts, sizes, n_offered, strict=True)
        ]
        return np.concatenate([np.arange(n_labeled), *of_bags])

    def _projection_of(self, sample, n_components, classes, random_state):
        self.net.initialize_for(sample, np.arange(len(sample)), classes)
        mean, scale = (part.numpy(force=True) for part in (self.net.head.mean, self.net.head.scale))
        return principal_components(sample, mean, scale, n_components, random_state)

    @property
    def instance_weights(self) -> np.ndarray:
        """Weight of an instance of each bag, so that no bag outweighs a labeled slide of average size.

        The patches of a bag are alike, and their labels are less certain than those of labeled patches. Where
        labeled slides are small, bags count as the number of instances that soft assignment takes as
        independent.
        """
        return np.minimum(1.0, self.slide_size / self.bags.sizes)

    def fit_labeled(self, *, new_weights: bool = True) -> dict:
        """Solve on the labeled instances, and on means of classes that bags tell better than these.

        What the fit falls back to learns from bags only about classes without labels, and so does the start
        if its predictions are no nearer to the records of their bags than to those of others: means told
        by wrong records would hide from later tests that the records are wrong.
        """
        weights = None if self.bags is None else self.bags.weights
        self.told, self.solution = self._start(weights)
        self.supervised = self.solution
        means, of_class = self.told
        unlabeled = (of_class @ self.known.sum(axis=0)) == 0
        if not unlabeled.all():
            of_unlabeled = means[unlabeled], of_class[unlabeled]
            self.supervised = self._solve_labeled(of_unlabeled)
            self.records_fit = self._records_fit()
            if not self.records_fit:
                self.told, self.solution = of_unlabeled, self.supervised
        if self.bags is not None:
            labeled = (self.X, self.known, self.groups)
            self.round_temperature = self.head.temperature_in_rounds(*labeled)
        return dict(NO_LOSSES)

    def _start(self, bag_weights):
        """Class means that bags of these weights tell, and the solution before the first round."""
        told = self._told_by_bags(bag_weights)
        return told, self._solve_labeled(told)

    def _solve_labeled(self, told):
        nothing = np.zeros(self.known.shape[1])
        return self.head.solve(*with_told(told, self.X, self.known, several(self.groups), nothing))

    def _told_by_bags(self, bag_weights):
        """Means of the classes for which the records of the bags are worth more than the labels."""
        bags, n_classes = self.bags, self.known.shape[1]
        if bags is None:
            return np.empty((0, self.X.shape[1]), np.float32), np.empty((0, n_classes), np.float32)
        shares = consistent_proportions(bags.proportions, bags.lower, bags.upper)
        found, n_labeled = self._class_means(shares, bag_weights), self.known.sum(axis=0)
        in_bags = (bags.sizes * (bag_weights > 0)) @ shares
        # of less than one instance nothing is known
        is_better = (n_labeled < found.worth) & self.records_fit
        told = np.where(n_labeled > 0, is_better, in_bags >= 1)
        return found.means[told].astype(np.float32), np.eye(n_classes, dtype=np.float32)[told]

    def _records_fit(self):
        """Whether predictions of the supervised solution are nearer to the records of their own bags."""
        counting = self.bags.weights > 0
        ends = [end[counting] for end in ends_of(self.bags)]
        found = exchange_records([self.supervised_shares()[counting]], *ends)
        return found is None or found.p <= LEVEL

    def _class_means(self, shares, bag_weights):
        return class_means(self.X, self.codes, self.X_bags, self.bags.index, shares, bag_weights)

    def probabilities(self) -> np.ndarray:
        """Class probabilities of the instances of the bags, at the temperature of the rounds."""
        return softmax(self.logits() / np.float32(self.round_temperature), axis=1)

    def logits(self) -> np.ndarray:
        """Logits of the instances of the bags."""
        return logits_of(self.X_bags, self.solution)

    def learn(self, labels: np.ndarray, n_epochs: int | None = None) -> dict:
        """Solve on the labeled instances and the signed labels of the bags."""
        self.labels = soft_labels(labels, self.probabilities())
        weights = self.instance_weights.astype(np.float32)
        if (weights < 1).any():
            self.labels *= weights[self.bags.index, np.newaxis]
        if self.learned_from is not None:
            self.labels *= self.learned_from[:, np.newaxis]
        labels, groups = self._all_labels()
        given = with_told(self.told, self.X_all, labels, groups, self.labels.sum(axis=0))
        self.solution = self.head.solve_from(self.solution, *given)
        return dict(NO_LOSSES)

    def refit(self) -> None:
        """Do nothing: every solution starts from scratch."""

    def _all_labels(self):
        """Labels and slides of the labeled instances and of those of the bags."""
        return np.concatenate([self.known, self.labels]), np.concatenate(self._all_groups())

    def _all_groups(self):
        return self.groups, self.bags.index + self.groups.max(initial=-1) + 1

    def cross_fit(self, new_rule: Callable[[], Callable], epochs: Sequence[int]) -> None:
        """Predict each half of the bags with a fit on the other half.

        Labels carry information from a record to later rounds and other bags. Leaving a bag out of the last
        solution only does not remove it.

        Parameters
        ----------
        new_rule : callable
            Returns a new ``give_labels`` for :func:`rounds`, without remembered labels.
        epochs : sequence of int
            As in :func:`rounds`.
        """
        bags = self.bags
        half = np.arange(bags.n_bags) % 2
        self.independent = np.empty((bags.n_bags, self.known.shape[1]))
        for one in (0, 1):
            other = copy.copy(self)
            other.learned_from = half[bags.index] != one
            other.told, other.solution = other._start(bags.weights * (half != one))
            for _ in rounds(other, new_rule(), bags, None, epochs):
                pass
            self.independent[half == one] = other.predicted_shares()[half == one]

    def predicted_shares(self) -> np.ndarray:
        """Predicted class shares of each bag, shape (n_bags, n_classes)."""
        return self._shares_of(self.logits())

    def supervised_shares(self) -> np.ndarray:
        """Class shares of each bag as predicted by the supervised solution."""
        return self._shares_of(logits_of(self.X_bags, self.supervised))

    def _shares_of(self, logits):
        codes, bags = logits.argmax(axis=1), self.bags
        return class_proportions(codes, bags.index, n_bags=bags.n_bags, n_classes=logits.shape[1])

    def finish(self) -> float:
        """Choose the temperature, write the solution into the net and return the temperature.

        Falls back to the supervised solution if held-out bags or slides show that the labels of the bags are
        harmful.
        """
        learned = self._has_labels()
        left_out: Any = None
        if learned:
            left_out = self._left_out_beside_bags()
            shares, sums = self._unseen_bags()
            self.fell_back = self._bags_say_so(shares) or self._slides_say_so(*left_out)
            learned = not self.fell_back
        if not learned:
            self.solution = self.supervised
        temperature = self.head.temperature
        if temperature is None and not learned:
            temperature = self.head.temperature_of(self.X, self.known, self.groups)
        elif temperature is None:
            by_bags = most_probable_temperature(sums)
            logits, fold = left_out
            by_labels = typical_temperature(logits, fold, self.known) or by_bags
            temperature = middle = float(np.sqrt(by_labels * by_bags))
            if self.records_judged:
                temperature = max(by_labels, by_bags)
            self.caution = temperature / middle
        coef, intercept = self.solution
        weight = self.projection.on_features(coef) / temperature
        self.net.head.set_linear(weight, intercept / temperature)
        return float(temperature)

    def _has_labels(self):
        return self.labels is not None and bool(self.labels.any())

    def _left_out_beside_bags(self):
        beside = (self.X_bags, self.labels, self._all_groups()[1])
        return self.head.left_out(self.X, self.known, self.groups, beside=beside)

    def _unseen_bags(self):
        """Predicted shares of held-out bags, and sums of their labels for choosing the temperature."""
        logits = self.left_out_logits()
        sums = temperature_sums(logits, self.labels * (logits > 0.5 * ABSENT))
        return self._shares_of(logits), sums

    def _bags_say_so(self, shares):
        """Whether held-out bags show that the records are uninformative or their labels harmful."""
        counting = self.bags.weights > 0
        ends = [end[counting] for end in ends_of(self.bags)]
        heads = [shares] if self.independent is None else [shares, self.independent]
        before, *unseen = (part[counting] for part in (self.supervised_shares(), *heads))
        return records_say_nothing([before, unseen[-1]], *ends) or any(
            leads_away(before, after, *ends) for after in unseen
        )

    def _slides_say_so(self, logits, fold):
        """Whether held-out labeled slides or instances show that the labels of the bags are harmful."""
        alone, of_alone = self.head.left_out(self.X, self.known, self.groups)
        rows = (fold >= 0) & (of_alone >= 0)
        before, after = (one[rows].argmax(axis=1) for one in (alone, logits))
        groups = None if (self.groups < 0).any() else self.groups[rows]
        return labels_say_so(before, after, self.codes[rows], groups)

    def left_out_logits(self) -> np.ndarray:
        """Logits of the instances of the bags, from heads fitted without their bag."""
        logits = np.zeros(self.labels.shape)
        fold = bag_folds(self.bags.n_bags)[self.bags.index]
        labels, groups = self._all_labels()
        for number in np.unique(fold):
            here = fold == number
            kept = np.append(np.full(len(self.X), True), ~here)
            labels_kept = labels * kept[:, np.newaxis]
            solution = self.head.solve_from(self.solution, self.X_all, labels_kept, groups)
            logits[here] = logits_of(self.X_bags[here], solution)
        return logits


def with_told(
    told: tuple[np.ndarray, np.ndarray],
    X: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    in_bags: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Let the means that bags tell stand for their classes while no instance of a bag has a label of these.

    The mean of few labeled instances is so far off in many dimensions that a discriminant predicts the class
    nowhere, and without any the probability of the class is 0. It would get no labels in later rounds and
    would be lost.

    Parameters
    ----------
    told : tuple of ndarray (means, labels)
        Means and classes, as instances with one label each.
    X, labels, groups
        As in :meth:`~proportion_ssl.heads.SoftLabelHead.solve`.
    in_bags : ndarray of shape (n_classes,)
        Sums of the labels of the instances of the bags.

    Returns
    -------
    X, labels, groups
        Unchanged if no mean is needed; otherwise other labels of these classes do not count.

    Examples
    --------
    >>> import numpy as np
    >>> told = np.array([[7.0]]), np.array([[0.0, 1.0]])
    >>> labeled = np.zeros((2, 1)), np.eye(2), np.array([3, 3])
    >>> X, labels, groups = with_told(told, *labeled, np.zeros(2))
    >>> X.tolist(), labels.tolist(), groups.tolist()
    ([[0.0], [0.0], [7.0]], [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]], [3, 3, -1])
    """
    means, of_class = told
    needed = of_class @ in_bags == 0
    if not needed.any():
        return X, labels, groups
    means, of_class = means[needed], of_class[needed]
    return (
        np.concatenate([X, means]),
        np.concatenate([labels * (1 - of_class.sum(axis=0)), of_class]),
        np.append(groups, np.full(len(means), -1)),
    )


def length_order(X: Any, bag_index: np.ndarray) -> np.ndarray:
    """Positions of the instances, bag by bag, in order of their distance from the origin.

    Instances at equal distances in this order are a systematic sample of a bag, which does not depend on
    where they are stored, on the unit of the features, or on copies of the whole bag.

    Parameters
    ----------
    X : array of shape (n_instances, n_features)
        Read once, and once more where lengths are equal.
    bag_index : ndarray of int, shape (n_instances,)

    Returns
    -------
    order : ndarray of int, shape (n_instances,)
        Instances of equal length are sorted by a hash of their values.

    Examples
    --------
    >>> import numpy as np
    >>> length_order(np.array([[3.0], [-1.0], [5.0], [2.0]]), np.array([1, 1, 0, 0])).tolist()
    [3, 2, 1, 0]
    """
    each = [(block.astype(np.float64) ** 2).sum(axis=1) for _, block in blocks(X)]
    lengths = np.concatenate(each)
    order = np.lexsort((lengths, bag_index))
    equal = (np.diff(lengths[order]) == 0) & (np.diff(bag_index[order]) == 0)
    return np.lexsort((content_hashes(X), lengths, bag_index)) if equal.any() else order


def bag_folds(n_bags: int) -> np.ndarray:
    """Fold in which each bag is held out, shape (n_bags,)."""
    return np.arange(n_bags) % min(N_BAG_FOLDS, max(2, n_bags))


# --- effect of the labels ------------------------------------------------------------------------


class HarmfulLabelsWarning(UserWarning):
    """Warning that pseudo labels were harmful and the supervised classifier is kept."""


def labels_say_so(
    before: np.ndarray, after: np.ndarray, codes: np.ndarray, groups: np.ndarray | None
) -> bool:
    """Test by held-out labeled patches whether pseudo labels are harmful; warn if so.

    Parameters
    ----------
    before, after : ndarray of int, shape (n_instances,)
        Predicted classes without and with pseudo labels.
    codes : ndarray of int, shape (n_instances,)
        Class of each instance.
    groups : ndarray of shape (n_instances,) or None
        Slide of each instance; None: not known.

    Returns
    -------
    harm : bool
        True if :func:`do_harm` or :func:`mix_up_classes` is.
    """
    if groups is not None and do_harm(before == codes, after == codes, codes, groups):
        return True
    return mix_up_classes(before, after, codes)


def mix_up_classes(before: np.ndarray, after: np.ndarray, codes: np.ndarray) -> bool:
    """Test whether pseudo labels destroy or exchange classes on held-out patches; warn if so.

    Patches of one slide are alike, so without pseudo labels they are predicted better than those of new
    slides. Only large effects therefore count, such as those of records with the classes in another order or
    of bags whose features are scaled differently.

    Parameters
    ----------
    before, after, codes
        As in :func:`labels_say_so`.

    Returns
    -------
    harm : bool
        True if balanced accuracy loses more than half of what it was above chance, or if exchanging
        classes improves the predictions; in both cases only if the change is more than three standard errors,
        with instances as independent.

    Notes
    -----
    With the right records of three cohorts, no fit lost more than a fifth.

    Examples
    --------
    >>> import numpy as np
    >>> codes = np.repeat([0, 1, 2], 20)
    >>> mix_up_classes(codes, codes, codes)
    False
    """
    classes, codes = np.unique(codes, return_inverse=True)
    if len(classes) < 2:
        return False
    n_classes, weights = len(classes), 1 / np.bincount(codes)[codes]
    truth = classes[codes]
    confusion = confusion_matrix(truth, after, labels=classes, sample_weight=weights)
    exchanged = classes[linear_sum_assignment(confusion, maximize=True)[1]][codes]
    right = [(one == truth).astype(float) for one in (before, after)]
    if_exchanged = [(one == exchanged).astype(float) for one in (before, after)]

    def is_clear(change):
        change = weights * change
        return change.sum() > CLEAR * float(np.sqrt((change**2).sum()))

    without, found, other = (float(weights @ one) / n_classes for one in (*right, if_exchanged[1]))
    changed = if_exchanged[1] - right[1]
    if other > found and is_clear(changed) and is_clear(changed - if_exchanged[0] + right[0]):
        _warn(
            f"on held-out labeled patches, balanced accuracy with bags is {found:.2f}, but {other:.2f} if "
            "classes are exchanged. Check that the classes of the records are in the right order"
        )
        return True
    lost = without - found > MOST_LOST * (without - 1 / n_classes)
    if not lost or not is_clear(right[0] - right[1]):
        return False
    _warn(
        f"balanced accuracy on held-out labeled patches is {found:.2f} with bags and {without:.2f} without. "
        "Check that the records belong to these bags, and that labeled patches and bags were preprocessed in "
        "the same way"
    )
    return True


def do_harm(before: np.ndarray, after: np.ndarray, codes: np.ndarray, groups: np.ndarray) -> bool:
    """Test whether pseudo labels degrade predictions on held-out slides; warn if so.

    Parameters
    ----------
    before, after : ndarray of bool, shape (n_instances,)
        Whether an instance is predicted correctly without and with pseudo labels.
    codes : ndarray of int, shape (n_instances,)
        Class of each instance; all classes have the same weight.
    groups : ndarray of shape (n_instances,)
        Slide of each instance.

    Returns
    -------
    harm : bool
        True if ``sum d_g / sqrt(sum d_g^2)`` is below -1.645 (one-sided level of 5%), where ``d_g`` is the
        change in balanced accuracy on slide g. Always False with fewer than three slides.

    Examples
    --------
    >>> import numpy as np
    >>> slides, right = np.arange(4), np.ones(4, dtype=bool)
    >>> do_harm(right, right, np.zeros(4, dtype=int), slides)
    False
    """
    if not len(codes):
        return False
    weights = 1 / np.bincount(codes)[codes]
    index = np.unique(groups, return_inverse=True)[1]
    changes = np.bincount(index, weights * (after.astype(float) - before))
    size = float(np.sqrt((changes**2).sum()))
    if size == 0 or changes.sum() / size >= HARM:
        return False
    n_classes = len(np.unique(codes))
    right = [float((weights * one).sum() / n_classes) for one in (before, after)]
    _warn(
        f"balanced accuracy on held-out labeled slides is {right[1]:.2f} with bags and {right[0]:.2f} "
        f"without ({len(changes)} slides)"
    )
    return True


def records_say_nothing(
    predicted: Sequence[np.ndarray],
    lower: np.ndarray | PartialRecord | OrderRecord,
    upper: np.ndarray | None = None,
) -> bool:
    """Test whether bags are as far from their own records as from those of other bags; warn if so.

    Parameters
    ----------
    predicted : sequence of ndarray of shape (n_bags, n_classes)
        Predicted proportions from one or several classifiers that were not trained on the records of these
        bags.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Intervals of the recorded proportions; equal for exact records. Pass an incomplete record as
        ``lower`` and omit ``upper``.

    Returns
    -------
    nothing : bool
        True if the mean distance to the own records is not among the smallest 5% over 999 random
        permutations of the records. Distances of each classifier are divided by their standard deviation
        over the permutations. Always False with fewer than ten bags, or if all records are equal.

    Examples
    --------
    >>> import numpy as np
    >>> predicted = np.random.default_rng(0).dirichlet(np.ones(3), 12)
    >>> records_say_nothing([predicted], predicted, predicted)
    False
    """
    found = exchange_records(predicted, lower, upper)
    if found is None or found.p <= LEVEL:
        return False
    _warn(
        f"recorded and predicted proportions differ by {found.own:.2f} on average (sum over the classes), "
        f"which is not significantly less than the {found.exchanged:.2f} found when the records of the "
        f"{found.n_bags} bags are permuted at random. Check that the records belong to these slides and that "
        "the classes are in the right order"
    )
    return True


class Exchange(NamedTuple):
    """Distances of bags to their own records and to those of other bags.

    ``own`` and ``exchanged`` are means of the last classifier.
    """

    p: float
    own: float
    exchanged: float
    n_bags: int


def exchange_records(
    predicted: Sequence[np.ndarray],
    lower: np.ndarray | PartialRecord | OrderRecord,
    upper: np.ndarray | None = None,
) -> Exchange | None:
    """Permutation test of the distances between predicted proportions and records.

    Parameters are those of :func:`records_say_nothing`.

    Returns
    -------
    found : Exchange or None
        ``p`` is the share of 999 random permutations of the records, and of the records as they are, whose
        mean distance is at most that of the records as they are. None: fewer than ten bags, or all records
        are equal.
    """
    rng = np.random.default_rng(0)
    chosen = _judged(len(predicted[0]), rng)
    predicted, lower = [one[chosen] for one in predicted], lower[chosen]
    upper = None if upper is None else upper[chosen]
    n_bags = len(chosen)
    if n_bags < FEWEST_JUDGED:
        return None
    bags = np.arange(n_bags)
    exchanges = [bags, *(rng.permutation(n_bags) for _ in range(999))]
    means = np.empty((len(predicted), len(exchanges)))
    for row, shares in zip(means, predicted, strict=True):
        to_all = _to_all(shares, lower, upper)
        row[:] = [to_all[bags, other].mean() for other in exchanges]
    own, exchanged = means[:, 0], means[:, 1:]
    told = np.ptp(exchanged, axis=1) >= 1e-9
    if not told.any():
        return None
    scaled = (means[told] / exchanged[told].std(axis=1, keepdims=True)).sum(axis=0)
    p = (1 + (scaled[1:] <= scaled[0]).sum()) / len(exchanges)
    return Exchange(float(p), float(own[-1]), float(exchanged[-1].mean()), n_bags)


def leads_away(
    before: np.ndarray,
    after: np.ndarray,
    lower: np.ndarray | PartialRecord | OrderRecord,
    upper: np.ndarray | None = None,
) -> bool:
    """Test whether pseudo labels move held-out bags away from their records; warn if so.

    Parameters
    ----------
    before, after : ndarray of shape (n_bags, n_classes)
        Predicted proportions without and with pseudo labels, from classifiers that were not trained on the
        records of these bags.
    lower, upper
        As in :func:`records_say_nothing`.

    Returns
    -------
    away : bool
        True if the mean distance increases by more than a tenth and by more than half a percentage point.
        Classes are weighted by the inverse of their mean recorded share (at least 1%), as in scores averaged
        over classes. Always False with fewer than ten bags.

    Notes
    -----
    This compares which of the two predicts unseen records better; it is not a significance test. Helpful
    labels move bags much nearer to their records, and falling back loses nothing if the head is as good
    without bags.

    Examples
    --------
    >>> import numpy as np
    >>> recorded = np.random.default_rng(0).dirichlet(np.ones(3), 12)
    >>> leads_away(np.full((12, 3), 1 / 3), recorded, recorded, recorded)
    False
    """
    if len(before) < FEWEST_JUDGED:
        return False
    nearest = [_nearest(shares, lower, upper) for shares in (before, after)]
    class_weights = 1 / np.maximum(np.mean(nearest, axis=(0, 1)), RAREST)
    without, found = (
        float((np.abs(one - shares) @ class_weights).mean() / class_weights.sum())
        for one, shares in zip(nearest, (before, after), strict=True)
    )
    if found <= max(AWAY * without, without + LEAST_AWAY):
        return False
    _warn(
        f"recorded and predicted proportions of held-out bags differ by {found:.3f} on average with pseudo "
        f"labels and by {without:.3f} without ({len(before)} bags, rare classes have more weight)"
    )
    return True


def distances(
    predicted: np.ndarray,
    lower: np.ndarray | PartialRecord | OrderRecord,
    upper: np.ndarray | None = None,
) -> np.ndarray:
    """Distance of the predicted proportions of each bag from the nearest ones that its record admits.

    Parameters
    ----------
    predicted : ndarray of shape (n_bags, n_classes)
    lower, upper
        As in :func:`records_say_nothing`.

    Returns
    -------
    distance : ndarray of shape (n_bags,)
        Sum of the absolute differences, in [0, 2].
    """
    return np.abs(_nearest(predicted, lower, upper) - predicted).sum(axis=1)


def share_exchanged(
    predicted: np.ndarray,
    lower: np.ndarray | PartialRecord | OrderRecord,
    upper: np.ndarray | None = None,
) -> float:
    """Estimate the share of the bags whose record is that of another bag.

    Parameters
    ----------
    predicted : ndarray of shape (n_bags, n_classes)
        Predicted proportions.
    lower, upper
        As in :func:`records_say_nothing`.

    Returns
    -------
    share : float in [0, 1]
        0 with fewer than three bags.

    Notes
    -----
    Storey's estimate of the share of true null hypotheses [1]_ at ``lambda = 1/2``. The hypothesis is that a
    record has nothing to do with its bag; its p value is the rank of the distance of its own bag among the
    distances of all bags. Under it, half of the records are nearer to most of the other bags than to their
    own, so the share of exchanged records is about twice the share of such records. A poor classifier makes
    all distances large, and does not increase this estimate much. At most 500 bags are used.

    References
    ----------
    .. [1] Storey. "A direct approach to false discovery rates". JRSS B 64, 2002.

    Examples
    --------
    >>> import numpy as np
    >>> predicted = np.random.default_rng(0).dirichlet(np.ones(3), 40)
    >>> recorded = np.concatenate([np.roll(predicted[:10], 1, axis=0), predicted[10:]])
    >>> share_exchanged(predicted, recorded, recorded), share_exchanged(predicted, predicted, predicted)
    (0.2, 0.0)
    """
    chosen = _judged(len(predicted), np.random.default_rng(0))
    if len(chosen) < 3:
        return 0.0
    of_chosen = None if upper is None else upper[chosen]
    to_all = _to_all(predicted[chosen], lower[chosen], of_chosen)
    own = np.diag(to_all)
    nearer = (to_all < own).sum(axis=0) + ((to_all == own).sum(axis=0) - 1) / 2
    return min(1.0, 2.0 * float((nearer / (len(chosen) - 1) > 0.5).mean()))


def _to_all(predicted, lower, upper):
    """:func:`distances` of each bag, in rows, from the record of every bag, in columns."""
    each = [distances(np.tile(one, (len(predicted), 1)), lower, upper) for one in predicted]
    return np.stack(each)


def _judged(n_bags, rng):
    """The bags whose records are compared with each other."""
    if n_bags <= MOST_JUDGED:
        return np.arange(n_bags)
    return rng.choice(n_bags, MOST_JUDGED, replace=False)


def _nearest(predicted, lower, upper):
    if upper is None:
        return lower.nearest(predicted)
    return nearest_proportions(predicted, lower, upper)


def _warn(reason):
    warn(
        f"The pseudo labels are harmful or uninformative: {reason}. The supervised classifier is kept "
        "(fell_back_).",
        HarmfulLabelsWarning,
    )


def soft_labels(signed: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Convert signed labels to equivalent soft labels for a directly solved head.

    Parameters
    ----------
    signed : ndarray of shape (n_instances, n_classes)
        Signed labels; their absolute values are weights.
    probabilities : ndarray of shape (n_instances, n_classes)
        Predictions from which the labels were derived.

    Returns
    -------
    soft : ndarray of float32, shape (n_instances, n_classes)
        Positive labels are unchanged. Rows with only negative labels hold the prediction restricted to the
        other classes, with the sum ``(C - n) / (C - 1)`` times the weight for n negative labels. Rows are 0
        without labels, or if all classes are negative.

    Notes
    -----
    For one negative label c this is equation (3) of the paper: ``-log(1 - f_c)`` and the cross-entropy with
    ``q = f / (1 - f_c)`` on the other classes have the same gradient at f, and the latter is an upper bound
    elsewhere. Alternating between solving for q and updating it therefore minimizes equation (3), as in EM.
    Several negative labels are excluded together, with the weight of equation (4).

    Examples
    --------
    >>> import numpy as np
    >>> signed = np.array([[1, 0, 0], [-1, 0, 0], [-1, -1, 0]])
    >>> soft_labels(signed, np.array([[0.5, 0.3, 0.2]] * 3)).round(2).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.6000000238418579, 0.4000000059604645], [0.0, 0.0, 0.5]]
    """
    soft = np.maximum(signed, 0).astype(np.float32)
    rows = np.flatnonzero((signed < 0).any(axis=1) & ~(signed > 0).any(axis=1))
    excluded = signed[rows] < 0
    n_classes, n_negative = signed.shape[1], excluded.sum(axis=1, keepdims=True)
    left = np.where(excluded, 0, probabilities[rows]).astype(np.float64)
    total = left.sum(axis=1, keepdims=True)
    even = np.where(excluded, 0.0, 1.0) / np.maximum(n_classes - n_negative, 1)
    left = np.where(total > 0, left / np.where(total > 0, total, 1), even)
    size = np.abs(signed[rows]).sum(axis=1, keepdims=True) / n_negative
    soft[rows] = left * size * (n_classes - n_negative) / (n_classes - 1)
    return soft


def logits_of(X: np.ndarray, solution: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Logits of projected features, in float32.

    Parameters
    ----------
    X : ndarray of float32, shape (n_instances, n_components)
    solution : tuple of ndarray (coef, intercept)

    Returns
    -------
    logits : ndarray of float32, shape (n_instances, n_classes)
    """
    coef, intercept = solution
    return X @ coef.astype(np.float32) + intercept.astype(np.float32)
