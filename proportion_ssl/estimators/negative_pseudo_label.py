"""Negative pseudo labelling: labelled patches and bags with known proportions in one estimator."""

from numbers import Integral
from types import NoneType
from typing import Any

import numpy as np
from skorch import NeuralNet

from proportion_ssl._sklearn import HasMethods, Interval, StrOptions, visual_block
from proportion_ssl.estimators._base import NetBagClassifier, weighted_labels
from proportion_ssl.losses.signed_labels import NegativeLoss, PositiveLoss, multi_negative_loss
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.training import (
    split_validation,
    train_epochs,
    train_until_settled,
    training_rows,
)
from proportion_ssl.pseudo_labels.label_log import LabelLog, LoggedLabels
from proportion_ssl.pseudo_labels.picking import merge_rounds
from proportion_ssl.pseudo_labels.selectors import AdaptiveSelector, NegativeSelector

#: The settings that the paper states; see :class:`NegativePseudoLabelClassifier`.
PAPER_SETTINGS = {
    "learning_rate": 1e-5,
    "batch_size": 18,
    "max_epochs": 100,
    "patience": 10,
    "negative_memory": None,
    "epoch_size": None,
    "refit": False,
}


class NegativePseudoLabelClassifier(LoggedLabels, NetBagClassifier):
    """Patch classifier from a few labelled patches and bags with known class proportions.

    Fits a net on the labelled patches, then repeats: predict every bag, compare predicted with
    recorded proportions, give confident patches positive pseudo labels and doubtful patches of
    over-predicted classes negative ones ("not this class"), train on.

    Parameters
    ----------
    estimator : skorch.NeuralNet, default=None
        Net whose module returns logits. Default: :class:`~proportion_ssl.HeadClassifier` on features,
        :class:`~proportion_ssl.MobileNetV2Classifier` on images.
    positive_selector : transformer or None, default="default"
        Chooses positive pseudo labels: class probabilities to signed labels, such as
        :class:`~proportion_ssl.ThresholdSelector`. "default" is :class:`~proportion_ssl.AdaptiveSelector`;
        None switches positive labels off.
    negative_selector : transformer or None, default="default"
        Chooses negative pseudo labels. "default" is :class:`~proportion_ssl.NegativeSelector`; None
        switches them off.
    multi_negative : bool, default=True
        Whether an instance keeps the negative labels of earlier rounds beside those of this round.
    negative_memory : int or None, default=3
        With ``multi_negative``, in how many rounds a negative label counts, the one that gave it
        included; None: in all that follow, as the paper has it.
    positive_loss, negative_loss : loss module, default=None
        Losses of positive and negative labels. Default: ``PositiveLoss()`` and
        ``NegativeLoss(multi_negative_loss)`` of :mod:`proportion_ssl.losses`.
    max_epochs : int, default=100
        Most epochs of the supervised step, again of all rounds together, and again of the refit.
    epochs_per_round : int, default=1
        Epochs between two renewals of the pseudo labels.
    epoch_size : int or None, default=4096
        Most instances of an epoch, repeated ones included: of more data each epoch takes a new random
        part, so that time does not grow with their number. None: every epoch takes all.
    refit : bool, default=True
        Whether new weights are trained, after the last round, on the labelled patches and the pseudo
        labels of that round, instead of keeping the weights that went through all rounds.
    patience : int, default=10
        The supervised step and the refit end after so many epochs without a smaller validation loss.
    validation_fraction : float in [0, 1), default=0.25
        Share of the labelled patches that is set aside to decide when to stop.
    learning_rate : float, default=None
        Step size of the optimiser. Default: the net's own, which for the default nets is 1e-3 on 1280
        features and grows as their number shrinks (see :class:`~proportion_ssl.HeadClassifier`).
    batch_size : int, default=None
        Default: the net's own, which is 64 for the default nets.
    oversample : bool, default=True
        Repeat labelled and positively labelled patches until all classes are as frequent as the largest.
    warm_start : bool, default=False
        Whether ``fit`` goes on from the net of the last ``fit``, with new bags, new labelled patches or
        corrected proportions, instead of starting again. With bags the supervised step is then skipped.
    random_state : int, RandomState instance or None, default=None
        Decides validation patches, first weights, order of batches and dropout.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : skorch.NeuralNet
        The trained net.
    n_iter_ : int
        Number of rounds of pseudo labels.
    history_ : list of dict
        One entry for the supervised step (round 0) and one per round: ``round``, ``n_epochs``,
        ``train_loss`` and ``valid_loss`` of the weights that came of it; from round 1 on
        ``sum_absolute_error`` (mean over the bags, before the round's training), ``n_positive`` and
        ``n_negative`` (labels given, per class).
    refit_history_ : dict or None
        ``n_epochs``, ``train_loss`` and ``valid_loss`` of the refit; None if there was none.
    termination_condition_ : {"no_bags", "no_selector", "max_epochs"}
        Why training ended.
    label_log_ : LabelLog
        The pseudo labels, as changes by round and rule: ``to_frame()`` is a tidy table, ``replay(round)`` the
        labels of a round. Only with bags. The four attributes that follow are read from it.
    signed_labels_ : ndarray of int8, shape (n_bag_instances, n_classes)
        Pseudo labels of the last round; +1 "is", -1 "is not", 0 unknown. Soft labels (a selector such as
        :class:`~proportion_ssl.SoftAssignmentSelector`) count as positive above one half.
    label_rounds_ : ndarray of int32, shape (n_bag_instances, n_classes)
        The round since which each of these labels has stood without a break; 0: no label.
    bag_index_, bag_names_ : ndarray
        Bag of each instance of ``signed_labels_`` as a position in ``bag_names_``.
    n_features_in_ : int
        Number of features, or of channels of an image.

    Notes
    -----
    Method and equations are of Tokunaga et al. [1]_. Where the print cannot be followed the part
    concerned says so (:func:`~proportion_ssl.proportions.sum_absolute_error`,
    :func:`~proportion_ssl.pseudo_labels.negative_selectivity`,
    :func:`~proportion_ssl.losses.negative_loss`). What the paper leaves open is settled so:

    - a negatively labelled patch weighs as much as a positively labelled one in the mean over a batch;
    - negative labels are remembered for ``negative_memory`` rounds, since a label of an early, poor net
      that is never forgotten costs accuracy; a patch that receives a positive label has only that;
    - labels are renewed after every epoch; the optimiser goes on from round to round;
    - the rounds train for ``max_epochs``: the validation loss of labelled slides says little about
      slides that are stained otherwise, so it does not end them. It ends the refit, in which new
      weights learn from the last, best pseudo labels without the memory of earlier, worse ones.

    ``PAPER_SETTINGS`` holds the learning rate, batch size and memory of the paper, without refit.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> from proportion_ssl import NegativePseudoLabelClassifier
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=8, random_state=0)
    >>> clf = NegativePseudoLabelClassifier(max_epochs=20, random_state=0)
    >>> clf = clf.fit(data.X_labeled, data.y, data.bags)
    >>> clf.predict(data.X_test).shape == data.y_test.shape
    True
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **NetBagClassifier._parameter_constraints,
        "positive_selector": [StrOptions({"default"}), HasMethods("transform"), None],
        "negative_selector": [StrOptions({"default"}), HasMethods("transform"), None],
        "multi_negative": ["boolean"],
        "negative_memory": [Interval(Integral, 1, None, closed="left"), None],
        "positive_loss": [HasMethods("instance_losses"), None],
        "negative_loss": [HasMethods("instance_losses"), None],
        "epochs_per_round": [Interval(Integral, 1, None, closed="left")],
        "epoch_size": [Interval(Integral, 1, None, closed="left"), None],
        "refit": ["boolean"],
        "warm_start": ["boolean"],
    }

    _kept = NetBagClassifier._kept.extended(
        always={
            "history_": (list,),
            "n_iter_": (int,),
            "refit_history_": (dict, NoneType),
            "termination_condition_": (str,),
        }
    )

    def __init__(
        self,
        estimator: NeuralNet | None = None,
        *,
        positive_selector: Any = "default",
        negative_selector: Any = "default",
        multi_negative: bool = True,
        negative_memory: int | None = 3,
        positive_loss: Any = None,
        negative_loss: Any = None,
        max_epochs: int = 100,
        epochs_per_round: int = 1,
        epoch_size: int | None = 4096,
        refit: bool = True,
        patience: int = 10,
        validation_fraction: float = 0.25,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        oversample: bool = True,
        warm_start: bool = False,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.positive_selector = positive_selector
        self.negative_selector = negative_selector
        self.multi_negative = multi_negative
        self.negative_memory = negative_memory
        self.positive_loss = positive_loss
        self.negative_loss = negative_loss
        self.max_epochs = max_epochs
        self.epochs_per_round = epochs_per_round
        self.epoch_size = epoch_size
        self.refit = refit
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.oversample = oversample
        self.warm_start = warm_start
        self.random_state = random_state

    def _make_net(self, *, is_images):
        net = super()._make_net(is_images=is_images)
        return net.set_params(
            criterion__positive=self.positive_loss or PositiveLoss(),
            criterion__negative=self.negative_loss or NegativeLoss(multi_negative_loss),
        )

    def _fit_net(self, net, X, codes, bags, groups, random_state):
        labeled = self._fit_supervised(net, X, codes, bags, groups, random_state)
        if bags is not None:
            self._fit_rounds(net, X, bags, labeled, random_state)

    def _start(self, *, is_images):
        """A new net, or with warm start the one of the last fit."""
        if not (self.warm_start and hasattr(self, "estimator_")):
            return self._make_net(is_images=is_images)
        if not np.array_equal(self.estimator_.classes_, self.classes_):
            raise ValueError(
                f"warm_start: the last fit knew the classes {self.estimator_.classes_.tolist()}, y now holds "
                f"{self.classes_.tolist()}; give the same classes, or set warm_start=False."
            )
        return self.estimator_

    def _fit_supervised(self, net, X, codes, bags, groups, random_state):
        """Train on the labelled patches; returns their signed labels and the validation data."""
        _, validation_rows = split_validation(codes, self.validation_fraction, random_state, groups)
        signed = np.eye(len(self.classes_), dtype=np.int8)[codes]
        validation = SignedDataset(X, signed, validation_rows) if len(validation_rows) else None
        known = signed.copy()
        known[validation_rows] = 0
        self.n_iter_, self.termination_condition_, self.refit_history_ = 0, "no_bags", None
        is_warm = net is getattr(self, "estimator_", None)
        if is_warm and getattr(net, "data_shape_", X.shape[1:]) != X.shape[1:]:
            raise ValueError(
                f"warm_start: the last fit had instances of shape {net.data_shape_}, X_labeled now has "
                f"{X.shape[1:]}; give the same kind, or set warm_start=False."
            )
        if not is_warm:
            losses = self._train_anew(net, [X], known, validation, random_state)
        elif bags is None:
            losses = self._train_on(net, [X], known, validation, random_state)
        else:
            losses = {"n_epochs": 0, "train_loss": None, "valid_loss": None}
        self.history_ = [{"round": 0, **losses}]
        return known, validation

    def _fit_rounds(self, net, X, bags, labeled, random_state):
        """Renew pseudo labels and train on, until the epochs are used up; then train anew."""
        known, validation = labeled
        positive_selector, negative_selector = self._make_selectors()
        self.label_log_ = LabelLog(bags.index, bags.names, self.classes_)
        last_negative = np.zeros((bags.n_instances, len(self.classes_)), dtype=np.int32)
        if positive_selector is None and negative_selector is None:
            self.termination_condition_ = "no_selector"
            return
        self.termination_condition_ = "max_epochs"

        n_epochs = self.max_epochs
        while n_epochs > 0:
            self.n_iter_ += 1
            probabilities = net.predict_proba(SignedDataset(bags.X))
            positive = self._select(positive_selector, probabilities, bags)
            negative = self._select(negative_selector, probabilities, bags)
            last_negative[negative < 0] = self.n_iter_
            labels = merge_rounds(positive, negative, self._remembered(last_negative))
            self.label_log_.record(labels, remembered=negative == 0)

            signed = np.concatenate([known, weighted_labels(labels, bags)])
            picked = training_rows(signed, random_state, balance=self.oversample)
            n_now = min(self.epochs_per_round, n_epochs)
            data = SignedDataset([X, bags.X], signed, picked)
            train_epochs(net, data, validation, n_now, epoch_size=self.epoch_size)
            n_epochs -= n_now
            self._record_round(net, n_now, probabilities, bags)

        if self.refit:
            self.refit_history_ = self._train_anew(
                net, [X, bags.X], signed, validation, random_state
            )

    def _train_anew(self, net, parts, signed, validation, random_state):
        """New weights, trained on what carries a label until the validation loss settles."""
        rows = np.flatnonzero(signed[: len(parts[0])].any(axis=1))
        self._initialize(net, parts[0], rows)
        return self._train_on(net, parts, signed, validation, random_state)

    def _train_on(self, net, parts, signed, validation, random_state):
        """Train the weights as they are until the validation loss settles."""
        n_before = len(net.history)
        train_until_settled(
            net,
            SignedDataset(
                parts, signed, training_rows(signed, random_state, balance=self.oversample)
            ),
            validation,
            max_epochs=self.max_epochs,
            patience=self.patience,
            epoch_size=self.epoch_size,
        )
        return {"n_epochs": len(net.history) - n_before, **_losses(net, n_before)}

    def _make_selectors(self):
        defaults = {"positive_selector": AdaptiveSelector, "negative_selector": NegativeSelector}
        return [
            default() if getattr(self, name) == "default" else getattr(self, name)
            for name, default in defaults.items()
        ]

    def _sk_visual_block_(self):
        """Net and selectors, those used by default too, as blocks of the picture in notebooks."""
        positive_selector, negative_selector = self._make_selectors()
        parts = {
            "estimator": getattr(self, "estimator_", self.estimator),
            "positive_selector": positive_selector,
            "negative_selector": negative_selector,
        }
        parts = {name: part for name, part in parts.items() if part is not None}
        if not parts:
            return visual_block("single", self, names=type(self).__name__, name_details=str(self))
        return visual_block(
            "parallel",
            list(parts.values()),
            names=[f"{name}: {type(part).__name__}" for name, part in parts.items()],
            name_details=[str(part) for part in parts.values()],
        )

    def _select(self, selector, probabilities, bags):
        if selector is None:
            return np.zeros(probabilities.shape, dtype=np.int8)
        labels = selector.transform(
            probabilities, bag_ids=bags.index, bag_proportions=bags.recorded
        )
        return np.asarray(labels)  # a DataFrame where scikit-learn is set to give these

    def _remembered(self, last_negative):
        """Negative labels of earlier rounds that still count."""
        if not self.multi_negative:
            return np.zeros(last_negative.shape, dtype=np.int8)
        oldest = 1 if self.negative_memory is None else self.n_iter_ - self.negative_memory + 1
        return -(last_negative >= max(1, oldest)).astype(np.int8)

    def _record_round(self, net, n_epochs, probabilities, bags):
        signed = self.label_log_.signed_labels
        self.history_.append(
            {
                "round": self.n_iter_,
                "n_epochs": n_epochs,
                **_losses(net),
                "sum_absolute_error": self._sum_absolute_error(probabilities.argmax(axis=1), bags),
                "n_positive": (signed > 0).sum(axis=0).tolist(),
                "n_negative": (signed < 0).sum(axis=0).tolist(),
            }
        )


def _losses(net: NeuralNet, best_since: int | None = None) -> dict:
    """Losses of the last epoch, or of the best since an earlier one; None where not measured."""
    row = net.history[-1]
    if best_since is not None and "valid_loss" in row:
        row = min(net.history[best_since:], key=lambda epoch: epoch["valid_loss"])
    return {
        name: float(row[name]) if name in row else None for name in ("train_loss", "valid_loss")
    }
