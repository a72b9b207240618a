"""``features`` and ``coords`` without a word about the patches, as torchmil and many others write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proportion_ssl.slides.features.formats.stored import (
    PatchFacts,
    dimensions_of,
    encoder_of,
    name_of,
    positive,
    unit_of,
    whole,
)

PROGRAM = "features and coords"


def matches(attributes: Mapping[str, Any], datasets: set[str]) -> bool:
    """Always: the layout that is left."""
    return True


def facts(attributes: Mapping[str, Any], path: Path) -> PatchFacts:
    """Whatever is stated by the names that other programs use."""
    return PatchFacts(
        unit=unit_of(attributes, path),
        size=whole(positive(attributes, "patch_size", path), "patch_size", path),
        dimensions=dimensions_of(attributes, path),
        encoder=encoder_of(attributes),
        name=name_of(attributes),
    )
