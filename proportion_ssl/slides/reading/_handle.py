"""Open files of a slide in one thread, and a cache of decoded tiles."""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Collection

import numpy as np

from proportion_ssl.slides.reading._errors import SlideError
from proportion_ssl.slides.reading._jpeg_tiles import JpegLevel, TiffTiles
from proportion_ssl.slides.reading._large_image import ADVICE, LargeImageTiles
from proportion_ssl.slides.reading._picture import PictureTiles
from proportion_ssl.slides.reading._resample import Plan
from proportion_ssl.slides.reading._tiff_gate import PICTURE
from proportion_ssl.slides.reading._tile_grid import read_window

REGION_CACHE_BYTES = 32 * 2**20
"""Size of the cache of decoded tiles in each thread."""


class TileError(Exception):
    """The source cannot decode a tile; the cause is the error of the source."""


def closed_error(path: str) -> SlideError:
    """Error for reading from a closed slide."""
    return SlideError(f"{path} is closed; open the slide again to read from it.")


class TileCache:
    """Cache of decoded tiles up to a number of bytes; the oldest are dropped first.

    With `uses`, the number of remaining reads of each tile, a tile is kept until its last read.
    """

    def __init__(self, max_bytes: int, uses: Counter | None = None):
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._uses = uses
        self._tiles: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()

    def get(self, key: tuple[int, int, int], decode) -> np.ndarray:
        """Tile of (level, column, row), from ``decode(level, column, row)`` if it is not cached."""
        tile = self._tiles.pop(key, None)
        if tile is None:
            tile = decode(*key)
        else:
            self.n_bytes -= tile.nbytes
        if self._uses is not None:
            self._uses[key] -= 1
            if self._uses[key] <= 0:
                return tile
        self._tiles[key] = tile
        self.n_bytes += tile.nbytes
        while self.n_bytes > self.max_bytes:
            self.n_bytes -= self._tiles.popitem(last=False)[1].nbytes
        return tile


def open_tiles(
    path: str,
    source: str,
    stored: Collection[tuple[int, int]] = (),
    advice: str = ADVICE,
) -> LargeImageTiles | PictureTiles:
    """Open the tiles of a file with a source, the reference for its pixels."""
    if source == PICTURE:
        return PictureTiles(path)
    return LargeImageTiles(path, source, stored, advice)


class Handle:
    """Read stored pixels, with the faster path for levels where it is verified.

    Used by one thread. Another thread may close it, which waits for the read in progress, because
    OpenSlide ends the process if its file is closed during a read.
    """

    def __init__(
        self,
        path: str,
        source: str,
        stored: Collection[tuple[int, int]],
        jpeg_levels: dict[int, JpegLevel],
    ):
        self.pid = os.getpid()
        self._path = path
        self._source = source
        self._stored = stored
        self._reference: LargeImageTiles | PictureTiles | None = None
        self._jpeg_levels = jpeg_levels
        self._jpeg = TiffTiles(path, jpeg_levels) if jpeg_levels else None
        self._cache = TileCache(REGION_CACHE_BYTES)
        self._in_use = threading.RLock()
        self._closed = False

    def close(self) -> None:
        """Close the files after the read in progress; later reads raise SlideError."""
        with self._in_use:
            self._closed = True
            if self._jpeg is not None:
                self._jpeg.close()
            if self._reference is not None:
                self._reference.close()
            self._jpeg = self._reference = None

    @property
    def reference(self) -> LargeImageTiles | PictureTiles:
        """The source, opened on first use."""
        with self._in_use:
            self._check_open()
            if self._reference is None:
                self._reference = open_tiles(self._path, self._source, self._stored)
            return self._reference

    def _check_open(self):
        if self._closed:
            raise closed_error(self._path)

    def _layout(self, level):
        """Layout of the decoded tiles of a level."""
        page = self._jpeg_levels.get(level)
        return self.reference.layout(level) if page is None else page.layout

    def tiles_of(self, plan: Plan) -> list[tuple[int, int, int]]:
        """Keys (level, column, row) of the tiles that a plan reads."""
        with self._in_use:
            layout = self._layout(plan.level)
        return [(plan.level, *tile) for tile in layout.tiles_at(*plan.window)]

    def read_window(
        self, level: int, x: int, y: int, width: int, height: int, cache: TileCache | None = None
    ) -> np.ndarray:
        """Stored pixels of a level, (height, width, 3) uint8; missing pixels are white."""
        cache = self._cache if cache is None else cache

        def decode(column, row):
            return cache.get((level, column, row), self._decode)

        with self._in_use:
            self._check_open()
            return read_window(self._layout(level), decode, x, y, width, height)

    def _decode(self, level, column, row):
        page = self._jpeg_levels.get(level)
        if page is None or self._jpeg is None:
            return self._decode_by_source(level, column, row)
        try:
            tile = self._jpeg.read_tile(level, column, row)
        except ValueError as error:
            raise TileError(str(error)) from error
        if tile is not None:
            return tile

        # not stored: the source defines the pixels of an empty tile
        def decode(column, row):
            return self._decode_by_source(level, column, row)

        corner = page.layout.corner(column, row)
        return read_window(self.reference.layout(level), decode, *corner, *page.layout.tile_size)

    def _decode_by_source(self, level, column, row):
        try:
            return self.reference.read_tile(level, column, row)
        except SlideError:
            raise
        except Exception as error:  # a damaged file can raise any exception
            raise TileError(str(error)) from error
