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
