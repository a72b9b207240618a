"""A segmenter in a file: the same predictions, without torch, and nothing wrong is believed."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from cohorts import Texture
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression

import proportion_ssl
from proportion_ssl import PatchEmbedder, SlideSegmenter
from proportion_ssl.persistence import ModelFileError

HELPERS = Path(__file__).parents[1] / "_helpers"


@pytest.fixture(scope="module")
def path(fitted, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.segmenter"
    fitted.save(path, network=False)
    return path


def test_the_same_predictions(fitted, path, manifest):
    loaded = SlideSegmenter.load(path, embedder=Texture())
    slide = manifest.parent / "test_9.tif"
    here, there = fitted.segment(slide), loaded.segment(slide)
    assert_array_equal(here.probabilities, there.probabilities)
    assert here.labels.tolist() == there.labels.tolist() and here.colors == there.colors
    assert loaded.reference_slide_ == "labeled_0" and loaded.features_ == fitted.features_
    assert loaded.get_params()["patch_size"] == fitted.patch_size
    assert_array_equal(loaded.normalizer_.mean_, fitted.normalizer_.mean_)
    X = np.random.default_rng(0).normal(size=(5, loaded.classifier_.n_features_in_))
    assert_array_equal(loaded.classifier_.predict_proba(X), fitted.classifier_.predict_proba(X))


def test_equal_models_give_equal_files_also_after_loading(fitted, path, tmp_path):
    fitted.save(tmp_path / "again", network=False)
    SlideSegmenter.load(path).save(tmp_path / "loaded", network=False)
    first = path.read_bytes()
    assert (tmp_path / "again").read_bytes() == first == (tmp_path / "loaded").read_bytes()


@pytest.mark.slow
def test_it_can_be_fitted_again(path, manifest, features):
    loaded = SlideSegmenter.load(path, embedder=Texture())
    kinds = type(loaded.classifier_), type(loaded.proposer_)
    settings = loaded.classifier_.get_params(), loaded.proposer_.get_params()["n_folds"]
    for _ in range(2):  # a second fit starts from the same models as the first
        loaded.fit(manifest, features=features)
        assert (type(loaded.classifier_), type(loaded.proposer_)) == kinds
        assert loaded.proposer_.get_params()["n_folds"] == settings[1] == 2
        assert loaded.classifier_.get_params().keys() == settings[0].keys()


def test_a_file_that_knows_no_smoothing_is_of_patches_by_themselves(path, tmp_path):
    older = tmp_path / "older"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(older, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "segmenter.json":
                about = json.loads(content)
                del about["smoothing"]
                content = json.dumps(about).encode()
            target.writestr(name, content)
    loaded = SlideSegmenter.load(older)
    assert loaded.smoothing_ == loaded.models_.smoothing == 0


def test_another_embedder_is_refused(path, manifest):
    with pytest.raises(ValueError, match="embedder differs from that of the fit"):
        SlideSegmenter.load(path, embedder=Texture("2"))
    with pytest.raises(ValueError, match="pass embedder="):
        SlideSegmenter.load(path).segment(manifest.parent / "test_9.tif")


def test_an_embedder_without_export_is_named(fitted, tmp_path):
    with pytest.raises(TypeError, match="network of Texture cannot be exported"):
        fitted.save(tmp_path / "m.segmenter")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_process_that_applies_loads_no_torch(path, manifest):
    code = f"""
import sys
sys.path.insert(0, {str(HELPERS)!r})
from cohorts import Texture
from proportion_ssl import SlideSegmenter
segmenter = SlideSegmenter.load({str(path)!r}, embedder=Texture())
segmenter.segment({str(manifest.parent / "test_9.tif")!r}).row()
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_network_goes_into_the_file(manifest, tmp_path, new):
    pytest.importorskip("openvino", reason="pip install proportion_ssl[fast]")
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )
    segmenter = new(embedder=PatchEmbedder(module=module), proposer=None)
    segmenter.fit(manifest, features=tmp_path / "features")
    segmenter.save(tmp_path / "m.segmenter")
    loaded = SlideSegmenter.load(tmp_path / "m.segmenter")
    slide = manifest.parent / "test_9.tif"
    here, there = segmenter.segment(slide), loaded.segment(slide)
    assert_allclose(here.probabilities, there.probabilities, atol=1e-3)
    network = Path(loaded.embedder_.path)
    loaded.save(tmp_path / "again.segmenter")
    assert (tmp_path / "again.segmenter").read_bytes() == (tmp_path / "m.segmenter").read_bytes()
    assert network.exists()
    del loaded, there
    assert not network.exists()


def rewrite(path, target, change):
    """A copy of the file whose parts a function has changed."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def edit(parts, **changes):
    about = json.loads(parts["segmenter.json"])
    parts["segmenter.json"] = json.dumps({**about, **changes}).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: edit(parts, version=99), "version 99"),
        (lambda parts: edit(parts, format="other"), "not written by SlideSegmenter.save"),
        (
            lambda parts: parts.update({"linear.safetensors": b"x"}),
            "'linear.safetensors' is damaged",
        ),
        (lambda parts: parts.update({"more.py": b"x"}), "unknown part 'more.py'"),
        (lambda parts: parts.pop("classifier.safetensors"), "parts do not match"),
        (lambda parts: parts.pop("segmenter.json"), "KeyError"),
        (lambda parts: edit(parts, normalizer={"class": "os.system"}), "ValueError"),
        (lambda parts: edit(parts, threshold="x"), "ValueError"),
    ],
)
def test_what_is_wrong_is_said(path, tmp_path, change, message):
    rewrite(path, tmp_path / "changed", change)
    with pytest.raises(ModelFileError, match=message):
        SlideSegmenter.load(tmp_path / "changed")


def test_truncated_and_foreign_files(path, tmp_path):
    data = path.read_bytes()
    for name, content in (("short", data[:-40]), ("text", b"no model"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=name):
            SlideSegmenter.load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        SlideSegmenter.load(tmp_path / "none")


def test_the_other_kind_of_model_file_is_named(fitted, path, tmp_path):
    classifier = tmp_path / "R.model"
    proportion_ssl.save(fitted.classifier_, classifier)
    with pytest.raises(
        ModelFileError, match=r"R\.model' is a classifier file .*proportion_ssl\.load"
    ):
        SlideSegmenter.load(classifier)
    with pytest.raises(
        ModelFileError, match=r"is a file of SlideSegmenter\.save; .*SlideSegmenter\.load"
    ):
        proportion_ssl.load(path)
    torch.save({"weight": torch.ones(2)}, tmp_path / "torch.pt")
    with pytest.raises(ModelFileError, match="looks like a pickle, joblib or torch file"):
        proportion_ssl.load(tmp_path / "torch.pt")


def test_a_folder_that_does_not_exist(fitted, tmp_path):
    for write in (
        lambda path: fitted.save(path, network=False),
        lambda path: proportion_ssl.save(fitted.classifier_, path),
    ):
        with pytest.raises(FileNotFoundError, match=r"^folder '.*nodir' does not exist; create it"):
            write(tmp_path / "nodir" / "u.model")


def test_flipped_bits_are_noticed(path, tmp_path):
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    reference = SlideSegmenter.load(path)
    for _ in range(60):
        at, bit = int(rng.integers(len(data))), 1 << int(rng.integers(8))
        data[at] ^= bit
        (tmp_path / "flipped").write_bytes(data)
        data[at] ^= bit
        try:
            loaded = SlideSegmenter.load(tmp_path / "flipped")
        except ModelFileError:
            continue
        assert_array_equal(loaded.models_.classifier.coef, reference.models_.classifier.coef)
        assert loaded.made_by_ == reference.made_by_ and loaded.classes_ == reference.classes_
        assert loaded.colors_ == reference.colors_


@pytest.mark.slow
def test_a_foreign_classifier_that_is_linear_is_not_written_in_silence(manifest, new, tmp_path):
    segmenter = new(classifier=Plain(), proposer=None).fit(manifest)
    with pytest.raises(TypeError, match="Plain"):
        segmenter.save(tmp_path / "m.segmenter", network=False)


class Plain(LogisticRegression):
    def fit(self, X, y, X_bags=None, bag_proportions=None, *, groups=None):
        return super().fit(X, y)
