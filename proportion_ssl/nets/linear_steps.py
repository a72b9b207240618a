"""Training steps of a linear head in numpy: the same numbers as torch's loop, at less cost per step.

A step of the head multiplies a few small matrices. In torch, bookkeeping takes most of its time: the graph
of the gradient, the dispatch of each operation, the notification of callbacks. Where module, loss and
optimizer are the known ones, an epoch is computed here, on the same weights and state of the optimizer.
"""

import functools
import math
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch.utils.data import DataLoader, Dataset

from proportion_ssl.losses.signed_labels import (
    NegativeLoss,
    PositiveLoss,
    SignedLabelLoss,
    multi_negative_loss,
    negative_loss,
)
from proportion_ssl.nets.head import FastDropout, LinearHead
from proportion_ssl.nets.random_numbers import generator
from proportion_ssl.nets.signed_dataset import SignedDataset

#: What skorch does in a step; a net that does any of it in its own way is trained by skorch.
STEP_METHODS = (
    *("train_step", "train_step_single", "infer", "get_loss", "notify"),
    *("get_train_step_accumulator", "_step_optimizer", "_zero_grad_optimizer"),
)
BATCH_EVENTS = ("on_batch_begin", "on_batch_end", "on_grad_computed")
LEVELS = 256  # of a random byte


class Positions(Dataset):
    """Positions in a data set, so that torch's loader draws batches as ever and reads nothing."""

    def __init__(self, data: SignedDataset):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitems__(self, positions: list[int]) -> np.ndarray:
        return np.asarray(positions)


def is_known(net: NeuralNetClassifier, head: LinearHead | None, data: Any) -> bool:
    """Whether an epoch of this net is what :func:`train_epoch` computes.

    Parameters
    ----------
    net : SignedLabelNet
        Initialized.
    head : LinearHead or None
        The module that is trained.
    data : Dataset
        What it is trained on.

    Returns
    -------
    known : bool
        True for a head in float32 on the CPU that all of the net's gradient goes to, trained by RAdam on
        :class:`~proportion_ssl.losses.SignedLabelLoss`, with callbacks that do nothing within an epoch.
    """
    return (
        isinstance(data, SignedDataset)
        and type(data).__getitems__ is SignedDataset.__getitems__
        and type(head) is LinearHead
        and type(head.dropout) is FastDropout
        and head.linear.weight.dtype == torch.float32
        and head.linear.weight.device.type == "cpu"
        and all(parameter.requires_grad for parameter in head.parameters())
        and not any(_has_hooks(module) for module in (*head.modules(), net.module_))
        and _is_known_loss(net.criterion_)
        and _is_known_optimizer(net.optimizer_, head)
        and all(_inherits(net, NeuralNetClassifier, name) for name in STEP_METHODS)
        and all(
            _inherits(callback, Callback, name)
            for _, callback in net.callbacks_
            for name in BATCH_EVENTS
        )
        and net.iterator_train is DataLoader
    )


def train_epoch(net: Any, head: LinearHead, batches: Any) -> list[tuple[float, int]]:
    """Train a known net for one epoch.

    Parameters
    ----------
    net : SignedLabelNet
        :func:`is_known`.
    head : LinearHead
    batches : iterable of ndarray of int
        With the attribute ``dataset``, the :class:`Positions` that each batch indexes.

    Returns
    -------
    losses : list of (float, int)
        Mean loss and number of instances of each batch.
    """
    step = _Step(net, head)
    data = batches.dataset.data
    return [(step(*data.gather(positions)), len(positions)) for positions in batches]


class _Step:
    """One step of training; weights and state of the optimizer are changed where torch keeps them."""

    def __init__(self, net, head):
        self.mean, self.scale = head.mean.numpy(), head.scale.numpy()
        self.drop = _dropout(head.dropout.p)
        loss = net.criterion_.negative.loss
        self.weigh_down = loss is multi_negative_loss
        self.weight = _RAdam(net.optimizer_, head.linear.weight)
        self.bias = _RAdam(net.optimizer_, head.linear.bias)

    def __call__(self, X, signed):
        X = np.subtract(X, self.mean)
        self.drop(X)
        logits = _product(X, (self.weight.values / self.scale).T)
        logits += self.bias.values
        loss, gradient = signed_label_gradient(logits, signed, weigh_down=self.weigh_down)
        self.weight.step(_product(gradient.T, X) / self.scale)
        self.bias.step(gradient.sum(axis=0))
        return loss


def _product(a, b):
    """Matrix product by torch, whose threads can be limited for one thread alone."""
    return torch.mm(torch.from_numpy(a), torch.from_numpy(b)).numpy()


def signed_label_gradient(
    logits: np.ndarray, signed: np.ndarray, *, weigh_down: bool
) -> tuple[float, np.ndarray]:
    """Value and gradient of :class:`~proportion_ssl.losses.SignedLabelLoss`.

    Parameters
    ----------
    logits : ndarray of float32, shape (n_instances, n_classes)
    signed : ndarray of shape (n_instances, n_classes)
        Signed labels.
    weigh_down : bool
        Whether several negative labels of an instance are weighed down, as in
        :func:`~proportion_ssl.losses.multi_negative_loss`; otherwise
        :func:`~proportion_ssl.losses.negative_loss`.

    Returns
    -------
    loss : float
    gradient : ndarray of float32, shape (n_instances, n_classes)
        With respect to the logits.

    Notes
    -----
    With f the softmax, the gradient of ``-log f_c`` is ``f - e_c``, and that of ``-log(1 - f_c)`` is
    ``f_c (e_c - q)``, where q is the softmax over the classes other than c.

    Examples
    --------
    >>> loss, gradient = signed_label_gradient(
    ...     np.zeros((1, 2), np.float32), np.array([[1, 0]]), weigh_down=True
    ... )
    >>> round(loss, 4), gradient.tolist()
    (0.6931, [[-0.5, 0.5]])
    """
    signed = signed.astype(np.float32)
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    probabilities = exponentials / total
    positive = np.maximum(signed, 0)
    loss = float((positive * (np.log(total) - shifted)).sum())
    gradient = positive.sum(axis=1, keepdims=True) * probabilities - positive
    negative = np.flatnonzero((signed < 0).any(axis=1))
    if len(negative):
        weights = -np.minimum(signed[negative], 0)
        if weigh_down:
            n_classes = signed.shape[1]
            n_negative = np.count_nonzero(weights, axis=1, keepdims=True)
            weights *= (n_classes - n_negative) / np.float32(n_classes - 1)
        values, slopes = _negative(logits[negative], probabilities[negative], weights)
        loss += values
        gradient[negative] += slopes
    n_labeled = max(1, int(signed.any(axis=1).sum()))
    gradient /= n_labeled
    return loss / n_labeled, gradient


def _negative(logits, probabilities, weights):
    """Sum of ``-weight log(1 - f)``, and its gradient; the class on top through the sum of the others."""
    rows, top = np.arange(len(logits)), logits.argmax(axis=1)
    others = logits.copy()
    others[rows, top] = -np.inf
    second = others.max(axis=1)
    others = np.exp(others - second[:, np.newaxis])
    sum_of_others = others.sum(axis=1)
    # log(1 - f_top) = logsumexp(others) - logsumexp(all)
    log_not = np.log1p(-np.where(others == 0, 0, np.minimum(probabilities, 0.5)))
    log_rest = np.log(sum_of_others) + second
    log_not[rows, top] = log_rest - np.logaddexp(log_rest, logits[rows, top])
    loss = float(-(weights * log_not).sum())

    # f_c (e_c - q): q is f / (1 - f_c) without c
    odds = weights * probabilities / np.exp(log_not)
    odds[rows, top] = 0
    gradient = odds * (1 - probabilities) - (odds.sum(axis=1, keepdims=True) - odds) * probabilities
    pull = (weights * probabilities)[rows, top]
    gradient -= pull[:, np.newaxis] * (others / sum_of_others[:, np.newaxis])
    gradient[rows, top] += pull
    return loss, gradient


class _RAdam:
    """torch.optim.RAdam on one parameter, by its equations, in torch's own memory."""

    def __init__(self, optimizer, parameter):
        self.values = parameter.detach().numpy()
        (self.settings,) = (
            group
            for group in optimizer.param_groups
            if any(parameter is one for one in group["params"])
        )
        state = optimizer.state[parameter]
        if not state:  # as torch begins
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        self.n_steps = state["step"]
        self.first, self.second = state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()
        self.work = np.empty_like(self.values)

    def step(self, gradient):
        settings, (beta1, beta2) = self.settings, self.settings["betas"]
        self.n_steps += 1
        step, lr, decay = int(self.n_steps), float(settings["lr"]), settings["weight_decay"]
        if decay and settings["decoupled_weight_decay"]:
            self.values *= np.float32(1 - lr * decay)
        elif decay:
            gradient = gradient + np.float32(decay) * self.values
        np.subtract(gradient, self.first, out=self.work)
        self.work *= np.float32(1 - beta1)
        self.first += self.work
        self.second *= np.float32(beta2)
        np.multiply(gradient, gradient, out=self.work)
        self.work *= np.float32(1 - beta2)
        self.second += self.work

        size = lr / (1 - beta1**step)
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / (1 - beta2**step)
        if length <= 5:  # too few steps to know the variance
            self.values -= np.float32(size) * self.first
            return
        rectified = (length - 4) * (length - 2) * longest
        rectified /= (longest - 4) * (longest - 2) * length
        np.sqrt(self.second, out=self.work)
        self.work += np.float32(settings["eps"])
        np.divide(self.first, self.work, out=self.work)
        self.work *= np.float32(size * math.sqrt(rectified * (1 - beta2**step)))
        self.values -= self.work


def _dropout(probability):
    """A function that drops values of an array, where it is.

    A byte decides about a value; where it is the one that the probability falls into, a second number does.
    """
    level, rest = divmod(probability * LEVELS, 1)
    if probability == 0:
        return lambda X: None
    numbers = np.random.SFC64(int(torch.randint(2**62, (), generator=generator())))
    undecided = np.random.Generator(numbers)
    factor = np.float32(1 / (1 - probability))

    def drop(X):
        coins = numbers.random_raw(-(-X.size // 8)).view(np.uint8)[: X.size]
        kept = coins >= level
        between = np.flatnonzero(coins == level)
        kept[between] = undecided.random(len(between), dtype=np.float32) >= rest
        mask = kept.astype(np.float32)
        mask *= factor
        X *= mask.reshape(X.shape)

    return drop


# --- what is known ------------------------------------------------------------------------------


def _is_known_loss(loss):
    return (
        type(loss) is SignedLabelLoss
        and type(loss.positive) is PositiveLoss
        and type(loss.negative) is NegativeLoss
        and loss.negative.loss in (negative_loss, multi_negative_loss)
        and not any(map(_has_hooks, loss.modules()))
    )


def _is_known_optimizer(optimizer, head):
    groups = optimizer.param_groups
    trained = [one for group in groups for one in group["params"] if one.requires_grad]
    return (
        type(optimizer) is torch.optim.RAdam
        and {id(one) for one in trained} == {id(one) for one in head.parameters()}
        and not any(
            group["maximize"] or group["capturable"] or group["differentiable"] for group in groups
        )
    )


def _inherits(part, base, name):
    """Whether a method is that of the base class, neither overridden nor replaced."""
    return name not in vars(part) and getattr(type(part), name, None) is getattr(base, name, None)


@functools.cache
def _names_of_hooks():
    return tuple(name for name in vars(torch.nn.Module()) if name.endswith("_hooks"))


def _has_hooks(module):
    return any(getattr(module, name) for name in _names_of_hooks())
