"""STAMP: ``feats`` in half precision, ``coords`` in microns, ``tile_size_um`` and ``tile_size_px``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.formats.stored import (
    PatchFacts,
    encoder_of,
    name_of,
    positive,
    unit_of,
    whole,
)

PROGRAM = "STAMP"


def matches(attributes: Mapping[str, Any], datasets: set[str]) -> bool:
    """Whether names and attributes are STAMP's."""
    return "feats" in datasets or "stamp_version" in attributes


def facts(attributes: Mapping[str, Any], path: Path) -> PatchFacts:
    """Geometry by STAMP's attributes: ``tile_size_um`` since 2.1, ``tile_size`` with the unit "um" before.

    Raises
    ------
    FeatureFileError
        If they are missing, as in files before STAMP 2, or no positive numbers.
    """
    side = positive(attributes, "tile_size_um", path)
    if side is None and unit_of(attributes, path) == "um":
        side = positive(attributes, "tile_size", path)
    if side is None:
        raise FeatureFileError(
            f"{path}: no attribute 'tile_size_um', which says that coords are microns and how large a tile "
            "is; extract the features again with STAMP 2 or later"
        )
    if unit_of({"unit": "um", **attributes}, path) != "um":
        raise FeatureFileError(
            f"{path}: the attributes contradict each other: tile_size_um is {side:g}, but the unit is "
            f"{attributes.get('unit')!r}"
        )
    return PatchFacts(
        unit="um",
        side_um=side,
        size=whole(positive(attributes, "tile_size_px", path), "tile_size_px", path),
        overlap=0,
        encoder=encoder_of(attributes),
        name=name_of(attributes),
    )
