"""Records that say less than the share of every class, as people write them in a table."""

import numpy as np
import pytest
from cohorts import PATCH
from feature_cohorts import write_feature_cohort
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import load_cohort
from proportion_ssl.proportions import OrderRecord, PartialRecord
from proportion_ssl.segmenter import read_training_data
from proportion_ssl.segmenter.check import check_cohort
from proportion_ssl.segmenter.training import weak_record

THREE = "slide,annotation,role,predominant,acinar,solid,normal\n"
OUTLINED = "a.svs,a.geojson,labeled,,,,\n"


@pytest.fixture
def write(tmp_path):
    for name in ("a.svs", "a.geojson", *(f"b{k}.svs" for k in range(9))):
        (tmp_path / name).touch()

    def write(text):
        path = tmp_path / "cohort.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("unknown", ["?", "unknown", "n/a", "NA"])
def test_shares_among_some_classes(write, unknown):
    cohort = load_cohort(
        write(THREE + OUTLINED + f"b1.svs,,bag,,70,30,{unknown}\nb2.svs,,bag,,,10,90\n")
    )
    for table in (cohort.proportions, cohort.lower, cohort.upper):
        assert_array_equal(table.loc["b1"], [0.7, 0.3, np.nan])
        assert_array_equal(table.loc["b2"], [0.0, 0.1, 0.9])
    record = weak_record(cohort, ["b2", "b1"])
    assert isinstance(record, PartialRecord)
    assert_array_equal(record.among, [[True, True, True], [True, True, False]])
    assert_allclose(record.shares, [[0.0, 0.1, 0.9], [0.7, 0.3, 0.0]])
    assert_allclose(
        record.nearest(np.array([[0.0, 0.1, 0.9], [0.2, 0.2, 0.6]]))[1], [0.28, 0.12, 0.6]
    )


def test_ranges_among_some_classes(write):
    cohort = load_cohort(write(THREE + OUTLINED + "b1.svs,,bag,,60-80,~30,?\n"))
    assert_allclose(cohort.lower.loc["b1"], [0.6, 0.25, np.nan])
    assert_allclose(cohort.upper.loc["b1"], [0.8, 0.35, np.nan])
    assert_allclose(cohort.proportions.loc["b1"].sum(), 1)


def test_unknown_shares_take_the_rest_where_the_others_do_not_sum_to_100(write):
    cohort = load_cohort(write(THREE + OUTLINED + "b1.svs,,bag,,30,?,?\nb2.svs,,bag,,<5,?,20\n"))
    assert_allclose(cohort.lower, [[np.nan] * 3, [0.3, 0, 0], [0, 0, 0.2]])
    assert_allclose(cohort.upper, [[np.nan] * 3, [0.3, 1, 1], [0.05, 1, 0.2]])
    assert_allclose(cohort.proportions.loc[["b1", "b2"]].sum(axis=1), 1)


def test_orders_alone_need_no_column_of_percentages(write):
    table = "slide,annotation,role,predominant\n" + "a.svs,a.geojson,labeled,\n"
    cohort = load_cohort(write(table + "b1.svs,,bag,solid\nb2.svs,,bag,acinar > solid>lepidic\n"))
    assert cohort.classes == ["acinar", "lepidic", "solid"]
    assert cohort.orders == {"b1": ("solid",), "b2": ("acinar", "solid", "lepidic")}
    assert cohort.proportions.isna().all(axis=None)
    record = weak_record(cohort, ["b1", "b2"])
    assert isinstance(record, OrderRecord)
    assert_array_equal(record.ranks, [[2, 2, 1], [1, 3, 2]])
    named = load_cohort(write(table + "b1.svs,,bag,solid\n"), classes=["solid", "papillary"])
    assert named.classes == ["solid", "papillary"]


def test_orders_beside_percentages_become_intervals(write):
    cohort = load_cohort(write(THREE + OUTLINED + "b1.svs,,bag,solid,,,\nb2.svs,,bag,,70,30,?\n"))
    record = weak_record(cohort, ["b1", "b2"])
    assert isinstance(record, PartialRecord)
    assert_allclose(record.lower[0], [0, 1 / 3, 0])
    assert_allclose(record.upper[0], [0.5, 1, 0.5])
    assert record.among.tolist() == [[True, True, True], [True, True, False]]


@pytest.mark.parametrize("unknown", ["?", "unknown", "n/a", "NA"])
def test_an_unknown_predominant_class_is_not_recorded(write, unknown):
    cohort = load_cohort(write(THREE + OUTLINED + f"b1.svs,,bag,{unknown},70,20,10\n"))
    assert cohort.orders == {} and cohort.proportions.loc["b1"].tolist() == [0.7, 0.2, 0.1]
    table = "slide,annotation,role,predominant\n" + "a.svs,a.geojson,labeled,\n"
    rows = f"b1.svs,,bag,solid\nb2.svs,,bag,acinar\nb3.svs,,test,{unknown}\n"
    cohort = load_cohort(write(table + rows))
    assert cohort.classes == ["acinar", "solid"] and set(cohort.orders) == {"b1", "b2"}


def test_percentages_say_more_than_an_order(write):
    cohort = load_cohort(write(THREE + OUTLINED + "b1.svs,,bag,acinar > solid,70,20,10\n"))
    assert cohort.orders == {} and cohort.proportions.loc["b1"].tolist() == [0.7, 0.2, 0.1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "b1.svs,,bag,lepidic,,,\n",
            r"line 3: .*'lepidic' in the column predominant, which is not a class \(acinar",
        ),
        (
            "b1.svs,,bag,acinar >,,,\n",
            "line 3: slide 'b1' has '' in the column predominant, which is not a class",
        ),
        (
            "b1.svs,,bag,acinar > acinar,,,\n",
            "line 3: .*'acinar > acinar', which names a class twice",
        ),
        (
            "b1.svs,,bag,solid,70,30,\n",
            "predominant 'solid', but its percentages are acinar 70, solid 30; correct one",
        ),
        (
            "b1.svs,,bag,acinar > normal,70,20,10\n",
            "'acinar > normal', but its percentages are acinar 70, solid 20, normal 10",
        ),
        (
            "b1.svs,,bag,acinar;solid,,,\n",
            r"has 'acinar;solid' .* separated by '>' with the most frequent first: acinar > solid\.",
        ),
        ("b1.svs,,bag,Solid,,,\n", r"has 'Solid' .* Did you mean 'solid'\?"),
        (
            "b1.svs,,bag,,>90,20,?\n",
            r"sum to at least 110 \(acinar 90 to 100, solid 20, normal unknown\); they must sum to 100",
        ),
        ("b1.svs,,bag,?,,,\n", "'b1' is a bag but has no proportions"),
        ("b1.svs,,bag,,?,?,?\n", "'b1' is a bag but has no proportions; .*'predominant'"),
        (
            "b1.svs,,bag,,60,?,?\nb2.svs,,bag,,80,50,?\n",
            r"slide 'b2' sum to at least 130 \(acinar 80, solid 50, normal unknown\); they must",
        ),
    ],
)
def test_what_is_wrong_is_said(write, rows, message):
    with pytest.raises(ValueError, match=message):
        load_cohort(write(THREE + OUTLINED + rows))


def test_an_order_is_that_of_the_case(write):
    head = "slide,annotation,role,case,predominant\n" + "a.svs,a.geojson,labeled,P1,\n"
    cohort = load_cohort(write(head + "b1.svs,,bag,P2,solid\nb2.svs,,bag,P2,\n"))
    assert cohort.orders == {"P2": ("solid",)}
    with pytest.raises(ValueError, match="rows of case 'P2' contradict each other"):
        load_cohort(write(head + "b1.svs,,bag,P2,solid\nb2.svs,,bag,P2,acinar\n"))
    with pytest.raises(ValueError, match=r"no proportions.*in a row of case 'P2'"):
        load_cohort(write(head + "b1.svs,,bag,P2,\nb2.svs,,bag,P2,\n"))


def rewrite(manifest, change):
    """The same table with other cells of bags."""
    _, *lines = manifest.read_text().splitlines()
    rows = []
    for line in lines:
        slide, annotation, role, acinar, solid = line.split(",")
        more = change(role, acinar, solid) if role == "bag" else ("", acinar, solid)
        rows.append(",".join((slide, annotation, role, *more)))
    manifest.write_text("\n".join(["slide,annotation,role,predominant,acinar,solid", *rows]) + "\n")


@pytest.mark.parametrize("kind", ["order", "mixed"])
def test_a_classifier_learns_from_them(tmp_path, kind):
    manifest, features = write_feature_cohort(tmp_path)
    n_bags = 0

    def change(role, acinar, solid):
        nonlocal n_bags
        n_bags += 1
        if kind == "mixed" and n_bags > 3:
            return "", acinar, solid
        return "acinar" if float(acinar) > float(solid) else "solid", "", ""

    rewrite(manifest, change)
    data = read_training_data(manifest, features)
    assert isinstance(data.bags.record, OrderRecord if kind == "order" else PartialRecord | None)
    assert data.bags.n_bags == 6
    assert (data.bags.lower.max(axis=1) < 1).all()
    found = check_cohort(load_cohort(manifest, need_slides=False), patch_size=PATCH)
    assert "acinar" in str(found) and found.records["intervals"].str.len().gt(0).any()
