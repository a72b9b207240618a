"""Multinomial logistic regression on soft labels: a quasi-Newton method on a changing scale."""

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning

from proportion_ssl._warnings import warn
from proportion_ssl.heads._discriminant import ABSENT

#: Largest absolute entry of the gradient at which the weights count as found.
TOLERANCE = 3e-5

#: Most steps.
MAX_ITER = 500

#: Steps before which the curvature is taken anew.
RENEWED = (0, 12, 50, 150)

#: Steps whose changes of the gradient are remembered.
MEMORY = 20

#: A step is long enough once the slope along it is this share of that at its start.
FLAT = 0.1

#: Most step lengths that are tried.
MOST_LENGTHS = 20

#: Instances that are multiplied at once.
AT_ONCE = 8192


class _Problem(NamedTuple):
    """Mean cross-entropy with classes balanced, and half the ridge times the squared weights."""

    X: np.ndarray  # (n_instances, n_features)
    targets: np.ndarray  # (n_classes, n_instances), sum to 1
    weights: np.ndarray  # (n_instances,), sums of the targets
    ridge: float


def soft_logistic_regression(
    X: np.ndarray,
    labels: np.ndarray,
    ridge: float,
    *,
    start: tuple[np.ndarray, np.ndarray] | None = None,
    tolerance: float = TOLERANCE,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights that minimize the class-balanced cross-entropy of soft labels.

    Parameters
    ----------
    X : ndarray of float, shape (n_instances, n_features)
        Its type is that of the products.
    labels : ndarray of float, shape (n_instances, n_classes)
        Share of each instance in each class, times the weight of the instance; not negative.
    ridge : float
    start : tuple (coef, intercept), optional
        Where to start, such as the solution for similar labels. Default: at zero.
    tolerance : float, default=3e-5
        Largest absolute entry of the gradient at which the weights count as found.

    Returns
    -------
    coef : ndarray of float64, shape (n_features, n_classes)
    intercept : ndarray of float64, shape (n_classes,)

    Warns
    -----
    ConvergenceWarning
        If the gradient is still larger after 500 steps, or rounding allows no further step.

    Notes
    -----
    As in :class:`SoftLogisticRegression`. A class without labels gets a probability of 0.

    L-BFGS [1]_ whose first guess of the inverse Hessian is, for every class, the inverse of
    ``sum_i w_i mean_c f_c (1 - f_c) x_i x_i' + ridge``, taken anew at a few steps. Logits are linear along a
    step, so its length is found without further products of the features: a step multiplies them twice.

    References
    ----------
    .. [1] Nocedal, Wright. "Numerical Optimization", 2nd edition, algorithm 7.4. Springer 2006.
    """
    present = np.flatnonzero(labels.sum(axis=0))
    counting = labels.any(axis=1)
    if not counting.all():
        X, labels = X[counting], labels[counting]
    targets = np.ascontiguousarray(labels[:, present].T, dtype=np.float64)
    targets /= targets.sum(axis=1, keepdims=True) * len(present)
    first = np.zeros((len(present), X.shape[1] + 1))
    if start is not None:
        first[:, :-1] = start[0].T[present]
        first[:, -1] = np.where(start[1] > ABSENT, start[1], 0)[present]
    problem = _Problem(X, targets, targets.sum(axis=0), ridge)
    found, largest = _minimize(problem, first, tolerance)
    if largest > tolerance:
        warn(
            f"Logistic regression stopped at a gradient of {largest:.1g}; at most {tolerance:.1g} was asked "
            "for, so its weights are not quite the best. A larger ridge or fewer n_components help.",
            ConvergenceWarning,
        )
    coef = np.zeros((X.shape[1], labels.shape[1]))
    coef[:, present] = found[:, :-1].T
    intercept = np.full(labels.shape[1], ABSENT)
    intercept[present] = found[:, -1]
    return coef, intercept


def _minimize(problem: _Problem, theta: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """Weights and, in the last column, intercepts (n_classes, n_features + 1); largest gradient."""
    logits = _logits(problem, theta)
    probabilities = softmax(logits, axis=0)
    gradient = _gradient(problem, theta, probabilities)
    factor: Any = None
    pairs: deque = deque(maxlen=MEMORY)
    for number in range(MAX_ITER):
        if np.abs(gradient).max() <= tolerance:
            break
        if number in RENEWED:
            factor = cho_factor(_curvature(problem, probabilities), lower=True)
        step = -_towards(gradient, pairs, factor)
        if np.vdot(gradient, step) >= 0:  # rounding
            break
        change = _logits(problem, step)
        length, probabilities = _length(problem, theta, step, gradient, logits, change)
        theta = theta + length * step
        logits += length * change
        before, gradient = gradient, _gradient(problem, theta, probabilities)
        moved, turned = length * step, gradient - before
        if (product := float(np.vdot(moved, turned))) > 0:
            pairs.append((moved, turned, product))
    return theta, float(np.abs(gradient).max())


def _logits(problem, theta):
    """Logits of all instances, float64, shape (n_classes, n_instances)."""
    products = problem.X @ theta[:, :-1].T.astype(problem.X.dtype)
    return products.T.astype(np.float64, order="C") + theta[:, -1:]


def _gradient(problem, theta, probabilities):
    """Gradient by weights and intercepts, shape (n_classes, n_features + 1)."""
    slopes = problem.weights * probabilities - problem.targets
    gradient = np.empty_like(theta)
    gradient[:, :-1] = slopes.astype(problem.X.dtype) @ problem.X
    gradient[:, :-1] += problem.ridge * theta[:, :-1]
    gradient[:, -1] = slopes.sum(axis=1)
    return gradient


def _curvature(problem, probabilities):
    """Hessian of weights and intercept of a class, averaged over the classes."""
    X, n_features = problem.X, problem.X.shape[1]
    weights = problem.weights * (probabilities * (1 - probabilities)).mean(axis=0)
    hessian = np.zeros((n_features + 1, n_features + 1))
    for first in range(0, len(X), AT_ONCE):
        rows = slice(first, first + AT_ONCE)
        weighted = X[rows] * np.sqrt(weights[rows])[:, np.newaxis].astype(X.dtype)
        hessian[:-1, :-1] += weighted.T @ weighted
        hessian[-1, :-1] += weights[rows].astype(X.dtype) @ X[rows]
    hessian[:-1, -1] = hessian[-1, :-1]
    hessian[-1, -1] = weights.sum()
    diagonal = np.einsum("ii->i", hessian)
    diagonal += 1e-6 * diagonal.max()  # more than products in float32 are off
    diagonal[:-1] += problem.ridge
    return hessian


def _towards(gradient, pairs, factor):
    """Inverse Hessian times the gradient, by the two loops of L-BFGS."""
    result, shares = gradient.copy(), []
    for moved, turned, product in reversed(pairs):
        shares.append(float(np.vdot(moved, result)) / product)
        result -= shares[-1] * turned
    result = np.ascontiguousarray(cho_solve(factor, result.T, check_finite=False).T)
    for (moved, turned, product), share in zip(pairs, reversed(shares), strict=True):
        result += (share - float(np.vdot(turned, result)) / product) * moved
    return result


def _length(problem, theta, step, gradient, logits, change):
    """Length of a step at which the loss hardly falls any more, and the probabilities there.

    Newton's method on the derivative along the step, which grows with the length, between lengths where it
    is known to be negative and positive.
    """
    weights, coef = problem.weights, step[:, :-1]
    bend = problem.ridge * float(np.vdot(coef, coef))
    begin = problem.ridge * float(np.vdot(theta[:, :-1], coef))
    begin -= float(np.vdot(problem.targets, change))
    steep = FLAT * abs(float(np.vdot(gradient, step)))
    length, low, high = 1.0, 0.0, np.inf
    for _ in range(MOST_LENGTHS):
        probabilities = softmax(logits + length * change, axis=0)
        moving = probabilities * change
        mean = moving.sum(axis=0)
        slope = begin + length * bend + float(weights @ mean)
        if abs(slope) <= steep:
            break
        low, high = (low, length) if slope > 0 else (length, high)
        spread = (moving * change).sum(axis=0) - mean**2
        length -= slope / (bend + float(weights @ spread))
        if not low < length < high:
            length = 2 * low if np.isinf(high) else (low + high) / 2
    else:
        probabilities = softmax(logits + length * change, axis=0)
    return length, probabilities
