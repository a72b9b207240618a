"""How far logits are to be divided so that their softmax is as sure as it is right."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

#: Logarithms of the smallest and largest temperature that are tried.
BOUNDS = (-2.0, 4.0)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Temperature under which the labels are most probable.

    Parameters
    ----------
    logits : ndarray of shape (n_instances, n_classes)
        Of instances that the classifier has not seen: on training instances the temperature comes out too
        small.
    labels : ndarray of shape (n_instances, n_classes)
        Share of each instance in each class, times its weight; not negative.

    Returns
    -------
    temperature : float in [0.13, 55]

    References
    ----------
    .. [1] Guo, Pleiss, Sun, Weinberger. "On Calibration of Modern Neural Networks". ICML 2017.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.array([[2.0, 0.0]] * 4)  # right three times out of four
    >>> round(fit_temperature(logits, np.eye(2)[[0, 0, 0, 1]]), 2), round(2 / float(np.log(3)), 2)
    (1.82, 1.82)
    """
    logits = np.asarray(logits, dtype=np.float64)
    of_labels = float((labels * logits).sum())
    weights = labels.sum(axis=1)

    def loss(log_temperature):
        inverse = np.exp(-log_temperature)
        return float((weights * logsumexp(inverse * logits, axis=1)).sum()) - inverse * of_labels

    return float(np.exp(minimize_scalar(loss, bounds=BOUNDS, method="bounded").x))
