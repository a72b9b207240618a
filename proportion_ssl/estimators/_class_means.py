"""Class means estimated from labels and from the proportions of bags."""

import numpy as np


def class_means(
    X: np.ndarray,
    codes: np.ndarray,
    bag_X: np.ndarray,
    bag_index: np.ndarray,
    proportions: np.ndarray,
    bag_weights: np.ndarray,
) -> np.ndarray:
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
    means : ndarray of float64, shape (n_classes, n_features)
        The least-squares solution; the one with the smallest norm if it is not unique.

    References
    ----------
    .. [1] Quadrianto, Smola, Caetano, Le. "Estimating Labels from Label Proportions". JMLR 10, 2009.

    Examples
    --------
    >>> import numpy as np
    >>> labeled, in_bags = np.array([[0.0], [0.0]]), np.array([[0.0], [4.0], [0.0], [0.0]])
    >>> recorded = np.array([[0.5, 0.5], [1.0, 0.0]])
    >>> means = class_means(labeled, np.zeros(2, int), in_bags, np.repeat([0, 1], 2), recorded, np.ones(2))
    >>> means.round(6) + 0.0
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
    means = np.concatenate([labeled_means, bag_means])
    return np.linalg.lstsq(root * shares, root * means, rcond=None)[0]
