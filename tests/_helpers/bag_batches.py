"""Batches of bags for the tests of what a batch costs."""

import torch
from torch import nn

from proportion_ssl.baselines import BagBatch


class PassThrough(nn.Module):
    """Features are the logits; one parameter keeps the optimizer busy without effect."""

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, X):
        return X + 0.0 * self.nothing


def batch_of(X, bag=None, lower=None, upper=None, weights=None, labeled=None, scale=1.0):
    """A batch of one or several bags; what is not given is neutral."""
    X = torch.as_tensor(X)
    bag = torch.zeros(len(X), dtype=torch.int64) if bag is None else torch.as_tensor(bag)
    n_bags = int(bag.max()) + 1
    lower = torch.full((n_bags, X.shape[1]), 1 / X.shape[1]) if lower is None else lower
    return BagBatch(
        X=X,
        bag=bag,
        lower=torch.as_tensor(lower, dtype=torch.float64),
        upper=torch.as_tensor(lower if upper is None else upper, dtype=torch.float64),
        weights=torch.ones(n_bags) if weights is None else torch.tensor(weights),
        labeled=X[:0] if labeled is None else torch.as_tensor(labeled),
        scale=torch.full(X.shape[1:], scale) if isinstance(scale, float) else scale,
    )
