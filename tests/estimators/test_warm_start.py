"""Warm start: fit goes on from what was learned."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from proportion_ssl import Bags, NegativePseudoLabelClassifier
from proportion_ssl.datasets import make_bags


@pytest.fixture(scope="module")
def data():
    return make_bags(n_bags=12, class_separation=0.8, random_state=0)


def make(**settings):
    settings = {"max_epochs": 5, "refit": False, "random_state": 0, **settings}
    return NegativePseudoLabelClassifier(**settings)


def weights(clf):
    return clf.estimator_.module_.linear.weight.detach().numpy().copy()


def test_goes_on_from_the_weights_of_the_last_fit(data):
    clf = make(warm_start=True).fit(data.X_labeled, data.y)
    supervised = weights(clf)
    clf.set_params(max_epochs=1, learning_rate=None).fit(data.X_labeled, data.y, data.bags)
    moved = np.abs(weights(clf) - supervised).max()
    cold = weights(make(max_epochs=1).fit(data.X_labeled, data.y, data.bags))
    assert 0 < moved < np.abs(cold - supervised).max()
    assert clf.history_[0]["n_epochs"] == 0 and clf.n_iter_ == 1


def test_first_fit_and_fits_without_it_start_anew(data):
    cold = make().fit(data.X_labeled, data.y, data.bags)
    first = make(warm_start=True).fit(data.X_labeled, data.y, data.bags)
    assert_array_equal(weights(first), weights(cold))
    assert_array_equal(weights(cold.fit(data.X_labeled, data.y, data.bags)), weights(first))


def test_new_bags_and_corrected_proportions(data):
    half = data.bags.select(data.bags.names[:6])
    clf = make(warm_start=True).fit(data.X_labeled, data.y, half)
    assert len(clf.signed_labels_) == half.n_instances
    clf.fit(data.X_labeled, data.y, data.bags)
    assert len(clf.signed_labels_) == data.bags.n_instances
    assert clf.label_log_.n_rounds == clf.n_iter_ == 5
    before = weights(clf)
    turned = Bags(data.bags.X, data.bags.names[data.bags.index], data.bags.proportions[::-1])
    clf.fit(data.X_labeled, data.y, turned)
    assert np.abs(weights(clf) - before).max() > 0


def test_more_labeled_patches_without_bags(data):
    clf = make(warm_start=True).fit(data.X_labeled, data.y)
    loss = clf.history_[0]["valid_loss"]
    clf.fit(data.X_labeled, data.y)
    assert 0 < clf.history_[0]["n_epochs"] <= 5
    assert clf.history_[0]["valid_loss"] < loss


def test_other_classes_are_refused(data):
    clf = make(warm_start=True).fit(data.X_labeled, data.y)
    with pytest.raises(ValueError, match=r"the last fit had the classes \[0, 1, 2, 3\]"):
        clf.fit(data.X_labeled[data.y < 2], data.y[data.y < 2])


def test_other_features_are_refused(data):
    clf = make(warm_start=True).fit(data.X_labeled, data.y)
    with pytest.raises(ValueError, match=r"instances of shape \(\d+,\), but X_labeled has \(2,\)"):
        clf.fit(data.X_labeled[:, :2], data.y)
