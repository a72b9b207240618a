"""Feature files: one HDF5 file per slide in the layout of TRIDENT, and those of other programs.

Dataset ``features`` (n_patches, n_features) float32 and ``coords`` (n_patches, 2) int64, the
level-0 pixel (x, y) of each patch's top-left corner. Files written here carry TRIDENT's attributes and,
beyond them, the patches' grid (``boxes`` and ``cells``), the settings that made them, and checksums. Their
features lie in one piece, so that a program may map them into memory. Files of other programs are described
by ``formats``.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from proportion_ssl._atomic import replacing
from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features._hdf5 import numbers, opened
from proportion_ssl.slides.features.checksums import (
    BLOCK_ROWS,
    DIGEST_BYTES,
    RowDigests,
    head_digest,
    n_blocks,
    plain,
    wrong_block,
)
from proportion_ssl.slides.features.formats import read_stored
from proportion_ssl.slides.features.formats.stored import dimensions_of, encoder_of, positive
from proportion_ssl.slides.features.geometry import place
from proportion_ssl.slides.features.rows import MappedRows, Rows
from proportion_ssl.slides.features.slide_files import file_fingerprint
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
N_WRITTEN = "proportion_ssl_n_patches"
HEAD_DIGEST = "proportion_ssl_sha256"  # of all but the features
ROW_DIGESTS = "proportion_ssl_features_sha256"  # of the features, block by block
BOXES, CELLS = "boxes", "cells"
COUNTED = ("coords", BOXES, CELLS, ROW_DIGESTS)
ROWS_AT_ONCE = 16 * BLOCK_ROWS


@dataclass(frozen=True, eq=False)
class PatchFeatures:
    """Features of the patches of one slide.

    Parameters
    ----------
    features : ndarray of shape (n_patches, n_features), float32
        One row per patch; without columns if the file holds coordinates only.
    locations : ndarray of shape (n_patches, 2), int64, optional
        (x, y) of the top-left corner of each patch, in level-0 pixels. None where the file has no
        coordinates, or has them in microns and the slide's resolution is not known.
    name : str, optional
        Name of the slide.
    patch_size_level0 : float, optional
        Side of a patch in level-0 pixels.
    attributes : dict
        All attributes of the file, of ``features`` and of ``coords``, as the file has them.
    settings : dict, optional
        Settings of the features; None in files of other programs.
    grid : PatchGrid, optional
        Windows and cells of the patches. In files of other programs None unless these state, or `mpp`
        gives, the size of the patches in level-0 pixels and their resolution. Where patches overlap, cells
        are those of the step between them.
    dimensions : tuple of int, optional
        (width, height) of the slide at level 0.
    mpp : tuple of float, optional
        Microns per level-0 pixel, (x, y): those of a file of this package, or the `mpp` given.
    origin : tuple of int, optional
        Level-0 (x, y) of the scanned region, the origin of coordinates in some programs; None in files of
        other programs.
    encoder : str, optional
        Name of the network, from the attributes ("encoder", "extractor", "model") or the settings.
    n_features : int, optional
        Number of columns in the file, of which `features` may hold a part.
    program : str, optional
        Program whose layout the file has, for files of other programs: "TRIDENT", "CLAM", "STAMP",
        "slideflow", "eva", "PyTorch", "numpy", or "features and coords".
    magnification, level0_magnification : float, optional
        Nominal magnification of the patches and of the slide, if another program states them.
    patch_size : int, optional
        Side of a patch in its own pixels.
    overlap : int, optional
        Pixels of a patch that it shares with the next one, where that is stated.
    stride : float, optional
        Pixels of a patch from one cell of `grid` to the next: ``patch_size`` minus the overlap, or a quarter
        of ``patch_size`` where patches lie on no common lattice, as those of several tissue pieces in CLAM.
    """

    features: np.ndarray
    locations: np.ndarray | None
    name: str | None = None
    patch_size_level0: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] | None = None
    grid: PatchGrid | None = None
    dimensions: tuple[int, int] | None = None
    mpp: tuple[float, float] | None = None
    origin: tuple[int, int] | None = None
    encoder: str | None = None
    n_features: int | None = None
    program: str | None = None
    magnification: float | None = None
    level0_magnification: float | None = None
    patch_size: int | None = None
    overlap: int | None = None
    stride: float | None = None

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

    The file gets its name only once it is complete.

    Parameters
    ----------
    path : str or path-like
        Where to write; replaced if it exists.
    features : ndarray of shape (n_patches, n_features), or iterable of such blocks of rows
        Finite numbers, stored as float32. The blocks of an iterable are written one by one; together they
        have one row per patch.
    grid : PatchGrid
        Patches the features belong to.
    name : str
        Name of the slide.
    dimensions : tuple of two int
        (width, height) of the slide at level 0.
    mpp : float or tuple of float
        Microns per level-0 pixel, (x, y) if not square.
    settings : mapping
        Settings of the features, such as model, hash of the weights, fingerprint of the slide. Keys are
        strings, values must be valid in JSON. The size and resolution of the patches are added as
        ``"patch_size"`` and ``"patch_mpp"``. All but ``"slide"``, ``"slide_mpp"``, ``"slide_stamp"``,
        ``"min_fraction"``, ``"stride"`` and ``"tissue_mask"`` must be equal in the files of one
        :class:`FeatureSequence`.
    origin : tuple of int, default=(0, 0)
        Level-0 (x, y) of the scanned part, ``slide.bounds[:2]``.

    Raises
    ------
    ValueError
        If features and grid do not match, features are not finite, or settings cannot be stored.
    OSError
        If the disk is full or fails.

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
    about = _About(
        grid,
        text,
        {
            "name": name,
            "patch_size": grid.size[0],
            "patch_size_level0": round(extent),
            "level0_magnification": MPP_AT_1X / mean_mpp,
            "target_magnification": MPP_AT_1X / grid.mpp,
            "overlap": _overlap(grid, extent),
            "level0_width": dimensions[0],
            "level0_height": dimensions[1],
        },
        {
            "level0_mpp": [float(mpp_x), float(mpp_y)],
            "level0_origin": [int(origin[0]), int(origin[1])],
        },
    )
    blocks: Any = [features] if hasattr(features, "shape") or features is None else features
    with replacing(path) as temporary, open(temporary, "wb") as file:
        digests, offset, n_features = RowDigests(), None, 0
        for block in _checked_blocks(blocks, len(grid), name):
            if offset is None:
                n_features = block.shape[1]
                no_digests = np.zeros((n_blocks(len(grid)), DIGEST_BYTES), dtype=np.uint8)
                offset = len(_head(about, n_features, no_digests))
                file.seek(offset)
            digests.add(block)
            file.write(np.ascontiguousarray(block, dtype="<f4").data)
        head = _head(about, n_features, digests.finish())
        if len(head) != offset:
            raise RuntimeError(f"{path}: HDF5 laid out the file in another way the second time")
        file.seek(0)
        file.write(head)


class _About(NamedTuple):
    """Content of a file other than the features."""

    grid: PatchGrid
    settings: str
    of_coords: dict[str, Any]
    of_boxes: dict[str, Any]


def _head(about: _About, n_features: int, digests: np.ndarray) -> bytes:
    """A whole file up to its features, which come last.

    HDF5 works in memory and does not write to the disk, because HDF5 can end the process when it closes a
    file on a full disk.
    """
    grid, content = about.grid, io.BytesIO()
    shape = (len(grid), n_features)
    with h5py.File(content, "w") as file:
        features = file.create_dataset("features", shape, np.float32)
        file.create_dataset("coords", data=grid.locations).attrs.update(about.of_coords)
        file.create_dataset(BOXES, data=grid.boxes).attrs.update(about.of_boxes)
        file.create_dataset(CELLS, data=grid.cells).attrs["shape"] = grid.shape
        file.create_dataset(ROW_DIGESTS, data=digests)
        file.attrs[SETTINGS] = about.settings
        file.attrs[SETTINGS_HASH] = _sha256(about.settings.encode())
        file.attrs[N_WRITTEN] = len(grid)
        file.attrs[HEAD_DIGEST] = head_digest(file, COUNTED, shape, about.settings)
        file.flush()
        features[:1, :1] = 0  # all of them get their place now, behind all else
        offset = features.id.get_offset()
    head = content.getvalue()
    if any(head[offset:]) if offset else 0 not in shape:
        raise RuntimeError(f"HDF5 puts features at {offset} of {len(head)} bytes, not last")
    return head[:offset]


def read_features(
    path: str | PathLike[str],
    expected: Mapping[str, Any] | None = None,
    *,
    columns: slice | None = None,
    mpp: float | None = None,
    coords: str | PathLike[str] | np.ndarray | None = None,
) -> PatchFeatures:
    """Read a feature file of this package, TRIDENT, CLAM, STAMP, slideflow, eva, torchmil or NumPy.

    Parameters
    ----------
    path : str or path-like
        HDF5 file (``.h5``) with ``features`` or ``feats`` and ``coords``, or one of the two; tensors
        (``.pt``), of which no code is run; ``.npy`` or ``.npz``.
    expected : mapping, optional
        Settings that the file must have; other settings are not checked. Only files of this package have
        settings.
    columns : slice, optional
        Columns to keep, such as those of one magnification. ``slice(0)`` reads only positions and settings.
        Default: all.
    mpp : float, optional
        Microns per level-0 pixel of the slide, for files that do not state them: all but those of this
        package.
    coords : path-like or ndarray of shape (n_patches, 2), optional
        Coordinates of the patches, or a file that holds them and may state the size of the patches. They must
        be equal to those in `path`, if it has any. Default: a file of the same name in the folder ``coords``
        (torchmil) or ``patches`` (CLAM) beside the folder of the features, if `path` lacks coordinates or
        (CLAM) the size of the patches.

    Returns
    -------
    PatchFeatures
        Features as float32, locations as int64.

    Raises
    ------
    FeatureFileError
        If the file is truncated, incomplete or not of this layout, holds values that are not
        finite, has attributes that contradict each other, was made with other settings than expected, or has
        other coordinates than `coords`; a ``ValueError`` that names file and remedy.

    Notes
    -----
    Features and coords may have a leading axis of length 1, as in published collections.

    The size of a patch in level-0 pixels is TRIDENT's ``patch_size_level0``, CLAM's ``patch_size`` times
    ``downsample`` (1 at ``patch_level`` 0; both are in ``patches`` only), or the side in microns of
    STAMP (``tile_size_um``) and slideflow (``tile_um``) divided by `mpp`. slideflow's coordinates are
    those of centers. Without `mpp` the resolution of TRIDENT's patches is nominal: 10 microns divided by
    ``target_magnification``.

    Files of :func:`write_features` are compared with their checksums (SHA-256): features in blocks of 64
    patches, and all the rest together.

    See Also
    --------
    FeatureSequence : The features of many files, left where they are.
    """
    path = Path(path)
    if is_own_file(path):
        if mpp is not None or coords is not None:
            raise ValueError(
                f"{path} states its resolution and coordinates; leave mpp= and coords= out"
            )
        with opened(path) as file:
            numbers(file, "features", path), numbers(file, "coords", path)
            return _read_own(file, expected, columns, path)
    if expected is not None:
        raise FeatureFileError(
            f"{path}: carries no settings of this package, so it cannot be checked against "
            f"{sorted(expected)}; read it without expected= if you know where it comes from"
        )
    stored = read_stored(path, coords)
    facts, rows = stored.facts, stored.rows
    n_patches = len(stored.coords) if rows is None and stored.coords is not None else 0
    shape = (n_patches, 0) if rows is None else rows.shape
    kept = range(shape[1])[slice(None) if columns is None else columns]
    values = np.empty((shape[0], 0), np.float32)
    if rows is not None and kept:
        values = np.array(rows.open()[:], dtype=np.float32)
        values = values if columns is None else values[:, columns]
        _check_finite(values, path)
    placed = place(stored.coords, facts, mpp, path)
    return PatchFeatures(
        features=values,
        locations=placed.locations,
        name=facts.name,
        patch_size_level0=placed.side_level0,
        attributes=dict(stored.attributes),
        grid=None if placed.lattice is None else placed.lattice.grid,
        stride=None if placed.lattice is None else placed.lattice.stride,
        dimensions=facts.dimensions,
        mpp=placed.mpp,
        encoder=facts.encoder,
        n_features=shape[1],
        program=stored.program,
        magnification=facts.magnification,
        level0_magnification=facts.level0_magnification,
        patch_size=facts.size,
        overlap=facts.overlap,
    )


def is_own_file(path: str | PathLike[str]) -> bool:
    """Whether a file was written by this package, even if it is partly damaged.

    Raises
    ------
    FileNotFoundError, FeatureFileError
        If there is no such file, or it should be HDF5 by its name and is not.
    """
    path = Path(path)
    if path.suffix.lower() in (".pt", ".pth", ".npy", ".npz"):
        return False
    with opened(path) as file:
        marks = {SETTINGS, SETTINGS_HASH, N_WRITTEN, HEAD_DIGEST}
        return bool(marks & set(file.attrs)) or ROW_DIGESTS in file


def _read_own(
    file: h5py.File, expected: Mapping[str, Any] | None, columns: slice | None, path: Path
) -> PatchFeatures:
    """A file of :func:`write_features`, compared with its checksums."""
    settings = _read_head(file, path)
    _check_settings(settings, expected, path)
    stored, digests = file["features"], file[ROW_DIGESTS][...]
    n_patches, n_features = stored.shape
    kept = range(n_features)[slice(None) if columns is None else columns]
    features = np.empty((n_patches, len(kept)), dtype=np.float32)
    for start in range(0, n_patches if kept else 0, ROWS_AT_ONCE):
        rows = stored[start : start + ROWS_AT_ONCE].astype("<f4", copy=False)
        _check_rows(rows, digests, start // BLOCK_ROWS, path)
        features[start : start + len(rows)] = rows if columns is None else rows[:, columns]
    of_coords, of_boxes = (
        {key: plain(value) for key, value in file[name].attrs.items()} for name in ("coords", BOXES)
    )
    n_rows, n_columns = (int(n) for n in file[CELLS].attrs["shape"])
    mpp_x, mpp_y = of_boxes["level0_mpp"]
    origin_x, origin_y = of_boxes["level0_origin"]
    return PatchFeatures(
        features=features,
        locations=file["coords"][...],
        name=of_coords["name"],
        patch_size_level0=positive(of_coords, "patch_size_level0", path),
        attributes=of_coords,
        settings=settings,
        grid=PatchGrid(
            boxes=file[BOXES][...],
            cells=file[CELLS][...],
            shape=(n_rows, n_columns),
            size=tuple(settings["patch_size"]),
            mpp=settings["patch_mpp"],
        ),
        dimensions=dimensions_of(of_coords, path),
        mpp=(mpp_x, mpp_y),
        origin=(origin_x, origin_y),
        encoder=encoder_of(settings),
        n_features=n_features,
        patch_size=int(settings["patch_size"][0]),
        overlap=int(of_coords["overlap"]),
        stride=float(settings.get("stride") or settings["patch_size"][0]),
    )


@dataclass(frozen=True, eq=False)
class LocatedFeatures:
    """Position of the features in a file, their settings and checksums.

    Attributes
    ----------
    rows : Rows
    shape : tuple of int
        (n_patches, n_features).
    digests : ndarray of shape (n_blocks, 32), uint8, or None
        None in files of other programs.
    settings : dict
        What made the features; in files of other programs what they state of that.
    """

    rows: Rows
    digests: np.ndarray | None
    settings: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.shape


def locate_features(
    path: str | PathLike[str], expected: Mapping[str, Any] | None = None
) -> LocatedFeatures:
    """Find the features of a file without reading them.

    Parameters
    ----------
    path : str or path-like
        As :func:`read_features` takes it.
    expected : mapping, optional
        As in :func:`read_features`.

    Returns
    -------
    located : LocatedFeatures

    Raises
    ------
    FeatureFileError
        As :func:`read_features`, but for the features themselves.
    """
    path = Path(path)
    if not is_own_file(path):
        if expected is not None:
            raise FeatureFileError(f"{path}: carries no settings of this package; make it again")
        stored = read_stored(path)
        if stored.rows is None:
            raise FeatureFileError(f"{path}: holds coordinates without features")
        return LocatedFeatures(stored.rows, None, stored.facts.made_by())
    with opened(path) as file:
        features = numbers(file, "features", path)
        settings = _read_head(file, path)
        _check_settings(settings, expected, path)
        offset, shape = features.id.get_offset(), features.shape
        if shape[0] and shape[1] and (offset is None or features.dtype != np.dtype("<f4")):
            raise FeatureFileError(f"{path}: damaged: the features are missing; make it again")
        rows = MappedRows(str(path), "<f4", offset or 0, (int(shape[0]), int(shape[1])))
        return LocatedFeatures(rows, file[ROW_DIGESTS][...], settings)


def check_features(path: str | PathLike[str], located: LocatedFeatures) -> None:
    """Compare all features of a file of :func:`write_features` with their checksums.

    Raises
    ------
    FeatureFileError
        If some differ.
    """
    assert located.digests is not None
    _check_rows(np.asarray(located.rows.open()[:]), located.digests, 0, Path(path))


def _check_rows(rows: np.ndarray, digests: np.ndarray, first: int, path: Path) -> None:
    """Raise unless rows from block `first` on are those that were written."""
    block = wrong_block(rows, digests[first:])
    if block is not None:
        start = (first + block) * BLOCK_ROWS
        raise FeatureFileError(
            f"{path}: damaged: the features of patches {start} to {start + BLOCK_ROWS - 1} do not agree "
            "with their checksum; make it again"
        )


def _read_head(file: h5py.File, path: Path) -> dict[str, Any]:
    """Settings of a file written here, after all but the features was compared with its checksum."""
    text = file.attrs.get(SETTINGS)
    if not isinstance(text, str) or file.attrs.get(SETTINGS_HASH) != _sha256(text.encode()):
        raise FeatureFileError(f"{path}: the settings do not agree with their hash; make it again")
    features, counted = file["features"], [file.get(name) for name in COUNTED]
    if file.attrs.get(N_WRITTEN) != len(features):
        raise FeatureFileError(f"{path}: the file was not written to its end; make it again")
    if HEAD_DIGEST not in file.attrs and ROW_DIGESTS not in file:
        raise FeatureFileError(
            f"{path}: has no checksums, which files have since this version; make it again"
        )
    if not all(isinstance(dataset, h5py.Dataset) for dataset in counted) or (
        file.attrs.get(HEAD_DIGEST) != head_digest(file, COUNTED, features.shape, text)
    ):
        raise FeatureFileError(
            f"{path}: changed or damaged since it was written: coords, windows or attributes do not agree "
            "with their checksum; make it again"
        )
    return json.loads(text)


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


def _check_settings(
    settings: Mapping[str, Any], expected: Mapping[str, Any] | None, path: Path
) -> None:
    wanted = json.loads(_canonical(expected or {}))
    differing = [
        f"{key} is {settings.get(key)!r}, expected {value!r}"
        for key, value in wanted.items()
        if key not in settings or settings[key] != value
    ]
    if differing:
        raise FeatureFileError(
            f"{path}: made with other settings: {'; '.join(differing)}; make the features again"
        )


def _overlap(grid: PatchGrid, extent: float) -> int:
    """Pixels of a patch shared with its right neighbor."""
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


def _check_finite(values: np.ndarray, path: Path, first: int = 0) -> None:
    if not np.isfinite(values).all():
        raise FeatureFileError(
            f"{path}: {_first_bad(values, first)} has NaN or infinite features; make the file again"
        )


def _first_bad(features: np.ndarray, first: int = 0) -> str:
    return f"patch {first + int(np.argmin(np.isfinite(features).all(axis=1)))}"
