"""Fits from feature files that are not held in memory, against those that are."""

import os
import pickle
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import (
    Bags,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    SoftAssignmentSelector,
    ThresholdSelector,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.estimators import _map_bags as map_bags_module
from proportion_ssl.estimators import _out_of_core as out_of_core
from proportion_ssl.estimators._map_bags import map_bags
from proportion_ssl.heads import DiscriminantClassifier, _projection, discriminant
from proportion_ssl.pseudo_labels import Selector
from proportion_ssl.slides import FeatureSequence

N_BAGS = 14


@pytest.fixture(autouse=True)
def few_instances_give_the_components(monkeypatch):
    monkeypatch.setattr(_projection, "N_SAMPLE", 400)


@pytest.fixture(scope="module")
def data():
    return make_bags(
        n_bags=N_BAGS, bag_size=(30, 80), n_features=24, class_separation=0.8, proportion_noise=0.03,
        n_labeled_slides=5, random_state=0,
    )  # fmt: skip


def write(folder, data, changed=None):
    """Features of every bag in a file."""
    paths = {}
    for bag, name in enumerate(data.bags.names.tolist()):
        paths[f"slide {name:02d}"] = folder / f"{name}.npy"
        features = data.bags.X[data.bags.index == bag]
        np.save(
            paths[f"slide {name:02d}"], features if changed is None else changed(name, features)
        )
    return paths


@pytest.fixture(scope="module")
def paths(tmp_path_factory, data):
    return write(tmp_path_factory.mktemp("features"), data)


def make(paths, data, **record):
    features = FeatureSequence(paths)
    return Bags(features, features.names[features.slide_ids], data.bags.proportions, **record)


def fit(data, bags, monkeypatch, *, streamed, groups=True, **settings):
    monkeypatch.setattr(out_of_core, "MOST_HELD", 0 if streamed else np.inf)
    model = RobustProportionClassifier(random_state=0, **settings)
    return model.fit(data.X_labeled, data.y, bags, groups=data.groups if groups else None)


def weights(model):
    coef, intercept = model.estimator_.head.coefficients()
    return np.column_stack([coef, intercept]) / np.abs(coef).max()


def assert_same(one, other, data, atol):
    assert_allclose(one.predict_proba(data.X_test), other.predict_proba(data.X_test), atol=atol)
    assert_allclose(weights(one), weights(other), atol=atol)
    assert_allclose(one.temperature_, other.temperature_, rtol=atol)
    assert_allclose(one.record_deviation_, other.record_deviation_, rtol=atol)
    assert_allclose(one.trust_, other.trust_, atol=atol)
    assert one.fell_back_ == other.fell_back_
    assert_array_equal(one.bag_reliability_.sort_index(), other.bag_reliability_.sort_index())
    errors = [[entry["sum_absolute_error"] for entry in model.history_] for model in (one, other)]
    assert_allclose(*errors, atol=1e-6)


@pytest.fixture
def in_double_precision(monkeypatch):
    """The fit in memory without the rounding of float32."""
    solve = discriminant.linear_discriminant

    def solve_in_double(X, labels, **kwargs):
        return solve(X.astype(np.float64), labels.astype(np.float64), **kwargs)

    monkeypatch.setattr(discriminant, "linear_discriminant", solve_in_double)


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize("shrinkage", [None, 0.2])
@pytest.mark.usefixtures("in_double_precision")
def test_the_fit_is_that_in_memory(data, paths, monkeypatch, groups, shrinkage):
    given = {"groups": groups, "shrinkage": shrinkage}
    fits = [
        fit(data, make(paths, data), monkeypatch, streamed=streamed, **given)
        for streamed in (False, True)
    ]
    assert_same(*fits, data, 1e-6)
    assert hasattr(fits[0], "label_log_")
    assert not hasattr(fits[1], "label_log_")


def test_single_precision_in_memory_differs_by_its_rounding(data, paths, monkeypatch):
    fits = [fit(data, make(paths, data), monkeypatch, streamed=s) for s in (False, True)]
    assert_same(*fits, data, 5e-6)


@pytest.mark.parametrize("kind", ["rounded", "partial", "predominant", "wrong", "none counts"])
@pytest.mark.filterwarnings("ignore::proportion_ssl.proportions.IdentifiabilityWarning")
@pytest.mark.usefixtures("in_double_precision")
def test_all_kinds_of_records(data, paths, monkeypatch, kind):
    features = FeatureSequence(paths)
    shares = data.bags.proportions.copy()
    if kind == "rounded":
        bags = Bags(features, None, np.round(shares, 1), rounding_step=0.1)
    elif kind == "partial":
        among = shares[:, :3] / shares[:, :3].sum(axis=1, keepdims=True)
        bags = Bags(features, None, among, among=[0, 1, 2])
    elif kind == "predominant":
        bags = Bags.from_predominant(
            features, None, shares.argmax(axis=1).tolist(), classes=range(4)
        )
    elif kind == "none counts":
        bags = Bags(features, None, shares, weights=np.zeros(N_BAGS))
    else:  # one record of another slide gets a weight of 0
        worst = np.argsort(shares[:, 0])[[0, -1]]
        shares[worst] = shares[worst[::-1]]
        bags = Bags(features, None, shares)
    fits = [
        fit(data, bags, monkeypatch, streamed=streamed, doubt=0.2) for streamed in (False, True)
    ]
    assert_same(*fits, data, 1e-6)
    if kind == "wrong":
        assert (fits[1].bags_.weights == 0).any()


@pytest.mark.parametrize(("n_labeled", "of_others"), [(0, False), (1, False), (1, True)])
@pytest.mark.usefixtures("in_double_precision")
@pytest.mark.filterwarnings("ignore::proportion_ssl.estimators.HarmfulLabelsWarning")
def test_a_class_that_bags_tell_better_than_labels(data, paths, monkeypatch, n_labeled, of_others):
    kept = np.append(np.flatnonzero(data.y != 1), np.flatnonzero(data.y == 1)[:n_labeled])
    part = type(data)(**{**vars(data), "X_labeled": data.X_labeled[kept], "y": data.y[kept],
                         "groups": data.groups[kept]})  # fmt: skip
    bags = make(paths, data)
    if of_others:  # these tell nothing
        bags = Bags(bags.X, bags.names[bags.index], np.roll(bags.proportions, 3, axis=0))
    fits = [
        fit(part, bags, monkeypatch, streamed=streamed, classes=np.arange(4))
        for streamed in (False, True)
    ]
    assert_same(*fits, data, 1e-6)
    assert fits[1].fell_back_ == of_others
    assert of_others or (fits[1].predict(data.X_test) == 1).any()


class AllBags(Selector):
    """Labels what is surest in all bags together."""

    def select(self, probabilities, bag_index, bag_proportions):
        surest = probabilities.max(axis=1)
        picked = surest >= np.median(surest)
        return (
            np.eye(probabilities.shape[1], dtype=np.int8)[probabilities.argmax(axis=1)]
            * picked[:, None]
        )


NEGATIVE = {
    "default": {},
    "one round of memory": {"multi_negative": False},
    "all rounds": {"negative_memory": None, "positive_selector": ThresholdSelector(0.6)},
    "negative alone": {"positive_selector": None},
    "soft": {"positive_selector": SoftAssignmentSelector(), "negative_selector": None},
    "nothing": {"positive_selector": None, "negative_selector": None},
}


def fit_negative(data, bags, monkeypatch, *, streamed, **settings):
    monkeypatch.setattr(out_of_core, "MOST_HELD", 0 if streamed else np.inf)
    model = NegativePseudoLabelClassifier(DiscriminantClassifier(), random_state=0, **settings)
    return model.fit(data.X_labeled, data.y, bags, groups=data.groups)


def rounded(history):
    def of(value):
        return round(value, 6) if isinstance(value, float) else value

    return [{name: of(value) for name, value in row.items()} for row in history]


@pytest.mark.parametrize("settings", NEGATIVE.values(), ids=NEGATIVE)
@pytest.mark.filterwarnings("ignore::proportion_ssl.estimators.HarmfulLabelsWarning")
@pytest.mark.usefixtures("in_double_precision")
def test_negative_labels_are_those_in_memory(data, paths, monkeypatch, settings):
    bags = make(paths, data, weights=np.arange(N_BAGS) % 3)
    held, streamed = (
        fit_negative(data, bags, monkeypatch, streamed=s, **settings) for s in (False, True)
    )
    assert_allclose(held.predict_proba(data.X_test), streamed.predict_proba(data.X_test), atol=1e-6)
    assert_allclose(weights(held), weights(streamed), atol=1e-6)
    assert rounded(held.history_) == rounded(streamed.history_)
    assert held.fell_back_ == streamed.fell_back_
    assert held.termination_condition_ == streamed.termination_condition_
    assert hasattr(held, "label_log_")
    assert not hasattr(streamed, "label_log_")


@pytest.mark.slow
def test_processes_remember_negative_labels(data, paths, monkeypatch):
    one = fit_negative(data, make(paths, data), monkeypatch, streamed=True)
    with joblib.parallel_config(n_jobs=2):
        two = fit_negative(data, make(paths, data), monkeypatch, streamed=True)
    assert_array_equal(weights(one), weights(two))
    assert one.history_ == two.history_
    assert sum(one.history_[-1]["n_negative"]) > 0


def test_selectors_that_compare_bags_have_them_in_memory(data, paths, monkeypatch):
    model = fit_negative(
        data, make(paths, data), monkeypatch, streamed=True, positive_selector=AllBags()
    )
    assert hasattr(model, "label_log_")


@pytest.mark.slow
def test_the_number_of_jobs_does_not_matter(data, paths, monkeypatch):
    one, two = (
        fit(data, make(paths, data), monkeypatch, streamed=True, n_jobs=n_jobs) for n_jobs in (1, 2)
    )
    assert_same(one, two, data, 1e-7)


def test_dask_does_the_same(data, paths, monkeypatch):
    distributed = pytest.importorskip("distributed")
    alone = fit(data, make(paths, data), monkeypatch, streamed=True)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        spread = fit(data, make(paths, data), monkeypatch, streamed=True)
    assert_same(alone, spread, data, 1e-7)


def test_the_order_of_files_does_not_matter(data, paths, monkeypatch):
    order = np.random.default_rng(0).permutation(N_BAGS)
    names = list(paths)
    features = FeatureSequence({names[i]: paths[names[i]] for i in order})
    bags = Bags(features, None, pd.DataFrame(data.bags.proportions, index=names))
    assert (np.diff(bags.index) < 0).any()
    one, other = (fit(data, b, monkeypatch, streamed=True) for b in (make(paths, data), bags))
    assert_same(one, other, data, 1e-6)


def test_a_slide_that_fails_is_named(data, paths, tmp_path, monkeypatch):
    def spoil(name, features):
        return np.where(name == 9, np.nan, 1) * features

    bags = make(write(tmp_path, data, spoil), data)
    with pytest.raises(RuntimeError, match=r"Bag 'slide 09' failed: FeatureFileError: .*NaN"):
        fit(data, bags, monkeypatch, streamed=True)


def test_small_cohorts_are_held(data, paths):
    features = FeatureSequence(paths)
    assert not out_of_core.stays_out_of_core(features, len(features), None)
    assert not out_of_core.stays_out_of_core(np.zeros((10, 4)), 10**9, None)


def end_once(bag, folder):
    """Ends the process when bag 2 comes for the first time."""
    flag = Path(folder) / "ended"
    if bag == 2 and not flag.exists():
        flag.touch()
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)
    return bag**2


@pytest.mark.slow
def test_bags_of_a_lost_worker_are_done_again(tmp_path):
    results = map_bags(end_once, np.arange(6), lambda bag: (bag, str(tmp_path)), 2)
    assert list(results) == [0, 1, 4, 9, 16, 25]


def test_workers_that_end_again_and_again_are_given_up(monkeypatch):
    class Broken:
        def __init__(self, **kwargs):
            pass

        def __call__(self, tasks):
            yield 0, None
            raise BrokenProcessPool

    monkeypatch.setattr(map_bags_module, "Parallel", Broken)
    with pytest.raises(RuntimeError, match="ended 3 times, the last time at bag 13 "):
        list(map_bags(abs, np.arange(10, 20), lambda bag: (bag,), 2))


def test_what_is_sent_for_a_slide_holds_its_file_alone(paths):
    features = FeatureSequence(paths)
    rows = np.flatnonzero(np.isin(features.slide_ids, [3, 11]))[::-2]
    narrow = features.narrow(rows)
    assert_array_equal(narrow[:], features[rows])
    assert_array_equal(narrow.names[narrow.slide_ids], features.names[features.slide_ids[rows]])
    assert len(narrow.paths) == 2
    again = features.take(slice(None, None, 2)).narrow(np.arange(40, 60))
    assert_array_equal(again[:], features[np.arange(80, 120, 2)])
    mask = features.slide_ids == 5
    sent = pickle.dumps(features.narrow(mask))
    assert_array_equal(pickle.loads(sent)[:], features[mask])
    assert len(sent) < len(pickle.dumps(features)) / 4


def test_bags_of_features_are_their_slides(data, paths):
    features = FeatureSequence(dict(reversed(paths.items())))
    records = pd.DataFrame(data.bags.proportions, index=list(paths))
    named, bags = (
        Bags(features, features.names[features.slide_ids], records),
        Bags(features, None, records),
    )
    assert_array_equal(bags.names, named.names)
    assert_array_equal(bags.index, named.index)
    part = features.take(np.isin(features.slide_ids, [2, 4]))
    assert Bags(part).names.tolist() == sorted(features.names[[2, 4]].tolist())
