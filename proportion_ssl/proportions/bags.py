"""Bags of instances with recorded class proportions; user formats are converted here only."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from proportion_ssl._checks import (
    GUARD,
    check_ids,
    check_intervals,
    check_one_kind,
    check_shares,
    check_stated_error,
    suggestion,
    warn_if_reordered,
)
from proportion_ssl._fitting import refuse_sparse
from proportion_ssl._warnings import warn
from proportion_ssl.proportions.counts import class_proportions
from proportion_ssl.proportions.intervals import (
    deviation_interval,
    fill_missing,
    missing_interval,
    nearest_proportions,
    readers_interval,
    rounding_interval,
)
from proportion_ssl.proportions.weak_records import OrderRecord, PartialRecord

#: Attributes that hold the records of all bags, and attributes with one row per bag.
_OF_RECORD = (
    *("proportions", "lower", "upper", "record", "_is_partial"),
    *("class_names", "among", "readings"),
)
_PER_BAG = _OF_RECORD[:5]


class Bags:
    """Instances grouped into bags, with the recorded share of each class in each bag.

    Parameters
    ----------
    X : sequence or dict of n_bags arrays, or array-like of shape (n_instances, ...)
        Instances: features (n, n_features) or images (n, height, width, 3). Either one array per bag, of any
        size from one instance, in a dict with its name; or all instances in one array. Anything with
        ``shape``, ``dtype`` and array indexing is accepted, so pixels can be read lazily. Objects with
        float32 features and a method ``batches(batch_size)``, such as
        :class:`~proportion_ssl.slides.FeatureSequence`, are read from their files in batches. DataFrames
        must have the same columns in the same order in all bags and in ``fit``.
    bag_ids : array-like, optional
        With a sequence of arrays: the names of the bags, shape (n_bags,); default 0, 1, 2, ...
        With one array for all: the bag of each instance, shape (n_instances,). Required, unless the array
        has ``names`` and ``slide_ids``, as a :class:`~proportion_ssl.slides.FeatureSequence` does; slides
        are then the bags.
    proportions : array-like or DataFrame of shape (n_bags, n_classes), optional
        Recorded share of each class, in [0, 1]. Rows must sum to 1 within 0.01; if an error is stated, the
        intervals must admit a sum of 1. Do not normalize rounded shares. The rows of an array are in the
        order of ``names``, its columns in sorted order of the classes. A DataFrame is indexed by bag and has
        one column per class, both in any order. 0 means that the class is absent. NaN means that its share
        was not recorded; it may take any share that the recorded ones leave. For several readers: an array
        of shape (n_readers, n_bags, n_classes) with rows of NaN for bags that a reader did not read, or a
        list of DataFrames without rows for such bags.
    among : sequence of class names, optional
        Shares are relative to these classes, such as the growth patterns of a tumor; the total share of
        these classes in the bag is unknown. The columns of an array are in this order. A DataFrame has a
        column for each of these classes and may have columns for others. A bag with a share in one of the
        other columns has a complete record (1 for "normal": a slide without tumor); a bag with NaN in all
        of them has a partial record.
    rounding_step : float in (0, 0.5], optional
        Shares were rounded to multiples of this, so each may be off by half a step.
    standard_deviation : float, or array-like or DataFrame broadcastable to (n_bags, n_classes), optional
        Standard deviation of the recorded shares, in [0, 0.5]; 0.1 means ten percentage points. Recorded
        zeros stay zero.
    lower, upper : array-like or DataFrame of shape (n_bags, n_classes), optional
        Intervals that contain the proportions; give both or neither. State the error in at most one way:
        ``rounding_step``, ``standard_deviation``, or ``lower`` and ``upper``. Default: shares are exact, or
        span the smallest to the largest share of several readers.
    weights : array-like or Series of shape (n_bags,), optional
        Weight of the pseudo labels of each bag, at least 0; default 1. In the order of ``names``; a Series
        is indexed by bag.

    Attributes
    ----------
    X : array of shape (n_instances, ...)
        All instances; those of one bag need not be neighbors.
    index : ndarray of int, shape (n_instances,)
        Bag of each instance, as an index into ``names``.
    names : ndarray of shape (n_bags,)
        Bag names: as given with one array per bag; sorted with one array for all.
    proportions : ndarray of shape (n_bags, n_classes) or None
        Recorded shares, or the mean of several readers, with missing shares filled in. Rows with a stated
        error need not sum to 1. For an incomplete record: shares that agree with it.
    lower, upper : ndarray of shape (n_bags, n_classes) or None
        Interval of each share, for every kind of record; equal to ``proportions`` for exact shares.
    record : PartialRecord, OrderRecord or None
        Incomplete record: shares among some classes, set once all classes are known
        (:meth:`with_classes`), or an order of the classes (:meth:`from_predominant`).
    among : ndarray or None
        As given.
    readings : ndarray of shape (n_readers, n_bags, n_classes) or None
        Shares of each of several readers, with rows of NaN for bags that a reader did not read; None for a
        single record. To measure agreement, pass :func:`~proportion_ssl.evaluation.predominant_class` of
        each reader to :func:`~proportion_ssl.evaluation.compare_readers`.
    weights : ndarray of float, shape (n_bags,)
    class_names : ndarray of shape (n_classes,) or None
        Classes of the columns of ``proportions``, if a DataFrame names them.
    has_names : bool
        Whether bag names were given; otherwise bags are numbered.

    Raises
    ------
    ValueError
        If a bag has no instances, instances of another shape or with other columns, no proportions,
        proportions that are negative, infinite, percentages or do not sum to 1, intervals that admit no
        shares with sum 1, or a negative weight. The message names the bag.
    TypeError
        If instances are sparse, or only some of several readers are DataFrames.

    Warns
    -----
    UserWarning
        If another argument is an array without bag names, and the bags are strings that do not appear in
        sorted order (in a DataFrame of proportions if there is one, else in bag_ids). Its rows are assumed to
        be in sorted order of the bags.

    Notes
    -----
    Cross-validation in scikit-learn slices every array-like argument that is as long as ``X`` and would
    silently drop bags. ``Bags`` has no ``__len__``, ``shape`` or ``__array__`` and is therefore passed on
    unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> bags = Bags([np.zeros((3, 2)), np.ones((1, 2))], proportions=[[0.3, 0.7], [1.0, 0.0]])
    >>> bags.n_bags, bags.n_instances, bags.index
    (2, 4, array([0, 0, 0, 1]))
    >>> rounded = Bags([np.zeros((3, 2))], proportions=[[0.3, 0.6]], rounding_step=0.1)
    >>> rounded.lower.round(3), rounded.upper.round(3)
    (array([[0.25, 0.55]]), array([[0.35, 0.65]]))
    >>> tumor = Bags([np.zeros((3, 2))], proportions=[[0.7, 0.3]], among=["acinar", "solid"])
    >>> tumor.with_classes(np.array(["acinar", "normal", "solid"])).upper
    array([[0.7, 1. , 0.3]])
    """

    def __init__(
        self,
        X: Any,
        bag_ids: Any = None,
        proportions: Any = None,
        *,
        among: Any = None,
        rounding_step: float | None = None,
        standard_deviation: Any = None,
        lower: Any = None,
        upper: Any = None,
        weights: Any = None,
    ):
        if isinstance(X, dict):
            X, bag_ids = _from_dict(X, bag_ids)
        for part in X if isinstance(X, (list, tuple)) else (X,):
            refuse_sparse(part, "X of the bags")
        if isinstance(X, (list, tuple)) and all(hasattr(x, "shape") for x in X):
            self.X, self.index, self.names, self.has_names = _from_sequence(X, bag_ids)
        else:
            self.X, self.index, self.names = _from_flat(X, bag_ids)
            self.has_names = True
        self.weights = _check_weights(weights, self.names)
        # arrays if proportions are recorded, else None; code that needs them checks first
        self.proportions: np.ndarray | Any = None
        self.lower: np.ndarray | Any = None
        self.upper: np.ndarray | Any = None
        self.record: PartialRecord | OrderRecord | None = None
        self._is_partial: np.ndarray | None = None
        self.class_names: np.ndarray | None = None
        self.among: np.ndarray | None = None
        self.readings: np.ndarray | None = None
        error = {
            "rounding_step": rounding_step,
            "standard_deviation": standard_deviation,
            "lower": lower,
            "upper": upper,
        }
        error = {name: value for name, value in error.items() if value is not None}
        self._warn_of_order(proportions=proportions, weights=weights, **error)
        if proportions is not None:
            self._take(proportions, among, **error)
        elif error or among is not None:
            name = next(iter(error), "among")
            raise ValueError(f"{name} is given without proportions; pass both to the same call.")

    @classmethod
    def from_predominant(
        cls,
        X: Any,
        bag_ids: Any = None,
        predominant: Any = None,
        *,
        classes: Any,
        weights: Any = None,
    ) -> "Bags":
        """Create bags for which only the predominant class or an order of classes is recorded.

        Parameters
        ----------
        X, bag_ids, weights
            As in :class:`Bags`.
        predominant : sequence of length n_bags, or Series
            The class with the largest share in each bag, or a list or tuple of classes in descending order
            of share. Classes that are not listed have at most the share of the last listed one. In the
            order of ``names``; a Series is indexed by bag.
        classes : sequence of n_classes class names
            All classes that a bag can contain.

        Returns
        -------
        bags : Bags
            ``record`` holds the order. ``lower`` and ``upper`` hold the limits it implies: with C classes,
            the predominant one has a share of at least 1 / C, the others of at most 1/2. Selectors and losses
            use the nearest shares in the recorded order; see
            :class:`~proportion_ssl.proportions.OrderRecord`.

        Raises
        ------
        ValueError
            If a bag has no class, a class that is not in ``classes``, or a class listed twice (the message
            names the bag), or as in :class:`Bags`.

        Examples
        --------
        >>> import numpy as np
        >>> slides = [np.zeros((3, 2)), np.ones((4, 2))]
        >>> bags = Bags.from_predominant(slides, predominant=["b", ("a", "c")], classes=["a", "b", "c"])
        >>> bags.upper.round(2)
        array([[0.5 , 1.  , 0.5 ],
               [1.  , 0.33, 0.5 ]])
        """
        bags = cls(X, bag_ids, weights=weights)
        if predominant is None:
            raise ValueError("predominant is missing; give the most frequent class of each bag.")
        bags._warn_of_order(predominant=predominant)
        if _is_named(predominant):
            missing = [name for name in bags.names.tolist() if name not in predominant.index]
            if missing:
                raise ValueError(
                    f"predominant has no entry for bag {missing[0]!r}; index it by bag."
                )
            predominant = predominant.loc[bags.names.tolist()]
        names = _check_names(classes)
        return bags.with_record(OrderRecord(_ranks(list(predominant), bags.names, names)), names)

    def _take(self, proportions, among=None, **error):
        """Set proportions of one or several readers and their intervals."""
        written, self.class_names = _written(proportions, self.names)
        if among is not None:
            among = np.asarray(among)
            self.class_names, is_partial = _check_among(
                among, written, self.class_names, self.names
            )
        find_ends = _check_error(error, written.shape[-2:], self.names, self.class_names)
        is_exact = not error
        self.readings = None if written.ndim == 2 else written
        if written.ndim == 2:
            found = _read(written, self.names, find_ends, is_exact)
        else:
            found = _read_all(written, self.names, find_ends, is_exact)
        self.proportions, self.lower, self.upper = found
        self.record = self._is_partial = None
        self.among = among
        if among is not None:
            self._is_partial = is_partial
            self._adopt(_partial_record(found, is_partial, self.class_names, among))

    def _adopt(self, record):
        """Set a partial record, unless it covers all classes."""
        self.record = None if record.among.all() else record
        complete = record.shares, record.lower, record.upper
        self.proportions, self.lower, self.upper = (
            complete if self.record is None else record.bounds()
        )

    def _refuse_to_replace(self):
        """Refuse plain proportions in place of a record that states more than them."""
        is_plain = self.proportions is None or np.array_equal(self.lower, self.upper)
        if is_plain or self.readings is not None:
            return
        raise ValueError(
            "bag_proportions would replace the record of X_bags and drop what it states: the error of the "
            "shares, or classes whose share is unknown. Give Bags(X, bag_ids, proportions=...) alone, with "
            "rounding_step= or another error, or X_bags without proportions."
        )

    def _states_same(self, other):
        """Whether what this one states of shares, their errors and weights is equal to that of the other."""
        is_weighted = self.proportions is not None or (self.weights != 1).any()
        if is_weighted and not np.allclose(self.weights, other.weights):
            return False
        if self.proportions is None:
            return True
        if other.proportions is None or self.proportions.shape != other.proportions.shape:
            return False
        order = np.arange(self.proportions.shape[1])
        if self.class_names is not None and other.class_names is not None:
            mine, theirs = self.class_names.tolist(), other.class_names.tolist()
            if set(mine) != set(theirs):
                return False
            order = np.array([theirs.index(name) for name in mine])
        return all(
            np.allclose(getattr(self, part), getattr(other, part)[:, order], rtol=0, atol=GUARD)
            for part in ("proportions", "lower", "upper")
        )

    def _warn_of_order(self, **given):
        """Warn if an array has rows for bags whose names are strings that appear in another order."""
        unnamed = [
            name
            for name, value in given.items()
            if value is not None and not np.isscalar(value) and not _is_named(value)
        ]
        if not unnamed:
            return
        first_rows = np.unique(self.index, return_index=True)[1]
        seen = self.names[np.argsort(first_rows, kind="stable")]
        table: Any = given.get("proportions")
        if hasattr(table, "columns"):
            seen = [name for name in table.index if name in set(self.names.tolist())]
        what = f"The rows of {' and '.join(unnamed)}"
        warn_if_reordered(seen, self.names, what)

    def __float__(self) -> float:
        # arrays of an object, which steps of a pipeline make of their input, ask for it
        raise TypeError(
            "Bags are no array of features. Through a pipeline pass X_bags=bags.flat, bag_proportions=bags, "
            "and name the arrays to transform: Pipeline(..., transform_input=['X_bags'])."
        )

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

    def has_grouping_of(self, other: "Bags") -> bool:
        """Whether both have the same bags, with the same instances of ``X`` by position.

        Names are compared if both have some.
        """
        are_named = self.has_names and other.has_names
        same_names = not are_named or self.names.tolist() == other.names.tolist()
        return same_names and np.array_equal(self.index, other.index)

    @property
    def recorded(self) -> Any:
        """Argument ``bag_proportions`` for a selector.

        The proportions, the ends of intervals of shape (2, n_bags, n_classes), or the ``record``.
        """
        if self.record is not None:
            return self.record
        is_exact = np.array_equal(self.lower, self.proportions) and np.array_equal(
            self.upper, self.lower
        )
        return self.proportions if is_exact else np.stack([self.lower, self.upper])

    @property
    def flat(self) -> tuple:
        """All instances as a tuple of one array, so that a pipeline can transform them.

        ``Pipeline(steps, transform_input=["X_bags"])`` transforms each array of a *tuple*.
        Call ``pipeline.fit(X, y, X_bags=bags.flat, bag_proportions=bags)``.
        """
        return (self.X,)

    def with_instances(self, X: Any) -> "Bags":
        """Return the same bags, names and proportions with transformed instances.

        Parameters
        ----------
        X : array-like of shape (n_instances, ...)
            Row i is the transformed row i of this object's ``X``.

        Returns
        -------
        bags : Bags

        Raises
        ------
        ValueError
            If the number of instances differs.
        """
        if len(X) != self.n_instances:
            raise ValueError(
                f"X has {len(X)} instances but the bags have {self.n_instances}; transform the bags' X "
                "row by row."
            )
        new = object.__new__(Bags)
        new.__dict__.update(self.__dict__, X=X)
        return new

    def with_record(self, record: PartialRecord | OrderRecord, classes: Any) -> "Bags":
        """Return the same instances and weights with another record.

        Parameters
        ----------
        record : PartialRecord or OrderRecord
            One row per bag, in the order of ``names``. A partial record may cover different classes in
            different bags.
        classes : sequence of n_classes class names
            Class of each column of the record.

        Returns
        -------
        bags : Bags

        Raises
        ------
        ValueError
            If the record does not have one row per bag and one column per class.

        Examples
        --------
        >>> import numpy as np
        >>> from proportion_ssl.proportions import PartialRecord
        >>> shares = np.array([[0.7, 0.3, 0.0], [0.0, 0.4, 0.6]])
        >>> record = PartialRecord(shares, shares, shares, shares > 0)
        >>> bags = Bags([np.zeros((3, 2)), np.ones((4, 2))])
        >>> bags.with_record(record, ["a", "b", "c"]).upper
        array([[0.7, 0.3, 1. ],
               [1. , 0.4, 0.6]])
        """
        names = _check_names(classes)
        if record.shape != (self.n_bags, len(names)):
            raise ValueError(
                f"record has shape {record.shape}; there are {self.n_bags} bags and {len(names)} classes."
            )
        bags = self.with_instances(self.X)
        bags.class_names, bags.record = names, record
        bags.among = bags._is_partial = bags.readings = None
        bags.proportions, bags.lower, bags.upper = record.bounds()
        return bags

    def with_classes(self, classes: np.ndarray) -> "Bags":
        """Return the same bags with the columns of the proportions in the order of ``classes``.

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
            If classes and columns do not match.

        Notes
        -----
        A column of zeros for a class that is not in ``classes`` is dropped. If all records are partial,
        classes without a column have an unknown share.
        """
        if self.class_names is None:
            if self.proportions.shape[1] != len(classes):
                raise ValueError(
                    f"bag_proportions has {self.proportions.shape[1]} columns but there are {len(classes)} "
                    f"classes ({_list(classes)}); give one column per class, in sorted order. For classes "
                    "without labeled patches use classes= or a DataFrame with named columns."
                )
            return self
        columns, wanted = self.class_names.tolist(), classes.tolist()
        without_column = [c for c in wanted if c not in columns]
        if without_column and not (self._is_partial is not None and self._is_partial.all()):
            others = [str(c) for c in columns if c not in wanted]
            raise ValueError(
                f"Class {without_column[0]!r} has no column in bag_proportions (columns: {_list(columns)})."
                f"{suggestion(str(without_column[0]), others)} Add it, with 0 in bags that do not contain "
                "the class, or rename its column."
            )
        unknown = [
            c for i, c in enumerate(columns) if c not in wanted and (self.upper[:, i] > 0).any()
        ]
        if unknown:
            raise ValueError(
                f"bag_proportions has a share of class {unknown[0]!r}, which is not among the classes "
                f"({_list(wanted)}); add it to classes= of the classifier, label some patches of it, or "
                "drop the column."
            )
        aligned = self.with_instances(self.X)
        order = np.array([columns.index(c) if c in columns else -1 for c in wanted])
        aligned.class_names = classes
        if self.readings is not None:  # classes without a column have no readings
            aligned.readings = np.where(order >= 0, self.readings[:, :, order], np.nan)
        if self.among is not None:
            record = self.record
            if record is None:  # the columns are the classes in among
                everywhere = np.ones(self.lower.shape, dtype=bool)
                record = PartialRecord(self.proportions, self.lower, self.upper, everywhere)
            aligned._adopt(record.with_columns(order))
            return aligned
        for name in ("proportions", "lower", "upper"):
            setattr(aligned, name, getattr(self, name)[:, order])
        if self.record is not None:
            aligned.record = self.record.with_columns(order)
        return aligned

    def nearest(self, predicted: np.ndarray) -> np.ndarray:
        """Shares admitted by the records that are nearest to predicted shares.

        Parameters
        ----------
        predicted : ndarray of shape (n_bags, n_classes)
            Predicted shares; rows sum to 1.

        Returns
        -------
        shares : ndarray of shape (n_bags, n_classes)
            The prediction where the record admits it. For a partial record: the recorded shares times the
            predicted total share of its classes.
        """
        if self.record is not None:
            return self.record.nearest(predicted)
        return nearest_proportions(predicted, self.lower, self.upper)

    def proportions_of(self, labels: Any, classes: np.ndarray) -> np.ndarray:
        """Share of each class among the labels of each bag.

        Parameters
        ----------
        labels : array-like of shape (n_instances,)
            Labels of the instances, such as the predictions of a classifier for ``X``.
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
        """Return only the named bags, in the given order.

        Parameters
        ----------
        names : array-like of shape (n_selected,)

        Returns
        -------
        bags : Bags

        Raises
        ------
        ValueError
            If a name is not among the bags or occurs twice, or there is none.
        """
        names = np.asarray(names if hasattr(names, "shape") else list(names))
        positions = _positions(names, self.names, "names", "bags")
        if not len(positions):
            raise ValueError("names is empty; name at least one bag.")
        times = np.bincount(positions)
        if times.max() > 1:
            raise ValueError(
                f"names has bag {self.names.tolist()[times.argmax()]!r} {times.max()} times; name each once. "
                "To count a bag several times, as in a bootstrap, give Bags these numbers as weights=."
            )
        new_index = np.full(self.n_bags, -1)
        new_index[positions] = np.arange(len(positions))
        kept = np.flatnonzero(new_index[self.index] >= 0)
        rows = self.X.iloc if hasattr(self.X, "iloc") else self.X
        new = object.__new__(Bags)
        new.__dict__.update(
            self.__dict__,
            X=rows[kept],
            index=new_index[self.index[kept]],
            names=self.names[positions],
            weights=self.weights[positions],
        )
        for name in _PER_BAG:
            if getattr(self, name) is not None:
                setattr(new, name, getattr(self, name)[positions])
        if self.readings is not None:
            new.readings = self.readings[:, positions]
        return new

    def __repr__(self) -> str:
        classes = "no proportions"
        if self.proportions is not None:
            classes = f"proportions of {self.proportions.shape[1]} classes"
        return f"Bags({self.n_bags} bags, {self.n_instances} instances, {classes})"


def check_bags(X_bags: Any, bag_proportions: Any, classes: np.ndarray | None = None) -> Bags:
    """Turn the bag arguments of ``fit`` into :class:`Bags`.

    Parameters
    ----------
    X_bags : Bags, sequence or dict of arrays, or None
        A 1-tuple of one array (``Bags.flat``, possibly transformed) takes its grouping from
        ``bag_proportions``, which then is a ``Bags``.
    bag_proportions : array-like, DataFrame, Bags or None
        None: use the proportions of ``X_bags``.
    classes : ndarray of shape (n_classes,), optional
        Sorted classes, to which the columns of the proportions are matched. Default: columns stay unchanged.

    Returns
    -------
    bags : Bags

    Raises
    ------
    ValueError
        As in :class:`Bags`, if classes and columns do not match, or if proportions would replace a record
        with a stated error or with unknown shares.
    TypeError
        As in :class:`Bags`, or if ``X_bags`` is neither Bags nor a dict, list or tuple of arrays.
    """
    if isinstance(bag_proportions, Bags):
        bags = _instances_of(bag_proportions, X_bags)
    elif isinstance(X_bags, Bags):
        bags = X_bags.with_instances(X_bags.X)
        if bag_proportions is not None:
            bags._refuse_to_replace()
            bags._warn_of_order(bag_proportions=bag_proportions)
            bags._take(bag_proportions)
    else:
        if not isinstance(X_bags, dict):
            _refuse_flat(X_bags, bag_proportions)
            X_bags = _check_sequence(X_bags)
            _refuse_names(bag_proportions, len(X_bags))
        bags = Bags(X_bags, None, bag_proportions)
    if bags.proportions is None:
        raise ValueError(
            f"The {bags.n_bags} bags have no proportions; pass bag_proportions= or Bags(..., proportions=)."
        )
    return bags if classes is None else bags.with_classes(classes)


def _instances_of(grouping: Bags, X_bags: Any) -> Bags:
    """The bags of ``bag_proportions`` with the instances of ``X_bags``, in the same order."""
    if isinstance(X_bags, Bags):
        if not X_bags.has_grouping_of(grouping):
            raise ValueError(
                "X_bags and bag_proportions are both Bags, but their names, or the bags of their instances "
                "by position, differ; give X_bags=Bags(X, bag_ids, proportions) alone."
            )
        if not X_bags._states_same(grouping):
            raise ValueError(
                "X_bags and bag_proportions are both Bags, with other records or weights; give the one with "
                "the records to be used alone, or X_bags without proportions and weights."
            )
        X_bags = X_bags.flat
    if isinstance(X_bags, dict):
        raise ValueError(
            "X_bags is a dict and bag_proportions are Bags; give Bags(X_bags, proportions=...) alone."
        )
    X_bags = _check_sequence(X_bags)
    sizes = [len(array) for array in X_bags]
    if sizes == [grouping.n_instances]:
        return grouping.with_instances(X_bags[0])
    if sizes != grouping.sizes.tolist():
        raise ValueError(
            f"X_bags has {len(sizes)} arrays of {_list(sizes[:3])}{', ...' * (len(sizes) > 3)} instances, "
            f"but the {grouping.n_bags} bags of bag_proportions have {_list(grouping.sizes[:3].tolist())}"
            f"{', ...' * (grouping.n_bags > 3)}; give Bags.flat, or the arrays in the order of its names."
        )
    bags = Bags(X_bags, grouping.names, weights=grouping.weights)
    for name in _OF_RECORD:
        setattr(bags, name, getattr(grouping, name))
    return bags


def _from_dict(arrays: dict, bag_ids: Any):
    """Arrays and names of the bags."""
    if bag_ids is not None:
        raise ValueError("X is a dict, whose keys are the names of the bags; leave bag_ids out.")
    return _check_sequence(list(arrays.values())), list(arrays)


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
                f"{names.tolist()[0]!r} has {trailing}; give all instances the same shape."
            )
    index = np.repeat(np.arange(len(arrays)), [array.shape[0] for array in arrays])
    columns = _check_columns(arrays, names)
    if len(arrays) == 1:
        return arrays[0], index, names, has_names
    flat = np.concatenate([np.asarray(array) for array in arrays])
    return flat if columns is None else pd.DataFrame(flat, columns=columns), index, names, has_names


def _check_columns(arrays, names):
    """Column names, which must be equal in all bags; None if bags are arrays."""
    columns = [list(array.columns) if _is_named(array) else None for array in arrays]
    for name, own in zip(names.tolist(), columns, strict=True):
        if own == columns[0]:
            continue
        first = names.tolist()[0]
        if own is None or columns[0] is None:
            raise ValueError(
                f"Bag {name!r} {'is an array' if own is None else 'is a DataFrame'} but bag {first!r} is "
                "not; give all bags as DataFrames or all as arrays."
            )
        if len(set(own)) == len(own) and set(own) == set(columns[0]):
            raise ValueError(
                f"Bag {name!r} has the columns of bag {first!r} in another order: {_list(own[:5])} instead "
                f"of {_list(columns[0][:5])}; reorder them with frame[columns]."
            )
        raise ValueError(
            f"Bag {name!r} has different columns from bag {first!r}: "
            f"{_list([c for c in own if c not in columns[0]][:5]) or 'none'} instead of "
            f"{_list([c for c in columns[0] if c not in own][:5]) or 'none'}."
        )
    return columns[0]


def _is_named(values: Any) -> bool:
    """Return whether rows, or rows and columns, can be matched by name."""
    if _are_frames(values):
        return True
    return hasattr(values, "columns") or (hasattr(values, "index") and hasattr(values, "loc"))


def _are_frames(values: Any) -> bool:
    """Return whether the values are DataFrames of several readers."""
    if not isinstance(values, (list, tuple)):
        return False
    named = [hasattr(value, "columns") for value in values]
    if any(named) and not all(named):
        raise TypeError(
            "Some readers are DataFrames and others are not; give all as DataFrames, so that bags and "
            "classes can be matched by name."
        )
    return any(named)


def _from_flat(X: Any, bag_ids: Any):
    """Instances, bag index and sorted names of one array for all."""
    if bag_ids is None and hasattr(X, "slide_ids"):
        return X, *_slides_of(X)
    if bag_ids is None:
        raise ValueError(
            "X is one array of all instances, so bag_ids is needed: the bag of each instance. "
            "(For one array per bag give a list or tuple of arrays.)"
        )
    X = X if hasattr(X, "shape") else np.asarray(X)
    bag_ids = check_ids(bag_ids, X.shape[0], "bag_ids", "instances")
    if len(bag_ids) == 0:
        raise ValueError("X has no instances.")
    names, index = np.unique(bag_ids, return_inverse=True)
    return X, index, names


def _slides_of(X: Any):
    """Bag index and sorted names of the slides that have rows, without expanding names per row."""
    slides = np.flatnonzero(np.bincount(X.slide_ids, minlength=len(X.names)))
    if not len(slides):
        raise ValueError("X has no instances.")
    names = X.names[slides]
    order = np.argsort(names)
    if len(slides) == len(X.names) and (order[1:] > order[:-1]).all():
        return X.slide_ids, _check_names(names)
    position = np.full(len(X.names), -1)
    position[slides[order]] = np.arange(len(slides))
    return position[X.slide_ids], _check_names(names[order])


def _check_names(names: Any) -> np.ndarray:
    if isinstance(names, str) or np.ndim(names) != 1:
        raise ValueError(
            "Names must be a sequence, with one entry per bag or class; got "
            f"{np.asarray(names).tolist()!r}."
        )
    names = np.asarray(names)
    check_one_kind(names, "Names")
    unique, counts = np.unique(names, return_counts=True)
    if len(unique) < len(names):
        raise ValueError(
            f"Bag name {unique[counts > 1].tolist()[0]!r} is given more than once; make names unique."
        )
    return names


def _a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0].lower() in 'aeiou' or noun == 'ndarray' else 'a'} {noun}"


def _check_sequence(X_bags: Any):
    if isinstance(X_bags, (list, tuple)):
        return [x if hasattr(x, "shape") else np.asarray(x) for x in X_bags]
    raise TypeError(
        f"X_bags is {_a(type(X_bags).__name__)}; give Bags(X, bag_ids, proportions), or a dict, list or "
        "tuple with one array of instances per bag."
    )


def _refuse_flat(X_bags: Any, bag_proportions: Any) -> None:
    """Raise if ``Bags.flat`` comes without its grouping; one array may be one bag with its proportions."""
    is_table = isinstance(bag_proportions, pd.DataFrame | np.ndarray) and bag_proportions.ndim == 2
    is_flat = isinstance(X_bags, tuple | list) and len(X_bags) == 1
    if is_flat and (bag_proportions is None or (is_table and len(bag_proportions) != 1)):
        raise ValueError(
            "X_bags holds a single array, as Bags.flat gives, and bag_proportions does not say which "
            "instance is of which bag; pass the Bags as bag_proportions=bags, or as X_bags itself."
        )


def _refuse_names(bag_proportions: Any, n_bags: int) -> None:
    """Raise if a table of proportions names its rows, because arrays of a list have no names to match."""
    tables = bag_proportions if _are_frames(bag_proportions) else [bag_proportions]
    for table in tables:
        if not hasattr(table, "columns"):
            continue
        unknown = [name for name in table.index.tolist() if name not in range(n_bags)]
        if unknown:
            raise ValueError(
                f"bag_proportions has a row for bag {unknown[0]!r}, but the {n_bags} arrays of X_bags have "
                "no names to match it with. Pass a dict {name: array} as X_bags, or Bags(X_bags, names, "
                "bag_proportions)."
            )


def _positions(wanted: np.ndarray, available: np.ndarray, what: str, where: str) -> np.ndarray:
    """Position in ``available`` of each wanted value."""
    lookup = {value: position for position, value in enumerate(available.tolist())}
    missing = [value for value in wanted.tolist() if value not in lookup]
    if missing:
        raise ValueError(f"{what} has {missing[0]!r}, which is not among the {where}.")
    return np.array([lookup[value] for value in wanted.tolist()], dtype=np.int64)


def _written(proportions: Any, names: np.ndarray):
    """Proportions in the order of the bag names, and class names if a DataFrame gives them."""
    class_names = None
    if _are_frames(proportions):
        class_names = np.asarray(proportions[0].columns)
        proportions = [_reading(table, class_names, names) for table in proportions]
    elif hasattr(proportions, "columns"):
        class_names = np.asarray(proportions.columns)
        _refuse_repeated(proportions)
        available = {value: row for row, value in enumerate(proportions.index.tolist())}
        missing = [name for name in names.tolist() if name not in available]
        if missing:
            raise ValueError(
                f"Bag {missing[0]!r} has no row in bag_proportions ({len(missing)} of {len(names)} bags have "
                f"none), whose rows are {', '.join(map(repr, list(available)[:3]))}"
                f"{', ...' if len(available) > 3 else ''}; index the DataFrame by bag id, "
                "with one row per bag."
            )
        proportions = proportions.iloc[[available[name] for name in names.tolist()]]
    if isinstance(proportions, Mapping):
        raise ValueError(
            "bag_proportions is a dict; give a DataFrame indexed by bag, for example "
            "pd.DataFrame.from_dict(proportions, orient='index') if it holds the shares of each bag, or "
            "Bags(X, bag_ids, **records) if it is from read_proportions."
        )
    try:
        matrix = np.array(proportions, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"bag_proportions must be numbers, one row per bag and one column per class: {error}. Texts "
            'such as "60-80" and "<5", in percent, are read by proportion_ssl.manifest.read_proportions.'
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
    return matrix, class_names


def _refuse_repeated(table):
    """Raise if a row or column name is repeated."""
    twice = table.columns[table.columns.duplicated()].tolist()
    if twice:
        raise ValueError(f"bag_proportions has more than one column {twice[0]!r}; give one.")
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise ValueError(f"bag_proportions has more than one row for bag {twice!r}; give one.")


def _reading(table, classes, names):
    """Shares of one of several readers, matched by bag and class names; NaN without a row."""
    _refuse_repeated(table)
    if set(table.columns) != set(classes.tolist()):
        raise ValueError(
            f"Readers have different classes: {_list(classes)} and {_list(table.columns)}; give all tables "
            "the same columns, in any order."
        )
    if not table.index.isin(names).any():
        raise ValueError(
            f"The table of a reader has rows for {_list(table.index[:5])}, none of which is a bag "
            f"({_list(names[:5])}); index it by bag id."
        )
    without_row = [str(name) for name in names.tolist() if name not in table.index]
    for name in table.index[~table.index.isin(names)]:
        if hint := suggestion(str(name), without_row):
            warn(
                f"The table of a reader has a row for {name!r}, which is no bag.{hint} The row is left out, "
                "and that bag counts as not read by this reader."
            )
            break
    return table.reindex(index=names.tolist(), columns=classes.tolist()).to_numpy()


def _read(written, names, find_ends, is_exact):
    """Checked proportions without missing shares, and their intervals."""
    check_shares(
        *(written, "The proportions"),
        bags=names,
        may_miss=True,
        any_sum=not is_exact,
        may_be_rounded=is_exact,
    )
    lower, upper = find_ends(written)
    filled = fill_missing(written, lower, upper)
    if not is_exact:
        check_intervals(lower, upper, names, filled)
    return filled, lower, upper


def _read_all(readings, names, find_ends, is_exact):
    """Mean shares of several readers, and the span of all their intervals."""
    has_read = ~np.isnan(readings).all(axis=2)
    if not has_read.any(axis=0).all():
        bag = int(np.flatnonzero(~has_read.any(axis=0))[0])
        raise ValueError(
            f"Bag {_show(names[bag])} was read by none of the {len(readings)} readers; drop it."
        )
    filled, lower, upper = np.full((3, *readings.shape), np.nan)
    for reader, rows in enumerate(has_read):
        ends = _read(readings[reader, rows], names[rows], partial(find_ends, rows=rows), is_exact)
        filled[reader, rows], lower[reader, rows], upper[reader, rows] = ends
    mean, _, _ = readers_interval(filled)
    return mean, np.nanmin(lower, axis=0), np.nanmax(upper, axis=0)


def _check_error(error, shape, names, class_names):
    """Function that turns recorded proportions, of all bags or some rows, into intervals without NaN."""
    ways = list(dict.fromkeys("lower and upper" if k in ("lower", "upper") else k for k in error))
    if len(ways) > 1:
        raise ValueError(f"{' and '.join(ways)} are given together; state the error in one way.")
    if ways == ["lower and upper"]:
        if len(error) == 1:
            raise ValueError("lower and upper belong together; give both.")
        given = {end: _per_bag(values, end, names, class_names) for end, values in error.items()}
        for end, values in given.items():
            if values.shape != shape:
                raise ValueError(
                    f"{end} has shape {values.shape}, but the proportions have {shape}."
                )
        ends = given["lower"], given["upper"]
        check_intervals(*ends, names)
        return lambda written, rows=slice(None): (ends[0][rows], ends[1][rows])
    if ways == ["rounding_step"]:
        step = error["rounding_step"]
        check_stated_error(step, "rounding_step")
        return lambda written, rows=None: missing_interval(*rounding_interval(written, step))
    if ways == ["standard_deviation"]:
        deviation = _per_bag(error["standard_deviation"], ways[0], names, class_names)
        check_stated_error(deviation, "standard_deviation")
        try:
            deviation = np.broadcast_to(deviation, shape)
        except ValueError:
            raise ValueError(
                f"standard_deviation has shape {deviation.shape}, but the proportions have {shape}; "
                "give one number, one per class, or one row per bag."
            ) from None
        return lambda written, rows=slice(None): missing_interval(
            *deviation_interval(written, deviation[rows])
        )
    return lambda written, rows=None: missing_interval(written, written)


def _check_among(among, written, class_names, names):
    """Class of each column, and which bags have a partial record; sets their other classes to 0."""
    wanted = _check_names(among).tolist()
    if class_names is None:
        if written.shape[-1] != len(wanted):
            raise ValueError(
                f"bag_proportions has {written.shape[-1]} columns, but among names {len(wanted)} classes "
                f"({_list(wanted)}); give one column for each, in this order."
            )
        return among, np.ones(len(names), dtype=bool)
    columns = class_names.tolist()
    missing = [c for c in wanted if c not in columns]
    if missing:
        raise ValueError(
            f"among names {missing[0]!r}, which has no column in bag_proportions (columns: "
            f"{_list(columns)}).{suggestion(str(missing[0]), list(map(str, columns)))}"
        )
    others = ~np.isin(class_names, among)
    is_missing = np.isnan(written)
    is_partial = is_missing[:, others].all(axis=1) & ~is_missing.all(axis=1)
    written[np.ix_(is_partial, others)] = 0.0
    return class_names, is_partial


def _partial_record(found, is_partial, class_names, among):
    """Partial record from shares and intervals in which unrecorded classes have the share 0."""
    mask = np.isin(class_names, among) | ~is_partial[:, np.newaxis]
    shares, lower, upper = (np.where(mask, part, 0.0) for part in found)
    return PartialRecord(shares, lower, upper, mask)


def _ranks(orders, names, classes):
    """Rank of each class in each bag, (n_bags, n_classes), from the classes named for the bag."""
    if len(orders) != len(names):
        raise ValueError(
            f"predominant has {len(orders)} entries, but there are {len(names)} bags; give one for each."
        )
    columns = {c: column for column, c in enumerate(classes.tolist())}
    ranks = np.empty((len(names), len(classes)), dtype=np.int64)
    for bag, order in enumerate(orders):
        order = list(order) if isinstance(order, list | tuple | np.ndarray) else [order]
        wrong = [c for c in order if c not in columns]
        if not order or wrong:
            given = f"class {wrong[0]!r}" if wrong else "no class"
            raise ValueError(
                f"predominant has {given} for bag {_show(names[bag])}; name one of {_list(columns)}, or "
                "several in a list."
            )
        if len(set(order)) < len(order):
            raise ValueError(
                f"predominant has a class of bag {_show(names[bag])} twice: {_list(order)}; list it once."
            )
        ranks[bag] = len(order) + 1
        ranks[bag, [columns[c] for c in order]] = np.arange(1, len(order) + 1)
    return ranks


def _per_bag(values, what, names, class_names):
    """Values per bag and class, in the order of the bags and of the columns of the proportions."""
    if _is_named(values) and not hasattr(values, "columns"):
        raise ValueError(f"{what} is a Series; give a number, an array or a DataFrame.")
    if hasattr(values, "columns"):
        wanted = sorted(values.columns) if class_names is None else class_names.tolist()
        missing = [c for c in wanted if c not in values.columns]
        missing += [name for name in names.tolist() if name not in values.index]
        if missing:
            raise ValueError(f"{what} has no row or column for {missing[0]!r}; add it.")
        values = values.loc[names.tolist(), wanted]
    return np.array(values, dtype=np.float64)


def _check_weights(weights, names):
    """One weight per bag, 1 by default."""
    if weights is None:
        return np.ones(len(names))
    if _is_named(weights) and not hasattr(weights, "columns"):
        missing = [name for name in names.tolist() if name not in weights.index]
        if missing:
            raise ValueError(f"weights has no entry for bag {missing[0]!r}; index it by bag.")
        weights = weights.loc[names.tolist()]
    weights = np.array(weights, dtype=np.float64)
    if weights.shape != (len(names),):
        raise ValueError(
            f"weights has shape {weights.shape}; give one weight for each of {len(names)} bags."
        )
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        bag = np.flatnonzero(wrong)[0]
        raise ValueError(
            f"Bag {_show(names[bag])} has weight {weights[bag]}; weights must be finite and at least 0."
        )
    return weights


def _show(name: Any) -> str:
    return repr(name.item() if hasattr(name, "item") else name)


def _list(values: Any) -> str:
    return ", ".join(str(v) for v in values)
