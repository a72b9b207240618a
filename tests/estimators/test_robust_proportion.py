"""Robust classifier: finds out how far records can be trusted, and which bags to read again."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

from proportion_ssl import (
    Bags,
    HeadClassifier,
    MobileNetV2Classifier,
    NegativePseudoLabelClassifier,
    PatchEmbedder,
    RobustProportionClassifier,
    SoftAssignmentSelector,
    mean_iou_score,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.estimators import _learners
from proportion_ssl.estimators import robust_proportion as robust
from proportion_ssl.heads import _projection
from proportion_ssl.proportions import IdentifiabilityWarning, class_proportions, sum_absolute_error
from proportion_ssl.proportions.intervals import nearest_proportions
from proportion_ssl.pseudo_labels import Selector


def fit(data, bags, seed=0):
    return RobustProportionClassifier(random_state=seed).fit(data.X_labeled, data.y, bags)


def make_hard_bags(seed):
    """Classes that overlap, slides that are shifted."""
    return make_bags(
        n_bags=40,
        bag_size=40,
        n_labeled_slides=4,
        n_features=64,
        class_separation=0.45,
        slide_shift=0.5,
        random_state=seed,
    )


@pytest.fixture(scope="module")
def data():
    return make_bags(n_bags=30, bag_size=40, random_state=0)


@pytest.fixture(scope="module")
def exact(data):
    return fit(data, data.bags)


def with_proportions(bags, proportions, **kwargs):
    return Bags(bags.X, bags.names[bags.index], proportions, **kwargs)


@pytest.mark.parametrize("seed", range(3))
def test_exchanged_records_come_out_on_top(seed):
    data = make_bags(n_bags=30, bag_size=40, random_state=seed)
    rng = np.random.default_rng(seed)
    wrong = rng.choice(30, 6, replace=False)
    proportions = data.bags.proportions.copy()
    proportions[wrong] = proportions[np.roll(wrong, 1)]
    moved = np.abs(proportions - data.bags.proportions).sum(axis=1)
    clf = fit(data, with_proportions(data.bags, proportions), seed)
    table = clf.bag_reliability_
    assert roc_auc_score(np.isin(table.index, data.bags.names[wrong]), table["distance"]) >= 0.9
    far = data.bags.names[moved > 1]
    assert set(far) <= set(table.index[table["doubtful"]])
    assert (clf.bags_.weights[np.isin(clf.bags_.names, far)] == 0).all()


def test_trust_falls_as_records_get_rougher(data, exact):
    rng = np.random.default_rng(0)
    trusts = [exact.trust_]
    for error in (0.05, 0.2):
        noisy = np.clip(
            data.bags.proportions + rng.normal(0, error, data.bags.proportions.shape), 0, None
        )
        trusts.append(
            fit(data, with_proportions(data.bags, noisy / noisy.sum(axis=1, keepdims=True))).trust_
        )
    assert trusts[0] > trusts[1] > trusts[2]
    assert trusts[2] >= 0 and trusts[0] <= 1


def test_table_of_reliability(data, exact):
    table = exact.bag_reliability_.loc[exact.bags_.names]
    recorded = table[[f"recorded_{c}" for c in exact.classes_]].to_numpy()
    supported = table[[f"supported_{c}" for c in exact.classes_]].to_numpy()
    assert_array_equal(recorded, data.bags.proportions)
    assert_allclose(supported.sum(axis=1), 1)
    assert_allclose(table["distance"], np.abs(recorded - supported).sum(axis=1))
    assert_array_equal(exact.bags_.weights == 0, table["doubtful"])
    assert exact.bag_reliability_["distance"].is_monotonic_decreasing
    assert_array_equal(data.bags.weights, 1)  # the user's bags are left as they were


def test_same_seed_same_result_and_bags_without_influence(data, exact):
    again = fit(data, data.bags)
    assert_array_equal(again.predict_proba(data.X_test), exact.predict_proba(data.X_test))
    assert (exact.predict(data.X_test) == data.y_test).mean() > 0.8
    without = RobustProportionClassifier(random_state=0).fit(data.X_labeled, data.y)
    assert not hasattr(without, "bag_reliability_") and not hasattr(without, "history_")


def test_without_bags_it_is_discriminant_analysis_of_principal_components(data):
    """Against scikit-learn's scaler, components and discriminant analysis."""
    X, n = data.X_labeled, 10
    clf = RobustProportionClassifier(n_components=n, shrinkage=0.2, temperature=3.0)
    scaler, pca = StandardScaler(), PCA(n)
    Z = pca.fit_transform(scaler.fit_transform(X.astype(np.float64)))
    oracle = LinearDiscriminantAnalysis("lsqr", shrinkage=0.2, priors=np.full(4, 0.25))
    oracle.fit(Z, data.y)
    logits = oracle.decision_function(pca.transform(scaler.transform(data.X_test)))
    expected = softmax(logits / 3.0, axis=1)
    found = clf.fit(X, data.y).predict_proba(data.X_test)
    assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_bags_teach_more_than_labels_and_rough_records_nearly_as_much_as_exact_ones(seed):
    data = make_hard_bags(seed)
    true = class_proportions(data.y_bags, data.bags.index, n_bags=40, n_classes=4)
    noisy = np.clip(true + np.random.default_rng(seed).normal(0, 0.1, true.shape), 1e-6, None)
    rough = with_proportions(data.bags, noisy / noisy.sum(axis=1, keepdims=True))

    def score(clf):
        return mean_iou_score(data.y_test, clf.predict(data.X_test))

    alone = score(RobustProportionClassifier().fit(data.X_labeled, data.y))
    assert score(fit(data, rough)) > alone + 0.02
    assert score(fit(data, rough)) > score(fit(data, data.bags)) - 0.05


def test_of_many_instances_some_give_the_components(data, monkeypatch):
    monkeypatch.setattr(_projection, "N_SAMPLE", 200)
    clf, other = fit(data, data.bags), fit(data, data.bags, seed=1)
    again = fit(data, data.bags)
    assert_array_equal(again.predict_proba(data.X_test), clf.predict_proba(data.X_test))
    assert np.abs(other.predict_proba(data.X_test) - clf.predict_proba(data.X_test)).max() > 0
    assert (clf.predict(data.X_test) == data.y_test).mean() > 0.8


def test_blocks_do_not_matter(data, exact, monkeypatch):
    monkeypatch.setattr(_projection, "AT_ONCE", 7)
    found = fit(data, data.bags).predict_proba(data.X_test)
    assert_allclose(found, exact.predict_proba(data.X_test), atol=1e-4)


@pytest.mark.slow
def test_images_are_embedded_by_the_net_whose_head_is_solved_for():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
    images[::2] //= 2
    y, bags = np.tile([0, 1], 12), Bags(images, np.repeat([0, 1, 2], 8), np.full((3, 2), 0.5))
    bags.proportions[0] = bags.lower[0] = bags.upper[0] = [0.4, 0.6]
    net = MobileNetV2Classifier(weights=None)
    clf = RobustProportionClassifier(net).fit(images, y, bags)
    assert clf.estimator_ is not net and clf.estimator_.module_.head.linear.out_features == 2
    features = PatchEmbedder(weights=None).transform(images)
    on_features = bags.with_instances(features)
    same = RobustProportionClassifier(HeadClassifier()).fit(features, y, on_features)
    assert_allclose(clf.predict_proba(images), same.predict_proba(features), atol=1e-3)


@pytest.mark.parametrize(
    "net",
    [
        MobileNetV2Classifier(weights=None, freeze=False),
        HeadClassifier(),
        NeuralNetClassifier(torch.nn.Flatten),
    ],
)
def test_nets_whose_head_cannot_be_solved_for(net):
    images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    message = f"estimator is a {type(net).__name__} that learns from .*32, 32, 3.*freeze=True"
    with pytest.raises(ValueError, match=message):
        RobustProportionClassifier(net).fit(images, [0, 1, 0, 1])


def test_labels_can_be_looked_at_round_by_round():
    data = make_hard_bags(1)
    exact = fit(data, data.bags)
    assert [row["round"] for row in exact.history_] == list(range(1, 12))
    deviations = [row["standard_deviation"] for row in exact.history_]
    assert deviations[:7] == [0.02] + [0.1] * 6
    table = exact.bag_reliability_
    recorded, supported = (
        table[[f"{kind}_{c}" for c in exact.classes_]].to_numpy()
        for kind in ("recorded", "supported")
    )
    mean_squares = ((recorded - supported) ** 2).sum(axis=1) / 3
    expected = np.sqrt(np.median(mean_squares))  # the median of F(3, 3) is 1
    assert 0.01 < expected < 0.1
    assert deviations[7:] == [pytest.approx(expected)] * 4
    alone = RobustProportionClassifier().fit(data.X_labeled, data.y)
    predicted = data.bags.proportions_of(alone.predict(data.bags.X), exact.classes_)
    before = sum_absolute_error(data.bags.proportions, predicted).mean()
    assert exact.history_[-1]["sum_absolute_error"] < before / 2
    assert exact.label_log_.n_rounds == 11
    assert_array_equal(exact.label_log_.replay(), exact.signed_labels_)
    assert set(np.unique(exact.signed_labels_)) <= {0, 1}
    right = (exact.signed_labels_ > 0)[np.arange(len(data.y_bags)), data.y_bags]
    assert right.mean() > 0.8


@pytest.mark.parametrize("n_classes", [2, 3, 5, 9])
@pytest.mark.parametrize("deviation", [0.01, 0.05])
def test_standard_deviation_of_one_share_whatever_the_number_of_classes(n_classes, deviation):
    """Errors of the selector's own model: normal shares that sum to 0, over chi square by bag."""
    rng = np.random.default_rng(n_classes)
    normal = rng.normal(0, deviation, (20_000, n_classes))
    normal -= normal.mean(axis=1, keepdims=True)
    errors = normal / np.sqrt(rng.chisquare(3, (20_000, 1)) / 3)
    assert robust._standard_deviation(errors, n_classes - 1) == pytest.approx(deviation, rel=0.03)
    errors[:6000] = rng.uniform(-1, 1, (6000, n_classes))  # 30% of other slides
    assert robust._standard_deviation(errors, n_classes - 1) < 2.5 * deviation


@pytest.mark.parametrize("share_of_others", [0.0, 0.6])
def test_error_of_records_that_are_shares_of_some_classes(share_of_others):
    """Errors of shares among two of three classes, however many instances are of the third."""
    rng = np.random.default_rng(0)
    n_bags, deviation = 400, 0.05
    true = rng.uniform(0.2, 0.8, n_bags)
    told = true + deviation * rng.standard_t(3, n_bags) / np.sqrt(2)
    told = np.clip(told, 0.0, 1.0)
    shares = pd.DataFrame({"a": told, "b": 1 - told}, index=np.arange(n_bags))
    bags = Bags(np.zeros((n_bags, 1)), np.arange(n_bags), shares, among=["a", "b"])
    model = RobustProportionClassifier()
    model.classes_ = np.array(["a", "b", "c"])
    mass = 1 - share_of_others
    supported = np.stack([mass * true, mass * (1 - true), np.full(n_bags, 1 - mass)], axis=1)
    model._judge(bags.with_classes(model.classes_), supported)
    assert model.record_deviation_ == pytest.approx(deviation, rel=0.15)


@pytest.mark.parametrize("n_labeled", [40, 120])
def test_of_many_features_the_components_are_found_by_another_method(monkeypatch, n_labeled):
    """The same model, up to directions of little variance."""
    data = make_bags(20, bag_size=30, n_features=60, class_separation=0.5, random_state=0)
    rows = np.random.default_rng(0).permutation(len(data.y))[:n_labeled]
    X, y = data.X_labeled[rows], data.y[rows]
    clf = RobustProportionClassifier(n_components=12, random_state=0)
    for bags in (None, data.bags):  # 40 or 120 instances: singular vectors; 640 or more: randomized
        expected = clf.fit(X, y, bags).predict_proba(data.X_test)
        with monkeypatch.context() as patch:
            patch.setattr(_projection, "N_EXACT_FEATURES", 59)
            found = clf.fit(X, y, bags).predict_proba(data.X_test)
            again = clf.fit(X, y, bags).predict_proba(data.X_test)
        assert_array_equal(found, again)
        assert np.abs(found - expected).max() < (1e-3 if bags is None else 0.1)
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98


def test_values_that_give_the_components_are_bounded(data, monkeypatch):
    seen = []
    original = _learners.principal_components
    monkeypatch.setattr(
        _learners,
        "principal_components",
        lambda X, *rest: seen.append(X.shape) or original(X, *rest),
    )
    monkeypatch.setattr(_projection, "N_SAMPLE_VALUES", 16 * 90)
    for n_components, expected in ((5, 90), (70, 140)):
        clf = RobustProportionClassifier(n_components=n_components, random_state=0)
        clf.fit(data.X_labeled, data.y, data.bags)
        assert seen.pop() == (expected, 16)


@pytest.mark.parametrize("size", [3e38, 1e31])
def test_features_that_overflow_are_refused(data, size):
    X = data.X_labeled.copy()
    X[::2, 3] = size
    for clf in (RobustProportionClassifier(), NegativePseudoLabelClassifier(max_epochs=1)):
        with pytest.raises(
            ValueError, match=r"Feature 3 has mean \S+ and standard deviation .*1e\+30"
        ):
            clf.fit(X, data.y)


def test_large_and_tiny_features_are_learned_from(data):
    """As long as they can be standardized."""
    scale = np.float32(10.0) ** np.linspace(-25, 25, 16, dtype=np.float32)
    expected = fit(data, data.bags).predict_proba(data.X_test)
    clf = RobustProportionClassifier(random_state=0)
    clf.fit(data.X_labeled * scale, data.y, data.bags.with_instances(data.bags.X * scale))
    assert_allclose(clf.predict_proba(data.X_test * scale), expected, atol=1e-3)


def test_instances_that_overflow_are_refused_in_fit_and_prediction(data, monkeypatch):
    X = data.X_test.copy()
    X[[7, 9]] = 3e38
    clf = fit_of(data.X_labeled / 1000, data.y, None)
    with pytest.raises(FloatingPointError, match=r"^2 of 400 instances .* \(first: number 7\)"):
        clf.predict(X)
    monkeypatch.setattr(_projection, "N_SAMPLE", 100)
    far = data.bags.X.copy()
    far[5] = 3.3e38
    with pytest.raises(ValueError, match=r"Instance 5 of bag 4 is \S+ times as far"):
        fit(data, data.bags.with_instances(far))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floating_point_types(data, dtype):
    """Half precision overflows at 65504, which no step before the logits may do."""

    def scaled(X):
        return (X * 4000).clip(-65000, 65000).astype(dtype)

    half = fit_of(scaled(data.X_labeled), data.y, data.bags.with_instances(scaled(data.bags.X)))
    full = fit_of(
        *(scaled(data.X_labeled).astype(np.float32), data.y),
        data.bags.with_instances(scaled(data.bags.X).astype(np.float32)),
    )
    X = scaled(data.X_test)
    expected = full.predict_proba(X.astype(np.float32))
    assert_array_equal(half.predict_proba(X), expected)
    assert_array_equal(half.estimator_.predict_proba(X), expected)


def fit_of(X, y, bags):
    return RobustProportionClassifier(random_state=0).fit(X, y, bags)


def test_constant_features_say_nothing(data):
    def widened(X):
        constant = np.broadcast_to(np.float32([0, 0.1, 65504]), (len(X), 3))
        return np.hstack([X, constant])

    clf = fit_of(widened(data.X_labeled), data.y, data.bags.with_instances(widened(data.bags.X)))
    assert (clf.predict(widened(data.X_test)) == fit(data, data.bags).predict(data.X_test)).all()
    with pytest.warns(UserWarning, match="All 6 labeled patches have the same 4 features"):
        nothing = fit_of(np.ones((6, 4)), [0, 1] * 3, None)
    assert_allclose(nothing.predict_proba(np.ones((2, 4))), 0.5)


def test_doubtful_bags_teach_nothing_in_the_last_rounds(data, exact):
    """Whatever stands in the record of a bag of weight 0."""
    weights = np.ones(30)
    weights[4] = 0
    other = data.bags.proportions.copy()
    other[4] = other[4][::-1]
    one = fit(data, with_proportions(data.bags, data.bags.proportions, weights=weights))
    two = fit(data, with_proportions(data.bags, other, weights=weights))
    assert_allclose(
        one.predict_proba(data.X_test), two.predict_proba(data.X_test), rtol=0, atol=1e-5
    )
    logs = [clf.predict_log_proba(data.X_test) for clf in (one, two, exact)]
    assert_allclose(logs[0], logs[1], rtol=0, atol=0.01)
    assert np.abs(logs[0] - logs[2]).max() > 0.1  # here the bag counts


def test_within_intervals_no_bag_is_doubtful(data):
    proportions = np.roll(data.bags.proportions, 1, axis=0)
    wide = with_proportions(
        data.bags, proportions, lower=proportions * 0, upper=proportions * 0 + 1
    )
    clf = fit(data, wide)
    assert not clf.bag_reliability_["doubtful"].any()
    assert clf.trust_ == 1


def test_proportions_that_tell_nothing_apart(data):
    flat = np.full(data.bags.proportions.shape, 0.25)
    with pytest.warns(IdentifiabilityWarning, match="its share is the same in all bags"):
        fit(data, with_proportions(data.bags, flat))


def test_records_need_not_tell_the_classes_apart_that_they_say_nothing_about():
    data = make_bags(n_bags=12, bag_size=40, n_classes=3, random_state=0)
    shares = data.bags.proportions[:, :2]
    shares = shares / shares.sum(axis=1, keepdims=True)
    bag_ids = data.bags.names[data.bags.index]
    bags = Bags(data.bags.X, bag_ids, pd.DataFrame(shares, data.bags.names, [0, 1]), among=[0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error", IdentifiabilityWarning)
        RobustProportionClassifier(n_rounds=2).fit(data.X_labeled, data.y, bags)
    same = pd.DataFrame(np.full((12, 2), 0.5), data.bags.names, [0, 1])
    with pytest.warns(IdentifiabilityWarning):
        RobustProportionClassifier(n_rounds=2).fit(
            data.X_labeled, data.y, Bags(data.bags.X, bag_ids, same, among=[0, 1])
        )


def test_weights_of_bags_reach_the_losses(data):
    """A bag of weight 0 is as good as absent; weights change what is learned."""
    common = {"negative_selector": None, "max_epochs": 5, "random_state": 0, "refit": False}
    clf = NegativePseudoLabelClassifier(**common)
    plain = clf.fit(data.X_labeled, data.y, data.bags).predict_proba(data.X_test)
    ones = with_proportions(data.bags, data.bags.proportions, weights=np.ones(30))
    assert_array_equal(clf.fit(data.X_labeled, data.y, ones).predict_proba(data.X_test), plain)
    none = with_proportions(data.bags, data.bags.proportions, weights=np.zeros(30))
    without = NegativePseudoLabelClassifier(**{**common, "positive_selector": None})
    alone = without.fit(data.X_labeled, data.y, data.bags)
    assert alone.termination_condition_ == "no_selector"
    zero = clf.fit(data.X_labeled, data.y, none)
    assert np.abs(zero.predict_proba(data.X_test) - plain).max() > 1e-3


class Undecided(Selector):
    """Soft labels that name no class: the same share for all."""

    def select(self, probabilities, bag_index, bag_proportions):
        return np.full(probabilities.shape, 1 / probabilities.shape[1], dtype=np.float32)


def test_soft_labels_are_trained_on_as_they_are_and_recorded_where_they_are_above_one_half(data):
    common = {"negative_selector": None, "max_epochs": 10, "random_state": 0}
    undecided = NegativePseudoLabelClassifier(positive_selector=Undecided(), **common)
    undecided.fit(data.X_labeled, data.y, data.bags)
    assert not undecided.signed_labels_.any()
    assert undecided.label_log_.to_frame().empty

    decided = NegativePseudoLabelClassifier(positive_selector=SoftAssignmentSelector(), **common)
    decided.fit(data.X_labeled, data.y, data.bags)
    assert decided.signed_labels_.dtype == np.int8
    assert set(np.unique(decided.signed_labels_)) == {0, 1}
    assert decided.signed_labels_.sum(axis=1).max() == 1
    assert_array_equal(decided.label_log_.replay(), decided.signed_labels_)
    confidence = [clf.predict_proba(data.bags.X).max(axis=1).mean() for clf in (undecided, decided)]
    assert confidence[0] < confidence[1] - 0.1


def test_distances_of_a_record_that_says_less_follow_the_prediction(data):
    """The predominant class is recorded: within wide bounds of each share nearly any prediction would lie."""
    largest = np.roll(data.bags.proportions, 1, axis=1).argmax(axis=1)  # of a bag no class it has
    bags = Bags.from_predominant(
        data.bags.X, data.bags.names[data.bags.index], largest, classes=range(4)
    )
    clf = RobustProportionClassifier()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clf.fit(data.X_labeled, data.y, bags)
    table = clf.bag_reliability_.loc[bags.names]
    supported = table[[f"supported_{c}" for c in clf.classes_]].to_numpy()
    differences = bags.record.nearest(supported) - supported
    assert_allclose(table["distance"], np.abs(differences).sum(axis=1), atol=1e-12)
    within = nearest_proportions(supported, bags.lower, bags.upper) - supported
    assert (np.abs(differences).sum(axis=1) > np.abs(within).sum(axis=1) + 0.05).any()


def test_doubtful_records_without_a_weight_do_not_count(data):
    """Wrong records of bags of weight 0 say nothing about those of the others."""
    bags = data.bags
    wrong = bags.proportions.copy()
    wrong[1::2] = np.roll(wrong[1::2], 1, axis=1)
    weights = np.tile([1.0, 0.0], bags.n_bags)[: bags.n_bags]
    clf = RobustProportionClassifier(random_state=0)
    found = [
        clf.fit(
            data.X_labeled, data.y, Bags(bags.X, bags.index, recorded, weights=weights)
        ).instance_weight_
        for recorded in (bags.proportions, wrong)
    ]
    assert clf.bag_reliability_["doubtful"].sum() > 3
    assert found[1] < 1.5 * found[0]
