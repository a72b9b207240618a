"""Find areas that are entirely covered by others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

SHAPES_AT_ONCE = 64
MAX_PAIRS = 5_000_000  # of shapes whose boxes meet
MAX_POINTS = 3_000_000  # vertices tested for being in another shape


def find_hidden(geometries: Sequence[shapely.Geometry]) -> tuple[dict[int, int], bool]:
    """Find areas that are entirely covered by a later one, and tell whether the search was complete.

    Returns
    -------
    hidden : dict of int to int
        One area that covers each hidden one, by index.
    complete : bool
        False if the search was stopped because too many areas overlap.
    """
    shapes = np.array(geometries, dtype=object)
    if not len(shapes):
        return {}, True
    tree, boxes = shapely.STRtree(shapes), shapely.bounds(shapes)
    sizes = shapely.get_num_coordinates(shapes)
    hidden: dict[int, int] = {}
    n_pairs = n_points = 0
    for start in range(0, len(shapes), SHAPES_AT_ONCE)[::-1]:  # from the top
        above, below = tree.query(shapes[start : start + SHAPES_AT_ONCE])
        n_pairs += len(above)
        if n_pairs > MAX_PAIRS:
            return hidden, False
        above = above + start
        outer, inner = boxes[above], boxes[below]
        covers = (above > below) & (outer[:, :2] <= inner[:, :2]).all(axis=1)
        covers &= (outer[:, 2:] >= inner[:, 2:]).all(axis=1)
        above, below = above[covers], below[covers]
        equal = shapely.equals_exact(shapes[above], shapes[below], 0)
        hidden |= _topmost(above[equal], below[equal]) | hidden
        rest = ~equal & ~np.isin(below, list(hidden))
        above, below = above[rest], below[rest]
        n_points += sizes[below].sum()
        if n_points > MAX_POINTS:
            return hidden, False
        some = shapes[np.unique(above)]
        shapely.prepare(some)
        found = shapely.covers(shapes[above], shapes[below])
        shapely.destroy_prepared(some)
        hidden |= _topmost(above[found], below[found]) | hidden
    return hidden, True


def _topmost(above: np.ndarray, below: np.ndarray) -> dict[int, int]:
    order = np.argsort(above)
    return dict(zip(below[order].tolist(), above[order].tolist(), strict=True))
