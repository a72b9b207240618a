"""What heads share that are solved for: linear classifiers of features that learn from soft labels."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GroupKFold, PredefinedSplit
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from proportion_ssl._checks import check_ids
from proportion_ssl._fitting import all_or_nothing, refuse_bags
from proportion_ssl._kept import Array, Kept
from proportion_ssl._sklearn import Interval, check_sample_weight, fit_context
from proportion_ssl.heads._projection import (
    default_components,
    gather,
    principal_components,
    sample_rows,
    scale_of,
)
from proportion_ssl.heads._temperature import fit_temperature

#: Folds in which labeled slides are left out to choose the temperature.
N_FOLDS = 5

#: Largest temperature of the rounds, in units of the usual one.
MOST_USUAL = 2.0


class SoftLabelHead(ClassifierMixin, ABC, BaseEstimator):
    """Base of the linear classifiers whose weights are solved for, from labels or from soft labels.

    A subclass writes :meth:`solve`; its constructor has the parameters below.

    Parameters
    ----------
    n_components : int or None
        Principal components of the standardized features that the logits are made of.
    temperature : float or None
        Logits are divided by it; None: as left-out labels say.
    random_state : int, RandomState instance or None

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of float64, shape (n_classes, n_features)
    intercept_ : ndarray of float64, shape (n_classes,)
    temperature_ : float
        What the logits were divided by; ``coef_`` and ``intercept_`` contain it.
    n_features_in_ : int
    """

    __metadata_request__fit = {"groups": False}  # noqa: RUF012 - scikit-learn's protocol

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "temperature": [Interval(Real, 0, None, closed="neither"), None],
        "random_state": ["random_state"],
    }

    _kept = Kept(
        always={
            "classes_": (np.ndarray,),
            "n_features_in_": (int,),
            "temperature_": (float,),
        },
        arrays={
            "coef_": Array("float64", ("classes", "features")),
            "intercept_": Array("float64", ("classes",)),
        },
    )

    #: Temperature of the logits in the rounds where nothing can be left out to estimate it.
    usual_temperature: float = 1.0

    n_components: int | None
    temperature: float | None
    random_state: Any

    @abstractmethod
    def solve(
        self, X: np.ndarray, labels: np.ndarray, groups: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Weights for instances and their soft labels.

        Parameters
        ----------
        X : ndarray of float32, shape (n_instances, n_components)
        labels : ndarray of float, shape (n_instances, n_classes)
            Share of each instance in each class, times the weight of the instance; not negative.
        groups : ndarray of int, shape (n_instances,)
            Slide of each instance; -1: not known.

        Returns
        -------
        coef : ndarray of float64, shape (n_components, n_classes)
        intercept : ndarray of float64, shape (n_classes,)
            Of a class without labels very low, so that its probability is 0.
        """

    def solve_from(
        self,
        start: tuple[np.ndarray, np.ndarray],
        X: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same weights as of :meth:`solve`, found from those for similar labels.

        An iterative head overrides it to save steps; by default the start is not used.

        Parameters
        ----------
        start : tuple (coef, intercept)
            As :meth:`solve` returned them for other labels.
        X, labels, groups
            As in :meth:`solve`.

        Returns
        -------
        coef, intercept
            As :meth:`solve` returns them.
        """
        return self.solve(X, labels, groups)

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> "SoftLabelHead":
        """Solve for the weights.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features)
        y : array-like of shape (n_instances,)
        sample_weight : array-like of shape (n_instances,), optional
            At least 0. What a label counts, not how often the instance was drawn: shrinkage and
            temperature take each instance as one.
        groups : array-like of shape (n_instances,), optional
            Slide of each instance: patches of one slide are then not taken as independent, unless there is
            only this slide.

        Returns
        -------
        self : SoftLabelHead

        Raises
        ------
        ValueError
            If there are fewer than two classes, or the input does not fit together.
        """
        with all_or_nothing(self):
            return self._fit(X, y, sample_weight, groups)

    def _fit(self, X, y, sample_weight, groups):
        X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds one class ({self.classes_.tolist()[0]!r}); at least two classes are needed: label "
                "instances of another class."
            )
        labels = np.eye(len(self.classes_), dtype=np.float32)[codes]
        if sample_weight is not None:
            weights = check_sample_weight(
                sample_weight, X, dtype=np.float32, ensure_non_negative=True
            )
            labels *= weights[:, np.newaxis]
        slides = np.full(len(X), -1)
        if groups is not None:
            names = check_ids(groups, len(X), "groups", "labeled patches")
            slides = np.unique(names, return_inverse=True)[1]
        counting = labels.any(axis=1)
        if not counting.all():
            X, labels, slides = X[counting], labels[counting], slides[counting]
        random_state = check_random_state(self.random_state)
        n_components = self.n_components or default_components(len(X))
        rows = sample_rows(len(X), X.shape[1], n_components, random_state)
        sample = gather([X], rows)
        projection = principal_components(sample, *scale_of(sample), n_components, random_state)
        projected = projection(X)
        coef, intercept = self.solve(projected, labels, several(slides))
        self.temperature_ = float(
            self.temperature or self.temperature_of(projected, labels, slides)
        )
        weight = projection.on_features(coef) / self.temperature_ / projection.scale
        self.coef_ = np.ascontiguousarray(weight)  # as one from a file: products round alike
        self.intercept_ = intercept / self.temperature_ - weight @ projection.mean.astype(
            np.float64
        )
        return self

    def temperature_of(self, X: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
        """Temperature by labeled instances that are left out in turn.

        Parameters
        ----------
        X, labels, groups
            As in :meth:`solve`.

        Returns
        -------
        temperature : float
            1 where nothing can be left out.

        Notes
        -----
        Where slides are known, the geometric mean of two temperatures: that of whole slides that are left
        out, which takes from the few slides there are and comes out too large, and that of single instances,
        whose slides the others show, which comes out too small.
        """
        by_slides = typical_temperature(*self.left_out(X, labels, groups), labels)
        if by_slides is None or (groups < 0).any():
            return by_slides or 1.0
        return self._mean_temperature(by_slides, X, labels, groups)

    def temperature_in_rounds(self, X: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
        """Temperature for predicting the slides that pseudo labels are given to.

        Parameters
        ----------
        X, labels, groups
            As in :meth:`solve`.

        Returns
        -------
        temperature : float
            ``usual_temperature`` of the head if slides are not known or there is only one.

        Notes
        -----
        As in :meth:`temperature_of`, but the temperature of single instances is at least 1, and the mean at
        most twice the usual one. Few labeled instances are often told apart without an error, which asks for
        an arbitrarily small one; a few errors ask for so large a one that the records alone would decide the
        labels, and the classes move together from round to round.
        """
        by_slides = None
        if (groups >= 0).all():
            by_slides = typical_temperature(*self.left_out(X, labels, groups), labels)
        if by_slides is None:
            return self.usual_temperature
        found = self._mean_temperature(by_slides, X, labels, groups, least=1.0)
        return min(found, MOST_USUAL * self.usual_temperature)

    def _mean_temperature(self, by_slides, X, labels, groups, least=0.0):
        """Geometric mean with the temperature of left-out instances, which is at least ``least``."""
        left_out = self.left_out(X, labels, groups, by_slides=False)
        by_instances = typical_temperature(*left_out, labels) or by_slides
        return float(np.sqrt(by_slides * max(least, by_instances)))

    def left_out(
        self,
        X: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
        *,
        beside: Any = None,
        by_slides: bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits of labeled instances by heads that have not seen their slides.

        Parameters
        ----------
        X, labels, groups
            As in :meth:`solve`.
        beside : tuple (X, labels, groups), optional
            What every head learns from besides.
        by_slides : bool, default=True
            False: single instances are left out, not their slides.

        Returns
        -------
        logits : ndarray of float64, shape (n_instances, n_classes)
        fold : ndarray of int, shape (n_instances,)
            In which fold an instance was left out; -1: the others did not show its class, or it has no
            label.
        """

        before: Any = None

        def solve(*given):
            nonlocal before
            data: Any = given
            if beside is not None:
                data = [np.concatenate(pair) for pair in zip(given, beside, strict=True)]
            known = data[1].sum(axis=0) > 0
            if known.sum() < 2:
                return known, None
            before = self.solve(*data) if before is None else self.solve_from(before, *data)
            return known, before

        return left_out_by(solve, X, labels, groups, by_slides=by_slides)

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits; of two classes the difference.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features)

        Returns
        -------
        logits : ndarray of shape (n_instances, n_classes), or (n_instances,) for two classes
        """
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def _logits(self, X):
        check_is_fitted(self)
        refuse_bags(X)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return X @ self.coef_.T + self.intercept_

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_instances, n_features)

        Returns
        -------
        probabilities : ndarray of shape (n_instances, n_classes)
        """
        return softmax(self._logits(X), axis=1)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the class probabilities, shape (n_instances, n_classes)."""
        return log_softmax(self._logits(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """Most probable class, shape (n_instances,)."""
        logits = self._logits(X)
        return self.classes_[logits.argmax(axis=1)]


def left_out_by(
    solve: Callable[..., tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]],
    X: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    by_slides: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of labeled instances by solutions that have not seen their slides.

    Parameters
    ----------
    solve : callable
        From the instances, labels and slides of a fold to which classes have labels, a bool array, and
        ``(coef, intercept)``, or None if fewer than two have.
    X, labels, groups
        As in :meth:`SoftLabelHead.solve`.
    by_slides : bool, default=True
        As in :meth:`SoftLabelHead.left_out`.

    Returns
    -------
    logits, fold
        As :meth:`SoftLabelHead.left_out` returns them.
    """
    logits = np.zeros(labels.shape)
    fold = np.full(len(X), -1)
    units = groups if by_slides else np.full(len(X), -1)
    for number, (train, test) in enumerate(_folds(labels.argmax(axis=1), units, X)):
        known, solution = solve(X[train], labels[train], groups[train])
        if solution is None:
            continue
        coef, intercept = solution
        logits[test] = X[test] @ coef + intercept
        fold[test] = np.where((labels[test] > 0)[:, ~known].any(axis=1), -1, number)
    return logits, np.where(labels.sum(axis=1) > 0, fold, -1)


def several(groups: np.ndarray) -> np.ndarray:
    """Slides of the instances; -1 for all if there is only one, whose instances then count one by one."""
    return groups if (groups != groups[:1]).any() else np.full_like(groups, -1)


def typical_temperature(logits: np.ndarray, fold: np.ndarray, labels: np.ndarray) -> float | None:
    """Median over the folds of the most probable temperature of each.

    The slides of one fold may be so unlike the others that no temperature is large enough; it has one vote.

    Parameters
    ----------
    logits, fold
        As :meth:`SoftLabelHead.left_out` returns them.
    labels : ndarray of shape (n_instances, n_classes)

    Returns
    -------
    temperature : float or None
        None if nothing was left out.
    """
    folds = np.unique(fold[fold >= 0])
    if not len(folds):
        return None
    found = [fit_temperature(logits[fold == one], labels[fold == one]) for one in folds]
    return float(np.exp(np.median(np.log(found))))


def _folds(codes, groups, X):
    """Pairs of training and test instances; none where nothing can be left out."""
    if (groups >= 0).all():
        n_folds = min(N_FOLDS, len(np.unique(groups)))
        return list(GroupKFold(n_folds).split(codes, groups=groups)) if n_folds > 1 else []
    n_folds = min(N_FOLDS, int(np.bincount(codes).max()))
    if n_folds < 2:
        return []
    # dealt to the folds in turn, in each class by their size; classes with fewer instances than folds follow
    # each other by theirs. Neither the order of the instances nor that of the classes matters
    squares = (X**2).sum(axis=1)
    counts, of_class = np.bincount(codes), np.bincount(codes, squares)
    is_small = counts[codes] < n_folds
    unit = np.where(is_small, -1, codes)
    order = np.lexsort((squares, of_class[codes], counts[codes], unit))
    _, first, of_unit = np.unique(unit[order], return_index=True, return_inverse=True)
    fold = np.empty(len(codes), dtype=int)
    fold[order] = (np.arange(len(codes)) - first[of_unit]) % n_folds
    return list(PredefinedSplit(fold).split())
