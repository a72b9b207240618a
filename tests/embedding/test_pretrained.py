"""Encoders with their own preprocessing; stand-ins for timm and Hugging Face."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cohorts import write_one
from PIL import Image
from torch import nn

from proportion_ssl.embedding import pretrained_embedder
from proportion_ssl.slides import embed_slides, read_features

CFG = {
    "architecture": "tiny",
    "input_size": (3, 48, 48),
    "interpolation": "bicubic",
    "mean": (0.7, 0.5, 0.6),
    "std": (0.2, 0.3, 0.25),
}


def encoder(**changes):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    model.pretrained_cfg = {**CFG, **changes}
    return model


@pytest.fixture
def images():
    smooth = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    sized = [Image.fromarray(image).resize((96, 96), Image.Resampling.BICUBIC) for image in smooth]
    return np.stack([np.asarray(image) for image in sized])


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_as_the_encoders_own_steps(images, interpolation):
    """Resized by Pillow, scaled, normalized: what timm's transform does."""
    model = encoder(interpolation=interpolation)
    found = pretrained_embedder(model)
    assert (found.name, found.size, found.magnification) == ("tiny", 48, None)
    kind = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    small = np.stack(
        [np.asarray(Image.fromarray(image).resize((48, 48), kind)) for image in images]
    )
    normal = (small / 255 - CFG["mean"]) / CFG["std"]
    with torch.no_grad():
        expected = model(torch.from_numpy(normal).permute(0, 3, 1, 2).float()).numpy()
    np.testing.assert_allclose(found.embedder.transform(images), expected, atol=0.02)


def test_images_of_the_right_size_are_not_resized(images):
    model = encoder()
    same = images[:, :48, :48]
    normal = (same / 255 - CFG["mean"]) / CFG["std"]
    with torch.no_grad():
        expected = model(torch.from_numpy(normal).permute(0, 3, 1, 2).float()).numpy()
    found = pretrained_embedder(model).embedder.transform(same)
    np.testing.assert_allclose(found, expected, atol=1e-4)


class Output(nn.Module):
    """As models of Hugging Face return."""

    def __init__(self, pooled):
        super().__init__()
        self.pooled = pooled
        self.config = SimpleNamespace(name_or_path="owner/encoder", mpp=0.5)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return SimpleNamespace(
            last_hidden_state=tokens, pooler_output=tokens.mean(dim=1) if self.pooled else None
        )


@pytest.mark.parametrize("pooled", [False, True])
def test_hugging_face(images, pooled):
    processor = SimpleNamespace(
        size={"shortest_edge": 64},
        crop_size={"height": 48, "width": 48},
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1.0, 1.0, 1.0],
        resample=3,
    )
    found = pretrained_embedder(Output(pooled), processor)
    assert (found.name, found.size, found.magnification) == ("owner/encoder", 48, 20.0)
    same = images[:, :48, :48]
    expected = same.mean(axis=(1, 2)) if pooled else same[:, 0, 0]
    np.testing.assert_allclose(found.embedder.transform(same), expected / 255, atol=1e-4)


def test_settings_are_a_part_of_the_fingerprint():
    settings = [
        {},
        {"mean": (0.5, 0.5, 0.5)},
        {"input_size": (3, 64, 64)},
        {"interpolation": "bilinear"},
    ]
    prints = {pretrained_embedder(encoder(**one)).embedder.fingerprint() for one in settings}
    assert len(prints) == 4
    assert pretrained_embedder(encoder()).embedder.fingerprint() in prints


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"interpolation": "lanczos"}, "requires the interpolation 'lanczos'"),
        ({"input_size": (3, 48, 64)}, "takes images of 48 x 64 pixels"),
        ({"architecture": None}, "give name="),
    ],
)
def test_what_cannot_be_done(changes, message):
    with pytest.raises(ValueError, match=message):
        pretrained_embedder(encoder(**changes))


def test_the_name_stands_in_the_file(tmp_path):
    write_one(tmp_path / "a.tif", 0.5, 0)
    found = pretrained_embedder(encoder(magnification="20x"), name="tiny-h")
    assert found.magnification == 20
    run = embed_slides(
        [tmp_path / "a.tif"], found.embedder, tmp_path / "features", magnification=2.5, size=48
    )
    assert read_features(run.results["a"]).encoder == "tiny-h"
