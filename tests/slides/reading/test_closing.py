"""Closing a slide beside threads that read it: reads end, later ones raise, the process lives."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
from slide_files import halve, texture

import proportion_ssl.slides.reading.slide as module
from proportion_ssl.slides import SlideError, open_slide
from proportion_ssl.slides.reading._jpeg_tiles import TiffTiles
from proportion_ssl.slides.reading._large_image import LargeImageTiles

STRESS = """
import random, sys, threading, time
from proportion_ssl.slides import SlideError, open_slide

path, rounds = sys.argv[1], int(sys.argv[2])
random.seed(0)
ended = []
for _ in range(rounds):
    slide = open_slide(path, mpp=0.5)
    expected = slide.read_region((0, 0, 256, 256), 128)

    def read():
        try:
            while True:
                if random.random() < 0.5:
                    list(slide.read_patches(slide.grid(magnification=20, size=100)))
                else:
                    assert (slide.read_region((0, 0, 256, 256), 128) == expected).all()
        except SlideError as error:
            assert "is closed" in str(error), error
            ended.append(True)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(random.uniform(0, 0.05))
    slide.close()
    for thread in threads:
        thread.join()
print(len(ended))
"""

COMPRESSIONS = {
    "lzw": ("tif", {"compression": "lzw"}),
    "deflate": ("tif", {"compression": "deflate"}),
    "jpeg": ("tif", {"compression": "jpeg"}),
    "jpeg2000": ("svs", {"compression": "aperio_jp2000_rgb"}),
    "picture": ("tif", {"compression": "lzw", "tile": None}),
}


def write(folder, name):
    suffix, options = COMPRESSIONS[name]
    path = folder / f"{name}.{suffix}"
    pixels = texture(1024, 768)
    with tifffile.TiffWriter(path) as tif:
        for i in range(2 if name != "picture" else 1):
            tags = {"photometric": "rgb", "metadata": None, "tile": (256, 256), **options}
            if suffix == "svs":
                tags["description"] = "Aperio Image Library v1\r\n1024x768 J2K|MPP = 0.5"
            else:
                tags["subfiletype"] = int(i > 0)
            tif.write(pixels, **tags)
            if suffix == "svs" and i == 0:
                small = np.ascontiguousarray(pixels[::8, ::8])
                tif.write(small, photometric="rgb", metadata=None)
            pixels = halve(pixels)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPRESSIONS)
def test_no_process_dies_when_a_slide_is_closed_beside_reading_threads(tmp_path, name):
    path = write(tmp_path, name)
    rounds = 25
    done = subprocess.run(
        [sys.executable, "-c", STRESS, str(path), str(rounds)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) == 3 * rounds


@pytest.mark.parametrize("fast", [True, False])
def test_closing_waits_for_the_read_in_progress(monkeypatch, tmp_path, fast):
    path = write(tmp_path, "jpeg")
    slide = open_slide(path, mpp=0.5, fast=fast)
    slide.read_region((0, 0, 64, 64), 64)
    owner = TiffTiles if fast else LargeImageTiles
    original = owner.read_tile
    inside, order = threading.Event(), []

    def slow(self, *key):
        inside.set()
        time.sleep(0.3)
        tile = original(self, *key)
        order.append("read")
        return tile

    monkeypatch.setattr(owner, "read_tile", slow)
    result = []
    thread = threading.Thread(
        target=lambda: result.append(slide.read_region((512, 512, 576, 576), 64))
    )
    thread.start()
    assert inside.wait(10)
    slide.close()
    order.append("closed")
    thread.join()
    assert order == ["read", "closed"]
    assert result[0].shape == (64, 64, 3)
    with pytest.raises(SlideError, match="is closed"):
        slide.read_region((0, 0, 64, 64), 64)


def test_a_thread_that_begins_to_read_while_the_slide_closes_opens_nothing(monkeypatch, tmp_path):
    slide = open_slide(write(tmp_path, "jpeg"), mpp=0.5)

    class Late(module.Handle):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            slide.close()

    monkeypatch.setattr(module, "Handle", Late)
    with pytest.raises(SlideError, match="is closed"):
        slide.read_region((0, 0, 64, 64), 64)
    assert len(slide._handles) == 0
