"""Rounds of soft labels on bags that stay in their files: every round reads each bag once and adds it up.

A head that is discriminant analysis needs of each bag no more than moments by class. Pure functions say what
a pass does with one bag; :class:`StreamedLearner` adds up their results and solves.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from proportion_ssl.estimators._class_means import class_means
from proportion_ssl.estimators._learners import (
    ROUND_TEMPERATURE,
    SolvedLearner,
    bag_folds,
    logits_of,
    soft_labels,
    with_told,
)
from proportion_ssl.estimators._map_bags import map_bags
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
from proportion_ssl.nets.content_order import content_hashes
from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.intervals import consistent_proportions
from proportion_ssl.pseudo_labels import Selector

#: Bytes of projected features up to which they are held in memory.
MOST_HELD = 2**30


def stays_out_of_core(X: Any, n_instances: int, n_components: int | None) -> bool:
    """Whether features are read anew in every round.

    Parameters
    ----------
    X : array of shape (n_bag_instances, n_features)
    n_instances : int
        With the labeled ones.
    n_components : int or None

    Returns
    -------
    streamed : bool
        If they are in files, slide by slide (a method ``narrow``), and their components fill more than 1 GiB.
    """
    n_components = min(n_components or default_components(n_instances), X.shape[1])
    return hasattr(X, "narrow") and 4 * X.shape[0] * n_components > MOST_HELD


class Labeling(NamedTuple):
    """How a round labels a bag: by which solution, which selector, and with which weight and record."""

    projection: Projection
    solution: tuple[np.ndarray, np.ndarray]
    selector: Selector
    record: Any
    weight: float


# --- what a pass does with one bag ------------------------------------------------------------------


def sample_of_bag(X: Any, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Some instances of a bag, by their place in an order that follows from their values.

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
    rows = np.sort(np.argsort(content_hashes(X), kind="stable")[ranks])
    return rows, np.asarray(X[rows], dtype=np.float32)


def mean_of_bag(X: Any, projection: Projection) -> np.ndarray:
    """Mean of the projected features, float64 of shape (n_components,)."""
    return projection(X).mean(axis=0, dtype=np.float64)


def counts_of_bag(X: Any, projection: Projection, solution: tuple) -> np.ndarray:
    """How many instances are predicted to be of each class, shape (n_classes,)."""
    return _counts(logits_of(projection(X), solution))


def round_of_bag(X: Any, labeling: Labeling) -> tuple[np.ndarray, SlideMoments | None]:
    """Predict a bag, label it, and add it up.

    Parameters
    ----------
    X : array of shape (n_instances, n_features)
    labeling : Labeling

    Returns
    -------
    counts : ndarray of int, shape (n_classes,)
        Predicted before the round.
    moments : SlideMoments or None
        None: a bag of weight 0.
    """
    X = labeling.projection(X)
    logits = logits_of(X, labeling.solution)
    if labeling.weight == 0:
        return _counts(logits), None
    return _counts(logits), slide_moments(X, _labels(logits, labeling))


def left_out_bag(
    X: Any, labeling: Labeling, unseen: tuple, last: tuple
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a bag says about solutions that have not seen it, and about the last one.

    Parameters
    ----------
    X : array of shape (n_instances, n_features)
    labeling : Labeling
        Of the last round.
    unseen, last : tuple (coef, intercept)
        Solution without the bag, and that of the last round.

    Returns
    -------
    unseen_counts, last_counts : ndarray of int, shape (n_classes,)
        Predicted by each.
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
    probabilities = softmax(logits / np.float32(ROUND_TEMPERATURE), axis=1)
    labels = np.asarray(
        labeling.selector.transform(
            probabilities,
            bag_ids=np.zeros(len(logits), dtype=np.int64),
            bag_proportions=labeling.record,
        )
    )
    return soft_labels(labels * np.float32(labeling.weight), probabilities)


def _counts(logits):
    return np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])


# --- all bags ---------------------------------------------------------------------------------------


class StreamedLearner(SolvedLearner):
    """Discriminant analysis from labeled instances in memory and bags that stay in their files.

    Parameters
    ----------
    n_jobs : int or None
        Bags that are worked on at once.
    head, net, X, codes, bags, groups, classes, random_state
        As in :class:`SolvedLearner`; the head is a
        :class:`~proportion_ssl.heads.DiscriminantClassifier`.
    """

    def __init__(self, n_jobs: int | None, *args: Any):
        self.n_jobs = n_jobs
        self.moments: Any = None  # of the last round, a CohortMoments by fold
        self._last_shares: np.ndarray | None = None
        super().__init__(*args)

    def _read(self, X, classes, random_state):
        """Read each bag once, for the instances that give scale and components."""
        self.places = _Places(self.bags)
        n_labeled, n_features = X.shape
        n_instances = n_labeled + self.bags.n_instances
        n_components = self.head.n_components or default_components(n_instances)
        most = n_sampled(n_features, n_components)
        chosen = np.arange(n_instances)
        if n_instances > most:
            chosen = random_state.choice(n_instances, most, replace=False)
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

    def _class_means(self):
        bags = self.bags
        means = np.stack(
            list(self._map(mean_of_bag, lambda bag: (self.places.features(bag), self.projection)))
        )
        shares = consistent_proportions(bags.proportions, bags.lower, bags.upper)
        each = np.arange(bags.n_bags)
        return class_means(self.X, self.codes, means, each, shares, bags.weights * bags.sizes)

    def predicted_shares(self) -> np.ndarray:
        """Shares of the classes that the solution predicts in each bag, shape (n_bags, n_classes)."""

        def arguments(bag):
            return self.places.features(bag), self.projection, self.solution

        return self._shares(list(self._map(counts_of_bag, arguments)))

    def round(self, selector: Selector, bags: Bags) -> np.ndarray:
        """Label the bags, and solve for a new head.

        Parameters
        ----------
        selector : Selector
            Labels each bag by itself, with labels of at least 0.
        bags : Bags
            With the weights of the round.

        Returns
        -------
        shares : ndarray of shape (n_bags, n_classes)
            As the head before the round predicts them.
        """
        self.before = self.solution, selector, bags.recorded, bags.weights
        self.moments = [self._no_moments() for _ in range(bag_folds(bags.n_bags).max() + 1)]
        counts = []
        results = self._map(
            round_of_bag, lambda bag: (self.places.features(bag), self._labeling(bag))
        )
        for fold, (predicted, moments) in zip(bag_folds(bags.n_bags), results, strict=True):
            counts.append(predicted)
            if moments is not None:
                self.moments[fold].add(moments)
        in_bags = sum(part.counts for part in self.moments)
        given = with_told(self.told, self.X, self.known, self.groups, in_bags)
        self.solution = self._solve(self.moments, *given)
        return self._shares(counts)

    def last_shares(self) -> np.ndarray:
        """As the head of the last round predicts them; once :meth:`finish` is done."""
        return self.predicted_shares() if self._last_shares is None else self._last_shares

    def _labeling(self, bag):
        """How the last round labels a bag."""
        solution, selector, recorded, weights = self.before
        one = slice(bag, bag + 1)
        record = recorded[:, one] if getattr(recorded, "ndim", 2) == 3 else recorded[one]
        return Labeling(self.projection, solution, selector, record, float(weights[bag]))

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
    """Where the instances of each bag are."""

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
        """Features of a bag, not read yet."""
        return self.X.narrow(self.rows(bag))
