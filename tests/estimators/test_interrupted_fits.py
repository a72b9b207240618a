"""An interrupted fit leaves the earlier state, or an estimator that is not fitted; never half of one."""

import importlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from skorch.exceptions import NotInitializedError

from proportion_ssl import (
    ClassifyAndCount,
    HeadClassifier,
    MultiFieldOfViewNet,
    NegativePseudoLabelClassifier,
    NegativeSelector,
    RobustProportionClassifier,
    TumorProposer,
)
from proportion_ssl.baselines import (
    FixMatchClassifier,
    MeanMapClassifier,
    MeanTeacherClassifier,
    ProportionSVMClassifier,
)
from proportion_ssl.datasets import make_bags

DATA = make_bags(n_bags=6, bag_size=15, n_features=6, random_state=0)
X = DATA.X_labeled.astype(np.float32)
QUICK = {"max_epochs": 3, "random_state": 0}


def fit_on_bags(model, half=False):
    bags = DATA.bags.select(DATA.bags.names[:5]) if half else DATA.bags
    return model.fit(X, DATA.y, bags)


def fit_on_tumor(model, half=False):
    return model.fit(X, DATA.y > (1 if half else 0))


def fit_net(model, half=False):
    return model.fit(X[::2] if half else X, DATA.y[::2] if half else DATA.y)


def fit_counts(model, half=False):
    names = DATA.bags.names[:5] if half else DATA.bags.names
    return model.fit(names, labeled=(X, DATA.y), bags=DATA.bags)


def predicted(model):
    if isinstance(model, TumorProposer):
        return model.transform(X)
    if isinstance(model, ClassifyAndCount):
        return model.predict(DATA.bags.names)
    return model.predict(X)


# model, how it is fitted, the function in whose call it is interrupted, and in which call
EPOCH = "proportion_ssl.nets.training:train_epochs"
CASES = {
    "supervised": (NegativePseudoLabelClassifier(**QUICK), fit_on_bags, EPOCH, 2),
    "round": (
        NegativePseudoLabelClassifier(**QUICK),
        fit_on_bags,
        "proportion_ssl.estimators._rules_of_bags:merge_rounds",
        2,
    ),
    "refit": (NegativePseudoLabelClassifier(**QUICK), fit_on_bags, EPOCH, 5),
    "robust": (
        RobustProportionClassifier(n_rounds=2, random_state=0),
        fit_on_bags,
        "proportion_ssl.heads.discriminant:linear_discriminant",
        3,
    ),
    "fixmatch": (
        FixMatchClassifier(**QUICK),
        fit_on_bags,
        "proportion_ssl.baselines._two_streams:train_epochs",
        2,
    ),
    "mean teacher": (
        MeanTeacherClassifier(**QUICK),
        fit_on_bags,
        "proportion_ssl.baselines._two_streams:train_epochs",
        3,
    ),
    "mean map": (
        MeanMapClassifier(),
        fit_on_bags,
        "proportion_ssl.baselines.mean_map:minimize",
        1,
    ),
    "svm": (
        ProportionSVMClassifier(random_state=0),
        fit_on_bags,
        "proportion_ssl.baselines.proportion_svm:alternate",
        1,
    ),
    "views": (
        MultiFieldOfViewNet(2, expert=HeadClassifier(max_epochs=2), random_state=0),
        fit_net,
        EPOCH,
        3,
    ),
    "proposer": (TumorProposer(HeadClassifier(max_epochs=2), n_folds=2), fit_on_tumor, EPOCH, 5),
    "head": (HeadClassifier(max_epochs=3), fit_net, EPOCH, 2),
    "counts": (
        ClassifyAndCount(MeanMapClassifier()),
        fit_counts,
        "proportion_ssl.baselines.mean_map:minimize",
        1,
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("was_fitted", [False, True])
def test_an_interrupted_fit_leaves_what_was_there(name, was_fitted, monkeypatch):
    model, fit, place, call = CASES[name]
    model = clone(model)
    if was_fitted:
        fit(model, half=True)
        before, names = predicted(model), set(vars(model))
    with monkeypatch.context() as patch:
        interrupt(patch, place, call)
        with pytest.raises(KeyboardInterrupt):
            fit(model)
    if was_fitted:
        assert_array_equal(predicted(model), before)
        assert set(vars(model)) == names
    else:
        with pytest.raises((NotFittedError, NotInitializedError)):
            predicted(model)
    fit(model)
    predicted(model)


def interrupt(patch, place, call):
    """Raise KeyboardInterrupt in the given call of a function."""
    module, name = place.split(":")
    module, calls = importlib.import_module(module), []
    original = getattr(module, name)

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            original(*args, **kwargs)
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    patch.setattr(module, name, interrupted)


def test_an_interrupted_warm_start_keeps_the_weights_of_the_last_fit(monkeypatch):
    model = NegativePseudoLabelClassifier(**QUICK, warm_start=True)
    fit_on_bags(model, half=True)
    before = model.predict_proba(X)
    with monkeypatch.context() as patch:
        interrupt(patch, "proportion_ssl.estimators._learners:train_epochs", 2)
        with pytest.raises(KeyboardInterrupt):
            fit_on_bags(model)
    assert_array_equal(model.predict_proba(X), before)


def test_a_failing_fit_leaves_what_was_there_too():
    class Failing(NegativeSelector):
        def select(self, probabilities, bag_index, bag_proportions):
            raise RuntimeError("disk full")

    model = NegativePseudoLabelClassifier(**QUICK)
    fit_on_bags(model)
    before = model.predict_proba(X)
    with pytest.raises(RuntimeError, match="disk full"):
        fit_on_bags(model.set_params(negative_selector=Failing()))
    assert_array_equal(model.predict_proba(X), before)


def test_nothing_of_an_earlier_fit_stays_beside_a_new_one():
    """Labels and records of bags belong to the fit that had bags."""
    for model in (
        NegativePseudoLabelClassifier(**QUICK),
        RobustProportionClassifier(n_rounds=1, random_state=0),
    ):
        fit_on_bags(model)
        model.fit(X, DATA.y)
        for name in ("label_log_", "signed_labels_", "bag_reliability_", "trust_", "bags_"):
            assert not hasattr(model, name)
