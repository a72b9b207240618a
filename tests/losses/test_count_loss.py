"""Likelihood of counts: against enumeration, scipy and a closed form; gradients, intervals, extremes."""

from itertools import product

import numpy as np
import pytest
import torch
from convolutions import convolved
from scipy.stats import binom

from proportion_ssl.losses import count_loss
from proportion_ssl.losses.counts import poisson_binomial


def enumerated(p, fewest, most):
    """Probability that a class has an allowed count, and of each instance to be of it then."""
    total, of_each = 0.0, np.zeros(len(p))
    for labels in product([0, 1], repeat=len(p)):
        if fewest <= sum(labels) <= most:
            probability = np.prod(np.where(labels, p, 1 - p))
            total += probability
            of_each += probability * np.array(labels)
    return total, of_each / total


def case(sizes, n_classes, seed, spread=2.0):
    rng = np.random.default_rng(seed)
    bag = np.repeat(np.arange(len(sizes)), sizes)
    logits = torch.tensor(rng.normal(0, spread, (len(bag), n_classes)), requires_grad=True)
    labels = rng.integers(0, n_classes, len(bag))
    counts = np.zeros((len(sizes), n_classes), dtype=int)
    np.add.at(counts, (bag, labels), 1)
    return logits, torch.tensor(bag), torch.tensor(counts)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("width", [0, 1, 3])
def test_value_against_enumeration(seed, width):
    sizes = [1, 2, 5, 8]
    logits, bag, counts = case(sizes, 3, seed)
    fewest = (counts - width).clamp(min=0)
    most = (counts + width).minimum(torch.tensor(sizes).unsqueeze(1))
    p = logits.detach().softmax(dim=1).numpy()
    expected = [
        -sum(
            np.log(enumerated(p[bag == b, c], fewest[b, c].item(), most[b, c].item())[0])
            for c in range(3)
        )
        for b in range(len(sizes))
    ]
    np.testing.assert_allclose(
        count_loss(logits, bag, fewest, most).detach(), expected, rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("seed", range(4))
def test_gradient_is_the_prediction_minus_the_posterior_of_enumeration(seed):
    """For two classes whose one count enters twice: twice the difference in the log odds."""
    logits, bag, counts = case([8], 2, seed)
    count_loss(logits, bag, counts, counts).sum().backward()
    p = logits.detach().softmax(dim=1).numpy()[:, 1]
    _, posterior = enumerated(p, *[counts[0, 1].item()] * 2)
    np.testing.assert_allclose(logits.grad[:, 1], 2 * (p - posterior), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(logits.grad.sum(dim=1), 0, atol=1e-12)


def test_gradient_against_finite_differences():
    logits, bag, counts = case([3, 6, 1], 3, 0)
    for width in (0, 1):
        fewest = (counts - width).clamp(min=0)
        most = (counts + width).minimum(torch.tensor([[3], [6], [1]]))
        assert torch.autograd.gradcheck(lambda z: count_loss(z, bag, fewest, most), (logits,))  # noqa: B023


def test_distribution_against_convolutions():
    p = np.random.default_rng(0).random(301)
    found = poisson_binomial(torch.tensor(p), torch.tensor(1 - p))
    np.testing.assert_allclose(found, convolved(p), atol=1e-14)


@pytest.mark.parametrize("count", [0, 1, 30, 500, 970, 999, 1000])
def test_equal_predictions_give_the_binomial_also_far_out(count):
    """At a count of 970 and a share of 1 in 100 the probability is of the order of 1e-1860."""
    odds = np.log(0.01 / 0.99)
    logits = torch.tensor([[odds, 0.0]], dtype=torch.float64).repeat(1000, 1)
    counts = torch.tensor([[count, 1000 - count]])
    found = count_loss(logits, torch.zeros(1000, dtype=torch.int64), counts, counts).item()
    assert found == pytest.approx(-2 * binom(1000, 0.01).logpmf(count), rel=1e-10)


@pytest.mark.parametrize("scale", [1.0, 200.0, 1e4])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 1.0])
def test_saturated_logits_stay_finite_and_push_towards_the_count(scale, share):
    sign = torch.ones(20, dtype=torch.float64)
    sign[:10] = -1
    logits = (scale * sign.unsqueeze(1) * torch.tensor([[1.0, -1.0]])).requires_grad_()
    count = round(20 * share)
    counts = torch.tensor([[count, 20 - count]])
    loss = count_loss(logits, torch.zeros(20, dtype=torch.int64), counts, counts)
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(logits.grad).all()
    # at least so many sure labels have to turn, each at the cost of its log odds, in both counts
    if scale > 1:
        assert loss.item() == pytest.approx(2 * abs(count - 10) * 2 * scale, rel=0.02)
    assert torch.sign(logits.grad[:, 0].sum()).item() == np.sign(10 - count)


def test_anything_allowed_costs_nothing():
    logits, bag, _ = case([4, 7], 3, 0)
    loss = count_loss(
        logits, bag, torch.zeros(2, 3, dtype=torch.int64), torch.tensor([[4] * 3, [7] * 3])
    )
    loss.sum().backward()
    np.testing.assert_allclose(loss.detach(), 0, atol=1e-12)
    np.testing.assert_allclose(logits.grad, 0, atol=1e-12)


def test_order_of_instances_and_bags_does_not_matter():
    logits, bag, counts = case([3, 9, 1, 6], 4, 1)
    expected = count_loss(logits, bag, counts, counts)
    order = torch.randperm(len(bag))
    torch.testing.assert_close(count_loss(logits[order], bag[order], counts, counts), expected)
    for b in range(4):
        alone = count_loss(
            logits[bag == b], bag[bag == b] * 0, counts[b : b + 1], counts[b : b + 1]
        )
        torch.testing.assert_close(alone[0], expected[b])


def test_sure_predictions_cost_less_than_the_proportions_of_the_bag_for_all():
    """What the proportion loss cannot tell apart."""
    sure = torch.tensor([[9.0, -9.0], [-9.0, 9.0]]).repeat(5, 1)
    counts, bag = torch.tensor([[5, 5]]), torch.zeros(10, dtype=torch.int64)
    assert count_loss(sure, bag, counts, counts) < 0.01
    even = count_loss(torch.zeros(10, 2), bag, counts, counts).item()
    assert even == pytest.approx(-2 * binom(10, 0.5).logpmf(5))
