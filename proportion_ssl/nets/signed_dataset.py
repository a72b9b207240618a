"""Instances and their signed labels as a torch data set that is read batch by batch."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from proportion_ssl.nets.random_numbers import generator


class SignedDataset(Dataset):
    """Instances with signed labels; a batch is gathered at once, not instance by instance.

    Parameters
    ----------
    X : array or list of arrays, n_instances in all
        Features or images; the arrays of a list follow each other and are not copied together.
        Anything with ``shape`` and indexing by an integer array will do.
    signed : array of shape (n_instances, n_classes), optional
        Signed labels. Without them (prediction) the targets are zeros.
    rows : array of int, optional
        Which instances the data set holds, in which order; repeat an instance to oversample it.
        Default: all, once.

    Examples
    --------
    >>> import numpy as np
    >>> data = SignedDataset([np.zeros((2, 3)), np.ones((1, 3))], np.eye(3), rows=[2, 0])
    >>> len(data), data.__getitems__([0])[0]
    (2, tensor([[1., 1., 1.]]))
    """

    def __init__(self, X: Any, signed: Any = None, rows: Any = None):
        self.parts = [_readable(part) for part in (X if isinstance(X, list) else [X])]
        self.starts = np.cumsum([0] + [len(part) for part in self.parts])
        n_instances = int(self.starts[-1])
        if signed is None:
            signed = np.zeros((n_instances, 1), dtype=np.int8)
        self.signed = np.asarray(signed)
        if len(self.signed) != n_instances:
            raise ValueError(f"{len(self.signed)} signed labels for {n_instances} instances.")
        self.rows = np.arange(n_instances) if rows is None else np.asarray(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def random_part(self, size: int | None) -> "SignedDataset":
        """The same data, or a random choice if it has more rows.

        Parameters
        ----------
        size : int or None
            Most rows; None: all.
        """
        if size is None or len(self) <= size:
            return self
        part = copy.copy(self)
        part.rows = self.rows[torch.randperm(len(self), generator=generator())[:size].numpy()]
        return part

    def gathered(self) -> "SignedDataset":
        """The same rows one behind the other, so that batches in order need not be copied together each time.

        Returns
        -------
        data : SignedDataset
            Itself, unless it holds feature vectors of one array in memory.
        """
        part = self.parts[0]
        if len(self.parts) > 1 or not isinstance(part, np.ndarray) or part.ndim != 2:
            return self
        return SignedDataset(part[self.rows], self.signed[self.rows])

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, and shape of an instance."""
        return (len(self), *self.parts[0].shape[1:])

    def __getitem__(self, position: int):
        X, signed = self.__getitems__([position])
        return X[0], signed[0]

    def __getitems__(self, positions: Sequence[int]):
        """Batch of instances (n, ...) and signed labels (n, n_classes)."""
        instances, signed = self.gather(np.asarray(positions))
        return torch.from_numpy(np.ascontiguousarray(instances)), torch.from_numpy(signed)

    def gather(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Instances and signed labels at some positions, as arrays.

        Parameters
        ----------
        positions : ndarray of int, shape (n,)

        Returns
        -------
        instances : ndarray of shape (n, ...)
        signed : ndarray of shape (n, n_classes)
        """
        rows = self.rows[positions]
        signed = self.signed[rows]
        if len(self.parts) == 1:
            return _single_precision(np.asarray(self.parts[0][rows])), signed
        part_of = np.searchsorted(self.starts, rows, side="right") - 1
        batch: Any = None
        for number, part in enumerate(self.parts):
            here = np.flatnonzero(part_of == number)
            if not len(here):
                continue
            instances = _single_precision(np.asarray(part[rows[here] - self.starts[number]]))
            if len(here) == len(rows):
                return instances, signed
            if batch is None:
                batch = np.empty((len(rows), *instances.shape[1:]), dtype=instances.dtype)
            batch[here] = instances
        return batch, signed


class BatchesInOrder:
    """Batches of a data set from its first row to the last, again and again.

    Parameters
    ----------
    data : SignedDataset
    size : int
        Rows of a batch; the last one can be smaller. Batches are views of the data where a writable
        array holds the rows one behind the other: what uses them must not write to them.

    Examples
    --------
    >>> import numpy as np
    >>> data = SignedDataset(np.arange(6, dtype=np.float32).reshape(3, 2))
    >>> [X.tolist() for X, _ in BatchesInOrder(data, 2)]
    [[[0.0, 1.0], [2.0, 3.0]], [[4.0, 5.0]]]
    """

    def __init__(self, data: SignedDataset, size: int):
        self.data, self.size = data, size

    def __len__(self) -> int:
        return -(-len(self.data) // self.size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        part, signed = self.data.parts[0], self.data.signed
        for start in range(0, len(self.data), self.size):
            rows = self.data.rows[start : start + self.size]
            first, stop = int(rows[0]), int(rows[0]) + len(rows)
            whole = isinstance(part, np.ndarray) and stop <= len(part)
            # torch warns of views of arrays that cannot be written to
            whole = whole and part.flags.writeable and part.flags.c_contiguous
            if whole and np.array_equal(rows, np.arange(first, stop)):
                yield torch.from_numpy(part[first:stop]), torch.from_numpy(signed[first:stop])
            else:
                yield self.data.__getitems__(range(start, start + len(rows)))


def keep_batch(batch: Any) -> Any:
    """Collate function for a data set that already returns whole batches."""
    return batch


def _readable(part: Any) -> Any:
    """Arrays and tensors as arrays, floating point as float32; lazily read sequences as they are."""
    if isinstance(part, torch.Tensor):
        part = part.numpy(force=True)
    return _single_precision(part) if isinstance(part, np.ndarray) else part


def _single_precision(instances: np.ndarray) -> np.ndarray:
    """Floating point as float32; images as they are."""
    if instances.dtype.kind == "f":
        return instances.astype(np.float32, copy=False)
    return instances
