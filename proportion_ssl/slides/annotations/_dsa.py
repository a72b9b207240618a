"""Annotation JSON of large_image and the Digital Slide Archive: elements to outlines and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import shapely

from proportion_ssl.colors import parse_css, to_hex
from proportion_ssl.slides.annotations._ellipse import ellipse, rectangle
from proportion_ssl.slides.annotations.regions import AnnotationError, Outline, Region, as_ring

WITHOUT_AREA = ("point", "arrow", "heatmap", "griddata", "image", "pixelmap")
AREAS = ("polyline", "rectangle", "rectanglegrid", "ellipse", "circle")


def is_dsa(document: Any) -> bool:
    """Whether a parsed JSON document looks like one annotation, a list of them, or elements."""
    if isinstance(document, list):
        first = document[0] if document else None
        return is_dsa(first) if isinstance(first, dict) else False
    return isinstance(document, dict) and (
        "elements" in document
        or "annotation" in document
        or document.get("type") in AREAS + WITHOUT_AREA
    )


def dsa_outlines(document: Any, source: str) -> Iterator[Outline]:
    """Outlines of all elements, in order."""
    items = document if isinstance(document, list) else [document]
    if isinstance(items[0], dict) and items[0].get("type") in AREAS + WITHOUT_AREA:
        items = [{"elements": items}]
    for index, item in enumerate(items):
        annotation = item.get("annotation", item) if isinstance(item, dict) else item
        elements = annotation.get("elements") if isinstance(annotation, dict) else None
        if not isinstance(elements, list):
            raise AnnotationError(
                f"{source}: annotation {index}: expected an object with a list 'elements', got "
                f"{type(annotation if elements is None else elements).__name__}"
            )
        prefix = f"annotation {index}, " if len(items) > 1 else ""
        title = annotation.get("name")
        title = title if isinstance(title, str) else None
        for number, element in enumerate(elements):
            yield _outline(element, source, f"{prefix}element {number}", title)


def _outline(element: Any, source: str, where: str, title: str | None) -> Outline:
    """Class: the element's group, else its label, else the name of the whole annotation."""
    place = f"{source}: {where}"
    if not isinstance(element, dict) or element.get("type") not in AREAS + WITHOUT_AREA:
        kind = element.get("type") if isinstance(element, dict) else type(element).__name__
        raise AnnotationError(
            f"{place}: the type must be one of {', '.join(AREAS + WITHOUT_AREA)}, got {kind!r}"
        )
    color = _color(element, place)
    group, label = element.get("group"), element.get("label")
    if label is not None and not isinstance(label, dict):
        raise AnnotationError(f"{place}: 'label' must be an object with a 'value'")
    value = label.get("value") if label is not None else None
    for what, text in (("group", group), ("label.value", value)):
        if text is not None and not isinstance(text, str):
            raise AnnotationError(f"{place}: {what!r} must be a string, got {text!r:.40}")
    names = [name for name in (group, value, title) if name]
    if names and color is not None:
        names.append(to_hex(color))
    measurements = element.get("user")
    measurements = measurements.get("measurements") if isinstance(measurements, dict) else None
    if measurements is not None and not (
        isinstance(measurements, dict)
        and all(type(number) in (int, float) for number in measurements.values())
    ):
        measurements = None  # user-defined text, not from this package
    return Outline(where, tuple(names), _parts(element, place), color, value, measurements)


def _color(element: dict, place: str):
    for key in ("lineColor", "fillColor"):
        text = element.get(key)
        if text is None:
            continue
        try:
            return parse_css(text)
        except (ValueError, TypeError) as error:
            raise AnnotationError(f"{place}: {key} {text!r:.40} is not a CSS color") from error
    return None


def _parts(element: dict, place: str) -> tuple:
    kind = element["type"]
    if kind in WITHOUT_AREA or (kind == "polyline" and element.get("closed") is not True):
        return ()
    if kind == "polyline":
        holes = element.get("holes") or []
        if not isinstance(holes, list):
            raise AnnotationError(f"{place}: 'holes' must be a list of lists of points")
        shell = as_ring(element.get("points"), f"{place}, 'points'")
        return ((shell, *(as_ring(h, f"{place}, hole {i}") for i, h in enumerate(holes))),)
    center = as_ring([element.get("center")], f"{place}, 'center'")[0]
    if kind == "circle":
        diameter = 2 * _number(element, "radius", place)
        return ((ellipse(center, diameter, diameter),),)
    size = _number(element, "width", place), _number(element, "height", place)
    rotation = _number(element, "rotation", place) if "rotation" in element else 0.0
    shape = ellipse if kind == "ellipse" else rectangle
    return ((shape(center, *size, rotation),),)


def _number(element: dict, key: str, place: str) -> float:
    value: Any = element.get(key)
    if type(value) not in (int, float) or (key != "rotation" and value < 0):
        kind = "a number (radians)" if key == "rotation" else "a non-negative number"
        raise AnnotationError(f"{place}: {key!r} must be {kind}, got {value!r:.40}")
    return as_ring([[value, 0]], f"{place}, {key!r}")[0, 0]


def dsa_elements(
    regions: Iterable[Region], offset: tuple[float, float] = (0, 0)
) -> Iterator[dict[str, Any]]:
    """One closed polyline per polygon; ``offset`` is subtracted."""
    for region in regions:
        for part in shapely.get_parts(region.geometry):
            element: dict[str, Any] = {
                "type": "polyline",
                "closed": True,
                "points": _points(part.exterior, offset),
                "group": region.class_name,
                "label": {"value": region.name or region.class_name},
            }
            if part.interiors:
                element["holes"] = [_points(ring, offset) for ring in part.interiors]
            if region.color is not None:
                red, green, blue = region.color
                element["lineColor"] = f"rgb({red}, {green}, {blue})"
                element["fillColor"] = f"rgba({red}, {green}, {blue}, 0.3)"
            if region.measurements:
                numbers = {key: float(value) for key, value in region.measurements.items()}
                element["user"] = {"measurements": numbers}
            yield element


def _points(ring: shapely.LinearRing, offset: tuple[float, float]) -> list[list[float]]:
    """Points (x, y, 0) without the closing point, which ``closed`` of the element implies."""
    points = np.round(shapely.get_coordinates(ring)[:-1] - offset, 6)
    return [[int(v) if v == int(v) else v for v in point] + [0] for point in points.tolist()]
