"""Soft labels from scores and proportions that may be wrong: optimum, limits, and what is believed."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from proportion_ssl import SoftAssignmentSelector
from proportion_ssl.pseudo_labels.soft_assignment import posterior_labels

NORMAL = 1e12  # degrees of freedom of errors that are as good as normal
DEFAULTS = {"standard_deviation": 0.1, "degrees_of_freedom": 3.0, "temperature": 0.1}


def cohort(seed, n_bags=3, n_classes=4, largest=9):
    """Log-probabilities, bags in mixed order, and recorded proportions."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, largest, n_bags)
    index = rng.permutation(np.repeat(np.arange(n_bags), sizes))
    scores = np.log(rng.dirichlet(np.full(n_classes, 0.5), len(index)) + 1e-6)
    return scores, index, rng.dirichlet(np.full(n_classes, 0.7), n_bags)


def slow_optimum(scores, recorded, variance, temperature):
    """Soft labels of one bag by a general minimizer, over the logits of the labels."""

    def cost(logits):
        log_y = log_softmax(logits.reshape(scores.shape), axis=1)
        y = np.exp(log_y)
        misfit = ((y.mean(axis=0) - recorded) ** 2).sum() / (2 * variance)
        return misfit + (temperature * y * log_y - y * scores).sum()

    start = np.zeros(scores.size)  # far from hard labels, where the cost is flat in the logits
    found = minimize(cost, start, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-13})
    return softmax(found.x.reshape(scores.shape), axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("deviation", [0.05, 0.3])
def test_optimum_of_a_general_minimizer(seed, deviation):
    scores, index, recorded = cohort(seed)
    soft = posterior_labels(
        *(scores, index, recorded, recorded),
        standard_deviation=deviation,
        degrees_of_freedom=NORMAL,
        temperature=0.5,
    )
    for bag in range(len(recorded)):
        expected = slow_optimum(scores[index == bag], recorded[bag], deviation**2, 0.5)
        assert_allclose(soft[index == bag], expected, atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_renewed_variances_are_those_of_the_t_distribution(seed):
    scores, index, recorded = cohort(seed, largest=20)
    nu, deviation, n_free = 2.0, 0.1, recorded.shape[1] - 1
    soft = posterior_labels(
        *(scores, index, recorded, recorded),
        standard_deviation=deviation,
        degrees_of_freedom=nu,
        temperature=0.5,
        n_renewals=2,
    )
    for bag in range(len(recorded)):
        mine = scores[index == bag]
        first = slow_optimum(mine, recorded[bag], nu * deviation**2 / (nu + n_free), 0.5)
        distance = ((first.mean(axis=0) - recorded[bag]) ** 2).sum()
        variance = (nu * deviation**2 + distance) / (nu + n_free)
        expected = slow_optimum(mine, recorded[bag], variance, 0.5)
        assert_allclose(soft[index == bag], expected, atol=5e-3)


@pytest.mark.parametrize("seed", range(5))
def test_limits(seed):
    scores, index, recorded = cohort(seed, largest=30)
    sure = posterior_labels(
        *(scores, index, recorded, recorded),
        **{**DEFAULTS, "standard_deviation": 1e-4, "degrees_of_freedom": NORMAL},
    )
    for bag in range(len(recorded)):
        assert_allclose(sure[index == bag].mean(axis=0), recorded[bag], atol=2e-3)
    unsure = posterior_labels(
        *(scores, index, recorded, recorded), **{**DEFAULTS, "standard_deviation": 1e4}
    )
    assert_allclose(unsure, softmax(scores / DEFAULTS["temperature"], axis=1), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_within_an_interval_the_scores_decide(seed):
    scores, index, recorded = cohort(seed)
    wide = posterior_labels(scores, index, recorded * 0, recorded * 0 + 1, **DEFAULTS)
    assert_allclose(wide, softmax(scores / DEFAULTS["temperature"], axis=1), atol=1e-9)


def test_a_bag_does_not_depend_on_the_others_nor_on_order():
    scores, index, recorded = cohort(0, n_bags=5, largest=30)
    soft = posterior_labels(scores, index, recorded, recorded, **DEFAULTS)
    assert_allclose(soft.sum(axis=1), 1)
    for bag in range(5):
        here, one = index == bag, recorded[bag : bag + 1]
        alone = posterior_labels(scores[here], index[here] * 0, one, one, **DEFAULTS)
        assert_allclose(soft[here], alone, atol=1e-12)
    order = np.random.default_rng(1).permutation(len(index))
    moved = posterior_labels(scores[order], index[order], recorded, recorded, **DEFAULTS)
    assert_allclose(moved, soft[order], atol=1e-9)


def test_single_precision_is_enough_for_scores_of_single_precision():
    scores, index, recorded = cohort(1, n_bags=40, largest=300)
    given = scores.astype(np.float32)
    options = {**DEFAULTS, "temperature": np.float64(0.3)}
    soft = posterior_labels(given, index, recorded, recorded, **options)
    assert soft.dtype == np.float32
    exact = posterior_labels(given.astype(np.float64), index, recorded, recorded, **options)
    assert_allclose(soft, exact, atol=1e-5)
    order = np.random.default_rng(1).permutation(len(index))
    moved = posterior_labels(given[order], index[order], recorded, recorded, **options)
    assert_allclose(moved, soft[order], atol=1e-5)
    assert_array_equal(given, scores.astype(np.float32))


def test_bags_of_one_instance_among_larger_ones():
    rng = np.random.default_rng(2)
    sizes = np.array([1, 40, 1, 1, 300, 2])
    index = np.repeat(np.arange(6), sizes)
    scores = np.log(rng.dirichlet(np.full(4, 0.5), len(index)) + 1e-6)
    recorded = rng.dirichlet(np.full(4, 0.7), 6)
    soft = posterior_labels(scores, index, recorded, recorded, **DEFAULTS)
    for bag in range(6):
        here, one = index == bag, recorded[bag : bag + 1]
        alone = posterior_labels(scores[here], index[here] * 0, one, one, **DEFAULTS)
        assert_allclose(soft[here], alone, atol=1e-3)


def test_the_fewer_degrees_of_freedom_the_less_a_record_far_off_is_believed():
    scores, one_bag = np.log([[0.9, 0.1]] * 20), np.zeros(20, dtype=int)
    recorded = np.array([[0.0, 1.0]])
    shares = [
        posterior_labels(
            *(scores, one_bag, recorded, recorded), **{**DEFAULTS, "degrees_of_freedom": nu}
        )[:, 0].mean()
        for nu in (1.0, 3.0, 30.0, NORMAL)
    ]
    assert (np.diff(shares) < 0).all()
    assert shares[0] > 0.9 and shares[-1] < 0.3


def test_probabilities_of_zero_and_one_stay_finite():
    certain = np.eye(3)[np.arange(30) % 3]
    recorded = np.array([[0.0, 0.0, 1.0]])
    soft = SoftAssignmentSelector().transform(certain, bag_proportions=recorded)
    assert np.isfinite(soft).all()
    assert_allclose(soft.sum(axis=1), 1, rtol=1e-5)


def test_selector_is_the_function_of_weighted_log_probabilities():
    scores, index, recorded = cohort(3)
    selector = SoftAssignmentSelector(0.2, degrees_of_freedom=5, instance_weight=0.5, temperature=1)
    expected = posterior_labels(
        *(0.5 * log_softmax(scores, axis=1), index, recorded, recorded),
        standard_deviation=0.2,
        degrees_of_freedom=5,
        temperature=1,
    )
    found = selector.transform(softmax(scores, axis=1), index, recorded)
    assert found.dtype == np.float32
    assert_allclose(found, expected, atol=1e-6)
    assert_array_equal(selector.transform(softmax(scores, axis=1), index), 0)


def test_intervals_of_no_width_are_exact_proportions_bit_for_bit():
    scores, index, recorded = cohort(4, n_bags=6, largest=30)
    probabilities, selector = softmax(scores, axis=1), SoftAssignmentSelector()
    exact = selector.transform(probabilities, index, recorded)
    assert_array_equal(selector.transform(probabilities, index, np.stack([recorded] * 2)), exact)
