"""Training of a linear head in numpy against skorch's loop and torch's gradients."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from skorch.callbacks import Callback, GradientNormClipping

from proportion_ssl import HeadClassifier
from proportion_ssl.losses import (
    NegativeLoss,
    PositiveLoss,
    SignedLabelLoss,
    multi_negative_loss,
    negative_loss,
)
from proportion_ssl.nets import linear_steps
from proportion_ssl.nets.head import LinearHead
from proportion_ssl.nets.random_numbers import seeded
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.signed_gradient import signed_label_gradient
from proportion_ssl.nets.training import train_epochs

N_CLASSES = 4


def signed_labels(rng, n):
    """Positive, negative, several negative, weighted and no labels."""
    signed = np.eye(N_CLASSES, dtype=np.float32)[rng.integers(0, N_CLASSES, n)]
    signed[::3] *= -1
    signed[::6] = np.minimum(signed[::6], -np.eye(N_CLASSES)[rng.integers(0, N_CLASSES, n)[::6]])
    signed[::5] *= 0.3
    signed[7] = 0
    return signed


class Lazy:
    """Features that are read when they are asked for."""

    def __init__(self, X):
        self.X, self.shape = X, X.shape

    def __len__(self):
        return len(self.X)

    def __getitem__(self, rows):
        return self.X[rows].astype(np.float16)


def trained(monkeypatch, *, known, epochs=6, n=300, seed=0, parts=None, **settings):
    rng = np.random.default_rng(0)
    X = (3 * rng.normal(size=(n, 12)) + 1).astype(np.float32)
    if not known:
        monkeypatch.setattr("proportion_ssl.nets.classifiers.is_known", lambda *_: False)
    net = HeadClassifier(**{"dropout": 0.0, "lr": 0.03, **settings})
    data = SignedDataset(X if parts is None else parts(X), signed_labels(rng, n))
    with seeded(seed):
        net.initialize_for(X, np.arange(n), np.arange(N_CLASSES))
        train_epochs(net, data, data, epochs)
    monkeypatch.undo()
    return net, data


def states(net):
    module = [value.numpy() for value in net.module_.state_dict().values()]
    state = net.optimizer_.state_dict()["state"]
    return module + [np.asarray(value) for key in sorted(state) for value in state[key].values()]


@pytest.mark.parametrize("loss", [negative_loss, multi_negative_loss])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.0},
        {"optimizer__decoupled_weight_decay": False, "weight_decay": 0.1},
        {"optimizer__betas": (0.8, 0.99), "optimizer__eps": 1e-3, "batch_size": 37},
        {"optimizer__param_groups": [("linear.bias", {"lr": 0.001})], "batch_size": 150},
        {"parts": lambda X: [X[:90], X[90:130], X[130:]], "batch_size": 150},
        {"parts": lambda X: [X[:90], Lazy(X[90:])], "batch_size": 150},
        {"parts": lambda X: np.asfortranarray(X), "iterator_train__drop_last": True},
        {"iterator_train__shuffle": False},
    ],
    ids=[
        *("default", "no decay", "decay by the gradient", "betas", "two learning rates"),
        *("several arrays", "lazily read", "by columns, without the rest", "in order"),
    ],
)
def test_same_as_the_loop_of_skorch(monkeypatch, settings, loss):
    settings = {**settings, "criterion__negative": NegativeLoss(loss)}
    ours, _ = trained(monkeypatch, known=True, **settings)
    theirs, _ = trained(monkeypatch, known=False, **settings)
    for one, other in zip(states(ours), states(theirs), strict=True):
        assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    for name in ("train_loss", "valid_loss"):
        assert_allclose(ours.history[:, name], theirs.history[:, name], rtol=1e-5)
    batches = ours.history[:, "batches", :, ("train_loss", "train_batch_size")]
    expected = theirs.history[:, "batches", :, ("train_loss", "train_batch_size")]
    assert_allclose(batches, expected, rtol=1e-4)


def test_logits_that_differ_much():
    """Probabilities of 0 and 1 in single precision, on both sides of a label."""
    logits = np.array([[200, -200, 0], [-200, 200, 150], [0, 90, 300]], dtype=np.float32)
    signed = np.array([[-1, 0, 0], [0, -1, -1], [0, 1, 0]])
    loss, gradient = signed_label_gradient(logits, signed, weigh_down=False)
    exact = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    expected = SignedLabelLoss(negative=NegativeLoss(negative_loss))(exact, torch.tensor(signed))
    expected.backward()
    assert_allclose(loss, expected.item(), rtol=1e-12)
    assert_allclose(gradient, exact.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_an_interrupted_epoch_leaves_the_steps_that_were_done():
    class Failing(Lazy):
        def __getitem__(self, rows):
            if self.n_left == 0:
                raise OSError("gone")
            self.n_left -= 1
            return super().__getitem__(rows)

    X = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    features = Failing(X)
    net = HeadClassifier(batch_size=50)
    net.initialize_for(X, np.arange(300), np.arange(N_CLASSES))
    before = net.module_.linear.weight.detach().clone()
    features.n_left = 3
    with pytest.raises(OSError, match="gone"):
        train_epochs(net, SignedDataset(features, np.eye(N_CLASSES)[[0, 1, 2] * 100]), None, 1)
    assert not torch.equal(net.module_.linear.weight, before)
    assert float(net.optimizer_.state[net.module_.linear.weight]["step"]) == 3


def test_torch_goes_on_where_numpy_stopped(monkeypatch):
    ours, data = trained(monkeypatch, known=True)
    theirs, _ = trained(monkeypatch, known=False)
    monkeypatch.setattr("proportion_ssl.nets.classifiers.is_known", lambda *_: False)
    for net in (ours, theirs):
        with seeded(1):
            train_epochs(net, data, None, 2)
    for one, other in zip(states(ours), states(theirs), strict=True):
        assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_partial_fit_and_copies_go_on(monkeypatch):
    net, data = trained(monkeypatch, known=True, dropout=0.2)
    copied = copy.deepcopy(net)
    for one in (net, copied):
        with seeded(1):
            one.partial_fit(data, None)
    for one, other in zip(states(net), states(copied), strict=True):
        assert_array_equal(one, other)


@pytest.mark.slow
@given(
    arrays(np.float32, (5, N_CLASSES), elements=st.floats(-40, 40, width=32)),
    arrays(np.int8, (5, N_CLASSES), elements=st.integers(-1, 1)),
    st.booleans(),
)
def test_gradient_is_that_of_torch(logits, signed, weigh_down):
    loss, gradient = signed_label_gradient(logits, signed, weigh_down=weigh_down)
    negative = NegativeLoss(multi_negative_loss if weigh_down else negative_loss)
    exact = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    expected = SignedLabelLoss(negative=negative)(exact, torch.tensor(signed))
    expected.backward()
    assert_allclose(loss, expected.item(), rtol=1e-4, atol=1e-5)
    assert_allclose(gradient, exact.grad.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 0.7501])
def test_dropout_keeps_the_mean_and_drops_its_share(probability):
    X = np.ones((500, 401), dtype=np.float32)
    with seeded(0):
        linear_steps._Dropout(probability, X.shape)(X)
    assert set(X.ravel().tolist()) | {0.0} == {0.0, 1.0}  # the weights are enlarged instead
    deviation = np.sqrt(probability * (1 - probability) / X.size)
    assert abs((X == 0).mean() - probability) <= 4 * deviation
    rows = (X == 0).mean(axis=1)  # independent from row to row
    assert rows.std() < 1.2 * np.sqrt(probability * (1 - probability) / X.shape[1]) + 1e-12


@pytest.mark.slow
def test_dropout_trains_like_that_of_torch(monkeypatch):
    settings = {"dropout": 0.3, "epochs": 25, "lr": 0.01}
    nets = {
        known: [trained(monkeypatch, known=known, seed=seed, **settings)[0] for seed in range(4)]
        for known in (True, False)
    }
    losses = {k: [net.history[-1, "train_loss"] for net in group] for k, group in nets.items()}
    assert_allclose(np.mean(losses[True]), np.mean(losses[False]), rtol=0.02)
    ours, theirs = (np.mean([states(net)[2] for net in nets[known]], axis=0) for known in nets)
    assert_allclose(ours, theirs, atol=0.15 * np.abs(theirs).max())


DATA = SignedDataset(np.eye(6, dtype=np.float32), np.eye(3, dtype=np.int8)[[0, 1, 2] * 2])


class MyData(SignedDataset):
    """Batches of one's own."""

    def __getitems__(self, positions):
        return super().__getitems__(positions)


class MyLoss(PositiveLoss):
    """A loss of one's own."""


class MyHead(LinearHead):
    """A head of one's own."""


class MyNet(HeadClassifier):
    """A net that changes a step."""

    def get_loss(self, *args, **kwargs):
        return 2 * super().get_loss(*args, **kwargs)


class Counter(Callback):
    """Counts batches."""

    def on_batch_end(self, net, **kwargs):
        self.n_batches = getattr(self, "n_batches", 0) + 1


@pytest.mark.parametrize(
    "net",
    [
        HeadClassifier(module=MyHead),
        HeadClassifier(criterion__positive=MyLoss()),
        HeadClassifier(criterion__negative=NegativeLoss(lambda z, s: negative_loss(z, s) ** 2)),
        HeadClassifier(optimizer=torch.optim.Adam),
        HeadClassifier(callbacks=[Counter()]),
        HeadClassifier(callbacks=[GradientNormClipping(0.1)]),
        MyNet(),
    ],
    ids=["module", "loss", "negative loss", "optimizer", "batches", "gradients", "step"],
)
def test_what_is_not_known_is_left_to_skorch(net):
    net.initialize_for(np.eye(6, dtype=np.float32), np.arange(6), np.arange(3))
    assert not linear_steps.is_known(net, net.head, DATA)


def test_what_is_known():
    net = HeadClassifier()
    net.initialize_for(np.eye(6, dtype=np.float32), np.arange(6), np.arange(3))
    assert linear_steps.is_known(net, net.head, DATA)
    assert not linear_steps.is_known(net, net.head, MyData(DATA.parts, DATA.signed))
    net.module_.linear.register_forward_hook(lambda *_: None)
    assert not linear_steps.is_known(net, net.head, DATA)
    frozen = HeadClassifier()
    frozen.initialize_for(np.eye(6, dtype=np.float32), np.arange(6), np.arange(3))
    frozen.module_.linear.bias.requires_grad_(False)
    assert not linear_steps.is_known(frozen, frozen.head, DATA)


def test_callbacks_of_batches_are_called():
    counter = Counter()
    X = np.random.default_rng(0).normal(size=(130, 3)).astype(np.float32)
    net = HeadClassifier(
        callbacks=[counter], max_epochs=2, batch_size=50, validation_fraction=0, random_state=0
    )
    net.fit(X, X[:, 0] > 0)
    assert counter.n_batches == 6
