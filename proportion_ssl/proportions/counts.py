"""Class proportions of bags, and the distance between two sets of proportions."""

import numpy as np


def class_proportions(
    labels: np.ndarray, bag_ids: np.ndarray, *, n_bags: int, n_classes: int
) -> np.ndarray:
    """Share of each class among the instances of each bag.

    Parameters
    ----------
    labels : ndarray of int, shape (n_instances,)
        Class index of each instance, in ``[0, n_classes)``. For predicted proportions, use the argmax of
        the class probabilities.
    bag_ids : ndarray of int, shape (n_instances,)
        Bag index of each instance, in ``[0, n_bags)``.
    n_bags, n_classes : int
        Shape of the result.

    Returns
    -------
    proportions : ndarray of shape (n_bags, n_classes)
        Rows sum to 1; a bag without instances has a row of zeros.

    Notes
    -----
    The paper does not say whether its predicted cancer ratio (PCR) counts argmax predictions or averages
    probabilities. Section 1 defines it as "the number of patch images whose label is the same class" over
    all patches [1]_, so instances are counted.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> import numpy as np
    >>> class_proportions(np.array([0, 1, 1, 0]), np.array([0, 0, 0, 1]), n_bags=2, n_classes=2)
    array([[0.33333333, 0.66666667],
           [1.        , 0.        ]])
    """
    counts = count_per_bag(labels, bag_ids, n_bags=n_bags, n_classes=n_classes)
    n_instances = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, n_instances, out=np.zeros(counts.shape), where=n_instances > 0)


def count_per_bag(
    labels: np.ndarray, bag_ids: np.ndarray, *, n_bags: int, n_classes: int
) -> np.ndarray:
    """Number of instances per bag and class.

    Parameters
    ----------
    labels, bag_ids : ndarray of int, shape (n_instances,)
        As in :func:`class_proportions`.
    n_bags, n_classes : int
        Shape of the result.

    Returns
    -------
    counts : ndarray of int64, shape (n_bags, n_classes)

    Examples
    --------
    >>> import numpy as np
    >>> count_per_bag(np.array([0, 1, 1]), np.array([0, 0, 1]), n_bags=2, n_classes=2)
    array([[1, 1],
           [0, 1]])
    """
    bag_ids, labels = np.asarray(bag_ids), np.asarray(labels)
    counts = np.zeros(n_bags * n_classes, dtype=np.int64)
    # if the counts fit in the cache, so should the intermediate results of a block
    block = max(2**16, 4 * counts.size)
    for start in range(0, len(labels), block):
        rows = slice(start, start + block)
        cells = np.multiply(bag_ids[rows], n_classes, dtype=np.int64) + labels[rows]
        counts += np.bincount(cells, minlength=counts.size)
    return counts.reshape(n_bags, n_classes)


def sum_absolute_error(
    true_proportions: np.ndarray, predicted_proportions: np.ndarray
) -> np.ndarray:
    """Distance between recorded and predicted proportions of each bag, in [0, 1].

    Parameters
    ----------
    true_proportions, predicted_proportions : array-like of shape (n_bags, n_classes)
        Non-negative, rows sum to about 1 (dimensionless).

    Returns
    -------
    error : ndarray of shape (n_bags,)
        In [0, 1]. 0: the proportions agree; 1: at least half of the bag has the wrong class.

    Notes
    -----
    Equation (2) of [1]_, ``min(1, sum_c |TCR_c - PCR_c|)``. The paper prints ``max``, but then the error
    would be at least 1 and no positive label would ever be given. This contradicts its Figure 4 and the
    text "in the range of 0 to 1".

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> import numpy as np
    >>> sum_absolute_error(np.array([[0.5, 0.5]]), np.array([[0.75, 0.25]]))
    array([0.5])
    """
    difference = np.subtract(true_proportions, predicted_proportions)
    return np.minimum(1.0, np.abs(difference).sum(axis=1))


def shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True)
