"""SHA-256 checksums of a feature file: one per block of features, and one for all other content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

BLOCK_ROWS = 64
"""Number of rows per checksum, the smallest unit that is read."""

DIGEST_BYTES = 32


class RowDigests:
    """Checksums of rows that are added in blocks of any length."""

    def __init__(self) -> None:
        self._digests: list[bytes] = []
        self._open = hashlib.sha256()
        self._n_rows = 0

    def add(self, rows: np.ndarray) -> None:
        """Add the next rows, float32."""
        while len(rows):
            now = rows[: BLOCK_ROWS - self._n_rows % BLOCK_ROWS]
            self._open.update(_bytes(now))
            self._n_rows += len(now)
            rows = rows[len(now) :]
            if self._n_rows % BLOCK_ROWS == 0:
                self._digests.append(self._open.digest())
                self._open = hashlib.sha256()

    def finish(self) -> np.ndarray:
        """Checksums of all rows, uint8 of shape (n_blocks, 32)."""
        last = [self._open.digest()] * (self._n_rows % BLOCK_ROWS > 0)
        return as_table([*self._digests, *last])


def as_table(digests: list[bytes]) -> np.ndarray:
    """Checksums as uint8 of shape (n, 32)."""
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST_BYTES)


def n_blocks(n_rows: int) -> int:
    """Number of blocks of so many rows."""
    return -(-n_rows // BLOCK_ROWS)


def wrong_block(rows: np.ndarray, digests: np.ndarray) -> int | None:
    """First block of rows with a wrong checksum, None if all agree.

    Parameters
    ----------
    rows : ndarray of shape (n, n_features), float32
        From the first row of a block on.
    digests : ndarray of shape (n_blocks, 32), uint8
        Of the blocks from there on.
    """
    for block in range(n_blocks(len(rows))):
        part = rows[block * BLOCK_ROWS : (block + 1) * BLOCK_ROWS]
        if hashlib.sha256(_bytes(part)).digest() != digests[block].tobytes():
            return block
    return None


def head_digest(file: h5py.File, names: Iterable[str], shape: tuple[int, ...], text: str) -> str:
    """Checksum of everything but the features.

    Parameters
    ----------
    file : h5py.File
    names : iterable of str
        Datasets that count, with their attributes.
    shape : tuple of int
        Of the features.
    text : str
        The settings.

    Returns
    -------
    digest : str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(repr((tuple(int(n) for n in shape), text)).encode())
    for name in names:
        values = file[name][...]
        attributes = {key: plain(value) for key, value in file[name].attrs.items()}
        about = json.dumps([name, values.dtype.kind, values.shape, attributes], sort_keys=True)
        digest.update(about.encode())
        digest.update(np.ascontiguousarray(values.astype(f"<{values.dtype.kind}8")).data)
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """An attribute of HDF5 as a value of Python."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _bytes(rows: np.ndarray) -> memoryview:
    return np.ascontiguousarray(rows, dtype="<f4").reshape(-1).view(np.uint8).data
