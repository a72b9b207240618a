"""NumPy files: ``.npy`` with features alone, as torchmil keeps them, ``.npz`` with coordinates beside."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.formats.stored import PatchFacts, StoredFeatures
from proportion_ssl.slides.features.rows import LoadedRows, MappedRows

PROGRAM = "numpy"
FEATURES, COORDS = ("features", "feats", "embeddings"), ("coords", "coordinates", "locations")


def read_npy(path: Path) -> StoredFeatures:
    """Features of a ``.npy`` file, mapped."""
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"feature file not found: {path}") from None
    except (OSError, ValueError, EOFError) as error:
        raise FeatureFileError(f"{path}: not a readable .npy file ({error})") from error
    table = as_table(values, path)
    offset = getattr(values, "offset", 0)
    if values.flags.f_contiguous and not values.flags.c_contiguous:
        raise FeatureFileError(
            f"{path}: stored column by column; save numpy.ascontiguousarray of the features"
        )
    shape = (int(table.shape[0]), int(table.shape[1]))
    return StoredFeatures(
        PROGRAM, MappedRows(str(path), values.dtype.str, offset, shape), None, PatchFacts()
    )


def read_npz(path: Path) -> StoredFeatures:
    """Features, and coordinates where there are any, of a ``.npz`` file."""
    features, coords = load_npz(path)
    shape = (int(features.shape[0]), int(features.shape[1]))
    rows = LoadedRows(str(path), _load_features, shape, features.nbytes)
    return StoredFeatures(PROGRAM, rows, coords, PatchFacts())


def load_npz(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Features and coordinates of a ``.npz`` file by the names of its arrays."""
    content = arrays_of(Path(path))
    name = next((key for key in FEATURES if key in content), None)
    if name is None:
        raise FeatureFileError(
            f"{path}: no array {FEATURES[0]!r} (it has {sorted(content)}); name the features so"
        )
    coords = next((content[key] for key in COORDS if key in content), None)
    return as_table(content[name], path), coords


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a ``.npz`` file."""
    try:
        # NumPy leaves a damaged file open that it opened itself
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"feature file not found: {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise FeatureFileError(f"{path}: not a readable .npz file ({error})") from error


def as_table(values: np.ndarray, path: str | Path) -> np.ndarray:
    """Numbers of shape (n_patches, n_features); a leading axis of length 1 is dropped."""
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise FeatureFileError(
            f"{path}: features of shape {values.shape} and type {values.dtype}; expected numbers of shape "
            "(n_patches, n_features)"
        )
    return values


def _load_features(path: str) -> np.ndarray:
    return load_npz(path)[0]
