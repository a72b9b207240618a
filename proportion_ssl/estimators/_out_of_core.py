"""Rounds of pseudo labels on bags that stay in their files; every round reads each bag once.

Discriminant analysis needs only the moments of each class in each bag. Pure functions process one bag per
pass; :class:`StreamedLearner` sums their results and solves.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from proportion_ssl.estimators._class_means import class_means
from proportion_ssl.estimators._learners import (
    SolvedLearner,
    bag_folds,
    length_order,
    logits_of,
    soft_labels,
    with_told,
)
from proportion_ssl.estimators._map_bags import map_bags
from proportion_ssl.estimators._rules_of_bags import OneSelector, TwoSelectors
from proportion_ssl.heads._base import left_out_by
from proportion_ssl.heads._discriminant import ABSENT, discriminant_functions
from proportion_ssl.heads._moments import (
    CohortMoments,
    SlideMoments,
    slide_moments,
    within_of,
)
from proportion_ssl.heads._projection import Projection, default_components, n_sampled
from proportion_ssl.heads._temperature import LOG_TEMPERATURES, temperature_sums
from proportion_ssl.proportions.bags import Bags

#: Maximum size in bytes of projected features kept in memory.
MOST_HELD = 2**30


def stays_out_of_core(X: Any, n_instances: int, n_components: int | None) -> bool:
    """Return whether features are read again in every round.

    Parameters
    ----------
    X : array of shape (n_bag_instances, n_features)
    n_instances : int
        Number of labeled and bag instances.
    n_components : int or None

    Returns
    -------
    streamed : bool
        True if features are in files per slide (X has a method ``narrow``) and their components would need
        more than 1 GiB.
    """
    n_components = min(n_components or default_components(n_instances), X.shape[1])
    return hasattr(X, "narrow") and 4 * X.shape[0] * n_components > MOST_HELD


class Labeling(NamedTuple):
    """Settings for labeling a bag in a round: solution, rule, weight and record."""

    projection: Projection
    solution: tuple[np.ndarray, np.ndarray]
    rule: OneSelector | TwoSelectors
    record: Any
    weight: float
    last_negative: np.ndarray | None  # (n_instances, n_classes)
    temperature: float


class RoundOfBag(NamedTuple):
    """Result of a round for one bag."""

    predicted: np.ndarray  # (n_classes,), predicted counts before the round
    n_positive: np.ndarray  # (n_classes,), number of labels
    n_negative: np.ndarray  # (n_classes,)
    last_negative: np.ndarray | None  # updated with the negative labels of the round
    moments: SlideMoments | None  # None for a bag of weight 0


# --- one bag in one pass -----------------------------------------------------------------------------


def sample_of_bag(X: Any, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Instances of a bag at given ranks in :func:`~proportion_ssl.estimators._learners.length_order`.

    Parameters
    ----------
    X : array of shape (n_instances, n_features)
    ranks : ndarray of int, shape (n_sampled,)

    Returns
    -------
    rows : ndarray of int, shape (n_sampled,)
        Sorted.
    features : ndarray of float32, shape (n_sampled, n_features)
    """
    rows = np.sort(length_order(X, np.zeros(X.shape[0], dtype=int))[ranks])
    return rows, np.asarray(X[rows], dtype=np.float32)


def mean_of_bag(X: Any, projection: Projection) -> np.ndarray:
    """Mean of the projected features, float64 of shape (n_components,)."""
    return projection(X).mean(axis=0, dtype=np.float64)


def counts_of_bag(X: Any, projection: Projection, solution: tuple) -> np.ndarray:
    """Number of instances predicted as each class, shape (n_classes,)."""
    return _counts(logits_of(projection(X), solution))


def round_of_bag(X: Any, labeling: Labeling) -> RoundOfBag:
    """Predict and label a bag, and compute its moments.

    Parameters
    ----------
    X : array of shape (n_instances, n_features)
    labeling : Labeling

    Returns
    -------
    result : RoundOfBag
    """
    X = labeling.projection(X)
    logits = logits_of(X, labeling.solution)
    signed, probabilities, last_negative = _signed(logits, labeling)
    moments = None
    if labeling.weight > 0:
        moments = slide_moments(X, soft_labels(signed * np.float32(labeling.weight), probabilities))
    return RoundOfBag(
        _counts(logits),
        (signed > 0.5).sum(axis=0),
        (signed < 0).sum(axis=0),
        last_negative,
        moments,
    )


def left_out_bag(
    X: Any, labeling: Labeling, unseen: tuple, last: tuple
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evaluate a solution that has not seen the bag, and the last solution, on a bag.

    Parameters
    ----------
    X : array of shape (n_instances, n_features)
    labeling : Labeling
        Settings of the last round.
    unseen, last : tuple (coef, intercept)
        Solution without the bag, and solution of the last round.

    Returns
    -------
    unseen_counts, last_counts : ndarray of int, shape (n_classes,)
        Counts predicted by each solution.
    sums : ndarray of shape (2, n_temperatures)
        :func:`~proportion_ssl.heads._temperature.temperature_sums` of the labels.
    """
    X = labeling.projection(X)
    logits = logits_of(X, unseen)
    sums = np.zeros((2, len(LOG_TEMPERATURES)))
    if labeling.weight > 0:
        labels = _labels(logits_of(X, labeling.solution), labeling)
        sums = temperature_sums(logits, labels * (logits > 0.5 * ABSENT))
    return _counts(logits), _counts(logits_of(X, last)), sums


def _labels(logits, labeling):
    """Soft labels of one bag, float32."""
    signed, probabilities, _ = _signed(logits, labeling)
    return soft_labels(signed * np.float32(labeling.weight), probabilities)


def _signed(logits, labeling):
    """Signed labels of one bag, the probabilities they are derived from, and negative labels by round."""
    probabilities = softmax(logits / np.float32(labeling.temperature), axis=1)
    last_negative = labeling.last_negative
    if last_negative is not None:
        last_negative = last_negative.copy()  # a bag is repeated after its worker is lost
    one = np.zeros(len(logits), dtype=np.int64)
    labels, _ = labeling.rule(probabilities, one, labeling.record, last_negative)
    return labels, probabilities, last_negative


def _counts(logits):
    return np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])


# --- all bags ---------------------------------------------------------------------------------------


class StreamedLearner(SolvedLearner):
    """Discriminant analysis from labeled instances in memory and bags that stay in their files.

    Parameters
    ----------
    n_jobs : int or None
        Number of bags processed in parallel.
    head, net, X, codes, bags, groups, classes, random_state
        As in :class:`SolvedLearner`; the head is a
        :class:`~proportion_ssl.heads.DiscriminantClassifier`.
    """

    def __init__(self, n_jobs: int | None, *args: Any):
        self.n_jobs = n_jobs
        self.moments: Any = None  # CohortMoments of the last round, by fold
        self.last_negative: Any = None  # by bag: round in which each negative label was last given
        self._last_shares: np.ndarray | None = None
        self._first_shares: Any = None
        super().__init__(*args)

    def _read(self, X, classes, random_state):
        """Read each bag once to sample instances for the scale and components."""
        self.places = _Places(self.bags)
        n_labeled, n_features = X.shape
        n_instances = n_labeled + self.bags.n_instances
        n_components = self.head.n_components or default_components(n_instances)
        most = n_sampled(n_features, n_components)
        chosen = self._offered(n_components)
        if len(chosen) > most:
            chosen = random_state.choice(chosen, most, replace=False)
        of_labeled = np.sort(chosen[chosen < n_labeled])
        ranks = np.sort(chosen[chosen >= n_labeled]) - n_labeled
        ends = np.concatenate([[0], np.cumsum(self.bags.sizes)])
        cuts = np.searchsorted(ranks, ends)

        def arguments(bag):
            return self.places.features(bag), ranks[cuts[bag] : cuts[bag + 1]] - ends[bag]

        rows, parts = [], [X[of_labeled]]
        for bag, (local, features) in enumerate(self._map(sample_of_bag, arguments)):
            rows.append(self.places.rows(bag)[local])
            parts.append(features)
        order = np.append(
            np.arange(len(of_labeled)), len(of_labeled) + np.argsort(np.concatenate(rows))
        )
        sample = np.concatenate(parts)
        del parts
        if (np.diff(order) < 0).any():
            sample = sample[order]
        self.projection = self._projection_of(sample, n_components, classes, random_state)
        self.X = self.projection(X)

    def _map(self, function, arguments):
        return map_bags(function, self.bags.names, arguments, self.n_jobs)

    def _class_means(self, shares, bag_weights):
        bags = self.bags
        means = np.stack(
            list(self._map(mean_of_bag, lambda bag: (self.places.features(bag), self.projection)))
        )
        each = np.arange(bags.n_bags)
        return class_means(self.X, self.codes, means, each, shares, bag_weights * bags.sizes)

    def predicted_shares(self) -> np.ndarray:
        """Predicted class shares of each bag, shape (n_bags, n_classes)."""
        return self._predicted_by(self.solution)

    def _predicted_by(self, solution):
        def arguments(bag):
            return self.places.features(bag), self.projection, solution

        return self._shares(list(self._map(counts_of_bag, arguments)))

    def round(self, rule: OneSelector | TwoSelectors, bags: Bags) -> list[RoundOfBag]:
        """Label the bags and solve for a new head.

        Parameters
        ----------
        rule : OneSelector or TwoSelectors
            Rule with selectors that label each bag independently. Negative labels of two selectors are kept
            in memory, one byte per instance and class.
        bags : Bags
            Bags with the weights of the round.

        Returns
        -------
        results : list of RoundOfBag
            Predictions and labels from the head before the round; without moments.
        """
        self.before = self.solution, rule, bags.recorded, bags.weights
        if self.last_negative is None and isinstance(rule, TwoSelectors):
            n_classes = self.known.shape[1]
            self.last_negative = [np.zeros((n, n_classes), np.uint8) for n in self.bags.sizes]
        self.moments = [self._no_moments() for _ in range(bag_folds(bags.n_bags).max() + 1)]
        results = []
        of_bags = self._map(
            round_of_bag, lambda bag: (self.places.features(bag), self._labeling(bag))
        )
        for fold, result in zip(bag_folds(bags.n_bags), of_bags, strict=True):
            if result.moments is not None:
                self.moments[fold].add(result.moments)
            results.append(result._replace(moments=None))
        if self.last_negative is not None:
            self.last_negative = [result.last_negative for result in results]
        in_bags = sum(part.counts for part in self.moments)
        given = with_told(self.told, self.X, self.known, self.groups, in_bags)
        self.solution = self._solve(self.moments, *given)
        if self._first_shares is None and self.before[0] is self.supervised:
            self._first_shares = self.shares_before(results)
        return results

    def supervised_shares(self) -> np.ndarray:
        """Class shares predicted by the supervised head, if need be in a pass of their own."""
        if self._first_shares is None:
            self._first_shares = self._predicted_by(self.supervised)
        return self._first_shares

    def shares_before(self, results: list[RoundOfBag]) -> np.ndarray:
        """Class shares predicted by the head before a round, shape (n_bags, n_classes)."""
        return self._shares([result.predicted for result in results])

    def last_shares(self) -> np.ndarray:
        """Class shares predicted by the head of the last round; available after :meth:`finish`."""
        return self.predicted_shares() if self._last_shares is None else self._last_shares

    def _labeling(self, bag):
        """Settings with which the last round labels a bag."""
        solution, rule, recorded, weights = self.before
        one = slice(bag, bag + 1)
        record = recorded[:, one] if getattr(recorded, "ndim", 2) == 3 else recorded[one]
        last_negative = None if self.last_negative is None else self.last_negative[bag]
        weight = float(weights[bag] * self.instance_weights[bag])
        return Labeling(
            self.projection,
            solution,
            rule,
            record,
            weight,
            last_negative,
            self.round_temperature,
        )

    def _no_moments(self):
        sizes = self.known.shape[1], len(self.projection.components)
        return CohortMoments.zeros(*sizes, with_spread=self.head.shrinkage is None)

    def _solve(self, of_bags, X, labels, groups):
        """Solution from moments of bags and from labeled instances."""
        moments = self._no_moments()
        for group in np.unique(groups[groups >= 0]):
            moments.add(slide_moments(X[groups == group], labels[groups == group]))
        for part in of_bags:
            moments = moments + part
        rows = groups < 0
        alone = (X[rows], labels[rows]) if rows.any() else None
        return discriminant_functions(within_of(moments, alone), self.head.shrinkage)

    def _shares(self, counts):
        return np.stack(counts) / self.bags.sizes[:, np.newaxis]

    def _has_labels(self):
        return self.moments is not None and any(part.counts.any() for part in self.moments)

    def _left_out_beside_bags(self):
        in_bags = sum(part.counts for part in self.moments) > 0

        def solve(X, labels, groups):
            return in_bags | (labels.sum(axis=0) > 0), self._solve(self.moments, X, labels, groups)

        return left_out_by(solve, self.X, self.known, self.groups)

    def _unseen_bags(self):
        unseen = [
            self._solve(
                [part for other, part in enumerate(self.moments) if other != fold],
                *(self.X, self.known, self.groups),
            )
            for fold in range(len(self.moments))
        ]
        folds = bag_folds(self.bags.n_bags)

        def arguments(bag):
            return (
                self.places.features(bag),
                self._labeling(bag),
                unseen[folds[bag]],
                self.solution,
            )

        counts, last, sums = [], [], np.zeros((2, len(LOG_TEMPERATURES)))
        for of_unseen, of_last, of_bag in self._map(left_out_bag, arguments):
            counts.append(of_unseen)
            last.append(of_last)
            sums += of_bag
        self._last_shares = self._shares(last)
        return self._shares(counts), sums


class _Places:
    """Positions of the instances of each bag."""

    def __init__(self, bags: Bags):
        self.X, index = bags.X, bags.index
        self.ends = np.concatenate([[0], np.cumsum(bags.sizes)])
        in_order = bool((index[1:] >= index[:-1]).all())
        self.order = None if in_order else np.argsort(index, kind="stable")

    def rows(self, bag: int) -> np.ndarray:
        """Positions of the instances of a bag, sorted."""
        rows = np.arange(self.ends[bag], self.ends[bag + 1])
        return rows if self.order is None else self.order[rows]

    def features(self, bag: int) -> Any:
        """Lazily read features of a bag."""
        return self.X.narrow(self.rows(bag))
