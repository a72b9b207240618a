"""Instances and their signed labels as a torch data set that is read batch by batch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset


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
        self.signed = torch.as_tensor(np.asarray(signed))
        if len(self.signed) != n_instances:
            raise ValueError(f"{len(self.signed)} signed labels for {n_instances} instances.")
        self.rows = torch.arange(n_instances) if rows is None else torch.as_tensor(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int):
        X, signed = self.__getitems__([position])
        return X[0], signed[0]

    def __getitems__(self, positions: Sequence[int]):
        """Batch of instances (n, ...) and signed labels (n, n_classes)."""
        rows = self.rows[torch.as_tensor(positions)]
        if len(self.parts) == 1:
            return _take(self.parts[0], rows), self.signed[rows]
        part_of = np.searchsorted(self.starts, rows.numpy(), side="right") - 1
        batch = None
        for part in np.unique(part_of):
            here = torch.from_numpy(np.flatnonzero(part_of == part))
            instances = _take(self.parts[part], rows[here] - int(self.starts[part]))
            if batch is None:
                batch = instances.new_empty((len(rows), *instances.shape[1:]))
            batch[here] = instances
        return batch, self.signed[rows]


def keep_batch(batch: Any) -> Any:
    """Collate function for a data set that already returns whole batches."""
    return batch


def _readable(part: Any) -> Any:
    """Arrays as tensors, floating point as float32; lazily read sequences as they are."""
    if isinstance(part, torch.Tensor):
        return part
    if isinstance(part, np.ndarray):
        part = part.astype(np.float32, copy=False) if part.dtype.kind == "f" else part
        return torch.from_numpy(np.ascontiguousarray(part))
    return part


def _take(part: Any, rows: torch.Tensor) -> torch.Tensor:
    if isinstance(part, torch.Tensor):
        return part[rows]
    return torch.from_numpy(np.ascontiguousarray(part[rows.numpy()]))
