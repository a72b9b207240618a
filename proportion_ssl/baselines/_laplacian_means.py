"""Class means per bag with Laplacian regularization across similar bags (Laplacian mean map)."""

import numpy as np
from scipy.linalg import solve
from scipy.spatial.distance import pdist, squareform

#: Ridge penalty relative to weights of 1, so that classes that occur in no bag have a mean too.
EPSILON = 1e-8


def similarities(means: np.ndarray) -> np.ndarray:
    """Similarity of bags, ``exp(-|mean_j - mean_k| / sigma)``.

    Parameters
    ----------
    means : ndarray of shape (n_bags, n_features)

    Returns
    -------
    similar : ndarray of shape (n_bags, n_bags)
        In [0, 1], 0 on the diagonal; sigma is the median distance of two bags.

    Examples
    --------
    >>> similarities(np.array([[0.0], [2.0]])).round(2)
    array([[0.  , 0.37],
           [0.37, 0.  ]])
    """
    distances = pdist(means)
    sigma = np.median(distances) if len(distances) else 0.0
    return squareform(np.exp(-distances / sigma) if sigma > 0 else np.ones_like(distances))


def class_means_by_bag(
    means: np.ndarray,
    proportions: np.ndarray,
    weights: np.ndarray,
    similar: np.ndarray,
    gamma: float,
) -> np.ndarray:
    """Class means per bag that explain the mean of the bag and are similar in similar bags.

    Parameters
    ----------
    means : ndarray of shape (n_bags, n_features)
        Means of the bags.
    proportions : ndarray of shape (n_bags, n_classes)
        Rows sum to 1.
    weights : ndarray of shape (n_bags,)
    similar : ndarray of shape (n_bags, n_bags)
        Symmetric, non-negative.
    gamma : float
        Weight of the differences between bags, non-negative.

    Returns
    -------
    by_bag : ndarray of shape (n_bags, n_classes, n_features)
        Minimizes ``sum_b w_b |sum_c p_bc m_bc - mean_b|^2 + gamma sum_c sum_{b < d} s_bd |m_bc - m_dc|^2``,
        with the weights divided by their mean.

    Notes
    -----
    Equation (8) of Patrini et al., extended to any number of classes.
    """
    n_bags, n_classes = proportions.shape
    weights = weights / weights.mean()
    laplacian = np.diag(similar.sum(axis=1)) - similar
    matrix = np.kron(gamma * laplacian, np.eye(n_classes)) + EPSILON * np.eye(n_bags * n_classes)
    blocks = matrix.reshape(n_bags, n_classes, n_bags, n_classes)
    bags = np.arange(n_bags)
    blocks[bags, :, bags, :] += np.einsum("b,bi,bj->bij", weights, proportions, proportions)
    right = (weights[:, np.newaxis] * proportions)[:, :, np.newaxis] * means[:, np.newaxis]
    found = solve(matrix, right.reshape(n_bags * n_classes, -1), assume_a="pos")
    return found.reshape(n_bags, n_classes, -1)
