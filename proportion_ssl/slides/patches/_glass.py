"""Detect the color of the bare glass of a slide."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

CELL = 2
BLOCK_UM = 64.0
"""Pixels are averaged by 2 x 2 against noise; blocks of these, of about this width, are then judged."""

FLAT = 0.008
"""Relative deviation of gray within a block: glass has below 0.004, sharp tissue of a third of the usual
stain above in 99% of its blocks, at 4 to 16 um per pixel."""

DARKEST_GLASS = 128
MOST_TINT = 0.2
"""Largest saturation of glass; white paper has 0, warm light 0.1."""

SAME = 4
"""Spread of glass around its mode in gray levels, without uneven illumination."""

LEAST_SHARE = 0.02
LEAST_BLOCKS = 3
MOST_BRIGHTER = 0.05
"""Glass covers at least 2% of the picture and three blocks; no more than 5% is tissue that seems
brighter."""

UNSCANNED = 255
LEAST_SHARE_SCANNED = 0.05
MOST_TINT_SCANNED = 0.1
"""Pure white may be what the scanner left out: then glass of another color covers at least 5% of the
rest. The tint is held lower there, since flat pools of protein must not be taken for glass."""


class Glass(NamedTuple):
    """Appearance of bare glass.

    Attributes
    ----------
    color : list of float
        Red, green and blue. Without glass, a bright color of the image.
    is_seen : bool
        Whether the image shows any glass.
    texture : ndarray of shape (rows, columns)
        Deviation of gray within blocks, divided by their brightness.
    side : int
        Pixels along a block.
    """

    color: list[float]
    is_seen: bool
    texture: np.ndarray
    side: int

    def is_textured(self, shape: tuple[int, int]) -> np.ndarray:
        """Mask (height, width) of blocks that vary more than glass, without edges of glass.

        An edge crosses three of the nine blocks around a block; tissue fills four at its corners.
        """
        varied = (self.texture > FLAT).astype(np.float32)
        varied = ndimage.uniform_filter(varied, 3, mode="nearest") > 3.5 / 9
        rows, columns = (
            np.minimum(np.arange(n) // self.side, m - 1)
            for n, m in zip(shape, varied.shape, strict=True)
        )
        return varied[rows[:, np.newaxis], columns]


def find_glass(image: np.ndarray, mpp: float) -> Glass:
    """Color of the glass: the brightest color shared by flat, nearly unsaturated blocks of the image.

    Glass is flat, whereas even pale tissue has texture. So tissue is not mistaken for glass in an image
    without glass, and the shares of dark tissue, pale tissue and glass do not matter.

    Parameters
    ----------
    image : ndarray of shape (height, width, 3), uint8
        Overview.
    mpp : float
        Microns per pixel of the overview.
    """
    block = max(2, round(BLOCK_UM / mpp / CELL))
    means, texture = _blocks(image, block)
    n_blocks = texture.size
    brightness = means.mean(axis=-1)
    tint = 1 - means.min(axis=-1) / np.maximum(means.max(axis=-1), 1.0)
    is_flat = (texture <= FLAT) & (brightness >= DARKEST_GLASS) & (tint <= MOST_TINT)
    is_white = (means.min(axis=-1) >= UNSCANNED) & is_flat
    mode = None
    if is_white.any():
        scanned = is_flat & ~is_white & (tint <= MOST_TINT_SCANNED)
        least = max(LEAST_SHARE_SCANNED * np.count_nonzero(~is_white), LEAST_BLOCKS)
        mode = _brightest_mode(brightness, scanned, is_flat, least)
    if mode is None:
        least = max(LEAST_SHARE * n_blocks, min(LEAST_BLOCKS, n_blocks))
        mode = _brightest_mode(brightness, is_flat, is_flat, least)
    if mode is None:
        return Glass(_bright_color(image), False, texture, CELL * block)
    alike = is_flat & (np.abs(brightness - mode) <= SAME)
    return Glass(np.median(means[alike], axis=0).tolist(), True, texture, CELL * block)


def _blocks(image, block):
    """Mean color (rows, columns, 3) of blocks of cells, and their relative deviation (rows, columns)."""
    side = CELL * block
    height, width = image.shape[:2]
    if height < side or width < side:  # at least one block
        more = ((0, max(0, side - height)), (0, max(0, side - width)), (0, 0))
        image = np.pad(image, more, mode="symmetric")
    rows, columns = (n // side for n in image.shape[:2])
    means = np.empty((rows, columns, 3), dtype=np.float32)
    gray = np.zeros((rows * block, columns * block), dtype=np.uint16)
    for channel in range(3):
        plane = image[: rows * side, : columns * side, channel]
        cells = plane[::2, ::2].astype(np.uint16)
        for down, across in ((0, 1), (1, 0), (1, 1)):
            cells += plane[down::2, across::2]
        gray += cells
        means[..., channel] = _block_mean(cells, block, np.uint32)
    means /= CELL**2
    gray = gray.astype(np.float32)
    mean = _block_mean(gray, block, np.float32)
    gray *= gray
    variance = _block_mean(gray, block, np.float32) - mean**2
    return means, np.sqrt(np.maximum(variance, 0.0)) / np.maximum(mean, 1.0)


def _block_mean(plane, block, dtype):
    """Mean of blocks; adding whole rows first is much faster than over two short axes."""
    rows = plane[::block].astype(dtype)
    for k in range(1, block):
        rows += plane[k::block]
    mean = rows[:, ::block].astype(np.float32)
    for k in range(1, block):
        mean += rows[:, k::block]
    return mean / block**2


def _brightest_mode(brightness, candidates, flat, least):
    """Largest brightness shared by at least `least` candidate blocks, or None."""
    values = np.sort(brightness[candidates])
    if not len(values):
        return None
    alike = np.searchsorted(values, values + SAME, "right") - np.searchsorted(values, values - SAME)
    many = np.flatnonzero(alike >= least)
    if not len(many):
        return None
    top = values[many[-1]]
    near = np.flatnonzero((values >= top - 2 * SAME) & (values <= top))
    mode = values[near[alike[near].argmax()]]
    brighter = np.count_nonzero(brightness[~flat] > 1.03 * mode)
    return None if brighter > MOST_BRIGHTER * brightness.size else float(mode)


def _bright_color(image):
    """Median of the brightest 5% of pixels, each channel at least 128.

    Computed from histograms, which is exact for 8 bits and much faster than sorting.
    """
    darkest = np.minimum(np.minimum(image[..., 0], image[..., 1]), image[..., 2])
    bright = darkest >= _quantile(darkest, 0.95)
    return [max(_quantile(image[..., c][bright], 0.5), float(DARKEST_GLASS)) for c in range(3)]


def _quantile(values, q):
    """`numpy.quantile` of 8-bit values."""
    counts = np.bincount(values.ravel(), minlength=256)
    place = q * (counts.sum() - 1)
    below, above = np.searchsorted(np.cumsum(counts), [np.floor(place), np.ceil(place)], "right")
    return below + (above - below) * (place % 1)
