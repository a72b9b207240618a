"""Images as ``data:`` URIs: thumbnails as JPEG, label maps as PNG with one pixel per patch."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

MAX_SIDE = 1600  # pixels of a thumbnail's longer side
MAX_BYTES = 250_000  # of a thumbnail's file; with base64, 40 thumbnails take 13.3 MB
QUALITIES = (85, 75, 65, 50)
NO_PATCH = 255


def thumbnail_uri(pixels: np.ndarray) -> str:
    """JPEG of a thumbnail, of at most ``MAX_SIDE`` pixels and ``MAX_BYTES`` bytes.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, 3), uint8

    Returns
    -------
    uri : str
        To reduce the file, first the quality is lowered, then the size.
    """
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    side = MAX_SIDE
    while True:
        smaller = picture.copy()
        smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in QUALITIES:
            encoded = _encode(smaller, "JPEG", quality=quality, optimize=True, progressive=False)
            if len(encoded) <= MAX_BYTES:
                return _uri("image/jpeg", encoded)
        side = int(0.8 * max(smaller.size))


def label_map_uri(codes: np.ndarray, colors: Sequence[tuple[int, int, int]]) -> str:
    """PNG of a label map, transparent outside patches.

    Parameters
    ----------
    codes : ndarray of int, shape (n_rows, n_columns)
        Class of each patch, an index of ``colors``; -1: no patch.
    colors : sequence of (red, green, blue)
        At most 255, each 0..255.
    """
    pixels = np.where(codes < 0, NO_PATCH, codes).astype(np.uint8)
    picture = Image.fromarray(pixels)
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[: len(colors)] = colors
    picture.putpalette(palette.tobytes())
    return _uri("image/png", _encode(picture, "PNG", transparency=NO_PATCH, optimize=True))


#: Evenly spaced anchors of the color scale (viridis) for values in [0, 1].
SCALE = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def value_map_uri(values: np.ndarray) -> str:
    """PNG of values in [0, 1] in the color scale, transparent outside patches.

    Parameters
    ----------
    values : ndarray of float, shape (n_rows, n_columns)
        In [0, 1]; NaN: no patch.
    """
    there = ~np.isnan(values)
    codes = np.full(values.shape, -1)
    codes[there] = np.rint((NO_PATCH - 1) * values[there]).astype(int)
    at = np.linspace(0, 1, NO_PATCH)
    anchors = np.linspace(0, 1, len(SCALE))
    table = np.array([np.interp(at, anchors, channel) for channel in np.array(SCALE).T]).T
    return label_map_uri(codes, [tuple(color) for color in np.rint(table).astype(int).tolist()])


def _encode(picture, file_format, **options):
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def _uri(media_type, encoded):
    return f"data:{media_type};base64,{base64.b64encode(encoded).decode('ascii')}"
