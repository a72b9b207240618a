"""Checks of class shares: what is accepted, and what the messages say."""

import re

import numpy as np
import pytest

from proportion_ssl._checks import check_fraction, check_shares, share_problem, warn_if_reordered

NAN = np.nan


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ([0.33, 0.33, 0.33], {}),
        ([0.34, 0.34, 0.33], {}),
        ([1.0, 0.0], {}),
        ([0.5, NAN], {"may_miss": True}),
        ([1.01, NAN], {"may_miss": True}),
        ([0.3, 0.3, 0.3], {"any_sum": True}),
        ([0.17] * 6, {"any_sum": True}),
    ],
)
def test_shares_are_accepted(row, options):
    check_shares(np.array(row), "The shares", **options)
    check_shares(np.array([row, row]), "The shares", **options)


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ([0.5, NAN], {}, "hold a number that is not finite: [0.5, nan]."),
        ([0.5, np.inf], {"any_sum": True}, "hold a number that is not finite: [0.5, inf]."),
        ([NAN, NAN], {"may_miss": True}, "state no share: [nan, nan]."),
        ([1.2, -0.2], {}, "hold a negative share: [1.2, -0.2]."),
        ([0.6, 0.6], {}, "sum to 1.2, not 1 (within 0.01): [0.6, 0.6]."),
        ([0.8, 0.8, NAN], {"may_miss": True}, "sum to 1.6, not at most 1 (within 0.01): [0.8"),
        ([1.5, 0.2], {"any_sum": True}, "hold a share above 1: [1.5, 0.2]."),
    ],
)
def test_wrong_shares_are_refused(row, options, message):
    with pytest.raises(ValueError, match=rf"^The shares {re.escape(message)}"):
        check_shares(np.array(row), "The shares", **options)


def test_message_names_the_bag_and_counts():
    rows = np.array([[0.5, 0.5], [0.5, 0.6], [0.5, 0.7]])
    with pytest.raises(
        ValueError, match=r"^P of bag 'b' sum to 1\.1, .*; 2 of 3 bags are wrong\.$"
    ):
        check_shares(rows, "P", bags=np.array(["a", "b", "c"]))
    with pytest.raises(ValueError, match=r"^P of bag 1 sum"):
        check_shares(rows, "P")


@pytest.mark.parametrize("row", [[70, 30], [50, 52], [33, 33, 33], [50, NAN], [5, NAN, NAN]])
@pytest.mark.parametrize("any_sum", [False, True])
def test_percent_is_recognized(row, any_sum):
    with pytest.raises(ValueError, match="look like percent: divide by 100"):
        check_shares(np.array(row, dtype=float), "P", may_miss=True, any_sum=any_sum)


@pytest.mark.parametrize("row", [[0.9, 0.9], [1.2, 0.1], [1000.0, 3.0]])
def test_other_mistakes_are_not_called_percent(row):
    with pytest.raises(ValueError, match=r"\.$") as error:
        check_shares(np.array(row), "P")
    assert "percent" not in str(error.value)


def test_problem_of_percentages():
    assert share_problem(np.array([33.0, 33.0, 33.0]), whole=100) == ""
    assert share_problem(np.array([50.0, 48.9]), whole=100) == "sum to 98.9, not 100 (within 1)"
    assert "multiply by 100" in share_problem(np.array([0.5, 0.5]), whole=100)
    assert "divide by 100" in share_problem(np.array([50.0, 50.0]))
    assert share_problem(np.array([101.5, -1.5]), whole=100) == "hold a negative share"


@pytest.mark.parametrize("value", [0, 1, 0.3, [0.1, 0.2], np.float32(0.5)])
def test_fraction_is_accepted(value):
    check_fraction(value, "step")


@pytest.mark.parametrize(
    ("value", "closed", "message"),
    [
        (10, "both", r"step must be in \[0, 1\]; got 10\. It looks like percent: divide by 100\."),
        ([0.1, 5.0], "both", r"got 5\. It looks like percent"),
        (0, "right", r"step must be in \(0, 1\]; got 0\.$"),
        (-0.1, "both", r"got -0\.1\.$"),
        (NAN, "both", r"got nan\.$"),
        (1000, "both", r"got 1000\.$"),
        (1, "left", r"in \[0, 1\); got 1\. It looks like percent"),
    ],
)
def test_no_fraction_is_refused(value, closed, message):
    with pytest.raises(ValueError, match=message):
        check_fraction(value, "step", closed=closed)


@pytest.mark.parametrize("seen", [["a", "b"], [2, 1], np.array(["a"]), []])
def test_names_in_order_and_numbers_are_not_doubtful(seen):
    warn_if_reordered(seen, sorted(seen), "Rows")  # warnings are errors


def test_names_in_another_order_are_doubtful():
    with pytest.warns(
        UserWarning, match=r"^Rows have no names .* 'a', 'b', but the data have 'b', 'a'\."
    ):
        warn_if_reordered(np.array(["b", "a"]), np.array(["a", "b"]), "Rows")
