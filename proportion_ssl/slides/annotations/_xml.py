"""Convert ASAP XML, Aperio ImageScope XML and HALO's variant of it to outlines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

import numpy as np

from proportion_ssl.colors import parse_css, to_hex, unpack_bgr
from proportion_ssl.slides.annotations._ellipse import ellipse
from proportion_ssl.slides.annotations._frames import ASAP, HALO, IMAGESCOPE, Dialect
from proportion_ssl.slides.annotations.regions import AnnotationError, Outline, check_numbers

ASAP_AREAS = ("Polygon", "Spline", "Rectangle")
ASAP_WITHOUT_AREA = ("Dot", "PointSet", "Measurement", "None")
IMAGESCOPE_RECTANGLE, IMAGESCOPE_ELLIPSE = 1, 2  # all other types are polygons
HALO_AREAS, HALO_WITHOUT_AREA = ("Polygon", "Rectangle", "Ellipse"), ("Ruler", "Pin", "Line")
NUMBER = re.compile(r"\s*[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?\s*")
NO_NUMBER = re.compile(r"\s*[+-]?(nan|inf|infinity)\s*", re.IGNORECASE)


def xml_dialect(root: Element, source: str) -> Dialect:
    """ASAP or ImageScope, distinguished by the root element; HALO writes ``V`` for ``Vertex``."""
    if root.tag == "ASAP_Annotations":
        return ASAP
    if root.tag == "Annotations":
        return HALO if root.find("Annotation/Regions/Region/Vertices/V") is not None else IMAGESCOPE
    raise AnnotationError(
        f"{source}: the root element is <{root.tag}>, expected <ASAP_Annotations> (ASAP) or "
        "<Annotations> (Aperio ImageScope)"
    )


def xml_outlines(root: Element, source: str) -> Iterator[Outline]:
    """Outlines of an ASAP or ImageScope file."""
    is_asap = xml_dialect(root, source) is ASAP
    return (_asap_outlines if is_asap else _imagescope_outlines)(root, source)


def imagescope_mpp(root: Element, source: str) -> float | None:
    """Microns per pixel of the slide that an ImageScope file was drawn on, None if not stated."""
    if not (root.get("MicronsPerPixel") or "").strip():
        return None
    value = _number(root, "MicronsPerPixel", source)
    return value if value > 0 else None  # ImageScope writes 0 if the slide does not state it


def _asap_outlines(root: Element, source: str) -> Iterator[Outline]:
    annotations = root.find("Annotations")
    if annotations is None:
        raise AnnotationError(f"{source}: <ASAP_Annotations> has no <Annotations>; export it again")
    groups = {group.get("Name"): group for group in root.iterfind("AnnotationGroups/Group")}
    for index, annotation in enumerate(annotations.iterfind("Annotation")):
        name = annotation.get("Name")
        where = f"annotation {index} ({name!r})"
        kind = annotation.get("Type", "Polygon")
        if kind not in ASAP_AREAS + ASAP_WITHOUT_AREA:
            raise AnnotationError(
                f"{source}: {where}: Type is {kind!r}, expected one of {', '.join(ASAP_AREAS)}"
            )
        color = _asap_color(annotation.get("Color"), f"{source}: {where}")
        labels = _asap_labels(annotation.get("PartOfGroup"), groups)
        if labels and color is not None:
            labels += (to_hex(color),)
        points = _points(annotation, "Coordinates", "Coordinate", f"{source}: {where}")
        if kind == "Rectangle" and len(points) == 2:
            points = _box(points)
        parts = ((points,),) if kind in ASAP_AREAS else ()
        yield Outline(where, labels, parts, color, name)


def _asap_labels(group: str | None, groups: dict) -> tuple[str, ...]:
    """The group and the groups it is part of, innermost first."""
    labels: list[str] = []
    while group not in (None, "", "None") and group not in labels:
        labels.append(group)
        group = groups[group].get("PartOfGroup") if group in groups else None
    return tuple(labels)


def _asap_color(text: str | None, where: str):
    if not text:
        return None
    try:
        return parse_css(text)
    except ValueError as error:
        raise AnnotationError(f"{where}: Color {text!r} is not a color such as #F4FA58") from error


def _imagescope_outlines(root: Element, source: str) -> Iterator[Outline]:
    if root.find("Annotation") is None and len(root):
        raise AnnotationError(
            f"{source}: <Annotations> holds <{root[0].tag}>, expected <Annotation> layers"
        )
    for index, layer in enumerate(root.iterfind("Annotation")):
        where = f"layer {layer.get('Id', index)}"
        color = _line_color(layer.get("LineColor"), f"{source}: {where}")
        yield from _layer_outlines(layer, color, where, source)


def _layer_outlines(layer: Element, color, where: str, source: str) -> Iterator[Outline]:
    """Regions of a layer; the negative ones are cut out of all others, see ``_negative``."""
    regions = list(layer.iterfind("Regions/Region"))
    negative = [
        _is_negative(region, f"{source}: {where}, region {region.get('Id', index)}")
        for index, region in enumerate(regions)
    ]
    colors = () if color is None else (to_hex(color),)
    titles = _layer_titles(layer)
    for index, region in enumerate(regions):
        place = f"{where}, region {region.get('Id', index)}"
        points = _imagescope_points(region, f"{source}: {place}")
        text = region.get("Text")
        names = (*titles, *colors, (text or "").strip())
        labels = tuple(dict.fromkeys(name for name in names if name))
        if not titles and color is None:
            labels = ()
        yield Outline(
            place,
            labels,
            ((points,),),
            color,
            text or None,
            layer=where if any(negative) else None,
            negative=negative[index],
        )


def _is_negative(region: Element, where: str) -> bool:
    text = region.get("NegativeROA", "0").strip().lower()
    if text not in ("", "0", "1", "false", "true"):
        raise AnnotationError(f"{where}: NegativeROA {text[:40]!r} is neither 0 nor 1")
    return text in ("1", "true")


def _layer_titles(layer: Element) -> list[str]:
    """Name of a layer, then its attributes: data sets without layer names keep the class there.

    ImageScope's own attribute is called Description and has the text as its value; others give
    the class as the name of an attribute without a value.
    """
    titles = [layer.get("Name")]
    for attribute in layer.iterfind("Attributes/Attribute"):
        titles.append(attribute.get("Value"))
        if attribute.get("Name") != "Description":
            titles.append(attribute.get("Name"))
    return [title.strip() for title in titles if title and title.strip()]


def _imagescope_points(region: Element, where: str) -> np.ndarray:
    """Vertices; converters from other programs add GeoShape and misuse Type as a class."""
    if region.find("Vertices/V") is not None:
        return _halo_points(region, where)
    points = _points(region, "Vertices", "Vertex", where)
    shape = region.get("GeoShape")
    if shape is not None:
        return points if shape in ("Polygon", "Rectangle") else np.empty((0, 2))
    try:
        kind = int(region.get("Type", "0"))
    except ValueError as error:
        raise AnnotationError(f"{where}: Type {region.get('Type')!r} is no number") from error
    if kind not in (IMAGESCOPE_RECTANGLE, IMAGESCOPE_ELLIPSE) or len(points) < 2:
        return points
    if kind == IMAGESCOPE_RECTANGLE and len(points) == 2:
        return _box(points)
    if kind == IMAGESCOPE_ELLIPSE and len(points) <= 4:
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return ellipse(((x0 + x1) / 2, (y0 + y1) / 2), x1 - x0, y1 - y0)
    return points


def _halo_points(region: Element, where: str) -> np.ndarray:
    """Vertices of HALO: polygons, and rectangles and ellipses by two corners."""
    points, kind = _points(region, "Vertices", "V", where), region.get("Type", "Polygon")
    if kind not in HALO_AREAS + HALO_WITHOUT_AREA:
        raise AnnotationError(f"{where}: Type is {kind!r}, expected one of {', '.join(HALO_AREAS)}")
    if kind in HALO_WITHOUT_AREA:
        return np.empty((0, 2))
    if kind == "Polygon" or len(points) != 2:
        return points
    if kind == "Rectangle":
        return _box(points)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return ellipse(((x0 + x1) / 2, (y0 + y1) / 2), x1 - x0, y1 - y0)


def _box(points: np.ndarray) -> np.ndarray:
    """Corners of the upright rectangle around some points."""
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _line_color(text: str | None, where: str):
    if text is None or not text.strip():
        return None
    try:
        return unpack_bgr(int(text))
    except ValueError as error:
        raise AnnotationError(f"{where}: LineColor {text!r} is not an integer") from error


def _points(parent: Element, container: str, item: str, where: str) -> np.ndarray:
    """(n, 2) array of the X and Y attributes, sorted by the attribute Order if all have it."""
    holder = parent.find(container)
    if holder is None:
        raise AnnotationError(f"{where}: <{parent.tag}> has no <{container}>; export it again")
    elements = list(holder)
    for element in elements:
        if element.tag != item:
            raise AnnotationError(
                f"{where}: <{container}> holds <{element.tag}>, expected <{item}>"
            )
    values = [[_number(element, name, where) for name in ("X", "Y")] for element in elements]
    points = np.array(values, dtype=float).reshape(-1, 2)
    check_numbers(points, where)
    if elements and all("Order" in element.attrib for element in elements):
        ranks = np.array([_number(element, "Order", where) for element in elements])
        points = points[np.argsort(ranks, kind="stable")]
    return points


def _number(element: Element, name: str, where: str) -> float:
    """Value of an attribute; a decimal comma counts as a point (ASAP writes by locale)."""
    text = element.get(name)
    if text is None:
        raise AnnotationError(f"{where}: <{element.tag}> has no attribute {name}")
    if NO_NUMBER.fullmatch(text):
        return float("nan")
    if len(text) > 40 or not NUMBER.fullmatch(text):
        raise AnnotationError(
            f"{where}: {name}={text[:40]!r} of <{element.tag}> is not a number; export the file again"
        )
    return float(text.replace(",", "."))


def read_number(text: str, where: str) -> float:
    """Parse a number; raise AnnotationError if the text is not a number."""
    if len(text) > 40 or not NUMBER.fullmatch(text):
        raise AnnotationError(f"{where}: {text[:40]!r} is not a number; export the file again")
    return float(text.replace(",", "."))


def text_number(parent: Element, name: str, where: str) -> float:
    """Number in the text of a child element."""
    text = parent.findtext(name)
    if text is None:
        raise AnnotationError(f"{where}: <{parent.tag}> has no <{name}>")
    return read_number(text, where)
