"""Smoothing over neighboring patches: against enumeration, limits, invariances, known truth."""

from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import softmax

from proportion_ssl import SoftAssignmentSelector, mean_iou_score
from proportion_ssl.segmenter import choose_weight, smooth_probabilities
from proportion_ssl.segmenter.context import WEIGHTS, _turns

GRID = np.array([[r, c] for r in range(2) for c in range(3)])


def random_probabilities(n, n_classes=3, seed=0, alpha=1.0):
    return np.random.default_rng(seed).dirichlet(np.full(n_classes, alpha), n)


def touching(cells):
    """Pairs of neighbors, found pair by pair."""
    return [
        (i, j)
        for i in range(len(cells))
        for j in range(i)
        if np.abs(cells[i] - cells[j]).max() == 1
    ]


def log_weights(cells, probabilities, weight):
    """All labelings of a tiny grid, and minus the energy of each."""
    labelings = np.array(list(product(range(probabilities.shape[1]), repeat=len(cells))))
    own = np.log(probabilities)[np.arange(len(cells)), labelings].sum(axis=1)
    equal = sum((labelings[:, i] == labelings[:, j]).astype(float) for i, j in touching(cells))
    return labelings, own + weight * equal


def exact_marginals(cells, probabilities, weight):
    labelings, values = log_weights(cells, probabilities, weight)
    p = np.exp(values - values.max())
    p /= p.sum()
    return np.stack([p @ (labelings == c) for c in range(probabilities.shape[1])], axis=1)


def lower_bound(cells, probabilities, weight, q):
    own = (q * (np.log(probabilities) - np.log(q))).sum()
    return own + weight * sum((q[i] * q[j]).sum() for i, j in touching(cells))


class TestAgainstEnumeration:
    @pytest.mark.parametrize("seed", range(5))
    def test_exact_to_first_order_in_the_weight(self, seed):
        f = random_probabilities(len(GRID), seed=seed)
        errors = [
            np.abs(
                smooth_probabilities(GRID, f, weight, tol=1e-12) - exact_marginals(GRID, f, weight)
            ).max()
            for weight in (1e-2, 1e-3)
        ]
        moved = np.abs(exact_marginals(GRID, f, 1e-2) - f).max()
        assert errors[0] < 0.05 * moved
        assert errors[1] < 0.02 * errors[0]

    @pytest.mark.parametrize("weight", [0.1, 0.5, 2.0])
    def test_every_turn_raises_a_lower_bound_of_the_log_likelihood(self, weight):
        f = random_probabilities(len(GRID))
        _, values = log_weights(GRID, f, weight)
        total = np.logaddexp.reduce(values)
        turns = _turns(GRID, f, weight, np.zeros(len(GRID), dtype=int))
        bounds = [lower_bound(GRID, f, weight, f)]
        bounds += [lower_bound(GRID, f, weight, next(turns)) for _ in range(30)]
        assert (np.diff(bounds) > -1e-12).all() and bounds[1] > bounds[0]
        assert bounds[-1] <= total + 1e-12
        assert bounds[-1] - bounds[-2] < 1e-6

    @pytest.mark.parametrize("seed", range(5))
    def test_labels_of_sure_patches_are_those_of_least_energy(self, seed):
        f = random_probabilities(len(GRID), seed=seed) ** 40
        f /= f.sum(axis=1, keepdims=True)
        f = f.clip(1e-200)
        labelings, values = log_weights(GRID, f, 0.5)
        found = smooth_probabilities(GRID, f, 0.5).argmax(axis=1)
        assert_array_equal(found, labelings[values.argmax()])

    def test_a_fixed_point(self):
        f = random_probabilities(len(GRID))
        q = smooth_probabilities(GRID, f, 0.3, tol=1e-13)
        field = np.zeros_like(q)
        for i, j in touching(GRID):
            field[i] += q[j]
            field[j] += q[i]
        expected = f * np.exp(0.3 * field)
        assert_allclose(q, expected / expected.sum(axis=1, keepdims=True), atol=1e-10)


class TestLimits:
    def test_weight_0_changes_nothing(self):
        f = random_probabilities(len(GRID))
        smoothed = smooth_probabilities(GRID, f, 0.0)
        assert_array_equal(smoothed, f)
        assert smoothed is not f

    def test_patches_without_neighbors_stay_what_they_are(self):
        f = random_probabilities(3)
        apart = [[0, 0], [0, 2], [5, 1]]
        assert_allclose(smooth_probabilities(apart, f, 3.0), f, rtol=1e-12)
        assert_allclose(smooth_probabilities([[7, 7]], f[:1], 3.0), f[:1], rtol=1e-12)

    def test_patches_of_other_slides_are_no_neighbors(self):
        f = random_probabilities(12)
        cells, slides = np.vstack([GRID, GRID + [0, 3]]), np.repeat(["b", "a"], 6)
        together = smooth_probabilities(cells, f, 0.7, slide_ids=slides, tol=1e-10)
        alone = [smooth_probabilities(GRID, part, 0.7, tol=1e-10) for part in (f[:6], f[6:])]
        assert_allclose(together, np.vstack(alone), atol=1e-9)
        joined = smooth_probabilities(cells, f, 0.7, tol=1e-10)
        assert np.abs(joined - together).max() > 0.01

    def test_a_large_weight_makes_one_label(self):
        f = random_probabilities(len(GRID), alpha=20.0)
        assert len(set(smooth_probabilities(GRID, f, 50.0).argmax(axis=1))) == 1

    def test_what_is_impossible_stays_so(self):
        f = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
        smoothed = smooth_probabilities([[0, 0], [0, 1]], f, 2.0)
        assert_allclose(smoothed, f)

    def test_no_patch_at_all(self):
        empty = smooth_probabilities(np.zeros((0, 2), dtype=int), np.zeros((0, 3)), 0.0)
        assert empty.shape == (0, 3)


class TestInvariance:
    CELLS = np.random.default_rng(1).permutation(
        np.array([[r, c] for r in range(7) for c in range(9)])
    )[:50]

    def smooth(self, cells, f):
        return smooth_probabilities(cells, f, 0.15, tol=1e-12, max_iter=1000)

    def test_order_of_patches_and_classes(self):
        f, order = random_probabilities(50), np.random.default_rng(2).permutation(50)
        moved = self.smooth(self.CELLS[order], f[np.ix_(order, [2, 0, 1])])
        assert_allclose(moved, self.smooth(self.CELLS, f)[np.ix_(order, [2, 0, 1])], atol=1e-9)

    @pytest.mark.parametrize("turn", [[[0, 1], [1, 0]], [[-1, 0], [0, 1]], [[0, -1], [1, 0]]])
    def test_the_grid_moved_turned_and_mirrored(self, turn):
        f = random_probabilities(50)
        moved = self.smooth(self.CELLS @ np.array(turn) + [3, -20], f)
        assert_allclose(moved, self.smooth(self.CELLS, f), atol=1e-9)


def tissue(seed, side=24, n_slides=3, n_classes=3):
    """Slides of three bands, and probabilities of a net that errs in each patch by itself."""
    rng = np.random.default_rng(seed)
    cells = np.array([[r, c] for r in range(side) for c in range(side)])
    labels = np.minimum((cells[:, 0] + cells[:, 1]) * n_classes // (2 * side - 1), n_classes - 1)
    cells, labels = np.tile(cells, (n_slides, 1)), np.tile(labels, n_slides)
    slides = np.repeat(np.arange(n_slides), side**2)
    logits = rng.normal(0, 1, (len(labels), n_classes)) + np.eye(n_classes)[labels]
    f = np.exp(logits)
    return cells, f / f.sum(axis=1, keepdims=True), labels, slides


def shares_of(q, slides):
    return np.stack([q[slides == slide].mean(axis=0) for slide in np.unique(slides)])


class TestKnownTruth:
    def test_neighbors_tell_what_a_patch_alone_does_not(self):
        cells, f, labels, slides = tissue(0)
        weight = choose_weight(cells, f, labels, slides, classes=[0, 1, 2])
        cells, f, labels, slides = tissue(1)
        smoothed = smooth_probabilities(cells, f, weight, slide_ids=slides)
        before, after = ((p.argmax(axis=1) == labels).mean() for p in (f, smoothed))
        assert before < 0.7 and after > 0.9

    def test_weight_0_is_chosen_where_neighbors_mislead(self):
        """Four classes such that no two neighbors are of the same."""
        cells, rng = (
            np.array([[r, c] for r in range(24) for c in range(24)]),
            np.random.default_rng(0),
        )
        labels = 2 * (cells[:, 0] % 2) + cells[:, 1] % 2
        f = np.exp(rng.normal(0, 1, (len(cells), 4)) + 2 * np.eye(4)[labels])
        f /= f.sum(axis=1, keepdims=True)
        slides = np.repeat(["one", "two"], len(cells) // 2)
        assert choose_weight(cells, f, labels, slides, classes=range(4)) == 0

    def test_patches_without_a_label_are_smoothed_and_not_scored(self):
        cells, f, labels, slides = tissue(0)
        known = labels.astype(object)
        known[::2] = None
        known[1::4] = np.nan
        scored = choose_weight(cells, f, known, slides, classes=[0, 1, 2], weights=[0.4, 0.0])
        assert scored == 0.4

    @pytest.mark.parametrize("weight", [0.1, 0.3])
    def test_with_the_record_first_neighbors_help_and_shares_stay(self, weight):
        cells, f, labels, slides = tissue(0)
        f = f * [1, 6, 1]  # a net that prefers one class
        f /= f.sum(axis=1, keepdims=True)
        recorded = shares_of(np.eye(3)[labels], slides)
        labeled = SoftAssignmentSelector(0.01).transform(
            f, bag_ids=slides, bag_proportions=recorded
        )
        both = smooth_probabilities(cells, labeled, weight, slide_ids=slides, keep_shares=True)
        assert_allclose(shares_of(both, slides), shares_of(labeled, slides), atol=2e-4)
        assert_allclose(both.sum(axis=1), 1)
        alone = smooth_probabilities(cells, f, weight, slide_ids=slides)
        net, context, record, together = (
            (q.argmax(axis=1) == labels).mean() for q in (f, alone, labeled, both)
        )
        assert record > net + 0.02
        assert together > max(record, context) + 0.02

    @pytest.mark.slow
    def test_weight_of_neighbors_beside_records(self):
        """The record settles more of the errors that neighbors alone would spread."""
        cells, f, labels, slides = tissue(0)
        f = f * [1, 6, 1]
        f /= f.sum(axis=1, keepdims=True)
        labeled = SoftAssignmentSelector(0.01).transform(
            f, bag_ids=slides, bag_proportions=shares_of(np.eye(3)[labels], slides)
        )
        given = {"classes": [0, 1, 2], "keep_shares": True}
        weight = choose_weight(cells, labeled, labels, slides, **given)
        options = {"slide_ids": slides, "keep_shares": True}
        scores = [
            mean_iou_score(
                labels, smooth_probabilities(cells, labeled, w, **options).argmax(axis=1)
            )
            for w in WEIGHTS
        ]
        assert weight == WEIGHTS[int(np.argmax(scores))] > 0


class TestShares:
    def test_best_lower_bound_among_those_with_these_shares(self):
        """Against a general optimizer on a grid of four patches."""
        cells, weight = np.array([[0, 0], [0, 1], [1, 0], [2, 2]]), 0.2
        f = random_probabilities(4)
        found = smooth_probabilities(cells, f, weight, keep_shares=True, tol=1e-8, max_iter=500)

        def loss(logits):
            return -lower_bound(cells, f, weight, softmax(logits.reshape(f.shape), axis=1))

        shares = {
            "type": "eq",
            "fun": lambda x: (softmax(x.reshape(f.shape), axis=1) - f).mean(axis=0)[:2],
        }
        best = minimize(loss, np.log(f).ravel(), constraints=shares, method="SLSQP", tol=1e-10)
        assert best.success
        assert_allclose(found, softmax(best.x.reshape(f.shape), axis=1), atol=2e-3)

    def test_nothing_changes_without_neighbors_or_weight(self):
        f = random_probabilities(5)
        for weight, step in ((0.0, 1), (3.0, 2)):
            cells = np.array([[step * i, 0] for i in range(5)])
            smoothed = smooth_probabilities(cells, f, weight, keep_shares=True)
            assert_allclose(smoothed, f, atol=1e-9)

    def test_a_class_that_is_absent_stays_so(self):
        f = random_probabilities(6)
        f[:, 1] = 0
        f /= f.sum(axis=1, keepdims=True)
        assert not smooth_probabilities(GRID, f, 1.0, keep_shares=True)[:, 1].any()

    def test_shares_are_kept_in_each_slide_by_itself(self):
        f, slides = random_probabilities(12), np.repeat(["b", "a"], 6)
        cells = np.vstack([GRID, GRID])
        q = smooth_probabilities(cells, f, 0.5, slide_ids=slides, keep_shares=True)
        for slide in "ab":
            mine = slides == slide
            assert_allclose(q[mine].mean(axis=0), f[mine].mean(axis=0), atol=2e-4)
            alone = smooth_probabilities(GRID, f[mine], 0.5, keep_shares=True)
            assert_allclose(q[mine], alone, atol=1e-3)


class TestWrongInput:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"weight": -1}, "weight is -1"),
            ({"weight": np.nan}, "weight is nan"),
            ({"cells": GRID[:5]}, "5 cells, 6 rows"),
            ({"cells": GRID.ravel()}, "row and column"),
            ({"cells": GRID + 0.5}, "whole numbers"),
            ({"cells": GRID // 2}, "Two patches of a slide are in row 0, column 0"),
            ({"slide_ids": ["a"]}, "1 slide"),
        ],
    )
    def test_smoothing(self, changes, message):
        options = {"cells": GRID, "probabilities": random_probabilities(6), "weight": 1.0}
        with pytest.raises(ValueError, match=message):
            smooth_probabilities(**{**options, **changes})

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (["a"] * 5, "shape"),
            ([None] * 6, "has no label"),
            (["a"] * 5 + ["d"], "'d', which is not among the classes"),
        ],
    )
    def test_choice(self, y, message):
        with pytest.raises(ValueError, match=message):
            choose_weight(GRID, random_probabilities(6), y, ["s"] * 6, classes=["a", "b", "c"])


class TestStep:
    def test_neighbors_a_step_apart(self):
        f = random_probabilities(4)
        apart = smooth_probabilities([[0, 0], [3, 0], [0, 1], [1, 1]], f, 1.0, step=3)
        pair = smooth_probabilities([[0, 0], [1, 0]], f[:2], 1.0)
        assert_allclose(apart, np.vstack([pair, f[2:]]), atol=1e-3)
        with pytest.raises(ValueError, match="step is 0"):
            smooth_probabilities(GRID, random_probabilities(6), 1.0, step=0)

    def test_a_finer_map_of_the_same_probabilities_is_the_same_map(self):
        f = random_probabilities(len(GRID))
        fine = np.vstack([2 * GRID + shift for shift in ([0, 0], [0, 1], [1, 0], [1, 1])])
        found = smooth_probabilities(fine, np.tile(f, (4, 1)), 0.4, step=2)
        assert_allclose(found, np.tile(smooth_probabilities(GRID, f, 0.4), (4, 1)), atol=1e-3)


def test_groups_are_what_the_gain_is_judged_on():
    cells, f, labels, slides = tissue(0)
    given = {"classes": [0, 1, 2], "groups": np.zeros(len(labels))}
    assert choose_weight(cells, f, labels, slides, classes=[0, 1, 2]) > 0
    assert choose_weight(cells, f, labels, slides, **given) == 0
    with pytest.raises(ValueError, match="groups has 2 values"):
        choose_weight(cells, f, labels, slides, classes=[0, 1, 2], groups=[0, 1])
