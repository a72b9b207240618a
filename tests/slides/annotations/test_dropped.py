"""How much of what was outlined is left out with the patches that are not used."""

import numpy as np
import pytest
import shapely
from numpy.testing import assert_allclose

from proportion_ssl.slides import Region, class_fractions, dropped_share, patch_grid

GRID = patch_grid((400, 200), 1.0, patch_mpp=1.0, size=100)  # two rows of four


def test_by_hand_in_areas():
    regions = [
        Region("a", shapely.box(0, 0, 200, 200)),  # four windows
        Region("b", shapely.box(200, 0, 350, 100)),  # one and a half
        Region("vague", shapely.box(0, 0, 50, 100)),  # hides half a window of a
    ]
    fractions = class_fractions(regions, GRID, ["a", "b", "c"])
    kept = GRID[[1, 2, 4, 5, 6, 7]]  # without the first and the last of the first row
    share = dropped_share(fractions, GRID, kept)
    assert_allclose(share, [0.5 / 3.5, 0.5 / 1.5, np.nan])


def test_by_hand_in_labels():
    labels = np.array(["a", "a", "b", "b", "b", None, None, "b"], dtype=object)
    one_hot = labels[:, np.newaxis] == ["a", "b"]
    assert_allclose(dropped_share(one_hot, GRID, GRID[[0, 1, 2, 5]]), [0.0, 0.75])
    assert_allclose(dropped_share(one_hot, GRID, GRID), [0.0, 0.0])
    assert_allclose(dropped_share(one_hot, GRID, GRID[:0]), [1.0, 1.0])


def test_the_order_of_windows_does_not_matter():
    rng = np.random.default_rng(0)
    fractions, order, kept = rng.random((8, 3)), rng.permutation(8), GRID[[6, 1, 3]]
    expected = dropped_share(fractions, GRID, kept)
    assert_allclose(dropped_share(fractions[order], GRID[order], kept), expected)
    assert_allclose(expected, 1 - fractions[[1, 3, 6]].sum(axis=0) / fractions.sum(axis=0))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="one row for each of 8 windows"):
        dropped_share(np.ones((3, 2)), GRID, GRID)
    with pytest.raises(ValueError, match="one row for each of 8 windows"):
        dropped_share(np.ones(8), GRID, GRID)
    with pytest.raises(ValueError, match="not in the grid"):
        dropped_share(np.ones((4, 2)), GRID[:4], GRID)
    other = patch_grid((400, 200), 1.0, patch_mpp=1.0, size=50)
    with pytest.raises(ValueError, match="not in the grid"):
        dropped_share(np.ones((8, 2)), GRID, other[:2])
