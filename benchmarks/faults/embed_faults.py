"""`embed_slides` when a slide, the embedder, the writing, the disk or the power fails.

Five slides, stored as LZW, deflate, JPEG and JPEG 2000 (Aperio), are embedded by a process of its
own, in which one of them meets a fault at a random block:

- ``reader``: its pixels cannot be read; ``embedder``: an error; ``nan``: features that are no numbers;
- ``writer``: an I/O error while features are written; ``disk``: no more bytes fit (RLIMIT_FSIZE);
- ``interrupt``: Ctrl-C, which ends the whole run.

Afterwards the process must have ended by itself, the failure must be named, the files of all other
slides must hold what an undisturbed run computes, and nothing else may lie in the folder. A second
run then makes the rest.

Then runs are ended by SIGKILL at random times. ``half_written`` counts those that left a temporary
file, so died while a file was being written. After each, every file that has a name is whole, and a
second run makes the rest.

One line of JSON comes out; it fails unless all went well. Linux or macOS.

    python benchmarks/faults/embed_faults.py --faults 50 --kills 50
"""

import argparse
import errno
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import tifffile

from proportion_ssl.slides import FeatureFileError, embed_slides, read_features
from proportion_ssl.slides.features import files
from proportion_ssl.slides.patches import sequences

FAULTS = ("reader", "embedder", "nan", "writer", "disk", "interrupt")
STORED = {"lzw": "lzw", "deflate": "deflate", "jpeg": "jpeg", "jpeg2000": 33005, "jpeg_2": "jpeg"}
SIZE = 32
SETTINGS = {"magnification": 5, "size": SIZE, "min_fraction": 0.1}
N_BLOCKS = 6  # at least, of every slide


# --- slides and embedder ----------------------------------------------------------------------


def write_slides(folder):
    folder.mkdir()
    paths = []
    for seed, (name, compression) in enumerate(STORED.items()):
        rng = np.random.default_rng(seed)
        nuclei = rng.integers(-60, 30, (96, 96, 1)).repeat(8, axis=0).repeat(8, axis=1)
        pixels = np.array([200, 130, 180]) + nuclei + rng.normal(0, 6, (768, 768, 3))
        options = {"resolution": (5000, 5000), "resolutionunit": "CENTIMETER"}
        if name == "jpeg2000":
            layout = "768x768 [0,0 768x768] (256x256) J2K/KDU Q=70|AppMag = 5|MPP = 2"
            options = {"description": f"Aperio Image Library v12.0.0\r\n{layout}"}
        path = folder / f"{name}.{'svs' if name == 'jpeg2000' else 'tif'}"
        tifffile.imwrite(
            path,
            np.clip(pixels, 0, 255).astype(np.uint8),
            tile=(256, 256),
            photometric="rgb",
            compression=compression,
            metadata=None,
            **options,
        )
        paths.append(path)
    return paths


class Colors:
    """An embedder without a network, which takes a moment for each block."""

    def __init__(self, seconds=0.0):
        self.seconds = seconds

    def fingerprint(self):
        return "colors 1"

    def transform(self, images):
        time.sleep(self.seconds)
        small = images[:, ::4, ::4].reshape(len(images), -1)
        return np.hstack([small, images.mean(axis=(1, 2)), images.std(axis=(1, 2))]).astype(
            np.float32
        )


class Fault:
    """Counts blocks of the slide that is being embedded and strikes at one."""

    def __init__(self, kind, victim, block):
        self.kind, self.victim, self.block = kind, victim, block
        self.slide = None
        self.counts = Counter()

    def strikes(self, place):
        self.counts[self.slide, place] += 1
        return self.slide == self.victim and self.counts[self.slide, place] == self.block

    def install(self):
        """Into the parts of the package that read and write, and an embedder."""
        fault, batches = self, sequences.SlidePatches.batches
        add, is_open = files.RowDigests.add, resource.getrlimit(resource.RLIMIT_FSIZE)

        def failing_batches(patches, batch_size=64):
            for batch in batches(patches, batch_size):
                fault.slide = patches.slide.name
                if fault.kind == "reader" and fault.strikes("read"):
                    raise OSError(errno.EIO, "the reader fails")
                yield batch

        def failing_add(digests, rows):
            if fault.kind == "writer" and fault.strikes("write"):
                raise OSError(errno.EIO, "the writer fails")
            add(digests, rows)

        class Failing(Colors):
            def transform(self, images):
                features = super().transform(images)
                resource.setrlimit(resource.RLIMIT_FSIZE, is_open)
                if not fault.strikes("embed"):
                    return features
                if fault.kind == "embedder":
                    raise RuntimeError("the embedder fails")
                if fault.kind == "nan":
                    features[len(features) // 2] = np.nan
                if fault.kind == "interrupt":
                    os.kill(os.getpid(), signal.SIGINT)
                if fault.kind == "disk":  # a part of this block still fits
                    least = (fault.block - 1) * features.nbytes + features.nbytes // 2
                    resource.setrlimit(resource.RLIMIT_FSIZE, (least, is_open[1]))
                return features

        sequences.SlidePatches.batches = failing_batches
        files.RowDigests.add = failing_add
        return Failing(0.002)


# --- processes --------------------------------------------------------------------------------


def forked(function, *arguments):
    """Start a function in a process of its own; the process."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        function(*arguments)
        code = 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def waited(pid):
    """How a process ended: 0, an exit code, or the negative number of a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def embed(paths, store):
    embed_slides(paths, Colors(0.03), store, **SETTINGS)


def embed_with_fault(paths, store, fault, report):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start jobs without
    try:
        run = embed_slides(paths, fault.install(), store, on_error="skip", **SETTINGS)
        found = {name: f"{f.error}: {f.reason}" for name, f in run.failures.items()}
    except KeyboardInterrupt:
        found = "KeyboardInterrupt"
    report.write_text(json.dumps(found))


def features_of(store):
    """Features and places of every file; raises for one that is not whole."""
    return {
        path.stem: (stored.features, stored.locations)
        for path in sorted(store.glob("*.h5"))
        for stored in [read_features(path)]
    }


def equal(one, other):
    return all(
        name in other
        and all(np.array_equal(*pair) for pair in zip(one[name], other[name], strict=True))
        for name in one
    )


# --- runs -------------------------------------------------------------------------------------

MESSAGES = {
    "reader": "OSError: [Errno 5] the reader fails",
    "embedder": "RuntimeError: the embedder fails",
    "nan": "has NaN or infinite features",
    "writer": "OSError: [Errno 5] the writer fails",
    "disk": "OSError: [Errno 27]",
}


def run_with_fault(paths, folder, kind, rng, expected):
    """What went wrong, or None."""
    victim = str(rng.choice(list(STORED)))
    fault = Fault(kind, victim, int(rng.integers(1, N_BLOCKS)))
    store, report = folder / "store", folder / "report.json"
    code = waited(forked(embed_with_fault, paths, store, fault, report))
    what = f"{kind} at block {fault.block} of {victim}"
    if code:
        return f"{what}: the process ended with {code}"
    failures = json.loads(report.read_text())
    if kind == "interrupt":
        if failures != "KeyboardInterrupt":
            return f"{what}: {failures}"
    elif list(failures) != [victim] or MESSAGES[kind] not in failures[victim]:
        return f"{what}: {failures}"
    found = features_of(store)
    if not equal(found, expected) or victim in found:
        return f"{what}: other features"
    if kind != "interrupt" and len(found) != len(expected) - 1:
        return f"{what}: only {sorted(found)}"
    if len(os.listdir(store)) != len(found):
        return f"{what}: left {sorted(os.listdir(store))}"
    return resumed(paths, store, expected, what)


def run_and_kill(paths, folder, seconds, expected):
    """Whether the process was killed while a file was written; what went wrong, or None."""
    store = folder / "store"
    pid = forked(embed, paths, store)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    killed = waited(pid) == -signal.SIGKILL
    half_written = killed and any(store.glob(".*.tmp"))
    try:
        found = features_of(store)
    except FeatureFileError as error:
        return half_written, str(error)
    if not equal(found, expected):
        return half_written, f"other features after {seconds:.3f} s"
    return half_written, resumed(paths, store, expected, f"killed after {seconds:.3f} s")


def resumed(paths, store, expected, what):
    code = waited(forked(embed, paths, store))
    found = features_of(store)
    if code or found.keys() != expected.keys() or not equal(found, expected):
        return f"{what}: a second run ended with {code}, and files {sorted(found)}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    problems, struck, half_written = [], Counter(), 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        paths = write_slides(folder / "slides")
        start = time.perf_counter()
        assert waited(forked(embed, paths, folder / "undisturbed")) == 0
        seconds = time.perf_counter() - start
        expected = features_of(folder / "undisturbed")
        assert len(expected) == len(STORED)
        assert min(len(features) for features, _ in expected.values()) > (N_BLOCKS - 1) * 64
        for turn in range(arguments.faults):
            kind = FAULTS[turn % len(FAULTS)]
            (folder / f"fault_{turn}").mkdir()
            problems.append(run_with_fault(paths, folder / f"fault_{turn}", kind, rng, expected))
            struck[kind] += 1
        for turn in range(arguments.kills):
            (folder / f"kill_{turn}").mkdir()
            hit, problem = run_and_kill(
                paths, folder / f"kill_{turn}", rng.uniform(0, seconds), expected
            )
            half_written += hit
            problems.append(problem)
    problems = [problem for problem in problems if problem]
    result = {
        "benchmark": "embed_faults",
        "faults": struck,
        "kills": arguments.kills,
        "half_written": half_written,
        "problems": problems,
    }
    print(json.dumps(result))
    if problems:
        raise SystemExit(f"{len(problems)} runs went wrong.")


if __name__ == "__main__":
    main()
