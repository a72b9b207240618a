"""Virtual adversarial training, and LLP-VAT."""

import numpy as np
import pytest
import torch
from bag_batches import batch_of
from scipy.stats import entropy as scipy_entropy
from torch import nn

from proportion_ssl.baselines import (
    BagLoss,
    LLPVATClassifier,
    ProportionLossClassifier,
    VATClassifier,
    ramp,
)
from proportion_ssl.baselines.llp_vat import ProportionAndConsistencyLoss
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.baselines.vat import (
    AdversarialLoss,
    adversarial_direction,
    divergence,
    entropy,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.nets import LinearHead

ONE = torch.ones(())


def curved_net(seed, n_features=10, n_classes=4):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(n_features, 32), nn.Tanh(), nn.Linear(32, n_classes))
    with torch.no_grad():
        net[2].weight.mul_(3)
    return net.double()


def increase(net, X, direction, length, scale=ONE):
    target = net(X).detach()
    return divergence(net(X + length * direction * scale), target).detach()


def direction_of(net, X, scale=ONE, n_iter=1, xi=0.01):
    return adversarial_direction(net, X, net(X).detach(), scale, n_iter=n_iter, xi=xi)


def test_divergence_is_that_of_the_target_from_the_prediction():
    logits, target = torch.randn(2, 6, 4).unbind()
    p, q = target.softmax(dim=1), logits.softmax(dim=1)
    torch.testing.assert_close(divergence(logits, target), (p * (p / q).log()).sum(dim=1))


@pytest.mark.parametrize("seed", range(10))
def test_direction_increases_the_divergence_more_than_random_ones(seed):
    net, X = curved_net(seed), torch.randn(20, 10, dtype=torch.float64)
    found = increase(net, X, direction_of(net, X, n_iter=1), 0.5)
    random = torch.stack(
        [
            increase(net, X, nn.functional.normalize(torch.randn_like(X), dim=1), 0.5)
            for _ in range(50)
        ]
    )
    assert (found > random.median(dim=0).values).all()
    assert found.mean() > 1.5 * random.mean()
    better = increase(net, X, direction_of(net, X, n_iter=10), 0.5)
    assert better.mean() > random.max(dim=0).values.mean()


@pytest.mark.parametrize("seed", range(5))
def test_direction_of_a_linear_net_is_the_eigenvector_of_the_curvature(seed):
    """For logits W x the Hessian of the divergence is W' (diag p - p p') W."""
    torch.manual_seed(seed)
    net = nn.Linear(6, 3).double()
    with torch.no_grad():
        net.weight.mul_(torch.tensor([[3.0], [1.0], [0.3]]))
    X = torch.randn(8, 6, dtype=torch.float64)
    direction = direction_of(net, X, n_iter=60, xi=1e-4)
    weight = net.weight.detach()
    for x, d in zip(X, direction, strict=True):
        p = (weight @ x + net.bias).detach().softmax(dim=0)
        hessian = weight.T @ (torch.diag(p) - torch.outer(p, p)) @ weight
        values, vectors = torch.linalg.eigh(hessian)
        assert abs(d @ vectors[:, -1]) == pytest.approx(1, abs=1e-3)
        change = increase(net, x[None], d[None], 1e-3)[0]
        assert change.item() == pytest.approx(values[-1].item() * 1e-6 / 2, rel=0.01)


def test_direction_has_length_one_in_units_of_the_features():
    net, X = curved_net(0), torch.randn(5, 10, dtype=torch.float64)
    scale = torch.rand(10, dtype=torch.float64) * 5
    scale[3] = 0
    direction = direction_of(net, X, scale, n_iter=3)
    torch.testing.assert_close(direction.norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert (direction[:, 3] == 0).all(), "a constant feature does not move"
    assert not direction.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())
    # other units, same instances
    units = torch.full((10,), 2.0, dtype=torch.float64)
    wide = nn.Sequential(nn.Linear(10, 10, bias=False).double(), *net)
    with torch.no_grad():
        wide[0].weight.copy_(torch.diag(units))
    directions = []
    for module, instances, unit in ((net, X, units), (wide, X / units, ONE)):
        torch.manual_seed(1)
        directions.append(direction_of(module, instances, unit, n_iter=3))
    torch.testing.assert_close(*directions)


def test_where_nothing_changes_the_direction_stays_finite():
    net = nn.Linear(4, 3)
    with torch.no_grad():
        net.weight.zero_()
    direction = direction_of(net, torch.randn(5, 4), n_iter=3)
    torch.testing.assert_close(direction.norm(dim=1), torch.ones(5))


def test_loss_moves_all_instances_by_epsilon_in_units_of_the_features(monkeypatch):
    seen = []
    net = curved_net(0).float()
    net.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    scale = torch.linspace(0.5, 3, 10)
    batch = batch_of(torch.randn(6, 10), labeled=torch.randn(3, 10), scale=scale)
    AdversarialLoss(epsilon=1.5, n_iter=2, xi=0.1)(net, batch)
    assert len(seen) == 4, "the target, two steps of the power iteration, the step aside"
    torch.testing.assert_close(seen[0], batch.everything)
    moved = [((X - batch.everything) / scale).norm(dim=1) for X in seen[1:]]
    for length, expected in zip(moved, (0.1, 0.1, 1.5), strict=True):
        torch.testing.assert_close(length, torch.full((9,), expected), rtol=1e-3, atol=1e-4)


def test_no_gradient_through_the_target():
    """The gradient is that of the prediction at the moved instances alone."""
    net = curved_net(0)
    batch = batch_of(torch.randn(6, 10, dtype=torch.float64))
    loss_module = AdversarialLoss(epsilon=1.0, n_iter=1, xi=0.1)
    torch.manual_seed(5)
    loss_module(net, batch).backward()
    found = [parameter.grad.clone() for parameter in net.parameters()]
    torch.manual_seed(5)
    direction = direction_of(net, batch.X, n_iter=1, xi=0.1)
    p = net(batch.X).softmax(dim=1).detach()
    net.zero_grad()
    predicted = net(batch.X + direction).log_softmax(dim=1)
    (-(p * predicted).sum(dim=1).mean()).backward()
    for gradient, parameter in zip(found, net.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_entropy_against_scipy_and_at_its_ends():
    logits = torch.randn(20, 5, dtype=torch.float64) * 4
    expected = scipy_entropy(logits.softmax(dim=1).numpy(), axis=1)
    np.testing.assert_allclose(entropy(logits), expected)
    assert entropy(torch.zeros(1, 5)).item() == pytest.approx(np.log(5))
    sure = torch.tensor([[1e3, 0.0, -1e3]], requires_grad=True)
    (gradient,) = torch.autograd.grad(entropy(sure).sum(), sure)
    assert entropy(sure).item() == 0 and torch.isfinite(gradient).all()


def test_entropy_minimization_adds_the_entropy_and_its_gradient():
    net, batch = curved_net(0), batch_of(torch.randn(6, 10, dtype=torch.float64))
    losses, gradients = [], []
    for weight in (0.0, 0.7):
        torch.manual_seed(3)
        net.zero_grad()
        loss = AdversarialLoss(1.0, 1, 0.1, weight)(net, batch)
        loss.backward()
        losses.append(loss.item())
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
    net.zero_grad()
    alone = 0.7 * entropy(net(batch.X)).mean()
    alone.backward()
    assert losses[1] == pytest.approx(losses[0] + alone.item())
    for without, both, parameter in zip(*gradients, net.parameters(), strict=True):
        torch.testing.assert_close(both, without + parameter.grad)


def test_entropy_minimization_makes_predictions_sure():
    data = make_bags(n_bags=8, class_separation=1.0, random_state=0)
    found = []
    for weight in (0.0, 3.0):
        clf = VATClassifier(entropy_weight=weight, max_epochs=10, learning_rate=0.1, random_state=0)
        clf.fit(data.X_labeled, data.y, data.bags)
        found.append(scipy_entropy(clf.predict_proba(data.bags.X), axis=1).mean())
    assert found[1] < 0.9 * found[0]


def test_dropout_is_off_within_the_loss_and_on_again_after():
    net = LinearHead(10, 4, dropout=0.9).train()
    batch = batch_of(torch.randn(6, 10))
    losses = []
    for _ in range(2):
        torch.manual_seed(0)
        losses.append(AdversarialLoss(1.0, 1, 0.1)(net, batch).item())
        assert net.training and net.dropout.training
    net.eval()
    torch.manual_seed(0)
    assert AdversarialLoss(1.0, 1, 0.1)(net, batch).item() == losses[0] == losses[1]
    assert not net.training


def test_finite_for_saturated_predictions():
    net = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.eye(3) * 200)
    loss = AdversarialLoss(2.0, 1, 0.01)(net, batch_of(torch.eye(3)))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(net.weight.grad).all()


# LLP-VAT


class One(BagLoss):
    def forward(self, module, batch):
        return torch.ones(())


def test_only_the_consistency_is_ramped():
    loss = ProportionAndConsistencyLoss(One(), weight=0.05, ramp_up=0.4)
    net, batch = nn.Linear(3, 3), batch_of(torch.randn(4, 3))
    loss.start(net, n_steps=10)
    proportions = MeanProportionLoss()(net, batch)
    paid = [(loss(net, batch) - proportions).item() for _ in range(6)]
    assert paid == pytest.approx([0.05 * ramp(step, 4) for step in range(6)], abs=1e-6)


def test_a_fit_adds_the_adversarial_to_the_proportion_loss(monkeypatch):
    data = make_bags(n_bags=6, random_state=0)
    settings = {"max_epochs": 3, "random_state": 0}

    def fit(system):
        return system(**settings).fit(data.X_labeled, data.y, data.bags).predict_proba(data.X_test)

    both = fit(LLPVATClassifier)
    monkeypatch.setattr(AdversarialLoss, "forward", lambda self, module, batch: torch.zeros(()))
    proportions_only = fit(LLPVATClassifier)
    np.testing.assert_array_equal(proportions_only, fit(ProportionLossClassifier))
    assert not np.array_equal(both, proportions_only)
