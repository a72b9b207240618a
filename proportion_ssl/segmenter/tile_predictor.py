"""Use a classifier of this package as a feature model of LazySlide."""

from __future__ import annotations

from typing import Any

import numpy as np


class TilePredictor:
    """Adapter for ``lazyslide.tl.feature_prediction(wsi, model, feature_key)``.

    Parameters
    ----------
    classifier : classifier
        Fitted on features of the same encoder; has ``predict_proba`` and ``classes_``.
    name : str, default="proportion_ssl"
        Name of the predictions in LazySlide: the table ``NAME_tiles``.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = LogisticRegression().fit([[0.0], [1.0]], ["acinar", "solid"])
    >>> prediction = TilePredictor(model).predict(np.array([[0.5]]))
    >>> sorted(prediction), round(float(prediction["prob_solid"][0]), 3)
    (['prob_acinar', 'prob_solid'], 0.5)
    """

    def __init__(self, classifier: Any, name: str = "proportion_ssl"):
        self.model = classifier
        self.name = name

    def predict(self, features: Any, coords: Any = None) -> dict[str, np.ndarray]:
        """Probabilities of the classes.

        Parameters
        ----------
        features : array-like of shape (n_tiles, n_features)
        coords : ignored

        Returns
        -------
        prediction : dict of str to ndarray of shape (n_tiles,)
            ``prob_CLASS`` for every class.
        """
        dense = features.toarray() if hasattr(features, "toarray") else features
        values = self.model.predict_proba(np.asarray(dense, dtype=np.float32))
        return {
            f"prob_{name}": column
            for name, column in zip(self.model.classes_, values.T, strict=True)
        }

    def get_transform(self) -> None:
        """None: the input is features, not images."""
        return

    def to(self, device: Any) -> TilePredictor:
        """Return self: the classifier is not moved."""
        return self

    def try_compile(self, **settings: Any) -> TilePredictor:
        """Return self: nothing is compiled."""
        return self
