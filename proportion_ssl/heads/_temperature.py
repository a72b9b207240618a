"""How far logits are to be divided so that their softmax is as sure as it is right."""

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.optimize import brentq

#: Logarithms of the smallest and largest temperature that are tried.
BOUNDS = (-2.0, 4.0)

#: Logarithms of the temperatures at which instances are added up.
LOG_TEMPERATURES = np.linspace(*BOUNDS, 61)

#: Instances that are added up at once.
AT_ONCE = 8192


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
    return most_probable_temperature(temperature_sums(logits, labels))


def temperature_sums(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What instances contribute to the choice of a temperature; those of several slides are added.

    Parameters
    ----------
    logits, labels
        As in :func:`fit_temperature`.

    Returns
    -------
    sums : ndarray of float64, shape (2, n_temperatures)
        First and second derivatives of the cross-entropy by the inverse temperature, at
        ``exp(LOG_TEMPERATURES)``: ``sum_i w_i (mean of the logits under f - mean under the labels)`` and
        ``sum_i w_i (variance of the logits under f)``, f the softmax at this temperature.
    """
    sums = np.zeros((2, len(LOG_TEMPERATURES)))
    for start in range(0, len(logits), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        here, shares = logits[rows].astype(np.float64), labels[rows].astype(np.float64)
        here = here - here.max(axis=1, keepdims=True)  # changes neither derivative
        weights, of_labels = shares.sum(axis=1), float((shares * here).sum())
        for number, inverse in enumerate(np.exp(-LOG_TEMPERATURES)):
            f = np.exp(inverse * here)
            f /= f.sum(axis=1, keepdims=True)
            means = (f * here).sum(axis=1)
            squares = (f * here**2).sum(axis=1)
            sums[:, number] += weights @ means - of_labels, weights @ (squares - means**2)
    return sums


def most_probable_temperature(sums: np.ndarray) -> float:
    """Temperature at which the derivative of the cross-entropy, which is convex, is 0.

    Parameters
    ----------
    sums : ndarray of shape (2, n_temperatures)
        As :func:`temperature_sums` returns them, added over all instances.

    Returns
    -------
    temperature : float in [0.13, 55]
        Between those of the sums by cubic interpolation, right to about 1e-7; an end of the range if it lies
        beyond.
    """
    slope, curvature = sums
    # the larger the temperature, the smaller the inverse, by which the slope rises
    if slope[0] <= 0:
        return float(np.exp(BOUNDS[0]))
    if slope[-1] >= 0:
        return float(np.exp(BOUNDS[1]))
    last = int(np.flatnonzero(slope > 0)[-1])
    ends = LOG_TEMPERATURES[last : last + 2]
    by_log = -curvature[last : last + 2] * np.exp(-ends)
    between = CubicHermiteSpline(ends, slope[last : last + 2], by_log)
    return float(np.exp(brentq(between, *ends, xtol=1e-12)))
