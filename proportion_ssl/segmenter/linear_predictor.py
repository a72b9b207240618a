"""Class probabilities from linear maps in plain numpy, for machines that only predict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """Weighted mean over views of the softmax of a linear map of each view.

    Parameters
    ----------
    coef : ndarray of float64, shape (n_views, n_classes, n_features)
    intercept : ndarray of float64, shape (n_views, n_classes)
    weights : ndarray of float64, shape (n_views,)
        Sum to 1.
    classes : ndarray of str, shape (n_classes,)

    Examples
    --------
    >>> predictor = LinearPredictor(
    ...     np.zeros((1, 2, 3)), np.log([[0.25, 0.75]]), np.ones(1), np.array(["a", "b"])
    ... )
    >>> predictor.predict_proba(np.ones((1, 3))).round(2)
    array([[0.25, 0.75]])
    """

    coef: np.ndarray
    intercept: np.ndarray
    weights: np.ndarray
    classes: np.ndarray

    @property
    def n_features(self) -> int:
        """Number of input columns: all views, concatenated."""
        return self.coef.shape[0] * self.coef.shape[2]

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Class probabilities.

        Parameters
        ----------
        X : ndarray of shape (n_patches, at least n_features)
            Further columns (unused views) are ignored.

        Returns
        -------
        probabilities : ndarray of float64, shape (n_patches, n_classes)
        """
        total = np.zeros((len(X), self.coef.shape[1]))
        width = self.coef.shape[2]
        for view, (coef, intercept, weight) in enumerate(
            zip(self.coef, self.intercept, self.weights, strict=True)
        ):
            part = np.asarray(X[:, view * width : (view + 1) * width], dtype=np.float64)
            total += weight * softmax(part @ coef.T + intercept, axis=1)
        return total


def of_classifier(model: Any) -> LinearPredictor | None:
    """Linear map of a fitted classifier of features; None if the classifier is not linear.

    Parameters
    ----------
    model : classifier
        Has ``to_logistic_regression``, like the classifiers of this package, or is a fitted
        :class:`~sklearn.linear_model.LogisticRegression`.

    Returns
    -------
    predictor : LinearPredictor or None
    """
    if hasattr(model, "to_logistic_regression"):
        try:
            model = model.to_logistic_regression()
        except ValueError:  # not only a linear head was trained
            return None
    if type(model).__name__ != "LogisticRegression":
        return None
    coef, intercept = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(coef) == 1:  # for two classes scikit-learn stores the difference
        coef, intercept = (
            np.concatenate([0 * coef, coef]),
            np.concatenate([0 * intercept, intercept]),
        )
    return LinearPredictor(coef[np.newaxis], intercept[np.newaxis], np.ones(1), model.classes_)


def of_proposer(proposer: Any) -> LinearPredictor | None:
    """Linear maps of a fitted tumor proposer; None if its net is not linear.

    Parameters
    ----------
    proposer : TumorProposer

    Returns
    -------
    predictor : LinearPredictor or None
        Its classes are "False" and "True" (tumor).
    """
    net = proposer.net_
    experts, weights = getattr(net, "experts_", [net]), getattr(net, "fusion_", None)
    weights = np.ones(1) if weights is None else getattr(weights, "weights_", None)
    heads: list[Any] = [getattr(expert, "head", None) for expert in experts]
    if weights is None or not all(hasattr(head, "coefficients") for head in heads):
        return None
    maps = [head.coefficients() for head in heads]
    coef, intercept = (np.stack([one[part] for one in maps]) for part in (0, 1))
    return LinearPredictor(coef, intercept, weights, np.array(["False", "True"]))
