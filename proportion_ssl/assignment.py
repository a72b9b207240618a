"""Labels of all instances of a bag at once, so that their counts fit its proportions."""

import itertools

import numpy as np


def largest_remainder(shares: np.ndarray, n_instances: np.ndarray) -> np.ndarray:
    """Whole numbers of instances that come closest to shares and add up to each bag's size.

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
        stays 0; of equal remainders the earlier class is rounded up.

    Notes
    -----
    The method of largest remainders (Hamilton's).

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
    """Fewest and most instances per bag and class that intervals of the shares allow.

    Parameters
    ----------
    lower, upper : array-like of shape (n_bags, n_classes)
        Smallest and largest share, in [0, 1]; together they admit shares that sum to 1.
    n_instances : array-like of int, shape (n_bags,)

    Returns
    -------
    fewest, most : ndarray of int64, shape (n_bags, n_classes)
        Each row admits counts that sum to the size of the bag. Where the interval of a class holds no whole
        number of instances, its ends are those of :func:`largest_remainder`, so that
        ``lower = upper`` gives exactly those counts twice.

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
    """Shares that sum to 1, all at the same relative place of their intervals.

    Parameters
    ----------
    lower, upper : array-like of shape (n_bags, n_classes)

    Returns
    -------
    shares : ndarray of shape (n_bags, n_classes)
        ``lower + t * (upper - lower)`` with one t per bag; ``lower`` itself where all widths are 0.

    Examples
    --------
    >>> shares_within([[0.2, 0.4]], [[0.4, 1.0]])
    array([[0.3, 0.7]])
    """
    lower, upper = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
    width = upper - lower
    total = width.sum(axis=1, keepdims=True)
    missing = 1.0 - lower.sum(axis=1, keepdims=True)
    place = np.divide(missing, total, out=np.zeros_like(missing), where=total > 0)
    return lower + np.clip(place, 0.0, 1.0) * width


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
    """Soft labels whose mean in each bag lies within intervals: entropic optimal transport.

    Parameters
    ----------
    scores : ndarray of float, shape (n_instances, n_classes)
        Log-probabilities, or any finite scores.
    bag_index : ndarray of int, shape (n_instances,)
        0 to n_bags - 1, each at least once.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Interval of each share. A class with ``upper = 0`` receives nothing.
    temperature : float, default=1.0
        Entropy weight, in the unit of the scores; towards 0 labels become hard.
    max_iter : int, default=200
    tol : float, default=1e-4
        Ends when no mean is further than this outside its interval.

    Returns
    -------
    soft : ndarray of float, shape (n_instances, n_classes)
        Rows sum to 1.
    prices : ndarray of float, shape (n_bags, n_classes)
        What is added to the scores of a bag: ``soft = softmax((scores + prices) / temperature)``;
        ``-inf`` for a class that the bag cannot have.

    Notes
    -----
    Maximises ``<soft, scores> + temperature * entropy(soft)`` under the interval of every class, by the
    scaling iterations of Chizat et al. [2]_ with a range constraint on one marginal; with
    ``lower = upper`` they are Sinkhorn's [1]_.

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
    order, starts = _by_bag(bag_index)
    bags = bag_index[order]
    sizes = np.diff(np.append(starts, len(order)))[:, np.newaxis]
    scaled = scores[order] / temperature
    with np.errstate(divide="ignore"):
        low, high = np.log(lower), np.log(upper)
    potential = np.where(upper > 0, 0.0, -np.inf)
    for _ in range(max_iter):
        soft = _softmax(scaled + potential[bags])
        means = np.add.reduceat(soft, starts, axis=0) / sizes
        if np.abs(np.clip(means, lower, upper) - means).max() <= tol:
            break
        own = np.log(np.maximum(means, 1e-300)) - np.where(upper > 0, potential, 0.0)
        potential = np.where(upper > 0, np.clip(0.0, low - own, high - own), -np.inf)
    result = np.empty_like(soft)
    result[order] = soft
    return result, potential * temperature


def assign(
    scores: np.ndarray, bag_index: np.ndarray, fewest: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """Labels of largest total score among all whose counts in each bag lie within bounds.

    Parameters
    ----------
    scores : ndarray of float, shape (n_instances, n_classes)
        Log-probabilities, or any finite scores.
    bag_index : ndarray of int, shape (n_instances,)
        0 to n_bags - 1, each at least once.
    fewest, most : ndarray of int, shape (n_bags, n_classes)
        Bounds of the counts, as of :func:`count_bounds`; equal for exact counts.

    Returns
    -------
    labels : ndarray of int64, shape (n_instances,)
        Exact optimum. Of equal scores earlier instances move first.

    Raises
    ------
    ValueError
        When the bounds of a bag admit no counts that sum to its size.

    Notes
    -----
    The transportation problem of a bag has one price per class. :func:`sinkhorn` at falling temperatures
    finds prices that almost fit; ``argmax(scores + prices)`` is then the best assignment for the counts that
    it has, and cheapest chains of moves between classes [1]_ lead from there to counts within the bounds.

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
    order, starts = _by_bag(bag_index)
    sizes = np.diff(np.append(starts, len(order)))
    wrong = (fewest.sum(axis=1) > sizes) | (most.sum(axis=1) < sizes) | (fewest > most).any(axis=1)
    if wrong.any():
        bag = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"Bag {bag} has {sizes[bag]} instances, but its counts must lie between {fewest[bag].tolist()} "
            f"and {most[bag].tolist()}; no counts within these bounds sum to its size."
        )
    prices = _prices(scores, bag_index, fewest / sizes[:, np.newaxis], most / sizes[:, np.newaxis])
    labels = np.empty(len(order), dtype=np.int64)
    for bag, rows in enumerate(np.split(order, starts[1:])):
        chosen = (scores[rows] + prices[bag]).argmax(axis=1)
        labels[rows] = _move_within_bounds(scores[rows], chosen, fewest[bag], most[bag])
    return labels


def _prices(scores, bag_index, lower, upper):
    """Prices of the classes in each bag, nearly those of the exact assignment."""
    prices = np.zeros(lower.shape)
    for temperature in (1.0, 0.2, 0.04):
        _, more = sinkhorn(
            scores + np.where(np.isfinite(prices), prices, 0.0)[bag_index],
            bag_index,
            lower,
            upper,
            temperature=temperature,
            max_iter=20,
        )
        prices = prices + more
    return prices


def _move_within_bounds(scores, labels, fewest, most):
    """Best labels with counts within bounds, from best labels for the counts that they have."""
    counts = np.bincount(labels, minlength=len(fewest))
    gains = _Gains(scores, labels)
    while True:
        over, under = counts > most, counts < fewest
        may_give, may_take = counts > fewest, counts < most
        repairs = over.any() or under.any()
        if over.any():
            may_give, may_take = over, under if under.any() else may_take
        elif under.any():
            may_take = under
        chain, gain = gains.best_chain(may_give, may_take)
        if not repairs and gain <= 1e-12:
            return labels
        n_moved = gains.move(
            chain, at_most=_room(counts, fewest, most, chain[0], chain[-1], repairs)
        )
        counts[chain[0]] -= n_moved
        counts[chain[-1]] += n_moved


def _room(counts, fewest, most, source, target, repairs):
    """How many instances may leave the source for the target before the bounds change their say."""
    if not repairs:
        return min(counts[source] - fewest[source], most[target] - counts[target])
    excess = counts[source] - (most[source] if counts[source] > most[source] else fewest[source])
    lack = (fewest[target] if counts[target] < fewest[target] else most[target]) - counts[target]
    return min(excess, lack)


class _Gains:
    """What moving one instance from a class to another adds to the total score, for the best instance."""

    def __init__(self, scores, labels):
        self.scores, self.labels = scores, labels
        self.n_classes = scores.shape[1]
        self.gain = np.full((self.n_classes, self.n_classes), -np.inf)
        for label in range(self.n_classes):
            self._refresh(label)

    def _refresh(self, label):
        rows = np.flatnonzero(self.labels == label)
        self.gain[label] = -np.inf
        if len(rows):
            self.gain[label] = (self.scores[rows] - self.scores[rows, label, np.newaxis]).max(
                axis=0
            )
        self.gain[label, label] = -np.inf

    def best_chain(self, may_give, may_take):
        """Classes of the best chain of moves from one that may give to one that may take, and its gain."""
        best = np.where(may_give, 0.0, -np.inf)
        before = np.full(self.n_classes, -1)
        for _ in range(self.n_classes - 1):
            through = best[:, np.newaxis] + self.gain
            better = through.max(axis=0) > best + 1e-12
            if not better.any():
                break
            before = np.where(better, through.argmax(axis=0), before)
            best = np.where(better, through.max(axis=0), best)
        targets = np.where(may_take & (before >= 0), best, -np.inf)
        chain = [int(targets.argmax())]
        while before[chain[0]] >= 0 and len(chain) <= self.n_classes:
            chain.insert(0, int(before[chain[0]]))
        return chain, targets.max()

    def move(self, chain, at_most):
        """Move as many instances along the chain as are equally good; returns how many."""
        movers = []
        for source, target in itertools.pairwise(chain):
            rows = np.flatnonzero(self.labels == source)
            gain = self.scores[rows, target] - self.scores[rows, source]
            movers.append(rows[gain >= self.gain[source, target]])
        n_moved = int(min(at_most, *map(len, movers)))
        for rows, target in zip(movers, chain[1:], strict=True):
            self.labels[rows[:n_moved]] = target
        for label in chain:
            self._refresh(label)
        return n_moved


def _by_bag(bag_index):
    """Instances in the order of their bags, and where each bag starts."""
    order = np.argsort(bag_index, kind="stable")
    return order, np.searchsorted(bag_index[order], np.arange(bag_index.max() + 1))


def _softmax(scores):
    exponent = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)
