"""Curves and bars of a history."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

from proportion_ssl import NegativePseudoLabelClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.displays import LearningDisplay

HISTORY = [
    {"round": 0, "n_epochs": 9, "train_loss": 1.0, "valid_loss": 1.5},
    {
        "round": 1,
        "train_loss": 0.75,
        "valid_loss": 1.25,
        "sum_absolute_error": 0.5,
        "n_positive": [4, 1],
        "n_negative": [0, 3],
    },
    {
        "round": 2,
        "train_loss": 0.5,
        "valid_loss": None,
        "sum_absolute_error": 0.25,
        "n_positive": [5, 2],
        "n_negative": [1, 2],
    },
]
CLASSES = ["lepidic", "solid"]


@pytest.fixture(autouse=True)
def _agg():
    backend = matplotlib.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


@pytest.fixture(scope="module")
def fitted():
    data = make_bags(n_bags=4, bag_size=20, n_classes=3, class_separation=0.6, random_state=0)
    clf = NegativePseudoLabelClassifier(max_epochs=5, random_state=0)
    return clf.fit(data.X_labeled, data.y, data.bags)


def line(ax, label):
    (found,) = [found for found in ax.lines if found.get_label() == label]
    return found


def bars(ax, label):
    (container,) = [c for c in ax.containers if c.get_label() == label]
    return container.patches


def test_three_panels():
    display = LearningDisplay(HISTORY, classes=CLASSES).plot()
    assert [ax.get_ylabel() for ax in display.axes_] == ["loss", "sum absolute error", "labels"]
    assert {ax.get_xlabel() for ax in display.axes_} == {"round"}
    assert display.ax_ is display.axes_[0] and display.figure_ is display.ax_.figure


def test_curves_hold_the_values_of_the_history():
    losses, error, _ = LearningDisplay(HISTORY, classes=CLASSES).plot().axes_
    assert_array_equal(line(losses, "training").get_xdata(), [0, 1, 2])
    assert_allclose(line(losses, "training").get_ydata(), [1.0, 0.75, 0.5])
    assert_allclose(line(losses, "validation").get_ydata(), [1.5, 1.25, np.nan])
    assert_allclose(error.lines[0].get_ydata(), [np.nan, 0.5, 0.25])
    assert losses.get_ylim()[0] == error.get_ylim()[0] == 0


def test_positive_labels_stack_upwards_and_negative_ones_downwards():
    ax = LearningDisplay(HISTORY, classes=CLASSES).plot().axes_[2]

    def spans(label):
        return [(bar.get_y(), bar.get_height()) for bar in bars(ax, label)]

    assert spans("is lepidic") == [(0, 4), (0, 5)]
    assert spans("is solid") == [(4, 1), (5, 2)]
    assert spans("is not lepidic") == [(0, 0), (0, -1)]
    assert spans("is not solid") == [(0, -3), (-1, -2)]
    centers = [bar.get_x() + bar.get_width() / 2 for bar in bars(ax, "is lepidic")]
    assert_allclose(centers, [1, 2])


def test_colors_and_hatches_of_the_bars():
    ax = LearningDisplay(HISTORY, classes=CLASSES).plot().axes_[2]
    for name, color in (("lepidic", (1, 0, 0)), ("solid", (0, 0, 1))):
        for bar in bars(ax, f"is {name}"):
            assert bar.get_facecolor()[:3] == color and bar.get_hatch() is None
        for bar in bars(ax, f"is not {name}"):
            assert bar.get_edgecolor()[:3] == color and "/" in bar.get_hatch()
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == CLASSES


def test_counts_below_the_line_are_read_without_a_sign():
    display = LearningDisplay(HISTORY, classes=CLASSES).plot()
    display.figure_.canvas.draw()
    ticks = display.axes_[2].get_yticklabels()
    assert len(ticks) > 2 and not any("−" in t.get_text() or "-" in t.get_text() for t in ticks)


def test_rounds_are_whole_numbers():
    display = LearningDisplay(HISTORY, classes=CLASSES).plot()
    for ax in display.axes_:
        assert all(tick == round(tick) for tick in ax.get_xticks())


def test_refit_stands_beyond_the_last_round():
    refit = {"n_epochs": 3, "train_loss": 0.4, "valid_loss": 0.6}
    ax = LearningDisplay(HISTORY, classes=CLASSES, refit_history=refit).plot().ax_
    for label, value in (("training, refit", 0.4), ("validation, refit", 0.6)):
        assert line(ax, label).get_xdata()[0] > 2
        assert_allclose(line(ax, label).get_ydata(), [value])


def test_only_what_the_history_has_is_drawn():
    display = LearningDisplay(HISTORY[:1]).plot()
    assert [ax.get_ylabel() for ax in display.axes_] == ["loss"]
    without_losses = [
        {"round": 1, "sum_absolute_error": 0.5},
        {"round": 2, "sum_absolute_error": 0.2},
    ]
    assert [ax.get_ylabel() for ax in LearningDisplay(without_losses).plot().axes_] == [
        "sum absolute error"
    ]


def test_no_validation_no_curve():
    history = [{"round": i, "train_loss": 1.0, "valid_loss": None} for i in range(3)]
    labels = [found.get_label() for found in LearningDisplay(history).plot().ax_.lines]
    assert labels == ["training"]


def test_from_estimator(fitted):
    display = LearningDisplay.from_estimator(fitted)
    losses, error, counts = display.axes_
    history = fitted.history_
    assert_allclose(line(losses, "training").get_ydata(), [e["train_loss"] for e in history])
    assert_allclose(error.lines[0].get_ydata()[1:], [e["sum_absolute_error"] for e in history[1:]])
    assert line(losses, "training, refit").get_ydata()[0] == fitted.refit_history_["train_loss"]
    for c, name in enumerate(fitted.classes_):
        up = [bar.get_height() for bar in bars(counts, f"is {name}")]
        down = [bar.get_height() for bar in bars(counts, f"is not {name}")]
        assert up == [entry["n_positive"][c] for entry in history[1:]]
        assert down == [-entry["n_negative"][c] for entry in history[1:]]


def test_from_estimator_without_bags_shows_the_supervised_step():
    data = make_bags(n_bags=2, random_state=0)
    clf = NegativePseudoLabelClassifier(max_epochs=2, random_state=0).fit(data.X_labeled, data.y)
    assert [ax.get_ylabel() for ax in LearningDisplay.from_estimator(clf).axes_] == ["loss"]


def test_from_estimator_not_fitted():
    with pytest.raises(NotFittedError):
        LearningDisplay.from_estimator(NegativePseudoLabelClassifier())


def test_plot_on_given_axes_with_given_colors():
    figure, axes = plt.subplots(1, 3)
    display = LearningDisplay(HISTORY, classes=CLASSES)
    assert display.plot(axes, colors={"solid": "tab:orange"}) is display
    assert list(display.axes_) == list(axes) and display.figure_ is figure
    assert bars(axes[2], "is solid")[0].get_facecolor()[:3] == to_rgb("tab:orange")


def test_one_axes_is_divided_among_the_panels():
    _, ax = plt.subplots()
    display = LearningDisplay(HISTORY, classes=CLASSES).plot(ax)
    assert len(display.axes_) == 3 and not ax.axison


WRONG = [
    ({"round": 0}, TypeError, "must be a list of dictionaries .* got dict"),
    (None, TypeError, "got NoneType"),
    ([], ValueError, "history is empty"),
    ([3], TypeError, r"history\[0\] must be a dictionary, got int"),
    ([{"epoch": 0, "train_loss": 1.0}], ValueError, r"history\[0\] has no 'round', only \['epoch'"),
    ([{"round": 0, "n_epochs": 3}], ValueError, "no losses, errors or counts .*n_epochs"),
    (
        [*HISTORY, {"round": 3, "n_positive": [1]}],
        ValueError,
        "n_positive of round 3 is .1.; give one",
    ),
    ([{"round": 1, "n_positive": [-1, 2]}], ValueError, "give one count for each of 2 classes"),
    ([{"round": 1, "n_positive": [0.5, 2]}], ValueError, "give one count for each of 2 classes"),
]


@pytest.mark.parametrize(("history", "error", "message"), WRONG, ids=[m for _, _, m in WRONG])
def test_wrong_history(history, error, message):
    with pytest.raises(error, match=message):
        LearningDisplay(history)


def test_wrong_number_of_names():
    with pytest.raises(ValueError, match="names 3 classes but n_positive has 2"):
        LearningDisplay(HISTORY, classes=["a", "b", "c"])


def test_wrong_number_of_axes():
    _, axes = plt.subplots(1, 2)
    with pytest.raises(ValueError, match="ax holds 2 axes but 3 panels"):
        LearningDisplay(HISTORY).plot(axes)


def test_matplotlib_missing(monkeypatch):
    display = LearningDisplay(HISTORY)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "proportion_ssl\[plot\]"'):
        display.plot()
