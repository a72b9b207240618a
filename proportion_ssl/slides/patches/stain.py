"""Stain normalization: match the colors of all slides to a reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from proportion_ssl.slides.patches.sequences import SlidePatches, _Patches

FIT_IMAGES = 256
"""Number of evenly spaced images used in a fit."""

ESTIMATE_PIXELS = 2**20
"""Number of evenly spaced pixels used in an estimate."""

MIN_STAINED = 64
"""Smallest number of stained pixels for an estimate of the stain."""

MIN_ANGLE = np.deg2rad(3.0)
"""Angle between two stains below which an image is assumed to have one stain only."""

ABSENT = 0.1
"""Share of the reference's amount of a stain below which the stain is assumed to be absent."""

_OPTICAL_DENSITY = -np.log((np.arange(256) + 1) / 256.0).astype(np.float32)  # finite at 0

# Reinhard et al. 2001, equations 4 to 6: RGB to cone responses, and these (log10) to l-alpha-beta
_RGB_TO_LMS = np.array(
    [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]
)
_LMS_TO_LAB = np.diag(1 / np.sqrt([3.0, 6.0, 2.0])) @ np.array(
    [[1.0, 1.0, 1.0], [1.0, 1.0, -2.0], [1.0, -1.0, 0.0]]
)


class _StainNormalizer(TransformerMixin, BaseEstimator):
    """Base class: fit on a reference, and transform image by image or slide by slide."""

    def fit(self, X, y=None):
        """Learn the reference's colors.

        Parameters
        ----------
        X : array-like of shape (n, height, width, 3), uint8
            Patches of one reference slide, or of a cohort for its overall colors. If there are
            more than 256, 256 evenly spaced ones are read.
        y : None
            Ignored.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If X does not hold 8-bit RGB images, or has almost no stained tissue.
        """
        _check_shape(X)
        step = -(-len(X) // FIT_IMAGES)
        reference = self._estimate(_pixels(np.asarray(X[::step])))
        if reference is None:
            raise ValueError(
                f"X holds fewer than {MIN_STAINED} stained pixels to learn from; give patches of "
                "tissue."
            )
        self._set_reference(reference)
        return self

    def transform(self, X, *, slide_ids=None) -> np.ndarray:
        """Normalize images to the reference's colors.

        Parameters
        ----------
        X : array-like of shape (n, height, width, 3), uint8
            Images.
        slide_ids : array-like of shape (n,), optional
            Slide of each image. The stain is then estimated from all images of a slide together, which is
            more stable. Default: from each image separately.

        Returns
        -------
        images : ndarray of shape (n, height, width, 3), uint8
            Pixels without stain, and images with almost no stain, are unchanged.

        Raises
        ------
        ValueError
            If X does not hold 8-bit RGB images, or `slide_ids` has a wrong length.
        NotFittedError
            If the normalizer is not fitted.
        """
        check_is_fitted(self)
        _check_shape(X)
        X = np.asarray(X)
        if slide_ids is None:
            groups = np.arange(len(X))
        else:
            slide_ids = np.asarray(slide_ids)
            if slide_ids.shape != (len(X),):
                raise ValueError(
                    f"slide_ids has shape {slide_ids.shape} but X has {len(X)} images; give one "
                    "id per image."
                )
            groups = np.unique(slide_ids, return_inverse=True)[1]
        out = X.copy()
        for group in range(groups.max(initial=-1) + 1):
            members = np.flatnonzero(groups == group)
            source = self._estimate(_pixels(X[members]))
            if source is not None:
                for i in members:
                    out[i] = self._apply(X[i], source)
        return out

    def estimate(self, X):
        """Colors of one slide, for :class:`NormalizedPatches`.

        Parameters
        ----------
        X : array-like of shape (n, height, width, 3), uint8
            Patches of the slide; of more than 256, 256 evenly spaced ones are read.

        Returns
        -------
        colors : tuple of ndarray, or None
            Color statistics of the slide; None with almost no stained tissue.
        """
        _check_shape(X)
        return self._estimate(_pixels(np.asarray(X[:: -(-len(X) // FIT_IMAGES)])))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []
        return tags


class MacenkoNormalizer(_StainNormalizer):
    """Stain normalization of Macenko et al. [1]_: unmix, rescale and remix two stains.

    Parameters
    ----------
    min_density : float, default=0.15
        Pixels with optical density below this in any channel are glass and ignored.
    percentile : float, default=1.0
        The two stains are the directions with this percentage of stained pixels beyond each of them.

    Attributes
    ----------
    stain_matrix_ : ndarray of shape (3, 2)
        Optical density (red, green, blue) of hematoxylin and eosin in the reference, unit columns.
    max_concentrations_ : ndarray of shape (2,)
        99th percentile of their amounts over the reference's stained pixels.

    Notes
    -----
    In optical density, ``-ln((I + 1) / 256)``, stains add up [1]_. The plane of the two largest principal
    components of the stained pixels holds both stains; they are the extreme directions in it. Amounts follow
    by least squares, are scaled to the reference's, and mixed again in the reference's stains. All steps
    together are one linear map of optical density per slide, so white stays white; colors outside the two
    stains (ink, pigment) get the nearest mixture.

    Two deviations from the paper: amounts are compared by percentiles of stained pixels only, so that the
    share of glass has no influence; and where an image holds one stain only, the reference's stain directions
    are used and only the amounts rescaled (not those of a stain that is absent: below a tenth of the
    reference's).

    References
    ----------
    .. [1] M. Macenko, M. Niethammer, J. S. Marron, D. Borland, J. T. Woosley, X. Guan, C. Schmitt, N. E.
       Thomas. "A method for normalizing histology slides for quantitative analysis". ISBI 2009.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> amounts = rng.gamma(2.0, 0.4, size=(2, 32 * 32, 2))
    >>> stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    >>> images = (255 * np.exp(-amounts @ stains)).reshape(2, 32, 32, 3).astype(np.uint8)
    >>> normalizer = MacenkoNormalizer().fit(images[:1])
    >>> normalizer.stain_matrix_[:, 0].round(1)
    array([0.6, 0.7, 0.3])
    >>> normalizer.transform(images).shape
    (2, 32, 32, 3)
    """

    def __init__(self, *, min_density: float = 0.15, percentile: float = 1.0):
        self.min_density = min_density
        self.percentile = percentile

    def _set_reference(self, reference):
        self.stain_matrix_, self.max_concentrations_ = reference

    def _estimate(self, pixels):
        if not 0 < self.min_density < 5:
            raise ValueError(f"min_density must be between 0 and 5, got {self.min_density!r}.")
        if not 0 <= self.percentile < 50:
            raise ValueError(f"percentile must be from 0 to below 50, got {self.percentile!r}.")
        density = _OPTICAL_DENSITY[pixels].astype(np.float64)
        density = density[density.min(axis=1) >= self.min_density]
        if len(density) < MIN_STAINED:
            return None
        stains = self._stain_directions(density)
        if stains is None:
            if not hasattr(self, "stain_matrix_"):
                raise ValueError(
                    "X holds one stain only; give patches with both hematoxylin and eosin."
                )
            stains = self.stain_matrix_
        amounts = density @ np.linalg.pinv(stains).T
        return stains, np.percentile(amounts, 99, axis=0)

    def _stain_directions(self, density):
        """Unit columns of the extreme directions, or None if they are one."""
        plane = np.linalg.eigh(np.cov(density.T))[1][:, [2, 1]]
        plane[:, 0] *= np.sign(plane[:, 0].sum()) or 1.0
        angles = np.arctan2(density @ plane[:, 1], density @ plane[:, 0])
        ends = np.percentile(angles, [self.percentile, 100 - self.percentile])
        if ends[1] - ends[0] < MIN_ANGLE:
            return None
        stains = plane @ np.array([np.cos(ends), np.sin(ends)])
        return stains[:, np.argsort(-stains[0])]  # hematoxylin absorbs more red than eosin

    def _apply(self, image, source):
        stains, amounts = source
        absent = amounts < ABSENT * self.max_concentrations_
        scale = self.max_concentrations_ / np.where(absent, self.max_concentrations_, amounts)
        change = self.stain_matrix_ @ np.diag(scale) @ np.linalg.pinv(stains)
        density = _OPTICAL_DENSITY[image] @ change.T.astype(np.float32)
        return _to_uint8(256.0 * np.exp(-density) - 1.0)


class ReinhardNormalizer(_StainNormalizer):
    """Color transfer of Reinhard et al. [1]_: match mean and deviation in l-alpha-beta.

    Attributes
    ----------
    mean_, std_ : ndarray of shape (3,)
        Mean and standard deviation of the reference's stained pixels in l-alpha-beta.

    Notes
    -----
    Statistics are those of pixels with a mean optical density of at least 0.15. The paper moves all pixels,
    which would tint the glass; here a pixel is moved fully above that density, not at all below a third of
    it, and proportionally in between. So white stays white, without visible seams.

    References
    ----------
    .. [1] E. Reinhard, M. Ashikhmin, B. Gooch, P. Shirley. "Color Transfer between Images". IEEE
       Computer Graphics and Applications 21(5), 2001.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> images = rng.integers(60, 200, size=(2, 16, 16, 3), dtype=np.uint8)
    >>> normalizer = ReinhardNormalizer().fit(images)
    >>> difference = normalizer.transform(images, slide_ids=[0, 0]).astype(int) - images
    >>> int(abs(difference).max()) <= 1
    True
    """

    _STAINED = 0.15

    def _set_reference(self, reference):
        self.mean_, self.std_ = reference

    def _estimate(self, pixels):
        pixels = pixels[_OPTICAL_DENSITY[pixels].mean(axis=1) >= self._STAINED]
        if len(pixels) < MIN_STAINED:
            return None
        values = _to_lab(pixels)
        return values.mean(axis=0), np.maximum(values.std(axis=0), 1e-4)

    def _apply(self, image, source):
        mean, std = source
        values = (_to_lab(image) - mean) * (self.std_ / std) + self.mean_
        moved = _from_lab(values)
        density = _OPTICAL_DENSITY[image].mean(axis=-1, keepdims=True)
        least = self._STAINED / 3
        weight = np.clip((density - least) / (self._STAINED - least), 0.0, 1.0)
        return _to_uint8(weight * moved + (1 - weight) * image)


class NormalizedPatches(_Patches):
    """Patches of one slide in the colors of a reference, read and changed when indexed.

    Parameters
    ----------
    patches : SlidePatches
        Patches of one slide, at any magnification.
    normalizer : MacenkoNormalizer or ReinhardNormalizer
        Fitted on the reference.
    colors : tuple of ndarray, or None
        Color statistics of the slide from ``normalizer.estimate``, the same for all magnifications; with None
        the pixels are unchanged.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import tifffile
    >>> from proportion_ssl.slides.reading.slide import open_slide
    >>> pixels = np.random.default_rng(0).integers(60, 200, size=(256, 256, 3), dtype=np.uint8)
    >>> with TemporaryDirectory() as folder:
    ...     path = folder + "/slide.tif"
    ...     tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    ...     with open_slide(path, mpp=1.0) as slide:
    ...         patches = SlidePatches(slide, slide.grid(magnification=10, size=128))
    ...         normalizer = ReinhardNormalizer().fit(patches)
    ...         same = NormalizedPatches(patches, normalizer, normalizer.estimate(patches))
    ...         same.shape, bool(abs(same[0].astype(int) - patches[0]).max() <= 1)
    ((4, 128, 128, 3), True)
    """

    def __init__(self, patches: SlidePatches, normalizer: _StainNormalizer, colors: Any):
        check_is_fitted(normalizer)
        self.patches = patches
        self.normalizer = normalizer
        self.colors = colors

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """(height, width, 3)."""
        return self.patches.patch_shape

    def __len__(self) -> int:
        return len(self.patches)

    def batches(self, batch_size: int = 64) -> Iterator[np.ndarray]:
        """Patches in order, up to `batch_size` at a time."""
        for batch in self.patches.batches(batch_size):
            yield self._change(batch)

    def _read(self, indices):
        return self._change(self.patches._read(indices))

    def _change(self, batch):
        if self.colors is None:
            return batch
        return np.stack([self.normalizer._apply(image, self.colors) for image in batch])


def _to_lab(pixels):
    cones = (pixels.astype(np.float64) + 1.0) / 256.0 @ _RGB_TO_LMS.T
    return np.log10(cones) @ _LMS_TO_LAB.T


def _from_lab(values):
    cones = 10.0 ** (values @ np.linalg.inv(_LMS_TO_LAB).T)
    return cones @ np.linalg.inv(_RGB_TO_LMS).T * 256.0 - 1.0


def _to_uint8(values):
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def _pixels(images):
    """(n, 3), evenly thinned."""
    pixels = images.reshape(-1, 3)
    return pixels[:: -(-len(pixels) // ESTIMATE_PIXELS)] if len(pixels) else pixels


def _check_shape(X):
    if not hasattr(X, "shape") or not hasattr(X, "dtype"):
        raise TypeError(
            f"X must be an array of images (n, height, width, 3), got {type(X).__name__}."
        )
    if len(X.shape) != 4 or X.shape[3] != 3:
        raise ValueError(f"X must have shape (n, height, width, 3), got {tuple(X.shape)}.")
    if X.dtype != np.uint8:
        raise ValueError(f"X must be 8-bit (uint8), values 0 to 255, got {X.dtype}.")
    if X.shape[0] == 0:
        raise ValueError("X holds no image; give at least one.")
