"""Annotated regions, and the checks shared by all annotation formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

MAX_COORDINATE = 1e8  # pixels; the largest scanned slides have a few million
MAX_VERTICES = 5_000_000  # in one file


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
    """One shape as stored in a file, before renaming, offset and repair.

    ``labels`` holds the name of the class first, then what else may identify it in a class map (a color such
    as ``"#ff0000"``, the base class of a derived one); empty: unclassified. ``parts`` holds the rings of each
    polygon, every ring an (n, 2) array; see ``_even_odd.fill`` for the filling rule. A negative outline is
    cut out of the other outlines of its ``layer``, which is None without negative outlines. ``area_um2`` is
    the area in square microns that the file states.
    """

    where: str
    labels: tuple[str, ...]
    parts: tuple[tuple[np.ndarray, ...], ...]
    color: tuple[int, int, int] | None = None
    name: str | None = None
    measurements: Mapping[str, float] | None = None
    layer: str | None = None
    negative: bool = False
    area_um2: float | None = None


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
        raise AnnotationError(
            f"{where}: expected a list of [x, y] numbers, got {shortened(values)}"
        )
    points = points[:, :2].astype(float)
    check_numbers(points, where)
    return points


def check_numbers(values: np.ndarray, where: str) -> None:
    """Raise unless all values are finite and within the size of a slide."""
    if not np.isfinite(values).all():
        raise AnnotationError(f"{where}: a coordinate is NaN or infinite; export the file again")
    if values.size and np.abs(values).max() > MAX_COORDINATE:
        raise AnnotationError(
            f"{where}: coordinate {np.abs(values).max():.6g} is larger than any slide "
            f"({MAX_COORDINATE:.0e} pixels); coordinates must be level-0 pixels"
        )


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


def shortened(value: Any, length: int = 60) -> str:
    """Short representation of a value."""
    text = repr(value[:3]) if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."
