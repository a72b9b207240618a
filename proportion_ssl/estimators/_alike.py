"""Checks that labeled patches and bags were preprocessed alike."""

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

IN_A_PIPELINE = (
    " In a Pipeline, steps transform the bags only with transform_input=['X_bags'], and with "
    "X_bags=bags.flat and bag_proportions=bags in fit."
)


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


def _spread_out(n, n_chosen):
    """At most so many positions of n, evenly spread."""
    return np.unique(np.linspace(0, n - 1, n_chosen).astype(int))
