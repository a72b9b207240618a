"""Identify a network by its features of known images, independently of its weights and text."""

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from proportion_ssl.embedding._images import known_images
from proportion_ssl.embedding.mobilenet import IMAGENET_MEAN, IMAGENET_STD

SIZES = (
    *(224, 256, 384, 448, 512, 336, 392, 518, 299, 300, 196, 192, 160, 128, 112, 100, 96),
    *(64, 56, 50, 48, 40, 36, 32, 28, 24, 20, 16),
)
"""Sides of the known images; the first size that the network accepts is used."""

STEPS = 512
"""Steps per root mean square of the features: detects a change of 0.2%, but not rounding."""

OFFSET = 0.3819660112501051  # keeps features of simple networks away from the step boundaries
N_SUMS = 8
LEAST = 1e-13  # smaller features are rounding errors


def features_in_steps(network: nn.Module) -> tuple[Any, ...]:
    """Features of two known images, quantized to machine-independent integers.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode; maps normalized images (n, 3, height, width) to features (n, d). It is copied.

    Returns
    -------
    steps : tuple
        Side of the images, number of features, and for each image the magnitude of its features and eight
        signed sums of them, in steps of ``1 / STEPS``.

    Raises
    ------
    ValueError
        If the network accepts none of the sizes, or does not return feature vectors.

    Notes
    -----
    Computed in float64 if the network allows it: the sums then agree between machines to 13 digits, and the
    probability that any of the 16 is rounded differently is below 1e-9. For a network that computes in
    float32 internally it is about 1%.
    """
    size, features = _features(network)
    steps: list[Any] = [size, features.shape[1]]
    signs = _signs(N_SUMS, features.shape[1])
    for row in features:
        magnitude = float(np.sqrt(np.mean(row**2)))
        if not np.isfinite(magnitude):
            steps.append("not finite")
        elif magnitude < LEAST:
            steps.append(0)
        else:
            power = int(np.floor(np.log2(magnitude) + OFFSET))
            sums = signs @ row / np.sqrt(len(row)) / 2.0**power
            steps += [power, *np.floor(sums * STEPS + OFFSET).astype(int).tolist()]
    return tuple(steps)


def run_as_given(network: nn.Module, images: torch.Tensor) -> np.ndarray:
    """Compute features with the original network, in torch.

    Parameters
    ----------
    network : nn.Module
    images : Tensor of shape (n, ...)

    Returns
    -------
    features : ndarray of shape (n, d)

    Raises
    ------
    ValueError
        If the network does not return an array of this shape.
    """
    with torch.inference_mode():
        features = network(images)
    if not isinstance(features, torch.Tensor) or features.ndim != 2:
        came = (
            f"a tensor of shape {tuple(features.shape)}"
            if isinstance(features, torch.Tensor)
            else f"a {type(features).__name__}"
        )
        raise ValueError(
            "The module must return one feature vector per image, a tensor of shape (n, d); for "
            f"{len(images)} images it returned {came}. Pool and flatten its output."
        )
    return features.numpy(force=True)


def _features(network: nn.Module) -> tuple[int, np.ndarray]:
    """Image side and float64 features, at the first size and type that the network accepts."""
    double = copy.deepcopy(network).double()
    reasons = []
    for size in SIZES:
        pixels = (known_images(size, size) / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
        images = torch.from_numpy(np.moveaxis(pixels, -1, 1).copy())
        for module, given in ((double, images), (network, images.float())):
            try:
                features = run_as_given(module, given)
            except Exception as error:  # foreign code may raise anything for an unsupported size
                reasons.append(error)
            else:
                return size, features.astype(np.float64)
    raise ValueError(
        f"The module computes no features of images of {SIZES[0]} x {SIZES[0]} pixels, nor of other usual "
        f"sizes, so it cannot be identified: {reasons[0]}"
    ) from reasons[0]


def _signs(n_rows: int, n_columns: int) -> np.ndarray:
    """Array of -1 and 1, the same in every numpy version."""
    words = np.random.PCG64(1).random_raw(-(-n_rows * n_columns // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8))[: n_rows * n_columns]
    return bits.reshape(n_rows, n_columns) * 2.0 - 1.0
