"""Learning curve: gain from more outlined cases, estimated from fits to fewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils.parallel import Parallel, delayed

from proportion_ssl.evaluation import confusion_scores, learning_curve, slide_confusions
from proportion_ssl.proportions.identifiability import told_once
from proportion_ssl.segmenter.prediction import models_of
from proportion_ssl.segmenter.training import CohortFeatures, fit_classifier, make_bags

LEAST_CASES = 4
"""Smallest number of outlined cases for a learning curve: three to train on and one to test on."""

N_REPEATS = 5


def outline_curve(
    data: CohortFeatures,
    proposer: Any,
    classifier: Any,
    *,
    records: bool = True,
    n_jobs: int | None = None,
    random_state: int = 0,
) -> pd.DataFrame | None:
    """Learning curve: score by number of outlined training cases.

    In each draw a quarter of the outlined cases is left out for testing. Models are trained on one to all of
    the others, together with all recorded cases.

    Parameters
    ----------
    data : CohortFeatures
    proposer : TumorProposer or None
        Fitted; used to make the bags. Only patches outlined as cancer are scored.
    classifier : estimator
    records : bool, default=True
        Whether the classifier learns from bags.
    n_jobs : int, optional
        Number of draws run in parallel, as in joblib.
    random_state : int, default=0

    Returns
    -------
    curve : DataFrame or None
        Output of :func:`~proportion_ssl.evaluation.learning_curve` with mIoU as the score; None with fewer
        than four outlined cases.
    """
    cases = list(dict.fromkeys(data.cases_of(data.labeled).tolist()))
    if len(cases) < LEAST_CASES:
        return None
    bags, _ = make_bags(data, proposer)
    rng = np.random.default_rng(random_state)
    orders = [[cases[i] for i in rng.permutation(len(cases))] for _ in range(N_REPEATS)]
    parts = Parallel(n_jobs=n_jobs)(
        delayed(_draw)(data, bags, classifier, records, order) for order in orders
    )
    return pd.concat([part.assign(repeat=k) for k, part in enumerate(parts)], ignore_index=True)


def _draw(data, bags, classifier, records, order):
    n_left = max(1, len(order) // 4)
    left = _slides(data, order[:n_left])
    rest = order[n_left:]
    classes = data.cohort.classes
    X, y, _ = data.patches(left, classes)

    def fit_and_score(outlined, _):
        names = _slides(data, outlined)
        with told_once():
            model = models_of(fit_classifier(data, names, bags, classifier, records), None)
        found = np.array(classes)[model.shares_of(X, classes).argmax(axis=1)]
        matrices, _ = slide_confusions(y, found, np.zeros(len(y)), classes)
        return confusion_scores(matrices[0])["mIoU"]

    n = len(rest)
    sizes = sorted({max(1, n // 4), max(1, n // 2), max(1, 3 * n // 4), n})
    if len(sizes) < 3:  # three training cases
        sizes = list(range(1, n + 1))
    recorded = bags.names.tolist() if records and bags is not None else []
    return learning_curve(fit_and_score, rest, recorded, n_outlined=sizes, n_repeats=1)


def _slides(data, cases):
    return [name for name in data.labeled if data.cohort.case_of(name) in set(cases)]
