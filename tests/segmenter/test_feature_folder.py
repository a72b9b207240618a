"""From features, outlines and a table to segmented slides, without any slide."""

import json
import pickle
import re
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from cohorts import CLASSES, PATCH, N, layout, write_one
from feature_cohorts import add_clam_patches, slide_features, write_feature_cohort
from foreign_features import write_clam_features, write_trident
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import (
    Bags,
    HeadClassifier,
    MultiFieldOfViewNet,
    NegativePseudoLabelClassifier,
    SlideSegmenter,
    TumorProposer,
    load_cohort,
)
from proportion_ssl.segmenter import read_training_data
from proportion_ssl.segmenter.prediction import average_windows
from proportion_ssl.segmenter.slide_features import read_slide_features
from proportion_ssl.slides import FeatureSequence, find_features, read_annotations


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return write_feature_cohort(tmp_path_factory.mktemp("trident"))


def quick():
    net = MultiFieldOfViewNet(1, expert=HeadClassifier(max_epochs=40), random_state=0)
    return SlideSegmenter(
        NegativePseudoLabelClassifier(max_epochs=60, random_state=0),
        proposer=TumorProposer(net, n_folds=2),
        random_state=0,
    )


@pytest.fixture(scope="module")
def fitted(cohort):
    manifest, features = cohort
    return quick().fit(manifest, features=features)


def test_segmented_without_slides(cohort, fitted, tmp_path):
    manifest, features = cohort
    run = fitted.segment_cohort(manifest, tmp_path, features=features)
    assert run.failures == {} and set(run.results) == {"case.test_9", "case.test_10"}
    for number, (name, segmentation) in zip((9, 10), run.results.items(), strict=True):
        names = layout((0.3, 0.7, 0.5, 0.1, 0.9)[number % 5])
        assert (segmentation.labels == names[tuple(segmentation.grid.cells.T)]).mean() > 0.92
        assert segmentation.grid.shape == (N, N) and segmentation.dimensions == (
            N * PATCH,
            N * PATCH,
        )
        regions = read_annotations(tmp_path / f"{name}.geojson")
        areas = {r.class_name: r.geometry.area / PATCH**2 for r in reversed(regions)}
        assert set(areas) == {*CLASSES, "non-cancer"}
    shown = "SlideSegmentation('case.test_10', 100 cells, predominant class 'solid')"
    assert repr(segmentation) == shown
    assert fitted.features_ == "features of uni_v1 from files, 32 pixels at 2.5x"
    assert fitted.evaluate(manifest, features=features).pooled["mIoU"] > 0.9


def test_the_nominal_resolution_is_said_to_be_one(cohort, fitted, caplog):
    _, features = cohort
    path = features / "case.test_9.h5"
    with caplog.at_level("WARNING"):
        nominal = fitted.segment(path)
    assert "the resolution of case.test_9 is not stated" in caplog.text
    caplog.clear()
    measured = fitted.segment(path, mpp=4.2)
    assert caplog.text == ""
    ratio = measured.row()["tumor_area_mm2"] / nominal.row()["tumor_area_mm2"]
    assert ratio == pytest.approx((4.2 / 4.0) ** 2)


def test_the_nominal_resolution_is_said_once_for_all_slides(cohort, fitted, tmp_path, caplog):
    manifest, features = cohort
    run = fitted.segment_cohort(manifest, tmp_path, features=features)
    assert repr(run) == "CohortRun(2 results, 0 failures)"
    (record,) = caplog.records
    assert "the resolution of case.test_9, case.test_10 is not stated" in record.getMessage()
    assert "column mpp of the manifest" in record.getMessage() and "--mpp" in record.getMessage()


def test_patches_of_an_unknown_level(tmp_path):
    """A size in pixels is not enough, and the resolution of the slide is not what is missing."""
    (tmp_path / "h5_files").mkdir()
    path = tmp_path / "h5_files" / "a.h5"
    write_clam_features(path, *(np.ones((2, 3), "f4"), [[0, 0], [0, 256]]))
    with h5py.File(path, "a") as file:
        file["coords"].attrs["patch_size"] = 64
    with pytest.raises(
        ValueError, match=r"a\.h5: has patches of 64 pixels at an unknown level; give"
    ):
        read_slide_features(path, "a", mpp=0.5)


def test_slides_are_found_by_their_names(cohort, fitted):
    _, features = cohort
    by_name = fitted.segment("elsewhere/case.test_9.svs", features=features)
    by_file = fitted.segment(features / "case.test_9.h5")
    assert by_name.name == by_file.name == "case.test_9"
    assert_array_equal(by_name.probabilities, by_file.probabilities)
    with pytest.raises(ValueError, match=r"has no features of case\.test_99"):
        fitted.segment("case.test_99.svs", features=features)


def test_a_saved_model_segments_the_files(cohort, fitted, tmp_path):
    """There is no network to save."""
    _, features = cohort
    fitted.save(tmp_path / "model.segmenter")
    loaded = SlideSegmenter.load(tmp_path / "model.segmenter")
    loaded.save(tmp_path / "again.segmenter")
    files = [tmp_path / f"{name}.segmenter" for name in ("model", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    path = features / "case.test_10.h5"
    expected = fitted.segment(path).probabilities
    assert_allclose(loaded.segment(path).probabilities, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("program", ["STAMP", "CLAM"])
def test_other_programs_need_the_resolution(program, tmp_path, fitted):
    manifest, features = write_feature_cohort(tmp_path / "a", program=program, mpp=True)
    if program == "CLAM":
        add_clam_patches(features)
    segmenter = quick().fit(manifest, features=features)
    run = segmenter.segment_cohort(manifest, tmp_path / "out", features=features)
    assert run.failures == {}
    for segmentation in run.results.values():
        truth = layout(0.9 if segmentation.name == "case.test_9" else 0.3)
        assert (segmentation.labels == truth[tuple(segmentation.grid.cells.T)]).mean() > 0.92
    table = pd.read_csv(manifest).drop(columns="mpp")
    table.to_csv(manifest, index=False)
    with pytest.raises(ValueError, match=r"(?s)None of the slides.*give mpp \(column mpp"):
        quick().fit(manifest, features=features)


def test_the_root_folder_of_clam(tmp_path):
    """``h5_files`` is preferred; the size of the patches is in ``patches``."""
    manifest, features = write_feature_cohort(tmp_path / "cohort", program="CLAM", mpp=True)
    root = tmp_path / "clam"
    root.mkdir()
    features = features.rename(root / "h5_files")
    add_clam_patches(features)
    data = read_training_data(manifest, root)
    assert data.cohort.failures == {} and set(data.y) == set(CLASSES)
    slide = next(iter(data.cohort.slides.values()))
    assert (slide.program, slide.grid.size, slide.dimensions) == (
        *("CLAM", (PATCH, PATCH)),
        (N * PATCH, N * PATCH),
    )
    shutil.rmtree(root / "patches")
    with pytest.raises(ValueError, match="has features and coordinates but no patch size"):
        read_training_data(manifest, root)


@pytest.mark.slow
def test_arguments_of_fit(cohort):
    manifest, features = cohort
    data = read_training_data(manifest, features)
    assert isinstance(data.bags, Bags) and data.bags.n_bags == 6
    assert isinstance(data.bags.X, FeatureSequence), "left in their files"
    n_cancer = 3 * (N - 3) * (N - 2)
    assert data.X.shape == (n_cancer, 12) and set(data.y) == set(CLASSES)
    assert set(data.groups) == {f"case.labeled_{number}" for number in range(3)}
    expected = dict(zip(data.bags.names, data.bags.proportions, strict=True))
    record = load_cohort(manifest, need_slides=False).proportions
    for name, shares in expected.items():
        assert_allclose(shares, record.loc[name])
        rows = np.flatnonzero(data.bags.names[data.bags.index] == name)
        own, _ = slide_features(layout(0.5), 0)
        stored = FeatureSequence([features / f"{name}.h5"])[...]
        assert_array_equal(data.bags.X[rows], stored)
        assert own.shape == stored.shape
    model = NegativePseudoLabelClassifier(max_epochs=60, random_state=0)
    model.fit(*data[:3], groups=data.groups)
    assert (model.predict(data.X) == data.y).mean() > 0.95


def test_taken_rows_of_a_sequence(cohort):
    _, features = cohort
    sequence = FeatureSequence(find_features(features))
    mask = np.random.default_rng(0).random(len(sequence)) < 0.3
    taken = pickle.loads(pickle.dumps(sequence.take(mask)))
    assert_array_equal(taken[...], sequence[mask])
    assert_array_equal(taken.take([5, 2])[...], sequence[np.flatnonzero(mask)[[5, 2]]])
    assert_array_equal(taken.slide_ids, sequence.slide_ids[mask])
    assert sum(len(batch) for batch in taken.batches(7)) == len(taken) == mask.sum()


# --- what cannot be --------------------------------------------------------------------------


@pytest.fixture
def copied(cohort, tmp_path):
    shutil.copytree(cohort[0].parent, tmp_path / "copy")
    return tmp_path / "copy" / "cohort.csv", tmp_path / "copy" / "features"


def change(path, name, key, value):
    with h5py.File(path, "a") as file:
        file[name].attrs[key] = value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: change(f / "case.bag_4.h5", "features", "encoder", "uni_v2"),
            r"case\.bag_4.*uni_v2",
        ),
        (
            lambda f: change(f / "case.bag_4.h5", "coords", "patch_size", 64),
            "contradict each other",
        ),
        (lambda f: (f / "case.bag_4.h5").unlink(), r"has no features of case\.bag_4; it holds"),
        (lambda f: shutil.copy(f / "case.bag_4.h5", f / "case.bag_4.pt"), "both features of slide"),
        (lambda f: [p.unlink() for p in f.iterdir()], "do not exist"),
    ],
    ids=["encoder", "attributes", "missing", "twice", "empty"],
)
def test_folders_that_cannot_be_used(copied, spoil, message):
    manifest, features = copied
    spoil(features)
    error = FileNotFoundError if message == "do not exist" else ValueError
    segmenter = quick()
    if message == "contradict each other":
        assert re.search(message, str(segmenter.fit(manifest, features=features).failures_))
        return
    with pytest.raises(error, match=message):
        segmenter.fit(manifest, features=features)


def test_features_of_another_width(copied):
    manifest, features = copied
    _, cells = slide_features(layout(0.5), 0)
    about = {"patch_size": PATCH, "patch_size_level0": PATCH}
    magnifications = {"level0_magnification": 2.5, "target_magnification": 2.5}
    path = features / "case.bag_5.h5"
    write_trident(path, np.ones((len(cells), 13), "f4"), cells * PATCH, **about, **magnifications)
    with pytest.raises(
        ValueError, match=r"case\.bag_5\.h5 has 13 features per patch, but .* has 12"
    ):
        quick().fit(manifest, features=features)


@pytest.mark.slow
def test_a_slide_without_patches_is_named(copied):
    manifest, features = copied
    write_trident(features / "case.bag_5.h5", np.zeros((0, 12), "f4"), np.zeros((0, 2)))
    segmenter = quick().fit(manifest, features=features)
    assert "has no patches" in segmenter.failures_["case.bag_5"].reason


def test_outlines_must_be_there(copied):
    manifest, features = copied
    (manifest.parent / "case.labeled_1.geojson").unlink()
    with pytest.raises(FileNotFoundError, match=r"case\.labeled_1\.geojson"):
        quick().fit(manifest, features=features)


@pytest.mark.slow
def test_outlines_beyond_the_slide(copied):
    """Level-0 sizes of the file stand in for the slide."""
    manifest, features = copied
    path = manifest.parent / "case.labeled_1.geojson"
    document = json.loads(path.read_text())
    for feature in document["features"]:
        ring = feature["geometry"]["coordinates"][0]
        feature["geometry"]["coordinates"] = [[[x * 40, y * 40] for x, y in ring]]
    path.write_text(json.dumps(document))
    table = pd.read_csv(manifest).assign(mpp=4.0)
    table.to_csv(manifest, index=False)
    segmenter = quick().fit(manifest, features=features)
    assert "outside the scanned part" in segmenter.failures_["case.labeled_1"].reason


def test_cropped_slides_have_to_be_there(tmp_path):
    manifest, features = write_feature_cohort(tmp_path, suffix=".mrxs")
    with pytest.raises(
        ValueError,
        match=r"slide not found: .*mrxs\. It is needed because outlines of \.mrxs slides",
    ):
        quick().fit(manifest, features=features)


def test_a_slide_that_exists_gives_what_features_do_not_state(tmp_path):
    _, features = write_feature_cohort(tmp_path, program="STAMP", suffix=".tif")
    (tmp_path / "slides").mkdir()
    write_one(tmp_path / "slides" / "case.test_9.tif", 0.9, 9)
    slide = read_slide_features(
        features / "case.test_9.h5", "a", image=tmp_path / "slides" / "case.test_9.tif"
    )
    assert slide.mpp == pytest.approx((4.0, 4.0)) and slide.dimensions == (N * PATCH, N * PATCH)


# --- overlapping windows ---------------------------------------------------------------------


def overlapping(path, overlap, cells):
    step = 32 - overlap
    about = {"patch_size": 32, "patch_size_level0": 64, "level0_width": 4000, "level0_height": 4000}
    return write_trident(
        path, np.ones((len(cells), 2), "f4"), cells * 2 * step, overlap=overlap, **about
    )


@pytest.mark.parametrize("overlap", [8, 16, 24, 30, 5])
def test_overlapping_windows_are_averaged(tmp_path, overlap):
    """Against a map of pixels: means over the windows that cover the middle of each cell."""
    rng = np.random.default_rng(0)
    cells = np.argwhere(rng.random((9, 7)) < 0.8)[:, ::-1] + 3
    slide = read_slide_features(overlapping(tmp_path / "a.h5", overlap, cells), "a", mpp=0.25)
    values = rng.random((len(cells), 2))
    grid, means = average_windows(slide, values)
    middles = (grid.boxes[:, :2] + grid.boxes[:, 2:]) / 2
    boxes = slide.grid.boxes
    inside = (middles[:, None] > boxes[None, :, :2]) & (middles[:, None] < boxes[None, :, 2:])
    weight = inside.all(axis=2).astype(float)
    if overlap == 5:  # too fine to average: each cell has the window in whose middle it lies
        distance = np.abs(middles[:, None] - (boxes[None, :, :2] + boxes[None, :, 2:]) / 2).max(
            axis=2
        )
        weight = (distance == distance.min(axis=1, keepdims=True)).astype(float)
    np.testing.assert_allclose(means, weight @ values / weight.sum(axis=1, keepdims=True))
    area = (grid.boxes[:, 2:] - grid.boxes[:, :2]).prod(axis=1).sum()
    assert area <= 64 * 64 * len(cells)
    assert len(np.unique(grid.cells, axis=0)) == len(grid)


@pytest.mark.slow
def test_fit_and_map_of_overlapping_windows(tmp_path):
    manifest, features = write_feature_cohort(tmp_path / "a")
    for path in features.glob("*.h5"):
        with h5py.File(path, "a") as file:
            attributes = file["coords"].attrs
            attributes["patch_size"] = attributes["patch_size_level0"] = 64
            attributes["overlap"] = 32
    segmenter = quick().fit(manifest, features=features)
    segmentation = segmenter.segment(features / "case.test_9.h5")
    assert segmentation.grid.size == (32, 32) and len(segmentation.grid) > 100
    paths = segmentation.write(tmp_path / "out")
    assert read_annotations(paths["geojson"])
    assert segmenter.evaluate(manifest, features=features).pooled["patches"] > 100
