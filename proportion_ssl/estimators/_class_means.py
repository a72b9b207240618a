"""Class means estimated from labels and from the proportions of bags."""

from typing import NamedTuple

import numpy as np


class ClassMeans(NamedTuple):
    """Means of the classes by least squares, and how well the bags tell them.

    ``worth`` is the number of labeled instances of a class whose mean would be as precise.
    """

    means: np.ndarray  # (n_classes, n_features)
    worth: np.ndarray  # (n_classes,)


def class_means(
    X: np.ndarray,
    codes: np.ndarray,
    bag_X: np.ndarray,
    bag_index: np.ndarray,
    proportions: np.ndarray,
    bag_weights: np.ndarray,
) -> ClassMeans:
    """Least-squares class means from the means of bags and of labeled instances.

    Parameters
    ----------
    X : ndarray of shape (n_labeled, n_features)
    codes : ndarray of int, shape (n_labeled,)
        Class indices; a class may have no labeled instance.
    bag_X : ndarray of shape (n_bag_instances, n_features)
    bag_index : ndarray of int, shape (n_bag_instances,)
        0 to n_bags - 1.
    proportions : ndarray of shape (n_bags, n_classes)
        Rows sum to 1.
    bag_weights : ndarray of shape (n_bags,)
        Weight of each bag, multiplied by its number of instances.

    Returns
    -------
    found : ClassMeans
        The least-squares solution, the one with the smallest norm if it is not unique; the worth is 0
        where there are no more bags and labeled classes than classes.

    Notes
    -----
    With the rows a_i of shares (of a labeled class: 1), their weights w_i (numbers of instances) and squared
    residuals r_i, summed over the features, a mean has the variance ``s^2 [(A' W A)^-1]_cc`` with
    ``s^2 = sum_i w_i r_i / (n_rows - n_classes)``, which includes what differs from bag to bag. That of n
    labeled instances has that within classes divided by n; the worth is the n for which both are equal.

    References
    ----------
    .. [1] Quadrianto, Smola, Caetano, Le. "Estimating Labels from Label Proportions". JMLR 10, 2009.

    Examples
    --------
    >>> import numpy as np
    >>> labeled, in_bags = np.array([[0.0], [0.0]]), np.array([[0.0], [4.0], [0.0], [0.0]])
    >>> recorded = np.array([[0.5, 0.5], [1.0, 0.0]])
    >>> found = class_means(labeled, np.zeros(2, int), in_bags, np.repeat([0, 1], 2), recorded, np.ones(2))
    >>> found.means.round(6) + 0.0
    array([[0.],
           [4.]])
    """
    n_bags, n_classes = proportions.shape
    labels = np.eye(n_classes)[codes]
    counts, sizes = labels.sum(axis=0), np.bincount(bag_index, minlength=n_bags)
    labeled_means = (labels.T @ X) / np.maximum(counts, 1)[:, np.newaxis]
    bag_means = np.zeros((n_bags, bag_X.shape[1]))
    np.add.at(bag_means, bag_index, bag_X)
    bag_means /= sizes[:, np.newaxis]
    shares = np.concatenate([np.eye(n_classes), proportions])
    root = np.sqrt(np.concatenate([counts, bag_weights * sizes]))[:, np.newaxis]
    rows, values = root * shares, root * np.concatenate([labeled_means, bag_means])
    means = np.linalg.lstsq(rows, values, rcond=None)[0]
    worth = np.zeros(n_classes)
    n_free = np.count_nonzero(root) - n_classes
    if n_free > 0:
        residual = ((values - rows @ means) ** 2).sum() / n_free
        variance = residual * np.linalg.pinv(rows.T @ rows).diagonal()
        n_within = max(1, len(X) - np.count_nonzero(counts))
        within = ((X - labeled_means[codes]) ** 2).sum() / n_within
        np.divide(within, variance, out=worth, where=variance > 0)
    return ClassMeans(means, worth)
