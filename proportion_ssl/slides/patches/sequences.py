"""Patches of one or many slides as one lazily read array-like."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from proportion_ssl.slides.grid import PatchGrid
from proportion_ssl.slides.reading.slide import Slide

OPEN_SLIDES = 8
"""Number of slides whose files a :class:`PatchSequence` keeps open in each thread."""


class _Patches:
    """Array behavior over ``_read(indices)``, the pixels at non-negative integer indices."""

    dtype = np.dtype(np.uint8)
    ndim = 4

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def batches(self, batch_size: int = 64) -> Iterator[np.ndarray]:
        """Patches in order."""
        raise NotImplementedError

    def _read(self, indices: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, height, width, 3)."""
        return len(self), *self.patch_shape

    def __getitem__(self, index) -> np.ndarray:
        rest: list[Any] = []
        if isinstance(index, tuple):
            index, *rest = index
        if isinstance(index, (int, np.integer)):
            patch = self._read(np.array([self._checked(int(index))]))[0]
            return patch[tuple(rest)] if rest else patch
        indices = np.arange(len(self))[index]
        if indices.ndim != 1:
            raise IndexError(
                f"patches have one axis to index, got an index of shape {indices.shape}."
            )
        patches = self._read(indices)
        return patches[(slice(None), *rest)] if rest else patches

    def _checked(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(f"patch {index} does not exist: there are {len(self)}.")
        return index % len(self)

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.batches():
            yield from batch

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        """All pixels at once; for cohorts that fit into memory."""
        if copy is False:
            raise ValueError("patches are read from slides, so an array of them is always a copy.")
        return self._read(np.arange(len(self))).astype(dtype or self.dtype, copy=False)

    def _empty(self, n):
        return np.empty((n, *self.patch_shape), dtype=self.dtype)


class SlidePatches(_Patches):
    """Patches of one slide, read when indexed.

    Parameters
    ----------
    slide : Slide
        Opened slide.
    grid : PatchGrid
        Windows of the patches.

    Notes
    -----
    Has ``len``, ``shape`` (n, height, width, 3) and ``dtype`` uint8, and is indexed along its
    first axis like an array: an integer gives one patch, a slice, mask or integer array several. It
    can be pickled; a copy in another process opens the file there.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np, tifffile
    >>> from proportion_ssl.slides.reading.slide import open_slide
    >>> pixels = np.full((512, 768, 3), 200, dtype=np.uint8)
    >>> with TemporaryDirectory() as folder:
    ...     path = folder + "/slide.tif"
    ...     tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    ...     with open_slide(path, mpp=0.5) as slide:
    ...         patches = SlidePatches(slide, slide.grid(magnification=10, size=64))
    ...         patches.shape, patches[[3, 0]].shape
    ((24, 64, 64, 3), (2, 64, 64, 3))
    """

    def __init__(self, slide: Slide, grid: PatchGrid):
        self.slide = slide
        self.grid = grid

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""
        return self.grid.size[1], self.grid.size[0], 3

    def __len__(self) -> int:
        return len(self.grid)

    def batches(self, batch_size: int = 64) -> Iterator[np.ndarray]:
        """Patches in order, up to `batch_size` at a time; see :meth:`Slide.read_patches`."""
        return self.slide.read_patches(self.grid, batch_size)

    def __repr__(self) -> str:
        return f"<SlidePatches of {self.slide.name!r}: {len(self)}>"

    def _read(self, indices):
        out = self._empty(len(indices))
        order = np.argsort(indices, kind="stable")  # neighbors share decoded tiles
        done = 0
        for batch in self.slide.read_patches(self.grid[indices[order]]):
            out[order[done : done + len(batch)]] = batch
            done += len(batch)
        return out


class PatchSequence(_Patches):
    """Patches of many slides, concatenated and read when indexed; for cohorts larger than memory.

    Parameters
    ----------
    parts : sequence of SlidePatches
        At least one, all of the same patch size.

    Attributes
    ----------
    slide_ids : ndarray of shape (n,), int64
        For each patch the position of its slide in `parts`: bag ids or groups.

    Raises
    ------
    ValueError
        If there are no parts, or their patches differ in size.

    Notes
    -----
    Behaves as :class:`SlidePatches`. Each thread keeps the files of the last 8 slides open.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np, tifffile
    >>> from proportion_ssl.slides.reading.slide import open_slide
    >>> pixels = np.full((256, 256, 3), 200, dtype=np.uint8)
    >>> with TemporaryDirectory() as folder:
    ...     path = folder + "/slide.tif"
    ...     tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    ...     with open_slide(path, mpp=1.0) as slide:
    ...         part = SlidePatches(slide, slide.grid(magnification=10, size=128))
    ...         both = PatchSequence([part, part])
    ...         both.shape, both.slide_ids, both[-1].mean()
    ((8, 128, 128, 3), array([0, 0, 0, 0, 1, 1, 1, 1]), np.float64(200.0))
    """

    def __init__(self, parts: Sequence[SlidePatches]):
        self.parts = list(parts)
        if not self.parts:
            raise ValueError("parts is empty; give the patches of at least one slide.")
        sizes = {part.patch_shape for part in self.parts}
        if len(sizes) > 1:
            raise ValueError(f"all slides must have patches of one size, got {sorted(sizes)}.")
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self._local = threading.local()

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""
        return self.parts[0].patch_shape

    @property
    def slide_ids(self) -> np.ndarray:
        """Position in `parts` of each patch's slide, shape (n,)."""
        return np.repeat(np.arange(len(self.parts)), np.diff(self._starts))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def batches(self, batch_size: int = 64) -> Iterator[np.ndarray]:
        """Patches in order, up to `batch_size` at a time; a batch never mixes slides."""
        for number, part in enumerate(self.parts):
            if len(part):
                self._touch(number)
                yield from part.batches(batch_size)

    def __repr__(self) -> str:
        return f"<PatchSequence of {len(self.parts)} slides: {len(self)}>"

    def _read(self, indices):
        out = self._empty(len(indices))
        part_of = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(part_of):
            self._touch(number)
            mine = part_of == number
            out[mine] = self.parts[number]._read(indices[mine] - self._starts[number])
        return out

    def _touch(self, number):
        """Record that a slide is read, and close the files of the least recently read slide."""
        if not hasattr(self._local, "recent"):
            self._local.recent = OrderedDict()
        recent = self._local.recent
        slide = self.parts[number].slide
        recent[id(slide)] = slide
        recent.move_to_end(id(slide))
        if len(recent) > OPEN_SLIDES:
            recent.popitem(last=False)[1].release()

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._local = threading.local()
