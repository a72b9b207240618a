"""HDF5 files of TRIDENT, CLAM, STAMP, torchmil and others: features, coordinates, or both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features._hdf5 import numbers, opened
from proportion_ssl.slides.features.checksums import plain as plain_value
from proportion_ssl.slides.features.formats import clam, plain, stamp, trident
from proportion_ssl.slides.features.formats.stored import StoredFeatures
from proportion_ssl.slides.features.rows import rows_of_dataset

LAYOUTS = (stamp, trident, clam, plain)
"""The first that matches is taken; a new one has PROGRAM, matches and facts."""

FEATURES, COORDS = ("features", "feats"), "coords"


def read(path: Path) -> StoredFeatures:
    """Describe a file; features are left where they are.

    Raises
    ------
    FeatureFileError
        If it is damaged, or holds neither features nor coordinates of known layout.
    """
    with opened(path) as file:
        datasets = set(file)
        name = next((name for name in FEATURES if name in datasets), None)
        features = (
            None
            if name is None and COORDS in datasets
            else numbers(file, name or FEATURES[0], path)
        )
        coords = numbers(file, COORDS, path) if COORDS in datasets else None
        parts = [file, *(part for part in (features, coords) if part is not None)]
        attributes = _attributes(parts, path)
        layout = next(layout for layout in LAYOUTS if layout.matches(attributes, datasets))
        _check_shapes(features, coords, path)
        rows = None if features is None else rows_of_dataset(features, path)
        locations = None if coords is None else coords[...]
    if locations is not None and locations.ndim == 3:  # one bag as a batch, as collections have it
        locations = locations[0]
    return StoredFeatures(
        layout.PROGRAM, rows, locations, layout.facts(attributes, path), attributes
    )


def _attributes(parts: list[Any], path: Path) -> dict[str, Any]:
    """All attributes by name; "name" and places to save to may differ between datasets."""
    found: dict[str, Any] = {}
    for part in parts:
        for key, value in part.attrs.items():
            own = plain_value(value)
            if key in ("patch_size", "overlap", "unit") and found.get(key, own) != own:
                raise FeatureFileError(
                    f"{path}: the attributes contradict each other: {key} is {found[key]!r} and {own!r}"
                )
            found[key] = own
    return found


def _check_shapes(features: h5py.Dataset | None, coords: h5py.Dataset | None, path: Path) -> None:
    shapes = [
        None
        if part is None
        else part.shape[1:]
        if part.ndim == 3 and part.shape[0] == 1
        else part.shape
        for part in (features, coords)
    ]
    wrong = any(shape is not None and len(shape) != 2 for shape in shapes)
    if shapes[1] is not None:
        n_patches = shapes[1][0] if shapes[0] is None else shapes[0][0]
        wrong |= shapes[1] != (n_patches, 2)
    if wrong:
        raise FeatureFileError(
            f"{path}: features of shape {shapes[0]} and coords of shape {shapes[1]}; "
            "expected (n_patches, n_features) and (n_patches, 2)"
        )
