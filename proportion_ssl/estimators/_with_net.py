"""Base classes for classifiers of bags that predict with a net, and that train it by gradient descent."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader

from proportion_ssl._sklearn import HasMethods, Interval
from proportion_ssl.estimators._base import ProbabilisticBagClassifier
from proportion_ssl.nets.classifiers import (
    SIGNED_LABEL_SETTINGS,
    HeadClassifier,
    MobileNetV2Classifier,
    SignedLabelNet,
    log_probabilities,
)
from proportion_ssl.nets.head import LinearHead
from proportion_ssl.nets.random_numbers import QuietLoader, draws_locally, seeded
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.training import split_validation
from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.counts import class_proportions

#: Number of instances on which the output of a net is checked.
N_CHECKED = 16


class NetBagClassifier(ProbabilisticBagClassifier):
    """Base class for classifiers of bags that predict with a net.

    A subclass defines :meth:`_fit_net`.

    Parameters
    ----------
    estimator : skorch.NeuralNet, default=None
        Net whose module returns logits. Default: :class:`~proportion_ssl.HeadClassifier` on features,
        :class:`~proportion_ssl.MobileNetV2Classifier` on images.
    classes : array-like, default=None
        See :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
    random_state : int, RandomState instance or None

    Attributes
    ----------
    estimator_ : skorch.NeuralNet
        The fitted net.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **ProbabilisticBagClassifier._parameter_constraints,
        "estimator": [HasMethods(["fit_loop", "initialize"]), None],
    }

    estimator_: NeuralNet

    def _fit(self, X, codes, bags, groups, random_state):
        net = self.estimator_ if hasattr(self, "estimator_") else self._build_net()
        seed = random_state.randint(np.iinfo(np.int32).max)
        X = self._embed(net, X)
        if bags is not None:
            bags = bags.with_instances(self._embed(net, bags.X))
        local = len(X.shape) == 2 and draws_locally(
            self, net
        )  # torchvision's views of images do not
        with seeded(seed, local=local, device=getattr(net, "device", "cpu")):
            self._fit_net(net, X, codes, bags, groups, random_state)
        self.estimator_ = net

    def _fit_net(
        self,
        net: NeuralNet,
        X: Any,
        codes: np.ndarray,
        bags: Bags | None,
        groups: Any,
        random_state: np.random.RandomState,
    ) -> None:
        """Fit the net to the inputs of its trainable layers."""
        raise NotImplementedError

    def _build_net(self) -> NeuralNet:
        """Build the given or default net for signed labels, without weights."""
        if self.estimator is None:
            net = new_head_net(self.is_images_)
        else:
            net = clone(self.estimator)
            _refuse_what_is_replaced(net)
            if isinstance(net, NeuralNetClassifier):
                net.callbacks__valid_acc = None  # skorch's accuracy cannot read signed labels
            if net.iterator_valid is DataLoader:
                net.set_params(iterator_valid=QuietLoader)
        return net.set_params(**SIGNED_LABEL_SETTINGS)

    @staticmethod
    def _embed(net: NeuralNet, X: Any) -> Any:
        """Compute the output of frozen layers once, if the net has any."""
        return net.embed(X) if isinstance(net, SignedLabelNet) else X

    def _sum_absolute_error(self, codes: np.ndarray, bags: Bags) -> float:
        """Mean error over the bags of predicted classes, from the nearest proportions in the intervals."""
        predicted = class_proportions(
            codes, bags.index, n_bags=bags.n_bags, n_classes=len(self.classes_)
        )
        return mean_absolute_error(predicted, bags)

    def _probabilities(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = self._embed(self.estimator_, self._check_instances(X))
        return self.estimator_.predict_proba(SignedDataset(X))

    def _log_probabilities(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = self._embed(self.estimator_, self._check_instances(X))
        return log_probabilities(self.estimator_, SignedDataset(X))

    def to_logistic_regression(self) -> LogisticRegression:
        """Convert the fitted head to a scikit-learn classifier of features, for prediction only.

        Returns
        -------
        model : sklearn.linear_model.LogisticRegression
            Fitted. Predicts the same classes and, up to rounding, probabilities from features
            (n_instances, n_features) of a :class:`~proportion_ssl.PatchEmbedder` or
            :class:`~proportion_ssl.ExportedEmbedder`. Its files (joblib, skops, ONNX) do not need torch.

        Raises
        ------
        ValueError
            If more than a linear head was trained.
        """
        check_is_fitted(self)
        head = getattr(self.estimator_, "head", None)
        if not isinstance(head, LinearHead) or not getattr(self.estimator_, "freeze", True):
            raise ValueError(
                f"{type(self.estimator_).__name__} trained more than a linear head on constant features, so "
                "it cannot be converted to a logistic regression; use save and load."
            )
        coef, intercept = head.coefficients()
        if len(intercept) == 2:  # scikit-learn stores the difference of two classes
            coef, intercept = np.diff(coef, axis=0), np.diff(intercept)
        model = LogisticRegression()
        model.coef_, model.intercept_, model.classes_ = coef, intercept, self.classes_
        model.n_features_in_ = coef.shape[1]
        model.n_iter_ = np.zeros(1, dtype=np.int32)  # iterations of the scikit-learn solver
        return model


class TrainedNetClassifier(NetBagClassifier):
    """Base class for classifiers of bags that train a net by gradient descent.

    A subclass defines :meth:`_fit_net`, using :meth:`_split_labeled` and :meth:`_initialize`. Its
    constructor has at least the parameters below.

    Parameters
    ----------
    estimator, classes, random_state
        As in :class:`NetBagClassifier`.
    max_epochs : int
    patience : int
        Training stops after this many epochs without a smaller validation loss.
    validation_fraction : float in [0, 1)
        Fraction of the labeled patches held out for early stopping.
    learning_rate : float or None
        Learning rate of the optimizer; None: setting of the net.
    batch_size : int or None
        None: setting of the net.
    oversample : bool
        Repeat labeled patches until all classes are as frequent as the largest.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **NetBagClassifier._parameter_constraints,
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "oversample": ["boolean"],
    }

    def _build_net(self) -> NeuralNet:
        net = super()._build_net()
        if self.learning_rate is not None:
            net.set_params(lr=self.learning_rate)
        if self.batch_size is not None:
            net.set_params(batch_size=self.batch_size)
        return net

    def _initialize(self, net: NeuralNet, X: Any, rows: np.ndarray) -> None:
        """Give the net new weights, and standardize its features on the training rows."""
        if isinstance(net, SignedLabelNet):
            net.initialize_for(X, rows, self.classes_)
        else:
            if isinstance(net, NeuralNetClassifier):
                net.set_params(classes=self.classes_)
            else:
                net.classes_ = self.classes_
            net.initialize()
            _check_logits(net, SignedDataset(X, rows=rows[:N_CHECKED]), len(self.classes_))
        net.notify("on_train_begin", X=X, y=None)  # as in skorch's fit: schedulers start here

    def _split_labeled(
        self, X: Any, codes: np.ndarray, groups: Any, random_state: np.random.RandomState
    ) -> tuple[np.ndarray, SignedDataset | None]:
        """Signed labels of the training patches (0 for the others), and the validation data."""
        _, rows = split_validation(codes, self.validation_fraction, random_state, groups)
        signed = np.eye(len(self.classes_), dtype=np.int8)[codes]
        validation = SignedDataset(X, signed, rows) if len(rows) else None
        known = signed.copy()
        known[rows] = 0
        return known, validation


def mean_absolute_error(predicted: np.ndarray, bags: Bags) -> float:
    """Mean over the bags of :func:`~proportion_ssl.proportions.sum_absolute_error`.

    Parameters
    ----------
    predicted : ndarray of shape (n_bags, n_classes)
        Predicted proportions.
    bags : Bags
        Recorded proportions; the nearest values in their intervals are used.

    Returns
    -------
    error : float in [0, 1]
    """
    distance = np.abs(bags.nearest(predicted) - predicted).sum(axis=1)
    return float(np.minimum(1.0, distance).mean())


def _refuse_what_is_replaced(net: NeuralNet) -> None:
    """Raise if settings of a net would have no effect: its loss and early stopping."""
    parts = ("positive", "negative")
    names = [f"criterion__{name}" for name in parts]
    given = sorted(
        name for name in vars(net) if name.startswith("criterion__") and name not in names
    )
    if given:
        raise ValueError(
            f"estimator has the loss parameter {given[0]}, but its loss is replaced by SignedLabelLoss; "
            "remove the parameter. If the classifier has positive_loss and negative_loss, use these."
        )
    callbacks = [call[-1] if isinstance(call, tuple) else call for call in net.callbacks or ()]
    if any(isinstance(call, EarlyStopping) for call in callbacks):
        raise ValueError(
            "estimator has the callback EarlyStopping, but the classifier itself stops after `patience` "
            "epochs without a smaller validation loss; remove the callback."
        )


def _check_logits(net: NeuralNet, data: SignedDataset, n_classes: int) -> None:
    """Raise unless a new net returns one logit per class and not probabilities."""
    outputs = net.forward(data)
    outputs = (outputs[0] if isinstance(outputs, tuple) else outputs).numpy(force=True)
    if outputs.shape != (len(data), n_classes):
        raise ValueError(
            f"The module of estimator returns an array of shape {outputs.shape} for {len(data)} instances; "
            f"it must return a logit for each of the {n_classes} classes ({len(data)}, {n_classes})."
        )
    if (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-4):
        raise ValueError(
            "The module of estimator returns probabilities (non-negative, rows sum to 1); it must return "
            "logits, because the losses apply the softmax. Remove its last softmax."
        )


def new_head_net(is_images: bool) -> SignedLabelNet:
    """Create the default net: a head on features, or MobileNetV2 on images.

    Parameters
    ----------
    is_images : bool

    Returns
    -------
    net : HeadClassifier or MobileNetV2Classifier
    """
    net = MobileNetV2Classifier() if is_images else HeadClassifier()
    return net.set_params(**SIGNED_LABEL_SETTINGS)


def weighted_labels(signed: np.ndarray, bags: Bags) -> np.ndarray:
    """Labels of bag instances multiplied by the weights of their bags, unless all weights are 1."""
    if (bags.weights == 1).all():
        return signed
    return signed * bags.weights[bags.index, np.newaxis].astype(np.float32)
