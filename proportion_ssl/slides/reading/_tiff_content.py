"""Metadata of a TIFF file: its images, how they are stored, and its resolution."""

from __future__ import annotations

import logging
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from defusedxml import ElementTree

from proportion_ssl.slides.reading._errors import SlideError
from proportion_ssl.slides.reading._jpeg_tiles import JpegLevel, jpeg_level
from proportion_ssl.slides.reading._tile_grid import Layout

logger = logging.getLogger(__name__)

LARGEST_TILE = 2**26
"""Pixels of a tile beyond which its size is taken for damage: OpenSlide would allocate it."""

_REDUCED = 1  # bit of NewSubfileType: a lower resolution of another image
_MICRONS = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


@dataclass(frozen=True)
class TiffImage:
    """Tags of one image of a TIFF.

    ``bits`` and ``sample_format`` are None where channels differ. ``jpeg`` says where its tiles
    lie if they can be decoded directly.
    """

    dimensions: tuple[int, int]
    tiled: bool
    reduced: bool
    photometric: int
    compression: int
    bits: int | None
    sample_format: int | None
    samples: int
    extra_samples: tuple[int, ...]
    depth: int
    orientation: int
    fill_order: int
    ink_set: int
    subsampling: tuple[int, ...]
    jpeg: JpegLevel | None = None

    @property
    def n_pixels(self) -> int:
        """Width times height."""
        return self.dimensions[0] * self.dimensions[1]


@dataclass(frozen=True)
class TiffContent:
    """Content of a TIFF file; empty for other files.

    ``images`` are its images in their order, ``lower`` the lower resolutions in sub-directories of
    the first, as OME-TIFF has them and where OpenSlide does not look. ``n_described`` is the number
    of images that one directory stands for (ImageJ keeps a whole stack behind one).
    Microns per pixel (x, y) are ``tag_mpp`` in the resolution tags of the first image and
    ``ome_mpp`` in OME's metadata; ``aperio_magnification`` is the AppMag in Aperio's.
    """

    images: tuple[TiffImage, ...] = ()
    lower: tuple[TiffImage, ...] = ()
    is_ome: bool = False
    n_described: int = 1
    tag_mpp: tuple[float, float] | None = None
    ome_mpp: tuple[float, float] | None = None
    aperio_magnification: float | None = None

    @property
    def ome_pyramid(self) -> bool:
        """Whether lower resolutions are stored as in OME-TIFF."""
        return self.is_ome and bool(self.lower)

    @property
    def sizes(self) -> frozenset[tuple[int, int]]:
        """(width, height) of all tiled images, and of the first."""
        images = [*self.images, *self.lower]
        return frozenset(image.dimensions for image in images if image.tiled)

    @property
    def jpeg_levels(self) -> tuple[JpegLevel, ...]:
        """Tiled images whose tiles can be decoded directly."""
        images = [*self.images, *self.lower]
        return tuple(image.jpeg for image in images if image.jpeg is not None)


def inspect_tiff(path: str) -> TiffContent:
    """Read the directories of a TIFF file; empty content for other files.

    Raises
    ------
    SlideError
        If the file is a TIFF whose pixels lie beyond its end (it was truncated), or whose
        directories or sizes cannot be.
    """
    try:
        with tifffile.TiffFile(path) as tif:
            end = tif.filehandle.size
            pages: list[Any] = list(tif.pages)  # whole pages: frames need useframes=True
            below: list[Any] = list(pages[0].pages or ()) if pages and pages[0].subifds else []
            is_ome, is_imagej = tif.is_ome, tif.is_imagej
            imagej = dict(tif.imagej_metadata or {}) if is_imagej else {}
            description = pages[0].description if pages else ""
    except Exception:  # not a TIFF, or one that only the source understands
        logger.debug("%s is not read as a TIFF", path, exc_info=True)
        return TiffContent()
    if not pages:
        return TiffContent()
    try:
        images = tuple(_image(page, path, end) for page in pages)
        lower = tuple(_image(page, path, end) for page in below)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        if isinstance(error, SlideError):
            raise
        raise SlideError(
            f"{path} is damaged: a directory of it cannot be understood ({error}). Copy or "
            "scan it again."
        ) from error
    n_described = imagej.get("images", 1) if len(pages) == 1 else 1
    return TiffContent(
        images,
        lower,
        is_ome=is_ome,
        n_described=n_described if isinstance(n_described, int) else 1,
        tag_mpp=_tag_mpp(pages[0]),
        ome_mpp=_ome_mpp(description, images[0].dimensions) if is_ome else None,
        aperio_magnification=_aperio_magnification(description),
    )


def _image(page, path, end):
    dimensions = (page.imagewidth, page.imagelength)
    if not all(isinstance(size, int) and size > 0 for size in dimensions):
        raise ValueError(f"sizes of {dimensions}")
    tiled = bool(page.is_tiled)
    if tiled:
        offsets = np.asarray(page.dataoffsets, dtype=np.uint64)
        counts = np.asarray(page.databytecounts, dtype=np.uint64)
        _check_tiles(path, dimensions, (page.tilewidth, page.tilelength), len(offsets))
        beyond = int(np.count_nonzero(offsets + counts > end))
        if beyond:
            raise SlideError(
                f"{path} is truncated: {beyond} of {len(offsets)} tiles of its {dimensions[0]} x "
                f"{dimensions[1]} image lie beyond the end of the file at {end} bytes. Copy or "
                "scan it again."
            )
    return TiffImage(
        dimensions=dimensions,
        tiled=tiled,
        reduced=bool(int(page.subfiletype) & _REDUCED),
        photometric=int(page.photometric),
        compression=int(page.compression),
        bits=page.bitspersample if isinstance(page.bitspersample, int) else None,
        sample_format=_whole(page.sampleformat),
        samples=int(page.samplesperpixel),
        extra_samples=tuple(int(kind) for kind in page.extrasamples),
        depth=int(page.imagedepth),
        orientation=_tag(page, "Orientation"),
        fill_order=int(page.fillorder),
        ink_set=_tag(page, "InkSet"),
        subsampling=tuple(page.subsampling) if page.subsampling else (1, 1),
        jpeg=jpeg_level(page) if tiled else None,
    )


def _check_tiles(path, dimensions, tile_size, n_tiles):
    """Raise for tiles that would be read as garbage or exhaust the memory."""
    if not all(isinstance(size, int) and size > 0 for size in tile_size):
        raise ValueError(f"tiles of {tile_size}")
    needed = math.prod(Layout.covering(dimensions, tile_size).count)
    if math.prod(tile_size) > LARGEST_TILE or n_tiles < needed:
        raise SlideError(
            f"{path} is damaged: its {dimensions[0]} x {dimensions[1]} image is said to have tiles "
            f"of {tile_size[0]} x {tile_size[1]} pixels, {n_tiles} of them. Copy or scan it again."
        )


def _whole(value):
    try:
        return int(value)
    except TypeError:  # a value per channel
        return None


def _tag(page, name):
    """Value of a tag whose default is 1."""
    tag = page.tags.get(name)
    return 1 if tag is None else int(tag.value)


def _tag_mpp(page):
    """Microns per pixel (x, y) in the resolution tags, or None."""
    unit = {2: 25400.0, 3: 10000.0}.get(_tag(page, "ResolutionUnit"))
    pair = []
    for name in ("XResolution", "YResolution"):
        tag = page.tags.get(name)
        if unit is None or tag is None or not all(tag.value):
            return None
        pair.append(unit * tag.value[1] / tag.value[0])
    return pair[0], pair[1]


def _ome_mpp(description, dimensions):
    """Microns per pixel (x, y) of the image of these dimensions in OME-XML, or None."""
    try:
        root = ElementTree.fromstring(description)
    except Exception:  # the pixels are still readable; the user then gives the resolution
        logger.debug("OME-XML cannot be parsed", exc_info=True)
        return None
    found = [e for e in root.iter() if e.tag.rpartition("}")[2] == "Pixels"]
    size = tuple(str(n) for n in dimensions)
    found.sort(key=lambda e: (e.get("SizeX"), e.get("SizeY")) != size)
    if not found:
        return None
    microns = [_microns(found[0], f"PhysicalSize{axis}") for axis in "XY"]
    return None if None in microns else (microns[0], microns[1])


def _microns(element, name):
    scale = _MICRONS.get(element.get(f"{name}Unit", "µm"))
    try:
        value = float(element.get(name, ""))
    except ValueError:
        return None
    return value * scale if scale and math.isfinite(value) and value > 0 else None


def _aperio_magnification(description):
    """AppMag of an Aperio description, or None."""
    if not description.startswith("Aperio"):
        return None
    fields = [field.partition("=") for field in description.split("|")]
    found = [value for name, _, value in fields if name.strip() == "AppMag"]
    try:
        value = float(found[0])
    except (IndexError, ValueError):
        return None
    return value if math.isfinite(value) and value > 0 else None
