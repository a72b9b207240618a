"""Compute the features of a cohort, one file per slide; runs can be interrupted and resumed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from proportion_ssl._atomic import remove_abandoned
from proportion_ssl.slides.features.batch import CohortRun, named_slides, run_cohort
from proportion_ssl.slides.features.files import (
    FeatureFileError,
    check_features,
    locate_features,
    write_features,
)
from proportion_ssl.slides.features.slide_files import file_fingerprint, file_stamp
from proportion_ssl.slides.patches.mask_file import read_tissue_mask
from proportion_ssl.slides.patches.sequences import SlidePatches
from proportion_ssl.slides.patches.stain import (
    MacenkoNormalizer,
    NormalizedPatches,
    ReinhardNormalizer,
)
from proportion_ssl.slides.patches.tissue import tissue_grid
from proportion_ssl.slides.reading._resolution import contradicts
from proportion_ssl.slides.reading.slide import Slide, SlideError, open_slide

__all__ = ["embed_slides"]

logger = logging.getLogger(__name__)

FORMAT = "proportion_ssl slide features 2"  # part of the settings: change it with the arithmetic
BLOCK = 64
"""Number of patches per block; the next block is read while one is embedded."""


class Embedder(Protocol):
    """Required interface of an embedder in :func:`embed_slides`."""

    def transform(self, X: np.ndarray, /) -> np.ndarray:
        """Features (n, n_features) of images (n, height, width, 3)."""
        ...

    def fingerprint(self) -> str:
        """Hash of all that the features of an image depend on, apart from its pixels."""
        ...


def embed_slides(
    slides: Iterable[str | PathLike[str]] | Mapping[str, str | PathLike[str]],
    embedder: Embedder,
    folder: str | PathLike[str],
    *,
    magnification: float | Sequence[float] = 10.0,
    size: int = 224,
    stride: int | None = None,
    normalizer: MacenkoNormalizer | ReinhardNormalizer | None = None,
    min_fraction: float = 0.25,
    tissue_mask: Mapping[str, str | PathLike[str] | np.ndarray] | None = None,
    mpp: Mapping[str, float] | None = None,
    on_error: str = "raise",
    n_jobs: int | None = None,
    verbose: bool = False,
) -> CohortRun:
    """Compute the features of all patches with tissue, one HDF5 file per slide.

    A second run keeps existing files after checking their checksums. A file is computed again if it is
    damaged, or if the embedder, the slide, the magnification, the size, the colors or the selection of
    patches have changed. A killed run loses only the slides in progress.

    Parameters
    ----------
    slides : iterable of path-like, or mapping of str to path-like
        Slide files, named by their file name without its last suffix, or by the mapping.
    embedder : object
        Has ``transform(images)``, which maps uint8 images (n, height, width, 3) to features (n, n_features),
        and ``fingerprint()``, a string that changes whenever the features would: a
        :class:`~proportion_ssl.PatchEmbedder`, or an object of your own.
    folder : str or path-like
        Folder of the files ``<name>.h5``; created if needed.
    magnification : float or sequence of float, default=10
        Patches are adjacent at the first magnification. Features of the windows with the same centers at the
        other magnifications are appended to the same row.
    size : int, default=224
        Side of a patch in pixels, at every magnification.
    stride : int, optional
        Step from patch to patch in pixels, at the first magnification. Default: `size`, so that patches are
        adjacent.
    normalizer : MacenkoNormalizer or ReinhardNormalizer, optional
        Fitted stain normalizer; the colors of each slide are estimated from its patches.
    min_fraction : float, default=0.25
        Smallest share of tissue in a patch; see :func:`tissue_grid`. Other patches are not decoded.
    tissue_mask : mapping of str to path-like or ndarray, optional
        Tissue masks by slide name, used instead of tissue detection: images, or arrays of shape (height,
        width), that cover the whole slide at any resolution; non-zero is tissue.
    mpp : mapping of str to float, optional
        Microns per level-0 pixel by slide name, for slides whose files do not state them.
    on_error : {"raise", "skip"}, default="raise"
        As in :func:`process_slides`; the other slides are processed in any case.
    n_jobs : int, optional
        Number of slides embedded in parallel, as in :func:`process_slides`; with
        ``joblib.parallel_config(backend="dask")`` on the machines of a cluster that share `folder` and the
        slides.
    verbose : bool, default=False
        Whether to show a progress bar with slides and patches per second.

    Returns
    -------
    run : CohortRun
        ``results`` holds the path of each slide's file, for :func:`read_features` or, without reading it into
        memory, :class:`FeatureSequence`; ``failures`` the slides without a file.

    Raises
    ------
    CohortError
        If slides failed and `on_error` is "raise".
    TypeError, ValueError
        If an argument is invalid, or a name is not a valid file name.

    Notes
    -----
    The next block of patches is read and decoded while one is embedded. Memory use does not depend on the
    size and number of slides.

    A slide is recognized by size, modification time and samples of its content. If one of these differs, such
    as the time of a copy, the whole content is compared (SHA-256), so that a copied cohort is not embedded
    again. All files of multi-file slides are included; see :func:`file_fingerprint`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import tifffile
    >>> from proportion_ssl.slides.features.files import read_features
    >>> class MeanColor:
    ...     def transform(self, images):
    ...         return images.mean(axis=(1, 2))
    ...     def fingerprint(self):
    ...         return "mean color 1"
    >>> nuclei = np.random.default_rng(0).integers(-60, 30, (64, 64, 1))
    >>> pixels = (np.array([200, 130, 180]) + nuclei).astype(np.uint8)
    >>> pixels = pixels.repeat(8, axis=0).repeat(8, axis=1)
    >>> with TemporaryDirectory() as folder:
    ...     tifffile.imwrite(folder + "/a.tif", pixels, tile=(256, 256), photometric="rgb",
    ...                      resolution=(5000, 5000), resolutionunit="CENTIMETER")
    ...     run = embed_slides([folder + "/a.tif"], MeanColor(), folder + "/features",
    ...                        magnification=5, size=128)
    ...     read_features(run.results["a"]).features.shape
    (16, 3)
    """
    for name in ("transform", "fingerprint"):
        if not callable(getattr(embedder, name, None)):
            raise TypeError(
                f"embedder has no method {name}; give a PatchEmbedder, or an object with "
                "transform(images) and fingerprint()."
            )
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error must be "raise" or "skip", got {on_error!r}.')
    paths = named_slides(slides)
    mpp = dict(mpp or {})
    masks = dict(tissue_mask or {})
    for what, given in (("mpp", mpp), ("tissue_mask", masks)):
        unknown = sorted(given.keys() - paths.keys())
        if unknown:
            raise ValueError(f"{what} names {unknown[0]!r}, which is not among the slides.")
    stride = size if stride is None else stride
    if not 0 < stride <= size:
        raise ValueError(f"stride must be from 1 to size={size} pixels, got {stride!r}.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    magnifications = tuple(float(m) for m in np.atleast_1d(magnification))
    function = partial(
        _embed_slide,
        embedder=embedder,
        patches=_Patches(magnifications, size, stride, min_fraction),
        normalizer=normalizer,
    )
    entries = {
        name: _Entry(name, fspath(path), folder / f"{name}.h5", mpp.get(name), masks.get(name))
        for name, path in paths.items()
    }
    with _Progress(
        total=len(entries), desc="features", unit="slide", disable=not verbose
    ) as progress:
        run = run_cohort(entries, function, progress.finished, n_jobs=n_jobs)
    run = CohortRun({name: entries[name].target for name in run.results}, run.failures)
    run.check(on_error)
    return run


@dataclass(frozen=True)
class _Entry:
    """A slide of the cohort, and the file of its features."""

    name: str
    path: str
    target: Path
    mpp: float | None
    mask: Any  # path, array or None


@dataclass(frozen=True)
class _Patches:
    """Which patches of a slide are embedded."""

    magnifications: tuple[float, ...]
    size: int
    stride: int
    min_fraction: float


class _Progress(tqdm):
    """Bar over slides that also counts patches."""

    n_patches = n_stored = 0

    def finished(self, n_new: int | None) -> None:
        """Count a slide: its patches, 0 if they were stored before, None if it failed."""
        self.n_patches += n_new or 0
        self.n_stored += n_new == 0
        elapsed = self.format_dict["elapsed"]
        rate = self.n_patches / elapsed if elapsed else 0.0
        text = f"{self.n_patches} patches, {rate:.1f} patch/s"
        text += f", {self.n_stored} slides stored before" * bool(self.n_stored)
        self.set_postfix_str(text, refresh=False)
        self.update()


def _embed_slide(
    entry: _Entry,
    *,
    embedder: Embedder,
    patches: _Patches,
    normalizer: MacenkoNormalizer | ReinhardNormalizer | None,
) -> int:
    """Compute the file of one slide unless it exists; return the number of computed patches."""
    settings = {
        "format": FORMAT,
        "embedder": embedder.fingerprint(),
        "slide_mpp": entry.mpp,
        "magnifications": list(patches.magnifications),
        "size": patches.size,
        "min_fraction": patches.min_fraction,
        "colors": None if normalizer is None else _reference_of(normalizer),
    }
    if getattr(embedder, "encoder_name", None) is not None:
        settings["encoder"] = embedder.encoder_name  # type: ignore[attr-defined]
    if patches.stride != patches.size:
        settings["stride"] = patches.stride
    mask = None if entry.mask is None else read_tissue_mask(entry.mask)
    if mask is not None:
        settings["tissue_mask"] = hashlib.sha256(
            f"{mask.shape}".encode() + mask.tobytes()
        ).hexdigest()
    stamp = file_stamp(entry.path)
    if entry.target.exists():
        try:
            _check_stored(entry, settings, stamp)
        except FeatureFileError as error:
            logger.info("features of %s are computed again: %s", entry.name, error)
        else:
            return 0
    settings |= {"slide": file_fingerprint(entry.path), "slide_stamp": stamp}
    with open_slide(entry.path, mpp=entry.mpp) as slide:
        if contradicts(slide.stated_mpp, slide.mpp):
            logger.warning(
                "%s: the given %.4g microns per pixel are used, but the file states %.4g; omit them if "
                "the file is right",
                *(entry.name, slide.mpp, slide.stated_mpp),
            )
        grid = slide.grid(
            magnification=patches.magnifications[0],
            size=patches.size,
            overlap=patches.size - patches.stride,
        )
        grid = tissue_grid(slide, grid, min_fraction=patches.min_fraction, mask=mask)
        grids = [grid, *(grid.concentric(magnification=m) for m in patches.magnifications[1:])]
        # the reading thread must finish before the slide is closed
        with closing(_read_ahead(_views(slide, grids, normalizer))) as blocks:
            write_features(
                entry.target,
                _embedded(blocks, embedder, entry.path, stamp),
                grid,
                name=entry.name,
                dimensions=slide.dimensions,
                mpp=slide.mpp_xy,
                origin=slide.bounds[:2],
                settings=settings,
            )
    return len(grid)


def _check_stored(entry: _Entry, settings: Mapping[str, Any], stamp: str) -> None:
    """Raise FeatureFileError unless the file holds the features of this slide with these settings."""
    located = locate_features(entry.target, settings)
    stored = located.settings
    further = stored.keys() - settings.keys() - {"slide", "slide_stamp", "patch_size", "patch_mpp"}
    if further:
        raise FeatureFileError(f"{entry.target}: made with further settings: {sorted(further)}")
    if stored.get("slide_stamp") != stamp and stored.get("slide") != file_fingerprint(entry.path):
        raise FeatureFileError(f"{entry.target}: the slide {entry.path} has changed since")
    check_features(entry.target, located)


def _embedded(
    blocks: Iterable[tuple[np.ndarray, ...]], embedder: Embedder, path: str, stamp: str
) -> Generator[np.ndarray, None, None]:
    """Features of every block, those of the views side by side."""
    for block in blocks:
        yield np.hstack([embedder.transform(images) for images in block])
    if file_stamp(path) != stamp:
        raise SlideError(f"{path} changed on disk while it was embedded; embed it again.")


def _views(slide: Slide, grids, normalizer) -> Sequence[SlidePatches | NormalizedPatches]:
    """Patches of every magnification, normalized to the reference colors."""
    views = [SlidePatches(slide, grid) for grid in grids]
    if normalizer is None:
        return views
    colors = normalizer.estimate(views[0])  # once for all magnifications
    return [NormalizedPatches(view, normalizer, colors) for view in views]


def _read_ahead(views: Sequence[Any]) -> Generator[tuple[np.ndarray, ...], None, None]:
    """Blocks of the same patches in every view; the next is read while one is used."""
    blocks = zip(*(view.batches(BLOCK) for view in views), strict=True)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-patches") as reader:
        pending = reader.submit(next, blocks, None)
        while (block := pending.result()) is not None:
            pending = reader.submit(next, blocks, None)
            yield block


def _reference_of(normalizer: MacenkoNormalizer | ReinhardNormalizer) -> list[Any]:
    """Class, parameters and fitted state of a normalizer, for JSON."""
    fitted = {name: value for name, value in vars(normalizer).items() if name.endswith("_")}
    state = {**normalizer.get_params(), **fitted}
    return [
        type(normalizer).__name__,
        {name: np.asarray(value).tolist() for name, value in sorted(state.items())},
    ]
