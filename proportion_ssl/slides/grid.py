"""Grid of patches on a slide: integer windows at level 0, computed from physical sizes."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

MPP_AT_1X = 10.0
"""Microns per pixel at magnification 1, by convention: 10x is 1.0, 20x is 0.5, 40x is 0.25."""

EDGE_RULES = ("drop", "pad")


def magnification_to_mpp(magnification: float) -> float:
    """Microns per pixel of a magnification, by the convention ``mpp = 10 / magnification``.

    A magnification names an objective, not a pixel size: scanners sold as 20x have between 0.23
    and 0.55 um per pixel. The convention turns the name into a length, and all geometry is done
    with the length. Where another convention holds, give microns per pixel instead.

    Parameters
    ----------
    magnification : float
        Positive; 10 means "10x".

    Returns
    -------
    mpp : float
        Microns per pixel.

    Raises
    ------
    ValueError
        If the magnification is not a positive finite number.

    Examples
    --------
    >>> magnification_to_mpp(20)
    0.5
    """
    return MPP_AT_1X / _positive(magnification, "magnification")


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """Windows of one slide: level-0 boxes, their cells in the full grid, and the patch size.

    Parameters
    ----------
    boxes : ndarray of shape (n, 4), int64
        ``x0, y0, x1, y1`` of each window in level-0 pixels, ``x1`` and ``y1`` exclusive. A window
        may reach beyond the slide; what lies outside is read as white.
    cells : ndarray of shape (n, 2), int64
        (row, column) of each window in the full grid.
    shape : tuple of int
        (n_rows, n_columns) of the full grid, of which the windows may be a subset.
    size : tuple of int
        (width, height) of a patch in pixels.
    mpp : float
        Microns per pixel of a patch.

    Notes
    -----
    Boxes need not all have the same extent: where a patch spans a fractional number of level-0
    pixels, each border is rounded once and shared by the two windows that meet there. So without
    overlap no pixel is counted twice and none is left out between windows.

    See Also
    --------
    patch_grid : Lays the windows out.

    Examples
    --------
    >>> grid = patch_grid((1000, 500), 0.5, magnification=10, size=100)
    >>> grid.shape, len(grid), len(grid[grid.cells[:, 0] == 0])
    ((2, 5), 10, 5)
    """

    boxes: np.ndarray
    cells: np.ndarray
    shape: tuple[int, int]
    size: tuple[int, int]
    mpp: float

    def __post_init__(self):
        boxes = np.asarray(self.boxes, dtype=np.int64).reshape(-1, 4)
        cells = np.asarray(self.cells, dtype=np.int64).reshape(-1, 2)
        if len(boxes) != len(cells):
            raise ValueError(
                f"boxes has {len(boxes)} rows but cells has {len(cells)}; give one cell per box."
            )
        if np.any(boxes[:, 2:] <= boxes[:, :2]):
            at = int(np.argmax(np.any(boxes[:, 2:] <= boxes[:, :2], axis=1)))
            raise ValueError(
                f"box {at} is {boxes[at].tolist()}; a box is (x0, y0, x1, y1) with x1 > x0 and "
                "y1 > y0."
            )
        if np.any(cells < 0) or np.any(cells >= np.asarray(self.shape)):
            raise ValueError(f"some cells lie outside the grid of shape {tuple(self.shape)}.")
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "cells", cells)
        object.__setattr__(self, "shape", _pair(self.shape, "shape", minimum=0))
        object.__setattr__(self, "size", _pair(self.size, "size", minimum=1))
        object.__setattr__(self, "mpp", _positive(self.mpp, "mpp"))

    @property
    def locations(self) -> np.ndarray:
        """Top-left corners (x, y) of the windows at level 0, shape (n, 2), int64."""
        return self.boxes[:, :2]

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index) -> PatchGrid:
        """Select windows (mask, indices, slice or one index); the shape of the full grid is unchanged."""
        boxes, cells = self.boxes[index], self.cells[index]
        return replace(self, boxes=np.atleast_2d(boxes), cells=np.atleast_2d(cells))

    def concentric(
        self, *, magnification: float | None = None, patch_mpp: float | None = None
    ) -> PatchGrid:
        """Windows of the same centers and patch size at another resolution.

        Parameters
        ----------
        magnification, patch_mpp : float, optional
            The other resolution, one of the two; see :func:`patch_grid`.

        Returns
        -------
        grid : PatchGrid
            Same cells and size. At a lower resolution the windows overlap, and those at the border
            reach beyond the slide.

        Examples
        --------
        >>> grid = patch_grid((896, 896), 0.5, magnification=10)
        >>> grid[0].boxes, grid[0].concentric(magnification=5).boxes
        (array([[  0,   0, 448, 448]]), array([[-224, -224,  672,  672]]))
        """
        mpp = _target_mpp(magnification, patch_mpp)
        extent = (self.boxes[:, 2:] - self.boxes[:, :2]) * (mpp / self.mpp)
        extent = np.maximum(_round(extent), 1)
        # twice the center is an integer, so that the corner is rounded once, always downwards
        corner = (self.boxes[:, :2] + self.boxes[:, 2:] - extent) // 2
        return replace(self, boxes=np.hstack([corner, corner + extent]), mpp=mpp)


def patch_grid(
    dimensions: tuple[int, int],
    mpp: float | tuple[float, float],
    *,
    magnification: float | None = None,
    patch_mpp: float | None = None,
    size: int | tuple[int, int] = 224,
    overlap: int | tuple[int, int] = 0,
    edge: str = "drop",
) -> PatchGrid:
    """Cover a slide with windows of one physical size, row by row from the top-left corner.

    Parameters
    ----------
    dimensions : tuple of int
        (width, height) of the slide in level-0 pixels.
    mpp : float or tuple of float
        Microns per level-0 pixel; (x, y) for a slide whose pixels are not square. Patches always
        have square pixels.
    magnification : float, optional
        Resolution of the patches as a magnification, by ``mpp = 10 / magnification``.
    patch_mpp : float, optional
        Resolution of the patches in microns per pixel. Give one of the two.
    size : int or tuple of int, default=224
        (width, height) of a patch in its own pixels.
    overlap : int or tuple of int, default=0
        Pixels of a patch, along x and y, that it shares with the next one; less than ``size``.
    edge : {"drop", "pad"}, default="drop"
        What happens where the slide's width or height is no multiple of the window's: "drop"
        leaves out windows that reach beyond the slide, "pad" keeps them (the part outside reads as
        white), so that the windows cover the whole slide.

    Returns
    -------
    grid : PatchGrid
        Possibly empty: a slide smaller than one window has none under "drop".

    Raises
    ------
    ValueError
        If no or two resolutions are given, or a value is out of range, or the patches would be
        less than one level-0 pixel wide.

    Notes
    -----
    With ``s = patch_mpp / mpp`` level-0 pixels per patch pixel, column ``c`` begins at level-0
    pixel ``round(c * (width - overlap) * s)`` and ends at
    ``round((c * (width - overlap) + width) * s)``, halves rounded up; rows likewise. Borders are
    computed from the origin, so rounding errors do not add up across the slide.

    Examples
    --------
    At 0.499 um per pixel a 10x patch of 224 pixels spans 448.9 pixels of the slide:

    >>> patch_grid((2220, 2967), 0.499, magnification=10).boxes[:3]
    array([[   0,    0,  449,  449],
           [ 449,    0,  898,  449],
           [ 898,    0, 1347,  449]])
    """
    extent = _pair(dimensions, "dimensions", minimum=1)
    side = _pair(size, "size", minimum=1)
    shared = _pair(overlap, "overlap", minimum=0)
    target = _target_mpp(magnification, patch_mpp)
    slide_mpp = _two(mpp)
    if len(slide_mpp) != 2:
        raise ValueError(f"mpp must be one number or (x, y), got {len(slide_mpp)} numbers.")
    if shared[0] >= side[0] or shared[1] >= side[1]:
        raise ValueError(f"overlap {shared} must be less than size {side}.")
    if edge not in EDGE_RULES:
        raise ValueError(f"edge must be one of {EDGE_RULES}, got {edge!r}.")

    borders = []
    for axis in (0, 1):
        scale = target / _positive(slide_mpp[axis], "mpp")
        if side[axis] * scale < 1:
            raise ValueError(
                f"a patch of {side[axis]} pixels at {target:g} um per pixel spans less than one "
                f"pixel of a slide with {slide_mpp[axis]:g} um per pixel; check the slide's mpp."
            )
        borders.append(_borders(extent[axis], side[axis], shared[axis], scale, edge))
    (x0, x1), (y0, y1) = borders
    rows, columns = np.divmod(np.arange(len(y0) * len(x0)), max(len(x0), 1))
    return PatchGrid(
        boxes=np.stack([x0[columns], y0[rows], x1[columns], y1[rows]], axis=1),
        cells=np.stack([rows, columns], axis=1),
        shape=(len(y0), len(x0)),
        size=side,
        mpp=target,
    )


def _borders(length, size, overlap, scale, edge):
    """Starts and ends of the windows along one axis of `length` level-0 pixels."""
    step = size - overlap
    most = int(np.ceil(length / (step * scale))) + 1
    index = np.arange(most, dtype=np.float64)
    starts = _round(index * step * scale)
    ends = _round((index * step + size) * scale)
    if edge == "drop":
        n = int(np.searchsorted(ends, length, side="right"))
    else:
        n = int(np.searchsorted(ends, length, side="left")) + 1
    return starts[:n], ends[:n]


def _round(values):
    """Nearest integer, halves upwards (NumPy rounds halves to even, which is not monotone here)."""
    return np.floor(values + 0.5).astype(np.int64)


def _target_mpp(magnification, patch_mpp):
    if (magnification is None) == (patch_mpp is None):
        raise ValueError(
            "give the resolution of the patches as magnification= or as patch_mpp=, one of the "
            f"two; got magnification={magnification!r}, patch_mpp={patch_mpp!r}."
        )
    if magnification is not None:
        return magnification_to_mpp(magnification)
    return _positive(patch_mpp, "patch_mpp")


def _positive(value, name):
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}.") from None
    if not (np.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be a positive finite number, got {value!r}.")
    return number


def _two(value: Any) -> tuple:
    return (value, value) if np.ndim(value) == 0 else tuple(value)


def _pair(value: Any, name: str, minimum: int) -> tuple[int, int]:
    """Two integers from one or two, at least `minimum`."""
    values = _two(value)
    try:
        pair = tuple(operator.index(v) for v in values)
    except TypeError:
        raise TypeError(f"{name} must be integers, got {value!r}.") from None
    if len(pair) != 2:
        raise ValueError(f"{name} must be one or two integers, got {value!r}.")
    if min(pair) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}.")
    return pair[0], pair[1]
