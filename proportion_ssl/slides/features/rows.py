"""Rows of features that are read from their files on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features._hdf5 import opened


class OpenRows(Protocol):
    """What gives rows by their numbers."""

    def __getitem__(self, rows: Any, /) -> np.ndarray: ...


class Rows(Protocol):
    """Where the features of a file are; small, and can be pickled.

    Attributes
    ----------
    shape : tuple of int
        (n_patches, n_features).
    loaded_bytes : int
        Memory that opening takes; 0 where the operating system maps the file.
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def loaded_bytes(self) -> int: ...

    def open(self) -> OpenRows: ...


@dataclass(frozen=True)
class MappedRows:
    """Rows that lie in one piece, mapped into memory."""

    path: str
    dtype: str
    offset: int
    shape: tuple[int, int]
    loaded_bytes: int = 0

    def open(self) -> np.ndarray:
        """The features where they are, read-only."""
        if 0 in self.shape:
            return np.empty(self.shape, dtype=self.dtype)
        try:
            return np.memmap(self.path, self.dtype, mode="r", offset=self.offset, shape=self.shape)
        except (OSError, ValueError) as error:
            raise FeatureFileError(
                f"{self.path}: cannot be mapped into memory ({error}); make it again"
            ) from error


@dataclass(frozen=True, eq=False)
class ScatteredRows:
    """Rows of an HDF5 file in uncompressed chunks, each in one piece somewhere in the file."""

    path: str
    dtype: str
    offsets: np.ndarray
    shape: tuple[int, int]
    loaded_bytes: int = 0

    def open(self) -> _MappedPieces:
        try:
            return _MappedPieces(np.memmap(self.path, np.uint8, mode="r"), self)
        except (OSError, ValueError) as error:
            raise FeatureFileError(
                f"{self.path}: cannot be mapped into memory ({error}); make it again"
            ) from error


class _MappedPieces:
    def __init__(self, content: np.ndarray, rows: ScatteredRows):
        self._content, self._rows = content, rows
        self._row_bytes = rows.shape[1] * np.dtype(rows.dtype).itemsize

    def __getitem__(self, rows: Any) -> np.ndarray:
        offsets = np.atleast_1d(self._rows.offsets[rows])
        out = np.empty((len(offsets), self._row_bytes), dtype=np.uint8)
        for row, start in zip(out, offsets.tolist(), strict=True):
            row[:] = self._content[start : start + self._row_bytes]
        return out.view(self._rows.dtype)


@dataclass(frozen=True)
class PackedRows:
    """Rows of an HDF5 file that HDF5 has to read, such as compressed ones."""

    path: str
    dataset: str
    shape: tuple[int, int]
    chunk_rows: int
    loaded_bytes: int = 0

    def open(self) -> _Hdf5Rows:
        return _Hdf5Rows(self)


class _Hdf5Rows:
    """Reads each chunk that is asked for once, neighbors together."""

    def __init__(self, rows: PackedRows):
        self._rows = rows

    def __getitem__(self, rows: Any) -> np.ndarray:
        wanted = np.atleast_1d(np.arange(self._rows.shape[0])[rows])
        size = self._rows.chunk_rows
        chunks, which = np.unique(wanted // size, return_inverse=True)
        runs = np.split(chunks, np.flatnonzero(np.diff(chunks) != 1) + 1)
        out: np.ndarray | None = None
        with opened(Path(self._rows.path)) as file:
            dataset = file[self._rows.dataset]
            for run in runs if len(wanted) else ():
                start = int(run[0]) * size
                part = slice(start, (int(run[-1]) + 1) * size)
                block = dataset[0, part] if dataset.ndim == 3 else dataset[part]
                if out is None:
                    out = np.empty((len(wanted), self._rows.shape[1]), dtype=block.dtype)
                here = (chunks[which] >= run[0]) & (chunks[which] <= run[-1])
                out[here] = block[wanted[here] - start]
        return np.empty((0, self._rows.shape[1]), np.float32) if out is None else out


@dataclass(frozen=True, eq=False)
class LoadedRows:
    """Rows of a file that can only be read as a whole, when its rows are first used."""

    path: str
    load: Callable[[str], np.ndarray]
    shape: tuple[int, int]
    loaded_bytes: int

    def open(self) -> np.ndarray:
        values = self.load(self.path)
        if values.shape != self.shape:
            raise FeatureFileError(f"{self.path}: has changed; read it again")
        return values


def rows_of_dataset(dataset: h5py.Dataset, path: Path) -> Rows:
    """Where the rows of a dataset of HDF5 are.

    Parameters
    ----------
    dataset : h5py.Dataset of shape (n, d) or (1, n, d)
    path : Path

    Returns
    -------
    rows : MappedRows, ScatteredRows or PackedRows
    """
    n_patches, n_features = (int(n) for n in dataset.shape[-2:])
    shape, name = (n_patches, n_features), dataset.name
    dtype = dataset.dtype.str
    if 0 in shape:
        return MappedRows(str(path), dtype, 0, shape)
    if dataset.chunks is None and dataset.id.get_offset() is not None:
        return MappedRows(str(path), dtype, dataset.id.get_offset(), shape)
    chunk = dataset.chunks or dataset.shape
    chunk_rows = int(chunk[-2])
    is_plain = dataset.id.get_create_plist().get_nfilters() == 0 and chunk[-1] == n_features
    if dataset.chunks is None or not is_plain:
        return PackedRows(str(path), name, shape, chunk_rows)
    offsets = _chunk_offsets(dataset)
    if (offsets < 0).any():  # a chunk that was never written
        return PackedRows(str(path), name, shape, chunk_rows)
    numbers = np.arange(n_patches)
    row_bytes = n_features * dataset.dtype.itemsize
    of_rows = offsets[numbers // chunk_rows] + numbers % chunk_rows * row_bytes
    if n_patches == 1 or (np.diff(of_rows) == row_bytes).all():
        return MappedRows(str(path), dtype, int(of_rows[0]), shape)
    return ScatteredRows(str(path), dtype, of_rows, shape)


def _chunk_offsets(dataset: h5py.Dataset) -> np.ndarray:
    """Byte at which each chunk of rows begins, -1 where there is none."""
    size = int(dataset.chunks[-2])
    offsets = np.full(-(-int(dataset.shape[-2]) // size), -1, dtype=np.int64)

    def note(chunk: Any) -> None:
        offsets[chunk.chunk_offset[-2] // size] = chunk.byte_offset

    dataset.id.chunk_iter(note)
    return offsets
