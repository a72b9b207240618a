"""Linear discriminant analysis on soft labels, with a covariance that is shrunk as the data ask for."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve

#: Intercept of a class without instances: its probability is 0, but all numbers stay finite.
ABSENT = -1e6

#: Instances whose residuals are held at once.
AT_ONCE = 8192

#: Share of the squared means below which the variance within classes is rounding of float32.
ROUNDING = 1e-6

#: Least shrinkage, so that the covariance can be inverted.
SMALLEST = 1e-3


class Within(NamedTuple):
    """Class means and the covariance within classes.

    ``spread`` is the estimated squared distance (Frobenius) of the covariance from its expectation.
    """

    sums: np.ndarray  # (n_classes,)
    means: np.ndarray  # (n_classes, n_features)
    covariance: np.ndarray  # (n_features, n_features)
    spread: float


def linear_discriminant(
    X: np.ndarray,
    labels: np.ndarray,
    *,
    shrinkage: float | None = None,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Discriminant functions of classes that are taken as equally frequent.

    Parameters
    ----------
    X : ndarray of float, shape (n_instances, n_features)
    labels : ndarray of float, shape (n_instances, n_classes)
        Share of each instance in each class, times the weight of the instance; not negative. A class whose
        sum is 0 gets a probability of 0.
    shrinkage : float in (0, 1], optional
        How far the covariance is moved towards a multiple of the identity matrix with the same trace.
        Default: :func:`analytic_shrinkage`.
    groups : ndarray of int, shape (n_instances,), optional
        Slide of each instance, for the default of ``shrinkage``; -1: an instance by itself. Default: all are.

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
    if shrinkage is None and groups is None:
        groups = np.full(len(X), -1)
    within = within_classes(X, labels, groups if shrinkage is None else None)
    return discriminant_functions(within, shrinkage)


def discriminant_functions(
    within: Within, shrinkage: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Discriminant functions from class means and the covariance within classes.

    Parameters
    ----------
    within : Within
    shrinkage : float in (0, 1], optional
        Default: :func:`analytic_shrinkage`.

    Returns
    -------
    coef : ndarray of float64, shape (n_features, n_classes)
    intercept : ndarray of float64, shape (n_classes,)
    """
    sums, means, covariance, _ = within
    n_features = len(covariance)
    if shrinkage is None:
        shrinkage = analytic_shrinkage(covariance, within.spread)
    trace = float(np.trace(covariance))
    if trace <= ROUNDING * float((means**2).sum()):  # no variance within classes
        trace = float(n_features)
    ridge = shrinkage * trace / n_features
    shrunk = (1.0 - shrinkage) * covariance
    shrunk[np.diag_indices(n_features)] += ridge
    coef = solve(shrunk, means.T, assume_a="pos")
    return coef, np.where(sums > 0, -0.5 * (means.T * coef).sum(axis=0), ABSENT)


def analytic_shrinkage(covariance: np.ndarray, spread: float) -> float:
    """Shrinkage towards a multiple of the identity matrix that is expected to err least.

    Parameters
    ----------
    covariance : ndarray of shape (n_features, n_features)
    spread : float
        Estimated squared distance (Frobenius) of the covariance from its expectation.

    Returns
    -------
    shrinkage : float in [0.001, 1]

    Notes
    -----
    ``spread / |S - mu I|^2`` with ``mu = trace(S) / n_features`` (Ledoit and Wolf [1]_). Their estimate of
    the spread takes instances as independent. Patches of one slide are not: here the spread is that of the
    contributions of whole slides, as cluster-robust variances have it [2]_. Few slides that differ much ask
    for more shrinkage than as many patches of many slides.

    References
    ----------
    .. [1] Ledoit, Wolf. "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices". Journal of
       Multivariate Analysis 88, 2004.
    .. [2] Liang, Zeger. "Longitudinal Data Analysis Using Generalized Linear Models". Biometrika 73, 1986.

    Examples
    --------
    >>> import numpy as np
    >>> analytic_shrinkage(np.diag([1.0, 3.0]), spread=0.5)
    0.25
    """
    n_features = len(covariance)
    mean = np.trace(covariance) / n_features
    distance = float((covariance**2).sum() - n_features * mean**2)
    if distance <= 0:
        return 1.0
    return float(np.clip(spread / distance, SMALLEST, 1.0))


def within_classes(X: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> Within:
    """Class means, covariance within classes, and how much it varies from slide to slide.

    Parameters
    ----------
    X : ndarray of float, shape (n_instances, n_features)
    labels : ndarray of float, shape (n_instances, n_classes)
        As in :func:`linear_discriminant`.
    groups : ndarray of int, shape (n_instances,), optional
        Slide of each instance; -1: an instance by itself. Default: the spread is not estimated (NaN).

    Returns
    -------
    within : Within

    Notes
    -----
    With ``A_g`` what the instances of slide g add to the covariance S, and ``w_g`` their share of the weight,
    the spread is ``sum_g |A_g - w_g S|^2``.
    """
    sums = labels.sum(axis=0, dtype=np.float64)  # float32 would count no further than 16 million
    n_present = int(np.count_nonzero(sums))
    shares = np.empty(labels.shape, dtype=X.dtype)
    np.divide(labels, np.where(sums > 0, sums, 1), out=shares, casting="same_kind")
    means = np.zeros((labels.shape[1], X.shape[1]))
    for start in range(0, len(X), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        means += shares[rows].T @ X[rows]
    shares /= max(n_present, 1)
    weights = shares.sum(axis=1)
    if groups is None:
        second = np.zeros((X.shape[1], X.shape[1]))
        for start in range(0, len(X), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            weighted = X[rows] * np.sqrt(weights[rows])[:, np.newaxis]
            second += weighted.T @ weighted
        return Within(sums, means, second - means.T @ means / max(n_present, 1), np.nan)
    covariance, spread = _by_groups(X, shares, weights, means, np.asarray(groups))
    return Within(sums, means, covariance, max(0.0, spread))


def _by_groups(X, shares, weights, means, groups):
    """Covariance, and its spread ``sum_g |A_g|^2 - 2 <sum_g w_g A_g, S> + sum_g w_g^2 |S|^2``.

    The ``A_g`` of slides with fewer instances than features are not formed.
    """
    order = np.argsort(groups, kind="stable")
    slides = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    alone, few, squares = np.empty(0, dtype=int), [], 0.0
    covariance, weighted_sum = np.zeros((2, X.shape[1], X.shape[1]))
    of_slides, factors = [], np.zeros_like(weights)
    for rows in slides:
        if groups[rows[0]] == -1:
            alone = rows
            continue
        weight = float(weights[rows].sum())
        if weight == 0:
            continue
        of_slides.append(weight)
        if len(rows) > X.shape[1]:
            part = _in_blocks(rows, X, shares, weights, means)
            covariance += part
            weighted_sum += weight * part
            squares += float(np.vdot(part, part))
        else:
            few.append(rows)
            factors[rows] = weight
            squares += _squared_size(X[rows], shares[rows], weights[rows], means)
    if few:
        rows = np.concatenate(few)
        covariance += _in_blocks(rows, X, shares, weights, means)
        weighted = shares * factors[:, np.newaxis], weights * factors
        weighted_sum += _in_blocks(rows, X, *weighted, means)
    covariance += _in_blocks(alone, X, shares, weights, means)
    spread = (
        squares
        - 2 * np.vdot(weighted_sum, covariance)
        + np.square(of_slides).sum() * np.vdot(covariance, covariance)
    )
    for start in range(0, len(alone), AT_ONCE):
        spread += spread_of_instances(
            *(alone[start : start + AT_ONCE], X, shares, weights, means, covariance)
        )
    return covariance, float(spread)


def _in_blocks(rows, X, shares, weights, means):
    """:func:`residual_products` of some rows, a block of rows at a time."""
    total = np.zeros((X.shape[1], X.shape[1]))
    for start in range(0, len(rows), AT_ONCE):
        here = rows[start : start + AT_ONCE]
        total += residual_products(X[here], shares[here], weights[here], means)
    return total


def _squared_size(X, shares, weights, means):
    """Squared Frobenius norm of :func:`residual_products`, without forming them.

    The matrix is ``Y'Y + M'BM``: Y the residuals from the mean that an instance's shares give, M the class
    means, and B what these mixed means leave out. Its norm follows from products of instances.
    """
    counting = weights > 0
    X, shares, weights = X[counting], shares[counting].astype(np.float64), weights[counting]
    size = np.sqrt(weights.astype(np.float64))[:, np.newaxis]
    mixed = shares / size**2
    Y = (X - (mixed @ means).astype(X.dtype)) * size.astype(X.dtype)
    left_out = np.diag(shares.sum(axis=0)) - mixed.T @ shares
    along = (Y @ means.T.astype(X.dtype)).astype(np.float64)
    of_means = left_out @ (means @ means.T)
    products = (Y @ Y.T).astype(np.float64)
    return float(
        np.vdot(products, products)
        + 2 * np.vdot(left_out, along.T @ along)
        + np.vdot(of_means, of_means.T)
    )


def residual_products(X, shares, weights, means):
    """Sum over instances and classes of ``share * r r'``, r the residuals from the class means; float64."""
    weighted = X * np.sqrt(weights)[:, np.newaxis]
    mixed = (shares.T @ X).astype(np.float64).T @ means
    own = (means * shares.sum(axis=0, dtype=np.float64)[:, np.newaxis]).T @ means
    return weighted.T @ weighted - mixed - mixed.T + own


def spread_of_instances(rows, X, shares, weights, means, covariance):
    """Sum over instances of ``|A_i - w_i S|^2``, without forming the matrices ``A_i``."""
    X, shares, weights = X[rows], shares[rows].astype(np.float64), weights[rows].astype(np.float64)
    low, means = covariance.astype(X.dtype), means.astype(X.dtype)
    along, projected = X @ means.T, X @ low
    products = (X * X).sum(axis=1)[:, np.newaxis, np.newaxis] - along[:, :, np.newaxis]
    products = products - along[:, np.newaxis] + means @ means.T
    squares = np.einsum("nc,nd,ncd->", shares, shares, products.astype(np.float64) ** 2)
    inner = (projected * X).sum(axis=1)[:, np.newaxis] - 2 * projected @ means.T
    inner = inner + ((means @ low) * means).sum(axis=1)
    with_covariance = float((weights * (shares * inner).sum(axis=1)).sum())
    return (
        squares - 2 * with_covariance + float((weights**2).sum()) * np.vdot(covariance, covariance)
    )
