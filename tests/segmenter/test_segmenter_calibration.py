"""Calibration on left-out cases, intervals of proportions, uncertain cells, and what is written of them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.testing import assert_allclose
from PIL import Image

from proportion_ssl import SlideSegmenter
from proportion_ssl.evaluation import entropy_uncertainty
from proportion_ssl.segmenter import calibration
from proportion_ssl.segmenter.calibration import LeftOut, calibrate, leave_out, predicted_shares
from proportion_ssl.segmenter.prediction import segment_known
from proportion_ssl.slides import read_annotations


@pytest.fixture(scope="module")
def data(fitted, manifest, features):
    return fitted.read_cohort(manifest, features=features)


@pytest.fixture
def segmentation(fitted, manifest, features):
    return fitted.segment(features / "test_9.h5", proportions={"acinar": 0.9, "solid": 0.1})


def test_every_case_is_predicted_once_by_models_that_did_not_see_it(fitted, data, monkeypatch):
    seen = []

    def fit(data, names, bags, classifier, records):
        seen.append((set(names), set(bags.names.tolist()), records))
        return fitted.classifier_

    monkeypatch.setattr(calibration, "fit_classifier", fit)
    monkeypatch.setattr(calibration, "fit_proposer", lambda *_: fitted.proposer_)
    left_out = leave_out(data, None, None, 3, records=False)
    assert sorted(left_out.bag_probabilities) == sorted(data.cohort.bag_cases)
    assert sorted(left_out.shares) == sorted([*data.labeled, *data.cohort.bags])
    assert len(seen) == 3 and not any(records for *_, records in seen)
    for part, everything in ((0, data.labeled), (1, data.cohort.bag_cases)):
        left = [set(everything) - fold[part] for fold in seen]
        assert sorted(name for fold in left for name in fold) == sorted(everything)
    n = sum(
        np.isin(data.outlined[s].labels.astype(str), data.cohort.classes).sum()
        for s in data.labeled
    )
    assert len(left_out.labels) == len(left_out.probabilities) == n
    predicted = predicted_shares(data, left_out, 1.0, 0.0)
    assert_allclose(predicted.sum(axis=1), 1)
    maps = segment_known(data, data.cohort.bags, fitted.models_)
    for case in data.cohort.bag_cases:
        (name,) = data.cohort.case_slides(case)
        assert_allclose(predicted.loc[case], maps[name].proportions)


def test_outlines_are_kept_where_a_class_would_be_lost(fitted, data, monkeypatch):
    def fit(data, names, *_):
        assert set(names) == set(data.labeled)
        return fitted.classifier_

    monkeypatch.setattr(calibration, "fit_classifier", fit)
    monkeypatch.setattr(calibration, "fit_proposer", lambda *_: fitted.proposer_)
    one = replace(data, outlined={data.labeled[0]: data.outlined[data.labeled[0]]})
    left_out = leave_out(one, None, None, 3)
    assert len(left_out.labels) == 0 and len(left_out.bag_probabilities) == 6
    found = calibrate(one, left_out)
    assert found.source == "records of left-out bags"
    with pytest.raises(ValueError, match="two cases and two folds"):
        leave_out(data, None, None, 1)


def test_nothing_left_out_changes_nothing(data):
    nothing = LeftOut(np.array([]), np.zeros((0, 2)), {}, {}, {})
    found = calibrate(data, nothing)
    assert found.temperature == 1 and found.proportion_errors is None and found.suggestions is None


@pytest.mark.slow
def test_calibrated_segmenter_states_intervals_and_keeps_them_in_its_file(
    new, manifest, features, tmp_path
):
    segmenter = new().fit(manifest, features=features)
    before = segmenter.segment(manifest.parent / "test_9.tif", features=features)
    slide = features / "test_9.h5"
    assert before.proportion_intervals is None and segmenter.temperature_ == 1
    found = segmenter.calibrate(manifest, 3, features=features)
    after = segmenter.segment(slide)
    assert found.source == "left-out outlines" and found.temperature == segmenter.temperature_ != 1
    assert np.isinf(found.proportion_errors).all(), "six bags promise nothing at 90%"
    assert_allclose(after.proportion_intervals, [[0, 1], [0, 1]])
    assert (after.labels == before.labels).mean() > 0.99
    assert (
        set(found.suggestions.index) == set(found.suggestions.index) and len(found.suggestions) == 6
    )
    segmenter.proportion_errors_ = np.array([0.1, np.inf])
    segmenter.save(tmp_path / "model.segmenter", network=False)
    loaded = SlideSegmenter.load(tmp_path / "model.segmenter")
    assert loaded.temperature_ == segmenter.temperature_
    assert loaded.proportion_errors_.tolist() == [0.1, np.inf]
    again = loaded.segment(slide)
    assert_allclose(again.probabilities, after.probabilities, atol=1e-6)
    assert_allclose(again.proportion_intervals.loc["solid"], [0, 1])
    assert segmenter.fit(manifest, features=features).proportion_errors_ is None


# --- uncertain cells ----------------------------------------------------------------------------


def test_intervals_are_around_the_shares_and_absent_with_a_record(segmentation):
    calibrated = replace(segmentation, proportion_errors=np.array([0.1, 0.2]), used_record=False)
    share = calibrated.proportions["acinar"]
    reach = 0.1 * np.sqrt(share * (1 - share) + 0.01)
    expected = np.clip([share - reach, share + reach], 0, 1)
    assert_allclose(calibrated.proportion_intervals.loc["acinar"], expected)
    row = calibrated.row()
    assert_allclose([row["predicted_low_acinar"], row["predicted_high_acinar"]], expected)
    assert not row["used_record"]
    informed = replace(calibrated, used_record=True)
    assert informed.proportion_intervals is None
    assert informed.row()["used_record"] and "predicted_low_acinar" not in informed.row()


def test_rejected_cells_are_uncertain_and_do_not_count(segmentation, tmp_path):
    largest = segmentation.probabilities.max(axis=1)
    below = float(np.quantile(largest, 0.3))
    rejected = segmentation.reject(below)
    assert ((rejected.labels == "uncertain") == (largest < below)).all()
    kept = rejected.labels[largest >= below]
    assert (kept == segmentation.labels[largest >= below]).all()
    counts = pd.Series(kept)[lambda s: s.isin(["acinar", "solid"])].value_counts(normalize=True)
    for name in ("acinar", "solid"):
        assert rejected.proportions[name] == pytest.approx(counts.get(name, 0.0))
    assert rejected.classes == segmentation.classes
    assert rejected.map_classes == [*segmentation.classes, "uncertain"]
    assert_allclose(rejected.uncertainty, segmentation.uncertainty)
    assert rejected.row()["share_uncertain"] == pytest.approx((largest < below).mean())
    paths = rejected.write(tmp_path)
    names = {region.class_name for region in read_annotations(paths["geojson"])}
    assert "uncertain" in names
    with pytest.raises(
        ValueError, match=r"reject_below must be in \[0, 1\]; got 60. It looks like percent"
    ):
        segmentation.reject(60)
    assert segmentation.reject(0).map_classes == segmentation.classes


def test_predominant_class_and_grade(segmentation):
    assert segmentation.predominant == "acinar"
    assert segmentation.row()["predominant"] == "acinar"
    assert segmentation.grade() == (3 if segmentation.proportions["solid"] >= 0.2 else 2)
    empty = replace(
        segmentation, labels=np.full(len(segmentation.labels), "non-cancer", dtype=object)
    )
    assert empty.predominant is None and empty.grade() is None
    assert empty.row()["predominant"] == "" and empty.row()["grade"] == ""
    other = replace(segmentation, classes=["A", "B", "non-cancer"])
    assert other.grade() is None


def test_uncertainty_is_written_as_map_measurement_and_picture(
    fitted, manifest, features, tmp_path
):
    one = fitted.segment(manifest.parent / "test_9.tif", features=features)
    paths = one.write(tmp_path)
    coded = tifffile.imread(paths["uncertainty"], level=0)
    expected = one.value_map(entropy_uncertainty(one.probabilities))
    there = ~np.isnan(expected)
    assert (coded[~there] == 0).all()
    assert_allclose((coded[there].astype(float) - 1) / 254, expected[there], atol=0.003)
    regions = read_annotations(paths["geojson"])
    total = sum(r.measurements["Mean uncertainty"] * r.measurements["Area um^2"] for r in regions)
    area = sum(r.measurements["Area um^2"] for r in regions)
    assert total / area == pytest.approx(one.uncertainty.mean(), rel=1e-6)
    picture = np.asarray(Image.open(paths["uncertainty_overlay"]).convert("RGB"))
    assert picture.shape[0] >= one.overview.shape[0]
