"""Channels of decoded pixels."""

from __future__ import annotations

import numpy as np


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """8-bit gray, gray-alpha, RGB or RGBA pixels as RGB over white.

    Parameters
    ----------
    pixels : ndarray of shape (height, width) or (height, width, 1 to 4), uint8
        Alpha, if any, comes last and is not multiplied in.

    Returns
    -------
    rgb : ndarray of shape (height, width, 3), uint8

    Raises
    ------
    ValueError
        If pixels are not 8-bit or have another number of channels.

    Examples
    --------
    A fully transparent black pixel is glass, hence white:

    >>> to_rgb(np.array([[[0, 0, 0, 0], [10, 20, 30, 255]]], dtype=np.uint8))[0].tolist()
    [[255, 255, 255], [10, 20, 30]]
    """
    if pixels.dtype != np.uint8:
        raise ValueError(f"only slides with 8 bits per channel can be read, got {pixels.dtype}.")
    if pixels.ndim == 2:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 3 or not 1 <= pixels.shape[2] <= 4:
        raise ValueError(f"pixels must have 1 to 4 channels, got an array of {pixels.shape}.")
    channels = pixels.shape[2]
    color = pixels[..., : 1 if channels < 3 else 3]
    if channels in (2, 4) and pixels[..., -1].min(initial=255) < 255:
        alpha = pixels[..., -1:].astype(np.uint16)
        color = ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(color, (*color.shape[:2], 3)))
