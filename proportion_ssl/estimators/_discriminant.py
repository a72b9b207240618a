"""Linear discriminant analysis on soft labels."""

import numpy as np
from scipy.linalg import solve

#: Intercept of a class without instances: its probability is 0, but all numbers stay finite.
ABSENT = -1e6


def linear_discriminant(
    X: np.ndarray, labels: np.ndarray, *, shrinkage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Discriminant functions of classes that are taken as equally frequent.

    Parameters
    ----------
    X : ndarray of float, shape (n_instances, n_features)
    labels : ndarray of float, shape (n_instances, n_classes)
        Share of each instance in each class, times the weight of the instance; not negative. A class whose
        sum is 0 gets a probability of 0.
    shrinkage : float in (0, 1]
        How far the covariance is moved towards a multiple of the identity matrix with the same trace.

    Returns
    -------
    coef : ndarray of float64, shape (n_features, n_classes)
    intercept : ndarray of float64, shape (n_classes,)
        ``softmax(X @ coef + intercept)`` are the probabilities under normal distributions with one
        covariance.

    Notes
    -----
    The covariance within the classes is the mean of theirs, each counting the same; in S and in the means
    an instance counts as its labels say:
    ``S' = (1 - shrinkage) S + shrinkage * trace(S) / n_features * identity`` [1]_, with the means ``m_c``
    ``coef_c = S'^-1 m_c`` and ``intercept_c = -m_c . coef_c / 2``.

    References
    ----------
    .. [1] Friedman. "Regularized Discriminant Analysis". JASA 84, 1989.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [2.0], [4.0], [6.0]])
    >>> coef, intercept = linear_discriminant(X, np.eye(2)[[0, 0, 1, 1]], shrinkage=0.5)
    >>> coef.tolist(), intercept.tolist()  # means 1 and 5, variance 1
    ([[1.0, 5.0]], [-0.5, -12.5])
    """
    n_features, sums = X.shape[1], labels.sum(axis=0)
    labels = labels / np.where(sums > 0, sums, 1)
    means = (labels.T @ X).astype(np.float64)
    weights = labels.sum(axis=1).astype(X.dtype)
    second = (X * weights[:, np.newaxis]).T @ X
    covariance = (second - means.T @ means) / np.count_nonzero(sums)
    ridge = shrinkage * np.trace(covariance) / n_features or 1.0  # features that are all constant
    shrunk = (1.0 - shrinkage) * covariance + ridge * np.eye(n_features)
    coef = solve(shrunk, means.T, assume_a="pos")
    return coef, np.where(sums > 0, -0.5 * (means.T * coef).sum(axis=0), ABSENT)
