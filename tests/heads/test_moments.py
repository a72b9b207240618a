"""Discriminant analysis from sums of slides, against the one that sees all instances."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from proportion_ssl.heads._discriminant import within_classes
from proportion_ssl.heads._moments import CohortMoments, slide_moments, within_of


def make_slides(seed, *, n_alone, absent=None):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(300, 6)) * [4, 2, 1, 1, 0.5, 0.1] + rng.normal(size=6)
    labels = rng.dirichlet(np.full(4, 0.3), 300) * rng.uniform(0.1, 1, (300, 1))
    if absent is not None:
        labels[:, absent] = 0
    groups = rng.integers(0, 7, 300)
    groups[:n_alone] = -1
    return X, labels, groups


def add_up(X, labels, groups, wanted=None, *, with_spread=True):
    moments = CohortMoments.zeros(labels.shape[1], X.shape[1], with_spread=with_spread)
    for group in np.unique(groups[groups >= 0]) if wanted is None else wanted:
        moments.add(slide_moments(X[groups == group], labels[groups == group]))
    return moments


@pytest.mark.parametrize("n_alone", [0, 40])
@pytest.mark.parametrize("absent", [None, 2])
def test_sums_of_slides_give_what_all_instances_give(n_alone, absent):
    X, labels, groups = make_slides(0, n_alone=n_alone, absent=absent)
    alone = (X[groups < 0], labels[groups < 0]) if n_alone else None
    found = within_of(add_up(X, labels, groups), alone)
    for one, other in zip(found, within_classes(X, labels, groups), strict=True):
        assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_spread_is_the_sum_of_squared_distances_of_the_slides():
    X, labels, groups = make_slides(1, n_alone=0)
    within = within_of(add_up(X, labels, groups))
    shares = labels / labels.sum(axis=0) / labels.shape[1]
    spread = 0.0
    for group in range(7):
        added, weight = np.zeros((6, 6)), 0.0
        for i in np.flatnonzero(groups == group):
            for c in range(4):
                residual = X[i] - within.means[c]
                added += shares[i, c] * np.outer(residual, residual)
                weight += shares[i, c]
        spread += ((added - weight * within.covariance) ** 2).sum()
    assert_allclose(within.spread, spread, rtol=1e-9)


def test_sums_of_parts_are_added():
    X, labels, groups = make_slides(2, n_alone=0)
    parts = [add_up(X, labels, groups, some) for some in ([0, 3], [6, 1, 2], [5, 4])]
    merged = within_of(parts[2] + parts[0] + parts[1])
    for one, other in zip(merged, within_of(add_up(X, labels, groups)), strict=True):
        assert_allclose(one, other, rtol=1e-10)


def test_without_spread_the_rest_is_the_same():
    X, labels, groups = make_slides(3, n_alone=20)
    alone = X[groups < 0], labels[groups < 0]
    light = within_of(add_up(X, labels, groups, with_spread=False), alone)
    whole = within_of(add_up(X, labels, groups), alone)
    assert np.isnan(light.spread)
    assert_allclose(light.covariance, whole.covariance, rtol=1e-12)


@pytest.mark.slow
def test_single_precision_counts_all_of_many_instances():
    n = 2**24 + 1000
    labels = np.ones((n, 2), dtype=np.float32)
    within = within_classes(np.zeros((n, 1), dtype=np.float32), labels)
    assert within.sums.tolist() == [n, n]
