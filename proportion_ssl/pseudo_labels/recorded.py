"""Class probabilities of the instances of a bag, given the recorded proportions of that bag."""

from typing import Any

import numpy as np

from proportion_ssl.pseudo_labels.soft_assignment import posterior_labels

#: Standard deviation of a recorded share where nothing else is known of it.
UNKNOWN_DEVIATION = 0.05

#: What the prediction of an instance counts beside the record, and degrees of freedom of errors of records.
INSTANCE_WEIGHT, DEGREES_OF_FREEDOM = 0.3, 3.0

#: Instances that a bag counts as at most: patches of a slide err together.
EFFECTIVE_SIZE = 60

#: What a probability counts at least: no classifier is surer than that.
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
    """Class probabilities that take the recorded proportions of the bags into account.

    Parameters
    ----------
    probabilities : ndarray of float, shape (n_instances, n_classes)
        Predicted without the records; rows sum to 1.
    bag_index : ndarray of int, shape (n_instances,)
        0 to n_bags - 1, each at least once.
    lower, upper : ndarray of shape (n_bags, n_classes)
        Interval of each recorded share; equal where it is exact. A record that says less than the share of
        every class takes the place of ``lower``.
    standard_deviation : float, default=0.05
        Of the recorded shares, above 0: how far a record moves the probabilities.
    instance_weight : float, default=0.3
        What the prediction of an instance counts beside the record, above 0.

    Returns
    -------
    given : ndarray of float64, shape (n_instances, n_classes)
        Rows sum to 1.

    Notes
    -----
    ``posterior_labels`` of ``proportion_ssl.pseudo_labels.soft_assignment`` with the logarithms of the
    probabilities, weighted by ``instance_weight`` (below 1, because patches of a slide err together), at a
    temperature of the same size: where a record agrees with the prediction, the probabilities stay what they
    are. A record that is far off counts for little under the t distribution.

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
