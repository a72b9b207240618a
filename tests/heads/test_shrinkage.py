"""Shrinkage by slides: against Ledoit and Wolf's estimate, and against loops."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.covariance import ledoit_wolf

from proportion_ssl.heads import _discriminant
from proportion_ssl.heads._discriminant import (
    SMALLEST,
    analytic_shrinkage,
    discriminant_functions,
    linear_discriminant,
    within_classes,
)


def shrinkage_of(X, labels, groups):
    within = within_classes(X, labels, groups)
    return analytic_shrinkage(within.covariance, within.spread)


@pytest.mark.parametrize(("n", "n_features"), [(30, 4), (20, 40), (500, 6)])
def test_instances_of_one_class_are_those_of_ledoit_and_wolf(n, n_features):
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, n_features)) * np.linspace(1, 3, n_features) + 2
    shrunk, expected = ledoit_wolf(X)
    within = within_classes(X, np.ones((n, 1)), np.full(n, -1))
    assert analytic_shrinkage(within.covariance, within.spread) == pytest.approx(expected, rel=1e-6)
    mean = np.trace(within.covariance) / n_features
    found = (1 - expected) * within.covariance + expected * mean * np.eye(n_features)
    assert_allclose(found, shrunk, atol=1e-9)


def slow(X, labels, groups):
    """Covariance and spread by loops over slides, instances and classes."""
    n_classes = labels.shape[1]
    shares = labels / labels.sum(axis=0) / n_classes
    means = [shares[:, c] @ X / shares[:, c].sum() for c in range(n_classes)]
    slides = [[i] for i in np.flatnonzero(groups == -1)]
    slides += [np.flatnonzero(groups == g) for g in np.unique(groups[groups >= 0])]
    parts, weights = [], []
    for slide in slides:
        part = np.zeros((X.shape[1],) * 2)
        for i in slide:
            for c in range(n_classes):
                part += shares[i, c] * np.outer(X[i] - means[c], X[i] - means[c])
        parts.append(part)
        weights.append(shares[slide].sum())
    covariance = sum(parts)
    spread = sum(
        ((part - w * covariance) ** 2).sum() for part, w in zip(parts, weights, strict=True)
    )
    return covariance, spread


def make_case(seed, soft, n_features=5):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, n_features)) @ rng.normal(size=(n_features, n_features))
    labels = rng.dirichlet(np.ones(3), 60) if soft else np.eye(3)[rng.integers(0, 3, 60)]
    labels[7] = 0  # an instance without a label
    return X, labels * rng.integers(1, 4, (60, 1)), rng.integers(-1, 6, 60)


@pytest.mark.parametrize("n_features", [5, 12])  # fewer and more than a slide has instances
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_slow_oracle(seed, soft, n_features, monkeypatch):
    X, labels, groups = make_case(seed, soft, n_features)
    expected = slow(X, labels, groups)
    for at_once in (8192, 7):
        monkeypatch.setattr(_discriminant, "AT_ONCE", at_once)
        within = within_classes(X, labels, groups)
        assert_allclose(within.covariance, expected[0], atol=1e-9)
        assert within.spread == pytest.approx(expected[1], rel=1e-9)


def test_covariance_is_that_without_groups():
    X, labels, groups = make_case(0, True)
    alone, by_slide = within_classes(X, labels), within_classes(X, labels, groups)
    assert np.isnan(alone.spread)
    assert_allclose(alone.covariance, by_slide.covariance, atol=1e-9)


def test_order_and_names_of_slides_do_not_matter():
    X, labels, groups = make_case(1, True)
    order = np.random.default_rng(0).permutation(60)
    renamed = np.array([3, 9, 1, 0, 20, 7])
    expected = shrinkage_of(X, labels, groups)
    assert shrinkage_of(X[order], labels[order], groups[order]) == pytest.approx(expected)
    others = np.where(groups == -1, -1, renamed[groups])
    assert shrinkage_of(X, labels, others) == pytest.approx(expected)
    assert shrinkage_of(X, labels * 5.0, groups) == pytest.approx(expected)


def patches_of_slides(n_slides, n_patches, seed=0):
    """As many patches, whose covariance differs from slide to slide."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_slides), n_patches // n_slides)
    scales = np.linspace(1, 4, 12) * np.exp(rng.normal(0, 0.4, (n_slides, 12)))
    return rng.normal(size=(len(groups), 12)) * scales[groups], groups


def test_fewer_slides_ask_for_more_shrinkage():
    found = []
    for n_slides in (4, 16, 64):
        X, groups = patches_of_slides(n_slides, 640)
        labels = np.eye(2)[np.arange(640) % 2]
        found.append(shrinkage_of(X, labels, groups))
        assert found[-1] > shrinkage_of(X, labels, np.full(640, -1))
    assert found[0] > found[1] > found[2]


def test_slides_of_one_patch_are_patches_by_themselves():
    X, labels, _ = make_case(2, False)
    one = within_classes(X, labels, np.arange(60))
    other = within_classes(X, labels, np.full(60, -1))
    assert one.spread == pytest.approx(other.spread)


def test_single_precision_is_enough():
    X, groups = patches_of_slides(8, 640)
    labels = np.eye(2)[np.arange(640) % 2]
    double = shrinkage_of(X + 3, labels, groups)
    single = shrinkage_of((X + 3).astype(np.float32), labels.astype(np.float32), groups)
    assert single == pytest.approx(double, rel=1e-3)


def test_bounds_and_default():
    assert analytic_shrinkage(np.eye(3), 0.0) == 1.0  # a multiple of the identity already
    assert analytic_shrinkage(np.diag([1.0, 3.0]), 100.0) == 1.0
    assert analytic_shrinkage(np.diag([1.0, 3.0]), 0.0) == SMALLEST
    X, labels, groups = make_case(3, False)
    shrinkage = shrinkage_of(X, labels, groups)
    by_default = linear_discriminant(X, labels, groups=groups)
    stated = linear_discriminant(X, labels, shrinkage=shrinkage)
    from_parts = discriminant_functions(within_classes(X, labels, groups))
    for found in (stated, from_parts):
        assert_allclose(found[0], by_default[0], atol=1e-9)
        assert_allclose(found[1], by_default[1], atol=1e-9)
