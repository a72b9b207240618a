"""Augmenting paths that turn optimal labels for some counts into optimal labels within bounds."""

import numpy as np


def augment_within_bounds(
    scores: np.ndarray,
    bag: np.ndarray,
    labels: np.ndarray,
    counts: np.ndarray,
    duals: np.ndarray,
    fewest: np.ndarray,
    most: np.ndarray,
    unseen: np.ndarray,
) -> np.ndarray:
    """Move instances between classes until all counts lie within bounds and no move improves the score.

    Parameters
    ----------
    scores : ndarray of float, shape (n_classes, n_instances)
        Scores of the instances that may move; ``-inf`` where an instance cannot have a class.
    bag : ndarray of int, shape (n_instances,)
        Bag of each instance, in ascending order.
    labels : ndarray of int, shape (n_instances,)
        Class with the largest sum of score and dual variable of each instance. Changed in place.
    counts : ndarray of int, shape (n_bags, n_classes)
        Counts of all instances of each bag, including those that may not move. Changed in place.
    duals : ndarray of shape (n_bags, n_classes)
        Finite.
    fewest, most : ndarray of int, shape (n_bags, n_classes)
        Bounds of the counts.
    unseen : ndarray of shape (n_bags, n_classes, n_classes)
        Upper bound of the gain in total score if an instance that may not move went from one class (second
        axis) to another (third); ``-inf`` where there is no such instance.

    Returns
    -------
    in_doubt : ndarray of bool, shape (n_bags,)
        True where moving an instance that may not move might improve the result. The labels of these bags
        must not be used.

    Notes
    -----
    Successive shortest paths [1]_, in all bags at once. Instances first move along the best augmenting path
    from classes above their bound to classes below it, then along chains within the bounds while these
    improve the score. Equally good instances move together, earlier ones first.

    References
    ----------
    .. [1] Ahuja, Magnanti, Orlin. "Network Flows", chapter 9.7: successive shortest paths. 1993.

    Examples
    --------
    >>> import numpy as np
    >>> scores = np.log([[0.9, 0.8, 0.6], [0.1, 0.2, 0.4]])
    >>> labels, counts, wanted = np.array([0, 0, 0]), np.array([[3, 0]]), np.array([[1, 2]])
    >>> one_bag, duals, nothing_else = np.zeros(3, int), np.zeros((1, 2)), np.full((1, 2, 2), -np.inf)
    >>> augment_within_bounds(scores, one_bag, labels, counts, duals, wanted, wanted, nothing_else)
    array([False])
    >>> labels
    array([0, 1, 1])
    """
    n_bags, n_classes = counts.shape
    largest = np.max(np.abs(scores), where=np.isfinite(scores), initial=100.0)
    tol = 1e-14 * largest
    gains = unseen.copy()
    in_doubt = (unseen > duals[:, :, np.newaxis] - duals[:, np.newaxis]).any(axis=(1, 2))
    rows, bags = np.arange(len(labels)), np.flatnonzero(~in_doubt)
    _raise(gains, scores, bag, labels, rows)
    place = np.empty(n_bags, dtype=np.int64)
    while True:
        here, low, high = counts[bags], fewest[bags], most[bags]
        over, under = here > high, here < low
        has_over, has_under = over.any(axis=1, keepdims=True), under.any(axis=1, keepdims=True)
        following, source, target, gain = _best_chains(
            gains[bags],
            np.where(has_over, over, here > low),
            np.where(has_under, under, here < high),
            tol,
        )
        goes_on = (gain > tol) | (over | under).any(axis=1)
        if not goes_on.any():
            return in_doubt
        bags, here, low, high = bags[goes_on], here[goes_on], low[goes_on], high[goes_on]
        following, source, target = following[goes_on], source[goes_on], target[goes_on]

        each = np.arange(len(bags))
        place[:] = -1
        place[bags] = each
        rows = rows[place[bag[rows]] >= 0]
        cell = place[bag[rows]] * n_classes + labels[rows]
        movers = _movers(gains[bags], scores, rows, cell, following)
        cells = cell[movers]
        n_movers = np.bincount(cells, minlength=here.size).reshape(here.shape)
        n_leaving, n_coming = here[each, source], here[each, target]
        room = np.minimum(
            n_leaving
            - np.where(n_leaving > high[each, source], high[each, source], low[each, source]),
            np.where(n_coming < low[each, target], low[each, target], high[each, target])
            - n_coming,
        )
        n_moved = np.minimum(np.where(following >= 0, n_movers, len(labels)).min(axis=1), room)

        order = np.argsort(cells, kind="stable")
        cells, movers = cells[order], movers[order]
        rank = np.arange(len(cells)) - (np.cumsum(n_movers) - n_movers.ravel())[cells]
        first = rank < n_moved[cells // n_classes]
        movers, left = movers[first], cells[first]
        labels[rows[movers]] = moved_to = following.ravel()[left]
        cell[movers] = left - left % n_classes + moved_to
        counts[bags, source] -= n_moved
        counts[bags, target] += n_moved

        touched = following >= 0
        touched[each, target] = True
        gains[bags] = np.where(touched[:, :, np.newaxis], unseen[bags], gains[bags])
        _raise(gains, scores, bag, labels, rows[touched.ravel()[cell]])
        stuck = n_moved == 0
        in_doubt[bags[stuck]] = True
        bags = bags[~stuck]


def _raise(gains, scores, bag, labels, rows):
    """Raise the gains to the best gains of these instances."""
    own_label = labels[rows]
    for label in range(len(scores)):
        mine = rows[own_label == label]
        if len(mine):
            own = bag[mine]
            starts = np.flatnonzero(np.concatenate([[True], own[1:] != own[:-1]]))
            bags = own[starts]
            theirs = scores.take(mine, axis=1)
            theirs -= theirs[label].copy()
            gain = np.maximum.reduceat(theirs, starts, axis=1).T
            gains[bags, label] = np.maximum(gains[bags, label], gain)
            gains[bags, label, label] = -np.inf


def _best_chains(gains, may_give, may_take, tol):
    """Best augmenting path in each bag from a class that may give to a class that may take.

    Returns the class to which an instance of each class moves (-1: none moves), the first and last class,
    and the gain of the chain.
    """
    each, n_classes = np.arange(len(gains)), gains.shape[1]
    # bags on the last axis: numpy is many times slower along rows of a few classes
    steps = np.ascontiguousarray(gains.transpose(1, 2, 0))
    best, before = np.where(may_give.T, 0.0, -np.inf), np.full(may_give.T.shape, -1)
    for _ in range(n_classes - 1):
        through = best[:, np.newaxis] + steps
        top = through.max(axis=0)
        better = top > best + tol
        if not better.any():
            break
        np.copyto(before, (through == top).argmax(axis=0), where=better)
        np.copyto(best, top, where=better)
    best, before = best.T, before.T
    best = np.where(may_take & (before >= 0), best, -np.inf)
    target = source = best.argmax(axis=1)
    following = np.full(may_give.shape, -1)
    for _ in range(n_classes - 1):
        previous = before[each, source]
        moves = previous >= 0
        following[each[moves], previous[moves]] = source[moves]
        source = np.where(moves, previous, source)
    return following, source, target, best[each, target]


def _movers(gains, scores, rows, cell, following):
    """Rows with the best gain for the move of their cell (a bag and a class)."""
    n_bags, n_classes = following.shape
    best = gains[np.arange(n_bags)[:, np.newaxis], np.arange(n_classes), following].ravel()
    to = following.ravel()[cell]
    moves = np.flatnonzero(to >= 0)
    rows, cell, to = rows[moves], cell[moves], to[moves]
    # positions in the scores one after the other: numpy finds these faster than pairs
    n_instances = scores.shape[1]
    gain = scores.take(to * n_instances + rows)
    gain -= scores.take(cell % n_classes * n_instances + rows)
    return moves[gain >= best[cell]]
