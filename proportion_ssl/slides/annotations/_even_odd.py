"""Areas of polygons whose rings cross, nest or lie side by side, with limits on computation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

from proportion_ssl.slides.annotations.regions import AnnotationError, polygon_parts

MAX_CROSSINGS = 50_000  # of the outlines of one file with themselves and each other
MAX_OVERLAPS = 100_000  # pairs of polygons that are united, in one file
LONG_RING = 5_000  # vertices
N_SAMPLES = 64  # segments whose crossings are counted, of longer outlines
TESTS_AT_ONCE = 1_000_000
MAX_LOCATIONS = 20_000_000  # pairs of a face and a ring, in one polygon
MAX_WINDING_TESTS = 100_000_000  # pairs of a face and a segment, in one outline


class Filled(NamedTuple):
    """Valid area of an outline.

    Attributes
    ----------
    geometry : shapely.Polygon, shapely.MultiPolygon or None
        None without area.
    repaired : bool
        Whether the polygons were not valid as drawn.
    lost : float
        Area encircled twice by a ring, which the even-odd rule excludes.
    """

    geometry: Polygon | MultiPolygon | None
    repaired: bool
    lost: float


class Work:
    """Count the operations needed for the outlines of one file, and raise beyond a limit."""

    def __init__(self) -> None:
        self.n_crossings, self.n_overlaps = 0, 0

    def add_crossings(self, rings: Sequence[np.ndarray], where: str) -> None:
        """Estimate the number of crossings of rings; raise beyond ``MAX_CROSSINGS`` per file."""
        found = count_crossings(rings, N_SAMPLES)
        _check_crossings(found, where)
        self.n_crossings += found
        if self.n_crossings > MAX_CROSSINGS:
            raise AnnotationError(
                f"{where}: up to this one the outlines of the file cross themselves about "
                f"{self.n_crossings:,} times, more than {MAX_CROSSINGS:,}; simplify or draw them "
                "again, or leave out their class (class_map={name: None})"
            )

    def add_overlaps(self, shapes: np.ndarray, where: str) -> None:
        """Count pairs of shapes with overlapping boxes; raise beyond ``MAX_OVERLAPS`` per file."""
        tree = shapely.STRtree(shapes)
        for shape in shapes:
            self.n_overlaps += len(tree.query(shape)) - 1
            if self.n_overlaps > MAX_OVERLAPS:
                raise AnnotationError(
                    f"{where}: its polygons overlap, with those of the shapes before, more than "
                    f"{MAX_OVERLAPS:,} times; draw it again, or leave out its class "
                    "(class_map={name: None})"
                )


def fill(polygons: Sequence[Sequence[np.ndarray]], work: Work, where: str) -> Filled:
    """Area of an outline: the union of its polygons, each filled by the even-odd rule.

    A point belongs to a polygon if it is inside an odd number of its rings, regardless of their order and
    orientation: a ring inside the first is a hole, a ring inside a hole is an island, and a ring outside the
    first is a further part. Rings of fewer than three vertices are left out.
    """
    parts, repaired, lost = [], False, 0.0
    for polygon in polygons:
        rings = [ring for ring in polygon if len(ring) >= 3]
        if not rings:
            continue
        for ring in rings:
            if len(ring) > LONG_RING:  # the exact check of a tangled ring would take minutes
                _check_crossings(count_crossings([ring], N_SAMPLES // 2), where)
        part: shapely.Geometry = Polygon(rings[0], rings[1:])
        if not part.is_valid:
            repaired = True
            part, twice = _even_odd(rings, work, where)
            lost += twice
        parts.append(part)
    geometry = polygon_parts(shapely.GeometryCollection(parts))
    if geometry is not None and not geometry.is_valid:
        repaired = True
        geometry = united(parts, work, where)
    return Filled(geometry, repaired and geometry is not None, lost)


def united(
    shapes: Sequence[shapely.Geometry], work: Work, where: str
) -> Polygon | MultiPolygon | None:
    """Union of shapes; raises if they overlap or cross too often."""
    side_by_side = polygon_parts(shapely.GeometryCollection(list(shapes)))
    if side_by_side is None or side_by_side.is_valid:
        return side_by_side
    array = np.array(shapes, dtype=object)
    work.add_overlaps(array, where)
    work.add_crossings(rings_of(array), where)
    return polygon_parts(shapely.union_all(array))


def rings_of(shapes: np.ndarray) -> list[np.ndarray]:
    """Vertices of all rings of some areas."""
    rings = shapely.get_rings(shapely.get_parts(shapes))
    points, ring_of = shapely.get_coordinates(rings, return_index=True)
    return np.split(points, np.flatnonzero(np.diff(ring_of)) + 1)


def _even_odd(
    rings: Sequence[np.ndarray], work: Work, where: str
) -> tuple[shapely.Geometry, float]:
    """Area inside an odd number of rings, and the area that one of them encircles twice.

    ``shapely.make_valid`` gives the same area for one ring, but takes minutes for ten thousand crossings, and
    drops parts outside the first ring.
    """
    work.add_crossings(rings, where)
    drawn = shapely.union_all([shapely.LinearRing(ring) for ring in rings])
    lines = shapely.get_parts(drawn)  # split where they meet
    faces = shapely.get_parts(shapely.polygonize(lines))
    points = _points_beside(faces, lines)
    inside = _inside_odd(rings, points, where)
    lost = _area_encircled_twice(rings, faces[~inside], points[~inside])
    return shapely.coverage_union_all(faces[inside]), lost


def _points_beside(faces: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """A point within each face that lies on none of the lines.

    Lines that are traversed back and forth may end within a face, or connect parts of its border.
    """
    points = shapely.get_coordinates(shapely.point_on_surface(faces))
    tree = shapely.STRtree(lines)
    on_line, _ = tree.query(shapely.points(points), predicate="intersects")
    for i in np.unique(on_line):
        left, bottom, right, top = faces[i].bounds
        near = lines[tree.query(faces[i])]
        levels = np.unique(shapely.get_coordinates(near)[:, 1].clip(bottom, top))
        gap = np.argmax(np.diff(levels))
        y = (levels[gap] + levels[gap + 1]) / 2  # between all vertices
        across = shapely.LineString([(left - 1, y), (right + 1, y)])
        x = np.unique(shapely.get_coordinates(shapely.intersection(near, across))[:, 0])
        middle = (x[:-1] + x[1:]) / 2
        width = np.where(shapely.contains_xy(faces[i], middle, y), np.diff(x), 0.0)
        if width.any():  # otherwise the face is as thin as the float precision
            points[i] = middle[np.argmax(width)], y
    return points


def _inside_odd(rings: Sequence[np.ndarray], points: np.ndarray, where: str) -> np.ndarray:
    """Mask of points, none of them on a ring, that lie inside an odd number of rings.

    Points are located in one ring at a time by ray casting, which also works for rings that cross
    themselves.
    """
    drawn = np.array([Polygon(ring) for ring in rings], dtype=object)
    shapely.prepare(drawn)
    tree = shapely.STRtree(shapely.points(points))
    odd, n_tests = np.zeros(len(points), dtype=bool), 0
    for ring in drawn:
        near = tree.query(shapely.box(*ring.bounds))
        n_tests += len(near)
        if n_tests > MAX_LOCATIONS:
            raise AnnotationError(
                f"{where}: too many of its {len(rings):,} rings overlap; draw it again"
            )
        odd[near] ^= shapely.intersects_xy(ring, points[near])
    return odd


def _area_encircled_twice(rings: Sequence[np.ndarray], faces: np.ndarray, points: np.ndarray):
    """Area of the faces (the largest, if there are many) with a winding number of at least 2.

    A path into a hole and around it has winding number 0 around the hole, which is no loss.
    """
    areas = shapely.area(faces)
    twice = np.zeros(len(faces), dtype=bool)
    for ring in rings:
        if not len(faces) or Polygon(ring).is_valid:
            continue
        largest = np.argsort(-areas)[: max(1, MAX_WINDING_TESTS // len(ring))]
        start, end = _segments([ring])
        step = max(1, TESTS_AT_ONCE // len(ring))
        for first in range(0, len(largest), step):
            some = largest[first : first + step]
            x, y = points[some, 0, np.newaxis], points[some, 1, np.newaxis]
            side = (end[:, 0] - start[:, 0]) * (y - start[:, 1])
            side -= (end[:, 1] - start[:, 1]) * (x - start[:, 0])
            up = (start[:, 1] <= y) & (end[:, 1] > y) & (side > 0)
            down = (start[:, 1] > y) & (end[:, 1] <= y) & (side < 0)
            twice[some] |= np.abs(up.sum(axis=1) - down.sum(axis=1)) >= 2
    return float(areas[twice].sum())


def count_crossings(rings: Sequence[np.ndarray], n_samples: int) -> int:
    """Estimate how often rings cross themselves and each other, from evenly spaced segments."""
    start, end = _segments(rings)
    picked = np.unique(np.linspace(0, len(start) - 1, n_samples).astype(int))
    total, step = 0.0, max(1, TESTS_AT_ONCE // len(start))
    for first in range(0, len(picked), step):
        some = picked[first : first + step, np.newaxis]
        a, b = start[some], end[some]
        total += np.count_nonzero(
            (_side(a, b, start) * _side(a, b, end) < 0)
            & (_side(start, end, a) * _side(start, end, b) < 0)
        )
    return int(total * len(start) / len(picked) / 2)


def _segments(rings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the segments of some rings, each closed by one more."""
    start = np.concatenate(rings)
    last = np.cumsum([len(ring) for ring in rings]) - 1
    end = np.roll(start, -1, axis=0)
    end[last] = start[np.r_[0, last[:-1] + 1]]
    return start, end


def _check_crossings(n_crossings: int, where: str) -> None:
    if n_crossings > MAX_CROSSINGS:
        raise AnnotationError(
            f"{where}: its lines cross about {n_crossings:,} times, too often for the border of an "
            "area; draw it again"
        )


def _side(a: np.ndarray, b: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Sign of the side of the line a-b on which the point lies."""
    u, v = b - a, point - a
    return np.sign(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])
