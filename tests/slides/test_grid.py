"""Windows over a slide: sizes and places from physical resolution alone."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from proportion_ssl.slides.grid import (
    MPP_AT_1X,
    PatchGrid,
    magnification_to_mpp,
    patch_grid,
)

SCALES = st.sampled_from([1.0, 2.0, 1.0 / 0.499, 1.0 / 0.2527, 1.37, 3.957]) | st.floats(1.0, 9.0)


def coverage(grid, dimensions):
    """How many windows hold each pixel of the slide."""
    count = np.zeros((dimensions[1], dimensions[0]), dtype=int)
    for x0, y0, x1, y1 in grid.boxes:
        count[max(y0, 0) : y1, max(x0, 0) : x1] += 1
    return count


def test_magnification_is_converted_by_ten_microns_at_1x():
    assert MPP_AT_1X == 10.0
    assert [magnification_to_mpp(m) for m in (2.5, 5, 10, 20, 40)] == [4.0, 2.0, 1.0, 0.5, 0.25]
    for wrong in (0, -10, np.nan, np.inf):
        with pytest.raises(ValueError, match="magnification must be a positive finite number"):
            magnification_to_mpp(wrong)
    with pytest.raises(TypeError, match="magnification must be a number"):
        magnification_to_mpp("10x")


def test_whole_numbers_of_pixels_by_hand():
    grid = patch_grid((1000, 700), 0.5, magnification=10, size=(100, 150))
    assert grid.shape == (2, 5)
    assert (grid.size, grid.mpp, len(grid)) == ((100, 150), 1.0, 10)
    assert_array_equal(grid.boxes[0], [0, 0, 200, 300])
    assert_array_equal(grid.boxes[6], [200, 300, 400, 600])
    assert_array_equal(grid.cells[6], [1, 1])
    assert_array_equal(grid.locations, grid.boxes[:, :2])
    assert grid.boxes.dtype == grid.cells.dtype == np.int64


def test_windows_do_not_drift_at_fractional_extents():
    # 224 px of 1 um are 886.4266 px of 0.2527 um: over 100 windows, 43 px more than 886 each
    grid = patch_grid((100_000, 900), 0.2527, magnification=10)
    index = np.arange(grid.shape[1] + 1)
    exact = index * 224 / 0.2527
    assert_array_equal(grid.boxes[:, 0], np.floor(exact[:-1] + 0.5))
    assert_array_equal(grid.boxes[:, 2], np.floor(exact[1:] + 0.5))
    assert set(np.diff(grid.boxes[:, [0, 2]], axis=1).ravel()) == {886, 887}
    assert np.abs(grid.boxes[:, 2] - exact[1:]).max() <= 0.5


def test_the_grid_depends_on_nothing_but_numbers():
    # not on a file, a source or its tile size: the same numbers give the same windows
    first, second = (patch_grid((5000, 4000), 0.2527, magnification=10) for _ in range(2))
    assert_array_equal(first.boxes, second.boxes)


@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    size=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    scale=SCALES,
)
def test_without_overlap_every_pixel_is_in_exactly_one_window(width, height, size, scale):
    padded = patch_grid((width, height), 1.0, patch_mpp=scale, size=size, edge="pad")
    assert_array_equal(coverage(padded, (width, height)), 1)
    kept = patch_grid((width, height), 1.0, patch_mpp=scale, size=size, edge="drop")
    count = coverage(kept, (width, height))
    assert count.max(initial=0) <= 1
    if len(kept):  # what is left out is less than a window at the right and at the bottom
        x1, y1 = kept.boxes[:, 2].max(), kept.boxes[:, 3].max()
        assert_array_equal(count[:y1, :x1], 1)
        assert width - x1 < np.ceil(size[0] * scale)
        assert height - y1 < np.ceil(size[1] * scale)


@given(
    length=st.integers(1, 3000),
    size=st.integers(4, 100),
    overlap=st.integers(0, 99),
    scale=SCALES,
    edge=st.sampled_from(["drop", "pad"]),
)
def test_windows_stay_in_place_with_any_overlap(length, size, overlap, scale, edge):
    overlap = min(overlap, size - 1)
    grid = patch_grid(
        (length, 100_000), 1.0, patch_mpp=scale, size=(size, 224), overlap=(overlap, 0), edge=edge
    )
    row = grid.boxes[grid.cells[:, 0] == 0]
    step = (size - overlap) * scale
    assert np.all(np.abs(row[:, 0] - np.arange(len(row)) * step) <= 0.5 + 1e-9)
    assert np.all(np.abs(row[:, 2] - row[:, 0] - size * scale) <= 1)
    if edge == "drop":
        assert np.all(row[:, 2] <= length)
        assert np.floor(len(row) * step + size * scale + 0.5) > length  # one more would not fit
    else:
        assert row[-1, 2] >= length
        assert len(row) == 1 or row[-2, 2] < length  # one less would not reach the end


def test_the_edge_rule_is_named():
    inside = patch_grid((1000, 1000), 1.0, magnification=10, size=300)
    assert inside.shape == (3, 3)
    assert inside.boxes.max() == 900
    padded = patch_grid((1000, 1000), 1.0, magnification=10, size=300, edge="pad")
    assert padded.shape == (4, 4)
    assert_array_equal(padded.boxes[-1], [900, 900, 1200, 1200])
    with pytest.raises(ValueError, match=r"edge must be one of .*'drop', 'pad'.*got 'crop'"):
        patch_grid((1000, 1000), 1.0, magnification=10, edge="crop")


def test_slides_smaller_than_a_window():
    grid = patch_grid((100, 5000), 1.0, magnification=10)
    assert grid.shape == (22, 0)
    assert grid.boxes.shape == (0, 4)
    assert patch_grid((100, 100), 1.0, magnification=10, edge="pad").shape == (1, 1)


def test_pixels_that_are_not_square_have_windows_that_are_not():
    grid = patch_grid((1000, 1000), (0.5, 0.25), magnification=10, size=100)
    assert_array_equal(grid.boxes[0], [0, 0, 200, 400])
    with pytest.raises(ValueError, match="one number or"):
        patch_grid((1000, 1000), (0.5, 0.25, 1.0), magnification=10)


def test_subsets_keep_the_shape_of_the_grid():
    grid = patch_grid((1000, 700), 0.5, magnification=10, size=100)
    keep = grid.cells.sum(axis=1) % 2 == 0
    for subset in (grid[keep], grid[np.flatnonzero(keep)]):
        assert subset.shape == grid.shape
        assert_array_equal(subset.boxes, grid.boxes[keep])
        assert_array_equal(subset.cells, grid.cells[keep])
    assert len(grid[3]) == len(grid[3:4]) == 1
    assert_array_equal(grid[-1].boxes, grid.boxes[-1:])
    assert len(grid[:0]) == 0
    with pytest.raises(IndexError):
        grid[100]


def test_concentric_windows_share_centers_and_cells():
    grid = patch_grid((3000, 2000), 0.499, magnification=10)
    for magnification, factor in ((10, 1), (5, 2), (2.5, 4)):
        wider = grid.concentric(magnification=magnification)
        assert wider.mpp == factor
        assert_array_equal(wider.cells, grid.cells)
        moved = wider.boxes.reshape(-1, 2, 2).mean(1) - grid.boxes.reshape(-1, 2, 2).mean(1)
        assert np.abs(moved).max() <= 0.5
        extent = wider.boxes[:, 2:] - wider.boxes[:, :2]
        assert np.abs(extent - factor * 224 / 0.499).max() <= factor  # a rounded border, magnified
    assert_array_equal(grid.concentric(patch_mpp=1.0).boxes, grid.boxes)
    with pytest.raises(ValueError, match="one of the two"):
        grid.concentric()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"magnification": None}, ValueError, "one of the two"),
        ({"patch_mpp": 1.0}, ValueError, "one of the two"),
        ({"magnification": -1}, ValueError, "magnification must be a positive"),
        ({"magnification": None, "patch_mpp": 0}, ValueError, "patch_mpp must be a positive"),
        ({"mpp": np.nan}, ValueError, "mpp must be a positive"),
        ({"mpp": None}, TypeError, "mpp must be a number"),
        ({"dimensions": (100,)}, ValueError, "dimensions must be one or two integers"),
        ({"dimensions": (100, 0)}, ValueError, "dimensions must be at least 1"),
        ({"dimensions": (100.5, 10)}, TypeError, "dimensions must be integers"),
        ({"size": 0}, ValueError, "size must be at least 1"),
        ({"overlap": 224}, ValueError, "overlap .* must be less than size"),
        ({"overlap": -1}, ValueError, "overlap must be at least 0"),
        ({"mpp": 352.8}, ValueError, "less than one pixel of a slide with 352.8"),
    ],
)
def test_arguments_are_checked(changes, error, message):
    arguments = {"dimensions": (1000, 1000), "mpp": 0.5, "magnification": 10, **changes}
    dimensions, mpp = arguments.pop("dimensions"), arguments.pop("mpp")
    with pytest.raises(error, match=message):
        patch_grid(dimensions, mpp, **arguments)


def test_grids_of_ones_own_are_checked():
    good = {"shape": (1, 2), "size": (10, 10), "mpp": 1.0}
    grid = PatchGrid(boxes=[[0, 0, 5, 5], [5, 0, 10, 5]], cells=[[0, 0], [0, 1]], **good)
    copy = pickle.loads(pickle.dumps(grid))
    assert_array_equal(copy.boxes, grid.boxes)
    with pytest.raises(ValueError, match="one cell per box"):
        PatchGrid(boxes=[[0, 0, 5, 5]], cells=np.zeros((0, 2)), **good)
    with pytest.raises(ValueError, match=r"box 1 is \[5, 5, 5, 9\]"):
        PatchGrid(boxes=[[0, 0, 5, 5], [5, 5, 5, 9]], cells=[[0, 0], [0, 1]], **good)
    with pytest.raises(ValueError, match="outside the grid"):
        PatchGrid(boxes=[[0, 0, 5, 5]], cells=[[1, 0]], **good)
