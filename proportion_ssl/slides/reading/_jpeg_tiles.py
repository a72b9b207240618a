"""Faster path: decode the JPEG tiles of TIFF-based slides directly from the file.

Aperio SVS, generic pyramidal TIFF and OME-TIFF store each level as JPEG tiles at listed offsets. Decoding
these directly takes a fraction of the time of a general reader. :func:`verify` compares the result with the
reference for each level of the slide, and only levels with equal pixels are read this way.
"""

from __future__ import annotations

import math
import struct
import weakref
from dataclasses import dataclass

import numpy as np
import simplejpeg

from proportion_ssl.slides.reading._tile_grid import Layout

JPEG = 7
"""TIFF's number of JPEG compression."""

_PHOTOMETRIC = {1: None, 2: 0, 6: 1}  # gray; RGB: Adobe transform 0; YCbCr: Adobe transform 1
CHECKED_TILES = 4


@dataclass(frozen=True)
class JpegLevel:
    """Positions of the tiles of a level in the file, and the parts missing in their JPEG streams."""

    layout: Layout
    offsets: np.ndarray
    counts: np.ndarray
    header: bytes


def jpeg_level(page) -> JpegLevel | None:
    """Tiles of a page of tifffile's, or None if they cannot be decoded directly."""
    if (
        page.compression != JPEG
        or page.photometric not in _PHOTOMETRIC
        or page.planarconfig != 1
        or page.bitspersample != 8
        or page.samplesperpixel != (1 if page.photometric == 1 else 3)
        or page.imagedepth != 1
    ):
        return None
    level = JpegLevel(
        layout=Layout.covering(
            (page.imagewidth, page.imagelength), (page.tilewidth, page.tilelength)
        ),
        offsets=np.asarray(page.dataoffsets, dtype=np.int64),
        counts=np.asarray(page.databytecounts, dtype=np.int64),
        header=jpeg_header(page.jpegtables, _PHOTOMETRIC[page.photometric]),
    )
    n_tiles = math.prod(level.layout.count)
    return level if len(level.offsets) == len(level.counts) == n_tiles else None


def jpeg_header(tables: bytes | None, transform: int | None) -> bytes:
    """Header that completes the segments of a tile to a JPEG stream.

    The shared tables, and an Adobe segment that states whether the components are RGB or YCbCr:
    a TIFF says so in a tag, and a decoder would otherwise guess (Aperio writes RGB, unmarked).
    """
    header = b"\xff\xd8"
    if transform is not None:
        header += b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, transform)
    if tables is not None and len(tables) > 4:
        header += tables[2:-2]
    return header


def _without_adobe(stream: bytes) -> bytes:
    """A JPEG stream without its Adobe segments: the tags say which colors it holds, as above."""
    at = 2
    while at + 4 <= len(stream) and stream[at] == 0xFF and stream[at + 1] != 0xDA:  # start of scan
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if stream[at + 1] == 0xEE:
            stream = stream[:at] + stream[end:]
        else:
            at = end
    return stream


class TiffTiles:
    """Read JPEG tiles by offset. Do not share between threads or processes."""

    def __init__(self, path: str, levels: dict[int, JpegLevel]):
        self.levels = levels
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close() or with the object
        self._finalizer = weakref.finalize(self, self._file.close)

    def close(self) -> None:
        """Close the file."""
        self._finalizer()

    def read_tile(self, level: int, column: int, row: int) -> np.ndarray | None:
        """Pixels of a tile, or None if it is not stored.

        Raises
        ------
        ValueError
            If the stream has any defect. The decoder is strict, as OpenSlide's: a stream that ends
            early or holds stray bytes is a defect, although most decoders would return it with a
            warning and made-up pixels.
        """
        page = self.levels[level]
        index = row * page.layout.count[0] + column
        count = int(page.counts[index])
        if count == 0:
            return None
        self._file.seek(int(page.offsets[index]))
        stream = page.header + _without_adobe(self._file.read(count))[2:]
        tile = simplejpeg.decode_jpeg(stream, colorspace="RGB", strict=True)
        width, height = page.layout.tile_size
        if tile.shape != (height, width, 3):
            raise ValueError(
                f"a tile of {tile.shape[1]} x {tile.shape[0]} pixels where {width} x {height} "
                "belong."
            )
        return tile


def verify(tiles: TiffTiles, level: int, read_reference) -> bool:
    """Whether tiles of a level equal the reference's pixels.

    Parameters
    ----------
    tiles : TiffTiles
        The faster path.
    level : int
        Which of its levels.
    read_reference : callable
        ``read_reference(level, x, y, width, height)`` gives the reference's pixels near that
        window of the level and their offset (x, y), a fraction of a pixel, from it.

    Returns
    -------
    equal : bool
        True if the tiles with the longest streams (the most texture) and the last one agree. Where
        the reference is offset by a fraction of a pixel (OpenSlide addresses all levels in integer
        level-0 pixels, and interpolates between pixels where the downsample is no whole number),
        ours must give its values, less than one gray level apart, when interpolated likewise.
    """
    page = tiles.levels[level]
    layout = page.layout
    present = np.flatnonzero(page.counts > 0)  # others are not stored
    if len(present) == 0:
        return False
    longest = present[np.argsort(-page.counts[present], kind="stable")[: CHECKED_TILES - 1]]
    for index in dict.fromkeys([*longest.tolist(), int(present[-1])]):
        row, column = divmod(int(index), layout.count[0])
        try:
            tile = tiles.read_tile(level, column, row)
        except ValueError:  # perhaps damaged, perhaps not understood: the source will tell
            return False
        x, y = layout.corner(column, row)
        width = min(layout.tile_size[0], layout.dimensions[0] - x)
        height = min(layout.tile_size[1], layout.dimensions[1] - y)
        if tile is None or not _same(tile[:height, :width], x, y, level, read_reference):
            return False
    return True


def _same(tile, x, y, level, read_reference):
    height, width = tile.shape[:2]
    try:
        reference, (dx, dy) = read_reference(level, x, y, width, height)
    except Exception:  # damaged: read by the source, which names the tile when it is asked for
        return False
    if max(abs(dx), abs(dy)) < 1 / 512:  # below this OpenSlide's renderer does not interpolate
        return np.array_equal(tile, reference)
    if min(width, height) < 4:
        return False
    # one pixel at each side is left out: there the reference mixes in the neighboring tile
    ours = _shift(_shift(tile.astype(np.float32), dx, axis=1), dy, axis=0)
    inner = (slice(1, -1), slice(1, -1))
    return bool(np.abs(ours[inner] - reference[inner]).max() < 1.01)


def _shift(pixels, fraction, axis):
    """Linear interpolation at `fraction` (-1 to 1) of a pixel further on."""
    neighbor = np.roll(pixels, -1 if fraction > 0 else 1, axis=axis)
    return (1 - abs(fraction)) * pixels + abs(fraction) * neighbor
