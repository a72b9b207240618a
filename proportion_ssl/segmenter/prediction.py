"""Segment a slide from its features."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl.evaluation import apply_temperature
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.pseudo_labels.recorded import (
    INSTANCE_WEIGHT,
    UNKNOWN_DEVIATION,
    probabilities_given_records,
)
from proportion_ssl.segmenter.context import smooth_probabilities
from proportion_ssl.segmenter.evaluation import Evaluation, evaluate_segmentations
from proportion_ssl.segmenter.linear_predictor import of_classifier, of_proposer
from proportion_ssl.segmenter.slide_features import SlideFeatures
from proportion_ssl.segmenter.slide_segmentation import SlideSegmentation
from proportion_ssl.segmenter.training import CohortFeatures
from proportion_ssl.slides import PatchGrid, patch_grid

logger = logging.getLogger(__name__)

MOST_PARTS = 8
"""Largest number of cells along a side of a window when overlapping windows are averaged."""


@dataclass(frozen=True, eq=False)
class Models:
    """Fitted models that predict the patches of a slide.

    Parameters
    ----------
    classifier : object
        Has ``predict_proba`` for features at the first magnification, and ``classes_`` or ``classes``.
        "non-cancer" may be one of its classes.
    proposer : object or None
        Has ``predict_proba`` for features of all magnifications; the second column is tumor.
    threshold : float
        Smallest probability of tumor of proposed patches.
    temperature : float, default=1.0
        Temperature of the class probabilities; see :func:`~proportion_ssl.evaluation.apply_temperature`.
    record_deviation : float, default=0.05
        Standard deviation of a recorded share, for slides segmented with their record.
    instance_weight : float, default=0.3
        Weight of the prediction of one patch relative to the record.
    smoothing : float, default=0.0
        Weight of neighboring patches; see :func:`~proportion_ssl.segmenter.smooth_probabilities`.
    """

    classifier: Any
    proposer: Any
    threshold: float
    temperature: float = 1.0
    record_deviation: float = UNKNOWN_DEVIATION
    instance_weight: float = INSTANCE_WEIGHT
    smoothing: float = 0.0

    @property
    def learned(self) -> list[str]:
        """Classes of the classifier."""
        own = getattr(self.classifier, "classes_", None)
        return np.asarray(self.classifier.classes if own is None else own).tolist()

    @property
    def knows_non_cancer(self) -> bool:
        """Whether patches can be "non-cancer"."""
        return self.proposer is not None or NON_CANCER in self.learned

    def shares(self, slide: SlideFeatures, classes: Sequence[str]) -> np.ndarray:
        """Class probabilities given cancer, shape (n_patches, n_classes)."""
        return self.shares_of(slide.first_view, classes)

    def shares_of(self, X: Any, classes: Sequence[str]) -> np.ndarray:
        """Class probabilities given cancer from features (n_patches, n_features) of the first view."""
        return self._shares(self.classifier.predict_proba(np.asarray(X)), classes)

    def probabilities(self, slide: SlideFeatures, classes: Sequence[str]) -> np.ndarray:
        """Probabilities of the classes and, if patches can be that, of "non-cancer".

        Class probabilities given cancer are multiplied by the probability of tumor.
        """
        shares, tumor = self.shares_and_tumor(slide, classes)
        return with_non_cancer(shares, tumor) if self.knows_non_cancer else shares

    def shares_and_tumor(
        self, slide: SlideFeatures, classes: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class probabilities given cancer, and the probability of tumor, shape (n_patches,).

        The latter is from the proposer, rescaled piecewise linearly so that the threshold maps to one half;
        without a proposer from the classifier, if it has the class "non-cancer"; otherwise 1.
        """
        p = self.classifier.predict_proba(np.asarray(slide.first_view))
        shares = self._shares(p, classes)
        if self.proposer is not None:
            return shares, self._proposed(slide)
        if NON_CANCER in self.learned:
            return shares, 1.0 - p[:, self.learned.index(NON_CANCER)]
        return shares, np.ones(len(p))

    def _shares(self, p, classes):
        shares = p[:, [self.learned.index(name) for name in classes]]
        if NON_CANCER in self.learned:
            shares = _given_cancer(shares)
        return shares if self.temperature == 1 else apply_temperature(shares, self.temperature)

    def _proposed(self, slide):
        tumor = self.proposer.predict_proba(np.asarray(slide.features))[:, 1]
        t = np.clip(self.threshold, 1e-12, 1 - 1e-12)
        return np.where(tumor < t, 0.5 * tumor / t, 0.5 + 0.5 * (tumor - t) / (1 - t))


def _given_cancer(joint):
    """Probabilities of the classes given that a patch is one of them; equal where none is possible."""
    total = joint.sum(axis=1, keepdims=True)
    return np.divide(joint, total, out=np.full_like(joint, 1 / joint.shape[1]), where=total > 0)


def with_non_cancer(shares: np.ndarray, tumor: np.ndarray) -> np.ndarray:
    """Probabilities of the classes and of "non-cancer".

    Parameters
    ----------
    shares : ndarray of shape (n_patches, n_classes)
        Class probabilities given cancer.
    tumor : ndarray of shape (n_patches,)
        Probability of cancer.

    Returns
    -------
    probabilities : ndarray of shape (n_patches, n_classes + 1)
    """
    return np.hstack([shares * tumor[:, np.newaxis], 1 - tumor[:, np.newaxis]])


def most_probable(probabilities: np.ndarray, n_classes: int) -> np.ndarray:
    """Class code of each patch: `n_classes` ("non-cancer") where that is more probable than cancer.

    Parameters
    ----------
    probabilities : ndarray of shape (n_patches, n_classes) or (n_patches, n_classes + 1)
    n_classes : int
        Number of classes of cancer.

    Returns
    -------
    codes : ndarray of int, shape (n_patches,)
    """
    codes = probabilities[:, :n_classes].argmax(axis=1)
    if probabilities.shape[1] == n_classes:
        return codes
    return np.where(probabilities[:, -1] > 0.5, n_classes, codes)


def models_of(classifier: Any, proposer: Any) -> Models:
    """Models for prediction: linear maps where the fitted models are linear, else the fitted models.

    Parameters
    ----------
    classifier : classifier
    proposer : TumorProposer or None

    Returns
    -------
    models : Models
    """
    own = of_classifier(classifier) or classifier
    records = {
        "record_deviation": float(getattr(classifier, "record_deviation_", UNKNOWN_DEVIATION)),
        "instance_weight": float(getattr(classifier, "instance_weight_", INSTANCE_WEIGHT)),
    }
    if proposer is None:
        return Models(own, None, 0.5, **records)
    net = of_proposer(proposer) or proposer.net_
    return Models(own, net, proposer.threshold_, **records)


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
    average: bool = True,
    use_record: bool = False,
) -> SlideSegmentation:
    """Classify the patches of a slide, average overlapping windows, and smooth over neighbors.

    Smoothing is the last step. With a record it changes where the classes are, but preserves the mean
    probability of each class.

    Parameters
    ----------
    slide : SlideFeatures
    models : Models
    classes : sequence of str
    colors : mapping of str to (red, green, blue)
    overview : ndarray or None
    recorded : DataFrame or None
    features : str
        Description of the features.
    proportion_errors : ndarray of shape (n_classes,) or None
        As in :func:`~proportion_ssl.evaluation.conformal_errors`.
    average : bool, default=True
        If False, overlapping windows are not averaged: one result per window.
    use_record : bool, default=False
        Whether predictions use the record, if there is one.

    Returns
    -------
    segmentation : SlideSegmentation
    """
    names = [*classes, NON_CANCER] if models.knows_non_cancer else [*classes]
    use_record = use_record and recorded is not None
    grid, probabilities = cell_probabilities(
        slide,
        models.probabilities(slide, classes),
        len(classes),
        smoothing=models.smoothing,
        recorded=recorded if use_record else None,
        record_deviation=models.record_deviation,
        instance_weight=models.instance_weight,
        average=average,
    )
    codes = most_probable(probabilities, len(classes))
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
        used_record=use_record,
    )


def cell_probabilities(
    slide: SlideFeatures,
    probabilities: np.ndarray,
    n_classes: int,
    *,
    smoothing: float,
    recorded: pd.DataFrame | None = None,
    record_deviation: float = UNKNOWN_DEVIATION,
    instance_weight: float = INSTANCE_WEIGHT,
    average: bool = True,
) -> tuple[PatchGrid, np.ndarray]:
    """Cell probabilities of a map from the window probabilities of a slide.

    Record and smoothing change only the class shares within cells of cancer; the probability of "non-cancer"
    is unchanged.

    Parameters
    ----------
    slide : SlideFeatures
    probabilities : ndarray of shape (n_windows, n_classes) or (n_windows, n_classes + 1)
        An additional last column is "non-cancer".
    n_classes : int
        Number of classes of cancer.
    smoothing : float
        Weight of neighboring patches.
    recorded : DataFrame, optional
        Record that the predictions use.
    record_deviation : float, default=0.05
    instance_weight : float, default=0.3
        As in :class:`Models`.
    average : bool, default=True
        As in :func:`segment_features`.

    Returns
    -------
    grid : PatchGrid
    probabilities : ndarray of shape (n_cells, n_columns)
    """
    grid = slide.grid
    if average:
        grid, probabilities = average_windows(slide, probabilities)
    if recorded is not None:
        probabilities = _given_record(
            probabilities,
            recorded,
            n_classes,
            standard_deviation=record_deviation,
            instance_weight=instance_weight,
        )
    if smoothing == 0:
        return grid, probabilities
    if not has_neighbors(grid):
        logger.warning(
            "patches of %s do not lie on a grid, so they have no neighbors: the slide is not smoothed",
            slide.name,
        )
        return grid, probabilities
    step = slide.cells_per_window
    if grid is not slide.grid:  # cells over which windows were averaged
        step = max(1, round(slide.grid.size[0] / grid.size[0]))
    tumor, shares, mass = _tumor(probabilities, n_classes)
    smoothed = probabilities.astype(np.float64)
    smoothed[tumor, :n_classes] = mass * smooth_probabilities(
        grid.cells[tumor], shares, smoothing, step=step, keep_shares=recorded is not None
    )
    return grid, smoothed


def has_neighbors(grid: PatchGrid) -> bool:
    """Whether no two patches share a cell.

    Parameters
    ----------
    grid : PatchGrid

    Returns
    -------
    answer : bool
    """
    return len(np.unique(grid.cells, axis=0)) == len(grid)


def _given_record(probabilities, recorded, n_classes, **trust):
    """Probabilities given the record of the slide, which describes its tumor; other cells are unchanged."""
    tumor, shares, mass = _tumor(probabilities, n_classes)
    if not len(shares):
        return probabilities
    lower, upper = (recorded[[end]].to_numpy(dtype=float).T for end in ("lower", "upper"))
    one_bag = np.zeros(len(shares), dtype=np.int64)
    given = probabilities.astype(np.float64)
    given[tumor, :n_classes] = mass * probabilities_given_records(
        shares, one_bag, lower, upper, **trust
    )
    return given


def _tumor(probabilities, n_classes):
    """Mask of cancer cells, their class probabilities given cancer, and their probability of cancer."""
    tumor = np.ones(len(probabilities), dtype=bool)
    if probabilities.shape[1] > n_classes:
        tumor = probabilities[:, -1] <= 0.5
    joint = probabilities[tumor, :n_classes]
    mass = joint.sum(axis=1, keepdims=True)
    return tumor, joint / mass, mass


def average_windows(slide: SlideFeatures, values: np.ndarray) -> tuple[PatchGrid, np.ndarray]:
    """Average the windows that cover each cell of a finer grid.

    Parameters
    ----------
    slide : SlideFeatures
        Its windows may overlap; ``stride`` is their step in pixels.
    values : ndarray of shape (n_windows, n_values)

    Returns
    -------
    grid : PatchGrid
        Cells whose side is the step, or the largest fraction of it that also divides a window; the windows
        themselves if they do not overlap. If a window would hold more than 8 x 8 such cells: cells with the
        side of the step, each with the value of the window centered on it.
    means : ndarray of shape (n_cells, n_values)
    """
    size, stride = slide.grid.size[0], slide.stride
    if stride == size:
        return slide.grid, values
    steps, covered = _parts(size, stride)
    middle = (size - stride) / 2 if covered == 0 else 0.0
    unit = stride / steps
    corners = slide.grid.cells * steps
    rows, columns = (np.array(slide.grid.shape) - 1) * steps + max(covered, 1)
    shape = (int(rows), int(columns))
    if slide.program is None:
        shape = patch_grid(
            slide.dimensions, slide.mpp, patch_mpp=slide.grid.mpp, size=round(unit), edge="pad"
        ).shape
    total = np.zeros((*shape, values.shape[1]))
    n_windows = np.zeros(shape)
    for down in range(max(covered, 1)):
        for right in range(max(covered, 1)):
            np.add.at(total, (corners[:, 0] + down, corners[:, 1] + right), values)
            np.add.at(n_windows, (corners[:, 0] + down, corners[:, 1] + right), 1)
    cells = np.argwhere(n_windows > 0)
    at = tuple(cells.T)
    return (
        PatchGrid(
            _boxes(slide, cells, unit, middle),
            cells,
            shape,
            (round(unit),) * 2,
            slide.grid.mpp * unit / round(unit),
        ),
        total[at] / n_windows[at][:, np.newaxis],
    )


def _parts(size: int, stride: float) -> tuple[int, int]:
    """Number of cells per step and per window; 0 per window if there would be too many."""
    covered = size / stride
    if abs(covered - round(covered)) < 1e-9:
        return 1, round(covered)
    if stride == round(stride):
        unit = math.gcd(size, int(stride))
        if size // unit <= MOST_PARTS:
            return int(stride) // unit, size // unit
    return 1, 0


def _boxes(slide: SlideFeatures, cells: np.ndarray, unit: float, middle: float) -> np.ndarray:
    """Level-0 boxes of cells of `unit` pixels; borders are rounded once, so neighbors share them."""
    scale = np.array([slide.grid.mpp / mpp for mpp in slide.mpp])
    origin = np.zeros(2)
    if slide.program is not None:
        sides = (slide.grid.boxes[:, 2:] - slide.grid.boxes[:, :2]).mean(axis=0)
        scale = sides / np.array(slide.grid.size)
        step = slide.stride * scale
        origin = (slide.grid.boxes[:, :2] - slide.grid.cells[:, ::-1] * step).mean(axis=0)
    corners = cells[:, ::-1] * (unit * scale) + origin + middle * scale
    borders = np.hstack([corners, (cells[:, ::-1] + 1) * (unit * scale) + origin + middle * scale])
    return np.floor(borders + 0.5).astype(np.int64)


def segment_known(
    data: CohortFeatures, names: Sequence[str], models: Models, *, average: bool = True
) -> dict[str, SlideSegmentation]:
    """Segment slides with known features, without overviews and records.

    Parameters
    ----------
    data : CohortFeatures
    names : sequence of str
        Names of the slides.
    models : Models
    average : bool, default=True
        As in :func:`segment_features`.

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
            average=average,
        )
        for name in names
    }


def evaluate_models(data: CohortFeatures, names: Sequence[str], models: Models) -> Evaluation:
    """Segment slides with known features, and score them window by window.

    Parameters
    ----------
    data : CohortFeatures
    names : sequence of str
        Names of the slides.
    models : Models

    Returns
    -------
    evaluation : Evaluation
    """
    outlined = {name: data.outlined[name] for name in names if name in data.outlined}
    segmented = segment_known(data, names, models, average=False)
    return evaluate_segmentations(segmented, outlined, data.cohort)
