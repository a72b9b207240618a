"""Base classes for linear classifiers of features."""

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted

from proportion_ssl.estimators._base import BagClassifier


class FeaturesOnly(BagClassifier):
    """Base class for classifiers that accept features but not images."""

    def _check_labeled(self, X, y, groups):
        X, y = super()._check_labeled(X, y, groups)
        if self.is_images_:
            raise ValueError(
                f"{type(self).__name__} needs features (n, n_features), but X_labeled are images of shape "
                f"{tuple(X.shape)}. Convert labeled patches and bags to features first, for example with "
                "PatchEmbedder."
            )
        return X, y


class LinearMachines(FeaturesOnly):
    """Base class for one-versus-rest linear machines; a single machine with two classes.

    Attributes
    ----------
    coef_ : ndarray of shape (n_machines, n_features)
    intercept_ : ndarray of shape (n_machines,)
    """

    coef_: np.ndarray
    intercept_: np.ndarray

    def decision_function(self, X: Any) -> np.ndarray:
        """Compute the scores of the machines.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features)

        Returns
        -------
        scores : ndarray of shape (n_instances, n_classes), or (n_instances,) if there are two classes
            With two classes, scores above 0 mean the second class.

        Raises
        ------
        ValueError
            If X does not have the shape or the feature names seen in ``fit``.
        """
        check_is_fitted(self)
        X = np.asarray(self._check_instances(X), dtype=np.float64)
        scores = X @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any, *, bag_ids: Any = None, bag_proportions: Any = None) -> np.ndarray:
        """Predict the class with the largest score, optionally given recorded proportions of the bags of X.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features)
        bag_ids, bag_proportions : optional
            As in :meth:`proportion_ssl.NegativePseudoLabelClassifier.predict`. Records are combined with the
            softmax of the scores, which is not a probability estimate.

        Returns
        -------
        labels : ndarray of shape (n_instances,)
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.column_stack([np.zeros(len(scores)), scores])
        if bag_ids is not None or bag_proportions is not None:
            scores = self._given_records(softmax(scores, axis=1), bag_ids, bag_proportions)
        return self.classes_[scores.argmax(axis=1)]


def inverse_mean_square(X: np.ndarray) -> float:
    """Inverse of the mean squared distance of the rows from their mean; 1 if all rows are equal."""
    mean_square = float(X.var(axis=0, dtype=np.float64).sum())
    return 1.0 / mean_square if mean_square > 0 else 1.0


def frame_of(X: np.ndarray) -> tuple[np.ndarray, float]:
    """Origin and unit of features in a solver, whose tolerances are absolute.

    Intercepts are not regularized and the weight of the losses follows from the variance, so a solution must
    depend neither on the unit nor on the origin of the features.

    Parameters
    ----------
    X : ndarray of shape (n_instances, n_features)

    Returns
    -------
    origin : ndarray of shape (n_features,), dtype of X
        Near the mean, a multiple of the unit; 0 for standardized features.
    unit : float
        Power of two, by which division does not round, near the root of the mean variance; 1 for standardized
        features.

    Examples
    --------
    >>> frame_of(np.array([[0.0], [500.0]]))
    (array([256.]), 256.0)
    """
    unit = float(2.0 ** np.round(-np.log2(X.shape[1] * inverse_mean_square(X)) / 2))
    return (unit * np.round(X.mean(axis=0, dtype=np.float64) / unit)).astype(X.dtype), unit
