"""Detect tissue on a slide, and compute its share in each patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from proportion_ssl.slides.grid import PatchGrid
from proportion_ssl.slides.patches._glass import find_glass
from proportion_ssl.slides.reading._errors import NoTissueError

if TYPE_CHECKING:
    from proportion_ssl.slides.reading.slide import Slide

STAINED = 0.15
STAINED_IF_TEXTURED = 0.02
"""Saturation, relative to the glass, above which a pixel is stained. Uneven light tints glass by up to
0.02, other glass on the same slide by 0.1, and glass has no texture; tissue of a third of the usual
stain has 0.04 to 0.15."""

RIM = 0.3
"""Part of the saturation of a neighbor that smoothing and the lens bring to glass beside it."""

SMOOTHING_UM = 8.0
INK_MARGIN_UM = 24.0
GAP_UM = 80.0
"""Pieces of tissue no further apart than this count as one when small ones are dropped: tufts in
the airspaces of a lung are small, but not debris. For the share of a patch, airspaces up to this
width belong to the tissue around them."""

DARKEST = 0.1
"""Relative intensity below which a pixel is no stained tissue but shade, frame or marker."""

BLUR_WINDOW_UM = 160.0
BLUR_CONTRAST = 0.15
"""Deviation of the Laplacian per optical density: sharp H&E has above 0.3 at 4 to 8 um per pixel,
the same out of focus by 10 um (standard deviation of the spread) below 0.15, fat excepted."""


def tissue_mask(
    image: Any,
    *,
    mpp: float,
    threshold: float | None = None,
    min_area: float = 20_000.0,
    max_hole: float = 20_000.0,
) -> np.ndarray:
    """Mask of stained tissue in an overview image, without pen marks and blurred parts.

    Parameters
    ----------
    image : array-like of shape (height, width, 3), uint8
        RGB overview, such as ``slide.thumbnail(8.0)``.
    mpp : float
        Microns per pixel of the overview; 4 to 16 is sensible.
    threshold : float, optional
        Saturation (0 to 1) above which a pixel is stained, instead of the values in the notes.
    min_area : float, default=20000
        Pieces smaller than this, in square microns, are dropped (dust, debris), unless they and their
        neighbors together reach it.
    max_hole : float, default=20000
        Holes smaller than this, in square microns, are filled.

    Returns
    -------
    mask : ndarray of shape (height, width), bool

    Raises
    ------
    ValueError
        If the image is not 8-bit RGB, or a parameter is out of range.

    Notes
    -----
    1. The color of the glass: the brightest that flat, hardly tinted blocks of 64 um agree on, if
       they cover at least 2% of the picture. Tissue is not flat, however pale it is. Pure white
       counts as glass only where no other glass is seen, since scanners leave parts white.
    2. Saturation, (max - min) / max over the channels, of the picture divided by the color of the
       glass and smoothed by 8 um. Stained is what exceeds 0.15, or 0.02 where the picture has texture.
       Both come from what glass shows, not from the tissue: a threshold between the two (Otsu's)
       would drop pale tissue beside dark tissue, and with it whole classes. A picture without glass
       is all tissue.
    3. Ink is not tissue: in optical density (-ln of the intensity), blue and green pen absorb red
       more than green by a quarter, hematoxylin, eosin and DAB never do; black pen is dark
       (optical density above 1 in all channels) and gray. Ink grows by 24 um to take its rim.
    4. Blurred parts are not tissue: where the Laplacian of the optical density varies too little
       within 160 um for the amount of stain there. At 8 um per pixel this finds coarse loss of
       focus only.
    5. Small pieces dropped, small holes filled. Pieces within about 80 um of each other are taken
       together, so that tufts of cells in airspaces stay.

    Red ink cannot be told from eosin by color, and is not looked for. Gray tissue (unstained, or in a
    gray picture) is not found beside glass.

    Examples
    --------
    >>> image = np.full((100, 100, 3), 240, dtype=np.uint8)
    >>> noise = np.random.default_rng(0).integers(-30, 30, (40, 40, 1))
    >>> image[30:70, 30:70] = np.array([200, 130, 180]) + noise
    >>> mask = tissue_mask(image, mpp=8.0)
    >>> bool(mask[50, 50]), bool(mask[5, 5]), abs(int(mask.sum()) - 40 * 40) < 200
    (True, False, True)
    """
    image = _check_image(image)
    if not mpp > 0:
        raise ValueError(f"mpp must be positive, got {mpp!r}.")
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f"threshold is a saturation between 0 and 1, got {threshold!r}.")
    if min_area < 0 or max_hole < 0:
        raise ValueError(f"areas must not be negative, got {min_area!r} and {max_hole!r}.")

    glass = find_glass(image, mpp)
    mask = _stained(image, glass, mpp, threshold)
    unusable = _inked(image, glass.color, mpp) | _blurred(_mean_density(image, glass.color), mpp)
    mask &= ~unusable
    mask = _drop_small(mask, min_area / mpp**2, margin=round(GAP_UM / mpp / 2))
    if not mask.any():  # else a whole small picture would be a hole
        return mask
    return ~_drop_small(~mask, max_hole / mpp**2) & ~unusable


def ink_mask(image: Any, *, mpp: float) -> np.ndarray:
    """Blue, green and black pen marks in an overview picture; see :func:`tissue_mask`.

    Parameters
    ----------
    image : array-like of shape (height, width, 3), uint8
        RGB overview.
    mpp : float
        Microns per pixel of the overview.

    Returns
    -------
    mask : ndarray of shape (height, width), bool

    Examples
    --------
    >>> image = np.full((60, 60, 3), 245, dtype=np.uint8)
    >>> image[20:40, 20:40] = (40, 90, 190)
    >>> bool(ink_mask(image, mpp=8.0)[30, 30]), bool(ink_mask(image, mpp=8.0)[5, 5])
    (True, False)
    """
    image = _check_image(image)
    return _inked(image, find_glass(image, mpp).color, mpp)


def tissue_fraction(mask: Any, grid: PatchGrid, dimensions: tuple[int, int]) -> np.ndarray:
    """Share of each patch that is tissue.

    Parameters
    ----------
    mask : array-like of shape (height, width), bool
        Tissue over the whole slide, at any resolution.
    grid : PatchGrid
        Windows of the patches.
    dimensions : tuple of int
        (width, height) of the slide at level 0, over which the mask is spread.

    Returns
    -------
    fraction : ndarray of shape (n,), float64
        In [0, 1]. Mask pixels on a border are counted by their share; the area outside the slide is not
        tissue.

    Raises
    ------
    ValueError
        If the mask is not two-dimensional, or its aspect ratio differs from the slide's.

    Notes
    -----
    By the integral image of the mask, linear between its pixels' corners, which is exact for
    pixels of uniform value. The cost does not depend on the size of the patches.

    Examples
    --------
    >>> from proportion_ssl.slides.grid import patch_grid
    >>> grid = patch_grid((400, 200), 1.0, magnification=10, size=200)
    >>> tissue_fraction([[True, False, False, True]], grid, (400, 200))
    array([0.5, 0.5])
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"mask must have shape (height, width), got {mask.shape}.")
    height, width = mask.shape
    per_pixel = (dimensions[0] / width, dimensions[1] / height)
    # each side of the mask is a rounded number of pixels
    if (
        abs(dimensions[0] / per_pixel[1] - width) > 1
        and abs(dimensions[1] / per_pixel[0] - height) > 1
    ):
        raise ValueError(
            f"mask of {width} x {height} does not have the proportions of a slide of "
            f"{dimensions[0]} x {dimensions[1]}."
        )
    counts = np.int32 if mask.size < 2**31 else np.int64  # of a large overview this takes memory
    integral = np.zeros((height + 1, width + 1), dtype=counts)
    np.cumsum(mask != 0, axis=0, out=integral[1:, 1:])
    np.cumsum(integral[1:, 1:], axis=1, out=integral[1:, 1:])

    def area(x, y):
        x = np.clip(x / per_pixel[0], 0, width)
        y = np.clip(y / per_pixel[1], 0, height)
        i, j = np.minimum(y.astype(int), height - 1), np.minimum(x.astype(int), width - 1)
        v, u = y - i, x - j
        top = (1 - u) * integral[i, j] + u * integral[i, j + 1]
        bottom = (1 - u) * integral[i + 1, j] + u * integral[i + 1, j + 1]
        return (1 - v) * top + v * bottom

    x0, y0, x1, y1 = grid.boxes.T
    tissue = area(x1, y1) - area(x0, y1) - area(x1, y0) + area(x0, y0)
    extent = (x1 - x0) * (y1 - y0) / (per_pixel[0] * per_pixel[1])
    return np.clip(tissue / extent, 0.0, 1.0)


def tissue_grid(
    slide: Slide,
    grid: PatchGrid,
    *,
    min_fraction: float = 0.25,
    overview_mpp: float = 8.0,
    mask: np.ndarray | None = None,
) -> PatchGrid:
    """Keep the patches of a slide with enough tissue.

    Parameters
    ----------
    slide : Slide
        Opened slide.
    grid : PatchGrid
        Windows over this slide.
    min_fraction : float, default=0.25
        Smallest share of tissue in a patch, in (0, 1], including airspaces up to 80 um wide: a patch of lung
        with lepidic or micropapillary growth is often more than half air.
    overview_mpp : float, default=8.0
        Microns per pixel of the overview for tissue detection; 4 to 16 is sensible.
    mask : ndarray of bool, shape (height, width), optional
        Your own mask, used instead of :func:`tissue_mask`; it covers the whole slide.

    Returns
    -------
    grid : PatchGrid
        The patches of at least `min_fraction` tissue, at least one.

    Raises
    ------
    NoTissueError
        If the slide has no tissue, or no patch has enough of it; a :class:`SlideError`.
    ValueError
        If `min_fraction` is out of range or the grid is empty.

    See Also
    --------
    tissue_mask : Tissue detection; use it for other settings, or your own mask with
        :func:`tissue_fraction`.
    dropped_share : Share of each outlined class that is left out.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import tifffile
    >>> from proportion_ssl.slides.reading.slide import open_slide
    >>> glass = np.full((512, 512, 3), 240, dtype=np.uint8)
    >>> with TemporaryDirectory() as folder:
    ...     path = folder + "/blank.tif"
    ...     tifffile.imwrite(path, glass, tile=(256, 256), photometric="rgb")
    ...     with open_slide(path, mpp=4.0) as slide:
    ...         try:
    ...             tissue_grid(slide, slide.grid(patch_mpp=4.0, size=64))
    ...         except NoTissueError as error:
    ...             print(str(error).split("/")[-1])
    blank.tif shows no tissue; is it a blank or very pale slide?
    """
    if not 0 < min_fraction <= 1:
        raise ValueError(f"min_fraction must lie in (0, 1], got {min_fraction!r}.")
    if not len(grid):
        raise ValueError(f"the grid over {slide.path} has no windows; is a patch larger than it?")
    if mask is None:
        overview = slide.thumbnail(overview_mpp)
        # a slide coarser than requested is read at its own resolution
        mpp = slide.mpp * np.sqrt(np.prod(slide.dimensions) / np.prod(overview.shape[:2]))
        mask = _with_airspaces(tissue_mask(overview, mpp=float(mpp)), mpp)
        del overview
    if not mask.any():
        raise NoTissueError(f"{slide.path} shows no tissue; is it a blank or very pale slide?")
    fraction = tissue_fraction(mask, grid, slide.dimensions)
    kept = grid[np.flatnonzero(fraction >= min_fraction)]
    if not len(kept):
        raise NoTissueError(
            f"{slide.path} has no patch with {min_fraction:.0%} tissue among {len(grid)}; the most "
            f"has {fraction.max():.1%}. Lower min_fraction to keep such a slide."
        )
    return kept


def _check_image(image):
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0 or image.dtype != np.uint8:
        raise ValueError(
            f"image must be 8-bit RGB of shape (height, width, 3), got {image.dtype} of "
            f"{image.shape}."
        )
    return image


def _by_table(image, glass, of_relative):
    """Planes of a function of the intensities relative to the glass, which end at 1.

    Of a large overview the planes are what takes memory; so each is made when it is needed, and by
    itself, which is also much faster to compute with than three channels side by side.
    """
    for channel, color in enumerate(glass):
        table = np.minimum(np.arange(256, dtype=np.float32) / np.float32(color), 1.0)
        yield of_relative(table)[image[..., channel]]


def _relative_to_glass(image, glass):
    return _by_table(image, glass, lambda table: table)


def _optical_density(image, glass):
    """Planes of -ln of the relative intensity."""
    return _by_table(image, glass, lambda table: -np.log(np.clip(table, 1 / 256, 1.0)))


def _mean_density(image, glass):
    red, green, blue = _optical_density(image, glass)
    red += green
    red += blue
    red /= 3
    return red


def _smoothed(planes, sigma):
    """Smooth each plane by a Gaussian, in place; planes are not kept in memory."""
    return map(lambda plane: ndimage.gaussian_filter(plane, sigma, output=plane), planes)


def _stained(image, glass, mpp, threshold):
    """Mask of saturated pixels that are not too dark; without glass, of all that are not too dark."""
    sigma = SMOOTHING_UM / mpp / 2
    planes = _smoothed(_relative_to_glass(image, glass.color), sigma)
    brightest = next(planes)
    darkest = brightest.copy()
    _widen(brightest, darkest, planes)
    is_lit = brightest > DARKEST
    if threshold is None and not glass.is_seen:
        return is_lit
    saturation = np.subtract(brightest, darkest, out=darkest)
    saturation /= np.maximum(brightest, 1e-6, out=brightest)
    del brightest
    if threshold is not None:
        return (saturation > threshold) & is_lit
    stained = (saturation > STAINED_IF_TEXTURED) & glass.is_textured(saturation.shape)
    stained |= saturation > STAINED
    stained &= is_lit
    around = _largest_around(saturation, max(1, round(SMOOTHING_UM / mpp)))
    around *= RIM
    stained &= saturation > around
    return stained


def _largest_around(plane, reach):
    """Largest value within `reach` rows and columns; faster than a filter for a small reach."""
    down = plane.copy()
    for step in range(1, min(reach, len(plane) - 1) + 1):
        np.maximum(down[step:], plane[:-step], out=down[step:])
        np.maximum(down[:-step], plane[step:], out=down[:-step])
    out = down.copy()
    for step in range(1, min(reach, plane.shape[1] - 1) + 1):
        np.maximum(out[:, step:], down[:, :-step], out=out[:, step:])
        np.maximum(out[:, :-step], down[:, step:], out=out[:, :-step])
    return out


def _widen(largest, smallest, planes):
    """Make the extremes of each pixel, in place, those over further planes too."""
    for plane in planes:
        np.maximum(largest, plane, out=largest)
        np.minimum(smallest, plane, out=smallest)


def _inked(image, glass, mpp):
    """Mask of pen marks and their edges."""
    sigma = SMOOTHING_UM / mpp
    planes = _smoothed(_optical_density(image, glass), sigma)
    red, green = next(planes), next(planes)
    ink = (red > 1.25 * green) & (red > 0.25)
    densest, lightest = np.maximum(red, green), np.minimum(red, green, out=red)
    del red, green
    _widen(densest, lightest, planes)
    ink |= (lightest > 1.0) & (densest < 1.5 * lightest)
    ink = _drop_small(ink, (4 * SMOOTHING_UM / mpp) ** 2)
    margin = max(1, round(INK_MARGIN_UM / mpp))
    return ndimage.distance_transform_edt(~ink) <= margin if ink.any() else ink


def _blurred(density, mpp):
    """Mask of parts with too little texture for their amount of stain; overwrites the density."""
    window = max(3, round(BLUR_WINDOW_UM / mpp))
    detail = ndimage.laplace(density)
    detail *= detail
    deviation = ndimage.uniform_filter(detail, window, output=detail)
    np.sqrt(np.maximum(deviation, 0.0, out=deviation), out=deviation)
    mean = ndimage.uniform_filter(density, window, output=density)
    inside = mean > 0.05
    mean *= BLUR_CONTRAST
    inside &= deviation < mean
    # a little sharp texture in the window clears its center: grow back by half the window
    return ndimage.maximum_filter(inside, max(1, window - 2))


def _drop_small(mask, min_pixels, margin=0):
    """Remove connected pieces (4-connectivity) of fewer than `min_pixels` pixels.

    Pieces that touch when grown by `margin` pixels count as one.
    """
    grown = ndimage.maximum_filter(mask, 2 * margin + 1) if margin else mask
    labels, n = ndimage.label(grown)
    keep = np.bincount(labels[mask], minlength=n + 1) >= min_pixels
    keep[0] = False
    return keep[labels] & mask


def _with_airspaces(mask, mpp):
    """Add gaps between tissue up to 80 um wide to the mask."""
    side = max(1, round(GAP_UM / mpp))
    around = np.pad(mask, side)
    grown = ndimage.maximum_filter(around, side)
    # a filter of even side is off center by one: the second goes the other way
    closed = ndimage.minimum_filter(grown, side, origin=0 if side % 2 else -1)
    return closed[side:-side, side:-side]
