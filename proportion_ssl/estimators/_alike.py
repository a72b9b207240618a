"""Checks of features: labeled patches and bags preprocessed alike, no patch out of all proportion."""

from typing import Any

import numpy as np

from proportion_ssl._warnings import warn
from proportion_ssl.proportions.bags import Bags

#: Fewest labeled patches whose features are compared with those of the bags.
FEWEST_COMPARED = 10

#: Number of bags that are compared, and of instances of each; as many labeled patches as of all bags.
N_BAGS, N_INSTANCES = 10, 100

#: Differences from which a warning is given: of means in standard deviations, and of standard deviations.
FAR, TIMES = 5.0, 5.0

#: Distances from the center from which an instance is named in a warning and refused, relative to the
#: distance that 95% of the instances do not exceed. Features of networks stay below 3; more than half of the
#: instances may be equal (blank tiles).
UNUSUAL, IMPOSSIBLE, QUANTILE = 30.0, 1e4, 0.95

#: Instances from which center and usual distance are taken, and instances whose distances are taken at once.
N_CENTER, AT_ONCE = 1000, 1024

IN_A_PIPELINE = (
    " In a Pipeline, steps transform the bags only with transform_input=['X_bags'], and with "
    "X_bags=bags.flat and bag_proportions=bags in fit."
)


def check_features(X: Any, bags: Bags | None) -> None:
    """Check the features of labeled patches and, if they are in memory, of bags.

    Parameters
    ----------
    X : array of shape (n_labeled, n_features)
    bags : Bags or None

    Raises
    ------
    ValueError
        As :func:`check_no_outliers`.

    Warns
    -----
    UserWarning
        As :func:`check_no_outliers` and :func:`warn_if_scaled_differently`.
    """
    check_no_outliers(X, bags)
    if bags is not None:
        warn_if_scaled_differently(X, bags)


def warn_if_scaled_differently(X: Any, bags: Bags) -> None:
    """Warn if the features of the bags are far from those of the labeled patches.

    Parameters
    ----------
    X : array of shape (n_labeled, n_features)
    bags : Bags

    Warns
    -----
    UserWarning
        If the mean of the bags is more than five standard deviations of the labeled patches away, or their
        standard deviation differs by more than a factor of five (medians over the features). Stains and
        scanners differ less; raw and standardized features differ more.
    """
    if X.shape[0] < FEWEST_COMPARED:
        return
    chosen = _spread_out(bags.n_bags, N_BAGS)
    rows = np.concatenate([np.flatnonzero(bags.index == bag)[:N_INSTANCES] for bag in chosen])
    labeled_rows = _spread_out(X.shape[0], N_BAGS * N_INSTANCES)
    labeled, of_bags = (
        np.asarray(part, dtype=np.float64) for part in (X[labeled_rows], bags.X[rows])
    )
    spread = labeled.std(axis=0)
    varies = spread > 0
    if len(rows) < FEWEST_COMPARED or not varies.any():
        return
    spread = spread[varies]
    away = np.abs(of_bags.mean(axis=0) - labeled.mean(axis=0))[varies] / spread
    times = of_bags.std(axis=0)[varies] / spread
    far, ratio = float(np.median(away)), float(np.median(times))
    if far <= FAR and 1 / TIMES <= ratio <= TIMES:
        return
    warn(
        f"The features of the bags are unlike those of the labeled patches: their mean is {far:.2g} standard "
        f"deviations away, and their standard deviation is {ratio:.2g} times as large (medians over the "
        f"features). Preprocess both in the same way.{IN_A_PIPELINE}",
    )


def check_no_outliers(X: Any, bags: Bags | None) -> None:
    """Warn of instances far from all others, and refuse those that cannot be measurements.

    A single one can determine the scale and the principal components of all features.

    Parameters
    ----------
    X : array of shape (n_labeled, n_features)
    bags : Bags or None

    Raises
    ------
    ValueError
        If an instance is more than 10,000 times as far from the center as 95% of the labeled patches and 95%
        of the instances in bags. The message names the instance.

    Warns
    -----
    UserWarning
        If it is more than 30 times as far, or if all labeled patches have the same features.
    """
    parts = [X] if bags is None else [X, bags.X]
    samples = [part[_spread_out(part.shape[0], N_CENTER)] for part in parts]
    if len(samples[0]) > 1 and (samples[0] == samples[0][:1]).all() and (X[:1] == X).all():
        warn(
            f"All {X.shape[0]} labeled patches have the same {X.shape[1]} features, so nothing can be "
            "learned from them; look for a failure of the embedding."
        )
    center = np.median(np.concatenate(samples).astype(np.float64), axis=0)
    # bags in other units are far as a whole, which is another fault
    found = [_distances(sample, center) for sample in samples if len(sample) >= FEWEST_COMPARED]
    typical = max((float(np.quantile(one, QUANTILE, method="lower")) for one in found), default=0.0)
    if typical == 0:
        return
    ratios = [_distances(part, center) / typical for part in parts]
    n_far = sum(int((ratio > UNUSUAL).sum()) for ratio in ratios)
    if not n_far:
        return
    part = int(np.argmax([ratio.max() for ratio in ratios]))
    row = int(np.argmax(ratios[part]))
    largest, n_all = ratios[part][row], sum(map(len, ratios))
    name = f"Labeled patch {row}"
    if part == 1 and bags is not None:
        name = name_of_instance(bags, row)
    text = (
        f"{name} is {largest:.2g} times as far from the center of all features as {QUANTILE:.0%} of the "
        f"others, {n_far} of {n_all} instances more than {UNUSUAL:g} times. Such instances can ruin "
        "the scale of the features. Look at them, and leave them out if they are damaged (values beyond half "
        "precision); transform features that span several orders of magnitude, for example by ranks."
    )
    if largest > IMPOSSIBLE:
        raise ValueError(text)
    warn(text)


def name_of_instance(bags: Bags, row: int) -> str:
    """What messages call a row of ``bags.X``: its number within its bag, and the bag."""
    bag = bags.index[row]
    number = int((bags.index[:row] == bag).sum())
    return f"Instance {number} of bag {bags.names.tolist()[bag]!r}"


def _distances(X, center):
    """Distance of each instance from the center, in float64."""
    found = np.empty(len(X))
    for start in range(0, len(X), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        away = np.asarray(X[rows], dtype=np.float64) - center
        found[rows] = np.sqrt(np.einsum("ij,ij->i", away, away))
    return found


def _spread_out(n, n_chosen):
    """At most so many positions of n, evenly spread."""
    return np.unique(np.linspace(0, n - 1, n_chosen).astype(int))
