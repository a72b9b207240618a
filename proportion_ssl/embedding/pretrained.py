"""Encoders of timm and Hugging Face with the preprocessing of their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import interpolate

from proportion_ssl.embedding.mobilenet import IMAGENET_MEAN, IMAGENET_STD
from proportion_ssl.embedding.patch_embedder import PatchEmbedder

MODES = {"bilinear": "bilinear", "bicubic": "bicubic", 2: "bilinear", 3: "bicubic"}
"""Interpolations: names in timm, and Pillow's numbers in Hugging Face."""


class Pretrained(NamedTuple):
    """An encoder with its preprocessing.

    Attributes
    ----------
    embedder : PatchEmbedder
        Its fingerprint also covers size, interpolation, mean and standard deviation.
    name : str
        Name of the encoder in feature files.
    size : int or None
        Side of the input images in pixels; other images are resized. None: any size.
    magnification : float or None
        Magnification of the training patches, if its settings state it.
    """

    embedder: PatchEmbedder
    name: str
    size: int | None
    magnification: float | None


def pretrained_embedder(
    model: nn.Module,
    processor: Any = None,
    *,
    name: str | None = None,
    batch_size: int = 32,
    precision: str = "auto",
) -> Pretrained:
    """Make an embedder from an encoder, with its size, mean, standard deviation and interpolation.

    Parameters
    ----------
    model : torch.nn.Module
        A timm model (``timm.create_model(name, pretrained=True, num_classes=0)``) with ``pretrained_cfg``, a
        Hugging Face model, or any other module, which is assumed to use ImageNet's normalization.
    processor : image processor of Hugging Face, optional
        ``AutoImageProcessor.from_pretrained(name)``.
    name : str, optional
        Name of the encoder. Default: from the model's settings.
    batch_size : int, default=32
    precision : {"auto", "float32"}, default="auto"
        As in :class:`~proportion_ssl.PatchEmbedder`: half precision on a GPU, if there is one.

    Returns
    -------
    pretrained : Pretrained

    Raises
    ------
    ValueError
        If the settings require an interpolation other than bilinear or bicubic or images that are not square,
        or if there is no name.

    Notes
    -----
    Patches are resized, not cropped; patches of the returned size are not resized. For models that return an
    object, ``pooler_output`` is used, or else the first token.

    Examples
    --------
    >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    >>> model.pretrained_cfg = {
    ...     "architecture": "tiny", "input_size": (3, 64, 64), "interpolation": "bicubic",
    ...     "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5),
    ... }
    >>> found = pretrained_embedder(model)
    >>> found.name, found.size, found.embedder.mean
    ('tiny', 64, (0.5, 0.5, 0.5))
    """
    asked = _of_timm(model) if processor is None else _of_processor(model, processor)
    named = name or asked["name"]
    if not named:
        raise ValueError(
            "the model does not state its name; give name=, which is stored in feature files"
        )
    mode = MODES.get(asked["interpolation"])
    if mode is None:
        raise ValueError(
            f"{named} requires the interpolation {asked['interpolation']!r}; only bilinear and bicubic "
            "are supported"
        )
    height, width = asked["size"] or (0, 0)
    if height != width:
        raise ValueError(f"{named} takes images of {height} x {width} pixels; patches are square")
    size = height or None
    embedder = PatchEmbedder(
        module=_Encoder(model, named, size, mode),
        mean=tuple(asked["mean"]),
        std=tuple(asked["std"]),
        batch_size=batch_size,
        precision=precision,
    )
    return Pretrained(embedder, named, size, asked["magnification"])


class _Encoder(nn.Module):
    """Resize normalized images (equivalent to resizing before normalization) and compute one vector each."""

    def __init__(self, model: nn.Module, name: str, size: int | None, mode: str):
        super().__init__()
        self.model, self.encoder_name, self.size, self.mode = model, name, size, mode

    def extra_repr(self) -> str:
        return f"{self.encoder_name!r}, size={self.size}, mode={self.mode!r}"

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.size is not None and tuple(images.shape[2:]) != (self.size, self.size):
            images = interpolate(images, (self.size, self.size), mode=self.mode, antialias=True)
        found = self.model(images)
        if isinstance(found, torch.Tensor):
            return found if found.ndim == 2 else found[:, 0]
        pooled = getattr(found, "pooler_output", None)
        return found.last_hidden_state[:, 0] if pooled is None else pooled


def _of_timm(model: nn.Module) -> dict[str, Any]:
    """Preprocessing of a timm model; ImageNet's constants if its settings have none."""
    settings = getattr(model, "pretrained_cfg", None) or {}
    settings = settings if isinstance(settings, Mapping) else dict(vars(settings))
    size = settings.get("input_size")
    return {
        "name": settings.get("hf_hub_id") or settings.get("architecture"),
        "size": None if size is None else (int(size[1]), int(size[2])),
        "mean": settings.get("mean") or IMAGENET_MEAN,
        "std": settings.get("std") or IMAGENET_STD,
        "interpolation": settings.get("interpolation") or "bilinear",
        "magnification": _magnification(settings),
    }


def _of_processor(model: nn.Module, processor: Any) -> dict[str, Any]:
    """Preprocessing of a Hugging Face image processor; the crop size is the input size."""
    config = getattr(model, "config", None)
    size = getattr(processor, "crop_size", None) or getattr(processor, "size", None) or {}
    side = size.get("shortest_edge")
    height, width = size.get("height", side), size.get("width", side)
    return {
        "name": getattr(config, "name_or_path", None) or getattr(config, "_name_or_path", None),
        "size": None if height is None or width is None else (int(height), int(width)),
        "mean": processor.image_mean,
        "std": processor.image_std,
        "interpolation": int(getattr(processor, "resample", 2)),
        "magnification": _magnification(vars(config) if config is not None else {}),
    }


def _magnification(settings: Mapping[str, Any]) -> float | None:
    """Magnification from the settings, which may state microns per pixel."""
    if settings.get("magnification"):
        return float(str(settings["magnification"]).lower().removesuffix("x"))
    return 10.0 / float(settings["mpp"]) if settings.get("mpp") else None
