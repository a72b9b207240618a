"""Features of many slides as one array-like, read from files on demand."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.checksums import BLOCK_ROWS, wrong_block
from proportion_ssl.slides.features.files import LocatedFeatures, locate_features
from proportion_ssl.slides.features.rows import OpenRows

__all__ = ["FeatureSequence"]

MAPPED_FILES = 256
"""Files that are open at once: each takes one of the process's file handles."""

HELD_BYTES = 2**30
"""Memory of open files: of rows read where they are mapped, of all where they are loaded. One stays."""

OF_ONE_SLIDE = {"slide", "slide_mpp", "slide_stamp", "min_fraction", "stride", "tissue_mask"}
"""Settings that say which patches of which slide were taken; all others say how features were made."""


class FeatureSequence:
    """Features of many slides, concatenated and read from files on demand; for cohorts larger than memory.

    Parameters
    ----------
    paths : iterable of path-like, or mapping of str to path-like
        At least one file of those that :func:`read_features` reads, such as the ``results`` of
        :func:`embed_slides` or the files of TRIDENT. Without a mapping a slide is named by its file.

    Attributes
    ----------
    names : ndarray of shape (n_slides,)
        Names of the slides.
    slide_ids : ndarray of shape (n,), int64
        For each patch the position of its slide in `names`; ``names[slide_ids]`` are bag ids or
        groups.
    shape : tuple of int
        (n, n_features).

    Raises
    ------
    FeatureFileError
        If a file is incomplete. When rows are read: if they do not match their checksum or are not finite, or
        the file has changed.
    ValueError
        If there is no file, or features were made with different settings, such as encoder, magnification,
        size or colors.

    Notes
    -----
    Indexed along the first axis like an array: an integer gives one row, a slice, mask or integer
    array several, as a new array. :class:`~proportion_ssl.Bags` takes it as its one array, and the
    classifiers then train from the files. The rows are memory-mapped: what is used often stays in
    the operating system's cache. It can be pickled, and opens the files anew in another process.

    Half-precision files are converted to float32 batch by batch. Compressed HDF5 is read chunk by chunk;
    files that can only be read as a whole (``.pt``, ``.npz``) stay loaded up to 1 GiB, so that reading at
    random from more than that is slow with them.

    When a row of a file of this package is first read, the block of 64 rows that holds it is compared with
    its checksum; later reads are not checked. Rows of other programs are checked for NaN.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from proportion_ssl.slides.features.files import write_features
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((896, 448), mpp=0.5, magnification=10)
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for name in ("a", "b"):
    ...     write_features(
    ...         folder / f"{name}.h5", np.ones((2, 4)), grid, name=name, dimensions=(896, 448),
    ...         mpp=0.5, settings={},
    ...     )
    >>> features = FeatureSequence(sorted(folder.glob("*.h5")))
    >>> features.shape, features.names[features.slide_ids], features[[3, 0]].shape
    ((4, 4), array(['a', 'a', 'b', 'b'], dtype='<U1'), (2, 4))
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, paths: Iterable[str | PathLike[str]] | Mapping[str, str | PathLike[str]]):
        if isinstance(paths, str | PathLike):
            raise TypeError(f"paths must be a list or a mapping of paths, got the one {paths!r}.")
        if not isinstance(paths, Mapping):
            listed = list(paths)
            paths = {Path(path).stem: path for path in listed}
            if len(paths) < len(listed):
                raise ValueError("two files have the same name; give a mapping of names to paths.")
        if not paths:
            raise ValueError("paths is empty; give the feature file of at least one slide.")
        self.names = np.array(list(paths))
        self.paths = [fspath(path) for path in paths.values()]
        self._located = [locate_features(path) for path in self.paths]
        self._stamps = [_stamp(path) for path in self.paths]
        for path, located in zip(self.paths, self._located, strict=True):
            _check_alike(self.paths[0], self._located[0], path, located)
        sizes = [located.shape[0] for located in self._located]
        self._starts = np.cumsum([0, *sizes])
        self.slide_ids = np.repeat(np.arange(len(sizes)), sizes)
        self.shape = (int(self._starts[-1]), self._located[0].shape[1])
        self._rows: np.ndarray | None = None  # those taken, None: all
        self._start_mapping()

    def _start_mapping(self) -> None:
        self._mapped: OrderedDict[int, OpenRows] = OrderedDict()
        self._held: dict[int, int] = {}  # bytes of each open file
        self._checked = [
            None if located.digests is None else np.zeros(len(located.digests), dtype=bool)
            for located in self._located
        ]
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        rest: tuple[Any, ...] = ()
        if isinstance(index, tuple):
            index, *others = index
            rest = tuple(others)
        rows = np.arange(len(self))[index]
        if rows.ndim > 1:
            raise IndexError(f"rows have one axis to index, got an index of shape {rows.shape}.")
        features = self._read(np.atleast_1d(rows))
        features = features if rows.ndim else features[0]
        return features[(slice(None), *rest) if rows.ndim else rest] if rest else features

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.batches():
            yield from batch

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All features at once; for cohorts that fit into memory."""
        if copy is False:
            raise ValueError("features are read from files, so an array of them is always a copy.")
        return self._read(np.arange(len(self))).astype(dtype or self.dtype, copy=False)

    def batches(self, batch_size: int = 4096) -> Iterator[np.ndarray]:
        """Rows in order, up to `batch_size` at a time."""
        for start in range(0, len(self), batch_size):
            yield self._read(np.arange(start, min(start + batch_size, len(self))))

    def take(self, rows: Any) -> FeatureSequence:
        """Select rows, which also remain in their files.

        Parameters
        ----------
        rows : slice, mask or array of int

        Returns
        -------
        sequence : FeatureSequence
            Its ``slide_ids`` are those of these rows; `names` stay.
        """
        taken = object.__new__(FeatureSequence)
        taken.__setstate__(self.__getstate__())
        taken._rows = np.arange(len(self))[rows] if self._rows is None else self._rows[rows]
        taken.slide_ids = self.slide_ids[rows]
        taken.shape = (len(taken._rows), self.shape[1])
        return taken

    def narrow(self, rows: Any) -> FeatureSequence:
        """Select rows, and keep only the files that hold them.

        Use this to send little data to another process that reads one slide of many.

        Parameters
        ----------
        rows : slice, mask or array of int

        Returns
        -------
        sequence : FeatureSequence
            Its `names` are those of these files.
        """
        narrowed = object.__new__(FeatureSequence)
        slide_ids = self.slide_ids[rows]
        own = _positions(rows, len(self)) if self._rows is None else self._rows[rows]
        parts, ids = np.unique(slide_ids, return_inverse=True)
        sizes = np.diff(self._starts)[parts]
        starts = np.cumsum([0, *sizes])
        narrowed.names = self.names[parts]
        narrowed.paths = [self.paths[part] for part in parts]
        narrowed._located = [self._located[part] for part in parts]
        narrowed._stamps = [self._stamps[part] for part in parts]
        narrowed._starts, narrowed.slide_ids = starts, ids
        narrowed._rows = own - self._starts[slide_ids] + starts[ids]
        narrowed.shape = (len(ids), self.shape[1])
        narrowed._start_mapping()
        return narrowed

    def __repr__(self) -> str:
        return f"<FeatureSequence of {len(self.paths)} slides: {self.shape[0]} x {self.shape[1]}>"

    def _read(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), self.shape[1]), dtype=self.dtype)
        row_bytes = self.shape[1] * self.dtype.itemsize
        part_of = self.slide_ids[rows]
        rows = rows if self._rows is None else self._rows[rows]
        order = np.argsort(part_of, kind="stable")
        parts, counts = np.unique(part_of, return_counts=True)
        for part, here in zip(parts.tolist(), np.split(order, np.cumsum(counts)), strict=False):
            local = rows[here] - self._starts[part]
            open_rows = self._open(part)
            self._check(part, open_rows, local)
            out[here] = open_rows[local]
            with self._lock:
                held = self._held.get(part, 0) + len(local) * row_bytes
                self._held[part] = min(held, self._located[part].shape[0] * row_bytes)
            if self._checked[part] is None:
                self._check_finite(part, out[here], local)
        return out

    def _check(self, part: int, open_rows: OpenRows, rows: np.ndarray) -> None:
        """Compare the blocks that hold the rows with their checksums, each once."""
        checked, digests = self._checked[part], self._located[part].digests
        if checked is None or digests is None:
            return
        blocks = np.unique(rows // BLOCK_ROWS)
        for block in blocks[~checked[blocks]].tolist():
            start, stop = block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS
            if wrong_block(open_rows[start:stop], digests[block:]) is not None:
                raise FeatureFileError(
                    f"{self.paths[part]}: damaged: the features of patches {start} to {stop - 1} do not "
                    "agree with their checksum; make it again"
                )
            checked[block] = True

    def _check_finite(self, part: int, values: np.ndarray, rows: np.ndarray) -> None:
        is_finite = np.isfinite(values).all(axis=1)
        if not is_finite.all():
            raise FeatureFileError(
                f"{self.paths[part]}: patch {rows[np.argmin(is_finite)]} has NaN or infinite features; make "
                "the file again"
            )

    def _open(self, part: int) -> OpenRows:
        """The rows of one file; files not used for longest are let go."""
        with self._lock:
            if part not in self._mapped:
                path = self.paths[part]
                if _stamp(path) != self._stamps[part]:
                    raise FeatureFileError(
                        f"{path}: the file has changed since this sequence was made; make the sequence again"
                    )
                self._mapped[part] = self._located[part].rows.open()
                self._held[part] = self._located[part].rows.loaded_bytes
                while len(self._mapped) > 1 and (
                    len(self._mapped) > MAPPED_FILES or sum(self._held.values()) > HELD_BYTES
                ):
                    self._held.pop(self._mapped.popitem(last=False)[0], None)
            self._mapped.move_to_end(part)
            return self._mapped[part]

    def __getstate__(self) -> dict[str, Any]:
        skip = ("_mapped", "_held", "_lock", "_checked")
        return {name: value for name, value in self.__dict__.items() if name not in skip}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_mapping()


def _positions(index: Any, n: int) -> np.ndarray:
    """Positions that an index of one axis stands for."""
    index = np.asarray(index) if not isinstance(index, slice) else np.arange(n)[index]
    index = np.flatnonzero(index) if index.dtype == bool else index
    return np.where(index < 0, index + n, index)


def _check_alike(first: str, one: LocatedFeatures, path: str, other: LocatedFeatures) -> None:
    """Raise unless the features of two files were made in the same way."""
    remedy = "give files of one embedder, the same magnifications and the same colors."
    if other.shape[1] != one.shape[1]:
        raise ValueError(
            f"{path} has {other.shape[1]} features per patch, but {first} has {one.shape[1]}; {remedy}"
        )
    for key in sorted((one.settings.keys() | other.settings.keys()) - OF_ONE_SLIDE):
        values = [_shown(located.settings, key) for located in (other, one)]
        if values[0] != values[1]:
            raise ValueError(
                f"the features of {path} were made in another way than those of {first}: {key} is "
                f"{_cut(values[0])}, not {_cut(values[1])}; {remedy}"
            )


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key], sort_keys=True) if key in settings else "not given"


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def _stamp(path: str) -> tuple[int, int, int]:
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns
