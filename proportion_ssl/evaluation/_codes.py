"""Conversion of labels to positions in a list of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def class_codes(labels: np.ndarray, names: Sequence, what: str) -> np.ndarray:
    """Position of each label among the names; raises ValueError for an unknown label.

    Parameters
    ----------
    labels : ndarray of shape (n_patches,)
    names : sequence of n_classes labels
    what : str
        Name of the argument, for the message.
    """
    codes, seen = factorize(labels)
    position = {name: code for code, name in enumerate(names)}
    unknown = [label for label in seen if label not in position]
    if unknown:
        raise ValueError(
            f"{what} holds {unknown[0]!r}, which is not among the classes {list(names)}; add the class."
        )
    return np.array([position[label] for label in seen], dtype=np.int64)[codes]


def factorize(labels: Any) -> tuple[np.ndarray, list]:
    """Code of each label, and the distinct labels in the order of first occurrence."""
    values = np.asarray(labels)
    codes, seen = pd.factorize(values.astype(object) if values.dtype.kind in "US" else values)
    return codes, np.asarray(seen).tolist()
