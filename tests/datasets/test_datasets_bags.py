"""make_bags: the truth it hands out is the truth of what it draws."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl.datasets import make_bags
from proportion_ssl.proportions.counts import class_proportions


def test_sizes_and_slides():
    data = make_bags(7, bag_size=(1, 9), n_labeled_slides=5, n_test_slides=3, random_state=0)
    assert data.bags.n_bags == 7
    assert data.bags.sizes.min() >= 1
    assert data.bags.sizes.max() <= 9
    slides = [set(data.groups), set(data.bags.names), set(data.groups_test)]
    assert [len(names) for names in slides] == [5, 7, 3]
    assert len(set.union(*slides)) == 15
    assert len(data.X_labeled) == len(data.y) == len(data.groups)
    assert len(data.X_test) == len(data.y_test) == len(data.groups_test)
    assert len(data.y_bags) == data.bags.n_instances


def test_without_noise_the_recorded_proportions_are_those_of_the_instances():
    data = make_bags(20, bag_size=(1, 40), n_classes=5, random_state=1)
    counted = class_proportions(data.y_bags, data.bags.index, n_bags=20, n_classes=5)
    assert_allclose(data.bags.proportions, counted, atol=1e-15)


@pytest.mark.parametrize("seed", range(10))
def test_every_class_is_labeled_however_few_the_slides(seed):
    data = make_bags(2, n_labeled_slides=1, n_classes=6, concentration=0.05, random_state=seed)
    assert set(data.y) == set(range(6))


def test_noise_leaves_absent_classes_absent_and_sums_at_one():
    exact = make_bags(200, random_state=0).bags.proportions
    rough = make_bags(200, proportion_noise=0.1, random_state=0).bags.proportions
    assert_allclose(rough.sum(axis=1), 1)
    assert (rough[exact == 0] == 0).all()
    wide = exact[(exact > 0.3) & (exact < 0.7)] - rough[(exact > 0.3) & (exact < 0.7)]
    assert 0.05 < wide.std() < 0.12


def test_noise_changes_nothing_but_the_record():
    exact = make_bags(20, random_state=0)
    rough = make_bags(20, proportion_noise=0.2, rounding=0.1, random_state=0)
    assert_array_equal(rough.bags.X, exact.bags.X)
    assert_array_equal(rough.y_bags, exact.y_bags)
    assert (rough.bags.proportions != exact.bags.proportions).any()


def test_rounding_to_halves_leaves_few_values():
    recorded = make_bags(50, n_classes=2, rounding=0.5, random_state=0).bags.proportions
    assert set(np.unique(recorded)) <= {0, 0.5, 1}


@pytest.mark.parametrize("rounding", [0.05, 0.1, 0.5])
def test_rounded_records_are_written_as_rounded_and_their_intervals_hold_the_truth(rounding):
    data = make_bags(60, n_classes=5, concentration=2.0, rounding=rounding, random_state=0)
    bags = data.bags
    true = bags.proportions_of(data.y_bags, np.arange(5))
    assert ((bags.lower <= true) & (true <= bags.upper)).all()
    assert (abs(bags.proportions.sum(axis=1) - 1) > 0.01).any()  # not made to sum to 1
    assert_allclose((bags.proportions / rounding) % 1 % 0.999999, 0, atol=1e-5)


@pytest.mark.parametrize(("name", "most"), [("proportion_noise", "1"), ("rounding", "0.5")])
def test_percent_is_refused(name, most):
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, {most}\]; got 10\. .* percent"):
        make_bags(3, **{name: 10})


def test_slide_shift_moves_slides_and_not_classes():
    still = make_bags(30, bag_size=80, slide_shift=0, n_classes=2, random_state=0)
    moved = make_bags(30, bag_size=80, slide_shift=3, n_classes=2, random_state=0)

    def spread_of_slides(data):
        one_class = data.y_bags == 0
        index = data.bags.index[one_class]
        means = [
            data.bags.X[one_class][index == i].mean(axis=0)
            for i in np.unique(index)
            if (index == i).sum() > 20
        ]
        return np.std(means, axis=0).mean()

    assert spread_of_slides(still) < 0.3
    assert_allclose(spread_of_slides(moved), 3, atol=0.6)


def test_same_seed_same_bags():
    one, other, third = (make_bags(3, random_state=seed) for seed in (0, 0, 1))
    assert_array_equal(one.bags.X, other.bags.X)
    assert (one.bags.X != third.bags.X).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bag_size": 0}, "at least 1"),
        ({"bag_size": (9, 3)}, "smallest first"),
        ({"bag_size": 1, "n_labeled_slides": 2}, "2 labeled instances cannot cover 4 classes"),
    ],
)
def test_impossible_requests(settings, message):
    with pytest.raises(ValueError, match=message):
        make_bags(3, **settings)
