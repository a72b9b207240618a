"""Share of the outlined area that is lost by the selection of patches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from proportion_ssl.slides.annotations._coverage import ClassFractions

if TYPE_CHECKING:
    from proportion_ssl.slides.grid import PatchGrid


def dropped_share(
    fractions: ClassFractions | ArrayLike, grid: PatchGrid, kept: PatchGrid
) -> np.ndarray:
    """Share of the outlined area of each class in patches that are left out.

    If one class is left out more often than others, the patches of a slide no longer have its recorded
    proportions.

    Parameters
    ----------
    fractions : ClassFractions or array-like of shape (n_patches, n_classes)
        Share of each class in each patch of `grid`, from :func:`class_fractions`; or 0 and 1, to count
        labeled patches.
    grid : PatchGrid
        All windows of the slide.
    kept : PatchGrid
        The windows that are used, for example from :func:`tissue_grid`; a subset of `grid`.

    Returns
    -------
    share : ndarray of shape (n_classes,), float64
        In [0, 1]; NaN if the class is not outlined within the grid.

    Raises
    ------
    ValueError
        If `fractions` does not have a row for each window of `grid`, or `kept` has windows that are not in
        `grid`.

    Examples
    --------
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((400, 100), 1.0, magnification=10, size=100)
    >>> dropped_share([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.0, 0.5]], grid, grid[:3])
    array([0.  , 0.25])
    """
    shares = fractions.fractions if isinstance(fractions, ClassFractions) else fractions
    area = np.asarray(shares, dtype=np.float64)
    if area.ndim != 2 or len(area) != len(grid):
        raise ValueError(
            f"fractions must have one row for each of {len(grid)} windows of the grid and one "
            f"column for each class, got shape {area.shape}."
        )
    numbers = np.ravel_multi_index(tuple(grid.cells.T), grid.shape)
    used = np.ravel_multi_index(tuple(kept.cells.T), grid.shape, mode="clip")
    if kept.shape != grid.shape or not np.isin(used, numbers).all():
        raise ValueError(
            "kept has windows that are not in the grid; give the grid from which they were selected."
        )
    outlined = area.sum(axis=0)
    dropped = area[~np.isin(numbers, used)].sum(axis=0)
    return np.divide(dropped, outlined, out=np.full_like(outlined, np.nan), where=outlined > 0)
