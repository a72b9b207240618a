"""Cytomine: annotations as WKT, with the origin in the lower left corner of the image.

Sources: the example ``get_annotations.py`` of Cytomine-python-client, which writes the table and turns the y
axis round by the height of the image, and the reply of ``/api/annotation.json?showWKT=true``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import shapely

from proportion_ssl.slides.annotations._documents import Table
from proportion_ssl.slides.annotations.regions import AnnotationError, Outline, check_numbers

GEOMETRY = ("wkt", "geometry", "location")
TERMS = ("term", "terms")
AREAS = ("Polygon", "MultiPolygon", "GeometryCollection")


def is_cytomine(document: Any) -> bool:
    """Whether a document is a table with WKT, or a list of annotations as Cytomine's server gives it."""
    if isinstance(document, Table):
        return True
    return bool(_collection(document)) and all("location" in one for one in _collection(document))


def cytomine_outlines(document: Any, source: str) -> Iterator[Outline]:
    """Outlines with y measured upwards; the class is the term, a number unless names were exported."""
    rows = document.rows if isinstance(document, Table) else _collection(document)
    images = list(dict.fromkeys(str(row["image"]) for row in rows if row.get("image") is not None))
    if len(images) > 1:
        raise AnnotationError(
            f"{source}: holds annotations of {len(images)} images ({', '.join(images[:3])}); give a file "
            "with those of one, that of the slide"
        )
    for index, row in enumerate(rows):
        where = f"annotation {row.get('id', index)}"
        text = next((row[name] for name in GEOMETRY if row.get(name)), None)
        if not isinstance(text, str):
            raise AnnotationError(f"{source}: {where}: has no WKT; fetch annotations with showWKT")
        names = _terms(next((row[name] for name in TERMS if row.get(name)), None))
        labels = names if len(names) < 2 else (", ".join(names), *names)
        yield Outline(where, labels, tuple(_parts(text, f"{source}: {where}")))


def turn_over(outlines: Iterator[Outline], height: float | None, source: str) -> Iterator[Outline]:
    """Outlines in level-0 pixels: y becomes ``height - y``.

    Parameters
    ----------
    outlines : iterator of Outline
    height : float or None
        Height of the slide at level 0.
    source : str

    Raises
    ------
    AnnotationError
        If the height is not given.
    """
    if height is None:
        raise AnnotationError(
            f"{source}: Cytomine measures y from the lower edge of the image; give slide= or dimensions="
        )
    for outline in outlines:
        parts = tuple(
            tuple(np.column_stack([ring[:, 0], height - ring[:, 1]]) for ring in rings)
            for rings in outline.parts
        )
        yield replace(outline, parts=parts)


def _collection(document: Any) -> list[dict]:
    """The annotations of a reply, {"collection": [...]} or the list itself; empty if it is none."""
    rows = document.get("collection") if isinstance(document, dict) else document
    is_list = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    return rows if is_list and isinstance(rows, list) else []


def _terms(value: Any) -> tuple[str, ...]:
    """Names or numbers of terms, from a list or a text such as "[123, 456]"."""
    if value is None:
        return ()
    if isinstance(value, list):
        return tuple(str(one) for one in value)
    inner = re.fullmatch(r"\[(.*)\]", str(value).strip())
    parts = [str(value)] if inner is None else inner[1].split(",")
    return tuple(name for part in parts if (name := part.strip().strip("'\"")))


def _parts(text: str, where: str) -> Iterator[tuple[np.ndarray, ...]]:
    try:
        geometry = shapely.from_wkt(text)
    except (shapely.errors.GEOSException, ValueError) as error:
        raise AnnotationError(f"{where}: {text[:40]!r} is no WKT ({error})") from error
    if geometry is None or geometry.geom_type not in AREAS:
        return
    for polygon in shapely.get_parts(geometry):
        if polygon.geom_type == "Polygon" and not polygon.is_empty:
            rings = [
                np.asarray(ring.coords)[:, :2] for ring in (polygon.exterior, *polygon.interiors)
            ]
            for ring in rings:
                check_numbers(ring, where)
            yield tuple(rings)
