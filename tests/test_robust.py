"""Robust classifier: finds out how far records can be trusted, and which bags to read again."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import roc_auc_score

from proportion_ssl import (
    Bags,
    IdentifiabilityWarning,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    Selector,
    SoftAssignmentSelector,
)
from proportion_ssl.datasets import make_bags

QUICK = NegativePseudoLabelClassifier(max_epochs=15)


def fit(data, bags, seed=0):
    return RobustProportionClassifier(QUICK, n_rounds=15, random_state=seed).fit(
        data.X_labeled, data.y, bags
    )


@pytest.fixture(scope="module")
def data():
    return make_bags(n_bags=30, bag_size=40, random_state=0)


@pytest.fixture(scope="module")
def exact(data):
    return fit(data, data.bags)


def with_proportions(bags, proportions, **kwargs):
    return Bags(bags.X, bags.names[bags.index], proportions, **kwargs)


@pytest.mark.parametrize("seed", range(3))
def test_exchanged_records_come_out_on_top(seed):
    data = make_bags(n_bags=30, bag_size=40, random_state=seed)
    rng = np.random.default_rng(seed)
    wrong = rng.choice(30, 6, replace=False)
    proportions = data.bags.proportions.copy()
    proportions[wrong] = proportions[np.roll(wrong, 1)]
    moved = np.abs(proportions - data.bags.proportions).sum(axis=1)
    clf = fit(data, with_proportions(data.bags, proportions), seed)
    table = clf.bag_reliability_
    assert roc_auc_score(np.isin(table.index, data.bags.names[wrong]), table["distance"]) >= 0.9
    far = data.bags.names[moved > 1]
    assert set(far) <= set(table.index[table["doubtful"]])
    assert (clf.bags_.weights[np.isin(clf.bags_.names, far)] == 0).all()


def test_trust_falls_as_records_get_rougher(data, exact):
    rng = np.random.default_rng(0)
    trusts = [exact.trust_]
    for error in (0.05, 0.2):
        noisy = np.clip(
            data.bags.proportions + rng.normal(0, error, data.bags.proportions.shape), 0, None
        )
        trusts.append(
            fit(data, with_proportions(data.bags, noisy / noisy.sum(axis=1, keepdims=True))).trust_
        )
    assert trusts[0] > trusts[1] > trusts[2]
    assert trusts[2] >= 0 and trusts[0] <= 1


def test_table_of_reliability(data, exact):
    table = exact.bag_reliability_.loc[exact.bags_.names]
    recorded = table[[f"recorded_{c}" for c in exact.classes_]].to_numpy()
    supported = table[[f"supported_{c}" for c in exact.classes_]].to_numpy()
    assert_array_equal(recorded, data.bags.proportions)
    assert_allclose(supported.sum(axis=1), 1)
    assert_allclose(table["distance"], np.abs(recorded - supported).sum(axis=1))
    assert_array_equal(exact.bags_.weights == 0, table["doubtful"])
    assert exact.bag_reliability_["distance"].is_monotonic_decreasing
    assert_array_equal(data.bags.weights, 1)  # the user's bags are left as they were


def test_same_seed_same_result_and_bags_without_influence(data, exact):
    again = fit(data, data.bags)
    assert_array_equal(again.predict_proba(data.X_test), exact.predict_proba(data.X_test))
    assert (exact.predict(data.X_test) == data.y_test).mean() > 0.8
    without = RobustProportionClassifier(QUICK, random_state=0).fit(data.X_labeled, data.y)
    assert not hasattr(without, "bag_reliability_")


def test_within_intervals_no_bag_is_doubtful(data):
    proportions = np.roll(data.bags.proportions, 1, axis=0)
    wide = with_proportions(
        data.bags, proportions, lower=proportions * 0, upper=proportions * 0 + 1
    )
    clf = fit(data, wide)
    assert not clf.bag_reliability_["doubtful"].any()
    assert clf.trust_ == 1


def test_proportions_that_tell_nothing_apart(data):
    flat = np.full(data.bags.proportions.shape, 0.25)
    with pytest.warns(IdentifiabilityWarning, match="its share is the same in all bags"):
        fit(data, with_proportions(data.bags, flat))


def test_weights_of_bags_reach_the_losses(data):
    """A bag of weight 0 is as good as absent; weights change what is learnt."""
    common = {"negative_selector": None, "max_epochs": 5, "random_state": 0, "refit": False}
    clf = NegativePseudoLabelClassifier(**common)
    plain = clf.fit(data.X_labeled, data.y, data.bags).predict_proba(data.X_test)
    ones = with_proportions(data.bags, data.bags.proportions, weights=np.ones(30))
    assert_array_equal(clf.fit(data.X_labeled, data.y, ones).predict_proba(data.X_test), plain)
    none = with_proportions(data.bags, data.bags.proportions, weights=np.zeros(30))
    without = NegativePseudoLabelClassifier(**{**common, "positive_selector": None})
    alone = without.fit(data.X_labeled, data.y, data.bags)
    assert alone.termination_condition_ == "no_selector"
    zero = clf.fit(data.X_labeled, data.y, none)
    assert np.abs(zero.predict_proba(data.X_test) - plain).max() > 1e-3


class Undecided(Selector):
    """Soft labels that name no class: the same share for all."""

    def select(self, probabilities, bag_index, bag_proportions):
        return np.full(probabilities.shape, 1 / probabilities.shape[1], dtype=np.float32)


def test_soft_labels_are_trained_on_as_they_are_and_recorded_where_they_are_above_one_half(data):
    common = {"negative_selector": None, "max_epochs": 10, "random_state": 0}
    undecided = NegativePseudoLabelClassifier(positive_selector=Undecided(), **common)
    undecided.fit(data.X_labeled, data.y, data.bags)
    assert not undecided.signed_labels_.any()
    assert undecided.label_log_.to_frame().empty

    decided = NegativePseudoLabelClassifier(positive_selector=SoftAssignmentSelector(), **common)
    decided.fit(data.X_labeled, data.y, data.bags)
    assert decided.signed_labels_.dtype == np.int8
    assert set(np.unique(decided.signed_labels_)) == {0, 1}
    assert decided.signed_labels_.sum(axis=1).max() == 1
    assert_array_equal(decided.label_log_.replay(), decided.signed_labels_)
    confidence = [clf.predict_proba(data.bags.X).max(axis=1).mean() for clf in (undecided, decided)]
    assert confidence[0] < confidence[1] - 0.1
