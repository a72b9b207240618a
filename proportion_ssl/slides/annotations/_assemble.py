"""Turn the outlines of a file into regions: name, repair, cut and place them on the slide."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from shapely import MultiPolygon, Polygon

from proportion_ssl.slides.annotations._even_odd import Work, fill
from proportion_ssl.slides.annotations._frames import Frame, check_resolution
from proportion_ssl.slides.annotations._hidden import find_hidden
from proportion_ssl.slides.annotations._negative import subtract
from proportion_ssl.slides.annotations.regions import (
    MAX_VERTICES,
    AnnotationError,
    Outline,
    Region,
    shortened,
)

logger = logging.getLogger(__name__)

NAMED_AT_MOST = 5  # shapes in one warning
REPAIRED = (
    "repaired (by the even-odd rule for rings that cross or lie side by side; overlapping polygons "
    "are united)"
)
LEAST_SHARE = 0.001  # smallest share of an area that is worth a warning


@dataclass
class _Shape:
    """An outline being converted to a region; ``class_name`` is None if it is left out."""

    outline: Outline
    class_name: str | None
    title: str
    geometry: Polygon | MultiPolygon | None
    as_drawn: bool


class _Notes:
    """Collect warnings about the shapes of a file, logged with one line per kind."""

    def __init__(self, source: str):
        self._source = source
        self._found: dict[str, list[str]] = {}

    def add(self, what: str, title: str = "") -> None:
        self._found.setdefault(what, []).append(title)

    def log(self) -> None:
        for what, titles in self._found.items():
            named = [title for title in titles[:NAMED_AT_MOST] if title]
            if named and len(titles) > NAMED_AT_MOST:
                named.append(f"and {len(titles) - NAMED_AT_MOST} more")
            text = f"{what}: {', '.join(named)}" if named else what
            logger.warning("%s: %d shape(s) %s", self._source, len(titles), text)


def to_regions(
    outlines: Iterable[Outline],
    source: str,
    *,
    class_map: Mapping[str | None, str | None] | None,
    order: Sequence[str] | None,
    frame: Frame,
) -> list[Region]:
    """Regions of one file, see ``read_annotations``."""
    notes = _Notes(source)
    shapes = _shapes(outlines, source, class_map, notes)
    if frame.mpp is not None:
        check_resolution(_implied_mpp(shapes), "its measured areas imply", frame.mpp, source)
    shapes = [shape for shape in shapes if shape.class_name is not None]
    if order is not None:
        height = {name: i for i, name in enumerate(order)}
        shapes.sort(key=lambda shape: height.get(shape.class_name or "", -1))
    regions, titles = [], []
    for shape in shapes:
        outline = shape.outline
        if shape.geometry is None or shape.class_name is None:
            continue
        geometry, cut_off = frame.place(shape.geometry, f"{source}: {shape.title}")
        if cut_off >= LEAST_SHARE:
            notes.add("cut at the border of the slide", f"{shape.title} by {cut_off:.1%}")
        regions.append(
            Region(shape.class_name, geometry, outline.color, outline.name, outline.measurements)
        )
        titles.append(shape.title)
    hidden, complete = find_hidden([region.geometry for region in regions])
    for below, above in sorted(hidden.items()):
        notes.add("entirely hidden by a later one", f"{titles[below]} by {titles[above]}")
    if not complete:
        logger.warning("%s: too many shapes overlap to find all hidden ones", source)
    notes.log()
    return regions


def _shapes(outlines, source: str, class_map, notes: _Notes) -> list[_Shape]:
    """Outlines with class and valid area, after subtraction of negative outlines."""
    shapes: list[_Shape] = []
    layers: dict[str, list[_Shape]] = {}
    n_vertices, work = 0, Work()
    for outline in outlines:
        n_vertices += sum(len(ring) for polygon in outline.parts for ring in polygon)
        if n_vertices > MAX_VERTICES:
            raise AnnotationError(
                f"{source}: more than {MAX_VERTICES:,} vertices; export outlines of regions, "
                "not of single cells, or simplify them"
            )
        class_name = None if outline.negative else _class_name(outline.labels, class_map)
        if class_name is None and not outline.negative and not outline.labels:
            notes.add("without a class left out (name them by class_map={None: ...})")
        if class_name is None and outline.layer is None:
            continue
        title = _title(outline, class_name)
        geometry, repaired, lost = fill(outline.parts, work, f"{source}: {outline.where}")
        if geometry is None and (class_name is not None or outline.negative):
            notes.add("without an area (points, lines) left out")
        if repaired:
            notes.add(REPAIRED, title)
        if geometry is not None and lost >= LEAST_SHARE * (geometry.area + lost):
            share = lost / (geometry.area + lost)
            notes.add(
                "losing area in the repair, because it is encircled twice", f"{title} {share:.1%}"
            )
        shape = _Shape(outline, class_name, title, geometry, not repaired)
        shapes.append(shape)
        if outline.layer is not None and geometry is not None:
            layers.setdefault(outline.layer, []).append(shape)
    for layer, members in layers.items():
        _cut(members, f"{source}: {layer}", work, notes)
    return shapes


def _cut(members: list[_Shape], where: str, work: Work, notes: _Notes) -> None:
    """Cut the negative shapes of a layer out of the others."""
    positive = [shape for shape in members if not shape.outline.negative]
    negative = [shape for shape in members if shape.outline.negative]
    before = [shape.geometry for shape in positive]
    left = subtract(before, [shape.geometry for shape in negative], work, where)
    for shape, geometry, drawn in zip(positive, left.geometries, before, strict=True):
        shape.as_drawn &= geometry is drawn
        shape.geometry = geometry
        if geometry is None and shape.class_name is not None:
            notes.add("entirely cut out by negative regions", shape.title)
    for number in left.without_effect:
        notes.add("negative, but over no region of their layer", negative[number].title)
    for island, hole in left.islands:
        title = f"{positive[island].title} in {negative[hole].title}"
        notes.add("kept as islands in a negative region", title)


def _class_name(labels: Sequence[str], class_map) -> str | None:
    if class_map is None:
        return labels[0] if labels else None
    if not labels:
        return class_map.get(None)
    for label in labels:
        if label in class_map:
            return class_map[label]
    return labels[0]


def _title(outline: Outline, class_name: str | None) -> str:
    """Place in the file, name and class."""
    title = outline.where
    if outline.name and repr(outline.name) not in title:
        title += f" {shortened(outline.name)}"
    return title if class_name is None else f"{title} ({shortened(class_name)})"


def _implied_mpp(shapes: Sequence[_Shape]) -> float | None:
    """Microns per pixel from measured areas of shapes that are as drawn; None if they disagree.

    They disagree if outlines were changed after the measurement.
    """
    sizes = []
    for shape in shapes:
        area = shape.outline.area_um2
        if area is not None and area > 0 and shape.as_drawn and shape.geometry is not None:
            sizes.append(np.sqrt(area / shape.geometry.area))
    if not sizes or max(sizes) > 1.05 * min(sizes):
        return None
    return float(np.median(sizes))
