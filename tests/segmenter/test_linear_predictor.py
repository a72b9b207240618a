"""Linear maps in numpy give the probabilities of the models that they were taken from."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression

from proportion_ssl import HeadClassifier, MultiFieldOfViewNet, TumorProposer
from proportion_ssl.datasets import make_bags
from proportion_ssl.estimators import NegativePseudoLabelClassifier, RobustProportionClassifier
from proportion_ssl.nets import AdaptiveFusion, FixedFusion
from proportion_ssl.segmenter.linear_predictor import of_classifier, of_proposer


@pytest.fixture(scope="module")
def data():
    return make_bags(n_bags=6, random_state=0)


@pytest.mark.parametrize(
    "model",
    [RobustProportionClassifier(random_state=0), NegativePseudoLabelClassifier(max_epochs=2)],
    ids=lambda model: type(model).__name__,
)
def test_classifiers(model, data):
    model.fit(data.X_labeled, data.y, data.bags)
    predictor = of_classifier(model)
    more = np.hstack([data.X_test, data.X_test])  # further views are left aside
    assert_allclose(predictor.predict_proba(more), model.predict_proba(data.X_test), atol=1e-5)
    assert predictor.classes.tolist() == model.classes_.tolist()


def test_two_classes(data):
    y = data.y == data.y[0]
    for model in (LogisticRegression(), NegativePseudoLabelClassifier(max_epochs=2)):
        model.fit(data.X_labeled, y)
        expected = model.predict_proba(data.X_test)
        assert_allclose(of_classifier(model).predict_proba(data.X_test), expected, atol=1e-5)


def test_what_is_no_linear_map_is_none(data):
    class Other:
        def to_logistic_regression(self):
            raise ValueError("more than a linear head")

    assert of_classifier(Other()) is None and of_classifier(object()) is None


@pytest.mark.parametrize("fusion", [None, FixedFusion([0.7, 0.3])])
def test_proposers(fusion, data):
    X = np.hstack([data.X_labeled, data.X_labeled[:, ::-1]])
    is_tumor = data.y == data.y[0]
    net = MultiFieldOfViewNet(2, expert=HeadClassifier(max_epochs=3), fusion=fusion, random_state=0)
    proposer = TumorProposer(net, threshold=0.4).fit(X, is_tumor)
    predictor = of_proposer(proposer)
    assert predictor.n_features == X.shape[1]
    assert_allclose(predictor.predict_proba(X)[:, 1:], proposer.transform(X), atol=1e-5)


@pytest.mark.slow
def test_a_gate_or_a_foreign_net_is_none(data):
    X = np.hstack([data.X_labeled, data.X_labeled])
    is_tumor = data.y == data.y[0]
    expert = HeadClassifier(max_epochs=2)
    gated = MultiFieldOfViewNet(2, expert=expert, fusion=AdaptiveFusion(n_folds=2), random_state=0)
    for net in (gated, LogisticRegression()):
        assert of_proposer(TumorProposer(net, threshold=0.4).fit(X, is_tumor)) is None
