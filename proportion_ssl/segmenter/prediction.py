"""From the features of a slide to its segmentation."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl.evaluation import apply_temperature
from proportion_ssl.pseudo_labels.recorded import (
    INSTANCE_WEIGHT,
    UNKNOWN_DEVIATION,
    probabilities_given_records,
)
from proportion_ssl.segmenter.context import smooth_probabilities
from proportion_ssl.segmenter.evaluation import Evaluation, evaluate_segmentations
from proportion_ssl.segmenter.linear_predictor import of_classifier, of_proposer
from proportion_ssl.segmenter.slide_features import NON_CANCER, SlideFeatures
from proportion_ssl.segmenter.slide_segmentation import SlideSegmentation
from proportion_ssl.segmenter.training import CohortFeatures
from proportion_ssl.slides import PatchGrid, patch_grid

logger = logging.getLogger(__name__)

MOST_PARTS = 8
"""Cells along a side of a window, at most, over which overlapping windows are averaged."""


@dataclass(frozen=True, eq=False)
class Models:
    """What predicts the patches of a slide.

    Parameters
    ----------
    classifier : object
        ``predict_proba`` of features at the first magnification, ``classes_`` or else ``classes``.
        "non-cancer" may be one of its classes.
    proposer : object or None
        ``predict_proba`` of features of all magnifications, whose second column is tumor.
    threshold : float
        Probability of tumor from which a patch is proposed.
    temperature : float, default=1.0
        Of the probabilities of the classes; see :func:`~proportion_ssl.evaluation.apply_temperature`.
    record_deviation : float, default=0.05
        Standard deviation of a recorded share, for slides that are segmented with their record.
    instance_weight : float, default=0.3
        What the prediction of a patch counts beside that record.
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
        """Probabilities of the classes, given that a patch is cancer, shape (n_patches, n_classes)."""
        return self.shares_of(slide.first_view, classes)

    def shares_of(self, X: Any, classes: Sequence[str]) -> np.ndarray:
        """The same of features (n_patches, n_features) at the first magnification."""
        order = [self.learned.index(name) for name in classes]
        shares = self.classifier.predict_proba(np.asarray(X))[:, order]
        if NON_CANCER in self.learned:
            shares = _given_cancer(shares)
        return shares if self.temperature == 1 else apply_temperature(shares, self.temperature)

    def probabilities(self, slide: SlideFeatures, classes: Sequence[str]) -> np.ndarray:
        """Probabilities of the classes and, if patches can be that, of "non-cancer".

        Each class takes its share of the probability of tumor.
        """
        shares, tumor = self.shares(slide, classes), self.tumor(slide)
        return with_non_cancer(shares, tumor) if self.knows_non_cancer else shares

    def tumor(self, slide: SlideFeatures) -> np.ndarray:
        """Probability of tumor, shape (n_patches,).

        That of the proposer, rescaled so that the threshold becomes one half, linearly below and above it;
        else that of all classes but "non-cancer"; else 1.
        """
        if self.proposer is None:
            if NON_CANCER not in self.learned:
                return np.ones(len(slide.grid))
            p = self.classifier.predict_proba(np.asarray(slide.first_view))
            return 1.0 - p[:, self.learned.index(NON_CANCER)]
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
        Of the classes, given that a patch is cancer.
    tumor : ndarray of shape (n_patches,)
        Probability of cancer.

    Returns
    -------
    probabilities : ndarray of shape (n_patches, n_classes + 1)
    """
    return np.hstack([shares * tumor[:, np.newaxis], 1 - tumor[:, np.newaxis]])


def most_probable(probabilities: np.ndarray, n_classes: int) -> np.ndarray:
    """Codes of the classes of the map: "non-cancer" is `n_classes`, where it is more probable than cancer.

    Parameters
    ----------
    probabilities : ndarray of shape (n_patches, n_classes) or (n_patches, n_classes + 1)
    n_classes : int
        Of cancer.

    Returns
    -------
    codes : ndarray of int, shape (n_patches,)
    """
    codes = probabilities[:, :n_classes].argmax(axis=1)
    if probabilities.shape[1] == n_classes:
        return codes
    return np.where(probabilities[:, -1] > 0.5, n_classes, codes)


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
    """Classify the patches of a slide; overlapping windows are averaged, and neighbors taken into account.

    Neighbors come last. With a record they say where the classes are, and the mean probability of each
    class stays what the record made it.

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
    average : bool, default=True
        False: overlapping windows are left as they are, one result per window.
    use_record : bool, default=False
        Whether the predictions take the record into account, where there is one.

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
    """Probabilities of the cells of a map from those of the windows of a slide.

    Record and neighbors are about the cancer: they move the shares of the classes in cells that are cancer,
    and leave the probability of "non-cancer" as it is.

    Parameters
    ----------
    slide : SlideFeatures
    probabilities : ndarray of shape (n_windows, n_classes) or (n_windows, n_classes + 1)
        The last column of more is "non-cancer".
    n_classes : int
        Of cancer.
    smoothing : float
        Weight of neighbors.
    recorded : DataFrame, optional
        Record that the predictions follow.
    record_deviation : float, default=0.05
    instance_weight : float, default=0.3
        As of :class:`Models`.
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
            "patches of %s lie on no grid, so that none has neighbors: the slide is not smoothed",
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
    """Whether every patch has a cell for itself.

    Parameters
    ----------
    grid : PatchGrid

    Returns
    -------
    answer : bool
    """
    return len(np.unique(grid.cells, axis=0)) == len(grid)


def _given_record(probabilities, recorded, n_classes, **trust):
    """Probabilities given the record of the slide, which is of its tumor: the rest stays what it is."""
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
    """Which cells are cancer, the probabilities of the classes there given cancer, and that of cancer."""
    tumor = np.ones(len(probabilities), dtype=bool)
    if probabilities.shape[1] > n_classes:
        tumor = probabilities[:, -1] <= 0.5
    joint = probabilities[tumor, :n_classes]
    mass = joint.sum(axis=1, keepdims=True)
    return tumor, joint / mass, mass


def average_windows(slide: SlideFeatures, values: np.ndarray) -> tuple[PatchGrid, np.ndarray]:
    """Means over the windows that cover each cell of a finer grid.

    Parameters
    ----------
    slide : SlideFeatures
        Its windows may overlap: ``stride`` is their step in pixels.
    values : ndarray of shape (n_windows, n_values)

    Returns
    -------
    grid : PatchGrid
        Cells of the side of the step, or of the largest part of it that divides a window too; the windows
        themselves if they lie side by side. Where a window would hold more than 8 x 8 such cells, cells of
        the side of the step, each with the window in whose middle it lies.
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
    """Cells along a step and along a window; 0 along a window where there would be too many."""
    covered = size / stride
    if abs(covered - round(covered)) < 1e-9:
        return 1, round(covered)
    if stride == round(stride):
        unit = math.gcd(size, int(stride))
        if size // unit <= MOST_PARTS:
            return int(stride) // unit, size // unit
    return 1, 0


def _boxes(slide: SlideFeatures, cells: np.ndarray, unit: float, middle: float) -> np.ndarray:
    """Level-0 boxes of cells of `unit` pixels; neighbors share borders, which are rounded once."""
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
    """Segment slides whose features are at hand, without pictures and records.

    Parameters
    ----------
    data : CohortFeatures
    names : sequence of str
        Slides.
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
    """Segment slides whose features are at hand, and score them window by window.

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
    segmented = segment_known(data, names, models, average=False)
    return evaluate_segmentations(segmented, outlined, data.cohort)
