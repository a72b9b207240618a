"""Where the patches of other programs lie: level-0 boxes, and cells of the lattice they were cut on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.formats.stored import PatchFacts
from proportion_ssl.slides.grid import PatchGrid, magnification_to_mpp

MAX_COORDINATE = 1e9  # level-0 pixels or microns; the largest slides have a few million
FINE = 4
"""Cells along a side of a patch where patches lie on no common lattice (CLAM cuts one per tissue piece)."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """Windows, their cells, and the distance of cells in pixels of a patch."""

    grid: PatchGrid
    stride: float


@dataclass(frozen=True, eq=False)
class Placed:
    """Patches of a file in level-0 pixels, as far as they are known."""

    locations: np.ndarray | None
    side_level0: float | None
    lattice: Lattice | None
    mpp: tuple[float, float] | None


def place(coords: np.ndarray | None, facts: PatchFacts, mpp: float | None, path: Path) -> Placed:
    """Put patches into level-0 pixels.

    Parameters
    ----------
    coords : ndarray of shape (n_patches, 2) or None
        As the file has them.
    facts : PatchFacts
    mpp : float or None
        Microns per level-0 pixel.
    path : Path

    Returns
    -------
    placed : Placed
        ``locations`` is None without coordinates, and where these are microns and `mpp` is not known;
        ``lattice`` also where size or resolution of the patches is not known.

    Raises
    ------
    FeatureFileError
        If coordinates are not finite, have fractions of pixels, lie beyond the slide, number the cells of a
        grid, or come twice.
    """
    if mpp is not None and not (np.isfinite(mpp) and mpp > 0):
        raise ValueError(f"mpp must be positive microns per level-0 pixel, got {mpp!r}")
    of_slide = None if mpp is None else (float(mpp), float(mpp))
    side = _side_level0(facts, mpp, path)
    if coords is None:
        return Placed(None, side, None, of_slide)
    _check_range(coords, path)
    if facts.unit == "um":
        if mpp is None:
            return Placed(None, side, None, None)
        corners = coords.astype(float) / mpp
    else:
        _check_whole(coords, path)
        corners = coords.astype(float)
    if facts.is_center:
        if side is None:
            return Placed(None, None, None, of_slide)
        corners = np.ceil(corners - side / 2)
    locations = np.floor(corners + 0.5).astype(np.int64)
    _check_inside(locations, facts.dimensions, path)
    _check_steps(locations, side, path)
    _check_unique(locations, path)
    lattice = None
    patch_mpp = _patch_mpp(facts, side, mpp)
    if side is not None and facts.size is not None and patch_mpp is not None:
        lattice = lattice_of(
            corners,
            side,
            facts.size,
            patch_mpp,
            overlap=facts.overlap,
            dimensions=facts.dimensions,
        )
    return Placed(locations, side, lattice, of_slide)


def lattice_of(
    corners: np.ndarray,
    side: float,
    size: int,
    patch_mpp: float,
    *,
    overlap: int | None = None,
    dimensions: tuple[int, int] | None = None,
) -> Lattice:
    """Windows and their cells from the corners of patches.

    Parameters
    ----------
    corners : ndarray of shape (n, 2), float
        (x, y) in level-0 pixels.
    side : float
        Of a patch, in level-0 pixels.
    size : int
        Of a patch, in its own pixels.
    patch_mpp : float
        Microns per pixel of a patch.
    overlap : int, optional
        Pixels of a patch that it shares with the next. Default: by the distance that is most frequent
        between neighbors.
    dimensions : tuple of int, optional
        (width, height) of the slide, which cells then cover.

    Returns
    -------
    lattice : Lattice
        Cell (0, 0) is the first of the lattice on the slide. Where patches do not lie on one lattice, cells
        have a quarter of the side of a patch, and its corner is that of the nearest cell, off by an eighth
        of a side at most; boxes are exact.
    """
    stride = float(size if overlap is None else size - overlap)
    if overlap is None and len(corners):
        stride = round(_usual_step(corners, side) * size / side, 6)
    step = stride * side / size
    cells, shape = _cells(corners, side, step, dimensions)
    if cells is None:
        stride, step = size / FINE, side / FINE
        cells, shape = _cells(corners, side, step, dimensions, nearest=True)
    assert cells is not None
    boxes = np.floor(np.hstack([corners, corners + side]) + 0.5).astype(np.int64)
    grid = PatchGrid(boxes, cells[:, ::-1], shape[::-1], (size, size), patch_mpp)
    return Lattice(grid, stride)


def _cells(
    corners: np.ndarray,
    side: float,
    step: float,
    dimensions: tuple[int, int] | None,
    *,
    nearest: bool = False,
) -> tuple[np.ndarray | None, tuple[int, int]]:
    """(column, row) of each patch and their numbers; None if one is more than a pixel off the lattice."""
    if not len(corners):
        return np.zeros((0, 2), np.int64), (0, 0)
    least = corners.min(axis=0)
    origin = least - np.maximum(np.floor(least / step + 1e-6), 0) * step
    relative = (corners - origin) / step
    cells = np.rint(relative).astype(np.int64)
    if not nearest and (np.abs(relative - cells) * step > 1.0).any():
        return None, (0, 0)
    shape = cells.max(axis=0) + 1
    if dimensions is not None:
        fitting = np.floor((np.asarray(dimensions) - side - origin) / step + 1e-6).astype(int) + 1
        shape = np.maximum(shape, fitting)
    return cells, (int(shape[0]), int(shape[1]))


def all_windows(grid: PatchGrid, stride: float) -> PatchGrid:
    """The windows of all cells of a lattice, also of those without features.

    Parameters
    ----------
    grid : PatchGrid
        Of the patches that have features.
    stride : float
        Distance of cells in pixels of a patch.

    Returns
    -------
    full : PatchGrid
    """
    if not len(grid):
        return grid
    sides = (grid.boxes[:, 2:] - grid.boxes[:, :2]).mean(axis=0)
    step = sides * stride / np.array(grid.size)
    origin = (grid.boxes[:, :2] - grid.cells[:, ::-1] * step).mean(axis=0)
    rows, columns = np.divmod(np.arange(grid.shape[0] * grid.shape[1]), grid.shape[1])
    corners = np.stack([columns, rows], axis=1) * step + origin
    boxes = np.floor(np.hstack([corners, corners + sides]) + 0.5).astype(np.int64)
    full = PatchGrid(boxes, np.stack([rows, columns], axis=1), grid.shape, grid.size, grid.mpp)
    at = np.ravel_multi_index(tuple(grid.cells.T), grid.shape)
    full.boxes[at] = grid.boxes  # which were rounded from exact numbers
    return full


def _usual_step(corners: np.ndarray, side: float) -> float:
    """The most frequent distance of neighbors in a row or column, at most the side of a patch."""
    steps = []
    for axis in (0, 1):
        order = np.lexsort((corners[:, axis], corners[:, 1 - axis]))
        line, along = corners[order, 1 - axis], corners[order, axis]
        steps.append(np.diff(along)[np.diff(line) == 0])
    values, counts = np.unique(np.round(np.concatenate(steps), 3), return_counts=True)
    near = (values > 0) & (values < side)
    if not near.any():
        return side
    best = values[near][np.argmax(counts[near])]
    return float(best) if counts[near].max() > counts[~near].max(initial=0) else side


def _side_level0(facts: PatchFacts, mpp: float | None, path: Path) -> float | None:
    """Side of a patch in level-0 pixels; what is stated twice must agree to a pixel."""
    from_um = None if facts.side_um is None or mpp is None else facts.side_um / mpp
    if from_um is None and facts.side_level0 is None and facts.size and mpp and facts.magnification:
        return facts.size * magnification_to_mpp(facts.magnification) / mpp
    if facts.side_level0 is None or from_um is None:
        return from_um if facts.side_level0 is None else facts.side_level0
    if abs(from_um - facts.side_level0) > 1:
        raise FeatureFileError(
            f"{path}: a patch has {facts.side_level0:g} level-0 pixels, but {facts.side_um:g} microns are "
            f"{from_um:g} pixels at mpp={mpp:g}"
        )
    return facts.side_level0


def _patch_mpp(facts: PatchFacts, side: float | None, mpp: float | None) -> float | None:
    """Microns per pixel of a patch: measured where it can be, else by the nominal magnification."""
    if facts.size is not None and facts.side_um is not None:
        return facts.side_um / facts.size
    if None not in (facts.size, side, mpp):
        return side * mpp / facts.size  # type: ignore[operator]
    return None if facts.magnification is None else magnification_to_mpp(facts.magnification)


def _check_range(coords: np.ndarray, path: Path) -> None:
    if not ((coords > -MAX_COORDINATE) & (coords < MAX_COORDINATE)).all():
        raise FeatureFileError(
            f"{path}: coords of NaN or beyond any slide; expected level-0 pixels (x, y)"
        )


def _check_whole(coords: np.ndarray, path: Path) -> None:
    whole = np.rint(coords)
    if not np.array_equal(whole, coords):
        at = int(np.argmax((whole != coords).any(axis=1)))
        raise FeatureFileError(
            f"{path}: coords have fractions, such as {coords[at].tolist()} of patch {at}; expected whole "
            "level-0 pixels (x, y). If they are microns, divide them by the slide's microns per pixel, and "
            "round"
        )


def _check_inside(locations: np.ndarray, dimensions: tuple[int, int] | None, path: Path) -> None:
    if dimensions is not None and (locations >= dimensions).any():
        at = int(np.argmax((locations >= dimensions).any(axis=1)))
        raise FeatureFileError(
            f"{path}: coords {locations[at].tolist()} of patch {at} lie beyond the slide of "
            f"{dimensions[0]} x {dimensions[1]} pixels; expected level-0 pixels (x, y)"
        )


def _check_steps(locations: np.ndarray, side: float | None, path: Path) -> None:
    """Raise where coordinates number cells: all steps are one pixel."""
    steps = np.concatenate([np.diff(np.unique(locations[:, axis])) for axis in (0, 1)])
    if side is not None and side >= 8 and steps.max(initial=0) == 1:
        raise FeatureFileError(
            f"{path}: coords are 1 pixel apart, but a patch has {side:g} level-0 pixels; expected level-0 "
            "pixels (x, y), not cells of a grid"
        )


def _check_unique(locations: np.ndarray, path: Path) -> None:
    _, first, counts = np.unique(locations, axis=0, return_index=True, return_counts=True)
    if len(first) < len(locations):
        at = int(first[np.argmax(counts)])
        same = np.flatnonzero((locations == locations[at]).all(axis=1))[:2].tolist()
        raise FeatureFileError(
            f"{path}: patches {same[0]} and {same[1]} have the same coords {locations[at].tolist()}; was the "
            "slide written into the file twice?"
        )
