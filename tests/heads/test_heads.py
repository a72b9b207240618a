"""Heads that are solved for, as classifiers: other libraries, invariants, temperature, slides."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from proportion_ssl.datasets import make_bags
from proportion_ssl.heads import DiscriminantClassifier, SoftLabelHead, SoftLogisticRegression
from proportion_ssl.heads._base import _folds, typical_temperature
from proportion_ssl.heads._discriminant import ABSENT
from proportion_ssl.heads._logistic import TOLERANCE, soft_logistic_regression
from proportion_ssl.heads._temperature import BOUNDS, fit_temperature

HEADS = [DiscriminantClassifier(), SoftLogisticRegression()]
every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: type(head).__name__)
DATA = make_bags(
    n_bags=4, n_labeled_slides=6, class_separation=0.8, slide_shift=0.6, random_state=0
)


def projected(n_components):
    """Principal components of the standardized features, by scikit-learn."""
    scaler, pca = StandardScaler(), PCA(n_components)
    Z = pca.fit_transform(scaler.fit_transform(DATA.X_labeled.astype(np.float64)))
    return Z, pca.transform(scaler.transform(DATA.X_test.astype(np.float64)))


def test_discriminant_analysis_of_scikit_learn():
    clf = DiscriminantClassifier(9, shrinkage=0.3, temperature=2.0).fit(DATA.X_labeled, DATA.y)
    Z, Z_test = projected(9)
    oracle = LinearDiscriminantAnalysis("lsqr", shrinkage=0.3, priors=np.full(4, 0.25))
    logits = oracle.fit(Z, DATA.y).decision_function(Z_test)
    assert_allclose(clf.predict_proba(DATA.X_test), softmax(logits / 2, axis=1), atol=1e-4)


def test_logistic_regression_of_scikit_learn():
    ridge = 0.05
    clf = SoftLogisticRegression(ridge, n_components=9, temperature=1).fit(DATA.X_labeled, DATA.y)
    Z, Z_test = projected(9)
    coef, intercept = balanced_oracle(Z, DATA.y, ridge)
    expected = softmax(Z_test @ coef + intercept, axis=1)
    assert_allclose(clf.predict_proba(DATA.X_test), expected, atol=5e-4)


def balanced_oracle(X, y, ridge):
    """Coefficients and intercepts of scikit-learn, of classes that count the same."""
    weights = 1 / (len(np.unique(y)) * np.bincount(y))[y]
    oracle = LogisticRegression(C=1 / ridge, solver="newton-cholesky", tol=1e-10, max_iter=100)
    oracle.fit(X, y, sample_weight=weights)
    return oracle.coef_.T, oracle.intercept_


def stretched(n_instances, n_features):
    """Correlated features whose variances differ by a factor of 10,000, and four classes that overlap."""
    rng = np.random.default_rng(3)
    y = rng.permutation(np.arange(n_instances) % 9 % 4)
    X = rng.normal(size=(n_instances, n_features)) + rng.normal(size=(4, n_features))[y]
    return X * np.geomspace(10, 0.1, n_features) @ rng.normal(size=(n_features, n_features)), y


@pytest.mark.parametrize("ridge", [1.0, 0.01])
@pytest.mark.parametrize("shape", [(600, 20), (30, 60)])
def test_weights_of_scikit_learn(shape, ridge):
    X, y = stretched(*shape)
    expected = balanced_oracle(X, y, ridge)
    coef, intercept = soft_logistic_regression(X, np.eye(4)[y], ridge, tolerance=1e-9)
    assert_allclose(coef, expected[0], atol=1e-5)
    assert_allclose(intercept - intercept.mean(), expected[1] - expected[1].mean(), atol=1e-5)


def test_logistic_regression_in_single_precision():
    X, y = stretched(600, 20)
    coef, intercept = balanced_oracle(X, y, 0.01)
    found = soft_logistic_regression(X.astype(np.float32), np.eye(4)[y], 0.01)
    expected = softmax(X @ coef + intercept, axis=1)
    assert_allclose(softmax(X @ found[0] + found[1], axis=1), expected, atol=1e-3)


def test_logistic_regression_from_another_solution():
    """The same weights from wherever it starts, also where the labels before lacked a class."""
    X, y = stretched(600, 20)
    labels = np.eye(4)[y]
    without = labels * [1, 1, 0, 1]
    start = soft_logistic_regression(X, without, 0.01)
    assert start[1][2] == ABSENT
    expected = soft_logistic_regression(X, labels, 0.01, tolerance=1e-9)
    found = soft_logistic_regression(X, labels, 0.01, start=start, tolerance=1e-9)
    for one, other in zip(found, expected, strict=True):
        assert_allclose(one, other, atol=1e-5)
    again = soft_logistic_regression(X, without, 0.01, start=expected, tolerance=1e-9)
    assert again[1][2] == ABSENT and (again[0][:, 2] == 0).all()
    head = SoftLogisticRegression(0.01)
    from_start = head.solve_from(expected, X, labels, np.full(600, -1))
    assert_allclose(from_start[0], expected[0], atol=1e-9)  # nothing is left to do


def test_logistic_regression_says_if_it_did_not_converge(monkeypatch):
    X, y = stretched(600, 20)
    monkeypatch.setattr("proportion_ssl.heads._logistic.MAX_ITER", 3)
    with pytest.warns(ConvergenceWarning, match=r"at a gradient of \d.*; at most 3e-05 was asked"):
        coef, _ = soft_logistic_regression(X, np.eye(4)[y], 0.01)
    expected = balanced_oracle(X, y, 0.01)[0]
    assert np.abs(coef - expected).max() > 0.01  # the warning is true


def test_the_gradient_is_as_small_as_it_says():
    X, y = stretched(600, 20)
    labels = np.eye(4)[y] / np.bincount(y) / 4
    coef, intercept = soft_logistic_regression(X, labels, 0.01)
    slopes = softmax(X @ coef + intercept, axis=1) * labels.sum(axis=1, keepdims=True) - labels
    assert np.abs(X.T @ slopes + 0.01 * coef).max() <= TOLERANCE
    assert np.abs(slopes.sum(axis=0)).max() <= TOLERANCE


def repeated(X, soft):
    """Each instance as often in each class as its label says."""
    rows, classes = np.nonzero(soft)
    times = soft[rows, classes]
    return np.repeat(X[rows], times, axis=0), np.repeat(classes, times)


def test_a_soft_label_is_the_instance_in_several_classes():
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    soft = rng.integers(0, 4, (40, 3)) + np.eye(3, dtype=int)[codes]
    rows, classes = repeated(X, soft)
    one = soft_logistic_regression(X, soft.astype(float), 0.1)
    other = soft_logistic_regression(rows, np.eye(3)[classes], 0.1)
    for found, expected in zip(one, other, strict=True):
        assert_allclose(found, expected, atol=1e-3)


@every_head
def test_weights_are_repetitions(head):
    times = np.random.default_rng(1).integers(0, 4, len(DATA.y))
    rows = np.repeat(np.arange(len(DATA.y)), times)
    slides = (
        DATA.groups
    )  # weights and repetitions give other scales, so the components are those of all
    settings = {"temperature": 1.0} | ({"shrinkage": 0.3} if hasattr(head, "shrinkage") else {})
    X, labels = DATA.X_labeled.astype(np.float32), np.eye(4)[DATA.y]
    head = clone(head).set_params(**settings)
    one = head.solve(X, labels * times[:, np.newaxis], slides)
    other = head.solve(X[rows], labels[rows], slides[rows])
    one, other = (softmax(X @ coef + intercept, axis=1) for coef, intercept in (one, other))
    assert_allclose(one, other, atol=2e-3)
    kept = times > 0
    weighted = clone(head).fit(DATA.X_labeled, DATA.y, sample_weight=times)
    without = clone(head).fit(DATA.X_labeled[kept], DATA.y[kept], sample_weight=times[kept])
    assert_array_equal(weighted.coef_, without.coef_)


def test_a_class_without_labels_is_never_predicted():
    X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    labels = np.eye(3)[[0, 2] * 6]
    for head in HEADS:
        coef, intercept = head.solve(X, labels, np.full(12, -1))
        assert np.isfinite(coef).all() and intercept[1] == ABSENT
        assert (softmax(X @ coef + intercept, axis=1)[:, 1] == 0).all()


@every_head
def test_instances_and_features_in_another_order(head):
    """Up to rounding; the temperature takes slides, whose folds are the same."""
    rng = np.random.default_rng(0)
    rows, columns = rng.permutation(len(DATA.y)), rng.permutation(DATA.X_labeled.shape[1])
    one = clone(head).fit(DATA.X_labeled, DATA.y, groups=DATA.groups)
    other = clone(head).fit(
        DATA.X_labeled[rows][:, columns], DATA.y[rows], groups=DATA.groups[rows]
    )
    expected = one.predict_proba(DATA.X_test)
    assert_allclose(other.predict_proba(DATA.X_test[:, columns]), expected, atol=5e-3)


@every_head
def test_names_of_classes_and_other_predictions(head):
    names = np.array(["d", "c", "b", "a"])
    one, other = (
        clone(head).set_params(temperature=2.0).fit(DATA.X_labeled, y)
        for y in (DATA.y, names[DATA.y])
    )
    assert_array_equal(other.classes_, ["a", "b", "c", "d"])
    probabilities = one.predict_proba(DATA.X_test)
    assert_allclose(other.predict_proba(DATA.X_test)[:, ::-1], probabilities, atol=1e-4)
    assert_array_equal(names[one.predict(DATA.X_test)], other.predict(DATA.X_test))
    assert_allclose(np.exp(one.predict_log_proba(DATA.X_test)), probabilities, atol=1e-9)
    assert_allclose(softmax(one.decision_function(DATA.X_test), axis=1), probabilities, atol=1e-9)
    two = clone(head).fit(DATA.X_labeled, DATA.y > 1)
    difference = two.decision_function(DATA.X_test)
    assert difference.shape == (len(DATA.X_test),)
    assert_allclose(two.predict_proba(DATA.X_test)[:, 1], 1 / (1 + np.exp(-difference)), atol=1e-9)


@pytest.mark.parametrize("right", [0.6, 0.75, 0.9])
@pytest.mark.parametrize("margin", [1.0, 4.0])
def test_temperature_in_closed_form(right, margin):
    """Logits that differ by the margin, right in a share p of cases: T = margin / log(p / (1 - p))."""
    labels = np.array([[right, 1 - right]] * 5)
    found = fit_temperature(np.array([[margin, 0.0]] * 5), labels)
    assert found == pytest.approx(margin / np.log(right / (1 - right)), rel=1e-3)
    assert fit_temperature(np.array([[margin, 0.0]] * 5), labels * 7) == pytest.approx(found)


def test_temperature_is_bounded():
    logits = np.array([[0.2, 0.0]] * 4)
    never, always = (fit_temperature(logits, np.eye(2)[[code] * 4]) for code in (1, 0))
    assert never == pytest.approx(np.exp(BOUNDS[1]), rel=1e-3)
    assert always == pytest.approx(np.exp(BOUNDS[0]), rel=1e-3)


@every_head
def test_slides_make_predictions_less_sure(head):
    """Patches of a slide that is in training are easier than those of one that is not."""
    data = make_bags(
        n_bags=4, n_labeled_slides=8, class_separation=0.4, slide_shift=1.5, random_state=1
    )
    by_patch = clone(head).fit(data.X_labeled, data.y)
    by_slide = clone(head).fit(data.X_labeled, data.y, groups=data.groups)
    assert by_slide.temperature_ > by_patch.temperature_


@every_head
def test_temperature_in_rounds(head):
    """Where slides are known, that of left-out labels, at most twice the usual one; single instances never
    ask for less than 1."""
    data = make_bags(n_bags=4, n_labeled_slides=8, slide_shift=1.5, random_state=1)
    X, labels = data.X_labeled.astype(np.float32), np.eye(len(set(data.y)))[data.y]
    slides = np.unique(data.groups, return_inverse=True)[1]
    by_slides = typical_temperature(*head.left_out(X, labels, slides), labels)
    left_out = head.left_out(X, labels, slides, by_slides=False)
    by_instances = typical_temperature(*left_out, labels)
    expected = np.sqrt(by_slides * max(1.0, by_instances))
    assert expected < 2 * head.usual_temperature
    assert_allclose(head.temperature_in_rounds(X, labels, slides), expected)
    noise = np.random.default_rng(0).normal(size=(len(X), 200)).astype(np.float32)
    wrong = np.roll(labels, 1, axis=0)[: len(X) // 4]  # sure of what cannot be told
    rows = slice(0, len(wrong))
    found = head.temperature_in_rounds(noise[rows], wrong, np.arange(len(wrong)) % 4)
    assert found == 2 * head.usual_temperature
    for unknown in (np.full(len(X), -1), np.zeros(len(X), dtype=int)):
        assert head.temperature_in_rounds(X, labels, unknown) == head.usual_temperature
    apart = 20 * labels.astype(np.float32)  # each instance is told without an error
    slides = np.arange(len(apart)) % 4
    by_slides = typical_temperature(*head.left_out(apart, labels, slides), labels)
    assert_allclose(head.temperature_in_rounds(apart, labels, slides), np.sqrt(by_slides))


def test_a_class_with_one_instance_is_not_judged_but_learned():
    """Folds are without warnings, every instance is in one, and classes are spread over them."""
    codes = np.array([0] * 7 + [1] * 6 + [2])
    tests = [test for _, test in _folds(codes, np.full(14, -1), np.arange(14.0)[:, np.newaxis])]
    assert_array_equal(np.sort(np.concatenate(tests)), np.arange(14))
    counts = np.array([np.bincount(codes[test], minlength=3) for test in tests])
    assert np.ptp(counts, axis=0).max() == 1
    for head in HEADS:
        X = np.random.default_rng(0).normal(size=(14, 3)) + 4 * np.eye(3)[codes]
        clf = clone(head).fit(X, codes)
        assert clf.predict(X[-1:]) == [2] and np.isfinite(clf.temperature_)
        _, fold = clf.left_out(X.astype(np.float32), np.eye(3)[codes], np.full(14, -1))
        assert fold[-1] == -1 and (fold[:-1] >= 0).all()


@every_head
def test_names_of_the_classes_do_not_matter(head):
    """Which instances are left out together depends on neither order: of the instances or of the classes."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(4), [7, 23, 11, 12])
    X = rng.normal(size=(53, 6)) + 1.5 * np.eye(4, 6)[codes]
    reference = clone(head).fit(X, codes)
    for _ in range(4):
        names, order = rng.permutation(4), rng.permutation(53)
        renamed = clone(head).fit(X[order], names[codes[order]])
        assert renamed.temperature_ == pytest.approx(reference.temperature_, rel=1e-4)
        assert_allclose(renamed.predict_proba(X)[:, names], reference.predict_proba(X), atol=1e-4)


def test_many_classes_with_few_instances_are_spread_over_the_folds():
    codes = np.repeat(np.arange(10), [5] + [2] * 9)
    X = np.random.default_rng(0).normal(size=(23, 4))
    tests = [test for _, test in _folds(codes, np.full(23, -1), X)]
    assert np.ptp([len(test) for test in tests]) <= 1
    rng, temperatures = np.random.default_rng(0), []
    for _ in range(5):
        means = rng.normal(size=(10, 16))
        X = means[codes] + rng.normal(size=(23, 16))
        temperatures.append(DiscriminantClassifier().fit(X, codes).temperature_)
    assert min(temperatures) > 1  # two instances of a class do not tell it well


def test_the_instances_of_a_single_slide_count_one_by_one():
    codes = np.repeat([0, 1, 2], 20)
    X = np.random.default_rng(0).normal(size=(60, 40)) + np.eye(3, 40)[codes]
    plain = DiscriminantClassifier(temperature=1).fit(X, codes)
    one_slide = DiscriminantClassifier(temperature=1).fit(X, codes, groups=np.zeros(60))
    assert_allclose(one_slide.coef_, plain.coef_)


@every_head
def test_features_that_are_always_zero_do_not_matter(head):
    padded = np.column_stack([DATA.X_labeled, np.zeros((len(DATA.y), 7), np.float32)])
    reference, found = (clone(head).fit(X, DATA.y) for X in (DATA.X_labeled, padded))
    test = np.column_stack([DATA.X_test, np.zeros((len(DATA.y_test), 7), np.float32)])
    assert_allclose(found.predict_proba(test), reference.predict_proba(DATA.X_test), atol=1e-5)


@every_head
def test_nothing_to_leave_out(head):
    one_slide = clone(head).fit(DATA.X_labeled, DATA.y, groups=np.zeros(len(DATA.y)))
    assert one_slide.temperature_ == 1.0
    two = clone(head).fit([[0.0], [1.0]], ["a", "b"])
    assert two.temperature_ == 1.0 and two.predict([[1.0]]) == ["b"]


@every_head
def test_what_is_refused(head):
    with pytest.raises(ValueError, match=r"one class \('a'\); at least two"):
        clone(head).fit([[0.0], [1.0]], ["a", "a"])
    with pytest.raises(ValueError, match=r"[Nn]egative values"):
        clone(head).fit([[0.0], [1.0]], [0, 1], sample_weight=[1, -1])
    with pytest.raises(ValueError, match=r"groups has shape \(1,\), but there are 2"):
        clone(head).fit([[0.0], [1.0]], [0, 1], groups=[1])
    with pytest.raises(ValueError, match="n_components"):
        clone(head).set_params(n_components=0).fit([[0.0], [1.0]], [0, 1])


def test_a_head_of_ones_own():
    """A subclass writes `solve` alone."""

    class NearestMean(SoftLabelHead):
        def __init__(self, n_components=None, *, temperature=None, random_state=None):
            self.n_components, self.temperature = n_components, temperature
            self.random_state = random_state

        def solve(self, X, labels, groups):
            means = labels.T @ X / labels.sum(axis=0)[:, np.newaxis]
            return means.T.astype(np.float64), -0.5 * (means**2).sum(axis=1)

    assert NearestMean().fit(DATA.X_labeled, DATA.y).score(DATA.X_test, DATA.y_test) > 0.6
