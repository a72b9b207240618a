"""Base classes for classifiers of labeled patches and bags: input checks and ``fit``."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state, column_or_1d, metadata_routing
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, validate_data

from proportion_ssl._checks import check_ids, warn_if_reordered
from proportion_ssl._fitting import all_or_nothing, refuse_bags
from proportion_ssl._kept import Kept
from proportion_ssl._sklearn import check_n_features, fit_context
from proportion_ssl._warnings import warn
from proportion_ssl.embedding._images import check_images
from proportion_ssl.estimators._alike import IN_A_PIPELINE, check_features, name_of_instance
from proportion_ssl.estimators._classes import known_classes, listed
from proportion_ssl.estimators._records import bags_to_predict, ends_of
from proportion_ssl.proportions.bags import Bags, check_bags
from proportion_ssl.pseudo_labels.recorded import (
    INSTANCE_WEIGHT,
    UNKNOWN_DEVIATION,
    probabilities_given_records,
)

#: Labels that missing values become as texts.
NO_LABELS = ("", "nan", "NaN", "<NA>")

_RECORDS = {"bag_ids": True, "bag_proportions": True}


class BagClassifier(ClassifierMixin, BaseEstimator):
    """Base class for classifiers that learn from labeled patches and bags.

    A subclass defines :meth:`_fit`, which receives checked data, and ``predict``. Its constructor has
    ``classes`` and ``random_state`` if it needs them.

    A fit that fails or is interrupted leaves the classifier in its previous state.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    n_features_in_ : int
        Number of features, or of channels of an image.
    is_images_ : bool
        Whether the instances are images.
    """

    # With metadata routing, groups are passed only to the splitter of a cross-validation, as without
    # routing; set_fit_request(groups=True) passes them to the fit as well.
    __metadata_request__fit = {  # noqa: RUF012 - scikit-learn's protocol
        "X_labeled": metadata_routing.UNUSED,
        "X_bags": True,
        "bag_proportions": True,
        "groups": False,
    }

    __metadata_request__predict = _RECORDS

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        "classes": ["array-like", None],
        "random_state": ["random_state"],
    }

    #: Fitted attributes that a model file stores.
    _kept = Kept(
        always={"classes_": (np.ndarray,), "is_images_": (bool,), "n_features_in_": (int,)}
    )

    classes: Any = None

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
        """Train on labeled patches and on bags.

        Parameters
        ----------
        X_labeled : array-like of shape (n_labeled, n_features) or (n_labeled, height, width, 3)
            Features, or uint8 images (an array, or a lazily read sequence of that shape).
        y : array-like of shape (n_labeled,)
            Labels, integers or strings. -1 is an ordinary class; put unlabeled patches into the bags.
        X_bags : Bags, or sequence or dict of n_bags arrays, optional
            Instances of the weakly labeled slides. Without bags the fit is supervised.
        bag_proportions : array-like or DataFrame of shape (n_bags, n_classes), or Bags, optional
            Recorded class proportions in [0, 1]: columns in sorted order of the classes, or a DataFrame
            indexed by bag with a column per class. Omit them if ``X_bags`` is a ``Bags`` with proportions.
            A column of a DataFrame may name a class without labeled patches, which is then learned from the
            bags.
        groups : array-like of shape (n_labeled,), optional
            Slide of each labeled patch. Validation then holds out whole slides instead of patches. No bag
            may have the name of one of these slides. In a cross-validation, ``groups`` is passed to the
            splitter only, unless ``set_fit_request(groups=True)`` is called.

        Returns
        -------
        self : BagClassifier

        Raises
        ------
        ValueError, TypeError
            If the inputs are inconsistent, or features cannot be measurements; the message names the bag,
            instance or class.

        Warns
        -----
        UserWarning
            If the features of bags and labeled patches, or of one patch and all others, differ by more
            than stains and scanners do, if only one of them has negative features, if the columns of the
            bags seem to be in another order or of another network, if y contains -1 and classes other than
            1, if a class of the bags alone has nearly the name of a labeled one, or if proportions have no
            class names and the classes are strings that do not appear in sorted order.
        """
        with all_or_nothing(self):
            self._forget()
            random_state = check_random_state(self.random_state)
            X, y = self._check_labeled(X_labeled, y, groups)
            bags = self._check_bags(X, X_bags, bag_proportions, groups)
            if not self.is_images_:
                check_features(X, y, None if bags is None or _stays_in_files(bags.X) else bags)
            self.classes_ = known_classes(y, self.classes, bags)
            if bags is not None:
                bags = bags.with_classes(self.classes_)
                if bags.class_names is None:
                    what = "The columns of the bags' proportions"
                    named = _in_order_of_appearance(
                        y if self.classes is None else listed(self.classes)
                    )
                    otherwise = " If the order is right, give classes= of the classifier in it."
                    warn_if_reordered(named, self.classes_, what, otherwise)
            codes = np.searchsorted(self.classes_, y)
            self._fit(X, codes, bags, groups, random_state)
        return self

    def _forget(self) -> None:
        """Delete the results of the last fit, except those that a warm start continues from."""
        for name in [name for name in vars(self) if name[-1] == "_" and name[0] != "_"]:
            delattr(self, name)

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
        """Instances as float32 features or uint8 images, and labels."""
        if hasattr(y, "n_bags"):
            raise TypeError("y is a Bags; give the labels first: fit(X_labeled, y, X_bags).")
        given = np.asarray([] if y is None else y, dtype=object)
        if n_missing := int(np.sum(pd.isna(given))):
            raise ValueError(
                f"{n_missing} of {given.size} labels are None or NaN, as patch_labels gives for patches "
                "without a majority class. Keep the labeled ones: keep = pandas.notna(y), then X[keep] and "
                "y[keep] (and groups[keep]); put unlabeled patches into bags."
            )
        is_empty = [isinstance(one, str) and one.strip() in NO_LABELS for one in given.ravel()]
        if n_missing := sum(is_empty):
            empty = str(given.ravel()[is_empty.index(True)])
            raise ValueError(
                f"{n_missing} of {given.size} labels are texts without a class, such as {empty!r}. Keep the "
                "labeled patches, X[keep] and y[keep] (and groups[keep]); put the others into bags."
            )
        if _is_images(X):
            check_images(X)
            self.n_features_in_ = X.shape[3]
            y = column_or_1d(y, warn=True)
            check_consistent_length(X, y)
        else:
            try:
                X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
            except ValueError:
                _name_what_is_not_finite(X, lambda row: f"Labeled patch {row}")
                raise
        check_classification_targets(y)
        if groups is not None:
            check_ids(groups, len(y), "groups", "labeled patches")
        self.is_images_ = len(X.shape) == 4
        _warn_if_unlabeled(np.unique(y))
        return X, y

    def _check_bags(self, X, X_bags, bag_proportions, groups):
        """Check the bags against labeled instances and slides; None without bags."""
        if X_bags is None:
            if bag_proportions is not None:
                raise ValueError("bag_proportions is given without X_bags; give both or neither.")
            return None
        for name, value in (("X_bags", X_bags), ("bag_proportions", bag_proportions)):
            if _has_one_value_each(value, X.shape[0]):
                raise ValueError(
                    f"{name} has one value for each of {X.shape[0]} labeled patches. If these are their "
                    "slides, pass them by name, groups=groups; bags are arrays of instances, and proportions "
                    "have a row per bag and a column per class."
                )
        if isinstance(X_bags, list) and len(X_bags) == X.shape[0]:
            raise ValueError(
                f"X_bags is a list of {len(X_bags)} arrays, as many as there are labeled patches. "
                "Cross-validation slices lists and tuples of this length, which drops bags; pass "
                "Bags(X_bags, proportions=...), which it passes on whole."
            )
        bags = check_bags(X_bags, bag_proportions)
        if tuple(bags.X.shape[1:]) != tuple(X.shape[1:]):
            raise ValueError(
                f"Instances in bags have shape {tuple(bags.X.shape[1:])}, but labeled instances have shape "
                f"{tuple(X.shape[1:])}; give both in the same form.{IN_A_PIPELINE}"
            )
        if groups is not None and bags.has_names:
            shared = sorted(set(bags.names.tolist()) & set(np.asarray(groups).tolist()))
            if shared:
                raise ValueError(
                    f"Bag {shared[0]!r} is also a labeled slide (groups), so its patches could be used for "
                    "both training and validation. Remove it from the bags, or give different slides "
                    "different ids."
                )
        try:
            bags = bags.with_instances(self._check_instances(bags.X, "Instances in bags"))
        except ValueError:
            _name_what_is_not_finite(bags.X, lambda row: name_of_instance(bags, row))
            raise
        return bags

    def _check_instances(self, X, what="X"):
        """Check that instances to predict are of the fitted kind."""
        refuse_bags(X)
        if _is_images(X) != self.is_images_:
            kinds = {True: "images (n, height, width, 3)", False: "features (n, n_features)"}
            raise ValueError(
                f"{what} must be {kinds[self.is_images_]}, as in fit; got shape "
                f"{getattr(X, 'shape', None)}."
            )
        if self.is_images_:
            check_images(X)
            return X
        if _stays_in_files(X):
            check_n_features(self, X, reset=False)
            return X
        return validate_data(self, X, dtype=np.float32, reset=False)

    def _given_records(self, probabilities, bag_ids, bag_proportions):
        """Update probabilities with the records, if there are any."""
        if bag_proportions is None:
            if bag_ids is not None:
                raise ValueError("bag_ids is given without bag_proportions; give both or neither.")
            return probabilities
        bags = bags_to_predict(len(probabilities), bag_ids, bag_proportions, self.classes_)
        given = np.array(probabilities, dtype=np.float64)
        if bags is not None:
            rows = bags.X[:, 0]
            given[rows] = probabilities_given_records(
                given[rows],
                bags.index,
                *ends_of(bags),
                standard_deviation=getattr(self, "record_deviation_", UNKNOWN_DEVIATION),
                instance_weight=getattr(self, "instance_weight_", INSTANCE_WEIGHT),
            )
        return given


class ProbabilisticBagClassifier(BagClassifier):
    """Base class for classifiers with class probabilities.

    A subclass defines :meth:`_fit` and :meth:`_probabilities`.
    """

    __metadata_request__predict_proba = _RECORDS
    __metadata_request__predict_log_proba = _RECORDS

    def _probabilities(self, X: Any) -> np.ndarray:
        """Class probabilities of unchecked instances, without records."""
        raise NotImplementedError

    def predict_proba(
        self, X: Any, *, bag_ids: Any = None, bag_proportions: Any = None
    ) -> np.ndarray:
        """Predict class probabilities, optionally given the recorded proportions of the bags of X.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features) or (n_instances, height, width, 3)
            As in :meth:`fit`.
        bag_ids : array-like of shape (n_instances,), optional
            Bag (slide or case) of each instance. Default: all instances are one bag.
        bag_proportions : DataFrame, array-like of shape (n_bags, n_classes), or Bags, optional
            Recorded proportions of these bags, as in :meth:`fit`: a DataFrame indexed by bag, an array in
            sorted order of ``bag_ids``, or :class:`~proportion_ssl.Bags`, which may have intervals or
            incomplete records. Additional bags of a DataFrame or Bags are ignored. A bag with a row of NaN is
            predicted without a record. Scores of predictions that use the record of a slide do not
            measure performance on slides without records.

        Returns
        -------
        probabilities : ndarray of float, shape (n_instances, n_classes)
            Columns in the order of ``classes_``; rows sum to 1.

        Raises
        ------
        ValueError
            If records and instances are inconsistent; the message names the bag or class.

        Notes
        -----
        See :func:`~proportion_ssl.pseudo_labels.probabilities_given_records`. The standard deviation of the
        records is the fitted ``record_deviation_`` if the classifier has it, else 0.05.
        """
        return self._given_records(self._probabilities(X), bag_ids, bag_proportions)

    def predict_log_proba(
        self, X: Any, *, bag_ids: Any = None, bag_proportions: Any = None
    ) -> np.ndarray:
        """Predict logarithms of the class probabilities; see :meth:`predict_proba`.

        Parameters
        ----------
        X, bag_ids, bag_proportions
            As in :meth:`predict_proba`.

        Returns
        -------
        log_probabilities : ndarray of float, shape (n_instances, n_classes)
            Without records, finite even where the probabilities underflow to 0.
        """
        if bag_ids is None and bag_proportions is None:
            return self._log_probabilities(X)
        given = self.predict_proba(X, bag_ids=bag_ids, bag_proportions=bag_proportions)
        with np.errstate(divide="ignore"):
            return np.log(given)

    def _log_probabilities(self, X: Any) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return np.log(self._probabilities(X))

    def predict(self, X: Any, *, bag_ids: Any = None, bag_proportions: Any = None) -> np.ndarray:
        """Predict the most probable class, optionally given the recorded proportions of the bags of X.

        Parameters
        ----------
        X, bag_ids, bag_proportions
            As in :meth:`predict_proba`.

        Returns
        -------
        labels : ndarray of shape (n_instances,)
        """
        probabilities = self.predict_proba(X, bag_ids=bag_ids, bag_proportions=bag_proportions)
        return self.classes_[probabilities.argmax(axis=1)]


def _has_one_value_each(value: Any, n: int) -> bool:
    """Whether this is a list, array or column of so many single values."""
    if isinstance(value, list | tuple):
        return len(value) == n and all(one is None or np.isscalar(one) for one in value)
    return getattr(value, "shape", None) in ((n,), (n, 1))


def _name_what_is_not_finite(X: Any, name: Callable[[int], str]) -> None:
    """Raise an error that names the first instance with NaN or infinity, if there is one."""
    features = np.asarray(X)
    if features.dtype.kind != "f" or features.ndim < 2 or not features.size:
        return
    with np.errstate(over="ignore"):
        features = features.astype(np.float32, copy=False)  # in which a large number is infinite
    wrong = np.flatnonzero(~np.isfinite(features.reshape(len(features), -1)).all(axis=1))
    if not len(wrong):
        return
    raise ValueError(
        f"{name(int(wrong[0]))} contains NaN or infinity ({len(wrong)} of {len(features)} instances do); "
        "leave such instances out, or find out how they arose."
    )


def _warn_if_unlabeled(classes: np.ndarray) -> None:
    """Warn if -1 may mark unlabeled patches; -1 and 1 alone are two ordinary classes."""
    if classes.dtype.kind in "if" and -1 in classes and classes.tolist() != [-1, 1]:
        warn(
            f"y holds -1, which is treated as an ordinary class among {classes.tolist()}. If it marks "
            "unlabeled patches, remove them from X_labeled and y and put them into the bags (X_bags).",
        )


def _in_order_of_appearance(names: Any) -> np.ndarray:
    names, first = np.unique(np.ravel(names), return_index=True)
    return names[np.argsort(first)]


def _stays_in_files(X: Any) -> bool:
    """Return whether features are read batch by batch instead of being copied into memory at once."""
    return hasattr(X, "batches") and X.dtype == np.float32


def _is_images(X: Any) -> bool:
    return len(getattr(X, "shape", ())) == 4
