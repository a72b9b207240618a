"""TRIDENT: ``features`` with the attribute ``encoder``, ``coords`` with the geometry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.formats.stored import (
    PatchFacts,
    dimensions_of,
    encoder_of,
    name_of,
    positive,
    unit_of,
    whole,
)

PROGRAM = "TRIDENT"


def matches(attributes: Mapping[str, Any], datasets: set[str]) -> bool:
    """Whether the attributes are TRIDENT's."""
    return bool({"patch_size_level0", "target_magnification"} & attributes.keys())


def facts(attributes: Mapping[str, Any], path: Path) -> PatchFacts:
    """Geometry by TRIDENT's attributes.

    Raises
    ------
    FeatureFileError
        If an attribute is no positive number, or sizes and magnifications contradict each other.
    """
    size = whole(positive(attributes, "patch_size", path), "patch_size", path)
    side = positive(attributes, "patch_size_level0", path)
    magnification = positive(attributes, "target_magnification", path)
    of_slide = positive(attributes, "level0_magnification", path)
    overlap = whole(positive(attributes, "overlap", path, zero=True), "overlap", path)
    if None not in (size, side, magnification, of_slide):
        expected = size * of_slide / magnification  # type: ignore[operator]
        if abs(expected - side) > 1:  # type: ignore[operator]  # TRIDENT rounds down
            raise FeatureFileError(
                f"{path}: the attributes contradict each other: patch_size {size} at {magnification:g}x of a "
                f"slide of {of_slide:g}x is {expected:g} level-0 pixels, but patch_size_level0 is {side:g}"
            )
    if size is not None and overlap is not None and overlap >= size:
        raise FeatureFileError(
            f"{path}: the attribute 'overlap' is {overlap}, not less than patch_size {size}"
        )
    return PatchFacts(
        unit=unit_of(attributes, path),
        side_level0=side,
        size=size,
        overlap=overlap,
        magnification=magnification,
        level0_magnification=of_slide,
        dimensions=dimensions_of(attributes, path),
        encoder=encoder_of(attributes),
        name=name_of(attributes),
    )
