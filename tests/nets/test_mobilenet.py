"""MobileNetV2: where its weights come from, what is frozen, what it takes."""

import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2
from torchvision.transforms.functional import normalize

from proportion_ssl.embedding._images import check_images
from proportion_ssl.embedding.mobilenet import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PixelNormalization,
    WeightsNotAvailableError,
    load_mobilenet_v2,
)
from proportion_ssl.nets.head import LinearHead
from proportion_ssl.nets.mobilenet_module import MobileNetV2Module


def same_state(one, other, prefix=""):
    one, other = one.state_dict(), other.state_dict()
    return all(torch.equal(one[key], other[key]) for key in one if key.startswith(prefix))


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, 64, 48, 3), dtype=torch.uint8)


@pytest.fixture
def saved(tmp_path):
    """File with a state dict whose values no default seed makes."""
    path = tmp_path / "mobilenet.pth"
    torch.save(load_mobilenet_v2(None, seed=5).state_dict(), path)
    return path


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache and no way out; returns the folder of the cache."""

    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


# Weights


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = load_mobilenet_v2(None, seed=3)
    torch.manual_seed(2)
    assert same_state(one, load_mobilenet_v2(None, seed=3))
    assert not same_state(one, load_mobilenet_v2(None, seed=4))


def test_random_weights_are_those_of_torchvision():
    torch.manual_seed(3)
    assert same_state(mobilenet_v2(), load_mobilenet_v2(None, seed=3))


@pytest.mark.parametrize("from_file", [False, True])
def test_the_global_generator_is_untouched(saved, from_file):
    before = torch.get_rng_state()
    load_mobilenet_v2(saved if from_file else None)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_file_is_loaded(saved, kind):
    network = load_mobilenet_v2(kind(saved))
    assert same_state(network, load_mobilenet_v2(None, seed=5))
    assert isinstance(network, torchvision.models.MobileNetV2)
    assert not network.training


@pytest.mark.slow
def test_a_file_without_classification_layer(tmp_path):
    network = load_mobilenet_v2(None, seed=5)
    state = {k: v for k, v in network.state_dict().items() if k.startswith("features.")}
    torch.save(state, tmp_path / "features.pth")
    loaded = load_mobilenet_v2(tmp_path / "features.pth")
    assert same_state(loaded, network, "features.")
    assert loaded(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)


def test_a_file_with_another_number_of_classes(tmp_path):
    network = mobilenet_v2(num_classes=4)
    torch.save(network.state_dict(), tmp_path / "four.pth")
    assert same_state(load_mobilenet_v2(tmp_path / "four.pth"), network)


def test_a_file_without_batch_counts(tmp_path):
    network = load_mobilenet_v2(None, seed=5)
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "no_counts.pth")
    assert same_state(load_mobilenet_v2(tmp_path / "no_counts.pth"), network)


def save_resnet(path):
    torch.save(nn.Sequential(nn.Conv2d(3, 8, 3)).state_dict(), path)


def save_wrapped(path):
    torch.save({"epoch": 3, "state_dict": mobilenet_v2().state_dict()}, path)


def save_narrow(path):
    torch.save(mobilenet_v2(width_mult=0.5).state_dict(), path)


def save_half_a_head(path):
    state = mobilenet_v2().state_dict()
    del state["classifier.1.bias"]
    torch.save(state, path)


def save_numbers(path):
    torch.save(dict.fromkeys(mobilenet_v2().state_dict(), 1.0), path)


def save_tensor(path):
    torch.save(torch.zeros(3), path)


def save_module(path):
    torch.save(nn.Linear(2, 2), path)


def save_text(path):
    path.write_text("<html>404: Not Found</html>")


def save_nothing(path):
    path.write_bytes(b"")


def save_cut(path):
    torch.save(mobilenet_v2().state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (save_resnet, r"260 missing \(features.0.0.weight, .*2 unexpected \(0.weight, 0.bias\)"),
        (save_wrapped, r"missing .*2 unexpected \(epoch, state_dict\)"),
        (save_narrow, r"of another shape \(features.0.0.weight \(16, 3, 3, 3\) instead of \(32,"),
        (save_half_a_head, r"1 missing \(classifier.1.bias\)\.$"),
        (save_numbers, "of another shape"),
        (save_tensor, "holds a Tensor, not a state dict"),
        (save_module, "cannot be read as a torch state dict"),
        (save_text, "cannot be read as a torch state dict"),
        (save_nothing, "cannot be read as a torch state dict"),
        (save_cut, "cannot be read as a torch state dict"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path, save, message):
    path = tmp_path / "wrong.pth"
    save(path)
    with pytest.raises(ValueError, match=message) as caught:
        load_mobilenet_v2(path)
    assert str(path) in str(caught.value)


def test_a_file_cannot_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"features.0.0.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match="cannot be read"):
        load_mobilenet_v2(tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("imagnet", ValueError, "'imagenet', None or the path.*got 'imagnet'"),
        ("IMAGENET1K_V1", ValueError, "got 'IMAGENET1K_V1'"),
        ("missing.pth", FileNotFoundError, "file not found: 'missing.pth'"),
        ("no/such/file", FileNotFoundError, "file not found: 'no/such/file'"),
        (".", ValueError, "is a folder"),
        (3, TypeError, "of type int"),
        (nn.Identity(), TypeError, "give it as a module"),
    ],
)
def test_weights_that_are_nothing(weights, error, message):
    with pytest.raises(error, match=message):
        load_mobilenet_v2(weights)


def test_imagenet_without_network_says_how_to_give_a_file(no_network):
    with pytest.raises(WeightsNotAvailableError, match=r"no route to host.*weights='path/to/mobil"):
        load_mobilenet_v2("imagenet")


def test_imagenet_is_taken_from_the_cache_of_torch(no_network, saved):
    no_network.mkdir(parents=True)
    name = MobileNet_V2_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    (no_network / name).write_bytes(saved.read_bytes())
    assert same_state(load_mobilenet_v2("imagenet"), load_mobilenet_v2(None, seed=5))


def test_a_download_with_a_wrong_hash_is_refused(no_network, monkeypatch):
    def download(*args, **kwargs):
        raise RuntimeError('invalid hash value (expected "b0353104", got "0")')

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(WeightsNotAvailableError, match="invalid hash value"):
        load_mobilenet_v2("imagenet")


# Pixels


def test_normalization_is_that_of_torchvision(images):
    expected = normalize(images.permute(0, 3, 1, 2).float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(PixelNormalization()(images), expected, rtol=0, atol=2e-6)


def test_constants_are_those_of_torchvision():
    transforms = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    assert tuple(transforms.mean) == IMAGENET_MEAN
    assert tuple(transforms.std) == IMAGENET_STD


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0, 0), (1, 1, 1)), ((0, 0, 0), (1, 0, 1)), (0.5, 0.5), ((0, 0, 0), (1, 1, np.nan))],
)
def test_bad_constants(mean, std):
    with pytest.raises(ValueError, match="three numbers each"):
        PixelNormalization(mean, std)


@pytest.mark.parametrize("as_array", [False, True])
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(2, 64, 64, 3), TypeError, "must be uint8.*got (torch.)?float32"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), ValueError, "Channels come last"),
        (torch.zeros(2, 64, 64, 4, dtype=torch.uint8), ValueError, "alpha"),
        (torch.zeros(2, 64, 64, 1, dtype=torch.uint8), ValueError, r"got \(2, 64, 64, 1\)"),
        (torch.zeros(64, 64, 3, dtype=torch.uint8), ValueError, r"images\[None\]"),
        (torch.zeros(2, 1280, dtype=torch.uint8), ValueError, r"got \(2, 1280\)"),
        (torch.zeros(2, 31, 64, 3, dtype=torch.uint8), ValueError, "at least 32 x 32.*31 x 64"),
    ],
)
def test_images_of_the_wrong_kind(images, error, message, as_array):
    with pytest.raises(error, match=message):
        check_images(images.numpy() if as_array else images)


# The network with its head


def test_features_are_those_of_torchvision_before_its_classifier(images):
    network = load_mobilenet_v2(None)
    network.classifier = nn.Identity()
    expected = network(PixelNormalization()(images)).detach()
    features = MobileNetV2Module(2).embed(images)
    assert features.shape == (3, 1280)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5 * float(expected.max()))


@pytest.mark.parametrize("weights", [None, "file"])
def test_the_head_starts_as_a_bare_one(weights, saved):
    torch.manual_seed(7)
    head = LinearHead(1280, 5, dropout=0.1)
    torch.manual_seed(7)
    module = MobileNetV2Module(5, weights=saved if weights else None, dropout=0.1)
    assert same_state(module.head, head)
    assert module.head.dropout.p == 0.1


def test_images_and_their_features_give_the_same_logits(images):
    module = MobileNetV2Module(5).eval()
    torch.testing.assert_close(module(images), module(module.embed(images)), rtol=0, atol=0)


def test_the_seed_sets_the_backbone():
    assert same_state(MobileNetV2Module(2, seed=3).backbone, MobileNetV2Module(3, seed=3).backbone)
    assert not same_state(MobileNetV2Module(2).backbone, MobileNetV2Module(2, seed=3).backbone)


@pytest.mark.parametrize("shape", [(32, 32), (33, 47), (224, 224)])
def test_any_size_from_32_pixels_on(shape):
    module = MobileNetV2Module(2)
    assert module(torch.zeros(1, *shape, 3, dtype=torch.uint8)).shape == (1, 2)


def step(module, images):
    """One step of training; True for every part whose parameters or buffers changed."""
    before = {key: value.clone() for key, value in module.state_dict().items()}
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    module.train()
    module(images)[:, 0].sum().backward()
    optimizer.step()
    changed = {key for key, value in module.state_dict().items() if not value.equal(before[key])}
    return {
        "convolutions": any(k.startswith("backbone.features.0.0.weight") for k in changed),
        "statistics": any("running_" in k for k in changed),
        "head": any(k.startswith("head.linear") for k in changed),
    }


def test_frozen_layers_stay_as_they_are(images):
    module = MobileNetV2Module(2)
    assert step(module, images) == {"convolutions": False, "statistics": False, "head": True}
    assert not any(p.requires_grad for p in module.backbone.parameters())
    assert not any(m.training for m in module.modules() if isinstance(m, nn.BatchNorm2d))
    assert module.head.training
    assert not module.embed(images).requires_grad


def test_everything_trains_without_freeze(images):
    module = MobileNetV2Module(2, freeze=False)
    assert step(module, images) == {"convolutions": True, "statistics": True, "head": True}


def test_pretrained_layers_keep_their_statistics(images, saved):
    module = MobileNetV2Module(2, weights=saved, freeze=False)
    with torch.no_grad():  # random layers shrink the signal until no gradient comes back
        for layer in module.backbone.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_var.fill_(0.01)
    assert step(module, images) == {"convolutions": True, "statistics": False, "head": True}
    assert all(p.requires_grad for p in module.parameters())


def test_evaluation_mode_switches_everything():
    module = MobileNetV2Module(2, freeze=False).eval()
    assert not any(part.training for part in module.modules())


def test_features_of_another_width():
    with pytest.raises(ValueError, match="1280 columns, got 64"):
        MobileNetV2Module(2)(torch.zeros(4, 64))


def test_float_images_are_refused(images):
    with pytest.raises(TypeError, match="must be uint8"):
        MobileNetV2Module(2)(images.float())
