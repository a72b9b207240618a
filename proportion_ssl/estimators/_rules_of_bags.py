"""Rules that label bag instances in a round: one selector, or two with remembered negative labels."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from proportion_ssl.pseudo_labels.picking import merge_rounds


@dataclass(frozen=True)
class OneSelector:
    """Rule with the labels of one selector.

    Parameters
    ----------
    selector : Selector
    """

    selector: Any

    def __call__(
        self, probabilities: np.ndarray, bag_index: np.ndarray, record: Any, last_negative: Any
    ) -> tuple[np.ndarray, None]:
        """Label instances.

        Parameters
        ----------
        probabilities : ndarray of shape (n_instances, n_classes)
        bag_index : ndarray of int, shape (n_instances,)
        record : array or record of the bags, or None
            As ``bag_proportions`` of :meth:`~proportion_ssl.pseudo_labels.Selector.transform`.
        last_negative : None

        Returns
        -------
        labels : ndarray of shape (n_instances, n_classes)
        given : None
        """
        return select(self.selector, probabilities, bag_index, record), None


@dataclass(frozen=True)
class TwoSelectors:
    """Rule with positive labels, negative labels and remembered negative labels of earlier rounds.

    Parameters
    ----------
    positive, negative : Selector or None
    n_round : int
        Number of the round, from 1.
    oldest : int or None
        First round whose negative labels are used; None: only those of this round.
    """

    positive: Any
    negative: Any
    n_round: int
    oldest: int | None

    def __call__(
        self,
        probabilities: np.ndarray,
        bag_index: np.ndarray,
        record: Any,
        last_negative: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Label instances.

        Parameters
        ----------
        probabilities : ndarray of shape (n_instances, n_classes)
        bag_index : ndarray of int, shape (n_instances,)
        record : array or record of the bags, or None
        last_negative : ndarray of int, shape (n_instances, n_classes)
            Round in which each negative label was last given; 0: never. Changed in place.

        Returns
        -------
        labels : ndarray of shape (n_instances, n_classes)
            Signed labels.
        given : ndarray of bool, shape (n_instances, n_classes)
            Negative labels given in this round.
        """
        positive = select(self.positive, probabilities, bag_index, record)
        negative = select(self.negative, probabilities, bag_index, record)
        given = negative < 0
        last_negative[given] = self.n_round
        remembered = np.zeros(given.shape, dtype=np.int8)
        if self.oldest is not None:
            remembered = -(last_negative >= max(1, self.oldest)).astype(np.int8)
        return merge_rounds(positive, negative, remembered), given


def select(
    selector: Any, probabilities: np.ndarray, bag_index: np.ndarray, record: Any
) -> np.ndarray:
    """Labels of a selector as an array, even if scikit-learn is configured to return tables.

    Parameters
    ----------
    selector : Selector or None
        None: no labels.
    probabilities : ndarray of shape (n_instances, n_classes)
    bag_index : ndarray of int, shape (n_instances,)
    record : array or record of the bags, or None

    Returns
    -------
    labels : ndarray of shape (n_instances, n_classes)
    """
    if selector is None:
        return np.zeros(probabilities.shape, dtype=np.int8)
    return np.asarray(selector.transform(probabilities, bag_ids=bag_index, bag_proportions=record))
