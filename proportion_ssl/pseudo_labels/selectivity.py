"""Number of instances of each bag that receive a positive or negative pseudo label."""

import numpy as np

from proportion_ssl.proportions.counts import sum_absolute_error


def positive_selectivity(
    true_proportions: np.ndarray, predicted_proportions: np.ndarray
) -> np.ndarray:
    """Share of each bag that receives a positive pseudo label, per class.

    Parameters
    ----------
    true_proportions, predicted_proportions : array-like of shape (n_bags, n_classes)
        Non-negative, rows sum to about 1 (dimensionless).

    Returns
    -------
    selectivity : ndarray of shape (n_bags, n_classes)
        In [0, 1]; never above ``predicted_proportions``.

    Notes
    -----
    Equation (5) of [1]_: ``(1 - SAE) * min(TCR, PCR)``, SAE from
    :func:`~proportion_ssl.proportions.sum_absolute_error`.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> import numpy as np
    >>> positive_selectivity(np.array([[0.5, 0.5]]), np.array([[0.75, 0.25]]))
    array([[0.25 , 0.125]])
    """
    error = sum_absolute_error(true_proportions, predicted_proportions)[:, np.newaxis]
    return (1.0 - error) * np.minimum(true_proportions, predicted_proportions)


def negative_selectivity(
    true_proportions: np.ndarray, predicted_proportions: np.ndarray
) -> np.ndarray:
    """Share of each bag that receives a negative pseudo label ("not this class"), per class.

    Parameters
    ----------
    true_proportions, predicted_proportions : array-like of shape (n_bags, n_classes)
        Non-negative, rows sum to about 1 (dimensionless).

    Returns
    -------
    selectivity : ndarray of shape (n_bags, n_classes)
        In [0, 1]; 0 where the class is not over-predicted. The sum with :func:`positive_selectivity` never
        exceeds ``predicted_proportions``.

    Notes
    -----
    Equation (1) of [1]_: ``SAE * max(0, PCR - TCR) * (1 - TCR / PCR)``, and 0 where a class is never
    predicted (0 / 0 in the equation). The text of section 3.2 would label the whole excess, ``PCR - TCR``;
    the equation, which is used here, labels fewer instances.

    References
    ----------
    .. [1] Tokunaga, Iwana, Teramoto, Yoshizawa, Bise. "Negative Pseudo Labeling using
       Class Proportion for Semantic Segmentation in Pathology". ECCV 2020.

    Examples
    --------
    >>> import numpy as np
    >>> negative_selectivity(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    array([[0.25, 0.  ]])
    """
    error = sum_absolute_error(true_proportions, predicted_proportions)[:, np.newaxis]
    predicted = np.asarray(predicted_proportions, dtype=float)
    excess = np.maximum(0.0, predicted - true_proportions)
    relative_excess = np.divide(excess, predicted, out=np.zeros_like(excess), where=predicted > 0)
    return error * excess * relative_excess


def selection_counts(selectivity: np.ndarray, n_instances: np.ndarray) -> np.ndarray:
    """Convert selectivities to whole numbers of instances.

    Parameters
    ----------
    selectivity : ndarray of shape (n_bags, n_classes)
        Shares of the bag, in [0, 1].
    n_instances : ndarray of int, shape (n_bags,)
        Size of each bag.

    Returns
    -------
    counts : ndarray of int64, shape (n_bags, n_classes)
        ``floor(n_instances * selectivity)``.

    Notes
    -----
    The paper does not specify the rounding. Rounding down keeps positive and negative picks disjoint: both
    are taken from the instances predicted as the class, positives at most ``(1 - SAE) * PCR`` of the bag
    and negatives at most ``SAE * PCR``. A tolerance of 1e-9 absorbs floating-point errors of products that
    should be whole (``22 * (15 / 22)`` is 14.999...).

    Examples
    --------
    >>> import numpy as np
    >>> selection_counts(np.array([[15 / 22, 0.1]]), np.array([22]))
    array([[15,  2]])
    """
    product = np.asarray(n_instances)[:, np.newaxis] * selectivity
    return np.floor(product + 1e-9).astype(np.int64)
