"""Test slides in the report: tables with intervals, agreement, grades, layers, the table for spreadsheets."""

import re

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from test_report import CLASSES, HOSTILE, decode, make_slide, write  # noqa: F401

from proportion_ssl.evaluation import compare_systems, proportion_agreement, reliability
from proportion_ssl.reporting import ReportOutlook, ReportTest
from proportion_ssl.reporting._pictures import SCALE, value_map_uri
from proportion_ssl.reporting._plots import agreement_panels, reliability_diagram


@pytest.fixture
def shares():
    rng = np.random.default_rng(0)
    index = pd.Index([HOSTILE, *(f"case {i}" for i in range(1, 8))], name="case")
    recorded = pd.DataFrame(rng.dirichlet([1, 1, 1], 8), index=index, columns=CLASSES[:3])
    predicted = recorded * np.exp(rng.normal(0, 0.3, recorded.shape))
    return recorded, predicted.div(predicted.sum(axis=1), axis=0)


@pytest.fixture
def test_of(shares):
    recorded, predicted = shares
    scores = pd.DataFrame(
        {
            "patches": [120, 120],
            "OP": [0.9, 0.8],
            "mIoU": [0.75, np.nan],
            "mIoU_low": [0.61, np.nan],
            "mIoU_high": [0.86, np.nan],
        },
        index=["robust", "supervised"],
    )
    rng = np.random.default_rng(1)
    stacks = {name: rng.integers(1, 9, (5, 2, 2)) for name in ("robust", "supervised")}
    stacks["supervised"] = stacks["robust"][:, :, ::-1]
    comparisons = compare_systems(stacks, metric="OP").assign(score="OP")
    p = rng.dirichlet([1, 1, 1], 60)
    found = reliability(rng.integers(0, 3, 60), p)

    def make(**changes):
        given = {
            "scores": scores,
            "comparisons": comparisons,
            "reliability": found,
            "recorded": recorded,
            "predicted": predicted,
        }
        return ReportTest(**{**given, **changes})

    return make


def test_scores_come_first_with_intervals_and_are_explained(write, test_of):  # noqa: F811
    page = write([make_slide()], test=test_of(), metrics={"mIoU": [0.5, 0.6]})
    headings = [" ".join(e[2].split()) for e in page.find("h2")]
    assert headings[:5] == [
        *("Test slides", "Predominant class and grade", "Recorded and predicted proportions"),
        *("Scores over folds", "Overview"),
    ]
    text = page.text_of("test-table")
    assert "0.750 0.610 to 0.860" in text and "120" in text
    assert "– " in text + " ", "an undefined score is a dash"
    assert not re.search(r"\bnan\b", page.text_of("main"))
    assert "intersection over union" in page.text_of("test")
    comparison = page.text_of("comparison-table")
    assert "robust - supervised" in comparison and "0.0625" not in comparison


def test_agreement_and_grades_are_those_of_the_functions(write, test_of, shares):  # noqa: F811
    page = write([make_slide()], test=test_of())
    table = proportion_agreement(*shares)
    text = page.text_of("agreement-table")
    for name in CLASSES[:3]:
        assert f"{100 * table.loc[name, 'bias']:+.1f}" in text
        assert f"{table.loc[name, 'ICC']:.3f}" in text
    assert HOSTILE in page.text_of("pattern-table")
    assert "IASLC 2020" in page.text_of("patterns") and "kappa" in page.text_of("patterns")


def test_records_without_truth_and_constant_predictions_are_dashes(write, test_of, shares):  # noqa: F811
    recorded, _ = shares
    nothing = write(test=test_of(recorded=recorded * np.nan, predicted=recorded))
    assert not nothing.find("table", id="agreement-table")
    assert "–" in nothing.text_of("pattern-table")
    one = recorded.iloc[:1]
    single = write(test=test_of(recorded=one, predicted=one))
    assert "one bag: no spread" in single.text_of("agreement-table")
    constant = recorded * 0 + [1, 0, 0]
    page = write(test=test_of(recorded=constant, predicted=constant))
    assert "all shares are equal" in page.text_of("agreement-table")
    assert "kappa is not defined" in page.text_of("patterns")
    for written in (nothing, single, page):
        assert not re.search(r"\bnan\b", written.text_of("main"))


def test_classes_that_a_scheme_does_not_know_have_no_grade(write, test_of):  # noqa: F811
    page = write(
        classes=["A", "B"],
        test=test_of(
            recorded=pd.DataFrame({"A": [0.4], "B": [0.6]}),
            predicted=pd.DataFrame({"A": [0.7], "B": [0.3]}),
        ),
    )
    assert "grade" not in page.text_of("patterns").lower()
    assert "no" in page.text_of("pattern-table").split()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"predicted": None}, "recorded and predicted belong together"),
        (
            {"recorded": pd.DataFrame({"x": [1.0]}), "predicted": pd.DataFrame({"x": [1.0]})},
            "not among the classes",
        ),
    ],
)
def test_results_that_do_not_fit_are_refused(write, test_of, changes, match):  # noqa: F811
    with pytest.raises(ValueError, match=match):
        write(test=test_of(**changes))
    with pytest.raises(TypeError, match="test must be a ReportTest"):
        write(test={"mIoU": 0.5})


def test_panels_and_diagram_are_to_scale(shares):
    recorded, predicted = shares
    table = proportion_agreement(recorded, predicted)
    for panel in agreement_panels(recorded, predicted, table, CLASSES):
        x, y = np.array(panel.points).T
        assert_allclose(x, 50 * (recorded + predicted)[panel.name], atol=0.01)
        difference = (predicted - recorded)[panel.name]
        assert_allclose((50 - y) / 50 * panel.reach, difference, atol=0.001)
        assert panel.reach >= np.abs(difference).max() and y.min() >= 0 and y.max() <= 100
        bias = (50 - panel.lines[1][0]) / 50 * panel.reach
        assert bias == pytest.approx(table.loc[panel.name, "bias"], abs=1e-3)
    found = reliability([0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.8, 0.2], [0.6, 0.4]])
    assert reliability_diagram(found).points == ((60.0, 0.0, 1), (80.0, 50.0, 2), (90.0, 0.0, 1))


# --- slides -------------------------------------------------------------------------------------


def test_layers_of_numbers_and_of_other_systems(write):  # noqa: F811
    values = [[0.0, 1.0, np.nan], [0.5, 0.25, 0.75]]
    slide = make_slide(
        probability=values, uncertainty=values, others={HOSTILE: [[0, 0, -1], [1, 1, 2]]}
    )
    page = write([slide])
    layers = [e[1]["value"] for e in page.find("input", type="radio")]
    assert layers == ["prediction", "truth", "probability", "uncertainty", "other-0", "none"]
    (uri,) = [e[1]["src"] for e in page.find("img", class_="map probability")]
    pixels = np.asarray(decode(uri)[1].convert("RGBA"))
    assert pixels[0, 2, 3] == 0 and (pixels[0, :2, 3] == 255).all()
    assert tuple(pixels[0, 0, :3]) == SCALE[0] and tuple(pixels[0, 1, :3]) == SCALE[-1]
    assert uri == value_map_uri(np.array(values))
    for name, wrong, match in (
        ("probability", [[0.5]], "shape"),
        ("uncertainty", np.full((2, 3), 2.0), r"lie in \[0, 1\]"),
        ("others", {"a": [[0]]}, "shape"),
        ("intervals", {"lepidic": (0.5, 0.2)}, "must be increasing"),
        ("intervals", {"x": (0.1, 0.2)}, "not for one of the classes"),
    ):
        with pytest.raises(ValueError, match=match):
            write([make_slide(**{name: wrong})])


def test_slides_predicted_with_their_record_stand_apart_without_an_error(write):  # noqa: F811
    page = write([make_slide("alone"), make_slide("informed", used_record=True)])
    assert "alone" in page.text_of("slide-table") and "informed" not in page.text_of("slide-table")
    informed = page.text_of("record-table")
    assert "informed" in informed and "–" in informed and "0.500" not in informed
    assert "predicted with its record" in page.text_of("s1")


def test_spreadsheet_has_a_line_per_slide_and_a_column_per_number(write):  # noqa: F811
    slides = [
        make_slide(
            "a\tb\nc",
            metrics={"mIoU": 0.5},
            facts={"predominant": "acinar"},
            intervals={"acinar": (0.25, 0.75)},
            uncertainty=[[0.5, 0.5, np.nan]] * 2,
        ),
        make_slide("new", recorded=None),
    ]
    (box,) = write(slides).find("textarea")
    lines = [line.split("\t") for line in box[2].split("\n")]
    assert len({len(line) for line in lines}) == 1 and len(lines) == 3
    first = dict(zip(lines[0], lines[1], strict=True))
    assert first["slide"] == "a b c" and first["record used"] == "no"
    assert first["acinar predicted %"] == "50.0" and first["acinar high %"] == "75.0"
    assert first["mean uncertainty"] == "0.500" and first["predominant"] == "acinar"
    second = dict(zip(lines[0], lines[2], strict=True))
    assert second["acinar recorded %"] == "" and second["mIoU"] == ""


def test_legend_names_only_what_occurs(write):  # noqa: F811
    slide = make_slide(
        prediction=[[0, 0, -1]], truth=None, recorded=None, predicted={"lepidic": 1.0, "solid": 0.0}
    )
    page = write([slide])
    (legend,) = page.find("ul", aria_label="Classes")
    assert legend[2].split() == ["lepidic"]


def test_features_are_named(write):  # noqa: F811
    assert f"Features: {HOSTILE}" in " ".join(write(features=HOSTILE).find("header")[0][2].split())


def test_what_more_outlines_would_bring(write):  # noqa: F811
    rows = [(r, n, 3, 0.9 - 0.4 / n + 0.02 * r) for r in range(3) for n in (1, 2, 4)]
    curve = pd.DataFrame(rows, columns=["repeat", "n_outlined", "n_recorded", "score"])
    ranks = pd.DataFrame(
        {"outline_rank": [2, 1, 3], "reread_rank": [1, 3, 2], "distance": [1.256, 0, 0.5]},
        index=["b", HOSTILE, "c"],
    )
    page = write(
        [make_slide()],
        outlook=ReportOutlook(curve, (0.05, 0.02, 0.08), 4, ranks, "robust, on cases left out."),
    )
    text = page.text_of("outlook")
    assert "From 4 to 8 outlined cases: +0.050 mIoU expected (+0.020 to +0.080)" in text
    assert "1 0.520 ± 0.020 3" in text and "robust, on cases left out." in text
    assert f"most classes side by side first: {HOSTILE}, b, c." in text
    assert f"sure ones first: b (1.26), c (0.50), {HOSTILE} (0.00)." in text
    assert not write([make_slide()]).find("section", id="outlook")
    with pytest.raises(TypeError, match="outlook must be a ReportOutlook, got dict"):
        write([make_slide()], outlook={})
