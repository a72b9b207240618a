"""Compute the features of slides: tissue detection, color normalization and embedding."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from proportion_ssl.manifest import Cohort
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.segmenter.slide_features import (
    OutlinedPatches,
    SlideFeatures,
    is_feature_file,
    outlined_patches,
    read_slide_features,
    warn_of_nominal,
)
from proportion_ssl.segmenter.training import KEEP_THEM, CohortFeatures
from proportion_ssl.slides import CohortRun, SlideFailure, embed_slides, process_slides

logger = logging.getLogger(__name__)

LARGEST_DROP = 0.05
"""Share of an outlined class that the tissue mask may drop from a slide without a warning."""


@dataclass(frozen=True)
class Preparation:
    """Settings for computing the features of slides.

    Parameters
    ----------
    embedder : transformer or None
        Has ``fingerprint()``; None if only feature files are read.
    magnifications : tuple of float
    patch_size : int
    normalizer : stain normalizer or None
        Fitted.
    min_tissue : float
    tissue_mask : mapping of str to path-like or ndarray
    n_jobs : int or None
    verbose : bool
    """

    embedder: Any
    magnifications: tuple[float, ...]
    patch_size: int
    normalizer: Any
    min_tissue: float
    tissue_mask: Mapping[str, Any]
    n_jobs: int | None
    verbose: bool

    def embed(
        self,
        paths: Mapping[str, Any],
        folder: Path,
        *,
        mpp: Mapping[str, float],
        stride: int | None = None,
    ) -> CohortRun:
        """Compute the feature files of slides; files of earlier runs are reused.

        Parameters
        ----------
        paths : mapping of str to path-like
        folder : Path
        mpp : mapping of str to float
            Microns per pixel of slides whose files do not state them.
        stride : int, optional
            Step between windows in pixels; such features go to a separate folder.

        Returns
        -------
        run : CohortRun
            ``results``: paths of the feature files.
        """
        return embed_slides(
            paths,
            self.embedder,
            folder if stride is None else folder / f"stride_{stride}",
            magnification=self.magnifications,
            size=self.patch_size,
            stride=stride,
            normalizer=self.normalizer,
            min_fraction=self.min_tissue,
            tissue_mask={
                name: self.tissue_mask[name] for name in paths if name in self.tissue_mask
            },
            mpp=mpp,
            on_error="skip",
            n_jobs=self.n_jobs,
            verbose=self.verbose,
        )

    def read(self, cohort: Cohort, names: Sequence[str], folder: Path) -> CohortFeatures:
        """Read features and labels of slides of a cohort.

        Parameters
        ----------
        cohort : Cohort
        names : sequence of str
        folder : Path
            Folder of the feature files.

        Returns
        -------
        data : CohortFeatures
            Slides that failed are in ``failures``.

        Raises
        ------
        ValueError
            If no slide can be used, or features were made with different settings.
        """
        rows = cohort.slides.loc[list(names)]
        is_stored = rows["path"].map(is_feature_file).astype(bool)
        paths: dict[str, Any] = rows.loc[is_stored, "path"].to_dict()
        failures: dict[str, SlideFailure] = {}
        images = rows[~is_stored]
        if len(images):
            run = self.embed(images["path"].to_dict(), folder, mpp=images["mpp"].dropna().to_dict())
            paths.update(run.results)
            failures.update(run.failures)
        read = process_slides(
            {
                name: _Entry(
                    name,
                    paths[name],
                    rows.at[name, "annotation"],
                    None if np.isnan(rows.at[name, "mpp"]) else float(rows.at[name, "mpp"]),
                    rows.at[name, "image"] if "image" in rows else None,
                )
                for name in rows.index
                if name in paths
            },
            lambda entry: _read_slide(entry, cohort.classes),
            on_error="skip",
        )
        failures.update(read.failures)
        slides = {name: slide for name, (slide, _) in read.results.items()}
        if not slides:
            reasons = "\n".join(f"- {failure}" for failure in failures.values())
            raise ValueError(f"None of the slides can be used:\n{reasons}")
        first = next(iter(slides.values()))
        for slide in slides.values():
            check_made_by(slide, first.made_by, f"those of {first.name}")
            if slide.features.shape[1] != first.features.shape[1]:
                raise ValueError(
                    f"{paths[slide.name]} has {slide.features.shape[1]} features per patch, but "
                    f"{paths[first.name]} has {first.features.shape[1]}; give files of one encoder."
                )
            if slide.program is None and slide.stride != slide.grid.size[0]:
                raise ValueError(
                    f"The windows of {slide.name} overlap, so that patches would count several times. Fit "
                    "and evaluate on features of patches side by side."
                )
        outlined = {
            name: labels for name, (_, labels) in read.results.items() if labels is not None
        }
        _warn_of_drops(outlined)
        warn_of_nominal([name for name, slide in slides.items() if slide.is_nominal])
        return CohortFeatures(cohort, slides, outlined, failures)


def check_made_by(slide: SlideFeatures, made_by: Mapping[str, Any], whose: str) -> None:
    """Raise unless features were made with the same settings as others.

    Parameters
    ----------
    slide : SlideFeatures
    made_by : mapping
        Settings of the others.
    whose : str
        Name of the others in the message.

    Raises
    ------
    ValueError
        Naming the settings that differ.
    """
    differing = [
        f"{key} {_short(slide.made_by.get(key))} instead of {_short(value)}"
        for key, value in made_by.items()
        if slide.made_by.get(key) != value
    ]
    if differing:
        raise ValueError(
            f"The features of {slide.name} were not made like {whose}: {'; '.join(differing)}. "
            "Embed all slides with the same embedder, magnifications and patch size."
        )


def _short(value):
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 40 else f"{text[:12]}..."


class _Entry(NamedTuple):
    """A slide with features."""

    name: str
    path: Any
    annotation: Any
    mpp: float | None
    image: Any


def _read_slide(entry: _Entry, classes: list[str]) -> tuple[SlideFeatures, OutlinedPatches | None]:
    """Features of a slide, and labels of its patches if it is outlined."""
    slide = read_slide_features(entry.path, entry.name, mpp=entry.mpp, image=entry.image)
    if entry.annotation is None:
        return slide, None
    return slide, outlined_patches(slide, entry.annotation, classes)


def _warn_of_drops(outlined: Mapping[str, OutlinedPatches]) -> None:
    for name, patches in outlined.items():
        for label, share in patches.dropped.items():
            if share > LARGEST_DROP and label != NON_CANCER:
                logger.warning(
                    "%s: the tissue mask drops %.0f%% of the area outlined as %s. %s.",
                    *(name, 100 * share, label, KEEP_THEM),
                )
