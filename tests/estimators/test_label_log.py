"""Audit trail: the log says what each round trained on, and can be replayed."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from proportion_ssl import NegativePseudoLabelClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.pseudo_labels.label_log import LabelLog


@pytest.fixture(scope="module")
def fitted():
    data = make_bags(n_bags=8, class_separation=0.8, random_state=0)
    seen = []

    def record(log, labels, *, remembered):
        original(log, labels, remembered=remembered)
        seen.append(labels.copy())

    original = LabelLog.record
    clf = NegativePseudoLabelClassifier(max_epochs=12, refit=False, random_state=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelLog, "record", record)
        clf.fit(data.X_labeled, data.y, data.bags)
    return clf, seen


def test_every_round_is_replayed(fitted):
    clf, seen = fitted
    assert clf.label_log_.n_rounds == len(seen) == clf.n_iter_
    for n_rounds, signed in enumerate(seen, start=1):
        assert_array_equal(clf.label_log_.replay(n_rounds), signed)
    assert_array_equal(clf.label_log_.replay(), clf.signed_labels_)
    assert not clf.label_log_.replay(0).any()


def test_the_round_since_which_a_label_stands(fitted):
    clf, seen = fitted
    expected, before = np.zeros(seen[0].shape, dtype=int), np.zeros_like(seen[0])
    for n_rounds, signed in enumerate(seen, start=1):
        stands = (signed == before) & (signed != 0)
        expected = np.where(stands, expected, n_rounds * (signed != 0))
        before = signed
    assert len(np.unique(expected)) > 3
    assert_array_equal(clf.label_rounds_, expected)
    assert clf.label_rounds_.dtype == np.int32


def test_the_log_alone_holds_the_labels(fitted):
    clf, _ = fitted
    log = clf.label_log_
    assert not {"signed_labels_", "label_rounds_", "bag_index_", "bag_names_"} & set(vars(clf))
    for name in ("signed_labels_", "label_rounds_"):
        with pytest.raises(AttributeError):
            setattr(clf, name, None)
        with pytest.raises(ValueError, match="read-only"):
            getattr(clf, name)[0] = 1
    assert clf.bag_index_ is log.bag_index and clf.bag_names_ is log.bag_names
    with pytest.raises(AttributeError, match="label_log_"):
        _ = NegativePseudoLabelClassifier().signed_labels_


def test_soft_labels_count_above_one_half():
    log = LabelLog(np.zeros(2, dtype=int), np.array(["a"]), np.array([0, 1]))
    log.record(np.array([[0.5, 0.5], [0.7, 0.3]]))
    assert_array_equal(log.signed_labels, [[0, 0], [1, 0]])


def test_the_table_holds_every_change_once(fitted):
    clf, seen = fitted
    frame = clf.label_log_.to_frame()
    assert not frame.duplicated(["round", "instance", "class"]).any()
    rebuilt = np.zeros_like(seen[0])
    column = {label: position for position, label in enumerate(clf.classes_)}
    for n_rounds, signed in enumerate(seen, start=1):
        for row in frame[frame["round"] == n_rounds].itertuples(index=False):
            rebuilt[row.instance, column[row[3]]] = row.sign
        assert_array_equal(rebuilt, signed)
    assert (frame["bag"].to_numpy() == clf.bag_names_[clf.bag_index_[frame["instance"]]]).all()


def test_rules(fitted):
    frame = fitted[0].label_log_.to_frame()
    signs = {"positive": 1, "negative": -1, "remembered": -1, "withdrawn": 0}
    assert_array_equal(frame["sign"], frame["rule"].map(signs))
    assert set(frame["rule"]) == set(signs)
    first = frame[frame["round"] == 1]
    assert set(first["rule"]) <= {"positive", "negative"}


def test_empty_log_and_unknown_round():
    log = LabelLog(np.zeros(2, dtype=int), np.array(["a"]), np.array([0, 1]))
    assert log.to_frame().empty
    with pytest.raises(ValueError, match="n_rounds must be between 0 and 0; got 1"):
        log.replay(1)
