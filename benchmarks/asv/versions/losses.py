"""Losses, forwards and backwards, on signed labels of six classes."""

from functools import partial

import torch

from proportion_ssl.losses import (
    NegativeLoss,
    PositiveLoss,
    SignedLabelLoss,
    multi_negative_loss,
)

LOSSES = {
    "positive": PositiveLoss,
    "negative": NegativeLoss,
    "multi-negative": partial(NegativeLoss, multi_negative_loss),
    "signed": SignedLabelLoss,
}


class Losses:
    params = ([64, 10**4, 10**6], list(LOSSES))
    param_names = ("n_instances", "loss")

    def setup(self, n_instances, loss):
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.randn(n_instances, 6, generator=generator, requires_grad=True)
        classes = torch.randint(0, 6, (n_instances,), generator=generator)
        signs = torch.randint(0, 2, (n_instances, 1), generator=generator) * 2 - 1
        one_hot = torch.nn.functional.one_hot(classes, 6)
        self.signed = (one_hot * {"positive": 1, "signed": signs}.get(loss, -1)).to(torch.int8)
        self.criterion = LOSSES[loss]()

    def time_forward_and_backward(self, n_instances, loss):
        self.logits.grad = None
        self.criterion(self.logits, self.signed).backward()
