"""FixMatch, SoftMatch, and the views that they compare."""

import numpy as np
import pytest
import torch
from bag_batches import PassThrough, batch_of
from numpy.testing import assert_array_equal
from torch import nn

from proportion_ssl.baselines._views import strong_view, weak_view
from proportion_ssl.baselines.fixmatch import FixMatchLoss
from proportion_ssl.baselines.softmatch import SoftMatchLoss

QUIET = (0.0, 0.0, 0.0)  # weak and strong views are the instances themselves


def logits_of(confidence, n_classes=3, label=0):
    """Logits whose largest probability is as given, of the class given."""
    p = torch.full((len(confidence), n_classes), 0.0, dtype=torch.float64)
    confidence = torch.as_tensor(confidence, dtype=torch.float64)
    p += ((1 - confidence) / (n_classes - 1))[:, None]
    p[:, label] = confidence
    return p.log()


def test_labels_count_from_the_threshold_on():
    loss = FixMatchLoss(0.75, *QUIET)
    confidence = torch.tensor([0.2, 0.7499, 0.75, 0.9])
    assert loss.label_weights(confidence).tolist() == [0, 0, 1, 1]
    X = logits_of([0.6, 0.8, 0.99])
    expected = -(np.log(0.8) + np.log(0.99)) / 3  # mean over all instances, as in the paper
    assert loss(PassThrough(), batch_of(X)).item() == pytest.approx(expected)


class Dictated(nn.Module):
    """Logits of the first call (weak views), then of the second (strong views)."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = nn.ParameterList(nn.Parameter(part) for part in logits)
        self.n_calls = 0

    def forward(self, X):
        self.n_calls += 1
        return self.logits[self.n_calls - 1]


@pytest.mark.parametrize("loss", [FixMatchLoss(0.5, *QUIET), SoftMatchLoss(3, 0.9, *QUIET)])
def test_labels_are_of_the_weak_view_and_gradients_of_the_strong_one(loss):
    weak, strong = torch.eye(3) * 4, torch.randn(3, 3)
    net = Dictated(weak, strong)
    paid = loss(net, batch_of(torch.randn(3, 4)))
    paid.backward()
    expected = nn.functional.cross_entropy(strong, torch.arange(3))
    torch.testing.assert_close(paid, expected)
    assert net.logits[0].grad is None
    assert net.logits[1].grad.abs().max() > 0


def test_no_confident_label_costs_nothing():
    X = torch.zeros(4, 3, requires_grad=True)
    loss = FixMatchLoss(0.95, *QUIET)(PassThrough(), batch_of(X))
    loss.backward()
    assert loss == 0 and (X.grad == 0).all()


def test_weak_and_strong_noise_reach_the_net():
    seen = []
    net = PassThrough()
    net.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    scale = torch.tensor([1.0, 3.0, 0.0])
    batch = batch_of(torch.zeros(4000, 3), scale=scale)
    FixMatchLoss(0.5, 0.1, 0.4, 0.0)(net, batch)
    weak, strong = (X.std(dim=0) for X in seen)
    torch.testing.assert_close(weak, 0.1 * scale, rtol=0.1, atol=1e-6)
    torch.testing.assert_close(strong, 0.4 * scale, rtol=0.1, atol=1e-6)


@pytest.mark.parametrize("kind", [FixMatchLoss, SoftMatchLoss])
def test_the_average_of_the_weights_predicts_and_labels_nothing(kind):
    """By hand: the weights of the steps 1, 2, ... are averaged, after step t by at most 1 - 1 / (t + 1)."""
    arguments = (0.0,) if kind is FixMatchLoss else (2, 0.9)
    last, averaged = (kind(*arguments, *QUIET, decay) for decay in (0.0, 0.6))
    nets = [nn.Linear(2, 2, bias=False) for _ in range(2)]
    batch = batch_of(torch.randn(5, 2))
    seen, value = [], torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    for loss, net in zip((last, averaged), nets, strict=True):
        net.load_state_dict({"weight": value})
        loss.start(net, 3)
        for step in range(1, 4):
            seen.append(float(loss(net, batch).detach()))
            net.load_state_dict({"weight": value * (1 + step)})  # as an optimizer would
        loss.finish(net)
    torch.testing.assert_close(nets[0].weight.detach(), 4 * value)
    expected = 1.0  # of the first weights
    for decay, weight in ((1 / 2, 2.0), (0.6, 3.0), (0.6, 4.0)):
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(nets[1].weight.detach(), expected * value)
    assert seen[:3] == seen[3:], "the net itself labels and learns"


# SoftMatch


def test_running_mean_and_variance_by_hand():
    loss = SoftMatchLoss(4, 0.9, *QUIET)
    assert (float(loss.mean), float(loss.variance)) == (0.25, 1.0)
    first, second = torch.tensor([0.4, 0.6, 0.8]), torch.tensor([0.5, 0.9])
    loss.label_weights(first)
    assert float(loss.mean) == pytest.approx(0.9 * 0.25 + 0.1 * 0.6)
    assert float(loss.variance) == pytest.approx(0.9 + 0.1 * 0.04)  # unbiased
    weights = loss.label_weights(second)
    mean = 0.9 * (0.9 * 0.25 + 0.1 * 0.6) + 0.1 * 0.7
    variance = 0.9 * (0.9 + 0.1 * 0.04) + 0.1 * 0.08
    assert float(loss.mean) == pytest.approx(mean)
    assert float(loss.variance) == pytest.approx(variance)
    below = np.minimum(second.numpy() - mean, 0)
    np.testing.assert_allclose(weights, np.exp(-(below**2) / (2 * variance / 4)), rtol=1e-6)


def test_weight_is_one_above_the_mean_and_falls_below_it():
    loss = SoftMatchLoss(2, 0.0, *QUIET)
    confidence = torch.linspace(0.5, 1.0, 101)
    weights = loss.label_weights(confidence)
    assert (weights[confidence >= loss.mean] == 1).all()
    assert (weights[confidence < loss.mean].diff() > 0).all()
    sigma = confidence.std()
    two_below = loss.mean - sigma / 2  # half a standard deviation is the width
    at = (confidence - two_below).abs().argmin()
    assert weights[at] == pytest.approx(np.exp(-0.5), abs=0.02)


def test_one_instance_and_equal_confidences():
    loss = SoftMatchLoss(2, 0.0, *QUIET)
    assert loss.label_weights(torch.tensor([0.7])).tolist() == [1.0]
    assert loss.label_weights(torch.full((5,), 0.6)).tolist() == [1.0] * 5


# Views


def test_strong_view_drops_features_to_the_mean_of_the_batch():
    X = torch.arange(40.0).reshape(10, 4).repeat(100, 1)
    view = strong_view(X, torch.ones(4), 0.0, 0.3)
    dropped = view != X
    assert dropped.double().mean() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(view[dropped], X.mean(dim=0).expand_as(X)[dropped])
    assert_array_equal(strong_view(X, torch.ones(4), 0.0, 0.0), X)


def test_weak_view_of_images_mirrors_each_by_itself():
    images = torch.randint(0, 256, (200, 6, 5, 3), dtype=torch.uint8)
    view = weak_view(images, torch.ones(()), 0.1)
    assert view.dtype == torch.uint8
    candidates = [images, images.flip(1), images.flip(2), images.flip(1, 2)]
    same = torch.stack([(view == other).all(dim=(1, 2, 3)) for other in candidates])
    assert (same.sum(dim=0) == 1).all()
    assert (same.sum(dim=1) > 20).all()


def test_strong_view_of_images_changes_more_than_their_order():
    images = torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8)
    before = images.clone()
    view = strong_view(images, torch.ones(()), 0.1, 0.3)
    assert view.dtype == torch.uint8 and view.shape == images.shape
    assert_array_equal(images, before)
    changed = [
        not torch.equal(a.flatten().sort().values, b.flatten().sort().values)
        for a, b in zip(images, view, strict=True)
    ]
    assert sum(changed) > 10
