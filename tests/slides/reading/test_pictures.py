"""Plain pictures as slides: read right with a given resolution, or refused with the reason."""

import io
import multiprocessing
import pickle
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image
from slide_files import texture, write_mrxs

import proportion_ssl.slides.reading._picture as module
from proportion_ssl.slides import SlideError, open_slide

PIXELS = texture(320, 230)
GRAY = np.ascontiguousarray(PIXELS[..., 1])


def save(path, image, **options):
    Image.fromarray(image).save(path, **options) if isinstance(image, np.ndarray) else image.save(
        path, **options
    )
    return path


def whole(slide):
    return slide.read_region((0, 0, *slide.dimensions), slide.dimensions)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_picture_is_read_with_a_given_resolution(tmp_path, suffix):
    path = save(tmp_path / f"core.{suffix}", PIXELS)
    with open_slide(path, mpp=0.5) as slide:
        assert (slide.source, slide.dimensions, slide.mpp) == ("memory", (320, 230), 0.5)
        assert [level.factor for level in slide.levels] == [1.0]
        assert slide.bounds == (0, 0, 320, 230)
        assert slide.magnification is None and slide.fast_levels == ()
        assert_array_equal(whole(slide), PIXELS)
        block = PIXELS[20:120, 10:110].astype(int).reshape(50, 2, 50, 2, 3).sum(axis=(1, 3))
        assert_array_equal(slide.read_region((10, 20, 110, 120), 50), (block + 2) // 4)
        grid = slide.grid(magnification=10, size=50, edge="pad")
        patches = np.concatenate(list(slide.read_patches(grid)))
        assert_array_equal(patches[0], slide.read_region(grid.boxes[0], 50))
        assert patches[-1][-1, -1].tolist() == [255, 255, 255]
        assert slide.describe_reading(1.0)["source"] == "memory"
        assert slide.describe_reading(1.0)["source_version"].split()[0] in ("Pillow", "tifffile")
        copy = pickle.loads(pickle.dumps(slide))
        assert len(pickle.dumps(slide)) < 10_000
        assert_array_equal(whole(copy), PIXELS)


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path):
    for subsampling in (0, 2):
        path = save(tmp_path / "core.jpg", PIXELS, quality=90, subsampling=subsampling)
        with open_slide(path, mpp=0.5) as slide:
            assert np.abs(whole(slide).astype(int) - np.asarray(Image.open(path))).max() <= 2
    path = save(tmp_path / "gray.jpg", GRAY, quality=90)
    with open_slide(path, mpp=0.5) as slide:
        expected = np.asarray(Image.open(path))[..., np.newaxis]
        assert_array_equal(whole(slide), np.broadcast_to(expected, (230, 320, 3)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_without_a_resolution_it_is_asked_for(tmp_path, suffix):
    path = save(tmp_path / f"core.{suffix}", PIXELS)
    with pytest.raises(SlideError, match=rf"core\.{suffix} is a plain picture.*: mpp="):
        open_slide(path)
    if suffix != "tif":  # resolutions of pictures are those of printing
        path = save(tmp_path / f"core.{suffix}", PIXELS, dpi=(50_800, 50_800))
        with pytest.raises(SlideError, match=": mpp= in Python, the column mpp of a manifest"):
            open_slide(path)


def test_the_resolution_of_a_tiff_without_tiles_is_believed_if_it_can_be(tmp_path):
    path = tmp_path / "core.tif"
    for mpp, fine in ((0.5, True), (25400 / 72, False)):
        tifffile.imwrite(
            path, PIXELS, photometric="rgb", resolution=(1e4 / mpp,) * 2, resolutionunit=3
        )
        if fine:
            with open_slide(path) as slide:
                assert slide.mpp == mpp
        else:
            with pytest.raises(SlideError, match=r"352\.8 um"):
                open_slide(path)


def test_transparency_is_white(tmp_path):
    alpha = np.full((230, 320), 255, dtype=np.uint8)
    alpha[:100], alpha[100:150] = 0, 128
    expected = np.round((PIXELS * (alpha / 255)[..., None]) + 255 * (1 - alpha / 255)[..., None])
    path = save(tmp_path / "s.png", np.dstack([PIXELS, alpha]))
    with open_slide(path, mpp=0.5) as slide:
        assert np.abs(whole(slide) - expected).max() <= 1
    path = save(tmp_path / "s.png", Image.fromarray(np.dstack([GRAY, alpha]), "LA"))
    with open_slide(path, mpp=0.5) as slide:
        assert np.abs(whole(slide)[..., 0] - (GRAY * (alpha / 255) + 255 - alpha)).max() <= 1
    marked = PIXELS.copy()
    marked[:50] = (1, 2, 3)
    path = save(tmp_path / "s.png", Image.fromarray(marked), transparency=(1, 2, 3))
    with open_slide(path, mpp=0.5) as slide:
        assert_array_equal(whole(slide)[:50], 255)
        assert_array_equal(whole(slide)[50:], PIXELS[50:])


def png16(path):
    """16 bits per channel and RGB, which Pillow reads as 8 without a word."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in PIXELS.astype(np.uint16) * 257)

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 320, 230, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def turned(path):
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(PIXELS).save(path, exif=exif)


def animated(path):
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


REFUSED = {
    "16-bit.png": (png16, "16 bits per channel"),
    "16-bit gray.png": (
        lambda path: Image.fromarray(GRAY.astype(np.uint16) * 257).save(path),
        "16 bits per channel",
    ),
    "1-bit.png": (
        lambda path: Image.fromarray(GRAY).convert("1").save(path),
        "1 bits? per channel",
    ),
    "palette.png": (
        lambda path: Image.fromarray(PIXELS).quantize(16).save(path),
        "color table.*read_label_map",
    ),
    "animated.png": (animated, "animated"),
    "turned.png": (turned, r"EXIF orientation \(6\).*Save it upright"),
    "turned.jpg": (turned, r"EXIF orientation \(6\).*Save it upright"),
    "inks.jpg": (lambda path: Image.fromarray(PIXELS).convert("CMYK").save(path), "CMYK"),
    "palette.tif": (
        lambda path: Image.fromarray(PIXELS).quantize(16).save(path),
        "color table.*read_label_map",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_and_why(tmp_path, name):
    write, reason = REFUSED[name]
    write(tmp_path / name)
    with pytest.raises(SlideError, match=reason) as caught:
        open_slide(tmp_path / name, mpp=0.5)
    assert name in str(caught.value)


def test_size_is_bounded_before_pixels_are_decoded(monkeypatch, tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("L", (20_001, 30)).save(path)
    with pytest.raises(SlideError, match=r"20001 x 30 pixels.*at most 20000 x 20000"):
        open_slide(path, mpp=0.5)
    # a header of 2 ** 31 - 1 pixels a side, with its checksum, before one line of pixels
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 2**31 - 1, 2**31 - 1)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(SlideError, match=r"bomb\.png is a picture of 2147483647 x 2147483647"):
        open_slide(path, mpp=0.5)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow's bound is lower than ours
    with open_slide(save(path, PIXELS), mpp=0.5) as slide:
        assert_array_equal(whole(slide), PIXELS)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_damage_is_found(tmp_path, suffix, damage):
    path = tmp_path / f"core.{suffix}"
    if suffix == "tif":
        tifffile.imwrite(path, PIXELS, photometric="rgb", compression="jpeg", rowsperstrip=64)
    else:
        save(path, PIXELS)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) * 2 // 3]
    else:
        middle = len(content) // 2
        content[middle : middle + len(content) // 4] = bytes(len(content) // 4)
    path.write_bytes(content)
    with pytest.raises(SlideError, match=rf"core\.{suffix}.*(damaged|truncated)"):
        open_slide(path, mpp=0.5)


def test_a_strip_that_was_never_written_is_found(tmp_path):
    path = tmp_path / "core.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb", rowsperstrip=64)
    with tifffile.TiffFile(path, mode="r+") as tif:
        counts = list(tif.pages[0].databytecounts)
        tif.pages[0].tags["StripByteCounts"].overwrite([0, *counts[1:]])
    with pytest.raises(SlideError, match="strips are missing"):
        open_slide(path, mpp=0.5)


def test_a_slide_that_only_begins_like_a_picture_is_left_to_openslide(tmp_path):
    path = tmp_path / "s.mrxs"
    write_mrxs(path, texture(512, 512))
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "jpeg")
    path.write_bytes(stream.getvalue())  # scanners put a thumbnail there
    with open_slide(path) as slide:
        assert slide.source == "openslide"


def test_pixels_are_decoded_once_and_given_up_with_the_slide(monkeypatch, tmp_path):
    path = save(tmp_path / "core.png", PIXELS)
    decoded = []
    decode = module._decode

    def counted(path):
        decoded.append(path)
        return decode(path)

    monkeypatch.setattr(module, "_decode", counted)
    slide = open_slide(path, mpp=0.5)
    with ThreadPoolExecutor(4) as pool:
        for pixels in pool.map(lambda _: whole(slide), range(8)):
            assert_array_equal(pixels, PIXELS)
    assert len(decoded) == 1
    slide.close()
    assert not module._loaded
    with pytest.raises(SlideError, match="closed"):
        whole(slide)
    with open_slide(path, mpp=0.5) as slide:
        slide.release()
        assert not module._loaded
        assert_array_equal(whole(slide), PIXELS)


def test_a_rewritten_picture_shows_its_new_pixels(tmp_path):
    path = save(tmp_path / "core.png", PIXELS)
    with open_slide(path, mpp=0.5) as old:
        assert_array_equal(whole(old), PIXELS)
        save(path, np.ascontiguousarray(PIXELS[::-1, :300]))
        with open_slide(path, mpp=0.5) as new:
            assert_array_equal(whole(new), PIXELS[::-1, :300])
        seen = []

        def read():
            try:
                whole(old)
            except SlideError as error:
                seen.append(str(error))

        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert "changed on disk" in seen[0]


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot fork here"
)
def test_a_fork_while_a_thread_decodes_can_decode_too(monkeypatch, tmp_path):
    path, other = (save(tmp_path / name, PIXELS) for name in ("a.png", "b.png"))
    decode, inside, done = module._decode, threading.Event(), threading.Event()

    def slow(path):
        if path == str(other):
            inside.set()
            done.wait(20)
        return decode(path)

    monkeypatch.setattr(module, "_decode", slow)
    thread = threading.Thread(target=lambda: open_slide(other, mpp=0.5).close())
    thread.start()
    assert inside.wait(20)
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        child = context.Process(target=lambda: open_slide(path, mpp=0.5).close())
        child.start()
    child.join(20)
    alive = child.is_alive()
    child.kill()
    done.set()
    thread.join()
    assert not alive and child.exitcode == 0
