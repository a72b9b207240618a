"""Hamamatsu NDPA: outlines in nanometers from the center of the glass."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from proportion_ssl.colors import parse_css, to_hex
from proportion_ssl.slides.annotations._ellipse import ellipse
from proportion_ssl.slides.annotations._xml import text_number
from proportion_ssl.slides.annotations.regions import AnnotationError, Outline

NM_PER_UM = 1000.0
WITHOUT_AREA = ("pin", "linearmeasure", "pointer", "ruler", "angle", "text")


def is_ndpa(root: Any) -> bool:
    """Whether the root element is that of an NDPA file."""
    return isinstance(root, Element) and root.tag == "annotations"


def ndpa_outlines(root: Element, source: str) -> Iterator[Outline]:
    """Outlines in nanometers; the class is the title, or the color."""
    for index, view in enumerate(root.iterfind("ndpviewstate")):
        where = f"annotation {view.get('id', index)}"
        unit = (view.findtext("coordformat") or "nanometers").strip()
        if unit != "nanometers":
            raise AnnotationError(f"{source}: {where}: coordinates are in {unit!r}, not nanometers")
        shape = view.find("annotation")
        if shape is None:
            raise AnnotationError(f"{source}: {where}: has no <annotation>; export it again")
        title = (view.findtext("title") or "").strip()
        color = _color(shape.get("color"), f"{source}: {where}")
        labels = tuple(name for name in (title, None if color is None else to_hex(color)) if name)
        details = (view.findtext("details") or "").strip()
        parts = _parts(shape, f"{source}: {where}")
        yield Outline(where, labels, parts, color, details or None)


def to_pixels(outlines: Iterator[Outline], slide: Any, source: str) -> Iterator[Outline]:
    """Outlines in level-0 pixels: ``(nm - offset) / (1000 mpp) + size / 2`` along x and y.

    Parameters
    ----------
    outlines : iterator of Outline
    slide : Slide or None
        Has ``center_offset_nm``, the center of the image on the glass.
    source : str

    Raises
    ------
    AnnotationError
        If no slide is given, or it does not state its position on the glass.
    """
    offset = None if slide is None else getattr(slide, "center_offset_nm", None)
    if offset is None:
        raise AnnotationError(
            f"{source}: an NDPA file measures nanometers from the center of the glass; give slide=, the "
            "outlined NDPI slide, which states its position on the glass"
        )
    per_pixel = NM_PER_UM * np.broadcast_to(slide.mpp, 2)
    middle = np.asarray(slide.dimensions) / 2
    for outline in outlines:
        parts = tuple(
            tuple((ring - offset) / per_pixel + middle for ring in rings) for rings in outline.parts
        )
        yield replace(outline, parts=parts)


def _parts(shape: Element, where: str) -> tuple[tuple[np.ndarray, ...], ...]:
    kind = shape.get("type", "freehand")
    if kind in WITHOUT_AREA:
        return ()
    if kind == "circle":
        x, y, radius = (text_number(shape, name, where) for name in ("x", "y", "radius"))
        return ((ellipse((x, y), 2 * radius, 2 * radius),),)
    points = shape.find("pointlist")
    if kind not in ("freehand", "rectangle") or points is None:
        raise AnnotationError(
            f"{where}: the shape {kind!r} is not known; expected freehand or circle"
        )
    if (shape.findtext("closed") or "1").strip() == "0":
        return ()
    values = [
        [text_number(point, name, where) for name in ("x", "y")]
        for point in points.iterfind("point")
    ]
    return ((np.array(values, dtype=float).reshape(-1, 2),),)


def _color(text: str | None, where: str) -> tuple[int, int, int] | None:
    if not text:
        return None
    try:
        return parse_css(text)
    except ValueError as error:
        raise AnnotationError(f"{where}: {text!r} is not a color such as #00ff00") from error
