"""Calibration and uncertainty: by hand, against scikit-learn, and the trap of training patches."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss

from proportion_ssl.datasets import make_bags
from proportion_ssl.evaluation import (
    apply_temperature,
    entropy_uncertainty,
    fit_temperature,
    fit_temperature_to_records,
    margin_uncertainty,
    reliability,
    risk_coverage,
)


def draw_calibrated(n, rng, n_classes=3, sharpness=1.5):
    """Probabilities and labels drawn from them."""
    logits = sharpness * rng.normal(size=(n, n_classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1)
    return p, np.minimum(labels, n_classes - 1)


def slow_ece(confidence, right, n_bins):
    total = 0.0
    for i in range(n_bins):
        own = (confidence > i / n_bins) & (confidence <= (i + 1) / n_bins)
        if own.any():
            total += own.mean() * abs(right[own].mean() - confidence[own].mean())
    return total


def test_reliability_against_slow_loops_and_scikit_learn():
    p, y = draw_calibrated(2000, np.random.default_rng(0))
    found = reliability(y, p, n_bins=7)
    assert_allclose(found.ece, slow_ece(p.max(axis=1), p.argmax(axis=1) == y, 7))
    for c in range(3):
        row = found.per_class.loc[c]
        assert_allclose(row["brier"], brier_score_loss(y == c, p[:, c]))
        assert_allclose(row["ece"], slow_ece(p[:, c], y == c, 7))
        assert_allclose(row["share"], (y == c).mean())
    assert_allclose(found.brier, found.per_class["brier"].sum())
    assert found.bins["n"].sum() == found.n == 2000
    assert (found.bins["confidence"] <= found.bins["high"]).all()
    assert (found.bins["confidence"] > found.bins["low"]).all()


def test_calibrated_probabilities_have_a_small_error_and_temperature_1():
    p, y = draw_calibrated(40_000, np.random.default_rng(1))
    assert reliability(y, p).ece < 0.01
    assert fit_temperature(y, p) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_temperature_is_found_again(temperature):
    p, y = draw_calibrated(20_000, np.random.default_rng(2))
    sharpened = apply_temperature(p, 1 / temperature)
    found = fit_temperature(y, sharpened)
    assert found == pytest.approx(temperature, rel=0.05)
    assert_allclose(apply_temperature(apply_temperature(p, 0.4), 2.5), p, atol=1e-9)
    for other in (0.97 * found, 1.03 * found):
        assert log_loss(y, apply_temperature(sharpened, found)) < log_loss(
            y, apply_temperature(sharpened, other)
        )


def test_temperature_by_records_makes_bags_as_sure_as_they_may_be():
    """By hand: the shares predicted and recorded overlap by 0.7, so that 0.9 sure is too sure."""
    probabilities = np.tile([[0.9, 0.1], [0.1, 0.9]], (5, 1))
    record = np.array([[0.8, 0.2]])
    bags = np.zeros(10, dtype=int)
    found = fit_temperature_to_records(probabilities, bags, record, record)
    assert found == pytest.approx(np.log(9) / np.log(7 / 3), abs=1e-3)
    assert_allclose(apply_temperature(probabilities, found).max(axis=1), 0.7, atol=1e-4)
    rough = record - 0.1, record + 0.1  # now 0.8 may be right
    rougher = fit_temperature_to_records(probabilities, bags, *rough)
    assert rougher == pytest.approx(np.log(9) / np.log(4), abs=1e-3)
    nothing = np.zeros_like(record), np.ones_like(record)
    assert fit_temperature_to_records(probabilities, bags, *nothing) == 1
    impossible = np.array([[1.0, 0.0]])
    one = np.array([[0.1, 0.9]])
    assert fit_temperature_to_records(one, [0], impossible, impossible) == 20


@pytest.mark.parametrize("seed", range(4))
def test_temperature_by_records_helps_on_new_slides(seed):
    data = make_bags(n_labeled_slides=6, n_test_slides=12, class_separation=0.7, random_state=seed)
    model = LogisticRegression(max_iter=2000).fit(data.X_labeled, data.y)
    new, bags = model.predict_proba(data.X_test), data.bags
    found = fit_temperature_to_records(
        model.predict_proba(bags.X), bags.index, bags.lower, bags.upper
    )
    before, after = (reliability(data.y_test, p).ece for p in (new, apply_temperature(new, found)))
    assert after < 0.6 * before


@pytest.mark.parametrize("n", [3, 40, 2000])
def test_predictions_without_an_error_have_a_temperature_within_the_range(n):
    """With equal margins the mean probability is exactly that of one more patch of unknown class."""
    y = np.arange(n) % 3
    p = np.where(np.eye(3)[y] > 0, 0.98, 0.01)
    found = apply_temperature(p, fit_temperature(y, p))
    assert_allclose(found[np.arange(n), y], 1 - 2 / (3 * (n + 1)), rtol=1e-3)


def test_temperature_of_training_patches_makes_new_slides_worse():
    """The trap: a classifier is right and sure where it was trained."""
    data = make_bags(
        n_labeled_slides=6, n_test_slides=12, class_separation=0.5, n_features=40, random_state=0
    )
    model = LogisticRegression(max_iter=2000).fit(data.X_labeled, data.y)
    new = model.predict_proba(data.X_test)
    before = reliability(data.y_test, new).ece
    trap = fit_temperature(data.y, model.predict_proba(data.X_labeled))
    after_trap = reliability(data.y_test, apply_temperature(new, trap)).ece
    kept = np.isin(data.groups_test, np.unique(data.groups_test)[::2])
    honest = fit_temperature(data.y_test[kept], new[kept])
    left = reliability(data.y_test[~kept], apply_temperature(new[~kept], honest)).ece
    assert trap < 1 < honest
    assert after_trap > 1.2 * before and after_trap > 2 * left
    assert left < reliability(data.y_test[~kept], new[~kept]).ece


def test_bad_probabilities_and_labels():
    good = [[0.5, 0.5]]
    for wrong, message in (
        ([0.5, 0.5], "shape"),
        ([[0.5, 0.6]], "sum to 1 by row"),
        ([[np.nan, 1.0]], "sum to 1 by row"),
        ([[1.5, -0.5]], "at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            reliability([0], wrong)
    with pytest.raises(ValueError, match="y_true holds 2, which is not among the classes"):
        reliability([2], good)
    with pytest.raises(ValueError, match="n_bins must be at least 1"):
        reliability([0], good, n_bins=0)
    with pytest.raises(ValueError, match="there are 1 patches"):
        fit_temperature([0, 1], good)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        apply_temperature(good, 0)
    with pytest.raises(ValueError, match="hold NaN"):
        fit_temperature_to_records(good, [0], [[np.nan, 1]], [[np.nan, 1]])
    with pytest.raises(ValueError, match="one index from 0 to 1"):
        fit_temperature_to_records(good, [0], [[0.5, 0.5]] * 2, [[0.5, 0.5]] * 2)


def test_constant_and_one_class_predictions_are_defined():
    constant = reliability([0, 1, 0, 0], [[0.75, 0.25]] * 4)
    assert constant.ece == 0 and len(constant.bins) == 1
    single = reliability(["a", "a"], [[1.0], [1.0]], classes=["a"])
    assert single.ece == single.brier == 0
    assert fit_temperature(["a", "a"], [[1.0], [1.0]], classes=["a"]) > 0
    assert entropy_uncertainty([[1.0]]).tolist() == margin_uncertainty([[1.0]]).tolist() == [0.0]


# --- uncertainty --------------------------------------------------------------------------------


def test_uncertainties_against_scipy_and_by_hand():
    p, _ = draw_calibrated(50, np.random.default_rng(4))
    assert_allclose(entropy_uncertainty(p), stats.entropy(p, axis=1, base=3))
    ordered = np.sort(p, axis=1)
    assert_allclose(margin_uncertainty(p), 1 - ordered[:, -1] + ordered[:, -2])
    assert entropy_uncertainty([[0.0, 1.0, 0.0]]).tolist() == [0.0]


def test_risk_coverage_against_a_slow_loop():
    rng = np.random.default_rng(5)
    unsure, right = rng.integers(0, 10, 200) / 10, rng.random(200) < 0.7
    curve = risk_coverage(right, unsure)
    for coverage, risk, threshold in zip(curve.coverage, curve.risk, curve.threshold, strict=True):
        kept = unsure <= threshold
        assert coverage == kept.mean() and risk == pytest.approx((~right[kept]).mean())
    assert len(curve.coverage) == 10 and curve.coverage[-1] == 1


def test_area_is_the_least_when_wrong_patches_come_last():
    right = np.array([True] * 8 + [False] * 2)
    best = risk_coverage(right, np.arange(10))
    worst = risk_coverage(right, -np.arange(10))
    constant = risk_coverage(right, np.zeros(10))
    assert_allclose(best.area, (1 / 9 + 2 / 10) / 10)
    assert best.area < constant.area < worst.area
    assert constant.area == pytest.approx(0.2) and constant.coverage.tolist() == [1.0]
    with pytest.raises(ValueError, match="uncertainty contains NaN"):
        risk_coverage([True], [np.nan])
    with pytest.raises(ValueError, match="one value per patch"):
        risk_coverage([], [])


def test_missing_labels_are_refused():
    probabilities = np.full((4, 2), 0.5)
    for function in (reliability, fit_temperature):
        with pytest.raises(ValueError, match="y_true holds 2 missing values"):
            function(np.array([0, None, 1, None], dtype=object), probabilities, classes=[0, 1])
