"""From the features of a slide to its segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl.evaluation import apply_temperature
from proportion_ssl.segmenter.evaluation import Evaluation, evaluate_segmentations
from proportion_ssl.segmenter.linear_predictor import of_classifier, of_proposer
from proportion_ssl.segmenter.slide_features import NON_CANCER, SlideFeatures
from proportion_ssl.segmenter.slide_segmentation import SlideSegmentation
from proportion_ssl.segmenter.training import CohortFeatures
from proportion_ssl.slides import PatchGrid, patch_grid


@dataclass(frozen=True, eq=False)
class Models:
    """What predicts the patches of a slide.

    Parameters
    ----------
    classifier : object
        ``predict_proba`` of features at the first magnification, ``classes_`` or else ``classes``.
    proposer : object or None
        ``predict_proba`` of features of all magnifications, whose second column is tumor.
    threshold : float
        Probability of tumor from which a patch is proposed.
    temperature : float, default=1.0
        Of the probabilities of the classes; see :func:`~proportion_ssl.evaluation.apply_temperature`.
    """

    classifier: Any
    proposer: Any
    threshold: float
    temperature: float = 1.0

    def shares(self, slide: SlideFeatures, classes: Sequence[str]) -> np.ndarray:
        """Probabilities of the classes, given that a patch is cancer, shape (n_patches, n_classes)."""
        own = getattr(self.classifier, "classes_", None)
        names = np.asarray(self.classifier.classes if own is None else own).tolist()
        order = [names.index(name) for name in classes]
        shares = self.classifier.predict_proba(slide.first_view)[:, order]
        return shares if self.temperature == 1 else apply_temperature(shares, self.temperature)

    def probabilities(self, slide: SlideFeatures, classes: Sequence[str]) -> np.ndarray:
        """Probabilities of the classes and, with a proposer, of "non-cancer".

        The probability of tumor is rescaled so that the threshold becomes one half, linearly below and above
        it; each class takes its share of that.
        """
        shares = self.shares(slide, classes)
        if self.proposer is None:
            return shares
        tumor = self.proposer.predict_proba(slide.features)[:, 1]
        t = np.clip(self.threshold, 1e-12, 1 - 1e-12)
        tumor = np.where(tumor < t, 0.5 * tumor / t, 0.5 + 0.5 * (tumor - t) / (1 - t))
        return np.hstack([shares * tumor[:, np.newaxis], 1 - tumor[:, np.newaxis]])


def models_of(classifier: Any, proposer: Any) -> Models:
    """What predicts by fitted models: their linear maps, or where they are more than that themselves.

    Parameters
    ----------
    classifier : classifier
    proposer : TumorProposer or None

    Returns
    -------
    models : Models
    """
    own = of_classifier(classifier) or classifier
    if proposer is None:
        return Models(own, None, 0.5)
    return Models(own, of_proposer(proposer) or proposer.net_, proposer.threshold_)


def segment_features(
    slide: SlideFeatures,
    models: Models,
    *,
    classes: Sequence[str],
    colors: Mapping[str, tuple[int, int, int]],
    overview: np.ndarray | None,
    recorded: pd.DataFrame | None,
    features: str,
    proportion_errors: np.ndarray | None = None,
) -> SlideSegmentation:
    """Classify the patches of a slide; overlapping windows are averaged.

    Parameters
    ----------
    slide : SlideFeatures
    models : Models
    classes : sequence of str
    colors : mapping of str to (red, green, blue)
    overview : ndarray or None
    recorded : DataFrame or None
    features : str
        What the features are.
    proportion_errors : ndarray of shape (n_classes,) or None
        As in :func:`~proportion_ssl.evaluation.conformal_errors`.

    Returns
    -------
    segmentation : SlideSegmentation
    """
    names = [*classes] if models.proposer is None else [*classes, NON_CANCER]
    probabilities = models.probabilities(slide, classes)
    grid, probabilities = average_windows(slide, probabilities)
    codes = probabilities[:, : len(classes)].argmax(axis=1)
    if models.proposer is not None:
        codes = np.where(probabilities[:, -1] > 0.5, len(classes), codes)
    return SlideSegmentation(
        name=slide.name,
        grid=grid,
        classes=names,
        labels=np.array(names, dtype=object)[codes],
        probabilities=probabilities,
        dimensions=slide.dimensions,
        mpp=slide.mpp,
        origin=slide.origin,
        recorded=recorded,
        overview=overview,
        colors=dict(colors),
        features=features,
        proportion_errors=proportion_errors,
    )


def average_windows(slide: SlideFeatures, values: np.ndarray) -> tuple[PatchGrid, np.ndarray]:
    """Means over the windows that cover each cell of the step between windows.

    Parameters
    ----------
    slide : SlideFeatures
        Its windows may overlap: ``stride`` of ``made_by`` is their step in pixels.
    values : ndarray of shape (n_windows, n_values)

    Returns
    -------
    grid : PatchGrid
        Cells of the side of the step; the windows themselves if they lie side by side.
    means : ndarray of shape (n_cells, n_values)
    """
    size, stride = slide.grid.size[0], slide.stride
    if stride == size:
        return slide.grid, values
    covered = size // stride  # cells along a side of a window
    fine = patch_grid(
        slide.dimensions, slide.mpp, patch_mpp=slide.grid.mpp, size=stride, edge="pad"
    )
    total = np.zeros((*fine.shape, values.shape[1]))
    n_windows = np.zeros(fine.shape)
    rows, columns = slide.grid.cells.T
    for down in range(covered):
        for right in range(covered):
            np.add.at(total, (rows + down, columns + right), values)
            np.add.at(n_windows, (rows + down, columns + right), 1)
    seen = n_windows[tuple(fine.cells.T)] > 0
    fine = fine[np.flatnonzero(seen)]
    at = tuple(fine.cells.T)
    return fine, total[at] / n_windows[at][:, np.newaxis]


def segment_known(
    data: CohortFeatures, names: Sequence[str], models: Models
) -> dict[str, SlideSegmentation]:
    """Segment slides whose features are at hand, without pictures and records.

    Parameters
    ----------
    data : CohortFeatures
    names : sequence of str
        Slides.
    models : Models

    Returns
    -------
    segmentations : dict of str to SlideSegmentation
    """
    return {
        name: segment_features(
            data.slides[name],
            models,
            classes=data.cohort.classes,
            colors={},
            overview=None,
            recorded=None,
            features="",
        )
        for name in names
    }


def evaluate_models(data: CohortFeatures, names: Sequence[str], models: Models) -> Evaluation:
    """Segment slides whose features are at hand, and score them.

    Parameters
    ----------
    data : CohortFeatures
    names : sequence of str
        Slides.
    models : Models

    Returns
    -------
    evaluation : Evaluation
    """
    outlined = {name: data.outlined[name] for name in names if name in data.outlined}
    return evaluate_segmentations(segment_known(data, names, models), outlined, data.cohort)
