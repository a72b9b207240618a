"""Uncertain proportions: what a statement about the error says about each share, and how Bags take it."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl import AdaptiveSelector, AssignmentSelector, Bags, NegativeSelector
from proportion_ssl.losses.signed_labels import proportion_loss
from proportion_ssl.proportions import class_proportions
from proportion_ssl.proportions.bags import check_bags
from proportion_ssl.proportions.counts import sum_absolute_error
from proportion_ssl.proportions.intervals import consistent_proportions, proportion_distance
from proportion_ssl.pseudo_labels.exact_assignment import count_bounds

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
            ({"rounding_step": 0}, r"rounding_step must be in \(0, 0\.5\]; got 0"),
            ({"standard_deviation": -0.1}, r"standard_deviation must be in \[0, 0\.5\]; got -0\.1"),
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

    @pytest.mark.parametrize(
        ("kwargs", "message"),
        [
            ({"rounding_step": 5}, r"rounding_step must be in \(0, 0\.5\]; got 5\. .* percent"),
            ({"rounding_step": 1}, r"rounding_step must be in \(0, 0\.5\]; got 1\. .* percent"),
            ({"standard_deviation": 0.6}, r"standard_deviation must be in \[0, 0\.5\]; got 0\.6"),
            ({"standard_deviation": 10}, r"standard_deviation must be in .*; got 10\. .* percent"),
            ({"standard_deviation": [[0.1], [5.0]]}, r"got 5\. It looks like percent"),
            ({"standard_deviation": np.ones((3, 3)) / 9}, r"standard_deviation has shape \(3, 3\)"),
            (
                {"lower": EXACT * 100, "upper": EXACT * 100},
                r"Bag 'a' .* outside \[0, 1\].* percent",
            ),
            ({"lower": EXACT, "upper": EXACT * 100}, "They look like percent"),
            (
                {"lower": 0 * EXACT, "upper": EXACT * [0.9, 2, 1]},
                "'a' has a recorded share outside",
            ),
            ({"proportions": EXACT * 100, "rounding_step": 0.1}, "They look like percent"),
            ({"proportions": EXACT * 100, "standard_deviation": 0.1}, "They look like percent"),
            (
                {"proportions": EXACT / 2, "rounding_step": 0.1},
                "'a' has upper ends that sum to less",
            ),
            (
                {"proportions": [[1.2, 0, 0], [1, 0, 0]], "rounding_step": 0.5},
                "hold a share above 1",
            ),
        ],
    )
    def test_percent_and_intervals_that_cannot_be(self, kwargs, message):
        with pytest.raises(ValueError, match=message):
            make(**kwargs)

    @pytest.mark.parametrize(
        ("row", "step"), [([0.3] * 3, 0.1), ([0.17] * 6, 0.1), ([0.17] * 6, 0.01), ([0.0] * 5, 0.5)]
    )
    def test_rounded_rows_need_not_sum_to_1(self, row, step):
        bags = Bags([np.zeros((4, 2))], proportions=[row], rounding_step=step)
        assert_array_equal(bags.proportions, [row])
        assert_allclose(bags.lower, np.maximum([row], step / 2) - step / 2)
        assert_allclose(bags.upper, np.add([row], step / 2))

    def test_rounded_readings(self):
        second = np.array([[0.6, 0.5, 0.0], [np.nan] * 3])
        bags = make(np.stack([EXACT, second]), rounding_step=0.1)
        assert_allclose(bags.proportions, [[0.55, 0.5, 0.0], EXACT[1]])
        assert_allclose(bags.lower, [[0.45, 0.45, 0.0], [0.15, 0.25, 0.45]])
        assert_allclose(bags.upper, [[0.65, 0.55, 0.05], [0.25, 0.35, 0.55]])

    def test_deviation_of_rows_that_some_readers_did_not_read(self):
        first = np.array([[np.nan] * 3, [0.2, 0.3, 0.5]])
        deviation = [[0.1] * 3, [0.05, 0, 0.1]]
        bags = make(np.stack([first, EXACT]), standard_deviation=deviation)
        assert_allclose(bags.lower, [[0.4, 0.4, 0], [0.15, 0.3, 0.4]])

    def test_not_stated_beside_rounded(self):
        bags = make([[0.5, np.nan, np.nan], [0.5, np.nan, 0.2]], rounding_step=0.1)
        assert_allclose(bags.proportions, [[0.5, 0.25, 0.25], [0.5, 0.3, 0.2]])
        assert_allclose(bags.lower, [[0.45, 0, 0], [0.45, 0.2, 0.15]], atol=1e-9)
        assert_allclose(bags.upper, [[0.55, 0.55, 0.55], [0.55, 0.4, 0.25]], atol=1e-9)

    def test_not_stated_within_given_intervals(self):
        ends = {"lower": [[0.5, 0.3, 0.0], [0.4, 0, 0]], "upper": [[0.6, 0.5, 0.0], [0.6, 1, 1]]}
        bags = make([[0.6, np.nan, 0.0], [0.5, np.nan, np.nan]], **ends)
        assert_allclose(bags.proportions, [[0.6, 0.4, 0.0], [0.5, 0.25, 0.25]])
        assert_array_equal(bags.lower, ends["lower"])

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


# --- whatever the truth is ----------------------------------------------------------------------

STEPS = st.one_of(
    st.sampled_from([0.01, 0.025, 0.05, 0.1, 0.2, 0.25, 1 / 3, 0.5]),
    st.floats(0.002, 0.5, allow_nan=False),
)
ROW = st.integers(0, 60)
COUNTS = st.integers(2, 8).flatmap(
    lambda n: st.lists(st.lists(ROW, min_size=n, max_size=n).filter(any), min_size=1, max_size=4)
)


def bags_of(true, written, **error):
    return Bags([np.zeros((3, 2)) for _ in true], proportions=written, **error)


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(counts=COUNTS, step=STEPS)
def test_truth_lies_within_the_interval_of_its_rounded_record(counts, step):
    """Shares of counted instances too, which often lie half a step from the record."""
    true = np.array(counts) / np.sum(counts, axis=1, keepdims=True)
    written = np.clip(np.round(true / step) * step, 0, 1)
    bags = bags_of(true, written, rounding_step=step)
    assert_array_equal(bags.proportions, written)
    assert ((bags.lower <= true) & (true <= bags.upper)).all()
    _check_consequences(bags)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    counts=COUNTS,
    step=STEPS,
    hidden=st.lists(st.booleans(), min_size=32, max_size=32),
)
def test_truth_lies_within_where_some_shares_are_not_stated(counts, step, hidden):
    true = np.array(counts) / np.sum(counts, axis=1, keepdims=True)
    written = np.clip(np.round(true / step) * step, 0, 1)
    not_stated = np.resize(hidden, written.shape)
    not_stated[not_stated.all(axis=1), 0] = False
    written[not_stated] = np.nan
    bags = bags_of(true, written, rounding_step=step)
    assert ((bags.lower <= true + 1e-12) & (true <= bags.upper + 1e-12)).all()
    _check_consequences(bags)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    counts=COUNTS,
    deviation=st.floats(0, 0.3),
    error=st.floats(-1, 1),
)
def test_truth_lies_within_one_deviation(counts, deviation, error):
    true = np.array(counts) / np.sum(counts, axis=1, keepdims=True)
    written = np.clip(true + np.where(true > 0, error * deviation * 0.999, 0), 0, 1)
    if ((written == 0) & (true > 0)).any():
        return  # written as absent: the statement is then wrong
    bags = bags_of(true, written, standard_deviation=deviation)
    assert ((bags.lower <= true + 1e-12) & (true <= bags.upper + 1e-12)).all()
    _check_consequences(bags)


def _check_consequences(bags):
    """Intervals contain the record, admit a sum of 1, and counts; so do what selectors take of them."""
    assert (bags.lower <= bags.proportions + 1e-12).all()
    assert (bags.proportions <= bags.upper + 1e-12).all()
    assert (bags.lower.sum(axis=1) <= 1 + 1e-9).all() and (bags.upper.sum(axis=1) >= 1 - 1e-9).all()
    shares = consistent_proportions(bags.proportions, bags.lower, bags.upper)
    assert_allclose(shares.sum(axis=1), 1)
    assert ((bags.lower - 1e-9 <= shares) & (shares <= bags.upper + 1e-9)).all()
    fewest, most = count_bounds(bags.lower, bags.upper, np.full(bags.n_bags, 37))
    assert (fewest.sum(axis=1) <= 37).all() and (most.sum(axis=1) >= 37).all()
    means = torch.as_tensor(shares)
    loss = proportion_loss(means, torch.as_tensor(bags.lower), torch.as_tensor(bags.upper))
    assert_allclose(loss, 0, atol=1e-8)


def test_rounded_records_of_five_classes_are_all_accepted():
    rng = np.random.default_rng(0)
    true = rng.dirichlet(np.ones(5), 2000)
    written = np.round(true / 0.05) * 0.05
    assert 0.3 < (abs(written.sum(axis=1) - 1) > 0.01).mean() < 0.45  # these were refused
    bags = bags_of(true, written, rounding_step=0.05)
    assert ((bags.lower <= true) & (true <= bags.upper)).all()


@pytest.mark.parametrize("selector", [AdaptiveSelector(), NegativeSelector(), AssignmentSelector()])
def test_true_predictions_of_rounded_bags_are_all_believed(selector):
    """The record sums to 0.9; what is predicted lies within it, so nothing is over-predicted."""
    labels = np.repeat(np.arange(3), [10, 10, 10])
    probabilities = np.full((30, 3), 0.1) + 0.7 * np.eye(3)[labels]
    bags = Bags([np.zeros((30, 2))], proportions=[[0.3, 0.3, 0.3]], rounding_step=0.1)
    signed = selector.transform(probabilities, bag_ids=bags.index, bag_proportions=bags.recorded)
    shares = class_proportions(labels, bags.index, n_bags=1, n_classes=3)
    assert ((bags.lower <= shares) & (shares <= bags.upper)).all()
    expected = np.zeros((30, 3)) if isinstance(selector, NegativeSelector) else np.eye(3)[labels]
    assert_array_equal(signed, expected)


def test_distance_of_proportions_from_intervals_by_a_loop():
    rng = np.random.default_rng(0)
    predicted = rng.dirichlet(np.ones(4), 30)
    recorded = rng.dirichlet(np.ones(4), 30)
    lower, upper = np.clip(recorded - 0.1, 0, 1), np.clip(recorded + 0.1, 0, 1)
    expected = [
        sum(max(low - p, 0, p - high) for p, low, high in zip(*rows, strict=True))
        for rows in zip(predicted, lower, upper, strict=True)
    ]
    assert_allclose(proportion_distance(predicted, lower, upper), expected, atol=1e-12)
    assert_allclose(
        np.minimum(1, proportion_distance(predicted, recorded, recorded)),
        sum_absolute_error(recorded, predicted),
    )
