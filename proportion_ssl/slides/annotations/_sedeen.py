"""Sedeen sessions: polygons in level-0 pixels; classes are names, descriptions or colors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from proportion_ssl.colors import parse_css, to_hex
from proportion_ssl.slides.annotations._ellipse import ellipse
from proportion_ssl.slides.annotations._xml import read_number
from proportion_ssl.slides.annotations.regions import AnnotationError, Outline, check_numbers

AREAS = ("polygon", "rectangle", "ellipse", "spline")
WITHOUT_AREA = ("dot", "pointset", "point", "line", "polyline", "arrow", "ruler", "text")


def is_sedeen(root: Any) -> bool:
    """Whether the root element is that of a session of Sedeen."""
    return isinstance(root, Element) and root.tag == "session"


def sedeen_outlines(root: Element, source: str) -> Iterator[Outline]:
    """Outlines of the one image of a session."""
    images = root.findall("image")
    if len(images) != 1:
        raise AnnotationError(f"{source}: a session of {len(images)} images; save one per slide")
    for index, graphic in enumerate(images[0].iterfind("overlays/graphic")):
        name = (graphic.get("name") or "").strip()
        where = f"graphic {index} ({name!r})"
        kind = graphic.get("type", "")
        if kind not in AREAS + WITHOUT_AREA:
            raise AnnotationError(
                f"{source}: {where}: the type is {kind!r}, expected one of {', '.join(AREAS)}"
            )
        color = _color(graphic.find("pen"), f"{source}: {where}")
        description = (graphic.get("description") or "").strip()
        labels = (description, name, None if color is None else to_hex(color))
        points = _points(graphic, f"{source}: {where}") if kind in AREAS else None
        parts = () if points is None else ((_shape(kind, points),),)
        yield Outline(where, tuple(label for label in labels if label), parts, color, name or None)


def _shape(kind: str, points: np.ndarray) -> np.ndarray:
    """Rectangles and ellipses are given by two opposite corners."""
    if kind not in ("rectangle", "ellipse") or len(points) != 2:
        return points
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    if kind == "rectangle":
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    return ellipse(((x0 + x1) / 2, (y0 + y1) / 2), x1 - x0, y1 - y0)


def _points(graphic: Element, where: str) -> np.ndarray:
    values = []
    for point in graphic.iterfind("point-list/point"):
        parts = (point.text or "").split(",")
        if len(parts) != 2:
            raise AnnotationError(f"{where}: the point {point.text!r:.40} is not of the form x,y")
        values.append([read_number(part, where) for part in parts])
    points = np.array(values, dtype=float).reshape(-1, 2)
    check_numbers(points, where)
    return points


def _color(pen: Element | None, where: str) -> tuple[int, int, int] | None:
    """Color of the pen, ``#rrggbbaa``; the opacity does not count."""
    text = None if pen is None else pen.get("color")
    if not text:
        return None
    try:
        return parse_css(text[:7])
    except ValueError as error:
        raise AnnotationError(f"{where}: {text!r} is not a color such as #00ff00ff") from error
