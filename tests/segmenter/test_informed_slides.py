"""Slides that are segmented with the record of their proportions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import SlideSegmenter
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.pseudo_labels import probabilities_given_records

OTHER = {"acinar": 0.35, "solid": 0.65}  # of the slide that is recorded as 0.9 and 0.1


@pytest.fixture
def slide(fitted, manifest, features):
    """A feature file."""
    fitted.segment(manifest.parent / "test_9.tif", features=features)
    return features / "test_9.h5"


@pytest.fixture
def pair(fitted, slide):
    return fitted.segment(slide), fitted.segment(slide, proportions=OTHER)


def test_a_record_moves_the_tumor_towards_it_and_leaves_the_rest(pair):
    plain, informed = pair
    assert informed.used_record and not plain.used_record
    tumor = plain.probabilities[:, -1] <= 0.5
    assert tumor.any() and not tumor.all() and plain.map_classes[-1] == NON_CANCER
    assert_allclose(informed.probabilities[~tumor], plain.probabilities[~tumor])
    assert_allclose(informed.probabilities[:, -1], plain.probabilities[:, -1])
    assert_allclose(informed.probabilities.sum(axis=1), 1, atol=1e-6)
    assert_array_equal(informed.labels == NON_CANCER, plain.labels == NON_CANCER)

    def share(one):
        shares = one.probabilities[tumor, :2]
        return (shares[:, 0] / shares.sum(axis=1)).mean()

    assert 0.35 < share(informed) < share(plain)


def test_it_is_the_function_of_the_classifiers(pair, fitted):
    plain, informed = pair
    tumor = plain.probabilities[:, -1] <= 0.5
    shares = plain.probabilities[tumor, :2]
    mass = shares.sum(axis=1, keepdims=True)
    record = np.array([[0.35, 0.65]])
    expected = mass * probabilities_given_records(
        shares / mass,
        np.zeros(len(shares), dtype=int),
        record,
        record,
        standard_deviation=fitted.models_.record_deviation,
        instance_weight=fitted.models_.instance_weight,
    )
    assert_allclose(informed.probabilities[tumor, :2], expected, atol=1e-6)


def test_intervals_move_less(fitted, slide, pair, monkeypatch):
    plain, _ = pair
    # predictions of drawings are sure; let them count for little, so that records move them
    models = replace(fitted.models_, instance_weight=0.01)
    monkeypatch.setattr(fitted, "models_", models)
    shares = pd.DataFrame({"share": OTHER})
    wide = shares.assign(lower=shares.share - 0.3, upper=shares.share + 0.3)
    moved = [
        np.abs(fitted.segment(slide, proportions=one).probabilities - plain.probabilities).sum()
        for one in (wide, OTHER)
    ]
    assert moved[1] > 0.01 and moved[0] < moved[1]


def test_test_slides_of_a_cohort_are_judged_without_their_record(
    fitted, manifest, features, tmp_path
):
    """Those of the role "bag" are segmented with it."""
    names = ["test_9", "bag_4"]
    fitted.segment_cohort(manifest, tmp_path, features=features, slides=names)
    table = pd.read_csv(tmp_path / "slides.csv", index_col="slide")
    assert table["used_record"].to_dict() == {"test_9": False, "bag_4": True}
    assert table["recorded_acinar"].notna().all()
    alone = fitted.segment(features / "test_9.h5")
    assert table.loc["test_9", "predicted_acinar"] == pytest.approx(alone.proportions["acinar"])


def test_the_model_file_keeps_the_deviation(fitted, slide, tmp_path):
    deviation = fitted.models_.record_deviation
    assert 0.01 <= deviation <= 0.1
    path = tmp_path / "model.segmenter"
    fitted.save(path, network=False)
    loaded = SlideSegmenter.load(path)
    assert loaded.models_.record_deviation == deviation
    assert loaded.models_.instance_weight == fitted.models_.instance_weight != 0.3
    one, other = (model.segment(slide, proportions=OTHER) for model in (fitted, loaded))
    assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
