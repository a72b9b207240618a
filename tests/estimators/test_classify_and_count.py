"""Choosing settings by the proportions of left-out bags."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score

from proportion_ssl import (
    Bags,
    ClassifyAndCount,
    NegativePseudoLabelClassifier,
    bag_proportion_error,
)
from proportion_ssl.datasets import make_bags


class Oracle(NegativePseudoLabelClassifier):
    """Knows the labels of blobs by their first feature; remembers which bags it was given."""

    def __init__(self, shift=0.0):
        self.shift = shift

    def fit(self, X_labeled, y, X_bags=None, bag_proportions=None, *, groups=None):
        self.classes_, self.trained_on_ = np.unique(y), X_bags.names
        self.groups_ = groups
        return self

    def predict(self, X):
        return self.classes_[(X[:, 0] > self.shift).astype(int)]


class Fixed(Oracle):
    """Predicts given labels."""

    def __init__(self, labels=None):
        self.labels = labels

    def predict(self, X):
        return self.labels


@pytest.fixture
def bags():
    rng = np.random.default_rng(0)
    X, index = rng.normal(size=(200, 2)), np.repeat(np.arange(10), 20)
    names = np.array([f"slide {i}" for i in range(10)])
    share = np.array([(X[index == i, 0] > 0).mean() for i in range(10)])
    frame = pd.DataFrame({"b": share, "a": 1 - share}, index=names)
    return Bags(X, names[index], frame)


LABELED = (np.zeros((4, 2)), np.array(["a", "b", "a", "b"]))


def test_predicts_and_scores_by_counting(bags):
    model = ClassifyAndCount(Oracle()).fit(bags.names, labeled=LABELED, bags=bags)
    assert_allclose(model.predict(bags.names[3:5]), bags.proportions[3:5, ::-1])
    assert model.score(bags.names) == pytest.approx(0)
    wrong = ClassifyAndCount(Oracle(shift=9.0)).fit(bags.names, labeled=LABELED, bags=bags)
    # share b of each bag is misplaced, which moves two shares; half of a bag or more counts as all of it
    expected = np.minimum(1, 2 * bags.proportions[:, 0]).mean()
    assert wrong.score(bags.names) == pytest.approx(-expected)
    assert wrong.score(bags.names) > -2 * bags.proportions[:, 0].mean()
    predicted = wrong.estimator_.predict(bags.X)
    frame = pd.DataFrame(bags.proportions, index=bags.names, columns=["b", "a"])
    error = bag_proportion_error(
        frame, predicted, bag_ids=bags.names[bags.index], labels=["a", "b"]
    )
    assert wrong.score(bags.names) == pytest.approx(-error)


def test_score_takes_intervals_and_weights(bags):
    frame = pd.DataFrame(bags.proportions, index=bags.names, columns=["b", "a"])
    unsure = Bags(bags.X, bags.names[bags.index], frame, standard_deviation=0.5)
    model = ClassifyAndCount(Oracle(shift=0.1)).fit(unsure.names, labeled=LABELED, bags=unsure)
    assert model.score(unsure.names) == 0
    heavy = Bags(bags.X, bags.names[bags.index], frame, weights=[1] + [0] * 9)
    model = ClassifyAndCount(Oracle(shift=0.1)).fit(heavy.names, labeled=LABELED, bags=heavy)
    assert model.score(heavy.names) == pytest.approx(model.score(heavy.names[:1]))


def test_left_out_bags_never_train(bags):
    names = bags.names.reshape(-1, 1)
    search = GridSearchCV(
        ClassifyAndCount(Oracle()), {"estimator__shift": [-2.0, 0.0, 2.0]}, cv=GroupKFold(5)
    )
    search.fit(names, labeled=LABELED, bags=bags, groups=np.arange(10) // 2)
    assert search.best_params_ == {"estimator__shift": 0.0}
    assert search.best_score_ == pytest.approx(0)
    assert list(search.best_estimator_.estimator_.trained_on_) == bags.names.tolist()
    part = clone(search.best_estimator_).fit(names[:6], labeled=(*LABELED, [1, 1, 2, 2]), bags=bags)
    assert set(part.estimator_.trained_on_) == set(bags.names[:6].tolist())
    assert part.estimator_.groups_ == [1, 1, 2, 2]


def test_with_the_real_classifier():
    data = make_bags(n_bags=8, bag_size=20, random_state=0)
    model = ClassifyAndCount(NegativePseudoLabelClassifier(max_epochs=5, random_state=0))
    scores = cross_val_score(
        model,
        data.bags.names.reshape(-1, 1),
        cv=2,
        params={"labeled": (data.X_labeled, data.y), "bags": data.bags},
        error_score="raise",
    )
    assert ((scores <= 0) & (scores >= -1)).all()


def test_bad_input(bags):
    with pytest.raises(ValueError, match="labeled must be a tuple"):
        ClassifyAndCount(Oracle()).fit(bags.names, labeled=[1, 2], bags=bags)
    with pytest.raises(ValueError, match="'no slide', which is not among the bags"):
        ClassifyAndCount(Oracle()).fit(["no slide"], labeled=LABELED, bags=bags)
    with pytest.raises(ValueError, match=r"X has shape \(5, 2\)"):
        ClassifyAndCount(Oracle()).fit(np.zeros((5, 2)), labeled=LABELED, bags=bags)


def test_incomplete_records_are_compared_with_what_they_say():
    """Predominant class, or shares among some classes: the nearest shares that the record admits."""
    X = np.arange(20.0)[:, np.newaxis]
    predominant = Bags.from_predominant(X, np.repeat(["s"], 20), ["a"], classes=["a", "b", "c"])
    table = pd.DataFrame({"a": [0.7], "b": [0.3], "c": [np.nan]}, index=["s"])
    partial = Bags(X, np.repeat(["s"], 20), table, among=["a", "b"])
    for bags, counts, expected in (
        (predominant, (7, 9, 4), 0.1),
        (predominant, (9, 7, 4), 0.0),
        (partial, (5, 5, 10), 0.2),
        (partial, (7, 3, 10), 0.0),
    ):
        model = ClassifyAndCount(Fixed(np.repeat(["a", "b", "c"], counts)))
        model.fit(bags.names, labeled=(X[:3], np.array(["a", "b", "c"])), bags=bags)
        assert model.score(bags.names) == pytest.approx(-expected)
