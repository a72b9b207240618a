"""What files of other programs say of their patches, and whether it can be meant in level-0 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError

MAX_COORDINATE = 1e9  # level-0 pixels; the largest slides have a few million
UNIT_KEYS = ("unit", "units", "coords_unit", "coord_unit")
PIXELS = ("px", "pixel", "pixels")
ENCODER_KEYS = (
    *("encoder", "extractor", "patch_encoder", "feature_extractor", "encoder_name"),
    *("model_name", "model"),
)
"""Attributes, or settings, in which programs name the network; STAMP writes "extractor"."""


def check_locations(
    locations: np.ndarray, attributes: Mapping[str, Any], size: float | None, path: Path
) -> np.ndarray:
    """Corners of patches as whole level-0 pixels.

    Parameters
    ----------
    locations : ndarray of shape (n_patches, 2)
        As the file has them.
    attributes : mapping
        Of the file.
    size : float, optional
        Side of a patch in level-0 pixels.
    path : Path

    Returns
    -------
    locations : ndarray of shape (n_patches, 2), int64

    Raises
    ------
    FeatureFileError
        If they are in another unit, have fractions, number the cells of a grid, or lie beyond the slide.
    """
    for key in UNIT_KEYS:
        unit = attributes.get(key)
        if unit is not None and str(unit).strip().lower() not in PIXELS:
            raise FeatureFileError(
                f"{path}: coords are in {unit!r} (attribute {key!r}); expected level-0 pixels (x, y). "
                "Convert them: divide microns by the slide's microns per pixel, and round"
            )
    if not ((locations > -MAX_COORDINATE) & (locations < MAX_COORDINATE)).all():
        raise FeatureFileError(
            f"{path}: coords of NaN or beyond any slide; expected level-0 pixels (x, y)"
        )
    whole = np.rint(locations).astype(np.int64)
    if not np.array_equal(whole, locations):
        at = int(np.argmax((whole != locations).any(axis=1)))
        raise FeatureFileError(
            f"{path}: coords have fractions, such as {locations[at].tolist()} of patch {at}; expected whole "
            "level-0 pixels (x, y). If they are microns, divide them by the slide's microns per pixel, and "
            "round"
        )
    extent = dimensions_of(attributes, path)
    if extent is not None and (whole >= extent).any():
        at = int(np.argmax((whole >= extent).any(axis=1)))
        raise FeatureFileError(
            f"{path}: coords {whole[at].tolist()} of patch {at} lie beyond the slide of "
            f"{extent[0]} x {extent[1]} pixels; expected level-0 pixels (x, y)"
        )
    steps = np.concatenate([np.diff(np.unique(whole[:, axis])) for axis in (0, 1)])
    if size is not None and size >= 8 and steps.max(initial=0) == 1:
        raise FeatureFileError(
            f"{path}: coords are 1 pixel apart, but a patch has {size:g} level-0 pixels; expected level-0 "
            "pixels (x, y), not cells of a grid"
        )
    return whole


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


def encoder_of(facts: Mapping[str, Any]) -> str | None:
    """Name of the network, from attributes or settings."""
    named = (facts.get(key) for key in ENCODER_KEYS)
    return next((name for name in named if isinstance(name, str) and name), None)


def patch_size_level0(attributes: Mapping[str, Any], path: Path) -> float | None:
    """Side of a patch in level-0 pixels, by TRIDENT's or CLAM's attributes.

    Raises
    ------
    FeatureFileError
        If it is no positive number.
    """
    size, downsample = attributes.get("patch_size_level0"), 1.0
    if size is None and "patch_size" in attributes:
        if "downsample" in attributes:
            size, downsample = attributes["patch_size"], attributes["downsample"]
            downsample = (
                downsample[0] if isinstance(downsample, list) and downsample else downsample
            )
        elif attributes.get("patch_level") == 0:
            size = attributes["patch_size"]
    if size is None:
        return None
    try:
        product = float(size) * float(downsample)
    except (TypeError, ValueError):
        product = float("nan")
    if not (np.isfinite(product) and product > 0):
        raise FeatureFileError(
            f"{path}: the patch size at level 0 is {size!r} x {downsample!r}; expected a positive "
            "number of pixels in the attributes of coords"
        )
    return product
