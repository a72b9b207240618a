"""Training on two streams: labelled batches and, beside each, a batch of bags.

skorch's own training loop draws the labelled batches. :class:`TwoStreamLoss` stands in for its criterion
and adds to each step what a batch of bags costs; callbacks, history and early stopping of skorch stay as they
are. A system says only what a batch of bags costs: it is a :class:`BagLoss`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from proportion_ssl.nets.data import SignedDataset


@dataclass(frozen=True)
class BagBatch:
    """Some instances of some bags, with what is recorded of these bags.

    Parameters
    ----------
    X : torch.Tensor of shape (n_instances, ...)
        Instances of the bags.
    bag : torch.Tensor of int64, shape (n_instances,)
        Bag of each, 0 to n_bags - 1.
    lower, upper : torch.Tensor of float32, shape (n_bags, n_classes)
        Intervals of the recorded proportions; equal where these are exact.
    weights : torch.Tensor of float32, shape (n_bags,)
        Weight of each bag.
    labeled : torch.Tensor of shape (n_labeled, ...)
        Labelled instances, drawn at random; their labels do not come along.
    scale : torch.Tensor of shape (n_features,)
        Standard deviation of each feature over the labelled instances: the unit of noise.
    """

    X: torch.Tensor
    bag: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    weights: torch.Tensor
    labeled: torch.Tensor
    scale: torch.Tensor

    @property
    def n_bags(self) -> int:
        """Number of bags."""
        return len(self.weights)

    @property
    def everything(self) -> torch.Tensor:
        """Instances of the bags, then the labelled ones: what is taken as unlabelled."""
        return torch.cat([self.X, self.labeled])

    def bag_means(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over each bag of one row per instance, shape (n_bags, n_columns)."""
        sums = values.new_zeros((self.n_bags, values.shape[1])).index_add(0, self.bag, values)
        return sums / torch.bincount(self.bag, minlength=self.n_bags).unsqueeze(1)


class BagStream:
    """Endless batches of bags: every pass takes each bag once, in a new order.

    Parameters
    ----------
    bags : Bags
        With proportions.
    X_labeled : array of shape (n_labeled, ...)
        Labelled instances that are trained on.
    bags_per_batch, instances_per_bag, n_labeled : int
        Of one batch; of larger bags a random part is taken, without replacement.
    random_state : numpy.random.RandomState
    """

    def __init__(
        self,
        bags: Any,
        X_labeled: Any,
        *,
        bags_per_batch: int,
        instances_per_bag: int,
        n_labeled: int,
        random_state: np.random.RandomState,
    ):
        self.bags, self.bags_per_batch = bags, min(bags_per_batch, bags.n_bags)
        self.instances_per_bag, self.n_labeled = instances_per_bag, n_labeled
        self.random_state = random_state
        self.instances, self.labeled = SignedDataset(bags.X), SignedDataset(X_labeled)
        order = np.argsort(bags.index, kind="stable")
        self._rows = np.split(order, np.cumsum(bags.sizes)[:-1])
        self._ends = [
            torch.as_tensor(end, dtype=torch.float32)
            for end in (bags.lower, bags.upper, bags.weights)
        ]
        self.scale = torch.ones(())
        if len(X_labeled.shape) == 2:
            self.scale = torch.as_tensor(np.asarray(X_labeled).std(axis=0), dtype=torch.float32)
        self._passes = self._endless()

    @property
    def n_batches(self) -> int:
        """Batches of one pass over the bags."""
        return math.ceil(self.bags.n_bags / self.bags_per_batch)

    def draw(self) -> BagBatch:
        """The next batch."""
        return next(self._passes)

    def _endless(self) -> Iterator[BagBatch]:
        while True:
            order = self.random_state.permutation(self.bags.n_bags)
            for start in range(0, len(order), self.bags_per_batch):
                yield self._batch(order[start : start + self.bags_per_batch])

    def _batch(self, chosen: np.ndarray) -> BagBatch:
        rows = [
            self.random_state.permutation(self._rows[bag])[: self.instances_per_bag]
            for bag in chosen
        ]
        labeled = self.random_state.randint(len(self.labeled), size=self.n_labeled)
        return BagBatch(
            self.instances.__getitems__(np.concatenate(rows))[0],
            torch.repeat_interleave(torch.as_tensor([len(part) for part in rows])),
            *(end[chosen] for end in self._ends),
            self.labeled.__getitems__(labeled)[0],
            self.scale,
        )


class BagLoss(nn.Module):
    """What a batch of bags costs; the one part that a system of two streams defines."""

    def start(self, module: nn.Module) -> None:
        """Called once with the new net, before the first step."""

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        """Loss of a batch, a scalar; gradients reach ``module`` only through what is meant to learn.

        Parameters
        ----------
        module : torch.nn.Module
            The net in training mode: instances to logits.
        batch : BagBatch
        """
        raise NotImplementedError

    def finish(self, module: nn.Module) -> None:
        """Called once after the last step."""


class TwoStreamLoss(nn.Module):
    """Criterion of a net whose every training step also pays for a batch of bags.

    Parameters
    ----------
    labeled_loss : torch.nn.Module
        Of logits and signed labels.
    bag_loss : BagLoss
    module : torch.nn.Module
        The net that is trained.
    stream : BagStream
    weight : float
        Weight of ``bag_loss`` after the ramp.
    ramp_up : float in [0, 1]
        Share of all steps over which the weight rises; see :func:`ramp`.
    n_steps : int
        Number of training steps in all.
    """

    def __init__(
        self,
        labeled_loss: nn.Module,
        bag_loss: BagLoss,
        module: nn.Module,
        stream: BagStream,
        *,
        weight: float,
        ramp_up: float,
        n_steps: int,
    ):
        super().__init__()
        self.labeled_loss, self.bag_loss, self.stream = labeled_loss, bag_loss, stream
        self.weight, self.ramp_up, self.n_steps, self.step = weight, ramp_up, n_steps, 0
        self._trained = (module,)  # in a tuple: the net is no part of its own criterion
        bag_loss.start(module)

    def forward(self, logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
        """Loss of the labelled batch, and in training that of a batch of bags."""
        loss = self.labeled_loss(logits, signed)
        if not self.training:
            return loss
        weight = self.weight * ramp(self.step, self.ramp_up * self.n_steps)
        self.step += 1
        return loss + weight * self.bag_loss(self._trained[0], self.stream.draw())


def ramp(step: int, length: float) -> float:
    """Weight in (0, 1] that rises over the first steps, ``exp(-5 (1 - step / length)^2)``.

    Parameters
    ----------
    step : int
        From 0 on.
    length : float
        Steps until 1 is reached; 0: at once.

    Returns
    -------
    weight : float

    References
    ----------
    .. [1] Laine, Aila. "Temporal Ensembling for Semi-Supervised Learning". ICLR 2017.

    Examples
    --------
    >>> ramp(0, 10) < 0.01, ramp(10, 10), ramp(0, 0)
    (True, 1.0, 1.0)
    """
    place = min(1.0, step / length) if length > 0 else 1.0
    return math.exp(-5.0 * (1.0 - place) ** 2)
