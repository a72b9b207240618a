"""Proportion-SVM: each step exact, the objective never rises, and what the bags are worth."""

from itertools import product

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from proportion_ssl import Bags, mean_iou_score
from proportion_ssl.baselines import ProportionSVMClassifier
from proportion_ssl.baselines._svm_steps import fit_machines, label_bags
from proportion_ssl.datasets import make_bags

DATA = make_bags(n_bags=12, bag_size=25, n_labeled_slides=5, n_features=6, random_state=0)


def cost_of(labels, scores, lower, upper, penalty):
    """Squared hinges and distance of the count to the recorded interval, of one bag and machine."""
    n_positive, n = (labels > 0).sum(), len(labels)
    missed = max(0.0, n * lower - n_positive, n_positive - n * upper)
    return (np.maximum(0, 1 - labels * scores) ** 2).sum() + penalty * missed


@pytest.mark.parametrize("width", [0.0, 0.2])
@pytest.mark.parametrize("penalty", [0.0, 0.7, 3.0, 1e6])
def test_labels_of_bags_are_the_best_of_all(penalty, width):
    rng = np.random.default_rng(0)
    sizes = [1, 5, 8, 3]
    index = rng.permutation(np.repeat(np.arange(4), sizes))
    scores = rng.normal(size=(17, 2)) * 1.5
    lower = rng.uniform(0, 1 - width, size=(4, 2))
    lower[0] = 0
    upper = lower + width
    labels = label_bags(scores, index, lower, upper, penalty)
    for bag, machine in product(range(4), range(2)):
        rows = index == bag
        arguments = (scores[rows, machine], lower[bag, machine], upper[bag, machine], penalty)
        best = min(
            cost_of(np.array(candidate), *arguments)
            for candidate in product([-1, 1], repeat=sizes[bag])
        )
        assert_allclose(cost_of(labels[rows, machine], *arguments), best)


def test_a_large_penalty_meets_every_proportion():
    scores = np.random.default_rng(0).normal(size=(30, 1)) - 2
    index = np.repeat([0, 1, 2], 10)
    share = np.array([[0.3], [1.0], [0.0]])
    labels = label_bags(scores, index, share, share, 1e6)
    assert [(labels[index == b] > 0).sum() for b in range(3)] == [3, 10, 0]
    top = np.argsort(-scores[:10, 0])[:3]
    assert (labels[top] == 1).all()


def test_machines_agree_with_scikit_learn():
    X = DATA.X_labeled.astype(np.float64)
    classes = np.unique(DATA.y)
    labels = np.where(DATA.y[:, np.newaxis] == classes, 1, -1)
    start = np.zeros((X.shape[1] + 1, len(classes)))
    weights = fit_machines(X, labels, np.full(len(X), 0.1), start, 1e-14)
    # a large intercept scaling takes the regularization off the intercept
    other = LinearSVC(C=0.1, dual=False, intercept_scaling=1e3, tol=1e-10, max_iter=10_000)
    other.fit(X, DATA.y)
    assert_allclose(weights[:-1].T, other.coef_, atol=1e-4)
    assert_allclose(weights[-1], other.intercept_, atol=1e-4)


def test_without_bags_it_is_a_linear_machine():
    clf = ProportionSVMClassifier(C=0.1).fit(DATA.X_labeled, DATA.y)
    other = LinearSVC(C=0.1, dual=False, intercept_scaling=1e3, tol=1e-8, max_iter=10_000)
    other.fit(DATA.X_labeled.astype(np.float64), DATA.y)
    assert_allclose(
        clf.decision_function(DATA.X_test),
        other.decision_function(DATA.X_test.astype(np.float64)),
        atol=2e-2,
    )
    assert not hasattr(clf, "bag_labels_")


def test_objective_never_rises_while_the_weight_of_the_loss_stays():
    clf = ProportionSVMClassifier(growth=3.0, tol=1e-9, n_init=2, random_state=0)
    clf.fit(DATA.X_labeled, DATA.y, DATA.bags)
    by_weight = {}
    for row in clf.history_:
        by_weight.setdefault((row["start"], row["C"]), []).append(row["objective"])
    assert max(map(len, by_weight.values())) > 2
    for objectives in by_weight.values():
        assert (np.diff(objectives) <= 1e-5 * np.array(objectives[:-1])).all()
    assert sum(C == clf.C_ for _, C in by_weight) == 2


def test_objective_is_that_of_the_fitted_machines():
    clf = ProportionSVMClassifier(random_state=0).fit(DATA.X_labeled, DATA.y, DATA.bags)
    bags, classes = DATA.bags, clf.classes_
    labels = np.where(DATA.y[:, np.newaxis] == classes, 1, -1)
    X = np.concatenate([DATA.X_labeled, bags.X]).astype(np.float64)
    scores = X @ clf.coef_.T + clf.intercept_
    hinges = np.maximum(0, 1 - np.concatenate([labels, clf.bag_labels_]) * scores) ** 2
    counts = np.stack([(clf.bag_labels_[bags.index == b] > 0).sum(axis=0) for b in range(12)])
    missed = np.abs(counts - bags.sizes[:, np.newaxis] * bags.proportions).sum(axis=0)
    expected = (clf.coef_**2).sum(axis=1) / 2 + clf.C_ * hinges.sum(axis=0) + clf.C_p_ * missed
    assert_allclose(clf.objective_, expected, rtol=1e-4)


def test_of_several_starts_each_class_keeps_the_smallest_objective():
    def fit(**settings):
        return ProportionSVMClassifier(growth=1e4, **settings).fit(
            DATA.X_labeled, DATA.y, DATA.bags
        )

    random_state = np.random.RandomState(3)
    singles = [fit(random_state=random_state).objective_ for _ in range(3)]
    several = fit(n_init=3, random_state=3)
    assert_allclose(several.objective_, np.min(singles, axis=0))
    assert len({row["start"] for row in several.history_}) == 3
    assert not np.allclose(singles[0], singles[1], rtol=1e-9)


def test_same_seed_same_model():
    first, second = (
        ProportionSVMClassifier(random_state=1).fit(DATA.X_labeled, DATA.y, DATA.bags)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.coef_, second.coef_)


def test_intervals_that_allow_everything_and_bags_without_weight_teach_no_proportion():
    zeros = np.zeros_like(DATA.bags.proportions)
    open_bags = Bags(
        *(DATA.bags.X, DATA.bags.index, DATA.bags.proportions), lower=zeros, upper=zeros + 1
    )
    clf = ProportionSVMClassifier(C_p=1e6, random_state=0).fit(DATA.X_labeled, DATA.y, open_bags)
    nearest = np.where(clf.decision_function(DATA.bags.X) > 0, 1, -1)
    np.testing.assert_array_equal(clf.bag_labels_, nearest)

    mute = Bags(DATA.bags.X, DATA.bags.index, DATA.bags.proportions, weights=np.zeros(12))
    clf = ProportionSVMClassifier(C=0.1, tol=1e-8, random_state=0)
    clf.fit(DATA.X_labeled, DATA.y, mute)
    alone = ProportionSVMClassifier(C=0.1).fit(DATA.X_labeled, DATA.y)
    assert_allclose(clf.coef_, alone.coef_, atol=2e-2)


def test_two_classes_have_one_machine():
    data = make_bags(n_bags=6, n_classes=2, random_state=0)
    clf = ProportionSVMClassifier(random_state=0).fit(data.X_labeled, data.y, data.bags)
    scores = clf.decision_function(data.X_test)
    assert clf.coef_.shape[0] == 1
    assert scores.shape == (len(data.X_test),)
    np.testing.assert_array_equal(clf.predict(data.X_test), clf.classes_[(scores > 0).astype(int)])
    assert not hasattr(clf, "predict_proba")


def test_bags_help_on_shifted_slides():
    gains = []
    for seed in range(4):
        data = make_bags(n_bags=30, class_separation=0.8, random_state=seed)
        scores = [
            mean_iou_score(
                data.y_test,
                ProportionSVMClassifier(random_state=0)
                .fit(data.X_labeled, data.y, bags)
                .predict(data.X_test),
            )
            for bags in (None, data.bags)
        ]
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.02


def test_images_are_refused():
    images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"features \(n, n_features\).*PatchEmbedder"):
        ProportionSVMClassifier().fit(images, [0, 1, 0, 1])


@pytest.mark.slow
def test_pipeline_and_grouped_grid_search():
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = Pipeline(
            [("scale", StandardScaler()), ("clf", ProportionSVMClassifier(random_state=0))],
            transform_input=["X_bags"],
        )
        grid = {"clf__C": [1e-2, 1e-1]}
        search = GridSearchCV(pipe, grid, cv=GroupKFold(5), error_score="raise")
        search.fit(
            *(DATA.X_labeled, DATA.y),
            groups=DATA.groups,
            X_bags=DATA.bags.flat,
            bag_proportions=DATA.bags,
        )
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_["clf__C"] == search.best_estimator_["clf"].C_
