"""The whole way: fit on a cohort, segment, judge; from slides and from features."""

import logging
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from cohorts import CLASSES, N, Texture, layout, write_cohort, write_one, write_outlines
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from slide_files import write_slide

from proportion_ssl import NegativePseudoLabelClassifier, SlideSegmenter, load_cohort, report
from proportion_ssl.segmenter import System
from proportion_ssl.segmenter.slide_features import outlined_patches, read_slide_features
from proportion_ssl.slides import CohortError, SlideError, embed_slides, read_features


def test_a_cohort_with_known_truth_is_segmented(fitted, manifest, features, tmp_path):
    names = write_one(tmp_path / "new.tif", 0.5, seed=99)
    segmentation = fitted.segment(tmp_path / "new.tif")
    truth = names[tuple(segmentation.grid.cells.T)]
    assert (segmentation.labels == truth).mean() > 0.97
    assert segmentation.classes == [*CLASSES, "non-cancer"]
    assert_allclose(segmentation.proportions["acinar"], 0.5, atol=0.03)
    assert_allclose(segmentation.probabilities.sum(axis=1), 1)
    assert ((segmentation.uncertainty >= 0) & (segmentation.uncertainty <= 1)).all()
    label_map = segmentation.label_map()
    assert label_map.shape == (N, N) and label_map[0, 0] == -1


@pytest.mark.slow
def test_scores_on_test_slides_and_in_folds(fitted, manifest, features):
    evaluation = fitted.evaluate(manifest, features=features)
    assert evaluation.pooled["mIoU"] > 0.95 and evaluation.pooled["proportion_error"] < 0.05
    assert evaluation.by_slide.index.tolist() == ["test_9", "test_10"]
    assert evaluation.confusion.to_numpy().sum() == 2 * 100
    low, high = evaluation.interval("mIoU")
    assert low <= evaluation.pooled["mIoU"] <= high
    scores = fitted.cross_validate(
        manifest,
        3,
        features=features,
        systems={"outlines": System(NegativePseudoLabelClassifier(max_epochs=3), records=False)},
    )
    assert scores["fold"].tolist() == [1, 2, 3] and (scores["system"] == "outlines").all()


@pytest.mark.slow
def test_a_second_fit_embeds_only_what_is_new(tmp_path, new):
    manifest = write_cohort(tmp_path / "cohort", labeled=2, bags=3, test=0)
    counting = Counting()
    segmenter = new(embedder=counting, proposer=None)
    segmenter.fit(manifest, features=tmp_path / "features")
    first = counting.n_images
    assert first == 2 * segmenter.n_patches_
    segmenter.fit(manifest, features=tmp_path / "features")
    assert counting.n_images == first
    table = pd.read_csv(manifest)
    write_one(tmp_path / "cohort" / "added.tif", 0.5, seed=50)
    row = {"slide": "added.tif", "role": "bag", "acinar": 50, "solid": 50}
    pd.concat([table, pd.DataFrame([row])]).to_csv(manifest, index=False)
    segmenter.fit(manifest, features=tmp_path / "features")
    assert counting.n_images == first + 2 * 100


class Counting(Texture):
    n_images = 0

    def transform(self, images):
        self.n_images += len(images)
        return super().transform(images)


@pytest.mark.slow
def test_an_added_first_slide_leaves_the_reference_of_colors(tmp_path, new):
    manifest = write_cohort(tmp_path / "cohort", labeled=2, bags=2, test=0)
    before = new(proposer=None).fit(manifest, features=tmp_path / "features")
    assert before.reference_slide_ == "labeled_0"
    names = write_one(tmp_path / "cohort" / "earlier.tif", 0.5, seed=70)
    write_outlines(tmp_path / "cohort" / "earlier.geojson", names)
    row = {"slide": "earlier.tif", "annotation": "earlier.geojson", "role": "labeled"}
    pd.concat([pd.DataFrame([row]), pd.read_csv(manifest)]).to_csv(manifest, index=False)
    for segmenter in (before, new(proposer=None)):  # fitted before, and new in another process
        segmenter.fit(manifest, features=tmp_path / "features")
        assert segmenter.reference_slide_ == "labeled_0"
        assert_array_equal(segmenter.normalizer_.mean_, before.normalizer_.mean_)


@pytest.mark.slow
def test_slides_that_fail_are_named_and_the_others_go_on(tmp_path, new):
    manifest = write_cohort(tmp_path, labeled=2, bags=4, test=1)
    (tmp_path / "bag_3.tif").write_bytes(b"no slide")
    write_slide(tmp_path / "bag_2.tif", np.full((512, 512, 3), 243, np.uint8), mpp=4.0)
    segmenter = new().fit(manifest, features=tmp_path / "features")
    assert {name: f.error for name, f in segmenter.failures_.items()} == {
        "bag_2": "NoTissueError",
        "bag_3": "SlideError",
    }
    assert segmenter.classifier_.bags_.n_bags == 2


def test_no_slide_at_all_says_why(tmp_path, new):
    manifest = write_cohort(tmp_path, labeled=1, bags=0, test=0)
    (tmp_path / "labeled_0.tif").write_bytes(b"no slide")
    with pytest.raises(ValueError, match=r"(?s)No slide can be the color reference.*labeled_0"):
        new().fit(manifest)


@pytest.mark.slow
def test_one_outlined_slide_is_enough_to_fit(tmp_path, new):
    manifest = write_cohort(tmp_path, labeled=1, bags=2, test=1)
    segmenter = new()
    with pytest.warns(UserWarning, match="Only one case is outlined"):
        segmenter.fit(manifest, features=tmp_path / "features")
    assert segmenter.evaluate(manifest, features=tmp_path / "features").pooled["mIoU"] > 0.9
    with pytest.raises(ValueError, match="got 1 outlined cases"):
        segmenter.cross_validate(manifest, features=tmp_path / "features")


def test_a_test_slide_without_outlines_or_record(tmp_path, new, fitted):
    manifest = write_cohort(tmp_path, labeled=1, bags=1, test=1)
    table = pd.read_csv(manifest)
    table.loc[table["role"] == "test", ["annotation", "acinar", "solid"]] = np.nan
    table.to_csv(manifest, index=False)
    with pytest.raises(ValueError, match="None of these slides has outlines or recorded"):
        fitted.evaluate(manifest)


@pytest.mark.slow
def test_a_class_that_no_outline_shows(tmp_path, new):
    manifest = write_cohort(tmp_path, labeled=1, bags=1, test=0)
    for path in tmp_path.glob("labeled_0.geojson"):
        write_outlines(path, np.where(layout(0.5) == "solid", "", layout(0.5)))
    for classifier in (WithoutClasses(), None):  # bags may teach a class in folds alone
        with pytest.raises(ValueError, match="labeled solid"):
            new(classifier=classifier, proposer=None).fit(manifest)


class WithoutClasses(NegativePseudoLabelClassifier):
    def get_params(self, deep=True):
        return {k: v for k, v in super().get_params(deep).items() if k != "classes"}


@pytest.mark.slow
def test_cases_make_one_bag_and_are_left_out_together(tmp_path, new):
    cases = ["p1", "p1", "p2", "p3", "p3", "p4", "p5"]
    manifest = write_cohort(tmp_path, labeled=3, bags=3, test=1, cases=cases)
    table = pd.read_csv(manifest)
    table.loc[table["case"] == "p3", ["acinar", "solid"]] = [60.0, 40.0]
    table.to_csv(manifest, index=False)
    segmenter = new(proposer=None).fit(manifest, features=tmp_path / "features")
    assert segmenter.classifier_.bags_.names.tolist() == ["p3", "p4"]
    assert_array_equal(np.bincount(segmenter.classifier_.bags_.index) > 100, [True, False])
    scores = segmenter.cross_validate(manifest, features=tmp_path / "features")
    assert sorted(scores["cases"]) == ["p1", "p2"]


@pytest.mark.slow
def test_the_same_from_feature_files_without_slides(fitted, manifest, features, tmp_path, new):
    fitted.read_cohort(manifest, features=features)
    table = pd.read_csv(manifest)
    for name in table["slide"]:
        stem = name.removesuffix(".tif")
        shutil.copy(features / f"{stem}.h5", tmp_path / f"{stem}.h5")
    for outlines in manifest.parent.glob("*.geojson"):
        shutil.copy(outlines, tmp_path)
    table["slide"] = table["slide"].str.replace(".tif", ".h5")
    table.to_csv(tmp_path / "cohort.csv", index=False)
    from_files = new(embedder=None).fit(tmp_path / "cohort.csv")
    here, there = (
        fitted.segment(manifest.parent / "test_9.tif"),
        from_files.segment(tmp_path / "test_9.h5"),
    )
    assert_allclose(here.probabilities, there.probabilities, atol=1e-6)
    assert there.overview is None and there.write(tmp_path / "out").keys() == {
        *("labels", "uncertainty", "geojson", "table")
    }
    with pytest.raises(ValueError, match="pass embedder="):
        from_files.segment(manifest.parent / "test_9.tif")


@pytest.mark.slow
def test_other_features_are_refused(fitted, manifest, features, tmp_path, new):
    path = manifest.parent / "test_9.tif"
    other = clone(fitted).set_params(embedder=Texture("2"), proposer=None)
    other.fit(manifest, features=tmp_path)
    with pytest.raises(ValueError, match="not made like those of the fit: embedder"):
        fitted.segment(tmp_path / "test_9.h5") if (tmp_path / "test_9.h5").exists() else (
            other.segment(path, features=tmp_path),
            fitted.segment(tmp_path / "test_9.h5"),
        )
    fitted_there = clone(fitted).set_params(proposer=None).fit(manifest, features=features)
    fitted_there.embedder_ = Texture("2")
    with pytest.raises(ValueError, match="embedder differs from that of the fit"):
        fitted_there.segment(path)


@pytest.mark.slow
def test_overlapping_windows_are_averaged_on_the_cells_of_the_step(fitted, manifest, tmp_path):
    finer = clone(fitted).set_params(stride=16)
    finer.__dict__.update({k: v for k, v in vars(fitted).items() if k.endswith("_")})
    finer._models = fitted._models
    segmentation = finer.segment(manifest.parent / "test_9.tif", features=tmp_path)
    assert segmentation.grid.size == (16, 16)
    stored = read_features(tmp_path / "stride_16" / "test_9.h5")
    slide = read_slide_features(tmp_path / "stride_16" / "test_9.h5", "test_9")
    windows = fitted.models_.probabilities(slide, fitted.classes_)
    sums, counts = {}, Counter()
    for (row, column), values in zip(stored.grid.cells.tolist(), windows, strict=True):
        for cell in ((row + i, column + j) for i in (0, 1) for j in (0, 1)):
            sums[cell] = sums.get(cell, 0) + values
            counts[cell] += 1
    expected = [sums[tuple(c)] / counts[tuple(c)] for c in segmentation.grid.cells.tolist()]
    assert_allclose(segmentation.probabilities, expected)
    assert len(sums) == len(segmentation.grid)
    boxes = segmentation.grid.boxes[:, 2:] - segmentation.grid.boxes[:, :2]
    assert_array_equal(boxes, 16)
    with pytest.raises(ValueError, match="does not divide"):
        clone(fitted).set_params(stride=15).fit(manifest)
    with pytest.raises(ValueError, match="does not divide"):  # set after the fit
        finer.set_params(stride=15).segment(manifest.parent / "test_9.tif")


@pytest.mark.slow
def test_a_mask_of_the_user_decides_what_tissue_is(manifest, new, tmp_path):
    half = np.zeros((N, N), dtype=np.uint8)
    half[:, : N // 2] = 1
    names = load_cohort(manifest).slides.index
    segmenter = new(tissue_mask=dict.fromkeys(names, half), proposer=None, normalizer=None)
    segmenter.fit(manifest, features=tmp_path)
    grid = read_features(tmp_path / "bag_3.h5").grid
    assert grid.cells[:, 1].max() == N // 2 - 1 and len(grid) == N * N // 2
    assert segmenter.dropped_["solid"].dropna().between(0.3, 1).all()


def test_a_record_stands_beside_the_prediction(fitted, manifest):
    path = manifest.parent / "test_9.tif"
    with_record = fitted.segment(path, proportions={"acinar": 0.25, "solid": 0.75})
    assert with_record.row()["recorded_acinar"] == 0.25
    for wrong, message in (
        ({"acinar": 25, "solid": 75}, "divide by 100"),
        ({"lepidic": 1.0}, "not classes of this model"),
    ):
        with pytest.raises(ValueError, match=message):
            fitted.segment(path, proportions=wrong)


def test_many_slides(fitted, manifest, features, tmp_path):
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"no slide")
    paths = [manifest.parent / "test_9.tif", broken]
    run = fitted.segment_cohort(paths, tmp_path / "out")
    assert list(run.results) == ["test_9"] and list(run.failures) == ["broken"]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "slides.csv",
        "test_9.csv",
        "test_9.geojson",
        "test_9_labels.tif",
        "test_9_overlay.png",
        "test_9_uncertainty.png",
        "test_9_uncertainty.tif",
    }
    run = fitted.segment_cohort(manifest, tmp_path / "cohort", features=features)
    table = pd.read_csv(tmp_path / "cohort" / "slides.csv", index_col="slide")
    assert table.index.tolist() == ["test_9", "test_10"]
    assert table["recorded_acinar"].tolist() == [0.9, 0.3]


def test_what_is_wrong_with_a_slide_is_said(fitted, tmp_path):
    with pytest.raises(FileNotFoundError):
        fitted.segment(tmp_path / "none.tif")
    (tmp_path / "broken.tif").write_bytes(b"no slide")
    with pytest.raises(SlideError):
        fitted.segment(tmp_path / "broken.tif")
    write_slide(tmp_path / "glass.tif", np.full((512, 512, 3), 243, np.uint8), mpp=4.0)
    with pytest.raises(CohortError, match="no tissue"):
        fitted.segment(tmp_path / "glass.tif")
    write_slide(tmp_path / "unscaled.tif", np.full((512, 512, 3), 243, np.uint8), mpp=None)
    with pytest.raises(SlideError, match="mpp"):
        fitted.segment(tmp_path / "unscaled.tif")


def test_before_fit(new, manifest):
    segmenter = new()
    for call in (segmenter.segment, segmenter.evaluate, segmenter.save):
        with pytest.raises(NotFittedError):
            call(manifest)
    with pytest.raises(AttributeError, match="not fitted"):
        _ = segmenter.classifier_
    assert clone(segmenter).get_params().keys() == segmenter.get_params().keys()


@pytest.mark.slow
def test_outlines_dropped_by_the_tissue_rule_are_reported(tmp_path, new, caplog):
    manifest = write_cohort(tmp_path, labeled=2, bags=2, test=0)
    names = write_one(tmp_path / "labeled_0.tif", 0.5, seed=0)
    names[0, :] = "acinar"  # outlined glass
    write_outlines(tmp_path / "labeled_0.geojson", names)
    with caplog.at_level(logging.WARNING):
        segmenter = new(proposer=None).fit(manifest)
    share = segmenter.dropped_.at["labeled_0", "acinar"]
    assert_allclose(share, 12 / (12 + 45), atol=0.02)
    assert "drops 21% of the area outlined as acinar" in caplog.text


def test_a_picture(fitted, manifest):
    pytest.importorskip("matplotlib").use("agg")
    display = fitted.segment(manifest.parent / "test_9.tif").plot()
    assert len(display.axes_) == 2


def test_a_report_of_slides_that_were_segmented_by_hand(fitted, manifest, tmp_path):
    segmentations = [fitted.segment(manifest.parent / f"test_{i}.tif") for i in (9, 10)]
    classes = [*fitted.classes_, "non-cancer"]
    first = segmentations[0]
    truth = np.where(np.arange(len(first.grid)) < 40, "acinar", "")
    shown = first.report_slide(classes, truth=truth, others={"other": first})
    assert_array_equal(shown.prediction, first.label_map())
    backwards = first.report_slide(classes[::-1]).prediction
    assert_array_equal(np.where(backwards < 0, -1, 2 - backwards), shown.prediction)
    counts = np.unique(shown.truth, return_counts=True)
    assert dict(zip(*counts, strict=True))[classes.index("acinar")] == 40
    slides = [one.report_slide(classes) for one in segmentations]
    page = report(tmp_path / "report.html", slides=slides, classes=classes).read_text()
    assert all(one.name in page for one in segmentations)
    with pytest.raises(ValueError, match=r"class 'uncertain', which is not among the classes"):
        first.reject(1.0).report_slide(classes)
    with pytest.raises(ValueError, match=rf"truth has 3 entries, but test_9 has {len(truth)}"):
        first.report_slide(classes, truth=["acinar"] * 3)


@pytest.mark.slow
def test_torch_is_not_loaded_by_the_package():
    code = "import sys; from proportion_ssl import SlideSegmenter; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_has_the_parameters_that_it_documents():
    documented = SlideSegmenter.__doc__
    assert all(f"\n    {name} : " in documented for name in SlideSegmenter().get_params())


@pytest.mark.slow
def test_overlapping_windows_are_segmented_but_not_learned_from(fitted, manifest, tmp_path, new):
    """Labels of outlines lie on the overlapping windows, and patches would count several times."""
    slides = load_cohort(manifest).slides["path"].to_dict()
    embed_slides(slides, Texture(), tmp_path, magnification=(2.5, 1.25), size=32, stride=16)
    slide = read_slide_features(tmp_path / "labeled_0.h5", "labeled_0")
    assert slide.stride == 16 and len(slide.full_grid()) == (2 * N - 1) ** 2
    outlined = outlined_patches(slide, manifest.parent / "labeled_0.geojson", list(CLASSES))
    names = layout(0.3)
    even = (slide.grid.cells % 2 == 0).all(axis=1)
    expected = names[tuple(slide.grid.cells[even].T // 2)]
    assert_array_equal(outlined.labels[even], np.where(expected == "", None, expected))
    table = pd.read_csv(manifest)
    table["slide"] = [str(tmp_path / name.replace(".tif", ".h5")) for name in table["slide"]]
    table["annotation"] = [
        "" if isinstance(name, float) else str(manifest.parent / name)
        for name in table["annotation"]
    ]
    table.to_csv(tmp_path / "cohort.csv", index=False)
    with pytest.raises(ValueError, match="windows of labeled_0 overlap"):
        new(embedder=None).fit(tmp_path / "cohort.csv")


def test_features_in_other_colors_are_refused(fitted, manifest, tmp_path):
    embed_slides(
        [manifest.parent / "test_9.tif"], Texture(), tmp_path, magnification=(2.5, 1.25), size=32
    )
    with pytest.raises(ValueError, match="those of the fit: colors None instead of"):
        fitted.segment(tmp_path / "test_9.h5")
