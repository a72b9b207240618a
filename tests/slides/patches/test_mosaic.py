"""Patch values to a map and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from proportion_ssl.slides.grid import patch_grid
from proportion_ssl.slides.patches.mosaic import stitch, unstitch


@pytest.mark.slow
@given(
    width=st.integers(50, 800),
    height=st.integers(50, 800),
    size=st.integers(10, 90),
    scale=st.floats(1.0, 5.0),
    edge=st.sampled_from(["drop", "pad"]),
    seed=st.integers(0, 99),
)
def test_stitching_inverts_tiling(width, height, size, scale, edge, seed):
    grid = patch_grid((width, height), 1.0, patch_mpp=scale, size=size, edge=edge)
    rng = np.random.default_rng(seed)
    grid = grid[rng.permutation(len(grid))[: rng.integers(0, len(grid) + 1)]]
    labels = rng.integers(0, 6, len(grid))
    label_map = stitch(labels, grid.cells, grid.shape)
    assert label_map.shape == grid.shape
    assert_array_equal(unstitch(label_map, grid.cells), labels)
    assert np.count_nonzero(label_map >= 0) == len(grid)
    probabilities = rng.random((len(grid), 3))
    assert_array_equal(
        unstitch(stitch(probabilities, grid.cells, grid.shape, fill=np.nan), grid.cells),
        probabilities,
    )


def test_each_value_lies_where_its_patch_does():
    # paint every window of a slide with its value: the map is that picture, reduced
    grid = patch_grid((800, 600), 0.5, magnification=10, size=50)
    values = np.arange(len(grid))
    picture = np.empty((600, 800), dtype=int)
    for (x0, y0, x1, y1), value in zip(grid.boxes, values, strict=True):
        picture[y0:y1, x0:x1] = value
    assert_array_equal(stitch(values, grid.cells, grid.shape), picture[50::100, 50::100])


def test_the_map_keeps_the_type_and_marks_empty_cells():
    label_map = stitch(np.array([3, 4], dtype=np.uint8), [[0, 0], [1, 1]], (2, 2), fill=255)
    assert label_map.dtype == np.uint8
    assert_array_equal(label_map, [[3, 255], [255, 4]])
    empty = stitch(np.zeros((0, 4)), np.zeros((0, 2), dtype=int), (2, 3), fill=np.nan)
    assert empty.shape == (2, 3, 4)
    assert np.isnan(empty).all()
    assert_array_equal(stitch([True], [[0, 1]], (1, 2), fill=False), [[False, True]])
    assert_array_equal(stitch(["a"], [[0, 1]], (1, 2), fill="-"), [["-", "a"]])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1], [[0, 0], [0, 1]], (2, 2)), ValueError, "values has 1 rows but cells has 2"),
        (([1, 2], [[0, 0], [0, 0]], (2, 2)), ValueError, r"cell \(0, 0\) occurs 2 times"),
        (([1], [[2, 0]], (2, 2)), ValueError, r"outside the map of shape \(2, 2\).*\(2, 0\)"),
        (([1], [[-1, 0]], (2, 2)), ValueError, "outside the map"),
        (([1], [[0.0, 0.0]], (2, 2)), TypeError, "cells must be integers"),
        (([1], [0, 0], (2, 2)), ValueError, r"cells must have shape \(n, 2\)"),
        (([[[1]]], [[0, 0]], (2, 2)), ValueError, "values must have shape"),
        (([1], [[0, 0]], (2, 2, 2)), ValueError, "shape must be"),
        ((np.uint8([1]), [[0, 0]], (2, 2)), ValueError, "fill=-1 cannot be stored"),
        (([1], [[0, 0]], (2, 2), np.nan), ValueError, "fill=nan cannot be stored"),
        (([True], [[0, 0]], (2, 2)), ValueError, "fill=-1 cannot be stored"),
    ],
)
def test_stitch_checks_its_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        stitch(*arguments)


def test_unstitch_checks_its_arguments():
    with pytest.raises(ValueError, match="label_map must have shape"):
        unstitch([1, 2], [[0, 0]])
    with pytest.raises(ValueError, match="outside the map"):
        unstitch([[1, 2]], [[1, 0]])
