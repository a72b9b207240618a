"""Fits that are completed or rolled back, and out-of-fold predictions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, StratifiedKFold


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """Restore the attributes of an estimator if the block raises.

    A failed or interrupted fit (including ``KeyboardInterrupt``) leaves the previous state, fitted or not.
    The block may set attributes but must not modify the values of old ones in place.

    Parameters
    ----------
    estimator : object

    Examples
    --------
    >>> from sklearn.naive_bayes import GaussianNB
    >>> model = GaussianNB()
    >>> try:
    ...     with all_or_nothing(model):
    ...         _ = model.fit([[0.0], [1.0]], [0, 1])
    ...         raise KeyboardInterrupt
    ... except KeyboardInterrupt:
    ...     hasattr(model, "theta_")
    False
    """
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        object.__setattr__(estimator, "__dict__", before)
        raise


def refuse_sparse(X: Any, what: str = "X") -> None:
    """Raise a TypeError for a sparse matrix.

    Parameters
    ----------
    X : object
    what : str
        Name of ``X`` for the message.
    """
    if issparse(X):
        raise TypeError(
            f"{what} is a sparse matrix of shape {X.shape}, but dense features are needed: convert it with "
            ".toarray()."
        )


def refuse_bags(X: Any) -> None:
    """Raise a TypeError for bags in place of the instances to predict.

    Parameters
    ----------
    X : object
    """
    if hasattr(X, "n_bags"):
        raise TypeError(
            "X is a Bags, but predictions are made for instances (patches): pass bags.X. To use the records "
            "of the bags, pass bag_ids=bags.names[bags.index] and bag_proportions=bags as well."
        )


def most_folds(y: np.ndarray, groups: Any = None) -> int:
    """Maximum number of cross-validation folds with all classes, or whole groups, in each.

    Parameters
    ----------
    y : ndarray of shape (n_instances,)
    groups : array-like of shape (n_instances,), optional

    Returns
    -------
    n_folds : int
        Number of groups or, without groups, of instances of the rarest class.
    """
    if groups is not None:
        return len(np.unique(np.asarray(groups)))
    return int(np.unique(y, return_counts=True)[1].min())


def unseen_probabilities(
    estimator: Any,
    X: np.ndarray,
    y: np.ndarray,
    groups: Any = None,
    *,
    n_folds: int = 5,
    random_state: Any = 0,
    fit_with_groups: bool = False,
) -> np.ndarray:
    """Out-of-fold class probabilities, from clones fitted without the instance and its group.

    Parameters
    ----------
    estimator : classifier
        Has ``fit`` and ``predict_proba``.
    X : ndarray of shape (n_instances, n_features)
    y : ndarray of shape (n_instances,)
        Labels.
    groups : array-like of shape (n_instances,), optional
        Slide of each instance; whole slides are then held out.
    n_folds : int, default=5
        Maximum number of folds; fewer with fewer groups or fewer instances of a class.
    random_state : int or RandomState, default=0
        Controls the folds if there are no groups.
    fit_with_groups : bool, default=False
        Whether the groups of the training instances are passed to ``fit``.

    Returns
    -------
    probabilities : ndarray of float64, shape (n_instances, n_classes)
        Columns in sorted order of the labels; 0 for a class that is missing in the other folds. A row is NaN
        if the other folds contain only one class.

    Raises
    ------
    ValueError
        If fewer than two folds are possible.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = np.array([[0.0], [0.1], [0.9], [1.0]]), np.array([0, 0, 1, 1])
    >>> unseen_probabilities(LogisticRegression(), X, y).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    n_folds = min(n_folds, most_folds(y, groups))
    if n_folds < 2:
        what = "two instances of each class" if groups is None else "two slides (groups)"
        raise ValueError(f"Cross-validation needs at least {what}; label more.")
    if groups is None:
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=random_state).split(X, y)
    else:
        groups = np.asarray(groups)
        folds = GroupKFold(n_folds).split(X, y, groups)
    classes = np.unique(y)
    probabilities = np.full((len(X), len(classes)), np.nan)
    for train, test in folds:
        present = np.unique(y[train])
        if len(present) < 2:
            continue
        more = {"groups": groups[train]} if fit_with_groups and groups is not None else {}
        fitted = clone(estimator).fit(X[train], y[train], **more)
        probabilities[test] = 0.0
        probabilities[np.ix_(test, np.searchsorted(classes, present))] = fitted.predict_proba(
            X[test]
        )
    return probabilities
