"""Features of one slide with its geometry: all that fitting and segmenting need of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from proportion_ssl.slides import (
    FeatureFileError,
    PatchGrid,
    Region,
    class_fractions,
    dropped_share,
    patch_grid,
    patch_labels,
    read_annotations,
    read_features,
)

NON_CANCER = "non-cancer"
FEATURE_SUFFIXES = (".h5", ".hdf5")


@dataclass(frozen=True, eq=False)
class SlideFeatures:
    """Features of the patches of a slide, and where they lie.

    Parameters
    ----------
    name : str
    features : ndarray of float32, shape (n_patches, n_views * n_features)
        One magnification after the other.
    grid : PatchGrid
    dimensions : tuple of int
        (width, height) of level 0.
    mpp : tuple of float
        Microns per level-0 pixel, (x, y).
    origin : tuple of int
        Level-0 (x, y) of the scanned part, from which some programs count.
    made_by : dict
        What the features depend on: ``embedder`` (fingerprint or name), ``magnifications``, ``size``,
        ``colors`` (the reference of the normalizer, or None); ``stride`` if windows overlap.
    """

    name: str
    features: np.ndarray
    grid: PatchGrid
    dimensions: tuple[int, int]
    mpp: tuple[float, float]
    origin: tuple[int, int]
    made_by: Mapping[str, Any]

    @property
    def n_views(self) -> int:
        """Magnifications side by side in a row."""
        return len(self.made_by["magnifications"])

    @property
    def stride(self) -> int:
        """Step from window to window, in pixels; the side of a patch where they lie side by side."""
        return self.made_by.get("stride") or self.grid.size[0]

    @property
    def first_view(self) -> np.ndarray:
        """Features at the first magnification."""
        return self.features[:, : self.features.shape[1] // self.n_views]

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """As of a slide: x, y, width and height of the scanned part."""
        x, y = self.origin
        return x, y, self.dimensions[0] - x, self.dimensions[1] - y

    def full_grid(self) -> PatchGrid:
        """All windows of the grid, those without tissue too."""
        return patch_grid(
            self.dimensions,
            self.mpp,
            patch_mpp=self.grid.mpp,
            size=self.grid.size,
            overlap=self.grid.size[0] - self.stride,
            edge="drop",
        )


def is_feature_file(path: str | Path) -> bool:
    """Whether a path names a file of features rather than a slide."""
    return Path(path).suffix.lower() in FEATURE_SUFFIXES


def read_slide_features(path: str | Path, name: str) -> SlideFeatures:
    """Features, windows and geometry from a file of :func:`~proportion_ssl.slides.embed_slides`.

    Parameters
    ----------
    path : str or Path
    name : str
        Name of the slide.

    Returns
    -------
    slide : SlideFeatures

    Raises
    ------
    FeatureFileError
        If the file is damaged, or does not say what its features were made with.
    """
    stored = read_features(path)
    if stored.grid is None or stored.settings is None or stored.dimensions is None:
        raise FeatureFileError(
            f"{path}: does not hold the windows of its patches and how they were made; write features by "
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
    )


@dataclass(frozen=True, eq=False)
class OutlinedPatches:
    """Labels that outlines give to the windows of a slide.

    Parameters
    ----------
    labels : ndarray of object, shape (n_patches,)
        Of the patches with features; None where there is no majority.
    missed : dict of str to int
        Windows by label that have no features: the tissue rule dropped them.
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
    """Labels of the windows of a slide from a file of outlines.

    Parameters
    ----------
    slide : SlideFeatures
    annotation : str or Path
    classes : list of str
        Of the cohort; "non-cancer" and "vague" may also be outlined.

    Returns
    -------
    patches : OutlinedPatches
    """
    regions = read_annotations(annotation, slide=slide)
    return label_windows(regions, slide.full_grid(), slide.grid, classes)


def label_windows(
    regions: Sequence[Region], full: PatchGrid, kept: PatchGrid, classes: Sequence[str]
) -> OutlinedPatches:
    """Labels of the windows that are kept, and what of the outlines lies in the others.

    Parameters
    ----------
    regions : sequence of Region
        Of the classes, "non-cancer" or "vague".
    full, kept : PatchGrid
        All windows of the slide, and those with enough tissue.
    classes : sequence of str
        Of the cohort.

    Returns
    -------
    patches : OutlinedPatches
    """
    names = [*classes, NON_CANCER]
    found = class_fractions(regions, full, names)
    labels = patch_labels(found.fractions, names, ignored=found.ignored)
    position = np.full(full.shape, -1)
    position[tuple(full.cells.T)] = np.arange(len(full))
    at = position[tuple(kept.cells.T)]
    missed = Counter(label for label in np.delete(labels, at).tolist() if label is not None)
    areas, shares = found.fractions.sum(axis=0), dropped_share(found, full, kept)
    outlined = np.flatnonzero(areas > 0).tolist()
    return OutlinedPatches(
        labels=labels[at],
        missed=dict(missed),
        dropped={names[k]: float(shares[k]) for k in outlined},
        areas={names[k]: float(areas[k]) for k in outlined},
    )
