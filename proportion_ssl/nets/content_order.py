"""An order of instances that does not depend on where they are stored."""

from hashlib import blake2b
from typing import Any

import numpy as np

from proportion_ssl.nets.signed_dataset import BatchesInOrder, SignedDataset

#: Instances that are read at once.
BLOCK = 4096


def content_order(X: Any, bag_index: np.ndarray) -> np.ndarray:
    """Positions of the instances, bag by bag, in an order that follows from their values.

    What is drawn at random from the instances of a bag is drawn from this order: a bag whose instances are
    given in another order is then the same bag.

    Parameters
    ----------
    X : array of shape (n_instances, ...)
        Features or images, read once.
    bag_index : ndarray of int, shape (n_instances,)

    Returns
    -------
    order : ndarray of int, shape (n_instances,)
        Instances of a bag are sorted by a hash of their values; those with equal values by position.

    Examples
    --------
    >>> import numpy as np
    >>> X, bags = np.random.default_rng(0).normal(size=(6, 3)), np.array([0, 1, 0, 0, 1, 0])
    >>> backwards = X[::-1].copy()
    >>> np.array_equal(X[content_order(X, bags)], backwards[content_order(backwards, bags[::-1])])
    True
    """
    return np.lexsort((content_hashes(X), bag_index))


def content_hashes(X: Any) -> np.ndarray:
    """Hashes of the values of the instances.

    Parameters
    ----------
    X : array of shape (n_instances, ...)

    Returns
    -------
    hashes : ndarray of uint64, shape (n_instances,)
    """
    digests = [
        b"".join(blake2b(row, digest_size=8).digest() for row in block.numpy())
        for block, _ in BatchesInOrder(SignedDataset(X), BLOCK)
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8")
