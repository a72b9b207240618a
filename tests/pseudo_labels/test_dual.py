"""Blocks of bags, and dual variables by Newton's method against a general minimizer."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from proportion_ssl.pseudo_labels._dual import BagDuals, blocks_of_bags


@pytest.mark.parametrize("in_order", [True, False])
def test_blocks_hold_every_bag_whole_and_once(in_order):
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, 50)
    bag_index = np.repeat(np.arange(50), sizes)
    if not in_order:
        bag_index = rng.permutation(bag_index)
    everyone, seen = np.arange(len(bag_index)), []
    next_bag = 0
    for rows, bags in blocks_of_bags(bag_index, sizes, 60):
        assert bags.start == next_bag
        next_bag = bags.stop
        members = np.flatnonzero((bag_index >= bags.start) & (bag_index < bags.stop))
        assert_array_equal(np.sort(everyone[rows]), members)
        assert (np.diff(bag_index[rows]) >= 0).all()
        assert len(members) <= 60 or bags.stop - bags.start == 1
        for bag in range(bags.start, bags.stop):
            assert (np.diff(everyone[rows][bag_index[rows] == bag]) > 0).all()
        seen.append(everyone[rows])
    assert next_bag == 50
    assert_array_equal(np.sort(np.concatenate(seen)), everyone)


def test_a_bag_larger_than_a_block_is_one():
    bag_index = np.repeat([0, 1, 2], [3, 100, 2])
    blocks = [bags for _, bags in blocks_of_bags(bag_index, np.array([3, 100, 2]), 10)]
    assert blocks == [slice(0, 1), slice(1, 2), slice(2, 3)]


@dataclasses.dataclass
class Spring:
    """Pulls dual variables to 0, and counts to a target."""

    target: np.ndarray
    strength: np.ndarray

    def __call__(self, duals):
        slope = self.strength * duals - self.target
        return slope, np.broadcast_to(self.strength, duals.shape)

    def value(self, duals):
        return (self.strength * duals**2 / 2 - self.target * duals).sum(axis=1)

    def of(self, bags):
        return Spring(self.target[bags], self.strength[bags])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("spread", [1.0, 15.0])
def test_dual_variables_of_a_general_minimizer(seed, spread):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 40, 6)  # of which some need many more steps than others
    bag = np.repeat(np.arange(6), sizes)
    scores = rng.normal(0, spread, (4, len(bag)))
    spring = Spring(rng.dirichlet(np.ones(4), 6) * sizes[:, None], rng.uniform(0.05, 2, 6)[:, None])
    bags = BagDuals(scores, sizes, np.zeros((6, 4)))
    bags.minimize(spring, tol=1e-10, max_iter=200)
    assert_allclose(bags.soft, softmax(scores + bags.duals.T[:, bag], axis=0), atol=1e-12)
    for b in range(6):
        mine = scores[:, bag == b]

        def cost(duals, mine=mine, b=b):
            penalty_of_duals = spring.of([b]).value(duals[None])[0]
            return logsumexp(mine + duals[:, None], axis=0).sum() + penalty_of_duals

        found = minimize(cost, np.zeros(4), method="BFGS", options={"gtol": 1e-8})
        assert cost(bags.duals[b]) <= found.fun + 1e-9 * abs(found.fun)
        assert_allclose(bags.duals[b], found.x, atol=1e-3)
        assert_allclose(bags.counts[b], bags.soft[:, bag == b].sum(axis=1))


def test_dual_variables_are_renewed_where_they_start():
    rng = np.random.default_rng(0)
    scores, sizes = rng.normal(size=(3, 20)), np.array([20])
    spring = Spring(np.array([[5.0, 5.0, 10.0]]), np.array([[0.1]]))
    cold = BagDuals(scores, sizes, np.zeros((1, 3)))
    cold.minimize(spring, tol=1e-10)
    warm = BagDuals(scores, sizes, cold.duals + 3.0)
    warm.minimize(spring, tol=1e-10)
    assert_allclose(warm.duals, cold.duals, atol=1e-7)
