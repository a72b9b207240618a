"""skorch classifiers that learn from signed labels: the head alone, and MobileNetV2."""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from skorch import NeuralNet, NeuralNetClassifier
from threadpoolctl import ThreadpoolController
from torch.utils.data import DataLoader

from proportion_ssl._fitting import all_or_nothing, refuse_bags, refuse_sparse
from proportion_ssl.embedding._images import check_images
from proportion_ssl.embedding._random_weights import WeightsFrom
from proportion_ssl.embedding.mobilenet import N_FEATURES
from proportion_ssl.embedding.patch_embedder import PatchEmbedder
from proportion_ssl.losses.signed_labels import SignedLabelLoss
from proportion_ssl.nets.head import LinearHead
from proportion_ssl.nets.linear_steps import Positions, is_known, train_epoch
from proportion_ssl.nets.mobilenet_module import MobileNetV2Module
from proportion_ssl.nets.random_numbers import generator
from proportion_ssl.nets.signed_dataset import BatchesInOrder, SignedDataset, keep_batch
from proportion_ssl.nets.training import split_validation, train_until_settled

#: What a skorch net needs to learn from signed labels; its module returns logits.
SIGNED_LABEL_SETTINGS = {
    "criterion": SignedLabelLoss,
    "predict_nonlinearity": functools.partial(torch.softmax, dim=-1),
    "dataset": SignedDataset,
    "iterator_train__collate_fn": keep_batch,
    "iterator_valid__collate_fn": keep_batch,
    "iterator_train__shuffle": True,
    "train_split": None,
}

#: Feature vectors that a head sees at once in prediction and validation.
PREDICTED_AT_ONCE = 4096


class SignedLabelNet(NeuralNetClassifier):
    """skorch classifier for labels, or signed labels, with the paper's training settings.

    Parameters
    ----------
    module : torch.nn.Module class or instance
        From float32 features or uint8 images to logits (n_instances, n_classes).
    optimizer : torch.optim.Optimizer class, default=torch.optim.RAdam
    lr : float, default=1e-3
        Learning rate.
    weight_decay : float, default=None
        Share of the head's weights, per unit of learning rate, that each step takes away. Default:
        ``3 * sqrt(n_features / 1280)`` with RAdam if the module has a head; otherwise nothing. With
        a head only its linear layer decays. RAdam decays apart from the gradient (as in AdamW).
    batch_size : int, default=64
    max_epochs : int, default=100
    patience : int, default=10
        ``fit`` stops after so many epochs without a smaller validation loss and keeps the best weights.
    validation_fraction : float in [0, 1), default=0.25
        Share of the labeled instances that ``fit`` sets aside to decide when to stop; 0: none.
    random_state : int, RandomState instance or None, default=None
        Chooses the validation instances. The weights and the order of batches come from torch's
        generator (``torch.manual_seed``), as in skorch.
    **kwargs
        As in :class:`skorch.NeuralNetClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    module_ : torch.nn.Module
    history_ : skorch.history.History
        Losses by epoch.
    """

    __metadata_request__fit = {"groups": False}  # noqa: RUF012 - scikit-learn's protocol

    def __init__(
        self,
        module: Any,
        *,
        optimizer: Any = torch.optim.RAdam,
        lr: float | None = 1e-3,
        weight_decay: float | None = None,
        batch_size: int = 64,
        max_epochs: int = 100,
        patience: int = 10,
        validation_fraction: float = 0.25,
        random_state: Any = None,
        verbose: int = 0,
        **kwargs: Any,
    ):
        super().__init__(
            module,
            **{
                **SIGNED_LABEL_SETTINGS,
                "optimizer": optimizer,
                "lr": lr,
                "batch_size": batch_size,
                "max_epochs": max_epochs,
                "verbose": verbose,
                **kwargs,
            },
        )
        self.weight_decay = weight_decay
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None, **fit_params: Any) -> "SignedLabelNet":
        """Train from new weights, with early stopping.

        Parameters
        ----------
        X : array of shape (n_instances, n_features) or (n_instances, height, width, 3)
        y : array-like of shape (n_instances,)
            Labels of any type.
        groups : array-like of shape (n_instances,), optional
            Slide of each instance; validation then takes whole slides.

        Returns
        -------
        self : SignedLabelNet
        """
        with all_or_nothing(self):
            return self._fit(X, y, groups)

    def _fit(self, X, y, groups):
        check_classification_targets(y)
        classes, codes = np.unique(np.asarray(y), return_inverse=True)
        refuse_sparse(X)
        if len(X) != len(codes):
            raise ValueError(f"X has {len(X)} instances but y has {len(codes)} labels.")
        X = self.embed(X)
        signed = np.eye(len(classes), dtype=np.int8)[codes]
        random_state = check_random_state(self.random_state)
        train, validation = split_validation(codes, self.validation_fraction, random_state, groups)
        self.initialize_for(X, train, classes)
        train_until_settled(
            self,
            SignedDataset(X, signed, train),
            SignedDataset(X, signed, validation) if len(validation) else None,
            max_epochs=self.max_epochs,
            patience=self.patience,
        )
        return self

    def initialize_for(self, X: Any, rows: np.ndarray, classes: np.ndarray) -> None:
        """Build the module with new weights for the shape of the data and the classes.

        Parameters
        ----------
        X : array of shape (n_instances, ...)
            What the module will see: features, or images where no layer is frozen.
        rows : ndarray of int
            Instances that are trained on; features are standardized by these.
        classes : ndarray of shape (n_classes,)
        """
        self.classes_inferred_ = classes
        self.data_shape_ = tuple(X.shape[1:])
        self.initialize()
        if isinstance(self.head, LinearHead) and len(self.data_shape_) == 1:
            self.head.standardize(X[rows])

    def initialize(self) -> "SignedLabelNet":
        """Build the parts as skorch does, with first weights from the generator of the fit."""
        with WeightsFrom(generator()):
            return super().initialize()

    def get_params_for(self, prefix: str) -> dict:
        """Arguments of a component; batches come in the order of the generator of the fit."""
        params = super().get_params_for(prefix)
        if prefix == "iterator_train" and self.iterator_train is DataLoader:
            params.setdefault("generator", generator())
        if prefix == "iterator_valid" and self.iterator_valid is DataLoader:
            params.setdefault("generator", torch.Generator())  # see QuietLoader
        return params

    def get_params_for_optimizer(self, prefix: str, named_parameters: Any) -> tuple:
        """Arguments of the optimizer; a head has its own weight decay."""
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        is_radam = self.optimizer is torch.optim.RAdam
        if is_radam:
            kwargs.setdefault("decoupled_weight_decay", True)
        decay: Any = self.weight_decay
        if decay is None and is_radam and self.head is not None and "weight_decay" not in kwargs:
            decay = 3.0 * (self.head.linear.in_features / N_FEATURES) ** 0.5
        if decay is None:
            return args, kwargs
        if self.head is None:
            return args, {**kwargs, "weight_decay": decay}
        groups = [_without(group, self.head.linear.weight) for group in args[0]]
        groups.append({"params": [self.head.linear.weight], "weight_decay": decay})
        return (groups,), kwargs

    def _get_params_html(self, *args, **kwargs):
        """Parameters shown in notebooks: without bookkeeping; marked is what differs from a new net."""
        shown = super()._get_params_html(*args, **kwargs)
        shown.data = {
            name: value
            for name, value in shown.data.items()
            if not name.startswith(("_", "callbacks__"))
        }
        new = type(self)(module=self.module).get_params(deep=False)
        new["module"] = inspect.signature(type(self)).parameters["module"].default
        shown.non_default = tuple(
            name
            for name, value in shown.data.items()
            if name not in new or not (value is new[name] or repr(value) == repr(new[name]))
        )
        return shown

    @property
    def _default_callbacks(self):
        unwanted = {"valid_acc"} if self.verbose else {"valid_acc", "print_log"}
        return [(name, call) for name, call in super()._default_callbacks if name not in unwanted]

    def run_single_epoch(self, iterator: Any, training: bool, *args: Any, **kwargs: Any) -> None:
        """An epoch as in skorch; steps of a linear head are computed in numpy where they come out the same.

        A head is trained on one thread: its steps are too small to be shared. Threads gain nothing, lose much
        where other work needs the cores, and would round differently on other machines.
        """
        head = self.head
        small = training and head is not None and len(getattr(self, "data_shape_", ())) == 1
        with one_thread() if small else nullcontext():
            if head is None or not isinstance(getattr(iterator, "dataset", None), Positions):
                super().run_single_epoch(iterator, training, *args, **kwargs)
                return
            self._set_training(True)
            losses = train_epoch(self, head, iterator)
            self.history[-1]["batches"].extend(
                {"train_loss": loss, "train_batch_size": size} for loss, size in losses
            )
            self.history.record("train_batch_count", len(losses))

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Batches in skorch's way; outside training a head reads features in large parts, without a copy."""
        of_features = self.head is not None and len(getattr(dataset, "shape", ())) == 2
        if training and of_features and is_known(self, self.head, dataset):
            dataset = Positions(dataset)
        if training or not of_features:
            return super().get_iterator(dataset, training=training)
        return BatchesInOrder(dataset, PREDICTED_AT_ONCE)

    @property
    def head(self) -> LinearHead | None:
        """The layers that standardize features, if the module has such."""
        return None

    def embed(self, X: Any) -> Any:
        """Constant features of the instances where layers are frozen; else the instances."""
        return X

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities.

        Parameters
        ----------
        X : array of shape (n_instances, n_features) or (n_instances, height, width, 3)

        Returns
        -------
        probabilities : ndarray of float32, shape (n_instances, n_classes)

        Raises
        ------
        FloatingPointError
            When an instance has no finite probabilities, since its values, or the weights of the net, are not
            finite or too large for float32.
        """
        refuse_bags(X)
        refuse_sparse(X)
        X = self.embed(X)
        X = X if isinstance(X, SignedDataset) else SignedDataset(X)
        return _check_finite(super().predict_proba(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the class probabilities, finite where these underflow to 0.

        Parameters
        ----------
        X : array of shape (n_instances, n_features) or (n_instances, height, width, 3)

        Returns
        -------
        log_probabilities : ndarray of float32, shape (n_instances, n_classes)
        """
        refuse_bags(X)
        refuse_sparse(X)
        X = self.embed(X)
        return log_probabilities(self, X if isinstance(X, SignedDataset) else SignedDataset(X))

    def predict(self, X: Any) -> np.ndarray:
        """Most probable class.

        Parameters
        ----------
        X : array of shape (n_instances, n_features) or (n_instances, height, width, 3)

        Returns
        -------
        labels : ndarray of shape (n_instances,)
        """
        probabilities = self.predict_proba(X)  # first: it says so if the net is not fitted
        return self.classes_[probabilities.argmax(axis=1)]


class HeadClassifier(SignedLabelNet):
    """MobileNetV2's head alone, on features: standardize, dropout, linear.

    Parameters
    ----------
    dropout : float in [0, 1), default=0.2
    lr : float, default=None
        Learning rate. Default: ``1e-3 * sqrt(1280 / n_features)``. A step of RAdam moves each weight
        by about the learning rate, so that a logit moves the less, the fewer features there are.
    **kwargs
        As in :class:`~proportion_ssl.nets.SignedLabelNet`.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.repeat([[0.0, 1.0], [1.0, 0.0]], 8, axis=0)
    >>> HeadClassifier().fit(X, ["a"] * 8 + ["b"] * 8).predict(X[:1])
    array(['a'], dtype='<U1')
    """

    def __init__(
        self,
        *,
        dropout: float = 0.2,
        lr: float | None = None,
        module: Any = LinearHead,
        **kwargs: Any,
    ):
        super().__init__(module, lr=lr, **kwargs)
        self.dropout = dropout

    def get_params_for_optimizer(self, prefix: str, named_parameters: Any) -> tuple:
        """Arguments of the optimizer; the learning rate follows the number of features."""
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        if kwargs.get("lr") is None:
            kwargs["lr"] = 1e-3 * (N_FEATURES / self.data_shape_[0]) ** 0.5
        return args, kwargs

    def get_params_for(self, prefix: str) -> dict:
        """Arguments of a component; the module's sizes come from the data."""
        params = super().get_params_for(prefix)
        if prefix == "module":
            sizes = {"n_features": self.data_shape_[0], "n_classes": len(self.classes_)}
            params = {**sizes, "dropout": self.dropout, **params}
        return params

    @property
    def head(self) -> LinearHead:
        return self.module_


class MobileNetV2Classifier(SignedLabelNet):
    """MobileNetV2 on images, its layers frozen or fine-tuned.

    Parameters
    ----------
    weights : "imagenet", None, str or path-like, default="imagenet"
        Start of the convolutional layers: torchvision's ImageNet weights (downloaded once to torch's
        cache), random ones, or the path of a state dict.
    freeze : bool, default=True
        True: the convolutional layers are constants, batch norm stays in evaluation mode, and only
        the head learns. Features are then computed once per call and only the head is run in training.
        False: everything is fine-tuned.
    dropout : float in [0, 1), default=0.2
    **kwargs
        As in :class:`~proportion_ssl.nets.SignedLabelNet`.

    Notes
    -----
    With ``freeze=True`` features (n_instances, 1280) of
    :class:`~proportion_ssl.PatchEmbedder` with the same weights may be given instead of images.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    >>> net = MobileNetV2Classifier(weights=None, max_epochs=1).fit(images, [0, 1] * 4)
    >>> net.predict_proba(images).shape
    (8, 2)
    """

    def __init__(
        self,
        *,
        weights: Any = "imagenet",
        freeze: bool = True,
        dropout: float = 0.2,
        module: Any = MobileNetV2Module,
        **kwargs: Any,
    ):
        super().__init__(module, **kwargs)
        self.weights = weights
        self.freeze = freeze
        self.dropout = dropout

    def get_params_for(self, prefix: str) -> dict:
        """Arguments of a component; the module's sizes come from the data."""
        params = super().get_params_for(prefix)
        if prefix == "module":
            own = {"weights": self.weights, "freeze": self.freeze, "dropout": self.dropout}
            params = {"n_classes": len(self.classes_), **own, **params}
        return params

    @property
    def head(self) -> LinearHead:
        return self.module_.head

    def embed(self, X: Any) -> Any:
        """Features (n_instances, 1280) of images if layers are frozen, otherwise the images.

        Parameters
        ----------
        X : array of shape (n_instances, height, width, 3) uint8, or (n_instances, 1280) float

        Returns
        -------
        features : ndarray of float32, shape (n_instances, 1280), or the images
        """
        if isinstance(X, SignedDataset):
            return X
        if self.freeze and len(X.shape) == 2:
            return X
        check_images(X)
        return PatchEmbedder(weights=self.weights).transform(X) if self.freeze else X


def log_probabilities(net: NeuralNet, data: SignedDataset) -> np.ndarray:
    """Logarithms of the class probabilities of a fitted net whose module returns logits.

    Parameters
    ----------
    net : skorch.NeuralNet
    data : SignedDataset

    Returns
    -------
    log_probabilities : ndarray of float32, shape (n_instances, n_classes)

    Raises
    ------
    FloatingPointError
        As in :meth:`SignedLabelNet.predict_proba`.
    """
    return _check_finite(net.forward(data).log_softmax(dim=-1).numpy(force=True))


def _check_finite(probabilities: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(wrong):
        raise FloatingPointError(
            f"{len(wrong)} of {len(probabilities)} instances have no finite probabilities (first: number "
            f"{wrong[0]}); look for features that are not finite or very large, or train with a lower "
            "learning rate."
        )
    return probabilities


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch computes on one thread; other threads of the caller keep theirs.

    ``torch.set_num_threads`` would change the setting of the process, which threads that start meanwhile
    would keep. OpenMP's own setting belongs to the calling thread.
    """
    torch.get_num_threads()  # with its first call a thread takes the setting of the process
    with _thread_pools().limit(limits=1, user_api="openmp"):
        yield


@functools.cache
def _thread_pools():
    return ThreadpoolController()


def _without(group, parameter):
    """Parameter group that lacks one parameter."""
    return {**group, "params": [p for p in group["params"] if p is not parameter]}
