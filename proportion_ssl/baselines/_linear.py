"""What the linear classifiers of features share."""

import numpy as np

from proportion_ssl.base import BagClassifier


class LinearBagClassifier(BagClassifier):
    """Base of the linear classifiers: features only, and a default strength of regularisation."""

    def _check_labeled(self, X, y, groups):
        X, codes = super()._check_labeled(X, y, groups)
        if self.is_images_:
            raise ValueError(
                f"{type(self).__name__} learns from features (n, n_features), but X_labeled has shape "
                f"{tuple(X.shape)}: images. Turn labelled patches and bags into features first, for "
                "example by PatchEmbedder."
            )
        return X, codes


def inverse_mean_square(X: np.ndarray) -> float:
    """One over the mean squared distance of the rows to their mean; 1 where all rows are alike."""
    mean_square = float(X.var(axis=0, dtype=np.float64).sum())
    return 1.0 / mean_square if mean_square > 0 else 1.0
