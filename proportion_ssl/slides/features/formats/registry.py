"""Which module reads which file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.formats import arrays, hdf5, plain, slideflow, tensors
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

UNKNOWN_PROGRAMS = (plain.PROGRAM, arrays.PROGRAM, tensors.PROGRAM)
"""Layouts that several programs write; the file of coordinates may say which."""

GEOMETRY = {
    "size": "pixels as the side of a patch",
    "side_level0": "level-0 pixels as the side of a patch",
    "side_um": "microns as the side of a patch",
    "overlap": "pixels as the overlap of patches",
    "magnification": "as the magnification",
}
"""Facts that features and their coordinates must have in common if both state them."""

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
        Coordinates of the patches, or a file that holds them. They must be those of `path`, if it has any.
        Default: where `path` has no coordinates, torchmil's folder ``coords`` beside the folder of the
        features, or CLAM's ``patches``; where it has coordinates but no size of the patches, ``patches``.

    Returns
    -------
    stored : StoredFeatures

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FeatureFileError
        If it cannot be read, holds something else, or has other coordinates or sizes than `coords`.
    """
    path = Path(path)
    stored = _read(path)
    if isinstance(coords, np.ndarray):
        return replace(stored, coords=_agreeing(coords, stored, path, "coords="))
    beside = _coordinates_beside(path, stored) if coords is None else Path(coords)
    if beside is None:
        return stored
    locations, facts, attributes, program = _coordinates(beside)
    return replace(
        stored,
        program=program if stored.program in UNKNOWN_PROGRAMS else stored.program,
        coords=_agreeing(locations, stored, path, str(beside)),
        facts=_joined(stored.facts, facts, path, beside),
        attributes={**attributes, **stored.attributes},
    )


def _read(path: Path) -> StoredFeatures:
    suffix = path.suffix.lower()
    read = next((format.read for format in FORMATS if suffix in format.suffixes), hdf5.read)
    return read(path)


def _coordinates(path: Path) -> tuple[np.ndarray, PatchFacts, dict, str]:
    """Coordinates of a file, what it says of the patches, and its program."""
    if path.suffix.lower() == ".npy":
        stored = arrays.read_npy(path)
        assert stored.rows is not None
        return np.asarray(stored.rows.open()[:]), PatchFacts(), {}, stored.program
    found = _read(path)
    if found.coords is None:
        raise FeatureFileError(f"{path}: holds no coordinates ('coords')")
    return found.coords, found.facts, dict(found.attributes), found.program


def _coordinates_beside(path: Path, stored: StoredFeatures) -> Path | None:
    """The file of the same name, in a folder of torchmil or CLAM, that holds what `stored` lacks."""
    if stored.rows is None:
        return None
    folders: dict[str, tuple[str, ...]] = {"patches": (".h5",)}
    if stored.coords is None:
        folders = {"coords": (path.suffix, ".npy", ".h5"), **folders}
    elif stored.facts.has_side:
        return None
    candidates = [
        folder / name / f"{path.stem}{suffix}"
        for folder in list(path.parents)[1:3]
        for name, suffixes in folders.items()
        for suffix in suffixes
    ]
    return next((found for found in candidates if found.exists() and found != path), None)


def _agreeing(coords: np.ndarray, stored: StoredFeatures, path: Path, source: str) -> np.ndarray:
    """Coordinates from `source` for the patches in `path`; raises unless they can be those."""
    own = stored.coords
    n_patches = len(coords if own is None else own) if stored.rows is None else stored.rows.shape[0]
    for values, place in ((own, "it"), (coords, source)):
        if values is not None and (
            values.shape != (n_patches, 2) or values.dtype.kind not in "fiu"
        ):
            raise FeatureFileError(
                f"{path}: coords of shape {values.shape} and type {values.dtype} in {place}; expected "
                f"numbers of shape ({n_patches}, 2), one row per patch"
            )
    if own is not None and not np.array_equal(own, coords):
        at = int(np.argmax((own != coords).any(axis=1)))
        raise FeatureFileError(
            f"{path}: its own coords differ from those in {source}: patch {at} is at {own[at].tolist()} and "
            f"{coords[at].tolist()}; give the coords from which these features were extracted (coords=)"
        )
    return coords


def _joined(own: PatchFacts, other: PatchFacts, path: Path, beside: Path) -> PatchFacts:
    """Facts of features, and of their coordinates where the features say nothing."""
    for name, what in GEOMETRY.items():
        here, there = getattr(own, name), getattr(other, name)
        if None not in (here, there) and here != there:
            raise FeatureFileError(
                f"{path}: states {here:g} {what}, but {beside} states {there:g}; give the file from which "
                "these features were extracted (coords=)"
            )
    given = {name: value for name, value in vars(own).items() if value not in (None, "px", False)}
    return replace(other, **given)
