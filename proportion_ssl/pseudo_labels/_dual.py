"""Per-bag dual variables, one per class, found by damped Newton steps."""

from collections.abc import Iterator
from typing import Protocol, Self

import numpy as np

#: Instances processed at once: few enough to stay in the processor cache.
BLOCK = 2**14


class Penalty(Protocol):
    """Convex penalty on the dual variables, added to the log-totals of the instances."""

    def __call__(self, duals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Slope and curvature (n_bags, n_classes) at dual variables (n_bags, n_classes)."""

    def of(self, bags: np.ndarray) -> Self:
        """Penalty of a subset of the bags, given as a mask of shape (n_bags,)."""


def blocks_of_bags(
    bag_index: np.ndarray, sizes: np.ndarray, limit: int = BLOCK
) -> Iterator[tuple[slice | np.ndarray, slice]]:
    """Iterate over blocks of whole bags, to bound the memory of a computation.

    Parameters
    ----------
    bag_index : ndarray of int, shape (n_instances,)
        0 to n_bags - 1.
    sizes : ndarray of int, shape (n_bags,)
        Number of instances of each bag, at least 1.
    limit : int
        Maximum number of instances in a block of several bags. Default: as many as fit in the cache.

    Yields
    ------
    rows : slice or ndarray of int
        Instances of the block, bag by bag, in their original order within a bag.
    bags : slice
        Bags of the block.

    Examples
    --------
    >>> import numpy as np
    >>> list(blocks_of_bags(np.array([0, 0, 1]), np.array([2, 1])))
    [(slice(0, 3, None), slice(0, 2, None))]
    """
    in_order = bool((bag_index[1:] >= bag_index[:-1]).all())
    order = None if in_order else np.argsort(bag_index, kind="stable")
    ends = np.cumsum(sizes).tolist()
    first = begin = 0
    for bag, end in enumerate(ends, start=1):
        if bag == len(ends) or ends[bag] - begin > limit:
            rows = slice(begin, end)
            yield rows if order is None else order[rows], slice(first, bag)
            first, begin = bag, end


class BagDuals:
    """Dual variables of bags, one per class, added to the scores of all instances of the bag.

    Parameters
    ----------
    scores : ndarray of float, shape (n_classes, n_instances)
        Scores bag by bag, in units of the temperature; ``-inf`` where an instance cannot have a class.
        Classes come first so that sums over bags are contiguous in memory. Soft labels have the same dtype.
    sizes : ndarray of int, shape (n_bags,)
        Number of instances of each bag, at least 1.
    duals : ndarray of shape (n_bags, n_classes)
        Start values.

    Attributes
    ----------
    duals : ndarray of shape (n_bags, n_classes)
    soft : ndarray of shape (n_classes, n_instances)
        Softmax of scores plus dual variables: columns sum to 1.
    counts : ndarray of shape (n_bags, n_classes)
        Sums of the soft labels over each bag.

    Examples
    --------
    >>> import numpy as np
    >>> BagDuals(np.zeros((2, 3)), np.array([1, 2]), np.log([[1.0, 3.0], [1.0, 1.0]])).counts
    array([[0.25, 0.75],
           [1.  , 1.  ]])
    """

    def __init__(self, scores: np.ndarray, sizes: np.ndarray, duals: np.ndarray):
        self.sizes, self._starts = sizes, np.cumsum(sizes) - sizes
        self._dtype = scores.dtype
        logits = self._repeat(duals)
        logits += scores
        logits -= logits.max(axis=0)
        self._set(duals, np.exp(logits, out=logits))

    def minimize(
        self, penalty: Penalty, *, tol: float | np.ndarray, max_iter: int = 50, longest: float = 4.0
    ) -> None:
        """Set the dual variables p to the minimum of ``sum_i log sum_c exp(s_ic + p_c) + penalty(p)``.

        Parameters
        ----------
        penalty : Penalty
        tol : float or ndarray of shape (n_bags,)
            Stop when no component of the gradient exceeds this fraction of the bag size.
        max_iter : int, default=50
        longest : float, default=4.0
            Largest step of a dual variable. Where labels are nearly hard, the sum is nearly flat and a full
            Newton step would be far too long.

        Notes
        -----
        Damped Newton's method: if the slope along a step changes sign and keeps more than half its size, the
        step is cut to a quarter. This test needs no logarithm per instance. Bags that have converged no
        longer change, so the result does not depend on which bags are solved together. Once most bags have
        converged, only the others are iterated.
        """
        tol = np.broadcast_to(tol, self.sizes.shape)
        slope, curvature = penalty(self.duals)
        gradient = self.counts + slope
        for n_done in range(max_iter):
            off = self._off(gradient)
            if (off <= tol).all():
                return
            behind = off > tol
            if 2 * np.count_nonzero(behind) < len(behind):
                rest = self._of(behind)
                rest.minimize(penalty.of(behind), tol=tol[behind], max_iter=max_iter - n_done)
                self._take_over(behind, rest)
                return
            step = np.linalg.solve(self._hessian(curvature), gradient[..., np.newaxis])[..., 0]
            step[~behind] = 0
            step *= -np.minimum(
                1.0, longest / np.abs(step).max(axis=1, keepdims=True, initial=longest)
            )
            old_duals, old_soft, downhill = self.duals, self.soft, (gradient * step).sum(axis=1)
            for _ in range(8):
                self._move(old_duals, old_soft, step)
                slope, curvature = penalty(self.duals)
                gradient = self.counts + slope
                too_far = (gradient * step).sum(axis=1) > -downhill / 2
                too_far &= self._off(gradient) > tol
                if not too_far.any():
                    break
                step[too_far] /= 4
                downhill[too_far] /= 4

    def undecided(self) -> np.ndarray:
        """Curvature of the log-totals, (n_bags, n_classes): how many instances a dual variable moves."""
        return self.counts - self._sums(self.soft**2).T

    def _off(self, gradient):
        """Largest absolute gradient of each bag, as a fraction of its size."""
        return np.abs(gradient).max(axis=1) / self.sizes

    def _set(self, duals, weights):
        weights *= 1 / weights.sum(axis=0)
        self.duals, self.soft, self.counts = duals, weights, self._sums(weights).T

    def _move(self, duals, soft, step):
        """Soft labels after a step, without an exponential per instance."""
        weights = self._repeat(np.exp(step))
        weights *= soft
        self._set(duals + step, weights)

    def _repeat(self, of_bags):
        """Repeat values per bag and class for each instance."""
        return np.repeat(of_bags.T.astype(self._dtype), self.sizes, axis=1)

    def _sums(self, values):
        """Sums over the instances of each bag."""
        return np.add.reduceat(values, self._starts, axis=-1)

    def _hessian(self, curvature):
        """Second derivatives, shape (n_bags, n_classes, n_classes)."""
        # Single precision is enough for a step and halves the memory traffic. Small values are dropped
        # because their products are subnormal numbers, which processors multiply a hundred times slower.
        soft = self.soft.astype(np.float32, copy=False) + np.float32(1e-18)
        diagonal = np.arange(len(soft))
        hessian = np.zeros((len(self.sizes), len(soft), len(soft)))
        for c in diagonal[:-1]:
            shared = self._sums(soft[c] * soft[c + 1 :]).T
            hessian[:, c, c + 1 :] = hessian[:, c + 1 :, c] = -shared
        own = curvature + 1e-6 * self.sizes[:, np.newaxis]
        hessian[:, diagonal, diagonal] = own - hessian.sum(axis=2)
        return hessian

    def _of(self, bags):
        """The problem restricted to some of the bags."""
        part = object.__new__(BagDuals)
        part.sizes, part._dtype = self.sizes[bags], self._dtype
        part._starts = np.cumsum(part.sizes) - part.sizes
        part.duals, part.counts = self.duals[bags], self.counts[bags]
        part.soft = np.compress(np.repeat(bags, self.sizes), self.soft, axis=1)
        return part

    def _take_over(self, bags, part):
        """Copy the solution of some of the bags back."""
        self.duals[bags], self.counts[bags] = part.duals, part.counts
        self.soft[:, np.repeat(bags, self.sizes)] = part.soft
