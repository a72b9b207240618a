"""Segmentation scores: closed forms, scikit-learn as oracle, invariants, limits, errors."""

import functools
import operator
import pickle
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    jaccard_score,
    precision_score,
    recall_score,
)

from proportion_ssl.metrics import (
    SegmentationConfusion,
    _label_codes,
    bag_proportion_error,
    mean_iou_score,
    overall_pixel_score,
    per_class_score,
    proportion_error,
    segmentation_confusion_matrix,
)

CLASSES = ["lepidic", "acinar", "papillary", "micropapillary", "solid", "non-cancer"]

# By hand. Rows true, columns predicted:   a: 3 1 0   b: 1 2 1   c: 0 0 2
TRUE = np.array(list("aaaabbbbcc"))
PREDICTED = np.array(list("aaababbccc"))
MATRIX = [[3, 1, 0], [1, 2, 1], [0, 0, 2]]

# Every score of one pair of arrays, driven through the common invariants.
SCORES = {
    "overall": overall_pixel_score,
    "precision": per_class_score,
    "recall": functools.partial(per_class_score, definition="recall"),
    "iou": mean_iou_score,
}
PER_CLASS = {
    "precision": functools.partial(per_class_score, average=None),
    "recall": functools.partial(per_class_score, definition="recall", average=None),
    "iou": functools.partial(mean_iou_score, average=None),
}
PUBLIC = [
    segmentation_confusion_matrix,
    overall_pixel_score,
    per_class_score,
    mean_iou_score,
    functools.partial(proportion_error, bag_ids=[0, 0, 1]),
]

every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
every_public = pytest.mark.parametrize("function", PUBLIC, ids=range(len(PUBLIC)))


def random_labels(seed, size=400, classes=CLASSES, agreement=0.6):
    rng = np.random.default_rng(seed)
    truth = np.array(classes)[rng.integers(0, len(classes), size)]
    other = np.array(classes)[rng.integers(0, len(classes), size)]
    return truth, np.where(rng.random(size) < agreement, truth, other)


# --- closed forms -------------------------------------------------------------------------------


def test_confusion_matrix_by_hand():
    matrix = segmentation_confusion_matrix(TRUE, PREDICTED)
    assert_array_equal(matrix, MATRIX)
    assert matrix.dtype == np.int64


def test_scores_by_hand():
    assert overall_pixel_score(TRUE, PREDICTED) == pytest.approx(7 / 10)
    assert_allclose(PER_CLASS["precision"](TRUE, PREDICTED), [3 / 4, 2 / 3, 2 / 3])
    assert_allclose(PER_CLASS["recall"](TRUE, PREDICTED), [3 / 4, 2 / 4, 2 / 2])
    assert_allclose(PER_CLASS["iou"](TRUE, PREDICTED), [3 / 5, 2 / 5, 2 / 3])
    assert per_class_score(TRUE, PREDICTED) == pytest.approx((3 / 4 + 2 / 3 + 2 / 3) / 3)
    assert mean_iou_score(TRUE, PREDICTED) == pytest.approx((3 / 5 + 2 / 5 + 2 / 3) / 3)


@every_score
def test_perfect_prediction_scores_1_and_disjoint_0(score):
    assert score(TRUE, TRUE) == 1.0
    assert score(["a", "b"], ["b", "a"]) == 0.0


def test_proportion_error_by_hand():
    # Bag 1: true (3/4, 1/4, 0), predicted (1/2, 1/4, 1/4): .5. Bag 2: all wrong, 2 -> cut to 1.
    truth, predicted = list("aaabcc"), list("acbaab")
    bags = [1, 1, 1, 1, 2, 2]
    assert proportion_error(truth, predicted, bag_ids=bags) == pytest.approx((0.5 + 1.0) / 2)


def test_proportion_error_is_zero_when_errors_cancel_within_every_bag():
    truth, predicted = list("abab"), list("baba")
    assert proportion_error(truth, predicted, bag_ids=[0, 0, 1, 1]) == 0.0
    # The same predictions, grouped otherwise: each bag is wrong in every instance.
    assert proportion_error(truth, predicted, bag_ids=[0, 1, 0, 1]) == 1.0


def test_every_bag_weighs_the_same():
    truth = ["a"] * 98 + ["b"] * 2
    predicted = ["a"] * 100
    bags = [0] * 98 + [1] * 2
    assert proportion_error(truth, predicted, bag_ids=bags) == pytest.approx(0.5)
    assert proportion_error(truth, predicted, bag_ids=[0] * 100) == pytest.approx(0.04)


# --- scikit-learn as oracle ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("as_int", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_agrees_with_scikit_learn(seed, as_int, weighted):
    truth, predicted = random_labels(seed)
    labels = list(np.random.default_rng(seed).permutation(CLASSES))
    if as_int:
        truth, predicted = (np.searchsorted(sorted(CLASSES), v) - 2 for v in (truth, predicted))
        labels = [sorted(CLASSES).index(name) - 2 for name in labels]
    weight = np.random.default_rng(seed + 100).random(truth.shape) if weighted else None
    ours = {"labels": labels, "sample_weight": weight}

    assert_allclose(
        segmentation_confusion_matrix(truth, predicted, **ours),
        confusion_matrix(truth, predicted, **ours),
        rtol=1e-12,
    )
    assert overall_pixel_score(truth, predicted, **ours) == pytest.approx(
        accuracy_score(truth, predicted, sample_weight=weight)
    )
    for name, oracle in (
        ("precision", precision_score),
        ("recall", recall_score),
        ("iou", jaccard_score),
    ):
        expected = oracle(truth, predicted, average=None, **ours)
        assert_allclose(PER_CLASS[name](truth, predicted, **ours), expected)
        assert SCORES[name](truth, predicted, **ours) == pytest.approx(expected.mean())


@pytest.mark.parametrize("zero_division", [0.0, 1.0, np.nan])
def test_zero_division_of_a_missed_class_agrees_with_scikit_learn(zero_division):
    truth, predicted = list("aabbc"), list("aabba")  # c is true, never predicted
    options = {"labels": list("abc"), "average": None, "zero_division": zero_division}
    assert_allclose(
        per_class_score(truth, predicted, **options), precision_score(truth, predicted, **options)
    )


@pytest.mark.parametrize("seed", range(5))
def test_proportion_error_agrees_with_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = random_labels(seed, 300)
    bags = rng.choice(["s3", "s1", "s2", "s10"], 300, p=[0.7, 0.2, 0.09, 0.01])
    errors = []
    for bag in sorted(set(bags.tolist())):
        inside = [i for i in range(300) if bags[i] == bag]
        distance = 0.0
        for name in CLASSES:
            true_share = sum(truth[i] == name for i in inside) / len(inside)
            distance += abs(true_share - sum(predicted[i] == name for i in inside) / len(inside))
        errors.append(min(1.0, distance))
    assert proportion_error(truth, predicted, bag_ids=bags) == pytest.approx(np.mean(errors))


# --- invariants ---------------------------------------------------------------------------------


@every_score
@pytest.mark.parametrize("seed", range(3))
def test_order_of_positions_does_not_matter(score, seed):
    truth, predicted = random_labels(seed)
    order = np.random.default_rng(seed).permutation(len(truth))
    assert score(truth[order], predicted[order]) == score(truth, predicted)


@every_score
def test_names_and_order_of_classes_do_not_matter(score):
    truth, predicted = random_labels(0)
    codes = {name: code for code, name in enumerate(CLASSES[::-1], start=-3)}
    recoded = [np.array([codes[name] for name in labels]) for labels in (truth, predicted)]
    expected = score(truth, predicted)
    assert score(*recoded) == pytest.approx(expected)
    assert score(truth, predicted, labels=CLASSES[::-1]) == pytest.approx(expected)


def test_labels_fix_the_order():
    order = ["c", "a", "b"]
    expected = np.array(MATRIX)[np.ix_([2, 0, 1], [2, 0, 1])]
    assert_array_equal(segmentation_confusion_matrix(TRUE, PREDICTED, labels=order), expected)
    assert_allclose(PER_CLASS["iou"](TRUE, PREDICTED, labels=order), [2 / 3, 3 / 5, 2 / 5])


@every_score
def test_classes_that_do_not_occur_change_nothing(score):
    truth, predicted = random_labels(1)
    with_more = [*CLASSES, "nerve", "vessel"]
    assert score(truth, predicted, labels=with_more) == pytest.approx(score(truth, predicted))


@every_score
@pytest.mark.parametrize("shape", [(400,), (20, 20), (4, 10, 10), (1, 400)])
def test_label_maps_score_as_their_flattened_vectors(score, shape):
    truth, predicted = random_labels(2)
    expected = score(truth, predicted)
    assert score(truth.reshape(shape), predicted.reshape(shape)) == expected
    as_columns = np.asfortranarray(truth.reshape(shape)), predicted.reshape(shape)
    assert score(*as_columns) == expected


def test_transposed_and_strided_maps_are_matched_by_position():
    truth, predicted = (values.reshape(20, 20) for values in random_labels(3))
    assert mean_iou_score(truth.T, predicted.T) == mean_iou_score(truth, predicted)
    assert_array_equal(
        segmentation_confusion_matrix(truth[::2, 1::3], predicted[::2, 1::3], labels=CLASSES),
        confusion_matrix(truth[::2, 1::3].ravel(), predicted[::2, 1::3].ravel(), labels=CLASSES),
    )


@pytest.mark.parametrize("kind", ["uint8", "int8", "int32", "uint64", "float32", "object", "list"])
def test_integer_labels_of_every_type(kind):
    truth, predicted = (np.searchsorted(list("abc"), values) for values in (TRUE, PREDICTED))
    if kind == "list":
        truth, predicted = truth.tolist(), predicted.tolist()
    else:
        truth, predicted = truth.astype(kind), predicted.astype(kind)
    assert_array_equal(segmentation_confusion_matrix(truth, predicted), MATRIX)
    assert_array_equal(segmentation_confusion_matrix(truth, predicted, labels=[0, 1, 2]), MATRIX)


@pytest.mark.parametrize(
    "convert",
    [list, lambda v: v.astype(object), pd.Series, lambda v: v.astype(np.dtypes.StringDType())],
    ids=["list", "object", "Series", "StringDType"],
)
@pytest.mark.parametrize("labels", [None, list("abc"), pd.Index(list("abc"))])
def test_string_labels_of_every_type(convert, labels):
    matrix = segmentation_confusion_matrix(convert(TRUE), convert(PREDICTED), labels=labels)
    assert_array_equal(matrix, MATRIX)


def test_boolean_masks_are_two_classes():
    truth = np.array([True, True, False, False])
    predicted = np.array([True, False, False, False])
    assert_array_equal(segmentation_confusion_matrix(truth, predicted), [[2, 0], [1, 1]])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_extreme_integers_are_not_confused(dtype):
    """Neither table look-up nor conversion may wrap around."""
    ends = np.iinfo(dtype)
    values = np.array([ends.min, ends.max, 1, ends.max], dtype=dtype)
    known = [1, 2]
    confusion = SegmentationConfusion(known, ignore_label=0)
    with pytest.raises(ValueError, match=re.escape(str(ends.max))):
        confusion.update(values[1:], np.ones(3, dtype=int))
    if dtype != "uint64":
        assert_array_equal(segmentation_confusion_matrix(values, values), np.diag([1, 1, 2]))
    # 2**64 - 1 is -1 when its bits are read as a signed number.
    with pytest.raises(ValueError, match="not among"):
        SegmentationConfusion([-1, 1]).update(np.array([2**64 - 1], dtype="uint64"), [1])


def test_labels_at_the_ends_of_the_integers():
    for end in (np.iinfo(np.int64).min, np.iinfo(np.int64).max - 1):
        values = np.array([end, end + 1, 0, end])
        matrix = segmentation_confusion_matrix(
            values, values, labels=[end + 1, end], ignore_label=0
        )
        assert_array_equal(matrix, np.diag([1, 2]))
    with pytest.raises(ValueError, match="beyond 64-bit integers"):
        values = np.array([2**64 - 1, 2**64 - 2], dtype="uint64")
        segmentation_confusion_matrix(values, values)


def test_widely_spread_integer_labels():
    truth, predicted = np.array([0, 10**12, 10**12, -5]), np.array([0, 10**12, 0, -5])
    expected = [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert_array_equal(segmentation_confusion_matrix(truth, predicted), expected)
    matrix = segmentation_confusion_matrix(truth, predicted, labels=[10**12, 0, -5])
    assert_array_equal(matrix, [[1, 1, 0], [0, 1, 0], [0, 0, 1]])


def test_inputs_are_not_modified():
    truth, predicted = TRUE.copy(), PREDICTED.copy()
    labels = np.array(list("bca"))
    segmentation_confusion_matrix(truth, predicted, labels=labels)
    assert_array_equal(truth, TRUE)
    assert_array_equal(predicted, PREDICTED)
    assert labels.tolist() == list("bca")


def test_sample_weight_of_two_is_the_same_as_twice():
    weight = np.arange(len(TRUE)) % 3
    twice = np.repeat(TRUE, weight), np.repeat(PREDICTED, weight)
    for score in SCORES.values():
        assert score(TRUE, PREDICTED, sample_weight=weight) == pytest.approx(score(*twice))


def test_weights_may_be_a_map():
    weight = np.linspace(0, 1, 10).reshape(2, 5)
    maps = TRUE.reshape(2, 5), PREDICTED.reshape(2, 5)
    matrix = segmentation_confusion_matrix(*maps, sample_weight=weight)
    expected = confusion_matrix(TRUE, PREDICTED, sample_weight=weight.ravel())
    assert_allclose(matrix, expected)


def test_proportion_error_ignores_order_within_bags_and_names_of_bags():
    truth, predicted = random_labels(4)
    bags = np.random.default_rng(4).integers(0, 5, len(truth))
    expected = proportion_error(truth, predicted, bag_ids=bags)
    assert 0 < expected < 1
    named = np.array(["e", "c", "a", "d", "b"])[bags]
    assert proportion_error(truth, predicted, bag_ids=named) == pytest.approx(expected)
    shuffled = predicted.copy()
    for bag in range(5):
        inside = np.flatnonzero(bags == bag)
        shuffled[inside] = np.random.default_rng(bag).permutation(predicted[inside])
    assert proportion_error(truth, shuffled, bag_ids=bags) == pytest.approx(expected)
    stacked = [values.reshape(4, 10, 10) for values in (truth, predicted)]
    assert proportion_error(*stacked, bag_ids=bags.reshape(4, 10, 10)) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1))
def test_relations_between_the_scores(pairs):
    truth, predicted = zip(*pairs, strict=True)
    precision = per_class_score(truth, predicted, labels=list("abcd"), average=None)
    recall = PER_CLASS["recall"](truth, predicted, labels=list("abcd"))
    iou = mean_iou_score(truth, predicted, labels=list("abcd"), average=None)
    for scores in (precision, recall, iou):
        defined = scores[~np.isnan(scores)]
        assert (defined >= 0).all() and (defined <= 1).all()
    # The union holds both what is true and what is predicted.
    both = ~np.isnan(precision) & ~np.isnan(recall)
    assert (iou[both] <= np.minimum(precision, recall)[both] + 1e-12).all()
    assert_array_equal(np.isnan(iou), [c not in truth and c not in predicted for c in "abcd"])
    one_bag = ["slide"] * len(truth)
    error = proportion_error(truth, predicted, bag_ids=one_bag)
    # At least half of the misplaced share are wrong positions.
    assert error <= 2 * (1 - overall_pixel_score(truth, predicted)) + 1e-12


# --- ignored labels -----------------------------------------------------------------------------


@every_score
@pytest.mark.parametrize("labels", [None, CLASSES])
def test_ignored_regions_are_as_if_cut_out(score, labels):
    truth, predicted = random_labels(5)
    vague = np.arange(len(truth)) % 7 == 0
    marked = np.where(vague, "vague", truth)
    expected = score(truth[~vague], predicted[~vague], labels=labels)
    assert score(marked, predicted, labels=labels, ignore_label="vague") == expected
    assert expected != score(truth, predicted, labels=labels)


@pytest.mark.parametrize("junk", ["background", "vague", "nan"])
@pytest.mark.parametrize("labels", [None, CLASSES])
def test_what_is_predicted_in_ignored_regions_does_not_matter(junk, labels):
    truth, predicted = random_labels(6)
    vague = np.arange(len(truth)) % 5 == 0
    marked = np.where(vague, "vague", truth)
    expected = mean_iou_score(truth[~vague], predicted[~vague])
    predicted = np.where(vague, junk, predicted)
    if junk == "nan":
        predicted = predicted.astype(object)
        predicted[vague] = np.nan
    score = mean_iou_score(marked, predicted, labels=labels, ignore_label="vague")
    assert score == pytest.approx(expected)


@pytest.mark.parametrize("ignore", [[-1, 255], (255, -1), np.array([-1, 255])])
def test_several_ignored_labels(ignore):
    truth = np.array([[0, 1, -1], [1, 255, 0]])
    predicted = np.array([[0, 1, 1], [0, -1, 0]])
    assert_array_equal(
        segmentation_confusion_matrix(truth, predicted, ignore_label=ignore), [[2, 0], [1, 1]]
    )


def test_nothing_to_ignore():
    expected = segmentation_confusion_matrix(TRUE, PREDICTED)
    for ignore in (None, [], "vague", ["vague", "pen"]):
        matrix = segmentation_confusion_matrix(TRUE, PREDICTED, ignore_label=ignore)
        assert_array_equal(matrix, expected)


def test_float_map_with_nan_outside_the_tissue():
    truth = np.array([[0, 1, -1], [1, 1, -1]])
    predicted = np.array([[0, 1, np.nan], [0, 1, np.nan]])
    for labels in (None, [0, 1]):
        score = overall_pixel_score(truth, predicted, labels=labels, ignore_label=-1)
        assert score == pytest.approx(3 / 4)


def test_proportion_error_takes_shares_after_ignoring():
    truth = ["a", "b", "vague", "vague", "vague"]
    predicted = ["a", "a", "b", "b", "junk"]
    bags = [0, 0, 0, 0, 1]
    # Bag 0: (1/2, 1/2) against (1, 0). Bag 1 has nothing left and is not averaged.
    error = proportion_error(truth, predicted, bag_ids=bags, ignore_label="vague")
    assert error == pytest.approx(1.0)
    truth[1] = "a"
    error = proportion_error(truth, predicted, bag_ids=bags, ignore_label="vague")
    assert error == 0.0


# --- absent classes -----------------------------------------------------------------------------


def test_absent_classes():
    # a: true and predicted; b: predicted only; c: true only; d: neither.
    truth, predicted = list("aaac"), list("aaba")
    options = {"labels": list("abcd")}
    nan = np.nan
    assert_allclose(PER_CLASS["precision"](truth, predicted, **options), [2 / 3, 0, 0, nan])
    assert_allclose(PER_CLASS["recall"](truth, predicted, **options), [2 / 3, nan, 0, nan])
    assert_allclose(PER_CLASS["iou"](truth, predicted, **options), [2 / 4, 0, 0, nan])
    assert SCORES["precision"](truth, predicted, **options) == pytest.approx(2 / 9)
    assert SCORES["recall"](truth, predicted, **options) == pytest.approx(1 / 3)
    assert SCORES["iou"](truth, predicted, **options) == pytest.approx(1 / 6)


def test_zero_division_is_only_for_missed_classes():
    truth, predicted = list("aaac"), list("aaba")
    scores = {
        value: per_class_score(
            truth, predicted, labels=list("abcd"), average=None, zero_division=value
        )
        for value in (0.0, 1.0)
    }
    assert_allclose(scores[1.0] - scores[0.0], [0, 0, 1, np.nan])
    left_out = per_class_score(truth, predicted, zero_division=np.nan)
    assert left_out == pytest.approx((2 / 3 + 0) / 2)
    assert per_class_score(truth, predicted, definition="recall", zero_division=1.0) == (
        per_class_score(truth, predicted, definition="recall")
    )


def test_single_position_and_single_class():
    for score in SCORES.values():
        assert score(["a"], ["a"]) == 1.0
        assert score(["a"], ["a"], labels=["b", "a"]) == 1.0


# --- accumulation -------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[], [1], [100, 100, 250], list(range(0, 400, 37))])
@pytest.mark.parametrize("weighted", [False, True])
def test_accumulated_chunks_equal_one_shot(cuts, weighted):
    truth, predicted = random_labels(7, classes=[*CLASSES, "vague"])
    predicted[predicted == "vague"] = "solid"
    weight = np.random.default_rng(7).integers(0, 4, 400) / 4 if weighted else None
    options = {"labels": CLASSES, "ignore_label": "vague", "sample_weight": weight}
    confusion = SegmentationConfusion(CLASSES, ignore_label="vague")
    for part in np.split(np.arange(400), cuts):
        part_weight = None if weight is None else weight[part]
        assert confusion.update(truth[part], predicted[part], part_weight) is confusion
    assert_array_equal(confusion.matrix, segmentation_confusion_matrix(truth, predicted, **options))
    assert confusion.overall_pixel_score() == overall_pixel_score(truth, predicted, **options)
    assert confusion.mean_iou_score() == mean_iou_score(truth, predicted, **options)
    for definition in ("precision", "recall"):
        assert confusion.per_class_score(definition) == per_class_score(
            truth, predicted, definition=definition, **options
        )
        assert_array_equal(
            confusion.per_class_score(definition, average=None),
            per_class_score(truth, predicted, definition=definition, average=None, **options),
        )


def test_blocks_do_not_change_the_result(monkeypatch):
    truth, predicted = random_labels(8, classes=[*CLASSES, "vague"])
    predicted[predicted == "vague"] = "solid"
    truth, predicted = truth.reshape(20, 20), predicted.reshape(20, 20)
    bags = np.random.default_rng(8).integers(0, 6, (20, 20))
    weight = np.random.default_rng(8).random((20, 20))

    def results():
        return [
            segmentation_confusion_matrix(truth, predicted, ignore_label="vague"),
            segmentation_confusion_matrix(
                truth, predicted, labels=CLASSES, ignore_label="vague", sample_weight=weight
            ),
            proportion_error(truth, predicted, bag_ids=bags, ignore_label="vague"),
            bag_proportion_error(np.full((6, 6), 1 / 6), predicted, bag_ids=bags, labels=CLASSES),
        ]

    whole = results()
    monkeypatch.setattr(_label_codes, "_BLOCK", 17)
    for in_blocks, expected in zip(results(), whole, strict=True):
        assert_allclose(in_blocks, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "names",
    [
        np.array([-3, 0, 1, 5]),
        np.array([0, 1, 2, 250], dtype=np.uint8),
        np.array([-(2**62), 7, 2**40, 2**62]),
        np.array([1, 2, 3, 2**63 + 5], dtype=np.uint64),
        np.array([0.5, 1.5, 2.5, 1e300]),
        np.array([1, 2, 3, 4], dtype=object),
        np.array(["a", "b", "c", "d"]),
    ],
    ids=["near", "unsigned", "far apart", "beyond int64", "floats", "objects", "strings"],
)
def test_bags_may_have_any_names(names):
    rng = np.random.default_rng(0)
    truth, predicted, bag = (
        rng.integers(0, 3, 300),
        rng.integers(0, 3, 300),
        rng.integers(0, 4, 300),
    )
    recorded = rng.dirichlet(np.ones(3), 4)

    def share(labels, one):
        return np.bincount(labels[bag == one], minlength=3) / (bag == one).sum()

    def mean_error(expected):
        distances = [np.abs(expected[one] - share(predicted, one)).sum() for one in range(4)]
        return np.minimum(1, distances).mean()

    assert bag_proportion_error(
        recorded, predicted, bag_ids=names[bag], labels=range(3)
    ) == pytest.approx(mean_error(recorded))
    assert proportion_error(truth, predicted, bag_ids=names[bag]) == pytest.approx(
        mean_error([share(truth, one) for one in range(4)])
    )


def test_more_positions_than_a_block():
    size = 2 * _label_codes._BLOCK + 5
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, size, dtype=np.uint8), rng.integers(0, 3, size)
    matrix = segmentation_confusion_matrix(truth, predicted)
    assert matrix.sum() == size
    expected = np.bincount(truth * 3 + predicted, minlength=9).reshape(3, 3)
    assert_array_equal(matrix, expected)


def test_merging_parts():
    truth, predicted = random_labels(9)
    parts = [
        SegmentationConfusion(CLASSES).update(truth[part], predicted[part])
        for part in np.split(np.arange(400), [30, 31, 200])
    ]
    before = [part.matrix for part in parts]
    whole = functools.reduce(operator.add, parts)
    assert_array_equal(
        whole.matrix, segmentation_confusion_matrix(truth, predicted, labels=CLASSES)
    )
    for part, matrix in zip(parts, before, strict=True):
        assert_array_equal(part.matrix, matrix)
    first = parts[0]
    assert first.merge(parts[1]) is first
    assert_array_equal(first.matrix, before[0] + before[1])


def test_pooled_score_is_not_the_average_over_slides():
    large = ["a"] * 90, ["a"] * 90
    small = ["a"] * 10, ["b"] * 10
    slides = [SegmentationConfusion(["a", "b"]).update(*slide) for slide in (large, small)]
    pooled = (slides[0] + slides[1]).overall_pixel_score()
    assert pooled == pytest.approx(0.9)
    assert np.mean([slide.overall_pixel_score() for slide in slides]) == pytest.approx(0.5)


def test_proportion_error_of_slides_counted_one_by_one():
    truth, predicted = random_labels(10, classes=[*CLASSES, "vague"])
    predicted[predicted == "vague"] = "solid"
    bags = np.random.default_rng(10).integers(0, 4, 400)
    errors = [
        SegmentationConfusion(CLASSES, "vague")
        .update(truth[bags == bag], predicted[bags == bag])
        .proportion_error()
        for bag in range(4)
    ]
    expected = proportion_error(truth, predicted, bag_ids=bags, ignore_label="vague")
    assert np.mean(errors) == pytest.approx(expected)


def test_accumulator_survives_empty_and_fully_ignored_tiles():
    confusion = SegmentationConfusion(["a", "b"], ignore_label="vague")
    confusion.update([], []).update(["vague"], ["b"]).update(
        np.empty((0, 5), dtype=str), np.empty((0, 5))
    )
    with pytest.raises(ValueError, match="Nothing to score"):
        confusion.mean_iou_score()
    assert confusion.update(["a"], ["a"]).mean_iou_score() == 1.0


def test_failed_update_changes_nothing(monkeypatch):
    monkeypatch.setattr(_label_codes, "_BLOCK", 2)
    confusion = SegmentationConfusion(["a", "b"]).update(["a"], ["b"])
    with pytest.raises(ValueError, match="y_pred holds"):
        confusion.update(["a", "a", "b"], ["a", "b", "oops"])
    assert_array_equal(confusion.matrix, [[0, 1], [0, 0]])


def test_accumulator_protects_its_state():
    confusion = SegmentationConfusion(["a", "b"], ignore_label=["vague"]).update(["a"], ["b"])
    confusion.matrix[:] = 9
    confusion.labels[:] = "x"
    confusion.ignore_label[:] = "y"
    assert repr(confusion) == (
        "SegmentationConfusion(['a', 'b'], ignore_label=['vague']): [[0, 1], [0, 0]]"
    )
    segmentation_confusion_matrix(["a"], ["a"])[:] = 0
    copy = pickle.loads(pickle.dumps(confusion))
    assert repr(copy) == repr(confusion)
    assert (copy + confusion).matrix.sum() == 2


def test_accumulators_that_do_not_fit_are_not_merged():
    ours = SegmentationConfusion(["a", "b"], "vague")
    with pytest.raises(ValueError, match=r"different labels .*\['a', 'b'\] and \['b', 'a'\]"):
        ours.merge(SegmentationConfusion(["b", "a"], "vague"))
    with pytest.raises(ValueError, match="different ignore_label"):
        ours + SegmentationConfusion(["a", "b"])
    with pytest.raises(TypeError, match="Only a SegmentationConfusion"):
        ours.merge(ours.matrix)
    with pytest.raises(TypeError, match="unsupported operand"):
        ours + 1


# --- recorded proportions -----------------------------------------------------------------------


def test_recorded_proportions_by_hand():
    predicted, bags = list("aabbb"), ["s2"] * 4 + ["s1"]
    # Sorted: s1 first. s1: (.2, .8) against (0, 1): .4. s2: (.25, .75) against (.5, .5): .5.
    recorded = [[0.2, 0.8], [0.25, 0.75]]
    error = bag_proportion_error(recorded, predicted, bag_ids=bags, labels=["a", "b"])
    assert error == pytest.approx((0.4 + 0.5) / 2)


@pytest.mark.parametrize("seed", range(3))
def test_true_shares_as_recorded_proportions_give_the_same_error(seed):
    truth, predicted = random_labels(seed)
    bags = np.random.default_rng(seed).integers(0, 5, 400)
    table = pd.crosstab(bags, truth, normalize="index")
    expected = proportion_error(truth, predicted, bag_ids=bags)
    options = {"bag_ids": bags, "labels": CLASSES}
    error = bag_proportion_error(table[CLASSES].to_numpy(), predicted, **options)
    assert error == pytest.approx(expected)
    shuffled = table.sample(frac=1, random_state=seed)[CLASSES[::-1]]
    assert bag_proportion_error(shuffled, predicted, **options) == pytest.approx(expected)
    maps = predicted.reshape(20, 20), bags.reshape(20, 20)
    error = bag_proportion_error(table, maps[0], bag_ids=maps[1], labels=CLASSES)
    assert error == pytest.approx(expected)


def test_recorded_proportions_may_be_rounded():
    recorded = [[0.33, 0.33, 0.33]]
    error = bag_proportion_error(recorded, list("abc"), bag_ids=[0] * 3, labels=list("abc"))
    assert error == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ([[0.5, 0.5]], r"shape \(1, 2\), but there are 2 bags in bag_ids and 2 labels"),
        ([[0.5, 0.3, 0.2]] * 2, r"shape \(2, 3\)"),
        ([[0.5, 0.5], [50, 50]], r"of bag 's2' sum to 100, not 1 .*percent"),
        ([[0.5, 0.5], [0.5, 0.4]], r"of bag 's2' sum to 0\.9, not 1.* is wrong\.$"),
        ([[1.5, -0.5], [0.5, 0.5]], "of bag 's1' hold a negative share"),
        ([[np.inf, 0.5], [0.5, 0.5]], "of bag 's1' hold a number that is not finite"),
        ([[0.5, 0.5], [np.nan] * 2], "of bag 's2'"),
        ([[0.5, 0.5], [1.2, np.nan]], "of bag 's2' sum to 1.2"),
        (
            pd.DataFrame([[0.5, 0.5]] * 2, index=["s1", "s3"], columns=["a", "b"]),
            r"index .* bag ids: missing \['s2'\], without counterpart \['s3'\]",
        ),
        (
            pd.DataFrame([[0.5, 0.5]] * 2, index=["s1", "s2"], columns=["a", "vague"]),
            r"columns .* labels: missing \['b'\], without counterpart \['vague'\]",
        ),
        (
            pd.DataFrame([[0.5, 0.5]] * 3, index=["s1", "s2", "s2"], columns=["a", "b"]),
            r"repeated entries in its index",
        ),
    ],
)
def test_bad_recorded_proportions(recorded, message):
    with pytest.raises(ValueError, match=message):
        bag_proportion_error(recorded, ["a", "b"], bag_ids=["s1", "s2"], labels=["a", "b"])


def test_shares_that_were_not_stated_may_be_anything_that_is_left():
    options = {"bag_ids": [0, 0, 0, 0, 1, 1], "labels": ["a", "b", "c"]}
    recorded = [[0.5, np.nan, np.nan], [np.nan, 0.5, 0.25]]
    # the first bag holds .25, .75, 0: .25 too few of a, .25 more of b than are left; the second .5, .5, 0
    error = bag_proportion_error(recorded, list("abbbab"), **options)
    assert error == pytest.approx((0.25 + 0.25 + 0.25 + 0.25) / 2)
    assert bag_proportion_error(recorded, list("aaccab"), **options) == pytest.approx(0.25)
    assert bag_proportion_error(recorded, list("aabcab"), **options) == pytest.approx(0.25)


def test_intervals_are_met_anywhere_within():
    options = {"bag_ids": ["s1"] * 4 + ["s2"] * 2, "labels": ["a", "b"]}
    recorded = np.array([[0.5, 0.5], [1.0, 0.0]])
    lower, upper = recorded - [[0.25], [0.0]], recorded + [[0.25], [0.0]]

    def error(predicted, **kwargs):
        return bag_proportion_error(recorded, list(predicted), **options, **kwargs)

    assert error("abbbaa") == pytest.approx(0.25)
    assert error("abbbaa", lower=lower, upper=upper) == 0
    assert error("bbbbaa", lower=lower, upper=upper) == pytest.approx(0.25)
    assert error("abbbab", lower=lower, upper=upper) == pytest.approx(0.5)
    frames = [
        pd.DataFrame(ends, ["s1", "s2"], ["a", "b"]).iloc[::-1, ::-1] for ends in (lower, upper)
    ]
    assert error("abbbab", lower=frames[0], upper=frames[1]) == pytest.approx(0.5)

    with pytest.raises(ValueError, match="lower and upper belong together"):
        error("abbbab", lower=lower)
    with pytest.raises(ValueError, match=r"upper has shape \(1, 2\)"):
        error("abbbab", lower=lower, upper=upper[:1])
    with pytest.raises(ValueError, match="recorded share outside its interval"):
        error("abbbab", lower=np.zeros((2, 2)), upper=[[1, 1], [0.5, 1]])
    with pytest.raises(
        ValueError, match=r"The index of lower must be the bag ids: missing \['s2'\]"
    ):
        error("abbbab", lower=frames[0].iloc[1:], upper=upper)


def test_bad_predictions_for_recorded_proportions():
    with pytest.raises(ValueError, match=r"y_pred holds \['c'\]"):
        bag_proportion_error([[0.5, 0.5]], ["a", "c"], bag_ids=[0, 0], labels=["a", "b"])
    with pytest.raises(ValueError, match="y_pred is empty"):
        bag_proportion_error(np.empty((0, 2)), [], bag_ids=[], labels=["a", "b"])
    with pytest.raises(ValueError, match=r"bag_ids has shape \(1,\) and y_pred \(2,\)"):
        bag_proportion_error([[0.5, 0.5]], ["a", "b"], bag_ids=[0], labels=["a", "b"])


# --- errors -------------------------------------------------------------------------------------


@every_public
def test_unknown_labels(function):
    with pytest.raises(
        ValueError, match=r"y_true holds \['c'\] at 1 positions, not among .*'a', 'b'"
    ):
        function(["a", "b", "c"], ["a", "b", "b"], labels=["a", "b"])
    with pytest.raises(ValueError, match=r"y_pred holds \['c', 'd'\] at 2 positions"):
        function(["a", "b", "a"], ["c", "b", "d"], labels=["a", "b"])
    with pytest.raises(
        ValueError, match=r"y_pred holds \['vague'\].*ignored in y_true: \['vague'\]"
    ):
        function(["a", "b", "vague"], ["vague", "b", "a"], ignore_label="vague")
    with pytest.raises(ValueError, match=r"y_true holds \[0, 1\]"):
        function([0, 1, 1], [0, 1, 1], labels=["a", "b"])
    with pytest.raises(ValueError, match=r"y_pred holds \[-1\]"):
        function([0, 1, 1], [0, 1, -1], labels=[0, 1])
    with pytest.raises(ValueError, match=r"\[0, 1, 2, 3, 4\] and 5 more"):
        SegmentationConfusion([99]).update(np.arange(10), np.arange(10))


@every_public
def test_shapes_that_differ(function):
    with pytest.raises(ValueError, match=r"y_true has shape \(3,\) and y_pred \(3, 1\)"):
        function(["a", "b", "a"], [["a"], ["b"], ["a"]])
    with pytest.raises(ValueError, match="argmax"):
        function([0, 1, 0], np.full((3, 2), 0.5))
    with pytest.raises(ValueError, match=r"y_pred is not one array.*map by map"):
        function([0, 1, 0], [[0, 1], [0]])


@every_public
def test_nothing_left(function):
    with pytest.raises(ValueError, match="Nothing to score"):
        function(["vague"] * 3, ["a", "b", "a"], ignore_label="vague")
    with pytest.raises(ValueError, match="Nothing to score"):
        function(["vague"] * 3, ["a", "b", "a"], labels=["a", "b"], ignore_label="vague")


@every_score
def test_empty_input(score):
    for labels in (None, ["a"]):
        with pytest.raises(ValueError, match="Nothing to score"):
            score([], [], labels=labels)
    with pytest.raises(ValueError, match="Nothing to score"):
        score(["a"], ["a"], sample_weight=[0.0])
    with pytest.raises(ValueError, match="Nothing to score"):
        proportion_error([], [], bag_ids=[])


@every_public
@pytest.mark.parametrize("labels", [None, [0, 1]])
def test_missing_labels(function, labels):
    with pytest.raises(ValueError, match="y_true holds NaN or missing"):
        function([0, 1, np.nan], [0, 1, 1], labels=labels)
    with pytest.raises(ValueError, match="y_pred holds NaN or missing"):
        function([0, 1, 1], [np.nan, 1, 0], labels=labels)


@pytest.mark.parametrize("missing", [np.nan, pd.NA])
@pytest.mark.parametrize("labels", [None, ["a", "b"]])
def test_missing_string_labels(missing, labels):
    strings = pd.Series(["a", "b", missing], dtype=object)
    with pytest.raises(ValueError, match="y_pred holds NaN or missing"):
        mean_iou_score(["a", "b", "b"], strings, labels=labels)
    with pytest.raises(ValueError, match="y_true holds NaN or missing"):
        mean_iou_score(list(strings), ["a", "b", "b"], labels=labels)
    with pytest.raises(TypeError, match="all strings or all whole numbers"):
        mean_iou_score(["a", "b", None], ["a", "b", "b"])


@every_public
def test_labels_of_mixed_or_wrong_types(function):
    with pytest.raises(TypeError, match=r"all strings or all whole numbers, got \['a', 1\]"):
        function(["a", 1, 1], ["a", 1, 1])
    with pytest.raises(TypeError, match="all strings or all whole numbers"):
        function(["a", "b", "b"], [0, 1, 1])
    with pytest.raises(TypeError, match="whole numbers"):
        function([0, 1, 1], [0.2, 0.7, 0.9])
    with pytest.raises(TypeError, match="got dtype"):
        function(np.array([1j, 2j, 1j]), [0, 1, 1])
    with pytest.raises(TypeError, match="got dtype"):
        function([b"a", b"b", b"b"], [b"a", b"b", b"b"])


@pytest.mark.parametrize(
    ("labels", "ignore", "error", "message"),
    [
        ([], None, ValueError, "labels is empty"),
        (["a", "a"], None, ValueError, "more than once"),
        ("abc", None, TypeError, "must be a sequence"),
        (3, None, TypeError, "must be a sequence"),
        (["a", 1], None, TypeError, "all strings or all whole numbers"),
        ([0.5, 1], None, TypeError, "all strings or all whole numbers"),
        ([[0, 1]], None, TypeError, "all strings or all whole numbers"),
        (["a", "vague"], "vague", ValueError, r"\['vague'\] are in both"),
        (["a", "b"], -1, TypeError, "different types"),
        ([0, 1], ["x"], TypeError, "different types"),
        ([0, 1], [7, 7], ValueError, "ignore_label holds a class more than once"),
    ],
)
def test_bad_labels(labels, ignore, error, message):
    with pytest.raises(error, match=message):
        SegmentationConfusion(labels, ignore)


def test_labels_that_occur_and_ignored_labels_of_different_types():
    with pytest.raises(TypeError, match="different types"):
        mean_iou_score(["a", "b"], ["a", "b"], ignore_label=-1)
    with pytest.raises(ValueError, match=r"y_pred holds \['a'\]"):
        mean_iou_score(["a", "vague"], ["vague", "a"], ignore_label=["a", "b"])


def test_bad_weights():
    for weight, message in (
        ([1.0], r"sample_weight has shape \(1,\)"),
        ([1.0, -1.0], "not negative"),
        ([1.0, np.inf], "finite"),
        ([1.0, np.nan], "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            overall_pixel_score(["a", "b"], ["a", "b"], sample_weight=weight)


def test_bad_bag_ids():
    for bags, error, message in (
        ([0], ValueError, r"bag_ids has shape \(1,\) and y_true \(2,\)"),
        ([0, np.nan], ValueError, "bag_ids holds NaN"),
        (["s1", None], TypeError, "mixes types or has missing"),
        (["s1", 1], TypeError, "mixes types or has missing"),
        ([pd.NA, "s1"], ValueError, "bag_ids holds NaN or missing"),
    ):
        with pytest.raises(error, match=message):
            proportion_error(["a", "b"], ["a", "b"], bag_ids=bags)


def test_bad_options():
    for options, message in (
        ({"definition": "f1"}, 'definition must be "precision" or "recall", got \'f1\''),
        ({"average": "micro"}, "average must be \"macro\" or None, got 'micro'"),
        ({"zero_division": -1}, "zero_division must be 0, 1 or NaN, got -1"),
        ({"zero_division": None}, "zero_division must be"),
    ):
        with pytest.raises(ValueError, match=message):
            per_class_score(["a"], ["a"], **options)
    with pytest.raises(ValueError, match="average must be"):
        mean_iou_score(["a"], ["a"], average="weighted")
