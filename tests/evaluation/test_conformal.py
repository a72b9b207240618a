"""Intervals of predicted proportions: by hand, invariants, and their coverage in simulated cohorts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl.evaluation import conformal_errors, conformal_intervals
from proportion_ssl.proportions.intervals import rounding_interval


def draw_bags(n, rng, n_classes=4):
    """True shares and what a model with a bias and a spread of its own makes of them."""
    true = rng.dirichlet(np.full(n_classes, 0.7), n)
    noise = np.exp(rng.normal(0, 0.4, (n, n_classes)) + np.linspace(-0.2, 0.2, n_classes))
    predicted = (true + 0.01) * noise
    return true, predicted / predicted.sum(axis=1, keepdims=True)


def coverage(n_cohorts, n_bags, level, rng, step=None):
    """Share of new slides inside, and the mean width."""
    inside, width = [], []
    for _ in range(n_cohorts):
        true, predicted = draw_bags(n_bags + 20, rng)
        record = true[:n_bags]
        ends = (record, record)
        if step is not None:
            ends = rounding_interval(np.round(record / step) * step, step)
        errors = conformal_errors(predicted[:n_bags], *ends, level=level)
        low, high = conformal_intervals(predicted[n_bags:], errors)
        inside.append(((low <= true[n_bags:]) & (true[n_bags:] <= high)).mean(axis=0))
        width.append((high - low).mean())
    return np.mean(inside, axis=0), float(np.mean(width))


def test_error_is_the_score_of_the_right_rank():
    rng = np.random.default_rng(0)
    true, predicted = draw_bags(19, rng)
    scores = np.abs(predicted - true) / np.sqrt(predicted * (1 - predicted) + 0.01)
    assert_allclose(
        conformal_errors(predicted, true, true), np.sort(scores, axis=0)[17]
    )  # 18 of 20
    assert_allclose(conformal_errors(predicted, true, true, level=0.95), scores.max(axis=0))
    low, high = conformal_intervals(predicted, scores.max(axis=0))
    assert ((low <= true + 1e-12) & (true <= high + 1e-12)).all()


@pytest.mark.parametrize("n_bags", [9, 20, 50])
def test_coverage_is_at_least_nominal_in_200_cohorts(n_bags):
    inside, width = coverage(200, n_bags, 0.9, np.random.default_rng(1))
    assert (inside >= 0.88).all() and width < 0.9
    if n_bags == 50:
        assert (inside <= 0.95).all()


def test_rough_records_make_intervals_wider_and_still_cover():
    rng = np.random.default_rng(2)
    exact = coverage(60, 30, 0.9, rng)[1]
    inside, rough = coverage(60, 30, 0.9, rng, step=0.1)
    _, rougher = coverage(60, 30, 0.9, rng, step=0.25)
    assert exact < rough < rougher
    assert (inside >= 0.88).all()


def test_too_few_bags_promise_nothing():
    true, predicted = draw_bags(8, np.random.default_rng(3))
    errors = conformal_errors(predicted, true, true)
    assert np.isinf(errors).all()
    low, high = conformal_intervals(predicted, errors)
    assert_array_equal(low, 0.0)
    assert_array_equal(high, 1.0)


def test_classes_and_bags_in_another_order():
    true, predicted = draw_bags(25, np.random.default_rng(4))
    errors = conformal_errors(predicted, true, true)
    order, rows = [2, 0, 3, 1], np.random.default_rng(5).permutation(25)
    moved = conformal_errors(predicted[rows][:, order], true[rows][:, order], true[rows][:, order])
    assert_allclose(moved, errors[order])


def test_bags_without_a_record_are_left_out():
    true, predicted = draw_bags(20, np.random.default_rng(6))
    errors = conformal_errors(predicted, true, true)
    more = np.vstack([true, np.full((3, 4), np.nan)]), np.vstack([predicted, predicted[:3]])
    assert_allclose(conformal_errors(more[1], more[0], more[0]), errors)
    low, high = conformal_intervals(np.full((1, 4), np.nan), errors)
    assert np.isnan(low).all() and np.isnan(high).all()
    with pytest.raises(ValueError, match="No bag has both"):
        conformal_errors(np.full((2, 4), np.nan), true[:2], true[:2])
    with pytest.raises(ValueError, match="percent"):
        conformal_errors(100 * predicted, true, true)
    with pytest.raises(ValueError, match="one error per class"):
        conformal_intervals(predicted, errors[:2])
    with pytest.raises(ValueError, match="level must be in"):
        conformal_errors(predicted, true, true, level=1)
