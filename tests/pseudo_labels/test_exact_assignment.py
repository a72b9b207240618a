"""Assignment of bags: counts, exact optima against linear programs, soft labels and their limits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import linear_sum_assignment, linprog

from proportion_ssl.pseudo_labels import exact_assignment as assignment
from proportion_ssl.pseudo_labels.exact_assignment import (
    _Narrowing,
    assign,
    count_bounds,
    largest_remainder,
    shares_within,
    sinkhorn,
)


def one_bag(n):
    return np.zeros(n, dtype=np.int64)


def random_scores(rng, n, n_classes, *, ties=False):
    if ties:
        return rng.integers(-3, 1, (n, n_classes)).astype(float)
    return np.log(rng.dirichlet(np.full(n_classes, 0.3), n) + 1e-12)


def total(scores, labels):
    return scores[np.arange(len(labels)), labels].sum()


class TestCounts:
    @pytest.mark.parametrize("seed", range(5))
    def test_largest_remainder_fits_the_bag_and_stays_within_one(self, seed):
        rng = np.random.default_rng(seed)
        shares, sizes = rng.dirichlet(np.full(6, 0.5), 50), rng.integers(1, 300, 50)
        shares[shares < 0.05] = 0
        shares /= shares.sum(axis=1, keepdims=True)
        counts = largest_remainder(shares, sizes)
        assert_array_equal(counts.sum(axis=1), sizes)
        assert (np.abs(counts - sizes[:, None] * shares) < 1).all()
        assert (counts[shares == 0] == 0).all()

    def test_whole_counts_are_kept_in_spite_of_float_error(self):
        assert_array_equal(largest_remainder([[15 / 22, 7 / 22]], [22]), [[15, 7]])

    @pytest.mark.parametrize("seed", range(5))
    def test_bounds_of_no_width_are_the_counts(self, seed):
        rng = np.random.default_rng(seed)
        shares, sizes = rng.dirichlet(np.full(5, 0.5), 40), rng.integers(1, 200, 40)
        fewest, most = count_bounds(shares, shares, sizes)
        assert_array_equal(fewest, most)
        assert_array_equal(fewest, largest_remainder(shares, sizes))

    @pytest.mark.parametrize("seed", range(5))
    def test_bounds_hold_the_interval_and_admit_the_size(self, seed):
        rng = np.random.default_rng(seed)
        shares, sizes = rng.dirichlet(np.full(4, 0.5), 60), rng.integers(1, 60, 60)
        lower, upper = np.clip(shares - 0.1, 0, 1), np.clip(shares + 0.1, 0, 1)
        fewest, most = count_bounds(lower, upper, sizes)
        assert (fewest.sum(axis=1) <= sizes).all() and (most.sum(axis=1) >= sizes).all()
        assert (fewest > sizes[:, None] * lower - 1).all() and (
            most < sizes[:, None] * upper + 1
        ).all()
        inside = shares_within(lower, upper)
        assert_allclose(inside.sum(axis=1), 1)
        assert ((inside >= lower - 1e-12) & (inside <= upper + 1e-12)).all()


class TestAssign:
    @pytest.mark.parametrize("seed", range(60))
    def test_exact_counts_against_the_hungarian_method(self, seed):
        rng = np.random.default_rng(seed)
        n, n_classes = int(rng.integers(1, 40)), int(rng.integers(2, 6))
        scores = random_scores(rng, n, n_classes, ties=seed % 3 == 0)
        counts = largest_remainder(rng.dirichlet(np.full(n_classes, 0.5), 1), [n])
        labels = assign(scores, one_bag(n), counts, counts)
        assert_array_equal(np.bincount(labels, minlength=n_classes), counts[0])
        places = np.repeat(np.arange(n_classes), counts[0])
        rows, columns = linear_sum_assignment(-scores[:, places])
        assert total(scores, labels) == pytest.approx(scores[rows, places[columns]].sum(), abs=1e-9)

    @pytest.mark.parametrize("seed", range(66))
    def test_bounds_against_a_linear_program(self, seed):
        rng = np.random.default_rng([seed, 1])
        smallest, largest = (1, 40) if seed < 60 else (400, 600)
        n, n_classes = int(rng.integers(smallest, largest)), int(rng.integers(2, 6))
        scores = random_scores(rng, n, n_classes, ties=seed % 3 == 0)
        shares, width = rng.dirichlet(np.full(n_classes, 0.5)), rng.uniform(0, 0.3, n_classes)
        fewest, most = count_bounds(
            np.clip(shares - width, 0, 1)[None], np.clip(shares + width, 0, 1)[None], [n]
        )
        labels = assign(scores, one_bag(n), fewest, most)
        counts = np.bincount(labels, minlength=n_classes)
        assert ((counts >= fewest[0]) & (counts <= most[0])).all()
        per_class = np.tile(np.eye(n_classes), n)
        best = linprog(
            -scores.ravel(),
            A_ub=np.concatenate([per_class, -per_class]),
            b_ub=np.concatenate([most[0], -fewest[0]]),
            A_eq=np.kron(np.eye(n), np.ones(n_classes)),
            b_eq=np.ones(n),
            bounds=(0, 1),
        )
        assert total(scores, labels) == pytest.approx(-best.fun, abs=1e-6)

    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("sureness", [0.3, 0.02])
    def test_large_bags_most_of_whose_instances_are_settled_early(self, seed, sureness):
        rng = np.random.default_rng([seed, 2])
        n, n_classes = int(rng.integers(500, 900)), 4
        scores = np.log(rng.dirichlet(np.full(n_classes, sureness), n) + 1e-30)
        if seed % 3 == 0:
            scores = scores.round()
        counts = largest_remainder(rng.dirichlet(np.full(n_classes, 0.7), 1), [n])
        labels = assign(scores, one_bag(n), counts, counts)
        assert_array_equal(np.bincount(labels, minlength=n_classes), counts[0])
        places = np.repeat(np.arange(n_classes), counts[0])
        rows, columns = linear_sum_assignment(-scores[:, places])
        assert total(scores, labels) == pytest.approx(scores[rows, places[columns]].sum(), abs=1e-6)

    def test_what_was_settled_too_early_is_done_again(self, monkeypatch):
        rng = np.random.default_rng(0)
        scores, bag_index = random_scores(rng, 900, 4), np.repeat([0, 1, 2], 300)
        counts = largest_remainder(rng.dirichlet(np.ones(4), 3), [300] * 3)
        expected = assign(scores, bag_index, counts, counts)
        cares, narrow = [], _Narrowing.narrow

        def hasty(self, care, at_most=None):
            cares.append(care)
            narrow(self, care if care > 4 else 1e-3 * care, at_most)

        monkeypatch.setattr(_Narrowing, "narrow", hasty)
        assert_array_equal(assign(scores, bag_index, counts, counts), expected)
        assert max(cares) > 1

    def test_bags_do_not_touch_each_other(self):
        rng = np.random.default_rng(0)
        bag_index = rng.permutation(np.repeat(np.arange(8), [1, 2, 5, 30, 7, 50, 3, 9]))
        scores = random_scores(rng, len(bag_index), 4)
        counts = largest_remainder(rng.dirichlet(np.ones(4), 8), np.bincount(bag_index))
        together = assign(scores, bag_index, counts, counts)
        for bag in range(8):
            rows = bag_index == bag
            alone = assign(scores[rows], one_bag(rows.sum()), counts[[bag]], counts[[bag]])
            assert total(scores[rows], together[rows]) == pytest.approx(total(scores[rows], alone))

    @pytest.mark.parametrize("few", [0, 10**6])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32])
    def test_bags_of_all_sizes_in_blocks(self, monkeypatch, few, dtype):
        # few: whether augmenting paths begin after two or three narrowings
        rng = np.random.default_rng(5)
        sizes = np.concatenate([rng.integers(1, 4, 30), [700], rng.integers(1, 60, 20), [450]])
        bag_index = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
        scores = random_scores(rng, len(bag_index), 4).astype(dtype)
        given = scores.copy()
        counts = largest_remainder(rng.dirichlet(np.full(4, 0.7), len(sizes)), sizes)
        monkeypatch.setattr(assignment, "_FEW", few)
        monkeypatch.setattr(assignment, "AT_ONCE", 500)
        labels = assign(scores, bag_index, counts, counts)
        assert_array_equal(scores, given)
        for bag in range(len(sizes)):
            mine, found = scores[bag_index == bag], labels[bag_index == bag]
            assert_array_equal(np.bincount(found, minlength=4), counts[bag])
            places = np.repeat(np.arange(4), counts[bag])
            rows, columns = linear_sum_assignment(-mine[:, places].astype(float))
            best = mine[rows, places[columns]].astype(float).sum()
            assert total(mine.astype(float), found) == pytest.approx(best, abs=1e-9)

    def test_without_bounds_it_is_the_prediction(self):
        scores = random_scores(np.random.default_rng(0), 50, 3)
        free = assign(scores, one_bag(50), np.zeros((1, 3), int), np.full((1, 3), 50))
        assert_array_equal(free, scores.argmax(axis=1))

    def test_equal_scores_take_instances_in_order(self):
        counts = np.array([[3, 2, 1]])
        labels = assign(np.zeros((6, 3)), one_bag(6), counts, counts)
        assert_array_equal(np.bincount(labels), [3, 2, 1])

    def test_bounds_without_solution(self):
        with pytest.raises(
            ValueError, match="Bag 0 has 3 instances, but its counts must lie between"
        ):
            assign(np.zeros((3, 2)), one_bag(3), np.array([[2, 2]]), np.array([[2, 2]]))


class TestSinkhorn:
    @pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
    def test_means_are_the_proportions(self, temperature):
        rng = np.random.default_rng(0)
        bag_index, scores = np.repeat(np.arange(5), 40), random_scores(rng, 200, 4)
        shares = rng.dirichlet(np.ones(4), 5)
        soft, duals = sinkhorn(
            scores, bag_index, shares, shares, temperature=temperature, max_iter=3000, tol=1e-7
        )
        assert_allclose(soft.sum(axis=1), 1)
        means = np.stack([soft[bag_index == bag].mean(axis=0) for bag in range(5)])
        assert_allclose(means, shares, atol=1e-6)
        logits = (scores + duals[bag_index]) / temperature
        expected = np.exp(logits - logits.max(axis=1, keepdims=True))
        assert_allclose(soft, expected / expected.sum(axis=1, keepdims=True), atol=1e-6)

    def test_a_class_without_share_receives_nothing(self):
        scores = random_scores(np.random.default_rng(0), 30, 3)
        shares = np.array([[0.5, 0.0, 0.5]])
        soft, duals = sinkhorn(scores, one_bag(30), shares, shares)
        assert (soft[:, 1] == 0).all()
        assert np.isneginf(duals[0, 1]) and np.isfinite(duals[0, [0, 2]]).all()

    def test_inside_wide_intervals_nothing_changes(self):
        scores = random_scores(np.random.default_rng(0), 30, 3)
        soft, duals = sinkhorn(scores, one_bag(30), np.zeros((1, 3)), np.ones((1, 3)))
        assert_allclose(soft, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True))
        assert_array_equal(duals, 0)

    def test_intervals_are_met_at_the_nearest_end(self):
        scores = np.log(np.tile([[0.8, 0.15, 0.05]], (40, 1)))
        soft, _ = sinkhorn(
            scores, one_bag(40), np.array([[0.2, 0.0, 0.0]]), np.array([[0.5, 1.0, 1.0]]), tol=1e-8
        )
        assert_allclose(soft.mean(axis=0), [0.5, 0.375, 0.125], atol=1e-6)

    def test_cold_labels_are_the_exact_assignment(self):
        rng = np.random.default_rng(3)
        scores, shares = random_scores(rng, 60, 3), np.array([[0.5, 0.25, 0.25]])
        soft, _ = sinkhorn(
            scores, one_bag(60), shares, shares, temperature=0.01, max_iter=5000, tol=1e-3
        )
        counts = largest_remainder(shares, [60])
        assert (soft.argmax(axis=1) == assign(scores, one_bag(60), counts, counts)).mean() >= 0.98
