"""Convert label-map rasters (class numbers or colors) to regions."""

from __future__ import annotations

import json
import math
import struct
import warnings
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
import shapely
import tifffile
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from PIL import Image, UnidentifiedImageError

from proportion_ssl.colors import Color, check_color, class_colors
from proportion_ssl.slides.annotations._color_tables import COLOR_TABLES
from proportion_ssl.slides.annotations._polygonize import polygonize
from proportion_ssl.slides.annotations.regions import AnnotationError, Region

MAX_PIXELS = 2**28
MAX_CLASSES = 255
MAX_DISTINCT = 4096
ROWS_AT_ONCE = 256
TABLE_KEY = "proportion_ssl label map"  # of the class table that our own exports carry
SIZE_TOLERANCE = 0.02


def read_label_map(
    path: str | PathLike[str],
    classes: Mapping[int | Color, str] | str | None = None,
    *,
    downsample: float | tuple[float, float] | None = None,
    mpp: float | tuple[float, float] | None = None,
    slide_mpp: float | tuple[float, float] | None = None,
    dimensions: tuple[int, int] | None = None,
    background: int | Color | None = None,
) -> list[Region]:
    """Read a label map (mask) of a slide: one class per pixel.

    Pixels are never resampled: the outlines of the regions follow the borders of the pixels exactly.

    Parameters
    ----------
    path : str or path-like
        PNG, or TIFF, of which the first page (the largest level of a pyramid) is read. One channel of
        integers, a palette image (whose indices are used), or RGB.
    classes : mapping or {"ANORAK", "BCSS", "WSSS4LUAD"}, optional
        Class name by number, or by (red, green, blue); or the name of a data set with known masks. May be
        omitted for label maps written by this package, which contain their table and scale.
    downsample : float or (x, y), optional
        Level-0 pixels per pixel of the map. Give this, or ``mpp`` and ``slide_mpp``.
    mpp, slide_mpp : float or (x, y), optional
        Microns per pixel of the map, and of the slide at level 0.
    dimensions : tuple of two int, optional
        (width, height) of the slide at level 0. If given, the extent of the map must agree with
        it to 2 % or one pixel, and regions are clipped to it.
    background : int or (red, green, blue), optional
        Value of pixels without a label; by default 0, or white in an RGB map, or that of the data set.

    Returns
    -------
    regions : list of Region
        One per class that occurs, in the order of ``classes``, in level-0 pixels.

    Raises
    ------
    AnnotationError
        If the file is not such an image, is damaged, has more than 2**28 pixels, holds values that are not in
        ``classes``, or does not fit the slide.
    ValueError
        If no scale, or no class table, is given.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "mask.png"
    >>> Image.fromarray(np.array([[0, 1], [2, 2]], dtype=np.uint8)).save(path)
    >>> for region in read_label_map(path, {1: "acinar", 2: "solid"}, downsample=10):
    ...     print(region.class_name, region.geometry.bounds)
    acinar (10.0, 0.0, 20.0, 10.0)
    solid (0.0, 10.0, 20.0, 20.0)
    """
    path = Path(path)
    pixels, text = _read_pixels(path)
    if isinstance(classes, str):
        if classes not in COLOR_TABLES:
            raise ValueError(f"unknown table {classes!r}; the tables are {', '.join(COLOR_TABLES)}")
        named = COLOR_TABLES[classes]
        in_color = pixels.ndim == 3
        chosen: dict[Any, str] = dict(named.colors if in_color and named.colors else named.numbers)
        classes = chosen
        if not classes:
            raise AnnotationError(
                f"{path}: one channel of numbers, but masks of this data set are in colors (RGB)"
            )
        if background is None:
            background = named.background[1 if in_color else 0]
    is_complete = classes is not None and (downsample is not None or mpp is not None)
    table = None if is_complete else _own_table(text, path)
    if classes is None:
        if table is None:
            raise ValueError(
                f"{path}: the file carries no class table; give classes, for instance "
                '{1: "lepidic", 2: "acinar"}'
            )
        classes = {int(value): name for value, name in table["classes"].items()}
    scale = _scale(path, downsample, mpp, slide_mpp, table)
    numbers, names, colors = _class_numbers(pixels, classes, background, path)
    height, width = numbers.shape
    if dimensions is not None:
        for extent, n, step in zip(dimensions, (width, height), scale, strict=True):
            if abs(n * step - extent) > max(SIZE_TOLERANCE * extent, step):
                raise AnnotationError(
                    f"{path}: {width} x {height} pixels at a downsample of {scale[0]:g} x "
                    f"{scale[1]:g} do not fit a slide of {dimensions[0]} x {dimensions[1]}; check "
                    "the downsample, or whether it is the map of another slide"
                )
    origin = (0.0, 0.0) if table is None else table.get("origin", (0.0, 0.0))
    x = np.arange(width + 1) * scale[0] + origin[0]
    y = np.arange(height + 1) * scale[1] + origin[1]
    if dimensions is not None:
        x, y = np.clip(x, 0, dimensions[0]), np.clip(y, 0, dimensions[1])
    try:
        polygons, values = polygonize(numbers, x, y, outside=0)
    except ValueError as error:
        raise AnnotationError(f"{path}: {error}") from error
    regions = []
    for number, name in enumerate(names, start=1):
        parts = polygons[(values == number) & (shapely.area(polygons) > 0)]
        if len(parts):
            geometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(list(parts))
            regions.append(Region(name, geometry, colors[number - 1]))
    return regions


def _scale(path, downsample, mpp, slide_mpp, table) -> tuple[float, float]:
    if downsample is not None and mpp is not None:
        raise ValueError("give downsample, or mpp and slide_mpp, not both")
    if mpp is not None and slide_mpp is None:
        raise ValueError(f"{path}: mpp={mpp} of the map needs slide_mpp, that of the slide")
    if mpp is not None:
        (x, y), (slide_x, slide_y) = _pair(mpp, "mpp"), _pair(slide_mpp, "slide_mpp")
        return x / slide_x, y / slide_y
    if downsample is not None:
        return _pair(downsample, "downsample")
    if table is not None:
        return _pair(table["downsample"], "downsample")
    raise ValueError(
        f"{path}: the scale of the map is not known; give downsample (level-0 pixels per pixel "
        "of the map), or mpp and slide_mpp"
    )


def _pair(value, name: str) -> tuple[float, float]:
    pair = (value, value) if np.ndim(value) == 0 else tuple(value)
    if len(pair) != 2 or not all(
        isinstance(v, int | float | np.number) and math.isfinite(v) and v > 0 for v in pair
    ):
        raise ValueError(f"{name} must be a positive number or two of them (x, y), got {value!r}")
    return float(pair[0]), float(pair[1])


def _class_numbers(pixels: np.ndarray, classes: Mapping, background, path: Path):
    """Pixels as 0 (no label), 1, 2, ... in the order of the distinct class names."""
    names = list(dict.fromkeys(classes.values()))
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"classes must map values to class names, got {dict(classes)!r}")
    if len(names) > MAX_CLASSES:
        raise ValueError(f"a label map can hold {MAX_CLASSES} classes, got {len(names)}")
    in_color = pixels.ndim == 3
    if in_color:
        by_value = {check_color(key, "a key of classes"): name for key, name in classes.items()}
        empty = check_color((255, 255, 255) if background is None else background, "background")
        codes = pixels.astype(np.uint32) @ np.array([65536, 256, 1], dtype=np.uint32)
        code_of: dict[Any, Any] = {
            value: (value[0] << 16) + (value[1] << 8) + value[2] for value in by_value
        }
        empty_code = (empty[0] << 16) + (empty[1] << 8) + empty[2]
        colors = {name: value for value, name in reversed(by_value.items())}
    else:
        if not all(isinstance(key, int) and not isinstance(key, bool) for key in classes):
            raise ValueError(
                f"{path}: the map holds numbers, so the keys of classes must be integers, got "
                f"{list(classes)!r}"
            )
        by_value, codes = dict(classes), pixels
        code_of = {value: value for value in by_value}
        empty_code = 0 if background is None else background
        colors = class_colors(names)
    found = _distinct(codes, path)
    number = dict.fromkeys([int(empty_code)], 0)
    number |= {code_of[value]: names.index(name) + 1 for value, name in by_value.items()}
    unknown = [int(code) for code in found if int(code) not in number]
    if unknown:
        shown = [
            (code >> 16, code >> 8 & 255, code & 255) if in_color else code for code in unknown[:8]
        ]
        raise AnnotationError(
            f"{path}: {len(unknown)} value(s) of the map are not in classes and not the "
            f"background: {shown}; name them in classes"
        )
    lookup = np.array([number[int(code)] for code in found], dtype=np.uint8)
    numbers = np.empty(codes.shape, dtype=np.uint8)
    for start in range(0, len(codes), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        numbers[rows] = lookup[np.searchsorted(found, codes[rows])]
    return numbers, names, [colors[name] for name in names]


def _distinct(codes: np.ndarray, path: Path) -> np.ndarray:
    """Sorted distinct values, in bounded memory."""
    found = np.empty(0, dtype=codes.dtype)
    for start in range(0, len(codes), ROWS_AT_ONCE):
        found = np.union1d(found, codes[start : start + ROWS_AT_ONCE])
        if len(found) > MAX_DISTINCT:
            raise AnnotationError(
                f"{path}: holds more than {MAX_DISTINCT:,} different values, so it is not a label "
                "map; was it saved with lossy compression or resampled with interpolation?"
            )
    return found


def _own_table(text: str | None, path: Path) -> dict | None:
    """Class table and scale, if this package wrote the file."""
    if text is None or TABLE_KEY not in text:
        return None
    try:
        if text.lstrip().startswith("<"):  # OME-TIFF
            description = fromstring(text).find(".//{*}Image/{*}Description")
            text = "" if description is None else description.text or ""
        table = json.loads(text)[TABLE_KEY]
        names = table["classes"].values()
        _pair(table["downsample"], "downsample")
        if not np.isfinite(np.asarray(table.get("origin", (0, 0)), dtype=float)).all():
            raise ValueError("the origin is not finite")
        if not all(int(key) > 0 for key in table["classes"]) or not all(map(str, names)):
            raise ValueError("keys must be positive")
    except (
        *(ValueError, KeyError, TypeError, AttributeError, RecursionError),
        *(ParseError, DefusedXmlException),
    ) as error:
        raise AnnotationError(
            f"{path}: the class table in the file is damaged ({error}); give classes and downsample"
        ) from error
    return table


def _read_pixels(path: Path) -> tuple[np.ndarray, str | None]:
    """(height, width) integers or (height, width, 3) uint8, and the text of the file."""
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic[:4] == b"\x89PNG":
        return _read_png(path)
    if magic in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return _read_tiff(path)
    raise AnnotationError(
        f"{path}: neither PNG nor TIFF (it begins with {magic!r}); outlines are read by "
        "read_annotations, and lossy formats such as JPEG cannot hold labels"
    )


def _check_size(width: int, height: int, path: Path) -> None:
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise AnnotationError(
            f"{path}: {width} x {height} pixels; a label map may have up to {MAX_PIXELS:,}; save "
            "it at a coarser scale"
        )


def _read_png(path: Path) -> tuple[np.ndarray, str | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=["PNG"]) as image:
                _check_size(*image.size, path)
                seen: Image.Image = image
                if image.mode in ("LA", "PA"):
                    seen = image.convert("L")
                if image.mode == "RGBA":
                    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
                    seen = Image.alpha_composite(white, image).convert("RGB")
                pixels = np.asarray(seen)
                text = getattr(image, "text", {}).get("Description")
    except AnnotationError:
        raise
    except Image.DecompressionBombError as error:
        raise AnnotationError(f"{path}: far too many pixels ({error})") from error
    except (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError) as error:
        raise AnnotationError(f"{path}: the PNG is broken ({error}); copy it again") from error
    return _check_pixels(pixels, path), text


def _read_tiff(path: Path) -> tuple[np.ndarray, str | None]:
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            _check_size(page.imagewidth, page.imagelength, path)
            if page.samplesperpixel not in (1, 3) or page.imagedepth != 1 or page.dtype is None:
                raise AnnotationError(
                    f"{path}: {page.samplesperpixel} channels of {page.dtype}; a label map has "
                    "one channel of whole numbers, or RGB"
                )
            if math.prod(page.chunks) > 4 * MAX_PIXELS:
                raise AnnotationError(f"{path}: tiles of {page.chunks} pixels; save it again")
            if page.compression in (6, 7, 33003, 33005, 34712):
                raise AnnotationError(
                    f"{path}: lossy compression ({page.compression!s}) changes labels; save the "
                    "map with deflate, LZW or none"
                )
            pixels, text = page.asarray(), page.description
    except AnnotationError:
        raise
    except (
        tifffile.TiffFileError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        struct.error,
        RuntimeError,
        AttributeError,
        MemoryError,
        OverflowError,
        ZeroDivisionError,
    ) as error:
        raise AnnotationError(f"{path}: the TIFF is broken ({error}); copy it again") from error
    return _check_pixels(pixels, path), text


def _check_pixels(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.ndim == 2 and pixels.dtype.kind in "iub":
        return pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels
    if pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8:
        return pixels
    raise AnnotationError(
        f"{path}: an image of shape {pixels.shape} and type {pixels.dtype}; a label map has one "
        "channel of whole numbers, or RGB of 8 bits"
    )
