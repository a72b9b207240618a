"""Read plain images (PNG, JPEG, TIFF without tiles) as slides with one level, held in memory."""

from __future__ import annotations

import io
import os
import threading
import weakref
from dataclasses import dataclass

import numpy as np
import PIL
import simplejpeg
import tifffile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from proportion_ssl.slides.reading._errors import SlideError
from proportion_ssl.slides.reading._jpeg_tiles import JPEG, jpeg_header
from proportion_ssl.slides.reading._pixels import to_rgb
from proportion_ssl.slides.reading._tiff_gate import LARGEST_SIDE
from proportion_ssl.slides.reading._tile_grid import Layout, Level

_PNG_SIGNATURE, _JPEG_SIGNATURE = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PNG_PALETTE = 3
_ORIENTATION = 274
_ASSOCIATED = 1
_MIN_IS_WHITE, _INKS = 0, 5


def is_picture(path: str) -> bool:
    """Whether a file is a PNG or a JPEG by its first bytes."""
    with open(path, "rb") as file:
        return file.read(8).startswith((_PNG_SIGNATURE, _JPEG_SIGNATURE))


@dataclass(eq=False)  # compared and hashed by identity: held by weak references
class Picture:
    """Pixels of a picture, (height, width, 3) uint8, and the package that decoded them."""

    pixels: np.ndarray
    decoder: str


_loaded: weakref.WeakValueDictionary[tuple, Picture] = weakref.WeakValueDictionary()
_loading = threading.Lock()


def _forget_the_parents_threads():
    """Reset the lock in a forked process, where a decoding thread no longer exists."""
    global _loading
    _loading = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_the_parents_threads)


def load_picture(path: str) -> Picture:
    """Decode an image, or return the one in memory if the file is unchanged."""
    status = os.stat(path)
    key = (os.path.realpath(path), status.st_size, status.st_mtime_ns)
    with _loading:
        picture = _loaded.get(key)
        if picture is None:
            picture = _loaded[key] = _decode(path)
    return picture


class PictureTiles:
    """A picture with the interface of :class:`LargeImageTiles`: one level of one tile."""

    def __init__(self, path: str):
        self.picture = load_picture(path)
        height, width = self.picture.pixels.shape[:2]
        self.dimensions: tuple[int, int] = (width, height)
        self.levels: tuple[Level, ...] = (Level(1.0, self.dimensions),)
        self.bounds: tuple[int, int, int, int] = (0, 0, width, height)

    def magnification(self) -> None:
        """None: images do not state it."""

    def layout(self, level: int) -> Layout:
        """One tile."""
        return Layout.covering(self.dimensions, self.dimensions)

    def read_tile(self, level: int, column: int, row: int) -> np.ndarray:
        """The whole picture."""
        return self.picture.pixels

    def close(self) -> None:
        """Release the pixels."""
        del self.picture


def _decode(path):
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(_PNG_SIGNATURE):
        decode, package = _decode_png, f"Pillow {PIL.__version__}"
    elif start.startswith(_JPEG_SIGNATURE):
        decode, package = _decode_jpeg, f"simplejpeg {simplejpeg.__version__}"
    else:
        decode, package = _decode_tiff, f"tifffile {tifffile.__version__}"
    try:
        pixels = decode(path)
    except _Unreadable as error:
        raise SlideError(f"{path} {error}") from None
    except Exception as error:  # a damaged file can raise any exception
        raise SlideError(
            f"{path} cannot be opened as a picture: {error or type(error).__name__} The file is "
            "damaged; copy or save it again."
        ) from error
    pixels.flags.writeable = False
    return Picture(pixels, package)


class _Unreadable(Exception):
    """An image that is valid but not supported; the text follows its name."""


def _check_sides(width, height):
    if max(width, height) > LARGEST_SIDE:
        raise _Unreadable(
            f"is a picture of {width} x {height} pixels, too large to be held in memory (at most "
            f"{LARGEST_SIDE} x {LARGEST_SIDE}). Convert it to a pyramidal TIFF, for example with "
            "libvips (vips tiffsave in.png out.tif --tile --pyramid --compression jpeg)."
        )


def _check_upright(exif):
    orientation = exif.get(_ORIENTATION, 1)
    if orientation != 1:
        raise _Unreadable(
            f"is turned or mirrored by its EXIF orientation ({orientation}), which some programs "
            "follow and others do not. Save it upright."
        )


def _decode_png(path):
    # PngImageFile itself, since Image.open refuses pictures that are below the limit here
    with open(path, "rb") as file, PngImageFile(file) as image:
        image.verify()  # checksums, which decoding passes over
    with open(path, "rb") as file:
        bits, kind = file.read(26)[24:26]
        file.seek(0)
        with PngImageFile(file) as image:
            _check_sides(*image.size)
            if kind == _PNG_PALETTE:
                raise _Unreadable(
                    "has a color table: it is a label mask, or was reduced to few colors, and "
                    "averaging would invent labels. Save a picture as RGB; read a label mask "
                    "with read_label_map."
                )
            if bits != 8:
                raise _Unreadable(
                    f"has {bits} bit{'s' if bits > 1 else ''} per channel, where only 8 can be read. "
                    "Save it with 8."
                )
            if getattr(image, "is_animated", False):
                raise _Unreadable("is animated. Save the intended frame as a single image.")
            image.load()
            _check_upright(image.getexif())  # may lie behind the pixels
            if "transparency" in image.info:
                return to_rgb(np.array(image.convert("RGBA")))
            return to_rgb(np.array(image))


def _decode_jpeg(path):
    with open(path, "rb") as file:
        stream = file.read()
    height, width, colors, _ = simplejpeg.decode_jpeg_header(stream)
    _check_sides(width, height)
    if colors in ("CMYK", "YCCK"):
        raise _Unreadable("has colors as inks (CMYK), which are not read. Save it as RGB.")
    with JpegImageFile(io.BytesIO(stream)) as image:
        _check_upright(image.getexif())
    return simplejpeg.decode_jpeg(stream, colorspace="RGB", strict=True)


def _decode_tiff(path):
    """The first image by its tags, which :mod:`_tiff_gate` has found to be of a known kind."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        _check_sides(page.imagewidth, page.imagelength)
        end, counts = tif.filehandle.size, page.databytecounts
        if any(
            count == 0 or offset + count > end
            for offset, count in zip(page.dataoffsets, counts, strict=True)
        ):
            raise ValueError("strips are missing, or lie beyond the end of the file.")
        if page.compression == JPEG:  # the decoder there does not mind defects
            header = jpeg_header(page.jpegtables, None)
            for offset, count in zip(page.dataoffsets, counts, strict=True):
                tif.filehandle.seek(offset)
                stream = header + tif.filehandle.read(count)[2:]
                simplejpeg.decode_jpeg(stream, colorspace="RGB", strict=True)
        pixels = page.asarray(maxworkers=1)
        if page.axes.startswith("S"):  # a plane per channel
            pixels = np.moveaxis(pixels, 0, -1)
        photometric, extra = page.photometric, page.extrasamples
    if photometric == _MIN_IS_WHITE:
        pixels = 255 - pixels
    elif photometric == _INKS:
        light = 255 - pixels.astype(np.uint16)
        pixels = ((light[..., :3] * light[..., 3:] + 127) // 255).astype(np.uint8)
    elif extra and extra[0] == _ASSOCIATED:
        over_white = pixels[..., :3].astype(np.uint16) + (255 - pixels[..., 3:])
        pixels = np.minimum(over_white, 255).astype(np.uint8)
    return to_rgb(pixels)
