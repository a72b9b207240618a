"""Columns of bags in another order than those of the labeled patches."""

import numpy as np
import pytest

from proportion_ssl import RobustProportionClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.estimators._columns import have_other_columns

N_FEATURES = 64
DATA = make_bags(n_bags=12, bag_size=30, n_features=N_FEATURES, slide_shift=0.5, random_state=0)
OTHER_ORDER = np.random.default_rng(1).permutation(N_FEATURES)
#: As in networks: some features are large in all tissue.
LEVELS = 4 * np.random.default_rng(2).exponential(size=N_FEATURES)


def differ(change, columns=slice(None), rows=slice(None)):
    labeled, of_bags = change(DATA.X_labeled[rows]), change(DATA.bags.X)[:, columns]
    return have_other_columns(labeled, DATA.y[rows], of_bags, DATA.bags.index)


@pytest.mark.parametrize("rows", [slice(None), np.isin(DATA.y, np.unique(DATA.y)[:2])])
def test_columns_in_another_order(rows):
    assert differ(lambda X: X + LEVELS, OTHER_ORDER, rows)
    assert not differ(lambda X: X + LEVELS, rows=rows)


def test_a_few_huge_features_do_not_hide_the_order_of_the_others():
    """As in vision transformers."""
    huge = np.zeros(N_FEATURES)
    huge[:2] = 500, -300
    columns = np.r_[0, 1, 2 + np.random.default_rng(6).permutation(N_FEATURES - 2)]
    assert differ(lambda X: X + LEVELS + huge, columns)
    assert not differ(lambda X: X + LEVELS + huge)


def test_features_of_another_network():
    rng = np.random.default_rng(4)
    mixed = rng.normal(size=(N_FEATURES, N_FEATURES)) / 8
    of_bags = DATA.bags.X @ mixed + 4 * rng.exponential(size=N_FEATURES)
    assert have_other_columns(DATA.X_labeled + LEVELS, DATA.y, of_bags, DATA.bags.index)


def test_without_a_common_profile_columns_are_not_judged():
    """Standardized features differ by class and by slide only, which the parts do not share."""
    assert not differ(lambda X: X)
    assert not differ(lambda X: X, OTHER_ORDER)
    rows = DATA.y == DATA.y[0]
    assert not differ(lambda X: X, OTHER_ORDER, rows)


def test_parts_that_are_centered_at_their_common_mean():
    """Means of bags that are mostly blank, and of labeled patches, are then opposite."""
    blank = np.random.default_rng(5).random(size=len(DATA.bags.X)) < 0.9
    of_bags = DATA.bags.X + LEVELS
    of_bags[blank] = DATA.bags.X[blank] / 10 + LEVELS[::-1]
    labeled = DATA.X_labeled + LEVELS
    center = np.concatenate([labeled, of_bags]).mean(axis=0)
    assert not have_other_columns(labeled - center, DATA.y, of_bags - center, DATA.bags.index)


def test_classes_that_the_other_part_lacks_are_no_other_columns():
    rng, n = np.random.default_rng(0), 100
    centers = 3 * rng.normal(size=(4, N_FEATURES))

    def draw(classes):
        codes = np.repeat(classes, n)
        return centers[codes] + rng.normal(size=(len(codes), N_FEATURES)), codes

    labeled, y = draw([0, 1])
    of_bags, codes = draw([2, 3])
    assert not have_other_columns(labeled, y, of_bags, np.arange(len(codes)) % 5)


@pytest.mark.parametrize("slide_shift", [0.0, 2.0])
@pytest.mark.parametrize("n_bags", [2, 20])
def test_features_without_common_levels_are_no_cause_for_a_warning(slide_shift, n_bags):
    for seed in range(20):
        data = make_bags(
            n_bags=n_bags, bag_size=20, n_features=64, slide_shift=slide_shift, random_state=seed
        )
        for rows in (slice(None), np.isin(data.y, [0, 1])):
            labeled, y = data.X_labeled[rows], data.y[rows]
            assert not have_other_columns(labeled, y, data.bags.X, data.bags.index)


def test_few_or_constant_features_are_not_judged():
    few = slice(0, 63)
    X, bags = (DATA.X_labeled + LEVELS)[:, few], (DATA.bags.X + LEVELS)[:, few]
    assert not have_other_columns(X, DATA.y, bags[:, ::-1], DATA.bags.index)
    constant = np.tile(LEVELS, (len(DATA.y), 1))
    assert not have_other_columns(constant, DATA.y, DATA.bags.X, DATA.bags.index)


def test_a_single_class_or_bag_is_not_judged():
    one = np.zeros(len(DATA.bags.X), dtype=int)
    X, bags = DATA.X_labeled + LEVELS, (DATA.bags.X + LEVELS)[:, OTHER_ORDER]
    assert not have_other_columns(X, DATA.y, bags, one)
    assert not have_other_columns(X, np.zeros(len(X)), bags, DATA.bags.index)


def test_a_fit_says_so():
    """This fit is not seen to be harmed by the bags, so nothing else would tell."""
    bags = DATA.bags.with_instances((DATA.bags.X + LEVELS)[:, OTHER_ORDER])
    model = RobustProportionClassifier(random_state=0)
    with pytest.warns(UserWarning, match=r"seem to be in another order.*or of another network"):
        model.fit(DATA.X_labeled + LEVELS, DATA.y, bags)
    assert not model.fell_back_
