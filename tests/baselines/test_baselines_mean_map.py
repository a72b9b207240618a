"""Mean map, plain, Laplacian and alternating: class means from mixtures, and what is learned from these."""

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from proportion_ssl import Bags, load, mean_iou_score, save
from proportion_ssl.baselines import MeanMapClassifier
from proportion_ssl.baselines._laplacian_means import class_means_by_bag, similarities
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


@pytest.mark.filterwarnings("ignore:The features of the bags are unlike")
@pytest.mark.filterwarnings("ignore:Instance .* times as far:UserWarning")  # as it is meant to be
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


# Laplacian mean map


def random_bags(n_bags=7, n_classes=3, n_features=4, seed=0):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(n_classes), n_bags)
    return rng.normal(size=(n_bags, n_features)), shares, rng.uniform(0.5, 2, n_bags)


def test_similarity_of_bags_by_hand():
    similar = similarities(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 10.0]]))
    distances = np.array([[0, 5, 10], [5, 0, 45**0.5], [10, 45**0.5, 0]])
    expected = np.exp(-distances / 45**0.5)
    np.fill_diagonal(expected, 0)
    assert_allclose(similar, expected)
    assert_allclose(similarities(np.zeros((3, 2))), 1 - np.eye(3))


@pytest.mark.parametrize("gamma", [0.01, 1.0, 30.0])
def test_means_of_each_bag_against_least_squares(gamma):
    """One row of a stacked system for each term of the objective."""
    means, shares, weights = random_bags()
    similar = similarities(means)
    rows, right = [], []
    for bag in range(7):
        row = np.zeros((7, 3))
        row[bag] = shares[bag]
        root = np.sqrt(weights[bag] / weights.mean())
        rows.append(root * row.ravel())
        right.append(root * means[bag])
        for other in range(bag):
            for label in range(3):
                row = np.zeros((7, 3))
                row[bag, label], row[other, label] = 1, -1
                rows.append(np.sqrt(gamma * similar[bag, other]) * row.ravel())
                right.append(np.zeros(4))
    expected = np.linalg.lstsq(np.array(rows), np.array(right), rcond=None)[0].reshape(7, 3, 4)
    found = class_means_by_bag(means, shares, weights, similar, gamma)
    assert_allclose(found, expected, atol=1e-5)


def test_a_large_weight_of_differences_gives_the_plain_mean_map():
    X, y, bags, *_ = labeled_and_bags(COUNTS)
    wrong = bags.with_instances(bags.X + bags.index[:, np.newaxis].astype(np.float32))
    plain = MeanMapClassifier(C=0.1, **EXACT).fit(X, y, wrong)
    alike = MeanMapClassifier(C=0.1, laplacian=1e4, **EXACT).fit(X, y, wrong)
    own = MeanMapClassifier(C=0.1, laplacian=0.1, **EXACT).fit(X, y, wrong)
    assert_allclose(alike.class_means_, plain.class_means_, atol=1e-2)
    assert_allclose(alike.coef_, plain.coef_, atol=1e-2)
    assert np.abs(own.class_means_ - plain.class_means_).max() > 0.1


@pytest.mark.parametrize("laplacian", [0.01, 1.0])
def test_where_all_bags_are_alike_class_means_are_recovered(laplacian):
    X, y, bags, *_ = labeled_and_bags(COUNTS)
    clf = MeanMapClassifier(laplacian=laplacian).fit(X, y, bags)
    assert_allclose(clf.class_means_, MEANS, atol=1e-4)


def test_two_stains_are_told_apart_where_the_plain_mean_map_mixes_them():
    """Two kinds of slides, shifted far apart, whose shares differ as well."""
    rng = np.random.default_rng(0)
    first = rng.dirichlet([4, 1, 1], 8)
    second = rng.dirichlet([1, 1, 4], 8)
    shift = np.array([20.0, -20.0, 20.0])
    means = np.concatenate([first @ MEANS, second @ (MEANS + shift)])
    shares, weights = np.concatenate([first, second]), np.ones(16)
    far = np.exp(-np.abs(np.subtract.outer(np.repeat([0, 9], 8), np.repeat([0, 9], 8))))
    by_bag = class_means_by_bag(means, shares, weights, far, 1e-2)
    plain = np.linalg.lstsq(shares, means, rcond=None)[0]
    errors = [
        np.abs(found[:8] - MEANS).max() + np.abs(found[8:] - MEANS - shift).max()
        for found in (by_bag, np.broadcast_to(plain, by_bag.shape))
    ]
    assert errors[0] < 1 and errors[1] > 20


def test_a_class_that_no_label_and_no_bag_shows_keeps_the_means_finite():
    X, y, bags, *_ = labeled_and_bags(COUNTS)
    wider = np.column_stack([bags.proportions, np.zeros(len(bags.proportions))])
    clf = MeanMapClassifier(laplacian=1.0, classes=[0, 1, 2, 3])
    clf.fit(X, y, Bags(bags.X, bags.index, wider))
    assert np.isfinite(clf.predict_proba(X)).all()


# Alternating mean map


def test_labels_of_bags_keep_the_counts_and_the_loss_never_rises():
    data = make_bags(n_bags=10, bag_size=30, n_features=6, class_separation=0.8, random_state=0)
    clf = MeanMapClassifier(alternating=True, **EXACT).fit(data.X_labeled, data.y, data.bags)
    for bag in range(10):
        counts = np.bincount(clf.bag_labels_[data.bags.index == bag], minlength=4)
        assert_allclose(counts, 30 * data.bags.proportions[bag], atol=1e-6)
    losses = clf.losses_[1:]
    assert len(losses) > 2
    assert (np.diff(losses) <= 1e-8).all()


def test_alternating_ends_where_the_labels_are_those_of_its_own_scores():
    data = make_bags(n_bags=10, bag_size=30, n_features=6, class_separation=0.8, random_state=0)
    clf = MeanMapClassifier(alternating=True, **EXACT).fit(data.X_labeled, data.y, data.bags)
    again = LogisticRegression(C=clf.C_, tol=1e-9, max_iter=10_000)
    again.fit(
        np.concatenate([data.X_labeled, data.bags.X]).astype(np.float64),
        np.concatenate([data.y, clf.bag_labels_]),
    )
    assert_allclose(
        clf.predict_proba(data.X_test),
        again.predict_proba(data.X_test.astype(np.float64)),
        atol=1e-4,
    )


def test_separated_classes_are_worth_all_labels():
    data = make_bags(n_bags=8, n_features=6, class_separation=6.0, random_state=0)
    clf = MeanMapClassifier(alternating=True).fit(data.X_labeled, data.y, data.bags)
    np.testing.assert_array_equal(clf.bag_labels_, data.y_bags)


def test_alternating_is_better_on_shifted_slides():
    gains = []
    for seed in range(4):
        data = make_bags(n_bags=30, class_separation=0.8, random_state=seed)
        scores = [
            mean_iou_score(
                data.y_test,
                MeanMapClassifier(alternating=alternating)
                .fit(data.X_labeled, data.y, data.bags)
                .predict(data.X_test),
            )
            for alternating in (False, True)
        ]
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.02


def test_files_keep_the_labels_of_the_last_round(tmp_path):
    X, y, bags, *_ = labeled_and_bags(COUNTS)
    clf = MeanMapClassifier(laplacian=1.0, alternating=True).fit(X, y, bags)
    save(clf, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.bag_labels_, clf.bag_labels_)
    assert again.losses_ == clf.losses_
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
