"""Weak and strong views of instances: noise on features, augmentation of images."""

import torch
from torchvision.transforms import v2

from proportion_ssl.nets.random_numbers import generator


def weak_view(X: torch.Tensor, scale: torch.Tensor, noise: float) -> torch.Tensor:
    """Weakly augmented instances; labels do not depend on the change.

    Parameters
    ----------
    X : torch.Tensor of shape (n_instances, n_features), or (n_instances, height, width, 3) uint8
    scale : torch.Tensor of shape (n_features,)
        Unit of the noise on features.
    noise : float
        Standard deviation of Gaussian noise on features, in units of ``scale``. Images are randomly rotated
        by a multiple of 180 degrees and randomly mirrored.

    Returns
    -------
    view : torch.Tensor of the same shape and dtype
    """
    if X.ndim == 2:
        return X + noise * scale * torch.randn(
            X.shape, dtype=X.dtype, device=X.device, generator=generator()
        )
    for axis in (1, 2):
        flipped = torch.rand(len(X), device=X.device, generator=generator()) < 0.5
        X = torch.where(flipped.reshape(-1, 1, 1, 1), X.flip(axis), X)
    return X


def strong_view(X: torch.Tensor, scale: torch.Tensor, noise: float, drop: float) -> torch.Tensor:
    """Strongly augmented instances.

    Parameters
    ----------
    X, scale
        As in :func:`weak_view`.
    noise : float
        Standard deviation of Gaussian noise on features, in units of ``scale``.
    drop : float in [0, 1)
        Probability that noise replaces the deviation of a feature from the batch mean. Images go through
        RandAugment (Cubuk et al., CVPR workshops 2020), independently of each other, after
        :func:`weak_view`.

    Returns
    -------
    view : torch.Tensor of the same shape and dtype
    """
    if X.ndim == 2:
        dropped = torch.rand(X.shape, dtype=X.dtype, device=X.device, generator=generator()) < drop
        return weak_view(torch.where(dropped, X.mean(dim=0), X), scale, noise)
    augment = v2.RandAugment()
    images = weak_view(X, scale, noise).permute(0, 3, 1, 2)
    return torch.stack([augment(image) for image in images]).permute(0, 2, 3, 1)
