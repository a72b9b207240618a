"""Proportion loss of a batch of bags, and MixBag."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bag_batches import PassThrough, batch_of
from numpy.testing import assert_array_equal
from scipy.stats import norm

from proportion_ssl import Bags, NegativePseudoLabelClassifier
from proportion_ssl.baselines import MixBag, ProportionLossClassifier
from proportion_ssl.baselines.assignment_classifier import AssignmentLoss
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.datasets import make_bags
from proportion_ssl.proportions import OrderRecord, PartialRecord, class_proportions


def test_probabilities_are_averaged_not_their_logarithms():
    """Two sure and opposite instances of a bag of halves cost nothing; a mean of logs would cost much."""
    batch = batch_of([[9.0, -9.0], [-9.0, 9.0]], lower=[[0.5, 0.5]])
    loss = MeanProportionLoss()(PassThrough(), batch)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    mean_of_logs = -(0.5 * batch.X.log_softmax(dim=1).mean(dim=0)).sum()
    assert mean_of_logs > 8


def test_against_a_loop():
    rng = np.random.default_rng(0)
    X, bag = rng.normal(0, 2, (20, 3)), np.repeat([0, 1, 2], [4, 1, 15])
    recorded, weights = rng.dirichlet(np.ones(3), 3), [1.0, 0.25, 2.0]
    batch = batch_of(torch.tensor(X), bag, recorded, weights=weights)
    expected = 0.0
    for number in range(3):
        exponent = np.exp(X[bag == number])
        mean = (exponent / exponent.sum(axis=1, keepdims=True)).mean(axis=0)
        expected += weights[number] * (recorded[number] * np.log(recorded[number] / mean)).sum() / 3
    assert MeanProportionLoss()(PassThrough(), batch).item() == pytest.approx(expected, rel=1e-6)


def test_weight_of_a_bag_counts_also_when_it_is_alone():
    X = torch.randn(5, 3)
    loss = [
        MeanProportionLoss()(PassThrough(), batch_of(X, weights=[weight])).item()
        for weight in (0.0, 1.0, 0.25)
    ]
    assert loss[0] == 0 and loss[2] == pytest.approx(0.25 * loss[1]) and loss[1] > 0


@pytest.mark.parametrize("recorded", [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
def test_finite_for_saturated_logits(recorded):
    X = torch.tensor([[200.0, -200.0, 0.0]] * 3, requires_grad=True)
    loss = MeanProportionLoss()(PassThrough(), batch_of(X, lower=[recorded]))
    (gradient,) = torch.autograd.grad(loss, X)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    if recorded[0] < 1:
        assert loss > 50 and gradient.abs().max() > 0.01, "still pushes"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_fit_brings_predicted_and_recorded_proportions_together(seed):
    data = make_bags(20, bag_size=30, n_features=16, class_separation=1.0, random_state=seed)
    errors, wrong = [], []
    for bags in (None, data.bags):
        clf = ProportionLossClassifier(max_epochs=30, learning_rate=0.02, random_state=seed)
        clf.fit(data.X_labeled, data.y, bags)
        means = np.zeros(data.bags.proportions.shape)
        np.add.at(means, data.bags.index, clf.predict_proba(data.bags.X))
        means /= data.bags.sizes[:, np.newaxis]
        errors.append(np.abs(means - data.bags.proportions).sum(axis=1).mean())
        wrong.append((clf.predict(data.bags.X) != data.y_bags).mean())
    assert errors[1] < 0.7 * errors[0]
    assert wrong[1] < 0.7 * wrong[0]


def test_without_bags_it_is_the_supervised_fit():
    data = make_bags(n_bags=2, random_state=0)
    settings = {"max_epochs": 5, "random_state": 3}
    clf = ProportionLossClassifier(**settings).fit(data.X_labeled, data.y)
    reference = NegativePseudoLabelClassifier(**settings).fit(data.X_labeled, data.y)
    assert_array_equal(clf.predict_proba(data.X_test), reference.predict_proba(data.X_test))


# MixBag


def recorded_batch(sizes=(6, 10), weights=(1.0, 0.5), seed=0):
    """Features number the instances; the proportions of a bag are those of drawn labels."""
    rng = np.random.default_rng(seed)
    bag = np.repeat(np.arange(len(sizes)), sizes)
    labels = rng.integers(0, 3, len(bag))
    labels[:3] = [0, 1, 2]
    X = np.stack([np.arange(len(bag)), labels], axis=1).astype(np.float32)
    recorded = class_proportions(labels, bag, n_bags=len(sizes), n_classes=3)
    return batch_of(X, bag, recorded, weights=list(weights))


@pytest.fixture
def dictated(monkeypatch):
    """Both bags are mixed, with share 0.5 and 0.2 of their own; parts are the first instances."""
    numbers = iter([torch.tensor([0.7, 0.9]), torch.tensor(0.5), torch.tensor(0.2)])
    monkeypatch.setattr("torch.rand", lambda *size, generator: next(numbers))
    monkeypatch.setattr("torch.randperm", lambda n, generator: torch.arange(n))


def test_mixed_target_and_interval_by_hand(dictated):
    batch = recorded_batch()
    mixed = MixBag(confidence=0.95)(batch)
    # bag 0: 3 of its 6 and 5 of the 10 of bag 1; bag 1: 2 of its 10 and 5 (0.8 * 6 = 4.8) of bag 0
    assert mixed.X[:, 0].tolist() == [0, 1, 2, 6, 7, 8, 9, 10, 6, 7, 0, 1, 2, 3, 4]
    assert mixed.bag.tolist() == [0] * 8 + [1] * 7
    p, q = batch.lower.numpy()
    for row, (share_p, n_p, n_q) in enumerate([(3 / 8, 3, 5), (5 / 7, 5, 2)]):
        middle = share_p * p + (1 - share_p) * q
        half = norm.ppf(0.975) * (
            share_p * np.sqrt(p * (1 - p) / n_p) + (1 - share_p) * np.sqrt(q * (1 - q) / n_q)
        )
        np.testing.assert_allclose(mixed.lower[row], np.clip(middle - half, 0, 1))
        np.testing.assert_allclose(mixed.upper[row], np.clip(middle + half, 0, 1))
        assert mixed.weights[row] == pytest.approx(share_p * 1.0 + (1 - share_p) * 0.5)


def test_confidence_of_zero_gives_no_width(dictated):
    batch = recorded_batch()
    mixed = MixBag(confidence=0.0)(batch)
    torch.testing.assert_close(mixed.lower, mixed.upper)
    p, q = batch.lower
    torch.testing.assert_close(mixed.lower[0], p * 3 / 8 + q * 5 / 8)
    torch.testing.assert_close(mixed.lower.sum(dim=1), torch.ones(2, dtype=torch.float64))


def test_parts_come_without_replacement_from_a_bag_and_its_partner():
    batch = recorded_batch(sizes=(6, 10, 1, 20), weights=(1.0,) * 4)
    n_mixed = 0
    for _ in range(50):
        mixed = MixBag()(batch)
        assert mixed.n_bags == 4
        for bag in range(4):
            instances = mixed.X[mixed.bag == bag][:, 0].int()
            assert len(instances) == len(set(instances.tolist()))
            origin = set(batch.bag[instances].tolist())
            if origin == {bag}:
                assert len(instances) == (batch.bag == bag).sum(), "whole"
                assert_array_equal(mixed.lower[bag], batch.lower[bag])
            else:
                n_mixed += 1
                assert bag in origin and len(origin) == 2
    assert 60 < n_mixed < 140, "half of the bags stay whole"


@pytest.mark.slow
def test_shares_are_uniform_and_intervals_hold_the_true_shares_as_often_as_stated():
    batch = recorded_batch(sizes=(400, 400), weights=(1.0, 1.0))
    inside, own = [], []
    for _ in range(300):
        mixed = MixBag(confidence=0.8)(batch)
        for bag in range(2):
            labels = mixed.X[mixed.bag == bag][:, 1].long()
            is_own = batch.bag[mixed.X[mixed.bag == bag][:, 0].long()] == bag
            if not is_own.all():
                true = torch.bincount(labels, minlength=3) / len(labels)
                inside.append((true >= mixed.lower[bag]) & (true <= mixed.upper[bag]))
                own.append(is_own.double().mean())
    assert torch.stack(inside).double().mean() > 0.8
    assert np.quantile(own, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.08)


def test_a_bag_alone_stays_whole():
    batch = recorded_batch(sizes=(6,), weights=(2.0,))
    for _ in range(5):
        mixed = MixBag()(batch)
        assert_array_equal(mixed.X, batch.X)
        assert_array_equal(mixed.lower, batch.lower)
        assert_array_equal(mixed.weights, batch.weights)


def test_intervals_are_mixed_end_by_end(dictated):
    batch = recorded_batch()
    wide = replace(batch, lower=batch.lower - 0.05, upper=batch.upper + 0.1)
    mixed = MixBag(confidence=0.0)(wide)
    torch.testing.assert_close(mixed.upper - mixed.lower, torch.full_like(mixed.lower, 0.15))


def test_confidence_is_checked_and_a_fit_uses_the_augmentation():
    with pytest.raises(ValueError, match="confidence"):
        MixBag(confidence=1.0)(recorded_batch())
    data = make_bags(n_bags=6, random_state=0)
    settings = {"max_epochs": 3, "random_state": 0}
    plain = ProportionLossClassifier(**settings)
    mixed = ProportionLossClassifier(augmentation=MixBag(), **settings)
    assert mixed.get_params()["augmentation__confidence"] == 0.99
    plain, mixed = (c.fit(data.X_labeled, data.y, data.bags) for c in (plain, mixed))
    assert not np.array_equal(plain.predict_proba(data.X_test), mixed.predict_proba(data.X_test))


class TestWeakRecords:
    LOGITS = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def batch(self, record, **settings):
        batch = batch_of(self.LOGITS, np.repeat([0, 1], [5, 7]), **settings)
        return replace(batch, record=record)

    def test_partial_records_by_hand(self):
        shares = np.array([[0.3, 0.7, 0.0], [0.2, 0.2, 0.6]])
        among = np.array([[True, True, False], [True, True, True]])
        batch = self.batch(PartialRecord(shares, shares, shares, among), weights=[1.0, 0.5])
        means = batch.bag_means(self.LOGITS.softmax(dim=1)).numpy()
        tumor = means[0, :2] / means[0, :2].sum()
        each = [
            (shares[0, :2] * np.log(shares[0, :2] / tumor)).sum(),
            (shares[1] * np.log(shares[1] / means[1])).sum(),
        ]
        loss = MeanProportionLoss()(PassThrough(), batch).item()
        assert loss == pytest.approx((each[0] + 0.5 * each[1]) / 2)

    def test_nothing_where_predictions_are_in_the_recorded_order(self):
        means = self.batch(None).bag_means(self.LOGITS.softmax(dim=1)).numpy()
        ranks = np.argsort(np.argsort(-means, axis=1), axis=1) + 1
        for record, is_wrong in ((OrderRecord(ranks), False), (OrderRecord(4 - ranks), True)):
            loss = MeanProportionLoss()(PassThrough(), self.batch(record)).item()
            assert (loss > 1e-3) == is_wrong

    def test_an_order_pulls_towards_the_nearest_shares(self):
        batch = self.batch(OrderRecord(np.array([[3, 2, 1], [3, 2, 1]])))
        means = batch.bag_means(self.LOGITS.softmax(dim=1))
        nearest = torch.as_tensor(batch.record.nearest(means.numpy()))
        exact = replace(batch, record=None, lower=nearest, upper=nearest)
        loss = MeanProportionLoss()
        torch.testing.assert_close(loss(PassThrough(), batch), loss(PassThrough(), exact))

    def test_labels_by_assignment_keep_the_shares_among_the_recorded_classes(self):
        shares = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
        among = np.array([[True, True, False], [True, True, False]])
        batch = self.batch(PartialRecord(shares, shares, shares, among))
        targets = AssignmentLoss(0.5, 0.0, None).targets(self.LOGITS, batch)
        counts = torch.zeros(2, 3, dtype=torch.float64).index_add(0, batch.bag, targets)
        assert abs(counts[0, 0] - counts[0, 1]) <= 1 and counts[1, 1] == 0
        predicted = batch.bag_means(self.LOGITS.softmax(dim=1))[:, 2] * torch.tensor([5, 7])
        assert (counts[:, 2] - predicted).abs().max() < 1


@pytest.mark.slow
def test_partial_records_are_worth_nearly_as_much_as_complete_ones():
    """Each fit with records is far above the one without: the share of the fourth class is not recorded."""
    scores: dict[str, list] = {"without": [], "complete": [], "partial": [], "predominant": []}
    for seed in range(2):
        data = make_bags(
            n_bags=24, class_separation=1.1, slide_shift=1.3, n_labeled_slides=3, random_state=seed
        )
        bags, shares = data.bags, data.bags.proportions
        has_some = shares[:, :3].sum(axis=1) > 0
        bags, shares = bags.select(bags.names[has_some]), shares[has_some]
        among = shares[:, :3] / shares[:, :3].sum(axis=1, keepdims=True)
        given = {
            "without": None,
            "complete": bags,
            "partial": Bags(bags.X, bags.index, among, among=[0, 1, 2]),
            "predominant": Bags.from_predominant(
                bags.X, bags.index, shares.argmax(axis=1), classes=range(4)
            ),
        }
        for name, each in given.items():
            clf = ProportionLossClassifier(max_epochs=15, random_state=0)
            clf.fit(data.X_labeled, data.y, each)
            scores[name].append(clf.score(data.X_test, data.y_test))
    means = {name: np.mean(values) for name, values in scores.items()}
    assert means["partial"] > means["complete"] - 0.05
    assert means["predominant"] > means["complete"] - 0.1
    assert min(means["partial"], means["predominant"]) > means["without"] + 0.1
