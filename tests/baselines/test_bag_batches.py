"""Labeled batches and batches of bags side by side: what is drawn, and what a step pays for."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn

from proportion_ssl import Bags, HeadClassifier
from proportion_ssl.baselines import (
    BagBatch,
    BagLoss,
    BagStream,
    TwoStreamClassifier,
    TwoStreamLoss,
    ramp,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.losses import PositiveLoss
from proportion_ssl.nets.signed_dataset import SignedDataset

DATA = make_bags(n_bags=7, bag_size=(1, 30), n_features=3, n_labeled_slides=3, random_state=0)


def numbered(sizes=(1, 5, 12, 3, 7)):
    """Bags whose instances bear their number and that of their bag; instances of a bag lie apart."""
    rng = np.random.default_rng(0)
    index = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    X = np.stack([np.arange(len(index)), index], axis=1).astype(np.float32)
    proportions = rng.dirichlet(np.ones(3), len(sizes))
    return Bags(X, index, proportions, weights=rng.random(len(sizes)), rounding_step=0.1)


def stream(bags, labeled=((0.0, 0.0), (2.0, 4.0)), **settings):
    settings = {"bags_per_batch": 2, "instances_per_bag": 6, "n_labeled": 4, **settings}
    labeled = SignedDataset(np.array(labeled, dtype=np.float32))
    return BagStream(bags, labeled, random_state=np.random.RandomState(0), **settings)


def test_every_pass_takes_each_bag_once_in_a_new_order():
    bags = numbered()
    batches = stream(bags)
    assert batches.n_batches == 3
    passes = []
    for _ in range(4):
        drawn = [batches.draw() for _ in range(3)]
        assert [batch.n_bags for batch in drawn] == [2, 2, 1]
        order = [
            int(batch.X[batch.bag == bag][0, 1]) for batch in drawn for bag in range(batch.n_bags)
        ]
        assert sorted(order) == list(range(bags.n_bags))
        passes.append(tuple(order))
    assert len(set(passes)) > 1


def test_instances_stay_with_what_is_recorded_of_their_bag():
    bags = numbered()
    batches = stream(bags)
    for _ in range(6):
        batch = batches.draw()
        for bag in range(batch.n_bags):
            (number,) = set(batch.X[batch.bag == bag][:, 1].int().tolist())
            if bags.sizes[number] <= 6:
                assert_array_equal(batch.lower[bag], bags.lower[number])
                assert_array_equal(batch.upper[bag], bags.upper[number])
            assert batch.weights[bag] == pytest.approx(bags.weights[number])


def test_of_large_bags_another_part_each_time_without_replacement():
    bags = numbered()
    batches, seen = stream(bags), {number: set() for number in range(bags.n_bags)}
    for _ in range(30):
        batch = batches.draw()
        for bag in range(batch.n_bags):
            rows = batch.X[batch.bag == bag]
            instances, number = rows[:, 0].int().tolist(), int(rows[0, 1])
            assert len(set(instances)) == len(instances) == min(6, bags.sizes[number])
            seen[number] |= set(instances)
    for number, instances in seen.items():
        assert instances == set(np.flatnonzero(bags.index == number))


def test_labeled_instances_and_their_spread():
    batches = stream(numbered(), labeled=[[0.0, 0.0], [2.0, 4.0], [4.0, 2.0]], n_labeled=50)
    batch = batches.draw()
    assert set(map(tuple, batch.labeled.tolist())) == {(0, 0), (2, 4), (4, 2)}
    torch.testing.assert_close(batch.scale, torch.full((2,), np.std([0, 2, 4]).astype(np.float32)))
    assert_array_equal(batch.everything, torch.cat([batch.X, batch.labeled]))


def test_more_bags_per_batch_than_there_are():
    batches = stream(numbered(), bags_per_batch=99)
    assert batches.n_batches == 1
    assert batches.draw().n_bags == 5


def test_same_random_state_same_batches():
    first, second = stream(numbered()), stream(numbered())
    for _ in range(5):
        one, other = first.draw(), second.draw()
        assert_array_equal(one.X, other.X)
        assert_array_equal(one.labeled, other.labeled)


def test_images_are_drawn_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    bags = Bags(images, np.repeat([0, 1, 2], 3), np.full((3, 2), 0.5))
    labeled = SignedDataset(images[:4])
    batches = BagStream(
        *(bags, labeled),
        bags_per_batch=2,
        instances_per_bag=2,
        n_labeled=3,
        random_state=np.random.RandomState(0),
    )
    batch = batches.draw()
    assert batch.X.dtype == batch.labeled.dtype == torch.uint8
    assert batch.X.shape == (4, 4, 4, 3)
    assert batch.scale.shape == ()


def test_bag_means_against_a_loop():
    batch = stream(numbered(), bags_per_batch=4).draw()
    values = torch.randn(len(batch.X), 3, dtype=torch.float64)
    expected = [values[batch.bag == bag].mean(dim=0) for bag in range(4)]
    torch.testing.assert_close(batch.bag_means(values), torch.stack(expected))


# The criterion


class Constant(BagLoss):
    """Costs the same whatever the batch; remembers what it was called with."""

    def __init__(self, cost=2.0):
        super().__init__()
        self.cost, self.calls = cost, []

    def start(self, module, n_steps):
        self.calls.append(("start", module, n_steps))

    def forward(self, module, batch):
        assert isinstance(batch, BagBatch)
        self.calls.append(("forward", module, batch.n_bags))
        return torch.tensor(self.cost)

    def finish(self, module):
        self.calls.append(("finish", module, None))


def test_criterion_pays_for_bags_in_training_only():
    module, bag_loss = nn.Linear(2, 3), Constant()
    criterion = TwoStreamLoss(
        *(PositiveLoss(), bag_loss, module, stream(numbered())),
        weight=5.0,
        ramp_up=0.5,
        n_steps=8,
    )
    logits, signed = torch.randn(4, 3), torch.eye(3)[[0, 1, 2, 0]]
    labeled = PositiveLoss()(logits, signed)
    assert criterion.eval()(logits, signed) == labeled
    criterion.train()
    paid = [float(criterion(logits, signed) - labeled) for _ in range(8)]
    assert paid == pytest.approx([10 * ramp(step, 4) for step in range(8)], rel=1e-4)
    assert criterion.eval()(logits, signed) == labeled
    assert [call[0] for call in bag_loss.calls] == ["start"] + ["forward"] * 8
    assert not list(criterion.parameters()), "the net is no part of its own criterion"


def test_ramp():
    values = [ramp(step, 10) for step in range(15)]
    assert values[0] == pytest.approx(np.exp(-5))
    assert values[5] == pytest.approx(np.exp(-1.25))
    assert values[10:] == [1.0] * 5
    assert all(np.diff(values[:11]) > 0)
    assert ramp(0, 0) == 1.0


# A real fit


class System(TwoStreamClassifier):
    def __init__(self, estimator=None, *, cost=2.0, **kwargs):
        super().__init__(estimator, **kwargs)
        self.cost = cost

    def _make_bag_loss(self):
        self.loss_ = Constant(self.cost)
        return self.loss_


class Weighed(TwoStreamLoss):
    """Writes down the weight of every step."""

    weights: list = []  # noqa: RUF012

    def forward(self, logits, signed):
        loss = super().forward(logits, signed)
        if self.training:
            self.weights.append(float((loss - self.labeled_loss(logits, signed)).detach()) / 2)
        return loss


def test_ramp_ends_at_its_share_of_the_steps_of_a_fit(monkeypatch):
    monkeypatch.setattr("proportion_ssl.baselines._two_streams.TwoStreamLoss", Weighed)
    monkeypatch.setattr(Weighed, "weights", [])
    clf = System(weight=3.0, ramp_up=0.5, max_epochs=6, random_state=0)
    clf.fit(DATA.X_labeled, DATA.y, DATA.bags)
    n_steps = 6 * 4  # 7 bags, 2 in a batch
    assert clf.loss_.calls[0][2] == n_steps
    expected = [3 * ramp(step, n_steps / 2) for step in range(n_steps)]
    assert Weighed.weights == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert Weighed.weights[12] == pytest.approx(3.0) and Weighed.weights[11] < 3.0


def test_order_of_calls_in_a_fit():
    clf = System(max_epochs=2, random_state=0).fit(DATA.X_labeled, DATA.y, DATA.bags)
    kinds, modules, _ = zip(*clf.loss_.calls, strict=True)
    assert kinds == ("start", *["forward"] * 8, "finish")
    assert set(modules) == {clf.estimator_.module_}
    assert len(clf.estimator_.history) == 2


def test_weight_of_zero_is_a_bag_loss_without_gradient():
    """Neither changes anything but the recorded loss."""
    settings = {"max_epochs": 3, "random_state": 0}
    none = System(weight=0.0, **settings).fit(DATA.X_labeled, DATA.y, DATA.bags)
    constant = System(weight=1.0, cost=7.0, **settings).fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert_array_equal(none.predict_proba(DATA.X_test), constant.predict_proba(DATA.X_test))
    losses = [clf.estimator_.history[:, "train_loss"] for clf in (none, constant)]
    assert np.subtract(*losses[::-1]) == pytest.approx([7.0] * 3, rel=1e-4)
    validation = [clf.estimator_.history[:, "valid_loss"] for clf in (none, constant)]
    assert validation[0] == validation[1]


@pytest.mark.parametrize("cost", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_ends_the_fit(cost):
    with pytest.raises(FloatingPointError, match=r"training loss of epoch 1 is (nan|inf); lower"):
        System(cost=cost, max_epochs=3).fit(DATA.X_labeled, DATA.y, DATA.bags)


def test_fitted_net_keeps_no_bags():
    few = System(max_epochs=1, random_state=0).fit(DATA.X_labeled, DATA.y, DATA.bags)
    many = make_bags(n_bags=200, n_features=3, random_state=0).bags
    del few.loss_
    size = len(pickle.dumps(few))
    other = System(max_epochs=1, random_state=0).fit(DATA.X_labeled, DATA.y, many)
    del other.loss_
    assert not isinstance(other.estimator_.criterion_, TwoStreamLoss)
    assert abs(len(pickle.dumps(other)) - size) < many.X.nbytes / 10


class Recording(System):
    """Writes down the labeled rows of every epoch."""

    def _labeled_data(self, X, signed, rows, random_state):
        self.epochs_ = [*getattr(self, "epochs_", []), rows]
        return super()._labeled_data(X, signed, rows, random_state)


@pytest.mark.parametrize("batch_size", [4, 32])
def test_labeled_batches_go_on_where_the_last_epoch_ended(batch_size):
    """Fewer or more batches than the labeled instances fill: in the end all count the same."""
    clf = Recording(
        max_epochs=9,
        random_state=0,
        batch_size=batch_size,
        oversample=False,
        validation_fraction=0,
    ).fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert [len(rows) for rows in clf.epochs_] == [4 * batch_size] * 9
    times = np.bincount(np.concatenate(clf.epochs_), minlength=len(DATA.y))
    assert times.max() - times.min() <= 1
    assert times.sum() == 9 * 4 * batch_size


def test_batches_of_all_labeled_instances():
    """skorch's batch size of -1."""
    clf = Recording(HeadClassifier(batch_size=-1), max_epochs=2, random_state=0, oversample=False)
    clf.fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert len(clf.epochs_[0]) % 4 == 0 and len(clf.epochs_[0]) // 4 <= len(DATA.y)
    assert [call[0] for call in clf.loss_.calls].count("forward") == 8


def test_constructor_names_all_parameters_once():
    clf = System(cost=3.0, weight=0.5, max_epochs=7)
    assert clf.get_params()["cost"] == 3.0 and clf.get_params()["weight"] == 0.5
    assert set(clf.get_params()) == {"cost", *TwoStreamClassifier().get_params()}
    assert repr(clf) == "System(cost=3.0, max_epochs=7, weight=0.5)"
    with pytest.raises(TypeError, match="costs"):
        System(costs=1.0)


def test_records_come_along_with_their_bags():
    plain = numbered()
    order = [("b", "a"), "c", "a", ("c", "a", "b"), "b"]
    ordered = Bags.from_predominant(plain.X, plain.index, order, classes=["a", "b", "c"])
    shares = plain.proportions[:, :2] / plain.proportions[:, :2].sum(axis=1, keepdims=True)
    among = Bags(plain.X, plain.index, shares, among=["a", "b"])
    for bags in (ordered, among.with_classes(np.array(["a", "b", "c"]))):
        batches = stream(bags)
        for _ in range(6):
            batch = batches.draw()
            means = torch.full((batch.n_bags, 3), 1 / 3, dtype=torch.float64)
            for bag, (lower, upper) in enumerate(zip(*batch.ends(means), strict=True)):
                number = int(batch.X[batch.bag == bag][0, 1])
                if bags.sizes[number] > 6:
                    continue
                expected = bags.record[[number]].ends(means[:1].numpy())
                assert_array_equal(lower, expected[0][0])
                assert_array_equal(upper, expected[1][0])


class TestParts:
    """Shares in random parts of a bag: counts of each class are hypergeometric."""

    SIZES, LABELS = (60, 40), np.repeat([0, 1, 2, 0, 1, 2], [30, 24, 6, 10, 0, 30])

    def bags(self):
        index = np.repeat([0, 1], self.SIZES)
        shares = np.array([[0.5, 0.4, 0.1], [0.25, 0.0, 0.75]])
        X = np.stack([self.LABELS, index], axis=1).astype(np.float32)
        return Bags(X, index, shares)

    def drawn_shares(self, batch):
        labels = nn.functional.one_hot(batch.X[:, 0].long(), 3).double()
        return batch.bag_means(labels), batch.X[:, 1].long()

    def test_mean_over_the_draws_is_the_recorded_share_and_intervals_reach_one_deviation(self):
        bags, n_drawn, found, ends = self.bags(), 15, [], {}
        batches = stream(bags, instances_per_bag=n_drawn)
        for _ in range(1500):
            batch = batches.draw()
            shares, bag = self.drawn_shares(batch)
            numbers = [int(bag[batch.bag == b][0]) for b in range(2)]
            found.append(shares[np.argsort(numbers)].numpy())
            ends.update({n: (batch.lower[b], batch.upper[b]) for b, n in enumerate(numbers)})
        found = np.array(found)
        n, p = np.array([self.SIZES]).T, bags.proportions
        deviation = np.sqrt(p * (1 - p) / n_drawn * (n - n_drawn) / (n - 1))
        np.testing.assert_allclose(found.mean(axis=0), p, atol=0.01)
        np.testing.assert_allclose(found.std(axis=0), deviation, rtol=0.1)
        for number, (lower, upper) in ends.items():
            np.testing.assert_allclose(lower, p[number] - deviation[number], atol=1e-12)
            np.testing.assert_allclose(upper, p[number] + deviation[number], atol=1e-12)

    @pytest.mark.parametrize("error", [{}, {"rounding_step": 0.1}])
    def test_whole_bags_are_compared_with_what_is_recorded_to_the_bit(self, error):
        bags = self.bags()
        bags = Bags(bags.X, bags.index, bags.proportions, **error)
        batch = stream(bags, instances_per_bag=60).draw()
        order = [int(batch.X[batch.bag == b][0, 1]) for b in range(2)]
        assert_array_equal(batch.lower, bags.lower[order])
        assert_array_equal(batch.upper, bags.upper[order])

    def test_a_class_that_is_absent_or_alone_stays_so(self):
        X = np.zeros((20, 2), dtype=np.float32)
        batch = stream(Bags(X, [0] * 20, [[0.0, 1.0]])).draw()
        assert_array_equal(batch.lower, batch.upper)

    def test_spread_of_shares_among_some_classes_grows_as_these_are_fewer(self):
        X = np.zeros((61, 2), dtype=np.float32)
        bags = Bags(X, [0] * 61, [[0.5, 0.5]], among=["a", "b"]).with_classes(
            np.array(["a", "b", "c"])
        )
        record = stream(bags, instances_per_bag=16).draw().record
        for mass in (1.0, 0.25):
            lower, upper = record.within(np.array([[mass]]))
            deviation = np.sqrt(0.25 / (16 * mass) * 45 / 60)
            np.testing.assert_allclose(upper[0, :2] - 0.5, deviation)
            np.testing.assert_allclose(0.5 - lower[0, :2], deviation)
