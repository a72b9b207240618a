"""Selectors: which instances, which sign."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

from proportion_ssl import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativeSelector,
    SoftAssignmentSelector,
    ThresholdSelector,
)
from proportion_ssl.proportions import class_proportions
from proportion_ssl.pseudo_labels import negative_selectivity, positive_selectivity

SELECTORS = [ThresholdSelector(threshold=0.6), AdaptiveSelector(), NegativeSelector()]


def random_case(seed=0, n=300, n_bags=8, n_classes=4):
    rng = np.random.default_rng(seed)
    bag_ids = np.concatenate([np.arange(n_bags), rng.integers(0, n_bags, n - n_bags)])
    probabilities = rng.dirichlet(np.full(n_classes, 0.4), n)
    return probabilities, bag_ids, rng.dirichlet(np.full(n_classes, 0.5), n_bags)


def transform(selector, case):
    probabilities, bag_ids, proportions = case
    return selector.transform(probabilities, bag_ids=bag_ids, bag_proportions=proportions)


@pytest.mark.parametrize("selector", SELECTORS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("seed", range(3))
class TestEverySelector:
    def test_at_most_one_label_and_only_on_the_predicted_class(self, selector, seed):
        case = random_case(seed)
        signed = transform(selector, case)
        assert signed.dtype == np.int8
        assert (np.abs(signed).sum(axis=1) <= 1).all()
        rows, columns = np.nonzero(signed)
        assert_array_equal(columns, case[0].argmax(axis=1)[rows])
        assert len(rows) > 0

    def test_order_of_instances_does_not_matter(self, selector, seed):
        probabilities, bag_ids, proportions = case = random_case(seed)
        order = np.random.default_rng(1).permutation(len(bag_ids))
        moved = transform(selector, (probabilities[order], bag_ids[order], proportions))
        assert_array_equal(moved, transform(selector, case)[order])

    def test_order_of_classes_does_not_matter(self, selector, seed):
        probabilities, bag_ids, proportions = case = random_case(seed)
        order = [2, 0, 3, 1]
        moved = transform(selector, (probabilities[:, order], bag_ids, proportions[:, order]))
        assert_array_equal(moved, transform(selector, case)[:, order])

    def test_names_of_bags_do_not_matter(self, selector, seed):
        probabilities, bag_ids, proportions = case = random_case(seed)
        names = np.array([f"slide {i}" for i in bag_ids])
        assert_array_equal(
            transform(selector, (probabilities, names, proportions)), transform(selector, case)
        )

    def test_fit_transform_takes_the_same_arguments(self, selector, seed):
        probabilities, bag_ids, proportions = case = random_case(seed)
        again = clone(selector).fit_transform(
            probabilities, bag_ids=bag_ids, bag_proportions=proportions
        )
        assert_array_equal(again, transform(selector, case))


@pytest.mark.parametrize("seed", range(5))
def test_numbers_of_labels_follow_the_equations(seed):
    probabilities, bags, true = case = random_case(seed)
    predicted = class_proportions(probabilities.argmax(axis=1), bags, n_bags=8, n_classes=4)
    sizes = np.bincount(bags)[:, None]
    for selector, selectivity in (
        (AdaptiveSelector(), positive_selectivity),
        (NegativeSelector(), negative_selectivity),
    ):
        signed = np.abs(transform(selector, case))
        counts = np.stack([signed[bags == bag].sum(axis=0) for bag in range(8)])
        assert_array_equal(counts, np.floor(sizes * selectivity(true, predicted) + 1e-9))


def test_positives_are_the_most_confident_and_negatives_the_least():
    probabilities, bags, _ = case = random_case(1)
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    positive, negative = (
        np.abs(transform(s, case)).any(axis=1) for s in (AdaptiveSelector(), NegativeSelector())
    )
    for bag in range(8):
        for label in range(4):
            cell = (bags == bag) & (predicted == label)
            for picked, sign in ((positive, 1), (negative, -1)):
                inside, outside = (sign * confidence[cell & p] for p in (picked, ~picked))
                if len(inside) and len(outside):
                    assert inside.min() >= outside.max()


@pytest.mark.parametrize("seed", range(20))
def test_positive_and_negative_labels_never_meet(seed):
    case = random_case(seed, n=100)
    both = [
        np.abs(transform(s, case)).any(axis=1) for s in (AdaptiveSelector(), NegativeSelector())
    ]
    assert not (both[0] & both[1]).any()


def test_perfect_proportions_label_everything_positive_and_nothing_negative():
    probabilities, bags, _ = random_case()
    predicted = probabilities.argmax(axis=1)
    exact = class_proportions(predicted, bags, n_bags=8, n_classes=4)
    assert_array_equal(
        transform(AdaptiveSelector(), (probabilities, bags, exact)), np.eye(4)[predicted]
    )
    assert not transform(NegativeSelector(), (probabilities, bags, exact)).any()


def test_threshold_includes_its_own_value():
    signed = ThresholdSelector(threshold=0.75).transform([[0.75, 0.25], [0.74, 0.26]])
    assert_array_equal(signed, [[1, 0], [0, 0]])


@pytest.mark.parametrize("threshold", [0.95, 0.9, 0.6, 1 / 3, np.float64(0.95)])
def test_threshold_in_the_precision_of_the_probabilities(threshold):
    probabilities = np.array([[threshold, 1 - threshold], [0.2, 0.8]], dtype=np.float32)
    below = np.nextafter(probabilities[:1], np.float32(0), dtype=np.float32)
    select = ThresholdSelector(threshold=threshold).transform
    assert select(probabilities)[0].any() or probabilities[0].argmax() == 1
    assert threshold < 0.5 or not select(below)[0].any()


def test_default_threshold_is_that_of_the_paper():
    assert ThresholdSelector().threshold == 0.95


@pytest.mark.parametrize("selector", [AdaptiveSelector(), NegativeSelector()])
def test_unknown_proportions_select_nothing(selector):
    probabilities, bags, _ = random_case()
    assert not selector.transform(probabilities, bag_ids=bags).any()


@pytest.mark.parametrize(
    ("bag_ids", "proportions", "message"),
    [
        ([0, 0], [[0.5, 0.5]], "2 entries, but there are 3 instances"),
        ([0, 0, 1], [[0.5, 0.5]], r"shape \(1, 2\); 2 bags and 2 classes need \(2, 2\)"),
        (None, [[0.5, 0.25, 0.25]], r"need \(1, 2\)"),
    ],
)
def test_arguments_that_do_not_fit_together(bag_ids, proportions, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveSelector().transform([[0.5, 0.5]] * 3, bag_ids=bag_ids, bag_proportions=proportions)


def test_threshold_out_of_range():
    with pytest.raises(ValueError, match="threshold"):
        ThresholdSelector(threshold=1.5).transform([[0.5, 0.5]])


@pytest.mark.parametrize(
    "names",
    [
        np.arange(128, dtype=np.int8),
        np.arange(-128, 128).astype(np.int8),
        np.array([-100, 100], dtype=np.int8),
        np.arange(3, dtype=np.uint64) + np.uint64(2**63),
    ],
    ids=["up to the largest", "all", "far apart", "beyond int64"],
)
def test_bag_ids_at_the_ends_of_their_type(names):
    bag = np.repeat(np.arange(len(names)), 150)
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), len(bag))
    proportions = rng.dirichlet(np.ones(3), len(names))
    expected, found = (
        transform(AdaptiveSelector(), (probabilities, ids, proportions))
        for ids in (bag, names[bag])
    )
    assert expected.any()
    assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_positive_and_negative_labels_never_meet_where_confidences_are_equal(seed, levels):
    rng = np.random.default_rng(seed)
    bag_ids = np.concatenate([np.arange(5), rng.integers(0, 5, 95)])
    confidence = 0.6 + 0.3 * rng.integers(0, levels, 100) / levels
    probabilities = np.repeat((1 - confidence)[:, None] / 2, 3, axis=1)
    probabilities[np.arange(100), rng.integers(0, 3, 100)] = confidence
    case = probabilities, bag_ids, rng.dirichlet(np.ones(3), 5)
    positive, negative = (transform(s, case) for s in (AdaptiveSelector(), NegativeSelector()))
    assert positive.any() and negative.any()
    assert not (positive.any(axis=1) & negative.any(axis=1)).any()


EVERY_SELECTOR = [*SELECTORS, AssignmentSelector(), SoftAssignmentSelector()]
every_selector = pytest.mark.parametrize(
    "selector", EVERY_SELECTOR, ids=[type(s).__name__ for s in EVERY_SELECTOR]
)


@every_selector
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[2.0, -1.0]], r"row 1 is \[2\.0, -1\.0\] \(1 of 2 rows are wrong\)"),
        ([[1.5, 0.5]], "the softmax of logits"),
        ([[0.4, 0.4]], "summing to 1"),
        ([[90.0, 10.0]], "They look like percent: divide by 100"),
        ([[np.nan, 1.0]], "NaN"),
    ],
)
def test_what_is_no_probability(selector, dtype, rows, message):
    X = np.array([[0.5, 0.5], *rows], dtype=dtype)
    with pytest.raises(ValueError, match=message):
        selector.transform(X, bag_proportions=[[0.5, 0.5]])


@every_selector
@pytest.mark.parametrize(
    ("proportions", "message"),
    [
        ([[50.0, 50.0]], "bag_proportions of bag 0.0 sum to 100, not 1 .* percent"),
        ([[1.5, -0.5]], "hold a negative share"),
        ([[np.nan, 1.0]], "hold a number that is not finite"),
        ([[0.5, 0.4]], r"sum to 0\.9, not 1"),
        ([[[30.0, 50.0]], [[50.0, 70.0]]], r"outside \[0, 1\].* percent"),
        ([[[-0.1, 0.5]], [[0.5, 0.7]]], r"outside \[0, 1\]"),
        ([[[np.nan, 0.5]], [[0.5, 0.7]]], "not a finite number"),
        ([[[0.1, 0.2]], [[0.3, 0.4]]], "upper ends that sum to less than 1"),
        ([[[0.5, 0.5]], [[0.3, 0.7]]], "lower end is above its upper end"),
    ],
)
def test_what_are_no_shares(selector, proportions, message):
    with pytest.raises(ValueError, match=message):
        selector.transform([[0.5, 0.5]], bag_proportions=proportions)


def test_deviation_in_percent():
    with pytest.raises(ValueError, match=r"'standard_deviation' .* in the range"):
        SoftAssignmentSelector(10).transform([[0.5, 0.5]])


@every_selector
def test_table_of_proportions_is_matched_by_name(selector):
    probabilities, bag_ids, proportions = random_case()
    names = np.array([f"slide {i}" for i in bag_ids])
    classes = ["a", "b", "c", "d"]
    table = pd.DataFrame(proportions, index=np.unique(names), columns=classes)[::-1][classes[::-1]]
    expected = transform(selector, (probabilities, bag_ids, proportions))
    assert_array_equal(transform(selector, (probabilities, names, table)), expected)
    order = ["c", "a", "d", "b"]
    frame = pd.DataFrame(probabilities, columns=classes)
    found = transform(selector, (frame[order], names, table))
    assert_array_equal(
        found, transform(selector, (frame[order], bag_ids, proportions[:, [2, 0, 3, 1]]))
    )
    with pytest.raises(ValueError, match="no row for 'slide 0'"):
        transform(selector, (probabilities, names, table.rename(index={"slide 0": "s"})))
    with pytest.raises(ValueError, match="no column for 'a'"):
        transform(selector, (frame, names, table.rename(columns={"a": "e"})))
    with pytest.raises(ValueError, match="a row more than once"):
        transform(selector, (probabilities, names, pd.concat([table, table])))


def test_rows_without_names_of_bags_in_another_order():
    names = ["b", "a", "a"]
    with pytest.warns(UserWarning, match="rows of bag_proportions have no names .* 'a', 'b', but"):
        AdaptiveSelector().transform(
            [[0.5, 0.5]] * 3, bag_ids=names, bag_proportions=[[1, 0], [0, 1]]
        )


@every_selector
@pytest.mark.parametrize("is_fitted", [False, True])
def test_output_as_a_table_of_classes(selector, is_fitted):
    probabilities, bag_ids, proportions = random_case()
    frame = pd.DataFrame(probabilities, columns=list("dbac"), index=np.arange(300) + 7)
    selector = clone(selector).set_output(transform="pandas")
    if is_fitted:
        selector.fit(frame)
    table = selector.transform(frame, bag_ids=bag_ids, bag_proportions=proportions)
    assert list(table.columns) == ["d", "b", "a", "c"]
    assert_array_equal(table.index, frame.index)
    plain = clone(selector).set_output(transform="default")
    assert_array_equal(table, transform(plain, (probabilities, bag_ids, proportions)))
    assert hasattr(selector, "n_features_in_") == is_fitted


def test_names_of_columns():
    selector = AdaptiveSelector().fit(pd.DataFrame([[0.5, 0.5]], columns=["b", "a"]))
    assert_array_equal(selector.get_feature_names_out(), ["b", "a"])


def test_an_unfitted_selector_takes_any_number_of_classes():
    selector = ThresholdSelector(0.4)
    for n_classes in (2, 3):
        assert selector.transform(np.full((1, n_classes), 1 / n_classes)).shape == (1, n_classes)
