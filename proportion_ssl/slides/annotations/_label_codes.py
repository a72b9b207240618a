"""Convert labels of patches to class numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from proportion_ssl.slides.annotations.regions import check_names
from proportion_ssl.slides.grid import PatchGrid


def label_codes(labels: Sequence, classes: Sequence[str], grid: PatchGrid) -> np.ndarray:
    """Number of each patch's class, -1 without a label; checks labels against classes and grid.

    ``labels`` holds class names (None or NaN: no label), or numbers of classes (-1: no label).
    """
    classes = check_names(classes, "classes")
    values = np.asarray(labels)
    if values.shape != (len(grid),):
        raise ValueError(
            f"labels must hold one label for each of {len(grid)} patches, got shape {values.shape}"
        )
    if values.dtype.kind in "iu":
        codes = values.astype(np.int64)
        if len(codes) and (codes.min() < -1 or codes.max() >= len(classes)):
            raise ValueError(
                f"labels must be -1 (none) or 0 to {len(classes) - 1}, the numbers of "
                f"{len(classes)} classes; got {codes.min()} to {codes.max()}"
            )
        return codes
    code_of = {name: i for i, name in enumerate(classes)}
    missing = [value is None or value != value for value in values.tolist()]
    unknown = {str(v) for v, none in zip(values.tolist(), missing, strict=True) if not none}
    unknown -= set(classes)
    if unknown:
        raise ValueError(f"labels {sorted(unknown)} are not among the classes {list(classes)}")
    return np.array(
        [-1 if none else code_of[v] for v, none in zip(values.tolist(), missing, strict=True)],
        dtype=np.int64,
    )


def check_probabilities(probabilities, classes: Sequence[str], grid: PatchGrid) -> np.ndarray:
    """Class probabilities as float array (n_patches, n_classes), values in [0, 1]."""
    values = np.asarray(probabilities, dtype=float)
    if values.shape != (len(grid), len(classes)):
        raise ValueError(
            f"probabilities must have shape ({len(grid)}, {len(classes)}): one row per patch, one "
            f"column per class; got {values.shape}"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]; give softmax outputs, not logits")
    return values
