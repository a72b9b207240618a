"""Reading slides: right pixels at a physical resolution, or an error that names the slide."""

import gc
import importlib.util
import logging
import multiprocessing
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import ImageCms
from slide_files import (
    damage_tile,
    halve,
    stored_pixels,
    texture,
    write_mrxs,
    write_ndpi,
    write_slide,
)

import proportion_ssl.slides.reading._handle as handle_module
import proportion_ssl.slides.reading._jpeg_tiles as tiff_tiles
import proportion_ssl.slides.reading.slide as reader_module
from proportion_ssl.slides import SlideError, open_slide, patch_grid
from proportion_ssl.slides.reading._handle import TileCache
from proportion_ssl.slides.reading._large_image import LargeImageTiles
from proportion_ssl.slides.reading._pixels import to_rgb
from proportion_ssl.slides.reading._resample import make_plan, resample
from proportion_ssl.slides.reading._tiff_content import inspect_tiff


@pytest.fixture(scope="module")
def pixels():
    return texture(1100, 900)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory, pixels):
    """Generic TIFF of three levels, downsamples exactly 1, 2, 4 (no level has a rest)."""
    path = tmp_path_factory.mktemp("slides") / "pyramid.tif"
    return write_slide(path, pixels, n_levels=3, mpp=0.5)


@pytest.fixture(scope="module")
def odd_pyramid(tmp_path_factory):
    """Levels of 1101 x 899, 550 x 449: downsamples that are no whole numbers."""
    path = tmp_path_factory.mktemp("slides") / "odd.tif"
    return write_slide(path, texture(1101, 899, seed=1), n_levels=2, mpp=0.5)


def area_average(pixels, x0, y0, x1, y1, size):
    """Slow oracle: average over the exact area of each output pixel, white outside."""
    out = np.empty((size[1], size[0], 3))
    for row in range(size[1]):
        for column in range(size[0]):
            left, right = (x0 + (x1 - x0) * (column + i) / size[0] for i in (0, 1))
            top, bottom = (y0 + (y1 - y0) * (row + i) / size[1] for i in (0, 1))
            total = weight = 0.0
            for y in range(int(np.floor(top)), int(np.ceil(bottom))):
                for x in range(int(np.floor(left)), int(np.ceil(right))):
                    share = (min(right, x + 1) - max(left, x)) * (min(bottom, y + 1) - max(top, y))
                    inside = 0 <= y < pixels.shape[0] and 0 <= x < pixels.shape[1]
                    total = total + share * (pixels[y, x].astype(float) if inside else 255.0)
                    weight += share
            out[row, column] = total / weight
    return out


# --- pixels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("aperio", [False, True])
def test_level_0_equals_openslide_pixel_by_pixel(tmp_path, pixels, aperio, fast):
    path = write_slide(tmp_path / "s.svs", pixels, aperio=aperio, mpp=0.5, magnification=20)
    with open_slide(path, fast=fast) as slide, openslide.OpenSlide(path) as other:
        assert slide.fast_levels == ((0,) if fast else ())
        expected = np.asarray(other.read_region((0, 0), 0, other.dimensions))[..., :3]
        ours = slide.read_region((0, 0, *slide.dimensions), slide.dimensions)
        assert_array_equal(ours, expected)
        assert_array_equal(ours, stored_pixels(path, 0))


@pytest.mark.parametrize("fast", [True, False])
def test_a_stored_resolution_is_read_unresampled(pyramid, fast):
    with open_slide(pyramid, fast=fast) as slide:
        assert slide.fast_levels == ((0, 1, 2) if fast else ())
        for level, factor in enumerate((1, 2, 4)):
            stored = stored_pixels(pyramid, level)
            box = (40, 120, 40 + 160 * factor, 120 + 112 * factor)
            x, y = 40 // factor, 120 // factor
            assert_array_equal(slide.read_region(box, (160, 112)), stored[y : y + 112, x : x + 160])


def test_levels_of_odd_size_are_read_unresampled_by_the_faster_path(odd_pyramid):
    # OpenSlide's downsample of level 1 is 2.002, so that its own pixels are interpolated there
    stored = stored_pixels(odd_pyramid, 1)
    with open_slide(odd_pyramid) as slide, open_slide(odd_pyramid, fast=False) as reference:
        assert slide.fast_levels == (0, 1)
        assert [level.dimensions for level in slide.levels] == [(1101, 899), (550, 449)]
        assert_array_equal(slide.read_region((600, 400, 800, 600), 100), stored[200:300, 300:400])
        shifted = reference.read_region((600, 400, 800, 600), 100).astype(int)
        assert 0 < np.abs(shifted - stored[200:300, 300:400]).mean() < 8


@pytest.mark.parametrize("fast", [True, False])
def test_a_missing_resolution_is_the_block_mean_of_the_next_finer_level(tmp_path, pixels, fast):
    # the kernel is ours: neither Lanczos nor nearest neighbor, whichever source reads the file
    path = write_slide(tmp_path / "s.tif", pixels, n_levels=3, skip=(1,), mpp=0.5)
    with open_slide(path, fast=fast) as slide:
        assert [level.factor for level in slide.levels] == [1.0, 4.0]
        record = slide.describe_reading(patch_mpp=1.0)
        assert record["source"] == "openslide"
        assert record["kernel"] == "mean of blocks of 2 x 2 stored pixels"
        assert (record["level"], record["read_mpp"]) == (0, 1.0)
        stored = stored_pixels(path, 0).astype(int)
        block = stored[100:500, 200:600].reshape(200, 2, 200, 2, 3).sum(axis=(1, 3))
        assert_array_equal(slide.read_region((200, 100, 600, 500), 200), (block + 2) // 4)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("box", [(100, 50, 177, 127), (-13, -5, 49, 57), (1060, 880, 1122, 942)])
def test_other_scales_average_over_the_exact_area(tmp_path, pixels, box, fast):
    path = write_slide(tmp_path / "s.tif", pixels)
    with open_slide(path, fast=fast) as slide:
        ours = slide.read_region(box, (24, 20)).astype(float)
        assert slide.describe_reading(0.5 * 77 / 24)["kernel"] == "average over the exact area"
    assert np.abs(ours - area_average(stored_pixels(path, 0), *box, (24, 20))).max() <= 0.51


def test_both_ways_of_decoding_agree_for_every_kernel(pyramid):
    with open_slide(pyramid) as fast, open_slide(pyramid, fast=False) as reference:
        for magnification in (20, 10, 8, 7.3, 5, 2):
            grid = fast.grid(magnification=magnification, size=64, edge="pad")
            ours = np.concatenate(list(fast.read_patches(grid)))
            assert_array_equal(ours, np.concatenate(list(reference.read_patches(grid))))


def test_batches_hold_the_same_pixels_as_single_regions(pyramid):
    with open_slide(pyramid) as slide:
        grid = slide.grid(magnification=7.3, size=(48, 40), overlap=8, edge="pad")[::-1]
        batches = np.concatenate(list(slide.read_patches(grid, batch_size=7)))
        for patch, box in zip(batches, grid.boxes, strict=True):
            assert_array_equal(patch, slide.read_region(box, grid.size))


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    x=st.integers(-300, 1300),
    y=st.integers(-300, 1100),
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size=st.tuples(st.integers(1, 64), st.integers(1, 64)),
)
def test_every_box_gives_exactly_the_size_asked_for_at_any_offset(
    pyramid, x, y, width, height, size
):
    size = (min(size[0], width), min(size[1], height))
    with open_slide(pyramid) as slide:
        patch = slide.read_region((x, y, x + width, y + height), size)
    assert patch.shape == (size[1], size[0], 3)
    if x >= 1100 or y >= 900 or x + width <= 0 or y + height <= 0:
        assert patch.min() == 255


@pytest.mark.parametrize("size", [63, 64])
@pytest.mark.parametrize("x", [100, 101])
@pytest.mark.parametrize(("scale", "extra"), [(1, 0), (1, 1), (2, -1), (2, 0), (2, 1), (3, 1)])
def test_whole_pixels_are_read_where_a_box_is_a_pixel_off(tmp_path, pixels, scale, extra, x, size):
    """449 level-0 pixels for 224: whole blocks, no half of them, wherever the box begins."""
    width = scale * size + extra
    path = write_slide(tmp_path / "s.tif", pixels[:512, :512], compression=None)
    stored = pixels.astype(int)
    with open_slide(path) as slide:
        patch = slide.read_region((x, x, x + width, x + width), size)
    candidates = []
    for start in range(x - 1, x + 2):
        block = stored[start : start + scale * size, start : start + scale * size]
        block = block.reshape(size, scale, size, scale, 3).sum(axis=(1, 3))
        candidates.append(np.array_equal(patch, (block + scale**2 // 2) // scale**2))
    assert patch.shape == (size, size, 3) and sum(candidates) == 1


def test_parts_outside_the_slide_are_white_and_never_cropped(pyramid):
    stored = stored_pixels(pyramid, 0)
    with open_slide(pyramid) as slide:
        patch = slide.read_region((1000, 800, 1224, 1024), 224)
        assert patch.shape == (224, 224, 3)
        assert_array_equal(patch[:100, :100], stored[800:, 1000:])
        assert patch[100:].min() == 255
        assert patch[:, 100:].min() == 255
        grid = slide.grid(magnification=20, edge="pad")
        assert {p.shape for p in np.concatenate(list(slide.read_patches(grid)))} == {(224, 224, 3)}


def test_a_large_region_is_averaged_in_strips_with_the_same_result(monkeypatch, pyramid):
    with open_slide(pyramid) as slide:
        whole = slide.thumbnail(mpp=0.5 * 900 / 123)
        by_blocks = slide.read_region((0, 0, 1000, 900), (200, 180))
        monkeypatch.setattr("proportion_ssl.slides.reading._resample.STRIP_PIXELS", 1100 * 40)
        assert np.abs(slide.thumbnail(mpp=0.5 * 900 / 123).astype(int) - whole).max() <= 1
        assert_array_equal(slide.read_region((0, 0, 1000, 900), (200, 180)), by_blocks)


def test_the_thumbnail_covers_the_slide_to_its_borders(tmp_path):
    pixels = np.full((700, 1010, 3), 200, dtype=np.uint8)
    pixels[-7:], pixels[:, -10:] = 0, 0
    path = write_slide(tmp_path / "s.tif", pixels, compression=None)
    with open_slide(path) as slide:
        thumbnail = slide.thumbnail(mpp=0.5 * 9.95)  # 2% off 10 would lose 5 pixels at each side
        assert thumbnail.shape == (70, 102, 3)
        assert thumbnail[-1].max() <= 200 * 3 / 10 + 1
        assert thumbnail[:-1, -1].max() == 0
        assert slide.thumbnail(mpp=0.01).shape == (700, 1010, 3)
        with pytest.raises(ValueError, match="mpp must be positive"):
            slide.thumbnail(0)


# --- resolution ---------------------------------------------------------------------------------


def test_without_resolution_metadata_nothing_is_guessed(tmp_path, pixels):
    path = write_slide(tmp_path / "nameless.tif", pixels, mpp=None)
    with pytest.raises(SlideError, match=r"nameless\.tif has no resolution metadata.*Give.*mpp="):
        open_slide(path)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25
        boxes = slide.grid(magnification=10, size=100).boxes
        assert_array_equal(boxes[0], [0, 0, 400, 400])
        # four times coarser, not base pixels
        expected = stored_pixels(path, 0)[:400, :400].reshape(100, 4, 100, 4, 3).mean((1, 3))
        assert np.abs(slide.read_region(boxes[0], 100) - expected).max() <= 0.5


def test_a_nominal_magnification_alone_is_no_resolution_but_a_hint(tmp_path, pixels):
    path = write_slide(tmp_path / "s.svs", pixels, aperio=True, mpp=None, magnification=20)
    with pytest.raises(SlideError, match=r"20x, which by convention is 0\.5 microns per pixel"):
        open_slide(path)


def test_microns_decide_not_the_nominal_magnification(tmp_path):
    # a "40x" scan of 0.2527 um: four stored pixels are 1.0108 um, and 224 patch pixels 886.43
    pixels = texture(1024, 1024)
    path = write_slide(
        tmp_path / "s.svs", pixels, aperio=True, n_levels=3, skip=(1,), mpp=0.2527, magnification=40
    )
    with open_slide(path) as slide:
        assert slide.magnification == 40
        assert slide.mpp == 0.2527
        assert_array_equal(slide.grid(magnification=10).boxes, [[0, 0, 886, 886]])
        record = slide.describe_reading(patch_mpp=1.0)
        assert record["read_mpp"] == pytest.approx(1.0108)
        assert (record["level_factor"], record["kernel"]) == (4.0, "none: stored pixels")
        # beyond the tolerance it is resampled, from the finer level
        record = slide.describe_reading(patch_mpp=1.0108 * 0.95)
        assert (record["level_factor"], record["kernel"]) == (1.0, "average over the exact area")


def test_given_resolution_takes_the_place_of_the_files(pyramid):
    with open_slide(pyramid, mpp=0.3) as slide:
        assert (slide.mpp, slide.mpp_xy) == (0.3, (0.3, 0.3))
    for wrong in (0, -1, np.nan, (1, 2, 3)):
        with pytest.raises(ValueError, match="mpp must be one or two"):
            open_slide(pyramid, mpp=wrong)


def test_pixels_that_are_not_square_give_square_patches(tmp_path):
    # a square of 100 um in a slide with 0.5 x 1.0 um pixels: 200 x 100 of them
    pixels = np.full((600, 800, 3), 255, dtype=np.uint8)
    pixels[100:200, 200:400] = 50
    path = write_slide(tmp_path / "s.tif", pixels, mpp=(0.5, 1.0), compression=None)
    with open_slide(path) as slide:
        assert slide.mpp_xy == (0.5, 1.0)
        assert slide.mpp**2 == pytest.approx(0.5)
        grid = slide.grid(magnification=5, size=100)
        assert_array_equal(grid.boxes[0], [0, 0, 400, 200])
        patch = slide.read_region(grid.boxes[0], 100)
        assert_array_equal(patch[50:, 50:], 50)
        assert patch[:50].min() == patch[:, :50].min() == 255
        assert slide.thumbnail(5.0).shape[:2] == (120, 80)
    with open_slide(path, mpp=(1.0, 1.0)) as slide:
        assert slide.mpp == 1.0


def test_detail_that_the_slide_does_not_have_is_not_invented(pyramid):
    with open_slide(pyramid) as slide:
        with pytest.raises(ValueError, match="enlarging would invent detail"):
            slide.read_region((0, 0, 100, 100), 224)
        assert slide.read_region((0, 0, 222, 222), 224).shape == (224, 224, 3)  # within tolerance


@pytest.mark.parametrize(
    ("box", "size", "error", "message"),
    [
        ((0, 0, 0, 5), 1, ValueError, "x1 > x0"),
        ((0, 0, 5), 1, ValueError, "box must be"),
        ((0, 0, 5.5, 5), 1, TypeError, "box must be integers"),
        ((0, 0, 5, 5), 0, ValueError, "size must be one or two positive"),
        ((0, 0, 5, 5), 2.0, TypeError, "size must be integers"),
    ],
)
def test_boxes_and_sizes_are_checked(pyramid, box, size, error, message):
    with open_slide(pyramid) as slide, pytest.raises(error, match=message):
        slide.read_region(box, size)


# --- colors ------------------------------------------------------------------------------------


def test_transparent_pixels_are_white_not_black(tmp_path):
    pixels = np.zeros((512, 512, 4), dtype=np.uint8)
    pixels[:, 256:] = (200, 100, 50, 255)
    pixels[256:, :256] = (100, 100, 100, 128)
    path = write_slide(
        tmp_path / "s.tif", pixels, compression=None, extrasamples=["unassalpha"], mpp=0.5
    )
    with open_slide(path) as slide:
        patch = slide.read_region((0, 0, 512, 512), 512)
    assert patch.shape == (512, 512, 3)
    assert patch[:256, :256].min() == 255
    assert_array_equal(patch[0, 300], [200, 100, 50])
    assert np.abs(patch[300, 0].astype(int) - (100 * 128 + 255 * 127) // 255).max() <= 1


def test_gray_slides_are_read_as_rgb(tmp_path, pixels):
    gray = np.ascontiguousarray(pixels[..., 1])
    for options in ({"compression": None}, {}):
        path = write_slide(tmp_path / "s.tif", gray, photometric="minisblack", **options)
        with open_slide(path) as slide:
            assert slide.fast_levels == (() if options else (0,))
            patch = slide.read_region((0, 0, 300, 300), 300)
        stored = stored_pixels(path, 0)[:300, :300]
        assert_array_equal(patch, np.repeat(stored[..., np.newaxis], 3, axis=2))


def test_channels_of_other_sources():
    gray = np.array([[0, 100]], dtype=np.uint8)
    assert_array_equal(to_rgb(gray), np.repeat(gray[..., None], 3, axis=2))
    gray_alpha = np.array([[[0, 0], [100, 255]]], dtype=np.uint8)
    assert_array_equal(to_rgb(gray_alpha)[0], [[255] * 3, [100] * 3])
    with pytest.raises(ValueError, match="8 bits"):
        to_rgb(np.zeros((2, 2, 3), dtype=np.uint16))
    with pytest.raises(ValueError, match="1 to 4 channels"):
        to_rgb(np.zeros((2, 2, 5), dtype=np.uint8))


def test_color_profiles_are_not_applied(tmp_path, pixels):
    # a profile that takes red for blue: pixels that went through it would show
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace(b"rXYZ", b"????", 1).replace(b"bXYZ", b"rXYZ", 1)
    profile = profile.replace(b"????", b"bXYZ", 1)
    path = write_slide(tmp_path / "s.tif", pixels, iccprofile=profile)
    stored = stored_pixels(path, 0)[:256, :256]
    with open_slide(path, fast=False) as slide:
        assert_array_equal(slide.read_region((0, 0, 256, 256), 256), stored)
        source = slide._handle().reference._tiles
        corrected = source.getTile(0, 0, source.levels - 1, numpyAllowed="always")[..., :3]
        assert np.abs(corrected.astype(int) - stored).mean() > 10


def test_label_masks_are_refused_so_that_no_label_is_invented(tmp_path):
    labels = np.zeros((512, 512), dtype=np.uint8)
    labels[100:300, 100:300] = 6
    table = np.zeros((3, 256), dtype=np.uint16)
    path = write_slide(
        tmp_path / "labels.tif", labels, photometric="palette", colormap=table, compression=None
    )
    with pytest.raises(SlideError, match=r"labels\.tif has a color table.*read_label_map"):
        open_slide(path)


# --- the faster path ----------------------------------------------------------------------------


def test_the_faster_path_is_not_taken_where_its_pixels_differ(monkeypatch, tmp_path, pixels):
    path = write_slide(tmp_path / "s.svs", pixels, n_levels=2, aperio=True, mpp=0.5)
    monkeypatch.setattr(tiff_tiles, "_PHOTOMETRIC", {1: None, 2: 1, 6: 0})  # RGB taken for YCbCr
    with open_slide(path) as slide:
        assert slide.fast_levels == ()
        assert_array_equal(
            slide.read_region((0, 0, 300, 300), 300), stored_pixels(path, 0)[:300, :300]
        )


def test_every_level_is_proven_equal_by_itself(monkeypatch, odd_pyramid):
    decode = tiff_tiles.TiffTiles.read_tile

    def slightly_wrong(self, level, column, row):
        tile = decode(self, level, column, row)
        return tile if level == 0 else np.roll(tile, 1, axis=1)

    monkeypatch.setattr(tiff_tiles.TiffTiles, "read_tile", slightly_wrong)
    with open_slide(odd_pyramid) as slide:
        assert slide.fast_levels == (0,)


def test_other_compressions_are_read_through_the_source(tmp_path, pixels):
    path = write_slide(tmp_path / "s.tif", pixels, compression=None)
    with open_slide(path) as slide:
        assert slide.fast_levels == ()
        assert_array_equal(slide.read_region((5, 6, 305, 306), 300), pixels[6:306, 5:305])


def test_a_pass_over_a_grid_decodes_each_tile_once(monkeypatch, pyramid):
    decoded = []
    decode = tiff_tiles.TiffTiles.read_tile

    def counted(self, level, column, row):
        decoded.append((level, column, row))
        return decode(self, level, column, row)

    with open_slide(pyramid) as slide:
        grid = slide.grid(magnification=20, size=100, edge="pad")
        monkeypatch.setattr(tiff_tiles.TiffTiles, "read_tile", counted)
        n = sum(len(batch) for batch in slide.read_patches(grid, batch_size=10))
    assert n == len(grid) == 99
    assert sorted(decoded) == [(0, column, row) for column in range(5) for row in range(4)]


def test_decoded_tiles_are_kept_within_a_number_of_bytes(monkeypatch, pyramid):
    held = []
    get = TileCache.get

    def watched(self, key, decode):
        tile = get(self, key, decode)
        held.append(sum(t.nbytes for t in self._tiles.values()))
        assert self.n_bytes == held[-1]
        return tile

    monkeypatch.setattr(TileCache, "get", watched)
    monkeypatch.setattr(handle_module, "REGION_CACHE_BYTES", 3 * 256 * 256 * 3)
    monkeypatch.setattr(reader_module, "BAND_CACHE_BYTES", 4 * 256 * 256 * 3)
    with open_slide(pyramid) as slide:
        grid = slide.grid(magnification=20, size=100, edge="pad")
        expected = [slide.read_region(box, 100) for box in grid.boxes]
        assert max(held) == 3 * 256 * 256 * 3
        held.clear()
        assert_array_equal(np.concatenate(list(slide.read_patches(grid))), expected)
        assert max(held) == 4 * 256 * 256 * 3


def test_a_pass_over_a_grid_keeps_only_the_tiles_that_are_still_needed(monkeypatch, tmp_path):
    path = write_slide(tmp_path / "tall.tif", texture(300, 2560))
    held = []
    get = TileCache.get

    def watched(self, key, decode):
        tile = get(self, key, decode)
        held.append(len(self._tiles))
        return tile

    monkeypatch.setattr(TileCache, "get", watched)
    with open_slide(path) as slide:
        list(slide.read_patches(slide.grid(magnification=20, size=100)))
    assert max(held) <= 4  # two rows of two, of ten rows
    assert held[-1] == 0


def test_large_images_tile_cache_does_not_grow(pyramid):
    # its own is sized to a share of the machine's memory, per process
    with open_slide(pyramid, fast=False) as slide:
        list(slide.read_patches(slide.grid(magnification=20, size=50)))
        source = slide._handle().reference._tiles
        assert source.cache.maxsize <= 2
        assert len(source.cache) <= 2


def test_batches_are_not_padded(pyramid):
    with open_slide(pyramid) as slide:
        grid = slide.grid(magnification=20, size=100)
        batches = list(slide.read_patches(grid, batch_size=64))
        assert [len(batch) for batch in batches] == [64, len(grid) - 64]
        assert min(batch.mean(axis=(1, 2, 3)).min() for batch in batches) > 50
        assert list(slide.read_patches(grid[:0])) == []
        with pytest.raises(ValueError, match="batch_size"):
            next(slide.read_patches(grid, batch_size=0))


# --- broken files -------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_a_damaged_tile_is_an_error_that_names_slide_and_box(tmp_path, pixels, keep, fast):
    path = write_slide(tmp_path / "damaged.tif", pixels)
    damage_tile(path, index=6, keep=keep)  # column 1, row 1
    good = undamaged_pixels(path)
    with open_slide(path, fast=fast) as slide:
        grid = slide.grid(magnification=20, size=256)
        with pytest.raises(SlideError, match=r"damaged\.tif.*\(256, 256, 512, 512\).*damaged"):
            list(slide.read_patches(grid))
        with pytest.raises(SlideError, match=r"damaged\.tif.*\(300, 300, 310, 310\)"):
            slide.read_region((300, 300, 310, 310), 10)
        # the rest of the slide can still be read
        assert_array_equal(slide.read_region((0, 0, 250, 250), 250), good[:250, :250])
        assert_array_equal(slide.read_region((512, 0, 1024, 512), 512), good[:512, 512:1024])


def undamaged_pixels(path):
    """Tiles that decode, by tifffile, others left black."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        out = np.zeros((page.imagelength, page.imagewidth, 3), dtype=np.uint8)
        for index in range(len(page.dataoffsets)):
            if index == 6:
                continue
            tif.filehandle.seek(page.dataoffsets[index])
            data = tif.filehandle.read(page.databytecounts[index])
            tile, at, _ = page.decode(data, index)
            target = out[at[2] : at[2] + 256, at[3] : at[3] + 256]
            target[:] = tile[0, : target.shape[0], : target.shape[1]]
    return out


def test_stray_bytes_within_a_tile_are_found_though_decoders_pass_them(tmp_path, pixels):
    # most decoders return such tiles with made-up pixels and a warning at most
    path = write_slide(tmp_path / "s.tif", pixels)
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[0].dataoffsets[1], tif.pages[0].databytecounts[1]
    with open(path, "r+b") as file:
        file.seek(offset + count // 2)
        file.write(bytes(count // 4))
    with open_slide(path) as slide, pytest.raises(SlideError, match="cannot be read"):
        slide.read_region((300, 0, 400, 100), 100)


def test_an_empty_tile_is_glass(tmp_path, pixels):
    path = write_slide(tmp_path / "s.tif", pixels)
    with tifffile.TiffFile(path, mode="r+") as tif:
        page = tif.pages[0]
        counts = list(page.databytecounts)
        counts[0] = 0
        page.tags["TileByteCounts"].overwrite(counts)
    for fast in (True, False):
        with open_slide(path, fast=fast) as slide:
            assert slide.read_region((0, 0, 256, 256), 256).min() == 255
            assert slide.read_region((256, 0, 512, 256), 256).min() < 200


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.98])
def test_truncated_files_are_found_at_open(tmp_path, pixels, keep):
    path = write_slide(tmp_path / "truncated.tif", pixels, n_levels=2)
    whole = os.path.getsize(path)
    os.truncate(path, int(whole * keep))
    with pytest.raises(SlideError, match=r"truncated\.tif"):
        open_slide(path)


def test_the_message_of_a_truncated_file_says_so(tmp_path, pixels):
    path = write_slide(tmp_path / "s.tif", pixels)  # tifffile writes the directory first
    os.truncate(path, os.path.getsize(path) - 1000)
    with pytest.raises(SlideError, match=r"s\.tif is truncated: .* tiles .*beyond the end"):
        open_slide(path)


@pytest.mark.parametrize(
    ("tag", "value"),
    [("TileWidth", 2**24), ("TileWidth", 16), ("ImageWidth", 2**30), ("ImageLength", 2**30)],
)
def test_sizes_that_cannot_be_are_found_before_memory_is_asked_for(tmp_path, pixels, tag, value):
    # OpenSlide ends the whole process when it cannot allocate a tile
    path = write_slide(tmp_path / "huge.tif", pixels, compression=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages[0].tags[tag].overwrite(value, dtype=4)
    with pytest.raises(SlideError, match=r"huge\.tif is damaged: its .* image is said to have"):
        open_slide(path)


@pytest.mark.slow
def test_changed_bytes_end_in_an_error_of_ours_or_in_pixels(tmp_path, caplog):
    # the directories of a TIFF, a few bytes of them changed at random
    caplog.set_level(logging.CRITICAL, logger="tifffile")
    path = write_slide(tmp_path / "s.tif", texture(600, 500), n_levels=2)
    whole = np.fromfile(path, dtype=np.uint8)
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(150):
        changed = whole.copy()
        changed[rng.integers(0, 700, 3)] = rng.integers(0, 256, 3)
        changed.tofile(path)
        try:
            with open_slide(path, mpp=0.5) as slide:
                patches = slide.read_patches(slide.grid(magnification=20, size=64)[:20])
                outcomes.append({patch.shape[1:] for patch in patches})
        except SlideError as error:
            assert "s.tif" in str(error)
            outcomes.append("error")
    assert {(64, 64, 3)} in outcomes
    assert "error" in outcomes


@pytest.mark.parametrize(
    "content", [b"", b"not a slide", b"\x89PNG\r\n\x1a\n" + bytes(100), b"II*\x00" + b"\xff" * 64]
)
def test_files_of_another_kind_are_named(tmp_path, content):
    path = tmp_path / "other.svs"
    path.write_bytes(content)
    with pytest.raises(SlideError, match=r"other\.svs cannot be opened"):
        open_slide(path)


def test_missing_files_folders_and_sources_are_named(tmp_path, pyramid):
    with pytest.raises(FileNotFoundError, match="slide not found"):
        open_slide(tmp_path / "none.svs")
    with pytest.raises(SlideError, match="is a folder"):
        open_slide(tmp_path)
    with pytest.raises(ImportError, match=r"source 'nonesuch' cannot be imported.*install"):
        open_slide(pyramid, source="nonesuch")


def test_a_file_rewritten_under_the_same_name_shows_its_new_pixels(tmp_path):
    path = tmp_path / "s.tif"
    for fast in (True, False):
        for value in (10, 200):
            write_slide(path, np.full((512, 512, 3), value, dtype=np.uint8))
            with open_slide(path, fast=fast) as slide:
                assert np.abs(slide.read_region((0, 0, 64, 64), 64).astype(int) - value).max() <= 1


def test_a_slide_that_changed_since_it_was_opened_is_not_read(tmp_path, pixels):
    path = write_slide(tmp_path / "s.tif", pixels)
    with open_slide(path) as slide:
        write_slide(path, pixels[::-1, :700])
        with pytest.raises(SlideError, match=r"s\.tif changed on disk"):
            slide.read_region((0, 0, 64, 64), 64)


# --- handles ------------------------------------------------------------------------------------


def test_use_after_close_is_a_clear_error(pyramid):
    with open_slide(pyramid) as slide:
        slide.read_region((0, 0, 64, 64), 64)
    assert slide.dimensions == (1100, 900)
    with pytest.raises(SlideError, match=r"pyramid\.tif is closed"):
        slide.read_region((0, 0, 64, 64), 64)
    with pytest.raises(SlideError, match="closed"):
        next(slide.read_patches(slide.grid(magnification=20)))
    slide.close()


@pytest.mark.slow
def test_files_are_opened_when_first_read_and_closed_again(tmp_path, pixels):
    path = write_slide(tmp_path / "s.tif", pixels)

    def n_open():
        folder = "/proc/self/fd"
        names = [os.path.join(folder, name) for name in os.listdir(folder)]
        return sum(os.path.realpath(name) == os.path.realpath(path) for name in names)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("open files cannot be counted on this system")
    for fast in (True, False):
        slide = open_slide(path, fast=fast)
        gc.collect()
        assert n_open() == 0
        slide.read_region((0, 0, 64, 64), 64)
        if fast:  # OpenSlide keeps no file open between reads
            assert n_open() > 0
        slide.release()
        gc.collect()
        assert n_open() == 0
        slide.read_region((0, 0, 64, 64), 64)
        thread = threading.Thread(target=slide.read_region, args=((0, 0, 64, 64), 64))
        thread.start()
        thread.join()
        slide.close()
        gc.collect()
        assert n_open() == 0


@pytest.mark.parametrize("fast", [True, False])
def test_pickled_slides_read_the_same_pixels(pyramid, fast):
    with open_slide(pyramid, mpp=0.7, fast=fast) as slide:
        expected = slide.read_region((100, 100, 400, 400), 150)
        copy = pickle.loads(pickle.dumps(slide))
        assert (copy.mpp, copy.fast_levels) == (0.7, slide.fast_levels)
        assert_array_equal(copy.read_region((100, 100, 400, 400), 150), expected)
        copy.close()
        assert_array_equal(slide.read_region((100, 100, 400, 400), 150), expected)


@pytest.mark.parametrize("fast", [True, False])
def test_threads_share_a_slide(pyramid, fast):
    with open_slide(pyramid, fast=fast) as slide:
        grid = slide.grid(magnification=20, size=100)
        expected = np.concatenate(list(slide.read_patches(grid)))
        with ThreadPoolExecutor(4) as pool:
            patches = list(pool.map(lambda box: slide.read_region(box, 100), grid.boxes))
        assert_array_equal(patches, expected)


@pytest.mark.parametrize("fast", [True, False])
def test_no_file_is_read_by_two_threads(pyramid, fast):
    """Seek and read of one file from two threads would mix up tiles, though seldom."""
    with open_slide(pyramid, fast=fast) as slide:
        slide.read_region((0, 0, 100, 100), 100)
        mine = slide._handle()
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(slide._handle).result()
            assert pool.submit(slide._handle).result() is other
        assert slide._handle() is mine and other is not mine
        if fast:
            assert other._jpeg._file.fileno() != mine._jpeg._file.fileno()


def _checksums(slide, boxes):
    return [int(slide.read_region(box, 100).sum()) for box in boxes]


@pytest.mark.slow
@pytest.mark.parametrize("fast", [True, False])
def test_worker_processes_share_a_slide(pyramid, fast):
    with open_slide(pyramid, fast=fast) as slide:
        boxes = slide.grid(magnification=20, size=100).boxes
        expected = _checksums(slide, boxes)  # the parent's file is open from here on
        halves = np.array_split(boxes, 2)
        results = joblib.Parallel(n_jobs=2)(joblib.delayed(_checksums)(slide, h) for h in halves)
        assert [*results[0], *results[1]] == expected


@pytest.mark.slow
@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot fork here"
)
@pytest.mark.parametrize("fast", [True, False])
def test_forked_processes_do_not_share_the_parents_file_position(pyramid, fast):
    with open_slide(pyramid, fast=fast) as slide, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        boxes = slide.grid(magnification=20, size=100).boxes
        expected = _checksums(slide, boxes)
        queue = multiprocessing.get_context("fork").SimpleQueue()

        def work():
            queue.put((slide._handle().pid == os.getpid(), _checksums(slide, boxes)))

        workers = [multiprocessing.get_context("fork").Process(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for _ in range(3):
            assert _checksums(slide, boxes) == expected
        results = [queue.get() for _ in workers]
        for worker in workers:
            worker.join()
        assert results == [(True, expected), (True, expected)]


# --- scanners' frames ---------------------------------------------------------------------------

SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="c" uuid="urn:uuid:1"
 sizeX="2048000" sizeY="1536000"><barcode></barcode><image name="main" uuid="urn:uuid:2">
<creationDate>2020-01-01T00:00:00Z</creationDate><device model="Leica SCN400" version="1"/>
<pixels sizeX="1024" sizeY="768"><dimension sizeX="1024" sizeY="768" r="0" ifd="0"/>
<dimension sizeX="512" sizeY="384" r="1" ifd="1"/></pixels>
<view sizeX="512000" sizeY="384000" offsetX="520000" offsetY="264000" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
<illuminationSettings><numericalAperture>0.4</numericalAperture>
<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings>
</image></collection></scn>"""


def test_slides_with_bounds_are_read_in_openslides_frame(tmp_path):
    # 0.5 um; the scanned part lies at (1040, 528) of a slide of 4096 x 3072
    pixels = texture(1024, 768)
    path = str(tmp_path / "leica.scn")
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    options |= {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(pixels, description=SCN, **options)
        tif.write(halve(pixels), **options)
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert slide.dimensions == other.dimensions == (4096, 3072)
        assert slide.bounds == (1040, 528, 1024, 768)
        assert slide.mpp == 0.5
        for level, factor in enumerate((1, 2)):
            location, size = (1000, 500), (600, 500)
            theirs = to_rgb(np.asarray(other.read_region(location, level, size)))
            box = (1000, 500, 1000 + 600 * factor, 500 + 500 * factor)
            ours = slide.read_region(box, size)
            assert_array_equal(ours, theirs)
            assert ours.min() < 200
            assert ours[0].min() == 255  # above the scanned part
    with open_slide(write_slide(tmp_path / "s.tif", pixels)) as slide:
        assert slide.bounds == (0, 0, 1024, 768)


def test_pyramids_whose_steps_are_no_powers_of_two_are_read_from_a_finer_level(tmp_path):
    pixels = texture(1200, 900)
    third = pixels.reshape(300, 3, 400, 3, 3).mean(axis=(1, 3)).astype(np.uint8)
    path = str(tmp_path / "s.tif")
    options = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        tif.write(pixels, resolution=(2e4, 2e4), resolutionunit="CENTIMETER", **options)
        tif.write(third, subfiletype=1, **options)
    with open_slide(path) as slide:
        assert [level.factor for level in slide.levels] == [1.0]
        patch = slide.read_region((300, 300, 600, 600), 100)
    block = pixels[300:600, 300:600].astype(int).reshape(100, 3, 100, 3, 3).sum(axis=(1, 3))
    assert_array_equal(patch, (block + 4) // 9)


def ome_tiff(path, pixels, n_levels):
    """Lower levels in sub-directories of the first, resolution in OME-XML."""
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg"}
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(pixels, subifds=n_levels - 1, metadata={"axes": "YXS", **size}, **options)
        for _ in range(n_levels - 1):
            pixels = halve(pixels)
            tif.write(pixels, subfiletype=1, metadata=None, **options)
    return str(path)


def test_an_ome_tiff_asks_for_its_source(monkeypatch, tmp_path, pixels):
    path = ome_tiff(tmp_path / "slide.ome.tif", pixels, 3)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "tifffile" in name else find(name)
    )
    with pytest.raises(SlideError, match=r"slide\.ome\.tif is a pyramidal OME-TIFF.*pip install"):
        open_slide(path)
    with open_slide(path, source="openslide", mpp=0.5) as slide:  # the finest level only
        assert [level.factor for level in slide.levels] == [1.0]


@pytest.mark.parametrize("fast", [True, False])
def test_ome_tiff_is_read_by_the_tifffile_source(tmp_path, pixels, fast):
    pytest.importorskip("large_image_source_tifffile", reason="needs the extra for OME-TIFF")
    path = ome_tiff(tmp_path / "slide.ome.tif", pixels, 3)
    with tifffile.TiffFile(path) as tif:
        stored = [page.asarray() for page in (tif.pages[0], *tif.pages[0].pages)]
    with open_slide(path, fast=fast) as slide:
        assert slide.source == "tifffile"
        assert slide.mpp == pytest.approx(0.5)
        assert [level.factor for level in slide.levels] == [1.0, 2.0, 4.0]
        assert slide.fast_levels == ((0, 1, 2) if fast else ())
        for level, factor in enumerate((1, 2, 4)):
            patch = slide.read_region((40, 80, 40 + 160 * factor, 80 + 160 * factor), 160)
            x, y = 40 // factor, 80 // factor
            assert_array_equal(patch, stored[level][y : y + 160, x : x + 160])
        # not stored: made by our kernel, not by the source's nearest neighbor
        block = stored[2][:200, :200].astype(int).reshape(100, 2, 100, 2, 3).sum(axis=(1, 3))
        assert_array_equal(slide.read_region((0, 0, 800, 800), 100), (block + 2) // 4)


def test_sources_other_than_openslide_are_compared_too(pyramid):
    # the comparison which the tifffile source goes through, here with openslide's tiles
    content = inspect_tiff(pyramid)
    tiles = tiff_tiles.TiffTiles(pyramid, dict(enumerate(content.jpeg_levels)))
    read = reader_module._source_window(LargeImageTiles(pyramid, "openslide"))
    assert [tiff_tiles.verify(tiles, level, read) for level in range(3)] == [True] * 3
    tiles.close()


# --- plans --------------------------------------------------------------------------------------


def test_block_means_of_many_pixels_do_not_overflow():
    stored = np.full((600, 600, 3), 255, dtype=np.uint8)
    plan = make_plan((0, 0, 600, 600), (1, 2), (1.0,))
    assert plan.blocks == (600, 300)
    assert_array_equal(resample(plan, lambda x, y, w, h: stored[y : y + h, x : x + w]), 255)


@settings(max_examples=100, deadline=None)
@given(
    x=st.integers(-1000, 10**6),
    width=st.integers(30, 4000),
    n=st.integers(8, 300),
    factors=st.sampled_from([(1.0,), (1.0, 2.0, 4.0), (1.0, 4.0, 16.0)]),
)
def test_a_plan_covers_its_box_to_within_the_tolerance(x, width, n, factors):
    n = min(n, width)
    plan = make_plan((x, 0, x + width, width), (n, n), factors)
    factor = factors[plan.level]
    assert factor <= width / n * 1.02
    left, right = plan.start[0] * factor, plan.stop[0] * factor
    slack = 0.0 if plan.blocks is None else min(0.01 * width, 4 * width / n) + factor + 0.5
    assert abs(left - x) <= slack
    assert abs(right - (x + width)) <= slack


# --- a real slide -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "CMU-1-Small-Region_pyramid.tif"])
def test_a_real_slide_equals_openslide_pixel_by_pixel(real_data, name):
    path = real_data / "slides" / name
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert slide.fast_levels == tuple(range(other.level_count))
        assert slide.dimensions == (2220, 2967)
        assert slide.mpp == pytest.approx(0.499)
        expected = np.asarray(other.read_region((0, 0), 0, other.dimensions))[..., :3]
        ours = slide.read_region((0, 0, *slide.dimensions), slide.dimensions)
        assert_array_equal(ours, expected)
        grid = slide.grid(patch_mpp=slide.mpp, edge="pad")
        for box, patch in zip(
            grid.boxes, np.concatenate(list(slide.read_patches(grid))), strict=True
        ):
            location, size = tuple(int(v) for v in box[:2]), (224, 224)
            theirs = to_rgb(np.asarray(other.read_region(location, 0, size)))
            assert_array_equal(patch, theirs)


def test_real_fixtures_of_openslide_can_be_read(real_data):
    folder = real_data / "slides" / "openslide-python-fixtures"
    for name in ("boxes_0.dcm", "small.svs"):
        with open_slide(folder / name) as slide, openslide.OpenSlide(folder / name) as other:
            assert slide.mpp == pytest.approx(0.499)
            expected = np.asarray(other.read_region((0, 0), 0, other.dimensions))[..., :3]
            assert_array_equal(slide.read_region((0, 0, 16, 16), 16), expected)


def test_the_real_slide_is_tiled_at_10x(real_data):
    with open_slide(real_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        grid = patch_grid(slide.dimensions, slide.mpp, magnification=10)
        assert grid.shape == (6, 4)
        assert_array_equal(grid.boxes[-1], [1347, 2244, 1796, 2693])
        patches = np.concatenate(list(slide.read_patches(grid)))
        assert patches.shape == (24, 224, 224, 3)
        stored = stored_pixels(slide.path, 0)
        # 449 pixels for 224: blocks of 2 x 2, centered, so that half a pixel is left at each side
        box = grid.boxes[5]
        block = stored[box[1] : box[1] + 448, box[0] : box[0] + 448].astype(int)
        block = (block.reshape(224, 2, 224, 2, 3).sum(axis=(1, 3)) + 2) // 4
        later = stored[box[1] + 1 : box[1] + 449, box[0] + 1 : box[0] + 449].astype(int)
        later = (later.reshape(224, 2, 224, 2, 3).sum(axis=(1, 3)) + 2) // 4
        assert np.array_equal(patches[5], block) or np.array_equal(patches[5], later)


# Formats of other scanners, written here after their specification


@pytest.mark.parametrize(
    ("write", "suffix", "vendor"),
    [(write_ndpi, ".ndpi", "hamamatsu"), (write_mrxs, ".mrxs", "mirax")],
)
def test_formats_of_other_scanners(tmp_path, write, suffix, vendor):
    blocks = np.random.default_rng(0).integers(60, 250, (16, 24, 3), dtype=np.uint8)
    drawn = blocks.repeat(64, axis=0).repeat(64, axis=1)
    path = tmp_path / f"slide{suffix}"
    write(path, drawn, mpp=0.5)
    with open_slide(path) as slide, openslide.OpenSlide(path) as other:
        assert other.properties["openslide.vendor"] == vendor
        assert slide.dimensions == (1536, 1024)
        assert slide.mpp == pytest.approx(0.5)
        whole = slide.read_region((0, 0, 1536, 1024), (1536, 1024))
        expected = np.asarray(other.read_region((0, 0), 0, (1536, 1024)))[..., :3]
        assert_array_equal(whole, expected)
        assert np.abs(whole.astype(int) - drawn).max() <= 2
        grid = slide.grid(magnification=10, size=128)
        assert len(grid) == 24
        for patch, (x, y) in zip(
            np.concatenate(list(slide.read_patches(grid))), grid.locations, strict=True
        ):
            at_10x = drawn[y : y + 256 : 2, x : x + 256 : 2].astype(int)
            assert np.abs(patch - at_10x).max() <= 3


@pytest.mark.parametrize("part", ["Index.dat", "Data0000.dat", "Slidedat.ini"])
def test_a_mirax_slide_that_lost_a_part_is_named(tmp_path, part):
    write_mrxs(tmp_path / "lost.mrxs", texture(512, 512))
    (tmp_path / "lost" / part).unlink()
    with pytest.raises(SlideError, match="lost"), open_slide(tmp_path / "lost.mrxs") as slide:
        slide.read_region((0, 0, 256, 256), (256, 256))


def test_a_truncated_ndpi_is_named(tmp_path):
    path = tmp_path / "cut.ndpi"
    write_ndpi(path, texture(512, 512))
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(SlideError, match="cut"), open_slide(path) as slide:
        slide.read_region((0, 0, 256, 256), (256, 256))
