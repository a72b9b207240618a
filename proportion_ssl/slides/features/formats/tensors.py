"""Tensors (``.pt``): features alone as CLAM and TRIDENT save them, bags of slideflow, lists of eva."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from proportion_ssl.slides.features._errors import FeatureFileError
from proportion_ssl.slides.features.formats import eva, slideflow
from proportion_ssl.slides.features.formats.arrays import as_table
from proportion_ssl.slides.features.formats.stored import PatchFacts, StoredFeatures
from proportion_ssl.slides.features.rows import LoadedRows

PROGRAM = "PyTorch"


def read(path: Path) -> StoredFeatures:
    """Describe a file of tensors; what lies beside it says whose it is.

    Raises
    ------
    FeatureFileError
        If it holds anything but a tensor of shape (n, d) or a list of tensors of shape (d,), which is read
        without running code of the file.
    """
    features = load_tensor(str(path))
    coords, facts, program = None, PatchFacts(), PROGRAM
    for neighbor in (slideflow, eva):
        if neighbor.matches(path):
            program, (coords, facts) = neighbor.PROGRAM, neighbor.beside(path)
            break
    shape = (int(features.shape[0]), int(features.shape[1]))
    rows = LoadedRows(str(path), load_tensor, shape, features.nbytes)
    return StoredFeatures(program, rows, coords, facts)


def load_tensor(path: str) -> np.ndarray:
    """The features of a file of tensors."""
    import torch

    if not Path(path).exists():
        raise FileNotFoundError(f"feature file not found: {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        text = " ".join(str(error).split())[:200]
        raise FeatureFileError(
            f"{path}: not a file of tensors alone, or truncated ({text}); save the features by "
            "torch.save(features, path), features being a tensor of shape (n_patches, n_features)"
        ) from error
    return as_table(_array(content, path), path)


def _array(content: Any, path: str) -> np.ndarray:
    import torch

    if isinstance(content, list | tuple) and content:
        tensors = [part for part in content if isinstance(part, torch.Tensor)]
        if len(tensors) == len(content) and len({part.shape for part in tensors}) == 1:
            content = torch.stack(tensors)
    if not isinstance(content, torch.Tensor):
        kind = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise FeatureFileError(
            f"{path}: holds {kind}; expected a tensor of shape (n_patches, n_features), or a list of "
            "tensors of shape (n_features,)"
        )
    content = content.detach()
    if content.dtype == torch.bfloat16:  # which NumPy does not have
        content = content.float()
    return content.numpy()
