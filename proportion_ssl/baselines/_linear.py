"""What the linear classifiers of features share."""

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted

from proportion_ssl.estimators._base import BagClassifier


class FeaturesOnly(BagClassifier):
    """Refuses images."""

    def _check_labeled(self, X, y, groups):
        X, y = super()._check_labeled(X, y, groups)
        if self.is_images_:
            raise ValueError(
                f"{type(self).__name__} learns from features (n, n_features), but X_labeled has shape "
                f"{tuple(X.shape)}: images. Turn labeled patches and bags into features first, for "
                "example by PatchEmbedder."
            )
        return X, y


class LinearMachines(FeaturesOnly):
    """Base of those that end with a machine per class, or one for the second class if there are two.

    Attributes
    ----------
    coef_ : ndarray of shape (n_machines, n_features)
    intercept_ : ndarray of shape (n_machines,)
    """

    coef_: np.ndarray
    intercept_: np.ndarray

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores of the machines.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features)

        Returns
        -------
        scores : ndarray of shape (n_instances, n_classes), or (n_instances,) if there are two classes
            Two classes: above 0 for the second.
        """
        check_is_fitted(self)
        X = np.asarray(self._check_instances(X), dtype=np.float64)
        scores = X @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any, *, bag_ids: Any = None, bag_proportions: Any = None) -> np.ndarray:
        """Class with the largest score, given recorded proportions of the bags of X if there are any.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features)
        bag_ids, bag_proportions : optional
            As in :meth:`proportion_ssl.NegativePseudoLabelClassifier.predict`. Records are weighed against
            the softmax of the scores, which is no estimate of probabilities.

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
    """One over the mean squared distance of the rows to their mean; 1 where all rows are alike."""
    mean_square = float(X.var(axis=0, dtype=np.float64).sum())
    return 1.0 / mean_square if mean_square > 0 else 1.0
