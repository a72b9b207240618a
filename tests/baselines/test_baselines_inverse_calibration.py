"""Inverse calibration: against scikit-learn and a general solver, and its limits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize
from sklearn.svm import SVR

from proportion_ssl import Bags, load, mean_iou_score, save
from proportion_ssl.baselines import InverseCalibrationClassifier
from proportion_ssl.baselines.inverse_calibration import fit_regressions, free_intervals
from proportion_ssl.datasets import make_bags

DATA = make_bags(n_bags=12, bag_size=25, n_labeled_slides=5, n_features=6, random_state=0)


@pytest.mark.parametrize("epsilon", [0.0, 1e-3])
def test_bags_of_one_are_support_vector_regression_on_logits(epsilon):
    clf = InverseCalibrationClassifier(C=0.05, epsilon=epsilon).fit(DATA.X_labeled, DATA.y)
    p = 1 / len(DATA.y)
    tube = epsilon / (p * (1 - p))
    X = DATA.X_labeled.astype(np.float64)
    for label, coef, intercept in zip(clf.classes_, clf.coef_, clf.intercept_, strict=True):
        logits = np.where(DATA.y == label, 1, -1) * np.log(len(DATA.y) - 1)
        other = SVR(kernel="linear", C=0.05, epsilon=tube, tol=1e-8).fit(X, logits)
        assert_allclose(coef, other.coef_[0], atol=2e-3)
        assert_allclose(intercept, other.intercept_[0], atol=1e-2)
    assert clf.smallest_ == p


def test_intervals_of_different_width_against_a_general_solver():
    """The quadratic program with slack variables, as the paper states it."""
    rng = np.random.default_rng(0)
    n, C, epsilon = 9, 0.7, 0.1
    X, shares = rng.normal(size=(n, 2)), rng.uniform(0.05, 0.95, size=n)
    y, tube = -np.log(1 / shares - 1), epsilon / (shares * (1 - shares))

    def missed(v):
        return v[:2] @ X.T + v[2] - y

    rules = [
        {"type": "ineq", "fun": lambda v: tube + v[3:] - missed(v)},
        {"type": "ineq", "fun": lambda v: tube + v[3:] + missed(v)},
        {"type": "ineq", "fun": lambda v: v[3:]},
    ]
    exact = minimize(
        lambda v: v[:2] @ v[:2] / 2 + C * v[3:].sum(),
        np.concatenate([np.zeros(3), np.abs(y)]),
        constraints=rules,
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    column = shares[:, np.newaxis]
    low, high = free_intervals(column, column, 1e-3, epsilon)
    weights, objective, _ = fit_regressions(X, low, high, np.full(n, C), 5000)
    assert exact.success
    assert_allclose(objective[0], exact.fun, rtol=1e-3)
    assert_allclose(weights[:, 0], exact.x[:3], atol=5e-3)


def test_more_features_than_bags_change_nothing():
    """Fits in the span of the bags are those in all dimensions."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    wide = np.hstack([X, np.zeros((7, 20))])
    narrow, _, _ = fit_regressions(X, y, y, np.full(7, 0.3), 5000)
    other, _, _ = fit_regressions(wide, y, y, np.full(7, 0.3), 5000)
    assert_allclose(other[[0, 1, 2, -1]], narrow, atol=1e-4)
    assert_allclose(other[3:-1], 0, atol=1e-9)


def test_only_the_means_of_bags_matter():
    clf = InverseCalibrationClassifier().fit(DATA.X_labeled, DATA.y, DATA.bags)
    X = DATA.bags.X.copy()
    rng = np.random.default_rng(0)
    for bag in range(DATA.bags.n_bags):
        rows = np.flatnonzero(DATA.bags.index == bag)
        X[rows] = X[rng.permutation(rows)]  # another order
        X[rows[0]] += 1
        X[rows[1]] -= 1
    moved = DATA.bags.with_instances(X)
    other = InverseCalibrationClassifier(C=clf.C_).fit(DATA.X_labeled, DATA.y, moved)
    assert_allclose(other.coef_, clf.coef_, atol=1e-4)


def test_intervals_cost_nothing_and_bags_without_weight_are_left_out():
    bags, zeros = DATA.bags, np.zeros_like(DATA.bags.proportions)
    settings = {"C": 0.05, "smallest": 0.01}
    alone = InverseCalibrationClassifier(**settings).fit(DATA.X_labeled, DATA.y)
    for unknown in (
        Bags(bags.X, bags.index, bags.proportions, lower=zeros, upper=zeros + 1),
        Bags(bags.X, bags.index, bags.proportions, weights=np.zeros(12)),
    ):
        clf = InverseCalibrationClassifier(**settings).fit(DATA.X_labeled, DATA.y, unknown)
        assert_allclose(clf.coef_, alone.coef_, atol=2e-3)


def test_ends_of_intervals():
    low, high = free_intervals(
        np.array([[0.0, 0.0, 0.2, 0.5]]), np.array([[0.0, 0.5, 1.0, 0.5]]), 0.1, 0.0
    )
    assert_allclose(low, [[-np.log(9), -np.inf, -np.log(4), 0]])
    assert_allclose(high, [[-np.log(9), 0, np.inf, 0]], atol=1e-12)


def test_two_classes_have_one_machine_and_files_keep_it(tmp_path):
    data = make_bags(n_bags=6, n_classes=2, random_state=0)
    clf = InverseCalibrationClassifier().fit(data.X_labeled, data.y, data.bags)
    scores = clf.decision_function(data.X_test)
    assert clf.coef_.shape[0] == 1 and scores.shape == (len(data.X_test),)
    np.testing.assert_array_equal(clf.predict(data.X_test), clf.classes_[(scores > 0).astype(int)])
    assert not hasattr(clf, "predict_proba")
    save(clf, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.decision_function(data.X_test), scores)


def test_bags_help():
    gains = []
    for seed in range(4):
        data = make_bags(n_bags=60, class_separation=0.8, slide_shift=0.0, random_state=seed)
        scores = [
            mean_iou_score(
                data.y_test,
                InverseCalibrationClassifier()
                .fit(data.X_labeled, data.y, bags)
                .predict(data.X_test),
            )
            for bags in (None, data.bags)
        ]
        gains.append(scores[1] - scores[0])
    assert np.mean(gains) > 0.02


def test_features_of_unequal_spread_are_fitted_within_the_default_number_of_steps():
    """Bag means of deep features: a few directions have nearly all of the variance."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(150, 60)) * np.geomspace(30, 0.1, 60) + 5
    y = X @ rng.normal(size=(60, 2)) / 30 + rng.normal(size=(150, 2))
    usual = InverseCalibrationClassifier().max_iter
    _, objective, n_iter = fit_regressions(X, y, y, np.full(150, 1.0), usual)
    _, exact, _ = fit_regressions(X, y, y, np.full(150, 1.0), 100 * usual)
    assert n_iter < usual
    assert_allclose(objective, exact, rtol=1e-7)
