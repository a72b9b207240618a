"""Maps of patches as pyramidal tiled TIFF, and the class table inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from proportion_ssl._atomic import replacing
from proportion_ssl.colors import Color, class_colors
from proportion_ssl.slides.annotations._label_codes import check_probabilities, label_codes
from proportion_ssl.slides.annotations._rasters import MAX_CLASSES, TABLE_KEY
from proportion_ssl.slides.grid import PatchGrid
from proportion_ssl.slides.patches.mosaic import stitch

TILE = 256
PROBABILITY_KEY = "proportion_ssl probability map"


def write_label_map(
    path: str | PathLike[str],
    labels: Sequence,
    grid: PatchGrid,
    classes: Sequence[str],
    *,
    colors: Mapping[str, Color] | None = None,
) -> None:
    """Write the label map of a slide, one pixel per patch, with palette and class table.

    Parameters
    ----------
    path : str or path-like
        ``.tif`` or ``.tiff``: tiled pyramidal TIFF, which OpenSlide, QuPath and large_image open;
        ``.ome.tif`` or ``.ome.tiff``: the same as OME-TIFF, for Bio-Formats, QuPath and napari; ``.png``:
        palette PNG. Replaced if it exists.
    labels : sequence of length n_patches
        Class names (None: no label), or numbers of classes (-1: no label).
    grid : PatchGrid
        Patches the labels belong to.
    classes : sequence of str
        Class names, at most 255.
    colors : mapping of str to (red, green, blue), optional
        Colors by class; by default those of ``proportion_ssl.colors.class_colors``.

    Raises
    ------
    ValueError
        If labels and grid do not match, or the path has another extension.

    Notes
    -----
    Pixel values: 0 without a label (white), ``i + 1`` for ``classes[i]``. Smaller levels of the pyramid keep
    every second pixel, so that every value is a class. The resolution tags hold the distance of patches in
    microns; the image description holds, as JSON, the class of each value and the level-0 pixels per pixel,
    so that :func:`~proportion_ssl.slides.read_label_map` can read the map without further arguments.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from proportion_ssl.slides.annotations.read import read_label_map
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((20, 10), mpp=1.0, patch_mpp=1.0, size=10)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "labels.tif"
    >>> write_label_map(path, ["solid", None], grid, ["solid"])
    >>> [region] = read_label_map(path)
    >>> region.class_name, region.geometry.bounds
    ('solid', (0.0, 0.0, 10.0, 10.0))
    """
    if len(classes) > MAX_CLASSES:
        raise ValueError(f"a label map can hold {MAX_CLASSES} classes, got {len(classes)}")
    codes = label_codes(labels, classes, grid) + 1
    pixels = stitch(codes, grid.cells, grid.shape, fill=0).astype(np.uint8)
    palette = class_colors(classes, colors)
    step, origin, mpp = _pitch(grid)
    table = {
        "classes": {str(i): name for i, name in enumerate(palette, start=1)},
        "colors": {name: list(color) for name, color in palette.items()},
        "downsample": list(step),
        "origin": list(origin),
        "mpp": list(mpp),
    }
    text = json.dumps({TABLE_KEY: table})
    lookup = np.full((256, 3), 255, dtype=np.uint8)
    lookup[1 : len(palette) + 1] = np.array([*palette.values()]).reshape(-1, 3)
    suffix = Path(path).suffix.lower()
    with replacing(path) as temporary:
        if suffix == ".png":
            image = Image.frombytes("P", pixels.shape[::-1], pixels.tobytes())
            image.putpalette(lookup.tobytes())
            info = PngImagePlugin.PngInfo()
            info.add_text("Description", text)
            image.save(temporary, format="PNG", pnginfo=info)
        elif str(path).lower().endswith((".ome.tif", ".ome.tiff")):
            _write_ome(temporary, pixels, mpp, text, lookup.T.astype(np.uint16) * 257)
        elif suffix in (".tif", ".tiff"):
            colormap = lookup.T.astype(np.uint16) * 257
            _write_pyramid(temporary, pixels, _every_second, mpp, text, colormap)
        else:
            raise ValueError(f"a label map is a .png, .tif or .tiff file, got {str(path)!r}")


def write_probability_map(
    path: str | PathLike[str],
    probabilities: np.ndarray,
    grid: PatchGrid,
    class_name: str,
) -> None:
    """Write the probability of one class as a gray image, one pixel per patch.

    Parameters
    ----------
    path : str or path-like
        ``.tif`` or ``.tiff``: tiled pyramidal TIFF of 8 bits, which OpenSlide, QuPath and
        large_image open. Replaced if it exists.
    probabilities : array-like of shape (n_patches,)
        Probability of the class, in [0, 1].
    grid : PatchGrid
        Patches the probabilities belong to.
    class_name : str
        Name of the class, stored in the image description.

    Raises
    ------
    ValueError
        If probabilities and grid do not match, or the path has another extension.

    Notes
    -----
    Pixel values: 0 without a patch, else ``1 + round(254 * probability)``, so that a value ``v`` means
    ``(v - 1) / 254`` to within 0.002. Smaller levels of the pyramid hold the mean over existing patches. All
    viewers read 8 bits; use a table for exact numbers.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import tifffile
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((20, 10), mpp=1.0, patch_mpp=1.0, size=10)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "solid.tif"
    >>> write_probability_map(path, [0.5], grid[:1], "solid")
    >>> tifffile.imread(path)
    array([[128,   0]], dtype=uint8)
    """
    if Path(path).suffix.lower() not in (".tif", ".tiff"):
        raise ValueError(f"a probability map is a .tif or .tiff file, got {str(path)!r}")
    values = np.asarray(probabilities, dtype=float)
    if values.shape != (len(grid),):
        raise ValueError(
            f"probabilities must have shape ({len(grid)},), one per patch, got {values.shape}"
        )
    values = check_probabilities(values[:, np.newaxis], [class_name], grid)[:, 0]
    coded = 1 + np.rint(254 * values).astype(np.int64)
    pixels = stitch(coded, grid.cells, grid.shape, fill=0).astype(np.uint8)
    _, _, mpp = _pitch(grid)
    text = json.dumps(
        {
            PROBABILITY_KEY: {
                "class": class_name,
                "probability": "(value - 1) / 254; value 0: no patch",
                "mpp": list(mpp),
            }
        }
    )
    with replacing(path) as temporary:
        _write_pyramid(temporary, pixels, _mean_of_four, mpp, text, None)


def _pitch(grid: PatchGrid) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    """(x, y) of a map pixel: its side and origin in level-0 pixels, its side in microns.

    The side of a pixel is the distance of two patches; for overlapping patches it represents their central
    part.
    """
    if not len(grid):
        raise ValueError("the grid has no patches; there is no map to write")
    steps, origins, microns = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    for axis in (0, 1):
        starts, index = grid.boxes[:, axis], grid.cells[:, 1 - axis]
        extent = float((grid.boxes[:, axis + 2] - starts).mean())
        first, last = index.argmin(), index.argmax()
        span = index[last] - index[first]
        step = float(starts[last] - starts[first]) / span if span else extent
        steps[axis] = step
        origins[axis] = float(starts[first] - index[first] * step + (extent - step) / 2)
        # without the rounding to level-0 pixels, the step is a whole number of patch pixels
        microns[axis] = round(grid.size[axis] * step / extent) * grid.mpp
    return (steps[0], steps[1]), (origins[0], origins[1]), (microns[0], microns[1])


def _write_pyramid(path: Path, pixels, shrink, mpp, description: str, colormap) -> None:
    """Halve the levels until the map fits into one tile; only the first level has the description."""
    levels = [pixels]
    while max(levels[-1].shape) > TILE:
        levels.append(shrink(levels[-1]))
    with tifffile.TiffWriter(path, bigtiff=False) as tiff:
        for number, level in enumerate(levels):
            tiff.write(
                level,
                tile=(TILE, TILE),
                compression="zlib",
                photometric="minisblack" if colormap is None else "palette",
                colormap=colormap,
                resolution=tuple(1e4 / (value * 2**number) for value in mpp),
                resolutionunit="CENTIMETER",
                subfiletype=0 if number == 0 else 1,
                description=description if number == 0 else None,
                metadata=None,
                software=False,
            )


def _write_ome(path: Path, pixels, mpp, description: str, colormap) -> None:
    """Write OME-TIFF, with smaller levels as SubIFDs of the first, as specified."""
    levels = [pixels]
    while max(levels[-1].shape) > TILE:
        levels.append(_every_second(levels[-1]))
    about = {
        "axes": "YX",
        "Description": description,
        **{f"PhysicalSize{axis}": size for axis, size in zip("XY", mpp, strict=True)},
        **{f"PhysicalSize{axis}Unit": "\u00b5m" for axis in "XY"},
    }
    with tifffile.TiffWriter(path, bigtiff=False, ome=True) as tiff:
        for number, level in enumerate(levels):
            tiff.write(
                level,
                colormap=colormap,
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=0 if number == 0 else 1,
                metadata=about if number == 0 else None,
                tile=(TILE, TILE),
                compression="zlib",
                photometric="palette",
            )


def _every_second(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[::2, ::2])


def _mean_of_four(pixels: np.ndarray) -> np.ndarray:
    """Mean of the non-zero pixels in 2 x 2 blocks."""
    rows, columns = (-pixels.shape[0]) % 2, (-pixels.shape[1]) % 2
    padded = np.pad(pixels, ((0, rows), (0, columns))).astype(float)
    blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
    count = (blocks > 0).sum(axis=(1, 3))
    return np.rint(blocks.sum(axis=(1, 3)) / np.maximum(count, 1)).astype(np.uint8)
