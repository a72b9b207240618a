"""Features and geometry of one slide, as needed for fitting and segmenting."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.slides import (
    MPP_AT_1X,
    FeatureFileError,
    FeatureSequence,
    PatchFeatures,
    PatchGrid,
    Region,
    class_fractions,
    dropped_share,
    magnification_to_mpp,
    open_slide,
    patch_grid,
    patch_labels,
    read_annotations,
    read_features,
)
from proportion_ssl.slides.features.files import is_own_file
from proportion_ssl.slides.features.formats.registry import is_feature_name
from proportion_ssl.slides.features.geometry import all_windows

logger = logging.getLogger(__name__)

CROPPED = (".mrxs", ".scn")
"""Formats in which often only a region is scanned; QuPath and others count pixels from its corner."""


GIVE_MPP = "give mpp (column mpp of the manifest; for slides without a manifest mpp= or --mpp)"


@dataclass(frozen=True, eq=False)
class SlideFeatures:
    """Features of the patches of a slide, and their positions.

    Parameters
    ----------
    name : str
    features : ndarray of float32, or FeatureSequence, of shape (n_patches, n_views * n_features)
        One magnification after the other. Features of other programs are read from their file on demand.
    grid : PatchGrid
    dimensions : tuple of int
        (width, height) of level 0; if no file states it, the extent of the patches.
    mpp : tuple of float
        Microns per level-0 pixel, (x, y).
    origin : tuple of int
        Level-0 (x, y) of the scanned region, the origin of coordinates in some programs.
    made_by : dict
        Settings of the features: ``embedder`` (fingerprint or name), ``magnifications``, ``size``, ``colors``
        (the reference of the normalizer, or None), and ``stride`` if windows of this package overlap.
    stride : float
        Distance of neighboring grid cells in pixels; equal to the side of a patch if patches do not overlap.
    is_measured : bool
        Whether dimensions and resolution are stated, rather than inferred from patches and nominal
        magnification.
    is_nominal : bool
        Whether `mpp` is 10 microns divided by the nominal magnification of the slide.
    program : str or None
        Program that made the features; None: this package.
    """

    name: str
    features: Any
    grid: PatchGrid
    dimensions: tuple[int, int]
    mpp: tuple[float, float]
    origin: tuple[int, int]
    made_by: Mapping[str, Any]
    stride: float
    is_measured: bool = True
    is_nominal: bool = False
    program: str | None = None

    @property
    def n_views(self) -> int:
        """Number of magnifications in a row of features."""
        return len(self.made_by["magnifications"])

    @property
    def first_view(self) -> Any:
        """Features at the first magnification."""
        if self.n_views == 1:
            return self.features
        return self.features[:, : self.features.shape[1] // self.n_views]

    @property
    def cells_per_window(self) -> int:
        """Distance in grid cells of windows that just do not overlap: 1 unless windows overlap."""
        return max(1, round(self.grid.size[0] / self.stride))

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """x, y, width and height of the scanned region, as for a slide."""
        x, y = self.origin
        return x, y, self.dimensions[0] - x, self.dimensions[1] - y

    @property
    def has_lattice(self) -> bool:
        """Whether patches lie on separate grid cells, so that cells without features are known."""
        cells = np.unique(self.grid.cells, axis=0)
        return self.program is None or (
            self.stride * 4 > self.grid.size[0] and len(cells) == len(self.grid)
        )

    def full_grid(self) -> PatchGrid:
        """All windows of the grid, including those without tissue; the grid itself without a lattice."""
        if self.program is not None:
            return all_windows(self.grid, self.stride) if self.has_lattice else self.grid
        return patch_grid(
            self.dimensions,
            self.mpp,
            patch_mpp=self.grid.mpp,
            size=self.grid.size,
            overlap=self.grid.size[0] - int(self.stride),
            edge="drop",
        )

    def read_outlines(self, annotation: str | Path) -> list[Region]:
        """Regions in an outline file of this slide, in level-0 pixels."""
        if self.is_measured:
            return read_annotations(annotation, slide=self)
        return read_annotations(annotation, offset=self.origin)


def is_feature_file(path: str | Path) -> bool:
    """Whether a path is that of a feature file rather than a slide."""
    return is_feature_name(path)


def read_slide_features(
    path: str | Path, name: str, *, mpp: float | None = None, image: str | Path | None = None
) -> SlideFeatures:
    """Read features, windows and geometry from a file of this package or another program.

    Parameters
    ----------
    path : str or Path
        Feature file in a format of :func:`~proportion_ssl.slides.read_features`.
    name : str
        Name of the slide.
    mpp : float, optional
        Microns per level-0 pixel, for files of other programs that do not state them.
    image : str or Path, optional
        The slide. It is opened only if it exists and the features lack the resolution, the size of the slide,
        or (MRXS, SCN) the scanned region that outlines may refer to.

    Returns
    -------
    slide : SlideFeatures

    Raises
    ------
    FeatureFileError
        If the file is damaged, or does not state how its features were made.
    """
    path = Path(path)
    if not is_own_file(path):
        return _read_foreign(path, name, mpp, None if image is None else Path(image))
    stored = read_features(path)
    if stored.grid is None or stored.settings is None or stored.dimensions is None:
        raise FeatureFileError(
            f"{path}: lacks the windows of its patches and their settings; write features with "
            "embed_slides or write_features."
        )
    settings = stored.settings
    made_by = {
        "embedder": settings.get("embedder"),
        "magnifications": tuple(settings.get("magnifications", [10.0 / stored.grid.mpp])),
        "size": stored.grid.size[0],
        "colors": settings.get("colors"),
    }
    if "stride" in settings:
        made_by["stride"] = settings["stride"]
    return SlideFeatures(
        name=name,
        features=stored.features,
        grid=stored.grid,
        dimensions=stored.dimensions,
        mpp=stored.mpp or (stored.grid.mpp,) * 2,
        origin=stored.origin or (0, 0),
        made_by=made_by,
        stride=float(settings.get("stride") or stored.grid.size[0]),
    )


def _read_foreign(path: Path, name: str, mpp: float | None, image: Path | None) -> SlideFeatures:
    """Read a file of another program; its features are read on demand."""
    stored = read_features(path, columns=slice(0), mpp=mpp)
    if stored.n_features == 0:
        raise FeatureFileError(
            f"{path}: holds coordinates without features; give the folder of features"
        )
    dimensions, origin, known_mpp = stored.dimensions, (0, 0), stored.mpp
    is_cropped = image is not None and image.suffix.lower() in CROPPED
    lacks = dimensions is None or known_mpp is None or stored.grid is None
    if image is not None and (is_cropped or lacks):
        if image.exists():
            with open_slide(image, mpp=mpp) as slide:
                dimensions, known_mpp = slide.dimensions, (slide.mpp, slide.mpp)
                origin = (int(slide.bounds[0]), int(slide.bounds[1]))
            stored = read_features(path, columns=slice(0), mpp=known_mpp[0])
        elif is_cropped:
            raise FeatureFileError(
                f"{path}: slide not found: {image}. It is needed because outlines of {image.suffix} slides "
                "may count from the corner of the scanned region, which features do not state"
            )
    if stored.grid is None or stored.locations is None:
        raise FeatureFileError(f"{path}: {_what_is_missing(stored)}")
    if not len(stored):
        raise FeatureFileError(f"{path}: has no patches; leave the slide out")
    is_measured = dimensions is not None and known_mpp is not None
    is_nominal = known_mpp is None
    if known_mpp is None:
        if stored.level0_magnification is None:
            raise FeatureFileError(
                f"{path}: does not state the slide's microns per pixel; {GIVE_MPP}"
            )
        nominal = magnification_to_mpp(stored.level0_magnification)
        known_mpp = (nominal, nominal)
    covered = stored.grid.boxes[:, 2:].max(axis=0)
    return SlideFeatures(
        name=name,
        features=FeatureSequence({name: path}),
        grid=stored.grid,
        dimensions=dimensions or (int(covered[0]), int(covered[1])),
        mpp=known_mpp,
        origin=origin,
        made_by={
            "embedder": stored.encoder,
            "magnifications": (_magnification(stored),),
            "size": stored.grid.size[0],
            "colors": None,
        },
        stride=stored.stride or float(stored.grid.size[0]),
        is_measured=is_measured,
        is_nominal=is_nominal,
        program=stored.program,
    )


def warn_of_nominal(names: Sequence[str]) -> None:
    """Warn of the slides whose resolution is inferred from the nominal magnification, if there are any."""
    if names:
        logger.warning("%s", nominal_message(names))


def nominal_message(names: Sequence[str]) -> str:
    """Say that the resolution of slides is inferred from the nominal magnification, and what to do."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        f"the resolution of {', '.join(names[:3])}{more} is not stated, so areas are computed from the "
        f"nominal magnification; for exact areas {GIVE_MPP}."
    )


def _magnification(stored: PatchFeatures) -> float:
    """Stated magnification, or that of the stated microns per pixel; else the nearest nominal one."""
    assert stored.grid is not None
    if stored.magnification is not None:
        return float(stored.magnification)
    if stored.program in ("STAMP", "slideflow"):
        return round(MPP_AT_1X / stored.grid.mpp, 6)
    return MPP_AT_1X * 2.0 ** -round(float(np.log2(stored.grid.mpp)))


def _what_is_missing(stored: PatchFeatures) -> str:
    if stored.locations is None and stored.mpp is not None:
        return "has no coordinates of its patches; give a file that has them"
    if stored.locations is None:
        return (
            "has no coordinates, or coordinates in microns, which need the slide's microns per pixel; "
            f"{GIVE_MPP}"
        )
    if stored.patch_size is None:
        return (
            "has features and coordinates but no patch size; give h5 files with the attribute 'patch_size', "
            "or put the folder 'patches' of CLAM beside the folder of the features"
        )
    if stored.patch_size_level0 is None and stored.mpp is not None:
        return (
            f"has patches of {stored.patch_size} pixels at an unknown level; give h5 files with the "
            "attributes 'patch_level' and 'downsample' (CLAM) or 'patch_size_level0' (TRIDENT)"
        )
    return f"does not state the resolution of its patches or of the slide; {GIVE_MPP}"


@dataclass(frozen=True, eq=False)
class OutlinedPatches:
    """Labels of the windows of a slide, from its outlines.

    Parameters
    ----------
    labels : ndarray of object, shape (n_patches,)
        Labels of the patches with features; None without a majority class.
    missed : dict of str to int
        Number of windows by label without features, which the tissue mask dropped.
    dropped : dict of str to float
        Share of the outlined area of each class that lies in such windows.
    areas : dict of str to float
        Outlined area of each class, in windows.
    """

    labels: np.ndarray
    missed: Mapping[str, int]
    dropped: Mapping[str, float] = field(default_factory=dict)
    areas: Mapping[str, float] = field(default_factory=dict)


def outlined_patches(
    slide: SlideFeatures, annotation: str | Path, classes: list[str]
) -> OutlinedPatches:
    """Label the windows of a slide from an outline file.

    Parameters
    ----------
    slide : SlideFeatures
    annotation : str or Path
    classes : list of str
        Classes of the cohort; "non-cancer" and "vague" may also be outlined.

    Returns
    -------
    patches : OutlinedPatches
    """
    regions = slide.read_outlines(annotation)
    return label_windows(regions, slide.full_grid(), slide.grid, classes)


def label_windows(
    regions: Sequence[Region], full: PatchGrid, kept: PatchGrid, classes: Sequence[str]
) -> OutlinedPatches:
    """Label the kept windows, and measure the outlined area in the other windows.

    Parameters
    ----------
    regions : sequence of Region
        Regions of the classes, "non-cancer" or "vague".
    full, kept : PatchGrid
        All windows of the slide, and those with enough tissue; the same grid twice if the other windows are
        not known.
    classes : sequence of str
        Classes of the cohort.

    Returns
    -------
    patches : OutlinedPatches
    """
    names = [*classes, NON_CANCER]
    found = class_fractions(regions, full, names)
    labels = patch_labels(found.fractions, names, ignored=found.ignored)
    outlined = np.flatnonzero(found.fractions.sum(axis=0) > 0).tolist()
    if full is kept:
        areas = found.fractions.sum(axis=0)
        return OutlinedPatches(labels, {}, {}, {names[k]: float(areas[k]) for k in outlined})
    position = np.full(full.shape, -1)
    position[tuple(full.cells.T)] = np.arange(len(full))
    at = position[tuple(kept.cells.T)]
    missed = Counter(label for label in np.delete(labels, at).tolist() if label is not None)
    areas, shares = found.fractions.sum(axis=0), dropped_share(found, full, kept)
    return OutlinedPatches(
        labels=labels[at],
        missed=dict(missed),
        dropped={names[k]: float(shares[k]) for k in outlined},
        areas={names[k]: float(areas[k]) for k in outlined},
    )
