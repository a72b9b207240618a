"""Origin of the coordinates of each program, and checks that outlines fit the slide.

Sources: ASAP reads slides by OpenSlide's ``get_level_dimensions`` and ``read_region`` and does not
look at the bounds (``multiresolutionimageinterface/OpenSlideImage.cpp``). QuPath crops slides to the
bounds that OpenSlide gives, since version 0.2 (its maintainer in QuPath issue 1278). The OpenSlide
source of large_image does so too, in the versions that are required here
(``large_image_source_openslide``, ``_bounds``). ImageScope shows Leica SCN slides cropped and turned
by a quarter against the stored pixels (Bio-Formats pull request 3240, libvips issue 1533), and opens
no MRXS; Aperio's own slides have no bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from proportion_ssl.slides.annotations.regions import AnnotationError, polygon_parts

MPP_TOLERANCE = 0.02
LEAST_INSIDE = 0.5  # share of an outline


class SlideFrame(Protocol):
    """Required interface of a slide, implemented by :class:`~proportion_ssl.slides.Slide`."""

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the scanned region at level 0."""

    @property
    def dimensions(self) -> tuple[int, int]:
        """(width, height) of level 0."""

    @property
    def mpp(self) -> float | tuple[float, float]:
        """Microns per pixel at level 0, (x, y) where the two differ."""


class Dialect(NamedTuple):
    """A kind of file.

    Attributes
    ----------
    name : str
        The program.
    from_bounds : bool or None
        Whether the origin is the corner of the scanned region; None: unknown.
    """

    name: str
    from_bounds: bool | None


ASAP = Dialect("ASAP", False)
IMAGESCOPE = Dialect("ImageScope", None)
GEOJSON = Dialect("QuPath", True)
DSA = Dialect("large_image", True)
NDPA = Dialect("NDP.view", False)  # from the center of the glass, which becomes the whole slide
HALO = Dialect("HALO", None)
SEDEEN = Dialect("Sedeen", None)
COCO = Dialect("COCO", None)
CYTOMINE = Dialect("Cytomine", None)


@dataclass(frozen=True)
class Frame:
    """Conversion of file coordinates to level-0 pixels, and limits of the slide.

    ``scanned`` is the box x0, y0, x1, y1 that must contain most of each outline, ``dimensions`` the
    size to which outlines are clipped; None: unknown. ``rule`` describes the origin of the file in
    words, ``mpp`` is the resolution of the slide.
    """

    offset: tuple[float, float] = (0.0, 0.0)
    dimensions: tuple[int, int] | None = None
    scanned: tuple[float, float, float, float] | None = None
    rule: str | None = None
    mpp: float | None = None

    def place(self, geometry: Polygon | MultiPolygon, where: str):
        """Geometry in level-0 pixels, clipped to the slide, and the share that was clipped."""
        if self.offset != (0.0, 0.0):
            geometry = shapely.transform(geometry, lambda points: points + self.offset)
        if self.scanned is None or self.dimensions is None:
            return geometry, 0.0
        x0, y0, x1, y1 = geometry.bounds
        left, top, right, bottom = self.scanned
        if x0 >= left and y0 >= top and x1 <= right and y1 <= bottom:
            return geometry, 0.0
        inside = shapely.intersection(geometry, shapely.box(*self.scanned)).area
        if inside < LEAST_INSIDE * geometry.area:
            raise AnnotationError(
                f"{where}: {self._outside(geometry, inside, self.scanned, self.dimensions)}"
            )
        kept = polygon_parts(shapely.intersection(geometry, shapely.box(0, 0, *self.dimensions)))
        if kept is None:
            return geometry, 0.0
        return kept, 1 - kept.area / geometry.area

    def _outside(self, geometry, inside: float, scanned, dimensions) -> str:
        width, height = dimensions
        x0, y0, x1, y1 = np.round(geometry.bounds)
        how_much = "entirely" if inside == 0 else f"for {1 - inside / geometry.area:.0%}"
        if self.rule is None:
            return (
                f"x {x0:.0f}..{x1:.0f}, y {y0:.0f}..{y1:.0f} lies {how_much} outside the slide of "
                f"{width} x {height} level-0 pixels; is it the file of another slide, in another "
                "pixel size, or shifted (give slide=, or offset=)?"
            )
        left, top, right, bottom = scanned
        dx, dy = self.offset
        here = f"x {left:.0f}..{right:.0f}, y {top:.0f}..{bottom:.0f} of {width} x {height} level-0 pixels"
        if dx or dy:
            here = f"x 0..{right - left:.0f}, y 0..{bottom - top:.0f} in that count and {here}"
        return (
            f"x {x0 - dx:.0f}..{x1 - dx:.0f}, y {y0 - dy:.0f}..{y1 - dy:.0f}, counted "
            f"{self.rule}, lies {how_much} outside the scanned part of the slide, which is {here}; is "
            "it the file of another slide, in another pixel size, or counted by another rule (then "
            "give offset= and dimensions= in place of slide=)?"
        )


def frame_by_hand(offset: tuple[float, float] | None, dimensions: tuple[int, int] | None) -> Frame:
    """Frame without a slide, from an offset and, if known, the size of the slide."""
    offset = (0, 0) if offset is None else offset
    if np.shape(offset) != (2,) or not np.isfinite(offset).all():
        raise ValueError(f"offset must be two finite numbers (x, y), got {offset!r}")
    shift = (float(offset[0]), float(offset[1]))
    if dimensions is None:
        return Frame(shift)
    width, height = dimensions
    return Frame(shift, (width, height), (0.0, 0.0, float(width), float(height)))


def frame_of(slide: SlideFrame, dialect: Dialect, source: str) -> Frame:
    """Frame in which a program counts pixels of a slide."""
    x, y, width, height = slide.bounds
    whole = (x, y, width, height) == (0, 0, *slide.dimensions)
    if dialect.from_bounds is None and not whole:
        raise AnnotationError(
            f"{source}: {dialect.name} outlines on a slide of which only x {x}..{x + width}, y "
            f"{y}..{y + height} were scanned: the origin of such a file is unknown "
            f"({dialect.name} crops and turns such slides). Give offset= and dimensions= in place of "
            "slide=, check the result, and save it with write_geojson(offset=slide.bounds[:2])"
        )
    from_bounds = bool(dialect.from_bounds) and not whole
    rule = f"as {dialect.name} does, from the corner of the "
    rule += f"scanned part at ({x}, {y})" if from_bounds else "whole slide"
    offset = (float(x), float(y)) if from_bounds else (0.0, 0.0)
    scanned = (float(x), float(y), float(x + width), float(y + height))
    width, height = slide.dimensions
    mpp = float(np.sqrt(np.prod(np.broadcast_to(slide.mpp, 2))))  # its square is a pixel's area
    return Frame(offset, (width, height), scanned, rule, mpp)


def check_slide(slide: SlideFrame) -> None:
    """Raise unless a slide has usable bounds, dimensions and mpp."""
    for name, shapes in (("bounds", [(4,)]), ("dimensions", [(2,)]), ("mpp", [(), (2,)])):
        try:
            value = getattr(slide, name)
        except AttributeError as error:
            raise TypeError(
                "slide must have bounds, dimensions and mpp, like the result of open_slide, got "
                f"{type(slide).__name__}"
            ) from error
        numbers = np.asarray(value, dtype=float)
        if (
            numbers.shape not in shapes
            or not (numbers >= 0).all()
            or (name == "mpp" and not numbers.all())
        ):
            n = " or ".join(str(math.prod(shape)) for shape in shapes)
            raise ValueError(f"slide.{name} must be {n} positive number(s), got {value!r}")


def check_resolution(stated: float | None, what: str, mpp: float, source: str) -> None:
    """Raise if a file states another resolution than the slide's."""
    if stated is None or abs(stated / mpp - 1) <= MPP_TOLERANCE:
        return
    raise AnnotationError(
        f"{source}: {what} {stated:.4g} um per pixel, the slide has {mpp:.4g}; is it the "
        "file of another slide or of another scan of it? If its pixels are level-0 pixels of this "
        "one all the same, give offset= and dimensions= in place of slide="
    )
