"""Base class of the methods trained on labeled batches and batches of bags together."""

import inspect
from numbers import Integral, Real
from typing import Any

import numpy as np
from skorch import NeuralNet

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._bag_batches import BagLoss, BagStream, TwoStreamLoss, epochs_of
from proportion_ssl.estimators._with_net import TrainedNetClassifier
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.training import train_epochs, train_until_settled, training_rows


class TwoStreamClassifier(TrainedNetClassifier):
    """Base class for methods trained jointly on labeled batches and batches of bags.

    A subclass implements ``_make_bag_loss``; its constructor adds the parameters of that loss and passes
    all others on as ``**kwargs``. Without bags the fit is supervised.

    Parameters
    ----------
    estimator : skorch.NeuralNet, default=None
        Net whose module returns logits. Default: :class:`~proportion_ssl.HeadClassifier` on features,
        :class:`~proportion_ssl.MobileNetV2Classifier` on images.
    weight : float
        Weight of the loss of the bags beside that of the labeled patches, after the ramp.
    ramp_up : float in [0, 1]
        Share of all steps over which the weight rises from near 0 (:func:`~proportion_ssl.baselines.ramp`).
    bags_per_batch, instances_per_bag : int
        Number of bags in a step, and largest number of instances of each, sampled again in every step.
    max_epochs : int
        Passes over the bags, without early stopping; each step also takes one labeled batch. Without bags:
        largest number of epochs of the supervised fit.
    patience, validation_fraction, learning_rate, batch_size, oversample, classes, random_state
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`. The validation patches stop the
        supervised fit; with bags their loss is only recorded.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : skorch.NeuralNet
        The trained net.
    n_features_in_ : int
        Number of features, or of channels of an image.
    """

    #: Whether instances are mixed or perturbed, which is impossible with uint8 images.
    _needs_real_numbers = False

    #: Whether the labeled patches in a batch of bags are sampled with balanced classes, as in training.
    _balances_beside = False

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TrainedNetClassifier._parameter_constraints,
        "weight": [Interval(Real, 0, None, closed="left")],
        "ramp_up": [Interval(Real, 0, 1, closed="both")],
        "bags_per_batch": [Interval(Integral, 1, None, closed="left")],
        "instances_per_bag": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator: NeuralNet | None = None,
        *,
        weight: float = 1.0,
        ramp_up: float = 0.0,
        bags_per_batch: int = 2,
        instances_per_bag: int = 64,
        max_epochs: int = 100,
        patience: int = 10,
        validation_fraction: float = 0.25,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        oversample: bool = True,
        classes: Any = None,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.weight = weight
        self.ramp_up = ramp_up
        self.bags_per_batch = bags_per_batch
        self.instances_per_bag = instances_per_bag
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.oversample = oversample
        self.classes = classes
        self.random_state = random_state

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the constructor name all parameters, as scikit-learn, ``help`` and notebooks read them."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            inherited = inspect.signature(super(cls, cls).__init__).parameters
            own = inspect.signature(cls.__init__)
            named = {n: p for n, p in own.parameters.items() if p.kind is not p.VAR_KEYWORD}
            every = {**named, **{n: p for n, p in inherited.items() if n not in named}}
            signature = own.replace(parameters=list(every.values()))
            cls.__init__.__signature__ = signature  # type: ignore[attr-defined]

    def _make_bag_loss(self) -> BagLoss:
        """Loss of a batch of bags."""
        raise NotImplementedError

    def _labeled_data(
        self, X: Any, signed: np.ndarray, rows: np.ndarray, random_state: np.random.RandomState
    ) -> SignedDataset:
        """Labeled patches for training: ``rows``, in this order."""
        return SignedDataset(X, signed, rows)

    def _fit_net(self, net, X, codes, bags, groups, random_state):
        if self._needs_real_numbers and len(X.shape) == 4:
            raise ValueError(
                f"{type(self).__name__} mixes or perturbs its instances, which uint8 images do not allow; "
                "give features of PatchEmbedder, or a net with frozen layers (freeze=True)."
            )
        signed, validation = self._split_labeled(X, codes, groups, random_state)
        train = np.flatnonzero(signed.any(axis=1))
        rows = training_rows(signed, random_state, balance=self.oversample)
        self._initialize(net, X, train)
        if bags is None:
            train_until_settled(
                net,
                self._labeled_data(X, signed, rows, random_state),
                validation,
                max_epochs=self.max_epochs,
                patience=self.patience,
            )
            return
        batch_size = len(rows) if net.batch_size == -1 else net.batch_size  # -1: skorch's "all"
        net.set_params(batch_size=batch_size)
        stream = BagStream(
            bags,
            SignedDataset(X, signed, rows if self._balances_beside else train),
            bags_per_batch=self.bags_per_batch,
            instances_per_bag=self.instances_per_bag,
            n_labeled=batch_size,
            random_state=random_state,
            device=net.device,
        )
        supervised, bag_loss = net.criterion_, self._make_bag_loss()
        net.criterion_ = TwoStreamLoss(
            *(supervised, bag_loss, net.module_, stream),
            weight=self.weight,
            ramp_up=self.ramp_up,
            n_steps=self.max_epochs * stream.n_batches,
        )
        for epoch in epochs_of(rows, stream.n_batches * batch_size, random_state, self.max_epochs):
            data = self._labeled_data(X, signed, epoch, random_state)
            train_epochs(net, data, validation, 1)
            if not np.isfinite(net.history[-1, "train_loss"]):
                raise FloatingPointError(
                    f"The training loss of epoch {len(net.history)} is {net.history[-1, 'train_loss']}; "
                    "lower the learning rate or the weight, and look for extreme values in X."
                )
        bag_loss.finish(net.module_)
        net.criterion_ = supervised  # the fitted net keeps no bags
