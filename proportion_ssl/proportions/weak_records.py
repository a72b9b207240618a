"""Incomplete records: shares among some of the classes, or an order of the classes."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from proportion_ssl.proportions.intervals import (
    move_to_sum_one,
    nearest_proportions,
    spread_interval,
)


@dataclass(frozen=True)
class PartialRecord:
    """Shares among some of the classes of each bag; the total share of these classes is unknown.

    Parameters
    ----------
    shares, lower, upper : ndarray of shape (n_bags, n_classes)
        Shares among the classes marked by ``among``, and their intervals; rows of ``shares`` sum to 1. 0 for
        the other classes.
    among : ndarray of bool, shape (n_bags, n_classes)
        Classes that the record covers. A row that is True for all classes is a complete record.
    sampling_variance : ndarray of shape (n_bags, 1) or float, default=0.0
        See ``proportion_ssl.proportions.intervals.sampling_variance``; 0 if predictions cover whole bags.

    Notes
    -----
    With predicted shares m of all classes and the total ``s = sum_{c in A} m_c`` over the recorded classes
    A, the record expects the share ``p_c s`` of each class c in A and the predicted share of the others.
    LPLP [1]_ trains networks on such records.

    References
    ----------
    .. [1] Matsuo, Suehiro, Uchida, Ito, Terada, Yoshizawa, Bise. "Learning from Partial Label Proportions for
       Whole Slide Image Segmentation". MICCAI 2024.

    Examples
    --------
    >>> import numpy as np
    >>> shares = np.array([[0.75, 0.25, 0.0]])
    >>> record = PartialRecord(shares, shares, shares, np.array([[True, True, False]]))
    >>> record.nearest(np.array([[0.25, 0.25, 0.5]]))
    array([[0.375, 0.125, 0.5  ]])
    """

    shares: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    among: np.ndarray
    sampling_variance: Any = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_bags, n_classes)."""
        return self.among.shape

    @property
    def n_free(self) -> np.ndarray:
        """Degrees of freedom of the shares of each bag, shape (n_bags, 1)."""
        return self.among.sum(axis=1, keepdims=True) - 1

    def __getitem__(self, bags: Any) -> "PartialRecord":
        """Record of some of the bags, given by a slice, a mask or indices."""
        return _of_bags(self, bags, "shares", "lower", "upper", "among")

    def with_columns(self, columns: np.ndarray) -> "PartialRecord":
        """Return the record with other columns.

        Parameters
        ----------
        columns : ndarray of int, shape (n_columns,)
            Old position of each new column; -1 for a class that no record covers.

        Returns
        -------
        record : PartialRecord
        """
        known = columns >= 0
        parts = {
            name: getattr(self, name)[:, columns] * known for name in ("shares", "lower", "upper")
        }
        return replace(self, among=self.among[:, columns] & known, **parts)

    def mass(self, predicted: np.ndarray) -> np.ndarray:
        """Predicted total share of the recorded classes, shape (n_bags, 1); 1 for complete records.

        Parameters
        ----------
        predicted : ndarray of shape (n_bags, n_classes)
            Rows sum to 1.
        """
        total = (predicted * self.among).sum(axis=1, keepdims=True)
        return np.where(self.among.all(axis=1, keepdims=True), 1.0, np.minimum(total, 1.0))

    def within(self, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Intervals of the shares among the recorded classes, for the given instances.

        Parameters
        ----------
        mass : ndarray of shape (n_bags, 1)
            As from :meth:`mass`. The fewer instances belong to these classes, the wider the intervals.

        Returns
        -------
        lower, upper : ndarray of shape (n_bags, n_classes)
        """
        variance = self.sampling_variance / np.maximum(mass, np.finfo(float).tiny)
        return spread_interval(self.lower, self.upper, np.minimum(variance, 1.0))

    def ends(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Intervals of the shares of all classes, given the predicted shares.

        Parameters
        ----------
        predicted : ndarray of shape (n_bags, n_classes)
            Rows sum to 1.

        Returns
        -------
        lower, upper : ndarray of shape (n_bags, n_classes)
            For recorded classes: the intervals times their predicted total share. For other classes: the
            predicted shares.
        """
        mass = self.mass(predicted)
        lower, upper = self.within(mass)
        return (
            np.where(self.among, lower * mass, predicted),
            np.where(self.among, upper * mass, predicted),
        )

    def nearest(self, predicted: np.ndarray) -> np.ndarray:
        """Shares of all classes that the record expects; see :meth:`ends`."""
        return nearest_proportions(predicted, *self.ends(predicted))

    def bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Limits on the shares of all classes without predictions.

        Returns
        -------
        shares, lower, upper : ndarray of shape (n_bags, n_classes)
            ``shares`` gives each unrecorded class as much as all recorded classes together.
        """
        complete = self.among.all(axis=1, keepdims=True)
        n_others = (~self.among).sum(axis=1, keepdims=True)
        return (
            np.where(self.among, self.shares, 1.0) / (1 + n_others),
            np.where(complete, self.lower, 0.0),
            np.where(self.among, self.upper, 1.0),
        )

    def sampled(self, variance: np.ndarray) -> "PartialRecord":
        """Return the record for random subsets of the bags.

        Parameters
        ----------
        variance : ndarray of shape (n_bags, 1)
            As from ``proportion_ssl.proportions.intervals.sampling_variance``.

        Returns
        -------
        record : PartialRecord
        """
        return replace(self, sampling_variance=variance)


@dataclass(frozen=True)
class OrderRecord:
    """Order of the classes of each bag by their share, complete or partial.

    Parameters
    ----------
    ranks : ndarray of int, shape (n_bags, n_classes)
        1 for the predominant class, 2 for the next, and so on. Classes that are not named share the rank
        after the last. A class has at least the share of every class with a larger rank number.
    sampling_variance : ndarray of shape (n_bags, 1) or float, default=0.0
        As in :class:`PartialRecord`.

    Examples
    --------
    >>> import numpy as np
    >>> record = OrderRecord(np.array([[1, 2, 2]]))  # the first class is predominant
    >>> record.nearest(np.array([[0.25, 0.5, 0.25]]))
    array([[0.375, 0.375, 0.25 ]])
    """

    ranks: np.ndarray
    sampling_variance: Any = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """(n_bags, n_classes)."""
        return self.ranks.shape

    @property
    def n_free(self) -> np.ndarray:
        """Degrees of freedom of the shares of each bag, shape (n_bags, 1)."""
        return np.full((len(self.ranks), 1), self.ranks.shape[1] - 1)

    def __getitem__(self, bags: Any) -> "OrderRecord":
        """Record of some of the bags, given by a slice, a mask or indices."""
        return _of_bags(self, bags, "ranks")

    def with_columns(self, columns: np.ndarray) -> "OrderRecord":
        """Return the record with its columns in another order.

        Parameters
        ----------
        columns : ndarray of int, shape (n_classes,)
            Old position of each new column.

        Returns
        -------
        record : OrderRecord
        """
        return replace(self, ranks=self.ranks[:, columns])

    def mass(self, predicted: np.ndarray) -> np.ndarray:
        """Ones, shape (n_bags, 1): the record covers all classes."""
        return np.ones((len(predicted), 1))

    def ends(self, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Intervals in which all shares have the recorded order, given the predicted shares.

        Parameters
        ----------
        predicted : ndarray of shape (n_bags, n_classes)
            Rows sum to 1.

        Returns
        -------
        lower, upper : ndarray of shape (n_bags, n_classes)

        Notes
        -----
        The intervals contain the shares in the recorded order with the smallest squared distance from the
        predicted ones: an isotonic regression [1]_ on the recorded order, followed by the classes that are
        not named in the order of their predicted shares. Adjacent intervals meet halfway between these
        shares, so predictions in the recorded order lie within them. Clipping other predictions to the
        intervals gives the isotonic regression.

        References
        ----------
        .. [1] Barlow, Bartholomew, Bremner, Brunk. "Statistical Inference under Order Restrictions". 1972.
        """
        order = np.lexsort((-predicted, self.ranks), axis=1)
        nearest = _decreasing(np.take_along_axis(predicted, order, axis=1))
        ranks = np.take_along_axis(self.ranks, order, axis=1)
        # where the intervals of adjacent ranks meet; intervals of equal rank do not
        meet = (nearest[:, :-1] + nearest[:, 1:]) / 2
        apart = ranks[:, :-1] < ranks[:, 1:]
        lower, upper = np.zeros(nearest.shape), np.ones(nearest.shape)
        lower[:, :-1] = np.where(apart, meet, 0.0)
        for place in range(meet.shape[1]):
            upper[:, place + 1] = np.where(apart[:, place], meet[:, place], upper[:, place])
        back = np.argsort(order, axis=1)
        lower, upper = (np.take_along_axis(part, back, axis=1) for part in (lower, upper))
        return spread_interval(lower, upper, self.sampling_variance)

    def nearest(self, predicted: np.ndarray) -> np.ndarray:
        """Shares in the recorded order nearest to the predicted ones; see :meth:`ends`."""
        return nearest_proportions(predicted, *self.ends(predicted))

    def bounds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Limits on each share without predictions.

        Returns
        -------
        shares, lower, upper : ndarray of shape (n_bags, n_classes)
            With C classes, the predominant one has a share of at least 1 / C. The class of rank r, and the
            unnamed classes after r - 1 others, have at most 1 / r.
        """
        n_classes = self.ranks.shape[1]
        lower = np.where(
            (self.ranks == 1) & (self.ranks.max(axis=1, keepdims=True) > 1), 1 / n_classes, 0.0
        )
        upper = 1.0 / self.ranks
        return move_to_sum_one(lower, lower, upper), lower, upper

    def sampled(self, variance: np.ndarray) -> "OrderRecord":
        """Return the record for random subsets of the bags; see :meth:`PartialRecord.sampled`."""
        return replace(self, sampling_variance=variance)


def refuse_weak_records(record: PartialRecord | OrderRecord | None, what: str) -> None:
    """Raise unless the share of every class is recorded, exactly or as an interval.

    Parameters
    ----------
    record : PartialRecord, OrderRecord or None
        Attribute ``record`` of ``Bags``.
    what : str
        Name of the method that needs the shares, for the message.

    Raises
    ------
    ValueError
        If the record is incomplete.
    """
    if record is not None:
        kind = (
            "only shares among some classes are"
            if isinstance(record, PartialRecord)
            else "only an order of classes is"
        )
        raise ValueError(
            f"{what} needs the share of every class in each bag, but {kind} recorded. Use a "
            "classifier of proportion_ssl itself, ProportionLossClassifier or AssignmentClassifier."
        )


def _of_bags(record, bags, *names):
    parts = {name: getattr(record, name)[bags] for name in names}
    variance = record.sampling_variance
    return replace(
        record, sampling_variance=variance[bags] if np.ndim(variance) else variance, **parts
    )


def _decreasing(values: np.ndarray) -> np.ndarray:
    """Isotonic regression of each row: the non-increasing row with the smallest squared distance."""
    n = values.shape[1]
    sums = np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0)))
    means = np.full((len(values), n, n), -np.inf)
    for first in range(n):
        lengths = np.arange(1, n - first + 1)
        means[:, first, first:] = (sums[:, first + 1 :] - sums[:, first : first + 1]) / lengths
    # min-max formula: minimum over block starts of the maximum over block ends of the block means
    best = np.empty(values.shape)
    for place in range(n):
        best[:, place] = means[:, : place + 1, place:].max(axis=2).min(axis=1)
    return best
