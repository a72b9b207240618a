"""Slides with changed or missing bytes: no dead process, no pixels that OpenSlide does not show.

Writes small slides (LZW, deflate, JPEG and JPEG 2000, two or three levels), adds slides of a folder
if one is given, and changes each at random: a few bytes of its directories, a few bytes anywhere,
a block of zeros, or its end cut off. Every changed file is read twice in processes of their own, by
``open_slide`` and by openslide-python, window by window at every level that both know, and the
windows are compared. Prints one JSON line:

- ``dead``, ``hung``: processes of ours that died, or did not answer in time; must be 0;
- ``different``: windows that both read, with different pixels; must be 0;
- ``only_ours``: windows that we read although OpenSlide refuses the file or the window;
- ``refused``: files that we do not open; ``damaged``: windows that raised, named;
- ``equal``: windows that both read equally; ``reference_dead``: OpenSlide's own process died.

``python benchmarks/faults/mutated_slides.py --n 200 --seed 0``
"""

import argparse
import hashlib
import json
import logging
import resource
import select
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import openslide
import tifffile

from proportion_ssl.slides import SlideError, open_slide
from proportion_ssl.slides.reading._pixels import to_rgb

WINDOW, MAX_WINDOWS, SECONDS, MEMORY = 96, 40, 120, 6 * 2**30
COMPRESSIONS = {
    "lzw": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "deflate"},
    "jpeg": {"compression": "jpeg", "compressionargs": {"level": 85}},
    "jpeg2000": {"compression": "aperio_jp2000_rgb"},
}


def write_originals(folder, size=512, seed=0):
    """One slide for each compression; the JPEG 2000 one as Aperio writes it."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 25, (size // 16, size // 16, 3)).repeat(16, axis=0).repeat(16, axis=1)
    pixels = np.clip((200, 130, 180) + coarse + rng.normal(0, 5, coarse.shape), 0, 255)
    paths = []
    for name, options in COMPRESSIONS.items():
        aperio = name == "jpeg2000"
        path = Path(folder) / f"{name}.{'svs' if aperio else 'tif'}"
        with tifffile.TiffWriter(path) as tif:
            for i in range(3):
                level = pixels[:: 2**i, :: 2**i].astype(np.uint8)
                tags = {"photometric": "rgb", "metadata": None, "tile": (128, 128)}
                if aperio:
                    tags["description"] = f"Aperio Image Library v1\r\n{size}x{size} J2K|MPP = 0.5"
                else:
                    tags |= {"subfiletype": int(i > 0), "resolutionunit": "CENTIMETER"}
                    tags["resolution"] = (2e4 / 2**i, 2e4 / 2**i)
                tif.write(np.ascontiguousarray(level), **tags, **options)
                if aperio and i == 0:
                    small = np.ascontiguousarray(pixels[::8, ::8].astype(np.uint8))
                    tif.write(small, photometric="rgb", description="thumbnail", metadata=None)
        paths.append(path)
    return paths


def directories(path):
    """Byte ranges of header, directories and what they point to, but not of pixels."""
    whole = np.ones(path.stat().st_size, dtype=bool)
    try:
        with tifffile.TiffFile(path) as tif:
            for page in tif.pages:
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
                    whole[offset : offset + count] = False
    except Exception:  # no TIFF
        whole[4096:] = False
    return np.flatnonzero(whole)


def mutate(content, places, rng):
    """A changed copy of a file, and how it was changed."""
    changed = bytearray(content)
    kind = rng.choice(["directories", "anywhere", "zeros", "cut"], p=[0.4, 0.4, 0.1, 0.1])
    if kind == "cut":
        return changed[: rng.integers(8, len(changed))], kind
    if kind == "zeros":
        start = rng.integers(0, len(changed))
        end = min(len(changed), start + int(rng.integers(1, 2000)))
        changed[start:end] = bytes(end - start)
        return changed, kind
    among = places if kind == "directories" else np.arange(len(changed))
    for at in rng.choice(among, size=int(rng.integers(1, 6))):
        changed[at] = (
            rng.integers(256) if rng.random() < 0.5 else changed[at] ^ 1 << rng.integers(8)
        )
    return changed, kind


# --- the two readers, each in a process of its own ----------------------------------------------


def windows(dimensions):
    """Up to MAX_WINDOWS windows (x, y, width, height) that cover, or sample, a level."""
    width, height = dimensions
    corners = [
        (x, y, min(WINDOW, width - x), min(WINDOW, height - y))
        for y in range(0, min(height, 10**6), WINDOW)
        for x in range(0, min(width, 10**6), WINDOW)
    ]
    return corners[:: max(1, len(corners) // MAX_WINDOWS)]


def digest(pixels):
    return hashlib.sha1(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def read_by_openslide(path):
    """Digest, or None where it raises, of the windows of all levels of whole downsamples."""
    read = {}
    try:
        with openslide.OpenSlide(path) as slide:
            levels = list(zip(slide.level_dimensions, slide.level_downsamples, strict=True))
    except openslide.OpenSlideError:
        return None
    for number, (dimensions, downsample) in enumerate(levels):
        if downsample != round(downsample):
            continue  # pixels are interpolated there
        factor = round(downsample)
        slide = openslide.OpenSlide(path)
        for x, y, width, height in windows(dimensions):
            key = f"{dimensions[0]}x{dimensions[1]}/{factor}@{x},{y}"
            try:
                pixels = slide.read_region((x * factor, y * factor), number, (width, height))
                read.setdefault(key, digest(to_rgb(np.asarray(pixels))))
            except openslide.OpenSlideError:
                read.setdefault(key, None)
                slide = openslide.OpenSlide(path)  # a handle is dead after an error
        slide.close()
    return read


def read_by_us(path):
    read = {}
    try:
        slide = open_slide(path, mpp=0.5)
    except SlideError as error:
        assert Path(path).name in str(error)
        return None
    with slide:
        for level in slide.levels:
            factor = round(level.factor)
            for x, y, width, height in windows(level.dimensions):
                key = f"{level.dimensions[0]}x{level.dimensions[1]}/{factor}@{x},{y}"
                box = (x * factor, y * factor, (x + width) * factor, (y + height) * factor)
                try:
                    read[key] = digest(slide.read_region(box, (width, height)))
                except SlideError as error:
                    assert Path(path).name in str(error)
                    read[key] = None
    return read


def work(reader):
    """Answer a path per line by a line of JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # thousands of lines for one file
    for line in sys.stdin:
        print(json.dumps(reader(line.rstrip("\n"))), flush=True)


class Worker:
    """A process that reads slides, started again when it dies."""

    def __init__(self, name):
        self.name = name
        self.process = None
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as this

    def read(self, path):
        """What it answers, or "dead" or "hung", and what it said before that."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--work", self.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.said,
                text=True,
            )
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], SECONDS)[0]:
            self.stop()
            return "hung", ""
        line = self.process.stdout.readline()
        if not line:
            self.stop()
            self.said.seek(0)
            return "dead", self.said.read()
        return json.loads(line), ""

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


READERS = {"ours": read_by_us, "openslide": read_by_openslide}


def run(n, seed, originals, folder, keep=None):
    """Counts over `n` changed slides, and what went wrong in words."""
    rng = np.random.default_rng(seed)
    workers = {name: Worker(name) for name in READERS}
    contents = [(path, path.read_bytes(), directories(path)) for path in originals]
    counts: Counter = Counter(
        dict.fromkeys(["dead", "hung", "different", "only_ours", "refused", "damaged", "equal"], 0)
    )
    faults = []
    for i in range(n):
        original, content, places = contents[i % len(contents)]
        changed, kind = mutate(content, places, rng)
        path = Path(folder) / f"{i}_{kind}_{original.name}"
        path.write_bytes(changed)
        ours, said = workers["ours"].read(path)
        theirs, _ = workers["openslide"].read(path)
        before = counts["dead"] + counts["hung"] + counts["different"] + counts["only_ours"]
        if ours in ("dead", "hung"):
            counts[ours] += 1
            faults.append(f"{path.name}: {ours} {said[-500:]}")
        elif ours is None:
            counts["refused"] += 1
        elif theirs in ("dead", "hung"):
            counts[f"reference_{theirs}"] += 1
        else:
            for key, value in ours.items():
                expected = None if theirs is None else theirs.get(key, "unknown")
                if value is None:
                    counts["damaged"] += 1
                elif expected is None:
                    counts["only_ours"] += 1
                    faults.append(f"{path.name}: only ours reads {key}")
                elif expected != "unknown":
                    counts["equal" if value == expected else "different"] += 1
                    if value != expected:
                        faults.append(f"{path.name}: {key} differs")
        after = counts["dead"] + counts["hung"] + counts["different"] + counts["only_ours"]
        if keep is None or after == before:
            path.unlink()
        else:
            path.rename(Path(keep) / path.name)
    for worker in workers.values():
        worker.stop()
        worker.said.close()
    return counts, faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200, help="changed slides")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slides", type=Path, help="folder with more slides to change")
    parser.add_argument("--keep", type=Path, help="folder for the files that show a fault")
    parser.add_argument("--work", choices=sorted(READERS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(READERS[options.work])
        return
    with tempfile.TemporaryDirectory() as folder:
        originals = write_originals(folder)
        if options.slides is not None:
            found = sorted(options.slides.rglob("*"))
            originals += [p for p in found if p.suffix in (".svs", ".tif", ".tiff", ".ndpi")]
        counts, faults = run(options.n, options.seed, originals, folder, options.keep)
    for fault in faults[:40]:
        print(fault, file=sys.stderr)
    print(json.dumps({"n": options.n, "seed": options.seed, **counts}))
    sys.exit(bool(counts["dead"] + counts["hung"] + counts["different"]))


if __name__ == "__main__":
    main()
