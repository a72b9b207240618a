"""Bags through scikit-learn's cross-validation, grid search and pipelines."""

import numpy as np
import pytest
import sklearn
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from proportion_ssl import Bags, HeadClassifier, NegativePseudoLabelClassifier, NegativeSelector
from proportion_ssl.datasets import make_bags
from proportion_ssl.metrics import mean_iou_scorer

DATA = make_bags(n_bags=8, bag_size=25, n_labeled_slides=5, n_features=6, random_state=0)


def make(**settings):
    return NegativePseudoLabelClassifier(
        HeadClassifier(), max_epochs=2, validation_fraction=0, random_state=0, **settings
    )


class Recorder(NegativePseudoLabelClassifier):
    """Notes what bags arrive in ``fit``."""

    seen: list = []  # noqa: RUF012

    def fit(self, X_labeled, y, X_bags=None, bag_proportions=None, *, groups=None):
        self.seen.append((X_bags.n_bags, X_bags.n_instances))
        return super().fit(X_labeled, y, X_bags, bag_proportions, groups=groups)


@pytest.mark.parametrize("equal", ["bags", "instances"])
@pytest.mark.parametrize("routing", [False, True])
def test_bags_as_many_as_labeled_patches_are_not_sliced(equal, routing):
    n = len(DATA.y)
    ids = np.arange(n) if equal == "bags" else np.arange(n) % 10
    X = np.resize(DATA.bags.X, (n, 6))
    bags = Bags(X, ids, np.full((len(np.unique(ids)), 4), 0.25))
    assert n in (bags.n_bags, bags.n_instances)
    Recorder.seen.clear()
    with sklearn.config_context(enable_metadata_routing=routing):
        cross_validate(
            Recorder(max_epochs=1, validation_fraction=0),
            *(DATA.X_labeled, DATA.y),
            cv=3,
            params={"X_bags": bags},
            error_score="raise",
        )
    assert Recorder.seen == [(bags.n_bags, bags.n_instances)] * 3


GRID = {
    "negative_selector": [None, NegativeSelector()],
    "learning_rate": [1e-3, 1e-2],
}


def test_grouped_grid_search_of_the_bare_estimator():
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            make(), GRID, cv=GroupKFold(5), scoring=mean_iou_scorer, error_score="raise"
        )
        search.fit(DATA.X_labeled, DATA.y, groups=DATA.groups, X_bags=DATA.bags)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.n_iter_ == 2


@pytest.mark.parametrize("form", ["flat", "tuple"])
def test_a_pipeline_transforms_the_bags_as_it_does_the_patches(form):
    bags = DATA.bags
    arrays = tuple(bags.X[bags.index == i] for i in range(bags.n_bags))
    arguments = {
        "flat": {"X_bags": bags.flat, "bag_proportions": bags},
        "tuple": {"X_bags": arrays, "bag_proportions": bags.proportions},
    }[form]
    scaler = StandardScaler().fit(DATA.X_labeled)
    by_hand = make().fit(
        scaler.transform(DATA.X_labeled), DATA.y, bags.with_instances(scaler.transform(bags.X))
    )
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = Pipeline([("scale", StandardScaler()), ("clf", make())], transform_input=["X_bags"])
        pipe.fit(DATA.X_labeled, DATA.y, **arguments)
        grid = {f"clf__{name}": values for name, values in GRID.items()}
        search = GridSearchCV(pipe, grid, cv=GroupKFold(5), error_score="raise")
        search.fit(DATA.X_labeled, DATA.y, groups=DATA.groups, **arguments)
    np.testing.assert_array_equal(
        pipe.predict_proba(DATA.X_test), by_hand.predict_proba(scaler.transform(DATA.X_test))
    )
    assert search.best_estimator_["clf"].n_iter_ == 2


def test_bags_that_a_step_of_a_pipeline_takes_for_features_say_how_to_pass_them():
    data = make_bags(random_state=0)
    steps = [("scale", StandardScaler()), ("clf", NegativePseudoLabelClassifier())]
    pipe = Pipeline(steps, transform_input=["X_bags"])
    with (
        sklearn.config_context(enable_metadata_routing=True),
        pytest.raises(TypeError, match=r"pass X_bags=bags\.flat"),
    ):
        pipe.fit(data.X_labeled, data.y, X_bags=data.bags)
