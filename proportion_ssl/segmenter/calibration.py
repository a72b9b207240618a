"""Calibrate the probabilities and proportions of a segmenter on left-out slides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from proportion_ssl.evaluation import (
    apply_temperature,
    conformal_errors,
    fit_temperature,
    fit_temperature_to_records,
    suggest_slides,
)
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.proportions.identifiability import told_once
from proportion_ssl.segmenter.context import WEIGHTS, clearly_best
from proportion_ssl.segmenter.evaluation import confusion_of
from proportion_ssl.segmenter.prediction import (
    cell_probabilities,
    has_neighbors,
    models_of,
    most_probable,
    with_non_cancer,
)
from proportion_ssl.segmenter.training import (
    CohortFeatures,
    fit_classifier,
    fit_proposer,
    make_bags,
    tumor_mask,
)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Predictions for slides by models that were trained without the case of the slide.

    Attributes
    ----------
    labels : ndarray of str, shape (n_patches,)
        True classes of the left-out patches that are outlined as cancer.
    probabilities : ndarray of shape (n_patches, n_classes)
        Class probabilities of these patches given cancer, from the uncalibrated classifier.
    bag_probabilities : dict of str to ndarray of shape (n_patches, n_classes)
        Class probabilities of the proposed tumor patches, by recorded case.
    shares : dict of str to ndarray of shape (n_patches, n_classes)
        Class probabilities of all patches given cancer, by slide, from the uncalibrated classifier.
    tumor : dict of str to ndarray of shape (n_patches,)
        Probability of cancer of the same patches, by slide.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    bag_probabilities: dict[str, np.ndarray]
    shares: dict[str, np.ndarray]
    tumor: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Result of the calibration on left-out slides.

    Attributes
    ----------
    temperature : float
        Temperature of the class probabilities; 1 leaves them unchanged.
    source : str
        Data that the temperature was fitted to.
    proportion_errors : ndarray of shape (n_classes,) or None
        Output of :func:`~proportion_ssl.evaluation.conformal_errors` at 90%; None without records.
    suggestions : DataFrame or None
        Output of :func:`~proportion_ssl.evaluation.suggest_slides`: recorded cases to outline next, and
        records to review; None without records.
    smoothing : float
        Weight of neighboring patches with the best mean IoU on left-out outlined slides. 0 with fewer than
        two such slides, or if the gain is within one standard error.
    """

    temperature: float
    source: str
    proportion_errors: np.ndarray | None
    suggestions: pd.DataFrame | None
    smoothing: float = 0.0


def leave_out(
    data: CohortFeatures,
    proposer: Any,
    classifier: Any,
    folds: int,
    *,
    records: bool = True,
    n_jobs: int | None = None,
    verbose: bool = False,
) -> LeftOut:
    """Leave out cases in turn: train without them and predict them.

    Outlined cases are left out only if at least two others remain and still show every class.

    Parameters
    ----------
    data : CohortFeatures
    proposer : TumorProposer or None
        Not fitted.
    classifier : estimator
    folds : int
        Largest number of folds, at least 2.
    records : bool, default=True
        Whether the classifier learns from bags.
    n_jobs : int or None
        Number of folds run in parallel, as in joblib.
    verbose : bool, default=False
        Whether to show a progress bar over the folds.

    Returns
    -------
    left_out : LeftOut

    Raises
    ------
    ValueError
        If fewer than two cases can be left out, or folds is below 2.
    """
    bag_cases = [c for c in data.cohort.bag_cases if _slides_of(data, c)]
    outlined = list(dict.fromkeys(data.cases_of(data.labeled).tolist()))
    cases = list(dict.fromkeys([*outlined, *bag_cases]))
    if folds < 2 or len(cases) < 2:
        raise ValueError(
            "Calibration leaves out outlined and recorded cases in turn and needs at least two cases and two "
            f"folds; got {len(cases)} cases and folds={folds}."
        )
    rng = np.random.default_rng(0)
    fold_of: dict[str, int] = {}
    for kind in (outlined, [c for c in bag_cases if c not in set(outlined)]):
        fold_of |= {kind[i]: int(k) % folds for k, i in enumerate(rng.permutation(len(kind)))}
    used = sorted(set(fold_of.values()))
    tasks = (
        delayed(_fold)(
            data, proposer, classifier, records, {c for c in cases if fold_of[c] == fold}, bag_cases
        )
        for fold in used
    )
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    bar = tqdm(parallel(tasks), total=len(used), desc="calibration", disable=not verbose)
    parts = list(bar)
    n_classes = len(data.cohort.classes)
    labels = [label for part in parts for label in part[0]]
    probabilities = [p for part in parts for p in part[1]]
    return LeftOut(
        np.concatenate([*labels, np.array([], dtype=str)]),
        np.concatenate([*probabilities, np.zeros((0, n_classes))]),
        *({name: p for part in parts for name, p in part[k].items()} for k in (2, 3, 4)),
    )


def calibrate(
    data: CohortFeatures, left_out: LeftOut, *, smoothing: float | None = None
) -> Calibration:
    """Temperature, smoothing, proportion errors and suggestions from left-out slides.

    Parameters
    ----------
    data : CohortFeatures
        Supplies the records.
    left_out : LeftOut
    smoothing : float, optional
        Weight of neighboring patches. Default: :func:`best_smoothing`.

    Returns
    -------
    calibration : Calibration
        The temperature is fitted to left-out outlines if there are any, else to records; otherwise it is 1.
    """
    cohort = data.cohort
    names = pd.Index(left_out.bag_probabilities)
    low, high = cohort.lower.loc[names], cohort.upper.loc[names]
    complete = ~(low.isna().any(axis=1) | high.isna().any(axis=1))
    with_patches = [c for c in names[complete] if len(left_out.bag_probabilities[c])]
    temperature, source, errors, suggestions = 1.0, "nothing was left out", None, None
    if with_patches:
        p = np.concatenate([left_out.bag_probabilities[c] for c in with_patches])
        sizes = [len(left_out.bag_probabilities[c]) for c in with_patches]
        bags = np.repeat(np.arange(len(sizes)), sizes)
        ends = low.loc[with_patches].to_numpy(float), high.loc[with_patches].to_numpy(float)
        temperature, source = fit_temperature_to_records(p, bags, *ends), "records of left-out bags"
        suggestions = suggest_slides(p, bags, *ends, names=with_patches).rename_axis("case")
    if len(left_out.labels):
        temperature = fit_temperature(
            left_out.labels, left_out.probabilities, classes=cohort.classes
        )
        source = "left-out outlines"
    if smoothing is None:
        smoothing = best_smoothing(data, left_out, temperature)
    predicted = predicted_shares(data, left_out, temperature, smoothing)
    if predicted[complete].notna().all(axis=1).any():
        errors = conformal_errors(predicted, low, high)
    return Calibration(temperature, source, errors, suggestions, smoothing)


def best_smoothing(data: CohortFeatures, left_out: LeftOut, temperature: float) -> float:
    """Weight of neighboring patches for the maps of new slides, chosen on left-out outlined slides.

    Parameters
    ----------
    data : CohortFeatures
        Supplies the outlines.
    left_out : LeftOut
    temperature : float
        Temperature of the class probabilities.

    Returns
    -------
    weight : float
        Element of ``WEIGHTS`` with the best mean IoU; see :class:`Calibration`.
    """
    classes = data.cohort.classes
    names = [
        name
        for name in left_out.shares
        if name in data.outlined and has_neighbors(data.slides[name].grid)
    ]
    cases = data.cases_of(names)
    if len(np.unique(cases)) < 2:
        return 0.0
    tables = np.zeros((len(WEIGHTS), len(np.unique(cases)), len(classes) + 1, len(classes) + 2))
    labels = np.array([*classes, NON_CANCER], dtype=object)
    for name, case in zip(names, np.unique(cases, return_inverse=True)[1], strict=True):
        for k, weight in enumerate(WEIGHTS):
            codes = _codes(data, left_out, name, temperature, weight, average=False)
            tables[k, case] += confusion_of(labels[codes], data.outlined[name], classes)
    return WEIGHTS[clearly_best(tables, len(classes))]


def predicted_shares(
    data: CohortFeatures, left_out: LeftOut, temperature: float, smoothing: float
) -> pd.DataFrame:
    """Predicted class shares of left-out recorded cases.

    Parameters
    ----------
    data : CohortFeatures
    left_out : LeftOut
    temperature : float
        Temperature of the class probabilities.
    smoothing : float
        Weight of neighbors.

    Returns
    -------
    predicted : DataFrame
        One row per case, one column per class; NaN where no cancer was found.
    """
    classes = data.cohort.classes
    counts = {}
    for case in left_out.bag_probabilities:
        codes = [_codes(data, left_out, n, temperature, smoothing) for n in _slides_of(data, case)]
        counts[case] = np.bincount(np.concatenate(codes), minlength=len(classes))[: len(classes)]
    table = pd.DataFrame.from_dict(counts, orient="index", columns=classes, dtype=float)
    return table.div(table.sum(axis=1).where(lambda total: total > 0), axis=0)


def _codes(data, left_out, name, temperature, smoothing, *, average=True):
    """Classes of the cells of a left-out slide."""
    shares, n_classes = left_out.shares[name], len(data.cohort.classes)
    if temperature != 1:
        shares = apply_temperature(shares, temperature)
    p = with_non_cancer(shares, left_out.tumor[name])
    _, p = cell_probabilities(data.slides[name], p, n_classes, smoothing=smoothing, average=average)
    return most_probable(p, n_classes)


def _slides_of(data, case):
    """Slides of a bag whose features are available."""
    return [n for n in data.cohort.bags if data.cohort.case_of(n) == case and n in data.slides]


def _fold(data, proposer, classifier, records, left, bag_cases):
    cohort, classes = data.cohort, data.cohort.classes
    train = [n for n in data.labeled if cohort.case_of(n) not in left]
    test = [n for n in data.labeled if cohort.case_of(n) in left]
    if len(set(data.cases_of(train).tolist())) < 2 or not _shows_every_class(data, train):
        train, test = data.labeled, []
    rest = replace(data, cohort=replace(cohort, slides=_without(cohort.slides, left)))
    fitted = fit_proposer(data, train, proposer)
    bags, _ = make_bags(rest, fitted)
    with told_once():
        models = models_of(fit_classifier(data, train, bags, classifier, records), fitted)
    held_out = {case: _slides_of(data, case) for case in bag_cases if case in left}
    slides = [*test, *(name for names in held_out.values() for name in names)]
    predicted = {name: models.shares_and_tumor(data.slides[name], classes) for name in slides}
    shares = {name: pair[0] for name, pair in predicted.items()}
    tumor = {name: pair[1] for name, pair in predicted.items()}
    labels, probabilities, proposed = [], [], {}
    for name in test:
        true = data.outlined[name].labels.astype(str)
        of_cancer = np.isin(true, classes)
        labels.append(true[of_cancer])
        probabilities.append(shares[name][of_cancer])
    for case, names in held_out.items():
        masks = [tumor_mask(data.slides[n], fitted) for n in names]
        parts = [shares[name][mask] for name, mask in zip(names, masks, strict=True)]
        proposed[case] = np.concatenate(parts)
    return labels, probabilities, proposed, shares, tumor


def _without(slides, left):
    return slides[~(slides["case"].isin(left) & (slides["role"] == "bag"))]


def _shows_every_class(data, names):
    shown = {label for name in names for label in data.outlined[name].labels.tolist()}
    return set(data.cohort.classes) <= shown
