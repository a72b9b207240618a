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
from skorch.history import History
from torch.utils.data import BatchSampler, DataLoader, Dataset

from proportion_ssl.losses.signed_labels import (
    NegativeLoss,
    PositiveLoss,
    SignedLabelLoss,
    multi_negative_loss,
    negative_loss,
)
from proportion_ssl.nets.flat_radam import FlatRAdam, updated_together
from proportion_ssl.nets.head import FastDropout, LinearHead
from proportion_ssl.nets.random_numbers import generator
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.signed_gradient import gradient_of, loss_parts, losses_of, targets_of

#: What skorch does in a step; a net that does any of it in its own way is trained by skorch.
STEP_METHODS = (
    *("train_step", "train_step_single", "infer", "get_loss", "notify"),
    *("get_train_step_accumulator", "_step_optimizer", "_zero_grad_optimizer"),
)
BATCH_EVENTS = ("on_batch_begin", "on_batch_end", "on_grad_computed")
LEVELS = 256  # of a random byte

#: Instances whose labels are prepared at once.
PREPARED_AT_ONCE = 16_384

#: Multiplications of a matrix product up to which OpenBLAS uses one thread.
LARGEST_PRODUCT = 2**18

#: Fewest and most instances of a block.
ROWS_AT_ONCE = 16, 64


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
        and type(net.history) is History
    )


def train_epoch(net: Any, head: LinearHead, batches: Any) -> list[tuple[float, int]]:
    """Train a known net for one epoch.

    Parameters
    ----------
    net : SignedLabelNet
        :func:`is_known`.
    head : LinearHead
    batches : DataLoader
        Of :class:`Positions`.

    Returns
    -------
    losses : list of (float, int)
        Mean loss and number of instances of each batch.
    """
    data = batches.dataset.data
    steps = _Steps(net, head)
    losses = []
    try:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # as in torch
            for several in _in_parts(_positions(batches)):
                losses.extend(steps.train(data, several))
    finally:
        steps.store()
    return losses


def _positions(loader):
    """The batches that torch's loader draws, without its work for every one of them."""
    batches = loader.batch_sampler
    if type(batches) is not BatchSampler or loader.num_workers:
        yield from loader
        return
    # a number that the loader draws for its workers, before the sampler draws
    torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
    order = np.fromiter(batches.sampler, dtype=np.int64)
    for start in range(0, len(order), batches.batch_size):
        batch = order[start : start + batches.batch_size]
        if len(batch) == batches.batch_size or not batches.drop_last:
            yield batch


def _in_parts(batches):
    """Batches in lists with some 16,000 instances."""
    several: list[np.ndarray] = []
    for batch in batches:
        several.append(batch)
        if len(several) * len(batch) >= PREPARED_AT_ONCE:
            yield several
            several = []
    if several:
        yield several


class _Steps:
    """Steps of training, on copies of weights and state of the optimizer until :meth:`store`.

    Instances of a batch are worked on in blocks that stay in the cache. What is constant for all features of
    a matrix (division by the scale, the factor of dropout) is done to the weights.
    """

    def __init__(self, net, head):
        linear = (head.linear.weight, head.linear.bias)
        self.updates = [
            FlatRAdam(net.optimizer_, group) for group in updated_together(net.optimizer_, linear)
        ]
        values = [one for update in self.updates for one in update.values]
        gradients = [one for update in self.updates for one in update.gradients]
        (self.weight, self.bias), (self.weight_gradient, self.bias_gradient) = values, gradients
        self.mean = head.mean.numpy()
        self.factor = np.float32(1 / (1 - head.dropout.p)) / head.scale.numpy()
        self.on_features = np.empty_like(self.weight)
        self.n_classes, n_features = self.weight.shape
        n_rows = int(np.clip(LARGEST_PRODUCT // self.weight.size, *ROWS_AT_ONCE))
        self.X = np.empty((n_rows, n_features), dtype=np.float32)
        self.logits = np.empty(self.n_classes * n_rows, dtype=np.float32)
        self.drop = _Dropout(head.dropout.p, self.X.shape)
        self.weigh_down = net.criterion_.negative.loss is multi_negative_loss

    def store(self):
        for update in self.updates:
            update.store()

    def train(self, data, batches):
        """Steps for several batches of positions; their losses and sizes."""
        sizes = [len(batch) for batch in batches]
        ends = np.cumsum(sizes).tolist()
        starts = np.array([0, *ends[:-1]])
        reader = _reader_of(data)(data, batches)
        targets = targets_of(reader.signed, starts, weigh_down=self.weigh_down)
        parts = loss_parts(*targets.positive.shape)
        for start, end, has_negative in zip(
            starts.tolist(), ends, targets.has_negative.tolist(), strict=True
        ):
            self._step(reader, targets, parts, start, end, has_negative)
        return zip(losses_of(targets, parts, starts).tolist(), sizes, strict=True)

    def _step(self, reader, targets, parts, start, end, has_negative):
        np.multiply(self.weight, self.factor, out=self.on_features)
        n_at_once = len(self.X)
        for first in range(start, end, n_at_once):
            rows = slice(first, min(first + n_at_once, end))
            X = self.X[: rows.stop - first]
            reader.read(rows, X)
            X -= self.mean
            self.drop(X)
            logits = self.logits[: self.n_classes * len(X)].reshape(self.n_classes, len(X))
            np.dot(self.on_features, X.T, out=logits)
            logits += self.bias[:, np.newaxis]
            gradient = gradient_of(logits, targets, rows, parts, has_negative=has_negative)
            gradient = gradient.astype(np.float32)
            if first == start:
                np.dot(gradient, X, out=self.weight_gradient)
                np.add.reduce(gradient, axis=1, out=self.bias_gradient)
            else:
                self.weight_gradient += gradient @ X
                self.bias_gradient += np.add.reduce(gradient, axis=1)
        self.weight_gradient *= self.factor
        for update in self.updates:
            update.step()


def _reader_of(data):
    if type(data).gather is not SignedDataset.gather:
        return _MadeReader
    return _ArrayReader if _are_arrays(data.parts) else _AnyReader


class _MadeReader:
    """Instances and labels of several batches that a data set makes when they are gathered, such as mixes."""

    def __init__(self, data, batches):
        made = [data.gather(batch) for batch in batches]
        self.X, self.signed = (np.concatenate(parts) for parts in zip(*made, strict=True))

    def read(self, rows, out):
        out[...] = self.X[rows]


class _ArrayReader:
    """Instances of several batches from arrays; those of a batch in the order of the arrays."""

    def __init__(self, data, batches):
        self.parts, rows = data.parts, data.rows[_part_by_part(data, batches)]
        self.signed, self.part_of = data.signed[rows], _parts_of(data, rows)
        self.within = rows - data.starts[self.part_of]

    def read(self, rows, out):
        within, part_of = self.within[rows], self.part_of[rows]
        cuts = [0, len(within)]
        if len(self.parts) > 1:
            cuts = np.searchsorted(part_of, np.arange(len(self.parts) + 1)).tolist()
        for part, start, end in zip(self.parts, cuts[:-1], cuts[1:], strict=True):
            if end > start:  # clip: as no index is out of range, out is written to directly
                np.take(part, within[start:end], axis=0, out=out[start:end], mode="clip")


class _AnyReader:
    """Instances of several batches from whatever holds them, read batch by batch in the same order."""

    def __init__(self, data, batches):
        positions = _part_by_part(data, batches)
        ends = np.cumsum([len(batch) for batch in batches])
        self.data, self.batches = data, iter(np.split(positions, ends[:-1]))
        self.signed = data.signed[data.rows[positions]]
        self.start = self.end = 0

    def read(self, rows, out):
        if rows.start == self.end:
            positions = next(self.batches)
            self.X = self.data.gather(positions)[0]
            self.start, self.end = self.end, self.end + len(positions)
        out[...] = self.X[rows.start - self.start : rows.stop - self.start]


def _part_by_part(data, batches):
    """Positions of several batches, those of a batch in the order of the parts that hold their instances."""
    positions = np.concatenate(batches)
    if len(data.parts) == 1:
        return positions
    batch_of = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    return positions[np.lexsort((_parts_of(data, data.rows[positions]), batch_of))]


def _parts_of(data, rows):
    return np.searchsorted(data.starts, rows, side="right") - 1


def _are_arrays(parts):
    return all(
        isinstance(part, np.ndarray) and part.dtype == np.float32 and part.flags.c_contiguous
        for part in parts
    )


class _Dropout:
    """Sets values of an array to 0; the others are left as they are, not enlarged.

    Parameters
    ----------
    probability : float in [0, 1)
    shape : tuple of int
        Of the largest array.

    Notes
    -----
    A random byte decides about a value, below a threshold between 0 and 128. Probabilities between two
    multiples of 1/256 come of thresholds that differ by 1, each drawn once for its place in the array.
    """

    def __init__(self, probability, shape):
        level, rest = divmod(min(probability, 1 - probability) * LEVELS, 1)
        self.keeps = np.greater_equal if probability <= 0.5 else np.less
        self.numbers = None
        if probability > 0:
            self.numbers = np.random.SFC64(int(torch.randint(2**62, (), generator=generator())))
            draws = np.random.Generator(self.numbers).random(math.prod(shape), dtype=np.float32)
            self.thresholds = (draws < rest) + np.uint8(level)
            self.kept = np.empty(len(draws), dtype=bool)

    def __call__(self, X):
        if self.numbers is None:
            return
        n, values = X.size, X.reshape(-1)
        coins = self.numbers.random_raw(-(-n // 8)).view(np.uint8)[:n]
        kept = self.keeps(coins, self.thresholds[:n], out=self.kept[:n])
        values *= kept


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
