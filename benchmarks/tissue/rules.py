"""Tissue by the rules of other packages, written from their descriptions.

Each takes an RGB overview (height, width, 3) uint8 and its microns per pixel, and gives a mask. Only the
rules are compared: they see the same overview, and patches are chosen from their masks in the same way.
"""

import numpy as np
from scipy import ndimage


def tiatoolbox(image, mpp):
    """``MorphologicalMasker``: Otsu's threshold of the gray level; pieces smaller than a disk of 32 um
    dropped, the rest grown by this disk.
    """
    gray = _gray(image)
    size = max(1, round(32 / mpp))
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    disk = rows**2 + columns**2 <= (size / 2) ** 2
    return ndimage.binary_dilation(_drop_small(gray < otsu(gray), disk.sum()), disk)


def trident(image, mpp):
    """The "otsu" segmenter: gray and black pixels are painted white, then Otsu's threshold of the gray
    level, twice, the second time with all else painted white; pieces up to 60 pixels dropped after the
    first, holes up to 5000 pixels of 8 um filled after the second.
    """
    scale = (8 / mpp) ** 2
    saturation, value = _saturation(image)
    plain = (value <= 85) | ((saturation <= 10) & (value >= 70))
    gray = _gray(np.where(plain[..., np.newaxis], 255, image))
    first = _drop_small(gray < otsu(gray), 60 * scale)
    gray = np.where(first, _gray(image), 255.0)
    return ~_drop_small(~(gray < otsu(gray)), 5000 * scale)


def clam(image, mpp):
    """Default of CLAM: saturation above 8 of 255 after a median of 7 pixels, closed by 4 pixels."""
    return _clam(image, 8)


def clam_otsu(image, mpp):
    """CLAM with ``use_otsu``: Otsu's threshold of the saturation instead of 8."""
    return _clam(image, None)


RULES = {"TIAToolbox": tiatoolbox, "TRIDENT otsu": trident, "CLAM": clam, "CLAM otsu": clam_otsu}


def _clam(image, threshold):
    saturation = ndimage.median_filter(_saturation(image)[0], 7)
    threshold = otsu(saturation) if threshold is None else threshold
    return ndimage.binary_closing(saturation > threshold, np.ones((4, 4)))


def otsu(values):
    """Threshold of whole numbers in 0..255 between the two groups of least variance within."""
    counts = np.bincount(values.ravel().astype(int), minlength=256).astype(float)
    below = np.cumsum(counts)
    above = below[-1] - below
    mass = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return int(np.nanargmax(np.where(below * above > 0, between, -1.0))) + 0.5


def _gray(image):
    return np.round(image @ np.array([0.299, 0.587, 0.114]))


def _saturation(image):
    """Saturation and value of HSV, each in 0..255."""
    value = image.max(axis=-1).astype(float)
    spread = value - image.min(axis=-1)
    return np.round(255 * spread / np.maximum(value, 1)), value


def _drop_small(mask, min_pixels):
    labels, n = ndimage.label(mask, np.ones((3, 3)))
    keep = np.bincount(labels.ravel(), minlength=n + 1) >= min_pixels
    keep[0] = False
    return keep[labels]
