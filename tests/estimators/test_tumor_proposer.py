"""Tumor proposals: the threshold comes from left-out slides, empty slides are named."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from proportion_ssl import MultiFieldOfViewNet, TumorProposer
from proportion_ssl.estimators.tumor_proposer import recall_threshold

RNG = np.random.default_rng(0)
SLIDES = np.repeat(np.arange(6), 50)
IS_TUMOR = RNG.random(300) < 0.6
X = RNG.normal(size=(300, 8)) + IS_TUMOR[:, None] * 1.0 + RNG.normal(0, 0.5, (6, 8))[SLIDES]


def make(**settings):
    return TumorProposer(LogisticRegression(), **settings)


def test_threshold_has_the_recall_on_left_out_slides():
    proposer = make(min_recall=0.9).fit(X, IS_TUMOR, groups=SLIDES)
    unseen = np.zeros(300)
    for train, test in GroupKFold(5).split(X, IS_TUMOR, SLIDES):
        net = LogisticRegression().fit(X[train].astype(np.float32), IS_TUMOR[train])
        unseen[test] = net.predict_proba(X[test].astype(np.float32))[:, 1]
    found = unseen >= proposer.threshold_
    assert found[IS_TUMOR].mean() == proposer.recall_ >= 0.9
    assert IS_TUMOR[found].mean() == proposer.precision_
    higher = np.nextafter(proposer.threshold_, 1)
    assert (unseen >= higher)[IS_TUMOR].mean() < 0.9  # the largest threshold of that recall


@pytest.mark.parametrize("min_recall", [0.1, 0.5, 0.95, 1.0])
def test_recall_threshold_is_the_largest(min_recall):
    rng = np.random.default_rng(1)
    positive, scores = rng.random(200) < 0.5, rng.random(200)
    thresholds = np.sort(scores)
    fine = [t for t in thresholds if (scores[positive] >= t).mean() >= min_recall]
    of_positives = max(t for t in fine if t in scores[positive])
    assert recall_threshold(positive, scores, min_recall) == of_positives


def test_a_given_threshold_is_used():
    proposer = make(threshold=0.25).fit(X, IS_TUMOR)
    assert proposer.threshold_ == 0.25
    assert np.isnan(proposer.recall_)
    found = proposer.propose(X)
    assert_array_equal(found.is_tumor, found.probabilities >= 0.25)
    assert_array_equal(found.probabilities, proposer.transform(X)[:, 0])
    assert found.empty == []


def test_slides_without_proposals_are_named():
    proposer = make().fit(X, IS_TUMOR, groups=SLIDES)
    far = np.vstack([X[:50], np.full((20, 8), -9.0)])
    found = proposer.propose(far, bag_ids=np.repeat(["b1", "b2"], [50, 20]))
    assert found.empty == ["b2"]
    assert found.is_tumor[:50].any()


@pytest.mark.slow
def test_three_views():
    views = np.hstack([X, X + 0.1, X - 0.1])
    proposer = TumorProposer(MultiFieldOfViewNet(3, random_state=0)).fit(
        views, IS_TUMOR, groups=SLIDES
    )
    assert proposer.recall_ >= 0.97
    assert proposer.precision_ > IS_TUMOR.mean()
    again = pickle.loads(pickle.dumps(proposer))
    assert_array_equal(again.transform(views), proposer.transform(views))
    assert clone(proposer).get_params()["net__n_views"] == 3


@pytest.mark.parametrize(
    ("y", "groups", "message"),
    [
        (np.where(IS_TUMOR, "acinar", "non-cancer"), SLIDES, "y != 'non-cancer'"),
        (np.ones(300, dtype=bool), SLIDES, "with both present"),
        (IS_TUMOR, np.zeros(300), "Two labeled slides are needed"),
        (np.arange(300) < 50, SLIDES, "No slide with tumor can be held out"),
        (np.arange(300) == 0, None, "Two patches of tumor"),
    ],
)
def test_labels_that_cannot_train(y, groups, message):
    with pytest.raises(ValueError, match=message):
        make().fit(X, y, groups=groups)


def test_parameters_are_checked():
    with pytest.raises(ValueError, match="threshold"):
        make(threshold=1.5).fit(X, IS_TUMOR)


def test_patches_that_no_net_could_judge_have_no_say_in_the_recall():
    """Slide 0 holds all that is not tumor: without it there is nothing to tell tumor from."""
    is_tumor = SLIDES > 0
    is_tumor[1] = True
    proposer = make().fit(X, is_tumor, groups=SLIDES)
    assert proposer.recall_ >= 0.97
