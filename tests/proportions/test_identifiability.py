"""Which classes the proportions of bags determine, with reasons."""

import warnings

import numpy as np
import pandas as pd
import pytest

from proportion_ssl.proportions import IdentifiabilityWarning, identifiability
from proportion_ssl.proportions.identifiability import warn_if_not_identifiable

RNG = np.random.default_rng(0)
VARIED = RNG.dirichlet(np.full(4, 0.5), 30)


def test_varied_proportions_determine_every_class():
    table = identifiability(VARIED, list("abcd"))
    assert (table["reason"] == "").all()
    assert table["determined"].min() == pytest.approx(1)
    assert table.attrs["rank"] == 4
    assert table.attrs["condition_number"] == pytest.approx(np.linalg.cond(VARIED))


def test_two_classes_in_fixed_ratio():
    matrix = np.column_stack(
        [VARIED[:, :2], VARIED[:, 2:].sum(axis=1) * 0.3, VARIED[:, 2:].sum(axis=1) * 0.7]
    )
    table = identifiability(pd.DataFrame(matrix, columns=list("abcd")))
    assert table["reason"].tolist() == [
        "",
        "",
        "its share moves together with that of 'd'",
        "its share moves together with that of 'c'",
    ]
    assert table.attrs["rank"] == 3
    # the null space is (0, 0, .7, -.3) / norm: what is not determined of a class is its part of it
    assert table["determined"].tolist() == pytest.approx([1, 1, 1 - 0.49 / 0.58, 1 - 0.09 / 0.58])


def test_all_bags_alike_determine_nothing_but_the_mixture():
    table = identifiability(np.tile([[0.5, 0.3, 0.2]], (10, 1)))
    assert table.attrs["rank"] == 1
    assert (table["reason"] == "its share is the same in all bags").all()
    assert table["determined"].sum() == pytest.approx(1)


def test_absent_class_and_too_few_bags():
    matrix = np.column_stack(
        [VARIED[:, :3] / VARIED[:, :3].sum(axis=1, keepdims=True), np.zeros(30)]
    )
    assert identifiability(matrix)["reason"].tolist() == ["", "", "", "no bag contains it"]
    few = identifiability(VARIED[:2])
    assert few.attrs["condition_number"] == np.inf
    assert "there are only 2 bags for 4 classes" in few["reason"].tolist()


def test_warning_names_class_and_reason():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_not_identifiable(VARIED)
    with pytest.warns(
        IdentifiabilityWarning, match=r"rank 1 of 2.*'a': its share is the same in all bags"
    ):
        warn_if_not_identifiable(np.full((5, 2), 0.5), ["a", "b"])


def test_bad_input():
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        identifiability([0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="bag 0 hold a number that is not finite"):
        identifiability([[np.nan, 1.0]])
    with pytest.raises(ValueError, match=r"bag 0 hold a share above 1: .* percent"):
        identifiability([[60.0, 40.0]])


def test_a_class_of_small_share_everywhere_is_no_companion_of_others():
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], 30)
    shares = np.hstack([0.99 * shares, np.full((30, 1), 0.01)])
    shares[::2, 3], shares[::2, 0] = 0.0, shares[::2, 0] + 0.01
    reason = identifiability(shares).loc[3, "reason"]
    assert reason == "its share is small in all bags (at most 0.01)"


def test_one_bag_is_counted_in_the_singular():
    with pytest.warns(IdentifiabilityWarning, match="proportions of 1 bag cannot"):
        warn_if_not_identifiable(np.array([[0.5, 0.5]]))
