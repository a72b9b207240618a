"""Mean map: class means from mixtures, and the regression that needs only these."""

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from proportion_ssl import Bags, mean_iou_score
from proportion_ssl.baselines import MeanMapClassifier
from proportion_ssl.datasets import make_bags

EXACT = {"tol": 1e-9, "max_iter": 10_000}
MEANS = np.array([[0.0, 0, 0], [3, 1, 0], [0, 2, -2]])


def exact_mixtures(counts, seed=0):
    """Instances of each class in each bag, whose mean is exactly that of the class; counts even."""
    rng = np.random.default_rng(seed)
    X, y, index = [], [], []
    for bag, row in enumerate(counts):
        for label, n in enumerate(row):
            offsets = rng.normal(size=(n // 2, 3))
            X.append(MEANS[label] + np.concatenate([offsets, -offsets]))
            y += [label] * n
            index += [bag] * n
    return np.concatenate(X).astype(np.float32), np.array(y), np.array(index)


def labeled_and_bags(counts, **settings):
    """The first row of counts as labeled instances, the rest as bags with exact proportions."""
    X, y, index = exact_mixtures(counts)
    first = index == 0
    counts = np.array(counts[1:])
    shares = counts / counts.sum(axis=1, keepdims=True)
    bags = Bags(X[~first], index[~first] - 1, shares, **settings)
    return X[first], y[first], bags, X, y


COUNTS = [[4, 4, 4], [10, 20, 30], [40, 2, 6], [6, 30, 4], [20, 20, 20]]


def test_class_means_are_recovered_from_exact_mixtures():
    X, y, bags, *_ = labeled_and_bags(COUNTS)
    clf = MeanMapClassifier().fit(X, y, bags)
    assert_allclose(clf.class_means_, MEANS, atol=1e-5)


def test_exact_mixtures_are_worth_all_labels():
    X, y, bags, X_all, y_all = labeled_and_bags(COUNTS)
    clf = MeanMapClassifier(C=0.1, **EXACT).fit(X, y, bags)
    known = MeanMapClassifier(C=0.1, **EXACT).fit(X_all, y_all)
    assert_allclose(clf.coef_, known.coef_, atol=1e-4)
    assert_allclose(clf.predict_proba(X_all), known.predict_proba(X_all), atol=1e-4)


@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_without_bags_it_is_logistic_regression(C, n_classes):
    data = make_bags(n_bags=2, n_features=5, n_classes=n_classes, random_state=0)
    clf = MeanMapClassifier(C=C, **EXACT).fit(data.X_labeled, data.y)
    # the two parameter vectors of a binary softmax regularize twice their difference half as much
    other = LogisticRegression(C=C if n_classes > 2 else 2 * C, tol=1e-9, max_iter=10_000)
    other.fit(data.X_labeled.astype(np.float64), data.y)
    assert_allclose(
        clf.predict_proba(data.X_test),
        other.predict_proba(data.X_test.astype(np.float64)),
        atol=1e-5,
    )


def test_two_bags_by_hand():
    """One feature, one labeled instance of each class at 0 and 4, one bag of two with mean 3, half each."""
    X, y = np.array([[0.0], [4.0]]), ["a", "b"]
    bags = Bags([np.array([[2.0], [4.0]])], proportions=[[0.5, 0.5]])
    clf = MeanMapClassifier().fit(X, y, bags)
    # minimize m_a^2 + (m_b - 4)^2 + 2 ((m_a + m_b) / 2 - 3)^2: both move by the same d with d = 1 - d
    assert_allclose(clf.class_means_, [[0.5], [4.5]], atol=1e-6)


def test_proportions_that_tell_nothing_keep_the_labeled_difference():
    """All bags half and half: they move both class means alike, and never the difference."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(10, 3)) + np.repeat([[0], [2]], 5, axis=0)
    y = np.repeat([0, 1], 5)
    bags = Bags([rng.normal(size=(8, 3)) + 1 for _ in range(3)], proportions=np.full((3, 2), 0.5))
    clf = MeanMapClassifier().fit(X, y, bags)
    difference = X[y == 1].mean(axis=0) - X[y == 0].mean(axis=0)
    assert_allclose(clf.class_means_[1] - clf.class_means_[0], difference, atol=1e-5)
    assert np.isfinite(clf.predict_proba(X)).all()


def test_a_bag_counts_by_its_weight():
    X, y, bags, *_ = labeled_and_bags(COUNTS)
    wrong = bags.X.copy()
    wrong[bags.index == 0] += 100
    weights = [0, 1, 1, 1]
    misled = Bags(wrong, bags.index, bags.proportions)
    spared = Bags(wrong, bags.index, bags.proportions, weights=weights)
    left_out = bags.select([1, 2, 3])
    assert not np.allclose(MeanMapClassifier().fit(X, y, misled).class_means_, MEANS, atol=1)
    clf = MeanMapClassifier(C=0.1, **EXACT).fit(X, y, spared)
    expected = MeanMapClassifier(C=0.1, **EXACT).fit(X, y, left_out)
    assert_allclose(clf.class_means_, expected.class_means_, atol=1e-5)
    assert_allclose(clf.coef_, expected.coef_, atol=1e-5)


def test_order_of_bags_and_instances_does_not_matter():
    X, y, bags, *_ = labeled_and_bags(COUNTS)
    order = np.random.default_rng(1).permutation(bags.n_instances)
    shuffled = Bags(bags.X[order], bags.index[order], bags.proportions)
    clf, other = (MeanMapClassifier(C=0.1, **EXACT).fit(X, y, b) for b in (bags, shuffled))
    assert_allclose(clf.coef_, other.coef_, atol=1e-5)


def test_string_labels_give_the_same_model():
    X, y, bags, *_ = labeled_and_bags(COUNTS)
    names = np.array(["acinar", "papillary", "solid"])
    clf, named = MeanMapClassifier().fit(X, y, bags), MeanMapClassifier().fit(X, names[y], bags)
    assert (named.predict(X) == names[clf.predict(X)]).all()


def test_bags_help_where_all_slides_are_alike():
    gains = []
    for seed in range(4):
        data = make_bags(n_bags=40, class_separation=0.8, slide_shift=0.0, random_state=seed)
        scores = [
            mean_iou_score(
                data.y_test,
                MeanMapClassifier().fit(data.X_labeled, data.y, bags).predict(data.X_test),
            )
            for bags in (None, data.bags)
        ]
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.02


def test_images_are_refused():
    images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"features \(n, n_features\).*PatchEmbedder"):
        MeanMapClassifier().fit(images, [0, 1, 0, 1])


def test_pipeline_and_grouped_grid_search():
    data = make_bags(n_bags=8, bag_size=25, n_labeled_slides=5, n_features=6, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        pipe = Pipeline(
            [("scale", StandardScaler()), ("clf", MeanMapClassifier())], transform_input=["X_bags"]
        )
        grid = {"clf__C": [1e-3, 1e-1]}
        search = GridSearchCV(pipe, grid, cv=GroupKFold(5), error_score="raise")
        search.fit(
            *(data.X_labeled, data.y),
            groups=data.groups,
            X_bags=data.bags.flat,
            bag_proportions=data.bags,
        )
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_["clf__C"] == search.best_estimator_["clf"].C_
