"""PatchEmbedder and the engine behind it: equal to plain torch, lazy, remembered, a transformer."""

import copy
import importlib.util
import logging
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn
from torchvision.transforms.functional import normalize

from proportion_ssl.embedding import _compile as inference
from proportion_ssl.embedding import patch_embedder as embedding
from proportion_ssl.embedding._compile import compile_features
from proportion_ssl.embedding._openvino import OpenVINOFeatures
from proportion_ssl.embedding.mobilenet import IMAGENET_MEAN, IMAGENET_STD, load_mobilenet_v2
from proportion_ssl.embedding.patch_embedder import PatchEmbedder

WITH_OPENVINO = importlib.util.find_spec("openvino") is not None  # importing it would report
needs_openvino = pytest.mark.skipif(not WITH_OPENVINO, reason="OpenVINO is not installed")


class Tiny(nn.Module):
    """Convolution, batch norm with statistics of its own, pooling: 5 features."""

    def __init__(self, seed=0, dropout=0.5):
        super().__init__()
        torch.manual_seed(seed)
        self.convolution = nn.Conv2d(3, 5, 3, stride=2)
        self.norm = nn.BatchNorm2d(5)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.dropout(self.norm(self.convolution(x)).relu().mean(dim=(2, 3)))


class Moody(nn.Module):
    """Decides by the values what to compute, which no exported graph can hold."""

    def forward(self, x):
        pooled = x.mean(dim=(2, 3))
        return pooled if pooled.sum() > 0 else -3 * pooled


class Lazy:
    """Images behind a sequence that notes what is asked of it, and by whom."""

    def __init__(self, images):
        self.images = images
        self.asked = []
        self.threads = set()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, key):
        assert isinstance(key, slice)
        self.asked.append((key.start, key.stop))
        self.threads.add(threading.get_ident())
        return self.images[key]


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (11, 40, 36, 3), dtype=np.uint8)


@pytest.fixture
def fresh(monkeypatch):
    """No engine of an earlier test, and log lines that were not said yet."""
    monkeypatch.setattr(embedding, "_engines", [])
    inference._log_once.cache_clear()


@pytest.fixture
def computed(monkeypatch, fresh):
    """List that receives the length of every batch that a network computes."""
    lengths = []

    def counting(*args, **kwargs):
        run = compile_features(*args, **kwargs)

        class Counting:
            def __call__(self, batch):
                lengths.append(len(batch))
                return run(batch)

            def map(self, batches):
                return (self(batch) for batch in batches)

        return Counting()

    monkeypatch.setattr(embedding, "compile_features", counting)
    return lengths


def in_plain_torch(module, images, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    module = copy.deepcopy(module).eval()
    with torch.no_grad():
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        return module(normalize(pixels, mean, std)).numpy()


def assert_equal_features(features, expected, tolerance=1e-4):
    assert features.dtype == np.float32
    assert features.shape == expected.shape
    assert_allclose(features, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def bare_mobilenet(weights=None):
    network = load_mobilenet_v2(weights)
    network.classifier = nn.Identity()
    return network


# What the features are


@pytest.mark.slow
def test_features_are_those_of_torchvision(images):
    expected = in_plain_torch(bare_mobilenet(), images)
    features = PatchEmbedder(weights=None).transform(images)
    assert features.shape == (11, 1280)
    assert_equal_features(features, expected)


@pytest.mark.slow
def test_features_of_real_patches_with_real_weights(real_data):
    weights = real_data / "weights" / "mobilenet_v2_imagenet.pth"
    paths = sorted((real_data / "patches" / "lc25000").glob("*/*.jpeg"))[::400]
    patches = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    expected = in_plain_torch(bare_mobilenet(weights), patches)
    assert_equal_features(PatchEmbedder(weights).transform(patches), expected)
    assert_equal_features(PatchEmbedder(weights, batch_size=5).transform(patches), expected)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
def test_batch_size_does_not_matter(images, batch_size):
    expected = PatchEmbedder(module=Tiny()).transform(images)
    features = PatchEmbedder(module=Tiny(), batch_size=batch_size).transform(images)
    assert_equal_features(features, expected, tolerance=1e-6)


@pytest.mark.slow
def test_normalization_can_be_set(images):
    mean, std = (0.1, 0.5, 0.9), (0.5, 0.25, 0.125)
    expected = in_plain_torch(Tiny(), images, mean, std)
    assert_equal_features(
        PatchEmbedder(module=Tiny(), mean=mean, std=std).transform(images), expected
    )


def test_a_module_runs_in_evaluation_mode_and_stays_as_it_is(images):
    module = Tiny().train()
    before = copy.deepcopy(module.state_dict())
    features = PatchEmbedder(module=module).fit_transform(images)
    assert_equal_features(features, in_plain_torch(module, images))
    assert module.training and module.norm.training
    assert all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.slow
def test_a_module_is_copied_until_the_next_fit(images):
    module = Tiny()
    embedder = PatchEmbedder(module=module).fit(images)
    before, hash_before = embedder.transform(images), embedder.fingerprint()
    with torch.no_grad():
        module.convolution.weight.mul_(2)
    assert_array_equal(embedder.transform(images), before)
    assert embedder.fingerprint() == hash_before
    embedder.fit(images)
    assert_equal_features(embedder.transform(images), in_plain_torch(module, images))
    assert embedder.fingerprint() != hash_before


@pytest.mark.slow
def test_small_images_for_a_module_that_takes_them(images):
    small = images[:, :8, :8]
    assert_equal_features(
        PatchEmbedder(module=Tiny()).transform(small), in_plain_torch(Tiny(), small)
    )


# How images are read


@pytest.mark.slow
def test_a_sequence_is_read_in_slices_once_by_one_thread(images):
    lazy = Lazy(images)
    features = PatchEmbedder(module=Tiny(), batch_size=4).transform(lazy)
    assert_array_equal(features, PatchEmbedder(module=Tiny()).transform(images))
    assert lazy.asked == [(0, 1), (0, 4), (4, 8), (8, 11)]  # the first image tells the shape
    assert len(lazy.threads - {threading.get_ident()}) == 1


def test_fit_reads_one_image(images):
    lazy = Lazy(images)
    PatchEmbedder(module=Tiny()).fit(lazy)
    assert lazy.asked == [(0, 1)]


def test_the_next_batch_is_read_while_one_is_computed(images, monkeypatch):
    """Reading waits for computing to have started and the reverse: only overlap ends this."""
    computing, reading = threading.Event(), threading.Event()

    class Slow(Lazy):
        def __getitem__(self, key):
            if key.start == 4:
                reading.set()
                assert computing.wait(20)
            return super().__getitem__(key)

    class Waiting:
        def __call__(self, batch):
            computing.set()
            assert reading.wait(20)
            return np.zeros((len(batch), 2), dtype=np.float32)

        def map(self, batches):
            return (self(batch) for batch in batches)

    monkeypatch.setattr(PatchEmbedder, "_compiled", lambda self, example: Waiting())
    assert PatchEmbedder(module=Tiny(), batch_size=4).transform(Slow(images)).shape == (11, 2)


def test_no_more_than_two_batches_are_ahead(images, monkeypatch):
    lazy = Lazy(images)
    ahead = []

    class Noting:
        def map(self, batches):
            for index, batch in enumerate(batches):
                ahead.append(len(lazy.asked) - 1 - index)
                yield np.zeros((len(batch), 2), dtype=np.float32)

    monkeypatch.setattr(PatchEmbedder, "_compiled", lambda self, example: Noting())
    PatchEmbedder(module=Tiny(), batch_size=1).transform(lazy)
    assert max(ahead) <= 2


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_images(images, kind):
    embedder = PatchEmbedder(module=Tiny(), batch_size=4)
    assert_array_equal(embedder.transform(kind(images)), embedder.transform(images))


def test_views_and_read_only_arrays(images):
    embedder = PatchEmbedder(module=Tiny())
    expected = embedder.transform(images[::-2, :, ::-1].copy())
    assert_array_equal(embedder.transform(images[::-2, :, ::-1]), expected)
    frozen = images[::-2, :, ::-1].copy()
    frozen.flags.writeable = False
    assert_array_equal(embedder.transform(frozen), expected)


def test_an_error_while_reading_arrives_and_does_no_harm(images):
    class Broken(Lazy):
        def __getitem__(self, key):
            if key.start == 8:
                raise OSError("tile 17 of slide.svs cannot be decoded")
            return super().__getitem__(key)

    embedder = PatchEmbedder(module=Tiny(), batch_size=4)
    with pytest.raises(OSError, match="tile 17") as caught:
        embedder.transform(Broken(images))
    assert embedder.transform(images).shape == (11, 5)  # although the traceback is still held
    assert caught.value.__traceback__ is not None


def test_images_of_different_shapes(images):
    class Ragged(Lazy):
        def __getitem__(self, key):
            return super().__getitem__(key)[:, : 40 if key.start < 4 else 38]

    with pytest.raises(ValueError, match=r"X\[4:8\] has the shape \(4, 38, 36, 3\) but \(4, 40,"):
        PatchEmbedder(module=Tiny(), batch_size=4).transform(Ragged(images))


def test_a_sequence_that_returns_too_few(images):
    class Short(Lazy):
        def __getitem__(self, key):
            return super().__getitem__(slice(key.start, min(key.stop, 6)))

    with pytest.raises(ValueError, match=r"X\[4:8\] has the shape \(2, 40, 36, 3\)"):
        PatchEmbedder(module=Tiny(), batch_size=4).transform(Short(images))


class InBatches(Lazy):
    """As patches of slides: read in order by `batches`, by slices only where one image is wanted."""

    def batches(self, batch_size):
        for start in (0, 3, 6, 9):  # a batch never mixes slides, so it may be smaller
            yield self.images[start : start + 3]


def test_patches_are_read_by_their_own_batches(images):
    lazy = InBatches(images)
    features = PatchEmbedder(module=Tiny(), batch_size=4).transform(lazy)
    assert_array_equal(features, PatchEmbedder(module=Tiny()).transform(images))
    assert lazy.asked == [(0, 1)]


def test_own_batches_that_give_too_few(images):
    class Short(InBatches):
        def batches(self, batch_size):
            yield self.images[:6]

    with pytest.raises(ValueError, match=r"X.batches gave 6 images, but X has 11"):
        PatchEmbedder(module=Tiny(), batch_size=4).transform(Short(images))


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (np.zeros((2, 64, 64, 3)), TypeError, "must be uint8"),
        (np.zeros((2, 3, 64, 64), np.uint8), ValueError, "Channels come last"),
        (np.zeros((2, 1280), np.uint8), ValueError, r"\(n, height, width, 3\); got \(2, 1280\)"),
        (np.zeros((2, 16, 64, 3), np.uint8), ValueError, "at least 32 x 32"),
        (np.zeros((0, 64, 64, 3), np.uint8), ValueError, "no image"),
        (7, TypeError, "got int"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "transform"])
def test_what_is_not_a_set_of_images(X, error, message, method):
    with pytest.raises(error, match=message):
        getattr(PatchEmbedder(weights=None), method)(X)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"precision": "half"}, "precision"),
        ({"module": "resnet50"}, "module"),
        ({"weights": 3}, "weights"),
        ({"memory": 3}, "memory"),
        ({"std": (0, 1, 1)}, "std above 0"),
    ],
)
def test_bad_settings(images, settings, message):
    with pytest.raises(ValueError, match=message):
        PatchEmbedder(**{"weights": None, **settings}).transform(images)


def test_features_that_are_not_numbers(images):
    module = Tiny()
    module.norm.running_var.fill_(-1)
    with pytest.raises(FloatingPointError, match=r"images 0 to 3 .*Check the weights"):
        PatchEmbedder(module=module, batch_size=4).transform(images)


# Memory


@pytest.mark.slow
def test_an_image_is_computed_once(images, computed, tmp_path):
    embedder = PatchEmbedder(module=Tiny(), memory=tmp_path, batch_size=4)
    expected = PatchEmbedder(module=Tiny()).transform(images)
    computed.clear()
    assert_equal_features(embedder.transform(images), expected, tolerance=1e-6)
    assert sum(computed) == 11

    computed.clear()
    order = np.random.default_rng(1).permutation(11)
    again = clone(embedder).set_params(batch_size=3, verbose=False, memory=str(tmp_path))
    assert_array_equal(again.transform(Lazy(images[order])), embedder.transform(images)[order])
    assert computed == []

    changed = images.copy()
    changed[6, 0, 0, 0] ^= 1
    features = embedder.transform(changed)
    assert computed == [1]
    assert_equal_features(features, PatchEmbedder(module=Tiny()).transform(changed), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"module": Tiny(seed=1)}, {"mean": (0, 0, 0)}, {"module": nn.Flatten()}]
)
def test_other_settings_are_computed_anew(images, computed, tmp_path, change):
    PatchEmbedder(module=Tiny(), memory=tmp_path).transform(images)
    computed.clear()
    settings = {"module": Tiny(), **change}
    features = PatchEmbedder(**settings, memory=tmp_path).transform(images)
    assert sum(computed) == 11
    assert_array_equal(features, PatchEmbedder(**settings).transform(images))


@pytest.mark.slow
def test_images_of_equal_bytes_and_another_shape(computed, tmp_path):
    embedder = PatchEmbedder(module=Tiny(), memory=tmp_path)
    wide = np.arange(2 * 32 * 64 * 3, dtype=np.uint8).reshape(2, 32, 64, 3)
    high = wide.reshape(2, 64, 32, 3)
    embedder.transform(wide)
    assert_array_equal(embedder.transform(high), PatchEmbedder(module=Tiny()).transform(high))


def test_a_memory_of_joblib(images, computed, tmp_path):
    memory = joblib.Memory(tmp_path, verbose=0)
    first = PatchEmbedder(module=Tiny(), memory=memory).transform(images)
    computed.clear()
    assert_array_equal(PatchEmbedder(module=Tiny(), memory=memory).transform(images), first)
    assert computed == []
    memory.clear(warn=False)
    PatchEmbedder(module=Tiny(), memory=memory).transform(images)
    assert sum(computed) == 11


# Fingerprint


@pytest.mark.slow
def test_fingerprint_is_of_content(tmp_path):
    torch.save(load_mobilenet_v2(None).state_dict(), tmp_path / "weights.pth")
    here = PatchEmbedder(weights=None).fingerprint()
    assert PatchEmbedder(weights=tmp_path / "weights.pth", batch_size=3).fingerprint() == here
    assert PatchEmbedder(weights=None, memory=tmp_path, verbose=True).fingerprint() == here
    torch.save(load_mobilenet_v2(None, seed=1).state_dict(), tmp_path / "other.pth")
    assert PatchEmbedder(weights=tmp_path / "other.pth").fingerprint() != here


def test_fingerprint_covers_all_that_makes_the_features():
    class Scaled(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.register_buffer("scale", torch.tensor(scale), persistent=False)

        def forward(self, x):
            return self.scale * x.mean(dim=(2, 3))

    embedders = [
        PatchEmbedder(module=Tiny()),
        PatchEmbedder(module=Tiny(seed=1)),
        PatchEmbedder(module=Tiny(), mean=(0, 0, 0)),
        PatchEmbedder(module=Tiny(), std=(1, 1, 1)),
        PatchEmbedder(module=Scaled(1.0)),
        PatchEmbedder(module=Scaled(2.0)),
        PatchEmbedder(module=nn.Sequential(nn.AvgPool2d(2), nn.Flatten())),
        PatchEmbedder(module=nn.Sequential(nn.AvgPool2d(4), nn.Flatten())),
    ]
    assert len({embedder.fingerprint() for embedder in embedders}) == len(embedders)


class Powered(nn.Module):
    """Weights and text say nothing of the power, which is what its features depend on."""

    def __init__(self, power=1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.power = power

    def forward(self, x):
        return self.weight * (x**2).mean(dim=(2, 3)) ** self.power


def other_forward():
    """A class of the same name, weights and text, with another forward."""

    class Powered(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return self.weight * x.amax(dim=(2, 3))

    Powered.__qualname__ = "Powered"
    return Powered()


@pytest.mark.slow
@pytest.mark.parametrize("other", [Powered(2.0), Powered(1.003), other_forward()])
def test_equal_weights_and_another_computation(images, tmp_path, other, fresh):
    given = PatchEmbedder(module=Powered(), memory=tmp_path)
    given.transform(images)
    embedder = PatchEmbedder(module=other, memory=tmp_path)
    assert embedder.fingerprint() != given.fingerprint()
    for tried in (embedder, PatchEmbedder(module=other)):
        assert_equal_features(tried.transform(images), in_plain_torch(other, images), 1e-5)


class Raised(nn.Module):
    """Pixels below the least are raised to it; what it is stands in an attribute alone."""

    def __init__(self, least):
        super().__init__()
        self.least = least

    def forward(self, x):
        return x.clamp(min=self.least).mean(dim=(2, 3))


@pytest.mark.slow
def test_modules_that_look_alike_on_white_glass(images, fresh):
    """What tells two modules apart need not show in the first image."""
    modules = [Raised(-1.0), Raised(-3.0)]
    expected = [in_plain_torch(module, images) for module in modules]
    assert not np.allclose(*expected)
    for module, features in zip(modules, expected, strict=True):
        embedder = PatchEmbedder(module=module)
        embedder.transform(np.full_like(images[:1], 255))
        assert_equal_features(embedder.transform(images), features, 1e-5)


@pytest.mark.slow
def test_a_new_module_at_the_place_of_the_old_one(images, fresh):
    """Memory of a module that is gone is often used again, and with it the id."""
    embedder = PatchEmbedder(module=Powered(1.0))
    for power in np.linspace(1, 3, 10):
        embedder.set_params(module=None)
        embedder.set_params(module=Powered(power))
        expected = in_plain_torch(embedder.module, images[:2])
        assert_equal_features(embedder.transform(images[:2]), expected, 1e-5)


class Shaken(nn.Module):
    """Rounding errors as of another machine: other ones in every call."""

    def forward(self, x):
        features = (x**3).mean(dim=2).flatten(1)
        return features * (1 + 1e-12 * torch.randn_like(features))


@pytest.mark.slow
def test_rounding_errors_do_not_change_the_fingerprint():
    torch.manual_seed(0)
    assert len({PatchEmbedder(module=Shaken()).fingerprint() for _ in range(30)}) == 1
    n_threads = torch.get_num_threads()
    one = PatchEmbedder(weights=None).fingerprint()
    try:
        torch.set_num_threads(n_threads + 1)
        assert PatchEmbedder(weights=None).fingerprint() == one
    finally:
        torch.set_num_threads(n_threads)


FINGERPRINT = """
import torch
from torch import nn
from proportion_ssl import PatchEmbedder
torch.manual_seed(0)
module = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.GELU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
print(PatchEmbedder(module=module).fingerprint(), end="")
"""


@pytest.mark.slow
def test_fingerprint_in_another_process(capsys):
    exec(FINGERPRINT, {})
    command = [sys.executable, "-c", FINGERPRINT]
    other = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert len(other) == 64 and other == capsys.readouterr().out


class SinglePrecision(nn.Module):
    def forward(self, x):
        return torch.matmul(x.mean(dim=(2, 3)), torch.eye(3, dtype=torch.float32))


@pytest.mark.slow
def test_networks_that_take_one_size_or_type(images):
    small = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 5))
    assert len(PatchEmbedder(module=small).fingerprint()) == 64
    assert len(PatchEmbedder(module=SinglePrecision()).fingerprint()) == 64
    odd = nn.Sequential(nn.Flatten(), nn.Linear(3 * 40 * 36, 5))
    embedder = PatchEmbedder(module=odd)
    assert_equal_features(embedder.transform(images), in_plain_torch(odd, images))
    with pytest.raises(ValueError, match="no features of images of 224 x 224 pixels"):
        embedder.fingerprint()


def test_a_module_that_fails_is_named():
    class Failing(nn.Module):
        def forward(self, x):
            raise RuntimeError("weights of block 7 are missing")

    with pytest.raises(ValueError, match="block 7"):
        PatchEmbedder(module=Failing()).fingerprint()


# A scikit-learn transformer


def test_clone_copy_and_files(images, tmp_path):
    embedder = PatchEmbedder(module=Tiny(), batch_size=4)
    expected = embedder.fit_transform(images)
    joblib.dump(embedder, tmp_path / "embedder.joblib")
    for other in [
        clone(embedder),
        copy.deepcopy(embedder),
        pickle.loads(pickle.dumps(embedder)),
        joblib.load(tmp_path / "embedder.joblib"),
    ]:
        assert other.get_params().keys() == embedder.get_params().keys()
        assert_array_equal(other.transform(images), expected)


@pytest.mark.slow
def test_a_pickle_does_not_hold_the_network_of_a_file(images):
    embedder = PatchEmbedder(weights=None).fit(images)
    assert len(pickle.dumps(embedder)) < 2000


@pytest.mark.slow
def test_settings_can_change_after_fit(images):
    embedder = PatchEmbedder(module=Tiny()).fit(images)
    embedder.set_params(module=Tiny(seed=1))
    assert_equal_features(embedder.transform(images), in_plain_torch(Tiny(seed=1), images))
    embedder.set_params(module=None, weights=None)
    assert embedder.transform(images[:1]).shape == (1, 1280)


@pytest.mark.slow
def test_names_of_features(images):
    embedder = PatchEmbedder(module=Tiny()).fit(images)
    assert embedder.n_features_out_ == 5
    assert list(embedder.get_feature_names_out()) == [f"patchembedder{i}" for i in range(5)]
    frame = PatchEmbedder(module=Tiny()).set_output(transform="pandas").fit_transform(images)
    assert frame.shape == (11, 5)
    assert frame.columns[0] == "patchembedder0"


@pytest.mark.slow
def test_in_a_grid_search(images, computed, tmp_path):
    y = np.arange(11) % 2
    pipe = make_pipeline(
        PatchEmbedder(module=Tiny(), memory=tmp_path, batch_size=4), LogisticRegression()
    )
    grid = {"patchembedder__batch_size": [2, 8], "logisticregression__C": [0.1, 1.0]}
    search = GridSearchCV(pipe, grid, cv=3).fit(images, y)
    assert search.predict(images).shape == (11,)
    # One pass over the pixels, whatever the folds; `fit` computes one image to learn the width.
    fits = 3 * 4 + 1
    assert sum(computed) == 11 + fits


def test_progress_is_shown_if_asked(images, capsys):
    PatchEmbedder(module=Tiny()).transform(images)
    assert capsys.readouterr().err == ""
    PatchEmbedder(module=Tiny(), verbose=True).transform(images)
    assert "11/11" in capsys.readouterr().err


@pytest.mark.slow
def test_several_threads_at_once(images, fresh):
    embedder = PatchEmbedder(module=Tiny(), batch_size=2)
    orders = [np.random.default_rng(seed).permutation(11) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda order: embedder.transform(images[order]), orders))
    expected = embedder.transform(images)
    for order, result in zip(orders, results, strict=True):
        assert_array_equal(result, expected[order])


@pytest.mark.slow
@pytest.mark.slow
def test_in_worker_processes(images):
    embedder = PatchEmbedder(module=nn.Flatten())

    def work(part):
        return embedder.transform(part), embedder.fingerprint(), os.getpid()

    results = joblib.Parallel(n_jobs=2)(
        joblib.delayed(work)(part) for part in np.array_split(images, 2)
    )
    features, fingerprints, processes = zip(*results, strict=True)
    assert_allclose(np.concatenate(features), embedder.transform(images), rtol=0, atol=1e-6)
    assert set(fingerprints) == {embedder.fingerprint()}
    assert os.getpid() not in processes


@pytest.mark.slow
def test_engines_are_shared_by_equal_embedders_and_few(images, monkeypatch, fresh):
    compiled = []

    def noting(module, example, **settings):
        compiled.append(example.shape)
        return compile_features(module, example, **settings)

    monkeypatch.setattr(embedding, "compile_features", noting)
    for _ in range(3):
        PatchEmbedder(module=Tiny()).fit_transform(images)
    assert len(compiled) == 1
    for size in (10, 12, 14, 16):
        PatchEmbedder(module=Tiny()).transform(images[:, :size, :size])
    assert len(compiled) == 5
    assert len(embedding._engines) <= 2


# The engine


@pytest.fixture
def batch():
    return np.random.default_rng(1).normal(size=(9, 3, 20, 20)).astype(np.float32)


def as_given(module, batch):
    with torch.no_grad():
        return copy.deepcopy(module).eval()(torch.from_numpy(batch)).numpy()


@needs_openvino
def test_openvino_is_used_where_it_is(batch, caplog, fresh):
    run = compile_features(Tiny(), batch)
    assert isinstance(run, OpenVINOFeatures)
    assert [r for r in caplog.records if r.levelno >= logging.INFO] == []
    assert_equal_features(run(batch), as_given(Tiny(), batch), 1e-5)


@pytest.mark.slow
@needs_openvino
def test_openvino_uses_the_threads_of_torch(batch):
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            assert len(compile_features(Tiny(), batch).queue) == n_threads
    finally:
        torch.set_num_threads(before)


def test_rows_do_not_depend_on_the_batch(batch):
    run = compile_features(Tiny(), batch)
    whole = run(batch)
    parts = run.map([batch[:1], batch[1:2], batch[2:8], batch[8:]])
    assert_array_equal(np.concatenate(list(parts)), whole)


def test_a_walk_over_batches_can_stop_early(batch):
    run = compile_features(Tiny(), batch)
    walk = run.map([batch[:4], batch[4:], batch])
    first = next(walk)
    walk.close()
    assert_array_equal(run(batch)[:4], first)


def test_without_openvino_plain_torch_and_one_log_line(batch, monkeypatch, caplog, fresh):
    monkeypatch.setitem(sys.modules, "openvino", None)  # importing it raises ImportError
    for _ in range(2):
        run = compile_features(Tiny(), batch)
    assert isinstance(run, inference._TorchFeatures)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in run.module.modules())
    assert_equal_features(run(batch), as_given(Tiny(), batch), 1e-5)
    batch.flags.writeable = False
    assert_array_equal(np.concatenate(list(run.map([batch[:8], batch[8:]]))), run(batch.copy()))
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert "pip install proportion_ssl[fast]" in caplog.text


def test_a_module_that_does_not_export(batch, caplog, fresh):
    run = compile_features(Moody(), batch)
    assert isinstance(run, inference._TorchFeatures)
    for part in (np.abs(batch), -np.abs(batch)):  # both of its moods
        assert_equal_features(run(part), as_given(Moody(), part), 1e-6)
    if WITH_OPENVINO:
        assert "Moody cannot be exported to OpenVINO" in caplog.text


def test_an_engine_that_computes_something_else_is_not_used(batch, monkeypatch, caplog, fresh):
    class Wrong:
        def __call__(self, batch):
            return as_given(Tiny(), batch) * (1 + 5e-4)

    monkeypatch.setattr(inference, "_compile_openvino", lambda module, example: Wrong())
    run = compile_features(Tiny(), batch)
    assert "features differ" in caplog.text
    assert_equal_features(run(batch), as_given(Tiny(), batch), 1e-5)


def test_folding_that_computes_something_else_is_not_used(batch, monkeypatch, fresh):
    def refuse(module, example):
        raise inference._NotCompiledError("not today")

    monkeypatch.setattr(inference, "_compile_openvino", refuse)
    monkeypatch.setattr(
        "torch.fx.experimental.optimization.fuse", lambda module: Tiny(seed=3).eval()
    )
    run = compile_features(Tiny(), batch)
    assert_equal_features(run(batch), as_given(Tiny(), batch), 1e-6)


class Pair(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3)), x


@pytest.mark.parametrize(
    ("module", "came"),
    [(nn.Identity(), r"a tensor of shape \(4, 3, 20, 20\)"), (Pair(), "a tuple")],
)
def test_a_module_without_one_vector_per_image(batch, module, came):
    with pytest.raises(ValueError, match=rf"one feature vector per image.*returned {came}"):
        compile_features(module, batch)


def test_a_gpu_gets_half_precision_and_the_same_numbers(batch, monkeypatch):
    """The path of the GPU on the CPU: autocast, and a result in float32 that is close."""
    run = inference._TorchFeatures(Tiny().eval(), device="cpu", half=True)
    features = run(batch)
    assert_equal_features(features, as_given(Tiny(), batch), 5e-3)
    assert np.abs(features - as_given(Tiny(), batch)).max() > 1e-6


def test_precision_is_part_of_the_fingerprint_on_a_gpu(monkeypatch):
    on_cpu = PatchEmbedder(module=Tiny()).fingerprint()
    assert PatchEmbedder(module=Tiny(), precision="float32").fingerprint() == on_cpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert PatchEmbedder(module=Tiny()).fingerprint() != on_cpu
    assert PatchEmbedder(module=Tiny(), precision="float32").fingerprint() == on_cpu


@pytest.mark.slow
@pytest.mark.slow
@needs_openvino
def test_nobody_is_told(tmp_path):
    """OpenVINO's telemetry would leave its files in the home directory."""
    code = (
        "import numpy as np, torch, sys\n"
        "from proportion_ssl.embedding._compile import compile_features\n"
        "run = compile_features(torch.nn.Linear(3, 2), np.zeros((1, 3), np.float32))\n"
        "assert 'openvino' in sys.modules and 'openvino_telemetry' not in sys.modules\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []
