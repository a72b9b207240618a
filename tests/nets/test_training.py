"""Validation split, oversampling, early stopping."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from skorch.helper import predefined_split

from proportion_ssl import HeadClassifier
from proportion_ssl.nets.signed_dataset import BatchesInOrder, SignedDataset
from proportion_ssl.nets.training import (
    oversample,
    split_validation,
    train_epochs,
    train_until_settled,
    training_rows,
)

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


@given(LABELS, st.floats(0, 0.99), st.integers(0, 9))
def test_split_by_patches(y, fraction, seed):
    train, validation = split_validation(y, fraction, np.random.RandomState(seed))
    assert_array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(y)))
    for label, count in zip(*np.unique(y, return_counts=True), strict=True):
        assert (y[validation] == label).sum() == int(fraction * count + 1e-9)
    assert set(y[train]) == set(y)


@pytest.mark.parametrize("seed", range(5))
def test_split_by_slides_keeps_slides_whole_and_classes_in_training(seed):
    slides = np.repeat(np.arange(8), 10)
    y = np.random.default_rng(seed).integers(0, 3, 80)
    train, validation = split_validation(y, 0.25, np.random.RandomState(seed), groups=slides)
    assert len(set(slides[validation])) == 2
    assert not set(slides[train]) & set(slides[validation])
    assert set(y[train]) == {0, 1, 2}


def test_split_that_would_lose_a_class():
    y, slides = np.array([0, 0, 1, 1]), np.array([1, 1, 2, 2])
    with pytest.raises(ValueError, match="No choice of 1 of the 2 labeled slides"):
        split_validation(y, 0.25, np.random.RandomState(0), groups=slides)


@given(LABELS, st.integers(0, 9))
def test_oversampling_balances_and_keeps_all(labels, seed):
    positions = oversample(labels, np.random.RandomState(seed))
    assert set(positions) == set(range(len(labels)))
    assert len(set(np.bincount(labels[positions])[np.unique(labels)])) == 1
    for label in np.unique(labels):
        times = np.bincount(positions)[labels == label]
        assert times.max() - times.min() <= 1


def test_rows_without_label_are_left_out_and_negatives_taken_once():
    signed = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [-1, 0], [0, 0], [1, -1]])
    rows = training_rows(signed, np.random.RandomState(0), balance=True)
    times = np.bincount(rows, minlength=7)
    assert times.tolist() == [1, 1, 1, 4, 1, 0, 1]
    plain = training_rows(signed, np.random.RandomState(0), balance=False)
    assert sorted(plain) == [0, 1, 2, 3, 4, 6]


def make_net(n=60, **settings):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 5)).astype(np.float32)
    codes = (X[:, 0] + rng.normal(0, 1, n) > 0).astype(int)
    signed = np.eye(2, dtype=np.int8)[codes]
    torch.manual_seed(0)
    net = HeadClassifier(**settings)
    net.initialize_for(X, np.arange(40), np.arange(2))
    return net, SignedDataset(X, signed, np.arange(40)), SignedDataset(X, signed, np.arange(40, n))


def test_the_best_weights_are_kept_and_patience_ends():
    net, train, validation = make_net(lr=0.3)
    train_until_settled(net, train, validation, max_epochs=200, patience=4)
    losses = net.history[:, "valid_loss"]
    assert len(losses) == int(np.argmin(losses)) + 1 + 4 < 200
    module = net.module_.eval()
    logits = module(torch.from_numpy(validation.parts[0][40:]))
    kept = net.criterion_(logits, torch.from_numpy(validation.signed[40:])).item()
    assert kept == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("size", [None, 40, 1000])
def test_data_that_fit_into_an_epoch_are_taken_as_they_are(size):
    _, data, _ = make_net()
    assert data.random_part(size) is data


def test_an_epoch_of_more_data_is_a_new_random_part_of_them():
    X = np.arange(20.0, dtype=np.float32).reshape(10, 2)
    data = SignedDataset([X[:4], X[4:]], np.arange(10)[:, np.newaxis], rows=[3, 3, 0, 7, 9])
    counts = np.zeros(10)
    for _ in range(200):
        part = data.random_part(3)
        rows = part.rows.tolist()
        assert len(part) == 3 and all(rows.count(row) <= [3, 3, 0, 7, 9].count(row) for row in rows)
        batch, signed = part.__getitems__(range(3))
        assert batch.numpy().tolist() == X[rows].tolist() and signed[:, 0].tolist() == rows
        counts += np.bincount(rows, minlength=10)
    assert len(data) == 5
    assert np.abs(counts / 200 - [0.6, 0, 0, 1.2, 0, 0, 0, 0.6, 0, 0.6]).max() < 0.2


def test_the_size_of_an_epoch_bounds_the_steps():
    net, train, validation = make_net(batch_size=8)
    train_epochs(net, train, validation, 3, epoch_size=20)
    assert [
        sum(batch["train_batch_size"] for batch in e["batches"] if "train_batch_size" in batch)
        for e in net.history
    ] == [20] * 3
    train_until_settled(net, train, validation, max_epochs=2, patience=2, epoch_size=17)
    assert (
        sum(
            batch["train_batch_size"]
            for batch in net.history[-1]["batches"]
            if "train_batch_size" in batch
        )
        == 17
    )


@pytest.mark.parametrize("rows", [None, range(2, 9), [0, 2, 1, 9, 8]])
@pytest.mark.parametrize("size", [1, 3, 100])
def test_data_in_order(rows, size):
    X, signed = np.random.default_rng(0).normal(size=(10, 2)), np.eye(10, dtype=np.int8)
    for parts in (X, [X[:4], X[4:]]):
        data = SignedDataset(parts, signed, rows)
        in_order = BatchesInOrder(data, size)
        batches = list(in_order)
        assert len(list(in_order)) == len(batches) == len(in_order)
        assert {len(batch) for batch, _ in batches[:-1]} <= {size}
        taken = np.arange(10) if rows is None else np.array(rows)
        assert np.array_equal(np.concatenate([b for b, _ in batches]), X[taken].astype(np.float32))
        assert np.array_equal(np.concatenate([s for _, s in batches]), signed[taken])


def test_every_epoch_of_a_loop_is_validated():
    net, train, validation = make_net()
    net.train_split = predefined_split(validation)
    net.fit_loop(train, epochs=3)
    assert all("valid_loss" in epoch for epoch in net.history)


def test_without_validation_all_epochs_are_used():
    net, train, _ = make_net()
    train_until_settled(net, train, None, max_epochs=7, patience=1)
    assert len(net.history) == 7


def test_a_loss_that_is_never_finite():
    net, train, validation = make_net()
    with torch.no_grad():
        net.module_.linear.weight.fill_(np.nan)
    with pytest.raises(FloatingPointError, match="never a finite number"):
        train_until_settled(net, train, validation, max_epochs=3, patience=2)


def test_only_the_heads_weights_decay():
    """Without a gradient, a step of decoupled decay multiplies by 1 - lr * decay."""
    net, _, _ = make_net(lr=0.01, weight_decay=5.0)
    linear = net.module_.linear
    weight, bias = linear.weight.detach().clone(), linear.bias.detach().clone()
    for parameter in net.module_.parameters():
        parameter.grad = torch.zeros_like(parameter)
    net.optimizer_.step()
    torch.testing.assert_close(linear.weight.detach(), weight * (1 - 0.01 * 5.0))
    assert_array_equal(linear.bias.detach(), bias)


def test_default_decay_follows_the_number_of_features():
    net, _, _ = make_net()
    decays = sorted(group["weight_decay"] for group in net.optimizer_.param_groups)
    assert decays == [0, pytest.approx(3 * (5 / 1280) ** 0.5)]
    assert all(group["decoupled_weight_decay"] for group in net.optimizer_.param_groups)
    plain, _, _ = make_net(optimizer=torch.optim.SGD, lr=0.1)
    assert {group["weight_decay"] for group in plain.optimizer_.param_groups} == {0}


def test_gathered_rows_are_the_same_rows():
    X = np.arange(20, dtype=np.float32).reshape(10, 2)
    data = SignedDataset(X, np.arange(10)[:, np.newaxis], rows=[3, 9, 0])
    gathered = data.gathered()
    for one, other in zip(data.gather(np.arange(3)), gathered.gather(np.arange(3)), strict=True):
        assert_array_equal(one, other)
    ((batch, _),) = BatchesInOrder(gathered, 4)
    assert np.shares_memory(batch.numpy(), gathered.parts[0])
    several = SignedDataset([X, X], rows=[3, 12])
    images = SignedDataset(np.zeros((3, 4, 4, 3), np.uint8))
    assert several.gathered() is several
    assert images.gathered() is images
