"""Dropout whose mask is cheap."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from proportion_ssl.nets.head import FastDropout, LinearHead


@pytest.mark.parametrize("p", [0.001, 0.2, 0.5, 0.97])
def test_share_of_zeros_and_size_of_the_rest(p):
    X = torch.ones(1000, 401)
    dropped = FastDropout(p)(X)
    n = X.numel()
    assert abs((dropped == 0).sum().item() - p * n) < 5 * np.sqrt(n * p * (1 - p))
    kept = dropped[dropped != 0]
    assert len(kept.unique()) == 1
    assert kept[0].item() == pytest.approx(1 / (1 - p), rel=1e-3)


def test_values_are_dropped_independently():
    """Also those whose coins come from one random number."""
    zero = (FastDropout(0.3)(torch.ones(4000, 12)) == 0).double()
    correlation = torch.corrcoef(zero.T) - torch.eye(12)
    assert correlation.abs().max() < 5 / np.sqrt(4000)
    columns = zero.mean(dim=0)
    assert (columns - 0.3).abs().max() < 5 * np.sqrt(0.3 * 0.7 / 4000)


@pytest.mark.parametrize("shape", [(0, 3), (1,), (3, 1), (5, 7), (2, 3, 5)])
def test_any_shape(shape):
    X = torch.ones(shape)
    assert FastDropout(0.5)(X).shape == X.shape


def test_limits_and_evaluation():
    X = torch.randn(50, 8)
    assert_array_equal(FastDropout(0.0)(X), X)
    assert_array_equal(FastDropout(1e-9)(X).round(decimals=3), X.round(decimals=3))
    assert (FastDropout(1.0)(X) == 0).all()
    assert_array_equal(FastDropout(0.7).eval()(X), X)


def test_gradient_is_the_mask():
    X = torch.randn(20, 6, requires_grad=True)
    dropped = FastDropout(0.4)(X)
    dropped.sum().backward()
    torch.testing.assert_close(X.grad * X.detach(), dropped.detach())


def test_the_mask_comes_from_torchs_generator():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(FastDropout(0.5)(torch.ones(40, 5)))
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


def test_in_place_gives_the_same_numbers():
    X = torch.randn(30, 7)
    torch.manual_seed(0)
    expected = FastDropout(0.3)(X)
    torch.manual_seed(0)
    changed = X.clone()
    assert FastDropout(0.3, inplace=True)(changed) is changed
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("training", [True, False])
def test_a_head_is_the_linear_layer_on_standardized_features(training):
    features = np.random.default_rng(0).normal(40.0, 3.0, (50, 6)).astype(np.float32)
    head = LinearHead(6, 3, dropout=0.0).standardize(features).train(training)
    X = torch.from_numpy(features)
    standardized = (X - X.mean(dim=0)) / X.std(dim=0, correction=0)
    torch.testing.assert_close(head(X), head.linear(standardized), rtol=0, atol=1e-5)
    assert torch.equal(X, torch.from_numpy(features.copy()))


def test_gradients_of_a_head_reach_features_and_weights():
    head = (
        LinearHead(4, 3, dropout=0.5)
        .double()
        .standardize(np.random.default_rng(0).normal(size=(9, 4)))
    )
    X = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)

    def logits(X, weight):
        torch.manual_seed(0)
        return torch.func.functional_call(head, {"linear.weight": weight}, (X,))

    assert torch.autograd.gradcheck(logits, (X, head.linear.weight))
