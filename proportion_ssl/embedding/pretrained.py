"""Encoders of timm and Hugging Face with the preprocessing that their own settings ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import interpolate

from proportion_ssl.embedding.mobilenet import IMAGENET_MEAN, IMAGENET_STD
from proportion_ssl.embedding.patch_embedder import PatchEmbedder

MODES = {"bilinear": "bilinear", "bicubic": "bicubic", 2: "bilinear", 3: "bicubic"}
"""Names of timm, and numbers of Pillow, which Hugging Face writes."""


class Pretrained(NamedTuple):
    """An encoder ready for slides.

    Attributes
    ----------
    embedder : PatchEmbedder
        Its fingerprint covers size, interpolation, mean and standard deviation too.
    name : str
        As it stands in feature files.
    size : int or None
        Side of the images that the encoder takes, in pixels; others are resized. None: any.
    magnification : float or None
        Of the patches that it was trained on, where its settings say so.
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
    """Make an embedder of an encoder, with its own size, mean, standard deviation and interpolation.

    Parameters
    ----------
    model : torch.nn.Module
        Of timm (``timm.create_model(name, pretrained=True, num_classes=0)``), with ``pretrained_cfg``; or
        of Hugging Face; or any other module, which is taken to be normalized as ImageNet's.
    processor : image processor of Hugging Face, optional
        ``AutoImageProcessor.from_pretrained(name)``.
    name : str, optional
        Default: that of the model's settings.
    batch_size : int, default=32
    precision : {"auto", "float32"}, default="auto"
        As in :class:`~proportion_ssl.PatchEmbedder`: half precision on a GPU, if there is one.

    Returns
    -------
    pretrained : Pretrained

    Raises
    ------
    ValueError
        If the settings ask for another interpolation than bilinear or bicubic, for images that are not
        square, or there is no name.

    Notes
    -----
    Patches are resized, not cropped: cut them at the size that is returned, and nothing is resized.
    Of models that return an object, ``pooler_output`` is taken, or else the first token.

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
        raise ValueError("the model does not state its name; give name=, which feature files keep")
    mode = MODES.get(asked["interpolation"])
    if mode is None:
        raise ValueError(
            f"{named} asks for the interpolation {asked['interpolation']!r}; only bilinear and bicubic "
            "are known here"
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
    """Resizes normalized images, which is the same as before the normalization, and gives one vector each."""

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
    """What the settings of a model of timm ask for; ImageNet's constants where it has none."""
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
    """What an image processor of Hugging Face asks for; the crop is what the encoder sees."""
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
    """A magnification, or microns per pixel, among the settings."""
    if settings.get("magnification"):
        return float(str(settings["magnification"]).lower().removesuffix("x"))
    return 10.0 / float(settings["mpp"]) if settings.get("mpp") else None
