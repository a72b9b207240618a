"""LLP-GAN: the discriminator's loss, who learns in which step, and what is left without a generator."""

import numpy as np
import torch
from bag_batches import PassThrough, batch_of
from torch import nn

from proportion_ssl.baselines.llp_gan import (
    FeatureGenerator,
    GenerativeLoss,
    discriminator_loss,
    hidden_features,
)
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss


def test_discriminator_is_a_softmax_with_a_further_class():
    real, fake = torch.randn(7, 3).double(), torch.randn(5, 3).double()
    extended = [torch.cat([logits, torch.zeros(len(logits), 1)], dim=1) for logits in (real, fake)]
    p_real, p_fake = (logits.softmax(dim=1) for logits in extended)
    expected = -(p_real[:, :3].sum(dim=1).log().mean() + p_fake[:, 3].log().mean())
    torch.testing.assert_close(discriminator_loss(real, fake), expected)


def test_formula_of_the_authors():
    real, fake = torch.randn(7, 3).double(), torch.randn(5, 3).double()
    lse, softplus = torch.logsumexp, nn.functional.softplus
    printed = -lse(real, 1).mean() + softplus(lse(real, 1)).mean() + softplus(lse(fake, 1)).mean()
    torch.testing.assert_close(discriminator_loss(real, fake), printed)


def test_a_constant_generator_that_is_told_apart_leaves_the_proportion_loss():
    """Logits of the instances are far above, those of what is generated far below that of "generated"."""
    X = torch.randn(8, 3).double() + 200
    lower = torch.tensor([[0.2, 0.3, 0.5]])
    batch = batch_of(X.requires_grad_(), lower=lower)
    loss = GenerativeLoss(1.0, 4, 4, 1e-6)
    loss.generator = FeatureGenerator(4, 4, torch.full((3,), -200.0).double(), torch.zeros(3))
    loss.generator.layers.double()
    loss.optimizer = torch.optim.Adam(loss.generator.parameters(), lr=1e-6)
    loss.generator.forward = lambda n: (
        torch.full((n, 3), -200.0).double() + 0 * sum(p.sum() for p in loss.generator.parameters())
    )
    paid, alone = loss(PassThrough(), batch), MeanProportionLoss()(PassThrough(), batch)
    torch.testing.assert_close(paid, alone)
    slopes = [torch.autograd.grad(each, X, retain_graph=True)[0] for each in (paid, alone)]
    torch.testing.assert_close(slopes[0], slopes[1])


def test_without_the_adversary_it_is_the_proportion_loss():
    batch = batch_of(torch.randn(8, 3), lower=torch.tensor([[0.2, 0.3, 0.5]]))
    net = nn.Linear(3, 3)
    paid = GenerativeLoss(0.0, 4, 4, 1e-3)(net, batch)
    torch.testing.assert_close(paid, MeanProportionLoss()(net, batch))


def test_the_generators_step_leaves_the_net_and_the_nets_loss_the_generator():
    net, loss = nn.Linear(3, 3), GenerativeLoss(1.0, 4, 8, 0.1)
    batch = batch_of(torch.randn(8, 3))
    loss(net, batch)
    assert all(parameter.grad is None for parameter in net.parameters())
    before = [p.clone() for p in loss.generator.parameters()]
    paid = loss(net, batch)
    after = [p.clone() for p in loss.generator.parameters()]
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    grads = [p.grad.clone() for p in loss.generator.parameters()]
    paid.backward()
    assert net.weight.grad.abs().max() > 0
    assert all(
        torch.equal(p.grad, g) for p, g in zip(loss.generator.parameters(), grads, strict=True)
    )


def test_generated_features_take_the_mean_of_the_hidden_layer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    loss = GenerativeLoss(1.0, 4, 16, 0.02)
    X = torch.randn(200, 3) * 0.3 + torch.tensor([2.0, -1.0, 0.5])
    batch = batch_of(X, lower=torch.tensor([[0.5, 0.5]]))
    generated = FeatureGenerator(4, 16, torch.zeros(3), torch.ones(3))
    loss.optimizer = torch.optim.Adam(generated.parameters(), lr=0.02)
    target = hidden_features(net, X).mean(dim=0)

    def distance():
        found = hidden_features(net, generated(2000)).mean(dim=0)
        return float(((found - target) ** 2).mean().detach())

    first = distance()
    for _ in range(300):
        loss.improve_generator(generated, net, batch)
    assert distance() < 0.02 * first


def test_hidden_features_of_a_linear_net_are_its_input():
    X = torch.randn(4, 3)
    assert hidden_features(nn.Linear(3, 2), X) is X
    net = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    torch.testing.assert_close(hidden_features(net, X), net[1](net[0](X)))
    np.testing.assert_array_equal([len(layer._forward_pre_hooks) for layer in net], 0)
