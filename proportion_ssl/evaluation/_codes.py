"""Conversion of labels to positions in a list of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd


def class_codes(labels: np.ndarray, names: Sequence, what: str) -> np.ndarray:
    """Position of each label among the names; raises ValueError for an unknown or missing label.

    Parameters
    ----------
    labels : ndarray of shape (n_patches,)
    names : sequence of n_classes labels
    what : str
        Name of the argument, for the message.
    """
    codes, seen = factorize(labels, what)
    position = {name: code for code, name in enumerate(names)}
    unknown = [label for label in seen if label not in position]
    if unknown:
        raise ValueError(
            f"{what} holds {unknown[0]!r}, which is not among the classes {list(names)}; add the class, "
            "or give classes=, the class of each column or code."
        )
    return np.array([position[label] for label in seen], dtype=np.int64)[codes]


def factorize(labels: Any, what: str) -> tuple[np.ndarray, list]:
    """Code of each label, and the distinct labels in the order of first occurrence.

    Raises
    ------
    ValueError
        If a label is missing (None or NaN), which pandas would code as -1.
    """
    values = np.asarray(labels)
    codes, seen = pd.factorize(values.astype(object) if values.dtype.kind in "US" else values)
    n_missing = int((codes < 0).sum())
    if n_missing:
        raise ValueError(
            f"{what} holds {n_missing} missing values (None or NaN) among {len(codes)}; leave these patches "
            "out of all arguments."
        )
    return codes, np.asarray(seen).tolist()


def columns_in_order(table: Any, classes: Any, what: str) -> Any:
    """Columns of a DataFrame in the order of the classes; other arrays unchanged.

    Raises
    ------
    ValueError
        If the columns are not the classes.
    """
    if classes is None or not hasattr(table, "columns"):
        return table
    names, columns = list(classes), list(table.columns)
    if len(names) != len(columns) or set(names) != set(columns):
        raise ValueError(
            f"classes are {names}, but the columns of {what} are {columns}; rename the columns, or leave "
            "classes out."
        )
    return table[names]
