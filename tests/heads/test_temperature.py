"""Temperature of logits, against a search that sees all instances."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from proportion_ssl.heads._temperature import (
    BOUNDS,
    fit_temperature,
    most_probable_temperature,
    temperature_sums,
)


def draw(scale, seed=0, n=500):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 4))
    codes = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits * scale, np.eye(4)[codes] * rng.uniform(0, 1, (n, 1))


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0, 40.0])
def test_labels_are_most_probable(scale):
    logits, labels = draw(scale)

    def loss(log_temperature):
        return -(labels * log_softmax(logits * np.exp(-log_temperature), axis=1)).sum()

    found = minimize_scalar(loss, bounds=BOUNDS, method="bounded", options={"xatol": 1e-10}).x
    assert_allclose(np.log(fit_temperature(logits, labels)), found, atol=1e-6)


@pytest.mark.parametrize(("scale", "end"), [(1e-3, 0), (1e4, 1)])
def test_ends_of_the_range(scale, end):
    assert_allclose(fit_temperature(*draw(scale)), np.exp(BOUNDS[end]))


def test_sums_of_parts_are_added():
    logits, labels = draw(3.0, n=20_000)
    parts = [
        temperature_sums(logits[rows], labels[rows]) for rows in (slice(7000), slice(7000, None))
    ]
    assert_allclose(
        most_probable_temperature(sum(parts)), fit_temperature(logits, labels), rtol=1e-12
    )
