"""What a network computes of known images: told from other networks, whatever its weights and text say."""

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
"""Sides of the known images: the first at which the network computes something counts."""

STEPS = 512
"""Steps per root mean square of the features: a change of .2% is noticed, and rounding is not."""

OFFSET = 0.3819660112501051  # no feature of a simple network lies at a border of the steps
N_SUMS = 8
LEAST = 1e-13  # smaller features are rounding errors


def features_in_steps(network: nn.Module) -> tuple[Any, ...]:
    """Features of two known images as whole numbers that do not depend on the machine.

    Parameters
    ----------
    network : nn.Module
        In evaluation mode; from normalized images (n, 3, height, width) to features (n, d). It is copied.

    Returns
    -------
    steps : tuple
        Side of the images, number of features, and for each image the magnitude of its features and eight
        sums of them with signs, in steps of ``1 / STEPS``.

    Raises
    ------
    ValueError
        If the network computes nothing at any of the sizes, or no feature vectors.

    Notes
    -----
    Computed in float64 where the network can: the sums then agree between machines to 13 digits, so that
    none of the 16 falls to two sides of a border (a chance below 1e-9). A network that computes in float32
    by itself has a chance of about 1%.
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
    """Features by the network itself, in torch.

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
        If it returns anything else.
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
    """Side of the images and features in float64, at the first size and type that the network takes."""
    double = copy.deepcopy(network).double()
    reasons = []
    for size in SIZES:
        pixels = (known_images(size, size) / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
        images = torch.from_numpy(np.moveaxis(pixels, -1, 1).copy())
        for module, given in ((double, images), (network, images.float())):
            try:
                features = run_as_given(module, given)
            except (
                Exception
            ) as error:  # foreign code may raise anything for a size it does not take
                reasons.append(error)
            else:
                return size, features.astype(np.float64)
    raise ValueError(
        f"The module computes no features of images of {SIZES[0]} x {SIZES[0]} pixels, nor of other usual "
        f"sizes, so it cannot be told from other modules: {reasons[0]}"
    ) from reasons[0]


def _signs(n_rows: int, n_columns: int) -> np.ndarray:
    """-1 and 1, the same with every version of numpy."""
    words = np.random.PCG64(1).random_raw(-(-n_rows * n_columns // 64)).astype("<u8")
    bits = np.unpackbits(words.view(np.uint8))[: n_rows * n_columns]
    return bits.reshape(n_rows, n_columns) * 2.0 - 1.0
