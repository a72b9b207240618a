"""Saving and loading: same predictions, and files that nobody should trust."""

import json
import os
import pickle
import re
import struct
import sys
from contextlib import contextmanager
from functools import partial
from numbers import Real
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from proportion_ssl import (
    PAPER_SETTINGS,
    AdaptiveSelector,
    AssignmentSelector,
    Bags,
    HeadClassifier,
    MobileNetV2Classifier,
    MultiFieldOfViewNet,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    ThresholdSelector,
    TumorProposer,
)
from proportion_ssl.baselines import MeanMapClassifier, ProportionSVMClassifier
from proportion_ssl.datasets import make_bags
from proportion_ssl.embedding import load_mobilenet_v2
from proportion_ssl.estimators._with_net import TrainedNetClassifier
from proportion_ssl.losses import (
    NegativeLoss,
    PositiveLoss,
    multi_complementary_loss,
    multi_negative_loss,
    pairwise_comparison_loss,
)
from proportion_ssl.nets import AdaptiveFusion, FixedFusion
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.training import train_epochs
from proportion_ssl.persistence import ModelFileError, _file, _models, _tables, load, save

FITTED = ["n_iter_", "history_", "refit_history_", "termination_condition_", "n_features_in_"]
ARRAYS = ["classes_", "signed_labels_", "label_rounds_", "bag_index_", "bag_names_"]


@pytest.fixture(scope="module")
def data():
    return make_bags(n_bags=4, bag_size=20, random_state=0)


@pytest.fixture(scope="module")
def model(data):
    return NegativePseudoLabelClassifier(max_epochs=3, random_state=0).fit(
        data.X_labeled, data.y, data.bags
    )


@pytest.fixture(scope="module")
def stored(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    save(model, path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def rich(data, tmp_path_factory):
    """A file in which as much is said as can be."""
    net = HeadClassifier(lr=0.01, optimizer=torch.optim.AdamW, optimizer__betas=(0.8, 0.9))
    model = NegativePseudoLabelClassifier(
        net,
        positive_selector=ThresholdSelector(0.7),
        negative_selector=AssignmentSelector(),
        negative_loss=NegativeLoss(multi_complementary_loss),
        max_epochs=2,
        random_state=0,
    )
    model.fit(data.X_labeled, np.array(["a", "b", "c", "ü"])[data.y], as_named(data.bags))
    path = tmp_path_factory.mktemp("models") / "rich.safetensors"
    save(model, path)
    return path.read_bytes()


def as_named(bags):
    table = pd.DataFrame(bags.proportions, columns=["a", "b", "c", "ü"])
    return Bags(bags.X, bags.index, proportions=table)


def parts(stored):
    """Description and tensors of a file."""
    (length,) = struct.unpack("<Q", stored[:8])
    text = json.loads(stored[8 : 8 + length])["__metadata__"]["proportion_ssl"]
    document = json.loads(text)
    document.pop("sha256")
    return document, _file.read_tensors(stored)


def rewrite(stored, path, change, tensors=None):
    """The file with another description and a hash that fits it: what an attacker would write."""
    document, old = parts(stored)
    change(document)
    new = {**old, **(tensors or {})}
    new = {name: value for name, value in new.items() if value is not None}
    write_signed(document, new, path)
    return path


def set_in(*keys, value):
    def change(document):
        document = document["model"]
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


def part(name, parameters):
    return {"$object": {"class": name, "parameters": parameters}}


EVIL = "os.system"


def names(dtype, values, **more):
    return {"dtype": dtype, "values": values, **more}


def write_signed(document, tensors, path):
    digest = _file.digest(document, tensors)
    text = json.dumps({**document, "sha256": digest})
    save_file(tensors, path, {"proportion_ssl": text})


# --- round trips --------------------------------------------------------------------------------


def test_round_trip(model, data, tmp_path):
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(
        loaded.predict_proba(data.X_test), model.predict_proba(data.X_test), strict=True
    )
    for name in FITTED:
        assert getattr(loaded, name) == getattr(model, name), name
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name), strict=True)
    assert sorted(vars(loaded)) == sorted(vars(model))
    assert loaded.get_params() == model.get_params()
    pd.testing.assert_frame_equal(loaded.label_log_.to_frame(), model.label_log_.to_frame())
    assert loaded.label_log_.n_rounds == model.n_iter_ == 3
    for n_rounds in range(4):
        np.testing.assert_array_equal(
            loaded.label_log_.replay(n_rounds), model.label_log_.replay(n_rounds), strict=True
        )


def test_second_generation_is_the_same_file(stored, tmp_path):
    (tmp_path / "a").write_bytes(stored)
    save(load(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == stored


@pytest.mark.parametrize("names", [["a", "b", "ü<b>", "d"], [10, 20, 30, 41], [False, True]])
def test_classes_of_any_kind(names, data, tmp_path):
    y = np.array(names)[data.y % len(names)]
    model = NegativePseudoLabelClassifier(max_epochs=1, random_state=0).fit(data.X_labeled, y)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(
        loaded.predict(data.X_test), model.predict(data.X_test), strict=True
    )


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Index])
def test_classes_that_were_asked_for(kind, data, tmp_path):
    model = RobustProportionClassifier(classes=kind([3, 2, 1, 0, 7]), random_state=0)
    save(model.fit(data.X_labeled, data.y), tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert list(loaded.classes) == [3, 2, 1, 0, 7] and loaded.classes_.tolist() == [0, 1, 2, 3, 7]
    np.testing.assert_array_equal(
        loaded.predict_proba(data.X_test), model.predict_proba(data.X_test), strict=True
    )
    clone(loaded).fit(data.X_labeled, data.y)
    save(loaded, tmp_path / "again")
    assert load(tmp_path / "again").classes_.tolist() == [0, 1, 2, 3, 7]


def test_feature_names_of_a_data_frame(data, tmp_path):
    X = pd.DataFrame(data.X_labeled, columns=[f"f{i}" for i in range(data.X_labeled.shape[1])])
    model = NegativePseudoLabelClassifier(max_epochs=1, random_state=0).fit(X, data.y)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(X.rename(columns={"f0": "g0"}))


def test_selectors_losses_and_nets_with_parameters(data, tmp_path):
    net = HeadClassifier(dropout=0.5, optimizer=torch.optim.AdamW, lr=0.01, optimizer__eps=1e-7)
    model = NegativePseudoLabelClassifier(
        net,
        positive_selector=ThresholdSelector(threshold=0.8),
        negative_selector=None,
        negative_loss=NegativeLoss(),
        max_epochs=2,
        negative_memory=None,
        random_state=1,
    ).fit(data.X_labeled, data.y, data.bags)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(
        loaded.predict_proba(data.X_test), model.predict_proba(data.X_test)
    )
    assert loaded.positive_selector.threshold == 0.8 and loaded.negative_selector is None
    assert type(loaded.negative_loss) is NegativeLoss and loaded.negative_memory is None
    assert loaded.estimator.dropout == 0.5 and loaded.estimator.optimizer is torch.optim.AdamW
    assert loaded.estimator_.get_params(deep=False)["optimizer__eps"] == 1e-7
    again = clone(loaded).fit(data.X_labeled, data.y, data.bags)
    np.testing.assert_array_equal(
        again.predict_proba(data.X_test), model.predict_proba(data.X_test)
    )


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
def test_images(freeze, tmp_path):
    """Layers come from the file: the weights it was trained from may be gone."""
    torch.save(load_mobilenet_v2(None, seed=7).state_dict(), tmp_path / "w.pth")
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    net = MobileNetV2Classifier(weights=tmp_path / "w.pth", freeze=freeze)
    model = NegativePseudoLabelClassifier(net, max_epochs=1, random_state=0).fit(
        images, ["a", "b"] * 4
    )
    expected = model.predict_proba(images)
    save(model, tmp_path / "m")
    (tmp_path / "w.pth").unlink()
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(images), expected, strict=True)
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()
    with pytest.raises(FileNotFoundError, match=r"w\.pth"):
        clone(loaded).fit(images, ["a", "b"] * 4)
    assert pickle.loads(pickle.dumps(loaded)).predict(images[:2]).shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
def test_images_with_bags_and_the_settings_of_the_paper(freeze, tmp_path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    bags = Bags([images[:2], images[2:]], proportions=[[0.5, 0.5], [0.25, 0.75]])
    net = MobileNetV2Classifier(weights=None, freeze=freeze)
    model = NegativePseudoLabelClassifier(net, random_state=0)
    model.set_params(**{**PAPER_SETTINGS, "max_epochs": 1}).fit(images, [3, 5] * 3, bags)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(
        loaded.predict_proba(images), model.predict_proba(images), strict=True
    )
    np.testing.assert_array_equal(loaded.predict(images), model.predict(images), strict=True)
    assert loaded.is_images_ and loaded.refit_history_ is None and loaded.negative_memory is None
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name), strict=True)
    assert loaded.estimator_.data_shape_ == model.estimator_.data_shape_
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_settings_of_the_paper(data, tmp_path):
    model = NegativePseudoLabelClassifier(**{**PAPER_SETTINGS, "max_epochs": 2}, random_state=0)
    model.fit(data.X_labeled, data.y, data.bags)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(
        loaded.predict_proba(data.X_test), model.predict_proba(data.X_test), strict=True
    )
    assert loaded.get_params() == model.get_params()


@pytest.mark.parametrize("selectors", [(None, None), ("default", None)])
def test_without_rounds_or_refit(selectors, data, tmp_path):
    """A log of no round, and labels that are all unknown."""
    model = NegativePseudoLabelClassifier(max_epochs=1, refit=False, random_state=0)
    model.set_params(positive_selector=selectors[0], negative_selector=selectors[1])
    model.fit(data.X_labeled, data.y, data.bags)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert loaded.label_log_.n_rounds == model.label_log_.n_rounds
    pd.testing.assert_frame_equal(loaded.label_log_.to_frame(), model.label_log_.to_frame())
    assert loaded.termination_condition_ == model.termination_condition_


def test_log_of_a_loaded_model_goes_on(model, data, tmp_path):
    save(model, tmp_path / "m")
    loaded, signed = load(tmp_path / "m"), np.roll(model.signed_labels_, 1, axis=0)
    original = pickle.loads(pickle.dumps(model.label_log_))
    for log in (original, loaded.label_log_):
        log.record(signed, remembered=signed > 5)
    pd.testing.assert_frame_equal(loaded.label_log_.to_frame(), original.to_frame())


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32, "U12", object])
def test_net_alone(kind, data, tmp_path):
    X, labels = data.X_labeled.astype(np.float32), data.y.astype(kind)
    if kind is object:
        labels = data.y.astype(str).astype(object)
    net = HeadClassifier(max_epochs=2, random_state=0, optimizer__betas=(0.5, 0.9), lr=0.01)
    net.fit(X, labels)
    save(net, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert type(loaded) is HeadClassifier
    np.testing.assert_array_equal(loaded.predict_proba(X), net.predict_proba(X), strict=True)
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X), strict=True)
    assert loaded.get_params()["optimizer__betas"] == (0.5, 0.9)
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()
    assert clone(loaded).fit(X, labels).predict(X).shape == labels.shape


def test_net_within_a_classifier_alone(model, data, tmp_path):
    save(model.estimator_, tmp_path / "m")
    X = data.X_test.astype(np.float32)
    np.testing.assert_array_equal(
        load(tmp_path / "m").predict_proba(X), model.predict_proba(data.X_test), strict=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(("freeze", "as_features"), [(True, True), (True, False), (False, False)])
def test_mobilenet_alone(freeze, as_features, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    if as_features:
        X = rng.normal(size=(8, 1280)).astype(np.float32)
    net = MobileNetV2Classifier(weights=None, freeze=freeze, max_epochs=1, random_state=0)
    net.fit(X, ["a", "b"] * 4)
    save(net, tmp_path / "m")
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(X), net.predict_proba(X), strict=True)
    assert isinstance(loaded, MobileNetV2Classifier)
    assert loaded.data_shape_ == net.data_shape_
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()
    torch.manual_seed(0)
    refitted = loaded.fit(X, ["a", "b"] * 4).predict_proba(X)
    torch.manual_seed(0)
    np.testing.assert_array_equal(refitted, net.fit(X, ["a", "b"] * 4).predict_proba(X))


@pytest.mark.slow
def test_loaded_net_is_fitted_anew_from_its_setting(tmp_path):
    """Not from the layers of the file, which are another network once ``weights`` is changed."""
    torch.save(load_mobilenet_v2(None, seed=7).state_dict(), tmp_path / "w.pth")
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    labels = ["a", "b"] * 4
    settings = {"max_epochs": 2, "random_state": 0}
    save(
        MobileNetV2Classifier(weights=tmp_path / "w.pth", **settings).fit(images, labels),
        tmp_path / "m",
    )
    loaded, new = load(tmp_path / "m"), MobileNetV2Classifier(weights=None, **settings)
    probabilities = []
    for net in (loaded.set_params(weights=None), new):
        torch.manual_seed(0)
        probabilities.append(net.fit(images, labels).predict_proba(images))
    np.testing.assert_array_equal(*probabilities)


# --- a classifier whose head is solved for ------------------------------------------------------


@pytest.fixture(scope="module")
def robust(data):
    net = HeadClassifier(dropout=0.1)
    y = np.array(["a", "b", "c", "ü"])[data.y]
    model = RobustProportionClassifier(net, n_components=12, n_rounds=2, random_state=0)
    return model.fit(data.X_labeled, y, as_named(data.bags))


@pytest.fixture(scope="module")
def stored_robust(robust, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "robust.safetensors"
    save(robust, path)
    return path.read_bytes()


def test_robust_round_trip(robust, stored_robust, data, tmp_path):
    (tmp_path / "m").write_bytes(stored_robust)
    loaded = load(tmp_path / "m")
    assert type(loaded) is RobustProportionClassifier
    np.testing.assert_array_equal(
        loaded.predict_proba(data.X_test), robust.predict_proba(data.X_test), strict=True
    )
    np.testing.assert_array_equal(loaded.predict(data.X_test), robust.predict(data.X_test))
    assert set(vars(robust)) - set(vars(loaded)) == {"bags_"}  # the training data
    assert set(vars(loaded)) <= set(vars(robust))
    pd.testing.assert_frame_equal(loaded.bag_reliability_, robust.bag_reliability_)
    assert loaded.trust_ == robust.trust_ and loaded.history_ == robust.history_
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(robust, name), strict=True)
    pd.testing.assert_frame_equal(loaded.label_log_.to_frame(), robust.label_log_.to_frame())
    assert loaded.label_log_.n_rounds == len(robust.history_) == 6
    assert loaded.n_components == 12 and loaded.estimator.dropout == 0.1
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == stored_robust
    again = clone(loaded).fit(
        data.X_labeled, np.array(["a", "b", "c", "ü"])[data.y], as_named(data.bags)
    )
    np.testing.assert_array_equal(
        again.predict_proba(data.X_test), robust.predict_proba(data.X_test)
    )


def test_robust_without_bags(data, tmp_path):
    X = pd.DataFrame(data.X_labeled, columns=[f"f{i}" for i in range(data.X_labeled.shape[1])])
    model = RobustProportionClassifier(random_state=0).fit(X, data.y)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X), strict=True)
    assert sorted(vars(loaded)) == sorted(vars(model))
    assert not hasattr(loaded, "trust_") and not hasattr(loaded, "label_log_")
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(X.rename(columns={"f0": "g0"}))


def fit_robust_on_images(net):
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    images[::2] //= 2
    bags = Bags([images[:6], images[5:]], proportions=[[0.5, 0.5], [0.25, 0.75]])
    labels = [3, 5] * 6
    return RobustProportionClassifier(net, random_state=0).fit(images, labels, bags), images


@pytest.mark.slow
@pytest.mark.parametrize("from_file", [True, False])
def test_robust_on_images(from_file, tmp_path):
    """The layers are frozen, and those of the file even where they came from another one."""
    weights = tmp_path / "w.pth" if from_file else None
    if from_file:
        torch.save(load_mobilenet_v2(None, seed=7).state_dict(), weights)
    model, images = fit_robust_on_images(MobileNetV2Classifier(weights=weights))
    assert len(model.estimator_.history) == 0  # its weights were solved for
    expected = model.predict_proba(images)
    save(model, tmp_path / "m")
    if from_file:
        weights.unlink()
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(images), expected, strict=True)
    state = model.estimator_.module_.state_dict()
    for name, tensor in loaded.estimator_.module_.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert loaded.estimator.freeze and loaded.estimator_.module_.freeze
    pd.testing.assert_frame_equal(loaded.bag_reliability_, model.bag_reliability_)
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()
    if from_file:
        with pytest.raises(FileNotFoundError, match=r"w\.pth"):
            clone(loaded).fit(images, [3, 5] * 6)
    else:
        again, _ = fit_robust_on_images(loaded.estimator)
        np.testing.assert_array_equal(again.predict_proba(images), expected)


@pytest.mark.slow
def test_robust_on_features_of_a_mobilenet(tmp_path):
    X = np.random.default_rng(0).normal(size=(12, 1280)).astype(np.float32)
    model = RobustProportionClassifier(MobileNetV2Classifier(weights=None), random_state=0)
    save(model.fit(X, ["a", "b"] * 6), tmp_path / "m")
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X), strict=True)


def test_net_whose_head_could_no_longer_be_solved_for(tmp_path):
    model, _ = fit_robust_on_images(MobileNetV2Classifier(weights=None))
    model.set_params(estimator__freeze=False)
    with pytest.raises(
        ValueError, match="fitted with freeze=True, but its parameters are now False"
    ):
        save(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_table_with_columns_of_ones_own(robust, tmp_path):
    model = pickle.loads(pickle.dumps(robust))
    model.bag_reliability_["note"] = "read again"
    save(model, tmp_path / "m")
    pd.testing.assert_frame_equal(load(tmp_path / "m").bag_reliability_, model.bag_reliability_)
    for name, value in ((7, 1.0), ("when", pd.Timestamp("2020-08-23"))):
        other = pickle.loads(pickle.dumps(robust))
        other.bag_reliability_[name] = value
        with pytest.raises(ValueError, match=f"column {name!r} of bag_reliability_ is of type"):
            save(other, tmp_path / "n")


FRAME = {
    "columns": {"x": [1.0]},
    "index": {"name": None, "values": {"dtype": "int64", "values": [1]}},
}


def frame(**changes):
    return set_in("fitted", "bag_reliability_", value={"$table": {**FRAME, **changes}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_in("parameters", "shrinkage", value=0.0), "'shrinkage' parameter"),
        (set_in("parameters", "max_epochs", value=1), "unknown parameter 'max_epochs'"),
        (
            set_in("parameters", "estimator", value=part("NegativePseudoLabelClassifier", {})),
            "names the part 'NegativePseudoLabelClassifier'",
        ),
        (set_in("data_shape", value=[3]), "do not fit"),
        (lambda d: d["model"].pop("data_shape"), "its own net"),
        (set_in("fitted", "n_features_in_", value=3), "do not fit"),
        (set_in("fitted", "classes_", "values", value=["a"]), "it has 1 classes"),
        (set_in("fitted", "bags_", value=1), "unknown attribute 'bags_'"),
        (set_in("fitted", "classifier_", value={}), "unknown attribute 'classifier_'"),
        (lambda d: d["model"]["fitted"].pop("label_log_"), "incomplete"),
        (set_in("fitted", "history_", value={}), "history_ is a dict"),
        (set_in("fitted", "history_", value=[[1]]), "history_ is not a list of tables"),
        (set_in("fitted", "trust_", value="x"), "trust_ is a str"),
        (set_in("fitted", "trust_", value=1), "trust_ is a int"),
        (set_in("fitted", "bag_reliability_", value=[]), "bag_reliability_ is a list"),
        (frame(columns={"x": [1.0, 2.0]}), "column 'x' of a table is damaged"),
        (frame(columns={"x": [[1.0]]}), "column 'x' of a table is damaged"),
        (frame(columns=[1]), "has no columns"),
        (frame(index=3), "entry of the index of a table"),
        (frame(more=3), "entry of a table must have"),
    ],
)
def test_hostile_description_of_a_robust_classifier(change, message, stored_robust, tmp_path):
    path = rewrite(stored_robust, tmp_path / "m", change)
    with pytest.raises(ModelFileError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"net.linear.weight": None}, "too few for 4 classes"),
        ({"label_log_.bag_index": None}, "log of pseudo labels is incomplete"),
        ({"label_log_.bag_index": torch.zeros(80)}, "log of pseudo labels is incomplete"),
        ({"label_log_.bag_index": torch.zeros(1, dtype=torch.int64)}, "does not fit its bags"),
        ({"signed_labels_": torch.zeros(80, 4)}, "unknown attribute 'signed_labels_'"),
        ({"label_log_.rules": None}, "log of pseudo labels is incomplete"),
        ({"label_log_.lengths": torch.tensor([1])}, "log of pseudo labels does not fit"),
        ({"classifier_.net.linear.bias": torch.zeros(4)}, "unknown attribute 'classifier_"),
    ],
)
def test_hostile_tensors_of_a_robust_classifier(tensors, message, stored_robust, tmp_path):
    path = rewrite(stored_robust, tmp_path / "m", lambda d: None, tensors)
    with pytest.raises(ModelFileError, match=message):
        load(path)


# --- classifiers without a net ------------------------------------------------------------------

LINEAR = [
    MeanMapClassifier(alternating=True),
    MeanMapClassifier(),
    ProportionSVMClassifier(random_state=0),
]


def fit_linear(model, data, n_classes=4):
    X, y = data.X_labeled, np.array(["a", "b", "c", "ü"])[data.y % n_classes]
    recorded = data.bags.proportions
    shares = np.stack([recorded[:, c::n_classes].sum(axis=1) for c in range(n_classes)], axis=1)
    table = pd.DataFrame(shares, columns=["a", "b", "c", "ü"][:n_classes])
    return clone(model).fit(X, y, Bags(data.bags.X, data.bags.index, table))


@pytest.mark.parametrize("model", LINEAR, ids=repr)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_linear_round_trip(model, n_classes, data, tmp_path):
    fitted = fit_linear(model, data, n_classes)
    save(fitted, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert type(loaded) is type(model)
    scores = "predict_proba" if hasattr(model, "predict_proba") else "decision_function"
    np.testing.assert_array_equal(
        getattr(loaded, scores)(data.X_test), getattr(fitted, scores)(data.X_test), strict=True
    )
    np.testing.assert_array_equal(loaded.predict(data.X_test), fitted.predict(data.X_test))
    assert sorted(vars(loaded)) == sorted(vars(fitted))
    for name, array in type(model)._kept.arrays.items():
        if not array.always and not hasattr(fitted, name):
            continue
        np.testing.assert_array_equal(getattr(loaded, name), getattr(fitted, name), strict=True)
    for name in ("C_", "n_iter_", *(["history_", "C_p_"] if "SVM" in repr(model) else [])):
        assert getattr(loaded, name) == getattr(fitted, name)
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()


def test_linear_without_bags(data, tmp_path):
    model = ProportionSVMClassifier(C=1).fit(data.X_labeled, data.y)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert not hasattr(loaded, "bag_labels_") and loaded.C_ == 1
    np.testing.assert_array_equal(loaded.predict(data.X_test), model.predict(data.X_test))


@pytest.mark.parametrize(
    ("change", "tensors", "message"),
    [
        (lambda d: None, {"coef_": None}, "lacks the attribute 'coef_'"),
        (lambda d: None, {"coef_": torch.zeros(4, 9)}, r"coef_ is float32 \(4, 9\); expected"),
        (
            lambda d: None,
            {"coef_": torch.zeros(4, 9, dtype=torch.float64)},
            r"coef_ is float64 \(4, 9\); expected float64 \(4, 16\)",
        ),
        (
            lambda d: None,
            {"intercept_": torch.full((4,), torch.inf, dtype=torch.float64)},
            "intercept_ has values that are not finite",
        ),
        (lambda d: None, {"intercept_": torch.zeros(())}, "intercept_ is float32"),
        (lambda d: None, {"bag_index_": torch.zeros(1)}, "unknown attribute 'bag_index_'"),
        (lambda d: None, {"label_log_.cells": torch.zeros(1)}, "unknown attribute 'label_log_"),
        (set_in("fitted", "label_log_", value={}), {}, "unknown attribute 'label_log_'"),
        (set_in("fitted", "coef_", value=[1.0]), {}, "unknown attribute 'coef_'"),
        (set_in("fitted", "is_images_", value=True), {}, "of images, which has no net"),
        (set_in("fitted", "C_", value="x"), {}, "C_ is a str"),
        (set_in("data_shape", value=[16]), {}, "its own net"),
    ],
)
def test_hostile_linear_classifiers(change, tensors, message, data, tmp_path):
    for model in LINEAR:
        save(fit_linear(model, data), tmp_path / "m")
        path = rewrite((tmp_path / "m").read_bytes(), tmp_path / "n", change, tensors)
        with pytest.raises(ModelFileError, match=message):
            load(path)


def test_array_of_another_kind_is_not_saved(data, tmp_path):
    model = fit_linear(MeanMapClassifier(), data)
    model.coef_ = model.coef_.astype(np.float32)
    with pytest.raises(ValueError, match="coef_ is an array of float32 and 2 axes"):
        save(model, tmp_path / "m")


# --- files of earlier versions ------------------------------------------------------------------

OLD = Path(__file__).parents[1] / "data/models/0.1.0"


@pytest.mark.parametrize("path", sorted(OLD.glob("*.safetensors")), ids=lambda path: path.stem)
def test_files_of_version_0_1_0_predict_as_they_did(path, tmp_path):
    expected = np.load(OLD / "expected.npz")
    loaded = load(path)
    predict = loaded.transform if isinstance(loaded, TumorProposer) else loaded.predict_proba
    np.testing.assert_allclose(predict(expected["X"]), expected[path.stem], rtol=1e-5)
    save(loaded, tmp_path / "new")
    assert parts((tmp_path / "new").read_bytes())[0]["version"] == 2
    again = load(tmp_path / "new")
    assert again.get_params(deep=False).keys() == loaded.get_params(deep=False).keys()


def test_labels_of_version_0_1_0():
    expected, loaded = (
        np.load(OLD / "expected.npz"),
        load(OLD / "negative_pseudo_label.safetensors"),
    )
    for name in ("signed_labels", "label_rounds", "bag_index", "bag_names"):
        np.testing.assert_array_equal(getattr(loaded, f"{name}_"), expected[name])
    assert loaded.label_rounds_.max() > 1
    assert loaded.negative_loss.loss is multi_negative_loss


@pytest.mark.parametrize("name", ["signed_labels_", "label_rounds_"])
def test_labels_of_version_0_1_0_that_contradict_each_other(name, tmp_path):
    stored = (OLD / "negative_pseudo_label.safetensors").read_bytes()
    changed = parts(stored)[1][name].clone()
    changed[0, 0] += 1
    path = rewrite(stored, tmp_path / "m", lambda d: None, {name: changed})
    with pytest.raises(ModelFileError, match=f"its {name} and its log .*Fit the model again"):
        load(path)
    path = rewrite(stored, tmp_path / "m", lambda d: None, {name: torch.zeros(1)})
    with pytest.raises(ModelFileError, match="contradict each other"):
        load(path)


# --- tumor proposals ----------------------------------------------------------------------------


def fit_proposer(data, net=None, **settings):
    X, is_tumor = np.hstack([data.X_labeled, data.X_labeled**2]), data.y > 0
    return TumorProposer(net, **settings).fit(X, is_tumor), X


@pytest.fixture(scope="module")
def stored_proposer(data, tmp_path_factory):
    net = MultiFieldOfViewNet(
        2, expert=HeadClassifier(max_epochs=2), fusion=FixedFusion([0.75, 0.25]), random_state=0
    )
    path = tmp_path_factory.mktemp("models") / "proposer.safetensors"
    save(fit_proposer(data, net, n_folds=2)[0], path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("net", "threshold"),
    [
        (MultiFieldOfViewNet(2, expert=HeadClassifier(max_epochs=1), random_state=0), None),
        (MultiFieldOfViewNet(2, fusion=FixedFusion([0.75, 0.25]), random_state=0), 0.5),
        (HeadClassifier(max_epochs=1, random_state=0), 0.5),
        (None, 0.25),
    ],
)
def test_proposer_round_trip(net, threshold, data, tmp_path):
    proposer, X = fit_proposer(data, net, threshold=threshold, n_folds=2)
    save(proposer, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert type(loaded) is TumorProposer
    np.testing.assert_array_equal(loaded.transform(X), proposer.transform(X), strict=True)
    np.testing.assert_array_equal(loaded.propose(X).is_tumor, proposer.propose(X).is_tumor)
    for name in ("threshold_", "recall_", "precision_"):
        np.testing.assert_equal(getattr(loaded, name), getattr(proposer, name))
    assert sorted(vars(loaded)) == sorted(vars(proposer))
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m").read_bytes()
    with pytest.raises(ValueError, match="features"):
        loaded.propose(X[:, 1:])


def test_net_of_several_views_alone(data, tmp_path):
    X = pd.DataFrame(data.X_labeled, columns=[f"f{i}" for i in range(data.X_labeled.shape[1])])
    y = np.array(["a", "b", "c", "ü"])[data.y]
    net = MultiFieldOfViewNet(4, expert=HeadClassifier(max_epochs=1), random_state=0).fit(X, y)
    save(net, tmp_path / "m")
    loaded = load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict_proba(X), net.predict_proba(X), strict=True)
    np.testing.assert_array_equal(loaded.predict(X), net.predict(X), strict=True)
    np.testing.assert_array_equal(loaded.view_weights(X), net.view_weights(X), strict=True)
    with pytest.raises(ValueError, match="feature names"):
        loaded.predict(X.rename(columns={"f0": "g0"}))


def test_parts_of_proposers_that_cannot_be_saved(data, tmp_path):
    quick = HeadClassifier(max_epochs=1)
    settings = {"expert": quick, "random_state": 0}
    for net, message in (
        (
            LogisticRegression(),
            "net_ is a sklearn.*LogisticRegression, which cannot be saved; only",
        ),
        (
            MultiFieldOfViewNet(2, **{**settings, "expert": LogisticRegression()}),
            r"experts_\[0\] is a sklearn.*LogisticRegression",
        ),
        (
            MultiFieldOfViewNet(2, fusion=AdaptiveFusion(n_folds=2), **settings),
            "fusion_ is a AdaptiveFusion.*only FixedFusion can.*with joblib",
        ),
    ):
        proposer, _ = fit_proposer(data, net, threshold=0.5)
        with pytest.raises(TypeError, match=message):
            save(proposer, tmp_path / "m")
    proposer, _ = fit_proposer(data, MultiFieldOfViewNet(2, **settings), threshold=0.5)
    proposer.net_.set_params(fusion=FixedFusion([1.0, 0.0]))
    with pytest.raises(
        ValueError, match=r"weighted by \[0\.5, 0\.5\], but its parameters have changed"
    ):
        save(proposer, tmp_path / "m")
    with pytest.raises(NotFittedError):
        save(TumorProposer(), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def set_net_of_views(*keys, value):
    return set_in("fitted", "net_", *keys, value=value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_net_of_views("class", value="os.system"), "names the model 'os.system'"),
        (set_net_of_views("class", value="TumorProposer"), "names the model 'TumorProposer'"),
        (set_net_of_views("fitted", "n_features_in_", value=16), "other classes or features"),
        (set_net_of_views("fitted", "classes_", "values", value=[False]), "1 classes"),
        (set_net_of_views("fitted", "classes_", "values", value=[True, False]), "other classes"),
        (set_net_of_views("fitted", "experts_", value={}), "experts_ is not a list"),
        (set_net_of_views("fitted", "experts_", value=[]), r"unknown attribute 'experts_\.0"),
        (set_net_of_views("fitted", "fusion_", value=1), "unknown attribute 'fusion_'"),
        (set_net_of_views("fitted", "experts_", 0, "class", value=EVIL), "names the model"),
        (
            set_net_of_views("fitted", "experts_", 0, "data_shape", value=[32]),
            r"expected .* \(32,\)",
        ),
        (set_net_of_views("parameters", "n_views", value=10**12), "other classes or features"),
        (set_net_of_views("parameters", "n_views", value="2"), "'n_views' parameter"),
        (set_net_of_views("parameters", "fusion", value=EVIL), "'fusion' parameter"),
        (
            set_net_of_views("parameters", "fusion", "$object", "parameters", "weights", value=[1]),
            "2 non-negative numbers",
        ),
        (set_in("fitted", "threshold_", value="0.5"), "threshold_ is a str"),
        (
            set_in("fitted", "classes_", value=names("int64", [0, 1])),
            "unknown attribute 'classes_'",
        ),
        (set_in("fitted", "net_", value=3), "entry of the model must have"),
        (lambda d: d["model"]["fitted"].pop("net_"), "lacks the attribute 'net_'"),
        (set_in("data_shape", value=[16]), "its own net"),
        (
            lambda d: d["model"]["fitted"]["net_"]["fitted"]["experts_"][0].pop("data_shape"),
            "its own net",
        ),
        (set_net_of_views("fitted", "evil", value=1), "unknown attribute 'evil'"),
        (
            set_net_of_views("fitted", "feature_names_in_", value=names("object", ["f"] * 32)),
            "net_ has names of features, which only the outer model may have",
        ),
        (set_in("parameters", "net", value=part("TumorProposer", {})), "names the part 'Tumor"),
        (lambda d: d["model"]["fitted"].pop("recall_"), "lacks the attribute 'recall_'"),
        (
            lambda d: d["model"]["fitted"]["net_"]["fitted"].pop("classes_"),
            "lacks the attribute 'classes_'",
        ),
    ],
)
def test_hostile_description_of_a_proposer(change, message, stored_proposer, tmp_path):
    path = rewrite(stored_proposer, tmp_path / "m", change)
    with pytest.raises(ModelFileError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"net_.experts_.1.net.linear.weight": None}, r"'linear\.weight' is missing"),
        ({"net_.experts_.2.net.x": torch.zeros(1)}, r"unknown attribute 'experts_\.2\.net\.x'"),
        ({"net_.x": torch.zeros(1)}, "unknown attribute 'x'"),
        ({"net.linear.weight": torch.zeros(2, 32)}, r"unknown weight 'linear\.weight'"),
        ({"label_log_.cells": torch.zeros(1)}, r"unknown attribute 'label_log_\.cells'"),
        ({"signed_labels_": torch.zeros(1, 2, dtype=torch.int8)}, "unknown attribute 'signed_l"),
    ],
)
def test_hostile_tensors_of_a_proposer(tensors, message, stored_proposer, tmp_path):
    path = rewrite(stored_proposer, tmp_path / "m", lambda d: None, tensors)
    with pytest.raises(ModelFileError, match=message):
        load(path)


def test_proposer_whose_net_lost_an_expert(stored_proposer, tmp_path):
    _, tensors = parts(stored_proposer)
    lost = {name: None for name in tensors if name.startswith("net_.experts_.1.")}
    assert lost
    path = rewrite(
        stored_proposer,
        tmp_path / "m",
        lambda d: d["model"]["fitted"]["net_"]["fitted"]["experts_"].pop(),
        lost,
    )
    with pytest.raises(ModelFileError, match="it has 1 experts for 2 views"):
        load(path)


class OtherClassifier(TrainedNetClassifier):
    """Another system of the package: a parameter, attributes and a criterion of its own."""

    _parameter_constraints = {**TrainedNetClassifier._parameter_constraints, "weight": [Real]}  # noqa: RUF012
    _kept = TrainedNetClassifier._kept.extended(always={"history_": (list,)})

    def __init__(
        self,
        estimator=None,
        *,
        weight=1.0,
        max_epochs=2,
        patience=2,
        validation_fraction=0.0,
        learning_rate=None,
        batch_size=None,
        oversample=True,
        random_state=None,
    ):
        self.estimator = estimator
        self.weight = weight
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.oversample = oversample
        self.random_state = random_state

    def _build_net(self):
        return super()._build_net().set_params(criterion=PositiveLoss)

    def _fit_net(self, net, X, codes, bags, groups, random_state):
        self._initialize(net, X, np.arange(len(X)))
        signed = np.eye(len(self.classes_), dtype=np.int8)[codes]
        train_epochs(net, SignedDataset(X, signed), None, self.max_epochs)
        self.history_ = [{"train_loss": float(net.history[-1]["train_loss"])}]


def test_another_system_says_what_is_kept_and_needs_its_name_in_the_table(
    data, tmp_path, monkeypatch
):
    model = OtherClassifier(weight=0.5, random_state=0).fit(data.X_labeled, data.y)
    with pytest.raises(TypeError, match="A OtherClassifier cannot be saved"):
        save(model, tmp_path / "m")
    monkeypatch.setattr(_models, "MODELS", (*_tables.MODELS, OtherClassifier))
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert type(loaded) is OtherClassifier and loaded.get_params() == model.get_params()
    assert loaded.history_ == model.history_
    np.testing.assert_array_equal(
        loaded.predict_proba(data.X_test), model.predict_proba(data.X_test), strict=True
    )
    path = rewrite((tmp_path / "m").read_bytes(), tmp_path / "n", lambda d: None)
    monkeypatch.undo()
    with pytest.raises(ModelFileError, match="names the model 'OtherClassifier'"):
        load(path)


def test_losses_that_are_not_numbers_are_kept(model, data, tmp_path):
    model = pickle.loads(pickle.dumps(model))
    model.history_[0]["valid_loss"] = float("inf")
    save(model, tmp_path / "m")
    assert load(tmp_path / "m").history_ == model.history_


def test_global_generator_is_left_alone(stored, tmp_path):
    (tmp_path / "m").write_bytes(stored)
    before = torch.get_rng_state()
    load(tmp_path / "m")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("function", _tables.FUNCTIONS, ids=lambda f: f.__name__)
def test_every_loss_of_negative_labels(function, data, tmp_path):
    net = HeadClassifier(criterion__negative=NegativeLoss(function))
    model = NegativePseudoLabelClassifier(net, max_epochs=1, random_state=0)
    model.set_params(negative_loss=NegativeLoss(function)).fit(data.X_labeled, data.y)
    save(model, tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert loaded.negative_loss.loss is function
    assert loaded.estimator.get_params()["criterion__negative"].loss is function
    assert loaded.estimator_.criterion_.negative.loss is function


# --- what cannot be saved -----------------------------------------------------------------------


class OwnSelector(AdaptiveSelector):
    pass


class OwnLoss(PositiveLoss):
    pass


class OwnNet(HeadClassifier):
    pass


class OwnClassifier(NegativePseudoLabelClassifier):
    pass


@pytest.mark.parametrize(
    ("setting", "named", "then"),
    [
        (
            {"positive_selector": OwnSelector()},
            r"positive_selector is a .*OwnSelector.*set_params, and save again",
            {"positive_selector": "default"},
        ),
        (
            {"positive_loss": OwnLoss()},
            r"positive_loss is a .*OwnLoss.*set_params, and save again",
            {"positive_loss": None},
        ),
        (
            {"negative_loss": NegativeLoss(partial(pairwise_comparison_loss))},
            r"negative_loss\.loss is functools\.partial.*only .*negative_loss.* can.*set_params",
            {"negative_loss": None},
        ),
        ({"estimator": OwnNet()}, r"estimator_ is a .*OwnNet.*net of your own", None),
        ({"estimator": HeadClassifier(callbacks=[])}, r"estimator\.callbacks is \[\]", None),
        ({"estimator": HeadClassifier(optimizer=torch.optim.Rprop)}, "optimizer is .*Rprop", None),
        (
            {"estimator": HeadClassifier(optimizer__foo=object())},
            r"estimator\.optimizer__foo is a builtins\.object",
            None,
        ),
        (
            {"random_state": np.random.RandomState(0)},
            "random_state is a random number generator.*set_params",
            {"random_state": None},
        ),
    ],
)
def test_what_cannot_be_saved_is_named(setting, named, then, data, tmp_path):
    model = NegativePseudoLabelClassifier(max_epochs=1).set_params(**setting)
    if "foo" in named:
        model.estimator = None
    model.fit(data.X_labeled, data.y).set_params(**setting)
    with pytest.raises((TypeError, ValueError), match=named):
        save(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
    if then is not None:  # the message's advice helps
        save(model.set_params(**then), tmp_path / "m")
        np.testing.assert_array_equal(
            load(tmp_path / "m").predict_proba(data.X_test), model.predict_proba(data.X_test)
        )


def test_other_objects_are_refused(data, tmp_path):
    for other in (OwnClassifier(), OwnNet(), "model", AdaptiveSelector()):
        with pytest.raises(TypeError, match=f"A {type(other).__name__} cannot be saved"):
            save(other, tmp_path / "m")
    for unfitted in (
        NegativePseudoLabelClassifier(),
        HeadClassifier(),
        HeadClassifier().initialize,
    ):
        with pytest.raises((NotFittedError, TypeError)):
            save(unfitted, tmp_path / "m")


def test_weights_that_are_not_finite_are_not_saved(data, tmp_path):
    model = HeadClassifier(max_epochs=1).fit(data.X_labeled.astype(np.float32), data.y)
    with torch.no_grad():
        model.module_.linear.bias[0] = torch.nan
    with pytest.raises(
        ValueError, match=r"cannot be saved: the weight 'linear\.bias' .* not finite"
    ):
        save(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_net_that_its_parameters_no_longer_describe(tmp_path):
    images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    net = MobileNetV2Classifier(weights=None)
    model = NegativePseudoLabelClassifier(net, max_epochs=1, random_state=0).fit(images, [0, 1] * 2)
    model.set_params(estimator__freeze=False)
    with pytest.raises(ValueError, match="freeze=True, but its parameters are now False"):
        save(model, tmp_path / "m")


def test_attribute_of_ones_own_is_named(model, tmp_path):
    model = pickle.loads(pickle.dumps(model))
    model.note_ = "good"
    with pytest.raises(ValueError, match="attribute 'note_'"):
        save(model, tmp_path / "m")


def test_classes_that_json_cannot_tell_apart_are_refused(model, tmp_path):
    model = pickle.loads(pickle.dumps(model))
    model.classes_ = np.array([1, "1", 2, 3], dtype=object)
    with pytest.raises(ValueError, match="classes_ holds values of type object"):
        save(model, tmp_path / "m")


def test_description_that_load_would_refuse_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr(_file, "MAX_HEADER", 1000)
    with pytest.raises(ValueError, match=r"cannot be saved: its header has .* more than 1,000"):
        save(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_long_names(data, tmp_path):
    """The width of an array of names is kept, unless it is far more than its names need."""
    for width in (40, 2**24):
        names = np.array(["a", "b", "c", "d"], dtype="U1")
        model = HeadClassifier(max_epochs=1, random_state=0)
        model.fit(data.X_labeled.astype(np.float32), names[data.y])
        model.classes_inferred_ = names.astype(f"U{width}")
        save(model, tmp_path / "m")
        loaded = load(tmp_path / "m").classes_
        np.testing.assert_array_equal(loaded, names)
        assert loaded.dtype == ("U40" if width == 40 else "U1")


def test_failed_write_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "m"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save(model, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


# --- damaged files ------------------------------------------------------------------------------


def test_truncation_at_many_places(stored, tmp_path):
    path = tmp_path / "m"
    lengths = {0, 1, 7, 8, 9, len(stored) - 1, *range(0, len(stored), max(1, len(stored) // 150))}
    for length in sorted(lengths):
        path.write_bytes(stored[:length])
        with pytest.raises(ModelFileError, match="cannot be loaded"):
            load(path)
    path.write_bytes(stored + b"\0")
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        load(path)


@st.composite
def damages(draw):
    """What happens to a file: bytes changed, cut out or put in, at its start or anywhere."""
    place = draw(st.floats(0, 1, exclude_max=True))
    in_header = draw(st.booleans())
    kind = draw(st.sampled_from(["change", "cut", "insert", "end", "bit"]))
    content = draw(st.binary(min_size=1, max_size=8))
    return place, in_header, kind, content


def damage(stored, place, in_header, kind, content):
    (length,) = struct.unpack("<Q", stored[:8])
    where = int(place * (min(8 + length, len(stored)) if in_header else len(stored)))
    until = where + len(content)
    if kind == "end":
        return stored[:where]
    if kind == "insert":
        return stored[:where] + content + stored[where:]
    if kind == "bit":
        content = bytes([stored[where] ^ (1 << content[0] % 8)])
        until = where + 1
    return stored[:where] + (b"" if kind == "cut" else content) + stored[until:]


@pytest.mark.slow
@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(damages(), min_size=1, max_size=3))
def test_damage_gives_an_error_or_the_same_model(stored, tmp_path, many):
    """Blanks of the header may change; whatever else does ends in an error of the right kind."""
    damaged = stored
    for one in many:
        damaged = damage(damaged, *one) if len(damaged) > 8 else damaged
    (tmp_path / "m").write_bytes(damaged)
    try:
        loaded = load(tmp_path / "m")
    except ModelFileError as error:
        assert "cannot be loaded" in str(error)
        return
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == stored


def test_huge_sizes_are_not_believed(stored, tmp_path):
    path = tmp_path / "m"
    for length in (2**31, 2**62, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + stored[8:])
        with pytest.raises(ModelFileError, match="cannot be loaded"):
            load(path)
    content = b"{" + b" " * (2**24 + 8) + stored[9:]  # all of it is there
    path.write_bytes(struct.pack("<Q", 2**24 + 1) + content)
    with pytest.raises(ModelFileError, match=r"16,777,217 bytes; more than 16,777,216 are not"):
        load(path)
    header = {
        "net.linear.weight": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 8]}
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 8)
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        load(path)


@given(st.binary(max_size=300))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_random_bytes(tmp_path, content):
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        load(tmp_path / "m")


def test_absent_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="model file not found"):
        load(tmp_path / "m")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        load(tmp_path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_endless_file():
    with pytest.raises(ModelFileError, match="'/dev/zero' cannot be loaded: it is truncated"):
        load("/dev/zero")


# --- hostile files ------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self):
        return (exec, ("import sys; sys.persistence_test_ran = True",))


@pytest.mark.parametrize("write", ["pickle", "joblib", "torch"])
def test_pickles_are_not_read(write, tmp_path):
    path = tmp_path / "m"
    if write == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif write == "joblib":
        joblib.dump(Bomb(), path)
    else:
        torch.save(Bomb(), path)
    with pytest.raises(ModelFileError, match="pickle, joblib or torch file"):
        load(path)
    assert not hasattr(sys, "persistence_test_ran")
    pickle.loads(pickle.dumps(Bomb()))
    assert sys.persistence_test_ran  # the bomb is one
    del sys.persistence_test_ran


@pytest.mark.parametrize("version", [0, 3, "1", None, True, 1.0, 1e300, [1]])
def test_unknown_version(version, stored, tmp_path):
    path = rewrite(stored, tmp_path / "m", lambda d: d.update(version=version, package="9.9"))
    with pytest.raises(ModelFileError, match=r"version .* of the format, .*proportion_ssl '9\.9'"):
        load(path)


def set_parameter(name, value):
    return set_in("parameters", name, value=value)


def set_net(name, value):
    return set_in("parameters", "estimator", value=part("HeadClassifier", {name: value}))


def set_fitted(name, value):
    return set_in("fitted", name, value=value)


HOSTILE = [
    (set_in("class", value=EVIL), "names the model 'os.system'"),
    (set_in("class", value="HeadClassifier"), "unknown parameter"),
    (set_in("class", value=["x"]), "names the model"),
    (set_in("class", value="AdaptiveSelector"), "names the model"),
    (set_in("class", value="../../x"), "names the model '../../x'"),
    (set_in("more", value=1), "entry of the model must have"),
    (set_parameter("estimator", part(EVIL, {})), "names the part 'os.system'"),
    (set_parameter("estimator", part("AdaptiveSelector", {})), "'estimator' parameter"),
    (set_parameter("estimator", {"class": "HeadClassifier"}), "'estimator' parameter"),
    (set_net("optimizer", {"$optimizer": "builtins.eval"}), "names the optimizer"),
    (set_net("optimizer", "builtins.eval"), "'optimizer' parameter"),
    (set_net("module", EVIL), "unknown parameter 'module'"),
    (set_net("callbacks", [EVIL]), "unknown parameter 'callbacks'"),
    (set_net("predict_nonlinearity", EVIL), "unknown parameter 'predict_nonlinearity'"),
    (set_net("optimizer__params", 1), "unknown parameter 'optimizer__params'"),
    (set_net("optimizer__lr", "x"), "unknown parameter"),
    (set_net("lr", "x"), "'lr' parameter"),
    (set_net("lr", {"$float": "nan"}), "'lr' parameter"),
    (set_net("batch_size", 0), "'batch_size' parameter"),
    (set_net("batch_size", True), "'batch_size' parameter"),
    (set_parameter("batch_size", True), "'batch_size' parameter"),
    (set_net("dropout", 7), "'dropout' parameter"),
    (set_net("random_state", "x"), "'random_state' parameter"),
    (set_net("criterion__positive", "x"), "'criterion__positive' parameter"),
    (set_in("parameters", "estimator", value=part("HeadClassifier", [1])), "not a table"),
    (set_parameter("positive_selector", part(EVIL, {})), "names the part"),
    (set_parameter("positive_selector", EVIL), "'positive_selector' parameter"),
    (set_parameter("positive_loss", "default"), "'positive_loss' parameter"),
    (set_parameter("positive_loss", part("PositiveLoss", {"x": 1})), "unknown parameter 'x'"),
    (
        set_parameter("positive_selector", part("ThresholdSelector", {"__class__": 1})),
        "unknown parameter '__class__' of ThresholdSelector",
    ),
    (
        set_parameter("positive_selector", part("ThresholdSelector", {"threshold": "1"})),
        "'threshold' parameter",
    ),
    (
        set_parameter("negative_loss", part("NegativeLoss", {"loss": {"$function": EVIL}})),
        "names the function 'os.system'",
    ),
    (
        set_parameter("negative_loss", part("NegativeLoss", {"loss": "log"})),
        "loss is 'log'; give a function",
    ),
    (set_parameter("positive_selector", {"$import": EVIL}), "unknown kind '\\$import'"),
    (set_parameter("positive_selector", {"$object": EVIL}), "entry of a part must have"),
    (set_parameter("positive_selector", {"$float": EVIL}), "unknown kind '\\$float'"),
    (set_parameter("classes", {"$names": EVIL}), "an array of names has no type or no values"),
    (set_parameter("classes", {"$names": names(EVIL, [])}), "has the type 'os.system'"),
    (set_parameter("__class__", EVIL), "unknown parameter '__class__'"),
    (set_parameter("max_epochs", -1), "max_epochs"),
    (set_in("parameters", value=None), "not a table"),
    (set_fitted("predict", EVIL), "unknown attribute 'predict'"),
    (set_fitted("__class__", EVIL), "unknown attribute '__class__'"),
    (set_fitted("estimator_", EVIL), "unknown attribute 'estimator_'"),
    (set_fitted("n_features_in_", 10**12), r"data of shape \(16,\) do not fit"),
    (set_fitted("n_features_in_", True), "n_features_in_ is a bool"),
    (set_fitted("is_images_", True), "number of features"),
    (set_fitted("is_images_", "no"), "is_images_ is a str"),
    (set_fitted("history_", [1]), "history_"),
    (set_fitted("n_iter_", part("AdaptiveSelector", {})), "n_iter_ is a AdaptiveSelector"),
    (set_fitted("classes_", names("<U999999999", ["a"])), "type '<U9"),
    (set_fitted("classes_", names("object", [1, 2, 3, 4])), "not of type object"),
    (set_fitted("classes_", names("str", [1, 2, 3, 4])), "not of type str"),
    (set_fitted("classes_", names("str", ["a", "b", "c", "d"])), "width None"),
    (set_fitted("classes_", names("str", ["a", "b", "c", "dd"], width=1)), "width 1"),
    (set_fitted("classes_", names("str", ["a", "b", "c", "d"], width=10**9)), "width 1000000000"),
    (set_fitted("classes_", names("int64", [1, 1, 2, 3])), "or one of them twice"),
    (set_fitted("classes_", names("int64", [1])), "1 classes"),
    (set_fitted("classes_", names("int64", [1, 2])), "does not fit its bags and classes"),
    (set_fitted("classes_", names("int8", [1, 2, 3, 999])), "OverflowError"),
    (set_fitted("classes_", 3), "classes_ has no type"),
    (
        set_fitted("label_log_", {"bag_names": names("int64", [1])}),
        "bags that it does not have",
    ),
    (set_fitted("label_log_", {}), "entry of the log of pseudo labels must have"),
    (set_fitted("bag_names_", names("int64", [1])), "unknown attribute 'bag_names_'"),
    (set_fitted("feature_names_in_", names("object", ["a"])), "names of features"),
    (set_in("fitted", value={}), "lacks the attribute"),
    (set_in("fitted", value=3), "not a table"),
    (set_in("data_shape", value=[2**30]), "data of shape"),
    (set_in("data_shape", value=[2**31]), "shape of its data"),
    (set_in("data_shape", value="x"), "shape of its data"),
    (lambda d: d.update(format="else"), "not one of proportion_ssl.save"),
    (lambda d: d.pop("model"), "KeyError"),
    (lambda d: d["model"].pop("class"), "entry of the model must have"),
    (lambda d: d["model"]["fitted"].pop("label_log_"), "incomplete"),
    (lambda d: d["model"]["fitted"].pop("history_"), "lacks the attribute 'history_'"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE, ids=[text[:40] for _, text in HOSTILE])
def test_hostile_description(change, message, stored, tmp_path):
    path = rewrite(stored, tmp_path / "m", change)
    with pytest.raises(ModelFileError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"net.linear.weight": None, "net.x": torch.zeros(99)}, "'linear.weight' is missing"),
        ({"net.linear.weight": torch.zeros(4)}, "too few for 4 classes"),
        ({"net.linear.weight": torch.zeros(4, 99)}, "'linear.weight' is .*expected"),
        ({"net.linear.bias": torch.zeros(4, dtype=torch.float64)}, "linear.bias"),
        ({"net.linear.bias": torch.full((4,), torch.nan)}, "not finite"),
        ({"net.more": torch.zeros(1)}, "unknown weight 'more'"),
        ({"net.../../x": torch.zeros(1)}, "unknown weight '../../x'"),
        ({"more": torch.zeros(1)}, "unknown attribute 'more'"),
        ({"classes_": torch.zeros(4)}, "unknown attribute 'classes_'"),
        ({"signed_labels_": torch.zeros(80, 4)}, "unknown attribute 'signed_labels_'"),
        ({"label_log_.bag_index": torch.full((80,), 99)}, "bags that it does not have"),
        ({"label_log_.bag_index": torch.full((80,), -1)}, "bags that it does not have"),
        ({"label_log_.bag_index": torch.tensor(3)}, "bags that it does not have"),
        ({"label_log_.bag_index": None}, "incomplete"),
        ({"label_log_.cells": None}, "log of pseudo labels is incomplete"),
        ({"label_log_.more": torch.zeros(1)}, "log of pseudo labels is incomplete"),
        ({"label_log_.lengths": torch.tensor([-1, 1])}, "log of pseudo labels does not fit"),
        ({"label_log_.lengths": torch.tensor([2**62, 2**62])}, "log of pseudo labels does not"),
        ({"label_log_.lengths": torch.zeros(0, dtype=torch.int64)}, "log of pseudo labels does"),
        ({"label_log_.rules": torch.zeros(3, dtype=torch.int8)}, "log of pseudo labels does not"),
    ],
)
def test_hostile_tensors(tensors, message, stored, tmp_path):
    path = rewrite(stored, tmp_path / "m", lambda d: None, tensors)
    with pytest.raises(ModelFileError, match=message):
        load(path)


@pytest.mark.parametrize(("name", "value"), [("cells", 10**9), ("cells", -1), ("rules", 4)])
def test_hostile_log(name, value, stored, tmp_path):
    _, tensors = parts(stored)
    bad = tensors[f"label_log_.{name}"].clone()
    bad[-1] = value
    path = rewrite(stored, tmp_path / "m", lambda d: None, {f"label_log_.{name}": bad})
    with pytest.raises(ModelFileError, match="log of pseudo labels does not fit"):
        load(path)


def test_rewriting_alone_is_not_what_fails(stored, data, tmp_path):
    load(rewrite(stored, tmp_path / "m", lambda d: None)).predict(data.X_test)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 5000, "null", "[]", '"x"', "{", "", "NaN", '{"format": NaN}']
)
def test_descriptions_that_are_no_table(text, tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "m", {"proportion_ssl": text})
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        load(tmp_path / "m")


def test_other_safetensors_file(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "m")
    with pytest.raises(ModelFileError, match=r"not one of proportion_ssl\.save"):
        load(tmp_path / "m")


@pytest.mark.slow
@pytest.mark.parametrize("freeze", [True, False])
def test_path_of_weights_in_a_file_is_not_opened(freeze, tmp_path):
    """A file may say where weights came from; that place is neither read nor downloaded."""
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    net = MobileNetV2Classifier(weights=None, freeze=freeze)
    model = NegativePseudoLabelClassifier(net, max_epochs=1, random_state=0)
    save(model.fit(images, [0, 1] * 2), tmp_path / "a")
    for weights in ("/etc/passwd", "imagenet", "http://127.0.0.1/x", "no such file"):
        path = rewrite(
            (tmp_path / "a").read_bytes(),
            tmp_path / "b",
            set_in(*("parameters", "estimator", "$object", "parameters", "weights"), value=weights),
        )
        opened = []
        with watch_files(opened):
            loaded = load(path)
            np.testing.assert_array_equal(loaded.predict_proba(images), model.predict_proba(images))
        assert not [name for name in opened if weights in name or name.endswith(".pth")]
        assert loaded.estimator.weights == weights


@contextmanager
def watch_files(opened):
    """Record what is opened, connected to or run."""
    watching = [True]

    def hook(event, args):
        if watching[0] and event in ("open", "socket.connect", "subprocess.Popen", "exec"):
            opened.append(str(args[0]))

    sys.addaudithook(hook)  # cannot be removed, only switched off
    try:
        yield
    finally:
        watching[0] = False


def test_loading_opens_nothing_but_the_file(stored, tmp_path):
    (tmp_path / "m").write_bytes(stored)
    load(tmp_path / "m")  # imports whatever is imported late
    opened = []
    with watch_files(opened):
        load(tmp_path / "m")
    assert set(opened) == {str(tmp_path / "m")}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, 1, -1, 2, 4, 10**9, 2**70])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["HeadClassifier", "NegativeSelector", "str", "int64", "default", "$float"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$float", "$tuple", "$object", "$optimizer", "class", "parameters"])
            | st.text(max_size=5),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)


def places(value, path=()):
    """Paths of all values of a document."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value) if isinstance(value, list) else items:
        yield from places(item, (*path, key))


@pytest.mark.slow
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(choice=st.floats(0, 1, exclude_max=True), value=JSON)
def test_any_description_with_a_right_hash(rich, data, tmp_path, choice, value):
    """Either an error of the right kind, or a model that works and can be saved again."""
    loaded = load_with(rich, tmp_path, choice, value)
    if loaded is not None:
        check_that_it_works(loaded, data, tmp_path)
        loaded.label_log_.to_frame()


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(choice=st.floats(0, 1, exclude_max=True), value=JSON)
def test_any_description_of_a_robust_classifier(stored_robust, data, tmp_path, choice, value):
    loaded = load_with(stored_robust, tmp_path, choice, value)
    if loaded is not None:
        check_that_it_works(loaded, data, tmp_path)
        loaded.label_log_.to_frame()


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(choice=st.floats(0, 1, exclude_max=True), value=JSON)
def test_any_description_of_a_proposer(stored_proposer, data, tmp_path, choice, value):
    loaded = load_with(stored_proposer, tmp_path, choice, value)
    if loaded is not None:
        X = np.hstack([data.X_labeled, data.X_labeled**2])
        assert loaded.propose(X).probabilities.shape == (len(X),)
        check_that_it_saves_the_same(loaded, tmp_path)


def load_with(stored, tmp_path, choice, value):
    """The model of a file in which one value is replaced; None where that is refused."""
    document, tensors = parts(stored)
    paths = [path for path in places(document["model"]) if path]
    set_in(*paths[int(choice * len(paths))], value=value)(document)
    write_signed(document, tensors, tmp_path / "m")
    try:
        return load(tmp_path / "m")
    except ModelFileError:
        return None


def check_that_it_works(loaded, data, tmp_path):
    assert loaded.predict_proba(data.X_test).shape == (len(data.X_test), len(loaded.classes_))
    assert loaded.predict(data.X_test).shape == (len(data.X_test),)
    check_that_it_saves_the_same(loaded, tmp_path)


def check_that_it_saves_the_same(loaded, tmp_path):
    save(loaded, tmp_path / "again")
    save(load(tmp_path / "again"), tmp_path / "third")
    assert (tmp_path / "third").read_bytes() == (tmp_path / "again").read_bytes()


@pytest.mark.parametrize("name", ["model.pkl", "model.PT", "model.joblib"])
def test_names_that_promise_another_format_are_refused(tmp_path, name):
    model = RobustProportionClassifier(random_state=0).fit(np.eye(6), [0, 1] * 3)
    with pytest.raises(ValueError, match=r"in the format safetensors; name it 'model.safetensors'"):
        save(model, tmp_path / name)
    assert not list(tmp_path.iterdir())
    for fine in ("model.safetensors", "model.segmenter", "model", "v1.2"):
        save(model, tmp_path / fine)
