"""Read user-supplied tissue masks."""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

import numpy as np
from PIL import Image

MAX_PIXELS = 2**28


def read_tissue_mask(mask: str | PathLike[str] | np.ndarray) -> np.ndarray:
    """Read a mask from an image or an array.

    Parameters
    ----------
    mask : path-like, or ndarray of shape (height, width)
        An image in a format of Pillow, gray, black and white or with a palette; non-zero is tissue.

    Returns
    -------
    mask : ndarray of bool, shape (height, width)

    Raises
    ------
    ValueError
        If the mask is a color image, has another shape, or is too large.
    """
    values: Any
    if isinstance(mask, str | PathLike):
        with Image.open(mask) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(
                    f"{fspath(mask)}: a mask of {picture.size} pixels; give at most {MAX_PIXELS:,}."
                )
            if picture.mode not in ("1", "L", "P", "I", "I;16"):
                raise ValueError(
                    f"{fspath(mask)}: a tissue mask must be a gray picture with one channel, got "
                    f"mode {picture.mode!r}."
                )
            values = np.asarray(picture)
    else:
        values = np.asarray(mask)
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "biuf":
        raise ValueError(
            f"a tissue mask must be an array of shape (height, width), got {values.dtype} of "
            f"shape {values.shape}."
        )
    return values != 0
