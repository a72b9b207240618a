"""Tissue on slides, and its share in patches."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage
from slide_files import texture, write_slide

from proportion_ssl.slides import (
    ink_mask,
    open_slide,
    patch_grid,
    tissue_fraction,
    tissue_grid,
    tissue_mask,
)
from proportion_ssl.slides.patches._glass import find_glass

GLASS = (243, 241, 244)


def overview(width=240, height=200, box=(60, 40, 180, 160), glass=GLASS, seed=0):
    """Glass with faint noise and a rectangle of stained tissue with texture."""
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3))
    image[:] = glass
    x0, y0, x1, y1 = box
    stain = rng.gamma(3.0, 0.2, (y1 - y0, x1 - x0, 2))
    density = stain @ np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    image[y0:y1, x0:x1] *= np.exp(-density)
    image += rng.normal(0, 1.5, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def box_mask(shape, box):
    mask = np.zeros(shape, dtype=bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("mpp", [4.0, 8.0, 16.0])
@pytest.mark.parametrize("glass", [GLASS, (235, 228, 240), (215, 222, 215)])
def test_tissue_is_told_from_glass_of_any_tint(mpp, glass):
    mask = tissue_mask(overview(glass=glass), mpp=mpp)
    assert mask.dtype == bool
    assert overlap(mask, box_mask(mask.shape, (60, 40, 180, 160))) > 0.95


def test_pale_tissue_beside_dark_tissue_is_kept():
    image = overview().astype(float)
    pale = overview(box=(190, 40, 230, 160), seed=1).astype(float)
    relative = pale[:, 190:230] / GLASS
    image[:, 190:230] = GLASS * np.where(relative < 1, relative, 1) ** 0.25  # a quarter of the dye
    mask = tissue_mask(image.astype(np.uint8), mpp=8.0)
    assert mask[60:140, 195:225].mean() > 0.95


def test_a_slide_without_tissue_has_none_and_one_without_glass_has_all():
    assert not tissue_mask(overview(box=(0, 0, 1, 1)), mpp=8.0).any()
    assert not tissue_mask(np.full((50, 60, 3), 255, dtype=np.uint8), mpp=8.0).any()
    assert tissue_mask(overview(box=(0, 0, 240, 200)), mpp=8.0).mean() > 0.98


def test_black_gaps_and_frames_are_not_tissue():
    image = overview()
    image[:30] = 0
    image[:, :20] = (8, 4, 12)
    mask = tissue_mask(image, mpp=8.0)
    assert not mask[:28].any()
    assert not mask[:, :18].any()
    assert overlap(mask, box_mask(mask.shape, (60, 40, 180, 160))) > 0.95


@pytest.mark.parametrize(
    "color",
    [(30, 70, 180), (20, 120, 60), (20, 20, 25), (110, 150, 225)],
    ids=["blue", "green", "black", "pale blue"],
)
def test_pen_marks_are_not_tissue(color):
    image = overview()
    image[:, 20:30] = color  # beside the tissue
    image[90:100, 40:140] = color  # across it
    mask = tissue_mask(image, mpp=8.0)
    assert not mask[:, 18:32].any()
    assert not mask[90:100, 45:135].any()
    assert mask[50:80, 70:170].mean() > 0.95
    ink = ink_mask(image, mpp=8.0)
    assert ink[92:98, 45:135].all()
    assert not ink[50:80, 70:170].any()


def test_stains_of_pathology_are_not_taken_for_ink():
    # hematoxylin, eosin, DAB alone and mixed (optical densities of Ruifrok and Johnston 2001)
    dyes = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    rng = np.random.default_rng(0)
    amounts = np.concatenate([np.eye(3) * a for a in (0.3, 0.8, 1.3)] + [rng.random((91, 3))])
    colors = (np.array(GLASS) * np.exp(-amounts @ dyes)).astype(np.uint8)
    image = np.empty((200, 400, 3), dtype=np.uint8)
    image[:] = GLASS
    image[50:150] = np.repeat(colors.reshape(1, 100, 3), 4, axis=1)
    assert not ink_mask(image, mpp=8.0).any()


@pytest.mark.parametrize("mpp", [4.0, 8.0])
def test_parts_out_of_focus_are_not_tissue(mpp):
    image = overview(400, 300, box=(40, 40, 360, 260))
    blurred = np.stack(
        [ndimage.gaussian_filter(image[..., c].astype(float), 16 / mpp) for c in range(3)], axis=-1
    )
    image[100:200, 100:200] = blurred[100:200, 100:200]
    mask = tissue_mask(image, mpp=mpp)
    assert mask[105:195, 105:195].mean() < 0.05
    assert mask[100:200, 240:340].mean() > 0.95
    assert mask[50:80, 50:350].mean() > 0.95


def test_small_pieces_are_dropped_and_small_holes_filled():
    image = overview()
    image[10:16, 10:16] = (200, 100, 180)  # 48 um: 2304 um^2
    image[90:96, 100:106] = GLASS
    mask = tissue_mask(image, mpp=8.0)
    assert not mask[:35].any()
    assert mask[85:100, 95:110].all()
    strict = tissue_mask(image, mpp=8.0, min_area=0.0, max_hole=0.0)
    assert strict[11:15, 11:15].any()
    assert not strict[91:95, 101:105].all()
    assert not tissue_mask(image, mpp=8.0, min_area=1e7).any()


def test_tufts_in_airspaces_are_no_debris():
    """Pieces of 48 um, 72 um apart: together much tissue; 320 um apart: debris."""
    near, far = np.full((2, 200, 200, 3), GLASS, dtype=np.uint8)
    for row in range(40, 160, 15):
        for column in range(40, 160, 15):
            near[row : row + 6, column : column + 6] = (200, 100, 180)
    for row in range(10, 190, 46):
        for column in range(10, 190, 46):
            far[row : row + 6, column : column + 6] = (200, 100, 180)
    mask = tissue_mask(near, mpp=8.0)
    assert mask[40:46, 40:46].all() and mask[145:151, 145:151].all()
    assert 0.9 < mask.sum() / (64 * 36) < 2.0, "the air between them is no tissue"
    assert not tissue_mask(far, mpp=8.0).any()
    assert not tissue_mask(near, mpp=8.0, min_area=1e6).any()


def test_the_planes_of_a_large_overview_are_not_all_held_at_once():
    image = overview(800, 1000, box=(100, 100, 700, 800))
    tracemalloc.start()
    mask = tissue_mask(image, mpp=8.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mask.any() and peak < 30 * mask.size, "bytes; a float plane takes 4 per pixel"


def test_a_threshold_of_ones_own():
    image = overview()
    assert not tissue_mask(image, mpp=8.0, threshold=0.95).any()
    assert tissue_mask(image, mpp=8.0, threshold=0.1).any()


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (np.zeros((5, 5), dtype=np.uint8), {}, "8-bit RGB"),
        (np.zeros((5, 5, 3)), {}, "8-bit RGB"),
        (np.zeros((0, 5, 3), dtype=np.uint8), {}, "8-bit RGB"),
        (overview(), {"mpp": 0}, "mpp must be positive"),
        (overview(), {"threshold": 30}, "between 0 and 1"),
        (overview(), {"min_area": -1}, "not be negative"),
    ],
)
def test_arguments_are_checked(image, options, message):
    with pytest.raises(ValueError, match=message):
        tissue_mask(image, **{"mpp": 8.0, **options})


# --- classes of different stain -----------------------------------------------------------------


def classes_of_stain(densities, glass, seed=0, side=56, margin=56):
    """Bands of tissue, one per density; the classes are the rows of a (height, width) map, glass is -1."""
    rng = np.random.default_rng(seed)
    height, width = len(densities) * side + 2 * margin, 5 * side + 2 * margin
    labels = np.full((height, width), -1)
    for number in range(len(densities)):
        rows = slice(margin + number * side, margin + (number + 1) * side)
        labels[rows, margin : width - margin] = number
    # cells about 16 um wide: blue nuclei on pink ground
    nuclei = ndimage.gaussian_filter(rng.normal(size=(height, width)), 1.0)
    nuclei = np.clip(nuclei / nuclei.std(), 0, None)
    ground = ndimage.gaussian_filter(rng.normal(size=(height, width)), 2.0)
    ground = np.clip(0.25 + 0.1 * ground / ground.std(), 0, None)
    dyes = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    density = np.stack([0.5 * nuclei, ground], axis=-1) @ dyes
    factor = np.append(densities, 0.0)[labels]
    image = np.exp(-density * factor[..., np.newaxis]) * glass
    image += rng.normal(0, 0.7, image.shape)
    return np.clip(np.round(image), 0, 255).astype(np.uint8), labels


def kept_windows(mask, labels, side=28):
    """Share of the windows of each class, and of glass if any, that are at least a quarter tissue."""
    rows, columns = labels.shape[0] // side, labels.shape[1] // side
    fraction = mask.reshape(rows, side, columns, side).mean(axis=(1, 3))
    label = labels[::side, ::side]
    numbers = [*range(labels.max() + 1), *([-1] if labels.min() < 0 else [])]
    return [(fraction[label == number] >= 0.25).mean() for number in numbers]


TINTS = [(243, 241, 244), (255, 255, 255), (240, 232, 218), (226, 233, 242), (180, 178, 182)]


@pytest.mark.parametrize("glass", TINTS, ids=str)
@pytest.mark.parametrize("densities", [(1, 1 / 3), (1 / 3, 1, 0.6, 1 / 3), (1 / 3, 1 / 3)], ids=str)
def test_every_class_is_kept_however_pale_beside_darker_ones(densities, glass):
    image, labels = classes_of_stain(densities, glass)
    *tissue, of_glass = kept_windows(tissue_mask(image, mpp=8.0), labels)
    assert tissue == [1.0] * len(densities)
    assert of_glass == 0.0


@pytest.mark.parametrize("glass", [TINTS[0], TINTS[2], TINTS[4]], ids=str)
@pytest.mark.parametrize("densities", [(1, 1), (1, 1 / 3), (1 / 3, 1 / 3)], ids=str)
def test_a_crop_without_glass_keeps_all_of_its_tissue(densities, glass):
    image, labels = classes_of_stain(densities, glass, margin=0)
    assert not find_glass(image, 8.0).is_seen
    assert kept_windows(tissue_mask(image, mpp=8.0), labels) == [1.0, 1.0]


def test_the_same_patches_at_any_resolution_of_the_overview():
    fine, labels = classes_of_stain((1, 1 / 3, 0.6), (240, 232, 218), side=112, margin=112)
    for factor in (1, 2, 4):
        shape = [n // factor for n in fine.shape[:2]]
        image = fine.reshape(shape[0], factor, shape[1], factor, 3).mean(axis=(1, 3)) + 0.5
        mask = tissue_mask(image.astype(np.uint8), mpp=4.0 * factor)
        assert kept_windows(mask, labels[::factor, ::factor], 56 // factor) == [1, 1, 1, 0]


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_the_same_pixels_give_the_same_patches_at_any_magnification(tmp_path, mpp):
    small, labels = classes_of_stain((1, 1 / 3), GLASS, side=112, margin=224)
    pixels = small.repeat(2, axis=0).repeat(2, axis=1)
    path = write_slide(tmp_path / "s.tif", pixels, mpp=mpp, compression=None)
    with open_slide(path) as slide:
        kept = tissue_grid(slide, slide.grid(patch_mpp=mpp, size=224))
    assert_array_equal(kept.cells, np.argwhere(labels[::112, ::112] >= 0))


def test_white_that_the_scanner_left_is_not_taken_for_the_glass():
    image, labels = classes_of_stain((1, 1 / 3), (224, 220, 228))
    white = np.full((image.shape[0], 112, 3), 255, dtype=np.uint8)
    padded = np.concatenate([image, white], axis=1)
    assert_allclose(find_glass(padded, 8.0).color, (224, 220, 228), atol=1)
    labels = np.pad(labels, ((0, 0), (0, 112)), constant_values=-1)
    assert kept_windows(tissue_mask(padded, mpp=8.0), labels) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("tint", [(236, 228, 215), (230, 232, 240), (240, 236, 230)], ids=str)
def test_glass_of_another_tint_on_the_same_slide_is_no_tissue(tint):
    image, labels = classes_of_stain((1, 1 / 3), GLASS)
    other = np.full((image.shape[0], 168, 3), tint) + np.random.default_rng(0).normal(
        0, 0.7, (image.shape[0], 168, 3)
    )
    image = np.concatenate([image, np.round(other).astype(np.uint8)], axis=1)
    labels = np.pad(labels, ((0, 0), (0, 168)), constant_values=-1)
    assert kept_windows(tissue_mask(image, mpp=8.0), labels) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("glass", TINTS, ids=str)
@pytest.mark.parametrize("densities", [(1, 1), (1 / 3, 1 / 3)], ids=str)
def test_the_color_of_the_glass(densities, glass):
    found = find_glass(classes_of_stain(densities, glass)[0], 8.0)
    assert found.is_seen
    assert_allclose(found.color, np.minimum(glass, 254.5), atol=1)


@pytest.mark.parametrize("shape", [(1, 1), (5, 40), (8, 8), (17, 9)])
def test_glass_of_tiny_pictures(shape):
    image = np.full((*shape, 3), 240, dtype=np.uint8)
    assert find_glass(image, 8.0).color == [240, 240, 240]
    assert not tissue_mask(image, mpp=8.0).any()


def test_airspaces_belong_to_the_tissue_around_them_when_patches_are_chosen(tmp_path):
    """Tufts of 16 um, 48 um apart, in four by four windows: a sixteenth of the area is stained."""
    image = np.full((336, 336, 3), GLASS, dtype=np.uint8)
    place = np.arange(336)
    of_tuft = (place >= 112) & (place < 224) & (place % 8 < 2)
    image[np.ix_(of_tuft, of_tuft)] = (205, 160, 190)
    pixels = image.repeat(8, axis=0).repeat(8, axis=1)
    path = write_slide(tmp_path / "s.tif", pixels, mpp=1.0, compression=None)
    with open_slide(path) as slide:
        grid = slide.grid(patch_mpp=1.0, size=224)
        mask = tissue_mask(slide.thumbnail(8.0), mpp=8.0)
        assert tissue_fraction(mask, grid, slide.dimensions).max() < 0.25
        kept = tissue_grid(slide, grid)
    assert_array_equal(np.unique(kept.cells), [4, 5, 6, 7])
    assert len(kept) == 16, "and the glass around is left out"


# --- share of a patch ---------------------------------------------------------------------------


@settings(deadline=None)  # the oracle loops over up to a thousand windows
@given(
    width=st.integers(20, 300),
    height=st.integers(20, 300),
    columns=st.integers(5, 40),
    seed=st.integers(0, 99),
    edge=st.sampled_from(["drop", "pad"]),
    overlap=st.integers(0, 9),
)
def test_fractions_equal_a_count_of_pixels(width, height, columns, seed, edge, overlap):
    # oracle: the mask enlarged to level 0, where each of its pixels is a whole number of pixels
    rng = np.random.default_rng(seed)
    factor = max(1, width // columns)
    mask = rng.random((max(1, height // factor), max(1, width // factor))) < 0.5
    full = np.repeat(np.repeat(mask, factor, axis=0), factor, axis=1)
    dimensions = full.shape[::-1]
    grid = patch_grid(dimensions, 1.0, patch_mpp=1.7, size=10, overlap=overlap, edge=edge)
    fraction = tissue_fraction(mask, grid, dimensions)
    expected = [
        full[max(y0, 0) : y1, max(x0, 0) : x1].sum() / ((x1 - x0) * (y1 - y0))
        for x0, y0, x1, y1 in grid.boxes
    ]
    assert_allclose(fraction, expected, atol=1e-9)


@given(
    dimensions=st.tuples(st.integers(100, 900), st.integers(100, 900)),
    mask_size=st.integers(10, 60),
    seed=st.integers(0, 99),
    scale=st.floats(1.0, 4.0),
)
def test_every_tissue_pixel_is_counted_in_exactly_one_window(dimensions, mask_size, seed, scale):
    ratio = max(dimensions) / mask_size
    shape = tuple(max(1, round(n / ratio)) for n in dimensions[::-1])
    mask = np.random.default_rng(seed).random(shape) < 0.4
    grid = patch_grid(dimensions, 1.0, patch_mpp=scale, size=40, edge="pad")
    extent = np.prod(grid.boxes[:, 2:] - grid.boxes[:, :2], axis=1)
    tissue = (tissue_fraction(mask, grid, dimensions) * extent).sum()
    assert tissue == pytest.approx(mask.mean() * dimensions[0] * dimensions[1])


def test_what_lies_outside_the_slide_is_no_tissue():
    grid = patch_grid((150, 100), 1.0, patch_mpp=1.0, size=100, edge="pad")
    assert_array_equal(tissue_fraction(np.ones((10, 15)), grid, (150, 100)), [1.0, 0.5])
    wide = grid.concentric(patch_mpp=2.0)
    assert_allclose(tissue_fraction(np.ones((10, 15)), wide, (150, 100)), [0.375, 0.25])


def test_a_mask_of_another_slide_is_refused():
    grid = patch_grid((1000, 500), 1.0, magnification=10, size=100)
    with pytest.raises(ValueError, match="does not have the proportions"):
        tissue_fraction(np.ones((100, 100)), grid, (1000, 500))
    with pytest.raises(ValueError, match="mask must have shape"):
        tissue_fraction(np.ones((10, 20, 3)), grid, (1000, 500))
    assert len(tissue_fraction(np.ones((10, 20)), grid[:0], (1000, 500))) == 0


def test_from_slide_to_tissue_patches(tmp_path):
    pixels = np.empty((2000, 2600, 3), dtype=np.uint8)
    pixels[:] = GLASS
    pixels[400:1600, 600:2000] = texture(1400, 1200)
    path = write_slide(tmp_path / "s.tif", pixels, n_levels=4)
    with open_slide(path) as slide:
        mask = tissue_mask(slide.thumbnail(8.0), mpp=8.0)
        grid = slide.grid(magnification=10, size=50)
        inside = (grid.boxes[:, :2] >= (650, 450)).all(1) & (grid.boxes[:, 2:] <= (1950, 1550)).all(
            1
        )
        outside = (grid.boxes[:, 0] > 2050) | (grid.boxes[:, 2] < 550)
        fraction = tissue_fraction(mask, grid, slide.dimensions)
        assert fraction[inside].min() > 0.95
        assert fraction[outside].max() < 0.05


def test_tissue_of_a_real_slide(real_data):
    with open_slide(real_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        for mpp in (4.0, 8.0):
            mask = tissue_mask(slide.thumbnail(mpp), mpp=mpp)
            assert 0.30 < mask.mean() < 0.40  # checked by eye
            height, width = mask.shape
            assert mask[:, : width // 5].mean() < 0.1
            assert mask[int(0.8 * height), int(0.45 * width)]
            assert not mask[int(0.1 * height), int(0.9 * width)]
