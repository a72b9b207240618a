"""CLAM: ``coords`` with ``patch_size`` at ``patch_level``; feature files without any attribute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.formats.stored import (
    PatchFacts,
    encoder_of,
    name_of,
    positive,
    unit_of,
    whole,
)

PROGRAM = "CLAM"


def matches(attributes: Mapping[str, Any], datasets: set[str]) -> bool:
    """Whether the attributes are CLAM's."""
    return "patch_level" in attributes or "downsample" in attributes


def facts(attributes: Mapping[str, Any], path: Path) -> PatchFacts:
    """Geometry by CLAM's attributes.

    The size of the slide is ``level_dim`` at ``patch_level`` 0 alone.

    Raises
    ------
    FeatureFileError
        If an attribute is no positive number, or ``downsample`` is not 1 at level 0.
    """
    size = positive(attributes, "patch_size", path)
    level = positive(attributes, "patch_level", path, zero=True)
    stated = attributes.get("downsample")
    downsample = positive(
        {"downsample": stated[0] if isinstance(stated, list) and stated else stated},
        "downsample",
        path,
    )
    if level == 0 and downsample is not None and downsample != 1:
        raise FeatureFileError(
            f"{path}: the attributes contradict each other: patch_level is 0, but downsample is "
            f"{downsample:g}"
        )
    factor = 1.0 if level == 0 else downsample
    return PatchFacts(
        unit=unit_of(attributes, path),
        side_level0=None if size is None or factor is None else size * factor,
        size=whole(size, "patch_size", path),
        dimensions=_dimensions(attributes.get("level_dim"), path) if level == 0 else None,
        encoder=encoder_of(attributes),
        name=name_of(attributes),
    )


def _dimensions(level_dim: Any, path: Path) -> tuple[int, int] | None:
    if level_dim is None:
        return None
    pair = np.asarray(level_dim)
    if pair.shape != (2,) or pair.dtype.kind not in "iu" or pair.min() <= 0:
        raise FeatureFileError(
            f"{path}: the attribute 'level_dim' is {level_dim!r}; expected (width, height)"
        )
    return int(pair[0]), int(pair[1])
