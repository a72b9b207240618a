"""Cross-validation of systems over outlined cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold
from sklearn.utils.parallel import Parallel, delayed
from tqdm.auto import tqdm

from proportion_ssl.proportions.identifiability import told_once, warn_if_not_identifiable
from proportion_ssl.segmenter.prediction import evaluate_models, models_of
from proportion_ssl.segmenter.systems import System
from proportion_ssl.segmenter.training import (
    CohortFeatures,
    fit_classifier,
    fit_proposer,
    make_bags,
)


def cross_validate_cases(
    data: CohortFeatures,
    proposer: Any,
    systems: Mapping[str, System],
    folds: int,
    *,
    n_jobs: int | None,
    verbose: bool,
) -> pd.DataFrame:
    """Train proposer and systems without some outlined cases, and score them on these cases.

    Parameters
    ----------
    data : CohortFeatures
    proposer : TumorProposer or None
        Not fitted.
    systems : mapping of str to System
    folds : int
        Largest number of folds.
    n_jobs : int or None
        Number of folds run in parallel, as in joblib.
    verbose : bool
        Whether to show a progress bar over the folds.

    Returns
    -------
    scores : DataFrame
        One row per fold and system.

    Raises
    ------
    ValueError
        If fewer than two outlined cases can be used.
    """
    slides = np.array(data.labeled)
    cases = data.cases_of(data.labeled)
    n_cases = len(np.unique(cases))
    if n_cases < 2 or folds < 2:
        raise ValueError(
            "Cross-validation leaves out outlined cases in turn and needs at least two cases and two folds; "
            f"got {n_cases} outlined cases and folds={folds}."
        )
    told = data.cohort.proportions.loc[data.cohort.bag_cases].dropna()
    if any(system.records for system in systems.values()) and len(told):
        warn_if_not_identifiable(told)
    splits = list(GroupKFold(min(folds, n_cases)).split(slides, groups=cases))
    tasks = (
        delayed(_fold)(data, proposer, systems, fold, slides[train], slides[test])
        for fold, (train, test) in enumerate(splits, 1)
    )
    parallel = Parallel(n_jobs=n_jobs, return_as="generator")
    bar = tqdm(parallel(tasks), total=len(splits), desc="cross-validation", disable=not verbose)
    rows = [row for fold in bar for row in fold]
    return pd.DataFrame(rows)


def _fold(data, proposer, systems, fold, train, test):
    fitted = fit_proposer(data, train, proposer)
    bags, _ = make_bags(data, fitted)
    left_out = ", ".join(sorted({data.cohort.case_of(name) for name in test}))
    rows = []
    for name, system in systems.items():
        with told_once():
            model = fit_classifier(data, train, bags, system.classifier, system.records)
        models = models_of(model, fitted)
        pooled = evaluate_models(data, test, models).pooled
        rows.append({"system": name, "fold": fold, "cases": left_out, **pooled.to_dict()})
    return rows
