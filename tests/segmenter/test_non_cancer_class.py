"""Without a proposer the classifier learns "non-cancer", and records are shares of the cancer."""

import numpy as np
import pytest
from cohorts import CLASSES, write_cohort
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import NegativePseudoLabelClassifier, SlideSegmenter
from proportion_ssl.manifest._cohort import NON_CANCER
from proportion_ssl.proportions import PartialRecord
from proportion_ssl.segmenter.outlook import outline_curve
from proportion_ssl.segmenter.prediction import Models
from proportion_ssl.segmenter.training import make_bags, weak_record, with_non_cancer_class


@pytest.fixture
def joint(new, manifest, features):
    return new(proposer=None).fit(manifest, features=features)


def test_bags_hold_all_tissue_and_records_are_of_the_cancer(new, manifest, features):
    data = with_non_cancer_class(new().read_cohort(manifest, features=features), None)
    bags, empty = make_bags(data, None)
    assert data.learned == [*CLASSES, NON_CANCER] and empty == []
    sizes = [len(data.slides[name].grid) for name in data.cohort.bags]
    assert sorted(bags.sizes.tolist()) == sorted(sizes)
    assert isinstance(bags.record, PartialRecord)
    assert_array_equal(bags.record.among, np.tile([True, True, False], (bags.n_bags, 1)))
    expected = data.cohort.proportions.loc[bags.names].to_numpy()
    assert_allclose(bags.record.shares, np.hstack([expected, np.zeros((len(expected), 1))]))


def test_a_proposer_or_missing_outlines_leave_the_classes_alone(new, manifest, features):
    segmenter = new()
    data = segmenter.read_cohort(manifest, features=features)
    assert with_non_cancer_class(data, segmenter.proposer).learned == list(CLASSES)
    for patches in data.outlined.values():
        patches.labels[patches.labels == NON_CANCER] = None
    assert with_non_cancer_class(data, None).learned == list(CLASSES)


def test_maps_tell_cancer_from_the_rest(joint, manifest, features):
    assert joint.proposer_ is None
    assert joint.classifier_.classes_.tolist() == sorted([*CLASSES, NON_CANCER])
    scores = joint.evaluate(manifest, features=features).pooled
    assert scores["tumor_recall"] > 0.95 and scores["tumor_precision"] > 0.95
    assert scores["mIoU"] > 0.9
    slide = joint.segment(features / "test_9.h5")
    assert slide.map_classes == [*CLASSES, NON_CANCER]
    assert_allclose(slide.probabilities.sum(axis=1), 1, atol=1e-6)


def test_a_slide_is_segmented_with_its_record(joint, features):
    plain = joint.segment(features / "test_9.h5")
    informed = joint.segment(features / "test_9.h5", proportions={"acinar": 0.35, "solid": 0.65})
    assert_allclose(informed.probabilities[:, -1], plain.probabilities[:, -1])
    assert informed.probabilities[:, 0].sum() < plain.probabilities[:, 0].sum()


def test_calibration_folds_and_curve_learn_the_same_classes(joint, new, manifest, features):
    found = joint.calibrate(manifest, 2, features=features)
    assert found.source == "left-out outlines" and np.isfinite(found.temperature)
    table = joint.cross_validate(manifest, 2, features=features)
    assert (table["tumor_recall"] > 0.9).all()
    data = with_non_cancer_class(joint.read_cohort(manifest, features=features), None)
    assert outline_curve(data, None, joint.classifier_) is None  # three outlined cases


@pytest.mark.slow
def test_curve_scores_the_classes_of_cancer_alone(new, tmp_path):
    manifest = write_cohort(tmp_path / "five", labeled=5, bags=2, test=0)
    segmenter = new(proposer=None)
    data = segmenter.read_cohort(manifest, features=tmp_path / "features")
    curve = outline_curve(with_non_cancer_class(data, None), None, segmenter._make_classifier())
    assert curve["score"].between(0, 1).all() and curve["score"].iloc[-1] > 0.9


def test_a_file_predicts_the_same(joint, features, tmp_path):
    joint.save(tmp_path / "model.segmenter", network=False)
    again = SlideSegmenter.load(tmp_path / "model.segmenter", embedder=joint.embedder_)
    one, other = (model.segment(features / "test_9.h5") for model in (joint, again))
    assert one.map_classes == other.map_classes
    assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-12)


def test_the_published_rule_learns_it_too(new, manifest, features):
    classifier = NegativePseudoLabelClassifier(max_epochs=5, random_state=0)
    segmenter = new(classifier=classifier, proposer=None).fit(manifest, features=features)
    assert segmenter.classifier_.classes_.tolist() == sorted([*CLASSES, NON_CANCER])


def test_orders_become_partial_records(new, tmp_path):
    manifest = write_cohort(tmp_path / "orders", labeled=2, bags=2, test=0)
    lines = manifest.read_text().splitlines()
    table = [line.split(",") for line in lines]
    header = [*table[0][:3], "predominant"]
    rows = [[*row[:3], "acinar" if row[2] == "bag" else ""] for row in table[1:]]
    manifest.write_text("\n".join(",".join(row) for row in [header, *rows]) + "\n")
    from proportion_ssl import load_cohort

    cohort = load_cohort(manifest, classes=list(CLASSES))
    record = weak_record(cohort, list(cohort.bag_cases), of_cancer=True)
    assert_array_equal(record.among, [[True, True, False]] * 2)
    assert_allclose(record.lower[:, 0], 0.5)
    assert_allclose(record.upper[:, 1], 0.5)


def test_shares_and_tumor_are_those_of_the_joint_probabilities():
    class Fixed:
        classes_ = np.array(["a", NON_CANCER, "b"])

        def predict_proba(self, X):
            return X

    class Slide:
        first_view = np.array([[0.3, 0.6, 0.1], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])

    models = Models(Fixed(), None, 0.5)
    shares, tumor = models.shares_and_tumor(Slide(), ["b", "a"])
    assert_allclose(shares, [[0.25, 0.75], [0.5, 0.5], [0.5, 0.5]])
    assert_allclose(models.shares(Slide(), ["b", "a"]), shares)
    assert_allclose(tumor, [0.4, 0.0, 1.0])
    expected = [[0.1, 0.3, 0.6], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0]]
    assert_allclose(models.probabilities(Slide(), ["b", "a"]), expected)
