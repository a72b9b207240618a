"""Pick the k most or least confident instances per bag and class; build the signed labels of a round."""

import numpy as np


def pick_most_confident(
    confidence: np.ndarray, predicted: np.ndarray, bag_ids: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Pick the most confident instances predicted as each class, in each bag.

    Parameters
    ----------
    confidence : ndarray of float, shape (n_instances,)
        Largest class probability, in [0, 1].
    predicted : ndarray of int, shape (n_instances,)
        Predicted class index.
    bag_ids : ndarray of int, shape (n_instances,)
        Bag index.
    counts : ndarray of int, shape (n_bags, n_classes)
        How many to pick among the instances of a bag predicted as a class; all if there are fewer.

    Returns
    -------
    picked : ndarray of bool, shape (n_instances,)
        At equal confidence, earlier instances are picked first.

    Notes
    -----
    One sort of one number per instance, no loop over bags: O(n log n).

    Examples
    --------
    >>> import numpy as np
    >>> confidence = np.array([0.6, 0.9, 0.8])
    >>> pick_most_confident(confidence, np.zeros(3, int), np.zeros(3, int), np.array([[2]]))
    array([False,  True,  True])
    """
    return _pick_first(-np.asarray(confidence, dtype=np.float64), predicted, bag_ids, counts)


def pick_least_confident(
    confidence: np.ndarray, predicted: np.ndarray, bag_ids: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Pick the least confident instances predicted as each class, in each bag.

    Parameters
    ----------
    confidence : ndarray of float, shape (n_instances,)
    predicted, bag_ids : ndarray of int, shape (n_instances,)
    counts : ndarray of int, shape (n_bags, n_classes)

    Returns
    -------
    picked : ndarray of bool, shape (n_instances,)
        At equal confidence, later instances are picked first. This is the reverse order of
        :func:`pick_most_confident`, so the picks of both overlap only if their counts together exceed the
        number of instances.

    Examples
    --------
    >>> import numpy as np
    >>> confidence = np.array([0.6, 0.9, 0.8])
    >>> pick_least_confident(confidence, np.zeros(3, int), np.zeros(3, int), np.array([[2]]))
    array([ True, False,  True])
    """
    key = np.asarray(confidence, dtype=np.float64)
    return _pick_first(key, predicted, bag_ids, counts, latest=True)


def _pick_first(key, predicted, bag_ids, counts, latest=False):
    """Pick the ``counts[bag, class]`` instances with the smallest key in each cell, earliest first.

    The cell and the leading bits of the key are packed into one integer. After sorting, the value at the
    count of each cell separates picked from other instances. Only instances with exactly this value need
    a second sort; these are few unless confidences are equal. Sorting values is several times faster than
    sorting indices.
    """
    counts = np.asarray(counts)
    cells = np.asarray(bag_ids, dtype=np.int64) * counts.shape[1] + predicted
    sizes = np.bincount(cells, minlength=counts.size)
    wanted = np.minimum(counts.ravel(), sizes)
    start_of_cell = np.cumsum(sizes) - sizes
    packed = _leading_bits(key, n_cells=counts.size)
    packed |= cells.view(np.uint64) << np.uint64(64 - _n_bits(counts.size))
    ordered = np.sort(packed)
    has_picks = wanted > 0
    last = np.zeros(counts.size, dtype=np.uint64)  # largest picked value
    last[has_picks] = ordered[(start_of_cell + wanted - 1)[has_picks]]
    last_of = last[cells]
    picked = packed < last_of
    at_last = np.flatnonzero((packed == last_of) & has_picks[cells])
    if len(at_last):
        first_at_last = np.searchsorted(ordered, last)  # number picked before, in all cells
        room = wanted - (first_at_last - start_of_cell)
        if latest:
            at_last = at_last[::-1]  # the sort below is stable
        at_last = at_last[np.lexsort((key[at_last], cells[at_last]))]
        cells_at_last = cells[at_last]
        begins = np.searchsorted(cells_at_last, cells_at_last)
        rank = np.arange(len(at_last)) - begins
        picked[at_last[rank < room[cells_at_last]]] = True
    return picked


def _n_bits(n_cells):
    return max(1, int(n_cells - 1).bit_length())


def _leading_bits(key, n_cells):
    """Integers in the order of the keys, in the bits of 64 that the cells do not use."""
    bits = (key + 0.0).view(np.int64)  # turns -0 into 0
    # positive floats have the order of their bits, negative floats the reverse order
    bits ^= (bits >> 63).view(np.int64) | np.int64(-(2**63))
    return bits.view(np.uint64) >> np.uint64(_n_bits(n_cells))


def sign_labels(
    predicted: np.ndarray, picked: np.ndarray, *, n_classes: int, sign: int
) -> np.ndarray:
    """Build signed labels with ``sign`` at the predicted class of the picked instances.

    Parameters
    ----------
    predicted : ndarray of int, shape (n_instances,)
    picked : ndarray of bool, shape (n_instances,)
    n_classes : int
    sign : {1, -1}
        +1 "is of this class", -1 "is not of this class".

    Returns
    -------
    signed : ndarray of int8, shape (n_instances, n_classes)
        0 where nothing is known.

    Examples
    --------
    >>> import numpy as np
    >>> sign_labels(np.array([1, 0]), np.array([True, False]), n_classes=2, sign=-1)
    array([[ 0, -1],
           [ 0,  0]], dtype=int8)
    """
    signed = np.zeros((len(predicted), n_classes), dtype=np.int8)
    signed[np.flatnonzero(picked), np.asarray(predicted)[picked]] = sign
    return signed


def merge_rounds(positive: np.ndarray, negative: np.ndarray, remembered: np.ndarray) -> np.ndarray:
    """Merge the picks of a round with the negative labels remembered from earlier rounds.

    Parameters
    ----------
    positive, negative : ndarray of int8, shape (n_instances, n_classes)
        Picks of this round: +1 in the first, -1 in the second, 0 elsewhere. Soft positive labels are float32.
    remembered : ndarray of int8, shape (n_instances, n_classes)
        -1 where a negative label of an earlier round is kept, 0 elsewhere.

    Returns
    -------
    signed : ndarray of int8 (float32 for soft labels), shape (n_instances, n_classes)
        A positive label replaces all negative labels of its row: it implies those that agree with it and
        overrides those that do not.

    Examples
    --------
    >>> import numpy as np
    >>> positive = np.array([[1, 0, 0], [0, 0, 0]], dtype=np.int8)
    >>> negative = np.array([[0, 0, 0], [0, -1, 0]], dtype=np.int8)
    >>> remembered = np.array([[-1, 0, 0], [-1, 0, 0]], dtype=np.int8)
    >>> merge_rounds(positive, negative, remembered)
    array([[ 1,  0,  0],
           [-1, -1,  0]], dtype=int8)
    """
    is_positive = (positive > 0).any(axis=1, keepdims=True)
    return np.where(is_positive, positive, np.minimum(negative, remembered))
