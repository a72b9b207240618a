"""Which module reads which file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.formats import arrays, hdf5, slideflow, tensors
from proportion_ssl.slides.features.formats.stored import PatchFacts, StoredFeatures


class Format(NamedTuple):
    """A kind of file and what reads it."""

    suffixes: tuple[str, ...]
    read: Callable[[Path], StoredFeatures]


FORMATS = (
    Format((".h5", ".hdf5"), hdf5.read),
    Format((".pt", ".pth"), tensors.read),
    Format((".npy",), arrays.read_npy),
    Format((".npz",), arrays.read_npz),
)
"""To add one: a module that gives a :class:`StoredFeatures` of a path, and a line here."""

SUFFIXES = tuple(suffix for format in FORMATS for suffix in format.suffixes)


def is_feature_name(path: str | PathLike[str]) -> bool:
    """Whether a name is that of a file of features, by its ending."""
    name = str(path).lower()
    return name.endswith(SUFFIXES) and not name.endswith(slideflow.INDEX)


def read_stored(
    path: str | PathLike[str], coords: str | PathLike[str] | np.ndarray | None = None
) -> StoredFeatures:
    """Describe a feature file of another program; its features are left where they are.

    Parameters
    ----------
    path : str or path-like
        The ending decides; files without one of :data:`SUFFIXES` are read as HDF5.
    coords : path-like or ndarray of shape (n_patches, 2), optional
        Coordinates of the patches, or a file that holds them, where `path` has none. Default: those of
        torchmil's folder ``coords`` beside the folder of the features, or CLAM's ``patches``.

    Returns
    -------
    stored : StoredFeatures

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FeatureFileError
        If it cannot be read, or holds something else.
    """
    path = Path(path)
    stored = _read(path)
    if coords is not None and stored.coords is not None:
        raise FeatureFileError(f"{path}: has coordinates of its own; leave coords= out")
    if stored.coords is not None or stored.rows is None:
        return stored
    if isinstance(coords, np.ndarray):
        return replace(stored, coords=_checked(coords, stored, path))
    beside = _coordinates_beside(path) if coords is None else Path(coords)
    if beside is None:
        return stored
    locations, facts, attributes = _coordinates(beside)
    return replace(
        stored,
        coords=_checked(locations, stored, beside),
        facts=_joined(stored.facts, facts),
        attributes={**attributes, **stored.attributes},
    )


def _read(path: Path) -> StoredFeatures:
    suffix = path.suffix.lower()
    read = next((format.read for format in FORMATS if suffix in format.suffixes), hdf5.read)
    return read(path)


def _coordinates(path: Path) -> tuple[np.ndarray, PatchFacts, dict]:
    """Coordinates of a file, and what it says of the patches."""
    if path.suffix.lower() == ".npy":
        rows = arrays.read_npy(path).rows
        assert rows is not None
        return np.asarray(rows.open()[:]), PatchFacts(), {}
    found = _read(path)
    if found.coords is None:
        raise FeatureFileError(f"{path}: holds no coordinates ('coords')")
    return found.coords, found.facts, dict(found.attributes)


def _coordinates_beside(path: Path) -> Path | None:
    """Coordinates of the same name in a folder beside, as torchmil and CLAM lay them out."""
    candidates = [
        folder / name / f"{path.stem}{suffix}"
        for folder in list(path.parents)[1:3]
        for name, suffixes in (("coords", (path.suffix, ".npy", ".h5")), ("patches", (".h5",)))
        for suffix in suffixes
    ]
    return next((found for found in candidates if found.exists() and found != path), None)


def _checked(coords: np.ndarray, stored: StoredFeatures, path: Path) -> np.ndarray:
    n_patches = 0 if stored.rows is None else stored.rows.shape[0]
    if coords.shape != (n_patches, 2) or coords.dtype.kind not in "fiu":
        raise FeatureFileError(
            f"{path}: coords of shape {coords.shape} and type {coords.dtype}; expected numbers of shape "
            f"({n_patches}, 2), one row per patch"
        )
    return coords


def _joined(own: PatchFacts, other: PatchFacts) -> PatchFacts:
    """Facts of features, and of their coordinates where the features say nothing."""
    given = {name: value for name, value in vars(own).items() if value not in (None, "px", False)}
    return replace(other, **given)
