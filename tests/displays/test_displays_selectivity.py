"""Bars of the paper's Figure 4 against its numbers."""

import sys

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from numpy.testing import assert_allclose
from sklearn.dummy import DummyClassifier
from sklearn.tree import DecisionTreeClassifier

from proportion_ssl.displays import SelectivityDisplay

CLASSES = ["lepidic", "acinar", "papillary", "micropapillary", "solid"]
RED, YELLOW, GREEN, CYAN, BLUE = (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1)
TRUE = [0.05, 0.70, 0.15, 0.00, 0.10]
PREDICTED = [0.07, 0.64, 0.14, 0.00, 0.14]
POSITIVE = [0.0435, 0.5568, 0.1218, 0.0, 0.087]
# 0.13 * (PCR - TCR) * (1 - TCR / PCR) where PCR > TCR, by hand
NEGATIVE = [0.13 * 0.02 * 2 / 7, 0, 0, 0, 0.13 * 0.04 * 4 / 14]


@pytest.fixture(autouse=True)
def _agg():
    backend = matplotlib.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


def bars(ax, label):
    (container,) = [c for c in ax.containers if c.get_label() == label]
    return container.patches


def heights(ax, label):
    return [bar.get_height() for bar in bars(ax, label)]


@pytest.fixture
def figure4():
    return SelectivityDisplay.from_predictions(TRUE, PREDICTED, classes=CLASSES)


def test_heights_are_those_of_figure_4(figure4):
    ax = figure4.ax_
    assert_allclose(heights(ax, "recorded"), TRUE)
    assert_allclose(heights(ax, "predicted"), PREDICTED)
    assert_allclose(heights(ax, "positive"), POSITIVE, atol=1e-12)
    assert_allclose(heights(ax, "negative"), NEGATIVE, atol=1e-12)
    assert figure4.sum_absolute_error == pytest.approx(0.13)
    assert ax.get_title() == "sum absolute error 0.13"


def test_positive_is_filled_from_below_and_negative_hatched_from_above(figure4):
    ax = figure4.ax_
    assert [bar.get_y() for bar in bars(ax, "positive")] == [0] * 5
    tops = [bar.get_y() + bar.get_height() for bar in bars(ax, "negative")]
    assert_allclose(tops, PREDICTED)
    colors = [RED, YELLOW, GREEN, CYAN, BLUE]
    assert_allclose([bar.get_facecolor()[:3] for bar in bars(ax, "positive")], colors)
    assert all(bar.get_hatch() is None for bar in bars(ax, "positive"))
    assert all("/" in bar.get_hatch() for bar in bars(ax, "negative"))
    # the lines of a hatch have the color of the edge
    assert_allclose([bar.get_edgecolor()[:3] for bar in bars(ax, "negative")], colors)


def test_predicted_parts_lie_on_the_predicted_bar_beside_the_recorded_one(figure4):
    ax = figure4.ax_
    places = {
        label: [bar.get_x() for bar in bars(ax, label)]
        for label in ("recorded", "predicted", "positive", "negative")
    }
    assert places["predicted"] == places["positive"] == places["negative"]
    for left, right in zip(bars(ax, "recorded"), bars(ax, "predicted"), strict=True):
        assert left.get_x() + left.get_width() == pytest.approx(right.get_x())


def test_ticks_name_the_class_and_what_is_selected(figure4):
    texts = [label.get_text() for label in figure4.ax_.get_xticklabels()]
    assert texts[1] == "acinar\nPS 55.7%\nNS 0.0%" and texts[4] == "solid\nPS 8.7%\nNS 0.1%"


def test_shares_stand_over_the_bars(figure4):
    texts = sorted(text.get_text() for text in figure4.ax_.texts)
    assert texts == sorted(f"{100 * share:.0f}%" for share in [*TRUE, *PREDICTED])


def test_legend(figure4):
    texts = [text.get_text() for text in figure4.ax_.get_legend().get_texts()]
    assert texts == [
        *("recorded", "predicted, of these"),
        *("labeled positive (PS)", "labeled negative (NS)"),
    ]


def test_perfect_bag_is_all_filled():
    ax = SelectivityDisplay([0.25, 0.75], [0.25, 0.75]).plot().ax_
    assert_allclose(heights(ax, "positive"), [0.25, 0.75])
    assert heights(ax, "negative") == [0, 0]


def test_class_that_should_not_be_there_is_all_hatched():
    ax = SelectivityDisplay([1.0, 0.0], [0.5, 0.5]).plot().ax_
    assert heights(ax, "positive") == [0, 0]
    assert_allclose(heights(ax, "negative"), [0, 0.5])


@settings(max_examples=50, deadline=None)
@given(
    *[st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda x: sum(x) > 0.1)] * 2,
)
def test_hatched_part_never_reaches_the_filled_one(true, predicted):
    shares = [np.array(values) / sum(values) for values in (true, predicted)]
    display = SelectivityDisplay(*shares)
    top_of_filled = display.positive_selectivity
    bottom_of_hatched = display.predicted_proportions - display.negative_selectivity
    assert (top_of_filled <= bottom_of_hatched + 1e-12).all()


def test_from_estimator_counts_predictions():
    clf = DecisionTreeClassifier().fit([[0], [1], [2]], ["acinar", "lepidic", "solid"])
    display = SelectivityDisplay.from_estimator(clf, [[0], [0], [2], [2], [2]], [0.5, 0.0, 0.5])
    assert_allclose(display.predicted_proportions, [0.4, 0.0, 0.6])
    assert display.classes == ["acinar", "lepidic", "solid"]
    assert display.sum_absolute_error == pytest.approx(0.2)
    assert_allclose(
        [b.get_facecolor()[:3] for b in bars(display.ax_, "positive")], [YELLOW, RED, BLUE]
    )


def test_from_estimator_other_number_of_classes():
    clf = DummyClassifier().fit([[0], [1]], ["a", "b"])
    with pytest.raises(
        ValueError, match="predicted_proportions has 2 classes but true_proportions has 3"
    ):
        SelectivityDisplay.from_estimator(clf, [[0]], [0.5, 0.25, 0.25])


def test_plot_on_given_axes_with_given_colors():
    figure, (left, right) = plt.subplots(1, 2)
    display = SelectivityDisplay(TRUE, PREDICTED, classes=CLASSES)
    assert display.plot(right, colors={"acinar": "tab:orange"}) is display
    assert display.ax_ is right and display.figure_ is figure and not left.patches
    assert_allclose(bars(right, "positive")[1].get_facecolor()[:3], to_rgb("tab:orange"))


WRONG = [
    (
        ([0.5, 0.5], [[0.5, 0.5]]),
        "predicted_proportions has shape .1, 2.; give the shares of one bag",
    ),
    (([0.5, 0.5], [0.2, 0.3, 0.5]), "has 3 classes but true_proportions has 2"),
    (([50, 50], [0.5, 0.5]), "true_proportions sum to 100, not 1 .* divide by 100"),
    (([0.5, 0.4], [0.5, 0.5]), "true_proportions sum to 0.9, not 1"),
    (([1.5, -0.5], [0.5, 0.5]), "hold a negative share"),
    (([np.nan, 1.0], [0.5, 0.5]), "hold a number that is not finite"),
    (([], []), "give the shares of one bag"),
]


@pytest.mark.parametrize(("shares", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_shares(shares, message):
    with pytest.raises(ValueError, match=message):
        SelectivityDisplay(*shares)


def test_rounded_record_selects_by_the_nearest_share_within():
    written, ends = [0.3, 0.3, 0.3], {"lower": [0.25] * 3, "upper": [0.35] * 3}
    inside = SelectivityDisplay(written, [0.3, 0.35, 0.35], **ends)
    assert_allclose(inside.true_proportions, written)
    assert_allclose(inside.sum_absolute_error, 0, atol=1e-12)
    assert_allclose(inside.positive_selectivity, [0.3, 0.35, 0.35])
    outside = SelectivityDisplay.from_predictions(written, [0.5, 0.25, 0.25], **ends)
    assert_allclose(outside.sum_absolute_error, 0.15)
    assert_allclose(outside.negative_selectivity, [0.15 * 0.15 * 0.15 / 0.5, 0, 0])
    with pytest.raises(ValueError, match="lower and upper belong together"):
        SelectivityDisplay(written, [0.3, 0.35, 0.35], lower=[0.25] * 3)
    with pytest.raises(ValueError, match="sum to less than 1"):
        SelectivityDisplay(written, [0.3, 0.35, 0.35], lower=[0.25] * 3, upper=[0.3] * 3)


def test_wrong_number_of_names():
    with pytest.raises(ValueError, match="names 1 classes but true_proportions has 2"):
        SelectivityDisplay([0.5, 0.5], [0.5, 0.5], classes=["a"])


def test_matplotlib_missing(monkeypatch):
    display = SelectivityDisplay(TRUE, PREDICTED)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "proportion_ssl\[plot\]"'):
        display.plot()
