"""What slides that were left out teach of the probabilities and proportions of a segmenter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from proportion_ssl.evaluation import (
    conformal_errors,
    fit_temperature,
    fit_temperature_to_records,
    suggest_slides,
)
from proportion_ssl.segmenter.prediction import models_of, segment_known
from proportion_ssl.segmenter.training import (
    CohortFeatures,
    fit_classifier,
    fit_proposer,
    make_bags,
    tumor_mask,
)


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Predictions of slides by models that saw neither them nor other slides of their case.

    Attributes
    ----------
    labels : ndarray of str, shape (n_patches,)
        True classes of outlined patches of cancer that were left out.
    probabilities : ndarray of shape (n_patches, n_classes)
        Of these, given that they are cancer; of the raw classifier.
    predicted : DataFrame
        Predicted shares of the classes by recorded case; NaN where no cancer was found.
    bag_probabilities : dict of str to ndarray of shape (n_patches, n_classes)
        By recorded case, those of its proposed tumor patches.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    predicted: pd.DataFrame
    bag_probabilities: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What was learned from slides that were left out.

    Attributes
    ----------
    temperature : float
        That of the probabilities of the classes; 1 leaves them as they are.
    source : str
        What the temperature was fitted to.
    proportion_errors : ndarray of shape (n_classes,) or None
        Of :func:`~proportion_ssl.evaluation.conformal_errors` at 90%; None without records.
    suggestions : DataFrame or None
        Of :func:`~proportion_ssl.evaluation.suggest_slides`: recorded cases to outline next, and records to
        read again; None without records.
    """

    temperature: float
    source: str
    proportion_errors: np.ndarray | None
    suggestions: pd.DataFrame | None


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
    """Train without some cases in turn, and predict these.

    Outlined cases are left out as well, where two or more others remain and still show every class.

    Parameters
    ----------
    data : CohortFeatures
    proposer : TumorProposer or None
        Not fitted.
    classifier : estimator
    folds : int
        At most, at least 2.
    records : bool, default=True
        Whether the classifier learns from bags.
    n_jobs : int or None
        Folds at once, as in joblib.
    verbose : bool, default=False
        Whether to show a bar over the folds.

    Returns
    -------
    left_out : LeftOut

    Raises
    ------
    ValueError
        If fewer than two cases could be left out, or folds is below 2.
    """
    bag_cases = [c for c in data.cohort.bag_cases if _slides_of(data, c)]
    outlined = list(dict.fromkeys(data.cases_of(data.labeled).tolist()))
    cases = list(dict.fromkeys([*outlined, *bag_cases]))
    if folds < 2 or len(cases) < 2:
        raise ValueError(
            "Calibration leaves out outlined and recorded cases in turn and needs two or more folds; there "
            f"are {len(cases)} cases and folds={folds}."
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
    counts = {case: n for part in parts for case, n in part[2].items()}
    predicted = pd.DataFrame.from_dict(counts, orient="index", columns=data.cohort.classes)
    return LeftOut(
        np.concatenate([*labels, np.array([], dtype=str)]),
        np.concatenate([*probabilities, np.zeros((0, n_classes))]),
        predicted.div(predicted.sum(axis=1).where(lambda total: total > 0), axis=0),
        {case: p for part in parts for case, p in part[3].items()},
    )


def calibrate(data: CohortFeatures, left_out: LeftOut) -> Calibration:
    """Temperature, errors of proportions and suggestions from slides that were left out.

    Parameters
    ----------
    data : CohortFeatures
        For the records.
    left_out : LeftOut

    Returns
    -------
    calibration : Calibration
        The temperature is fitted to the outlines that were left out, else to records, else it is 1.
    """
    cohort = data.cohort
    names = left_out.predicted.index
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
    if left_out.predicted[complete].notna().all(axis=1).any():
        errors = conformal_errors(left_out.predicted, low, high)
    if len(left_out.labels):
        temperature = fit_temperature(
            left_out.labels, left_out.probabilities, classes=cohort.classes
        )
        source = "left-out outlines"
    return Calibration(temperature, source, errors, suggestions)


def _slides_of(data, case):
    """Slides of a bag whose features are at hand."""
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
    models = models_of(fit_classifier(data, train, bags, classifier, records), fitted)
    labels, probabilities, counts, tumor = [], [], {}, {}
    for name in test:
        true = data.outlined[name].labels.astype(str)
        of_cancer = np.isin(true, classes)
        labels.append(true[of_cancer])
        probabilities.append(models.shares(data.slides[name], classes)[of_cancer])
    for case in bag_cases:
        if case in left:
            names = _slides_of(data, case)
            found = segment_known(data, names, models).values()
            counts[case] = [sum((one.labels == c).sum() for one in found) for c in classes]
            tumor[case] = np.concatenate(
                [
                    models.shares(data.slides[n], classes)[tumor_mask(data.slides[n], fitted)]
                    for n in names
                ]
            )
    return labels, probabilities, counts, tumor


def _without(slides, left):
    return slides[~(slides["case"].isin(left) & (slides["role"] == "bag"))]


def _shows_every_class(data, names):
    shown = {label for name in names for label in data.outlined[name].labels.tolist()}
    return set(data.cohort.classes) <= shown
