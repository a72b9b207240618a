"""Selectors: turn class probabilities of bags into signed pseudo labels."""

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import validate_data

from proportion_ssl._checks import (
    SUM_TOLERANCE,
    check_intervals,
    check_shares,
    percent_hint,
    warn_if_reordered,
)
from proportion_ssl._sklearn import Interval
from proportion_ssl.proportions.counts import class_proportions
from proportion_ssl.proportions.intervals import nearest_proportions, proportion_distance
from proportion_ssl.proportions.weak_records import OrderRecord, PartialRecord
from proportion_ssl.pseudo_labels._dual import BLOCK, blocks_of_bags
from proportion_ssl.pseudo_labels.exact_assignment import (
    AT_ONCE,
    assign,
    best_classes,
    count_bounds,
)
from proportion_ssl.pseudo_labels.picking import (
    pick_least_confident,
    pick_most_confident,
    sign_labels,
)
from proportion_ssl.pseudo_labels.selectivity import (
    negative_selectivity,
    positive_selectivity,
    selection_counts,
)
from proportion_ssl.pseudo_labels.soft_assignment import posterior_labels

#: Lower limit of a probability in a soft assignment: no network is more certain than that.
SMALLEST_PROBABILITY = 1e-6


class Selector(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Base class for selectors: checks the input and calls ``select`` for the labels.

    Subclasses define ``select(probabilities, bag_index, bag_proportions)``. Input and output columns are
    classes. After ``set_output(transform="pandas")``, labels are returned as a DataFrame with the columns of
    the input.
    """

    # scikit-learn's protocol; names no parameter, allows all
    _parameter_constraints: dict[str, Any] = {}  # noqa: RUF012

    __metadata_request__transform = {"bag_ids": True, "bag_proportions": True}  # noqa: RUF012

    def fit(self, X: Any, y: Any = None) -> "Selector":
        """Check parameters and input. Selectors learn nothing.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_classes)
        y : ignored

        Returns
        -------
        self : Selector
        """
        self._validate_params()
        validate_data(self, X)
        return self

    def transform(self, X: Any, bag_ids: Any = None, bag_proportions: Any = None) -> np.ndarray:
        """Assign pseudo labels to some of the instances.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_classes)
            Class probabilities: in [0, 1], rows sum to 1 within 0.01.
        bag_ids : array-like of shape (n_instances,), optional
            Bag of each instance. Default: all instances are one bag.
        bag_proportions : array-like or DataFrame of shape (n_bags, n_classes), optional
            Recorded class proportions of the bags, in [0, 1], with rows in sorted order of ``bag_ids``. For
            intervals, an array of shape (2, n_bags, n_classes) with lower and upper ends. A DataFrame is
            indexed by bag and has the columns of ``X`` in any order (sorted class order if ``X`` is an
            array). Incomplete records, :class:`~proportion_ssl.proportions.PartialRecord` and
            :class:`~proportion_ssl.proportions.OrderRecord`, are accepted too; ``Bags.recorded`` holds them.
            Without proportions, selectors that use them label nothing.

        Returns
        -------
        signed : ndarray of int8, shape (n_instances, n_classes)
            +1 "is of this class", -1 "is not of this class", 0 unknown. At most one entry of a row is not 0.
            Soft labels are float32, in [0, 1]. A DataFrame after ``set_output(transform="pandas")``.

        Raises
        ------
        ValueError
            If shapes are inconsistent, X does not hold probabilities (but logits or percentages), or
            bag_proportions are not shares or intervals of shares (negative, NaN, percentages, or a sum
            other than 1).

        Warns
        -----
        UserWarning
            If bag ids are strings that do not appear in sorted order and bag_proportions have no names.
        """
        if not hasattr(
            self, "n_features_in_"
        ):  # column names come from this input; none are stored
            selector = clone(self).fit(X)
            return selector.transform(X, bag_ids=bag_ids, bag_proportions=bag_proportions)
        self._validate_params()
        probabilities = validate_data(self, X, reset=False, dtype=(np.float64, np.float32))
        _check_probabilities(probabilities)
        n_instances, n_classes = probabilities.shape
        names, index = np.zeros(1), np.zeros(n_instances, dtype=np.int64)
        if bag_ids is not None:
            names, index = _names_and_index(np.asarray(bag_ids))
        if len(index) != n_instances:
            raise ValueError(
                f"bag_ids has {len(index)} entries, but there are {n_instances} instances; give one each."
            )
        if bag_proportions is None:
            return self.select(probabilities, index, None)
        if isinstance(bag_proportions, PartialRecord | OrderRecord):
            if bag_proportions.shape != (len(names), n_classes):
                raise ValueError(
                    f"bag_proportions is a record of shape {bag_proportions.shape}; {len(names)} bags and "
                    f"{n_classes} classes need {(len(names), n_classes)}. Use Bags.with_classes(classes) to "
                    "match the columns of a classifier."
                )
            return self.select_record(probabilities, index, bag_proportions)
        if hasattr(bag_proportions, "columns"):
            classes = getattr(self, "feature_names_in_", None)
            bag_proportions = _by_name(bag_proportions, names, classes)
        elif names.dtype.kind not in "iuf":  # the order of numbers is not ambiguous
            seen = names[np.argsort(np.unique(index, return_index=True)[1])]
            warn_if_reordered(seen, names, "The rows of bag_proportions")
        bag_proportions = np.asarray(bag_proportions, dtype=np.float64)
        shape = (len(names), n_classes)
        if bag_proportions.shape not in (shape, (2, *shape)):
            raise ValueError(
                f"bag_proportions has shape {bag_proportions.shape}; {len(names)} bags and "
                f"{n_classes} classes need {shape}, or {(2, *shape)} for intervals."
            )
        if bag_proportions.shape == shape:
            check_shares(bag_proportions, "bag_proportions", bags=names)
            return self.select(probabilities, index, bag_proportions)
        lower, upper = bag_proportions
        check_intervals(lower, upper, names)
        return self.select_within(probabilities, index, lower, upper)

    def fit_transform(
        self, X: Any, y: Any = None, *, bag_ids: Any = None, bag_proportions: Any = None
    ) -> np.ndarray:
        """Same as :meth:`transform`; there is nothing to fit."""
        return self.fit(X, y).transform(X, bag_ids=bag_ids, bag_proportions=bag_proportions)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Column names of the labels, equal to those of the probabilities.

        Parameters
        ----------
        input_features : array-like of str, optional
            If given, must equal the columns seen in ``fit``.

        Returns
        -------
        names : ndarray of str, shape (n_classes,)

        Raises
        ------
        NotFittedError
            If called before ``fit``.
        """
        if not hasattr(self, "n_features_in_"):
            # scikit-learn looks for this phrase and then keeps the column names set by transform
            raise NotFittedError(
                f"{type(self).__name__} does not provide get_feature_names_out before it is fitted."
            )
        return super().get_feature_names_out(input_features)

    def select(
        self, probabilities: np.ndarray, bag_index: np.ndarray, bag_proportions: np.ndarray | None
    ) -> np.ndarray:
        """Signed labels for checked input; the only method that a selector must define.

        Parameters
        ----------
        probabilities : ndarray of float, shape (n_instances, n_classes)
        bag_index : ndarray of int, shape (n_instances,)
            0 to n_bags - 1, each at least once.
        bag_proportions : ndarray of shape (n_bags, n_classes) or None

        Returns
        -------
        signed : ndarray of int8, shape (n_instances, n_classes)
        """
        raise NotImplementedError

    def select_within(
        self, probabilities: np.ndarray, bag_index: np.ndarray, lower: np.ndarray, upper: np.ndarray
    ) -> np.ndarray:
        """Signed labels for proportions that are known within intervals.

        Parameters
        ----------
        probabilities : ndarray of float, shape (n_instances, n_classes)
        bag_index : ndarray of int, shape (n_instances,)
        lower, upper : ndarray of shape (n_bags, n_classes)
            Equal where the proportions are exact.

        Returns
        -------
        signed : ndarray of int8, shape (n_instances, n_classes)

        Notes
        -----
        By default, ``select`` is called with the proportions within the intervals that are nearest to the
        predicted ones. Predictions within the interval then do not count as over-predicted, and intervals
        of zero width give the result of exact proportions.
        """
        predicted = _predicted_shares(_predict(probabilities)[0], probabilities.shape[1], bag_index)
        return self.select(probabilities, bag_index, nearest_proportions(predicted, lower, upper))

    def select_record(
        self,
        probabilities: np.ndarray,
        bag_index: np.ndarray,
        record: PartialRecord | OrderRecord,
    ) -> np.ndarray:
        """Signed labels for incomplete records, which do not state the share of every class.

        Parameters
        ----------
        probabilities : ndarray of float, shape (n_instances, n_classes)
        bag_index : ndarray of int, shape (n_instances,)
        record : PartialRecord or OrderRecord
            Shape (n_bags, n_classes).

        Returns
        -------
        signed : ndarray of int8, shape (n_instances, n_classes)

        Notes
        -----
        By default, ``select_within`` is called with the intervals that the record admits given the current
        predicted proportions.
        """
        predicted = _predicted_shares(_predict(probabilities)[0], probabilities.shape[1], bag_index)
        return self.select_within(probabilities, bag_index, *record.ends(predicted))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags


class _BagwiseSelector(Selector):
    """Base class for selectors that label each bag independently of the others.

    ``_label`` is called on blocks of bags, so that its intermediate results fit in the cache. Without
    proportions nothing is labeled, unless ``select`` is overridden.
    """

    _dtype: type = np.int8
    _at_once = 16 * BLOCK  # instances; selectors that gain from larger blocks raise it

    def select(
        self, probabilities: np.ndarray, bag_index: np.ndarray, bag_proportions: np.ndarray | None
    ) -> np.ndarray:
        if bag_proportions is None:
            return np.zeros(probabilities.shape, dtype=np.int8)
        return self._label_all(probabilities, bag_index, bag_proportions)

    def _label_all(self, probabilities, bag_index, *of_bags):
        signed = np.empty(probabilities.shape, dtype=self._dtype)
        for rows, bags in blocks_of_bags(bag_index, np.bincount(bag_index), self._at_once):
            index, here = bag_index[rows] - bags.start, (values[bags] for values in of_bags)
            signed[rows] = self._label(probabilities[rows], index, *here)
        return signed

    def _label(self, probabilities, bag_index, *of_bags):
        """Signed labels; ``of_bags`` holds proportions, both ends of their intervals, or a record."""
        raise NotImplementedError


def labels_bag_by_bag(selector: Any) -> bool:
    """Return whether a selector labels each bag independently of the other bags.

    Parameters
    ----------
    selector : object

    Returns
    -------
    bagwise : bool
        True for the selectors of this package and their subclasses; others may compare bags.

    Examples
    --------
    >>> labels_bag_by_bag(NegativeSelector())
    True
    """
    return isinstance(selector, _BagwiseSelector)


class ThresholdSelector(_BagwiseSelector):
    """Give positive labels to all instances predicted with sufficient confidence.

    The pseudo labels of Lee (2013) [1]_, called "Pseudo Labeling" in the comparison of the paper.
    Proportions are not used.

    Parameters
    ----------
    threshold : float, default=0.95
        Smallest probability of the predicted class, in [0, 1].

    References
    ----------
    .. [1] Lee. "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for
       Deep Neural Networks". ICML 2013 workshop.

    Examples
    --------
    >>> ThresholdSelector(threshold=0.9).transform([[0.95, 0.05], [0.6, 0.4]])
    array([[1, 0],
           [0, 0]], dtype=int8)
    """

    _parameter_constraints = {"threshold": [Interval(Real, 0, 1, closed="both")]}  # noqa: RUF012

    def __init__(self, threshold: float = 0.95):
        self.threshold = threshold

    def select(
        self, probabilities: np.ndarray, bag_index: np.ndarray, bag_proportions: np.ndarray | None
    ) -> np.ndarray:
        return self._label_all(probabilities, bag_index)

    def _label(self, probabilities, bag_index):
        predicted, confidence = _predict(probabilities)
        # compare in the dtype of the probabilities, so that 0.95 in float32 equals the threshold
        picked = confidence >= confidence.dtype.type(self.threshold)
        return sign_labels(predicted, picked, n_classes=probabilities.shape[1], sign=1)


class AdaptiveSelector(_BagwiseSelector):
    """Give positive labels to the most confident instances, as many as the proportions support.

    Among the instances of a bag predicted as class c, the ``floor(n * PS_c)`` most confident are labeled c,
    with PS from :func:`~proportion_ssl.pseudo_labels.positive_selectivity`. Many instances are labeled where
    predicted and recorded proportions agree, none where they are far apart.

    Examples
    --------
    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]]
    >>> AdaptiveSelector().transform(probabilities, bag_proportions=[[0.5, 0.5]])
    array([[1, 0],
           [1, 0],
           [0, 1],
           [0, 1]], dtype=int8)
    """

    _parameter_constraints: dict[str, Any] = {}  # noqa: RUF012

    def _label(self, probabilities, bag_index, bag_proportions):
        predicted, confidence = _predict(probabilities)
        n_classes = probabilities.shape[1]
        counts = _counts(positive_selectivity, predicted, n_classes, bag_index, bag_proportions)
        picked = pick_most_confident(confidence, predicted, bag_index, counts)
        return sign_labels(predicted, picked, n_classes=probabilities.shape[1], sign=1)


class NegativeSelector(_BagwiseSelector):
    """Give negative labels to the least confident instances of over-predicted classes.

    Among the instances of a bag predicted as class c, the ``floor(n * NS_c)`` least confident are labeled
    "not c", with NS from :func:`~proportion_ssl.pseudo_labels.negative_selectivity`. Instances are labeled
    only if the class is predicted more often than recorded.

    Examples
    --------
    >>> probabilities = [[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.7, 0.3]]
    >>> NegativeSelector().transform(probabilities, bag_proportions=[[0.5, 0.5]])
    array([[ 0,  0],
           [-1,  0],
           [ 0,  0],
           [ 0,  0]], dtype=int8)
    """

    _parameter_constraints: dict[str, Any] = {}  # noqa: RUF012

    def _label(self, probabilities, bag_index, bag_proportions):
        predicted, confidence = _predict(probabilities)
        n_classes = probabilities.shape[1]
        counts = _counts(negative_selectivity, predicted, n_classes, bag_index, bag_proportions)
        picked = pick_least_confident(confidence, predicted, bag_index, counts)
        return sign_labels(predicted, picked, n_classes=probabilities.shape[1], sign=-1)


class _IntervalSelector(_BagwiseSelector):
    """Base class for selectors that treat exact proportions as intervals of zero width."""

    def select(
        self, probabilities: np.ndarray, bag_index: np.ndarray, bag_proportions: np.ndarray | None
    ) -> np.ndarray:
        if bag_proportions is None:
            return super().select(probabilities, bag_index, None)
        return self.select_within(probabilities, bag_index, bag_proportions, bag_proportions)

    def select_within(
        self, probabilities: np.ndarray, bag_index: np.ndarray, lower: np.ndarray, upper: np.ndarray
    ) -> np.ndarray:
        return self._label_all(probabilities, bag_index, lower, upper)


class AssignmentSelector(_IntervalSelector):
    """Give positive labels by the most probable joint assignment that matches the proportions.

    All instances of a bag are assigned jointly: the assignment has the largest sum of log-probabilities
    among those whose counts match the recorded proportions. An instance receives its assigned class as a
    label if it is also *predicted* as that class. In bags whose predicted proportions are close to the
    recorded ones, all instances are labeled.

    Parameters
    ----------
    tolerance : float, default=0.25
        In [0, 2]. All instances of a bag are labeled if its predicted proportions differ from the recorded
        ones by less than this (sum of absolute differences over the classes). 0: label only where
        prediction and assignment agree; 2: always label all, the count-constrained pseudo labels of
        learning from label proportions [1]_.

    Notes
    -----
    As the network learns, predictions agree with assignments in more instances and bags, so more are
    labeled. Where the recorded proportions are wrong, they keep disagreeing, and the disputed instances
    stay unlabeled.
    Exact counts are largest remainders; recorded intervals bound the counts
    (``proportion_ssl.pseudo_labels.exact_assignment.count_bounds``). Labels are exact optima
    (``proportion_ssl.pseudo_labels.exact_assignment.assign``).

    References
    ----------
    .. [1] Liu, Wang, Zhang, Tang, Shen. "Learning from Label Proportions with Optimal
       Transport". arXiv:2110.07261.

    Examples
    --------
    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]]
    >>> AssignmentSelector(tolerance=0).transform(probabilities, bag_proportions=[[0.5, 0.5]])
    array([[1, 0],
           [1, 0],
           [0, 0],
           [0, 1]], dtype=int8)
    """

    _at_once = AT_ONCE
    _parameter_constraints = {"tolerance": [Interval(Real, 0, 2, closed="both")]}  # noqa: RUF012

    def __init__(self, tolerance: float = 0.25):
        self.tolerance = tolerance

    def _label(self, probabilities, bag_index, lower, upper):
        sizes = np.bincount(bag_index)
        scores = np.empty(probabilities.shape[::-1], dtype=probabilities.dtype)
        predicted = np.empty(len(probabilities), dtype=np.int64)
        for start in range(0, len(probabilities), BLOCK):
            rows = slice(start, start + BLOCK)
            columns = scores[:, rows]
            columns[:] = probabilities[rows].T
            predicted[rows] = best_classes(columns)[0]
            columns += np.finfo(np.float32).tiny  # avoids log(0); other values do not change
            np.log(columns, out=columns)
        labels = assign(scores.T, bag_index, *count_bounds(lower, upper, sizes))
        shares = _predicted_shares(predicted, probabilities.shape[1], bag_index)
        distance = proportion_distance(shares, lower, upper)
        in_tolerance = (distance < self.tolerance) | (self.tolerance == 2)
        picked = (labels == predicted) | in_tolerance[bag_index]
        return sign_labels(labels, picked, n_classes=probabilities.shape[1], sign=1)


class SoftAssignmentSelector(_IntervalSelector):
    """Give soft positive labels that balance predictions against possibly wrong proportions.

    All instances of a bag are labeled jointly. Where predictions and record differ, the labels follow the
    more certain of the two: a record has less weight the further it is from the predictions, and confident
    predictions change little.

    Parameters
    ----------
    standard_deviation : float, default=0.1
        Standard deviation of the recorded shares, above 0; 0.1 means ten percentage points.
    degrees_of_freedom : float, default=3.0
        Degrees of freedom of Student's t distribution for the errors of a record. With few, an outlying
        record (for example of another slide) is largely ignored; with many, errors are normal.
    instance_weight : float in (0, 1], default=0.3
        Weight of the prediction of one instance relative to the record. 1 would treat the errors of
        patches of a slide as independent; they are correlated.
    temperature : float, default=0.1
        Above 0; labels become hard as it approaches 0.
    effective_size : int, default=60
        Maximum effective number of instances of a bag relative to its record. Errors of patches are
        correlated; 10,000 patches treated as independent would outweigh any record.

    Notes
    -----
    Calls ``proportion_ssl.pseudo_labels.soft_assignment.posterior_labels`` with scores
    ``instance_weight * log f``. A row of the signed labels holds the soft labels of one instance, which sum
    to 1 and are the class weights in :class:`~proportion_ssl.losses.PositiveLoss`. Without recorded
    proportions nothing is labeled.

    Examples
    --------
    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]]
    >>> SoftAssignmentSelector().transform(probabilities, bag_proportions=[[0.5, 0.5]]).round(2)
    array([[0.97, 0.03],
           [0.71, 0.29],
           [0.33, 0.67],
           [0.01, 0.99]], dtype=float32)
    """

    _dtype = np.float32
    _parameter_constraints = {  # noqa: RUF012
        "standard_deviation": [Interval(Real, 0, 1, closed="right")],
        "degrees_of_freedom": [Interval(Real, 0, None, closed="neither")],
        "instance_weight": [Interval(Real, 0, 1, closed="right")],
        "temperature": [Interval(Real, 0, None, closed="neither")],
        "effective_size": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        standard_deviation: float = 0.1,
        *,
        degrees_of_freedom: float = 3.0,
        instance_weight: float = 0.3,
        temperature: float = 0.1,
        effective_size: int = 60,
    ):
        self.standard_deviation = standard_deviation
        self.degrees_of_freedom = degrees_of_freedom
        self.instance_weight = instance_weight
        self.temperature = temperature
        self.effective_size = effective_size

    def select_record(
        self,
        probabilities: np.ndarray,
        bag_index: np.ndarray,
        record: PartialRecord | OrderRecord,
    ) -> np.ndarray:
        return self._label_all(probabilities, bag_index, record)

    def _label(self, probabilities, bag_index, *recorded):
        scores = np.maximum(probabilities, SMALLEST_PROBABILITY)
        np.log(scores, out=scores)
        scores *= self.instance_weight
        return posterior_labels(
            scores,
            bag_index,
            *recorded,
            standard_deviation=self.standard_deviation,
            degrees_of_freedom=self.degrees_of_freedom,
            temperature=self.temperature,
            effective_size=self.effective_size,
        )


def _check_probabilities(probabilities):
    """Raise unless rows are non-negative and sum to 1; catches logits and percentages."""
    sums = probabilities @ np.ones(probabilities.shape[1], dtype=probabilities.dtype)
    if probabilities.min() >= 0 and np.abs(sums - 1).max() <= SUM_TOLERANCE:
        return
    wrong = (probabilities < 0).any(axis=1) | (np.abs(sums - 1) > SUM_TOLERANCE)
    row = int(np.flatnonzero(wrong)[0])
    raise ValueError(
        f"X must hold class probabilities, at least 0 and summing to 1 in each row (within {SUM_TOLERANCE}); "
        f"row {row} is {probabilities[row].tolist()} ({wrong.sum()} of {len(wrong)} rows are wrong). Pass "
        f"predict_proba or the softmax of logits.{percent_hint(probabilities[row])}"
    )


def _by_name(table, names, classes):
    """Values of a DataFrame with rows in the order of the bags and columns in the order of the classes."""
    classes = sorted(table.columns) if classes is None else classes.tolist()
    for axis, wanted, what in (("index", names.tolist(), "row"), ("columns", classes, "column")):
        found = getattr(table, axis).tolist()
        if len(set(found)) < len(found):
            raise ValueError(
                f"bag_proportions has a {what} more than once in its {axis}: {found}. Keep one of each."
            )
        missing = [name for name in wanted if name not in set(found)]
        if missing:
            raise ValueError(f"bag_proportions has no {what} for {missing[0]!r}; add it.")
    return table.loc[names.tolist(), classes]


def _names_and_index(bag_ids):
    """Sorted names of the bags, and the index of the bag of each instance."""
    n = len(bag_ids)
    if bag_ids.ndim == 1 and n and bag_ids.dtype.kind in "iu":
        first, last = int(bag_ids.min()), int(bag_ids.max())
        if last - first < 2 * n and last < 2**63:  # counting is faster than sorting
            offsets = bag_ids.astype(np.int64)  # differences may overflow narrow types
            offsets -= first
            is_there = np.bincount(offsets) > 0
            if is_there.all():
                return np.arange(first, last + 1), offsets
            return np.flatnonzero(is_there) + first, (np.cumsum(is_there) - 1)[offsets]
    return np.unique(bag_ids, return_inverse=True)


def _predict(probabilities):
    """Class with the largest probability (the first of equal ones), and that probability."""
    predicted = np.empty(len(probabilities), dtype=np.int64)
    confidence = np.empty(len(probabilities), dtype=probabilities.dtype)
    for start in range(0, len(probabilities), BLOCK):
        rows = slice(start, start + BLOCK)
        columns = np.ascontiguousarray(probabilities[rows].T)
        predicted[rows], confidence[rows] = best_classes(columns)
    return predicted, confidence


def _predicted_shares(predicted, n_classes, bag_index):
    """Predicted share of each class in each bag."""
    return class_proportions(predicted, bag_index, n_bags=bag_index.max() + 1, n_classes=n_classes)


def _counts(selectivity, predicted, n_classes, bag_index, bag_proportions):
    """Number of instances to label per bag and class, from predicted and recorded proportions."""
    shares = _predicted_shares(predicted, n_classes, bag_index)
    return selection_counts(selectivity(bag_proportions, shares), np.bincount(bag_index))
