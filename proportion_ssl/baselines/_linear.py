"""What the linear classifiers of features share."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from proportion_ssl.estimators._base import BagClassifier


class LinearBagClassifier(BagClassifier):
    """Base of the linear classifiers: features only, and a default strength of regularization."""

    def _check_labeled(self, X, y, groups):
        X, y = super()._check_labeled(X, y, groups)
        if self.is_images_:
            raise ValueError(
                f"{type(self).__name__} learns from features (n, n_features), but X_labeled has shape "
                f"{tuple(X.shape)}: images. Turn labeled patches and bags into features first, for "
                "example by PatchEmbedder."
            )
        return X, y


class LinearMachines(LinearBagClassifier):
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

    def predict(self, X: Any) -> np.ndarray:
        """Class with the largest score.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features)

        Returns
        -------
        labels : ndarray of shape (n_instances,)
        """
        scores = self.decision_function(X)
        return self.classes_[
            (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)
        ]


def inverse_mean_square(X: np.ndarray) -> float:
    """One over the mean squared distance of the rows to their mean; 1 where all rows are alike."""
    mean_square = float(X.var(axis=0, dtype=np.float64).sum())
    return 1.0 / mean_square if mean_square > 0 else 1.0
