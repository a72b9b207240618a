"""Exact area of every class in every patch, and the labels of patches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import shapely

from proportion_ssl.slides.annotations.regions import Region, check_names, polygon_parts

if TYPE_CHECKING:
    from proportion_ssl.slides.grid import PatchGrid

logger = logging.getLogger(__name__)

MAX_PIECE_VERTICES = 256
PAIRS_AT_ONCE = 100_000
MAX_OVERLAPS = 1_000_000


class ClassFractions(NamedTuple):
    """Shares of the area of each patch that classes cover, from :func:`class_fractions`.

    Attributes
    ----------
    fractions : ndarray of shape (n_patches, n_classes)
        Share of each class, in [0, 1]. A row and its entry in ``ignored`` sum to at most 1.
    ignored : ndarray of shape (n_patches,)
        Share of the ignored classes together, in [0, 1].
    """

    fractions: np.ndarray
    ignored: np.ndarray


def class_fractions(
    regions: Sequence[Region],
    grid: PatchGrid,
    classes: Sequence[str],
    *,
    ignore: Sequence[str] = ("vague",),
) -> ClassFractions:
    """Share of each class in each patch, from exact polygon areas.

    Where regions overlap, the last in ``regions`` is on top: a point of the slide belongs to the last region
    that contains it, which may be an ignored one.

    Parameters
    ----------
    regions : sequence of Region
        Annotated areas, in level-0 pixels, bottom to top.
    grid : PatchGrid
        Patches; ``grid.boxes`` are their level-0 boxes.
    classes : sequence of str
        Class names: the columns of the result.
    ignore : sequence of str, default ("vague",)
        Class names whose area counts as ignored.

    Returns
    -------
    ClassFractions
        ``fractions`` (n_patches, n_classes) and ``ignored`` (n_patches,), in [0, 1]. The patch is the whole
        box, even if it extends beyond the slide.

    Raises
    ------
    ValueError
        If a region has a class that is neither in ``classes`` nor in ``ignore``.

    Notes
    -----
    Regions that are entirely hidden by later ones have no effect; a logged warning names them.

    Examples
    --------
    >>> import shapely
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((20, 10), mpp=1.0, patch_mpp=1.0, size=10)
    >>> regions = [
    ...     Region("solid", shapely.box(0, 0, 15, 10)),
    ...     Region("vague", shapely.box(0, 0, 4, 10)),
    ... ]
    >>> class_fractions(regions, grid, ["lepidic", "solid"])
    ClassFractions(fractions=array([[0. , 0.6],
           [0. , 0.5]]), ignored=array([0.4, 0. ]))
    """
    classes, ignore = check_names(classes, "classes"), check_names(ignore, "ignore")
    both = set(classes) & set(ignore)
    if both:
        raise ValueError(f"{sorted(both)} are both in classes and in ignore; leave them in one")
    columns = {name: i for i, name in enumerate(classes)} | dict.fromkeys(ignore, len(classes))
    unknown = sorted({region.class_name for region in regions} - set(columns))
    if unknown:
        raise ValueError(
            f"regions of class {unknown} are neither in classes {list(classes)} nor in ignore "
            f"{list(ignore)}; rename them with class_map when reading, or ignore them"
        )
    x0, y0, x1, y1 = np.asarray(grid.boxes, dtype=float).reshape(-1, 4).T
    boxes = shapely.box(x0, y0, x1, y1)
    pieces, owners = _visible_pieces([region.geometry for region in regions])
    _warn_of_hidden(regions, owners)
    column = np.array([columns[region.class_name] for region in regions], dtype=int)[owners]
    areas = _areas(boxes, pieces, column, len(classes) + 1)
    fractions = np.clip(areas / ((x1 - x0) * (y1 - y0))[:, np.newaxis], 0.0, 1.0)
    return ClassFractions(fractions[:, :-1], fractions[:, -1])


def patch_labels(
    fractions: np.ndarray,
    classes: Sequence[str],
    *,
    ignored: np.ndarray | None = None,
    min_fraction: float = 0.5,
    max_ignored: float = 0.25,
) -> np.ndarray:
    """Label of each patch: its majority class, or None.

    A patch gets the class with the largest share if that share is at least ``min_fraction`` and larger than
    that of every other class. Patches with too little annotation, without a majority class, or with an
    ignored share above ``max_ignored`` get None.

    Parameters
    ----------
    fractions : ndarray of shape (n_patches, n_classes)
        Share of each class in each patch, from :func:`class_fractions`.
    classes : sequence of str
        Class names, one per column.
    ignored : ndarray of shape (n_patches,), optional
        Ignored (vague) share of each patch; none by default.
    min_fraction : float, default 0.5
        Smallest share of the majority class in the patch, in (0, 1].
    max_ignored : float, default 0.25
        Largest ignored share, in [0, 1], of a labeled patch.

    Returns
    -------
    labels : ndarray of shape (n_patches,), dtype object
        Class names; None where there is no label. Classifiers refuse None: ``labels != None`` (or
        ``pandas.notna(labels)``) says which patches to fit on.

    Raises
    ------
    ValueError
        If shapes do not fit or a threshold is out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> fractions = np.array([[0.7, 0.3], [0.5, 0.5], [0.4, 0.0], [0.6, 0.0]])
    >>> patch_labels(fractions, ["a", "b"], ignored=np.array([0.0, 0.0, 0.0, 0.4]))
    array(['a', None, None, None], dtype=object)
    >>> labels = patch_labels(fractions, ["a", "b"])
    >>> labels[labels != None]
    array(['a', 'a'], dtype=object)
    """
    classes = check_names(classes, "classes")
    fractions = np.asarray(fractions, dtype=float)
    if fractions.ndim != 2 or fractions.shape[1] != len(classes):
        raise ValueError(
            f"fractions must have one column for each of {len(classes)} classes, got shape "
            f"{fractions.shape}"
        )
    if not 0 < min_fraction <= 1:
        raise ValueError(f"min_fraction must lie in (0, 1], got {min_fraction}")
    if not 0 <= max_ignored <= 1:
        raise ValueError(f"max_ignored must lie in [0, 1], got {max_ignored}")
    ignored = np.zeros(len(fractions)) if ignored is None else np.asarray(ignored, dtype=float)
    if ignored.shape != (len(fractions),):
        raise ValueError(
            f"ignored must have one value for each of {len(fractions)} patches, got shape "
            f"{ignored.shape}"
        )
    labels = np.full(len(fractions), None, dtype=object)
    if not len(classes) or not len(fractions):
        return labels
    tolerance = 1e-9  # tolerance for float areas, so that exactly half counts as half
    largest = fractions.max(axis=1)
    majority = (
        (largest >= min_fraction - tolerance)
        & ((fractions >= largest[:, np.newaxis] - tolerance).sum(axis=1) == 1)
        & (ignored <= max_ignored + tolerance)
    )
    names = np.array(classes, dtype=object)
    labels[majority] = names[fractions.argmax(axis=1)[majority]]
    return labels


def _visible_pieces(geometries: Sequence[shapely.Geometry]) -> tuple[np.ndarray, np.ndarray]:
    """Visible parts of each region, cut into small polygons, and the region of each polygon."""
    shapes = np.array(geometries, dtype=object)
    covers = _covers(shapes)
    pieces: list[shapely.Geometry] = []
    owners: list[int] = []
    for index, shape in enumerate(shapes):
        if len(covers[index]):
            shape = polygon_parts(shape.difference(shapely.union_all(shapes[covers[index]])))
        for part in shapely.get_parts(shape) if shape is not None else ():
            cut = _cut(part)
            pieces.extend(cut)
            owners.extend([index] * len(cut))
    return np.array(pieces, dtype=object), np.array(owners, dtype=int)


def _warn_of_hidden(regions: Sequence[Region], owners: np.ndarray) -> None:
    """Warn of regions that are entirely hidden by later ones."""
    gone = np.setdiff1d(np.arange(len(regions)), owners).tolist()
    hidden = [i for i in gone if not regions[i].geometry.is_empty]
    if hidden:
        named = [f"{i} ({regions[i].name or regions[i].class_name!r})" for i in hidden[:5]]
        named += [f"and {len(hidden) - 5} more"] if len(hidden) > 5 else []
        logger.warning(
            "%d region(s) entirely hidden by later ones: region %s",
            len(hidden),
            ", ".join(named),
        )


def _covers(shapes: np.ndarray) -> list[np.ndarray]:
    """For each shape, the later ones that overlap it."""
    tree = shapely.STRtree(shapes)
    shapely.prepare(shapes)
    covers, n_pairs = [], 0
    for index, shape in enumerate(shapes):
        above = tree.query(shape, predicate="intersects")
        above = np.sort(above[above > index])
        n_pairs += len(above)
        if n_pairs > MAX_OVERLAPS:
            raise ValueError(
                f"more than {MAX_OVERLAPS:,} pairs of regions overlap; give outlines of regions, "
                "not the same ones many times"
            )
        covers.append(above[~shapely.touches(shape, shapes[above])])
    return covers


def _cut(polygon: shapely.Polygon) -> list[shapely.Geometry]:
    """Halve a polygon until its pieces have few vertices, so that a box intersects few of them."""
    pieces, todo = [], [(polygon, 0)]
    while todo:
        part, depth = todo.pop()
        if shapely.get_num_coordinates(part) <= MAX_PIECE_VERTICES or depth == 40:
            pieces.append(part)
            continue
        x0, y0, x1, y1 = part.bounds
        if x1 - x0 >= y1 - y0:
            middle = (x0 + x1) / 2
            halves = (x0, y0, middle, y1), (middle, y0, x1, y1)
        else:
            middle = (y0 + y1) / 2
            halves = (x0, y0, x1, middle), (x0, middle, x1, y1)
        for half in halves:
            inside = polygon_parts(shapely.intersection(part, shapely.box(*half)))
            todo.extend((piece, depth + 1) for piece in shapely.get_parts(inside) if inside)
    return pieces


def _areas(boxes: np.ndarray, pieces: np.ndarray, column: np.ndarray, n_columns: int):
    """Area (n_boxes, n_columns) that pieces of each column cover of each box."""
    areas = np.zeros((len(boxes), n_columns))
    if not len(pieces):
        return areas
    shapely.prepare(pieces)
    tree = shapely.STRtree(pieces)
    for start in range(0, len(boxes), PAIRS_AT_ONCE // 10):
        some = boxes[start : start + PAIRS_AT_ONCE // 10]
        box, piece = tree.query(some, predicate="intersects")
        for first in range(0, len(box), PAIRS_AT_ONCE):
            b, p = box[first : first + PAIRS_AT_ONCE], piece[first : first + PAIRS_AT_ONCE]
            area = shapely.area(some[b])
            partly = ~shapely.covers(pieces[p], some[b])
            area[partly] = shapely.area(shapely.intersection(pieces[p[partly]], some[b[partly]]))
            np.add.at(areas, (b + start, column[p]), area)
    return areas
