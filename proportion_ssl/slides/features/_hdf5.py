"""Opening HDF5 files that may be damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from proportion_ssl.slides.features._errors import FeatureFileError

MAX_VALUES = 2**33


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a feature file for reading; errors of HDF5 become a FeatureFileError."""
    if not path.exists():
        raise FileNotFoundError(f"feature file not found: {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FeatureFileError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise FeatureFileError(
            f"{path}: not a readable HDF5 file, or truncated ({error}); make it again"
        ) from error


def numbers(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """A dataset of two or three axes whose size is not larger than the file can hold."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise FeatureFileError(
            f"{path}: no dataset {name!r} (it has {sorted(file)}); expected 'features' and 'coords' (CLAM, "
            "TRIDENT) or 'feats' and 'coords' (STAMP)"
        )
    if dataset.dtype.kind not in "fiu" or dataset.ndim not in (2, 3):
        raise FeatureFileError(
            f"{path}: dataset {name!r} has shape {dataset.shape} and type {dataset.dtype}; "
            "expected a table of numbers"
        )
    packed = dataset.id.get_create_plist().get_nfilters() > 0
    if dataset.size > MAX_VALUES or (not packed and dataset.nbytes > path.stat().st_size):
        raise FeatureFileError(
            f"{path}: dataset {name!r} claims {dataset.size:,} values; truncated or damaged, make it again"
        )
    return dataset
