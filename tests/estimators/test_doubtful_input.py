"""What fit says of input that can be read in two ways: columns and classes in another order, -1 in y."""

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.base import clone

from proportion_ssl import (
    Bags,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    SoftAssignmentSelector,
)
from proportion_ssl.baselines import MeanMapClassifier, NLNLClassifier, NonparallelSVMClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.estimators import TumorProposer
from proportion_ssl.estimators._base import BagClassifier
from proportion_ssl.heads import DiscriminantClassifier, SoftLogisticRegression
from proportion_ssl.nets import HeadClassifier, MultiFieldOfViewNet

DATA = make_bags(n_bags=6, n_features=4, random_state=0)
FEATURES = ["f0", "f1", "f2", "f3"]
CLASSES = np.array(["a", "b", "c", "d"])


def make(**settings):
    return NegativePseudoLabelClassifier(max_epochs=1, random_state=0, **settings)


def parts_of(X):
    return [X[DATA.bags.index == bag] for bag in range(6)]


def test_list_of_frames_must_have_the_columns_of_fit():
    X = pd.DataFrame(DATA.X_labeled, columns=FEATURES)
    every = pd.DataFrame(DATA.bags.X, columns=FEATURES)
    listed, whole = (
        make().fit(X, DATA.y, bags)
        for bags in (
            Bags(parts_of(every), None, DATA.bags.proportions),
            Bags(every, DATA.bags.index, DATA.bags.proportions),
        )
    )
    assert_array_equal(listed.signed_labels_, whole.signed_labels_)
    for other in (every[FEATURES[::-1]], every.rename(columns={"f1": "g"})):
        with pytest.raises(ValueError, match="feature names should match"):
            make().fit(X, DATA.y, Bags(parts_of(other), None, DATA.bags.proportions))
        with pytest.raises(ValueError, match="feature names should match"):
            make().fit(X, DATA.y, tuple(parts_of(other)), DATA.bags.proportions)


@pytest.mark.parametrize("dtype", [int, float])
def test_minus_one_beside_other_classes_is_doubtful(dtype):
    X = np.concatenate([DATA.X_labeled, DATA.bags.X])
    y = np.concatenate([DATA.y, np.full(len(DATA.bags.X), -1)]).astype(dtype)
    with pytest.warns(UserWarning, match="y holds -1, .* unlabeled patches.* into the bags"):
        make().fit(X, y)


def test_minus_one_and_one_are_two_classes():
    make().fit(DATA.X_labeled, np.where(DATA.y > 1, 1, -1))  # warnings are errors


@pytest.mark.parametrize("is_sorted", [False, True])
def test_columns_without_names_beside_classes_in_another_order(is_sorted):
    order = np.argsort(DATA.y if is_sorted else -DATA.y, kind="stable")
    X, y = DATA.X_labeled[order], CLASSES[DATA.y][order]
    table = pd.DataFrame(DATA.bags.proportions, index=DATA.bags.names, columns=CLASSES)
    named = make().fit(X, y, Bags(DATA.bags.X, DATA.bags.names[DATA.bags.index], table))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain = make().fit(X, y, DATA.bags)
    said = [str(w.message) for w in caught if "columns of the bags' proportions" in str(w.message)]
    assert len(said) == (not is_sorted)
    assert is_sorted or "order 'a', 'b', 'c', ..., but the data have 'd', 'c', 'b'" in said[0]
    assert_array_equal(plain.signed_labels_, named.signed_labels_)


@pytest.mark.parametrize(
    "estimator",
    [
        make(),
        make(positive_selector=SoftAssignmentSelector().set_output(transform="pandas")),
        RobustProportionClassifier(random_state=0),
    ],
    ids=["adaptive", "soft", "robust"],
)
def test_tables_as_output_change_nothing(estimator):
    expected = estimator.fit(DATA.X_labeled, DATA.y, DATA.bags).signed_labels_
    with config_context(transform_output="pandas"):
        found = estimator.fit(DATA.X_labeled, DATA.y, DATA.bags).signed_labels_
    assert_array_equal(found, expected)


def test_class_means_of_rounded_records():
    """Written shares that sum to .9 count as the shares within their intervals that sum to 1."""
    data = make_bags(40, n_classes=3, rounding=0.1, random_state=0)
    shares = data.bags.proportions
    assert (abs(shares.sum(axis=1) - 1) > 0.05).any()
    fitted = MeanMapClassifier().fit(data.X_labeled, data.y, data.bags)
    by_hand = Bags(data.bags.X, data.bags.index, shares / shares.sum(axis=1, keepdims=True))
    other = MeanMapClassifier().fit(data.X_labeled, data.y, by_hand)
    assert (fitted.predict(data.X_test) == other.predict(data.X_test)).mean() > 0.97
    assert fitted.score(data.X_test, data.y_test) > 0.85


@pytest.mark.parametrize(
    "model",
    [
        make(),
        RobustProportionClassifier(random_state=0),
        MeanMapClassifier(),
        NonparallelSVMClassifier(),
        NLNLClassifier(max_epochs=1, random_state=0),
        DiscriminantClassifier(),
        SoftLogisticRegression(),
    ],
    ids=lambda model: type(model).__name__,
)
def test_bags_are_not_what_is_predicted(model):
    model = clone(model).fit(DATA.X_labeled, DATA.y)
    methods = [m for m in ("predict", "predict_proba", "predict_log_proba") if hasattr(model, m)]
    for method in methods:
        with pytest.raises(
            TypeError, match=r"X is a Bags.* pass bags\.X.*bag_ids=.*bag_proportions="
        ):
            getattr(model, method)(DATA.bags)
    with pytest.raises(TypeError, match=r"X is a Bags.* pass bags\.X"):
        model.score(DATA.bags, DATA.y_bags)
    if isinstance(model, BagClassifier):  # what the message recommends
        bags = DATA.bags
        given = {"bag_ids": bags.names[bags.index], "bag_proportions": bags}
        assert len(model.predict(bags.X, **given)) == bags.n_instances


def test_bags_are_not_what_nets_and_proposers_predict():
    net = HeadClassifier(max_epochs=1).fit(DATA.X_labeled, DATA.y)
    views = MultiFieldOfViewNet(n_views=2, random_state=0).fit(DATA.X_labeled, DATA.y)
    proposer = TumorProposer(threshold=0.5).fit(DATA.X_labeled, DATA.y > 0)
    for predict in (net.predict, net.predict_log_proba, views.predict, proposer.transform):
        with pytest.raises(TypeError, match=r"X is a Bags.* pass bags\.X"):
            predict(DATA.bags)
