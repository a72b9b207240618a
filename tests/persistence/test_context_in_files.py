"""Files of the two-stage classifier: both stages, with the positions of patches only at prediction."""

import numpy as np
import pytest
from safetensors.torch import load as read_tensors

from proportion_ssl import NegativePseudoLabelClassifier, load, save
from proportion_ssl.baselines import ContextClassifier, MeanMapClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.persistence import ModelFileError
from proportion_ssl.persistence._file import pack, unpack

DATA = make_bags(n_bags=5, bag_size=12, n_labeled_slides=4, random_state=0)


def in_a_row(groups):
    """Cells of the patches of each slide, side by side."""
    cells = np.zeros((len(groups), 2), dtype=int)
    for slide in np.unique(groups):
        cells[groups == slide, 1] = np.arange(np.sum(groups == slide))
    return cells


def fitted(**settings):
    clf = ContextClassifier(max_epochs=2, n_folds=2, random_state=0, **settings)
    return clf.fit(
        DATA.X_labeled,
        DATA.y,
        DATA.bags,
        groups=DATA.groups,
        cells=in_a_row(DATA.groups),
        bag_cells=in_a_row(DATA.bags.index),
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"inputs": "features", "width": 4, "depth": 1},
        {"estimator": MeanMapClassifier(C=0.1), "kernel_size": 1, "depth": 0},
        {"estimator": NegativePseudoLabelClassifier(max_epochs=2, random_state=0)},
    ],
)
def test_loaded_model_predicts_the_same(settings, tmp_path):
    clf = fitted(**settings)
    save(clf, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert type(again.estimator_) is type(clf.estimator_)
    assert again.history_ == clf.history_
    assert repr(again.get_params()) == repr(clf.get_params())
    where = {"groups": DATA.groups_test, "cells": in_a_row(DATA.groups_test)}
    records = {"bag_ids": DATA.groups_test, "bag_proportions": record_of_each_slide()}
    for more in ({}, where, where | records):
        np.testing.assert_array_equal(
            again.predict_proba(DATA.X_test, **more), clf.predict_proba(DATA.X_test, **more)
        )
    save(again, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "model.safetensors"
    ).read_bytes()


def record_of_each_slide():
    n_slides = len(np.unique(DATA.groups_test))
    return np.tile([0.4, 0.3, 0.2, 0.1], (n_slides, 1))


def changed(path, change):
    """A file whose description and tensors were changed, with a hash that fits."""
    data = path.read_bytes()
    _, described, _ = unpack(data)
    tensors = read_tensors(data)
    change(described, tensors)
    path.write_bytes(pack(described, tensors))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, t: t.pop("net_.head.bias"), "weight 'head.bias' is missing"),
        (
            lambda d, t: t.update({"net_.more": t["net_.head.bias"].clone()}),
            "unknown weight 'more'",
        ),
        (lambda d, t: t["net_.head.bias"].fill_(np.nan), "not finite"),
        (lambda d, t: d["parameters"].update(width=5), r"expected torch.float32 \(5"),
        (lambda d, t: d["fitted"].pop("estimator_"), "lacks the attribute 'estimator_'"),
        (
            lambda d, t: d["fitted"]["estimator_"]["fitted"]["classes_"].update(
                values=[0, 1, 2, 4]
            ),
            "other classes or features",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(change, message, tmp_path):
    path = tmp_path / "model.safetensors"
    save(fitted(estimator=MeanMapClassifier(C=0.1)), path)
    changed(path, change)
    with pytest.raises(ModelFileError, match=message):
        load(path)


def test_the_log_of_labels_of_the_first_stage_is_kept(tmp_path):
    clf = fitted(estimator=NegativePseudoLabelClassifier(max_epochs=2, random_state=0))
    save(clf, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(
        again.estimator_.signed_labels_, clf.estimator_.signed_labels_, strict=True
    )
