"""Sets of real tissue with real bags, and how their groups (patients, blocks of pictures) get roles.

A set is a folder with `features.npz`: `E` (n, d) features, `y` class, `sid` bag, `group`. Whole groups
are drawn for each role, so that no patient or block is on two sides; every class has at least three
labeled instances and one test instance, otherwise roles are drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from histology_cohort import draw_roles, load_virtual_cohort, roughen

from proportion_ssl.proportions import class_proportions

#: Groups that are outlined, and that test, of each set.
GROUPS = {"chula_rbc": (6, 12), "her2st_expression": (2, 2)}
REGIMES = ("exact", "rounded", "rough", "wrong")
MOST_TRIES = 10_000


@dataclass(frozen=True)
class Draw:
    """Instances by their use in one draw of roles; bags are numbers."""

    X: np.ndarray
    y: np.ndarray
    groups: np.ndarray  # names of the groups of the labeled instances
    X_bags: np.ndarray
    y_bags: np.ndarray
    bags: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    bags_test: np.ndarray
    groups_test: np.ndarray  # names of the groups of the test instances

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(max(self.y.max(), self.y_bags.max(), self.y_test.max())) + 1

    def shares(self, *, test: bool = False) -> np.ndarray:
        """True proportions of the bags, or of the test bags, in sorted order of their numbers."""
        labels, bags = (self.y_test, self.bags_test) if test else (self.y_bags, self.bags)
        names, index = np.unique(bags, return_inverse=True)
        return class_proportions(labels, index, n_bags=len(names), n_classes=self.n_classes)


def load_real(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features, classes, bags and groups (as numbers) of the instances of a real set."""
    with np.load(folder / "features.npz", allow_pickle=True) as stored:
        group = np.unique(stored["group"], return_inverse=True)[1]
        return (
            stored["E"].astype(np.float32),
            stored["y"].astype(int),
            stored["sid"].astype(int),
            group,
        )


def draw_groups(
    y: np.ndarray, group: np.ndarray, numbers: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which instances are labeled and which test, by whole groups."""
    n_labeled, n_test = numbers
    n_classes = int(y.max()) + 1
    for _ in range(MOST_TRIES):
        order = rng.permutation(np.unique(group))
        labeled = np.isin(group, order[:n_labeled])
        test = np.isin(group, order[n_labeled : n_labeled + n_test])
        enough = np.bincount(y[labeled], minlength=n_classes).min() >= 3
        if enough and np.bincount(y[test], minlength=n_classes).min() >= 1:
            return labeled, test
    raise SystemExit("No draw of groups has all classes among the labeled and the test ones.")


def draw_real(folder: Path, seed: int) -> Draw:
    """Roles of the groups of a real set."""
    X, y, bag, group = load_real(folder)
    labeled, test = draw_groups(y, group, GROUPS[folder.name], np.random.default_rng([seed, 7]))
    return _draw(X, y, bag, np.char.add("group ", group.astype(str)), labeled, test)


def draw_virtual(data: Path, cache: Path, cohort: int, seed: int) -> Draw | None:
    """Roles of the slides of a cohort that is composed of real patches; None if a class is not outlined."""
    known = load_virtual_cohort(data, cache, seed=cohort, stain_shift=True)
    roles = draw_roles(seed)
    labeled, test = (np.isin(known.slides, one) for one in (roles.labeled, roles.test))
    if len(np.unique(known.labels[labeled])) < len(known.classes):
        return None
    names = np.char.add(f"cohort {cohort} slide ", known.slides.astype(str))
    return _draw(known.features, known.labels, known.slides, names, labeled, test)


def _draw(X, y, bag, names, labeled, test):
    bags = ~labeled & ~test
    return Draw(
        *(X[labeled], y[labeled], names[labeled]),
        *(X[bags], y[bags], bag[bags]),
        *(X[test], y[test], bag[test], names[test]),
    )


def record(shares: np.ndarray, regime: str, rng: np.random.Generator) -> np.ndarray:
    """Recorded proportions: exact, rounded to 10%, off by about 10 points, or 20% of another bag."""
    if regime == "rounded":
        rounded = np.round(shares * 10) / 10
        rounded = np.where(rounded.sum(axis=1, keepdims=True) > 0, rounded, shares)
        return rounded / rounded.sum(axis=1, keepdims=True)
    if regime == "rough":
        return roughen(shares, rng)
    if regime == "wrong":
        chosen = rng.choice(len(shares), round(0.2 * len(shares)), replace=False)
        shares = shares.copy()
        shares[chosen] = shares[np.roll(chosen, 1)]
    return shares
