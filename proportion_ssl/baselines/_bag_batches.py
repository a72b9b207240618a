"""Training on two streams: each step takes a labeled batch and a batch of bags.

skorch's training loop takes the labeled batches from :func:`epochs_of`. :class:`TwoStreamLoss` replaces its
criterion and adds the loss of a batch of bags to each step; callbacks, history and early stopping of skorch
are unchanged. A method defines only the loss of a batch of bags, a :class:`BagLoss`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from proportion_ssl.nets.content_order import content_order
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.proportions.intervals import (
    consistent_proportions,
    sampling_variance,
    spread_interval,
)
from proportion_ssl.proportions.weak_records import OrderRecord, PartialRecord


@dataclass(frozen=True)
class BagBatch:
    """Instances of some bags, and the records of these bags.

    Parameters
    ----------
    X : torch.Tensor of shape (n_instances, ...)
        Instances of the bags.
    bag : torch.Tensor of int64, shape (n_instances,)
        Bag of each, 0 to n_bags - 1.
    lower, upper : torch.Tensor of float64, shape (n_bags, n_classes)
        Intervals of the recorded proportions; equal if these are exact and the whole bag is used. If a
        random part of a bag is used, they are wider by one standard deviation of the share in such a part
        (``proportion_ssl.proportions.intervals.spread_interval``). In float64, so that limits that are
        whole numbers of instances stay so.
    weights : torch.Tensor of float32, shape (n_bags,)
        Weight of each bag.
    labeled : torch.Tensor of shape (n_labeled, ...)
        Labeled instances, sampled at random.
    scale : torch.Tensor of shape (n_features,)
        Standard deviation of each feature over the labeled instances: the unit of noise.
    record : PartialRecord, OrderRecord or None
        Record other than intervals, as in :class:`~proportion_ssl.Bags`.
    signed : torch.Tensor of shape (n_labeled, n_classes) or None
        Signed labels of the labeled instances.
    sizes : torch.Tensor of int64, shape (n_bags,), or None
        Number of instances of the whole bags; None if the bags of the batch are not parts of others.
    shares : torch.Tensor of float64, shape (n_bags, n_classes), or None
        Recorded proportions of the whole bags; rows sum to 1.
    """

    X: torch.Tensor
    bag: torch.Tensor
    lower: torch.Tensor
    upper: torch.Tensor
    weights: torch.Tensor
    labeled: torch.Tensor
    scale: torch.Tensor
    record: PartialRecord | OrderRecord | None = None
    signed: torch.Tensor | None = None
    sizes: torch.Tensor | None = None
    shares: torch.Tensor | None = None

    @property
    def n_bags(self) -> int:
        """Number of bags."""
        return len(self.weights)

    @property
    def everything(self) -> torch.Tensor:
        """Instances of the bags, then the labeled ones, all used as unlabeled data."""
        return torch.cat([self.X, self.labeled])

    def ends(self, means: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Intervals of the shares of all classes, given the mean predictions of the bags.

        Parameters
        ----------
        means : torch.Tensor of shape (n_bags, n_classes)

        Returns
        -------
        lower, upper : torch.Tensor of float64, shape (n_bags, n_classes)
            Those of the batch; with incomplete records, the nearest ones that these admit.
        """
        if self.record is None:
            return self.lower, self.upper
        ends = self.record.ends(means.detach().double().cpu().numpy())
        lower, upper = (torch.as_tensor(end, device=self.lower.device) for end in ends)
        return lower, upper

    def bag_means(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of the rows of each bag, shape (n_bags, n_columns)."""
        sums = values.new_zeros((self.n_bags, values.shape[1])).index_add(0, self.bag, values)
        return sums / torch.bincount(self.bag, minlength=self.n_bags).unsqueeze(1)


class BagStream:
    """Infinite stream of batches of bags; every pass takes each bag once, in a new order.

    Parameters
    ----------
    bags : Bags
        With proportions.
    labeled : SignedDataset
        Labeled instances that are added to each batch, sampled from its rows.
    bags_per_batch, instances_per_bag, n_labeled : int
        Sizes of one batch. From larger bags a random part is taken without replacement; its shares differ
        from those of the bag by chance.
    random_state : numpy.random.RandomState
    device : str or torch.device, default="cpu"
        Device of the net and of the batches.
    """

    def __init__(
        self,
        bags: Any,
        labeled: SignedDataset,
        *,
        bags_per_batch: int,
        instances_per_bag: int,
        n_labeled: int,
        random_state: np.random.RandomState,
        device: Any = "cpu",
    ):
        self.bags, self.bags_per_batch = bags, min(bags_per_batch, bags.n_bags)
        self.instances_per_bag, self.n_labeled = instances_per_bag, n_labeled
        self.random_state, self.device = random_state, device
        self.instances, self.labeled = SignedDataset(bags.X), labeled
        order = content_order(bags.X, bags.index)
        self._rows = np.split(order, np.cumsum(bags.sizes)[:-1])
        self._weights = torch.as_tensor(bags.weights, dtype=torch.float32)
        self._shares = consistent_proportions(bags.proportions, bags.lower, bags.upper)
        self.scale = torch.ones((), device=device)
        instances, _ = labeled.__getitems__([0])
        if instances.ndim == 2:  # features
            instances, _ = labeled.__getitems__(range(len(labeled)))
            self.scale = instances.std(dim=0, correction=0).to(device)
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
        sizes = self.bags.sizes[chosen]
        variance = sampling_variance(sizes, np.minimum(sizes, self.instances_per_bag))[
            :, np.newaxis
        ]
        ends = spread_interval(self.bags.lower[chosen], self.bags.upper[chosen], variance)
        lower, upper = (torch.as_tensor(end, device=self.device) for end in ends)
        record = self.bags.record
        X, _ = self.instances.__getitems__(np.concatenate(rows).tolist())
        X_labeled, signed = self.labeled.__getitems__(labeled.tolist())
        return BagBatch(
            X=X.to(self.device),
            bag=bag_of_each(rows).to(self.device),
            lower=lower,
            upper=upper,
            weights=self._weights[chosen].to(self.device),
            labeled=X_labeled.to(self.device),
            scale=self.scale,
            record=None if record is None else record[chosen].sampled(variance),
            signed=signed.to(self.device),
            sizes=torch.as_tensor(sizes, device=self.device),
            shares=torch.as_tensor(self._shares[chosen], device=self.device),
        )


def epochs_of(
    rows: np.ndarray, size: int, random_state: np.random.RandomState, n_epochs: int
) -> Iterator[np.ndarray]:
    """Labeled instances of each epoch, from passes that take each instance once, in a new order.

    Parameters
    ----------
    rows : ndarray of int, shape (n_rows,)
        Training instances; repeated if oversampled.
    size : int
        Instances per epoch, given by the number of steps of a pass over the bags. The next epoch continues
        where the last one ended.
    random_state : numpy.random.RandomState
    n_epochs : int

    Yields
    ------
    epoch : ndarray of int, shape (size,)

    Examples
    --------
    >>> import numpy as np
    >>> epochs = list(epochs_of(np.arange(6), 4, np.random.RandomState(0), 3))
    >>> sorted(np.concatenate(epochs).tolist()) == sorted([*range(6)] * 2)
    True
    """
    ahead = np.empty(0, dtype=rows.dtype)
    for _ in range(n_epochs):
        while len(ahead) < size:
            ahead = np.concatenate([ahead, random_state.permutation(rows)])
        yield ahead[:size]
        ahead = ahead[size:]


def bag_of_each(parts: Sequence[Any]) -> torch.Tensor:
    """Bag of each instance, if instances are sorted by bag.

    Parameters
    ----------
    parts : sequence of n_bags arrays
        Instances, or their rows.

    Returns
    -------
    bag : torch.Tensor of int64, shape (n_instances,)

    Examples
    --------
    >>> bag_of_each([[7, 5], [3]])
    tensor([0, 0, 1])
    """
    return torch.repeat_interleave(torch.tensor([len(part) for part in parts]))


class BagLoss(nn.Module):
    """Loss of a batch of bags, the only part that a two-stream method defines."""

    def start(self, module: nn.Module, n_steps: int) -> None:
        """Called once with the new net and the number of training steps, before the first."""

    def forward(self, module: nn.Module, batch: BagBatch) -> torch.Tensor:
        """Loss of a batch, a scalar; gradients must reach ``module`` only through predictions to be trained.

        Parameters
        ----------
        module : torch.nn.Module
            The net in training mode: instances to logits.
        batch : BagBatch
        """
        raise NotImplementedError

    def of_labeled(
        self, loss: nn.Module, logits: torch.Tensor, signed: torch.Tensor
    ) -> torch.Tensor:
        """Loss of the labeled batch of the step, a scalar; called after :meth:`forward`.

        Parameters
        ----------
        loss : torch.nn.Module
            Takes logits and signed labels.
        logits : torch.Tensor of shape (n_instances, n_classes)
            Logits of the labeled batch.
        signed : torch.Tensor of shape (n_instances, n_classes)
        """
        return loss(logits, signed)

    def finish(self, module: nn.Module) -> None:
        """Called once after the last step."""


class TwoStreamLoss(nn.Module):
    """Criterion that adds the loss of a batch of bags to every training step.

    Parameters
    ----------
    labeled_loss : torch.nn.Module
        Loss of logits and signed labels.
    bag_loss : BagLoss
    module : torch.nn.Module
        The net that is trained.
    stream : BagStream
    weight : float
        Weight of ``bag_loss`` after the ramp.
    ramp_up : float in [0, 1]
        Share of all steps over which the weight increases; see :func:`ramp`.
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
        self._trained = (module,)  # in a tuple, so that the net is not a submodule of its criterion
        bag_loss.start(module, n_steps)

    def forward(self, logits: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
        """Loss of the labeled batch, and in training that of a batch of bags."""
        if not self.training:
            return self.labeled_loss(logits, signed)
        weight = self.weight * ramp(self.step, self.ramp_up * self.n_steps)
        self.step += 1
        of_bags = self.bag_loss(self._trained[0], self.stream.draw())
        return self.bag_loss.of_labeled(self.labeled_loss, logits, signed) + weight * of_bags


def ramp(step: int, length: float) -> float:
    """Weight in (0, 1] that increases over the first steps, ``exp(-5 (1 - step / length)^2)``.

    Parameters
    ----------
    step : int
        From 0.
    length : float
        Steps until 1 is reached; 0: 1 from the first step.

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
