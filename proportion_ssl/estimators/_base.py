"""What all estimators share that learn from labelled patches and bags with known proportions."""

import warnings
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression
from sklearn.utils import check_random_state, column_or_1d, metadata_routing
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    validate_data,
)
from skorch import NeuralNet

from proportion_ssl._checks import warn_if_reordered
from proportion_ssl._kept import Kept
from proportion_ssl._sklearn import HasMethods, Interval, check_n_features, fit_context
from proportion_ssl.embedding._images import check_images
from proportion_ssl.nets.classifiers import (
    SIGNED_LABEL_SETTINGS,
    HeadClassifier,
    MobileNetV2Classifier,
    SignedLabelNet,
)
from proportion_ssl.nets.head import LinearHead
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.proportions.bags import Bags, check_bags
from proportion_ssl.proportions.counts import class_proportions, sum_absolute_error
from proportion_ssl.proportions.intervals import nearest_proportions


class BagClassifier(ClassifierMixin, BaseEstimator):
    """Base of the classifiers that learn from labelled patches and bags: input checks and ``fit``.

    A subclass writes :meth:`_fit`, which receives checked data, and ``predict_proba`` or ``predict``.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
        Number of features, or of channels of an image.
    is_images_ : bool
        Whether the instances are images.
    """

    __metadata_request__fit = {  # noqa: RUF012 - scikit-learn's protocol
        "X_labeled": metadata_routing.UNUSED,
        "X_bags": True,
        "bag_proportions": True,
        "groups": True,
    }

    _parameter_constraints: dict[str, Any] = {"random_state": ["random_state"]}  # noqa: RUF012

    #: What a model file keeps of a fitted classifier.
    _kept = Kept(
        always={"classes_": (np.ndarray,), "is_images_": (bool,), "n_features_in_": (int,)}
    )

    @fit_context(prefer_skip_nested_validation=False)
    def fit(
        self,
        X_labeled: Any,
        y: Any,
        X_bags: Any = None,
        bag_proportions: Any = None,
        *,
        groups: Any = None,
    ) -> "BagClassifier":
        """Train on labelled patches and on bags.

        Parameters
        ----------
        X_labeled : array-like of shape (n_labeled, n_features) or (n_labeled, height, width, 3)
            Features, or uint8 images (an array, or a lazily read sequence of that shape).
        y : array-like of shape (n_labeled,)
            Labels, integers or strings. -1 is a class like any other: unlabeled patches belong in the bags.
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
        self : BagClassifier

        Raises
        ------
        ValueError, TypeError
            When the input does not fit together; the message names the bag or class.

        Warns
        -----
        UserWarning
            When y holds -1 beside other classes than 1, or when proportions without class names meet classes
            that are strings and do not appear in sorted order.
        """
        random_state = check_random_state(self.random_state)
        X, codes = self._check_labeled(X_labeled, y, groups)
        bags = self._check_bags(X, X_bags, bag_proportions, groups)
        if bags is not None and bags.class_names is None:
            seen = self.classes_[np.argsort(np.unique(codes, return_index=True)[1])]
            what = "The columns of the bags' proportions"
            warn_if_reordered(seen, self.classes_, what, stacklevel=4)
        self._fit(X, codes, bags, groups, random_state)
        return self

    def _fit(
        self,
        X: Any,
        codes: np.ndarray,
        bags: Bags | None,
        groups: Any,
        random_state: np.random.RandomState,
    ) -> None:
        """Train on checked data: float32 features or uint8 images, class indices, bags or None."""
        raise NotImplementedError

    def _check_labeled(self, X, y, groups):
        """Instances as float32 features or uint8 images, and class indices."""
        n_missing = 0 if y is None else int(np.sum(pd.isna(np.asarray(y, dtype=object))))
        if n_missing:
            raise ValueError(
                f"{n_missing} of {np.size(y)} labels are None or NaN, as patch_labels gives for patches "
                "without a majority class. Keep the labeled ones: keep = pandas.notna(y), then X[keep] and "
                "y[keep] (and groups[keep]); unlabeled patches belong in bags."
            )
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
        _warn_if_unlabeled(self.classes_)
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
        if _stays_in_files(X):
            check_n_features(self, X, reset=False)
            return X
        return validate_data(self, X, dtype=np.float32, reset=False)

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


class NetBagClassifier(BagClassifier):
    """Base of the classifiers of bags that train a net.

    A subclass writes :meth:`_fit_net`. Its constructor has at least the parameters below; if it trains no
    net by gradients ``estimator`` and ``random_state`` will do, and it writes :meth:`_make_net`.

    Parameters
    ----------
    estimator : skorch.NeuralNet, default=None
        Net whose module returns logits. Default: :class:`~proportion_ssl.HeadClassifier` on features,
        :class:`~proportion_ssl.MobileNetV2Classifier` on images.
    max_epochs : int
    patience : int
        Training ends after so many epochs without a smaller validation loss.
    validation_fraction : float in [0, 1)
        Share of the labelled patches that is set aside to decide when to stop.
    learning_rate : float or None
        Step size of the optimiser; None: the net's own.
    batch_size : int or None
        None: the net's own.
    oversample : bool
        Repeat labelled patches until all classes are as frequent as the largest.
    random_state : int, RandomState instance or None

    Attributes
    ----------
    estimator_ : skorch.NeuralNet
        The trained net.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **BagClassifier._parameter_constraints,
        "estimator": [HasMethods(["fit_loop", "initialize"]), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither"), None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), None],
        "oversample": ["boolean"],
    }

    def _fit(self, X, codes, bags, groups, random_state):
        net = self._start(is_images=self.is_images_)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random_state.randint(np.iinfo(np.int32).max))
            X = self._embed(net, X)
            if bags is not None:
                bags = bags.with_instances(self._embed(net, bags.X))
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
        """Initialise and train the net on what its trainable layers see."""
        raise NotImplementedError

    def _start(self, *, is_images):
        """The net that a fit starts from."""
        return self._make_net(is_images=is_images)

    def _make_net(self, *, is_images):
        net = self._new_net(is_images=is_images)
        if self.learning_rate is not None:
            net.set_params(lr=self.learning_rate)
        if self.batch_size is not None:
            net.set_params(batch_size=self.batch_size)
        return net

    def _new_net(self, *, is_images):
        """The estimator or the default, for signed labels."""
        if self.estimator is None:
            net = MobileNetV2Classifier() if is_images else HeadClassifier()
        else:
            net = clone(self.estimator)
            net.callbacks__valid_acc = None  # skorch's accuracy cannot read signed labels
        return net.set_params(**SIGNED_LABEL_SETTINGS)

    @staticmethod
    def _embed(net: NeuralNet, X: Any) -> Any:
        """Constant features where the net has frozen layers, so that they are computed once."""
        return net.embed(X) if isinstance(net, SignedLabelNet) else X

    def _initialize(self, net: NeuralNet, X: Any, rows: np.ndarray) -> None:
        """Give the net new weights; its features are standardised by the rows that are trained on."""
        if isinstance(net, SignedLabelNet):
            net.initialize_for(X, rows, self.classes_)
        else:
            net.set_params(classes=self.classes_)
            net.initialize()

    def _sum_absolute_error(self, codes: np.ndarray, bags: Bags) -> float:
        """Mean over the bags, of predicted classes; recorded proportions are nearest in the interval."""
        predicted = class_proportions(
            codes, bags.index, n_bags=bags.n_bags, n_classes=len(self.classes_)
        )
        recorded = nearest_proportions(predicted, bags.lower, bags.upper)
        return float(sum_absolute_error(recorded, predicted).mean())

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
        X = self._embed(self.estimator_, self._check_instances(X))
        return self.estimator_.predict_proba(SignedDataset(X))

    def to_logistic_regression(self) -> LogisticRegression:
        """The fitted head as scikit-learn's own classifier of features, for machines that only predict.

        Returns
        -------
        model : sklearn.linear_model.LogisticRegression
            Fitted; from features (n_instances, n_features), of a
            :class:`~proportion_ssl.PatchEmbedder` or :class:`~proportion_ssl.ExportedEmbedder`, to the
            same classes and, up to rounding, probabilities. Files of it (joblib, skops, ONNX) need no torch.

        Raises
        ------
        ValueError
            If more than a linear head was trained.
        """
        check_is_fitted(self)
        head = getattr(self.estimator_, "head", None)
        if not isinstance(head, LinearHead) or not getattr(self.estimator_, "freeze", True):
            raise ValueError(
                f"{type(self.estimator_).__name__} trained more than a linear head on constant features, "
                "which is all that a logistic regression can take over; use save and load."
            )
        coef, intercept = head.coefficients()
        if len(intercept) == 2:  # scikit-learn keeps the difference of two classes
            coef, intercept = np.diff(coef, axis=0), np.diff(intercept)
        model = LogisticRegression()
        model.coef_, model.intercept_, model.classes_ = coef, intercept, self.classes_
        model.n_features_in_ = coef.shape[1]
        model.n_iter_ = np.zeros(1, dtype=np.int32)  # of its own solver
        return model


def _warn_if_unlabeled(classes: np.ndarray) -> None:
    """Warn where -1 is learned as a class that may stand for unlabeled patches; -1 and 1 are two classes."""
    if classes.dtype.kind in "if" and -1 in classes and classes.tolist() != [-1, 1]:
        warnings.warn(
            f"y holds -1, which is learned and predicted like the other classes, {classes.tolist()}. If it "
            "marks unlabeled patches, leave them out of X_labeled and y: they belong in the bags (X_bags).",
            UserWarning,
            stacklevel=5,
        )


def weighted_labels(signed: np.ndarray, bags: Bags) -> np.ndarray:
    """Labels of the instances of bags, multiplied by the weights of their bags where these are not all 1."""
    if (bags.weights == 1).all():
        return signed
    return signed * bags.weights[bags.index, np.newaxis].astype(np.float32)


def _stays_in_files(X: Any) -> bool:
    """Whether features are read batch by batch instead of being copied into memory at once."""
    return hasattr(X, "batches") and X.dtype == np.float32


def _is_images(X: Any) -> bool:
    return len(getattr(X, "shape", ())) == 4
