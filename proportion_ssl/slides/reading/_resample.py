"""Select the stored pixels of a box, and resample them by area averaging."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

LEVEL_TOLERANCE = 0.02
"""Largest relative difference between the wanted resolution and the one that is read instead."""

MISFIT_PIXELS = 8
"""Largest difference over a whole box, in output pixels, that the tolerance may amount to."""

STRIP_PIXELS = 2**22
"""Stored pixels held at once while a large box is averaged."""


@dataclass(frozen=True)
class Plan:
    """Plan for reading a box from one level.

    ``blocks`` (kx, ky) says that each output pixel is the mean of ``kx * ky`` whole stored pixels,
    beginning at ``start`` (x, y); (1, 1) returns stored pixels unchanged. Without ``blocks``,
    each output pixel is the average over its exact area, partial pixels weighted by their share,
    of the fractional window ``start`` to ``stop``. Units: pixels of the level.
    """

    level: int
    size: tuple[int, int]
    start: tuple[float, float]
    stop: tuple[float, float]
    blocks: tuple[int, int] | None

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Stored pixels needed: x, y, width, height."""
        x, y = (int(np.floor(v)) for v in self.start)
        right, bottom = (int(np.ceil(v)) for v in self.stop)
        return x, y, right - x, bottom - y

    @property
    def n_stored(self) -> int:
        """Number of stored pixels needed."""
        return self.window[2] * self.window[3]


def choose_level(
    scale: tuple[float, float], factors: Sequence[float], tolerance: float = LEVEL_TOLERANCE
) -> tuple[int, tuple[int, int] | None]:
    """Level to read for a scale (x, y) in level-0 pixels per output pixel, and its block size.

    The coarsest level that is not coarser than wanted (within the tolerance); whole blocks of
    pixels where the scale is within the tolerance of a whole multiple of that level's.
    """
    finest = min(scale)
    level = max(
        (i for i, factor in enumerate(factors) if factor <= finest * (1 + tolerance)),
        key=lambda i: factors[i],
    )
    kx, ky = (max(1, int(np.floor(s / factors[level] + 0.5))) for s in scale)
    blocks = (kx, ky)
    misfit = max(abs(k * factors[level] / s - 1) for k, s in zip(blocks, scale, strict=True))
    return level, blocks if misfit <= tolerance else None


def make_plan(
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    factors: Sequence[float],
    *,
    exact: bool = False,
) -> Plan:
    """Plan the reading of a level-0 box as `size` pixels; `factors` are the levels' downsamples.

    With `exact` the box is covered to its borders, however large; otherwise a resolution within
    the tolerance may replace the requested one, centered in the box.
    """
    x0, y0, x1, y1 = box
    scale = ((x1 - x0) / size[0], (y1 - y0) / size[1])
    # ends of a box are rounded to whole pixels of level 0, which must not look like a finer scale
    tolerance = 1e-9 if exact else min(LEVEL_TOLERANCE, MISFIT_PIXELS / max(size))
    if min(scale) * (1 + max(tolerance, 1.0 / min(x1 - x0, y1 - y0))) < min(factors):
        raise ValueError(
            f"box {tuple(box)} spans fewer level-0 pixels than the {size[0]} x {size[1]} asked "
            "for; enlarging would invent detail. Ask for fewer pixels or a lower resolution."
        )
    level, blocks = choose_level(
        (max(scale[0], min(factors)), max(scale[1], min(factors))), factors, tolerance
    )
    factor = factors[level]
    if blocks is None:
        start, stop = (x0 / factor, y0 / factor), (x1 / factor, y1 / factor)
    else:
        center = ((x0 + x1) / 2 / factor, (y0 + y1) / 2 / factor)
        x, y = (
            int(np.floor(c - k * n / 2 + 0.5)) for c, k, n in zip(center, blocks, size, strict=True)
        )
        start, stop = (x, y), (x + blocks[0] * size[0], y + blocks[1] * size[1])
    return Plan(level, (size[0], size[1]), start, stop, blocks)


def resample(plan: Plan, read_window: Callable[[int, int, int, int], np.ndarray]) -> np.ndarray:
    """Pixels of a plan, (height, width, 3) uint8; large windows are averaged in strips.

    `read_window` gives the stored pixels of (x, y, width, height) in the plan's level.
    """
    width, height = plan.size
    x, _, window_width, window_height = plan.window
    rows = max(1, int(STRIP_PIXELS / window_width * height / window_height))
    out = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        if plan.blocks is not None:
            kx, ky = plan.blocks
            y = int(plan.start[1]) + top * ky  # blocks begin at whole pixels
            stored = read_window(x, y, window_width, (bottom - top) * ky)
            out[top:bottom] = stored if kx == ky == 1 else _block_mean(stored, kx, ky)
        else:
            step = (plan.stop[1] - plan.start[1]) / height
            y0, y1 = plan.start[1] + top * step, plan.start[1] + bottom * step
            y, end = int(np.floor(y0)), int(np.ceil(y1))
            stored = read_window(x, y, window_width, end - y)
            out[top:bottom] = _area_mean(
                stored,
                _area_weights(plan.start[0] - x, plan.stop[0] - x, width, window_width),
                _area_weights(y0 - y, y1 - y, bottom - top, end - y),
            )
    return out


def _block_mean(pixels, kx, ky):
    """Mean of kx x ky blocks, halves rounded up, in integers."""
    height, width, channels = pixels.shape
    n = kx * ky
    dtype = np.uint16 if n <= 256 else np.uint32 if n <= 2**24 else np.uint64
    rows = pixels[0::ky].astype(dtype)
    for i in range(1, ky):
        rows += pixels[i::ky]
    rows = rows.reshape(height // ky, width // kx, kx, channels)
    total = np.empty((height // ky, width // kx, channels), dtype=dtype)
    for c in range(channels):  # much faster than over a last axis of three
        plane = rows[:, :, 0, c]
        for i in range(1, kx):
            plane = plane + rows[:, :, i, c]
        total[:, :, c] = plane
    total += n // 2
    if n & (n - 1) == 0:
        total >>= n.bit_length() - 1
    else:
        total //= n
    return total.astype(np.uint8)


def _area_weights(start, stop, n, length):
    """Sparse (n, length): share of each stored pixel in n equal parts of [start, stop)."""
    edges = np.linspace(start, stop, n + 1)
    first = np.floor(edges[:-1]).astype(np.int64)
    last = np.minimum(np.ceil(edges[1:]).astype(np.int64), length)
    width = int((last - first).max())
    index = first[:, np.newaxis] + np.arange(width)
    share = np.minimum(index + 1, edges[1:, np.newaxis]) - np.maximum(index, edges[:-1, np.newaxis])
    share = np.maximum(share, 0.0)
    share /= share.sum(axis=1, keepdims=True)
    rows = np.broadcast_to(np.arange(n)[:, np.newaxis], index.shape)
    inside = (index < length) & (share > 0)
    return sparse.csr_array(
        (share[inside].astype(np.float32), (rows[inside], index[inside])), shape=(n, length)
    )


def _area_mean(pixels, weights_x, weights_y):
    """Separable weighted mean of (height, width, channels) pixels, halves rounded up."""
    height, width, channels = pixels.shape
    down = weights_y @ pixels.reshape(height, width * channels).astype(np.float32)
    across = down.reshape(-1, width, channels).swapaxes(0, 1).reshape(width, -1)
    out = (weights_x @ across).reshape(weights_x.shape[0], -1, channels).swapaxes(0, 1)
    return np.minimum(out + 0.5, 255.0).astype(np.uint8)
