"""Tumor proposals: select the cancer patches of a slide as the instances of its bag."""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from proportion_ssl._fitting import all_or_nothing, most_folds, refuse_bags, unseen_probabilities
from proportion_ssl._kept import Kept
from proportion_ssl._sklearn import HasMethods, Interval, RealNotInt, fit_context
from proportion_ssl.nets.classifiers import HeadClassifier
from proportion_ssl.nets.field_of_view import MultiFieldOfViewNet


@dataclass(frozen=True)
class Proposals:
    """Proposed tumor patches of weakly labeled slides.

    Attributes
    ----------
    is_tumor : ndarray of bool, shape (n_patches,)
    probabilities : ndarray of shape (n_patches,)
        Probability of tumor, in [0, 1].
    empty : list
        Slides without proposed patches, for which there is no bag.
    """

    is_tumor: np.ndarray
    probabilities: np.ndarray
    empty: list


class TumorProposer(TransformerMixin, BaseEstimator):
    """Propose the tumor patches of a slide with a net trained on outlined slides.

    Records of weakly labeled slides state proportions within the *cancer*, so bags must not contain other
    tissue. A net is trained on cancer against other tissue (section 5.1 of the paper uses a
    multi-field-of-view net at 10x, 5x and 2.5x).

    Parameters
    ----------
    net : classifier, default=None
        Default: :class:`~proportion_ssl.MultiFieldOfViewNet` on a single view. For three views give
        ``MultiFieldOfViewNet(n_views=3)``.
    threshold : float in (0, 1), default=None
        Propose patches with at least this probability of tumor. Default: the largest threshold at which
        a fraction `min_recall` of the labeled tumor patches is proposed, using nets that have not seen their
        slides.
    min_recall : float in (0, 1], default=0.97
        Minimum recall, used if no threshold is given. Missed tumor distorts the proportions of a bag.
    n_folds : int, default=5
        Number of cross-validation folds over the labeled slides to find the threshold.

    Attributes
    ----------
    net_ : classifier
    threshold_ : float
    recall_, precision_ : float
        Recall and precision on held-out labeled slides at the threshold; NaN if the threshold was given.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, is_tumor = rng.normal(size=(60, 4)), np.repeat([False, True], 30)
    >>> X[is_tumor] += 4
    >>> proposer = TumorProposer().fit(X, is_tumor)
    >>> found = proposer.propose(X, bag_ids=np.repeat(["b1", "b2"], 30))
    >>> found.empty, found.is_tumor.sum() > 25
    (['b1'], np.True_)
    """

    __metadata_request__fit = {"groups": False}  # noqa: RUF012 - scikit-learn's protocol

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        "net": [HasMethods(["fit", "predict_proba"]), None],
        "threshold": [Interval(RealNotInt, 0, 1, closed="neither"), None],
        "min_recall": [Interval(RealNotInt, 0, 1, closed="right")],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
    }

    _kept = Kept(
        always={
            "n_features_in_": (int,),
            "threshold_": (float,),
            "recall_": (float,),
            "precision_": (float,),
        },
        within={"net_": (MultiFieldOfViewNet, HeadClassifier)},
    )

    def __init__(
        self,
        net: Any = None,
        *,
        threshold: float | None = None,
        min_recall: float = 0.97,
        n_folds: int = 5,
    ):
        self.net = net
        self.threshold = threshold
        self.min_recall = min_recall
        self.n_folds = n_folds

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, groups: Any = None) -> "TumorProposer":
        """Train on patches of outlined slides.

        Parameters
        ----------
        X : array-like of shape (n_patches, n_features)
            Features; for a net of several views, the features of the views side by side.
        y : array-like of bool, shape (n_patches,)
            Whether a patch is tumor.
        groups : array-like of shape (n_patches,), optional
            Slide of each patch. Whole slides are then held out to find the threshold.

        Returns
        -------
        self : TumorProposer

        Raises
        ------
        ValueError
            If `y` is not boolean or holds a single class, or if too few slides or patches are labeled to find
            a threshold.
        """
        with all_or_nothing(self):
            return self._fit(X, y, groups)

    def _fit(self, X, y, groups):
        X, y = validate_data(self, X, y, dtype=np.float32)
        is_tumor = _boolean(y)
        if groups is not None:
            groups = np.asarray(groups)
            check_consistent_length(X, groups)
        net = MultiFieldOfViewNet(1, random_state=0) if self.net is None else clone(self.net)
        self.recall_ = self.precision_ = np.nan
        if self.threshold is None:
            unseen = self._unseen_probabilities(net, X, is_tumor, groups)
            self.threshold_ = recall_threshold(is_tumor, unseen, self.min_recall)
            proposed = unseen >= self.threshold_
            self.recall_ = float(proposed[is_tumor & np.isfinite(unseen)].mean())
            self.precision_ = float(is_tumor[proposed].mean())
        else:
            self.threshold_ = self.threshold
        more = {"groups": groups} if isinstance(net, MultiFieldOfViewNet) else {}
        self.net_ = net.fit(X, is_tumor, **more)
        return self

    def _unseen_probabilities(self, net, X, is_tumor, groups):
        """Tumor probability of each patch from nets trained on other slides; NaN if there is none."""
        if most_folds(is_tumor, groups) < 2:
            raise ValueError(
                "Two patches of tumor and two of other tissue are needed to find a threshold; label more, or "
                "give threshold=."
                if groups is None
                else "Two labeled slides are needed to find a threshold; give threshold= or label a second "
                "slide."
            )
        unseen = unseen_probabilities(
            *(net, X, is_tumor, groups),
            n_folds=self.n_folds,
            fit_with_groups=isinstance(net, MultiFieldOfViewNet),
        )[:, 1]
        if not np.isfinite(unseen[is_tumor]).any():
            raise ValueError(
                "No slide with tumor can be held out: the other labeled slides lack tumor or other tissue. "
                "Give threshold=, or label more slides."
            )
        return unseen

    def transform(self, X: Any) -> np.ndarray:
        """Predict the probability of tumor.

        Parameters
        ----------
        X : array-like of shape (n_patches, n_features)

        Returns
        -------
        probabilities : ndarray of shape (n_patches, 1)
        """
        check_is_fitted(self)
        refuse_bags(X)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return self.net_.predict_proba(X)[:, 1:]

    def propose(self, X: Any, bag_ids: Any = None) -> Proposals:
        """Propose tumor patches, the instances of the bag of each slide.

        Parameters
        ----------
        X : array-like of shape (n_patches, n_features)
        bag_ids : array-like of shape (n_patches,), optional
            Slide of each patch; slides without proposals are then listed in ``empty``.

        Returns
        -------
        proposals : Proposals
        """
        probabilities = self.transform(X)[:, 0]
        is_tumor = probabilities >= self.threshold_
        empty = []
        if bag_ids is not None:
            bag_ids = np.asarray(bag_ids)
            check_consistent_length(is_tumor, bag_ids)
            empty = sorted(set(bag_ids.tolist()) - set(bag_ids[is_tumor].tolist()))
        return Proposals(is_tumor, probabilities, empty)


def recall_threshold(is_positive: np.ndarray, scores: np.ndarray, min_recall: float) -> float:
    """Largest threshold with at least a given recall (score >= threshold).

    Parameters
    ----------
    is_positive : ndarray of bool, shape (n,)
    scores : ndarray of shape (n,)
        NaN values are ignored.
    min_recall : float in (0, 1]

    Returns
    -------
    threshold : float

    Examples
    --------
    >>> recall_threshold(np.array([True] * 4 + [False]), np.array([0.9, 0.8, 0.4, 0.2, 0.3]), 0.75)
    0.4
    """
    of_positives = np.sort(scores[is_positive & np.isfinite(scores)])
    n_missed = int(np.floor((1 - min_recall) * len(of_positives) + 1e-9))
    return float(of_positives[min(n_missed, len(of_positives) - 1)])


def _boolean(y):
    values = np.unique(y)
    if not np.isin(values, [0, 1]).all() or len(values) < 2:
        raise ValueError(
            "y must be True for tumor and False for other patches, with both present; got "
            f"{values[:5].tolist()}. With class names, use y != 'non-cancer'."
        )
    return y.astype(bool)
