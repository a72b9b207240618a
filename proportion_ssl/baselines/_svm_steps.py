"""The two steps of the proportion-SVM, each exact with the other's result fixed."""

import numpy as np
from scipy.optimize import minimize


def fit_machines(
    X: np.ndarray, labels: np.ndarray, costs: np.ndarray, start: np.ndarray, tol: float
) -> np.ndarray:
    """Weights of squared-hinge machines, from the weights of the last fit on.

    Parameters
    ----------
    X : ndarray of shape (n_instances, n_features)
    labels : ndarray of shape (n_instances, n_machines)
        1 or -1.
    costs : ndarray of shape (n_instances,)
        Weight of each instance's loss.
    start : ndarray of shape (n_features + 1, n_machines)
        Where to start; the last row is the intercept, which is not regularised.
    tol : float
        Ends when a step lowers the objective by a smaller share.

    Returns
    -------
    weights : ndarray of shape (n_features + 1, n_machines)
    """
    costs = costs[:, np.newaxis]

    def objective(flat):
        weights = flat.reshape(start.shape)
        hinge = np.maximum(0.0, 1.0 - labels * scores_of(X, weights))
        slope = -2.0 * costs * labels * hinge
        gradient = np.empty_like(weights)
        gradient[:-1] = weights[:-1] + X.T @ slope.astype(X.dtype)
        gradient[-1] = slope.sum(axis=0)
        value = (weights[:-1] ** 2).sum() / 2 + (costs * hinge**2).sum()
        return value, gradient.ravel()

    options = {"ftol": tol, "gtol": 1e-10, "maxiter": 1000}
    result = minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return result.x.reshape(start.shape)


def label_bags(
    scores: np.ndarray, index: np.ndarray, lower: np.ndarray, upper: np.ndarray, penalty: float
) -> np.ndarray:
    """Labels of each bag with the smallest sum of squared hinges and distance to the proportion.

    Parameters
    ----------
    scores : ndarray of shape (n_instances, n_machines)
    index : ndarray of int, shape (n_instances,)
        Bag of each instance.
    lower, upper : ndarray of shape (n_bags, n_machines)
        Recorded share of positive labels; equal where it is exact.
    penalty : float
        Cost of each instance by which the labels miss the recorded shares, where a hinge costs 1.

    Returns
    -------
    labels : ndarray of int8, shape (n_instances, n_machines)
        1 or -1.

    Notes
    -----
    Whatever their number, the positive labels go to the instances that gain most by them, so that the
    best of the ``n + 1`` numbers is the best of all labels.
    """
    gains = np.maximum(0.0, 1.0 + scores) ** 2 - np.maximum(0.0, 1.0 - scores) ** 2
    labels = np.full(scores.shape, -1, dtype=np.int8)
    ends = np.cumsum(np.bincount(index, minlength=len(lower)))[:-1]
    for bag, rows in enumerate(np.split(np.argsort(index, kind="stable"), ends)):
        order = np.argsort(-gains[rows], axis=0, kind="stable")
        gained = np.cumsum(np.take_along_axis(gains[rows], order, axis=0), axis=0)
        counts = np.arange(len(rows) + 1)[:, np.newaxis]
        costs = penalty * missed_counts(counts, len(rows), lower[bag], upper[bag])
        costs[1:] -= gained
        for machine, n_positive in enumerate(costs.argmin(axis=0)):
            labels[rows[order[:n_positive, machine]], machine] = 1
    return labels


def missed_counts(
    counts: np.ndarray, sizes: np.ndarray | int, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """By how many instances counts lie outside the recorded shares of bags of these sizes."""
    return np.maximum(0.0, np.maximum(sizes * lower - counts, counts - sizes * upper))


def count_positive(labels: np.ndarray, index: np.ndarray, n_bags: int) -> np.ndarray:
    """Positive labels of each bag and machine, shape (n_bags, n_machines)."""
    counts = np.zeros((n_bags, labels.shape[1]))
    np.add.at(counts, index, labels > 0)
    return counts


def scores_of(X: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores in float64; the product is taken in the precision of ``X``."""
    return (X @ weights[:-1].astype(X.dtype)).astype(np.float64) + weights[-1]


def hinges(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared hinges."""
    return np.maximum(0.0, 1.0 - labels * scores) ** 2
