"""Annotated regions of a slide, read from files, and the class of every patch.

Formats: QuPath GeoJSON (also ``.geojson.gz`` and ``.zip``), ASAP XML, Aperio ImageScope XML, HALO,
Hamamatsu NDPA, Sedeen, COCO, Cytomine (WKT), large_image / Digital Slide Archive annotation JSON, and
label-map rasters (PNG, TIFF). All give the same :class:`Region`, in level-0 pixels of the slide.

Overlapping regions: the one drawn last, that is later in the list, lies on top and hides those
below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from proportion_ssl.slides.annotations._assemble import to_regions
from proportion_ssl.slides.annotations._coco import coco_outlines, is_coco
from proportion_ssl.slides.annotations._coverage import (
    ClassFractions,
    class_fractions,
    patch_labels,
)
from proportion_ssl.slides.annotations._cytomine import (
    cytomine_outlines,
    is_cytomine,
    turn_over,
)
from proportion_ssl.slides.annotations._documents import read_document
from proportion_ssl.slides.annotations._dsa import dsa_outlines, is_dsa
from proportion_ssl.slides.annotations._frames import (
    COCO,
    CYTOMINE,
    DSA,
    GEOJSON,
    IMAGESCOPE,
    NDPA,
    SEDEEN,
    Dialect,
    SlideFrame,
    check_resolution,
    check_slide,
    frame_by_hand,
    frame_of,
)
from proportion_ssl.slides.annotations._geojson import geojson_outlines, is_geojson
from proportion_ssl.slides.annotations._hamamatsu import is_ndpa, ndpa_outlines, to_pixels
from proportion_ssl.slides.annotations._rasters import read_label_map
from proportion_ssl.slides.annotations._sedeen import is_sedeen, sedeen_outlines
from proportion_ssl.slides.annotations._xml import (
    imagescope_mpp,
    xml_dialect,
    xml_outlines,
)
from proportion_ssl.slides.annotations.regions import (
    AnnotationError,
    Outline,
    Region,
    check_names,
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
    slide: SlideFrame | None = None,
    offset: tuple[float, float] | None = None,
    dimensions: tuple[int, int] | None = None,
) -> list[Region]:
    """Read the annotated regions of a slide.

    Parameters
    ----------
    path : str or path-like
        QuPath GeoJSON (plain, gzip or zip), ASAP XML, Aperio ImageScope XML, HALO (``.annotations``),
        Hamamatsu NDPA, a Sedeen session, COCO polygons of one image, annotations of Cytomine (a table with
        a column ``WKT``, or the JSON of its server), or large_image / Digital Slide Archive annotation
        JSON. The format is recognized from the content, not from the extension.
    class_map : mapping, optional
        From names in the file to class names. Other names stay unchanged. The value None drops the
        shapes of a name. The key None gives a class to unclassified shapes, which are dropped otherwise.
        A key can also be a color ``"#rrggbb"`` (for ImageScope layers without a name), or the base class
        of a derived class of QuPath (``"Tumor"`` for ``"Tumor: Positive"``).
    order : sequence of str, optional
        Class names from bottom to top: regions of later names lie on top, and regions of other names
        below all. Use it for files whose order is not the order of drawing, such as ASAP's exclusion
        groups. Default: the order of the file.
    slide : Slide, optional
        The slide that was outlined, as :func:`~proportion_ssl.slides.open_slide` gives it, or any
        object with ``bounds``, ``dimensions`` and ``mpp``. Coordinates are then shifted to level-0
        pixels by the rule of the program that wrote the file (see Notes), regions are cut to the
        slide, and files that do not fit it are refused.
    offset : tuple of two float, optional
        Instead of ``slide``: level-0 position (x, y) of the file's origin. Default: (0, 0).
    dimensions : tuple of two int, optional
        Instead of ``slide``: (width, height) of the slide at level 0. Regions are then clipped to it, and
        a region with more than half of its area outside is an error.

    Returns
    -------
    regions : list of Region
        Valid polygons, in the order of the file or of ``order``: later ones lie on top.

    Raises
    ------
    AnnotationError
        If the file is malformed, has an unknown format, or has more than 128 MiB, 5 million
        vertices or 100,000 crossings of its outlines; if more than half of an outline lies
        outside the scanned part of the slide; if the file states a resolution that differs from that
        of the slide by more than 2% (ImageScope's ``MicronsPerPixel``, QuPath's measured areas). It is a
        ``ValueError`` that names file, element and remedy.
    TypeError, ValueError
        If an argument is invalid, or ``offset`` or ``dimensions`` is given
        together with ``slide``.

    Notes
    -----
    The class of a shape is the first that exists of the following. What can also be a key of ``class_map`` is
    in parentheses:

    - GeoJSON: ``classification.name``, or its ``names`` joined by ``": "``. Objects of every type
      are read (annotations, detections, cells without their nuclei, tiles).
    - ASAP: ``PartOfGroup`` (the groups above it). A ``Spline`` is read as the polygon of its points.
    - ImageScope: the name of the layer, or the text of its attributes, or its color (the text of
      the region).
    - HALO: the name of the layer, or its color. NDPA: the title, or the color. Sedeen: the description, or
      the name, or the color. COCO: the category. Cytomine: the term, which is a number unless names were
      exported; several terms are joined by ``", "`` (each term alone).
    - large_image: the group, or the label, or the name of the annotation. Polylines are areas only
      if ``closed`` is true.

    The origin of the coordinates depends on the program. It matters for slides with ``openslide.bounds-x``
    (MRXS, Leica SCN), whose scanned part is smaller than the slide:

    - ASAP: the corner of the whole slide, as in OpenSlide.
    - QuPath, and all other GeoJSON: the corner of the scanned part.
    - large_image and the Digital Slide Archive: the corner of the scanned part.
    - ImageScope: unknown, since it shows such slides cropped and rotated. With ``slide``, its files are
      an error if the scanned part is not the whole slide. The same holds for HALO, Sedeen, COCO
      and Cytomine, whose origin is not documented.
    - Cytomine: y starts at the lower border of the image, so that `slide` or `dimensions` is needed.
    - NDPA: the center of the glass, in nanometers, so that ``slide`` (an NDPI slide) is needed.

    Areas:

    - Polygons of GeoJSON and large_image are filled by the even-odd rule, regardless of order and
      orientation of their rings: rings inside the first are holes, rings outside it are further parts.
      The rule also applies to outlines that cross themselves. Polygons of a MultiPolygon are united.
    - ImageScope: regions with ``NegativeROA`` are cut out of all others of their layer. A positive region
      inside a negative region that lies in another region is an island, and is kept.
    - Points, lines, arrows, rulers, heat maps and shapes with fewer than three vertices have no
      area and are left out.

    Logged warnings count and name the shapes that were left out, repaired (with the share of area that was
    lost), clipped at the border of the slide (with the share of their area), entirely cut out by negative
    regions, or entirely covered by a region on top.

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
    order = None if order is None else check_names(order, "order")
    if slide is None:
        frame = frame_by_hand(offset, dimensions)
    elif offset is not None or dimensions is not None:
        raise ValueError("slide= already defines offset= and dimensions=; give one or the other")
    else:
        check_slide(slide)
    source = str(path)
    document = read_document(path)
    dialect, outlines = _read_outlines(document, source)
    if dialect is NDPA:
        outlines = to_pixels(outlines, slide, source)
    if dialect is CYTOMINE:
        size = dimensions if slide is None else slide.dimensions
        outlines = turn_over(outlines, None if size is None else size[1], source)
    if slide is not None:
        frame = frame_of(slide, dialect, source)
    if dialect is IMAGESCOPE and frame.mpp is not None:
        stated = imagescope_mpp(document, source)
        check_resolution(stated, "its MicronsPerPixel is", frame.mpp, source)
    return to_regions(outlines, source, class_map=class_map, order=order, frame=frame)


def _check_class_map(class_map: Mapping | None) -> None:
    if class_map is None:
        return
    if not isinstance(class_map, Mapping):
        raise TypeError(f"class_map must be a mapping, got {type(class_map).__name__}")
    for pair in class_map.items():
        if not all(part is None or isinstance(part, str) for part in pair):
            raise TypeError(f"class_map must map names to names or None, got {pair!r}")


FORMATS: tuple[
    tuple[Callable[[Any], bool], Callable[..., Iterator[Outline]], Dialect | None], ...
] = (
    (is_ndpa, ndpa_outlines, NDPA),
    (is_sedeen, sedeen_outlines, SEDEEN),
    (lambda document: isinstance(document, Element), xml_outlines, None),
    (is_cytomine, cytomine_outlines, CYTOMINE),
    (is_dsa, dsa_outlines, DSA),
    (is_geojson, geojson_outlines, GEOJSON),
    (is_coco, coco_outlines, COCO),
)
"""Detector, reader and dialect of each format; None: by the root element."""


def _read_outlines(document: Any, source: str) -> tuple[Dialect, Iterator[Outline]]:
    for matches, outlines, dialect in FORMATS:
        if matches(document):
            return dialect or xml_dialect(document, source), outlines(document, source)
    raise AnnotationError(
        f"{source}: a JSON file, but neither GeoJSON (type 'FeatureCollection') nor a large_image "
        "annotation ('elements'), nor COCO ('images', 'annotations' and 'categories'), nor annotations of "
        "Cytomine ('location')"
    )
