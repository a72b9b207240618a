"""Mean Teacher: the average of the weights, and who learns from whom."""

import copy

import pytest
import torch
from bag_batches import batch_of
from numpy.testing import assert_array_equal
from torch import nn

from proportion_ssl import HeadClassifier
from proportion_ssl.baselines import ICTClassifier, MeanTeacherClassifier
from proportion_ssl.baselines.mean_teacher import MeanTeacherLoss
from proportion_ssl.datasets import make_bags

DATA = make_bags(n_bags=7, bag_size=(1, 30), n_features=5, n_labeled_slides=3, random_state=0)


class Recording(torch.optim.SGD):
    """Writes down all weights after every step, in double precision."""

    steps: list = []  # noqa: RUF012

    def step(self, closure=None):
        loss = super().step(closure)
        weights = [p for group in self.param_groups for p in group["params"]]
        self.steps.append([p.detach().double().clone() for p in weights])
        return loss


@pytest.mark.parametrize("system", [MeanTeacherClassifier, ICTClassifier])
@pytest.mark.parametrize("decay", [0.0, 0.6, 0.999])
def test_teacher_is_the_exponential_moving_average_of_every_step(system, decay, monkeypatch):
    monkeypatch.setattr(Recording, "steps", [])
    start = []
    begin = MeanTeacherLoss.start

    def remember(self, module, n_steps):
        start.extend(p.detach().double().clone() for p in module.parameters())
        begin(self, module, n_steps)

    monkeypatch.setattr("proportion_ssl.baselines.mean_teacher.TeacherLoss.start", remember)
    net = HeadClassifier(optimizer=Recording, lr=0.1)
    clf = system(net, decay=decay, max_epochs=3, random_state=0)
    clf.fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert len(Recording.steps) == 3 * 4
    mean = start
    for step, weights in enumerate(Recording.steps, start=1):
        alpha = min(decay, 1 - 1 / (step + 1))
        mean = [alpha * m + (1 - alpha) * w for m, w in zip(mean, weights, strict=True)]
    fitted = list(clf.estimator_.module_.parameters())
    for average, weight, last in zip(mean, fitted, Recording.steps[-1], strict=True):
        torch.testing.assert_close(weight.detach().double(), average, rtol=1e-5, atol=1e-6)
        assert torch.allclose(weight.detach().double(), last, atol=1e-5) == (decay == 0)
        assert weight.requires_grad, "the net can be trained on"


def loss_and_net(noise=0.0, seed=0):
    torch.manual_seed(seed)
    net = nn.Linear(4, 3)
    loss = MeanTeacherLoss(decay=0.9, noise=noise)
    loss.start(net, n_steps=10)
    return loss, net


def test_no_gradient_reaches_the_teacher():
    loss, net = loss_and_net()
    with torch.no_grad():
        net.weight.add_(1.0)
    loss(net, batch_of(torch.randn(5, 4))).backward()
    assert net.weight.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in loss.teacher.parameters())
    assert not {id(p) for p in loss.teacher.parameters()} & {id(p) for p in net.parameters()}


def test_cost_is_the_mean_squared_difference_of_probabilities():
    loss, net = loss_and_net()
    teacher = copy.deepcopy(net)
    with torch.no_grad():
        net.weight.add_(torch.randn(3, 4))
    batch = batch_of(torch.randn(5, 4), labeled=torch.randn(2, 4))
    paid = loss(net, batch)
    X = torch.cat([batch.X, batch.labeled])
    difference = net(X).softmax(dim=1) - teacher(X).softmax(dim=1)
    torch.testing.assert_close(paid, (difference**2).sum() / (7 * 3))


def test_no_gradient_through_the_target():
    loss, net = loss_and_net()
    with torch.no_grad():
        net.weight.add_(torch.randn(3, 4))
    batch = batch_of(torch.randn(5, 4))
    loss(net, batch).backward()
    found = net.weight.grad.clone()
    net.zero_grad()
    target = loss.teacher(batch.X).softmax(dim=1).detach()
    nn.functional.mse_loss(net(batch.X).softmax(dim=1), target).backward()
    torch.testing.assert_close(found, net.weight.grad)


def test_net_and_teacher_see_noise_of_their_own():
    loss, net = loss_and_net(noise=0.5)
    seen = []
    for module in (net, loss.teacher):
        module.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    batch = batch_of(torch.randn(2000, 4), scale=torch.tensor([1.0, 2.0, 3.0, 0.0]))
    assert loss(net, batch) > 0
    (one, other) = (X - batch.X for X in seen)
    for noise in (one, other):
        torch.testing.assert_close(
            noise.std(dim=0), torch.tensor([0.5, 1.0, 1.5, 0.0]), atol=0.1, rtol=0
        )
    assert abs(torch.corrcoef(torch.stack([one[:, 0], other[:, 0]]))[0, 1]) < 0.1


def test_running_statistics_are_those_of_the_net():
    net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    loss = MeanTeacherLoss(decay=0.9, noise=0.0)
    loss.start(net, n_steps=2)
    for _ in range(2):
        loss(net, batch_of(torch.randn(8, 4)))
    statistics = net[1].running_mean.clone()
    loss.finish(net)
    assert_array_equal(net[1].running_mean, statistics)
    assert_array_equal(loss.teacher[1].running_mean, statistics)
