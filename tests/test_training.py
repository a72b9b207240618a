"""Validation split, oversampling, early stopping."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from proportion_ssl import HeadClassifier
from proportion_ssl.nets.data import SignedDataset
from proportion_ssl.nets.training import (
    oversample,
    split_validation,
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
    with pytest.raises(ValueError, match="No choice of 1 of the 2 labelled slides"):
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
    logits = module(validation.parts[0][40:])
    kept = net.criterion_(logits, validation.signed[40:]).item()
    assert kept == pytest.approx(min(losses), rel=1e-5)


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
