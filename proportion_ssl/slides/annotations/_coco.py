"""COCO: polygons of one image, with categories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from proportion_ssl.slides.annotations.regions import AnnotationError, Outline, as_ring


def is_coco(document: Any) -> bool:
    """Whether a parsed JSON document has the lists of COCO."""
    return isinstance(document, dict) and {"images", "annotations", "categories"} <= document.keys()


def coco_outlines(document: dict, source: str) -> Iterator[Outline]:
    """Outlines of the single image; polygons of an annotation are united, run lengths are an error."""
    for key in ("images", "annotations", "categories"):
        if not isinstance(document[key], list) or not all(
            isinstance(x, dict) for x in document[key]
        ):
            raise AnnotationError(f"{source}: {key!r} must be a list of objects")
    if len(document["images"]) != 1:
        raise AnnotationError(
            f"{source}: {len(document['images'])} images; give a file with one, that of the slide"
        )
    image = document["images"][0].get("id")
    names = {category.get("id"): category.get("name") for category in document["categories"]}
    for index, annotation in enumerate(document["annotations"]):
        where = f"annotation {annotation.get('id', index)}"
        if annotation.get("image_id") != image:
            raise AnnotationError(
                f"{source}: {where}: belongs to image {annotation.get('image_id')!r}"
            )
        name = names.get(annotation.get("category_id"))
        if not isinstance(name, str):
            raise AnnotationError(
                f"{source}: {where}: category {annotation.get('category_id')!r} has no name"
            )
        yield Outline(where, (name,), tuple(_parts(annotation, f"{source}: {where}")))


def _parts(annotation: dict, where: str) -> Iterator[tuple[np.ndarray, ...]]:
    polygons = annotation.get("segmentation")
    if isinstance(polygons, dict):
        raise AnnotationError(
            f"{where}: the area is given as run lengths; export polygons, or a label map for read_label_map"
        )
    if not isinstance(polygons, list):
        raise AnnotationError(f"{where}: 'segmentation' must be a list of polygons")
    for number, flat in enumerate(polygons):
        if not isinstance(flat, list) or len(flat) % 2:
            raise AnnotationError(f"{where}: polygon {number} must be a list x, y, x, y, ...")
        pairs = [flat[at : at + 2] for at in range(0, len(flat), 2)]
        yield (as_ring(pairs, f"{where}, polygon {number}"),)
