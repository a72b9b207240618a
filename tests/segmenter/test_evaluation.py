"""Scores of segmented slides, against scikit-learn and by hand."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import jaccard_score, precision_score

from proportion_ssl.segmenter.evaluation import (
    Evaluation,
    confusion_of,
    proportion_error,
    scores_of,
)
from proportion_ssl.segmenter.slide_features import OutlinedPatches

CLASSES = ["a", "b", "c"]


def test_scores_against_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.choice(np.array([*CLASSES, "non-cancer", None], dtype=object), 500)
    guess = np.where(rng.random(500) < 0.6, truth, rng.choice([*CLASSES, "non-cancer"], 500))
    guess = np.where(guess == None, "a", guess).astype(str)  # noqa: E711
    matrix = confusion_of(guess, OutlinedPatches(truth, {}), CLASSES)
    scores = scores_of(matrix, 3)
    cancer = np.isin(truth.astype(str), CLASSES)
    y, p = truth[cancer].astype(str), guess[cancer]
    assert_allclose(scores["OP"], (y == p).mean())
    assert_allclose(scores["mIoU"], jaccard_score(y, p, labels=CLASSES, average="macro"))
    assert_allclose(scores["PC"], precision_score(y, p, labels=CLASSES, average="macro"))
    known = truth != None  # noqa: E711
    is_tumor, called = truth[known] != "non-cancer", guess[known] != "non-cancer"
    assert_allclose(scores["tumor_recall"], called[is_tumor].mean())
    assert_allclose(scores["tumor_precision"], is_tumor[called].mean())


def test_windows_that_the_tissue_rule_dropped_count_as_wrong():
    labels = np.array(["a", "b", None], dtype=object)
    matrix = confusion_of(np.array(["a", "b", "a"]), OutlinedPatches(labels, {"a": 2}), CLASSES)
    scores = scores_of(matrix, 3)
    assert scores["patches"] == 4 and scores["OP"] == 0.5
    assert_allclose(scores["mIoU"], (1 / 3 + 1) / 2)


def test_a_class_that_is_never_predicted_has_no_precision_but_counts():
    matrix = np.array([[4, 0, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]])
    scores = scores_of(matrix, 2)
    assert_allclose(scores["PC"], (4 / 7 + 0) / 2)
    assert_allclose(scores["mIoU"], (4 / 7 + 0) / 2)


def test_nothing_outlined_is_nan():
    scores = scores_of(np.zeros((4, 5), dtype=int), 3)
    assert scores.pop("patches") == 0 and all(np.isnan(value) for value in scores.values())


@pytest.mark.parametrize(
    ("counts", "lower", "upper", "expected"),
    [
        ([3, 1], [0.5, 0.5], [0.5, 0.5], 0.5),
        ([3, 1], [0.5, 0.1], [0.9, 0.5], 0.0),
        ([3, 1], [0.2, 0.4], [0.6, 0.8], 0.3),
        ([4, 0], [0.0, 1.0], [0.0, 1.0], 1.0),
        ([0, 0], [0.5, 0.5], [0.5, 0.5], np.nan),
        ([3, 1], [np.nan] * 2, [np.nan] * 2, np.nan),
    ],
)
def test_proportion_error(counts, lower, upper, expected):
    error = proportion_error(*(np.array(v, dtype=float) for v in (counts, lower, upper)))
    assert_allclose(error, expected, atol=1e-9)


def test_interval_of_a_share_covers_it():
    """Right patches of many cases: the bootstrap interval of OP is near the normal one."""
    rng = np.random.default_rng(1)
    matrices = {}
    for case in range(60):
        right = rng.binomial(50, 0.8)
        matrices[str(case)] = np.array([[right, 50 - right, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    evaluation = Evaluation(*[None] * 4, matrices, None, None)
    low, high = evaluation.interval("OP")
    shares = np.array([matrix[0, 0] / 50 for matrix in matrices.values()])
    error = 1.96 * shares.std(ddof=1) / np.sqrt(60)
    assert_allclose([low, high], [shares.mean() - error, shares.mean() + error], atol=0.004)
    assert np.isnan(Evaluation(*[None] * 4, {"one": matrices["0"]}, None, None).interval()).all()
