"""Augmenting paths: what is exact, and what is said to be in doubt."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from proportion_ssl.pseudo_labels._augmenting_paths import augment_within_bounds

NONE = -np.inf


def best_total(scores, fewest, most):
    """Of all labels of a few instances, by trying them."""
    n_classes, n = scores.shape
    totals = []
    for labels in itertools.product(range(n_classes), repeat=n):
        counts = np.bincount(labels, minlength=n_classes)
        if (counts >= fewest).all() and (counts <= most).all():
            totals.append(scores[list(labels), range(n)].sum())
    return max(totals)


@pytest.mark.parametrize("seed", range(30))
def test_all_labels_of_several_small_bags(seed):
    rng = np.random.default_rng(seed)
    sizes, n_classes = rng.integers(1, 7, 4), 3
    bag = np.repeat(np.arange(4), sizes)
    scores = rng.normal(size=(n_classes, len(bag)))
    if seed % 3 == 0:
        scores = scores.round()
    duals = rng.normal(size=(4, n_classes))
    labels = (scores + duals.T[:, bag]).argmax(axis=0)
    counts = np.bincount(bag * n_classes + labels, minlength=12).reshape(4, n_classes)
    target = np.stack([rng.multinomial(size, np.full(n_classes, 1 / 3)) for size in sizes])
    width = rng.integers(0, 2, target.shape)
    fewest, most = np.maximum(target - width, 0), target + width
    in_doubt = augment_within_bounds(
        scores, bag, labels, counts, duals, fewest, most, np.full((4, n_classes, n_classes), NONE)
    )
    assert not in_doubt.any()
    assert_array_equal(
        counts, np.bincount(bag * n_classes + labels, minlength=12).reshape(4, n_classes)
    )
    assert ((counts >= fewest) & (counts <= most)).all()
    for b in range(4):
        mine = scores[:, bag == b]
        total = mine[labels[bag == b], np.arange(sizes[b])].sum()
        assert total == pytest.approx(best_total(mine, fewest[b], most[b]))


def one_settled(bound):
    """Two instances at hand, both of class 0, gain -1 and -2; one of class 0 that gains at most ``bound``."""
    scores = np.array([[0.0, 0.0], [-1.0, -2.0]])
    labels, counts = np.array([0, 0]), np.array([[3, 0]])
    wanted, unseen = np.array([[2, 1]]), np.array([[[NONE, bound], [NONE, NONE]]])
    arguments = scores, np.zeros(2, int), labels, counts, np.zeros((1, 2)), wanted, wanted, unseen
    return augment_within_bounds(*arguments), labels


def test_who_is_not_at_hand_and_could_not_be_better_is_not_missed():
    in_doubt, labels = one_settled(-1.5)
    assert not in_doubt.any()
    assert_array_equal(labels, [1, 0])


def test_who_is_not_at_hand_and_might_be_better_leaves_doubt():
    assert one_settled(-0.5)[0].all()


def test_a_settled_label_that_may_be_wrong_leaves_doubt():
    assert one_settled(0.5)[0].all()
