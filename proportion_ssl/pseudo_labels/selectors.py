"""Selectors: class probabilities of bags in, signed pseudo labels out."""

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

#: What a probability counts at least in a soft assignment: no net is surer than that.
SMALLEST_PROBABILITY = 1e-6


class Selector(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Base of the selectors: checks the input once, then asks ``select`` for the labels.

    A selector of one's own defines ``select(probabilities, bag_index, bag_proportions)``. Columns are
    classes, in and out: after ``set_output(transform="pandas")`` labels come as a DataFrame with the
    columns of the input.
    """

    # scikit-learn's protocol; names no parameter, allows all
    _parameter_constraints: dict[str, Any] = {}  # noqa: RUF012

    __metadata_request__transform = {"bag_ids": True, "bag_proportions": True}  # noqa: RUF012

    def fit(self, X: Any, y: Any = None) -> "Selector":
        """Check parameters and input; a selector learns nothing.

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
        """Give pseudo labels to some of the instances.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_classes)
            Class probabilities: in [0, 1], rows sum to 1 within 0.01.
        bag_ids : array-like of shape (n_instances,), optional
            Bag of each instance. Default: all instances are one bag.
        bag_proportions : array-like or DataFrame of shape (n_bags, n_classes), optional
            Recorded class proportions of the bags, rows in sorted order of ``bag_ids``; or, of shape (2,
            n_bags, n_classes), the lower and the upper ends of their intervals. A DataFrame is indexed by
            bag, with the columns of ``X`` in any order (of an array: sorted). A selector that compares with
            proportions labels nothing where none are recorded. Records that say less than the share of every
            class, :class:`~proportion_ssl.proportions.PartialRecord` and
            :class:`~proportion_ssl.proportions.OrderRecord`, are taken as well: ``Bags.recorded``.

        Returns
        -------
        signed : ndarray of int8, shape (n_instances, n_classes)
            +1 "is of this class", -1 "is not of this class", 0 unknown. At most one entry
            of a row is not 0. From a selector of soft labels: float32, between these. A DataFrame after
            ``set_output(transform="pandas")``.

        Raises
        ------
        ValueError
            When shapes do not fit together, X holds no probabilities (logits, percent), or bag_proportions
            hold no shares or intervals of shares (negative, NaN, percent, another sum than 1).

        Warns
        -----
        UserWarning
            When bag ids are strings that do not appear in sorted order, and bag_proportions have no names.
        """
        if not hasattr(
            self, "n_features_in_"
        ):  # names of columns are those of this input; none are kept
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
                f"bag_ids has {len(index)} entries but there are {n_instances} instances; give one each."
            )
        if bag_proportions is None:
            return self.select(probabilities, index, None)
        if isinstance(bag_proportions, PartialRecord | OrderRecord):
            if bag_proportions.shape != (len(names), n_classes):
                raise ValueError(
                    f"bag_proportions is a record of shape {bag_proportions.shape}; {len(names)} bags and "
                    f"{n_classes} classes need {(len(names), n_classes)}. Bags.with_classes(classes) brings "
                    "it into the columns of a classifier."
                )
            return self.select_record(probabilities, index, bag_proportions)
        if hasattr(bag_proportions, "columns"):
            classes = getattr(self, "feature_names_in_", None)
            bag_proportions = _by_name(bag_proportions, names, classes)
        elif names.dtype.kind not in "iuf":  # numbers are in no doubtful order
            seen = names[np.argsort(np.unique(index, return_index=True)[1])]
            warn_if_reordered(seen, names, "The rows of bag_proportions", stacklevel=4)
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
        """Same as :meth:`transform`: there is nothing to fit."""
        return self.fit(X, y).transform(X, bag_ids=bag_ids, bag_proportions=bag_proportions)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of the labels, which are those of the probabilities.

        Parameters
        ----------
        input_features : array-like of str, optional
            Must be the columns that ``fit`` saw.

        Returns
        -------
        names : ndarray of str, shape (n_classes,)

        Raises
        ------
        NotFittedError
            Before ``fit``, the columns are not known.
        """
        if not hasattr(self, "n_features_in_"):
            # scikit-learn looks for the middle of this sentence, and leaves tables as transform names them
            raise NotFittedError(
                f"{type(self).__name__} does not provide get_feature_names_out before it is fitted."
            )
        return super().get_feature_names_out(input_features)

    def select(
        self, probabilities: np.ndarray, bag_index: np.ndarray, bag_proportions: np.ndarray | None
    ) -> np.ndarray:
        """Signed labels of checked input; the one method that a selector defines.

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
        Unless a selector defines otherwise, ``select`` is given the proportions that are nearest to the
        predicted ones: nothing is over-predicted within the interval, and with intervals of no width
        nothing changes.
        """
        predicted = _predicted_shares(_predict(probabilities)[0], probabilities.shape[1], bag_index)
        return self.select(probabilities, bag_index, nearest_proportions(predicted, lower, upper))

    def select_record(
        self,
        probabilities: np.ndarray,
        bag_index: np.ndarray,
        record: PartialRecord | OrderRecord,
    ) -> np.ndarray:
        """Signed labels for records that say less than the share of every class.

        Parameters
        ----------
        probabilities : ndarray of float, shape (n_instances, n_classes)
        bag_index : ndarray of int, shape (n_instances,)
        record : PartialRecord or OrderRecord
            Of shape (n_bags, n_classes).

        Returns
        -------
        signed : ndarray of int8, shape (n_instances, n_classes)

        Notes
        -----
        Unless a selector defines otherwise: ``select_within`` the intervals that the record admits given the
        predicted proportions, which every round renews.
        """
        predicted = _predicted_shares(_predict(probabilities)[0], probabilities.shape[1], bag_index)
        return self.select_within(probabilities, bag_index, *record.ends(predicted))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags


class _BagwiseSelector(Selector):
    """Base of the selectors whose labels of a bag depend on no other bag.

    ``_label`` labels some of the bags, so that what it computes stays small and near the processor. Without
    proportions nothing is labeled, unless ``select`` says otherwise.
    """

    _dtype: type = np.int8
    _at_once = 16 * BLOCK  # instances; more where what is done in one go for many bags counts

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
        """Signed labels; ``of_bags``: recorded proportions, both ends of their intervals, or a record."""
        raise NotImplementedError


def labels_bag_by_bag(selector: Any) -> bool:
    """Whether a selector labels each bag by itself, whatever the other bags are.

    Parameters
    ----------
    selector : object

    Returns
    -------
    bagwise : bool
        True for the selectors of this package and those derived from them; others may compare bags.

    Examples
    --------
    >>> labels_bag_by_bag(NegativeSelector())
    True
    """
    return isinstance(selector, _BagwiseSelector)


class ThresholdSelector(_BagwiseSelector):
    """Positive labels for every instance that is predicted with enough confidence.

    The pseudo labels of Lee (2013) [1]_, the paper's comparison "Pseudo Labeling". Proportions are
    not used.

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
        # in the precision of the probabilities: 0.95 of a net in float32 is 0.95
        picked = confidence >= confidence.dtype.type(self.threshold)
        return sign_labels(predicted, picked, n_classes=probabilities.shape[1], sign=1)


class AdaptiveSelector(_BagwiseSelector):
    """Positive labels for the most confident instances, as many as the proportions support.

    Of the instances that a bag has predicted as class c, the ``floor(n * PS_c)`` most confident
    ones are labeled c, with PS of :func:`~proportion_ssl.pseudo_labels.positive_selectivity`: many where
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
    """Negative labels for the least confident instances of over-predicted classes.

    Of the instances that a bag has predicted as class c, the ``floor(n * NS_c)`` least confident
    ones are labeled "not c", with NS of :func:`~proportion_ssl.pseudo_labels.negative_selectivity`: none
    unless the class is predicted more often than recorded.

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
    """Base of the selectors to which exact proportions are intervals of no width."""

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
    """Positive labels by the best joint assignment of a bag's instances to its proportions.

    All instances of a bag are labeled at once so that the sum of their log-probabilities is largest among
    all labelings whose counts fit the recorded proportions. A label is given where the instance is also
    *predicted* as that class; in bags whose proportions are predicted nearly as recorded, it is given to
    all instances.

    Parameters
    ----------
    tolerance : float, default=0.25
        In [0, 2]. A bag whose predicted proportions are off by less (sum over the classes of the absolute
        differences) has all its instances labeled. 0: only where prediction and assignment agree;
        2: always all, the count-constrained pseudo labels of label-proportion learning [1]_.

    Notes
    -----
    The gate opens by itself: as the net learns, predictions agree with assignments in more instances and
    bags. Where the proportions are wrong they go on to disagree, and the instances in dispute are left out.
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
            columns += np.finfo(np.float32).tiny  # 0 has no logarithm; others stay what they are
            np.log(columns, out=columns)
        labels = assign(scores.T, bag_index, *count_bounds(lower, upper, sizes))
        shares = _predicted_shares(predicted, probabilities.shape[1], bag_index)
        distance = proportion_distance(shares, lower, upper)
        in_tolerance = (distance < self.tolerance) | (self.tolerance == 2)
        picked = (labels == predicted) | in_tolerance[bag_index]
        return sign_labels(labels, picked, n_classes=probabilities.shape[1], sign=1)


class SoftAssignmentSelector(_IntervalSelector):
    """Soft positive labels that weigh a net against proportions which may themselves be wrong.

    All instances of a bag are labeled at once. Where the net and the record differ, the labels follow the
    one that is surer of itself: the record as a whole is worth less the further it is off, and instances that
    the net is sure of stay what they are.

    Parameters
    ----------
    standard_deviation : float, default=0.1
        Of the recorded shares, above 0: 0.1 for ten points.
    degrees_of_freedom : float, default=3.0
        Of Student's t distribution, which errors of a whole record follow. Few, and a record that is of
        another slide is soon not believed; many, and the errors are normal.
    instance_weight : float in (0, 1], default=0.3
        What the prediction of one instance counts beside the record. The patches of a slide err together;
        1 would take their errors for independent.
    temperature : float, default=0.1
        Above 0; towards 0 labels become hard.
    effective_size : int, default=60
        Instances that a bag counts as at most beside its record, for the same reason: of 10,000 patches
        that err together, independent evidence would outweigh any record.

    Notes
    -----
    ``proportion_ssl.pseudo_labels.soft_assignment.posterior_labels`` with scores ``instance_weight * log
    f``. A row of the signed labels holds the soft labels of one instance, which sum to 1: in
    :class:`~proportion_ssl.losses.PositiveLoss` they weigh their classes. Without recorded proportions
    nothing is labeled.

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
    """Raise unless rows are at least 0 and sum to 1, as logits and percentages do not."""
    sums = probabilities @ np.ones(probabilities.shape[1], dtype=probabilities.dtype)
    if probabilities.min() >= 0 and np.abs(sums - 1).max() <= SUM_TOLERANCE:
        return
    wrong = (probabilities < 0).any(axis=1) | (np.abs(sums - 1) > SUM_TOLERANCE)
    row = int(np.flatnonzero(wrong)[0])
    raise ValueError(
        f"X must hold class probabilities, at least 0 and summing to 1 in each row (within {SUM_TOLERANCE}); "
        f"row {row} is {probabilities[row].tolist()} ({wrong.sum()} of {len(wrong)} rows are wrong). Give "
        f"predict_proba, or the softmax of logits.{percent_hint(probabilities[row])}"
    )


def _by_name(table, names, classes):
    """Rows of a DataFrame in the order of the bags, its columns in that of the classes."""
    classes = sorted(table.columns) if classes is None else classes.tolist()
    for axis, wanted, what in (("index", names.tolist(), "row"), ("columns", classes, "column")):
        found = getattr(table, axis).tolist()
        if len(set(found)) < len(found):
            raise ValueError(f"bag_proportions has a {what} more than once in its {axis}: {found}.")
        missing = [name for name in wanted if name not in set(found)]
        if missing:
            raise ValueError(f"bag_proportions has no {what} for {missing[0]!r}.")
    return table.loc[names.tolist(), classes]


def _names_and_index(bag_ids):
    """Sorted names of the bags, and the position in them of every instance's."""
    n = len(bag_ids)
    if bag_ids.ndim == 1 and n and bag_ids.dtype.kind in "iu":
        first, last = int(bag_ids.min()), int(bag_ids.max())
        if last - first < 2 * n and last < 2**63:  # then counting is faster than sorting
            offsets = bag_ids.astype(np.int64)  # narrow types could not hold the differences
            offsets -= first
            is_there = np.bincount(offsets) > 0
            if is_there.all():
                return np.arange(first, last + 1), offsets
            return np.flatnonzero(is_there) + first, (np.cumsum(is_there) - 1)[offsets]
    return np.unique(bag_ids, return_inverse=True)


def _predict(probabilities):
    """Class of the largest probability (the first of equal ones), and that probability."""
    predicted = np.empty(len(probabilities), dtype=np.int64)
    confidence = np.empty(len(probabilities), dtype=probabilities.dtype)
    for start in range(0, len(probabilities), BLOCK):
        rows = slice(start, start + BLOCK)
        columns = np.ascontiguousarray(probabilities[rows].T)
        predicted[rows], confidence[rows] = best_classes(columns)
    return predicted, confidence


def _predicted_shares(predicted, n_classes, bag_index):
    """Share of each bag's instances that are predicted as each class."""
    return class_proportions(predicted, bag_index, n_bags=bag_index.max() + 1, n_classes=n_classes)


def _counts(selectivity, predicted, n_classes, bag_index, bag_proportions):
    """How many instances to label per bag and class, from predicted and recorded proportions."""
    shares = _predicted_shares(predicted, n_classes, bag_index)
    return selection_counts(selectivity(bag_proportions, shares), np.bincount(bag_index))
