"""Building blocks of synthetic tissue: smooth noise, cellular tessellations, packed points.

Fields are signed distances in microns on a coarse grid, so that the zero level of a field can be drawn
sharply at any finer resolution: interpolating distances does not blur edges.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def resize_field(field: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resample a float32 field to `shape` with cubic interpolation, pixel areas aligned."""
    height, width = shape
    image = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32))
    return np.array(image.resize((width, height), Image.Resampling.BICUBIC))


def upsample_rows(field: np.ndarray, factor: int, start: int, stop: int) -> np.ndarray:
    """Rows `start` to `stop` (of the coarse field) of the field enlarged by `factor`.

    Equal to enlarging the whole field and selecting the rows, because a cubic kernel needs only two rows of
    context.
    """
    context = 3
    low, high = max(0, start - context), min(field.shape[0], stop + context)
    enlarged = resize_field(field[low:high], ((high - low) * factor, field.shape[1] * factor))
    return enlarged[(start - low) * factor : (stop - low) * factor]


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Gaussian-like noise of mean 0 and about unit variance that varies over `scale` pixels."""
    knots = tuple(int(np.ceil(n / scale)) + 5 for n in shape)
    lattice = rng.standard_normal(knots, dtype=np.float32)
    height, width = (max(n, round(k * scale)) for n, k in zip(shape, knots, strict=True))
    size = (height, width)
    enlarged = resize_field(lattice, size)
    # the cubic kernel averages neighboring knots; the remaining standard deviation is 0.8
    top, left = (
        int(rng.integers(0, n - m + 1)) if n > m else 0 for n, m in zip(size, shape, strict=True)
    )
    return enlarged[top : top + shape[0], left : left + shape[1]] / np.float32(0.8)


def periodic_noise(rng: np.random.Generator, size: int, sigma: float) -> np.ndarray:
    """A square tile of unit-variance noise, smooth over `sigma` pixels, that repeats seamlessly."""
    noise = gaussian_filter(rng.standard_normal((size, size), dtype=np.float32), sigma, mode="wrap")
    return noise / noise.std()


@dataclass(frozen=True)
class Tessellation:
    """Result of `tessellate`: the cell of every point, and its distance to the border of the cell.

    Attributes
    ----------
    cell : ndarray of shape (n_points,), int
        Number of the cell a point lies in; index into tables of length `n_cells`.
    group : ndarray of shape (n_points,), int
        Number of the group of joined cells, likewise below `n_cells`.
    dx, dy : ndarray of shape (n_points,)
        Offset of the point from the center of its cell, in the unit of the coordinates.
    border : ndarray of shape (n_points,)
        Distance to the nearest border with a cell of another group, same unit.
    n_cells : int
    """

    cell: np.ndarray
    group: np.ndarray
    dx: np.ndarray
    dy: np.ndarray
    border: np.ndarray
    n_cells: int


def tessellate(
    rng: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    size: float,
    *,
    jitter: float = 0.36,
    merged: float = 0.0,
    rounding: float = 0.0,
) -> Tessellation:
    """Voronoi tessellation of randomly displaced points of a hexagonal lattice.

    Parameters
    ----------
    x, y : ndarray of shape (n_points,)
        Coordinates; warp them beforehand for organic shapes.
    size : float
        Distance of neighboring centers, in the unit of `x` and `y`.
    jitter : float
        Largest displacement of a center along each axis, as a share of `size`; at most 0.4, because only nine
        lattice neighbors are searched.
    merged : float
        Share of cells that are merged with the cell to the right or below, without a border.
    rounding : float
        Length over which corners of a cell are rounded: the distances to the borders of a cell are combined
        by a soft minimum of this width.
    """
    row_height = size * np.float32(np.sqrt(3) / 2)
    u, v = (x - x.min()) / size + 2.0, (y - y.min()) / row_height + 2.0
    n_rows, n_columns = int(v.max()) + 4, int(u.max()) + 4
    shape = (n_rows, n_columns)
    shift = 0.5 * (np.arange(n_rows) % 2)[:, None]
    center_x: np.ndarray = (
        np.arange(n_columns)[None] + 0.5 + shift + rng.uniform(-jitter, jitter, shape)
    )
    center_y: np.ndarray = np.arange(n_rows)[:, None] + 0.5 + rng.uniform(-jitter, jitter, shape)
    center_x = (center_x * size).astype(np.float32).ravel()
    center_y = (center_y * row_height).astype(np.float32).ravel()
    n_cells = n_rows * n_columns
    group = np.arange(n_cells)
    joins = np.flatnonzero(rng.random(n_cells) < merged)
    step = np.where(rng.random(joins.size) < 0.5, 1, n_columns)
    inside = joins + step < n_cells
    joins, step = joins[inside], step[inside]
    for cell, target in zip(joins.tolist(), (joins + step).tolist(), strict=True):
        group[cell] = group[target]
    px, py = (u * size).astype(np.float32), (v * row_height).astype(np.float32)
    row = v.astype(np.intp)
    near = []
    for d_row in (-1, 0, 1):
        r = row + d_row
        column = np.floor(u - 0.5 * (r % 2)).astype(np.intp)
        near += [r * n_columns + column + d_column for d_column in (-1, 0, 1)]
    candidates = np.stack(near)
    squared = (center_x[candidates] - px) ** 2 + (center_y[candidates] - py) ** 2
    nearest = squared.argmin(axis=0)
    points = np.arange(px.size)
    cell, own = candidates[nearest, points], squared[nearest, points]
    border = np.full(px.size, np.float32(2 * size))
    softness = np.float32(max(rounding, 1e-3))
    total = np.zeros(px.size, np.float32)
    for other, distance in zip(candidates, squared, strict=True):
        spacing = np.hypot(center_x[other] - center_x[cell], center_y[other] - center_y[cell])
        foreign = group[other] != group[cell]
        bisector = np.divide(
            distance - own, 2 * spacing, out=np.full_like(own, np.inf), where=foreign
        )
        np.minimum(border, bisector, out=border)
        if rounding:
            total += np.exp(-bisector / softness)
    if rounding:
        np.minimum(border, -softness * np.log(np.maximum(total, 1e-30)), out=border)
    return Tessellation(
        cell, group[cell], px - center_x[cell], py - center_y[cell], border, n_cells
    )


def pack_points(
    rng: np.random.Generator,
    occupied: np.ndarray,
    allowed: np.ndarray,
    radius: float,
) -> np.ndarray:
    """Random sequential packing of discs on the pixels of `allowed`.

    Pixels are tried in random order. A disc is placed if its center is free, and occupies every pixel within
    its radius, which varies around `radius` by up to a fifth.

    Parameters
    ----------
    occupied : ndarray of shape (height, width), uint8
        Non-zero where no center is allowed; updated in place.
    allowed : ndarray of shape (height, width), bool
    radius : float
        In pixels.

    Returns
    -------
    centers : ndarray of shape (n_discs, 2), int
        Rows and columns.
    """
    discs = []
    for factor in (0.8, 0.9, 1.0, 1.1, 1.2):
        reach = max(1, int(radius * factor))
        span = np.arange(-reach, reach + 1)
        inside = span[:, None] ** 2 + span[None] ** 2 <= (radius * factor) ** 2
        discs.append((reach, inside.astype(np.uint8)))
    height, width = occupied.shape
    candidates = rng.permutation(np.flatnonzero(allowed & (occupied == 0)))
    kinds = rng.integers(0, len(discs), candidates.size)
    taken = occupied.data.cast("B")
    centers = []
    for flat, kind in zip(candidates.tolist(), kinds.tolist(), strict=True):
        if taken[flat]:
            continue
        reach, disc = discs[kind]
        row, column = divmod(flat, width)
        centers.append((row, column))
        top, left = max(0, row - reach), max(0, column - reach)
        bottom, right = min(height, row + reach + 1), min(width, column + reach + 1)
        occupied[top:bottom, left:right] |= disc[
            top - row + reach : bottom - row + reach, left - column + reach : right - column + reach
        ]
    return np.array(centers, dtype=np.intp).reshape(-1, 2)
