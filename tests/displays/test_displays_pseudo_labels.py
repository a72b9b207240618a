"""Boxes of pseudo labels: which are filled, which are hatched, where, in which color."""

import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb, to_rgba
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

from proportion_ssl import Bags, NegativePseudoLabelClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.displays import PseudoLabelDisplay

CLASSES = ["lepidic", "acinar", "papillary"]
FIGURE5 = {"lepidic": (1, 0, 0), "acinar": (1, 1, 0), "papillary": (0, 1, 0)}
SIGNED = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 0], [0, -1, -1], [0, 0, 1]], dtype=np.int8)
PREDICTED = ["lepidic", "acinar", "acinar", "papillary", "papillary"]
CELLS = np.array([[4, 7], [4, 8], [5, 7], [5, 9], [6, 8]])
BOX = 0.86  # of a cell of side 1, as documented in the module


@pytest.fixture(autouse=True)
def _agg():
    backend = matplotlib.get_backend()
    plt.switch_backend("agg")
    yield
    plt.close("all")
    plt.switch_backend(backend)


@pytest.fixture(scope="module")
def fitted():
    data = make_bags(n_bags=4, bag_size=(12, 20), n_classes=3, class_separation=0.6, random_state=0)
    clf = NegativePseudoLabelClassifier(max_epochs=4, random_state=0)
    return clf.fit(data.X_labeled, np.array(CLASSES)[data.y], data.bags), data


def drawn(ax, gid):
    """Boxes of a collection as (x0, y0, x1, y1), sorted; none if it is not there."""
    found = [c for c in ax.collections if c.get_gid() == gid]
    assert len(found) <= 1
    if not found:
        return np.empty((0, 4))
    corners = np.array([path.vertices[:4] for path in found[0].get_paths()])
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    return boxes[np.lexsort(boxes.T[[0, 1]])]


def collection(ax, gid):
    (found,) = [c for c in ax.collections if c.get_gid() == gid]
    return found


def box_of(cell, left=0.0, right=1.0):
    """The part of a cell's box between two shares of its width, by hand."""
    row, column = cell
    start = column + (1 - BOX) / 2
    top = row + (1 - BOX) / 2
    return [start + BOX * left, top, start + BOX * right, top + BOX]


def show(**kwargs):
    arguments = {"classes": CLASSES, "predictions": [PREDICTED], "cells": CELLS, **kwargs}
    return PseudoLabelDisplay.from_predictions([SIGNED], **arguments)


# --- boxes ----------------------------------------------------------------------------------------


def test_positive_labels_fill_the_box_in_the_color_of_the_class():
    ax = show().ax_
    assert_allclose(drawn(ax, "positive:lepidic"), [box_of((0, 0))])
    assert_allclose(drawn(ax, "positive:papillary"), [box_of((2, 1))])
    assert len(drawn(ax, "positive:acinar")) == 0
    for name in ("lepidic", "papillary"):
        assert_allclose(
            collection(ax, f"positive:{name}").get_facecolor(), [to_rgba(FIGURE5[name])]
        )


def test_negative_labels_hatch_the_box_in_strips_one_per_class():
    ax = show().ax_
    assert_allclose(drawn(ax, "negative:acinar"), [box_of((0, 1)), box_of((1, 2), 0, 0.5)])
    assert_allclose(drawn(ax, "negative:papillary"), [box_of((1, 2), 0.5, 1)])
    assert len(drawn(ax, "negative:lepidic")) == 0
    assert_allclose(collection(ax, "negative:acinar").get_facecolor()[0, :3], FIGURE5["acinar"])


def test_lines_of_a_hatched_box_are_oblique_and_stay_in_the_box():
    ax = show().ax_
    for name in ("acinar", "papillary"):
        lines = collection(ax, f"hatch:{name}")
        assert_allclose(lines.get_edgecolor()[:, :3], [FIGURE5[name]])
        strips = drawn(ax, f"negative:{name}")
        n_lines = np.zeros(len(strips), dtype=int)
        for start, end in lines.get_segments():
            assert_allclose(end - start, (end - start)[0] * np.array([1, -1]))
            x, y = (start + end) / 2
            (inside,) = np.flatnonzero(
                (strips[:, 0] < x) & (x < strips[:, 2]) & (strips[:, 1] < y) & (y < strips[:, 3])
            )
            for point in (start, end):
                assert (point >= strips[inside, :2] - 1e-9).all()
                assert (point <= strips[inside, 2:] + 1e-9).all()
            n_lines[inside] += 1
        assert (n_lines >= 2).all()


def test_outlines_have_the_color_of_the_predicted_class():
    ax = show().ax_
    for name in CLASSES:
        cells = (CELLS - CELLS.min(axis=0))[np.array(PREDICTED) == name]
        assert_allclose(drawn(ax, f"outline:{name}"), [box_of(cell) for cell in cells])
        assert_allclose(collection(ax, f"outline:{name}").get_edgecolor(), [to_rgba(FIGURE5[name])])


def test_without_predictions_all_outlines_are_alike():
    ax = show(predictions=None).ax_
    assert len(drawn(ax, "outline")) == len(SIGNED)
    assert not [c for c in ax.collections if str(c.get_gid()).startswith("outline:")]


@pytest.mark.parametrize("seed", range(5))
def test_every_label_is_drawn_once(seed):
    """The colored area of an instance is one box if it has a label, and nothing otherwise."""
    rng = np.random.default_rng(seed)
    signed = np.where(rng.random((40, 4)) < 0.3, -1, 0)
    positive = rng.random(40) < 0.3
    signed[positive] = np.eye(4, dtype=int)[rng.integers(0, 4, positive.sum())]
    ax = PseudoLabelDisplay([signed]).plot().ax_
    area = np.zeros((7, 7))
    for gid in [f"{sign}:{c}" for sign in ("positive", "negative") for c in range(4)]:
        for x0, y0, x1, y1 in drawn(ax, gid):
            area[int(y0), int(x0)] += (x1 - x0) * (y1 - y0)
    expected = np.zeros(49)
    expected[:40] = BOX**2 * signed.any(axis=1)
    assert_allclose(area.ravel(), expected, atol=1e-12)


def test_pixels_show_filled_and_empty_boxes():
    display = show(predictions=None)
    figure, ax = display.figure_, display.ax_
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]

    def at(cell):
        x, y = ax.transData.transform((cell[1] + 0.5, cell[0] + 0.5))
        return tuple(pixels[len(pixels) - 1 - int(y), int(x)].tolist())

    assert at((0, 0)) == (255, 0, 0) and at((2, 1)) == (0, 255, 0)
    assert at((1, 0)) == (255, 255, 255)


# --- layout ---------------------------------------------------------------------------------------


def test_cells_place_the_boxes_as_on_the_slide_with_rows_downwards():
    ax = show().ax_
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert_allclose(sorted(ax.get_xlim()), [-0.05, 3.05])
    assert_allclose(sorted(ax.get_ylim()), [-0.05, 3.05])


def test_without_cells_instances_stand_in_rows():
    display = PseudoLabelDisplay([np.zeros((7, 2))])
    assert_array_equal(display.cells, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0]])


def test_one_panel_per_round():
    rounds = [SIGNED, np.zeros_like(SIGNED), SIGNED]
    display = PseudoLabelDisplay.from_predictions(rounds, titles=["a", "b", "c"])
    assert [ax.get_title() for ax in display.axes_] == ["a", "b", "c"]
    assert [len(drawn(ax, "positive:0")) for ax in display.axes_] == [1, 0, 1]
    assert display.ax_ is display.axes_[0] and display.figure_ is display.ax_.figure


def test_five_rounds_take_two_rows():
    display = PseudoLabelDisplay([SIGNED] * 5).plot()
    rows = {ax.get_subplotspec().rowspan.start for ax in display.axes_}
    assert rows == {0, 1}
    assert [ax.get_legend() is not None for ax in display.axes_] == [
        False,
        False,
        False,
        True,
        False,
    ]


def test_images_lie_under_the_boxes_at_their_cells():
    images = np.stack([np.full((4, 6, 3), 40 * i, dtype=np.uint8) for i in range(5)])
    ax = show(images=images).ax_
    (image,) = ax.images
    canvas = np.asarray(image.get_array())
    assert canvas.shape == (3 * 4, 3 * 6, 3)
    for value, (row, column) in zip(range(5), CELLS - CELLS.min(axis=0), strict=True):
        block = canvas[row * 4 : row * 4 + 4, column * 6 : column * 6 + 6]
        assert (block == 40 * value).all()
    assert (canvas[:4, 12:] == 255).all()  # a cell without a patch
    assert image.get_zorder() < collection(ax, "positive:lepidic").get_zorder()
    assert collection(ax, "positive:lepidic").get_alpha() < 1  # the image shines through


def test_legend_names_classes_and_signs():
    legend = show().axes_[-1].get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [*CLASSES, "filled: is", "hatched: is not", "outline: predicted"]
    faces = [patch.get_facecolor()[:3] for patch in legend.get_patches()[:3]]
    assert_allclose(faces, [FIGURE5[name] for name in CLASSES])
    assert "/" in legend.get_patches()[4].get_hatch()


def test_colors_replace_those_of_figure_5():
    ax = show(colors={"lepidic": "#0072b2"}).ax_
    assert_allclose(collection(ax, "positive:lepidic").get_facecolor()[0, :3], to_rgb("#0072b2"))
    assert_allclose(
        collection(ax, "positive:papillary").get_facecolor()[0, :3], FIGURE5["papillary"]
    )


def test_given_axes_are_drawn_on():
    figure, axes = plt.subplots(1, 2)
    display = PseudoLabelDisplay([SIGNED, SIGNED])
    assert display.plot(axes) is display
    assert display.figure_ is figure and list(display.axes_) == list(axes)


def test_one_axes_is_divided_among_the_panels():
    figure, (left, right) = plt.subplots(1, 2)
    display = PseudoLabelDisplay([SIGNED, SIGNED]).plot(left)
    assert len(display.axes_) == 2 and not left.axison
    limits = left.get_position().x0, left.get_position().x1
    for ax in display.axes_:
        place = ax.get_subplotspec().get_position(figure)
        assert limits[0] - 1e-9 <= place.x0 < place.x1 <= limits[1] + 1e-9
    assert not right.collections


def test_a_large_bag_is_drawn_with_thin_lines():
    small = PseudoLabelDisplay([np.zeros((9, 2))]).plot()
    large = PseudoLabelDisplay([np.zeros((10_000, 2))]).plot()
    widths = [collection(d.ax_, "outline").get_linewidth()[0] for d in (small, large)]
    assert widths[1] < 0.6 * widths[0]


# --- from an estimator ----------------------------------------------------------------------------


def test_from_estimator_shows_the_labels_of_the_bag(fitted):
    clf, data = fitted
    bag = clf.bag_names_[2]
    rows = np.flatnonzero(clf.bag_index_ == 2)
    X = data.bags.X[rows]
    display = PseudoLabelDisplay.from_estimator(clf, bag, X=X)
    assert [ax.get_title() for ax in display.axes_] == ["round 4", "labeled since round"]
    assert_array_equal(display.signed_labels[0], clf.signed_labels_[rows])
    for c, name in enumerate(clf.classes_):
        n_drawn = [len(drawn(display.ax_, f"{sign}:{name}")) for sign in ("positive", "negative")]
        labels = clf.signed_labels_[rows, c]
        assert n_drawn == [(labels > 0).sum(), (labels < 0).sum()]
        assert len(drawn(display.ax_, f"outline:{name}")) == (clf.predict(X) == name).sum()


def test_second_panel_shows_since_when_labels_stand(fitted):
    clf, _ = fitted
    display = PseudoLabelDisplay.from_estimator(clf, clf.bag_names_[0])
    since = collection(display.axes_[1], "since")
    rows = clf.bag_index_ == 0
    labels, rounds = clf.signed_labels_[rows], clf.label_rounds_[rows]
    assert len(since.get_paths()) == (labels != 0).sum()
    assert_array_equal(np.sort(since.get_array()), np.sort(rounds[labels != 0]))
    assert (since.get_array() >= 1).all()


def test_since_panel_gives_each_label_its_round():
    signed = np.array([[1, 0], [0, 0], [-1, -1]])
    rounds = np.array([[3, 0], [0, 0], [1, 2]])
    display = PseudoLabelDisplay([signed], label_rounds=rounds).plot()
    since = collection(display.axes_[1], "since")
    found = {
        tuple(np.round(path.vertices[0], 3).tolist()): value
        for path, value in zip(since.get_paths(), since.get_array().tolist(), strict=True)
    }
    corners = [box_of((0, 0))[:2], box_of((1, 0))[:2], box_of((1, 0), 0.5)[:2]]
    expected = dict(zip([tuple(np.round(c, 3).tolist()) for c in corners], [3, 1, 2], strict=True))
    assert found == expected


def test_from_estimator_replays_rounds(fitted):
    clf, _ = fitted
    changed = (clf.label_log_.replay(1) != clf.label_log_.replay(4)).any(axis=1)
    bag = clf.bag_index_[changed][0]
    rows = clf.bag_index_ == bag
    display = PseudoLabelDisplay.from_estimator(clf, clf.bag_names_[bag], rounds=[1, 2, 4])
    assert [ax.get_title() for ax in display.axes_] == ["round 1", "round 2", "round 4"]
    assert_array_equal(display.signed_labels[2], clf.signed_labels_[rows])
    for signed, i in zip(display.signed_labels, (1, 2, 4), strict=True):
        assert_array_equal(signed, clf.label_log_.replay(i)[rows])
    assert (display.signed_labels[0] != display.signed_labels[2]).any()


@pytest.mark.parametrize("wrong", [0, 5, -1])
def test_from_estimator_unknown_round(fitted, wrong):
    clf, _ = fitted
    with pytest.raises(ValueError, match=rf"rounds has {wrong}; .* has rounds 1 to 4"):
        PseudoLabelDisplay.from_estimator(clf, clf.bag_names_[0], rounds=[1, wrong])


def test_from_estimator_does_not_mix_predictions_of_now_with_earlier_rounds(fitted):
    clf, data = fitted
    with pytest.raises(ValueError, match="give either X or rounds"):
        PseudoLabelDisplay.from_estimator(clf, clf.bag_names_[0], rounds=[1], X=data.bags.X)


def test_from_estimator_without_selectors_draws_empty_boxes(fitted):
    _, data = fitted
    clf = NegativePseudoLabelClassifier(
        max_epochs=1, random_state=0, positive_selector=None, negative_selector=None
    ).fit(data.X_labeled, data.y, data.bags)
    display = PseudoLabelDisplay.from_estimator(clf, clf.bag_names_[0])
    display.figure_.canvas.draw()
    assert {c.get_gid() for c in display.ax_.collections} == {"outline"}


def test_from_estimator_without_bags(fitted):
    _, data = fitted
    clf = NegativePseudoLabelClassifier(max_epochs=1, random_state=0).fit(data.X_labeled, data.y)
    with pytest.raises(ValueError, match="fitted without bags"):
        PseudoLabelDisplay.from_estimator(clf, 0)


def test_from_estimator_not_fitted():
    with pytest.raises(NotFittedError):
        PseudoLabelDisplay.from_estimator(NegativePseudoLabelClassifier(), 0)


def test_from_estimator_unknown_bag(fitted):
    with pytest.raises(ValueError, match=r"no bag 'slide 9'; its bags are 4, 5"):
        PseudoLabelDisplay.from_estimator(fitted[0], "slide 9")


def test_from_estimator_other_instances(fitted):
    clf, data = fitted
    n_instances = (clf.bag_index_ == 0).sum()
    with pytest.raises(ValueError, match=rf"X has 3 instances but bag 4 has {n_instances}"):
        PseudoLabelDisplay.from_estimator(clf, clf.bag_names_[0], X=data.bags.X[:3])


def test_bags_may_be_named_by_text(fitted):
    _, data = fitted
    arrays = [data.bags.X[data.bags.index == bag] for bag in (0, 1)]
    bags = Bags(arrays, ["slide <a>", "slide b"], proportions=data.bags.proportions[:2])
    clf = NegativePseudoLabelClassifier(max_epochs=1, random_state=0)
    clf.fit(data.X_labeled, data.y, bags)
    display = PseudoLabelDisplay.from_estimator(clf, "slide b")
    assert_array_equal(display.signed_labels[0], clf.signed_labels_[clf.bag_index_ == 1])


# --- errors ---------------------------------------------------------------------------------------

IMAGES = np.zeros((5, 4, 4, 3), dtype=np.uint8)

WRONG = [
    ({"signed_labels": []}, "signed_labels is empty"),
    ({"signed_labels": SIGNED}, r"signed_labels\[0\] has shape \(3,\); give a list of matrices"),
    ({"signed_labels": [SIGNED, SIGNED[:3]]}, "give the same bag in each round"),
    ({"signed_labels": [2 * SIGNED]}, r"holds 2; labels are \+1, -1 or 0"),
    ({"signed_labels": [abs(SIGNED)]}, "Instance 3 has two positive labels"),
    ({"classes": ["a", "b"]}, "names 2 classes but each matrix of signed_labels has 3"),
    ({"classes": ["a", "b", "a"]}, "a class more than once"),
    ({"predictions": [PREDICTED] * 2}, "predictions has 2 rounds but signed_labels has 1"),
    ({"predictions": [PREDICTED[:4]]}, "5 instances need one class each"),
    ({"predictions": [["solid"] * 5]}, "'solid', which is not among the classes"),
    ({"titles": ["a", "b"]}, "titles must be a list of 1 texts"),
    ({"titles": "a"}, "titles must be a list of 1 texts"),
    ({"label_rounds": np.ones((5, 2))}, r"label_rounds has shape \(5, 2\)"),
    ({"cells": CELLS[:4]}, "for each of 5 instances"),
    ({"cells": CELLS + 0.5}, r"give \(row, column\) as integers"),
    ({"cells": np.zeros((5, 2), int)}, r"cell \(0, 0\) occurs 5 times"),
    ({"images": IMAGES[:3]}, "images holds 3 patches but there are 5"),
    ({"images": IMAGES.astype(float)}, "give uint8 images"),
    ({"images": IMAGES[..., 0]}, "give uint8 images"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_input(wrong, message):
    arguments = {"signed_labels": [SIGNED], "classes": CLASSES, **wrong}
    with pytest.raises(ValueError, match=message):
        PseudoLabelDisplay(arguments.pop("signed_labels"), **arguments)


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        ({"solid": "red"}, "'solid', which is not among the classes"),
        ({"acinar": "rainbow"}, "color of class 'acinar' is 'rainbow'"),
    ],
)
def test_wrong_colors(colors, message):
    with pytest.raises(ValueError, match=message):
        show(colors=colors)


def test_wrong_number_of_axes():
    _, axes = plt.subplots(1, 3)
    with pytest.raises(ValueError, match="ax holds 3 axes but 2 panels"):
        PseudoLabelDisplay([SIGNED, SIGNED]).plot(axes)


def test_axes_without_a_place_in_a_grid_cannot_be_divided():
    ax = plt.figure().add_axes((0, 0, 1, 1))
    with pytest.raises(ValueError, match="give 2 axes"):
        PseudoLabelDisplay([SIGNED, SIGNED]).plot(ax)


def test_matplotlib_missing(monkeypatch):
    display = PseudoLabelDisplay([SIGNED])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "proportion_ssl\[plot\]"'):
        display.plot()
