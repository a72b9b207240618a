"""Convert maps of integers to polygons exactly, along the borders of the pixels."""

from __future__ import annotations

import numpy as np
import shapely
from scipy import ndimage

from proportion_ssl.slides.grid import PatchGrid

MAX_SEGMENTS = 10_000_000


def polygonize(values: np.ndarray, x: np.ndarray, y: np.ndarray, outside: int):
    """Polygons of the 4-connected areas of equal value.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns), integer
    x, y : ndarray of shape (n_columns + 1,) and (n_rows + 1,)
        Coordinates of the borders between columns and between rows.
    outside : int
        Value that gives no polygons.

    Returns
    -------
    polygons : ndarray of shapely.Polygon
        Valid, without redundant vertices.
    of_value : ndarray
        Value of each polygon.

    Raises
    ------
    ValueError
        If there are too many borders for a map of areas (noise).
    """
    starts, ends = _segments(np.pad(values, 1, constant_values=outside))
    if len(starts) > MAX_SEGMENTS:
        raise ValueError(
            f"the map has {len(starts):,} borders, more than {MAX_SEGMENTS:,}; it looks like "
            "noise, not like areas"
        )
    if not len(starts):
        return np.empty(0, dtype=object), np.empty(0, dtype=values.dtype)
    lines = shapely.linestrings(np.stack([starts, ends], axis=1))
    faces = shapely.get_parts(shapely.polygonize(lines))
    inside = shapely.get_coordinates(shapely.point_on_surface(faces)).astype(int)
    of_value = values[inside[:, 1], inside[:, 0]]
    keep = of_value != outside
    faces = shapely.simplify(faces[keep], 0)
    points = shapely.get_coordinates(faces).astype(int)
    faces = shapely.set_coordinates(faces, np.stack([x[points[:, 0]], y[points[:, 1]]], axis=1))
    return faces, of_value[keep]


def _segments(padded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Straight borders between unequal pixels, split where another border meets them."""
    across = padded[:-1, 1:-1] != padded[1:, 1:-1]  # border y = r over column c
    down = padded[1:-1, :-1] != padded[1:-1, 1:]  # border x = c beside row r
    starts: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    for border, other, flip in ((across, down, False), (down.T, across.T, True)):
        meets = np.zeros((border.shape[0], border.shape[1] + 1), dtype=bool)
        meets[:-1] |= other
        meets[1:] |= other
        first, last = border.copy(), border.copy()
        first[:, 1:] &= ~border[:, :-1] | meets[:, 1:-1]
        last[:, :-1] &= ~border[:, 1:] | meets[:, 1:-1]
        for ends_of, mark, shift in ((starts, first, 0), (ends, last, 1)):
            line, along = np.nonzero(mark)
            pair = (line, along + shift) if flip else (along + shift, line)
            ends_of.append(np.stack(pair, axis=1))
    return np.concatenate(starts), np.concatenate(ends)


def components(codes: np.ndarray) -> np.ndarray:
    """Number the 4-connected areas of equal non-negative code from 0; -1 stays -1."""
    numbers = np.full(codes.shape, -1)
    n_found = 0
    for code in np.unique(codes[codes >= 0]):
        labels, n_new = ndimage.label(codes == code)
        numbers[labels > 0] = labels[labels > 0] + n_found - 1
        n_found += n_new
    return numbers


def cell_borders(grid: PatchGrid) -> tuple[np.ndarray, np.ndarray]:
    """Borders (x, y) between the columns and the rows of a grid, in level-0 pixels.

    Overlaps are divided equally between the patches. NaN without patches.
    """
    x = _borders(grid.boxes[:, [0, 2]], grid.cells[:, 1], grid.shape[1])
    y = _borders(grid.boxes[:, [1, 3]], grid.cells[:, 0], grid.shape[0])
    return x, y


def _borders(spans: np.ndarray, index: np.ndarray, n: int) -> np.ndarray:
    starts, ends = np.full(n, np.nan), np.full(n, np.nan)
    starts[index], ends[index] = spans[:, 0], spans[:, 1]
    borders = np.full(n + 1, np.nan)
    borders[:-1], borders[1:][~np.isnan(ends)] = starts, ends[~np.isnan(ends)]
    both = ~np.isnan(starts[1:]) & ~np.isnan(ends[:-1])
    borders[1:-1][both] = (starts[1:][both] + ends[:-1][both]) / 2
    return borders
