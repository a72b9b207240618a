"""Checks of features: labeled patches and bags preprocessed alike, no patch out of all proportion."""

from typing import Any

import numpy as np

from proportion_ssl._warnings import warn
from proportion_ssl.estimators._columns import have_other_columns
from proportion_ssl.proportions.bags import Bags

#: Fewest labeled patches whose features are compared with those of the bags.
FEWEST_COMPARED = 10

#: Number of bags that are compared, and of instances of each; as many labeled patches as of all bags.
N_BAGS, N_INSTANCES = 10, 100

#: Differences from which a warning is given: of means in standard deviations, and of standard deviations.
FAR, TIMES = 5.0, 5.0

#: Larger differences, also relative to the median spread over the features, from which a feature is in
#: another unit, and share of such features from which a warning is given. With features of networks and 20
#: labeled patches the share stays below .03. A class of the bags alone makes silent features active, no more.
VERY, MANY = 20.0, 0.1

#: Share of negative values, median over at least so many features, beside a part that has none: raw features
#: behind a rectifier are never negative, standardized ones are in half of the instances.
NEGATIVE, FEWEST_FEATURES = 0.25, 16

#: Distances from the center from which an instance is named in a warning and refused, relative to the
#: distance that 95% of the instances do not exceed. Features of networks stay below 3; more than half of the
#: instances may be equal (blank tiles).
UNUSUAL, IMPOSSIBLE, QUANTILE = 30.0, 1e4, 0.95

#: Least standard deviation of a feature relative to the median over the features, where they are the unit.
HARDLY = 0.1

#: Least distance of an unusual instance, relative to the norm of the center: tissue among blank tiles, which
#: are all but equal, is less far.
FROM_ORIGIN = 3.0

#: Instances from which center and usual distance are taken, and instances whose distances are taken at once.
N_CENTER, AT_ONCE = 1000, 1024

IN_A_PIPELINE = (
    " In a Pipeline, steps transform the bags only with transform_input=['X_bags'], and with "
    "X_bags=bags.flat and bag_proportions=bags in fit."
)


def check_features(X: Any, y: np.ndarray, bags: Bags | None) -> None:
    """Check the features of labeled patches and, if they are in memory, of bags.

    Parameters
    ----------
    X : array of shape (n_labeled, n_features)
    y : ndarray of shape (n_labeled,)
    bags : Bags or None

    Raises
    ------
    ValueError
        As :func:`has_outliers`.

    Warns
    -----
    UserWarning
        As :func:`has_outliers` and :func:`are_scaled_differently`, if only one part has negative values, or
        if the columns of the bags seem to be others
        (:func:`~proportion_ssl.estimators._columns.have_other_columns`). Only the first is given: a few
        outliers make means and standard deviations differ.
    """
    if has_outliers(X, bags) or bags is None or X.shape[0] < FEWEST_COMPARED:
        return
    labeled_rows = _spread_out(X.shape[0], N_BAGS * N_INSTANCES)
    chosen = _spread_out(bags.n_bags, N_BAGS)
    of_each = (np.flatnonzero(bags.index == bag) for bag in chosen)
    rows = np.concatenate([each[_spread_out(len(each), N_INSTANCES)] for each in of_each])
    if len(rows) < FEWEST_COMPARED:
        return
    labeled, of_bags = (
        np.asarray(part, dtype=np.float64) for part in (X[labeled_rows], bags.X[rows])
    )
    if are_scaled_differently(labeled, of_bags):
        return
    if have_other_signs(labeled, of_bags):
        warn(
            "Only one of bags and labeled patches has negative features, as if only one was standardized. "
            f"Preprocess both in the same way.{IN_A_PIPELINE}"
        )
    elif have_other_columns(labeled, y[labeled_rows], of_bags, bags.index[rows]):
        warn(
            "The features of the bags seem to be in another order than those of the labeled patches, or of "
            "another network: the same features are large for all classes, and for all bags, but not the "
            "same for both. Compare the order of the columns, and the encoders."
        )


def are_scaled_differently(labeled: np.ndarray, of_bags: np.ndarray) -> bool:
    """Warn if the features of the bags are far from those of the labeled patches.

    Parameters
    ----------
    labeled : ndarray of shape (n_labeled, n_features)
    of_bags : ndarray of shape (n_instances, n_features)

    Returns
    -------
    differ : bool

    Warns
    -----
    UserWarning
        If the mean of the bags is more than five standard deviations of the labeled patches away, or their
        standard deviation differs by more than a factor of five (medians over the features), or if more than
        a tenth of the features differ by more than 20. Stains and scanners differ less; raw and standardized
        features, or those of another of several networks, differ more.
    """
    spread = labeled.std(axis=0)
    varies = spread > 0
    if not varies.any():
        return False
    spread = spread[varies]
    away = np.abs(of_bags.mean(axis=0) - labeled.mean(axis=0))[varies] / spread
    times = of_bags.std(axis=0)[varies] / spread
    far, ratio = float(np.median(away)), float(np.median(times))
    relative = spread / np.median(spread)
    is_very = np.maximum(away, times) * np.minimum(relative, 1.0) > VERY
    if is_very.mean() <= MANY and far <= FAR and 1 / TIMES <= ratio <= TIMES:
        return False
    single = ""
    if is_very.any():
        single = (
            f"; {is_very.sum()} of {len(is_very)} features differ by more than {VERY:g}, such as feature "
            f"{np.flatnonzero(varies)[is_very][0]}"
        )
    warn(
        f"The features of the bags are unlike those of the labeled patches: their mean is {far:.2g} standard "
        f"deviations away, and their standard deviation is {ratio:.2g} times as large (medians over the "
        f"features){single}. Preprocess both in the same way.{IN_A_PIPELINE}",
    )
    return True


def have_other_signs(labeled: np.ndarray, of_bags: np.ndarray) -> bool:
    """Whether one part has no negative features, and the other so many that it is no chance.

    Parameters
    ----------
    labeled : ndarray of shape (n_labeled, n_features)
    of_bags : ndarray of shape (n_instances, n_features)

    Returns
    -------
    differ : bool
    """
    if labeled.shape[1] < FEWEST_FEATURES:
        return False
    parts = labeled, of_bags
    shares = [(part < 0).mean(axis=0) for part in parts]
    # scaled to its own minimum and maximum, a part is not negative, but the other may be
    none = [
        not share.any() and not _fills_unit_interval(part)
        for part, share in zip(parts, shares, strict=True)
    ]
    return any(none) and max(float(np.median(share)) for share in shares) > NEGATIVE


def _fills_unit_interval(X):
    """Whether most features range from 0 to 1, up to rounding."""
    is_full = np.isclose(X.min(axis=0), 0.0, atol=1e-6) & np.isclose(X.max(axis=0), 1.0)
    return bool(is_full.mean() > 0.5)


def has_outliers(X: Any, bags: Bags | None) -> bool:
    """Warn of instances far from all others, and refuse those that cannot be measurements.

    A single one can determine the scale and the principal components of all features.

    Parameters
    ----------
    X : array of shape (n_labeled, n_features)
    bags : Bags or None

    Returns
    -------
    found : bool
        Whether an instance is unusually far.

    Raises
    ------
    ValueError
        If an instance is more than 10,000 times as far from the center as 95% of the labeled patches and 95%
        of the instances in bags, and more than 30 times in the units of the features and of their standard
        deviations; or, if more than 5% of either are damaged, as half of them and as 95% of the other. The
        message names the instance.

    Warns
    -----
    UserWarning
        If it is more than 30 times as far, in the units of the features or of their standard deviations, or
        if all labeled patches have the same features.
    """
    parts = [X] if bags is None else [X, bags.X]
    chosen = [_spread_out(part.shape[0], N_CENTER) for part in parts]
    samples = [part[rows] for part, rows in zip(parts, chosen, strict=True)]
    if len(samples[0]) > 1 and (samples[0] == samples[0][:1]).all() and (X[:1] == X).all():
        warn(
            f"All {X.shape[0]} labeled patches have the same {X.shape[1]} features, so nothing can be "
            "learned from them; look for a failure of the embedding."
        )
    pooled = np.concatenate(samples).astype(np.float64)
    center, weights = np.median(pooled, axis=0), _weights(pooled.std(axis=0))
    distances = [_distances(part, center, weights) for part in parts]
    offset = _distances(np.zeros((1, len(center))), center, weights)
    ratios, beyond = _beyond_most(distances, chosen, offset), QUANTILE
    if not any((larger > UNUSUAL).any() for larger, _ in ratios):
        ratios, beyond = _beyond_half(distances, offset[0, 0]), 0.5
    n_far = sum(int((larger > UNUSUAL).sum()) for larger, _ in ratios)
    if not n_far:
        return False
    impossible = [(larger > IMPOSSIBLE) & (smaller > UNUSUAL) for larger, smaller in ratios]
    is_refused = any(map(np.any, impossible))
    shown = [
        np.where(wrong | (not is_refused), larger, 0.0)
        for wrong, (larger, _) in zip(impossible, ratios, strict=True)
    ]
    part = int(np.argmax([one.max() for one in shown]))
    row = int(np.argmax(shown[part]))
    n_all = sum(map(len, shown))
    name = f"Labeled patch {row} (of {len(X)} in this fit)"
    if part == 1 and bags is not None:
        name = name_of_instance(bags, row)
    text = (
        f"{name} is {shown[part][row]:.2g} times as far from the center of all features as {beyond:.0%} of "
        f"the others, {n_far} of {n_all} instances more than {UNUSUAL:g} times. Such instances can ruin "
        "the scale of the features. Look at them, and leave them out if they are damaged (values beyond half "
        "precision); transform features that span several orders of magnitude, for example by ranks."
    )
    if is_refused:
        raise ValueError(text)
    warn(text)
    return True


def _weights(scale):
    """Inverse variances, limited where a feature hardly varies beside the others; 0 where it is constant."""
    varies = scale > 0
    if not varies.any():
        return np.zeros_like(scale)
    return np.where(varies, np.maximum(scale, HARDLY * np.median(scale[varies])), np.inf) ** -2.0


def _beyond_most(distances, chosen, offset):
    """Distances relative to those that most instances do not exceed, larger and smaller of both units."""
    # bags in other units are far as a whole, which is another fault
    found = [
        np.quantile(both[:, rows], QUANTILE, axis=1, method="lower")
        for both, rows in zip(distances, chosen, strict=True)
        if len(rows) >= FEWEST_COMPARED
    ]
    typical = np.max(found, axis=0) if found else np.zeros(2)
    ratios = []
    for both in distances:
        relative = np.divide(both.T, typical, out=np.zeros(both.T.shape), where=typical > 0)
        relative[(both <= FROM_ORIGIN * offset).T] = 0.0
        ratios.append(np.sort(relative, axis=1).T[::-1])
    return ratios


def _beyond_half(distances, offset):
    """Distances relative to the median and the norm of the center, where many instances are unusual by it.

    Where most tiles are blank and all but equal, so is tissue; but then it is in bags and labeled patches.
    Without bags nothing is certain, and the second row is 0.
    """
    plain = [distance for distance, _ in distances]
    ratios = []
    for number, distance in enumerate(plain):
        others = [one for k, one in enumerate(plain) if k != number and len(one) >= FEWEST_COMPARED]
        usual = [np.quantile(one, QUANTILE, method="lower") for one in others]
        typical = max([float(np.median(distance)) + offset, *usual])
        ratio = distance / typical if typical > 0 else np.zeros(len(distance))
        if len(ratio) < FEWEST_COMPARED or (ratio > UNUSUAL).mean() <= 1 - QUANTILE:
            ratio = np.zeros(len(ratio))
        ratios.append(np.array([ratio, ratio if others else np.zeros(len(ratio))]))
    return ratios


def name_of_instance(bags: Bags, row: int) -> str:
    """What messages call a row of ``bags.X``: its number within its bag, and the bag."""
    bag = bags.index[row]
    number = int((bags.index[:row] == bag).sum())
    return f"Instance {number} of bag {bags.names.tolist()[bag]!r}"


def _distances(X, center, weights):
    """Distances from the center, of plain and of weighted squares, shape (2, n), in float64."""
    found = np.empty((2, len(X)))
    for start in range(0, len(X), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        squares = (np.asarray(X[rows], dtype=np.float64) - center) ** 2
        found[:, rows] = np.sqrt([squares.sum(axis=1), squares @ weights])
    return found


def _spread_out(n, n_chosen):
    """At most so many positions of n, evenly spread."""
    return np.unique(np.linspace(0, n - 1, n_chosen).astype(int))
