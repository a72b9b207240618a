"""Synthetic bags of features with known instance labels."""

from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_random_state

from proportion_ssl._checks import LARGEST_ERROR, check_fraction
from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.counts import class_proportions


@dataclass(frozen=True)
class BagData:
    """Labeled slides, bags and test slides of :func:`make_bags`.

    Attributes
    ----------
    X_labeled, y, groups : ndarray
        Features (n_labeled, n_features), class (n_labeled,) and slide (n_labeled,) of labeled instances.
    bags : Bags
        Features and recorded proportions of the weakly labeled slides.
    y_bags : ndarray of int, shape (n_bag_instances,)
        True classes of the instances in the bags, for evaluation.
    X_test, y_test, groups_test : ndarray
        As the labeled instances, from separate slides.
    """

    X_labeled: np.ndarray
    y: np.ndarray
    groups: np.ndarray
    bags: Bags
    y_bags: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    groups_test: np.ndarray


def make_bags(
    n_bags: int = 40,
    *,
    bag_size: int | tuple[int, int] = 50,
    n_labeled_slides: int = 4,
    n_test_slides: int = 10,
    n_classes: int = 4,
    n_features: int = 16,
    class_separation: float = 2.0,
    concentration: float = 0.5,
    slide_shift: float = 1.0,
    proportion_noise: float = 0.0,
    rounding: float = 0.0,
    random_state: int | np.random.RandomState | None = None,
) -> BagData:
    """Draw slides of Gaussian instances with different class proportions and feature shifts.

    Parameters
    ----------
    n_bags : int, default=40
        Number of slides with recorded proportions only.
    bag_size : int or (int, int), default=50
        Number of instances per slide, or its smallest and largest value.
    n_labeled_slides, n_test_slides : int, default=4, 10
        Number of slides with instance labels for training and for testing.
    n_classes, n_features : int, default=4, 16
    class_separation : float, default=2.0
        Standard deviation of the class means, in units of the spread within a class.
    concentration : float, default=0.5
        Concentration of the Dirichlet distribution of the class shares; small values give slides with few
        classes.
    slide_shift : float, default=1.0
        Standard deviation of the feature shift of a slide, in units of the spread within a class.
    proportion_noise : float, default=0.0
        Standard deviation of the error of non-zero recorded shares, in [0, 1]; clipped at 0 and renormalized.
    rounding : float, default=0.0
        Recorded shares are rounded to multiples of this, in [0, 0.5] (0.05: to 5%); it is then the
        ``rounding_step`` of the bags, and rows need not sum to 1. 0: not rounded.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    data : BagData
        Classes are 0 to n_classes - 1, all present in the labeled slides. Slides are numbered consecutively:
        labeled, bags, test.

    Examples
    --------
    >>> data = make_bags(n_bags=3, random_state=0)
    >>> data.bags
    Bags(3 bags, 150 instances, proportions of 4 classes)
    """
    rng = check_random_state(random_state)
    smallest, largest = (bag_size, bag_size) if isinstance(bag_size, int | np.integer) else bag_size
    if not 1 <= smallest <= largest:
        raise ValueError(f"bag_size must be at least 1, smallest first; got {bag_size!r}.")
    check_fraction(proportion_noise, "proportion_noise")
    check_fraction(rounding, "rounding", most=LARGEST_ERROR)
    means = rng.normal(0, class_separation, (n_classes, n_features))
    n_slides = n_labeled_slides + n_bags + n_test_slides
    sizes = rng.randint(smallest, largest + 1, n_slides)
    slides = np.repeat(np.arange(n_slides), sizes)
    shares = rng.dirichlet(np.full(n_classes, concentration), n_slides)
    labels = np.concatenate(
        [rng.choice(n_classes, size, p=share) for size, share in zip(sizes, shares, strict=True)]
    )
    is_labeled = slides < n_labeled_slides
    n_labeled = int(is_labeled.sum())
    if n_labeled < n_classes:
        raise ValueError(f"{n_labeled} labeled instances cannot cover {n_classes} classes.")
    while len(np.unique(labels[is_labeled])) < n_classes:
        missing = np.setdiff1d(np.arange(n_classes), labels[is_labeled])
        labels[rng.choice(n_labeled, len(missing), replace=False)] = missing
    offsets = rng.normal(0, slide_shift, (n_slides, n_features))
    X = means[labels] + offsets[slides] + rng.normal(size=(len(slides), n_features))
    X = X.astype(np.float32)

    is_test = slides >= n_labeled_slides + n_bags
    is_bag = ~is_labeled & ~is_test
    index = slides[is_bag] - n_labeled_slides
    true = class_proportions(labels[is_bag], index, n_bags=n_bags, n_classes=n_classes)
    recorded = _record(true, proportion_noise, rng)
    if rounding > 0:
        recorded = np.round(recorded / rounding) * rounding
    return BagData(
        X_labeled=X[is_labeled],
        y=labels[is_labeled],
        groups=slides[is_labeled],
        bags=Bags(X[is_bag], slides[is_bag], recorded, rounding_step=rounding or None),
        y_bags=labels[is_bag],
        X_test=X[is_test],
        y_test=labels[is_test],
        groups_test=slides[is_test],
    )


def _record(proportions, noise, rng):
    """Estimated proportions: with noise, summing to 1."""
    recorded = (
        proportions + np.where(proportions > 0, rng.normal(0, 1, proportions.shape), 0) * noise
    )
    recorded = np.clip(recorded, 0, None)
    nothing_left = recorded.sum(axis=1) == 0
    recorded[nothing_left] = proportions[nothing_left]
    return recorded / recorded.sum(axis=1, keepdims=True)
