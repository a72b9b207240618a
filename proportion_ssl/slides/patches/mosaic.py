"""Convert between one value per patch and a map with one pixel per patch."""

from __future__ import annotations

from typing import Any

import numpy as np


def stitch(values: Any, cells: Any, shape: tuple[int, int], fill: Any = -1) -> np.ndarray:
    """Put one value (or vector) per patch at its cell of a map.

    Parameters
    ----------
    values : array-like of shape (n,) or (n, k)
        One label, or one vector such as class probabilities, per patch.
    cells : array-like of shape (n, 2), integers
        (row, column) of each patch, as in ``PatchGrid.cells``; no cell twice.
    shape : tuple of int
        (n_rows, n_columns) of the map, as in ``PatchGrid.shape``.
    fill : scalar, default=-1
        Value of cells without a patch; must be representable in the type of `values`
        (``nan`` suits probabilities).

    Returns
    -------
    map : ndarray of shape (n_rows, n_columns) or (n_rows, n_columns, k)
        Same type as `values`.

    Raises
    ------
    ValueError
        If lengths differ, a cell lies outside the map or is repeated, or `fill` has a wrong type.

    See Also
    --------
    unstitch : The inverse.

    Examples
    --------
    >>> stitch([7, 8], [[0, 1], [1, 0]], (2, 3))
    array([[-1,  7, -1],
           [ 8, -1, -1]])
    """
    values = np.asarray(values)
    if values.ndim not in (1, 2):
        raise ValueError(f"values must have shape (n,) or (n, k), got {values.shape}.")
    cells, shape = _check_cells(cells, shape)
    if len(values) != len(cells):
        raise ValueError(f"values has {len(values)} rows but cells has {len(cells)}.")
    flat = cells[:, 0] * shape[1] + cells[:, 1]
    unique, counts = np.unique(flat, return_counts=True)
    if len(unique) != len(flat):
        row, column = divmod(int(unique[np.argmax(counts)]), shape[1])
        raise ValueError(
            f"cell ({row}, {column}) occurs {counts.max()} times; give each cell once."
        )
    if values.dtype.kind in "biu" and not _fits(fill, values.dtype):
        raise ValueError(
            f"fill={fill!r} cannot be stored with values of type {values.dtype}; give another "
            "fill or cast the values."
        )
    out = np.full((*shape, *values.shape[1:]), fill, dtype=values.dtype)
    out[cells[:, 0], cells[:, 1]] = values
    return out


def unstitch(label_map: Any, cells: Any) -> np.ndarray:
    """Values of a map at the patches' cells: the inverse of :func:`stitch`.

    Parameters
    ----------
    label_map : array-like of shape (n_rows, n_columns) or (n_rows, n_columns, k)
        Map with one pixel per patch.
    cells : array-like of shape (n, 2), integers
        (row, column) of each patch.

    Returns
    -------
    values : ndarray of shape (n,) or (n, k)
        In the order of `cells`.

    Raises
    ------
    ValueError
        If the map has another number of dimensions, or a cell lies outside it.

    Examples
    --------
    >>> unstitch([[-1, 7], [8, -1]], [[1, 0], [0, 1]])
    array([8, 7])
    """
    label_map = np.asarray(label_map)
    if label_map.ndim not in (2, 3):
        raise ValueError(
            f"label_map must have shape (n_rows, n_columns[, k]), got {label_map.shape}."
        )
    cells, _ = _check_cells(cells, label_map.shape[:2])
    return label_map[cells[:, 0], cells[:, 1]]


def _check_cells(cells, shape):
    cells = np.asarray(cells)
    if cells.size == 0:
        cells = np.zeros((0, 2), dtype=np.int64)
    if cells.ndim != 2 or cells.shape[1] != 2:
        raise ValueError(f"cells must have shape (n, 2), got {cells.shape}.")
    if cells.dtype.kind not in "iu":
        raise TypeError(f"cells must be integers (row, column), got type {cells.dtype}.")
    shape = tuple(int(n) for n in shape)
    if len(shape) != 2:
        raise ValueError(f"shape must be (n_rows, n_columns), got {shape}.")
    outside = np.any((cells < 0) | (cells >= np.asarray(shape)), axis=1)
    if outside.any():
        cell = tuple(cells[np.argmax(outside)].tolist())
        raise ValueError(
            f"{int(outside.sum())} of {len(cells)} cells lie outside the map of shape {shape}, "
            f"the first of them {cell}."
        )
    return cells.astype(np.int64), shape


def _fits(fill, dtype):
    if dtype.kind == "b":
        return fill in (False, True)
    limits = np.iinfo(dtype)
    return bool(np.isfinite(fill)) and fill == int(fill) and limits.min <= fill <= limits.max
