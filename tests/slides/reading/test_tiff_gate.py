"""A TIFF is read as its tags say, or refused with the reason: every combination, written here."""

import importlib.util
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from numpy.testing import assert_array_equal
from slide_files import aperio_description, halve, texture, write_slide

from proportion_ssl.slides import SlideError, open_slide

WIDTH, HEIGHT = 300, 200
RGB = texture(WIDTH, HEIGHT)
GRAY = np.ascontiguousarray(RGB[..., 1])
INKS = np.dstack([255 - RGB, GRAY // 4])
ALPHA = np.full((HEIGHT, WIDTH, 1), 255, dtype=np.uint8)
ALPHA[:, :150], ALPHA[:50] = 128, 0

RESOLUTION = {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER", "metadata": None}
LAYOUTS = {"tiles": {"tile": (128, 128)}, "strips": {"rowsperstrip": 64}}
LOSSLESS = (None, "lzw", "deflate", "packbits", "zstd")
HAS_TIFFFILE_SOURCE = importlib.util.find_spec("large_image_source_tifffile") is not None


def thrice(gray):
    return np.repeat(gray[..., np.newaxis], 3, axis=2)


def over_white(color, alpha):
    return np.round((color * alpha.astype(float) + 255.0 * (255 - alpha)) / 255)


def ycbcr(rgb):
    r, g, b = (rgb[..., i].astype(float) for i in range(3))
    y = 0.299 * r + 0.587 * g + 0.114 * b
    both = np.stack([y, (b - y) / 1.772 + 128, (r - y) / 1.402 + 128], axis=-1)
    return np.clip(np.round(both), 0, 255).astype(np.uint8)


def of_ycbcr(pixels):
    y, b, r = (pixels[..., i].astype(float) - (0, 128, 128)[i] for i in range(3))
    rgb = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], axis=-1)
    return np.clip(np.round(rgb), 0, 255)


def planes(pixels):
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


OF_INKS = np.round((255.0 - INKS[..., :3]) * (255.0 - INKS[..., 3:]) / 255)
PREMULTIPLIED = np.round(RGB * ALPHA.astype(float) / 255).astype(np.uint8)
PALETTE = np.zeros((3, 256), dtype=np.uint16)

# pixels as they are stored, tags, what they show, and why they are refused instead, if so
KINDS = {
    "rgb": (RGB, {"photometric": "rgb"}, RGB, None),
    "gray": (GRAY, {"photometric": "minisblack"}, thrice(GRAY), None),
    "white is zero": (GRAY, {"photometric": "miniswhite"}, thrice(255 - GRAY), "MinIsWhite"),
    "inks": (INKS, {"photometric": "separated"}, OF_INKS, "CMYK"),
    "ycbcr": (ycbcr(RGB), {"photometric": "ycbcr"}, of_ycbcr(ycbcr(RGB)), "YCbCr"),
    "cielab": (RGB, {"photometric": "cielab"}, None, "CIELab"),
    "palette": (GRAY, {"photometric": "palette", "colormap": PALETTE}, None, "color table"),
    "planes": (planes(RGB), {"photometric": "rgb", "planarconfig": "separate"}, RGB, None),
    "planes of inks": (
        planes(INKS),
        {"photometric": "separated", "planarconfig": "separate"},
        OF_INKS,
        "CMYK",
    ),
    "16 bits": (RGB.astype(np.uint16) * 257, {"photometric": "rgb"}, None, "16 bits per channel"),
    "12 of 16 bits": (
        GRAY.astype(np.uint16) * 16,
        {"photometric": "minisblack"},
        None,
        "16 bits per channel",
    ),
    "1 bit": (GRAY > 100, {"photometric": "minisblack"}, None, "1 bit per channel"),
    "signed": ((RGB // 2).astype(np.int8), {"photometric": "rgb"}, None, "signed integers"),
    "floats": (RGB.astype(np.float32) / 255, {"photometric": "rgb"}, None, "floating-point"),
    "half floats": (RGB.astype(np.float16) / 255, {"photometric": "rgb"}, None, "floating-point"),
    "fourth channel unstated": (
        np.dstack([RGB, ALPHA]),
        {"photometric": "rgb", "extrasamples": ["unspecified"]},
        None,
        "4 channels, the last of them of a meaning",
    ),
    "alpha": (
        np.dstack([RGB, ALPHA]),
        {"photometric": "rgb", "extrasamples": ["unassalpha"]},
        over_white(RGB, ALPHA),
        None,
    ),
    "alpha multiplied in": (
        np.dstack([PREMULTIPLIED, ALPHA]),
        {"photometric": "rgb", "extrasamples": ["assocalpha"]},
        PREMULTIPLIED.astype(int) + (255 - ALPHA),
        "multiplied in",
    ),
    "gray and alpha": (
        np.dstack([GRAY, ALPHA]),
        {"photometric": "minisblack", "extrasamples": ["unassalpha"], "planarconfig": "contig"},
        None,
        "2 channels",
    ),
    "gray and more": (
        np.dstack([GRAY, ALPHA]),
        {"photometric": "minisblack", "extrasamples": ["unspecified"], "planarconfig": "contig"},
        None,
        "2 channels",
    ),
    "five channels": (
        np.dstack([RGB, ALPHA, ALPHA]),
        {"photometric": "rgb", "extrasamples": ["unspecified"] * 2},
        None,
        "5 channels",
    ),
    "three gray pages": (planes(RGB), {"photometric": "minisblack"}, None, "three gray images"),
    "stack": (np.stack([RGB, RGB[::-1]]), {"photometric": "rgb"}, None, "2 images of full size"),
    "turned": (
        RGB,
        {"photometric": "rgb", "extratags": [(274, "H", 1, 3, True)]},
        None,
        "orientation tag",
    ),
}


def check(path, source, expected, reason, tolerance=1):
    if expected is None:
        with pytest.raises(SlideError, match=path.name) as caught:
            open_slide(path, source=source)
        assert reason in str(caught.value)
        assert "whole" not in str(caught.value)
        return
    with open_slide(path, source=source) as slide:
        assert slide.dimensions == (WIDTH, HEIGHT)
        pixels = slide.read_region((0, 0, WIDTH, HEIGHT), (WIDTH, HEIGHT))
    assert np.abs(pixels - expected.astype(float)).max() <= tolerance


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_what_the_tags_say(tmp_path, kind, layout, compression):
    stored, tags, expected, reason = KINDS[kind]
    if kind == "ycbcr" and layout == "strips":
        expected = None
    path = tmp_path / "kind.tif"
    tifffile.imwrite(path, stored, compression=compression, **tags, **LAYOUTS[layout], **RESOLUTION)
    check(path, None, expected, reason)


@pytest.mark.parametrize("compression", ["deflate", "webp", "jpegxl", "jpeg2000"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_of_large_images_tifffile_source(tmp_path, kind, layout, compression):
    pytest.importorskip("large_image_source_tifffile", reason="needs the extra for OME-TIFF")
    stored, tags, expected, reason = KINDS[kind]
    path = tmp_path / "kind.tif"
    try:
        tifffile.imwrite(
            path, stored, compression=compression, **tags, **LAYOUTS[layout], **RESOLUTION
        )
    except Exception:  # an encoder that has no such kind
        assert kind not in ("rgb", "alpha")
        return
    check(path, "tifffile", expected if reason is None else None, reason)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["rgb", "gray", "white is zero", "inks", "cielab", "planes"])
def test_jpeg_is_read_as_its_tags_say(tmp_path, kind, layout):
    stored, tags, expected, reason = KINDS[kind]
    path = tmp_path / "kind.tif"
    options = {**tags, **LAYOUTS[layout], **RESOLUTION, "compression": "jpeg"}
    tifffile.imwrite(path, stored, compressionargs={"level": 100}, **options)
    if kind in ("inks", "cielab"):
        check(path, None, None, reason)
    else:  # chroma is halved in "rgb"
        with open_slide(path) as slide:
            pixels = slide.read_region((0, 0, WIDTH, HEIGHT), (WIDTH, HEIGHT))
        assert np.abs(pixels - expected.astype(float)).mean() < 5


@pytest.mark.parametrize(("compression", "name"), [("webp", "WebP"), ("jpegxl", "JPEG XL")])
def test_the_source_for_other_compressions_is_taken_or_named(
    monkeypatch, tmp_path, compression, name
):
    path = tmp_path / "s.tif"
    tifffile.imwrite(
        path, RGB, photometric="rgb", compression=compression, tile=(128, 128), **RESOLUTION
    )
    if HAS_TIFFFILE_SOURCE:
        with open_slide(path) as slide:
            assert slide.source == "tifffile"
            assert_array_equal(slide.read_region((0, 0, 300, 200), (300, 200)), RGB)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "tifffile" in name else find(name)
    )
    with pytest.raises(SlideError, match=rf"s\.tif has {name} compression.*pip install.*tifffile"):
        open_slide(path)
    with pytest.raises(SlideError, match=rf"300 x 200 in {name} tiles\. Convert") as caught:
        open_slide(path, source="openslide")
    assert "whole" not in str(caught.value)


def test_large_images_in_strips_name_the_source_that_reads_them(monkeypatch, tmp_path):
    path = tmp_path / "wide.tif"
    pixels = np.full((8, 20_001, 3), 100, dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", **RESOLUTION)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if "tifffile" in name else find(name)
    )
    with pytest.raises(SlideError, match=r"in strips, not in tiles.*20001 x 8.*pip install"):
        open_slide(path)
    with pytest.raises(SlideError, match=r"at most 20000 x 20000"):
        open_slide(path, source="memory")


def test_a_larger_image_behind_the_first_is_named(tmp_path):
    path = tmp_path / "thumbnail_first.tif"
    for tile in ((64, 64), None):
        with tifffile.TiffWriter(path) as tif:
            small = np.ascontiguousarray(RGB[::4, ::4])
            tif.write(small, photometric="rgb", tile=tile, **RESOLUTION)
            tif.write(RGB, photometric="rgb", tile=(128, 128), **RESOLUTION)
        with pytest.raises(SlideError, match="75 x 50 pixels, but a larger one of 300 x 200"):
            open_slide(path)


def test_an_aperio_slide_with_focal_planes_or_a_larger_level_behind_is_named(tmp_path):
    path = tmp_path / "planes.svs"
    options = {"photometric": "rgb", "tile": (128, 128), "metadata": None, "compression": "lzw"}
    for others, reason in (
        ([RGB], "2 images of full size"),
        ([texture(600, 400)], "larger one of 600 x 400"),
        ([halve(RGB)], None),
    ):
        with tifffile.TiffWriter(path) as tif:
            tif.write(RGB, description=aperio_description(RGB, mpp=0.5), **options)
            thumbnail = np.ascontiguousarray(RGB[::4, ::4])
            tif.write(thumbnail, photometric="rgb", metadata=None)
            for level in others:
                tif.write(level, description=aperio_description(level), **options)
        if reason is None:
            with open_slide(path) as slide:
                assert [level.factor for level in slide.levels] == [1.0, 2.0]
        else:
            with pytest.raises(SlideError, match=reason):
                open_slide(path)


def test_a_lower_level_of_another_kind_is_named(tmp_path):
    path = tmp_path / "mixed.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(RGB, photometric="rgb", tile=(128, 128), **RESOLUTION)
        lower = halve(RGB).astype(np.uint16) * 257
        tif.write(lower, photometric="rgb", tile=(128, 128), subfiletype=1, metadata=None)
    with pytest.raises(SlideError, match="16 bits per channel"):
        open_slide(path)


def test_a_stack_behind_one_directory_is_named(tmp_path):
    path = tmp_path / "imagej.tif"
    stack = np.stack([GRAY, 255 - GRAY])
    tifffile.imwrite(path, stack, imagej=True, metadata={"axes": "ZYX"}, resolution=(2, 2))
    with tifffile.TiffFile(path, mode="r+") as tif:  # as ImageJ writes stacks beyond 4 GB
        offset = tif.pages[0].offset
        n_tags = len(tif.pages[0].tags)
        tif.filehandle.seek(offset + 2 + 12 * n_tags)
        tif.filehandle.write(bytes(4))
    with pytest.raises(SlideError, match="2 images of full size"):
        open_slide(path, mpp=0.5)


def test_three_gray_pages_of_an_ome_tiff_are_named(tmp_path):
    path = tmp_path / "he.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(
            planes(RGB),
            tile=(128, 128),
            photometric="minisblack",
            metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5},
        )
    with pytest.raises(SlideError, match=r"he\.ome\.tif holds three gray images of one size"):
        open_slide(path)


# --- a damaged tile costs no more than itself ----------------------------------------------------


@pytest.mark.parametrize("compression", ["jpeg", "lzw", "deflate"])
@pytest.mark.parametrize("level", [0, 1])
def test_a_damaged_first_tile_does_not_shift_the_levels(tmp_path, compression, level):
    # large_image looks at the first pixel of a level, and drops the level if it cannot be read
    pixels = texture(1024, 768)
    path = tmp_path / "s.tif"
    write_levels(path, pixels, compression)
    with open_slide(path) as whole:
        expected = [whole.read_region((512, 0, 1024, 512), 512 // 2**i) for i in range(3)]
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[level].dataoffsets[0], tif.pages[level].databytecounts[0]
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    for fast in (True, False):
        with open_slide(path, fast=fast) as slide:
            assert slide.dimensions == (1024, 768)
            assert [found.factor for found in slide.levels] == [1.0, 2.0, 4.0]
            for i in range(3):
                patch = slide.read_region((512, 0, 1024, 512), 512 // 2**i)
                assert_array_equal(patch, expected[i])
            with pytest.raises(SlideError, match=r"s\.tif: pixels in the level-0 box \(0, 0, 128"):
                slide.read_region((0, 0, 128, 128), 128 // 2**level)


def write_levels(path, pixels, compression):
    with tifffile.TiffWriter(path) as tif:
        for i in range(3):
            tags = {"photometric": "rgb", "tile": (128, 128), "compression": compression}
            tif.write(pixels, subfiletype=int(i > 0), **tags, **RESOLUTION)
            pixels = halve(pixels)


def test_errors_of_openslide_in_the_comparison_leave_the_slide_readable(monkeypatch, tmp_path):
    path = tmp_path / "s.tif"
    write_levels(path, texture(512, 512), "jpeg")

    def fail(*args):
        raise openslide.OpenSlideError("damaged")

    with open_slide(path) as slide:
        assert slide.fast_levels == (0, 1, 2)
        expected = slide.read_region((0, 0, 512, 512), 512)
    with monkeypatch.context() as patched:
        patched.setattr("proportion_ssl.slides.reading.slide.openslide.OpenSlide.read_region", fail)
        slide = open_slide(path)
    assert slide.fast_levels == ()
    assert_array_equal(slide.read_region((0, 0, 512, 512), 512), expected)
    slide.close()


def test_colors_are_told_by_tags_and_not_by_a_changed_adobe_segment(tmp_path):
    path = write_slide(tmp_path / "s.tif", texture(512, 512))
    with tifffile.TiffFile(path) as tif:
        ranges = list(zip(tif.pages[0].dataoffsets, tif.pages[0].databytecounts, strict=True))
    with open_slide(path) as slide:
        expected = slide.read_region((0, 0, 512, 512), 512)
    adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # says: RGB
    content = bytearray(Path(path).read_bytes())
    for offset, count in ranges:
        stream = bytes(content[offset : offset + count])
        changed = stream[:2] + adobe + stream[2:]
        content += changed
    Path(path).write_bytes(content)
    with tifffile.TiffFile(path, mode="r+") as tif:
        page, at = tif.pages[0], len(content) - sum(count + 16 for _, count in ranges)
        offsets = np.cumsum([at, *(count + 16 for _, count in ranges)])[:-1]
        page.tags["TileOffsets"].overwrite(offsets.tolist())
        page.tags["TileByteCounts"].overwrite([count + 16 for _, count in ranges])
    with open_slide(path) as slide, open_slide(path, fast=False) as reference:
        assert slide.fast_levels == (0,)
        assert_array_equal(slide.read_region((0, 0, 512, 512), 512), expected)
        assert_array_equal(reference.read_region((0, 0, 512, 512), 512), expected)
