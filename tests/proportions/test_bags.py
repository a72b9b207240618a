"""Bags: construction, alignment with classes, errors that name the bag."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import Bags
from proportion_ssl.proportions.bags import check_bags

HALF = [[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]
CLASSES = np.array(["a", "b"])


def arrays(sizes=(3, 1, 2), n_features=4):
    return [np.full((n, n_features), float(i)) for i, n in enumerate(sizes)]


def test_one_array_per_bag():
    bags = Bags(arrays(), proportions=HALF)
    assert (bags.n_bags, bags.n_instances) == (3, 6)
    assert_array_equal(bags.index, [0, 0, 0, 1, 2, 2])
    assert_array_equal(bags.X[:, 0], bags.index)
    assert_array_equal(bags.sizes, [3, 1, 2])
    assert not bags.has_names


def test_flat_array_and_ids():
    X = np.arange(5.0)[:, None]
    frame = pd.DataFrame(HALF, index=["s1", "s2", "s3"])
    bags = Bags(X, ["s2", "s1", "s2", "s3", "s1"], frame)
    assert_array_equal(bags.names, ["s1", "s2", "s3"])
    assert_array_equal(bags.index, [1, 0, 1, 2, 0])
    assert bags.X is X


def test_both_forms_are_the_same_bags():
    one = Bags(arrays(), ["x", "y", "z"], HALF)
    other = Bags(np.concatenate(arrays()), np.repeat(["x", "y", "z"], [3, 1, 2]), HALF)
    for name in ("X", "index", "names", "proportions"):
        assert_array_equal(getattr(one, name), getattr(other, name))


def test_dataframe_is_aligned_by_bag_and_class():
    frame = pd.DataFrame({"b": [0.75, 0.5, 0.0], "a": [0.25, 0.5, 1.0]}, index=["z", "x", "y"])
    bags = check_bags(Bags(arrays(), ["x", "y", "z"]), frame, CLASSES)
    assert_array_equal(bags.proportions, HALF)


def test_a_dict_names_its_arrays_and_a_list_cannot_be_matched_with_names():
    frame = pd.DataFrame(HALF, columns=["a", "b"], index=["x", "y", "z"])
    bags = check_bags(dict(zip("xyz", arrays(), strict=True)), frame[::-1], CLASSES)
    assert_array_equal(bags.names, ["x", "y", "z"])
    assert_array_equal(bags.proportions, HALF)
    with pytest.raises(ValueError, match=r"row for bag 'x'.*Pass a dict \{name: array\}"):
        check_bags(arrays(), frame, CLASSES)
    numbered = check_bags(arrays(), frame.set_axis([0, 1, 2]), CLASSES)
    assert_array_equal(numbered.names, [0, 1, 2])


def test_rows_of_a_dataframe_for_other_bags_are_left_out():
    frame = pd.DataFrame([*HALF, [0.1, 0.9]], columns=["a", "b"], index=["x", "y", "z", "w"])
    assert_array_equal(Bags(arrays(), ["x", "y", "z"], frame).proportions, HALF)


def test_not_array_like():
    bags = Bags(arrays(), proportions=HALF)
    for name in ("__len__", "shape", "__array__"):
        assert not hasattr(bags, name)


def test_select_and_transform():
    bags = Bags(arrays(), ["x", "y", "z"], HALF)
    some = bags.select(["z", "x"])
    assert_array_equal(some.names, ["z", "x"])
    assert_array_equal(some.proportions, [HALF[2], HALF[0]])
    assert_array_equal(some.names[some.index], ["x"] * 3 + ["z"] * 2)
    assert_array_equal(some.X[:, 0], [0, 0, 0, 2, 2])
    doubled = bags.with_instances(bags.X * 2)
    assert_array_equal(doubled.X, bags.X * 2)
    assert_array_equal(doubled.proportions, bags.proportions)
    with pytest.raises(ValueError, match="'w', which is not among the bags"):
        bags.select(["w"])
    with pytest.raises(ValueError, match=r"5 instances but the bags have 6"):
        bags.with_instances(bags.X[:5])


def test_pickle():
    bags = Bags(arrays(), ["x", "y", "z"], HALF)
    assert_array_equal(pickle.loads(pickle.dumps(bags)).X, bags.X)


@pytest.mark.parametrize("form", ["flat", "arrays", "Bags"])
def test_transformed_instances_with_the_grouping_of_bags(form):
    bags = Bags(arrays(), ["x", "y", "z"], HALF)
    X_bags = {"flat": bags.flat, "arrays": tuple(arrays()), "Bags": bags}[form]
    merged = check_bags(X_bags, bags, CLASSES)
    assert_array_equal(merged.index, bags.index)
    assert_array_equal(merged.names, bags.names)
    assert_array_equal(merged.proportions, bags.proportions)


def test_rounded_proportions_are_accepted_and_kept():
    rounded = [[0.333, 0.333, 0.333]]
    assert_array_equal(Bags([np.zeros((2, 1))], proportions=rounded).proportions, rounded)


@pytest.mark.parametrize(
    ("proportions", "message"),
    [
        ([[50, 50], [100, 0], [25, 75]], "bag 0 sum to 100, .* divide by 100"),
        ([[0.5, 0.5], [0.5, 0.1], [1, 0]], "bag 1 sum to 0.6, not 1"),
        ([[0.5, 0.5], [1.5, -0.5], [1, 0]], "proportions of bag 1 hold a negative share"),
        (
            [[0.5, 0.5], [1, 0], [np.inf, 1]],
            "proportions of bag 2 hold a number that is not finite",
        ),
        ([[0.5, 0.5], [1, 0]], "2 rows but there are 3 bags"),
        ([0.5, 0.5, 1.0], r"shape \(3,\)"),
        ([["x", "y"]] * 3, "must be numbers"),
    ],
)
def test_wrong_proportions(proportions, message):
    with pytest.raises(ValueError, match=message):
        Bags(arrays(), proportions=proportions)


@pytest.mark.parametrize(
    ("X", "ids", "message"),
    [
        ([], None, "no bags"),
        (arrays((3, 0)), ["x", "y"], "Bag 'y' has no instances"),
        (arrays((3, 0)), None, "Bag 1 has no instances"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], None, r"shape \(4,\), but bag .*0.* has \(3,\)"),
        ([np.zeros(3)], None, r"shape \(3,\)"),
        (arrays(), ["x", "y"], "names 2 bags but X holds 3"),
        (arrays(), ["x", "y", "x"], "'x'.* more than once"),
        (np.zeros((3, 2)), None, "bag_ids is needed"),
        (np.zeros((3, 2)), [0, 1], r"bag_ids has shape \(2,\), but there are 3"),
        (np.zeros((0, 2)), [], "no instances"),
    ],
)
def test_wrong_instances(X, ids, message):
    with pytest.raises(ValueError, match=message):
        Bags(X, ids)


def frame(columns, index=("x", "y", "z")):
    return pd.DataFrame(HALF, columns=columns, index=list(index))


@pytest.mark.parametrize(
    ("proportions", "classes", "message"),
    [
        (HALF, ["a", "b", "c"], "2 columns but there are 3 classes"),
        (frame(["a", "c"]), ["a", "b"], "Class 'b' has no column in bag_proportions"),
        (
            frame(["acinar", "Solid"]),
            ["acinar", "solid"],
            "Did you mean 'Solid'. Add it, .*or rename",
        ),
        (frame(["a", "b"]), ["a"], "share of class 'b', which is not among the classes"),
        (frame(["a", "b"], "xyw"), ["a", "b"], "Bag 'z' has no row"),
        (frame(["a", "b"], "xyy"), ["a", "b"], "more than one row for bag 'y'"),
    ],
)
def test_classes_and_columns_that_do_not_match(proportions, classes, message):
    with pytest.raises(ValueError, match=message):
        check_bags(Bags(arrays(), ["x", "y", "z"]), proportions, np.array(classes))


def test_bags_without_proportions():
    with pytest.raises(ValueError, match="3 bags have no proportions"):
        check_bags(Bags(arrays()), None, CLASSES)


@pytest.mark.parametrize(
    "record", [{"rounding_step": 0.1}, {"standard_deviation": 0.1}, {"among": ["a", "c"]}]
)
def test_proportions_do_not_replace_a_record_that_states_more(record):
    bags = Bags([np.zeros((3, 2)), np.ones((2, 2))], proportions=[[0.6, 0.4], [0.3, 0.7]], **record)
    if "among" in record:
        bags = bags.with_classes(np.array(["a", "b", "c"]))
    with pytest.raises(ValueError, match="drop what it states"):
        check_bags(bags, [[0.5, 0.5], [0.2, 0.8]])


@pytest.mark.parametrize("other", [{"rounding_step": 0.1}, {"weights": [1, 2]}])
def test_bags_do_not_replace_the_records_and_weights_of_other_bags(other):
    X, shares = [np.zeros((3, 2)), np.ones((2, 2))], [[0.6, 0.4], [0.3, 0.7]]
    plain, stated = Bags(X, proportions=shares), Bags(X, proportions=shares, **other)
    with pytest.raises(ValueError, match="with other records or weights"):
        check_bags(stated, plain)
    assert check_bags(stated, stated).weights.tolist() == stated.weights.tolist()
    assert check_bags(Bags(X), stated).weights.tolist() == stated.weights.tolist()
    if "weights" in other:
        with pytest.raises(ValueError, match="with other records or weights"):
            check_bags(Bags(X, weights=[1, 2]), plain)


def test_the_same_records_of_two_bags_may_differ_in_the_order_of_classes():
    X, table = [np.zeros((3, 2)), np.ones((2, 2))], pd.DataFrame({"a": [0.6, 0.3], "b": [0.4, 0.7]})
    given = check_bags(Bags(X, proportions=table), Bags(X, proportions=table[["b", "a"]] + 1e-13))
    assert given.class_names.tolist() == ["b", "a"]
    swapped = Bags(X, proportions=table.set_axis(["b", "a"], axis=1))
    with pytest.raises(ValueError, match="with other records"):
        check_bags(Bags(X, proportions=table), swapped)


@pytest.mark.parametrize(
    ("names", "message"), [([0, 1, 1], "bag 1 2 times; .* weights="), ([], "names is empty")]
)
def test_bags_are_selected_once(names, message):
    bags = Bags([np.zeros((3, 2)), np.ones((2, 2))], proportions=[[0.6, 0.4], [0.3, 0.7]])
    with pytest.raises(ValueError, match=message):
        bags.select(names)


@pytest.mark.parametrize("ids", [["1", "1", 2], ["a", "a", 1.5]])
def test_names_of_several_kinds(ids):
    with pytest.raises(ValueError, match="bag_ids has strings and other values"):
        Bags(np.zeros((3, 2)), np.array(ids, dtype=object))
    with pytest.raises(ValueError, match="Names has strings and other values"):
        Bags([np.zeros((3, 2))] * 2, np.array(ids[1:], dtype=object))


def test_exact_proportions_replace_exact_proportions():
    bags = Bags([np.zeros((3, 2)), np.ones((2, 2))], proportions=[[0.6, 0.4], [0.3, 0.7]])
    assert_array_equal(check_bags(bags, [[0.5, 0.5], [0.2, 0.8]]).upper, [[0.5, 0.5], [0.2, 0.8]])


def test_neither_bags_nor_sequence():
    with pytest.raises(TypeError, match="X_bags is an ndarray"):
        check_bags(np.zeros((3, 2)), HALF, CLASSES)


def test_different_numbers_of_bags():
    with pytest.raises(ValueError, match=r"X_bags has 2 arrays .* the 3 bags"):
        check_bags(tuple(arrays((3, 3))), Bags(arrays(), proportions=HALF), CLASSES)


@pytest.mark.parametrize("change", ["names", "order of the instances", "dict", "sizes"])
def test_instances_that_are_not_those_of_the_bags(change):
    bags = Bags(arrays(), ["x", "y", "z"], HALF)
    order = np.arange(bags.n_instances)[::-1]
    X_bags = {
        "names": Bags(arrays(), ["x", "y", "w"]),
        "order of the instances": Bags(bags.X[order], bags.names[bags.index][order]),
        "dict": dict(zip("zyx", arrays(), strict=True)),
        "sizes": tuple(arrays()[::-1]),
    }[change]
    message = {"dict": "X_bags is a dict", "sizes": "the arrays in the order of its names"}
    with pytest.raises(ValueError, match=message.get(change, "are both Bags, but")):
        check_bags(X_bags, bags, CLASSES)


def test_the_same_instances_of_which_one_side_has_no_names():
    bags = Bags(arrays(), ["x", "y", "z"], HALF)
    assert check_bags(Bags(arrays()), bags, CLASSES).names.tolist() == ["x", "y", "z"]


@pytest.mark.parametrize("names", ["ab", "acinar"])
def test_one_string_is_no_sequence_of_classes(names):
    with pytest.raises(ValueError, match=f"got {names!r}"):
        Bags(arrays(), proportions=HALF, among=names)
    with pytest.raises(ValueError, match=f"got {names!r}"):
        Bags.from_predominant(arrays(), predominant=["a"] * 3, classes=names)


# --- tables are matched by name -----------------------------------------------------------------


def frames(*orders):
    return [pd.DataFrame(np.ones((2, len(order))), columns=list(order)) for order in orders]


def test_frames_of_bags_keep_their_columns():
    parts = frames("xy", "xy", "xy")
    bags = Bags(parts, ["a", "b", "c"])
    assert list(bags.X.columns) == ["x", "y"]
    assert_array_equal(bags.X, np.ones((6, 2)))
    some = bags.select(["c", "a"])
    assert some.X.shape == (4, 2) and list(some.X.columns) == ["x", "y"]


@pytest.mark.parametrize("columns", [["x", "y"], [0, 1]])
def test_bags_are_selected_by_row_of_a_frame(columns):
    frame = pd.DataFrame(np.arange(8).reshape(4, 2), columns=columns, index=[7, 7, 8, 9])
    assert_array_equal(Bags(frame, [0, 1, 1, 2]).select([1]).X, [[2, 3], [4, 5]])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            frames("xy", "xy", "yx"),
            "Bag 'c' has the columns of bag 'a' in another order: y, x instead of x, y",
        ),
        (frames("xy", "xz", "xy"), "Bag 'b' has different columns from bag 'a': z instead of y"),
        ([*frames("xy", "xy"), np.ones((2, 2))], "Bag 'c' is an array but bag 'a' is not"),
        ([np.ones((2, 2)), *frames("xy", "xy")], "Bag 'b' is a DataFrame but bag 'a' is not"),
    ],
)
def test_frames_with_other_columns(parts, message):
    with pytest.raises(ValueError, match=message):
        Bags(parts, ["a", "b", "c"])


def test_everything_said_of_bags_is_matched_by_name():
    table = pd.DataFrame(HALF, index=["x", "y", "z"], columns=["a", "b"])
    deviation = pd.DataFrame(
        [[0.1, 0.2], [0.3, 0.4], [0.0, 0.5]], index=list("xyz"), columns=list("ab")
    )
    weights = pd.Series([1.0, 2.0, 3.0], index=["x", "y", "z"])
    expected = Bags(arrays(), ["x", "y", "z"], table, standard_deviation=deviation, weights=weights)
    assert_array_equal(expected.weights, [1, 2, 3])
    moved = Bags(
        *(arrays(), ["x", "y", "z"], table[::-1]),
        standard_deviation=deviation[["b", "a"]][::-1],
        weights=weights[::-1],
    )
    for name in ("proportions", "lower", "upper", "weights"):
        assert_array_equal(getattr(moved, name), getattr(expected, name))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"weights": pd.Series([1.0] * 3)}, "weights has no entry for bag 'x'"),
        ({"standard_deviation": pd.Series([0.1] * 3)}, "standard_deviation is a Series"),
        ({"standard_deviation": pd.DataFrame(np.ones((3, 2)) / 9)}, "no row or column for 'a'"),
        ({"proportions": frame(["a", "a"])}, "more than one column 'a'"),
    ],
)
def test_names_that_do_not_match(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Bags(arrays(), ["x", "y", "z"], **{"proportions": frame(["a", "b"]), **kwargs})


@pytest.mark.parametrize(
    ("kwargs", "what"),
    [
        ({"proportions": HALF}, "proportions"),
        ({"proportions": frame(["a", "b"], "zyx"), "weights": [1, 2, 3]}, "weights"),
        (
            {"proportions": frame(["a", "b"], "zyx"), "standard_deviation": np.zeros((3, 2))},
            "standard_deviation",
        ),
    ],
)
def test_rows_without_names_of_bags_in_another_order(kwargs, what):
    X = np.arange(3.0)[:, None]
    with pytest.warns(UserWarning, match=rf"rows of {what} have no names .* 'x', 'y', 'z', but"):
        Bags(X, ["z", "x", "y"], **kwargs)


def test_rows_without_names_given_to_bags_in_another_order():
    bags = Bags(np.arange(3.0)[:, None], ["z", "x", "y"])
    with pytest.warns(UserWarning, match="rows of bag_proportions have no names"):
        check_bags(bags, HALF, CLASSES)


def test_rows_without_names_that_are_not_doubtful():  # warnings are errors
    X = np.arange(3.0)[:, None]
    Bags(X, [2, 0, 1], HALF)
    Bags(X, ["x", "y", "z"], HALF)
    Bags(arrays(), ["z", "x", "y"], HALF)
    Bags(X, ["z", "x", "y"], frame(["a", "b"]), standard_deviation=0.1)


class TestReaders:
    READINGS = np.array(
        [[[0.6, 0.4], [0.1, 0.9], [0.5, 0.5]], [[0.8, 0.2], [np.nan, np.nan], [0.3, 0.7]]]
    )

    def bags(self):
        slides = [np.full((n, 2), n, dtype=float) for n in (1, 2, 3)]
        bags = Bags(slides, ["x", "y", "z"], proportions=self.READINGS)
        bags.class_names = np.array(["solid", "acinar"])
        return bags

    def test_what_each_reader_wrote_goes_along(self):
        bags = self.bags()
        assert_array_equal(bags.readings, self.READINGS)
        ordered = self.READINGS[:, [2, 0]][:, :, [1, 0]]
        classes = np.array(["acinar", "solid"])
        for part in (
            bags.select(["z", "x"]).with_classes(classes),
            bags.with_classes(classes).select(["z", "x"]),
            check_bags((bags.X + 1,), bags, classes).select(["z", "x"]),
        ):
            assert_array_equal(part.readings, ordered)
            assert_allclose(part.proportions, ordered.mean(axis=0))

    def test_tables_of_readers_are_matched_by_name(self):
        slides = [np.full((n, 2), n, dtype=float) for n in (1, 2, 3)]
        one, other = (
            pd.DataFrame(readings, index=["x", "y", "z"], columns=["solid", "acinar"])
            for readings in self.READINGS
        )
        # rows and columns in another order, no row where nothing was read, a row for another bag
        other = other.loc[["z", "x"], ["acinar", "solid"]]
        other.loc["w"] = [0.1, 0.9]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = Bags(slides, ["x", "y", "z"], [one, other])
        assert_array_equal(found.class_names, ["solid", "acinar"])
        assert_array_equal(found.readings, self.READINGS)
        assert_allclose(found.proportions, self.bags().proportions)
        reordered = Bags(slides, ["x", "y", "z"], [one[::-1], other[::-1]])
        assert_array_equal(reordered.readings, self.READINGS)
        by_name = dict(zip("xyz", slides, strict=True))
        assert_array_equal(check_bags(by_name, [one[::-1], other]).readings, self.READINGS)
        with pytest.raises(ValueError, match="have no names"):
            check_bags(slides, [one[::-1], one])

    @pytest.mark.parametrize(
        "tables, kind, message",
        [
            (
                ["one", "array"],
                TypeError,
                "Some readers are DataFrames and others are not",
            ),
            (
                ["one", "classes"],
                ValueError,
                "Readers have different classes: solid, acinar and solid",
            ),
            (["one", "names"], ValueError, "has rows for 0, 1, 2, none of which is a bag"),
            (["one", "twice"], ValueError, "more than one row for bag 'x'"),
            (["rest", "rest"], ValueError, "Bag 'x' was read by none of the 2 readers"),
        ],
    )
    def test_tables_of_readers_that_do_not_fit_are_refused(self, tables, kind, message):
        one = pd.DataFrame(self.READINGS[0], ["x", "y", "z"], ["solid", "acinar"])
        given = {
            "one": one,
            "array": self.READINGS[1],
            "classes": one.rename(columns={"acinar": "lepidic"}),
            "names": one.reset_index(drop=True),
            "twice": one.loc[["x", "x", "y", "z"]],
            "rest": one.loc[["y", "z"]],
        }
        slides = [np.ones((1, 2))] * 3
        with pytest.raises(kind, match=message):
            Bags(slides, ["x", "y", "z"], [given[name] for name in tables])

    def test_a_class_of_which_no_reader_speaks(self):
        bags = Bags([np.zeros((2, 2))], proportions=[[[0.6, 0.4]], [[0.8, 0.2]]], among=["a", "c"])
        found = bags.with_classes(np.array(["a", "b", "c"])).readings
        assert_array_equal(found, [[[0.6, np.nan, 0.4]], [[0.8, np.nan, 0.2]]])

    def test_a_misspelled_bag_of_a_reader_is_pointed_out(self):
        one = pd.DataFrame(self.READINGS[0], ["s01", "s02", "s03"], ["solid", "acinar"])
        slides = [np.ones((1, 2))] * 3
        with pytest.warns(UserWarning, match=r"row for 's3', which is no bag\. Did you mean 's03'"):
            Bags(slides, list(one.index), [one, one.rename(index={"s03": "s3"})])
        Bags(
            slides, list(one.index), [one, one.rename(index={"s03": "other"})]
        )  # warnings are errors

    def test_one_record_is_no_reading(self):
        one = Bags([np.zeros((2, 2))], proportions=[[0.5, 0.5]])
        assert one.readings is None and one.select([0]).readings is None
        assert check_bags(self.bags(), [[0.5, 0.5]] * 3).readings is None
