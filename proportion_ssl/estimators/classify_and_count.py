"""Model selection with bags only: predict the proportions of held-out bags."""

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._fitting import all_or_nothing
from proportion_ssl.proportions.bags import Bags


class ClassifyAndCount(MetaEstimatorMixin, RegressorMixin, BaseEstimator):
    """Estimate proportions of bags by classifying and counting their instances, for model selection.

    The rows of ``X`` are bag *names*. Cross-validation and grid searches therefore hold out whole bags, with
    any scikit-learn splitter (``KFold``, ``ShuffleSplit``, or ``GroupKFold`` by patient). Scoring needs no
    instance labels.

    Parameters
    ----------
    estimator : NegativePseudoLabelClassifier or another classifier of labeled patches and bags

    Attributes
    ----------
    estimator_ : classifier
        Fitted on the labeled patches and the bags named in ``fit``.
    bags_ : Bags
        All bags passed to ``fit``, including held-out ones.
    n_features_in_ : int
        Always 1, the bag name.

    References
    ----------
    .. [1] Forman. "Quantifying counts and costs via classification". Data Mining and Knowledge
       Discovery 17, 2008: "classify and count".

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from proportion_ssl import NegativePseudoLabelClassifier
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=6, bag_size=20, random_state=0)
    >>> search = GridSearchCV(
    ...     ClassifyAndCount(NegativePseudoLabelClassifier(max_epochs=3, random_state=0)),
    ...     {"estimator__negative_memory": [1, 3]},
    ...     cv=2,
    ... )
    >>> names = data.bags.names.reshape(-1, 1)
    >>> search = search.fit(names, data.bags.proportions, labeled=(data.X_labeled, data.y), bags=data.bags)
    >>> bool(search.best_score_ <= 0)
    True
    """

    def __init__(self, estimator: Any):
        self.estimator = estimator

    def fit(self, X: Any, y: Any = None, *, labeled: tuple, bags: Bags) -> "ClassifyAndCount":
        """Fit the classifier on the labeled patches and on the named bags.

        Parameters
        ----------
        X : array-like of shape (n_selected,) or (n_selected, 1)
            Names of the bags to train on.
        y : ignored
            Proportions are taken from ``bags``.
        labeled : tuple (X_labeled, y) or (X_labeled, y, groups)
            Labeled patches, as in the ``fit`` of the classifier.
        bags : Bags
            All bags, with their proportions.

        Returns
        -------
        self : ClassifyAndCount

        Raises
        ------
        ValueError
            If ``labeled`` is not such a tuple, or a name is not among the bags.
        """
        if not isinstance(labeled, tuple) or len(labeled) not in (2, 3):
            raise ValueError("labeled must be a tuple (X_labeled, y) or (X_labeled, y, groups).")
        X_labeled, labels, *groups = labeled
        extra = {"groups": groups[0]} if groups else {}
        with all_or_nothing(self):
            self.bags_ = bags
            self.n_features_in_ = 1
            self.estimator_ = clone(self.estimator).fit(
                X_labeled, labels, bags.select(_names(X)), **extra
            )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict the proportions of bags.

        Parameters
        ----------
        X : array-like of shape (n_selected,) or (n_selected, 1)
            Names of bags that were passed to ``fit``, used for training or not.

        Returns
        -------
        proportions : ndarray of shape (n_selected, n_classes)
            Columns in the order of ``estimator_.classes_``; rows sum to 1.

        Raises
        ------
        ValueError
            If a name is not among the bags.
        """
        check_is_fitted(self)
        bags = self.bags_.select(_names(X))
        return bags.proportions_of(self.estimator_.predict(bags.X), self.estimator_.classes_)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Negative mean distance between recorded and predicted proportions.

        Parameters
        ----------
        X : array-like of shape (n_selected,) or (n_selected, 1)
            Names of bags.
        y : ignored
            Recorded proportions and their intervals are taken from the bags.
        sample_weight : array-like of shape (n_selected,), optional
            Weight of each bag.

        Returns
        -------
        score : float
            In [-1, 0]; higher is better. Negative weighted mean over the bags of
            :func:`~proportion_ssl.proportions.sum_absolute_error`; 0 if the records admit all predictions
            (intervals, incomplete records). With equal weights, equals minus
            :func:`~proportion_ssl.bag_proportion_error`.

        Raises
        ------
        ValueError
            If a name is not among the bags.
        """
        predicted = self.predict(X)
        bags = self.bags_.select(_names(X)).with_classes(self.estimator_.classes_)
        error = np.minimum(1.0, np.abs(bags.nearest(predicted) - predicted).sum(axis=1))
        weights = bags.weights if sample_weight is None else np.asarray(sample_weight)
        return -float(np.average(error, weights=weights))


def _names(X: Any) -> np.ndarray:
    names = np.asarray(X)
    if names.ndim == 2 and names.shape[1] == 1:
        return names[:, 0]
    if names.ndim != 1:
        raise ValueError(f"X has shape {names.shape}; give the names of bags, one per row.")
    return names
