"""Feature files: one HDF5 file per slide in the layout of CLAM and TRIDENT.

Dataset ``features`` (n_patches, n_features) float32 and ``coords`` (n_patches, 2) int64, the
level-0 pixel (x, y) of each patch's top-left corner. Files of both programs are read, whatever
model the features come from; files written here carry TRIDENT's attributes and, beyond them, the
patches' grid (``boxes`` and ``cells``) and the settings that made them. Their features lie in one
piece, so that a program may map them into memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from proportion_ssl._atomic import replacing
from proportion_ssl.slides.grid import MPP_AT_1X, PatchGrid

__all__ = [
    "FeatureFileError",
    "PatchFeatures",
    "file_fingerprint",
    "read_features",
    "write_features",
]

SETTINGS = "proportion_ssl_settings"
SETTINGS_HASH = "proportion_ssl_settings_sha256"
N_WRITTEN = "proportion_ssl_n_patches"  # written last: a file without it is not complete
BOXES, CELLS = "boxes", "cells"
MAX_VALUES = 2**33
MAX_COORDINATE = 1e9  # level-0 pixels; the largest slides have a few million
FINGERPRINT_BYTES = 2**20


class FeatureFileError(ValueError):
    """A feature file that is broken, incomplete, or not the one expected."""


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """Features of the patches of one slide.

    Parameters
    ----------
    features : ndarray of shape (n_patches, n_features), float32
        One row per patch.
    locations : ndarray of shape (n_patches, 2), int64
        (x, y) of the top-left corner of each patch, in level-0 pixels.
    name : str, optional
        Name of the slide.
    patch_size_level0 : float, optional
        Side of a patch in level-0 pixels.
    attributes : dict
        All attributes of ``coords``, as the file has them.
    settings : dict, optional
        What made the features; None in files of other programs.
    grid : PatchGrid, optional
        Windows and cells of the patches; None in files of other programs.
    dimensions : tuple of int, optional
        (width, height) of the slide at level 0.
    mpp : tuple of float, optional
        Microns per level-0 pixel, (x, y).
    origin : tuple of int, optional
        Level-0 (x, y) of the scanned part of the slide, from which some programs count; None in files of
        other programs.
    """

    features: np.ndarray
    locations: np.ndarray
    name: str | None = None
    patch_size_level0: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] | None = None
    grid: PatchGrid | None = None
    dimensions: tuple[int, int] | None = None
    mpp: tuple[float, float] | None = None
    origin: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.features)


def write_features(
    path: str | PathLike[str],
    features: np.ndarray | Iterable[np.ndarray],
    grid: PatchGrid,
    *,
    name: str,
    dimensions: tuple[int, int],
    mpp: float | tuple[float, float],
    settings: Mapping[str, Any],
    origin: tuple[int, int] = (0, 0),
) -> None:
    """Write the features of a slide's patches.

    The file appears under its name only when it is complete.

    Parameters
    ----------
    path : str or path-like
        Where to write; replaced if it exists.
    features : ndarray of shape (n_patches, n_features), or iterable of such blocks of rows
        Finite numbers, stored as float32. The blocks of an iterable are written as they come and
        none is kept; together they have a row per patch.
    grid : PatchGrid
        Patches the features belong to.
    name : str
        Name of the slide.
    dimensions : tuple of two int
        (width, height) of the slide at level 0.
    mpp : float or tuple of float
        Microns per level-0 pixel, (x, y) if not square.
    settings : mapping
        What the features depend on, such as model, hash of the weights, fingerprint of the
        slide: keys are strings, values anything JSON can hold. The size and resolution of the
        patches are added as ``"patch_size"`` and ``"patch_mpp"``.
    origin : tuple of int, default=(0, 0)
        Level-0 (x, y) of the scanned part, ``slide.bounds[:2]``.

    Raises
    ------
    ValueError
        If features and grid do not fit together, features are not finite, or settings cannot
        be stored.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((896, 448), mpp=0.5, magnification=10)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "slide.h5"
    >>> write_features(
    ...     path, np.ones((2, 4)), grid, name="slide", dimensions=(896, 448), mpp=0.5,
    ...     settings={"model": "mobilenet_v2"},
    ... )
    >>> stored = read_features(path, expected={"model": "mobilenet_v2", "patch_mpp": 1.0})
    >>> stored.features.shape, stored.locations[1], stored.patch_size_level0
    ((2, 4), array([448,   0]), 448.0)
    """
    given: Any = mpp
    mpp_x, mpp_y = (given, given) if np.ndim(given) == 0 else tuple(given)
    if not (np.isfinite([mpp_x, mpp_y]).all() and min(mpp_x, mpp_y) > 0):
        raise ValueError(f"mpp must be positive microns per level-0 pixel, or (x, y), got {mpp!r}")
    mean_mpp = float(np.sqrt(mpp_x * mpp_y)) if mpp_x != mpp_y else float(mpp_x)
    text = _canonical({**settings, "patch_size": list(grid.size), "patch_mpp": grid.mpp})
    extent = grid.size[0] * grid.mpp / mean_mpp
    blocks: Any = [features] if hasattr(features, "shape") or features is None else features
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        stored = 0
        for block in _checked_blocks(blocks, len(grid), name):
            if "features" not in file:
                file.create_dataset("features", (len(grid), block.shape[1]), np.float32)
            file["features"][stored : stored + len(block)] = block
            stored += len(block)
        coords = file.create_dataset("coords", data=grid.locations.astype(np.int64))
        coords.attrs.update(
            {
                "name": name,
                "patch_size": grid.size[0],
                "patch_size_level0": round(extent),
                "level0_magnification": MPP_AT_1X / mean_mpp,
                "target_magnification": MPP_AT_1X / grid.mpp,
                "overlap": _overlap(grid, extent),
                "level0_width": dimensions[0],
                "level0_height": dimensions[1],
                "level0_mpp": [float(mpp_x), float(mpp_y)],
                "level0_origin": [int(origin[0]), int(origin[1])],
            }
        )
        file.create_dataset(BOXES, data=grid.boxes)
        file.create_dataset(CELLS, data=grid.cells).attrs["shape"] = grid.shape
        file.attrs[SETTINGS] = text
        file.attrs[SETTINGS_HASH] = _sha256(text.encode())
        file.flush()
        file.attrs[N_WRITTEN] = len(grid)


def read_features(
    path: str | PathLike[str], expected: Mapping[str, Any] | None = None
) -> PatchFeatures:
    """Read a feature file of this package, CLAM or TRIDENT.

    Parameters
    ----------
    path : str or path-like
        HDF5 file with datasets ``features`` and ``coords``.
    expected : mapping, optional
        Settings that the file must have been made with; settings it does not name are free.

    Returns
    -------
    PatchFeatures
        Features as float32, locations as int64.

    Raises
    ------
    FeatureFileError
        If the file is truncated, incomplete or not of this layout, holds values that are not
        finite, or was made with other settings than expected; a ``ValueError`` that names file
        and remedy.

    Notes
    -----
    Features and coords may have a leading axis of length 1, as in published collections.
    ``patch_size_level0`` comes from TRIDENT's attribute of that name, or from CLAM's
    ``patch_size`` times ``downsample`` (1 at ``patch_level`` 0); feature files of CLAM often have
    neither.
    """
    path = Path(path)
    with _opened(path) as file:
        features, coords = _dataset(file, "features", path), _dataset(file, "coords", path)
        attributes = {key: _plain(value) for key, value in coords.attrs.items()}
        settings = _read_settings(file, len(features), path)
        grid = _read_grid(file, settings)
        features = features[...].astype(np.float32)
        locations = coords[...]
    # one bag as a batch, as published features have it
    features = features[0] if features.ndim == 3 and len(features) == 1 else features
    locations = locations[0] if locations.ndim == 3 and len(locations) == 1 else locations
    if features.ndim != 2 or locations.shape != (len(features), 2):
        raise FeatureFileError(
            f"{path}: features of shape {features.shape} and coords of shape {locations.shape}; "
            "expected (n_patches, n_features) and (n_patches, 2)"
        )
    if not np.isfinite(features).all():
        raise FeatureFileError(
            f"{path}: {_first_bad(features)} has NaN or infinite features; make the file again"
        )
    if not ((locations > -MAX_COORDINATE) & (locations < MAX_COORDINATE)).all():
        raise FeatureFileError(
            f"{path}: coords of NaN or beyond any slide; expected level-0 pixels (x, y)"
        )
    _check_settings(settings, expected, path)
    name = attributes.get("name")
    return PatchFeatures(
        features=features,
        locations=locations.astype(np.int64),
        name=name if isinstance(name, str) else None,
        patch_size_level0=_patch_size_level0(attributes, path),
        attributes=attributes,
        settings=settings,
        grid=grid,
        **_geometry(attributes, path),
    )


def locate_features(
    path: str | PathLike[str], expected: Mapping[str, Any] | None = None
) -> tuple[int, tuple[int, int]]:
    """Where in a file written here the features lie, without reading them.

    Parameters
    ----------
    path : str or path-like
        File of :func:`write_features`.
    expected : mapping, optional
        As in :func:`read_features`.

    Returns
    -------
    offset : int
        Byte at which the float32 values begin, row by row; 0 if there is none.
    shape : tuple of int
        (n_patches, n_features).

    Raises
    ------
    FeatureFileError
        As :func:`read_features`; or if another program wrote the file.
    """
    path = Path(path)
    with _opened(path) as file:
        features = _dataset(file, "features", path)
        settings = _read_settings(file, len(features), path)
        _check_settings(settings, expected, path)
        offset = features.id.get_offset()
        if settings is None or features.dtype != np.dtype("<f4") or features.chunks is not None:
            raise FeatureFileError(
                f"{path}: the features do not lie in one piece, so they cannot be read where they "
                "are; read the file by read_features and write it by write_features"
            )
        end = (offset or 0) + features.size * features.dtype.itemsize
        if features.size and (offset is None or path.stat().st_size < end):
            raise FeatureFileError(f"{path}: truncated; make it again")
        return offset or 0, features.shape


def file_fingerprint(path: str | PathLike[str]) -> str:
    """SHA-256 of a file's size, first and last MiB: tells files apart without reading them whole.

    Parameters
    ----------
    path : str or path-like
        A slide, a file of weights. A MIRAX slide (.mrxs) keeps its pixels in a folder beside it,
        whose files count as well.

    Returns
    -------
    fingerprint : str
        64 hexadecimal digits. A change in the middle that keeps the size goes unnoticed.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.bin"
    >>> _ = path.write_bytes(b"abc")
    >>> file_fingerprint(path)[:8]
    'f3126593'
    """
    path = Path(path)
    digest = hashlib.sha256()
    _digest_file(path, digest)
    if path.suffix.lower() == ".mrxs" and path.with_suffix("").is_dir():
        for part in sorted(path.with_suffix("").iterdir()):
            digest.update(part.name.encode() + b"\0")
            _digest_file(part, digest)
    return digest.hexdigest()


def _digest_file(path: Path, digest: Any) -> None:
    size = path.stat().st_size
    digest.update(str(size).encode() + b"\0")
    with open(path, "rb") as file:
        digest.update(file.read(FINGERPRINT_BYTES))
        file.seek(max(size - FINGERPRINT_BYTES, 0))
        digest.update(file.read(FINGERPRINT_BYTES))


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """A feature file for reading; whatever HDF5 raises becomes a FeatureFileError."""
    if not path.exists():
        raise FileNotFoundError(f"no feature file {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FeatureFileError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise FeatureFileError(
            f"{path}: not a readable HDF5 file, or truncated ({error}); make it again"
        ) from error


def _checked_blocks(
    blocks: Iterable[np.ndarray], n_patches: int, name: str
) -> Iterator[np.ndarray]:
    """The blocks as finite float32; raise unless they have `n_patches` rows of one length."""
    done, n_features = 0, None
    for block in blocks:
        block = np.asarray(block)
        if (
            block.ndim != 2
            or block.dtype.kind not in "fiu"
            or block.shape[1] != (n_features or block.shape[1])
            or done + len(block) > n_patches
        ):
            raise ValueError(
                f"features must be numbers of shape ({n_patches}, n_features), one row per patch; "
                f"got shape {block.shape} of type {block.dtype} for the patches from {done}"
            )
        n_features = block.shape[1]
        block = block.astype(np.float32)
        if not np.isfinite(block).all():
            raise ValueError(
                f"{_first_bad(block, done)} of slide {name} has NaN or infinite features"
            )
        yield block
        done += len(block)
    if done < n_patches or n_features is None:
        raise ValueError(
            f"features must have one row per patch; got {done} rows for {n_patches} patches"
        )


def _read_grid(file: h5py.File, settings: Mapping[str, Any] | None) -> PatchGrid | None:
    if settings is None or BOXES not in file:
        return None
    n_rows, n_columns = (int(n) for n in file[CELLS].attrs["shape"])
    return PatchGrid(
        boxes=file[BOXES][...],
        cells=file[CELLS][...],
        shape=(n_rows, n_columns),
        size=tuple(settings["patch_size"]),
        mpp=settings["patch_mpp"],
    )


def _dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise FeatureFileError(
            f"{path}: no dataset {name!r} (it has {sorted(file)}); expected the layout of CLAM and "
            "TRIDENT with 'features' and 'coords'"
        )
    if dataset.dtype.kind not in "fiu" or dataset.ndim not in (2, 3):
        raise FeatureFileError(
            f"{path}: dataset {name!r} has shape {dataset.shape} and type {dataset.dtype}; "
            "expected a table of numbers"
        )
    if dataset.size > MAX_VALUES:
        raise FeatureFileError(f"{path}: dataset {name!r} claims {dataset.size:,} values")
    return dataset


def _read_settings(file: h5py.File, n_patches: int, path: Path) -> dict[str, Any] | None:
    text = file.attrs.get(SETTINGS)
    if text is None:
        return None
    if not isinstance(text, str) or file.attrs.get(SETTINGS_HASH) != _sha256(text.encode()):
        raise FeatureFileError(f"{path}: the settings do not agree with their hash; make it again")
    if file.attrs.get(N_WRITTEN) != n_patches:
        raise FeatureFileError(f"{path}: the file was not written to its end; make it again")
    return json.loads(text)


def _check_settings(settings, expected: Mapping[str, Any] | None, path: Path) -> None:
    if expected is None:
        return
    if settings is None:
        raise FeatureFileError(
            f"{path}: carries no settings of this package, so it cannot be checked against "
            f"{sorted(expected)}; read it without expected= if you know where it comes from"
        )
    wanted = json.loads(_canonical(expected))
    differing = [
        f"{key} is {settings.get(key)!r}, expected {value!r}"
        for key, value in wanted.items()
        if key not in settings or settings[key] != value
    ]
    if differing:
        raise FeatureFileError(
            f"{path}: made with other settings: {'; '.join(differing)}; make the features again"
        )


def _patch_size_level0(attributes: Mapping[str, Any], path: Path) -> float | None:
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


def _geometry(attributes: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Dimensions, resolution and origin of the slide, as far as the file states them."""
    pairs: dict[str, Any] = {}
    try:
        if "level0_width" in attributes and "level0_height" in attributes:
            size = (attributes["level0_width"], attributes["level0_height"])
            pairs["dimensions"] = (int(size[0]), int(size[1]))
        if "level0_mpp" in attributes:
            x, y = attributes["level0_mpp"]
            pairs["mpp"] = (float(x), float(y))
        elif "level0_magnification" in attributes:
            pairs["mpp"] = (MPP_AT_1X / float(attributes["level0_magnification"]),) * 2
        if "level0_origin" in attributes:
            x, y = attributes["level0_origin"]
            pairs["origin"] = (int(x), int(y))
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise FeatureFileError(
            f"{path}: the attributes of coords do not give dimensions and resolution of the slide ({error})"
        ) from error
    if "mpp" in pairs and not all(np.isfinite(value) and value > 0 for value in pairs["mpp"]):
        raise FeatureFileError(f"{path}: a resolution of {pairs['mpp']} um per pixel")
    return pairs


def _overlap(grid: PatchGrid, extent: float) -> int:
    """Pixels of a patch shared with its right neighbour."""
    columns, first = np.unique(grid.cells[:, 1], return_index=True)
    if len(columns) < 2:
        return 0
    starts = grid.boxes[first, 0]
    step = (starts[-1] - starts[0]) / (columns[-1] - columns[0])
    return max(0, round(grid.size[0] * (1 - step / extent)))


def _canonical(settings: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(settings), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"settings must hold only what JSON can: strings, finite numbers, lists ({error})"
        ) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _first_bad(features: np.ndarray, first: int = 0) -> str:
    return f"patch {first + int(np.argmin(np.isfinite(features).all(axis=1)))}"


def _plain(value: Any) -> Any:
    """HDF5 attribute as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
