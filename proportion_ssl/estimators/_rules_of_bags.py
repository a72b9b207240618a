"""How a round labels the instances of bags: by one selector, or by two and what earlier rounds excluded."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from proportion_ssl.pseudo_labels.picking import merge_rounds


@dataclass(frozen=True)
class OneSelector:
    """Labels of one selector.

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
            As :meth:`~proportion_ssl.pseudo_labels.Selector.transform` takes it.
        last_negative : None

        Returns
        -------
        labels : ndarray of shape (n_instances, n_classes)
        given : None
        """
        return select(self.selector, probabilities, bag_index, record), None


@dataclass(frozen=True)
class TwoSelectors:
    """Positive and negative labels, and the negative ones of earlier rounds that still count.

    Parameters
    ----------
    positive, negative : Selector or None
    n_round : int
        From 1 on.
    oldest : int or None
        The first round whose negative labels count; None: those of this round alone.
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
            The last round that gave each negative label; 0: none. Written to.

        Returns
        -------
        labels : ndarray of shape (n_instances, n_classes)
            Signed.
        given : ndarray of bool, shape (n_instances, n_classes)
            Negative labels that were given now.
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
    """Labels of a selector as an array, also where scikit-learn is set to give tables.

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
