"""Bags of instances with known class proportions: the one place that accepts user formats."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from proportion_ssl.proportions.counts import class_proportions
from proportion_ssl.proportions.intervals import (
    SUM_TOLERANCE,
    check_intervals,
    deviation_interval,
    missing_interval,
    readers_interval,
    rounding_interval,
)


class Bags:
    """Instances grouped into bags, with the share of each class that is recorded per bag.

    Parameters
    ----------
    X : sequence of n_bags arrays, or array-like of shape (n_instances, ...)
        Instances: features (n, n_features) or images (n, height, width, 3). Either one array per
        bag, of any size from one instance, or all instances in one array. Anything with
        ``shape``, ``dtype`` and array indexing can be the one array, so that pixels may be read lazily.
        With float32 features and a method ``batches(batch_size)`` besides, such as
        :class:`~proportion_ssl.slides.FeatureSequence`, features stay in their files as well.
    bag_ids : array-like, optional
        With one array per bag: the names of the bags, shape (n_bags,); default 0, 1, 2, ...
        With one array for all: the bag of each instance, shape (n_instances,); required.
    proportions : array-like or DataFrame of shape (n_bags, n_classes), optional
        Share of each class, in [0, 1], rows summing to 1 within 0.01. The rows of an array are in
        the order of ``names``, its columns in sorted order of the classes; a DataFrame is indexed by
        bag and has one column per class, both in any order. 0 says that the class was not seen, NaN that
        nothing is stated: it may take whatever share the stated ones leave. Several readers: an array
        of shape (n_readers, n_bags, n_classes), with rows of NaN where a reader did not read a bag.
    rounding_step : float in (0, 1], optional
        Shares were rounded to multiples of this: each may be half a step off.
    standard_deviation : float or array-like broadcastable to (n_bags, n_classes), optional
        Of the recorded shares, 0.1 for ten points; recorded zeros stay zero.
    lower, upper : array-like or DataFrame of shape (n_bags, n_classes), optional
        The intervals themselves; both or neither. At most one of the three ways to state how far the
        proportions can be trusted; without any they are taken as exact (readers: between the smallest
        and the largest share).
    weights : array-like of shape (n_bags,), optional
        How much the pseudo labels of each bag weigh, at least 0; default 1. In the order of ``names``.

    Attributes
    ----------
    X : array of shape (n_instances, ...)
        All instances; those of one bag need not be neighbours.
    index : ndarray of int, shape (n_instances,)
        Position in ``names`` of each instance's bag.
    names : ndarray of shape (n_bags,)
        Bag names: as given with one array per bag; sorted with one array for all.
    proportions : ndarray of shape (n_bags, n_classes) or None
    lower, upper : ndarray of shape (n_bags, n_classes) or None
        Interval of each share; both equal to ``proportions`` where these are exact.
    weights : ndarray of float, shape (n_bags,)
    class_names : ndarray of shape (n_classes,) or None
        Columns of ``proportions`` where a DataFrame named them.
    has_names : bool
        Whether the bag names were given (rather than counted).

    Raises
    ------
    ValueError
        Naming the bag: no instances, instances of another shape, no proportions, proportions that
        are negative, infinite, or do not sum to 1, intervals that admit no shares, negative weights.

    Notes
    -----
    scikit-learn's cross-validation slices every array-like argument that is as long as ``X`` and
    would silently drop bags. A ``Bags`` has no ``__len__``, ``shape`` or ``__array__``, so it
    passes through whole.

    Examples
    --------
    >>> import numpy as np
    >>> bags = Bags([np.zeros((3, 2)), np.ones((1, 2))], proportions=[[0.3, 0.7], [1.0, 0.0]])
    >>> bags.n_bags, bags.n_instances, bags.index
    (2, 4, array([0, 0, 0, 1]))
    >>> rounded = Bags([np.zeros((3, 2))], proportions=[[0.3, 0.7]], rounding_step=0.1)
    >>> rounded.lower.round(3), rounded.upper.round(3)
    (array([[0.25, 0.65]]), array([[0.35, 0.75]]))
    """

    def __init__(
        self,
        X: Any,
        bag_ids: Any = None,
        proportions: Any = None,
        *,
        rounding_step: float | None = None,
        standard_deviation: Any = None,
        lower: Any = None,
        upper: Any = None,
        weights: Any = None,
    ):
        if isinstance(X, (list, tuple)) and all(hasattr(x, "shape") for x in X):
            self.X, self.index, self.names, self.has_names = _from_sequence(X, bag_ids)
        else:
            self.X, self.index, self.names = _from_flat(X, bag_ids)
            self.has_names = True
        self.weights = _check_weights(weights, self.names)
        # arrays where proportions are recorded, else None; whoever needs them has checked
        self.proportions: np.ndarray | Any = None
        self.lower: np.ndarray | Any = None
        self.upper: np.ndarray | Any = None
        self.class_names: np.ndarray | None = None
        if proportions is not None:
            self._record(proportions)
        self._widen(rounding_step, standard_deviation, lower, upper)

    def _record(self, proportions):
        """Take recorded proportions of one or several readers, taken as exact where they are stated."""
        recorded, self.class_names = _check_proportions(proportions, self.names)
        self.proportions, self.lower, self.upper = recorded

    def _widen(self, rounding_step, standard_deviation, lower, upper):
        """Take what is known about the error of the proportions."""
        stated = {
            "rounding_step": rounding_step is not None,
            "standard_deviation": standard_deviation is not None,
            "lower and upper": lower is not None or upper is not None,
        }
        given = [name for name, is_given in stated.items() if is_given]
        if not given:
            return
        if self.proportions is None:
            raise ValueError(f"{given[0]} is given without proportions; give both here.")
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} are given together; state the error in one way."
            )
        if rounding_step is not None:
            if not 0 < rounding_step <= 1:
                raise ValueError(f"rounding_step must be in (0, 1]; got {rounding_step!r}.")
            wider = rounding_interval(self.proportions, rounding_step)
        elif standard_deviation is not None:
            deviation = np.broadcast_to(standard_deviation, self.proportions.shape).astype(
                np.float64
            )
            if not (deviation >= 0).all():
                raise ValueError(f"standard_deviation must be at least 0; got {deviation.min()!r}.")
            wider = deviation_interval(self.proportions, deviation)
        else:
            if lower is None or upper is None:
                raise ValueError("lower and upper belong together; give both.")
            ends = [_in_order(end, self.names, self.class_names) for end in (lower, upper)]
            self.lower, self.upper = check_intervals(
                ends[0], ends[1], self.proportions.shape, self.names
            )
            return
        self.lower = np.minimum(self.lower, wider[0])
        self.upper = np.maximum(self.upper, wider[1])

    @property
    def n_bags(self) -> int:
        """Number of bags."""
        return len(self.names)

    @property
    def n_instances(self) -> int:
        """Number of instances in all bags."""
        return len(self.index)

    @property
    def sizes(self) -> np.ndarray:
        """Instances per bag, shape (n_bags,)."""
        return np.bincount(self.index, minlength=self.n_bags)

    @property
    def recorded(self) -> np.ndarray:
        """What a selector compares with: the proportions, or (2, n_bags, n_classes) ends of intervals."""
        is_exact = np.array_equal(self.lower, self.proportions) and np.array_equal(
            self.upper, self.lower
        )
        return self.proportions if is_exact else np.stack([self.lower, self.upper])

    @property
    def flat(self) -> tuple:
        """All instances as a tuple of one array, the form in which a pipeline transforms them.

        ``Pipeline(steps, transform_input=["X_bags"])`` sends each array of a *tuple* through its steps.
        Call ``pipeline.fit(X, y, X_bags=bags.flat, bag_proportions=bags)``.
        """
        return (self.X,)

    def with_instances(self, X: Any) -> "Bags":
        """The same bags, names and proportions around transformed instances.

        Parameters
        ----------
        X : array-like of shape (n_instances, ...)
            Row i is the transformed row i of this object's ``X``.

        Returns
        -------
        bags : Bags
        """
        if len(X) != self.n_instances:
            raise ValueError(f"X has {len(X)} instances but the bags have {self.n_instances}.")
        new = object.__new__(Bags)
        new.__dict__.update(self.__dict__, X=X)
        return new

    def with_classes(self, classes: np.ndarray) -> "Bags":
        """The same bags, with the columns of the proportions in the order of a classifier's classes.

        Parameters
        ----------
        classes : ndarray of shape (n_classes,)
            Sorted, as ``classes_``.

        Returns
        -------
        bags : Bags

        Raises
        ------
        ValueError
            When classes and columns do not match.
        """
        if self.class_names is None:
            if self.proportions.shape[1] != len(classes):
                raise ValueError(
                    f"bag_proportions has {self.proportions.shape[1]} columns but y has {len(classes)} "
                    f"classes ({_list(classes)}); give one column per class, in sorted order."
                )
            return self
        columns, wanted = self.class_names.tolist(), classes.tolist()
        without_column = [c for c in wanted if c not in columns]
        if without_column:
            raise ValueError(
                f"Class {without_column[0]!r} has labelled instances but no column in bag_proportions "
                f"(columns: {_list(columns)})."
            )
        without_labels = [c for c in columns if c not in wanted]
        if without_labels:
            raise ValueError(
                f"bag_proportions has a column for class {without_labels[0]!r}, but no labelled instance is "
                f"of it (labelled classes: {_list(wanted)}); label some or drop the column."
            )
        aligned = self.with_instances(self.X)
        order = [columns.index(c) for c in wanted]
        for name in ("proportions", "lower", "upper"):
            setattr(aligned, name, getattr(self, name)[:, order])
        aligned.class_names = classes
        return aligned

    def proportions_of(self, labels: Any, classes: np.ndarray) -> np.ndarray:
        """Share of each bag's instances that carry each class.

        Parameters
        ----------
        labels : array-like of shape (n_instances,)
            Labels of the instances, such as those that a classifier predicts for ``X``.
        classes : ndarray of shape (n_classes,)
            Sorted, as ``classes_``; every label is one of them.

        Returns
        -------
        proportions : ndarray of shape (n_bags, n_classes)
            Rows sum to 1.
        """
        codes = np.searchsorted(classes, labels)
        return class_proportions(codes, self.index, n_bags=self.n_bags, n_classes=len(classes))

    def select(self, names: Any) -> "Bags":
        """Only the named bags, in the order given.

        Parameters
        ----------
        names : array-like of shape (n_selected,)

        Returns
        -------
        bags : Bags
        """
        positions = _positions(np.asarray(names), self.names, "names", "bags")
        new_index = np.full(self.n_bags, -1)
        new_index[positions] = np.arange(len(positions))
        kept = np.flatnonzero(new_index[self.index] >= 0)
        new = object.__new__(Bags)
        new.__dict__.update(
            self.__dict__,
            X=self.X[kept],
            index=new_index[self.index[kept]],
            names=self.names[positions],
            weights=self.weights[positions],
        )
        if self.proportions is not None:
            for name in ("proportions", "lower", "upper"):
                setattr(new, name, getattr(self, name)[positions])
        return new

    def __repr__(self) -> str:
        classes = "no proportions"
        if self.proportions is not None:
            classes = f"proportions of {self.proportions.shape[1]} classes"
        return f"Bags({self.n_bags} bags, {self.n_instances} instances, {classes})"


def check_bags(X_bags: Any, bag_proportions: Any, classes: np.ndarray) -> Bags:
    """Turn the bag arguments of ``fit`` into :class:`Bags` whose columns follow ``classes``.

    Parameters
    ----------
    X_bags : Bags, sequence of arrays, or None
        A 1-tuple of one array (``Bags.flat``, possibly transformed) takes its grouping from
        ``bag_proportions``, which then is a ``Bags``.
    bag_proportions : array-like, DataFrame, Bags or None
        None takes the proportions that ``X_bags`` holds.
    classes : ndarray of shape (n_classes,)
        Classes of the labelled instances, sorted.

    Returns
    -------
    bags : Bags

    Raises
    ------
    ValueError
        As :class:`Bags`, or when classes and columns do not match.
    """
    if isinstance(bag_proportions, Bags):
        grouping = bag_proportions
        if isinstance(X_bags, Bags):
            X_bags = X_bags.flat
        if len(X_bags) == 1 and len(X_bags[0]) == grouping.n_instances:
            bags = grouping.with_instances(X_bags[0])
        else:
            bags = Bags(X_bags, grouping.names, weights=grouping.weights)
            for name in ("proportions", "lower", "upper", "class_names"):
                setattr(bags, name, getattr(grouping, name))
            if bags.n_bags != grouping.n_bags:
                raise ValueError(
                    f"X_bags has {bags.n_bags} bags but bag_proportions has {grouping.n_bags}; "
                    "give one array per bag, or Bags.flat."
                )
    elif isinstance(X_bags, Bags):
        bags = X_bags.with_instances(X_bags.X)
        if bag_proportions is not None:
            bags._record(bag_proportions)
    else:
        bags = Bags(_check_sequence(X_bags), _index_of(bag_proportions), bag_proportions)
    if bags.proportions is None:
        raise ValueError(
            f"The {bags.n_bags} bags have no proportions; pass bag_proportions= or Bags(..., proportions=)."
        )
    return bags.with_classes(classes)


def _from_sequence(arrays: Sequence, names: Any):
    """Flat instances, bag index and names of one array per bag."""
    if len(arrays) == 0:
        raise ValueError("X holds no bags; give at least one array of instances.")
    has_names = names is not None
    names = np.arange(len(arrays)) if names is None else _check_names(names)
    if len(names) != len(arrays):
        raise ValueError(f"bag_ids names {len(names)} bags but X holds {len(arrays)} arrays.")
    trailing = arrays[0].shape[1:]
    for name, array in zip(names.tolist(), arrays, strict=True):
        if len(array.shape) < 2:
            raise ValueError(
                f"Bag {name!r} has shape {array.shape}; give instances in rows: (n, n_features) or "
                "(n, height, width, 3)."
            )
        if array.shape[0] == 0:
            raise ValueError(f"Bag {name!r} has no instances; drop it or give at least one.")
        if array.shape[1:] != trailing:
            raise ValueError(
                f"Bag {name!r} has instances of shape {array.shape[1:]}, but bag "
                f"{names.tolist()[0]!r} has {trailing}."
            )
    index = np.repeat(np.arange(len(arrays)), [array.shape[0] for array in arrays])
    flat = arrays[0] if len(arrays) == 1 else np.concatenate([np.asarray(a) for a in arrays])
    return flat, index, names, has_names


def _from_flat(X: Any, bag_ids: Any):
    """Instances, bag index and sorted names of one array for all."""
    if bag_ids is None:
        raise ValueError(
            "X is one array of all instances, so bag_ids is needed: the bag of each instance. "
            "(For one array per bag give a list or tuple of arrays.)"
        )
    X = X if hasattr(X, "shape") else np.asarray(X)
    bag_ids = np.asarray(bag_ids)
    if bag_ids.ndim != 1 or len(bag_ids) != X.shape[0]:
        raise ValueError(
            f"bag_ids has shape {bag_ids.shape} but X has {X.shape[0]} instances; give one id each."
        )
    if len(bag_ids) == 0:
        raise ValueError("X has no instances.")
    names, index = np.unique(bag_ids, return_inverse=True)
    return X, index, names


def _check_names(names: Any) -> np.ndarray:
    names = np.asarray(names)
    unique, counts = np.unique(names, return_counts=True)
    if len(unique) < len(names):
        raise ValueError(f"Bag name {unique[counts > 1].tolist()[0]!r} is given more than once.")
    return names


def _check_sequence(X_bags: Any):
    if isinstance(X_bags, (list, tuple)):
        return [x if hasattr(x, "shape") else np.asarray(x) for x in X_bags]
    raise TypeError(
        f"X_bags is a {type(X_bags).__name__}; give Bags(X, bag_ids, proportions), or a list or tuple "
        "with one array of instances per bag."
    )


def _index_of(bag_proportions: Any):
    """Bag names that a DataFrame of proportions brings along, in its order."""
    return np.asarray(bag_proportions.index) if hasattr(bag_proportions, "columns") else None


def _positions(wanted: np.ndarray, available: np.ndarray, what: str, where: str) -> np.ndarray:
    """Position in ``available`` of each wanted value."""
    lookup = {value: position for position, value in enumerate(available.tolist())}
    missing = [value for value in wanted.tolist() if value not in lookup]
    if missing:
        raise ValueError(f"{what} has {missing[0]!r}, which is not among the {where}.")
    return np.array([lookup[value] for value in wanted.tolist()], dtype=np.int64)


def _check_proportions(proportions: Any, names: np.ndarray):
    """Matrix in the order of the bag names, and class names if a DataFrame gives them."""
    class_names = None
    if hasattr(proportions, "columns"):
        class_names = np.asarray(proportions.columns)
        if proportions.index.has_duplicates:
            twice = proportions.index[proportions.index.duplicated()][0]
            raise ValueError(f"bag_proportions has more than one row for bag {twice!r}; give one.")
        available = {value: row for row, value in enumerate(proportions.index.tolist())}
        missing = [name for name in names.tolist() if name not in available]
        if missing:
            raise ValueError(
                f"Bag {missing[0]!r} has no row in bag_proportions ({len(missing)} bags have none); index "
                "the DataFrame by bag id, with one row per bag."
            )
        proportions = proportions.iloc[[available[name] for name in names.tolist()]]
    try:
        matrix = np.array(proportions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"bag_proportions must be numbers, one row per bag and one column per class: {error}"
        ) from error
    if matrix.ndim not in (2, 3):
        raise ValueError(
            f"bag_proportions has shape {matrix.shape}; give one row per bag and one column per class."
        )
    if matrix.shape[-2] != len(names):
        raise ValueError(
            f"bag_proportions has {matrix.shape[-2]} rows but there are {len(names)} bags; give one row per "
            "bag. (Cross-validation slices arrays as long as X: put the proportions into Bags.)"
        )
    if matrix.ndim == 3:
        return _check_readings(matrix, names), class_names
    _check_shares(matrix, names)
    return missing_interval(matrix), class_names


def _check_readings(readings, names):
    """Mean and span of what several readers recorded."""
    has_read = ~np.isnan(readings).all(axis=2)
    if not has_read.any(axis=0).all():
        bag = int(np.flatnonzero(~has_read.any(axis=0))[0])
        raise ValueError(
            f"Bag {_show(names[bag])} was read by none of the {len(readings)} readers."
        )
    filled, lower, upper = np.full((3, *readings.shape), np.nan)
    for reader, rows in enumerate(has_read):
        _check_shares(readings[reader, rows], names[rows])
        ends = missing_interval(readings[reader, rows])
        filled[reader, rows], lower[reader, rows], upper[reader, rows] = ends
    mean, _, _ = readers_interval(filled)
    return mean, np.nanmin(lower, axis=0), np.nanmax(upper, axis=0)


def _check_shares(matrix, names):
    """Raise unless every row holds shares that sum, or can sum, to 1."""
    missing = np.isnan(matrix)
    for problem, rows in (
        ("has a proportion that is not a finite number", np.isinf(matrix).any(axis=1)),
        ("has a negative proportion", (matrix < 0).any(axis=1)),
        ("has no stated proportion", missing.all(axis=1)),
    ):
        if rows.any():
            bag = np.flatnonzero(rows)[0]
            raise ValueError(f"Bag {_show(names[bag])} {problem}: {matrix[bag].tolist()}.")
    sums = np.nansum(matrix, axis=1)
    wrong = np.where(
        missing.any(axis=1), sums > 1 + SUM_TOLERANCE, np.abs(sums - 1.0) > SUM_TOLERANCE
    )
    if wrong.any():
        bag = np.flatnonzero(wrong)[0]
        percent = abs(sums[bag] - 100.0) <= 100 * SUM_TOLERANCE
        hint = " They look like percent: divide by 100." if percent else ""
        raise ValueError(
            f"The proportions of bag {_show(names[bag])} sum to {sums[bag]:.6g}, not 1 "
            f"(within {SUM_TOLERANCE:.2g}); {wrong.sum()} of {len(sums)} bags are off.{hint}"
        )


def _in_order(values, names, class_names):
    """Values per bag and class in the order of the bags and of the columns of the proportions."""
    if not hasattr(values, "columns"):
        return values
    wanted = values.columns.tolist() if class_names is None else class_names.tolist()
    missing = [c for c in wanted if c not in values.columns]
    missing += [name for name in names.tolist() if name not in values.index]
    if missing:
        raise ValueError(f"lower or upper has no row or column for {missing[0]!r}.")
    return values.loc[names.tolist(), wanted]


def _check_weights(weights, names):
    """One weight per bag, 1 by default."""
    if weights is None:
        return np.ones(len(names))
    weights = np.array(weights, dtype=np.float64)
    if weights.shape != (len(names),):
        raise ValueError(
            f"weights has shape {weights.shape}; give one weight for each of {len(names)} bags."
        )
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        bag = np.flatnonzero(wrong)[0]
        raise ValueError(
            f"Bag {_show(names[bag])} has weight {weights[bag]}; give a number of at least 0."
        )
    return weights


def _show(name: Any) -> str:
    return repr(name.item() if hasattr(name, "item") else name)


def _list(values: Any) -> str:
    return ", ".join(str(v) for v in values)
