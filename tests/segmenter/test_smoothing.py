"""Neighboring patches in maps: a weight chosen on left-out slides, kept in files, consistent with records."""

from copy import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import SlideSegmenter
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.segmenter import slide_segmenter, smooth_probabilities
from proportion_ssl.segmenter.calibration import LeftOut, best_smoothing, calibrate
from proportion_ssl.segmenter.context import clearly_best
from proportion_ssl.segmenter.prediction import cell_probabilities, segment_features

#: The classifier of these tests is so sure that neighbors could not move it.
UNSURE = 150.0


@pytest.fixture(scope="module")
def data(fitted, manifest, features):
    return fitted.read_cohort(manifest, features=features)


def noisy(data, error, seed=0):
    """Predictions of the outlined slides, each patch by itself wrong or unsure."""
    rng, classes = np.random.default_rng(seed), [*data.cohort.classes, NON_CANCER]
    shares, tumor = {}, {}
    for name in data.labeled:
        codes = np.array([classes.index(label) for label in data.outlined[name].labels])
        logits = 2 * np.eye(3)[codes] + rng.normal(0, error, (len(codes), 3))
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
        tumor[name] = p[:, :2].sum(axis=1)
        shares[name] = p[:, :2] / tumor[name][:, np.newaxis]
    return LeftOut(np.array([]), np.zeros((0, 2)), {}, shares, tumor)


# --- the weight ---------------------------------------------------------------------------------


def test_a_weight_is_chosen_where_patches_err_by_themselves(data):
    assert best_smoothing(data, noisy(data, 2.0), 1.0) > 0
    assert calibrate(data, noisy(data, 2.0)).smoothing > 0
    assert calibrate(data, noisy(data, 2.0), smoothing=0.3).smoothing == 0.3


def test_no_weight_without_errors_or_with_one_outlined_case(data):
    assert best_smoothing(data, noisy(data, 0.1), 1.0) == 0
    one = noisy(data, 2.0)
    one = replace(one, shares={"labeled_0": one.shares["labeled_0"]})
    assert best_smoothing(data, one, 1.0) == 0
    slides = data.cohort.slides.assign(case="the same")
    same = replace(data, cohort=replace(data.cohort, slides=slides))
    assert best_smoothing(same, noisy(data, 2.0), 1.0) == 0


def test_only_a_gain_of_more_than_one_standard_error_counts():
    def tables(right):
        """Of 100 patches of two classes in each of the groups, so many are right."""
        return np.array([[[[r, 100 - r], [100 - r, r]] for r in row] for row in right])

    assert clearly_best(tables([[50, 50, 50, 50], [60, 62, 58, 60]]), 2) == 1
    assert clearly_best(tables([[50, 50, 50, 50], [90, 40, 45, 45], [51, 51, 51, 51]]), 2) == 0
    assert clearly_best(tables([[50, 50], [50, 50], [50, 50]]), 2) == 0
    assert clearly_best(tables([[50], [90]]), 2) == 0


def test_the_standard_error_is_that_of_a_mean_where_the_score_is_one():
    """With equal groups and one class, mean IoU is the mean of accuracies, whose standard error is known."""
    right = np.array([[50.0] * 5, [56.0, 49, 55, 58, 47]])
    gains = right[1] - right[0]
    error = gains.std(ddof=1) / np.sqrt(5)
    assert abs(gains.mean()) > error, "the example is about a clear gain"
    tables = np.zeros((2, 5, 1, 2))
    tables[..., 0, 0], tables[..., 0, 1] = right, 100 - right
    assert clearly_best(tables, 1) == 1
    right[1] -= gains.mean() - 0.95 * error
    tables[..., 0, 0], tables[..., 0, 1] = right, 100 - right
    assert clearly_best(tables, 1) == 0


# --- the maps -----------------------------------------------------------------------------------


def segment(fitted, slide, models, **more):
    names, colors = fitted.classes_, fitted.colors_
    given = {"classes": names, "colors": colors, "overview": None, "recorded": None, **more}
    return segment_features(slide, models, features="", **given)


def test_the_map_is_that_of_smoothed_probabilities(fitted, data):
    slide = data.slides["test_9"]
    models = replace(fitted.models_, temperature=UNSURE)
    plain = segment(fitted, slide, models)
    smoothed = segment(fitted, slide, replace(models, smoothing=0.4))
    expected = plain.probabilities.copy()
    tumor = expected[:, -1] <= 0.5
    assert tumor.any() and not tumor.all()
    mass = expected[tumor, :2].sum(axis=1, keepdims=True)
    cells = slide.grid.cells[tumor]
    expected[tumor, :2] = mass * smooth_probabilities(cells, expected[tumor, :2] / mass, 0.4)
    assert_allclose(smoothed.probabilities, expected)
    names = np.array(smoothed.classes, dtype=object)
    assert_array_equal(smoothed.labels[tumor], names[expected[tumor, :2].argmax(axis=1)])
    assert_array_equal(smoothed.labels[~tumor], plain.labels[~tumor])
    assert np.abs(expected - plain.probabilities).max() > 0.01


def test_with_its_record_shares_stay_those_of_the_record(fitted, data):
    slide = data.slides["test_9"]
    recorded = pd.DataFrame(
        {part: [0.35, 0.65] for part in ("share", "lower", "upper")}, index=fitted.classes_
    )
    given = {"recorded": recorded, "use_record": True}
    models = replace(fitted.models_, temperature=UNSURE)
    informed = segment(fitted, slide, models, **given)
    both = segment(fitted, slide, replace(models, smoothing=0.4), **given)
    assert both.used_record

    def shares(one):
        p = one.probabilities[one.probabilities[:, -1] <= 0.5, :2]
        return (p / p.sum(axis=1, keepdims=True)).mean(axis=0)

    assert_allclose(shares(both), shares(informed), atol=1e-3)
    assert_array_equal(both.labels == NON_CANCER, informed.labels == NON_CANCER)
    moved = np.abs(both.probabilities - informed.probabilities).max()
    alone = segment(fitted, slide, replace(models, smoothing=0.4))
    assert moved > 0.01 and np.abs(both.probabilities - alone.probabilities).max() > 0.01


def test_finer_maps_are_smoothed_over_the_side_of_a_window(fitted, data):
    """Where windows overlap, each set of windows side by side is smoothed as by itself."""
    slide = data.slides["test_9"]
    cells = np.array([[r, c] for r in range(6) for c in range(8)])
    grid = replace(slide.grid, cells=cells, shape=(6, 8), boxes=np.tile([0, 0, 1, 1], (48, 1)))
    half = replace(slide, grid=grid, stride=slide.grid.size[0] / 2)
    p = np.random.default_rng(0).dirichlet(np.ones(3), len(cells))
    _, found = cell_probabilities(half, p, 3, smoothing=0.5, average=False)
    for shift in ([0, 0], [0, 1], [1, 0], [1, 1]):
        chosen = (cells % 2 == shift).all(axis=1)
        expected = smooth_probabilities(cells[chosen] // 2, p[chosen], 0.5)
        assert_allclose(found[chosen], expected, atol=1e-3)


def test_patches_on_no_grid_are_left_as_they_are_and_named(fitted, data, caplog):
    slide = data.slides["test_9"]
    twice = replace(slide, grid=replace(slide.grid, cells=np.zeros_like(slide.grid.cells)))
    p = np.full((len(slide.grid), 3), 1 / 3)
    _, found = cell_probabilities(twice, p, 2, smoothing=0.5)
    assert_array_equal(found, p)
    assert "patches of test_9 do not lie on a grid" in caplog.text


# --- the segmenter ------------------------------------------------------------------------------


def test_calibration_sets_the_weight_and_the_file_keeps_it(
    fitted, data, features, tmp_path, monkeypatch
):
    left_out = noisy(data, 2.0)
    monkeypatch.setattr(slide_segmenter, "leave_out", lambda *_, **__: left_out)
    assert fitted.smoothing_ == fitted.models_.smoothing == 0
    for weight in (None, 0.7):
        segmenter = copy(fitted).set_params(smoothing=weight)
        found = segmenter.calibrate_features(data, 3)
        assert segmenter.smoothing_ == segmenter.models_.smoothing == found.smoothing
        assert found.smoothing == (best_smoothing(data, left_out, 1.0) if weight is None else 0.7)
    segmenter.save(tmp_path / "model.segmenter", network=False)
    loaded = SlideSegmenter.load(tmp_path / "model.segmenter")
    assert loaded.smoothing_ == 0.7
    here, there = (one.segment(features / "test_9.h5") for one in (segmenter, loaded))
    assert_allclose(here.probabilities, there.probabilities, atol=1e-6)


@pytest.mark.slow
def test_a_number_is_used_from_the_fit_on(new, manifest, features):
    assert new(smoothing=0.7).fit(manifest, features=features).models_.smoothing == 0.7
    with pytest.raises(ValueError, match="'smoothing' parameter"):
        new(smoothing=-1).fit(manifest, features=features)
