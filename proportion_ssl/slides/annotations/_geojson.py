"""QuPath's GeoJSON: features to outlines, and regions to features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import shapely

from proportion_ssl.colors import check_color, parse_css, to_hex, unpack_argb
from proportion_ssl.slides.annotations.regions import AnnotationError, Outline, Region, as_ring

AREAS = ("Polygon", "MultiPolygon")
WITHOUT_AREA = ("Point", "MultiPoint", "LineString", "MultiLineString")
MEASURED_AREAS = (
    "Area \u00b5m^2",
    "Area \u03bcm^2",
    "Area um^2",
)  # micro sign, Greek mu, this package
GEOMETRIES = (*AREAS, *WITHOUT_AREA, "GeometryCollection")


def is_geojson(document: Any) -> bool:
    """Whether a parsed JSON document looks like GeoJSON (or QuPath's bare list of features)."""
    if isinstance(document, list):
        first = document[0] if document else {"type": "Feature"}
        return isinstance(first, dict) and first.get("type") == "Feature"
    return isinstance(document, dict) and document.get("type") in (
        "FeatureCollection",
        "Feature",
        *GEOMETRIES,
    )


def geojson_outlines(document: Any, source: str) -> Iterator[Outline]:
    """Outlines of a FeatureCollection, list of features, feature or bare geometry, in order."""
    if isinstance(document, dict) and document["type"] == "FeatureCollection":
        features = document.get("features")
        if not isinstance(features, list):
            raise AnnotationError(
                f"{source}: a FeatureCollection needs a list 'features', got "
                f"{type(features).__name__}"
            )
    elif isinstance(document, list):
        features = document
    elif document["type"] == "Feature":
        features = [document]
    else:
        features = [{"type": "Feature", "geometry": document, "properties": {}}]
    for index, feature in enumerate(features):
        yield _outline(feature, source, f"feature {index}")


def _outline(feature: Any, source: str, where: str) -> Outline:
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise AnnotationError(
            f"{source}: {where}: expected an object of type 'Feature', got {_kind(feature)}"
        )
    properties = feature.get("properties")
    if properties is None:
        properties = {}
    if not isinstance(properties, dict):
        raise AnnotationError(
            f"{source}: {where}: 'properties' must be an object, got {_kind(properties)}"
        )
    labels, color = _classification(properties, f"{source}: {where}")
    name = properties.get("name")
    measurements = _measurements(properties.get("measurements"), f"{source}: {where}")
    areas = [value for key, value in (measurements or {}).items() if key in MEASURED_AREAS]
    return Outline(
        where=where,
        labels=labels,
        parts=tuple(_parts(feature.get("geometry"), f"{source}: {where}")),
        color=color,
        name=name if isinstance(name, str) else None,
        measurements=measurements,
        area_um2=areas[0] if areas else None,
    )


def _classification(properties: dict, where: str) -> tuple[tuple[str, ...], Any]:
    """Names and color; QuPath wrote the color as a packed integer before version 0.4."""
    classification = properties.get("classification")
    if classification is None:
        return (), _color(properties, where)
    if isinstance(classification, str):
        classification = {"name": classification}
    if not isinstance(classification, dict):
        raise AnnotationError(
            f"{where}: 'classification' must be an object, got {_kind(classification)}"
        )
    names = classification.get("names")
    name = classification.get("name")
    if name is None and names is not None:
        if not isinstance(names, list) or not all(isinstance(part, str) for part in names):
            raise AnnotationError(f"{where}: 'classification.names' must be a list of strings")
        name = ": ".join(names)
    if name is None:
        return (), _color(classification, where)
    if not isinstance(name, str):
        raise AnnotationError(f"{where}: 'classification.name' must be a string, got {_kind(name)}")
    color = _color(classification, where)
    labels = [name] if name else []
    if ": " in name:  # "Tumor: Positive" is the class Positive derived from Tumor
        labels.append(name.split(": ")[0])
    if color is not None and name:
        labels.append(to_hex(color))
    return tuple(labels), color


def _color(holder: dict, where: str) -> tuple[int, int, int] | None:
    color, packed = holder.get("color"), holder.get("colorRGB")
    try:
        if isinstance(color, str):
            return parse_css(color)
        if color is not None:
            return check_color(_rounded(color), "the color")
        if packed is not None:
            if not isinstance(packed, int) or isinstance(packed, bool):
                raise ValueError(f"colorRGB must be an integer, got {packed!r}")
            return unpack_argb(packed)
    except ValueError as error:
        raise AnnotationError(f"{where}: the class has no valid color: {error}") from error
    return None


def _rounded(color: Any) -> Any:
    """Color without alpha and with whole numbers."""
    if not isinstance(color, list) or len(color) not in (3, 4):
        return color
    return [round(v) if isinstance(v, float) and 0 <= v <= 255 else v for v in color[:3]]


def _measurements(values: Any, where: str) -> dict[str, float] | None:
    """Finite measurements by name; a list of {"name", "value"} in older files."""
    if isinstance(values, list):
        if not all(isinstance(item, dict) and "name" in item for item in values):
            raise AnnotationError(f"{where}: 'measurements' must list objects with a name")
        values = {str(item["name"]): item.get("value") for item in values}
    if values is None or values == {}:
        return None
    if not isinstance(values, dict):
        raise AnnotationError(f"{where}: 'measurements' must be an object, got {_kind(values)}")
    numbers = {
        name: float(value)
        for name, value in values.items()
        if type(value) in (int, float) and abs(value) < float("inf")
    }
    return numbers or None


def _parts(geometry: Any, where: str, nesting: int = 0) -> Iterator[tuple]:
    if geometry is None:
        return
    if not isinstance(geometry, dict) or geometry.get("type") not in GEOMETRIES:
        kind = geometry.get("type") if isinstance(geometry, dict) else _kind(geometry)
        raise AnnotationError(
            f"{where}: the geometry must be one of {', '.join(GEOMETRIES)}, got {kind!r}"
        )
    if geometry["type"] == "GeometryCollection":
        members = geometry.get("geometries")
        if not isinstance(members, list) or nesting > 8:
            raise AnnotationError(f"{where}: 'geometries' must be a list, nested at most 8 deep")
        for member in members:
            yield from _parts(member, where, nesting + 1)
        return
    coordinates = geometry.get("coordinates")
    if not isinstance(coordinates, list):
        raise AnnotationError(f"{where}: 'coordinates' must be a list, got {_kind(coordinates)}")
    if geometry["type"] in WITHOUT_AREA:
        return
    polygons = [coordinates] if geometry["type"] == "Polygon" else coordinates
    for polygon in polygons:
        if not isinstance(polygon, list):
            raise AnnotationError(f"{where}: a polygon must be a list of rings")
        if polygon:
            rings = [as_ring(ring, f"{where}, ring {i}") for i, ring in enumerate(polygon)]
            yield tuple(rings)


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object of type {value.get('type')!r}"
    return "null" if value is None else type(value).__name__


def to_feature(
    region: Region, offset: tuple[float, float] = (0, 0), object_type: str = "annotation"
) -> dict:
    """Feature in QuPath's format; ``offset`` is subtracted from the coordinates."""
    polygons = [
        [_ring(ring, offset) for ring in (part.exterior, *part.interiors)]
        for part in shapely.get_parts(region.geometry)
    ]
    single = len(polygons) == 1
    classification: dict[str, Any] = {"name": region.class_name}
    if region.color is not None:
        classification["color"] = list(region.color)
    properties: dict[str, Any] = {"objectType": object_type, "classification": classification}
    if region.name is not None:
        properties["name"] = region.name
    if region.measurements:
        properties["measurements"] = _plain(region.measurements)
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": polygons[0] if single else polygons,
        },
        "properties": properties,
    }


def _plain(measurements: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in measurements.items()}


def _ring(ring: shapely.LinearRing, offset: tuple[float, float]) -> list[list[float]]:
    """Closed ring; whole numbers are written without a decimal point."""
    points = shapely.get_coordinates(ring) - offset
    return [[int(v) if v == int(v) else v for v in point] for point in points.tolist()]
