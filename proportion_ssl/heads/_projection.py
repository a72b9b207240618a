"""Principal components of standardized features: the space in which heads are solved for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

#: Instances from which scale and principal components are taken, drawn at random where there are more.
N_SAMPLE = 20_000

#: Features of which the whole covariance is decomposed; of more, only the components that are needed.
N_EXACT_FEATURES = 1536

#: Values (instances times features) from which components are taken: memory and time have this bound.
N_SAMPLE_VALUES = N_SAMPLE * N_EXACT_FEATURES

#: Most and fewest components by default, and the products that one solution may cost.
MOST_COMPONENTS, FEWEST_COMPONENTS, MOST_PRODUCTS = 800, 200, 2.5e10

#: Standard deviations from the mean beyond which squares overflow in float32.
FARTHEST = 1e15

#: Instances that are projected at once.
AT_ONCE = 4096


@dataclass(frozen=True)
class Projection:
    """Standardized features on their principal components.

    Parameters
    ----------
    mean, scale : ndarray of shape (n_features,)
    components : ndarray of shape (n_components, n_features)
    """

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray

    def __call__(self, X: Any, out: np.ndarray | None = None) -> np.ndarray:
        """Components of features that are read a block at a time.

        Parameters
        ----------
        X : array of shape (n_instances, n_features)
            Or anything that is indexed as one, such as features that stay in files.
        out : ndarray of float32, shape (n_instances, n_components), optional
            Where to write.

        Returns
        -------
        projected : ndarray of float32, shape (n_instances, n_components)

        Raises
        ------
        ValueError
            If a feature is so far from the others that float32 overflows.
        """
        projected = out
        if projected is None:
            projected = np.empty((X.shape[0], len(self.components)), dtype=np.float32)
        for rows, block in blocks(X):
            with np.errstate(over="ignore", invalid="ignore"):
                projected[rows] = ((block - self.mean) / self.scale) @ self.components.T
            wrong = ~(np.abs(projected[rows]) <= FARTHEST).all(axis=1)
            if wrong.any():
                largest = float(np.abs(block[wrong][0]).max())
                raise ValueError(
                    f"An instance has a feature of size {largest:.3g}, over {FARTHEST:.0e} standard "
                    "deviations from the others, where float32 overflows; look for wrong values in X."
                )
        return projected

    def on_features(self, coef: np.ndarray) -> np.ndarray:
        """Weights of the standardized features.

        Parameters
        ----------
        coef : ndarray of shape (n_components, n_classes)

        Returns
        -------
        weight : ndarray of float64, shape (n_classes, n_features)
        """
        return (self.components.T.astype(np.float64) @ coef).T


def scale_of(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of features; 1 where a feature is constant.

    Parameters
    ----------
    sample : ndarray of shape (n_instances, n_features)

    Returns
    -------
    mean, scale : ndarray of float32, shape (n_features,)
    """
    scaler = StandardScaler().fit(sample.astype(np.float64))
    return scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32)


def principal_components(
    sample: np.ndarray,
    mean: np.ndarray,
    scale: np.ndarray,
    n_components: int,
    random_state: np.random.RandomState,
) -> Projection:
    """Directions of the largest variance of the standardized features.

    Parameters
    ----------
    sample : ndarray of float32, shape (n_instances, n_features)
        Written to.
    mean, scale : ndarray of shape (n_features,)
    n_components : int
        At most; a sample has no more than its instances, or features that vary.
    random_state : numpy.random.RandomState

    Returns
    -------
    projection : Projection
    """
    with np.errstate(over="ignore"):  # what is too large is refused when it is projected
        sample -= mean
        sample /= scale
    n_varying = max(1, int(sample.any(axis=0).sum()))
    n_components = min(n_components, len(sample), n_varying)
    # of many features: a randomized method, or with few instances the singular vectors
    solver = "covariance_eigh" if sample.shape[1] <= N_EXACT_FEATURES else "auto"
    pca = PCA(n_components, svd_solver=solver, copy=False, random_state=random_state)
    with np.errstate(invalid="ignore"):  # shares of the variance where there is none
        return Projection(mean, scale, pca.fit(sample).components_)


def default_components(n_instances: int) -> int:
    """Components by default: 800, fewer where a solution on so many instances would take long.

    Parameters
    ----------
    n_instances : int

    Returns
    -------
    n_components : int in [200, 800]

    Examples
    --------
    >>> default_components(10_000), default_components(100_000), default_components(10_000_000)
    (800, 500, 200)
    """
    bound = (MOST_PRODUCTS / max(n_instances, 1)) ** 0.5
    return int(np.clip(bound, FEWEST_COMPONENTS, MOST_COMPONENTS))


def sample_rows(
    n_instances: int,
    n_features: int,
    n_components: int,
    random_state: np.random.RandomState,
    order: np.ndarray | None = None,
) -> np.ndarray:
    """The instances that give scale and principal components: all, or some of many.

    Parameters
    ----------
    n_instances, n_features, n_components : int
    random_state : numpy.random.RandomState
    order : ndarray of int, shape (n_instances,), optional
        All instances, in the order from which they are drawn. Default: as they are stored.

    Returns
    -------
    rows : ndarray of int
        Sorted.
    """
    rows = np.arange(n_instances) if order is None else order
    most = n_sampled(n_features, n_components)
    if n_instances > most:
        rows = random_state.choice(rows, most, replace=False)
    return np.sort(rows)


def n_sampled(n_features: int, n_components: int) -> int:
    """How many of many instances give scale and principal components.

    Parameters
    ----------
    n_features, n_components : int

    Returns
    -------
    most : int
    """
    return min(N_SAMPLE, max(N_SAMPLE_VALUES // n_features, 2 * n_components))


def gather(parts: Sequence[Any], rows: np.ndarray) -> np.ndarray:
    """Rows of several arrays that follow each other.

    Parameters
    ----------
    parts : sequence of arrays of shape (n_instances, n_features)
    rows : ndarray of int
        Sorted.

    Returns
    -------
    instances : ndarray of float32, shape (n_rows, n_features)
    """
    taken, start = [], 0
    for part in parts:
        stop = start + part.shape[0]
        first, last = np.searchsorted(rows, (start, stop))
        taken.append(np.asarray(part[rows[first:last] - start], dtype=np.float32))
        start = stop
    return np.concatenate(taken)


def blocks(X: Any) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks of instances, in order.

    Parameters
    ----------
    X : array of shape (n_instances, n_features), or anything that is indexed as one

    Yields
    ------
    rows : slice
    block : ndarray of float32
    """
    for start in range(0, X.shape[0], AT_ONCE):
        rows = slice(start, min(start + AT_ONCE, X.shape[0]))
        index = rows if isinstance(X, np.ndarray) else np.arange(rows.start, rows.stop)
        yield rows, np.asarray(X[index], dtype=np.float32)
