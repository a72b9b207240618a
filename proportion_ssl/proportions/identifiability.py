"""Identifiability of the classes from recorded proportions."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl._checks import check_shares
from proportion_ssl._warnings import warn

#: Singular values below this fraction of the largest count as zero: shares are known to a few percent.
SMALL = 0.05


_TOLD = ContextVar("told", default=False)


class IdentifiabilityWarning(UserWarning):
    """Warning that the proportions of the bags cannot distinguish some classes."""


def identifiability(proportions: Any, classes: Any = None) -> pd.DataFrame:
    """Measure how well the recorded proportions distinguish each class from the others.

    Parameters
    ----------
    proportions : array-like or DataFrame of shape (n_bags, n_classes)
        Recorded shares, in [0, 1]. Rows of rounded shares need not sum to 1.
    classes : array-like of shape (n_classes,), optional
        Class names; default: the columns of a DataFrame, or 0, 1, 2, ...

    Returns
    -------
    table : DataFrame of n_classes rows
        Indexed by class. ``n_bags``: number of bags in which it is recorded; ``mean`` and ``spread``
        (standard deviation) of its shares; ``determined``, in [0, 1]: how far the proportions alone
        determine the class (0: not at all, 1: fully); ``reason``: why it is not determined, else empty. The
        ``attrs`` of the table hold ``rank`` and ``condition_number`` of the matrix of proportions.

    Raises
    ------
    ValueError
        If proportions are not two-dimensional or not shares in [0, 1].

    Notes
    -----
    If the instances of class c have mean feature m_c, the mean of a bag is expected to be
    ``sum_c P_bc m_c`` [1]_. The class means can be solved for only if P has rank n_classes. With the singular
    value decomposition ``P = U S V'``, ``determined_c = sum_k V_ck^2`` over the singular values above 5% of
    the largest. Classes that are not determined require labeled patches.

    References
    ----------
    .. [1] Quadrianto, Smola, Caetano, Le. "Estimating Labels from Label Proportions". JMLR 10, 2009.

    Examples
    --------
    >>> table = identifiability([[0.5, 0.25, 0.25], [0.2, 0.4, 0.4], [0.8, 0.1, 0.1]], ["a", "b", "c"])
    >>> table["determined"].round(2).tolist()
    [1.0, 0.5, 0.5]
    >>> table.loc["b", "reason"]
    "its share moves together with that of 'c'"
    """
    if classes is None:
        classes = proportions.columns if hasattr(proportions, "columns") else None
    matrix = np.asarray(proportions, dtype=np.float64)
    if matrix.ndim != 2 or len(matrix) == 0:
        raise ValueError(
            f"proportions must have one row per bag and one column per class; got shape {matrix.shape}."
        )
    check_shares(matrix, "The proportions", any_sum=True)
    n_classes = matrix.shape[1]
    classes = np.arange(n_classes) if classes is None else np.asarray(classes)
    _, singular, directions = np.linalg.svd(matrix, full_matrices=True)
    singular = np.pad(singular, (0, max(0, n_classes - len(singular))))
    solid = singular > SMALL * singular[0]
    determined = (directions[solid] ** 2).sum(axis=0)
    table = pd.DataFrame(
        {
            "n_bags": (matrix > 0).sum(axis=0),
            "mean": matrix.mean(axis=0),
            "spread": matrix.std(axis=0),
            "determined": determined.clip(0, 1),
        },
        index=pd.Index(classes, name="class"),
    )
    unsolved = directions[~solid]
    table["reason"] = [_reason(c, matrix, unsolved, classes, table) for c in range(n_classes)]
    table.attrs["rank"] = int(solid.sum())
    smallest = singular[n_classes - 1]
    table.attrs["condition_number"] = (
        float(singular[0] / smallest) if smallest > 0 else float("inf")
    )
    return table


@contextmanager
def told_once() -> Iterator[None]:
    """Do not warn in this thread; the fit to all bags does. (Filters of warnings are common to all threads.)

    Yields
    ------
    None
    """
    before = _TOLD.set(True)
    try:
        yield
    finally:
        _TOLD.reset(before)


def warn_if_not_identifiable(proportions: Any, classes: Any = None) -> None:
    """Warn, with names and reasons, if :func:`identifiability` finds classes that are not determined.

    Parameters
    ----------
    proportions : array-like or DataFrame of shape (n_bags, n_classes)
    classes : array-like of shape (n_classes,), optional

    Warns
    -----
    IdentifiabilityWarning

    Returns
    -------
    None

    Notes
    -----
    Within :func:`told_once` there is no warning.
    """
    if _TOLD.get():
        return
    table = identifiability(proportions, classes)
    open_classes = table[table["reason"] != ""]
    if len(open_classes):
        reasons = "; ".join(
            f"{name!r}: {reason}" for name, reason in open_classes["reason"].items()
        )
        warn(
            f"The proportions of {len(proportions)} bag{'s' * (len(proportions) != 1)} cannot distinguish "
            f"all classes (rank {table.attrs['rank']} of {len(table)}, condition number "
            f"{table.attrs['condition_number']:.3g}). {reasons}. These classes are learned from labeled "
            "patches only; give enough of these, or bags of other compositions. See "
            "proportion_ssl.proportions.identifiability.",
            IdentifiabilityWarning,
        )


def _reason(c, matrix, unsolved, classes, table):
    """Reason why a class is not determined, as text."""
    if table["n_bags"].iloc[c] == 0:
        return "no bag contains it"
    if table["determined"].iloc[c] > 1 - SMALL:
        return ""
    if len(matrix) < len(classes):
        return f"there are only {len(matrix)} bags for {len(classes)} classes"
    if table["spread"].iloc[c] < 1e-9:
        return "its share is the same in all bags"
    loading = np.abs(unsolved.T @ unsolved[:, c])
    others = [classes[k] for k in np.argsort(-loading) if k != c and loading[k] > SMALL]
    if not others:
        return f"its share is small in all bags (at most {matrix[:, c].max():.3g})"
    return f"its share moves together with that of {', '.join(repr(_plain(o)) for o in others)}"


def _plain(value):
    return value.item() if hasattr(value, "item") else value
