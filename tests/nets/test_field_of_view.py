"""Experts of several magnifications and their fusion."""

import pickle

import numpy as np
import pytest
import torch
from estimator_checks import parametrize_with_checks
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from proportion_ssl import HeadClassifier, MultiFieldOfViewNet
from proportion_ssl.nets import AdaptiveFusion, FixedFusion
from proportion_ssl.nets.field_of_view import MixtureLoss

N_FEATURES = 6


def make_views(n=400, seed=0):
    """Two views; the first feature of the first view says which of the two tells the class."""
    rng = np.random.default_rng(seed)
    views = rng.normal(size=(n, 2, N_FEATURES)).astype(np.float32)
    y = rng.integers(0, 2, n)
    telling = rng.integers(0, 2, n)
    views[:, 0, 0] = 4.0 * telling - 2.0
    views[np.arange(n), telling, 1] = 3.0 * y - 1.5
    return views.reshape(n, -1), y, telling


@pytest.mark.slow
@parametrize_with_checks([MultiFieldOfViewNet(1, expert=HeadClassifier(max_epochs=40))])
def test_scikit_learn(estimator, check):
    check(estimator)


def test_equal_weights_are_the_mean_of_the_experts():
    X, y, _ = make_views()
    net = MultiFieldOfViewNet(2, expert=LogisticRegression()).fit(X, y)
    experts = [
        LogisticRegression().fit(X[:, part], y).predict_proba(X[:, part])
        for part in (slice(0, N_FEATURES), slice(N_FEATURES, None))
    ]
    assert_allclose(net.predict_proba(X), np.mean(experts, axis=0), rtol=1e-6)


def test_all_weight_on_one_view_is_its_expert():
    X, y, _ = make_views()
    net = MultiFieldOfViewNet(2, expert=LogisticRegression(), fusion=FixedFusion([0.0, 1.0]))
    alone = LogisticRegression().fit(X[:, N_FEATURES:], y)
    assert_array_equal(net.fit(X, y).predict(X), alone.predict(X[:, N_FEATURES:]))


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.6], [1.5, -0.5], [0.3, 0.3, 0.4], [np.nan, 1]])
def test_weights_that_are_none(weights):
    X, y, _ = make_views(40)
    with pytest.raises(ValueError, match="2 non-negative numbers that sum to 1"):
        MultiFieldOfViewNet(2, fusion=FixedFusion(weights)).fit(X, y)


def test_columns_that_are_no_views():
    X, y, _ = make_views(40)
    with pytest.raises(ValueError, match="12 columns, which are not 5 views"):
        MultiFieldOfViewNet(5).fit(X, y)


def test_mixture_loss_by_hand_and_its_gradient():
    logits = torch.tensor([[0.3, -0.2, 1.0], [0.0, 2.0, -1.0]], dtype=torch.float64)
    likelihoods = torch.tensor([[0.9, 0.2, 0.4], [0.1, 0.6, 0.3]], dtype=torch.float64)
    by_hand = -torch.log((logits.softmax(1) * likelihoods).sum(1)).mean()
    assert_allclose(MixtureLoss()(logits, likelihoods), by_hand, rtol=1e-12)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: MixtureLoss()(z, likelihoods), logits)


def test_mixture_loss_is_finite_where_all_experts_are_wrong():
    logits = torch.zeros(1, 2, requires_grad=True)
    loss = MixtureLoss()(logits, torch.zeros(1, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.slow
@pytest.mark.parametrize("with_slides", [False, True])
def test_the_gate_prefers_the_view_that_tells(with_slides):
    X, y, _ = make_views(600)
    X_new, y_new, telling = make_views(300, seed=1)
    slides = np.arange(600) % 6 if with_slides else None
    fixed = MultiFieldOfViewNet(2, random_state=0).fit(X, y)
    adaptive = MultiFieldOfViewNet(2, fusion=AdaptiveFusion(), random_state=0)
    adaptive.fit(X, y, groups=slides)
    weights = adaptive.view_weights(X_new)
    assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    assert weights[telling == 0, 0].mean() > 0.6 > 0.4 > weights[telling == 1, 0].mean()
    assert (adaptive.predict(X_new) == y_new).mean() > (fixed.predict(X_new) == y_new).mean() + 0.01


@pytest.mark.slow
def test_same_seed_same_net_and_pickle():
    X, y, _ = make_views(120)
    names = np.array(["rest", "cancer"])[y]
    net = MultiFieldOfViewNet(2, fusion=AdaptiveFusion(), random_state=3)
    one, same = clone(net).fit(X, names), clone(net).fit(X, names)
    assert_array_equal(one.predict_proba(X), same.predict_proba(X))
    assert_array_equal(pickle.loads(pickle.dumps(one)).predict(X), one.predict(X))
    assert one.classes_.tolist() == ["cancer", "rest"]
