"""Interpolation consistency training."""

import numpy as np
import pytest
import torch
from bag_batches import batch_of
from torch import nn

from proportion_ssl.baselines.ict import InterpolationLoss


def loss_and_net(share):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    loss = InterpolationLoss(decay=0.9, alpha=0.5)
    loss.start(net, n_steps=10)
    loss.draw_share = lambda: share
    with torch.no_grad():
        net[0].weight.add_(torch.randn(8, 4))
    return loss, net


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_target_is_the_mix_of_the_teachers_predictions(share):
    loss, net = loss_and_net(share)
    X = torch.randn(6, 4)
    torch.manual_seed(3)
    paid = loss(net, batch_of(X))
    torch.manual_seed(3)
    other = torch.randperm(6)
    assert other.tolist() != list(range(6))
    predicted, teacher = net.double(), loss.teacher.double()
    total = 0.0
    for i, j in enumerate(other.tolist()):
        x, z = X[i].double(), X[j].double()
        target = share * teacher(x).softmax(0) + (1 - share) * teacher(z).softmax(0)
        total += ((predicted(share * x + (1 - share) * z).softmax(0) - target) ** 2).sum().item()
    assert paid.item() == pytest.approx(total / (6 * 3), rel=1e-4)
    assert paid > 0


def test_without_mixing_it_is_consistency_with_the_teacher():
    loss, net = loss_and_net(1.0)
    X = torch.randn(6, 4)
    expected = nn.functional.mse_loss(net(X).softmax(1), loss.teacher(X).softmax(1))
    torch.testing.assert_close(loss(net, batch_of(X)), expected)


def test_a_mix_of_predictions_is_not_the_prediction_of_the_mix():
    """Even a net that equals its teacher pays where it is not linear between two instances."""
    loss, net = loss_and_net(0.5)
    loss.teacher.load_state_dict(net.state_dict())
    assert loss(net, batch_of(torch.randn(6, 4) * 3)) > 1e-4


def test_no_gradient_through_the_target():
    loss, net = loss_and_net(0.3)
    X = torch.randn(6, 4)
    torch.manual_seed(3)
    loss(net, batch_of(X)).backward()
    found = net[0].weight.grad.clone()
    assert all(p.grad is None for p in loss.teacher.parameters())
    torch.manual_seed(3)
    other = torch.randperm(6)
    p = loss.teacher(X).softmax(1)
    target = (0.3 * p + 0.7 * p[other]).detach()
    net.zero_grad()
    predicted = net(0.3 * X + 0.7 * X[other]).softmax(1)
    nn.functional.mse_loss(predicted, target).backward()
    torch.testing.assert_close(found, net[0].weight.grad)


def test_only_instances_of_the_bags_are_mixed():
    loss, net = loss_and_net(0.5)
    seen = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    loss(net, batch_of(torch.randn(6, 4), labeled=torch.randn(3, 4)))
    assert seen == [6]


def test_shares_are_drawn_from_the_beta_distribution():
    loss = InterpolationLoss(0.9, 0.5)
    shares = np.array([loss.draw_share() for _ in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(0.25 / (2 * 0.5 + 1), abs=0.01)
