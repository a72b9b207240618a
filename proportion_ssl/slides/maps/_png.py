"""Images of patch labels: flat maps and overlays, with a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from proportion_ssl.colors import Color, class_colors
from proportion_ssl.slides.annotations._label_codes import label_codes
from proportion_ssl.slides.annotations._polygonize import cell_borders
from proportion_ssl.slides.grid import PatchGrid
from proportion_ssl.slides.patches.mosaic import stitch

WHITE = (255, 255, 255)


def label_picture(
    labels: Sequence,
    grid: PatchGrid,
    classes: Sequence[str],
    *,
    colors: Mapping[str, Color] | None = None,
    patch_pixels: int = 8,
    legend: bool = True,
) -> Image.Image:
    """Image of a label map: one square per patch, white if there is no label.

    Parameters
    ----------
    labels : sequence of length n_patches
        Class names (None: no label), or numbers of classes (-1: no label).
    grid : PatchGrid
        Patches the labels belong to.
    classes : sequence of str
        Class names.
    colors : mapping of str to (red, green, blue), optional
        Colors by class; by default those of ``proportion_ssl.colors.class_colors``.
    patch_pixels : int, default 8
        Side of a square in pixels.
    legend : bool, default True
        Whether names and colors of the classes are written beside the map.

    Returns
    -------
    picture : PIL.Image.Image
        RGB.

    Examples
    --------
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((20, 10), mpp=1.0, patch_mpp=1.0, size=10)
    >>> picture = label_picture(["solid", None], grid, ["solid"], patch_pixels=3, legend=False)
    >>> picture.size, picture.getpixel((0, 0)), picture.getpixel((3, 0))
    ((6, 3), (0, 0, 255), (255, 255, 255))
    """
    palette = class_colors(classes, colors)
    table = np.array([*palette.values(), WHITE], dtype=np.uint8)
    codes = stitch(label_codes(labels, classes, grid), grid.cells, grid.shape)
    pixels = table[codes].repeat(patch_pixels, axis=0).repeat(patch_pixels, axis=1)
    picture = Image.fromarray(pixels)
    return add_legend(picture, palette) if legend else picture


def overlay_picture(
    thumbnail: np.ndarray,
    dimensions: tuple[int, int],
    labels: Sequence,
    grid: PatchGrid,
    classes: Sequence[str],
    *,
    colors: Mapping[str, Color] | None = None,
    opacity: float = 0.45,
    legend: bool = True,
    mpp: float | None = None,
) -> Image.Image:
    """Overlay of patch labels on a thumbnail of the slide.

    Parameters
    ----------
    thumbnail : ndarray of shape (height, width, 3), uint8
        Image of the whole slide.
    dimensions : tuple of int
        (width, height) of the slide at level 0.
    labels, grid, classes, colors, legend
        As in :func:`label_picture`.
    opacity : float, default 0.45
        Weight of the color, in [0, 1].
    mpp : float, optional
        Microns per pixel of the thumbnail, for a scale bar in its lower left corner.

    Returns
    -------
    picture : PIL.Image.Image
        RGB, of the size of the thumbnail, plus the legend.

    Raises
    ------
    ValueError
        If the thumbnail is not an RGB image, or ``opacity`` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((20, 10), mpp=1.0, patch_mpp=1.0, size=10)
    >>> white = np.full((5, 10, 3), 255, dtype=np.uint8)
    >>> labels = [None, "lepidic"]
    >>> picture = overlay_picture(white, (20, 10), labels, grid, ["lepidic"], legend=False)
    >>> picture.getpixel((0, 0)), picture.getpixel((9, 0))
    ((255, 255, 255), (255, 140, 140))
    """
    thumbnail = np.asarray(thumbnail)
    if thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.dtype != np.uint8:
        raise ValueError(
            "thumbnail must be an RGB image (height, width, 3) of uint8, got shape "
            f"{thumbnail.shape} and type {thumbnail.dtype}"
        )
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in [0, 1], got {opacity}")
    palette = class_colors(classes, colors)
    table = np.array([*palette.values()], dtype=float).reshape(-1, 3)
    codes = stitch(label_codes(labels, classes, grid), grid.cells, grid.shape)
    x, y = cell_borders(grid)
    row = _cell_of_pixel(thumbnail.shape[0], dimensions[1], y)
    column = _cell_of_pixel(thumbnail.shape[1], dimensions[0], x)
    code = np.where(
        (row[:, np.newaxis] >= 0) & (column >= 0),
        codes[np.ix_(row, column)] if codes.size else -1,
        -1,
    )
    pixels = thumbnail.copy()
    shown = code >= 0
    mixed = (1 - opacity) * thumbnail[shown] + opacity * table[code[shown]]
    pixels[shown] = np.rint(mixed).astype(np.uint8)
    picture = Image.fromarray(pixels)
    if mpp is not None:
        draw_scale(picture, mpp)
    return add_legend(picture, palette) if legend else picture


def draw_scale(picture: Image.Image, mpp: float) -> None:
    """Draw a scale bar of round length, at most a quarter of the image, labeled in microns or mm."""
    most = picture.width / 4 * mpp
    power = 10.0 ** np.floor(np.log10(most))
    length = next(digit * power for digit in (5, 2, 1) if digit * power <= most)
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} um"
    font = ImageFont.load_default(14)
    width, wide = round(length / mpp), int(font.getlength(text))
    draw = ImageDraw.Draw(picture)
    left, bottom = 8, picture.height - 8
    draw.rectangle((left - 4, bottom - 26, left + max(width, wide) + 4, bottom + 4), fill=WHITE)
    draw.text((left, bottom - 24), text, fill=(0, 0, 0), font=font)
    draw.rectangle((left, bottom - 4, left + width - 1, bottom - 1), fill=(0, 0, 0))


def add_legend(picture: Image.Image, palette: Mapping[str, Color]) -> Image.Image:
    """Add names and colors of the classes to the right of the image."""
    font = ImageFont.load_default(14)
    swatch, line = 14, 22
    width = swatch + 24 + max((int(font.getlength(name)) for name in palette), default=0)
    canvas = Image.new(
        "RGB",
        (picture.width + width, max(picture.height, line * len(palette) + 12)),
        WHITE,
    )
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for i, (name, color) in enumerate(palette.items()):
        left, top = picture.width + 8, 8 + i * line
        draw.rectangle((left, top, left + swatch, top + swatch), fill=color, outline=(90, 90, 90))
        draw.text((left + swatch + 8, top - 2), name, fill=(0, 0, 0), font=font)
    return canvas


def _cell_of_pixel(n_pixels: int, extent: int, borders: np.ndarray) -> np.ndarray:
    """Cell that contains the center of each thumbnail pixel, -1 outside all cells."""
    centers = (np.arange(n_pixels) + 0.5) * extent / n_pixels
    known = np.flatnonzero(~np.isnan(borders))
    if not len(known):
        return np.full(n_pixels, -1)
    at = np.searchsorted(borders[known], centers, side="right") - 1
    inside = (at >= 0) & (at < len(known) - 1)
    cell = known[np.clip(at, 0, len(known) - 1)]
    # no patch between two borders that are not neighbors
    inside &= known[np.clip(at + 1, 0, len(known) - 1)] == cell + 1
    return np.where(inside, cell, -1)
