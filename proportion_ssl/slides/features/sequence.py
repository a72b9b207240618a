"""Features of many slides as one array-like that stays in the files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from proportion_ssl.slides.features.files import locate_features

__all__ = ["FeatureSequence"]

MAPPED_FILES = 256
"""Files that are mapped into memory at once: each takes one of the process's file handles."""


class FeatureSequence:
    """Features of many slides end to end, left in their files; for cohorts larger than memory.

    Parameters
    ----------
    paths : iterable of path-like, or mapping of str to path-like
        Files that :func:`embed_slides` or :func:`write_features` wrote, at least one, such as the
        ``results`` of :func:`embed_slides`. Without a mapping a slide is named by its file.

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
        If a file is not whole, or another program wrote it.
    ValueError
        If there is no file, or the numbers of features differ.

    Notes
    -----
    Indexed along the first axis like an array: an integer gives one row, a slice, mask or integer
    array several, as a new array. :class:`~proportion_ssl.Bags` takes it as its one array, and the
    classifiers then train from the files. The rows are memory-mapped: what is used often stays in
    the operating system's cache. It can be pickled, and opens the files anew in another process.

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
        widths = {
            path: shape[1] for path, (_, shape) in zip(self.paths, self._located, strict=True)
        }
        if len(set(widths.values())) > 1:
            first = self.paths[0]
            other = next(path for path in self.paths if widths[path] != widths[first])
            raise ValueError(
                f"{other} has {widths[other]} features per patch, but {first} has {widths[first]}; "
                "give files of one embedder and the same magnifications."
            )
        sizes = [shape[0] for _, shape in self._located]
        self._starts = np.cumsum([0, *sizes])
        self.slide_ids = np.repeat(np.arange(len(sizes)), sizes)
        self.shape = (int(self._starts[-1]), widths[self.paths[0]])
        self._start_mapping()

    def _start_mapping(self) -> None:
        self._mapped: OrderedDict[int, np.ndarray] = OrderedDict()
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

    def __repr__(self) -> str:
        return f"<FeatureSequence of {len(self.paths)} slides: {self.shape[0]} x {self.shape[1]}>"

    def _read(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), self.shape[1]), dtype=self.dtype)
        part_of = self.slide_ids[rows]
        order = np.argsort(part_of, kind="stable")
        parts, counts = np.unique(part_of, return_counts=True)
        for part, here in zip(parts.tolist(), np.split(order, np.cumsum(counts)), strict=False):
            out[here] = self._map(part)[rows[here] - self._starts[part]]
        return out

    def _map(self, part: int) -> np.ndarray:
        """The rows of one file; the file not used for longest is let go."""
        with self._lock:
            if part not in self._mapped:
                offset, shape = self._located[part]
                self._mapped[part] = np.memmap(
                    self.paths[part], dtype="<f4", mode="r", offset=offset, shape=shape
                )
                if len(self._mapped) > MAPPED_FILES:
                    self._mapped.popitem(last=False)
            self._mapped.move_to_end(part)
            return self._mapped[part]

    def __getstate__(self) -> dict[str, Any]:
        skip = ("_mapped", "_lock")
        return {name: value for name, value in self.__dict__.items() if name not in skip}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_mapping()
