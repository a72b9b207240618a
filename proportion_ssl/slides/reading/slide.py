"""Open a slide of any scanner and read boxes of it at a physical resolution."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import operator
import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide

from proportion_ssl.slides.grid import PatchGrid, patch_grid
from proportion_ssl.slides.reading._errors import NoTissueError, SlideError
from proportion_ssl.slides.reading._handle import (
    Handle,
    TileCache,
    TileError,
    closed_error,
    open_tiles,
)
from proportion_ssl.slides.reading._jpeg_tiles import JpegLevel, TiffTiles, verify
from proportion_ssl.slides.reading._large_image import ADVICE
from proportion_ssl.slides.reading._picture import Picture, PictureTiles, is_picture, load_picture
from proportion_ssl.slides.reading._pixels import to_rgb
from proportion_ssl.slides.reading._resample import STRIP_PIXELS, choose_level, make_plan, resample
from proportion_ssl.slides.reading._resolution import STATE_MPP, check_given_mpp, stated_mpp
from proportion_ssl.slides.reading._tiff_content import TiffContent, inspect_tiff
from proportion_ssl.slides.reading._tiff_gate import (
    PICTURE,
    choose_source,
    opening_advice,
    refusal,
)
from proportion_ssl.slides.reading._tile_grid import Level, read_window

__all__ = ["NoTissueError", "Slide", "SlideError", "open_slide"]

BAND_CACHE_BYTES = 256 * 2**20
"""Decoded tiles that one pass over a grid keeps at most."""


def open_slide(
    path: str | os.PathLike,
    *,
    mpp: float | tuple[float, float] | None = None,
    source: str | None = None,
    fast: bool = True,
) -> Slide:
    """Open a slide and check that it can be read at a physical resolution.

    Parameters
    ----------
    path : str or path-like
        Slide file: Aperio SVS, generic pyramidal TIFF, NDPI, MRXS and whatever else OpenSlide
        reads; pyramidal OME-TIFF, and tiles in WebP, JPEG XL and other compressions that OpenSlide
        lacks, where large_image's tifffile source is installed. PNG, JPEG and TIFF without tiles
        (a core of a tissue microarray, say) are held in memory, at most 20,000 x 20,000 pixels.
    mpp : float or tuple of float, optional
        Microns per level-0 pixel, (x, y) if they differ; 0.02 to 200. Replaces the
        resolution in the file; needed if the file states none, an implausible one (outside 0.08 to 20), or
        two that contradict each other by more than a factor of 1.5 (Aperio's AppMag, OME's
        PhysicalSize). PNG and JPEG always need it.
    source : str, optional
        large_image source that reads the file, or "memory" for a plain picture. By default what
        reads the file as its tags say: "openslide" where it can; else "memory" for pictures
        without tiles, and "tifffile" for pyramidal OME-TIFF, whose levels OpenSlide does not see,
        other compressions and large images in strips (needs ``large-image-source-tifffile`` and
        ``zarr<3``). Damage in tiles which only the tifffile source decodes may go unnoticed;
        OpenSlide and the direct decoding of JPEG tiles find it.
    fast : bool, default=True
        Decode JPEG tiles of TIFF-family files directly at those levels where a check of some tiles
        shows that the pixels equal the source's. False reads everything through the source.

    Returns
    -------
    slide : Slide
        A context manager.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    SlideError
        If the file is truncated, of another kind than its name says, or without believable
        resolution metadata while `mpp` is not given; if its tags say something that no reader
        shows, such as 16 bits per channel, several full-size images, or a fourth channel of
        unknown meaning. It is an ``OSError`` and a ``ValueError``.
    ImportError
        If the source named is not installed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np, tifffile
    >>> pixels = np.full((512, 768, 3), 200, dtype=np.uint8)
    >>> with TemporaryDirectory() as folder:
    ...     path = folder + "/slide.tif"
    ...     tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb",
    ...                      resolution=(20000, 20000), resolutionunit="CENTIMETER")
    ...     with open_slide(path) as slide:
    ...         slide.dimensions, slide.mpp, slide.read_region((0, 0, 448, 448), 224).shape
    ((768, 512), 0.5, (224, 224, 3))
    """
    return Slide(path, mpp=mpp, source=source, fast=fast)


class Slide:
    """A slide opened for reading; see :func:`open_slide` for parameters and errors.

    Coordinates are pixels of level 0, the finest stored resolution, in OpenSlide's frame; all
    resolutions are microns per pixel. Each process and thread opens its own file handle at the
    first read, so that a slide can be pickled (joblib, workers of a ``DataLoader``), shared between
    threads, and used after a fork.

    Attributes
    ----------
    path : str
        The file.
    name : str
        File name without its last suffix.
    dimensions : tuple of int
        (width, height) of level 0.
    mpp : float
        Microns per pixel at level 0; for pixels that are not square the geometric mean, so that
        ``mpp ** 2`` is the area of a pixel.
    stated_mpp : float or None
        As stated by the file, even if `mpp` was given; None if the file states no plausible value.
    mpp_xy : tuple of float
        Microns per pixel along x and y. Give this, not `mpp`, to :func:`patch_grid` for slides
        whose pixels are not square (or use :meth:`grid`); patches then are square.
    magnification : float or None
        Nominal magnification in the file's metadata. Not used, since it is not a resolution.
    bounds : tuple of int
        x, y, width, height at level 0 of the scanned part; the whole slide unless the
        file says otherwise (``openslide.bounds-x`` ..., as in MRXS). QuPath and large_image count
        coordinates from this (x, y).
    levels : tuple of Level
        Stored resolutions that can be read, finest first: ``factor`` (level-0 pixels per pixel)
        and ``dimensions``.
    source : str
        Name of the large_image source, or "memory".
    fast_levels : tuple of int
        Levels whose tiles are decoded directly, since their pixels equal those of the source.

    Notes
    -----
    A box is read from the coarsest stored level that is at least as fine as the requested resolution.
    There are three cases. If the requested resolution is within 2% of that level (and the difference over
    the whole box within 8 output pixels), the stored pixels are returned unchanged, centered in the box.
    If it is within 2% of an integer multiple, each output pixel is the mean of a block of stored pixels.
    Otherwise, each output pixel is the average of the stored pixels over its exact area. The result does
    not depend on the source or on direct decoding. One exception: at levels whose downsample is not an
    integer (2.0003, from odd dimensions), OpenSlide interpolates between stored pixels, by less than a
    pixel.

    Parts of a box outside the slide, and transparent parts, are white. Gray slides are read as
    RGB with equal channels. Color profiles are not applied. Do not read label masks with
    this class, since averaging creates wrong labels.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        *,
        mpp: float | tuple[float, float] | None = None,
        source: str | None = None,
        fast: bool = True,
    ):
        self.path = os.fspath(path)
        self.name = Path(self.path).stem
        self._closed = False
        self._picture: Picture | None = None  # held so that it is not decoded again
        self._start_handles()
        if not os.path.exists(self.path):
            raise FileNotFoundError(f"slide not found: {self.path!r}.")
        if os.path.isdir(self.path):
            raise SlideError(f"{self.path!r} is a folder; give a slide file.")
        given_mpp = None if mpp is None else check_given_mpp(mpp)
        self._stamp = _stamp(self.path)
        content = inspect_tiff(self.path)
        self.source = _choose_source(self.path, source, content)
        self._stored = content.sizes
        advice = opening_advice(content, self.source) if content.images else ADVICE
        reference = open_tiles(self.path, self.source, self._stored, advice)
        try:
            self.dimensions = reference.dimensions
            self.levels: tuple[Level, ...] = reference.levels
            self.bounds = reference.bounds
            self.magnification = reference.magnification()
            try:
                stated = self._stated_mpp(reference, content)
            except SlideError:
                if given_mpp is None:
                    raise
                stated = None
            self.stated_mpp = None if stated is None else float(np.sqrt(stated[0] * stated[1]))
            self.mpp_xy = given_mpp or stated
            self.mpp = float(np.sqrt(self.mpp_xy[0] * self.mpp_xy[1]))
            if self.mpp_xy[0] == self.mpp_xy[1]:
                self.mpp = self.mpp_xy[0]
            self._jpeg_levels: dict[int, JpegLevel] = {}
            if isinstance(reference, PictureTiles):
                self._picture = reference.picture
            elif fast:
                self._jpeg_levels = self._verified(reference, content.jpeg_levels)
        finally:
            reference.close()

    @property
    def center_offset_nm(self) -> tuple[float, float] | None:
        """Center of the image on the glass, (x, y) in nanometers; None if the file does not state it.

        Hamamatsu's files state it, and the coordinates of their outlines (NDPA) start at the center of the
        glass.
        """
        try:
            with openslide.OpenSlide(self.path) as slide:
                names = [f"hamamatsu.{axis}OffsetFromSlideCentre" for axis in "XY"]
                stated = [float(slide.properties[name]) for name in names]
        except (openslide.OpenSlideError, KeyError, ValueError):
            return None
        return stated[0], stated[1]

    @property
    def fast_levels(self) -> tuple[int, ...]:
        """Levels whose tiles are decoded directly."""
        return tuple(sorted(self._jpeg_levels))

    def grid(
        self,
        *,
        magnification: float | None = None,
        patch_mpp: float | None = None,
        size: int | tuple[int, int] = 224,
        overlap: int | tuple[int, int] = 0,
        edge: str = "drop",
    ) -> PatchGrid:
        """Windows over this slide; :func:`patch_grid` with its dimensions and resolution."""
        return patch_grid(
            self.dimensions,
            self.mpp_xy,
            magnification=magnification,
            patch_mpp=patch_mpp,
            size=size,
            overlap=overlap,
            edge=edge,
        )

    def read_region(
        self, box: tuple[int, int, int, int], size: int | tuple[int, int]
    ) -> np.ndarray:
        """Pixels of one box.

        Parameters
        ----------
        box : tuple of int
            x0, y0, x1, y1 at level 0, ends exclusive; may reach beyond the slide.
        size : int or tuple of int
            (width, height) of the result.

        Returns
        -------
        pixels : ndarray of shape (height, width, 3), uint8

        Raises
        ------
        ValueError
            If the box is empty, or its resolution is finer than level 0 (no upsampling).
        SlideError
            If stored pixels cannot be decoded, or the slide is closed or changed on disk.
        """
        return self._read(_check_box(box), _check_size(size), exact=False)

    def thumbnail(self, mpp: float = 8.0) -> np.ndarray:
        """The whole slide at about `mpp` microns per pixel.

        Parameters
        ----------
        mpp : float, default=8.0
            Requested resolution; a coarser slide is returned at its own resolution.

        Returns
        -------
        pixels : ndarray of shape (height, width, 3), uint8
            The thumbnail covers the slide exactly: convert positions by the ratio of the dimensions,
            not by `mpp`.
        """
        if not mpp > 0:
            raise ValueError(f"mpp must be positive, got {mpp!r}.")
        size = tuple(
            min(n, max(1, round(n * own / mpp)))
            for n, own in zip(self.dimensions, self.mpp_xy, strict=True)
        )
        return self._read((0, 0, *self.dimensions), size, exact=True)

    def read_patches(self, grid: PatchGrid, batch_size: int = 64) -> Iterator[np.ndarray]:
        """Patches of a grid, in its order, in batches; every stored tile is decoded once.

        Parameters
        ----------
        grid : PatchGrid
            Windows to read. The order of :func:`patch_grid`, row by row, needs the least memory.
        batch_size : int, default=64
            Patches per batch; the last batch may be smaller.

        Yields
        ------
        batch : ndarray of shape (n, height, width, 3), uint8

        Notes
        -----
        A decoded tile is kept until the last patch that needs it is done, up to 256 MB of tiles;
        beyond that the oldest are dropped and decoded again.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size!r}.")
        width, height = grid.size
        handle = self._handle()
        uses: Counter = Counter()
        for box in grid.boxes.tolist():
            uses.update(handle.tiles_of(make_plan(box, grid.size, self._factors)))
        cache = TileCache(BAND_CACHE_BYTES, uses)
        for start in range(0, len(grid), batch_size):
            boxes = grid.boxes[start : start + batch_size].tolist()
            batch = np.empty((len(boxes), height, width, 3), dtype=np.uint8)
            for patch, box in zip(batch, boxes, strict=True):
                patch[:] = self._read(box, grid.size, exact=False, cache=cache)
            yield batch

    def describe_reading(self, patch_mpp: float) -> dict:
        """How patches of a resolution are read: source, versions, level, kernel (for records).

        Parameters
        ----------
        patch_mpp : float
            Microns per pixel of the patches.

        Returns
        -------
        record : dict
            Plain values. ``read_mpp`` is the actual resolution of the pixels, within 2% of
            `patch_mpp`.
        """
        scale = (max(patch_mpp / self.mpp_xy[0], 1.0), max(patch_mpp / self.mpp_xy[1], 1.0))
        level, blocks = choose_level(scale, self._factors)
        factor = self.levels[level].factor
        if blocks == (1, 1):
            kernel = "none: stored pixels"
        elif blocks is not None:
            kernel = f"mean of blocks of {blocks[0]} x {blocks[1]} stored pixels"
        else:
            kernel = "average over the exact area"
        read = [own * factor * k for own, k in zip(self.mpp_xy, blocks or (1, 1), strict=True)]
        return {
            "slide": self.name,
            "slide_mpp": list(self.mpp_xy),
            "patch_mpp": float(patch_mpp),
            "read_mpp": float(np.sqrt(read[0] * read[1])) if blocks else float(patch_mpp),
            "level": level,
            "level_factor": factor,
            "kernel": kernel,
            "decoder": "jpeg tiles, equal to source" if level in self._jpeg_levels else "source",
            "source": self.source,
            "source_version": self._source_version(),
        }

    def close(self) -> None:
        """Close the file, once reads in progress in other threads are done; later reads raise.

        Slides unpickled elsewhere are not affected.
        """
        with self._lock:
            self._closed = True
            handles = list(self._handles)
        for handle in handles:
            if handle.pid == os.getpid():  # a fork's copies belong to its parent
                handle.close()
        self._local = threading.local()
        self._picture = None

    def release(self) -> None:
        """Close this thread's files until the next read, which opens them again.

        Use it with more slides than a process can keep open or hold in memory.
        """
        self._picture = None
        handle = getattr(self._local, "handle", None)
        if handle is not None:
            self._local.handle = None
            if handle.pid == os.getpid():
                handle.close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def __repr__(self) -> str:
        width, height = self.dimensions
        return f"<Slide {self.name!r}: {width} x {height}, {self.mpp:g} um/px>"

    def __getstate__(self) -> dict:
        skip = ("_local", "_lock", "_handles", "_picture")
        return {name: value for name, value in self.__dict__.items() if name not in skip}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._start_handles()

    def _start_handles(self) -> None:
        self._local = threading.local()
        self._lock: threading.Lock = threading.Lock()
        self._handles: weakref.WeakSet[Handle] = weakref.WeakSet()
        self._picture = None

    @property
    def _factors(self) -> tuple[float, ...]:
        return tuple(level.factor for level in self.levels)

    def _handle(self):
        """This thread's handle; a forked process does not share its parent's file position."""
        if self._closed:
            raise closed_error(self.path)
        handle = getattr(self._local, "handle", None)
        if handle is None or handle.pid != os.getpid():
            if _stamp(self.path) != self._stamp:
                raise SlideError(f"{self.path} changed on disk since it was opened; open it again.")
            handle = Handle(self.path, self.source, self._stored, self._jpeg_levels)
            with self._lock:
                if self._closed:  # meanwhile, by another thread
                    handle.close()
                    raise closed_error(self.path)
                self._handles.add(handle)
            self._local.handle = handle
        return handle

    def _read(self, box, size, *, exact, cache=None):
        plan = make_plan(box, size, self._factors, exact=exact)
        handle = self._handle()
        if cache is None and plan.n_stored > STRIP_PIXELS:
            cache = TileCache(BAND_CACHE_BYTES)  # strips share rows of tiles

        def stored(x, y, width, height):
            return handle.read_window(plan.level, x, y, width, height, cache)

        try:
            return resample(plan, stored)
        except TileError as error:
            raise SlideError(
                f"{self.path}: pixels in the level-0 box {tuple(box)} cannot be read: {error} The "
                "file is damaged there."
            ) from error.__cause__

    def _source_version(self) -> str:
        if self.source != PICTURE:
            return importlib.metadata.version(f"large-image-source-{self.source}")
        return load_picture(self.path).decoder

    def _stated_mpp(self, reference, content):
        if isinstance(reference, PictureTiles):
            tags = content.tag_mpp
            if tags is None and content.ome_mpp is None:
                raise SlideError(
                    f"{self.path} is a plain picture without a resolution in microns. {STATE_MPP}"
                )
        else:
            tags = reference.resolution()
        return stated_mpp(
            self.path, tags, content.ome_mpp, content.aperio_magnification, self.magnification
        )

    def _verified(self, reference, jpeg_levels):
        """Levels with JPEG tiles whose decoding equals the reference."""
        matched = {}
        for number, level in enumerate(self.levels):
            same = [found for found in jpeg_levels if found.layout.dimensions == level.dimensions]
            if len(same) == 1:
                matched[number] = same[0]
        if not matched or self.bounds != (0, 0, *self.dimensions):
            return {}
        tiles = TiffTiles(self.path, matched)
        try:
            if self.source != "openslide":
                return _equal_levels(tiles, _source_window(reference))
            with contextlib.closing(_OpenSlideWindow(self.path, self.levels)) as window:
                return _equal_levels(tiles, window)
        finally:
            tiles.close()


def _equal_levels(tiles, read_reference):
    return {n: page for n, page in tiles.levels.items() if verify(tiles, n, read_reference)}


class _OpenSlideWindow:
    """Reference for :func:`verify` by OpenSlide: pixels near a window, and their offset from it."""

    def __init__(self, path, levels):
        self._path, self._levels, self._slide = path, levels, None

    def __call__(self, level, x, y, width, height):
        slide = self._slide = self._slide or openslide.OpenSlide(self._path)
        number = slide.level_dimensions.index(self._levels[level].dimensions)
        downsample = slide.level_downsamples[number]
        location = (round(x * downsample), round(y * downsample))
        try:
            pixels = to_rgb(np.asarray(slide.read_region(location, number, (width, height))))
        except openslide.OpenSlideError:  # after which a handle is dead
            self.close()
            raise
        return pixels, (location[0] / downsample - x, location[1] / downsample - y)

    def close(self):
        if self._slide is not None:
            self._slide.close()
            self._slide = None


def _source_window(reference):
    """Reference for :func:`verify` by another source, which returns stored tiles."""

    def read(level, x, y, width, height):
        layout = reference.layout(level)

        def decode(column, row):
            return reference.read_tile(level, column, row)

        return read_window(layout, decode, x, y, width, height), (0.0, 0.0)

    return read


def _choose_source(path: str, source: str | None, content: TiffContent) -> str:
    """The given source, or one that decodes the file as its tags say."""
    try:
        vendor = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        vendor = None
    if not content.images:  # no TIFF
        return source or (PICTURE if vendor is None and is_picture(path) else "openslide")
    chosen, reason = choose_source(content, vendor, _is_installed)
    if source is not None:
        chosen, reason = source, None
    reason = refusal(content, vendor, chosen) or reason
    if reason is not None:
        raise SlideError(f"{path} {reason}")
    return chosen


def _is_installed(source):
    return importlib.util.find_spec(f"large_image_source_{source}") is not None


def _stamp(path):
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _check_box(box):
    try:
        values = tuple(operator.index(v) for v in box)
    except TypeError:
        raise TypeError(f"box must be integers x0, y0, x1, y1, got {box!r}.") from None
    if len(values) != 4 or values[2] <= values[0] or values[3] <= values[1]:
        raise ValueError(f"box must be x0, y0, x1, y1 with x1 > x0 and y1 > y0, got {box!r}.")
    return values


def _check_size(size):
    values = (size, size) if np.ndim(size) == 0 else tuple(size)
    try:
        values = tuple(operator.index(v) for v in values)
    except TypeError:
        raise TypeError(f"size must be integers (width, height), got {size!r}.") from None
    if len(values) != 2 or min(values) < 1:
        raise ValueError(f"size must be one or two positive integers, got {size!r}.")
    return values
