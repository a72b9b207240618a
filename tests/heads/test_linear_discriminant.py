"""Discriminant analysis on soft labels."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.covariance import shrunk_covariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from proportion_ssl.heads._discriminant import linear_discriminant


def make_case(n=80, n_features=6, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)])
    spread = rng.normal(size=(n_features, n_features))
    X = rng.normal(size=(n_classes, n_features))[codes] + rng.normal(size=(n, n_features)) @ spread
    return X, codes


@pytest.mark.parametrize("shrinkage", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_of_hard_labels_against_scikit_learn(shrinkage, seed):
    X, codes = make_case(seed=seed)
    oracle = LinearDiscriminantAnalysis("lsqr", shrinkage=shrinkage, priors=np.full(3, 1 / 3))
    expected = oracle.fit(X, codes).predict_log_proba(X)
    coef, intercept = linear_discriminant(X, np.eye(3)[codes], shrinkage=shrinkage)
    logits = X @ coef + intercept
    found = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    assert_allclose(found, expected, atol=1e-7)


def test_a_soft_label_is_the_instance_in_several_classes():
    X, codes = make_case(40)
    rng = np.random.default_rng(1)
    soft = rng.integers(0, 5, (40, 3)) + np.eye(3, dtype=int)[codes]
    repeated = [
        (x, label) for x, row in zip(X, soft, strict=True) for label in np.repeat(range(3), row)
    ]
    rows, labels = np.array([x for x, _ in repeated]), np.array([label for _, label in repeated])
    for one, other in zip(
        linear_discriminant(X, soft.astype(float), shrinkage=0.2),
        linear_discriminant(rows, np.eye(3)[labels], shrinkage=0.2),
        strict=True,
    ):
        assert_allclose(one, other, atol=1e-9)


def test_slow_oracle():
    X, _ = make_case(30)
    soft = np.random.default_rng(2).dirichlet(np.ones(3), 30)
    means = [
        sum(w * x for w, x in zip(soft[:, c], X, strict=True)) / soft[:, c].sum() for c in range(3)
    ]
    within = np.zeros((6, 6))
    for c in range(3):
        for w, x in zip(soft[:, c] / soft[:, c].sum(), X, strict=True):
            within += w * np.outer(x - means[c], x - means[c]) / 3
    inverse = np.linalg.inv(shrunk_covariance(within, 0.4))
    coef, intercept = linear_discriminant(X, soft, shrinkage=0.4)
    assert_allclose(coef, inverse @ np.array(means).T, atol=1e-9)
    assert_allclose(intercept, [-0.5 * m @ inverse @ m for m in means], atol=1e-9)


def test_weights_of_zero_and_size_of_the_weights():
    X, codes = make_case(50)
    labels = np.eye(3)[codes]
    labels[40:] = 0
    some = linear_discriminant(X[:40], labels[:40], shrinkage=0.3)
    for labels_of in (labels, labels * 7.0):
        found = linear_discriminant(X, labels_of, shrinkage=0.3)
        assert_allclose(found[0], some[0], atol=1e-9)
        assert_allclose(found[1], some[1], atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_features_that_say_nothing(dtype):
    X = np.zeros((6, 4), dtype=dtype)
    labels = np.eye(2, dtype=dtype)[[0, 1] * 3]
    coef, intercept = linear_discriminant(X, labels, shrinkage=0.3)
    assert np.isfinite(coef).all() and np.isfinite(intercept).all()
    assert_allclose(X @ coef + intercept, 0)
