"""Negative pseudo labeling from labeled patches and bags with recorded proportions."""

import copy
from itertools import count
from numbers import Integral
from types import NoneType
from typing import Any

import numpy as np
from sklearn.base import clone
from skorch import NeuralNet
from tqdm import tqdm

from proportion_ssl._sklearn import HasMethods, Interval, StrOptions, visual_block
from proportion_ssl.estimators._learners import NO_LOSSES, NetLearner, SolvedLearner, rounds
from proportion_ssl.estimators._out_of_core import StreamedLearner, stays_out_of_core
from proportion_ssl.estimators._rules_of_bags import TwoSelectors
from proportion_ssl.estimators._with_net import (
    TrainedNetClassifier,
    mean_absolute_error,
    new_head_net,
)
from proportion_ssl.heads import DiscriminantClassifier, SoftLabelHead
from proportion_ssl.losses.signed_labels import NegativeLoss, PositiveLoss, multi_negative_loss
from proportion_ssl.pseudo_labels.label_log import LabelLog, LoggedLabels
from proportion_ssl.pseudo_labels.selectors import (
    AdaptiveSelector,
    NegativeSelector,
    labels_bag_by_bag,
)

#: Number of rounds of a directly solved head.
N_SOLVED_ROUNDS = 11

#: Settings of the paper; see :class:`NegativePseudoLabelClassifier`.
PAPER_SETTINGS = {
    "learning_rate": 1e-5,
    "batch_size": 18,
    "max_epochs": 100,
    "patience": 10,
    "negative_memory": None,
    "epoch_size": None,
    "refit": False,
}


class NegativePseudoLabelClassifier(LoggedLabels, TrainedNetClassifier):
    """Patch classifier trained on a few labeled patches and bags with recorded class proportions.

    First trains a net on the labeled patches. Then each round predicts every bag, compares predicted with
    recorded proportions, gives positive pseudo labels to confident patches and negative ones ("not this
    class") to uncertain patches of over-predicted classes, and continues training.

    Parameters
    ----------
    estimator : skorch.NeuralNet or SoftLabelHead, default=None
        Net whose module returns logits of all classes, not probabilities. Its loss, dataset and validation
        split are replaced by those for signed labels; callbacks that score ordinary labels do not work.
        Default: :class:`~proportion_ssl.HeadClassifier` on features,
        :class:`~proportion_ssl.MobileNetV2Classifier` on images. Alternatively a directly solved head, such
        as :class:`~proportion_ssl.heads.DiscriminantClassifier`: the fit then has 11 rounds and takes
        seconds, and training settings (losses, epochs, patience, validation, learning rate, batches) have
        no effect.
    positive_selector : transformer or None, default="default"
        Gives positive pseudo labels: maps class probabilities to signed labels, such as
        :class:`~proportion_ssl.ThresholdSelector`. "default" is :class:`~proportion_ssl.AdaptiveSelector`;
        None disables positive labels.
    negative_selector : transformer or None, default="default"
        Gives negative pseudo labels. "default" is :class:`~proportion_ssl.NegativeSelector`; None disables
        them.
    multi_negative : bool, default=True
        Whether an instance keeps the negative labels of earlier rounds in addition to those of this round.
    negative_memory : int or None, default=3
        With ``multi_negative``, the number of rounds in which a negative label is used, including the round
        that gave it. None: all later rounds, as in the paper.
    positive_loss, negative_loss : loss module, default=None
        Losses of positive and negative labels. Default: ``PositiveLoss()`` and
        ``NegativeLoss(multi_negative_loss)`` of ``proportion_ssl.losses``.
    max_epochs : int, default=100
        Maximum number of epochs for each of: the supervised step, all rounds together, and the refit.
    epochs_per_round : int, default=1
        Epochs between two updates of the pseudo labels.
    epoch_size : int or None, default=4096
        Maximum number of instances in an epoch, including repeated ones. With more data, each epoch uses a
        new random subset, so the time per epoch is bounded. None: each epoch uses all data.
    refit : bool, default=True
        Whether to train new weights after the last round, on the labeled patches and the pseudo labels of
        that round, instead of keeping the weights trained during the rounds.
    patience : int, default=10
        The supervised step and the refit stop after this many epochs without a smaller validation loss.
    validation_fraction : float in [0, 1), default=0.25
        Fraction of the labeled patches held out for early stopping.
    learning_rate : float, default=None
        Learning rate of the optimizer. Default: setting of the net; for the default nets 1e-3 with 1280
        features, and larger with fewer features (see :class:`~proportion_ssl.HeadClassifier`).
    batch_size : int, default=None
        Default: setting of the net; 64 for the default nets.
    oversample : bool, default=True
        Repeat labeled and positively labeled patches until all classes are as frequent as the largest.
    warm_start : bool, default=False
        Whether ``fit`` continues from the net of the last ``fit``, for example with new bags, new labeled
        patches or corrected proportions. With bags, the supervised step is then skipped.
    classes : array-like of shape (n_classes,), default=None
        All classes. Needed only if a class occurs neither in ``y`` nor in the columns of a DataFrame of
        proportions. Classes without labeled patches are learned from the bags. Default: classes of ``y`` and
        columns of the DataFrame.
    verbose : bool, default=False
        Whether to show a progress bar on stderr.
    random_state : int, RandomState instance or None, default=None
        Controls validation patches, initial weights, batch order and dropout. The order of the instances of
        a bag affects only ties between equally confident instances.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : skorch.NeuralNet
        The trained net, or the net with the solved head.
    n_iter_ : int
        Number of rounds of pseudo labels.
    history_ : list of dict
        One entry for the supervised step (round 0) and one per round: ``round``, ``n_epochs``,
        ``train_loss`` and ``valid_loss`` after training; from round 1 on also ``sum_absolute_error`` (mean
        over the bags, before the training of the round), ``n_positive`` and ``n_negative`` (number of
        labels given per class).
    refit_history_ : dict or None
        ``n_epochs``, ``train_loss`` and ``valid_loss`` of the refit; None if there was none.
    termination_condition_ : {"no_bags", "no_selector", "max_epochs"}
        Why training ended.
    label_log_ : LabelLog
        Pseudo labels, stored as changes by round and rule: ``to_frame()`` returns a tidy table,
        ``replay(round)`` the labels of a round. Available with bags, unless their features stay in files
        (see Notes). The next four attributes are computed from it.
    signed_labels_ : ndarray of int8, shape (n_bag_instances, n_classes)
        Pseudo labels of the last round; +1 "is", -1 "is not", 0 unknown. Soft labels (from a selector such as
        :class:`~proportion_ssl.SoftAssignmentSelector`) count as positive above 0.5.
    label_rounds_ : ndarray of int32, shape (n_bag_instances, n_classes)
        Round since which each label has been unchanged; 0 without a label.
    bag_index_, bag_names_ : ndarray
        Bag of each instance of ``signed_labels_``, as an index into ``bag_names_``.
    fell_back_ : bool
        Whether the supervised classifier was kept because the pseudo labels were harmful.
    n_features_in_ : int
        Number of features, or of channels of an image.

    Warns
    -----
    HarmfulLabelsWarning
        If held-out labeled slides are predicted significantly worse with pseudo labels than without. The
        supervised classifier is then kept. The test requires ``groups`` and three slides (for a net, three
        validation slides). Also if held-out patches are predicted much worse, or better with classes
        exchanged (for a net, validation patches). For a directly solved head with at least ten bags, also if
        bags are no nearer to their own records than to those of other bags, or if held-out bags are farther
        from their records with pseudo labels than without.

    Notes
    -----
    Method and equations follow Tokunaga et al. [1]_. Differences from the printed equations are documented
    in :func:`~proportion_ssl.proportions.sum_absolute_error`,
    :func:`~proportion_ssl.pseudo_labels.negative_selectivity` and
    :func:`~proportion_ssl.losses.negative_loss`. Choices that the paper leaves open:

    - a negatively labeled patch has the same weight as a positively labeled one in the mean over a batch;
    - negative labels are kept for ``negative_memory`` rounds, because labels from early, inaccurate nets
      would otherwise reduce accuracy; a patch that receives a positive label keeps only that;
    - labels are updated after every epoch; the optimizer state is kept between rounds;
    - the rounds train for ``max_epochs`` without early stopping, because the validation loss of labeled
      slides says little about slides with a different stain. Early stopping is used in the refit, in which
      new weights learn from the last and best pseudo labels only.

    ``PAPER_SETTINGS`` holds the learning rate, batch size and memory of the paper, without refit.

    With a directly solved head, no bag weighs more than a labeled slide does on average: labels of larger
    bags have smaller weights.

    With a :class:`~proportion_ssl.heads.DiscriminantClassifier` and bags that are a
    :class:`~proportion_ssl.slides.FeatureSequence` whose components would need more than 1 GiB of memory,
    features stay in their files, as in :class:`~proportion_ssl.RobustProportionClassifier`. Each round is
    then a map over the bags (parallel with ``joblib.parallel_config(n_jobs=...)``) and a sum, and individual
    pseudo labels are not stored (no ``label_log_``). This requires selectors of this package, which label
    each bag independently; with other selectors or other directly solved heads, the components are kept in
    memory.

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
        **TrainedNetClassifier._parameter_constraints,
        "estimator": [HasMethods(["fit_loop", "initialize"]), HasMethods(["solve"]), None],
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
        "verbose": ["boolean"],
    }

    _kept = TrainedNetClassifier._kept.extended(
        always={
            "history_": (list,),
            "n_iter_": (int,),
            "refit_history_": (dict, NoneType),
            "termination_condition_": (str,),
        },
        sometimes={"fell_back_": (bool,)},
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
        classes: Any = None,
        verbose: bool = False,
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
        self.classes = classes
        self.verbose = verbose
        self.random_state = random_state

    def _forget(self):
        """With a warm start, keep a copy of the net, so that a failing fit does not change the last one."""
        net = getattr(self, "estimator_", None) if self.warm_start else None
        super()._forget()
        if net is not None:
            self.estimator_ = copy.deepcopy(net)

    def _build_net(self):
        if isinstance(self.estimator, SoftLabelHead):
            return new_head_net(self.is_images_)
        return (
            super()
            ._build_net()
            .set_params(
                criterion__positive=self.positive_loss or PositiveLoss(),
                criterion__negative=self.negative_loss or NegativeLoss(multi_negative_loss),
            )
        )

    def _fit_net(self, net, X, codes, bags, groups, random_state):
        is_warm = self.warm_start and getattr(net, "initialized_", False)
        if is_warm:
            self._check_goes_on(net, X)
        learner = self._learner(net, X, codes, bags, groups, random_state)
        self.n_iter_, self.termination_condition_, self.refit_history_ = 0, "no_bags", None
        with self._progress(bags) as progress:
            progress.set_description("supervised")
            if is_warm and bags is not None:
                losses = dict(NO_LOSSES)
            else:
                losses = learner.fit_labeled(new_weights=not is_warm)
            self.history_ = [{"round": 0, **losses}]
            progress.update()
            if bags is not None:
                self._fit_rounds(learner, bags, progress)
        learner.finish()
        self.fell_back_ = learner.fell_back

    def _learner(self, net, X, codes, bags, groups, random_state):
        """Create the learner for the rounds: a trained net or a directly solved head."""
        if isinstance(self.estimator, SoftLabelHead):
            if self.warm_start:
                raise ValueError(
                    "warm_start=True needs a net trained by gradient descent; a directly solved head is "
                    "solved from scratch in every fit, which takes seconds. Set warm_start=False."
                )
            head = clone(self.estimator)
            given = (head, net, X, codes, bags, groups, self.classes_, random_state)
            if self._streams(bags, codes):
                return StreamedLearner(None, *given)
            return SolvedLearner(*given)
        known, validation = self._split_labeled(X, codes, groups, random_state)
        settings = ("max_epochs", "patience", "epoch_size", "oversample")
        return NetLearner(
            *(net, X, bags, known, validation),
            initialize=lambda: self._initialize(net, X, np.flatnonzero(known.any(axis=1))),
            settings={name: getattr(self, name) for name in settings},
            groups=groups,
            random_state=random_state,
        )

    def _streams(self, bags, codes):
        """Return whether every round reads the features of the bags again."""
        return (
            bags is not None
            and type(self.estimator) is DiscriminantClassifier
            and all(one is None or labels_bag_by_bag(one) for one in self._make_selectors())
            and stays_out_of_core(
                bags.X, len(codes) + bags.n_instances, self.estimator.n_components
            )
        )

    def _fit_rounds(self, learner, bags, progress):
        """Alternate between updating the pseudo labels and learning from them; then train new weights."""
        streamed = isinstance(learner, StreamedLearner)
        if not streamed:
            self.label_log_ = LabelLog(bags.index, bags.names, self.classes_)
        if self._make_selectors() == [None, None]:
            self.termination_condition_ = "no_selector"
            return
        self.termination_condition_ = "max_epochs"
        for _ in (self._streamed_rounds if streamed else self._held_rounds)(learner, bags):
            progress.set_description(f"round {self.n_iter_}")
            progress.update()
        if self.refit:
            progress.set_description("refit")
            self.refit_history_ = learner.refit()
            progress.update()

    def _held_rounds(self, learner, bags):
        """Rounds on features, or their components, in memory."""

        def new_rule():
            last_negative = np.zeros((bags.n_instances, len(self.classes_)), dtype=np.int32)
            numbers = count(1)

            def give_labels(probabilities):
                rule = self._rule_of(next(numbers))
                labels, given = rule(probabilities, bags.index, bags.recorded, last_negative)
                return labels, ~given

            return give_labels

        epochs = self._epochs_of_rounds()
        trained = rounds(learner, new_rule(), bags, self.label_log_, epochs)
        for n_epochs, (probabilities, losses) in zip(epochs, trained, strict=True):
            self.n_iter_ += 1
            error = self._sum_absolute_error(probabilities.argmax(axis=1), bags)
            signed = self.label_log_.signed_labels
            counts = [side.sum(axis=0) for side in (signed > 0, signed < 0)]
            self._append_round({"n_epochs": n_epochs, **losses}, error, *counts)
            yield
        if isinstance(learner, SolvedLearner):
            learner.cross_fit(new_rule, epochs)

    def _streamed_rounds(self, learner, bags):
        """Rounds of a directly solved head on features that stay in their files."""
        for _ in self._epochs_of_rounds():
            self.n_iter_ += 1
            results = learner.round(self._rule_of(self.n_iter_), bags)
            error = mean_absolute_error(learner.shares_before(results), bags)
            counts = [
                np.sum([getattr(result, name) for result in results], axis=0)
                for name in ("n_positive", "n_negative")
            ]
            self._append_round(NO_LOSSES, error, *counts)
            yield

    def _rule_of(self, number):
        """Rule with which the round of this number labels the bags."""
        oldest = None
        if self.multi_negative:
            oldest = 1 if self.negative_memory is None else number - self.negative_memory + 1
        positive, negative = self._make_selectors()
        return TwoSelectors(positive, negative, number, oldest)

    def _check_goes_on(self, net, X):
        """Raise unless the net of the last fit can be trained on these data."""
        if not np.array_equal(net.classes_, self.classes_):
            raise ValueError(
                f"warm_start: the last fit had the classes {net.classes_.tolist()}, but this fit has "
                f"{self.classes_.tolist()}; give the same classes, or set warm_start=False."
            )
        if getattr(net, "data_shape_", X.shape[1:]) != X.shape[1:]:
            raise ValueError(
                f"warm_start: the last fit had instances of shape {net.data_shape_}, but X_labeled has "
                f"{X.shape[1:]}; give the same kind, or set warm_start=False."
            )

    def _epochs_of_rounds(self):
        """Epochs of each round; a directly solved head needs few rounds."""
        if isinstance(self.estimator, SoftLabelHead):
            return [self.epochs_per_round] * N_SOLVED_ROUNDS
        whole, rest = divmod(self.max_epochs, self.epochs_per_round)
        return [self.epochs_per_round] * whole + [rest] * (rest > 0)

    def _progress(self, bags):
        """Progress bar over the steps: supervised training and, with bags, the rounds and the refit."""
        n_steps = 1 if bags is None else 1 + len(self._epochs_of_rounds()) + self.refit
        return tqdm(total=n_steps, disable=not self.verbose, unit="step")

    def _make_selectors(self):
        defaults = {"positive_selector": AdaptiveSelector, "negative_selector": NegativeSelector}
        return [
            default() if getattr(self, name) == "default" else getattr(self, name)
            for name, default in defaults.items()
        ]

    def _sk_visual_block_(self):
        """Net and selectors, including defaults, as blocks of the HTML diagram in notebooks."""
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

    def _append_round(self, losses, error, n_positive, n_negative):
        self.history_.append(
            {
                "round": self.n_iter_,
                **losses,
                "sum_absolute_error": error,
                "n_positive": n_positive.tolist(),
                "n_negative": n_negative.tolist(),
            }
        )
