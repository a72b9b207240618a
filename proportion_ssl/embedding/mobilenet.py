"""MobileNetV2 from torchvision: weights, frozen feature extraction, and a head on top.

Torch's global random generator is neither used nor changed, except by the head: a head on top of the network
has the same initial values as a separate head with the same seed.
"""

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import MobileNet_V2_Weights, mobilenet_v2
from torchvision.models.mobilenetv2 import MobileNetV2

from proportion_ssl.embedding._random_weights import WeightsFrom

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's red, green and blue, for pixels scaled to [0, 1]."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation of ImageNet's red, green and blue, for pixels scaled to [0, 1]."""

N_FEATURES = 1280
"""Number of features that MobileNetV2 (width 1.0) computes per image."""


class WeightsNotAvailableError(OSError):
    """Pretrained weights are not in torch's cache and could not be downloaded."""


def load_mobilenet_v2(
    weights: str | os.PathLike | None = "imagenet", *, seed: int = 0
) -> MobileNetV2:
    """Build torchvision's MobileNetV2 (width 1.0) with its classification layer.

    Torch's global random generator is not used.

    Parameters
    ----------
    weights : "imagenet", None, str or path-like, default="imagenet"
        - "imagenet": ``MobileNet_V2_Weights.IMAGENET1K_V1``, which torchvision downloads once and
          keeps in its cache (``torch.hub.get_dir()``);
        - None: random values;
        - path of a state dict saved with ``torch.save(network.state_dict(), path)``. It is read
          with ``weights_only=True``, so the file cannot run code. The keys of the classification
          layer may be missing (the layer is then random), or have any number of classes.
    seed : int, default=0
        Seed of random values.

    Returns
    -------
    network : torchvision.models.MobileNetV2
        In evaluation mode; maps float images (n, 3, height, width) to logits (n, 1000), or (n, k) for a state
        dict with k classes.

    Raises
    ------
    WeightsNotAvailableError
        With "imagenet", if the weights are not in the cache and cannot be downloaded.
    FileNotFoundError, ValueError, TypeError
        If `weights` is none of the above, or the file is not a MobileNetV2 state dict.

    Examples
    --------
    >>> network = load_mobilenet_v2(None)
    >>> network(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1000])
    """
    state = None
    if isinstance(weights, str) and weights == "imagenet":
        state, origin = _download_imagenet_state(), "torchvision's ImageNet weights"
    elif isinstance(weights, str | os.PathLike):
        path = _check_path(weights)
        state, origin = _read_state(path), str(path)
    elif weights is not None:
        raise TypeError(
            f"weights must be 'imagenet', None or the path of a state dict; got {weights!r} of "
            f"type {type(weights).__name__}. To use another network, give it as a module."
        )

    n_classes = 1000
    if state is not None:
        head = state.get("classifier.1.weight")
        if isinstance(head, torch.Tensor) and head.ndim == 2:
            n_classes = len(head)
    with WeightsFrom(torch.Generator().manual_seed(seed)):
        network = mobilenet_v2(num_classes=n_classes)
    if state is not None:
        _load_checked(network, state, origin)
    return network.eval()


def _download_imagenet_state():
    weights = MobileNet_V2_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: wrong hash of the download
        raise WeightsNotAvailableError(
            f"The ImageNet weights of MobileNetV2 are not in {torch.hub.get_dir()!r} and could "
            f"not be downloaded from {weights.url} ({error}). Without internet, download that file "
            "on another machine and pass its path: weights='path/to/"
            f"{weights.url.rsplit('/', 1)[-1]}', on the command line --weights; or give weights=None for "
            "random features."
        ) from error


def _check_path(weights) -> Path:
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    choices = "weights must be 'imagenet', None or the path of a MobileNetV2 state dict"
    if path.is_dir():
        raise ValueError(f"{choices}; {str(path)!r} is a folder, give the file in it.")
    if isinstance(weights, str) and path.name == weights and not path.suffix:
        raise ValueError(f"{choices}; got {weights!r}, and no file of this name was found.")
    raise FileNotFoundError(f"{choices}; file not found: {str(path)!r}.")


def _read_state(path: Path) -> dict:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # any exception is possible, depending on the file
        raise ValueError(
            f"{str(path)!r} cannot be read as a torch state dict "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no text'}). "
            "Save one with torch.save(network.state_dict(), path)."
        ) from error
    if not isinstance(state, dict):
        raise ValueError(
            f"{str(path)!r} holds a {type(state).__name__}, not a state dict. Save one with "
            "torch.save(network.state_dict(), path)."
        )
    return state


def _load_checked(network: nn.Module, state: dict, origin: str) -> None:
    """Load `state`; raise if entries are missing, unexpected or of another shape."""
    expected = network.state_dict()
    missing = [
        key
        for key in expected
        if key not in state and not key.endswith("num_batches_tracked")  # counts, not used
    ]
    no_head = [key for key in missing if key.startswith("classifier.")]
    if len(no_head) == 2:  # no classification layer at all
        missing = [key for key in missing if key not in no_head]
    unexpected = [key for key in state if key not in expected]
    reshaped = [
        f"{key} {tuple(getattr(state[key], 'shape', ()))} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and getattr(state[key], "shape", None) != value.shape
    ]
    problems = [
        f"{len(keys)} {what} ({_shorten(keys)})"
        for what, keys in [
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", reshaped),
        ]
        if keys
    ]
    if problems:
        raise ValueError(
            f"{origin} is not a state dict of torchvision's mobilenet_v2 (width 1.0): "
            f"of {len(expected)} entries, {'; '.join(problems)}."
        )
    network.load_state_dict(state, strict=False)


def _shorten(keys, limit=3):
    shown = ", ".join(str(key) for key in keys[:limit])
    return shown if len(keys) <= limit else f"{shown}, ..."


class MobileNetV2Features(nn.Module):
    """The layers of a MobileNetV2 up to the pooled features, without dropout and classifier.

    Parameters
    ----------
    network : torchvision.models.MobileNetV2
        Its ``features`` are shared, not copied.

    Examples
    --------
    >>> backbone = MobileNetV2Features(load_mobilenet_v2(None))
    >>> backbone(torch.zeros(2, 3, 64, 96)).shape
    torch.Size([2, 1280])
    """

    def __init__(self, network: MobileNetV2):
        super().__init__()
        self.features = network.features

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized float images (n, 3, height, width) to features (n, 1280)."""
        return self.features(images).mean(dim=(2, 3))


class PixelNormalization(nn.Module):
    """Convert uint8 images to the normalized float input of a network.

    Parameters
    ----------
    mean, std : sequence of 3 float
        Mean and standard deviation of red, green and blue for pixels scaled to [0, 1];
        ImageNet's by default.

    Examples
    --------
    >>> white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    >>> PixelNormalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25))(white)[0, :, 0, 0]
    tensor([1., 1., 2.])
    """

    offset: torch.Tensor
    factor: torch.Tensor

    def __init__(self, mean: Any = IMAGENET_MEAN, std: Any = IMAGENET_STD):
        super().__init__()
        mean = torch.as_tensor(mean, dtype=torch.float64)
        std = torch.as_tensor(std, dtype=torch.float64)
        if mean.shape != (3,) or std.shape != (3,) or not (std > 0).all():
            raise ValueError(
                "mean and std must be three numbers each, for pixels scaled to [0, 1], with "
                f"std above 0; got mean={mean.tolist()} and std={std.tolist()}."
            )
        mean, std = mean.reshape(1, 3, 1, 1), std.reshape(1, 3, 1, 1)
        self.register_buffer("offset", (255 * mean).float())
        self.register_buffer("factor", (1 / (255 * std)).float())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, height, width, 3) uint8 to (n, 3, height, width) float, channels last."""
        pixels = images.permute(0, 3, 1, 2).to(self.offset.dtype)
        return (pixels - self.offset) * self.factor
