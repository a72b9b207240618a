"""Patches per CPU-second from a slide: the faster path against the reference, in turns.

Writes two JPEG pyramids of one picture, one that stores 10x and one in which 10x must be made from
20x (the usual layout of an Aperio scan at 20x), reads the same 224 x 224 patches at 10x from both
in several ways, and prints one JSON line:

- ``fast``: :meth:`Slide.read_patches`, JPEG tiles decoded directly;
- ``reference``: the same through large_image's openslide source (``fast=False``);
- ``large_image``: large_image's own ``tileIterator``, whose resampling kernel is another;
- ``limit``: each needed tile decoded once and thrown away.

``python benchmarks/speed/bench_reading.py --size 8192 --rounds 3``
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median

import large_image_source_openslide
import numpy as np
import simplejpeg
import tifffile

from proportion_ssl.slides import open_slide


def picture(size, seed=0):
    """Blobs and noise in the colors of H&E, one block of 1024 pixels turned about."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, (64, 64, 1)).repeat(16, axis=0).repeat(16, axis=1)
    fine = rng.normal(0, 1, (1024, 1024, 1))
    block = np.array([200, 130, 180]) + 25 * coarse + 10 * fine * np.array([0.8, 1.2, 0.9])
    block = np.clip(block, 0, 255).astype(np.uint8)
    n = -(-size // 1024)
    rows = [np.hstack([np.rot90(block, rng.integers(4)) for _ in range(n)]) for _ in range(n)]
    return np.vstack(rows)[:size, :size]


def write_pyramid(path, pixels, factors, mpp=0.5):
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as tif:
        for factor in factors:
            n = pixels.shape[0] // factor
            level = pixels.reshape(n, factor, n, factor, 3).mean(axis=(1, 3)).astype(np.uint8)
            tif.write(
                level,
                subfiletype=int(factor > 1),
                resolution=(1e4 / (mpp * factor), 1e4 / (mpp * factor)),
                resolutionunit="CENTIMETER",
                compressionargs={"level": 80},
                **options,
            )


def read_ours(path, fast):
    with open_slide(path, fast=fast) as slide:
        assert bool(slide.fast_levels) == fast
        grid = slide.grid(magnification=10)
        return sum(len(batch) for batch in slide.read_patches(grid))


def read_large_image(path):
    source = large_image_source_openslide.open(path, noCache=True)
    tiles = source.tileIterator(
        scale={"magnification": 10}, tile_size={"width": 224, "height": 224}, format="numpy"
    )
    return sum(tile["tile"].shape[:2] == (224, 224) for tile in tiles)


def decode_only(path):
    with open_slide(path) as slide:
        level = slide.describe_reading(1.0)["level"]
        n_patches = len(slide.grid(magnification=10))
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[level]
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            tif.filehandle.seek(offset)
            simplejpeg.decode_jpeg(tif.filehandle.read(count))
    return n_patches


READERS = {
    "fast": lambda path: read_ours(path, fast=True),
    "reference": lambda path: read_ours(path, fast=False),
    "large_image": read_large_image,
    "limit": decode_only,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=8192, help="side of the slide, multiple of 8")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result = {"size": options.size, "rounds": options.rounds, "unit": "patches per CPU-second"}
    with tempfile.TemporaryDirectory() as folder:
        pixels = picture(options.size)
        for layout, factors in {"10x_stored": (1, 2, 4), "10x_from_20x": (1, 4)}.items():
            path = str(Path(folder) / f"{layout}.tif")
            write_pyramid(path, pixels, factors)
            rates = {name: [] for name in READERS}
            for _ in range(options.rounds):
                for name, read in READERS.items():
                    start = time.process_time()
                    n_patches = read(path)
                    rates[name].append(n_patches / (time.process_time() - start))
            rates = {name: round(median(values), 1) for name, values in rates.items()}
            ratio = round(rates["fast"] / rates["reference"], 2)
            result[layout] = {**rates, "fast_over_reference": ratio}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
