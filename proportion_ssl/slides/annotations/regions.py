"""The one model of an annotated region, and the checks every annotation format shares."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

logger = logging.getLogger(__name__)

MAX_COORDINATE = 1e8  # pixels; the largest scanned slides have a few million
MAX_VERTICES = 5_000_000  # in one file
MAX_CROSSINGS = 50_000  # of one outline with itself, beyond which it is not repaired
LONG_RING = 5_000  # vertices
MAX_OVERLAPS = 100_000  # pairs of polygons in one shape


class AnnotationError(ValueError):
    """An annotation file that cannot be used; the message names file, element and remedy."""


@dataclass(frozen=True)
class Region:
    """An area of a slide with a class.

    Parameters
    ----------
    class_name : str
        Class of the area.
    geometry : shapely.Polygon or shapely.MultiPolygon
        Area with its holes, (x, y) in level-0 pixels of the slide.
    color : tuple of three int, optional
        Red, green, blue in 0..255.
    name : str, optional
        Name of this one region.
    measurements : mapping of str to float, optional
        Numbers that belong to the region, by name and unit.

    Examples
    --------
    >>> import shapely
    >>> Region("acinar", shapely.box(0, 0, 10, 20)).geometry.area
    200.0
    """

    class_name: str
    geometry: Polygon | MultiPolygon
    color: tuple[int, int, int] | None = None
    name: str | None = None
    measurements: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Outline:
    """One shape as it stands in a file, before names, offset and repair.

    ``labels`` holds the name of the class first, then what else may identify it in a class
    map (a colour such as ``"#ff0000"``, the base class of a derived one); empty: unclassified.
    ``parts`` holds (exterior, holes) per polygon, every ring an (n, 2) array.
    """

    where: str
    labels: tuple[str, ...]
    parts: tuple[tuple[np.ndarray, tuple[np.ndarray, ...]], ...]
    color: tuple[int, int, int] | None = None
    name: str | None = None
    measurements: Mapping[str, float] | None = None


def as_ring(values: Any, where: str) -> np.ndarray:
    """Vertices of one ring as (n, 2) float64, checked; further coordinates (z) are dropped."""
    if not isinstance(values, list | tuple | np.ndarray):
        raise AnnotationError(
            f"{where}: expected a list of [x, y] points, got {type(values).__name__}"
        )
    if len(values) == 0:
        return np.empty((0, 2))
    try:
        points = np.asarray(values)
    except ValueError as error:
        raise AnnotationError(
            f"{where}: the points do not all have the same number of coordinates"
        ) from error
    if points.ndim != 2 or points.shape[1] < 2 or points.dtype.kind not in "iuf":
        raise AnnotationError(f"{where}: expected a list of [x, y] numbers, got {_short(values)}")
    points = points[:, :2].astype(float)
    check_numbers(points, where)
    return points


def check_numbers(values: np.ndarray, where: str) -> None:
    """Raise unless all values are finite and of a size that a slide can have."""
    if not np.isfinite(values).all():
        raise AnnotationError(f"{where}: a coordinate is NaN or infinite; export the file again")
    if values.size and np.abs(values).max() > MAX_COORDINATE:
        raise AnnotationError(
            f"{where}: coordinate {np.abs(values).max():.6g} is larger than any slide "
            f"({MAX_COORDINATE:.0e} pixels); coordinates must be level-0 pixels"
        )


def to_regions(
    outlines: Iterable[Outline],
    source: str,
    *,
    class_map: Mapping[str | None, str | None] | None,
    offset: tuple[float, float],
    dimensions: tuple[int, int] | None,
) -> list[Region]:
    """Name, shift, repair and bound the outlines of one file (see ``read_annotations``)."""
    regions, unclassified, without_area, repaired, n_vertices = [], 0, 0, 0, 0
    for outline in outlines:
        n_vertices += sum(len(shell) + sum(map(len, holes)) for shell, holes in outline.parts)
        if n_vertices > MAX_VERTICES:
            raise AnnotationError(
                f"{source}: more than {MAX_VERTICES:,} vertices; export outlines of regions, "
                "not of single cells, or simplify them"
            )
        class_name = _class_name(outline.labels, class_map)
        if class_name is None:
            unclassified += not outline.labels
            continue
        geometry, was_repaired = _geometry(outline, source)
        if geometry is None:
            without_area += 1
            continue
        repaired += was_repaired
        geometry = shapely.transform(geometry, lambda points: points + np.asarray(offset, float))
        if dimensions is not None:
            geometry = _clip(geometry, dimensions, f"{source}: {outline.where} ({class_name!r})")
        regions.append(
            Region(class_name, geometry, outline.color, outline.name, outline.measurements)
        )
    _report(source, "without a class left out (name them by class_map={None: ...})", unclassified)
    _report(source, "without an area (points, lines) left out", without_area)
    _report(source, "crossing themselves repaired", repaired)
    return regions


def polygon_parts(geometry: shapely.Geometry) -> Polygon | MultiPolygon | None:
    """The areas of a geometry: lines and points dropped, one part as Polygon, none as None."""
    parts = shapely.get_parts(geometry)
    while (shapely.get_type_id(parts) > 3).any():
        parts = shapely.get_parts(parts)
    parts = parts[(shapely.get_type_id(parts) == 3) & (shapely.area(parts) > 0)]
    if len(parts) == 0:
        return None
    return parts[0] if len(parts) == 1 else MultiPolygon(list(parts))


def check_names(names: Sequence[str], what: str) -> tuple[str, ...]:
    """Class names as a tuple; they must be strings, each once."""
    if isinstance(names, str):
        raise TypeError(f"{what} must be a sequence of names, got the single string {names!r}")
    names = tuple(names)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{what} must be strings, got {names!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"{what} names a class twice: {names!r}")
    return names


def _class_name(labels, class_map) -> str | None:
    if class_map is None:
        return labels[0] if labels else None
    if not labels:
        return class_map.get(None)
    for label in labels:
        if label in class_map:
            return class_map[label]
    return labels[0]


def _geometry(outline: Outline, source: str) -> tuple[Polygon | MultiPolygon | None, bool]:
    """Valid geometry of an outline (None without area) and whether it had to be repaired."""
    shells, repaired = [], False
    for shell, holes in outline.parts:
        if len(shell) < 3:
            continue
        for ring in (shell, *holes):
            if len(ring) > LONG_RING:  # a tangle would keep the exact check busy for minutes
                _check_crossings(ring, f"{source}: {outline.where}", n_samples=32)
        polygon = Polygon(shell, [hole for hole in holes if len(hole) >= 3])
        if not polygon.is_valid:
            repaired = True
            where = f"{source}: {outline.where}"
            rings = [_even_odd(ring, where) for ring in (polygon.exterior, *polygon.interiors)]
            polygon = shapely.difference(rings[0], _united(rings[1:], where))
        shells.append(polygon)
    geometry = polygon_parts(MultiPolygon([]) if not shells else shapely.GeometryCollection(shells))
    if geometry is not None and not geometry.is_valid:
        repaired = True
        geometry = polygon_parts(_united(shells, f"{source}: {outline.where}"))
    return geometry, repaired and geometry is not None


def _united(shapes: list[shapely.Geometry], where: str) -> shapely.Geometry:
    """Union, if the shapes do not overlap beyond all measure."""
    array = np.array(shapes, dtype=object)
    tree, n_pairs = shapely.STRtree(array), 0
    for shape in shapes:
        n_pairs += len(tree.query(shape)) - 1
        if n_pairs > MAX_OVERLAPS:
            raise AnnotationError(
                f"{where}: its polygons overlap more than {MAX_OVERLAPS:,} times; draw it again"
            )
    return shapely.union_all(array)


def _even_odd(ring: shapely.LinearRing, where: str) -> shapely.Geometry:
    """Area inside a ring that may cross itself: inside is where a ray crosses it an odd number."""
    polygon = Polygon(ring)
    if polygon.is_valid:
        return polygon
    _check_crossings(shapely.get_coordinates(ring), where, n_samples=256)
    # make_valid gives the same area, but takes minutes for some ten thousand crossings
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(shapely.node(ring))))
    inside = shapely.get_coordinates(shapely.point_on_surface(faces))
    shapely.prepare(polygon)  # point location counts crossings, so it needs no valid polygon
    return shapely.union_all(faces[shapely.contains_xy(polygon, inside)])


def _check_crossings(points: np.ndarray, where: str, n_samples: int) -> None:
    """Raise if a path crosses itself beyond all measure, judged by evenly spread segments."""
    start, end = points[:-1], points[1:]
    n_samples = max(16, min(n_samples, 50_000_000 // len(start)))
    picked = np.unique(np.linspace(0, len(start) - 1, n_samples).astype(int))
    total = 0
    for i in picked:
        a, b = start[i], end[i]
        total += int(
            np.count_nonzero(
                (_side(a, b, start) * _side(a, b, end) < 0)
                & (_side(start, end, a) * _side(start, end, b) < 0)
            )
        )
    n_crossings = int(total * len(start) / len(picked) / 2)
    if n_crossings > MAX_CROSSINGS:
        raise AnnotationError(
            f"{where}: the outline crosses itself about {n_crossings:,} times, which is no "
            "outline of an area; draw it again"
        )


def _side(a: np.ndarray, b: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Sign of the side of the line a-b on which the point lies."""
    u, v = b - a, point - a
    return np.sign(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])


def _clip(geometry, dimensions: tuple[int, int], where: str) -> Polygon | MultiPolygon:
    width, height = dimensions
    x0, y0, x1, y1 = geometry.bounds
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        return geometry
    inside = polygon_parts(shapely.intersection(geometry, shapely.box(0, 0, width, height)))
    if inside is None:
        raise AnnotationError(
            f"{where}: x {x0:.0f}..{x1:.0f}, y {y0:.0f}..{y1:.0f} lies wholly outside the slide "
            f"of {width} x {height} level-0 pixels; is it the file of another slide, in another "
            "pixel size, or shifted (give offset=slide.bounds[:2])?"
        )
    return inside


def _report(source: str, what: str, count: int) -> None:
    if count:
        logger.warning("%s: %d shape(s) %s", source, count, what)


def _short(value: Any, length: int = 60) -> str:
    text = repr(value[:3]) if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."


OutlineReader = Callable[[Any, str], Iterable[Outline]]
