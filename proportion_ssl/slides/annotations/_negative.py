"""Negative regions, which are cut out of all other regions of their layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely

from proportion_ssl.slides.annotations._even_odd import Work, rings_of, united
from proportion_ssl.slides.annotations.regions import AnnotationError, polygon_parts

MAX_HOLE_PAIRS = 1_000_000  # of a region and a negative one whose boxes meet, in one layer


class Remaining(NamedTuple):
    """Result of the subtraction of negative regions.

    Attributes
    ----------
    geometries : list
        One per positive region; None if nothing is left.
    islands : list of (int, int)
        Positive region kept in a negative region, and that negative region.
    without_effect : list of int
        Negative regions that cut nothing.
    """

    geometries: list
    islands: list[tuple[int, int]]
    without_effect: list[int]


def subtract(positive: Sequence, negative: Sequence, work: Work, where: str) -> Remaining:
    """Cut each negative region out of every positive region that it intersects.

    A positive region that lies entirely in a negative region, which itself lies mostly in another positive
    region, is kept as an island in that hole; otherwise it would have no effect.

    Parameters
    ----------
    positive, negative : sequence of valid areas
    work : Work
        Bounds of the file.
    where : str
        The layer, for messages.
    """
    shapes, holes = np.array(positive, dtype=object), np.array(negative, dtype=object)
    if not len(shapes) or not len(holes):
        return Remaining(list(positive), [], list(range(len(holes))))
    tree = shapely.STRtree(shapes)
    cuts: dict[int, list[int]] = {}
    islands, without_effect, n_pairs = [], [], 0
    for number, hole in enumerate(holes):
        near = tree.query(hole)
        n_pairs += len(near)
        if n_pairs > MAX_HOLE_PAIRS:
            raise AnnotationError(
                f"{where}: more than {MAX_HOLE_PAIRS:,} pairs of a region and a negative one lie "
                "over each other; split the layer"
            )
        shapely.prepare(hole)
        near = np.sort(near[shapely.intersects(hole, shapes[near])])
        near = near[~shapely.touches(hole, shapes[near])]
        kept = _islands(hole, shapes, near)
        islands += [(int(i), number) for i in kept]
        for i in near:
            if i not in kept:
                cuts.setdefault(int(i), []).append(number)
        if len(near) == len(kept):
            without_effect.append(number)
    left = list(positive)
    for i, numbers in cuts.items():
        cut = united(holes[numbers].tolist(), work, where)
        work.add_crossings(rings_of(np.array([shapes[i], cut], dtype=object)), where)
        left[i] = polygon_parts(shapely.difference(shapes[i], cut))
    return Remaining(left, islands, without_effect)


def _islands(hole, shapes: np.ndarray, near: np.ndarray) -> set[int]:
    """Those of the shapes near a hole that are islands in it."""
    within = shapely.covers(hole, shapes[near])
    smaller = shapely.area(shapes[near]) < 0.999 * hole.area
    around = near[~within]
    if not (within & smaller).any() or not len(around):
        return set()
    if shapely.area(shapely.intersection(hole, shapes[around])).max() <= 0.5 * hole.area:
        return set()
    return set(near[within & smaller].tolist())
