"""Class probabilities of instances, given the recorded proportions of their bags."""

from typing import Any

import numpy as np

from proportion_ssl.pseudo_labels.soft_assignment import posterior_labels

#: Standard deviation of a recorded share if nothing else is known about it.
UNKNOWN_DEVIATION = 0.05

#: Weight of the prediction of an instance relative to the record; degrees of freedom of record errors.
INSTANCE_WEIGHT, DEGREES_OF_FREEDOM = 0.3, 3.0

#: Maximum effective number of instances of a bag: errors of patches of a slide are correlated.
EFFECTIVE_SIZE = 60

#: Lower limit of a probability: no classifier is more certain than that.
SMALLEST_PROBABILITY = 1e-6


def probabilities_given_records(
    probabilities: np.ndarray,
    bag_index: np.ndarray,
    lower: Any,
    upper: np.ndarray | None = None,
    *,
    standard_deviation: float = UNKNOWN_DEVIATION,
    instance_weight: float = INSTANCE_WEIGHT,
) -> np.ndarray:
    """Update class probabilities with the recorded proportions of the bags.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n_instances, n_classes)
        Predictions made without the records; rows sum to 1.
    bag_index : ndarray of int, shape (n_instances,)
        0 to n_bags - 1, each at least once.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Interval of each recorded share; equal for exact shares. Pass a
        :class:`~proportion_ssl.proportions.PartialRecord` or
        :class:`~proportion_ssl.proportions.OrderRecord` as ``lower`` and omit ``upper``.
    standard_deviation : float, default=0.05
        Standard deviation of the recorded shares, above 0. The smaller it is, the further a record moves
        the probabilities.
    instance_weight : float, default=0.3
        Weight of the prediction of an instance relative to the record, above 0.

    Returns
    -------
    given : ndarray of float64, shape (n_instances, n_classes)
        Rows sum to 1.

    Notes
    -----
    Calls ``posterior_labels`` of ``proportion_ssl.pseudo_labels.soft_assignment`` with log-probabilities
    times ``instance_weight`` (below 1 because errors of patches of a slide are correlated), at a temperature
    of ``instance_weight``. Probabilities that agree with the record therefore do not change. The
    t distribution gives little weight to a record that is far from the predictions.

    Examples
    --------
    >>> import numpy as np
    >>> predicted, one_bag = np.array([[0.8, 0.2], [0.6, 0.4]]), np.zeros(2, dtype=int)
    >>> record = np.array([[0.5, 0.5]])
    >>> given = probabilities_given_records(predicted, one_bag, record, record)
    >>> bool(given[1, 1] > 0.4), given.argmax(axis=1).tolist()
    (True, [0, 1])
    """
    scores = instance_weight * np.log(
        np.maximum(np.asarray(probabilities, dtype=np.float64), SMALLEST_PROBABILITY)
    )
    return posterior_labels(
        *(scores, bag_index, lower, upper),
        standard_deviation=standard_deviation,
        degrees_of_freedom=DEGREES_OF_FREEDOM,
        temperature=instance_weight,
        effective_size=EFFECTIVE_SIZE,
    )
