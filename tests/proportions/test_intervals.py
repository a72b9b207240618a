"""Uncertain proportions: what a statement about the error says about each share, and how Bags take it."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import AdaptiveSelector, AssignmentSelector, Bags, NegativeSelector
from proportion_ssl.proportions.bags import check_bags

EXACT = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])


def arrays():
    return [np.zeros((4, 2)), np.ones((3, 2))]


def make(proportions=EXACT, **kwargs):
    return Bags(arrays(), ["a", "b"], proportions, **kwargs)


class TestBags:
    def test_exact_unless_stated_otherwise(self):
        bags = make()
        assert_array_equal(bags.lower, EXACT)
        assert_array_equal(bags.upper, EXACT)
        assert_array_equal(bags.weights, 1)

    def test_rounding(self):
        bags = make(rounding_step=0.1)
        assert_allclose(bags.lower, np.clip(EXACT - 0.05, 0, 1))
        assert_allclose(bags.upper, EXACT + 0.05)

    def test_deviation_keeps_absent_classes_absent(self):
        bags = make(standard_deviation=[[0.1], [0.0]])
        assert_allclose(bags.lower, [[0.4, 0.4, 0.0], EXACT[1]])
        assert_allclose(bags.upper, [[0.6, 0.6, 0.0], EXACT[1]])

    def test_intervals_in_frames_of_any_order(self):
        lower = pd.DataFrame(
            [[0, 0.1, 0.2], [0, 0.4, 0.3]], index=["b", "a"], columns=["z", "x", "y"]
        )
        frame = pd.DataFrame(EXACT, index=["a", "b"], columns=["x", "y", "z"])
        bags = make(frame, lower=lower, upper=lower + 0.6)
        assert_allclose(bags.lower, [[0.4, 0.3, 0.0], [0.1, 0.2, 0.0]])

    def test_not_stated_differs_from_not_seen(self):
        bags = make([[0.5, np.nan, np.nan], [0.5, 0.5, 0.0]])
        assert_allclose(bags.proportions[0], [0.5, 0.25, 0.25])
        assert_allclose(bags.lower[0], [0.5, 0.0, 0.0])
        assert_allclose(bags.upper, [[0.5, 0.5, 0.5], [0.5, 0.5, 0.0]])

    def test_one_class_not_stated_is_the_rest(self):
        bags = make([[0.5, np.nan, 0.2], [0.5, 0.5, 0.0]])
        assert_allclose(bags.proportions[0], [0.5, 0.3, 0.2])
        assert_allclose(bags.lower, bags.upper)

    def test_several_readers(self):
        second = np.array([[0.7, 0.3, 0.0], [np.nan] * 3])
        bags = make(np.stack([EXACT, second]))
        assert_allclose(bags.proportions, [[0.6, 0.4, 0.0], EXACT[1]])
        assert_allclose(bags.lower, [[0.5, 0.3, 0.0], EXACT[1]])
        assert_allclose(bags.upper, [[0.7, 0.5, 0.0], EXACT[1]])

    def test_everything_follows_selection_and_classes(self):
        frame = pd.DataFrame(EXACT, index=["a", "b"], columns=["y", "z", "x"])
        bags = Bags(arrays(), ["a", "b"], frame, rounding_step=0.1, weights=[1, 0.5])
        aligned = check_bags(bags.select(["b"]), None, np.array(["x", "y", "z"]))
        assert_allclose(aligned.proportions, [[0.5, 0.2, 0.3]])
        assert_allclose(aligned.lower, [[0.45, 0.15, 0.25]])
        assert_allclose(aligned.weights, [0.5])
        assert_allclose(bags.with_instances(np.zeros((7, 1))).upper, bags.upper)

    def test_intervals_travel_in_a_pipeline(self):
        bags = make(rounding_step=0.1, weights=[1, 2])
        for X_bags in (bags.flat, arrays()):
            seen = check_bags(X_bags, bags, np.arange(3))
            assert_array_equal(seen.lower, bags.lower)
            assert_array_equal(seen.weights, bags.weights)

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"rounding_step": 0}, r"rounding_step must be in \(0, 1\]; got 0"),
            ({"standard_deviation": -0.1}, r"standard_deviation must be in \[0, 1\); got -0\.1"),
            ({"lower": EXACT}, "lower and upper belong together"),
            ({"rounding_step": 0.1, "standard_deviation": 0.1}, "state the error in one way"),
            ({"lower": EXACT[:1], "upper": EXACT}, r"lower has shape \(1, 3\)"),
            (
                {"lower": EXACT, "upper": EXACT - [[0, 0, 0], [0, 0.1, 0]]},
                "'b' has an interval whose lower",
            ),
            (
                {"lower": EXACT * 0, "upper": EXACT / 2},
                "Bag 'a' has upper ends that sum to less than 1",
            ),
            ({"lower": EXACT - 1, "upper": EXACT}, r"Bag 'a' has an interval outside \[0, 1\]"),
            ({"weights": [1]}, "weights has shape"),
            ({"weights": [1, -1]}, "Bag 'b' has weight -1"),
        ],
    )
    def test_errors(self, kwargs, message):
        with pytest.raises(ValueError, match=message):
            make(**kwargs)

    def test_an_error_of_nothing(self):
        with pytest.raises(ValueError, match="rounding_step is given without proportions"):
            make(None, rounding_step=0.1)

    def test_errors_of_missing_entries(self):
        with pytest.raises(ValueError, match="bag 'a' state no share"):
            make([[np.nan] * 3, [1, 0, 0]])
        with pytest.raises(ValueError, match=r"bag 'a' sum to 1\.2"):
            make([[0.6, 0.6, np.nan], [1, 0, 0]])
        with pytest.raises(ValueError, match="Bag 'b' was read by none of the 2 readers"):
            make(np.stack([[[1, 0, 0], [np.nan] * 3]] * 2))


@pytest.mark.parametrize("selector", [AdaptiveSelector(), NegativeSelector(), AssignmentSelector()])
@pytest.mark.parametrize("seed", range(5))
class TestSelectors:
    def case(self, seed):
        rng = np.random.default_rng(seed)
        bag_ids = np.repeat(np.arange(6), 30)
        return rng.dirichlet(np.full(4, 0.4), 180), bag_ids, rng.dirichlet(np.ones(4), 6)

    def test_no_width_is_exact(self, selector, seed):
        probabilities, bag_ids, shares = self.case(seed)
        exact = selector.transform(probabilities, bag_ids=bag_ids, bag_proportions=shares)
        both = selector.transform(
            probabilities, bag_ids=bag_ids, bag_proportions=np.stack([shares] * 2)
        )
        assert_array_equal(exact, both)

    def test_within_the_interval_predictions_are_taken_as_they_are(self, selector, seed):
        probabilities, bag_ids, _ = self.case(seed)
        ends = np.stack([np.zeros((6, 4)), np.ones((6, 4))])
        signed = selector.transform(probabilities, bag_ids=bag_ids, bag_proportions=ends)
        if isinstance(selector, NegativeSelector):
            assert not signed.any()
        else:
            assert_array_equal(signed, np.eye(4)[probabilities.argmax(axis=1)])
