"""Annotated regions of a slide, read from files, and the class of every patch.

Formats: QuPath GeoJSON (also ``.geojson.gz`` and ``.zip``), ASAP XML, Aperio ImageScope XML,
large_image / Digital Slide Archive annotation JSON, and label-map rasters (PNG, TIFF). All give
the same :class:`Region`, in level-0 pixels of the slide.

Overlapping regions: the one drawn last, that is later in the list, lies on top and hides those
below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from proportion_ssl.slides.annotations._coverage import (
    ClassFractions,
    class_fractions,
    patch_labels,
)
from proportion_ssl.slides.annotations._documents import read_document
from proportion_ssl.slides.annotations._dsa import dsa_outlines, is_dsa
from proportion_ssl.slides.annotations._geojson import geojson_outlines, is_geojson
from proportion_ssl.slides.annotations._rasters import read_label_map
from proportion_ssl.slides.annotations._xml import xml_outlines
from proportion_ssl.slides.annotations.regions import (
    AnnotationError,
    Outline,
    Region,
    check_names,
    to_regions,
)

__all__ = [
    "AnnotationError",
    "ClassFractions",
    "Region",
    "class_fractions",
    "patch_labels",
    "read_annotations",
    "read_label_map",
]


def read_annotations(
    path: str | PathLike[str],
    *,
    class_map: Mapping[str | None, str | None] | None = None,
    order: Sequence[str] | None = None,
    offset: tuple[float, float] = (0, 0),
    dimensions: tuple[int, int] | None = None,
) -> list[Region]:
    """Read the annotated regions of a slide.

    Parameters
    ----------
    path : str or path-like
        QuPath GeoJSON (plain, gzip or zip), ASAP XML, Aperio ImageScope XML, or large_image /
        Digital Slide Archive annotation JSON. The content decides, not the extension.
    class_map : mapping, optional
        From names in the file to class names. Names it does not hold stay as they are. The
        value None leaves a name out; the key None names the unclassified shapes, which are
        left out otherwise. A colour as ``"#rrggbb"`` can stand for the name, which is needed
        for ImageScope layers without one; for QuPath's derived classes (``"Tumor: Positive"``)
        so can the base class.
    order : sequence of str, optional
        Class names from bottom to top, for files whose order is not the order of drawing, such
        as ASAP's exclusion groups: regions of later names lie on top, those of names not given
        below all. By default the order of the file.
    offset : tuple of two float, default (0, 0)
        Level-0 position (x, y) of the file's origin. QuPath and large_image show slides with
        ``openslide.bounds-x`` and ``-y`` cropped and count pixels from there: give
        ``slide.bounds[:2]`` for their files.
    dimensions : tuple of two int, optional
        (width, height) of the slide at level 0. If given, regions are clipped to the slide, and
        one wholly outside is an error.

    Returns
    -------
    regions : list of Region
        Valid polygons, in the order of the file or of ``order``: later ones lie on top.

    Raises
    ------
    AnnotationError
        If the file is malformed, is of no known format, or has more than 128 MiB or 5 million
        vertices; a ``ValueError`` that names file, element and remedy.
    TypeError, ValueError
        If ``class_map``, ``order`` or ``offset`` is not of the described form.

    Notes
    -----
    The class of a shape, and what else can stand for it in ``class_map``:

    - GeoJSON: ``classification.name``, or its ``names`` joined by ``": "``. Objects of every type
      count (annotations, detections, cells without their nuclei, tiles).
    - ASAP: ``PartOfGroup``; the groups above that one. ``Spline`` is the polygon of its points.
    - ImageScope: the name of the layer, or the text of its attributes, or its colour; the text of
      the region. Regions with ``NegativeROA`` are holes of the region around them.
    - large_image: the group, or the label, or the name of the annotation. Polylines are areas only
      if ``closed`` is true.

    Repairs, each counted in a logged warning: outlines that cross themselves enclose what a ray
    enters an odd number of times (as viewers fill them); overlapping polygons of one shape are
    united; points, lines, arrows, rulers, heat maps and shapes with fewer than three vertices mark
    no area and are left out.

    Examples
    --------
    >>> import json, pathlib, tempfile
    >>> feature = {
    ...     "type": "Feature",
    ...     "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [8, 0], [0, 8], [0, 0]]]},
    ...     "properties": {"classification": {"name": "Acinar", "color": [255, 255, 0]}},
    ... }
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "slide.geojson"
    >>> _ = path.write_text(json.dumps([feature]))
    >>> [region] = read_annotations(path, class_map={"Acinar": "acinar"})
    >>> region.class_name, region.geometry.area, region.color
    ('acinar', 32.0, (255, 255, 0))
    """
    path = Path(path)
    _check_class_map(class_map)
    if np.shape(offset) != (2,) or not np.isfinite(offset).all():
        raise ValueError(f"offset must be two finite numbers (x, y), got {offset!r}")
    regions = to_regions(
        _outlines(read_document(path), path),
        str(path),
        class_map=class_map,
        offset=offset,
        dimensions=dimensions,
    )
    if order is None:
        return regions
    height = {name: i for i, name in enumerate(check_names(order, "order"))}
    return sorted(regions, key=lambda region: height.get(region.class_name, -1))


def _check_class_map(class_map: Mapping | None) -> None:
    if class_map is None:
        return
    if not isinstance(class_map, Mapping):
        raise TypeError(f"class_map must be a mapping, got {type(class_map).__name__}")
    for pair in class_map.items():
        if not all(part is None or isinstance(part, str) for part in pair):
            raise TypeError(f"class_map must map names to names or None, got {pair!r}")


def _outlines(document: Any, path: Path) -> Iterator[Outline]:
    if isinstance(document, Element):
        return xml_outlines(document, str(path))
    if is_dsa(document):
        return dsa_outlines(document, str(path))
    if is_geojson(document):
        return geojson_outlines(document, str(path))
    raise AnnotationError(
        f"{path}: a JSON file, but neither GeoJSON (type 'FeatureCollection') nor a large_image "
        "annotation ('elements')"
    )
