"""Classes of a classifier: from the labels, from the records, or given by the user."""

import re
from collections.abc import Set
from typing import Any

import numpy as np

from proportion_ssl._checks import (
    first_of_each_kind,
    in_two_spellings,
    same_spelling,
    suggestion,
)
from proportion_ssl._warnings import warn
from proportion_ssl.proportions.bags import Bags

#: Words that make another class of a class, such as "no necrosis".
NEGATIONS = {"no", "non", "not", "without"}


def known_classes(y: np.ndarray, classes: Any, bags: Bags | None) -> np.ndarray:
    """Determine the classes of a fit, in sorted order.

    Parameters
    ----------
    y : ndarray of shape (n_labeled,)
        Labels.
    classes : array-like or None
        All classes. None: the classes of the labels, and the columns of the records for which the share of
        some bag is, or may be, above 0.
    bags : Bags or None
        Has ``class_names`` if a DataFrame names the columns.

    Returns
    -------
    classes : ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If there are fewer than two classes, a label or column is not in `classes`, names are of different
        kinds (numbers and strings), or, without `classes`, a column differs from a label only in case or
        spaces.

    Warns
    -----
    UserWarning
        If a column is left out because its class occurs in neither a label nor a bag, if its name is
        similar to that of a labeled class without a column, or if two labels differ only in case or spaces.

    Examples
    --------
    >>> import pandas as pd
    >>> recorded = pd.DataFrame({"b": [0.5], "c": [0.5]})
    >>> known_classes(np.array(["b", "b"]), None, Bags([np.zeros((2, 1))], proportions=recorded)).tolist()
    ['b', 'c']
    >>> known_classes(np.array(["b", "b"]), ["a", "b", "c"], None).tolist()
    ['a', 'b', 'c']
    """
    labels = np.unique(y)
    columns = np.empty(0) if bags is None or bags.class_names is None else bags.class_names
    if len(columns):
        _check_kinds(labels, columns, "the columns of bag_proportions")
    if classes is not None:
        wanted = np.unique(np.asarray(listed(classes)).ravel())
        _check_kinds(labels, wanted, "classes")
        for values, what in ((labels, "y holds"), (columns, "bag_proportions has a column for")):
            unnamed = [value for value in values.tolist() if value not in wanted.tolist()]
            if unnamed:
                hint = suggestion(str(unnamed[0]), list(map(str, wanted.tolist())))
                raise ValueError(
                    f"{what} {unnamed[0]!r}, which is not in classes={wanted.tolist()}.{hint} Add it "
                    "there, or remove it from the data."
                )
    else:
        new = [c for c in columns.tolist() if c not in labels.tolist()]
        shown = [] if bags is None else [c for c in new if _may_occur(bags, c)]
        if len(shown) < len(new):
            absent = [c for c in new if c not in shown]
            warn(
                f"Class {absent[0]!r} has a column in bag_proportions, but no labeled patch and a share of 0 "
                "in every bag; it is left out. To keep it, list all classes in classes=.",
            )
        for one, other in in_two_spellings(labels.tolist()):
            warn(
                f"y holds {one!r} and {other!r}, which differ only in case or spaces; they are taken as "
                "two classes. Write them alike, or list all classes in classes=."
            )
        _check_spelling(labels.tolist(), columns.tolist(), shown)
        wanted = np.unique(np.concatenate([labels, _like(shown, labels)])) if shown else labels
    if len(wanted) < 2:
        raise ValueError(
            f"y holds one class ({labels[0]!r}); at least two classes are needed. Label patches of another "
            "class, or give classes that occur only in bags with classes= or as columns of a DataFrame of "
            "proportions."
        )
    return wanted


def listed(classes: Any) -> Any:
    """Classes as a sequence: keys of a dict in their order, those of a set sorted."""
    if isinstance(classes, set | frozenset):
        return sorted(classes, key=str)
    return list(classes) if isinstance(classes, Set) else classes


def _check_spelling(labels, columns, new):
    """Raise or warn where a class of the bags alone may be a labeled class in another spelling."""
    by_key = {_key(label): label for label in labels}
    without_column = [str(label) for label in labels if label not in columns]
    for name in new:
        others = [label for label in without_column if not _are_kin(str(name), label)]
        same = by_key.get(_key(name))
        if same is not None:
            raise ValueError(
                f"bag_proportions has a column {name!r} and y the class {same!r}, which differ only in case "
                "or spaces; rename the column if they mean the same class. If they do not, list both in "
                "classes=, and give each a column."
            )
        if hint := suggestion(str(name), others) or _longer_name(name, without_column):
            warn(
                f"bag_proportions has a column {name!r}, which is no class of y.{hint} It is taken as "
                "another class, without labeled patches. Rename the column if it is not, or list all classes "
                "in classes=."
            )


def _longer_name(name, labels):
    """Question that names a label which has all words of the name, or of which the name has all words."""
    words = _words(name)
    for label in labels:
        common, differing = words & _words(label), words ^ _words(label)
        if common and common in (words, _words(label)) and not differing & NEGATIONS:
            return f" Did you mean {label!r}?"
    return ""


def _words(name):
    return set(re.findall(r"[^\W_]+", same_spelling(str(name))))


def _are_kin(one, other):
    """Whether names are those of related classes, such as grades, or papillary and micropapillary."""
    if one in other or other in one:
        return True
    return re.sub(r"\d", "#", one) == re.sub(r"\d", "#", other)


def _key(name):
    return same_spelling(name) if isinstance(name, str) else name


def _may_occur(bags, column):
    position = bags.class_names.tolist().index(column)
    return bool((bags.upper[:, position] > 0).any())


def _like(values, labels):
    """Convert new classes to the dtype of the labels where possible."""
    return np.array(values, dtype=object if labels.dtype.kind == "O" else None)


def _check_kinds(labels, others, what):
    """Raise if one side holds numbers and the other strings."""
    kinds = [_kind(values) for values in (labels, others)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"y holds {kinds[0]} ({_first(labels)}) but {what} {kinds[1]} ({_first(others)}); use one kind: "
            "y.astype(str), or integers as column names."
        )


def _kind(values):
    kinds = first_of_each_kind(values)
    if len(kinds) == 2:
        return "strings and other values"
    return "strings" if True in kinds else "numbers"


def _first(values):
    """Examples for messages, of each kind if there are several."""
    kinds = first_of_each_kind(values)
    shown = kinds.values() if len(kinds) == 2 else values.tolist()[:3]
    return ", ".join(map(repr, shown))
