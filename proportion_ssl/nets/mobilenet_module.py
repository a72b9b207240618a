"""MobileNetV2 with a trainable head: what MobileNetV2Classifier trains."""

import os

import torch
from torch import nn

from proportion_ssl.embedding._images import check_images
from proportion_ssl.embedding.mobilenet import (
    N_FEATURES,
    MobileNetV2Features,
    PixelNormalization,
    load_mobilenet_v2,
)
from proportion_ssl.nets.head import LinearHead


class MobileNetV2Module(nn.Module):
    """MobileNetV2 with a linear head, on uint8 images or on features computed before.

    Parameters
    ----------
    n_classes : int
        Number of logits.
    weights : "imagenet", None, str or path-like, default=None
        Start of the convolutional layers, see :func:`~proportion_ssl.embedding.load_mobilenet_v2`.
    freeze : bool, default=True
        True: the convolutional layers are constants: no gradients, batch norm always in
        evaluation mode; only the head trains. False: everything trains. Batch norm then
        normalizes by the statistics of the batch only if `weights` is None; that of a pretrained
        network keeps its running statistics (its factors and offsets train), which holds for small
        batches and for networks whose batch norm was folded into the convolutions.
    dropout : float in [0, 1), default=0.2
        Dropout in front of the linear layer.
    seed : int, default=0
        Seed of the random convolutional layers (``weights=None``). The head draws from torch's
        global generator, exactly as a :class:`~proportion_ssl.nets.head.LinearHead` built alone.

    Attributes
    ----------
    backbone : MobileNetV2Features
    normalize : PixelNormalization
        ImageNet's constants.
    head : LinearHead

    Examples
    --------
    >>> module = MobileNetV2Module(n_classes=5)
    >>> images = torch.zeros(2, 224, 224, 3, dtype=torch.uint8)
    >>> module(images).shape
    torch.Size([2, 5])
    >>> module(module.embed(images)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        n_classes: int,
        weights: str | os.PathLike | None = None,
        freeze: bool = True,
        dropout: float = 0.2,
        seed: int = 0,
    ):
        super().__init__()
        self.freeze = freeze
        self.normalize = PixelNormalization()
        self.backbone = MobileNetV2Features(load_mobilenet_v2(weights, seed=seed))
        self.backbone.requires_grad_(not freeze)
        self.head = LinearHead(N_FEATURES, n_classes, dropout=dropout)
        self._batch_statistics = not freeze and weights is None
        self.train()

    def train(self, mode: bool = True) -> "MobileNetV2Module":
        """Switch to training mode, except for batch norm that keeps its running statistics."""
        super().train(mode)
        if not self._batch_statistics:
            for layer in self.backbone.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the pooled features, before dropout.

        Parameters
        ----------
        images : Tensor of shape (n, height, width, 3), uint8
            Sides of at least 32 pixels.

        Returns
        -------
        features : Tensor of shape (n, 1280), float
            Without gradient if the layers are frozen.
        """
        check_images(images)
        if self.freeze:
            with torch.no_grad():
                return self.backbone(self.normalize(images))
        return self.backbone(self.normalize(images))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Compute logits.

        Parameters
        ----------
        inputs : Tensor of shape (n, height, width, 3), uint8, or (n, 1280), float
            Images, or their features as :meth:`embed` returns them; then only the head runs.

        Returns
        -------
        logits : Tensor of shape (n, n_classes)
        """
        if inputs.ndim == 2 and inputs.is_floating_point():
            if inputs.shape[1] != N_FEATURES:
                raise ValueError(
                    f"Features of MobileNetV2 have {N_FEATURES} columns, got {inputs.shape[1]}. "
                    "For other features use LinearHead alone."
                )
            return self.head(inputs)
        return self.head(self.embed(inputs))
