"""Linear discriminant analysis from sums of slides: what a cohort adds up to, one slide after the other."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from proportion_ssl.heads._discriminant import (
    AT_ONCE,
    Within,
    residual_products,
    spread_of_instances,
)


class SlideMoments(NamedTuple):
    """What a discriminant needs of one slide: moments of the features, weighted by the soft labels."""

    counts: np.ndarray  # (n_classes,)
    sums: np.ndarray  # (n_classes, n_features)
    seconds: np.ndarray  # (n_classes, n_features, n_features)


def slide_moments(X: np.ndarray, labels: np.ndarray) -> SlideMoments:
    """Moments of one slide.

    Parameters
    ----------
    X : ndarray of float, shape (n_instances, n_features)
    labels : ndarray of float, shape (n_instances, n_classes)
        Share of each instance in each class, times the weight of the instance; not negative.

    Returns
    -------
    moments : SlideMoments
        In float64: ``counts_c = sum_i y_ic``, ``sums_c = sum_i y_ic x_i`` and
        ``seconds_c = sum_i y_ic x_i x_i'``.

    Examples
    --------
    >>> import numpy as np
    >>> moments = slide_moments(np.array([[1.0], [3.0]]), np.array([[1.0, 0.0], [0.5, 0.5]]))
    >>> moments.counts.tolist(), moments.sums.tolist(), moments.seconds.round(9).tolist()
    ([1.5, 0.5], [[2.5], [1.5]], [[[5.5]], [[4.5]]])
    """
    n_classes, n_features = labels.shape[1], X.shape[1]
    sums = np.zeros((n_classes, n_features))
    seconds = np.zeros((n_classes, n_features, n_features))
    for start in range(0, len(X), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        here, shares = X[rows].astype(np.float64), labels[rows].astype(np.float64)
        sums += shares.T @ here
        roots = np.sqrt(shares)
        for c in np.flatnonzero(shares.any(axis=0)):
            weighted = here * roots[:, c, np.newaxis]
            seconds[c] += weighted.T @ weighted
    return SlideMoments(labels.sum(axis=0, dtype=np.float64), sums, seconds)


@dataclass
class CohortMoments:
    """Sums over slides, of which cohorts of any size take the same memory.

    With the counts n_g, sums s_g and second moments Q_g of slide g by class:

    Parameters
    ----------
    counts, sums, seconds : ndarray
        As in :class:`SlideMoments`, of all slides.
    products : tuple of ndarray, or None
        Sums over g, for pairs of classes c and d, from which the spread of the covariance between slides
        follows for any class means: ``n_gc n_gd``, ``n_gc s_gd``, ``n_gc Q_gd``, ``s_gc s_gd'``,
        ``Q_gc s_gd`` and ``<Q_gc, Q_gd>``. None: the spread is not needed.
    """

    counts: np.ndarray
    sums: np.ndarray
    seconds: np.ndarray
    products: tuple[np.ndarray, ...] | None

    @classmethod
    def zeros(cls, n_classes: int, n_features: int, *, with_spread: bool) -> "CohortMoments":
        """Sums over no slide.

        Parameters
        ----------
        n_classes, n_features : int
        with_spread : bool
            Whether to sum up what the spread follows from.

        Returns
        -------
        moments : CohortMoments
        """
        C, k = n_classes, n_features
        shapes = ((C, C), (C, C, k), (C, C, k, k), (C, k, C, k), (C, C, k), (C, C))
        products = tuple(np.zeros(shape) for shape in shapes) if with_spread else None
        return cls(np.zeros(C), np.zeros((C, k)), np.zeros((C, k, k)), products)

    def add(self, slide: SlideMoments) -> None:
        """Add a slide, in place."""
        n, s, Q = slide
        self.counts += n
        self.sums += s
        self.seconds += Q
        if self.products is None:
            return
        nn, ns, nQ, ss, Qs, QQ = self.products
        nn += np.multiply.outer(n, n)
        ns += np.multiply.outer(n, s)
        for c in np.flatnonzero(n):
            nQ[c] += n[c] * Q
            ss[c] += s[c][:, np.newaxis, np.newaxis] * s
        Qs += np.matmul(Q, s.T).transpose(0, 2, 1)
        flat = Q.reshape(len(Q), -1)
        QQ += flat @ flat.T

    def __add__(self, other: "CohortMoments") -> "CohortMoments":
        """Sums over the slides of both."""
        products = None
        if self.products is not None and other.products is not None:
            products = tuple(a + b for a, b in zip(self.products, other.products, strict=True))
        return CohortMoments(
            self.counts + other.counts,
            self.sums + other.sums,
            self.seconds + other.seconds,
            products,
        )


def within_of(moments: CohortMoments, alone: tuple[np.ndarray, np.ndarray] | None = None) -> Within:
    """Class means and covariance within classes, from the moments of the slides.

    Parameters
    ----------
    moments : CohortMoments
    alone : tuple of ndarray (X, labels), optional
        Instances whose slide is not known, each by itself.

    Returns
    -------
    within : Within
        As :func:`~proportion_ssl.heads._discriminant.within_classes` finds it from all instances at once.

    Notes
    -----
    With the class means m and ``a_c`` one by the class's weight and the number of classes, slide g adds
    ``A_g = sum_c a_c (Q_gc - s_gc m_c' - m_c s_gc' + n_gc m_c m_c')`` to the covariance S. The means are not
    known before the last slide has been read, but ``sum_g |A_g|^2`` and ``sum_g w_g A_g`` are polynomials
    in them, whose coefficients are sums over the slides.
    """
    counts, sums = moments.counts, moments.sums
    if alone is not None:
        X, labels = alone[0], alone[1].astype(np.float64)
        counts, sums = counts + labels.sum(axis=0), sums + labels.T @ X
    n_present = max(1, np.count_nonzero(counts))
    inverse = np.where(counts > 0, 1 / np.where(counts > 0, counts, 1), 0)
    means, a = sums * inverse[:, np.newaxis], inverse / n_present
    covariance = _residuals(a, moments.counts, moments.sums, moments.seconds, means)
    if alone is not None:
        shares = labels * a
        weights = shares.sum(axis=1)
        parts = [slice(i, i + AT_ONCE) for i in range(0, len(X), AT_ONCE)]
        X = X.astype(np.float64)
        for rows in parts:
            covariance += residual_products(X[rows], shares[rows], weights[rows], means)
    if moments.products is None:
        return Within(counts, means, covariance, np.nan)
    squares, weighted, total = _between_slides(moments.products, a, means)
    spread = squares - 2 * np.vdot(weighted, covariance) + total * np.vdot(covariance, covariance)
    if alone is not None:
        every = np.arange(len(X))
        for rows in parts:
            spread += spread_of_instances(every[rows], X, shares, weights, means, covariance)
    return Within(counts, means, covariance, max(0.0, float(spread)))


def _residuals(a, n, s, Q, means):
    """``sum_c a_c (Q_c - s_c m_c' - m_c s_c' + n_c m_c m_c')``."""
    mixed = (a[:, np.newaxis] * s).T @ means
    own = ((a * n)[:, np.newaxis] * means).T @ means
    return np.tensordot(a, Q, axes=1) - mixed - mixed.T + own


def _between_slides(products, a, means):
    """Sums over the slides of ``|A_g|^2``, of ``w_g A_g`` and of ``w_g^2``."""
    nn, ns, nQ, ss, Qs, QQ = products
    inner = means @ means.T
    # sums over g of products of what classes c and d add to A_g, without a_c a_d
    second_outer = np.einsum("dk,dckl,dl->cd", means, nQ, means, optimize=True)  # n_d m_d' Q_c m_d
    second_mixed = np.einsum("cdk,dk->cd", Qs, means)  # m_d' Q_c s_d
    same = np.einsum("ckdk->cd", ss) * inner
    crossed = np.einsum("ckdl,dk,cl->cd", ss, means, means, optimize=True)
    mixed_outer = np.einsum("dck,dk->cd", ns, means) * inner  # n_d (s_c m_d) (m_c m_d)
    one_sided = second_outer - 2 * second_mixed - 2 * mixed_outer
    pairs = QQ + one_sided + one_sided.T + 2 * (same + crossed) + nn * inner**2
    weighted = np.zeros_like(nQ[0, 0])
    for c in np.flatnonzero(a):
        weighted += a[c] * _residuals(a, nn[c], ns[c], nQ[c], means)
    return float(a @ pairs @ a), weighted, float(a @ nn @ a)
