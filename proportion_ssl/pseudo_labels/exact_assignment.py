"""Joint labels of all instances of a bag whose counts match the recorded proportions."""

from dataclasses import dataclass

import numpy as np

from proportion_ssl.proportions.intervals import move_to_sum_one
from proportion_ssl.pseudo_labels._augmenting_paths import augment_within_bounds
from proportion_ssl.pseudo_labels._dual import BLOCK, BagDuals, blocks_of_bags

#: Instances that are assigned at once: processing many bags together is faster per bag.
AT_ONCE = 24 * BLOCK
#: Pairs of classes, over bags of one instance, whose moves are compared at once: 128 MB of numbers.
_PAIRS = 2**24
#: Instances per bag that augmenting paths compare faster than better dual variables
#: would sort them out.
_FEW = 200


def largest_remainder(shares: np.ndarray, n_instances: np.ndarray) -> np.ndarray:
    """Round shares to numbers of instances that sum to the size of each bag.

    Parameters
    ----------
    shares : array-like of shape (n_bags, n_classes)
        Non-negative; rows are divided by their sum.
    n_instances : array-like of int, shape (n_bags,)
        Size of each bag.

    Returns
    -------
    counts : ndarray of int64, shape (n_bags, n_classes)
        Rows sum to ``n_instances``; each count is ``n * share`` rounded down or up. A share of 0
        stays 0; among equal remainders the earlier class is rounded up.

    Notes
    -----
    The largest remainder method (Hamilton's method).

    Examples
    --------
    >>> largest_remainder([[0.5, 0.3, 0.2]], [6])
    array([[3, 2, 1]])
    """
    shares = np.asarray(shares, dtype=np.float64)
    n_instances = np.asarray(n_instances, dtype=np.int64)[:, np.newaxis]
    quotas = n_instances * (shares / shares.sum(axis=1, keepdims=True))
    counts = np.floor(quotas + 1e-9).astype(np.int64)
    remainders = np.where(quotas > 0, quotas - counts, -1.0)
    rank = np.argsort(np.argsort(-remainders.round(9), axis=1, kind="stable"), axis=1)
    return counts + (rank < n_instances - counts.sum(axis=1, keepdims=True))


def count_bounds(
    lower: np.ndarray, upper: np.ndarray, n_instances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds on the number of instances per bag and class from intervals of the shares.

    Parameters
    ----------
    lower, upper : array-like of shape (n_bags, n_classes)
        Smallest and largest share, in [0, 1]; each row must admit shares that sum to 1.
    n_instances : array-like of int, shape (n_bags,)
        Size of each bag.

    Returns
    -------
    fewest, most : ndarray of int64, shape (n_bags, n_classes)
        Each row admits counts that sum to the size of the bag. An interval that contains no whole number of
        instances is replaced by the counts of :func:`largest_remainder`; ``lower = upper`` therefore gives
        these counts for both bounds.

    Examples
    --------
    >>> fewest, most = count_bounds([[0.1, 0.6]], [[0.4, 0.9]], [10])
    >>> fewest.tolist(), most.tolist()
    ([[1, 6]], [[4, 9]])
    """
    lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    n_instances = np.asarray(n_instances, dtype=np.int64)
    target = largest_remainder(shares_within(lower, upper), n_instances)
    fewest = np.ceil(n_instances[:, np.newaxis] * lower - 1e-9).astype(np.int64)
    most = np.floor(n_instances[:, np.newaxis] * upper + 1e-9).astype(np.int64)
    return np.minimum(fewest, target), np.maximum(most, target)


def shares_within(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Shares that sum to 1, all at the same relative position in their intervals.

    Parameters
    ----------
    lower, upper : array-like of shape (n_bags, n_classes)
        Intervals of the shares, in [0, 1].

    Returns
    -------
    shares : ndarray of shape (n_bags, n_classes)
        ``lower + t * (upper - lower)`` with one t per bag; ``lower`` if all widths are 0.

    Examples
    --------
    >>> shares_within([[0.2, 0.4]], [[0.4, 1.0]])
    array([[0.3, 0.7]])
    """
    lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    return move_to_sum_one(lower, lower, upper)


def sinkhorn(
    scores: np.ndarray,
    bag_index: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    *,
    temperature: float = 1.0,
    max_iter: int = 200,
    tol: float = 1e-4,
) -> tuple[np.ndarray, np.ndarray]:
    """Soft labels whose mean in each bag lies within intervals, by entropic optimal transport.

    Parameters
    ----------
    scores : ndarray of float, shape (n_instances, n_classes)
        Log-probabilities, or any finite scores.
    bag_index : ndarray of int, shape (n_instances,)
        0 to n_bags - 1, each at least once.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Interval of each share. A class with ``upper = 0`` receives nothing.
    temperature : float, default=1.0
        Weight of the entropy, above 0, in units of the scores; labels become hard as it approaches 0.
    max_iter : int, default=200
    tol : float, default=1e-4
        Stop when no mean is further than this outside its interval.

    Returns
    -------
    soft : ndarray of float, shape (n_instances, n_classes)
        Rows sum to 1.
    duals : ndarray of float, shape (n_bags, n_classes)
        Added to the scores of each bag: ``soft = softmax((scores + duals) / temperature)``;
        ``-inf`` for a class that the bag cannot have.

    Notes
    -----
    Maximizes ``<soft, scores> + temperature * entropy(soft)`` subject to the intervals, by the scaling
    iterations of Chizat et al. [2]_ with a range constraint on one marginal; with ``lower = upper`` these
    are the Sinkhorn iterations [1]_.

    References
    ----------
    .. [1] Cuturi. "Sinkhorn Distances: Lightspeed Computation of Optimal Transport". NeurIPS 2013.
    .. [2] Chizat, Peyre, Schmitzer, Vialard. "Scaling Algorithms for Unbalanced Optimal
       Transport Problems". Mathematics of Computation 87, 2018.

    Examples
    --------
    >>> import numpy as np
    >>> scores, one_bag = np.zeros((4, 2)), np.zeros(4, dtype=int)
    >>> sinkhorn(scores, one_bag, np.array([[0.25, 0.75]]), np.array([[0.25, 0.75]]))[0][0]
    array([0.25, 0.75])
    """
    order = np.argsort(bag_index, kind="stable")
    sizes, allowed = np.bincount(bag_index), upper > 0
    scaled = scores[order].T / temperature + np.repeat(_closed(allowed).T, sizes, axis=1)
    with np.errstate(divide="ignore"):
        low, high = np.log(lower), np.log(upper)
    duals = np.zeros(upper.shape)
    for _ in range(max_iter):
        bags = BagDuals(scaled, sizes, duals)
        means = bags.counts / sizes[:, np.newaxis]
        if np.abs(np.clip(means, lower, upper) - means).max() <= tol:
            break
        own = np.log(np.maximum(means, 1e-300)) - duals
        duals = np.where(allowed, np.clip(0.0, low - own, high - own), 0.0)
    soft = np.empty(scores.shape)
    soft[order] = bags.soft.T
    return soft, duals * temperature + _closed(allowed)


def assign(
    scores: np.ndarray, bag_index: np.ndarray, fewest: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """Labels with the largest total score among those whose counts lie within bounds in each bag.

    Parameters
    ----------
    scores : ndarray of float, shape (n_instances, n_classes)
        Log-probabilities, or any finite scores.
    bag_index : ndarray of int, shape (n_instances,)
        0 to n_bags - 1, each at least once.
    fewest, most : ndarray of int, shape (n_bags, n_classes)
        Bounds of the counts, as from :func:`count_bounds`; equal for exact counts.

    Returns
    -------
    labels : ndarray of int64, shape (n_instances,)
        Exact optimum. Among equal scores, earlier instances move first.

    Raises
    ------
    ValueError
        If the bounds of a bag admit no counts that sum to its size.

    Notes
    -----
    The transportation problem of a bag has one dual variable per class: labels ``argmax(scores + duals)`` are
    optimal for their own counts. Dual variables at which the counts almost fit are found with soft labels,
    first of some instances of each bag at a high temperature, then at lower temperatures of the instances
    that errors of the dual variables could still move. Shortest augmenting paths [1]_ over the remaining
    instances lead to counts within the bounds.

    The other instances are treated as settled. If moving one of them might have been better, the bag is
    solved again with fewer settled instances, so the result is always exact.

    References
    ----------
    .. [1] Ahuja, Magnanti, Orlin. "Network Flows", chapter 9.7: successive shortest paths. 1993.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.log([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    >>> one_each = np.array([[1, 2]])
    >>> assign(scores, np.zeros(3, dtype=int), one_each, one_each)
    array([0, 1, 1])
    """
    sizes = np.bincount(bag_index)
    wrong = (fewest.sum(axis=1) > sizes) | (most.sum(axis=1) < sizes) | (fewest > most).any(axis=1)
    if wrong.any():
        bag = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"Bag {bag} has {sizes[bag]} instances, but its counts must lie between {fewest[bag].tolist()} "
            f"and {most[bag].tolist()}; no counts within these bounds sum to its size. Widen the bounds."
        )
    labels = np.empty(len(bag_index), dtype=np.int64)
    # augmenting paths need a few numbers per bag and pair of classes
    at_once = max(1, min(AT_ONCE, _PAIRS // scores.shape[1] ** 2))
    for rows, bags in blocks_of_bags(bag_index, sizes, at_once):
        labels[rows] = _assign(scores[rows], sizes[bags], fewest[bags], most[bags], care=1)
    return labels


def best_classes(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class with the largest score of each instance (the first of equal ones), and that score.

    Parameters
    ----------
    scores : ndarray of float, shape (n_classes, n_instances)
        Classes come first: numpy is many times slower along rows of a few classes.

    Returns
    -------
    label : ndarray of the smallest sufficient unsigned int, shape (n_instances,)
    best : ndarray of float, shape (n_instances,)

    Examples
    --------
    >>> import numpy as np
    >>> best_classes(np.array([[0.1, 0.7], [0.9, 0.3]]))
    (array([1, 0], dtype=uint8), array([0.9, 0.7]))
    """
    dtype = np.min_scalar_type(len(scores))
    label, best = np.zeros(scores.shape[1], dtype=dtype), scores[0].copy()
    for c, row in enumerate(scores[1:], start=1):
        np.maximum(label, (row > best).astype(dtype) * dtype.type(c), out=label)
        np.maximum(best, row, out=best)
    return label, best


def _assign(scores, sizes, fewest, most, care):
    """Labels of some bags, bag by bag; more ``care`` settles fewer instances early."""
    part = _Narrowing(scores, sizes, fewest, most)
    part.narrow(care, at_most=care * np.maximum(400, sizes // 4))
    part.narrow(care)
    if len(part.rows) > _FEW * len(sizes):
        part.narrow(care)
    moved = part.labels[part.rows]
    in_doubt = augment_within_bounds(
        part.scores, part.bag, moved, part.counts, part.duals, fewest, most, part.unseen
    )
    labels = part.labels
    labels[part.rows] = moved
    if in_doubt.any():
        again = np.repeat(in_doubt, sizes)
        labels[again] = _assign(
            scores[again], sizes[in_doubt], fewest[in_doubt], most[in_doubt], 4 * care
        )
    return labels


class _Narrowing:
    """Labels of some bags, and the instances that errors of the dual variables could still move.

    ``rows``, ``bag`` and ``scores`` (classes first) belong to these instances, ``labels`` and ``counts`` to
    all. ``unseen`` bounds the gain from moving a settled instance, as in :func:`augment_within_bounds`.
    """

    def __init__(self, scores, sizes, fewest, most):
        n_bags, n_classes = fewest.shape
        self.fewest, self.most, self.sizes = fewest, most, sizes
        self.rows, self.bag = np.arange(len(scores)), np.repeat(np.arange(n_bags), sizes)
        self.scores = self._exact = np.ascontiguousarray(scores.T)
        self._closed, self._largest = _closed(most > 0), max(abs(scores.min()), abs(scores.max()))
        # single precision is enough: most instances are far from a decision boundary
        self._dtype: type = np.float32
        self.labels = np.empty(len(scores), dtype=np.int16)
        self.settled, self.counts = np.zeros((2, n_bags, n_classes), dtype=np.int64)
        self.duals, self.temperature = np.zeros((n_bags, n_classes)), np.full((n_bags, 1), 0.5)
        self.unseen = np.full((n_bags, n_classes, n_classes), -np.inf)

    def narrow(self, care, at_most=None):
        """Improve the dual variables and the labels, and settle more instances.

        At most ``at_most`` instances per bag are used to fit the dual variables.
        """
        undecided = self._fit_duals(at_most)
        blocks = blocks_of_bags(self.bag, self.sizes)
        kept = np.concatenate(
            [self._settle(rows, bags, care, undecided[bags]) for rows, bags in blocks]
        )
        self.temperature *= np.clip(20 / (undecided.sum(axis=1, keepdims=True) + 1e-9), 0.1, 1.0)
        self.rows, self.bag = self.rows[kept], self.bag[kept]
        self.sizes = np.bincount(self.bag, minlength=len(self.sizes))
        self._dtype = np.float64
        self.scores = np.repeat(self._closed.T, self.sizes, axis=1)
        self.scores += self._exact.take(self.rows, axis=1)

    def _settle(self, rows, bags, care, undecided):
        """Set labels of some bags; return the positions of instances that errors could still move."""
        duals, sizes, dtype = self.duals[bags], self.sizes[bags], self._dtype
        shifted = np.repeat((duals + self._closed[bags]).T.astype(dtype), sizes, axis=1)
        shifted += self.scores[:, rows]
        label, best = best_classes(shifted)
        # at first these are all instances: a slice is written faster than positions
        mine = rows if len(self.rows) == len(self.labels) else self.rows[rows]
        self.labels[mine] = label
        cell = (self.bag[rows] - bags.start) * duals.shape[1] + label
        found = _count(cell, duals.shape)
        counts = self.settled[bags] + found
        off = np.abs(counts - np.clip(counts, self.fewest[bags], self.most[bags]))
        # possible error of each dual variable, from the number of instances that it moves
        reach = care * (1.5 * off + 6) * self.temperature[bags] / (undecided + 1e-9)
        all_there_is = 4 * (self._largest + np.abs(duals).max())
        np.minimum(reach, all_there_is, out=reach)
        shifted += np.repeat(reach.T.astype(dtype), sizes, axis=1)
        least = best - reach.ravel().astype(dtype)[cell]
        movable, seen = np.zeros((2, len(least)), dtype=bool)
        for row in shifted:  # the own class is always within reach; movable if another one is too
            in_reach = row >= least
            movable |= seen & in_reach
            seen |= in_reach
        movable[np.cumsum(sizes) - sizes] = True  # at least one in each bag
        kept = np.flatnonzero(movable)
        newly_settled = found - _count(cell[kept], duals.shape)
        rounding = 8 * np.finfo(dtype).eps * (self._largest + np.abs(duals) + reach)
        bound = (duals - reach)[:, :, np.newaxis] - (duals + reach)[:, np.newaxis]
        bound += rounding.max(axis=1)[:, np.newaxis, np.newaxis]
        bound[newly_settled == 0] = -np.inf
        self.unseen[bags] = np.maximum(self.unseen[bags], bound)
        self.settled[bags] += newly_settled
        self.counts[bags] = counts
        return rows.start + kept

    def _fit_duals(self, at_most):
        """Set dual variables at which soft labels have the counts; return how many instances each moves."""
        scores, sizes = self.scores, self.sizes
        if at_most is not None:
            sizes = np.minimum(sizes, at_most)
            scores = scores.take(_evenly_spaced(self.sizes, sizes), axis=1)
        share = (sizes / self.sizes)[:, np.newaxis]
        # those at which counts almost fit will do
        scaled = np.repeat(self._closed.T.astype(np.float32), sizes, axis=1)
        scaled += scores
        scaled /= np.repeat(self.temperature[:, 0].astype(np.float32), sizes)
        bags = BagDuals(scaled, sizes, self.duals / self.temperature)
        bounds = _Bounds((self.fewest - self.settled) * share, (self.most - self.settled) * share)
        bags.minimize(bounds, tol=4 / np.maximum(sizes, 100), max_iter=20)
        self.duals = bags.duals * self.temperature
        return bags.undecided() / share


@dataclass
class _Bounds:
    """Penalty for counts within bounds: slope ``-most`` for negative dual variables, else ``-fewest``.

    The transition near 0 is smoothed.
    """

    fewest: np.ndarray  # shape (n_bags, n_classes)
    most: np.ndarray
    width: float = 0.25

    def __call__(self, duals):
        middle, half = (self.fewest + self.most) / 2, (self.most - self.fewest) / 2
        place = np.clip(duals / self.width, -1.0, 1.0)
        return half * place - middle, np.where(np.abs(place) < 1, half / self.width, 0.0)

    def of(self, bags):
        return _Bounds(self.fewest[bags], self.most[bags], self.width)


def _closed(allowed):
    """Added to the scores of a class: ``-inf`` where a bag cannot have it, otherwise 0."""
    return np.where(allowed, 0.0, -np.inf)


def _count(cell, shape):
    """Number of instances in each cell (a bag and a class)."""
    return np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)


def _evenly_spaced(sizes, n_taken):
    """Evenly spaced positions of some instances of each bag, in bag-by-bag order."""
    begin = np.repeat(np.cumsum(n_taken) - n_taken, n_taken)
    step = np.repeat(sizes / n_taken, n_taken)
    within = ((np.arange(len(begin)) - begin) * step).astype(np.int64)
    return np.repeat(np.cumsum(sizes) - sizes, n_taken) + within
