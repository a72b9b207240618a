"""Records of the bags to predict."""

from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl._checks import check_ids
from proportion_ssl.proportions.bags import Bags


def bags_to_predict(
    n_instances: int, bag_ids: Any, recorded: Any, classes: np.ndarray
) -> Bags | None:
    """Bags of the instances to predict, with their recorded proportions.

    Parameters
    ----------
    n_instances : int
    bag_ids : array-like of shape (n_instances,) or None
        None: all instances are one bag.
    recorded : DataFrame, array-like of shape (n_bags, n_classes), or Bags
        As in the ``predict_proba`` of the classifiers. A row of NaN: the bag has no record.
    classes : ndarray of shape (n_classes,)

    Returns
    -------
    bags : Bags or None
        Those with a record; ``X`` holds the positions of their instances. None: no bag has one.

    Raises
    ------
    ValueError
        If records and instances are inconsistent.
    """
    is_empty = isinstance(recorded, list | tuple) and not recorded
    if is_empty or getattr(recorded, "size", 1) == 0:
        raise ValueError("bag_proportions is empty; give the shares of each bag, or leave it out.")
    if hasattr(recorded, "to_frame"):  # a Series: one record, by class
        recorded = recorded.to_frame().T
    if bag_ids is None:
        bag_ids = _only_bag(recorded, n_instances)
    bag_ids = check_ids(bag_ids, n_instances, "bag_ids", "instances")
    positions = np.arange(n_instances)[:, np.newaxis]
    if isinstance(recorded, Bags):
        return _bags_of(positions, bag_ids, recorded.with_classes(classes))
    if hasattr(recorded, "columns"):
        is_asked_for = recorded.index.isin(np.unique(bag_ids))
        if is_asked_for.sum() >= len(np.unique(bag_ids)):  # else Bags shows all rows
            recorded = recorded.loc[is_asked_for]
    elif not _are_tables(recorded) and np.ndim(recorded) == 1:
        recorded = np.asarray(recorded)[np.newaxis]
    recorded, without = _split_off_missing(recorded, np.unique(bag_ids))
    here = ~np.isin(bag_ids, without)
    if not here.any():
        return None
    return Bags(positions[here], bag_ids[here], recorded).with_classes(classes)


def ends_of(bags: Bags) -> tuple:
    """Arguments ``lower`` and ``upper`` of a soft assignment: ends of the intervals, or a record.

    Parameters
    ----------
    bags : Bags

    Returns
    -------
    ends : tuple (lower, upper) or (record,)
    """
    return (bags.lower, bags.upper) if bags.record is None else (bags.record,)


def _are_tables(recorded):
    """Whether these are the tables of several readers."""
    return isinstance(recorded, list | tuple) and any(hasattr(one, "columns") for one in recorded)


def _split_off_missing(recorded, names):
    """Rows with a record of a table or array, and names of the bags whose row holds nothing but NaN."""
    if _are_tables(recorded):
        return recorded, names[:0]
    if hasattr(recorded, "columns"):
        names = np.asarray(recorded.index)
    elif np.ndim(recorded) == 2:
        recorded = np.asarray(recorded)
    if np.ndim(recorded) != 2 or len(recorded) != len(
        names
    ):  # several readers, or wrong: Bags says so
        return recorded, names[:0]
    missing = np.asarray(pd.isna(recorded)).all(axis=1)
    return recorded[~missing], names[missing]


def _only_bag(recorded, n_instances):
    """Id of the single bag, for every instance."""
    if isinstance(recorded, list) and hasattr(recorded[0], "columns"):
        recorded = recorded[0]  # several readers, all of the same bag
    if isinstance(recorded, Bags):
        names = recorded.names
    elif hasattr(recorded, "columns"):
        names = recorded.index
    else:
        names = np.arange(np.atleast_2d(recorded).shape[-2])
    n_bags = len(names)
    if n_bags != 1:
        raise ValueError(
            f"bag_proportions holds the records of {n_bags} bags; give bag_ids, the bag of each instance."
        )
    return np.full(n_instances, np.asarray(names)[0])


def _bags_of(positions, bag_ids, recorded):
    """Bags of these instances with the records of other bags of the same names."""
    names, index = np.unique(bag_ids, return_inverse=True)
    unknown = sorted(set(names.tolist()) - set(recorded.names.tolist()), key=str)
    if unknown:
        raise ValueError(
            f"bag_proportions has no record of bag {unknown[0]!r}; add it, or predict the instances of bags "
            "without a record in a call of their own, without bag_proportions."
        )
    chosen = recorded.select(names)
    bags = chosen.with_instances(chosen.X)
    bags.X, bags.index = positions, index
    return bags
