"""Read tiles of a slide with large_image, the reference for the pixels of all formats."""

from __future__ import annotations

import functools
import importlib
import itertools
from collections.abc import Collection
from typing import Any

import cachetools
import numpy as np
import openslide

from proportion_ssl.slides.reading._errors import SlideError
from proportion_ssl.slides.reading._pixels import to_rgb
from proportion_ssl.slides.reading._tile_grid import Layout, Level

_HINTS = {
    "openslide": "pip install large-image-source-openslide",
    "tifffile": "pip install large-image-source-tifffile 'zarr<3'",
}

ADVICE = "Check that the file is complete and in a format that this source reads."


@functools.cache
def _openslide_source(module):
    """large_image's openslide source, changed to keep levels with a damaged tile.

    The original reads one pixel of each level, at its top left, and drops the level if that fails;
    without level 0 the next is then taken for it. Here only a level that fails in several places is
    dropped (some NDPI files have levels without pixels), and level 0 never is.
    """

    class WholeSlideSource(module.OpenslideFileTileSource):  # type: ignore[name-defined]
        _openslide: openslide.OpenSlide
        cacheName = "tilesource"  # read by the metaclass, which does not look at bases

        def _getAvailableLevels(self, path):
            sizes, downsamples = self._openslide.level_dimensions, self._openslide.level_downsamples
            levels = [
                {"level": i, "width": width, "height": height, "downsample": downsamples[i]}
                for i, (width, height) in enumerate(sizes)
                if i == 0 or self._has_pixels(path, i)
            ]
            return [
                level
                for level in levels
                if module.nearPowerOfTwo(levels[0]["width"], level["width"])
                and module.nearPowerOfTwo(levels[0]["height"], level["height"])
            ]

        def _has_pixels(self, path, level):
            """Whether any of nine pixels spread over a level can be read."""
            width, height = self._openslide.dimensions
            for x, y in itertools.product((0.0, 0.5, 0.99), repeat=2):
                try:
                    self._openslide.read_region((int(x * width), int(y * height)), level, (1, 1))
                except openslide.OpenSlideError:  # after which a handle is dead
                    self._openslide.close()
                    self._openslide = openslide.OpenSlide(path)
                else:
                    return True
            return False

    return WholeSlideSource


class LargeImageTiles:
    """Stored tiles of one file by one named large_image source.

    Only levels that the file stores are offered, so large_image never resamples (its kernel
    depends on the source: Lanczos in one, nearest neighbor in another). OpenSlide lists them; for
    another source, `stored` gives the (width, height) of the images in the file. Its caches are bypassed:
    sources are keyed by path there, and would show the old pixels of a file that was rewritten;
    the tile cache would grow to a share of the machine's memory in every process. Color profiles
    are not applied. `advice` ends the message if the source does not open the file.
    """

    def __init__(
        self,
        path: str,
        source: str,
        stored: Collection[tuple[int, int]] = (),
        advice: str = ADVICE,
    ):
        try:
            module = importlib.import_module(f"large_image_source_{source}")
        except ImportError as error:
            hint = _HINTS.get(source, f"pip install large-image-source-{source}")
            raise ImportError(
                f"large_image's source {source!r} cannot be imported ({error}); install it "
                f"({hint}) or name another source."
            ) from error
        try:
            opened = _openslide_source(module) if source == "openslide" else module.open
            self._tiles = opened(path, noCache=True)
            self._tiles.cache = cachetools.LRUCache(maxsize=2)
            self.properties = self._openslide_properties()
            self._z, self.levels = self._stored_levels(self._openslide_levels() or set(stored))
            self._tile_size = (int(self._tiles.tileWidth), int(self._tiles.tileHeight))
        except Exception as error:  # a foreign file can raise any exception
            reason = str(error) or type(error).__name__
            raise SlideError(
                f"{path} cannot be opened by large_image's source {source!r}: {reason} {advice}"
            ) from error

    def _openslide_properties(self) -> dict[str, str]:
        found = self._tiles.getInternalMetadata()
        return dict(found.get("openslide", {})) if found else {}

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the scanned region in level-0 pixels, or of the whole slide."""
        keys = ("bounds-x", "bounds-y", "bounds-width", "bounds-height")
        values = [self.properties.get(f"openslide.{key}") for key in keys]
        inner = (int(self._tiles.sizeX), int(self._tiles.sizeY))
        x, y, *extent = [None if value is None else int(value) for value in values]
        if x is not None and y is not None and tuple(extent) == inner:
            return x, y, *inner
        return 0, 0, *inner

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0, the frame in which OpenSlide gives coordinates."""
        keys = ("openslide.level[0].width", "openslide.level[0].height")
        if all(key in self.properties for key in keys):
            return int(self.properties[keys[0]]), int(self.properties[keys[1]])
        return int(self._tiles.sizeX), int(self._tiles.sizeY)

    def resolution(self) -> tuple[float, float] | None:
        """Microns per pixel (x, y) stated in the file, or None."""
        found = self._tiles.getNativeMagnification()
        mm = (found.get("mm_x"), found.get("mm_y"))
        if any(v is None or not np.isfinite(v) or v <= 0 for v in mm):
            return None
        return round(mm[0] * 1000.0, 12), round(mm[1] * 1000.0, 12)

    def magnification(self) -> float | None:
        """Nominal magnification stated in the file, or None."""
        found: Any = self.properties.get("openslide.objective-power")
        if found is None and not self.properties:
            found = self._tiles.getNativeMagnification().get("magnification")
        try:
            return float(found)
        except (TypeError, ValueError):
            return None

    def _openslide_levels(self):
        keys = [f"openslide.level[{i}]." for i in range(len(self.properties))]
        return {
            (int(self.properties[f"{key}width"]), int(self.properties[f"{key}height"]))
            for key in keys
            if f"{key}width" in self.properties
        }

    def _stored_levels(self, stored):
        """large_image's level numbers that need no resampling, and the levels, finest first."""
        dimensions = self.dimensions
        numbers, levels = [self._tiles.levels - 1], [Level(1.0, dimensions)]
        for z in range(self._tiles.levels - 2, -1, -1):
            factor = 2 ** (self._tiles.levels - 1 - z)
            wanted = (dimensions[0] / factor, dimensions[1] / factor)
            near = [
                size
                for size in stored
                if all(abs(n - w) < 2 for n, w in zip(size, wanted, strict=True))
            ]
            if not near or min(wanted) < 1 or self._tiles.getPreferredLevel(z) != z:
                continue  # made from a finer level, or a step that is no power of two
            numbers.append(z)
            levels.append(Level(float(factor), near[0]))
        return tuple(numbers), tuple(levels)

    def layout(self, level: int) -> Layout:
        """Layout of the tiles; it does not start at (0, 0) if the slide has bounds."""
        factor = self.levels[level].factor
        x, y, width, height = self.bounds
        columns, rows = (
            int(np.ceil(np.ceil(extent / factor) / tile))
            for extent, tile in zip((width, height), self._tile_size, strict=True)
        )
        left, top = (int(np.floor(v / factor + 0.5)) for v in (x, y))
        return Layout(self.levels[level].dimensions, self._tile_size, (columns, rows), (left, top))

    def read_tile(self, level: int, column: int, row: int) -> np.ndarray:
        """Pixels of a stored tile, (height, width, 3) uint8, transparent parts white."""
        tile = self._tiles.getTile(
            column, row, self._z[level], numpyAllowed="always", applyStyle=False
        )
        return to_rgb(np.asarray(tile))

    def close(self) -> None:
        """Release the source and close its file."""
        tiles, self._tiles = self._tiles, None
        for name in ("_openslide", "_tf"):  # large_image leaves these to the garbage collector
            if hasattr(tiles, name):
                getattr(tiles, name).close()
