"""Nets of skorch itself, with modules of one's own, in the classifier."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from torch import nn

from proportion_ssl import NegativePseudoLabelClassifier
from proportion_ssl.datasets import make_bags

DATA = make_bags(n_bags=6, bag_size=20, n_labeled_slides=6, n_features=8, random_state=0)


class Module(nn.Module):
    """One linear layer; its logits, or their softmax."""

    def __init__(self, n_outputs=4, *, normalize=False, several=False):
        super().__init__()
        self.linear, self.normalize, self.several = nn.Linear(8, n_outputs), normalize, several

    def forward(self, X):
        logits = self.linear(X)
        logits = logits.softmax(dim=1) if self.normalize else logits
        return (logits, X) if self.several else logits


def fit(net, **settings):
    settings = {"max_epochs": 5, "random_state": 0, **settings}
    clf = NegativePseudoLabelClassifier(net, **settings)
    return clf.fit(DATA.X_labeled, DATA.y, DATA.bags, groups=DATA.groups)


@pytest.mark.parametrize(
    "net",
    [
        NeuralNetClassifier(Module, lr=0.3, verbose=0),
        NeuralNetClassifier(Module, classes=[0, 1, 2, 3], lr=0.3, verbose=0),
        NeuralNet(Module, nn.CrossEntropyLoss, lr=0.3, verbose=0),
        NeuralNet(Module(), nn.CrossEntropyLoss, lr=0.3, verbose=0),
    ],
)
def test_they_learn_and_predict(net):
    clf = fit(net)
    assert clf.score(DATA.X_test, DATA.y_test) > 0.8
    assert type(clf.estimator_) is type(net) and clf.n_iter_ == 5
    assert_allclose(clf.predict_proba(DATA.X_test).sum(axis=1), 1, atol=1e-5)
    logs = clf.predict_log_proba(DATA.X_test)
    assert_allclose(np.exp(logs), clf.predict_proba(DATA.X_test), atol=1e-5)


def test_kinds_of_net_are_trained_alike():
    """A net that knows of classes, and one that does not."""
    one = fit(NeuralNetClassifier(Module, lr=0.1, verbose=0))
    other = fit(NeuralNet(Module, nn.CrossEntropyLoss, lr=0.1, verbose=0))
    assert_array_equal(one.predict_proba(DATA.X_test), other.predict_proba(DATA.X_test))


def test_a_net_without_classes_goes_on_and_refuses_others():
    net = NeuralNet(Module, nn.CrossEntropyLoss, lr=0.1, verbose=0)
    clf = fit(net, warm_start=True, refit=False)
    before = clf.predict_proba(DATA.X_test)
    clf.fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert np.abs(clf.predict_proba(DATA.X_test) - before).max() > 0
    with pytest.raises(
        ValueError, match=r"warm_start: the last fit had the classes \[0, 1, 2, 3\]"
    ):
        clf.fit(DATA.X_labeled, DATA.y.astype(str))


def test_schedules_of_the_learning_rate_begin_with_the_training():
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.5)
    clf = fit(NeuralNetClassifier(Module, callbacks=[schedule], lr=0.4, verbose=0), refit=False)
    rates = clf.estimator_.history[:, "event_lr"]
    assert rates[:3] == [0.4, 0.2, 0.1]


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            NeuralNetClassifier(Module, module__normalize=True),
            "returns probabilities .* Remove its last softmax",
        ),
        (
            NeuralNetClassifier(Module, module__n_outputs=3),
            r"shape \(16, 3\).* each of the 4 classes",
        ),
        (
            NeuralNetClassifier(
                Module, criterion=nn.CrossEntropyLoss, criterion__weight=torch.ones(4)
            ),
            "loss parameter criterion__weight, but its loss is replaced by SignedLabelLoss; remove",
        ),
        (
            NeuralNetClassifier(Module, callbacks=[EarlyStopping()]),
            "EarlyStopping, but .* `patience`",
        ),
        (NeuralNetClassifier(Module, callbacks=[("stop", EarlyStopping())]), "EarlyStopping"),
    ],
)
def test_what_they_need_is_said(net, message):
    with pytest.raises(ValueError, match=message):
        fit(net)


def test_the_first_of_several_outputs_is_looked_at():
    net = NeuralNetClassifier(Module, module__several=True, module__normalize=True, verbose=0)
    with pytest.raises(ValueError, match="returns probabilities"):
        fit(net)
