"""Picking the most and least confident instances, against a plain loop."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from proportion_ssl.pseudo_labels import (
    merge_rounds,
    pick_least_confident,
    pick_most_confident,
    sign_labels,
)


def pick_by_loop(confidence, predicted, bags, counts, most):
    """Slow and obvious: sort the members of each bag and class, take k from one end."""
    picked = np.zeros(len(confidence), dtype=bool)
    for bag in range(counts.shape[0]):
        for label in range(counts.shape[1]):
            members = [i for i in range(len(bags)) if bags[i] == bag and predicted[i] == label]
            members.sort(key=lambda i: (-confidence[i], i))
            members = members if most else members[::-1]
            picked[members[: counts[bag, label]]] = True
    return picked


def random_case(seed, ties):
    rng = np.random.default_rng(seed)
    n = 120
    confidence = rng.integers(0, 5, n) / 5 if ties else rng.random(n)
    return confidence, rng.integers(0, 3, n), rng.integers(0, 6, n), rng.integers(0, 9, (6, 3))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_picking_against_a_loop(seed, ties):
    confidence, predicted, bags, counts = case = random_case(seed, ties)
    assert_array_equal(
        pick_most_confident(*case), pick_by_loop(confidence, predicted, bags, counts, True)
    )
    assert_array_equal(
        pick_least_confident(*case), pick_by_loop(confidence, predicted, bags, counts, False)
    )


@pytest.mark.parametrize("pick", [pick_most_confident, pick_least_confident])
def test_order_of_instances_does_not_matter_without_ties(pick):
    confidence, predicted, bags, counts = random_case(0, ties=False)
    order = np.random.default_rng(1).permutation(len(bags))
    assert_array_equal(
        pick(confidence[order], predicted[order], bags[order], counts),
        pick(confidence, predicted, bags, counts)[order],
    )


@pytest.mark.parametrize("pick", [pick_most_confident, pick_least_confident])
def test_picking_nothing_and_everything(pick):
    confidence, predicted, bags, counts = random_case(2, ties=False)
    assert not pick(confidence, predicted, bags, np.zeros_like(counts)).any()
    assert pick(confidence, predicted, bags, np.full_like(counts, 1000)).all()


def test_no_instances():
    nothing = np.empty(0, dtype=int)
    assert pick_most_confident(nothing, nothing, nothing, np.array([[3]])).shape == (0,)


def test_one_instance_bags():
    counts = np.array([[1], [0]])
    assert_array_equal(pick_most_confident([0.5, 0.9], [0, 0], [0, 1], counts), [True, False])


@pytest.mark.parametrize("sign", [1, -1])
def test_sign_labels(sign):
    signed = sign_labels(np.array([2, 0]), np.array([True, False]), n_classes=3, sign=sign)
    assert signed.dtype == np.int8
    assert_array_equal(signed, [[0, 0, sign], [0, 0, 0]])


def test_merged_rounds_never_hold_a_positive_beside_negatives():
    rng = np.random.default_rng(0)
    positive = np.eye(4, dtype=np.int8)[rng.integers(0, 4, 200)] * (rng.random((200, 1)) < 0.5)
    negative = -(rng.random((200, 4)) < 0.3).astype(np.int8)
    remembered = -(rng.random((200, 4)) < 0.3).astype(np.int8)
    merged = merge_rounds(positive.astype(np.int8), negative, remembered)
    is_positive = positive.any(axis=1)
    assert_array_equal(merged[is_positive], positive[is_positive])
    assert_array_equal(merged[~is_positive], np.minimum(negative, remembered)[~is_positive])
    assert merged.dtype == np.int8


@pytest.mark.parametrize("kind", ["distinct", "ties", "negative", "last bit", "float32"])
def test_picks_are_those_of_a_stable_sort(kind):
    """Also where confidences are equal, or differ in their last bit only."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        n, n_bags, n_classes = rng.integers(1, 60), rng.integers(1, 6), rng.integers(1, 4)
        confidence = {
            "distinct": rng.random(n),
            "ties": rng.integers(0, 3, n) / 3,
            "negative": rng.normal(size=n),
            "last bit": 0.5 + rng.integers(0, 4, n) * 2.0**-53,
            "float32": rng.random(n).astype(np.float32),
        }[kind]
        predicted, bags = rng.integers(0, n_classes, n), rng.integers(0, n_bags, n)
        counts = rng.integers(0, 12, (n_bags, n_classes))
        for pick, order in ((pick_most_confident, 1), (pick_least_confident, -1)):
            expected = np.zeros(n, dtype=bool)
            for bag, c in np.ndindex(counts.shape):
                cell = np.flatnonzero((bags == bag) & (predicted == c))
                by_key = cell[np.argsort(-confidence[cell], kind="stable")][::order]
                expected[by_key[: counts[bag, c]]] = True
            np.testing.assert_array_equal(pick(confidence, predicted, bags, counts), expected)


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("seed", range(5))
def test_picks_from_both_ends_never_meet(levels, seed):
    rng = np.random.default_rng(seed)
    n, n_bags, n_classes = 90, 4, 3
    confidence = rng.integers(0, levels, n) / levels
    predicted, bags = rng.integers(0, n_classes, n), rng.integers(0, n_bags, n)
    sizes = np.bincount(bags * n_classes + predicted, minlength=12).reshape(n_bags, n_classes)
    most = rng.integers(0, sizes + 1)
    picked = pick_most_confident(confidence, predicted, bags, most)
    rest = pick_least_confident(confidence, predicted, bags, sizes - most)
    assert_array_equal(picked, ~rest)
