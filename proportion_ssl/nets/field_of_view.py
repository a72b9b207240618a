"""Several magnifications of the same locations: one expert per view, fused by fixed or learned weights."""

from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from proportion_ssl._fitting import all_or_nothing, refuse_bags, unseen_probabilities
from proportion_ssl._kept import Kept
from proportion_ssl._sklearn import HasMethods, Interval, fit_context
from proportion_ssl.nets.classifiers import HeadClassifier
from proportion_ssl.nets.random_numbers import draws_locally, seeded
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.training import split_validation, train_until_settled


class FixedFusion(BaseEstimator):
    """Weigh the experts alike in every patch.

    Parameters
    ----------
    weights : sequence of n_views float, default=None
        Non-negative, summing to 1; in the order of the views. Default: equal.

    Examples
    --------
    >>> fusion = FixedFusion([0.75, 0.25]).fit(np.zeros((1, 2, 2)), None, None)
    >>> fusion.view_weights(np.zeros((1, 4)))
    array([[0.75, 0.25]])
    """

    _parameter_constraints = {"weights": ["array-like", None]}  # noqa: RUF012 - scikit-learn's protocol

    def __init__(self, weights: Any = None):
        self.weights = weights

    needs_probabilities = False  # of experts on patches they were not trained on

    def fit(self, X: np.ndarray, codes: Any, probabilities: Any, **_: Any) -> "FixedFusion":
        """Check the weights against the number of views, (n, n_views, n_features) being the shape of X."""
        n_views = X.shape[1]
        weights = np.full(n_views, 1 / n_views) if self.weights is None else self.weights
        weights = np.asarray(weights, dtype=np.float64)
        fits = weights.shape == (n_views,) and (weights >= 0).all()
        if not fits or abs(weights.sum() - 1) > 1e-6:
            raise ValueError(
                f"weights must be {n_views} non-negative numbers that sum to 1, one per view; got "
                f"{weights.tolist()}."
            )
        self.weights_ = weights
        return self

    def view_weights(self, X: np.ndarray) -> np.ndarray:
        """Weights of the views in each patch, shape (n, n_views)."""
        return np.tile(self.weights_, (len(X), 1))


class MixtureLoss(nn.Module):
    """Negative log-likelihood of a mixture of experts, mean over the patches.

    ``-log sum_v softmax(logits)_v p_v``, where ``p_v`` is the probability that expert v gives the
    true class. Minimized by the gate alone; the experts are constants.

    Examples
    --------
    >>> undecided = torch.tensor([[0.0, 0.0]])
    >>> MixtureLoss()(undecided, torch.tensor([[0.8, 0.2]])).exp().item()
    2.0
    """

    def forward(self, logits: torch.Tensor, likelihoods: torch.Tensor) -> torch.Tensor:
        """Logits and likelihoods of shape (n, n_views) to a scalar."""
        tiny = torch.finfo(logits.dtype).tiny
        log_likelihoods = likelihoods.to(logits.dtype).clamp_min(tiny).log()
        return -(logits.log_softmax(-1) + log_likelihoods).logsumexp(-1).mean()


class AdaptiveFusion(BaseEstimator):
    """Weigh the experts anew in every patch, by a gating network that sees all views.

    Parameters
    ----------
    gate : HeadClassifier, default=None
        Network from the features of all views to one logit per view; a softmax makes them weights.
        Default: ``HeadClassifier(criterion=MixtureLoss)``.
    n_folds : int, default=3
        The gate learns from probabilities of experts that have not seen the patch (nor its slide, if
        slides are given): patches are split into so many folds.

    Notes
    -----
    After Tokunaga, Teramoto, Yoshizawa, Bise, "Adaptive weighting multi-field-of-view CNN for semantic
    segmentation in pathology", CVPR 2019, whose gate is trained on the same patches as the experts.
    Experts on frozen features fit those patches almost perfectly, so that nothing is left for the gate
    to learn from; hence the folds.
    """

    needs_probabilities = True

    def __init__(self, gate: Any = None, *, n_folds: int = 3):
        self.gate = gate
        self.n_folds = n_folds

    def fit(
        self,
        X: np.ndarray,
        codes: np.ndarray,
        probabilities: np.ndarray,
        *,
        groups: Any = None,
        random_state: Any = None,
    ) -> "AdaptiveFusion":
        """Train the gate.

        Parameters
        ----------
        X : ndarray of shape (n, n_views, n_features)
        codes : ndarray of int, shape (n,)
            Class indices.
        probabilities : ndarray of shape (n, n_views, n_classes)
            Probabilities by the experts, on patches that they were not trained on.
        groups : array-like of shape (n,), optional
            Slides; validation then takes whole slides.
        random_state : RandomState, optional

        Returns
        -------
        self : AdaptiveFusion
        """
        n_views = X.shape[1]
        likelihoods = probabilities[np.arange(len(X)), :, codes].astype(np.float32)
        flat = _flat(X)
        gate = HeadClassifier(criterion=MixtureLoss) if self.gate is None else clone(self.gate)
        rows = split_validation(codes, 0.25, check_random_state(random_state), groups)
        gate.initialize_for(flat, rows[0], np.arange(n_views))
        train, validation = (SignedDataset(flat, likelihoods, part) for part in rows)
        train_until_settled(
            gate, train, validation, max_epochs=gate.max_epochs, patience=gate.patience
        )
        self.gate_ = gate
        return self

    def view_weights(self, X: np.ndarray) -> np.ndarray:
        """Weights of the views in each patch, shape (n, n_views); rows sum to 1."""
        return self.gate_.predict_proba(_flat(X))


class MultiFieldOfViewNet(ClassifierMixin, BaseEstimator):
    """One expert per magnification of a location, their probabilities fused by weights.

    Parameters
    ----------
    n_views : int, default=3
        Number of views of each patch, such as 10x, 5x and 2.5x.
    expert : classifier, default=None
        Cloned for each view. Default: :class:`~proportion_ssl.HeadClassifier`.
    fusion : FixedFusion or AdaptiveFusion, default=None
        How experts are weighed. Default: ``FixedFusion()``, equal weights, as in Tokunaga et al. 2020.
    random_state : int, RandomState instance or None, default=None

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    experts_ : list of classifiers
        In the order of the views.
    fusion_ : FixedFusion or AdaptiveFusion

    Notes
    -----
    A patch is a row of the features of all its views, one view after the other: ``X`` of shape
    (n, n_views * n_features) goes through pipelines and cross-validation as any array does. Frozen
    networks give these features once, by a :class:`~proportion_ssl.PatchEmbedder` on
    :meth:`PatchGrid.concentric <proportion_ssl.slides.PatchGrid.concentric>` windows. The same rows are
    also valid input of any other classifier here: features of several magnifications side by side.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(40, 3 * 8))
    >>> y = np.where(X[:, 8] > 0, "cancer", "rest")  # the second view tells
    >>> net = MultiFieldOfViewNet(n_views=3, random_state=0).fit(X, y)
    >>> net.predict_proba(X).shape, net.view_weights(X)[0].round(2)
    ((40, 2), array([0.33, 0.33, 0.33]))
    """

    __metadata_request__fit = {"groups": False}  # noqa: RUF012 - scikit-learn's protocol

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        "n_views": [Interval(Integral, 1, None, closed="left")],
        "expert": [HasMethods(["fit", "predict_proba"]), None],
        "fusion": [HasMethods(["fit", "view_weights"]), None],
        "random_state": ["random_state"],
    }

    _kept = Kept(
        always={"classes_": (np.ndarray,), "n_features_in_": (int,)},
        several={"experts_": (HeadClassifier,)},
        left_out={"fusion_": "follows from the parameters"},
    )

    def __init__(
        self, n_views: int = 3, *, expert: Any = None, fusion: Any = None, random_state: Any = None
    ):
        self.n_views = n_views
        self.expert = expert
        self.fusion = fusion
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, groups: Any = None) -> "MultiFieldOfViewNet":
        """Train the experts, each on its own view, then the fusion.

        Parameters
        ----------
        X : array-like of shape (n_patches, n_views * n_features)
        y : array-like of shape (n_patches,)
        groups : array-like of shape (n_patches,), optional
            Slide of each patch.

        Returns
        -------
        self : MultiFieldOfViewNet

        Raises
        ------
        ValueError
            If the columns cannot be split into the views, or there are fewer than two classes.
        """
        with all_or_nothing(self):
            return self._fit(X, y, groups)

    def _fit(self, X, y, groups):
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds one class ({self.classes_[0]!r}); at least two are needed: label patches of "
                "another class."
            )
        views = self._views(X)
        random_state = check_random_state(self.random_state)
        fusion = FixedFusion() if self.fusion is None else clone(self.fusion)
        seed = random_state.randint(np.iinfo(np.int32).max)
        local = draws_locally(self, fusion)
        with seeded(seed, local=local):
            self.experts_ = self._fit_experts(views, codes, random_state)
            self.fusion_ = self._fit_fusion(fusion, views, codes, groups, random_state)
        return self

    def _fit_fusion(self, fusion, views, codes, groups, random_state):
        """Fit the fusion, to what experts say of patches that they have not seen if it asks for that."""
        if not fusion.needs_probabilities:
            return fusion.fit(views, codes, None, groups=groups, random_state=random_state)
        seed = random_state.randint(np.iinfo(np.int32).max)
        probabilities = np.stack(
            [
                unseen_probabilities(
                    *(self._new_expert(random_state), np.ascontiguousarray(view), codes, groups),
                    n_folds=fusion.n_folds,
                    random_state=seed,
                )
                for view in np.moveaxis(views, 1, 0)
            ],
            axis=1,
        )
        seen = np.isfinite(probabilities).all(axis=(1, 2))
        if not seen.any():
            raise ValueError(
                "No labeled slide can be left out: the other slides hold one class each. Label more slides, "
                "or use fusion=None, which needs none."
            )
        groups = None if groups is None else np.asarray(groups)[seen]
        return fusion.fit(
            *(views[seen], codes[seen], probabilities[seen]),
            groups=groups,
            random_state=random_state,
        )

    def _views(self, X):
        if self.n_views < 1 or X.shape[1] % self.n_views:
            raise ValueError(
                f"X has {X.shape[1]} columns, which are not {self.n_views} views of equal width; set "
                "n_views, or put the features of all views side by side."
            )
        return X.reshape(len(X), self.n_views, -1)

    def _fit_experts(self, views, codes, random_state):
        return [
            self._new_expert(random_state).fit(np.ascontiguousarray(views[:, view]), codes)
            for view in range(self.n_views)
        ]

    def _new_expert(self, random_state):
        expert = HeadClassifier() if self.expert is None else clone(self.expert)
        if "random_state" in expert.get_params():
            expert.set_params(random_state=random_state.randint(np.iinfo(np.int32).max))
        return expert

    def view_weights(self, X: Any) -> np.ndarray:
        """How much each view counts in each patch.

        Parameters
        ----------
        X : array-like of shape (n_patches, n_views * n_features)

        Returns
        -------
        weights : ndarray of shape (n_patches, n_views)
            Non-negative; rows sum to 1.
        """
        return self.fusion_.view_weights(self._checked_views(X))

    def _checked_views(self, X):
        check_is_fitted(self)
        refuse_bags(X)
        return self._views(validate_data(self, X, dtype=np.float32, reset=False))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities: the weighted mean of those of the experts.

        Parameters
        ----------
        X : array-like of shape (n_patches, n_views * n_features)

        Returns
        -------
        probabilities : ndarray of shape (n_patches, n_classes)
        """
        views = self._checked_views(X)
        weights = self.fusion_.view_weights(views)
        experts = [
            expert.predict_proba(np.ascontiguousarray(views[:, view]))
            for view, expert in enumerate(self.experts_)
        ]
        return np.einsum("nv,vnc->nc", weights, np.stack(experts))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of the class probabilities, -inf where these are 0; shape (n_patches, n_classes)."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def predict(self, X: Any) -> np.ndarray:
        """Most probable class, shape (n_patches,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]


def _flat(views):
    return np.ascontiguousarray(views.reshape(len(views), -1))
