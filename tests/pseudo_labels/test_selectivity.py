"""Proportions, sum absolute error and selectivity: closed forms and invariants."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl.proportions import class_proportions, count_per_bag, sum_absolute_error
from proportion_ssl.pseudo_labels import (
    negative_selectivity,
    positive_selectivity,
    selection_counts,
)

# Figure 4 of the paper. Its predicted proportions sum to 0.99, as printed.
FIGURE_4_TRUE = np.array([[0.05, 0.70, 0.15, 0.00, 0.10]])
FIGURE_4_PREDICTED = np.array([[0.07, 0.64, 0.14, 0.00, 0.14]])


def random_proportions(seed, n_bags=50, n_classes=5):
    """Proportions with some exact zeros."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(n_classes, 0.3), n_bags)
    p[p < 0.05] = 0
    return p / p.sum(axis=1, keepdims=True)


def test_sum_absolute_error_of_figure_4():
    assert_allclose(sum_absolute_error(FIGURE_4_TRUE, FIGURE_4_PREDICTED), [0.13])


def test_positive_selectivity_of_figure_4():
    expected = [[0.0435, 0.5568, 0.1218, 0.0, 0.087]]  # 0.87 * min(TCR, PCR), by hand
    assert_allclose(positive_selectivity(FIGURE_4_TRUE, FIGURE_4_PREDICTED), expected)


def test_negative_selectivity_of_figure_4():
    # 0.13 * (0.02 * (1 - 5/7), 0, 0, 0, 0.04 * (1 - 10/14)), by hand
    expected = [[0.13 * 0.02 * 2 / 7, 0, 0, 0, 0.13 * 0.04 * 2 / 7]]
    assert_allclose(negative_selectivity(FIGURE_4_TRUE, FIGURE_4_PREDICTED), expected, atol=1e-16)


def test_negative_selectivity_follows_the_equation_not_the_prose():
    # Section 3.2: 20% predicted, 5% recorded. The prose labels 15%, equation (1) at most 11.25%.
    true = np.array([[0.05, 0.95]])
    predicted = np.array([[0.20, 0.80]])
    assert_allclose(negative_selectivity(true, predicted)[0, 0], 0.3 * 0.15 * 0.75)


def test_sum_absolute_error_stays_within_one():
    assert_array_equal(sum_absolute_error([[1.0, 0.0]], [[0.0, 1.0]]), [1.0])
    assert_array_equal(sum_absolute_error([[0.3, 0.7]], [[0.3, 0.7]]), [0.0])


def test_a_bag_that_is_half_wrong_gets_no_positive_labels():
    assert_array_equal(positive_selectivity([[1.0, 0.0]], [[0.5, 0.5]]), [[0.0, 0.0]])


def test_agreement_labels_everything_positive_and_nothing_negative():
    p = random_proportions(0)
    assert_allclose(positive_selectivity(p, p), p)
    assert_array_equal(negative_selectivity(p, p), np.zeros_like(p))


@pytest.mark.parametrize("seed", range(20))
def test_selectivities_share_the_predicted_instances(seed):
    true, predicted = random_proportions(seed), random_proportions(seed + 100)
    positive, negative = (f(true, predicted) for f in (positive_selectivity, negative_selectivity))
    assert (positive >= 0).all()
    assert (negative >= 0).all()
    assert (positive + negative <= predicted + 1e-12).all()
    assert (negative[predicted <= true] == 0).all()


def test_a_class_that_is_never_predicted_gets_no_negative_label_and_no_nan():
    assert_array_equal(negative_selectivity([[0.5, 0.5, 0]], [[1, 0, 0]])[0, 1:], [0, 0])


@pytest.mark.parametrize("function", [positive_selectivity, negative_selectivity])
def test_order_of_bags_and_classes_does_not_matter(function):
    true, predicted = random_proportions(1), random_proportions(2)
    bags = np.random.default_rng(3).permutation(len(true))
    classes = np.random.default_rng(4).permutation(true.shape[1])
    moved = function(true[bags][:, classes], predicted[bags][:, classes])
    assert_allclose(moved, function(true, predicted)[bags][:, classes])


@pytest.mark.parametrize("seed", range(20))
def test_positive_and_negative_counts_never_overlap(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 60, 200)
    predicted_counts = np.stack([rng.multinomial(n, rng.dirichlet(np.ones(4))) for n in sizes])
    predicted = predicted_counts / sizes[:, None]
    true = random_proportions(seed, 200, 4)
    n_positive = selection_counts(positive_selectivity(true, predicted), sizes)
    n_negative = selection_counts(negative_selectivity(true, predicted), sizes)
    assert (n_positive + n_negative <= predicted_counts).all()


def test_counts_of_shares_that_are_whole_numbers_are_not_lost_to_rounding():
    assert int(22 * (15 / 22)) == 14  # the trap
    n = np.repeat(np.arange(1, 300), 300)
    k = np.tile(np.arange(300), 299)
    n, k = n[k <= n], k[k <= n]
    assert_array_equal(selection_counts((k / n)[:, None], n)[:, 0], k)


def test_counts_round_down():
    assert_array_equal(selection_counts(np.array([[0.199, 0.2, 0.999]]), [10]), [[1, 2, 9]])


@pytest.mark.parametrize("seed", range(5))
def test_class_proportions_against_a_loop(seed):
    rng = np.random.default_rng(seed)
    labels, bags = rng.integers(0, 4, 100), rng.integers(0, 7, 100)
    expected = np.zeros((8, 4))  # bag 7 is empty
    for label, bag in zip(labels, bags, strict=True):
        expected[bag, label] += 1
    assert_array_equal(count_per_bag(labels, bags, n_bags=8, n_classes=4), expected)
    sizes = np.maximum(expected.sum(axis=1, keepdims=True), 1)
    assert_allclose(class_proportions(labels, bags, n_bags=8, n_classes=4), expected / sizes)
