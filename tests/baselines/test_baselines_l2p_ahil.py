"""Pseudo labels that weigh by two entropies."""

import numpy as np
import pytest
import torch
from bag_batches import PassThrough, batch_of
from torch import nn

from proportion_ssl.baselines.l2p_ahil import AuxiliaryLabelLoss, entropy_weights
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss

QUIET = (0.0, 0.0, 0.0)  # weak and strong views are the instances themselves
BAG = np.repeat([0, 1], [4, 7])
SHARES = np.array([[0.25, 0.75, 0.0], [3 / 7, 2 / 7, 2 / 7]])


def weights_of(p, instance_width=5.0, bag_width=3.0, labels=None, bag=BAG, shares=SHARES):
    batch = batch_of(p, bag, shares)
    labels = p.argmax(dim=1) if labels is None else labels
    return entropy_weights(p, labels, batch, instance_width=instance_width, bag_width=bag_width)


def test_weights_against_a_loop():
    p = torch.randn(11, 3, dtype=torch.float64).mul(2).softmax(dim=1)
    expected = []
    for i, row in enumerate(p.numpy()):
        members = p.numpy()[BAG[i] == BAG]
        label = row.argmax()
        column = members[:, label] / members[:, label].sum()
        of_class = -(column * np.log(column)).sum()
        count = SHARES[BAG[i], label] * len(members)
        of_instance = -(row * np.log(row)).sum()
        fit = np.exp(-((of_class - np.log(count)) ** 2) / 3.0) if count else 0.0
        expected.append(np.exp(-(of_instance**2) / 5.0) * fit)
    np.testing.assert_allclose(weights_of(p), expected)


def test_sure_predictions_with_the_recorded_counts_weigh_one():
    labels = torch.tensor([0, 1, 1, 1, 0, 0, 0, 1, 1, 2, 2])
    weights = weights_of(torch.eye(3, dtype=torch.float64)[labels])
    np.testing.assert_allclose(weights, 1)
    one_off = labels.clone()
    one_off[0] = 1
    weights = weights_of(torch.eye(3, dtype=torch.float64)[one_off])
    np.testing.assert_allclose(weights[:4], np.exp(-(np.log(4 / 3) ** 2) / 3.0))


def test_a_label_that_the_bag_does_not_hold_weighs_nothing():
    p = torch.full((11, 3), 1 / 3, dtype=torch.float64)
    weights = weights_of(p, labels=torch.full((11,), 2))
    assert (weights[:4] == 0).all() and (weights[4:] > 0).all()


def test_even_predictions_weigh_little():
    weights = weights_of(torch.full((11, 3), 1 / 3, dtype=torch.float64))
    fit = np.repeat([np.log(4) - np.log(1), np.log(7) - np.log(3)], [4, 7])
    np.testing.assert_allclose(weights, np.exp(-(np.log(3) ** 2) / 5) * np.exp(-(fit**2) / 3))


class Dictated(nn.Module):
    """Logits of the first call (weak views), then of the second (strong views)."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.ParameterList(nn.Parameter(part) for part in logits)
        self.n_calls = 0

    def forward(self, X):
        self.n_calls += 1
        return self.logits[self.n_calls - 1]


def loss_of(label_weight=0.5, decay=0.9, views=QUIET):
    return AuxiliaryLabelLoss(label_weight, 5.0, 5.0, *views, decay)


def test_loss_is_both_losses_and_labels_have_no_gradient():
    weak, strong = torch.randn(11, 3), torch.randn(11, 3)
    batch = batch_of(torch.zeros(11, 3), BAG, SHARES, weights=[2.0, 0.5])
    net = Dictated(weak.clone(), strong.clone())
    found = loss_of(0.7).consistency(net, batch)
    found.backward()
    weak.requires_grad_()
    proportions = MeanProportionLoss().of_logits(weak, batch)
    p = weak.detach().softmax(dim=1)
    weights = weights_of(p.double(), bag_width=5.0) * torch.tensor([2.0, 0.5])[batch.bag]
    each = nn.functional.cross_entropy(strong, p.argmax(dim=1), reduction="none")
    expected = proportions.item() + 0.7 * (weights * each).mean().item()
    assert found.item() == pytest.approx(expected, rel=1e-5)
    proportions.backward()
    torch.testing.assert_close(net.logits[0].grad, weak.grad)
    assert net.logits[1].grad.abs().max() > 0


def test_without_labels_it_is_the_proportion_loss():
    batch = batch_of(torch.randn(11, 3), BAG, SHARES)
    found = loss_of(0.0).consistency(PassThrough(), batch)
    torch.testing.assert_close(found, MeanProportionLoss()(PassThrough(), batch))


def test_the_net_ends_with_the_average_of_its_weights():
    net = nn.Linear(3, 3)
    loss, batch = loss_of(decay=0.9), batch_of(torch.randn(11, 3), BAG, SHARES)
    loss.start(net, 2)
    first, steps = net.weight.detach().clone(), []
    for _ in range(2):
        loss(net, batch)
        with torch.no_grad():
            net.weight.add_(1.0)
        steps.append(net.weight.detach().clone())
    loss.finish(net)
    expected = (first + steps[0]) / 2  # decay 1 - 1 / (t + 1) while that is less than 0.9
    expected = 2 / 3 * expected + steps[1] / 3
    torch.testing.assert_close(net.weight.detach(), expected)
