"""Scorers in cross-validation and grid search, with and without metadata routing."""

import copy
import inspect
import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn import clone, config_context
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from proportion_ssl import metrics
from proportion_ssl.metrics import (
    mean_iou_score,
    mean_iou_scorer,
    overall_pixel_score,
    overall_pixel_scorer,
    per_class_score,
    per_class_scorer,
    proportion_error,
    proportion_error_scorer,
)

POOLED = {
    "overall": (overall_pixel_scorer, overall_pixel_score),
    "per_class": (per_class_scorer, per_class_score),
    "iou": (mean_iou_scorer, mean_iou_score),
}
SCORERS = {name: scorer for name, (scorer, _) in POOLED.items()}
ALL_SCORERS = {**SCORERS, "proportions": proportion_error_scorer}

every_scorer = pytest.mark.parametrize("scorer", ALL_SCORERS.values(), ids=ALL_SCORERS)


@pytest.fixture
def slides():
    """Features, labels and slide of 120 patches from 10 slides of unequal size and mixture."""
    rng = np.random.default_rng(0)
    slide_ids = np.sort(rng.integers(0, 10, 120))
    shares = rng.dirichlet([0.7] * 3, size=10)
    codes = np.array([rng.choice(3, p=shares[slide]) for slide in slide_ids])
    X = np.eye(3)[codes] + rng.normal(scale=0.5, size=(120, 3))
    return X, np.array(["acinar", "non-cancer", "solid"])[codes], slide_ids


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("as_int", [False, True])
def test_cross_validate_equals_scoring_every_fold_by_hand(slides, routing, as_int):
    X, y, slide_ids = slides
    if as_int:
        y = np.unique(y, return_inverse=True)[1]
    cv = GroupKFold(5)
    with config_context(enable_metadata_routing=routing):
        groups = {"params": {"groups": slide_ids}} if routing else {"groups": slide_ids}
        results = cross_validate(LogisticRegression(), X, y, cv=cv, scoring=SCORERS, **groups)
    for fold, (train, test) in enumerate(cv.split(X, y, slide_ids)):
        predicted = LogisticRegression().fit(X[train], y[train]).predict(X[test])
        for name, (_, function) in POOLED.items():
            assert results[f"test_{name}"][fold] == function(y[test], predicted)
    assert 0 < results["test_iou"].min() < results["test_iou"].max() <= 1


def test_proportion_error_takes_its_bags_from_groups(slides):
    X, y, slide_ids = slides
    cv = GroupKFold(5)
    with config_context(enable_metadata_routing=True):
        results = cross_validate(
            LogisticRegression(), X, y, cv=cv, scoring=ALL_SCORERS, params={"groups": slide_ids}
        )
    expected = []
    for train, test in cv.split(X, y, slide_ids):
        predicted = LogisticRegression().fit(X[train], y[train]).predict(X[test])
        expected.append(-proportion_error(y[test], predicted, bag_ids=slide_ids[test]))
    assert_allclose(results["test_proportions"], expected)
    assert (results["test_proportions"] < 0).any()


def test_groups_decide_the_proportion_error(slides):
    """Were the bags not those of ``groups``, the score would be the same for both."""
    X, y, slide_ids = slides
    scores = []
    for groups in (slide_ids, np.arange(len(y)) % 10):
        with config_context(enable_metadata_routing=True):
            scores.append(
                cross_val_score(
                    LogisticRegression(),
                    X,
                    y,
                    cv=KFold(4),  # the same folds for both
                    scoring=proportion_error_scorer,
                    params={"groups": groups},
                )
            )
    assert (scores[0] != scores[1]).any()


def test_proportion_error_without_routing_says_what_is_missing(slides):
    X, y, slide_ids = slides
    model = LogisticRegression().fit(X, y)
    with pytest.raises(TypeError, match="bag_ids"):
        proportion_error_scorer(model, X, y)
    with pytest.raises(TypeError, match="bag_ids"):
        cross_validate(
            model,
            X,
            y,
            groups=slide_ids,
            cv=GroupKFold(5),
            scoring=proportion_error_scorer,
            error_score="raise",
        )


def test_called_directly(slides):
    X, y, slide_ids = slides
    model = LogisticRegression().fit(X, y)
    for scorer, function in POOLED.values():
        assert scorer(model, X, y) == function(y, model.predict(X))
    with config_context(enable_metadata_routing=True):
        score = proportion_error_scorer(model, X, y, bag_ids=slide_ids)
    assert score == -proportion_error(y, model.predict(X), bag_ids=slide_ids)


@pytest.mark.parametrize("routing", [False, True])
def test_folds_that_lack_a_class_neither_fail_nor_warn(routing):
    """Warnings are errors here; slide 0 has one class only, and slide 3's is in no other slide."""
    y = np.array(["solid"] * 6 + ["acinar", "solid"] * 6 + ["lepidic"] * 6)
    slide_ids = np.repeat(np.arange(4), 6)
    X = np.random.default_rng(0).normal(size=(24, 2))
    with config_context(enable_metadata_routing=routing):
        groups = {"params": {"groups": slide_ids}} if routing else {"groups": slide_ids}
        scoring = ALL_SCORERS if routing else SCORERS
        results = cross_validate(
            DummyClassifier(strategy="most_frequent"),
            X,
            y,
            cv=GroupKFold(4),
            scoring=scoring,
            error_score="raise",
            **groups,
        )
    for name in scoring:
        assert np.isfinite(results[f"test_{name}"]).all()
    # "solid" is the most frequent class of every training set but that of slide 0.
    assert results["test_overall"].min() == 0.0


@pytest.mark.slow
def test_grid_search_selects_by_the_named_score(slides):
    X, y, slide_ids = slides
    grid = {"logisticregression__C": [1e-6, 1.0]}
    pipe = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    with config_context(enable_metadata_routing=True):
        for refit in ALL_SCORERS:
            search = GridSearchCV(pipe, grid, cv=GroupKFold(5), scoring=ALL_SCORERS, refit=refit)
            search = clone(search).fit(X, y, groups=slide_ids)
            means = search.cv_results_[f"mean_test_{refit}"]
            assert np.isfinite(means).all()
            assert search.best_index_ == np.argmax(means)
            assert means[0] != means[1]
        assert (search.cv_results_["mean_test_proportions"] <= 0).all()


def test_grid_search_without_routing(slides):
    X, y, slide_ids = slides
    search = GridSearchCV(
        LogisticRegression(), {"C": [1e-6, 1.0]}, cv=GroupKFold(5), scoring=mean_iou_scorer
    )
    search.fit(X, y, groups=slide_ids)
    assert search.best_params_ == {"C": 1.0}
    assert search.score(X, y) == mean_iou_score(y, search.predict(X))


@every_scorer
@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda s: clone(s, safe=False), lambda s: pickle.loads(pickle.dumps(s))],
    ids=["deepcopy", "clone", "pickle"],
)
def test_copies_score_the_same_and_keep_their_requests(scorer, duplicate, slides):
    X, y, slide_ids = slides
    twin = duplicate(scorer)
    assert twin is not scorer
    assert repr(twin) == repr(scorer)
    with config_context(enable_metadata_routing=True):
        scores = [
            cross_val_score(
                LogisticRegression(),
                X,
                y,
                cv=GroupKFold(5),
                scoring=one,
                params={"groups": slide_ids},
            )
            for one in (scorer, twin)
        ]
    assert np.isfinite(scores[0]).all()
    assert_allclose(scores[0], scores[1], rtol=0)


@pytest.mark.slow
def test_parallel_workers_give_the_same(slides):
    X, y, slide_ids = slides
    with config_context(enable_metadata_routing=True):
        alone, together = (
            cross_validate(
                LogisticRegression(),
                X,
                y,
                cv=GroupKFold(5),
                scoring=ALL_SCORERS,
                params={"groups": slide_ids},
                n_jobs=n_jobs,
            )
            for n_jobs in (1, 2)
        )
    for name in ALL_SCORERS:
        assert_allclose(alone[f"test_{name}"], together[f"test_{name}"], rtol=0)


def test_scorers_with_options_are_made_from_the_functions(slides):
    X, y, slide_ids = slides
    recall = make_scorer(per_class_score, definition="recall")
    predicted = cross_val_predict(LogisticRegression(), X, y, cv=GroupKFold(5), groups=slide_ids)
    scores = cross_val_score(
        LogisticRegression(), X, y, groups=slide_ids, cv=GroupKFold(5), scoring=recall
    )
    for score, (_, test) in zip(scores, GroupKFold(5).split(X, y, slide_ids), strict=True):
        assert score == per_class_score(y[test], predicted[test], definition="recall")


def test_building_the_scorers_leaves_routing_as_it_was():
    from sklearn import get_config

    assert get_config()["enable_metadata_routing"] is False


def test_public_names_are_exported_and_documented():
    assert metrics.__all__ == sorted(metrics.__all__)
    for name in metrics.__all__:
        thing = getattr(metrics, name)
        if name.endswith("_scorer"):
            assert callable(thing)
            continue
        documentation = inspect.getdoc(thing)
        for section in ("Parameters\n", "Raises\n", "Examples\n", ">>> "):
            assert section in documentation, f"{name} lacks {section!r}"
