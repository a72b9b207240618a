"""Targets drawn for random parts of bags, and FixMatch beside the proportion loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bag_batches import PassThrough, batch_of
from scipy.stats import multivariate_hypergeom

from proportion_ssl import Bags
from proportion_ssl.baselines import (
    BagStream,
    FixMatchProportionClassifier,
    HypergeometricTargets,
    MixBag,
    ProportionLossClassifier,
)
from proportion_ssl.baselines.fixmatch import FixMatchLoss
from proportion_ssl.baselines.fixmatch_proportion import FixMatchProportionLoss
from proportion_ssl.baselines.hypergeometric import draw_counts, log_probability
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.datasets import make_bags
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.proportions import OrderRecord

QUIET = (0.0, 0.0, 0.0)
COUNTS = np.array([[60, 30, 10], [5, 0, 15]])


def drawn_batch(n_drawn=(25, 20), sizes=(100, 20), seed=0):
    """The first bag is a quarter of 100 instances, the second is whole."""
    bag = np.repeat([0, 1], n_drawn)
    shares = COUNTS / COUNTS.sum(axis=1, keepdims=True)
    X = np.random.default_rng(seed).normal(size=(len(bag), 3)).astype(np.float32)
    batch = batch_of(torch.tensor(X), bag, shares - 0.01, shares + 0.01)
    return replace(batch, sizes=torch.tensor(sizes), shares=torch.tensor(shares))


def test_draws_have_the_mean_and_the_spread_of_random_parts():
    p, n, m = COUNTS[0] / 100, 100, 25
    targets = []
    for _ in range(4000):
        batch = HypergeometricTargets()(drawn_batch())
        assert torch.equal(batch.lower[0], batch.upper[0])
        targets.append(batch.lower[0].numpy())
    targets = np.array(targets)
    np.testing.assert_allclose(targets * m, np.round(targets * m), atol=1e-9)
    np.testing.assert_allclose(targets.sum(axis=1), 1)
    sd = np.sqrt(p * (1 - p) / m * (n - m) / (n - 1))
    np.testing.assert_allclose(targets.mean(axis=0), p, atol=4 * sd.max() / np.sqrt(4000))
    np.testing.assert_allclose(targets.std(axis=0), sd, rtol=0.06)


def test_a_whole_bag_keeps_what_is_recorded():
    before = drawn_batch()
    for _ in range(5):
        after = HypergeometricTargets()(before)
        assert torch.equal(after.lower[1], before.lower[1])
        assert torch.equal(after.upper[1], before.upper[1])
        assert torch.equal(after.X, before.X) and torch.equal(after.weights, before.weights)


def test_no_more_is_drawn_than_the_bag_holds():
    drawn = draw_counts(np.array([[3, 0, 40]] * 200), np.full(200, 30), np.random.default_rng(0))
    assert (drawn.sum(axis=1) == 30).all()
    assert (drawn[:, 0] <= 3).all() and (drawn[:, 1] == 0).all() and len(np.unique(drawn)) > 3


def test_probability_against_scipy_and_certain_draws():
    counts = np.array([[60, 30, 10], [5, 0, 15], [7, 0, 0]])
    drawn = np.array([[15, 8, 2], [2, 0, 3], [4, 0, 0]])
    expected = multivariate_hypergeom.logpmf(drawn, counts, drawn.sum(axis=1))
    np.testing.assert_allclose(log_probability(counts, drawn), expected, atol=1e-9)
    assert log_probability(counts, counts) == pytest.approx(0, abs=1e-9)


def test_weights_are_the_probabilities_with_mean_one():
    torch.manual_seed(0)
    batch = HypergeometricTargets(weigh_by_probability=True)(drawn_batch((25, 10)))
    drawn = (batch.lower.numpy() * [[25], [10]]).round().astype(int)
    p = np.exp(log_probability(COUNTS, drawn))
    np.testing.assert_allclose(batch.weights, p / p.mean(), rtol=1e-5)
    assert batch.weights.dtype == torch.float32


def test_a_stream_hands_on_what_is_recorded_of_whole_bags():
    rng = np.random.default_rng(0)
    index = np.repeat([0, 1], [50, 4])
    written = np.array([[0.3, 0.3, 0.3], [0.5, 0.5, 0.0]])
    bags = Bags(rng.normal(size=(54, 2)).astype(np.float32), index, written, rounding_step=0.1)
    labeled = SignedDataset(np.zeros((3, 2), dtype=np.float32))
    settings = {"bags_per_batch": 2, "instances_per_bag": 10, "n_labeled": 2}
    stream = BagStream(bags, labeled, random_state=np.random.RandomState(0), **settings)
    batch = stream.draw()
    at = batch.sizes.argsort(descending=True)
    assert batch.sizes[at].tolist() == [50, 4]
    np.testing.assert_allclose(batch.shares[at], [[1 / 3] * 3, [0.5, 0.5, 0]])


def test_what_targets_cannot_be_drawn_for():
    order = OrderRecord(np.array([[1, 2, 2], [1, 2, 2]]))
    with pytest.raises(ValueError, match="needs the share of every class"):
        HypergeometricTargets()(replace(drawn_batch(), record=order))
    with pytest.raises(ValueError, match="before MixBag"):
        for _ in range(20):
            HypergeometricTargets()(MixBag()(drawn_batch()))


def test_large_bags_a_fit_draws_targets():
    data = make_bags(n_bags=6, bag_size=40, random_state=0)
    found = []
    for augmentation in (None, HypergeometricTargets()):
        for part in (10, 40):
            clf = ProportionLossClassifier(
                augmentation=augmentation, instances_per_bag=part, max_epochs=2, random_state=0
            )
            clf.fit(data.X_labeled, data.y, data.bags)
            found.append(clf.predict_proba(data.X_test))
    assert not np.array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])  # whole bags: nothing is drawn


# FixMatch and proportion loss


def test_both_losses_are_added():
    batch = drawn_batch((100, 20))
    both = FixMatchProportionLoss(0.7, 0.4, *QUIET)(PassThrough(), batch)
    expected = FixMatchLoss(0.4, *QUIET)(PassThrough(), batch)
    expected = expected + 0.7 * MeanProportionLoss()(PassThrough(), batch)
    torch.testing.assert_close(both, expected.to(both))


def test_without_proportions_the_gradient_is_that_of_fixmatch():
    gradients = []
    for loss in (FixMatchLoss(0.4, *QUIET), FixMatchProportionLoss(0.0, 0.4, *QUIET)):
        batch = drawn_batch()
        X = batch.X.clone().requires_grad_()
        loss(PassThrough(), replace(batch, X=X)).backward()
        gradients.append(X.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


@pytest.mark.slow
def test_proportions_help_fixmatch():
    data = make_bags(20, bag_size=60, n_features=16, class_separation=1.0, random_state=0)
    wrong = []
    for weight in (0.0, 1.0):
        clf = FixMatchProportionClassifier(
            proportion_weight=weight,
            instances_per_bag=30,
            max_epochs=20,
            learning_rate=0.02,
            random_state=0,
        )
        clf.fit(data.X_labeled, data.y, data.bags)
        wrong.append((clf.predict(data.bags.X) != data.y_bags).mean())
    assert wrong[1] < 0.7 * wrong[0]
