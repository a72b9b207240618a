"""Score segmented slides against their outlines, by slide, by case and pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from proportion_ssl.evaluation import bootstrap_scores, confusion_scores
from proportion_ssl.manifest import Cohort
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.proportions.intervals import proportion_distance
from proportion_ssl.segmenter.slide_features import OutlinedPatches
from proportion_ssl.segmenter.slide_segmentation import SlideSegmentation

NO_TISSUE = "no tissue"


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of segmented slides.

    Attributes
    ----------
    by_slide, by_case : DataFrame
        One row per slide or case: ``patches`` outlined as a class of cancer, ``OP`` (share of them predicted
        correctly), ``PC`` (mean over the classes of TP / (TP + FP)), ``mIoU`` (mean over the classes that
        occur of TP / (TP + FP + FN)), ``tumor_recall`` and ``tumor_precision`` of cancer against "non-cancer"
        (NaN where the latter is not outlined), and ``proportion_error``, the mean over the bags or slides of
        ``sum_c |recorded - predicted|``, at most 1, with the nearest shares within the recorded intervals
        (NaN without a record, or if slides of the case are missing).
    pooled : Series
        The same scores over the patches of all slides; ``proportion_error`` is the mean.
    confusion : DataFrame
        Number of patches by outlined class (rows) and predicted class (columns). The predicted class "no
        tissue" counts outlined windows that the tissue mask dropped.
    confusion_by_case : dict of str to ndarray
        The confusion matrix of each case, for intervals.
    recorded, predicted : DataFrame
        Class shares by case: recorded, and in the predicted cancer of all slides of the case. Rows of NaN
        where there is no record or no cancer, or a slide of the case is missing.
    """

    by_slide: pd.DataFrame
    by_case: pd.DataFrame
    pooled: pd.Series
    confusion: pd.DataFrame
    confusion_by_case: Mapping[str, np.ndarray]
    recorded: pd.DataFrame
    predicted: pd.DataFrame

    def interval(
        self, score: str = "mIoU", *, level: float = 0.95, n_resamples: int = 10_000
    ) -> tuple[float, float]:
        """Bootstrap interval of a pooled score, by resampling cases.

        Parameters
        ----------
        score : {"OP", "PC", "mIoU", "tumor_recall", "tumor_precision"}, default="mIoU"
        level : float in (0, 1), default=0.95
        n_resamples : int, default=10000

        Returns
        -------
        low, high : float
            As :func:`~proportion_ssl.evaluation.bootstrap_scores` computes them; NaN with fewer than
            two outlined cases.
        """
        stacked = np.stack(list(self.confusion_by_case.values()))
        found = bootstrap_scores(
            stacked,
            metric=score,
            n_classes=stacked.shape[1] - 1,
            level=level,
            n_resamples=n_resamples,
        )
        return found.low, found.high


def evaluate_segmentations(
    segmentations: Mapping[str, SlideSegmentation],
    outlined: Mapping[str, OutlinedPatches],
    cohort: Cohort,
) -> Evaluation:
    """Compare segmented slides with their outlines and records.

    Parameters
    ----------
    segmentations : dict of str to SlideSegmentation
        By slide name, with non-overlapping patches.
    outlined : dict of str to OutlinedPatches
        Outlined patches of some or all of these slides; the other slides get a proportion error only.
    cohort : Cohort
        Supplies classes, cases and records.

    Returns
    -------
    evaluation : Evaluation
    """
    classes = cohort.classes
    matrices, counts = {}, {}
    for name, segmentation in segmentations.items():
        counts[name] = np.array([(segmentation.labels == label).sum() for label in classes])
        patches = outlined.get(name, OutlinedPatches(np.full(len(segmentation.labels), None), {}))
        matrices[name] = confusion_of(segmentation.labels, patches, classes)
    cases = {name: cohort.case_of(name) for name in segmentations}
    by_slide = _rows({name: [name] for name in segmentations}, matrices, counts, cases, cohort)
    groups: dict[str, list[str]] = {}
    for name, case in cases.items():
        groups.setdefault(case, []).append(name)
    by_case = _rows(groups, matrices, counts, cases, cohort)
    total = sum(matrices.values(), np.zeros((len(classes) + 1, len(classes) + 2), dtype=int))
    pooled = pd.Series(scores_of(total, len(classes)))
    pooled["proportion_error"] = by_case["proportion_error"].mean()
    confusion = pd.DataFrame(
        total,
        index=pd.Index([*classes, NON_CANCER], name="outlined"),
        columns=pd.Index([*classes, NON_CANCER, NO_TISSUE], name="predicted"),
    )
    return Evaluation(
        by_slide.rename_axis("slide"),
        by_case.rename_axis("case"),
        pooled,
        confusion,
        {case: np.sum([matrices[n] for n in names], axis=0) for case, names in groups.items()},
        *_proportions(groups, counts, cohort),
    )


def confusion_of(
    predicted: np.ndarray, outlined: OutlinedPatches, classes: Sequence[str]
) -> np.ndarray:
    """Count patches by outlined and predicted class.

    Parameters
    ----------
    predicted : ndarray of str, shape (n_patches,)
    outlined : OutlinedPatches
        Labels of the same patches.
    classes : sequence of str

    Returns
    -------
    matrix : ndarray of int, shape (n_classes + 1, n_classes + 2)
        Rows: the classes and "non-cancer". Columns: the same and "no tissue".
    """
    names = [*classes, NON_CANCER]
    position = {name: index for index, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names) + 1), dtype=int)
    for truth, guess in zip(outlined.labels.tolist(), predicted.tolist(), strict=True):
        if truth is not None:
            matrix[position[truth], position[guess]] += 1
    for name, missed in outlined.missed.items():
        matrix[position[name], -1] += missed
    return matrix


def scores_of(matrix: np.ndarray, n_classes: int) -> dict[str, float]:
    """Scores from a confusion matrix (:func:`confusion_of`).

    Parameters
    ----------
    matrix : ndarray of int, shape (n_classes + 1, n_classes + 2)
    n_classes : int

    Returns
    -------
    scores : dict of str to float
        As described in :class:`Evaluation`; NaN where nothing is outlined.

    Examples
    --------
    >>> matrix = np.array([[8, 2, 0, 0], [1, 9, 0, 0], [0, 0, 0, 0]])
    >>> {name: round(score, 3) for name, score in scores_of(matrix, 2).items()}["mIoU"]
    0.739
    """
    scores = {name: float(score) for name, score in confusion_scores(matrix, n_classes).items()}
    return {"patches": int(matrix[:n_classes].sum()), **scores}


def proportion_error(counts: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """Distance of predicted shares from recorded intervals, in [0, 1]; NaN if either is missing.

    Parameters
    ----------
    counts : ndarray of shape (n_classes,)
        Number of predicted patches of each class.
    lower, upper : ndarray of shape (n_classes,)
        Recorded intervals of the shares.

    Returns
    -------
    error : float
        ``min(1, sum_c |recorded_c - predicted_c|)``, with the nearest proportions within the recorded
        intervals.
    """
    if not counts.sum() or np.isnan(lower).any():
        return np.nan
    predicted = (counts / counts.sum())[np.newaxis]
    distance = proportion_distance(predicted, lower[np.newaxis], upper[np.newaxis])
    return float(min(1.0, distance[0]))


def _proportions(groups, counts, cohort):
    """Recorded and predicted shares of the cases without missing slides."""
    recorded, predicted = {}, {}
    for case, names in groups.items():
        total = np.sum([counts[name] for name in names], axis=0).astype(float)
        is_whole = set(cohort.case_slides(case)) == set(names)
        recorded[case] = cohort.proportions.loc[case].to_numpy(dtype=float)
        predicted[case] = total / total.sum() if is_whole and total.sum() else total * np.nan
    return (
        pd.DataFrame.from_dict(table, orient="index", columns=cohort.classes).rename_axis("case")
        for table in (recorded, predicted)
    )


def _rows(groups, matrices, counts, cases, cohort):
    rows = {}
    for group, names in groups.items():
        matrix = sum(matrices[name] for name in names)
        case = cases[names[0]]
        lower, upper = (
            table.loc[case].to_numpy(dtype=float) for table in (cohort.lower, cohort.upper)
        )
        is_whole = set(cohort.case_slides(case)) == set(names)  # a record describes the whole case
        error = proportion_error(sum(counts[name] for name in names), lower, upper)
        rows[group] = {
            **scores_of(matrix, len(cohort.classes)),
            "proportion_error": error if is_whole else np.nan,
        }
    return pd.DataFrame(rows).T.astype({"patches": int})
