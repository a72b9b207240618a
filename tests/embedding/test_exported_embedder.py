"""Exported networks: the same features without torch, files that are whole or refused."""

import importlib.util
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from torch import nn

from proportion_ssl import (
    ExportedEmbedder,
    HeadClassifier,
    MobileNetV2Classifier,
    NegativePseudoLabelClassifier,
    PatchEmbedder,
    RobustProportionClassifier,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.embedding import (
    ExportedFileError,
    NotInstalledError,
)
from proportion_ssl.embedding import (
    exported_embedder as exported,
)

WITH_OPENVINO = importlib.util.find_spec("openvino") is not None  # importing it would report
needs_openvino = pytest.mark.skipif(not WITH_OPENVINO, reason="OpenVINO is not installed")


class Net(nn.Module):
    """Convolution, batch norm with statistics of its own, pooling: 5 features."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.conv, self.norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)
        with torch.no_grad():
            self.conv.weight.normal_(generator=generator)
            self.norm.running_mean.normal_(generator=generator)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3))


class Moody(nn.Module):
    """Cannot be exported: what it does depends on the values."""

    def forward(self, x):
        return x.mean(dim=(2, 3)) if x.sum() > 0 else x.amax(dim=(2, 3))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (11, 24, 24, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    if not WITH_OPENVINO:
        pytest.skip("OpenVINO is not installed")
    path = tmp_path_factory.mktemp("exported") / "network.zip"
    PatchEmbedder(module=Net()).export(path, size=24)
    return path


@pytest.mark.slow
def test_the_same_features_and_fingerprint(file, images):
    given, read = PatchEmbedder(module=Net()), ExportedEmbedder(file, batch_size=4)
    expected = given.transform(images)
    features = read.transform(images)
    assert features.dtype == np.float32
    assert_allclose(features, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert read.fingerprint() == given.fingerprint() != PatchEmbedder(module=Net(1)).fingerprint()
    assert len(read.fit(images).get_feature_names_out()) == 5


@pytest.mark.parametrize("n_threads", [1, 3])
def test_neither_threads_nor_batches_change_a_row(file, images, n_threads):
    features = ExportedEmbedder(file, n_threads=n_threads, batch_size=2).transform(images)
    assert_array_equal(features, ExportedEmbedder(file).transform(images))


@pytest.mark.parametrize("asked", ["3", "3,2"])
def test_threads_are_those_of_the_environment_unless_given(file, images, monkeypatch, asked):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    by_environment, given = ExportedEmbedder(file), ExportedEmbedder(file, n_threads=2)
    assert [len(e.fit(images)._opened()[1].queue) for e in (by_environment, given)] == [3, 2]


def test_it_is_a_transformer_that_travels(file, images):
    embedder = ExportedEmbedder(file)
    expected = embedder.transform(images)
    for copy in (clone(embedder), pickle.loads(pickle.dumps(embedder))):
        assert_array_equal(copy.transform(images), expected)
    net = HeadClassifier(max_epochs=2)
    pipeline = make_pipeline(embedder, net).fit(images, np.arange(11) % 2)
    assert pipeline.predict(images).shape == (11,)


PROGRAM = """
import sys
import joblib, numpy as np
from proportion_ssl import ExportedEmbedder
features = ExportedEmbedder(sys.argv[1]).transform(np.load(sys.argv[2]))
np.save(sys.argv[4], joblib.load(sys.argv[3]).predict_proba(features))
assert not {"torch", "torchvision", "skorch"} & sys.modules.keys()
"""


@pytest.mark.slow
@pytest.mark.parametrize("n_classes", [2, 3])
def test_images_to_probabilities_in_a_process_without_torch(file, images, tmp_path, n_classes):
    import joblib

    features = PatchEmbedder(module=Net()).transform(images)
    y = np.array(list("abc"))[np.arange(11) % n_classes]
    model = NegativePseudoLabelClassifier(max_epochs=5, random_state=0).fit(features, y)
    np.save(tmp_path / "images.npy", images)
    joblib.dump(model.to_logistic_regression(), tmp_path / "head.joblib")
    names = ("images.npy", "head.joblib", "probabilities.npy")
    arguments = [str(file), *(str(tmp_path / name) for name in names)]
    subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True)
    found = np.load(tmp_path / "probabilities.npy")
    assert_allclose(found, model.predict_proba(features), atol=1e-4)


# The head alone


DATA = make_bags(n_bags=4, random_state=0)


@pytest.mark.parametrize("make", [NegativePseudoLabelClassifier, RobustProportionClassifier])
def test_the_head_as_a_logistic_regression(make):
    settings = {"max_epochs": 3} if make is NegativePseudoLabelClassifier else {}
    model = make(random_state=0, **settings).fit(DATA.X_labeled, DATA.y, DATA.bags)
    head = model.to_logistic_regression()
    assert_allclose(head.predict_proba(DATA.X_test), model.predict_proba(DATA.X_test), atol=1e-5)
    assert_array_equal(head.predict(DATA.X_test), model.predict(DATA.X_test))
    assert head.n_features_in_ == DATA.X_test.shape[1]


def test_more_than_a_head_is_no_logistic_regression():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    net = MobileNetV2Classifier(weights=None, freeze=False, batch_size=4)
    model = NegativePseudoLabelClassifier(net, max_epochs=1, validation_fraction=0)
    model.fit(images, [0, 1, 0, 1])
    with pytest.raises(ValueError, match="MobileNetV2Classifier trained more than a linear head"):
        model.to_logistic_regression()


# What is refused


def test_images_of_another_size(file, images):
    with pytest.raises(ValueError, match=r"exported for images of 24 x 24 pixels; got 20 x 24"):
        ExportedEmbedder(file).transform(images[:, :20])


@needs_openvino
def test_a_network_that_does_not_export(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be exported: .*Sequential cannot be exported"):
        PatchEmbedder(module=Moody()).export(tmp_path / "network.zip", size=24)
    assert list(tmp_path.iterdir()) == []


@needs_openvino
def test_images_too_small_for_the_network(tmp_path):
    with pytest.raises(ValueError, match="at least 32 x 32"):
        PatchEmbedder(weights=None).export(tmp_path / "network.zip", size=16)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError if WITH_OPENVINO else NotInstalledError):
        ExportedEmbedder(tmp_path / "none.zip").fingerprint()


def test_without_openvino(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for use in (
        lambda: ExportedEmbedder(tmp_path / "network.zip").fingerprint(),
        lambda: PatchEmbedder(module=Net()).export(tmp_path / "network.zip", size=24),
    ):
        with pytest.raises(NotInstalledError, match=r"pip install proportion_ssl\[fast\]"):
            use()


def rewritten(file, target, change):
    """A copy of the file with another description."""
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(target, "w") as copy:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "about.json":
                about = json.loads(content)
                change(about)
                content = json.dumps(about)
            copy.writestr(name, content)
    return target


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-100],
        lambda content: b"no zip at all",
        lambda content: (
            content[: len(content) // 2] + b"\0\1\2\3" + content[len(content) // 2 + 4 :]
        ),
    ],
)
def test_a_damaged_file(file, tmp_path, damage):
    (tmp_path / "network.zip").write_bytes(damage(file.read_bytes()))
    assert_refused(tmp_path / "network.zip")


def assert_refused(path):
    """Whatever a file holds, the error is one, and it names the file."""
    with pytest.raises(ExportedFileError, match=rf"{path.name}' is corrupt, or was not written by"):
        ExportedEmbedder(path).fingerprint()


def with_parts(file, target, change, compression=zipfile.ZIP_STORED):
    """A copy of the file whose parts were changed."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(target, "w", compression) as copy:
        for name, content in parts.items():
            copy.writestr(name, content)
    return target


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'version="opset1"', b'version="extension"'),
        (b"<net ", b"<!DOCTYPE net [<!ENTITY a 'b'>]><net "),
        (b"<layers>", b"<layers><include href='/etc/passwd'/>"),
        (b'type="Convolution"', b'type="Deconvolution"'),
        (b'type="Const"', b'type="Konst"'),
        (b"</net>", b""),
        (b'offset="', b'offset="9'),
        (b'shape="1,24,24,3"', b'shape="1,24,999999,3"'),
        (b"<dim>24</dim>", b"<dim>x</dim>"),
    ],
)
def test_a_graph_that_was_not_exported(file, tmp_path, old, new):
    def change(parts):
        assert old in parts["network.xml"]
        parts["network.xml"] = parts["network.xml"].replace(old, new)

    assert_refused(with_parts(file, tmp_path / "network.zip", change))


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"size": 10**9},
        {"size": "24"},
        {"size": 25},
        {"size": True},
        {"expected": []},
        {"expected": [["a"] * 5]},
        {"expected": [[1.0] * 4]},
        {"expected": {}},
        {"fingerprint": None},
        {"fingerprint": "../x"},
        {"format": ["x"]},
    ],
)
def test_a_description_that_was_not_exported(file, tmp_path, change):
    assert_refused(rewritten(file, tmp_path / "other.zip", lambda about: about.update(change)))


@pytest.mark.parametrize("about", [b"[1]", b"[" * 100_000, b"\xff", b"1" * 5000, b"", b"{}"])
def test_a_description_that_is_none(file, tmp_path, about):
    def change(parts):
        parts["about.json"] = about

    assert_refused(with_parts(file, tmp_path / "network.zip", change))


def test_missing_and_further_parts(file, tmp_path):
    assert_refused(with_parts(file, tmp_path / "a.zip", lambda parts: parts.pop("network.bin")))
    assert_refused(with_parts(file, tmp_path / "b.zip", lambda parts: parts.update(more=b"1")))
    (tmp_path / "folder.zip").mkdir()
    assert_refused(tmp_path / "folder.zip")


def test_what_is_packed_is_not_unpacked(file, tmp_path, monkeypatch):
    """64 MiB of zeros take 64 KiB when packed; more would fill the memory."""

    def change(parts):
        parts["network.bin"] = bytes(2**26)

    bomb = with_parts(file, tmp_path / "network.zip", change, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 2**17
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(ExportedFileError, match="its parts are compressed"):
        ExportedEmbedder(bomb).fingerprint()


def protobuf(number, value):
    """A field of a message in protocol buffers."""
    kind = 0 if isinstance(value, int) else 2
    value = value.encode() if isinstance(value, str) else value

    def varint(n):
        return bytes([n & 127 | 128]) + varint(n >> 7) if n > 127 else bytes([n])

    return varint(number << 3 | kind) + (varint(value) if kind == 0 else varint(len(value)) + value)


def onnx_with_weights_at(location, n_features, size):
    """An ONNX graph that answers every image with the numbers in another file."""

    def typed(name, kind, *shape):
        dims = b"".join(protobuf(1, protobuf(1, n)) for n in shape)
        return protobuf(1, name) + protobuf(2, protobuf(1, protobuf(1, kind) + protobuf(2, dims)))

    def node(kind, inputs, output, attribute=b""):
        names = b"".join(protobuf(1, name) for name in inputs) + protobuf(2, output)
        return protobuf(1, names + protobuf(4, kind) + attribute)

    def whole(name):
        return protobuf(5, protobuf(1, name) + protobuf(3, 1) + protobuf(20, 2))

    def stored(name, kind, n, content):
        return protobuf(5, protobuf(1, n) + protobuf(2, kind) + protobuf(8, name) + content)

    outside = protobuf(13, protobuf(1, "location") + protobuf(2, location)) + protobuf(14, 1)
    graph = (
        node("Cast", ["image"], "f", whole("to"))
        + node("ReduceMean", ["f"], "m", whole("keepdims"))
        + node("Reshape", ["m", "shape"], "r")
        + node("Mul", ["r", "zero"], "z")
        + node("Add", ["z", "w"], "y")
        + protobuf(2, "g")
        + stored("w", 1, n_features, outside)
        + stored("shape", 7, 2, protobuf(9, np.ones(2, "<i8").tobytes()))
        + stored("zero", 1, 1, protobuf(9, bytes(4)))
        + protobuf(11, typed("image", 2, 1, size, size, 3))
        + protobuf(12, typed("y", 1, 1, n_features))
    )
    return protobuf(1, 8) + protobuf(8, protobuf(2, 13)) + protobuf(7, graph)


@pytest.mark.parametrize("location", ["{folder}/secret.bin", "secret.bin", "../{name}/secret.bin"])
def test_no_other_file_is_read(file, tmp_path, monkeypatch, location):
    """OpenVINO reads ONNX as well, in which weights may stand in any file."""
    import openvino

    secret = np.arange(5, dtype="<f4") + 42
    secret.tofile(tmp_path / "secret.bin")
    monkeypatch.chdir(tmp_path)
    graph = onnx_with_weights_at(location.format(folder=tmp_path, name=tmp_path.name), 5, 24)
    assert openvino.Core().read_model(graph).outputs, "a valid graph, whose weights are the secret"

    def change(parts):
        about = json.loads(parts["about.json"]) | {"expected": [secret.tolist()]}
        parts |= {"about.json": json.dumps(about), "network.xml": graph, "network.bin": b""}

    assert_refused(with_parts(file, tmp_path / "network.zip", change))


def test_images_larger_than_a_file_may_ask_for():
    with pytest.raises(ValueError, match="size must be at most 4096 pixels, got 5000"):
        PatchEmbedder(module=Net()).export("network.zip", size=5000)


def test_a_file_of_another_format(file, tmp_path):
    other = rewritten(file, tmp_path / "other.zip", lambda about: about.update(format="2"))
    with pytest.raises(ExportedFileError, match="Export the network again"):
        ExportedEmbedder(other).fingerprint()


def test_a_machine_that_computes_something_else(file, tmp_path, images):
    def shift(about):
        about["expected"][0][0] += 1e-3 * np.abs(about["expected"]).max()

    other = rewritten(file, tmp_path / "other.zip", shift)
    with pytest.raises(ExportedFileError, match="computes other features on this machine"):
        ExportedEmbedder(other).transform(images)


@pytest.mark.slow
@needs_openvino
def test_exporting_replaces_a_file_or_leaves_it(tmp_path, monkeypatch):
    path = tmp_path / "network.zip"
    for seed in (0, 1):
        PatchEmbedder(module=Net(seed)).export(path, size=24)
    assert ExportedEmbedder(path).fingerprint() == PatchEmbedder(module=Net(1)).fingerprint()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(exported.zipfile.ZipFile, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        PatchEmbedder(module=Net(2)).export(path, size=24)
    assert [p.name for p in tmp_path.iterdir()] == ["network.zip"]
    assert ExportedEmbedder(path).fingerprint() == PatchEmbedder(module=Net(1)).fingerprint()


@pytest.mark.slow
@needs_openvino
def test_slides_are_not_embedded_again_by_the_exported_network(tmp_path):
    """Feature files of one are those of the other."""
    import tifffile

    from proportion_ssl.slides import embed_slides, read_features

    nuclei = np.random.default_rng(0).integers(-60, 30, (64, 64, 1))
    pixels = (np.array([200, 130, 180]) + nuclei).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    resolution = {"resolution": (5000, 5000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(256, 256), photometric="rgb", **resolution)
    given = PatchEmbedder(module=Net())
    given.export(tmp_path / "network.zip", size=64)
    runs, settings = [], {"magnification": 5, "size": 64}
    for embedder in (given, ExportedEmbedder(tmp_path / "network.zip")):
        run = embed_slides([tmp_path / "a.tif"], embedder, tmp_path / "features", **settings)
        runs.append(((tmp_path / "features/a.h5").stat().st_mtime_ns, run.results["a"]))
    assert runs[0] == runs[1]
    alone = embed_slides(
        [tmp_path / "a.tif"],
        ExportedEmbedder(tmp_path / "network.zip"),
        tmp_path / "new",
        **settings,
    )
    one, other = (read_features(p).features for p in (runs[0][1], alone.results["a"]))
    assert_allclose(other, one, rtol=0, atol=1e-4 * np.abs(one).max())
