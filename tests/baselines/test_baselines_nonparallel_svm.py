"""NP-SVM: labels keep the counts, the objective never rises, planes are where they should be."""

from itertools import product

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.svm import LinearSVR

from proportion_ssl import Bags, load, mean_iou_score, save
from proportion_ssl.baselines import NonparallelSVMClassifier
from proportion_ssl.baselines.nonparallel_svm import fit_planes, label_costs
from proportion_ssl.datasets import make_bags
from proportion_ssl.pseudo_labels.exact_assignment import assign, count_bounds

DATA = make_bags(n_bags=12, bag_size=25, n_labeled_slides=5, n_features=6, random_state=0)


def fitted(data=DATA, bags=DATA.bags, **settings):
    return NonparallelSVMClassifier(**settings).fit(data.X_labeled, data.y, bags)


def test_labels_of_every_bag_match_its_counts():
    clf = fitted()
    for bag in range(12):
        labels = clf.bag_labels_[DATA.bags.index == bag]
        counts = np.bincount(labels, minlength=4)
        assert_allclose(counts, 25 * DATA.bags.proportions[bag], atol=1e-6)


def test_costs_of_labels_by_hand():
    costs = label_costs(np.array([[0.5, -0.25, -2.0]]), (3.0, 5.0, 0.1))
    own = [3 * 0.4**2, 3 * 0.15**2, 3 * 1.9**2]
    other = [5 * 1.5**2, 5 * 0.75**2, 0.0]
    expected = [own[c] + sum(other) - other[c] for c in range(3)]
    assert_allclose(costs, [expected])


def test_labels_are_the_best_of_all_with_these_counts():
    rng = np.random.default_rng(0)
    costs = label_costs(rng.normal(size=(6, 3)), (1.0, 2.0, 0.1))
    share = np.array([[0.5, 1 / 3, 1 / 6]])
    labels = assign(-costs, np.zeros(6, dtype=int), *count_bounds(share, share, np.array([6])))
    best = min(
        costs[np.arange(6), np.array(candidate)].sum()
        for candidate in product(range(3), repeat=6)
        if np.bincount(candidate, minlength=3).tolist() == [3, 2, 1]
    )
    assert_allclose(costs[np.arange(6), labels].sum(), best)


def test_a_plane_without_others_is_support_vector_regression_on_zero():
    """With one class and a second that weighs nothing, only the distance to the own plane counts."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3)) + 2
    labels = np.repeat([0, 1], 20)
    # the first plane sees its class at targets 0; -1 for the others binds the plane to a direction
    planes = fit_planes(X, labels, np.ones(40), np.zeros((4, 2)), (50.0, 1e-9, 0.05), 1e-14)
    other = LinearSVR(
        C=50.0,
        epsilon=0.05,
        loss="squared_epsilon_insensitive",
        dual=True,
        intercept_scaling=100.0,
        max_iter=100_000,
        tol=1e-10,
    ).fit(X[:20], np.zeros(20))
    assert_allclose(planes[:-1, 0], other.coef_, atol=1e-3)


def test_slope_of_the_planes_objective_is_zero_at_the_fit():
    X, labels = DATA.X_labeled.astype(np.float64), DATA.y
    settings = (0.2, 0.1, 0.1)
    planes = fit_planes(X, labels, np.ones(len(X)), np.zeros((7, 4)), settings, 1e-15)

    def objective(planes):
        values = X @ planes[:-1] + planes[-1]
        costs = label_costs(values, settings)[np.arange(len(X)), labels]
        return (planes[:-1] ** 2).sum() / 2 + costs.sum()

    step = 1e-4
    for place in np.ndindex(planes.shape):
        ahead, behind = planes.copy(), planes.copy()
        ahead[place] += step
        behind[place] -= step
        assert abs(objective(ahead) - objective(behind)) / (2 * step) < 1e-3


def test_objective_never_rises():
    objectives = [row["objective"] for row in fitted(tol=1e-9).history_]
    assert len(objectives) > 2
    assert (np.diff(objectives) <= 1e-6 * np.array(objectives[:-1])).all()


def test_nearest_plane_predicts():
    clf = fitted()
    distances = np.abs(DATA.X_test @ clf.coef_.T + clf.intercept_)
    distances /= np.linalg.norm(clf.coef_, axis=1)
    assert_array_equal(clf.predict(DATA.X_test), clf.classes_[distances.argmin(axis=1)])


def test_order_of_instances_and_bags_without_weight():
    order = np.random.default_rng(1).permutation(DATA.bags.n_instances)
    shuffled = Bags(DATA.bags.X[order], DATA.bags.index[order], DATA.bags.proportions)
    one, other = fitted(), fitted(bags=shuffled)
    assert_array_equal(one.predict(DATA.X_test), other.predict(DATA.X_test))
    mute = Bags(DATA.bags.X, DATA.bags.index, DATA.bags.proportions, weights=np.zeros(12))
    clf, alone = fitted(bags=mute, C_own=0.1, tol=1e-9), fitted(bags=None, C_own=0.1)
    assert_allclose(clf.coef_, alone.coef_, atol=1e-3)


def test_two_classes_have_two_planes_and_files_keep_them(tmp_path):
    data = make_bags(n_bags=6, n_classes=2, random_state=0)
    clf = fitted(data, data.bags)
    scores = clf.decision_function(data.X_test)
    assert clf.coef_.shape[0] == 2 and scores.shape == (len(data.X_test),)
    assert_array_equal(clf.predict(data.X_test), clf.classes_[(scores > 0).astype(int)])
    save(clf, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert_array_equal(again.decision_function(data.X_test), scores)


def test_bags_help_on_shifted_slides():
    gains = []
    for seed in range(4):
        data = make_bags(n_bags=30, class_separation=0.8, random_state=seed)
        scores = [
            mean_iou_score(data.y_test, fitted(data, bags).predict(data.X_test))
            for bags in (None, data.bags)
        ]
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.02
