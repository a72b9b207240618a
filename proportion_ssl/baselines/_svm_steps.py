"""Alternating optimization of the proportion-SVM; each step is exact for fixed results of the other."""

import numpy as np
from scipy.optimize import minimize

from proportion_ssl.proportions.bags import Bags


def alternate(
    X: np.ndarray,
    labeled: np.ndarray,
    first: np.ndarray,
    bags: Bags,
    ends: np.ndarray,
    *,
    C: float,
    C_p: float,
    growth: float,
    tol: float,
    max_iter: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
    """Alternate between fitting weights and labeling bags while the weight of the loss increases.

    Parameters
    ----------
    X : ndarray of shape (n_labeled + n_bag_instances, n_features)
    labeled : ndarray of shape (n_labeled, n_machines)
        Labels of the first rows, 1 or -1; they are fixed.
    first : ndarray of int8, shape (n_bag_instances, n_machines)
        Initial labels of the other rows.
    bags : Bags
    ends : ndarray of shape (2, n_bags, n_machines)
        Smallest and largest recorded share of positive labels.
    C, C_p, growth, tol, max_iter
        As in :class:`~proportion_ssl.baselines.ProportionSVMClassifier`.

    Returns
    -------
    weights : ndarray of shape (n_features + 1, n_machines)
    labels : ndarray of int8, shape (n_bag_instances, n_machines)
    objectives : ndarray of shape (n_machines,)
    history : list of dict
        ``C`` and ``objective`` after each alternation.
    """
    new, history = first, []
    of_instances = np.concatenate([np.ones(len(labeled)), bags.weights[bags.index]])
    weights, now = np.zeros((X.shape[1] + 1, labeled.shape[1])), 1e-4 * C
    while now < C:
        now, last = min(growth * now, C), np.inf
        for _ in range(max_iter):
            old, costs = new, now * of_instances
            weights = fit_machines(X, np.concatenate([labeled, old]), costs, weights, tol)
            scores = scores_of(X, weights)[len(labeled) :]
            new = label_bags(scores, bags.index, ends[0], ends[1], C_p / now)
            objectives = objectives_of(weights, X, np.concatenate([labeled, new]), costs)
            counts = count_positive(new, bags.index, bags.n_bags)
            missed = missed_counts(counts, bags.sizes[:, np.newaxis], *ends)
            objectives += C_p * bags.weights @ missed
            total = float(objectives.sum())
            history.append({"C": now, "objective": total})
            if np.array_equal(new, old) or last - total <= tol * total:
                break
            last = total
    return weights, new, objectives, history


def fit_machines(
    X: np.ndarray, labels: np.ndarray, costs: np.ndarray, start: np.ndarray, tol: float
) -> np.ndarray:
    """Fit weights of squared-hinge machines, starting from the weights of the last fit.

    Parameters
    ----------
    X : ndarray of shape (n_instances, n_features)
    labels : ndarray of shape (n_instances, n_machines)
        1 or -1.
    costs : ndarray of shape (n_instances,)
        Weight of the loss of each instance.
    start : ndarray of shape (n_features + 1, n_machines)
        Initial weights; the last row is the intercept, which is not regularized.
    tol : float
        Stop when the relative decrease of the objective in a step is smaller.

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
    """Labels of each bag that minimize the squared hinge losses plus the deviation from the proportion.

    Parameters
    ----------
    scores : ndarray of shape (n_instances, n_machines)
    index : ndarray of int, shape (n_instances,)
        Bag of each instance.
    lower, upper : ndarray of shape (n_bags, n_machines)
        Interval of the recorded share of positive labels; equal for exact shares.
    penalty : float
        Penalty for each instance by which the labels deviate from the recorded shares, relative to a hinge
        weight of 1.

    Returns
    -------
    labels : ndarray of int8, shape (n_instances, n_machines)
        1 or -1.

    Notes
    -----
    For a given number of positive labels, the optimum assigns them to the instances with the largest gain.
    Comparing the ``n + 1`` possible numbers therefore gives the exact minimum.
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
    """Number of instances by which counts lie outside the recorded shares of bags of these sizes."""
    return np.maximum(0.0, np.maximum(sizes * lower - counts, counts - sizes * upper))


def count_positive(labels: np.ndarray, index: np.ndarray, n_bags: int) -> np.ndarray:
    """Number of positive labels per bag and machine, shape (n_bags, n_machines)."""
    counts = np.zeros((n_bags, labels.shape[1]))
    np.add.at(counts, index, labels > 0)
    return counts


def scores_of(X: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores in float64; the product is computed in the dtype of ``X``."""
    return (X @ weights[:-1].astype(X.dtype)).astype(np.float64) + weights[-1]


def objectives_of(
    weights: np.ndarray, X: np.ndarray, labels: np.ndarray, costs: np.ndarray
) -> np.ndarray:
    """Regularizer and loss of each machine, shape (n_machines,)."""
    squared_hinges = np.maximum(0.0, 1.0 - labels * scores_of(X, weights)) ** 2
    return (weights[:-1] ** 2).sum(axis=0) / 2 + costs @ squared_hinges
