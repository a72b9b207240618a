"""MixMatch: sharpened guesses, shares of the mixes, and what is trained on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bag_batches import PassThrough, batch_of
from torch import nn

from proportion_ssl.baselines.mixmatch import MixMatchLoss, sharpen
from proportion_ssl.losses.signed_labels import SignedLabelLoss


def batch_with_labels(n=6, n_labeled=4, n_classes=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    codes = torch.arange(n_labeled) % n_classes
    batch = batch_of(
        torch.randn(n, n_classes, generator=rng, dtype=torch.float64),
        labeled=torch.randn(n_labeled, n_classes, generator=rng, dtype=torch.float64),
    )
    return replace(batch, signed=nn.functional.one_hot(codes, n_classes).to(torch.int8))


def test_sharpening():
    p = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(sharpen(p, 1.0), p)
    by_hand = p**2 / (p**2).sum(dim=1, keepdim=True)
    torch.testing.assert_close(sharpen(p, 0.5), by_hand)
    towards_zero = sharpen(p, 1e-3)
    torch.testing.assert_close(towards_zero, torch.eye(3, dtype=torch.float64)[[0, 0]])


@pytest.mark.parametrize("alpha", [0.1, 0.75, 5.0])
def test_each_mix_is_mostly_the_instance_itself(alpha):
    shares = MixMatchLoss(2, 0.5, alpha, 0.0, 0.0).draw_shares(5000)
    assert shares.min() >= 0.5 and shares.max() <= 1
    drawn = np.random.default_rng(1).beta(alpha, alpha, 200_000)
    assert shares.mean() == pytest.approx(np.maximum(drawn, 1 - drawn).mean(), abs=0.01)


class Unmixed(MixMatchLoss):
    def draw_shares(self, n_instances):
        return np.ones(n_instances)


def test_without_mixing_and_noise_by_hand():
    batch = batch_with_labels()
    loss, net = Unmixed(2, 0.5, 0.75, 0.0, 0.0), PassThrough()
    paid = loss(net, batch)
    p = batch.X.softmax(dim=1)
    q = p**2 / (p**2).sum(dim=1, keepdim=True)
    torch.testing.assert_close(paid, ((p - q) ** 2).mean())
    labeled = loss.of_labeled(SignedLabelLoss(), torch.zeros(4, 3), torch.eye(4)[:, :3])
    expected = nn.functional.cross_entropy(batch.labeled, batch.signed.argmax(dim=1))
    torch.testing.assert_close(labeled, expected)


class HalfMixed(MixMatchLoss):
    def draw_shares(self, n_instances):
        return np.full(n_instances, 0.6)


def test_labels_are_mixed_as_the_instances_are():
    """Instances that a net sees are 0.6 of themselves and 0.4 of another one; so are the labels."""
    batch = batch_with_labels()
    loss, net, seen = HalfMixed(2, 1e-3, 0.75, 0.0, 0.0), PassThrough(), []
    net.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    loss(net, batch)
    X = torch.cat([batch.labeled, batch.X, batch.X])
    labels = torch.cat([batch.signed.double(), *[torch.eye(3)[batch.X.argmax(dim=1)].double()] * 2])
    other = (seen[-1] - 0.6 * X) / 0.4
    partner = torch.cdist(other, X).argmin(dim=1)
    torch.testing.assert_close(other, X[partner])
    assert sorted(other.sum(dim=1).tolist()) == pytest.approx(sorted(X.sum(dim=1).tolist()))
    _, mixed_labels = loss.mixed_labeled
    torch.testing.assert_close(mixed_labels, (0.6 * labels + 0.4 * labels[partner])[:4])


def test_guesses_get_no_gradient_and_the_labeled_loss_reaches_the_net():
    batch, loss = batch_with_labels(), MixMatchLoss(3, 0.5, 0.75, 0.1, 0.0)
    net = nn.Linear(3, 3).double()
    passes = []
    net.register_forward_hook(lambda module, inputs, output: passes.append(output.requires_grad))
    loss(net, batch)
    assert passes == [False, False, False, True]
    loss.of_labeled(SignedLabelLoss(), torch.zeros(1, 3), torch.zeros(1, 3)).backward()
    assert net.weight.grad.abs().max() > 0


def test_saturated_predictions_stay_finite():
    batch = batch_with_labels()
    X = (batch.X * 1e4).requires_grad_()
    loss = MixMatchLoss(2, 0.5, 0.75, 0.0, 0.0)(PassThrough(), replace(batch, X=X))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(X.grad).all()
