"""Uncertainty of predictions, and the risk-coverage curve of abstaining from uncertain patches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special


def entropy_uncertainty(probabilities: Any) -> np.ndarray:
    """Entropy of class probabilities, divided by its maximum.

    Parameters
    ----------
    probabilities : array-like of shape (..., n_classes)
        In [0, 1]; rows sum to 1.

    Returns
    -------
    uncertainty : ndarray of shape (...)
        In [0, 1]. 0: one class has probability 1; 1: all classes are equally probable. 0 for a single class.

    Examples
    --------
    >>> entropy_uncertainty([[1.0, 0.0], [0.5, 0.5]]).tolist()
    [0.0, 1.0]
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return special.entr(p).sum(axis=-1) / np.log(max(p.shape[-1], 2))


def margin_uncertainty(probabilities: Any) -> np.ndarray:
    """One minus the difference between the two largest probabilities.

    Parameters
    ----------
    probabilities : array-like of shape (..., n_classes)

    Returns
    -------
    uncertainty : ndarray of shape (...)
        In [0, 1]; 1: two classes are equally probable. 0 for a single class.

    Examples
    --------
    >>> margin_uncertainty([[0.7, 0.2, 0.1], [0.5, 0.5, 0.0]]).round(2).tolist()
    [0.5, 1.0]
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape[-1] < 2:
        return np.zeros(p.shape[:-1])
    top = np.partition(p, -2, axis=-1)[..., -2:]
    return 1.0 - (top[..., 1] - top[..., 0])


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """Errors among the patches that are kept when the most uncertain ones are left out.

    Attributes
    ----------
    coverage : ndarray of shape (n_steps,)
        Fraction of the patches that is kept, increasing to 1.
    risk : ndarray of shape (n_steps,)
        Error rate among the kept patches.
    threshold : ndarray of shape (n_steps,)
        Largest uncertainty among the kept patches.
    area : float
        Area under the risk-coverage curve: mean risk over all patches; smaller is better.
    """

    coverage: np.ndarray
    risk: np.ndarray
    threshold: np.ndarray
    area: float


def risk_coverage(is_right: Any, uncertainty: Any) -> RiskCoverage:
    """Risk-coverage curve of abstaining from the most uncertain patches.

    Parameters
    ----------
    is_right : array-like of bool, shape (n_patches,)
        Whether the prediction of each patch is correct.
    uncertainty : array-like of shape (n_patches,)
        Larger is less certain, such as :func:`entropy_uncertainty`.

    Returns
    -------
    curve : RiskCoverage
        One step per distinct uncertainty; patches with equal uncertainty are kept or dropped together.

    Raises
    ------
    ValueError
        If lengths differ, there are no patches, or an uncertainty is NaN.

    References
    ----------
    .. [1] Geifman, El-Yaniv. "Selective Classification for Deep Neural Networks". NeurIPS 2017.

    Examples
    --------
    >>> curve = risk_coverage([True, True, False, True], [0.1, 0.2, 0.9, 0.3])
    >>> curve.coverage.tolist(), curve.risk.tolist()
    ([0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.0, 0.25])
    """
    right, unsure = np.asarray(is_right, dtype=bool), np.asarray(uncertainty, dtype=np.float64)
    if right.ndim != 1 or right.shape != unsure.shape or not len(right):
        raise ValueError(
            "is_right and uncertainty need one value per patch, got shapes "
            f"{right.shape} and {unsure.shape}."
        )
    if np.isnan(unsure).any():
        raise ValueError("uncertainty contains NaN; leave these patches out.")
    order = np.argsort(unsure, kind="stable")
    values = unsure[order]
    wrong = np.cumsum(~right[order])
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True))  # last position of each value
    kept = last + 1
    risk = wrong[last] / kept
    steps = np.diff(np.concatenate([[0], kept]))
    return RiskCoverage(
        kept / len(right), risk, values[last], float((risk * steps).sum() / len(right))
    )
