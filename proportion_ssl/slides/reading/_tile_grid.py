"""Stored levels as grids of tiles, and windows assembled from tiles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Level:
    """A stored resolution: downsample relative to level 0, and (width, height) in pixels of the level."""

    factor: float
    dimensions: tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Positions of the tiles in a level of `dimensions` pixels.

    ``tile_size`` (width, height), ``count`` (columns, rows), and ``origin``, the top-left corner
    of tile (0, 0) in pixels of the level.
    """

    dimensions: tuple[int, int]
    tile_size: tuple[int, int]
    count: tuple[int, int]
    origin: tuple[int, int] = (0, 0)

    @classmethod
    def covering(cls, dimensions: tuple[int, int], tile_size: tuple[int, int]) -> Layout:
        """Tiles from (0, 0) to the end of the level."""
        columns, rows = (-(-n // tile) for n, tile in zip(dimensions, tile_size, strict=True))
        return cls(dimensions, tile_size, (columns, rows))

    def corner(self, column: int, row: int) -> tuple[int, int]:
        """Top-left pixel of a tile."""
        return (
            self.origin[0] + column * self.tile_size[0],
            self.origin[1] + row * self.tile_size[1],
        )

    def tiles_at(self, x: int, y: int, width: int, height: int) -> list[tuple[int, int]]:
        """(column, row) of the tiles that a window touches, row by row."""
        ranges = []
        for axis, (start, extent) in enumerate(((x, width), (y, height))):
            begin = (start - self.origin[axis]) // self.tile_size[axis]
            end = (start - self.origin[axis] + extent - 1) // self.tile_size[axis]
            ranges.append(range(max(begin, 0), min(end, self.count[axis] - 1) + 1))
        return [(column, row) for row in ranges[1] for column in ranges[0]]


def read_window(
    layout: Layout,
    decode: Callable[[int, int], np.ndarray],
    x: int,
    y: int,
    width: int,
    height: int,
) -> np.ndarray:
    """Pixels of a window, (height, width, 3) uint8, white outside the level.

    `decode` gives the pixels of tile (column, row).
    """
    out = np.full((height, width, 3), 255, dtype=np.uint8)
    for column, row in layout.tiles_at(x, y, width, height):
        tile = decode(column, row)
        left, top = layout.corner(column, row)
        x0, x1 = max(x, left, 0), min(x + width, left + tile.shape[1], layout.dimensions[0])
        y0, y1 = max(y, top, 0), min(y + height, top + tile.shape[0], layout.dimensions[1])
        if x0 < x1 and y0 < y1:
            out[y0 - y : y1 - y, x0 - x : x1 - x] = tile[y0 - top : y1 - top, x0 - left : x1 - left]
    return out
