"""Negative pseudo labelling: labelled patches and bags with known proportions in one estimator."""

from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context, clone
from sklearn.utils import check_random_state, column_or_1d, metadata_routing
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data
from skorch import NeuralNet

from proportion_ssl.bags import check_bags
from proportion_ssl.losses import MultiNegativeLoss, PositiveLoss
from proportion_ssl.nets.data import SignedDataset
from proportion_ssl.nets.mobilenet import check_images
from proportion_ssl.nets.net import (
    SIGNED_LABEL_SETTINGS,
    HeadClassifier,
    MobileNetV2Classifier,
    SignedLabelNet,
)
from proportion_ssl.nets.training import (
    split_validation,
    train_epochs,
    train_until_settled,
    training_rows,
)
from proportion_ssl.picking import merge_rounds
from proportion_ssl.proportions import class_proportions, sum_absolute_error
from proportion_ssl.selection import AdaptiveSelector, NegativeSelector

#: The settings that the paper states; see :class:`NegativePseudoLabelClassifier`.
PAPER_SETTINGS = {
    "learning_rate": 1e-5,
    "batch_size": 18,
    "max_epochs": 100,
    "patience": 10,
    "negative_memory": None,
    "refit": False,
}


class NegativePseudoLabelClassifier(ClassifierMixin, BaseEstimator):
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
        What a label costs. Default: :class:`~proportion_ssl.PositiveLoss` and
        :class:`~proportion_ssl.MultiNegativeLoss`.
    max_epochs : int, default=100
        Most epochs of the supervised step, again of all rounds together, and again of the refit.
    epochs_per_round : int, default=1
        Epochs between two renewals of the pseudo labels.
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
    signed_labels_ : ndarray of int8, shape (n_bag_instances, n_classes)
        Pseudo labels of the last round; +1 "is", -1 "is not", 0 unknown. Only with bags.
    label_rounds_ : ndarray of int32, shape (n_bag_instances, n_classes)
        The round since which each of these labels has stood without a break; 0: no label.
    bag_index_, bag_names_ : ndarray
        Bag of each instance of ``signed_labels_`` as a position in ``bag_names_``.
    n_features_in_ : int
        Number of features, or of channels of an image.

    Notes
    -----
    Method and equations are of Tokunaga et al. [1]_. Where the print cannot be followed the part
    concerned says so (:func:`~proportion_ssl.sum_absolute_error`,
    :func:`~proportion_ssl.negative_selectivity`,
    :func:`~proportion_ssl.negative_loss`). What the paper leaves open is settled so:

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

    __metadata_request__fit = {  # noqa: RUF012 - scikit-learn's protocol
        "X_labeled": metadata_routing.UNUSED,
        "X_bags": True,
        "bag_proportions": True,
        "groups": True,
    }

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        "estimator": [HasMethods(["fit_loop", "initialize"]), None],
        "positive_selector": [StrOptions({"default"}), HasMethods("transform"), None],
        "negative_selector": [StrOptions({"default"}), HasMethods("transform"), None],
        "multi_negative": ["boolean"],
        "negative_memory": [Interval(Integral, 1, None, closed="left"), None],
        "positive_loss": [HasMethods("instance_losses"), None],
        "negative_loss": [HasMethods("instance_losses"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "epochs_per_round": [Interval(Integral, 1, None, closed="left")],
        "refit": ["boolean"],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "oversample": ["boolean"],
        "random_state": ["random_state"],
    }

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
        refit: bool = True,
        patience: int = 10,
        validation_fraction: float = 0.25,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        oversample: bool = True,
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
        self.refit = refit
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.oversample = oversample
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X_labeled: Any,
        y: Any,
        X_bags: Any = None,
        bag_proportions: Any = None,
        *,
        groups: Any = None,
    ) -> "NegativePseudoLabelClassifier":
        """Train on labelled patches and on bags.

        Parameters
        ----------
        X_labeled : array-like of shape (n_labeled, n_features) or (n_labeled, height, width, 3)
            Features, or uint8 images (an array, or a lazily read sequence of that shape).
        y : array-like of shape (n_labeled,)
            Labels, integers or strings.
        X_bags : Bags, or sequence of n_bags arrays, optional
            Instances of the weakly labelled slides. Without them this is the supervised fit.
        bag_proportions : array-like or DataFrame of shape (n_bags, n_classes), or Bags, optional
            Recorded class proportions: columns in sorted order of the classes, or a DataFrame indexed by bag
            with a column per class. May be left out if ``X_bags`` is a ``Bags`` that holds them.
        groups : array-like of shape (n_labeled,), optional
            Slide of each labelled patch: validation then takes whole slides instead of patches. A
            bag must not bear the name of one of these slides.

        Returns
        -------
        self : NegativePseudoLabelClassifier

        Raises
        ------
        ValueError, TypeError
            When the input does not fit together; the message names the bag or class.
        """
        random_state = check_random_state(self.random_state)
        X, codes = self._check_labeled(X_labeled, y, groups)
        bags = self._check_bags(X, X_bags, bag_proportions, groups)
        net = self._make_net(is_images=len(X.shape) == 4)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_state.randint(np.iinfo(np.int32).max))
            X = _embed(net, X)
            labeled = self._fit_supervised(net, X, codes, groups, random_state)
            if bags is not None:
                bags = bags.with_instances(_embed(net, bags.X))
                self._fit_rounds(net, X, bags, labeled, random_state)
        self.estimator_ = net
        return self

    def _fit_supervised(self, net, X, codes, groups, random_state):
        """Train on the labelled patches; returns their signed labels and the validation data."""
        _, validation_rows = split_validation(codes, self.validation_fraction, random_state, groups)
        signed = np.eye(len(self.classes_), dtype=np.int8)[codes]
        validation = SignedDataset(X, signed, validation_rows) if len(validation_rows) else None
        known = signed.copy()
        known[validation_rows] = 0
        self.n_iter_, self.termination_condition_, self.refit_history_ = 0, "no_bags", None
        losses = self._train_anew(net, [X], known, validation, random_state)
        self.history_ = [{"round": 0, **losses}]
        return known, validation

    def _fit_rounds(self, net, X, bags, labeled, random_state):
        """Renew pseudo labels and train on, until the epochs are used up; then train anew."""
        known, validation = labeled
        positive_selector, negative_selector = self._make_selectors()
        self.bag_index_, self.bag_names_ = bags.index, bags.names
        self.signed_labels_ = np.zeros((bags.n_instances, len(self.classes_)), dtype=np.int8)
        self.label_rounds_ = np.zeros(self.signed_labels_.shape, dtype=np.int32)
        last_negative = np.zeros(self.signed_labels_.shape, dtype=np.int32)
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
            self._record_labels(merge_rounds(positive, negative, self._remembered(last_negative)))

            signed = np.concatenate([known, self.signed_labels_])
            picked = training_rows(signed, random_state, balance=self.oversample)
            n_now = min(self.epochs_per_round, n_epochs)
            train_epochs(net, SignedDataset([X, bags.X], signed, picked), validation, n_now)
            n_epochs -= n_now
            self._record_round(net, n_now, probabilities, bags)

        if self.refit:
            self.refit_history_ = self._train_anew(
                net, [X, bags.X], signed, validation, random_state
            )

    def _train_anew(self, net, parts, signed, validation, random_state):
        """New weights, trained on what carries a label until the validation loss settles."""
        rows = np.flatnonzero(signed[: len(parts[0])].any(axis=1))
        _initialize(net, parts[0], rows, self.classes_)
        train_until_settled(
            net,
            SignedDataset(
                parts, signed, training_rows(signed, random_state, balance=self.oversample)
            ),
            validation,
            max_epochs=self.max_epochs,
            patience=self.patience,
        )
        return {"n_epochs": len(net.history), **_losses(net, best=True)}

    def _make_selectors(self):
        defaults = {"positive_selector": AdaptiveSelector, "negative_selector": NegativeSelector}
        return [
            default() if getattr(self, name) == "default" else getattr(self, name)
            for name, default in defaults.items()
        ]

    def _select(self, selector, probabilities, bags):
        if selector is None:
            return np.zeros(probabilities.shape, dtype=np.int8)
        return selector.transform(
            probabilities, bag_ids=bags.index, bag_proportions=bags.proportions
        )

    def _remembered(self, last_negative):
        """Negative labels of earlier rounds that still count."""
        if not self.multi_negative:
            return np.zeros(last_negative.shape, dtype=np.int8)
        oldest = 1 if self.negative_memory is None else self.n_iter_ - self.negative_memory + 1
        return -(last_negative >= max(1, oldest)).astype(np.int8)

    def _record_labels(self, signed):
        stands = (signed != 0) & (signed == self.signed_labels_)
        rounds = np.where(stands, self.label_rounds_, self.n_iter_ * (signed != 0))
        self.label_rounds_ = rounds.astype(np.int32)
        self.signed_labels_ = signed

    def _record_round(self, net, n_epochs, probabilities, bags):
        predicted = class_proportions(
            probabilities.argmax(axis=1),
            bags.index,
            n_bags=bags.n_bags,
            n_classes=len(self.classes_),
        )
        self.history_.append(
            {
                "round": self.n_iter_,
                "n_epochs": n_epochs,
                **_losses(net),
                "sum_absolute_error": float(sum_absolute_error(bags.proportions, predicted).mean()),
                "n_positive": (self.signed_labels_ > 0).sum(axis=0).tolist(),
                "n_negative": (self.signed_labels_ < 0).sum(axis=0).tolist(),
            }
        )

    def _make_net(self, *, is_images):
        if self.estimator is None:
            net = MobileNetV2Classifier() if is_images else HeadClassifier()
        else:
            net = clone(self.estimator)
            net.callbacks__valid_acc = None  # skorch's accuracy cannot read signed labels
        net.set_params(
            **SIGNED_LABEL_SETTINGS,
            criterion__positive=self.positive_loss or PositiveLoss(),
            criterion__negative=self.negative_loss or MultiNegativeLoss(),
        )
        if self.learning_rate is not None:
            net.set_params(lr=self.learning_rate)
        if self.batch_size is not None:
            net.set_params(batch_size=self.batch_size)
        return net

    def _check_labeled(self, X, y, groups):
        """Instances as float32 features or uint8 images, and class indices."""
        if _is_images(X):
            check_images(X)
            self.n_features_in_ = X.shape[3]
            y = column_or_1d(y, warn=True)
            check_consistent_length(X, y)
        else:
            X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
        check_classification_targets(y)
        if groups is not None and len(groups) != len(y):
            raise ValueError(
                f"groups has {len(groups)} entries but there are {len(y)} labelled patches; give the "
                "slide of each."
            )
        self.is_images_ = len(X.shape) == 4
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds one class ({self.classes_[0]!r}); at least two classes are needed."
            )
        return X, codes

    def _check_bags(self, X, X_bags, bag_proportions, groups):
        """The bags, checked against labelled instances and slides; None without bags."""
        if X_bags is None:
            if bag_proportions is not None:
                raise ValueError("bag_proportions is given without X_bags; give both or neither.")
            return None
        if isinstance(X_bags, list) and len(X_bags) == X.shape[0]:
            raise ValueError(
                f"X_bags is a list of {len(X_bags)} arrays, as many as there are labelled patches. Cross-"
                "validation slices such lists and loses bags; pass Bags(X_bags, proportions=...) or a tuple."
            )
        bags = check_bags(X_bags, bag_proportions, self.classes_)
        if tuple(bags.X.shape[1:]) != tuple(X.shape[1:]):
            raise ValueError(
                f"Instances in bags have shape {tuple(bags.X.shape[1:])} but labelled ones "
                f"{tuple(X.shape[1:])}; give both in the same form."
            )
        if groups is not None and bags.has_names:
            shared = sorted(set(bags.names.tolist()) & set(np.asarray(groups).tolist()))
            if shared:
                raise ValueError(
                    f"Bag {shared[0]!r} is also a labelled slide (groups): its patches would train the net "
                    "that they validate or test. Leave it out of the bags, or give different slides "
                    "different ids."
                )
        return bags.with_instances(self._check_instances(bags.X, "Instances in bags"))

    def _check_instances(self, X, what="X"):
        """Instances to predict, of the kind that was fitted."""
        if _is_images(X) != self.is_images_:
            kinds = {True: "images (n, height, width, 3)", False: "features (n, n_features)"}
            raise ValueError(
                f"{what}: the classifier was fitted on {kinds[self.is_images_]}; got shape "
                f"{getattr(X, 'shape', None)}."
            )
        if self.is_images_:
            check_images(X)
            return X
        return validate_data(self, X, dtype=np.float32, reset=False)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features) or (n_instances, height, width, 3)
            As in :meth:`fit`.

        Returns
        -------
        probabilities : ndarray of float32, shape (n_instances, n_classes)
            Columns in the order of ``classes_``; rows sum to 1.
        """
        check_is_fitted(self)
        X = _embed(self.estimator_, self._check_instances(X))
        return self.estimator_.predict_proba(SignedDataset(X))

    def predict(self, X: Any) -> np.ndarray:
        """Most probable class.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features) or (n_instances, height, width, 3)
            As in :meth:`fit`.

        Returns
        -------
        labels : ndarray of shape (n_instances,)
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]


def _is_images(X: Any) -> bool:
    return len(getattr(X, "shape", ())) == 4


def _embed(net: NeuralNet, X: Any) -> Any:
    """Constant features where the net has frozen layers, so that they are computed once."""
    return net.embed(X) if isinstance(net, SignedLabelNet) else X


def _initialize(net: NeuralNet, X: Any, rows: np.ndarray, classes: np.ndarray) -> None:
    if isinstance(net, SignedLabelNet):
        net.initialize_for(X, rows, classes)
    else:
        net.set_params(classes=classes)
        net.initialize()


def _losses(net: NeuralNet, *, best: bool = False) -> dict:
    """Losses of the last epoch, or of the one whose weights were kept; None where not measured."""
    row = net.history[-1]
    if best and "valid_loss" in row:
        row = min(net.history, key=lambda epoch: epoch["valid_loss"])
    return {
        name: float(row[name]) if name in row else None for name in ("train_loss", "valid_loss")
    }
