"""What a file of another program says, in its own terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.rows import Rows

ENCODER_KEYS = (
    *("encoder", "extractor", "patch_encoder", "feature_extractor", "encoder_name"),
    *("model_name", "model"),
)
"""Attributes, or settings, in which programs name the network; STAMP writes "extractor"."""

UNIT_KEYS = ("unit", "units", "coords_unit", "coord_unit")
UNITS = {
    **dict.fromkeys(("px", "pixel", "pixels"), "px"),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "micron", "microns", "micrometer"), "um"),
}


@dataclass(frozen=True)
class PatchFacts:
    """Geometry and origin of the patches of a slide, as far as a file states them.

    Parameters
    ----------
    unit : {"px", "um"}
        Of the coordinates: level-0 pixels, or microns.
    is_center : bool
        Whether coordinates are those of the centers of the patches, not of their corners.
    side_level0, side_um : float or None
        Side of a patch in level-0 pixels, or in microns.
    size : int or None
        Side of a patch in its own pixels.
    overlap : int or None
        Pixels of a patch that it shares with the next one.
    magnification, level0_magnification : float or None
        Nominal ones of the patches and of the slide.
    dimensions : tuple of int or None
        (width, height) of the slide at level 0.
    encoder, name : str or None
    """

    unit: str = "px"
    is_center: bool = False
    side_level0: float | None = None
    side_um: float | None = None
    size: int | None = None
    overlap: int | None = None
    magnification: float | None = None
    level0_magnification: float | None = None
    dimensions: tuple[int, int] | None = None
    encoder: str | None = None
    name: str | None = None

    @property
    def has_side(self) -> bool:
        """Whether the side of a patch on the slide is stated, in any unit."""
        is_scaled = self.size is not None and self.magnification is not None
        return is_scaled or self.side_level0 is not None or self.side_um is not None

    def made_by(self) -> dict[str, Any]:
        """What must be equal in the files that are used together."""
        return {
            "encoder": self.encoder,
            "magnification": self.magnification,
            "patch size": self.size,
            "side of a patch in microns": self.side_um,
            "unit of the coordinates": self.unit,
        }


@dataclass(frozen=True, eq=False)
class StoredFeatures:
    """A file of another program.

    Parameters
    ----------
    program : str
        That wrote it, or whose layout it has.
    rows : Rows or None
        Where the features are; None where there are coordinates alone.
    coords : ndarray of shape (n_patches, 2) or None
        As the file has them.
    facts : PatchFacts
    attributes : mapping
        All that the file says beside.
    """

    program: str
    rows: Rows | None
    coords: np.ndarray | None
    facts: PatchFacts
    attributes: Mapping[str, Any] = field(default_factory=dict)


def unit_of(attributes: Mapping[str, Any], path: Path) -> str:
    """Unit of the coordinates, "px" where none is stated.

    Raises
    ------
    FeatureFileError
        If it is neither level-0 pixels nor microns, or two attributes contradict each other.
    """
    stated = {key: attributes[key] for key in UNIT_KEYS if attributes.get(key) is not None}
    units = {UNITS.get(str(value).strip().lower()) for value in stated.values()}
    if None in units or len(units) > 1:
        raise FeatureFileError(
            f"{path}: coords are in {' and '.join(repr(v) for v in stated.values())} (attribute "
            f"{' and '.join(map(repr, stated))}); expected level-0 pixels, or microns ('um')"
        )
    return units.pop() or "px" if units else "px"


def encoder_of(facts: Mapping[str, Any]) -> str | None:
    """Name of the network, from attributes or settings; TRIDENT writes "None" where it has none."""
    named = (facts.get(key) for key in ENCODER_KEYS)
    return next(
        (name for name in named if isinstance(name, str) and name not in ("", "None")), None
    )


def name_of(attributes: Mapping[str, Any]) -> str | None:
    """Name of the slide, from the attributes."""
    name = attributes.get("name")
    return name if isinstance(name, str) else None


def positive(
    attributes: Mapping[str, Any], key: str, path: Path, *, zero: bool = False
) -> float | None:
    """An attribute that is a positive number (or zero, where that is allowed), None if it is not there.

    Raises
    ------
    FeatureFileError
        If it is there and something else.
    """
    value = attributes.get(key)
    if value is None or value == "None":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not (np.isfinite(number) and (number > 0 or (zero and number == 0))):
        raise FeatureFileError(
            f"{path}: the attribute {key!r} is {value!r}; expected a positive number"
        )
    return number


def whole(value: float | None, key: str, path: Path) -> int | None:
    """A number of pixels; raises FeatureFileError if it is a fraction."""
    if value is None:
        return None
    if value != round(value):
        raise FeatureFileError(f"{path}: {key!r} is {value!r}; expected whole pixels")
    return round(value)


def dimensions_of(attributes: Mapping[str, Any], path: Path) -> tuple[int, int] | None:
    """Width and height of the slide at level 0, where TRIDENT's attributes state them."""
    if not {"level0_width", "level0_height"} <= attributes.keys():
        return None
    try:
        width, height = (int(attributes[f"level0_{side}"]) for side in ("width", "height"))
    except (TypeError, ValueError, OverflowError):
        width = height = 0
    if min(width, height) <= 0:
        raise FeatureFileError(
            f"{path}: the slide has {attributes['level0_width']!r} x {attributes['level0_height']!r} "
            "pixels by the attributes of coords; expected positive numbers"
        )
    return width, height
