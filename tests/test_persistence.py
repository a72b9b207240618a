"""Saving and loading: same predictions, and files that nobody should trust."""

import json
import pickle
import struct
import sys

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

from proportion_ssl import (
    AdaptiveSelector,
    HeadClassifier,
    MobileNetV2Classifier,
    NegativeLoss,
    NegativePseudoLabelClassifier,
    PositiveLoss,
    ThresholdSelector,
)
from proportion_ssl import persistence as module
from proportion_ssl.datasets import make_bags
from proportion_ssl.nets import load_mobilenet_v2
from proportion_ssl.persistence import ModelFileError, load, save

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


def rewrite(stored, path, change, tensors=None):
    """The file with another document and a hash that fits it: what an attacker would write."""
    (length,) = struct.unpack("<Q", stored[:8])
    header = json.loads(json.loads(stored[8 : 8 + length])["__metadata__"]["proportion_ssl"])
    document = json.loads(header["model"])
    old = module.read_tensors(stored)
    change(document)
    text = json.dumps(document)
    new = {**old, **(tensors or {})}
    new = {name: value for name, value in new.items() if value is not None}
    header = {"model": text, "sha256": module._digest(text, new)}
    save_file(new, path, {"proportion_ssl": json.dumps(header)})
    return path


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
    assert sorted(k for k in vars(loaded) if k.endswith("_")) == sorted(
        k for k in vars(model) if k.endswith("_")
    )
    assert loaded.get_params() == model.get_params()


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
    ("setting", "named"),
    [
        ({"positive_selector": OwnSelector()}, "positive_selector is a .*OwnSelector"),
        ({"positive_loss": OwnLoss()}, "positive_loss is a .*OwnLoss"),
        ({"estimator": OwnNet()}, "estimator is a .*OwnNet"),
        ({"estimator": HeadClassifier(callbacks=[])}, r"estimator\.callbacks is \[\]"),
        ({"estimator": HeadClassifier(optimizer=torch.optim.Rprop)}, "optimizer is .*Rprop"),
        (
            {"random_state": np.random.RandomState(0)},
            "random_state is a .*RandomState.*Give an int",
        ),
    ],
)
def test_what_cannot_be_saved_is_named(setting, named, data, tmp_path):
    model = NegativePseudoLabelClassifier(max_epochs=1).set_params(**setting)
    model.fit(data.X_labeled, data.y)
    with pytest.raises((TypeError, ValueError), match=named):
        save(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_other_objects_are_refused(data, tmp_path):
    for other in (OwnClassifier(), HeadClassifier(), "model"):
        with pytest.raises(TypeError, match=f"got {type(other).__name__}"):
            save(other, tmp_path / "m")
    with pytest.raises(NotFittedError):
        save(NegativePseudoLabelClassifier(), tmp_path / "m")


def test_classes_that_json_cannot_tell_apart_are_refused(model, tmp_path):
    model = pickle.loads(pickle.dumps(model))
    model.classes_ = np.array([1, "1", 2, 3], dtype=object)
    with pytest.raises(ValueError, match="classes_ holds values of type object"):
        save(model, tmp_path / "m")


def test_failed_write_leaves_the_old_file(model, tmp_path, monkeypatch):
    path = tmp_path / "m"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(module.os, "fsync", fail)
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


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), in_header=st.booleans())
def test_bit_flips(stored, tmp_path, position, bit, in_header):
    """No flip of a bit gives another model; most end in an error, none in anything else."""
    (length,) = struct.unpack("<Q", stored[:8])
    damaged = bytearray(stored)
    where = int(position * (8 + length if in_header else len(stored)))
    damaged[where] ^= 1 << bit
    (tmp_path / "m").write_bytes(damaged)
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        load(tmp_path / "m")


def test_huge_sizes_are_not_believed(stored, tmp_path):
    path = tmp_path / "m"
    for length in (2**31, 2**62, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + stored[8:])
        with pytest.raises(ModelFileError, match="cannot be loaded"):
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
    with pytest.raises(FileNotFoundError, match="no model file"):
        load(tmp_path / "m")


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


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1e300])
def test_unknown_version(version, stored, tmp_path):
    path = rewrite(stored, tmp_path / "m", lambda d: d.update(version=version, package="9.9"))
    with pytest.raises(ModelFileError, match=r"version .* of the format, of package '9.9'"):
        load(path)


def set_in(*keys, value):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


EVIL = "os.system"
HOSTILE = [
    (set_in("net", "class", value=EVIL), "names the net 'os.system'"),
    (set_in("net", "class", value=["x"]), "names the net"),
    (set_in("net", "optimizer", value="builtins.eval"), "names the optimizer"),
    (set_in("net", "parameters", "module", value=EVIL), "unknown parameter 'module'"),
    (set_in("net", "parameters", "callbacks", value=[EVIL]), "unknown parameter 'callbacks'"),
    (set_in("net", "parameters", "optimizer__params", value=1), "cannot be loaded"),
    (set_in("net", "parameters", value=[1]), "not a table"),
    (set_in("parameters", "estimator", value={"class": EVIL}), "names the net"),
    (
        set_in("parameters", "positive_selector", value={"class": EVIL, "parameters": {}}),
        "names the",
    ),
    (set_in("parameters", "positive_loss", value="default"), "cannot be loaded"),
    (
        set_in(
            *("parameters", "positive_selector"),
            value={"class": "ThresholdSelector", "parameters": {"__class__": 1}},
        ),
        "unknown parameter '__class__' of ThresholdSelector",
    ),
    (
        set_in(
            *("parameters", "positive_selector"),
            value={"class": "ThresholdSelector", "parameters": {"threshold": "1"}},
        ),
        "threshold",
    ),
    (set_in("parameters", "__class__", value=EVIL), "unknown parameter '__class__'"),
    (set_in("parameters", "max_epochs", value=-1), "max_epochs"),
    (set_in("parameters", value=None), "not a table"),
    (set_in("fitted", "predict", value=EVIL), "unknown attribute 'predict'"),
    (set_in("fitted", "__class__", value=EVIL), "unknown attribute '__class__'"),
    (set_in("fitted", "n_features_in_", value=10**12), "number of features"),
    (set_in("fitted", "is_images_", value=True), "number of features"),
    (set_in("fitted", "is_images_", value="no"), "number of features"),
    (set_in("fitted", "classes_", value={"dtype": "<U999999999", "values": ["a"]}), "type '<U9"),
    (
        set_in("fitted", "classes_", value={"dtype": "str", "values": [1, 2, 3, 4]}),
        "not of type str",
    ),
    (
        set_in("fitted", "classes_", value={"dtype": "int64", "values": [1, 1, 2, 3]}),
        "occurs twice",
    ),
    (
        set_in("fitted", "classes_", value={"dtype": "int64", "values": [1]}),
        "does not fit 1 classes",
    ),
    (
        set_in("fitted", "classes_", value={"dtype": "int8", "values": [1, 2, 3, 999]}),
        "OverflowError",
    ),
    (
        set_in("fitted", "bag_names_", value={"dtype": "int64", "values": [1]}),
        "do not fit its bags",
    ),
    (set_in("fitted", value={}), "lacks the attribute"),
    (set_in("fitted", value=3), "cannot be loaded"),
    (set_in("format", value="else"), "not one of proportion_ssl.save"),
    (lambda d: d.pop("net"), "KeyError"),
    (lambda d: d["fitted"].pop("bag_names_"), "incomplete"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_hostile_document(change, message, stored, tmp_path):
    path = rewrite(stored, tmp_path / "m", change)
    with pytest.raises(ModelFileError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"net.linear.weight": None}, "does not fit 4 classes: weights of shape None"),
        ({"net.linear.weight": torch.zeros(4)}, "does not fit 4 classes"),
        ({"net.linear.weight": torch.zeros(4, 3)}, "'mean' is .*expected"),
        ({"net.linear.bias": torch.zeros(4, dtype=torch.float64)}, "linear.bias"),
        ({"net.linear.bias": torch.full((4,), torch.nan)}, "not finite"),
        ({"net.more": torch.zeros(1)}, "unknown weight 'more'"),
        ({"more": torch.zeros(1)}, "unknown attribute 'more'"),
        ({"signed_labels_": torch.zeros(80, 4)}, "signed_labels_ is of type"),
        ({"signed_labels_": torch.zeros(1, 4, dtype=torch.int8)}, "do not fit its bags"),
        ({"bag_index_": torch.full((80,), 99)}, "do not fit its bags"),
        ({"bag_index_": None}, "incomplete"),
    ],
)
def test_hostile_tensors(tensors, message, stored, tmp_path):
    path = rewrite(stored, tmp_path / "m", lambda d: None, tensors)
    with pytest.raises(ModelFileError, match=message):
        load(path)


def test_rewriting_alone_is_not_what_fails(stored, data, tmp_path):
    load(rewrite(stored, tmp_path / "m", lambda d: None)).predict(data.X_test)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "null", "[]", '"x"', "{", "\ud800"])
def test_documents_that_are_no_table(text, tmp_path):
    text = text.encode("utf-8", "replace").decode()
    header = json.dumps({"model": text, "sha256": ""})
    save_file({"a": torch.zeros(1)}, tmp_path / "m", {"proportion_ssl": header})
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        load(tmp_path / "m")


def test_other_safetensors_file(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "m")
    with pytest.raises(ModelFileError, match=r"not one of proportion_ssl\.save"):
        load(tmp_path / "m")


def test_path_of_weights_in_a_file_is_not_opened(stored, tmp_path, monkeypatch):
    """A file may say where weights came from; that place is neither read nor downloaded."""
    images = np.zeros((4, 32, 32, 3), dtype=np.uint8)
    net = MobileNetV2Classifier(weights=None)
    model = NegativePseudoLabelClassifier(net, max_epochs=1, random_state=0)
    save(model.fit(images, [0, 1] * 2), tmp_path / "a")
    path = rewrite(
        (tmp_path / "a").read_bytes(),
        tmp_path / "b",
        set_in("net", "parameters", "weights", value="/etc/passwd"),
    )
    np.testing.assert_array_equal(load(path).predict_proba(images), model.predict_proba(images))
