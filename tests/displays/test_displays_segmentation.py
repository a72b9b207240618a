"""SegmentationDisplay and ProportionDisplay: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgba
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import Bags
from proportion_ssl.displays import ProportionDisplay, SegmentationDisplay

CLASSES = ["acinar", "lepidic", "solid"]
TRUTH = np.array([[0, 0, 1], [2, -1, 1]])
PREDICTED = np.array([[0, 1, 1], [2, -1, 0]])
YELLOW, RED, BLUE = (1, 1, 0), (1, 0, 0), (0, 0, 1)


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


class ByFirstFeature:
    classes_ = np.array(CLASSES)

    def predict(self, X):
        return self.classes_[np.asarray(X)[:, 0].astype(int)]


class TestSegmentation:
    def test_pixels_have_the_colors_of_their_classes(self):
        display = SegmentationDisplay.from_predictions(TRUTH, PREDICTED, classes=CLASSES)
        for axes, labels in zip(display.axes_, (TRUTH, PREDICTED), strict=True):
            (image,) = axes.images
            for color, label in ((YELLOW, 0), (RED, 1), (BLUE, 2)):
                assert_array_equal(
                    image.get_array()[labels == label], [to_rgba(color)] * (labels == label).sum()
                )
            assert (image.get_array()[labels == -1][:, 3] == 0).all()
        legend = display.ax_.get_legend()
        assert [text.get_text() for text in legend.get_texts()] == CLASSES
        assert [h.get_facecolor()[:3] for h in legend.legend_handles] == [YELLOW, RED, BLUE]

    def test_legend_names_only_what_is_on_the_maps(self):
        display = SegmentationDisplay.from_predictions(None, [[2, 2]], classes=CLASSES)
        assert [text.get_text() for text in display.ax_.get_legend().get_texts()] == ["solid"]
        assert [axes.get_title() for axes in display.axes_] == ["prediction"]

    @pytest.mark.slow
    @pytest.mark.parametrize("n_systems", range(1, 9))
    def test_panels_stand_at_even_distances_and_the_legend_beside_them(self, n_systems):
        systems = {f"system {i}": PREDICTED for i in range(n_systems)}
        display = SegmentationDisplay.from_predictions(TRUTH, systems, classes=CLASSES)
        display.figure_.canvas.draw()
        boxes = [axes.get_window_extent() for axes in display.axes_]
        columns = sorted({round(box.x0) for box in boxes})
        assert np.ptp(np.diff(columns)) <= 2
        legend = display.ax_.get_legend().get_window_extent()
        assert not any(legend.overlaps(box) for box in boxes)
        assert legend.x1 <= display.figure_.bbox.x1 + 1

    def test_systems_side_by_side_over_the_slide(self):
        thumbnail = np.full((40, 60, 3), 200, dtype=np.uint8)
        display = SegmentationDisplay.from_predictions(
            TRUTH, {"supervised": PREDICTED, "proposed": TRUTH}, classes=CLASSES, thumbnail=thumbnail,
            cell_pixels=15, alpha=0.5,
        )  # fmt: skip
        assert [a.get_title() for a in display.axes_] == [
            "slide",
            "truth",
            "supervised",
            "proposed",
        ]
        assert [len(a.images) for a in display.axes_] == [1, 2, 2, 2]
        overlay = display.axes_[1].images[1]
        assert overlay.get_extent() == [0, 45, 30, 0]
        assert overlay.get_array()[0, 0, 3] == 0.5

    @pytest.mark.parametrize(("patch_um", "length"), [(224, 200), (1000, 1000), (50, 50)])
    def test_scale_bar_has_its_length(self, patch_um, length):
        display = SegmentationDisplay.from_predictions(
            TRUTH, PREDICTED, classes=CLASSES, patch_um=patch_um
        )
        (line,) = display.axes_[0].lines
        drawn = np.ptp(line.get_xdata())
        assert display.scale_bar_um_ == length
        assert_allclose(drawn * patch_um, length)

    def test_from_estimator_places_patches(self):
        cells = np.argwhere(TRUTH >= 0)
        labels = TRUTH[TRUTH >= 0]
        display = SegmentationDisplay.from_estimator(
            ByFirstFeature(),
            labels[:, None],
            cells,
            TRUTH.shape,
            y=[CLASSES[i] if i else None for i in labels],
        )
        assert_array_equal(display.maps["prediction"], TRUTH)
        assert_array_equal(display.maps["truth"], np.where(TRUTH == 0, -1, TRUTH))

    def test_colors_for_any_eye(self):
        display = SegmentationDisplay.from_predictions(
            None, [[0, 1, 2]], classes=CLASSES, colors="colorblind"
        )
        colors = display.ax_.images[0].get_array()[0]
        assert_allclose(colors, [to_rgba(c) for c in ("#E69F00", "#56B4E9", "#009E73")])
        with pytest.raises(ValueError, match="up to 8 classes"):
            SegmentationDisplay({"a": [[0]]}, range(9)).plot(colors="colorblind")

    @pytest.mark.parametrize(
        ("maps", "message"),
        [
            ({}, "maps is empty"),
            ({"a": [[0, 3]]}, "'a' holds indices 0 to 3, but there are 3 classes"),
            ({"a": [[0]], "b": [[0, 1]]}, r"'b' has shape \(1, 2\)"),
            ({"a": [[0.5]]}, "type float64"),
        ],
    )
    def test_errors(self, maps, message):
        with pytest.raises(ValueError, match=message):
            SegmentationDisplay(maps, CLASSES)


class TestProportions:
    RECORDED = np.array([[0.7, 0.3, 0.0], [0.2, 0.3, 0.5], [0.0, 0.0, 1.0]])
    PREDICTED = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.5, 0.0, 0.5]])

    def display(self):
        return ProportionDisplay.from_predictions(
            self.RECORDED, self.PREDICTED, classes=CLASSES, bag_names=["x", "y", "z"]
        )

    def test_errors_by_bag_and_class(self):
        display = self.display()
        assert_allclose(display.distance, [0.4, 0.0, 1.0])
        assert_allclose(display.class_error, [0.7 / 3, 0.2 / 3, 0.5 / 3])
        labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
        assert labels == ["acinar (0.23)", "lepidic (0.07)", "solid (0.17)"]

    def test_bars_farthest_bag_first(self):
        bars = self.display().axes_[0]
        assert [label.get_text() for label in bars.get_yticklabels()] == ["z", "x", "y"]
        order = [2, 0, 1]
        for half, shares in enumerate((self.RECORDED, self.PREDICTED)):
            for c in range(3):
                container = bars.containers[3 * half + c]
                assert_allclose([bar.get_width() for bar in container], shares[order, c])
                left = shares[order, :c].sum(axis=1)
                assert_allclose([bar.get_x() for bar in container], left, atol=1e-12)

    def test_points(self):
        points = self.display().ax_.collections
        for c, collection in enumerate(points):
            expected = np.column_stack([self.RECORDED[:, c], self.PREDICTED[:, c]])
            assert_allclose(collection.get_offsets(), expected)

    def test_from_estimator_counts_predictions(self):
        X = np.array([[0], [0], [1], [2], [2]])
        bags = Bags(X, ["a", "a", "a", "b", "b"], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        display = ProportionDisplay.from_estimator(ByFirstFeature(), bags)
        assert_allclose(display.predicted, [[2 / 3, 1 / 3, 0], [0, 0, 1]])
        assert display.bag_names == ["a", "b"]
        with pytest.raises(ValueError, match="no proportions to compare with"):
            ProportionDisplay.from_estimator(ByFirstFeature(), Bags(X, ["a"] * 5))

    def test_rounded_records_are_drawn_as_written_and_judged_by_their_intervals(self):
        X = np.array([[0], [1], [2], [0], [0], [2]])
        written = [[0.3, 0.3, 0.3], [0.4, 0.1, 0.4]]
        bags = Bags(X, ["a"] * 3 + ["b"] * 3, written, rounding_step=0.1)
        display = ProportionDisplay.from_estimator(ByFirstFeature(), bags)
        assert_allclose(display.recorded, written)
        assert_allclose(display.distance, [0, (2 / 3 - 0.45) + 0.05 + (0.35 - 1 / 3)], atol=1e-9)
        lines = [c for c in display.ax_.collections if hasattr(c, "get_segments")]
        assert_allclose(lines[0].get_segments()[0], [[0.25, 1 / 3], [0.35, 1 / 3]])

    def test_intervals_that_do_not_hold_the_record(self):
        with pytest.raises(ValueError, match="Bag 'a' has a recorded share outside its interval"):
            ProportionDisplay(
                [[0.3, 0.3]], [[0.5, 0.5]], lower=[[0.4, 0.4]], upper=[[0.6, 0.6]], bag_names=["a"]
            )

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"predicted": [[1.0, 0.0]]}, r"predicted has shape \(1, 2\)"),
            ({"predicted": [[0.5, 0.4, 0.0]]}, r"predicted shares of bag 0 sum to 0\.9, not 1"),
            ({"bag_names": ["a", "b"]}, "names 2 bags but there are 1"),
            ({"classes": ["a"]}, "names 1 classes"),
        ],
    )
    def test_errors(self, kwargs, message):
        arguments = {"recorded": [[1.0, 0.0, 0.0]], "predicted": [[1.0, 0.0, 0.0]], **kwargs}
        with pytest.raises(ValueError, match=message):
            ProportionDisplay(**arguments)
