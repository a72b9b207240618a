"""Percentages of bags whose features are at hand, as people write them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from proportion_ssl import Bags, RobustProportionClassifier, load_cohort
from proportion_ssl.datasets import make_bags
from proportion_ssl.manifest import read_proportions

CELLS = {
    "acinar": ["70-80", "62,5", 100, "<5", None],
    "solid": ["~20", " 37.5 % ", None, ">90", np.nan],
    "lepidic": ["trace", "", "", "", ""],
}
TABLE = pd.DataFrame(CELLS, index=list("edcba"))


@pytest.mark.parametrize("error", [{}, {"rounding_step": 0.05}, {"standard_deviation": 0.1}])
def test_cells_are_read_like_those_of_a_manifest(tmp_path, error):
    found = read_proportions(TABLE, **error)
    lines = TABLE.astype(object).fillna("")
    lines.insert(0, "role", "bag")
    lines.insert(0, "slide", [f"{name}.svs" for name in TABLE.index])
    lines[lines.index != "a"].to_csv(tmp_path / "cohort.csv", index=False)
    cohort = load_cohort(tmp_path / "cohort.csv", need_slides=False, **error)
    for part in ("proportions", "lower", "upper"):
        expected = getattr(cohort, part)
        pd.testing.assert_frame_equal(found[part], expected, check_names=False)


def test_bags_take_them_whatever_their_order():
    records = read_proportions(TABLE)
    slides = np.array(list("cdebceb"))
    bags = Bags(np.zeros((7, 2)), slides, **records)
    assert bags.names.tolist() == list("bcde")
    assert_allclose(bags.upper[3], [0.8, 0.25, 0.05])
    with pytest.raises(ValueError, match="'a'"):
        Bags(np.zeros((2, 2)), ["a", "b"], **records)


def test_fit_and_prediction_with_written_percentages():
    data = make_bags(n_labeled_slides=3, class_separation=0.3, random_state=0)
    names = [f"s{k}" for k in range(data.bags.n_bags)]
    exact = pd.DataFrame(data.bags.proportions, names)
    written = (100 * exact).map(lambda share: f"{max(0, share - 4):.0f}-{min(100, share + 4):.0f}")
    X, slides = data.bags.X, np.array(names)[data.bags.index]
    bags = Bags(X, slides, **read_proportions(written))
    model = RobustProportionClassifier(random_state=0)
    model.fit(data.X_labeled, data.y, bags, groups=data.groups)
    alone = model.predict(X)
    given = model.predict(X, bag_ids=slides, bag_proportions=bags)
    errors = [
        np.abs(pd.crosstab(slides, labels, normalize="index").loc[names] - exact).to_numpy().mean()
        for labels in (alone, given)
    ]
    assert errors[1] < errors[0] - 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"solid": "some"},
            "row 2: bag 'd' has 'some' for class 'solid'; .* a class, leave it out",
        ),
        ({"solid": True}, "row 2: bag 'd' has 'True'"),
        ({"solid": "?"}, "row 2: bag 'd' has an unknown share; give a range"),
        ({"solid": 80}, "row 2: the percentages of bag 'd' sum to 142.5"),
        ({"acinar": 0.6, "solid": 0.4}, "these look like fractions: give percent"),
    ],
)
def test_errors_name_the_bag(change, message):
    table = TABLE.astype(object)
    for column, cell in change.items():
        table.loc["d", column] = cell
    with pytest.raises(ValueError, match=message):
        read_proportions(table)


def test_tables_that_cannot_be_read():
    with pytest.raises(TypeError, match="DataFrame, got list"):
        read_proportions([["70", "30"]])
    with pytest.raises(ValueError, match="bag 'e' twice"):
        read_proportions(pd.concat([TABLE, TABLE[:1]]))
    with pytest.raises(ValueError, match="class 'acinar' twice"):
        read_proportions(TABLE[["acinar", "acinar"]])
    with pytest.raises(ValueError, match="No bag has a percentage"):
        read_proportions(TABLE.loc[["a"]])


FLAG = pd.DataFrame({"a": [70, 20, 0, 50], "b": [30, 80, 100, 50]}, index=list("wxyz"))


@pytest.mark.parametrize(
    ("column", "shown"),
    [([0, 1, 1, 0], "has 101"), ([61, 44, 70, 38], "has 161"), ([2, 1, 3, 2], "has 102")],
)
def test_a_column_of_something_else_is_named(column, shown):
    with pytest.raises(
        ValueError, match=f"sum to 100 without 'flag'.* {shown}.*" + r"classes=\['a', 'b'\]"
    ):
        read_proportions(FLAG.assign(flag=column))


@pytest.mark.parametrize("error", [{"rounding_step": 0.1}, {"standard_deviation": 0.1}])
def test_so_is_one_that_a_stated_error_would_cover(error):
    with pytest.raises(ValueError, match="sum to 100 without 'flag'"):
        read_proportions(FLAG.assign(flag=[2, 1, 3, 2]), **error)


def test_so_is_one_beside_a_range():
    table = FLAG.astype(object).assign(flag=[0, 1, 1, 1])
    table.loc["w", ["a", "b"]] = ["60-80", "20-40"]
    with pytest.raises(ValueError, match="sum to 100 without 'flag'"):
        read_proportions(table)


@pytest.mark.parametrize("error", [{}, {"rounding_step": 0.05}])
def test_a_column_that_is_named_as_a_class_is_one(error):
    table = FLAG.assign(rare=[1, 1, 0, 0], age=[61, 44, 70, 38])
    records = read_proportions(table, classes=["a", "b", "rare"], **error)
    assert records["proportions"].columns.tolist() == ["a", "b", "rare"]
    assert (records["upper"]["rare"] > 0)[:2].all()


def test_classes_that_are_no_columns_are_named():
    with pytest.raises(ValueError, match=r"which is no column of the table"):
        read_proportions(TABLE, classes=["solid", "Acinar"])


def test_a_text_is_no_sequence_of_classes():
    with pytest.raises(TypeError, match=r"got 'ab'; give \['ab'\]"):
        read_proportions(pd.DataFrame({"a": [40, 50], "b": [60, 50]}), classes="ab")


def test_classes_may_be_any_iterable():
    table = pd.DataFrame({"a": [40, 50], "b": [60, 50], "age": [60, 70]})
    assert list(read_proportions(table, classes=(c for c in "aba"))["lower"]) == ["a", "b"]


@pytest.mark.parametrize("error", [{"standard_deviation": 0.1}, {"rounding_step": 0.4}, {}])
def test_fractions_are_refused_whatever_their_error(error):
    ten = pd.DataFrame([[0.55, *[0.05] * 9]] * 4, columns=list("abcdefghij"))
    with pytest.raises(ValueError, match="these look like fractions"):
        read_proportions(ten, **error)


@pytest.mark.parametrize(
    ("cells", "error"),
    [
        ({"acinar": [70, 50, 20, 33, 50, 10], "solid": [30, 50, 80, 66, 50, 90]}, {}),
        (
            {"acinar": [70, 50, 20, 35, 50, 10], "solid": [30, 50, 80, 60, 50, 90]},
            {"rounding_step": 0.1},
        ),
    ],
)
def test_small_numbers_beside_inexact_sums_are_no_class(cells, error):
    with pytest.raises(ValueError, match="sum to 100 without 'stage'"):
        read_proportions(pd.DataFrame({**cells, "stage": [1, 2, 1, 0, 1, 2]}), **error)


def test_a_rare_class_beside_rounded_shares_stays_a_class():
    table = pd.DataFrame(
        {"a": [70, 50, 20, 85, 50], "b": [30, 50, 80, 15, 45], "rare": [5, 0, 0, 5, 5]}
    )
    assert "rare" in read_proportions(table, rounding_step=0.1)["proportions"]


def test_an_empty_column_without_a_name_is_no_class():
    table = pd.DataFrame({"a": [70, 50], "b": [30, 50], "Unnamed: 4": [None, None]})
    with pytest.raises(ValueError, match=r"'Unnamed: 4' has neither .* classes=\['a', 'b'\]"):
        read_proportions(table, rounding_step=0.1)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([["~60", "~40", 0], ["~50", "~50", 5], ["~70", "~30", 5]], {}),
        ([[">90", "<10", 0], [">90", "<10", 3], [">95", "<5", 2]], {}),
        ([[60, 40, 1], [60, 40, 1], [70, 30, 1], [80, 20, 1], [50, 50, 1], [0, 60, 40]], {}),
        ([*[[60, 40, 1]] * 5, [50, 30, 20]], {}),
        ([[60, 40, 0]], {"rounding_step": 0.05}),
        ([[100, 0, 0], [100, 0, 0]], {"standard_deviation": 0.1}),
    ],
)
def test_rare_classes_stay_classes(rows, error):
    table = pd.DataFrame(rows, columns=["a", "b", "c"])
    assert list(read_proportions(table, **error)["proportions"]) == ["a", "b", "c"]


@pytest.mark.parametrize("axis", ["index", "columns"])
def test_several_levels_of_names_are_refused(axis):
    table = pd.DataFrame({"a": [70, 50], "b": [30, 50]})
    levels = pd.MultiIndex.from_tuples([("x", 1), ("y", 2)])
    with pytest.raises(ValueError, match="2 levels of names"):
        read_proportions(table.set_axis(levels, axis=axis))


def test_a_column_with_ranges_is_a_class():
    table = pd.DataFrame({"a": ["60-70", 60, 50], "b": ["20-40", 40, 50], "rare": ["0-5", 1, 1]})
    assert "rare" in read_proportions(table)["proportions"]


def test_a_class_that_no_bag_has_is_kept():
    assert read_proportions(FLAG.assign(c=0))["proportions"]["c"].tolist() == [0.0] * 4


def test_percentages_that_miss_the_sum_by_rounding_are_kept():
    table = pd.DataFrame({"a": [33, 50, 67], "b": [33, 50, 17], "c": [33, 0, 17]})
    assert read_proportions(table)["upper"].shape == (3, 3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (FLAG.iloc[:0], "shape"),
        (pd.DataFrame(), "shape"),
        (FLAG.assign(**{"A ": 0}), "'a' and 'A ' differ only in case or spaces"),
        (FLAG.set_axis(["w", "x", "y", np.nan]), "a bag without a name"),
    ],
)
def test_tables_without_bags_or_with_names_that_cannot_be_told_apart(table, message):
    with pytest.raises(ValueError, match=message):
        read_proportions(table)


def test_words_are_no_dates():
    for cell, is_date in (("70 pct", False), ("70ish", False), ("10-Dec", True), ("Mar-12", True)):
        with pytest.raises(ValueError, match="give a percentage") as caught:
            read_proportions(FLAG.astype(object).assign(a=[cell, 20, 0, 50]))
        assert ("Spreadsheet" in str(caught.value)) == is_date
