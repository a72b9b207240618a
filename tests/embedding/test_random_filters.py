"""Random filters: constants of the seed, blind to what they should be blind to, of use on textures."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.ndimage import convolve
from torch.testing import assert_close

from proportion_ssl import HeadClassifier, PatchEmbedder
from proportion_ssl.embedding import RandomFilterFeatures


def test_same_seed_same_filters_and_torch_is_left_alone():
    state = torch.get_rng_state()
    one, same, other = RandomFilterFeatures(), RandomFilterFeatures(), RandomFilterFeatures(seed=1)
    assert_close(one.first, same.first, rtol=0, atol=0)
    assert not torch.equal(one.first, other.first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not list(one.parameters())


def test_filters_have_norm_one_and_mean_zero():
    network = RandomFilterFeatures(n_filters=(5, 7))
    for filters, n in ((network.first, 5), (network.second, 7)):
        assert len(filters) == n
        assert_allclose(filters.flatten(1).norm(dim=1), 1, rtol=1e-5)
        assert_allclose(filters.mean(dim=(1, 2, 3)), 0, atol=1e-6)


def test_a_plain_image_has_its_color_and_no_texture():
    features = RandomFilterFeatures()(torch.full((1, 3, 96, 96), 0.7))[0]
    assert_allclose(features[:3], 0.7, rtol=1e-5)
    assert_allclose(features[3:], 0, atol=1e-5)


def test_first_answers_are_rectified_convolutions():
    """Against scipy, filter by filter."""
    network = RandomFilterFeatures(n_scales=1, n_filters=(4, 2))
    image = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
    features = network(torch.from_numpy(image[None]))[0].numpy()
    halved = image.reshape(3, 16, 2, 16, 2).mean(axis=(2, 4))
    for i, kernel in enumerate(network.first.numpy()):
        planes = [
            convolve(plane, k[::-1, ::-1])[2:-2, 2:-2]
            for plane, k in zip(halved, kernel, strict=True)
        ]
        answer = np.maximum(np.sum(planes, axis=0), 0)
        assert_allclose(features[6 + i], answer.mean(), rtol=1e-4)
        assert_allclose(features[10 + i], answer.std(ddof=1), rtol=1e-4)


@pytest.mark.slow
def test_tells_textures_apart_through_the_embedder():
    """Coarse and fine grain of equal mean and spread of the colors."""
    rng = np.random.default_rng(0)
    fine = rng.integers(0, 2, (24, 96, 96, 1))
    coarse = rng.integers(0, 2, (24, 24, 24, 1)).repeat(4, axis=1).repeat(4, axis=2)
    images = (np.concatenate([fine, coarse]) * 255).astype(np.uint8).repeat(3, axis=3)
    labels = np.repeat(["fine", "coarse"], 24)
    features = PatchEmbedder(module=RandomFilterFeatures()).transform(images)
    net = HeadClassifier(random_state=0, max_epochs=20).fit(features[::2], labels[::2])
    assert (net.predict(features[1::2]) == labels[1::2]).all()


def test_too_small_an_image_is_an_error():
    with pytest.raises(
        ValueError, match=r"32 x 64 pixels are too small for 3 scales, which need at least 96"
    ):
        RandomFilterFeatures()(torch.zeros(1, 3, 32, 64))
