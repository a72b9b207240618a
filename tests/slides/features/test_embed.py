"""Features of a cohort in files: resumed, recomputed when settings change, killed at any moment."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from slide_files import texture, write_slide

from proportion_ssl import Bags, NegativePseudoLabelClassifier
from proportion_ssl.slides import (
    CohortError,
    FeatureFileError,
    FeatureSequence,
    ReinhardNormalizer,
    Slide,
    SlidePatches,
    embed_slides,
    open_slide,
    patch_grid,
    read_features,
    tissue_grid,
    write_features,
)
from proportion_ssl.slides.features import embed, files
from proportion_ssl.slides.features.embed import BLOCK

SETTINGS = {"magnification": 5, "size": 64}
TESTS = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "_helpers")]


class Colors:
    """An embedder without a network: mean, deviation and corner of every channel."""

    def __init__(self, version="1"):
        self.version = version
        self.n_images = 0

    def fingerprint(self):
        return f"colors {self.version}"

    def transform(self, images):
        self.n_images += len(images)
        assert images.dtype == np.uint8 and len(images) <= BLOCK
        parts = [images.mean(axis=(1, 2)), images.std(axis=(1, 2)), images[:, 0, 0]]
        return np.hstack(parts).astype(np.float32)


def tissue(width, height, seed):
    """Texture with nuclei of 16 um, sharp enough to be tissue; every slide in a stain of its own."""
    nuclei = np.random.default_rng(seed).integers(-50, 20, (height // 8, width // 8, 1))
    pixels = texture(width, height, seed) + nuclei.repeat(8, axis=0).repeat(8, axis=1)
    return np.clip(pixels * (1.0, 1.0 - 0.04 * (seed % 4), 1.0), 0, 255).astype(np.uint8)


def write_cohort(folder, n=4):
    """Slides of 5 x 4 mm, half of it glass."""
    folder.mkdir()
    paths = []
    for i in range(n):
        pixels = np.full((768, 1024, 3), 240, dtype=np.uint8)
        pixels[:, : 512 + 128 * (i % 2)] = tissue(512 + 128 * (i % 2), 768, seed=i)
        paths.append(write_slide(folder / f"slide_{i}.tif", pixels, mpp=2.0, n_levels=2))
    return paths


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort") / "slides")


def features_of(folder):
    return {path.name: read_features(path).features for path in sorted(Path(folder).glob("*.h5"))}


def assert_same(one, other):
    assert one.keys() == other.keys() and len(one) > 0
    for name, features in one.items():
        np.testing.assert_array_equal(features, other[name])


def test_files_hold_what_was_embedded(paths, tmp_path):
    run = embed_slides(paths, Colors(), tmp_path / "store", **SETTINGS)
    assert list(run.results) == [f"slide_{i}" for i in range(4)]
    with open_slide(paths[1]) as slide:
        grid = tissue_grid(slide, slide.grid(**SETTINGS))
        parts = SlidePatches(slide, grid).batches(BLOCK)
        expected = np.vstack([Colors().transform(part) for part in parts])
    stored = read_features(run.results["slide_1"])
    np.testing.assert_array_equal(stored.features, expected)
    np.testing.assert_array_equal(stored.grid.boxes, grid.boxes)
    np.testing.assert_array_equal(stored.grid.cells, grid.cells)
    assert (stored.grid.shape, stored.grid.size, stored.grid.mpp) == (grid.shape, grid.size, 2.0)
    assert 0.4 * grid.shape[0] * grid.shape[1] < len(grid) < 0.8 * grid.shape[0] * grid.shape[1]
    assert not list((tmp_path / "store").glob(".*"))


@pytest.mark.slow
def test_views_stand_side_by_side_in_the_reference_colors(paths, tmp_path):
    with open_slide(paths[0]) as slide:
        reference = ReinhardNormalizer().fit(SlidePatches(slide, slide.grid(**SETTINGS)))
    settings = {**SETTINGS, "magnification": (5, 2.5), "normalizer": reference}
    both = embed_slides(paths[:2], Colors(), tmp_path / "both", **settings).results
    settings["magnification"] = 5
    one = embed_slides(paths[:2], Colors(), tmp_path / "one", **settings).results
    plain = embed_slides(paths[:2], Colors(), tmp_path / "plain", **SETTINGS).results
    for name in both:
        features = read_features(both[name]).features
        np.testing.assert_array_equal(features[:, :9], read_features(one[name]).features)
        assert features.shape[1] == 18 and not np.allclose(features[:, :9], features[:, 9:])
    slide_1 = [read_features(results["slide_1"]).features for results in (one, plain)]
    assert not np.allclose(*slide_1)


@pytest.mark.slow
def test_a_second_run_reads_and_changed_settings_recompute(paths, tmp_path, caplog):
    embedder = Colors()
    first = embed_slides(paths, embedder, tmp_path, **SETTINGS).results
    n_images = embedder.n_images
    stamps = {name: os.stat(path).st_mtime_ns for name, path in first.items()}
    assert embed_slides(paths, embedder, tmp_path, **SETTINGS).results == first
    assert embedder.n_images == n_images > 0
    assert stamps == {name: os.stat(path).st_mtime_ns for name, path in first.items()}

    changes = [
        {"magnification": 2.5},
        {"size": 96},
        {"min_fraction": 0.5},
        {"mpp": {"slide_0": 1.0, "slide_1": 1.0}},
    ]
    for change in changes:
        before = embedder.n_images
        embed_slides(paths[:2], embedder, tmp_path, **{**SETTINGS, **change})
        assert embedder.n_images > before, change
    other = Colors("2")
    embed_slides(paths[:2], other, tmp_path, **{**SETTINGS, **changes[-1]})
    assert other.n_images > 0


@pytest.mark.slow
def test_a_slide_that_changes_is_embedded_again(tmp_path):
    paths = write_cohort(tmp_path / "slides", n=2)
    embed_slides(paths, Colors(), tmp_path / "store", **SETTINGS)
    before = features_of(tmp_path / "store")
    write_slide(paths[0], tissue(1024, 768, seed=9), mpp=2.0)
    embedder = Colors()
    embed_slides(paths, embedder, tmp_path / "store", **SETTINGS)
    after = features_of(tmp_path / "store")
    assert embedder.n_images == len(after["slide_0.h5"])
    np.testing.assert_array_equal(after["slide_1.h5"], before["slide_1.h5"])


def change_in_the_middle(path):
    """Other pixels in a quarter of the tiles, in a file of the same size and with the same ends."""
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        offsets, counts = page.dataoffsets, page.databytecounts
    with open(path, "r+b") as file:
        donor = int(np.argmin(counts))
        file.seek(offsets[donor])
        stream = file.read(counts[donor])
        for tile in range(len(offsets) // 4, len(offsets) // 2):
            file.seek(offsets[tile])
            file.write(stream)


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_slide_changed_in_the_middle_is_embedded_again(tmp_path, keep_time):
    path = write_cohort(tmp_path / "slides", n=1)[0]
    embed_slides([path], Colors(), tmp_path / "store", **SETTINGS)
    before, status = features_of(tmp_path / "store")["slide_0.h5"], os.stat(path)
    change_in_the_middle(path)
    assert os.stat(path).st_size == status.st_size
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    embed_slides([path], Colors(), tmp_path / "store", **SETTINGS)
    after = features_of(tmp_path / "store")
    assert not np.array_equal(after["slide_0.h5"], before)
    embed_slides([path], Colors(), tmp_path / "fresh", **SETTINGS)
    assert_same(after, features_of(tmp_path / "fresh"))


def test_a_copied_cohort_is_not_embedded_again(tmp_path):
    paths = write_cohort(tmp_path / "slides", n=2)
    embed_slides(paths, Colors(), tmp_path / "store", **SETTINGS)
    (tmp_path / "moved").mkdir()
    copies = [shutil.copy(path, tmp_path / "moved") for path in paths]
    for copy in copies:
        os.utime(copy, (1e9, 1e9))
    embedder = Colors()
    run = embed_slides(copies, embedder, tmp_path / "store", **SETTINGS)
    assert len(run.results) == 2 and embedder.n_images == 0


def test_a_slide_that_changes_while_it_is_embedded_is_a_failure(tmp_path):
    path = write_cohort(tmp_path / "slides", n=1)[0]

    class Touching(Colors):
        def transform(self, images):
            os.utime(path, (1e9, 1e9))
            return super().transform(images)

    run = embed_slides([path], Touching(), tmp_path / "store", on_error="skip", **SETTINGS)
    assert "changed on disk while it was embedded" in run.failures["slide_0"].reason
    assert os.listdir(tmp_path / "store") == []


def test_a_damaged_file_is_made_again(paths, tmp_path):
    target = embed_slides(paths[:1], Colors(), tmp_path, **SETTINGS).results["slide_0"]
    expected, whole = features_of(tmp_path), target.read_bytes()
    for at in (-7, -4000, 3000):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        target.write_bytes(damaged)
        with pytest.raises(FeatureFileError):
            read_features(target)
        embed_slides(paths[:1], Colors(), tmp_path, **SETTINGS)
        assert_same(features_of(tmp_path), expected)


@pytest.mark.slow
def test_overlapping_patches_and_masks_of_ones_own(paths, tmp_path):
    def run(name, **settings):
        settings = {**SETTINGS, **settings}
        result = embed_slides(paths[:1], Colors(), tmp_path / name, **settings).results["slide_0"]
        return read_features(result)

    plain, dense = run("a"), run("a", stride=32)
    assert len(dense) > 3 * len(plain)
    assert dense.settings["stride"] == 32 and dense.attributes["overlap"] == 32
    here = {tuple(corner) for corner in dense.locations.tolist()}
    assert here > {tuple(corner) for corner in plain.locations.tolist()}
    again = run("a")
    assert len(again) == len(plain), "the file of the other stride was not taken for this one"
    mask = np.zeros((48, 64), dtype=bool)
    mask[:, :16] = True
    masked = run("a", tissue_mask={"slide_0": mask})
    assert len(masked) == 12 * 4 and masked.locations[:, 0].max() == 3 * 64
    assert len(run("a")) == len(plain)
    for bad in ({"stride": 0}, {"stride": 65}, {"tissue_mask": {"other": mask}}):
        with pytest.raises(ValueError, match=r"stride must be|is not among the slides"):
            run("b", **bad)


@pytest.mark.parametrize("kind", ["embedder", "not finite", "writer", "interrupt"])
@pytest.mark.parametrize("fast", [True, False])
def test_a_slide_is_closed_after_the_thread_that_reads_it(tmp_path, monkeypatch, kind, fast):
    """Closing a slide inside a read ends the process; so whoever fails, the read comes to its end first."""
    path = write_cohort(tmp_path / "slides", n=1)[0]
    reading, closed_early = threading.Event(), []
    batches, close = SlidePatches.batches, Slide.close

    def slow_batches(self, batch_size=64):
        for number, batch in enumerate(batches(self, batch_size)):
            if number == 1:
                reading.set()
                time.sleep(0.3)
                reading.clear()
            yield batch

    def noting_close(self):
        closed_early.append(reading.is_set())
        close(self)

    class Failing(Colors):
        def transform(self, images):
            assert reading.wait(10), "the next block is being read"
            if kind == "embedder":
                raise RuntimeError("out of memory")
            if kind == "interrupt":
                raise KeyboardInterrupt
            return super().transform(images) * (np.nan if kind == "not finite" else 1)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SlidePatches, "batches", slow_batches)
    monkeypatch.setattr(Slide, "close", noting_close)
    monkeypatch.setattr(embed, "open_slide", partial(open_slide, fast=fast))
    if kind == "writer":
        monkeypatch.setattr(files.RowDigests, "add", full)
    arguments = ([path], Failing(), tmp_path / "store")
    if kind == "interrupt":
        with pytest.raises(KeyboardInterrupt):
            embed_slides(*arguments, **SETTINGS)
    else:
        failure = embed_slides(*arguments, on_error="skip", **SETTINGS).failures["slide_0"]
        reasons = {"embedder": "out of memory", "not finite": "NaN", "writer": "No space left"}
        assert reasons[kind] in failure.reason
    assert closed_early and not any(closed_early)
    assert os.listdir(tmp_path / "store") == []


def benchmark(name, *arguments):
    """What a script of benchmarks/faults reports."""
    script = Path(__file__).parents[3] / "benchmarks" / "faults" / name
    command = [sys.executable, str(script), *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr[-3000:]
    return json.loads(run.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="processes of POSIX")
def test_faults_at_random_blocks():
    """One fault of each kind, and kills of which some strike while a file is written."""
    found = benchmark("embed_faults.py", "--faults", "6", "--kills", "6")
    assert found["problems"] == [] and found["half_written"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["features", "sequence", "model", "exported"])
def test_flipped_bits(kind):
    if kind == "exported":
        pytest.importorskip("openvino")
    outcomes = benchmark("bit_flips.py", "--flips", "40", "--kinds", kind)["outcomes"][kind]
    assert outcomes.keys() <= {"refused", "same"} and outcomes["refused"] > 20


def test_broken_slides_are_named_and_the_others_done(paths, tmp_path):
    broken = tmp_path / "broken.tif"
    broken.write_bytes(Path(paths[0]).read_bytes()[:20_000])
    with pytest.raises(
        CohortError, match=r"1 of 3 slides failed[\s\S]*broken: SlideError"
    ) as caught:
        embed_slides([paths[0], broken, paths[1]], Colors(), tmp_path / "store", **SETTINGS)
    assert list(caught.value.run.results) == ["slide_0", "slide_1"]
    run = embed_slides([broken], Colors(), tmp_path / "store", on_error="skip", **SETTINGS)
    assert run.results == {} and list(run.failures) == ["broken"]
    assert sorted(os.listdir(tmp_path / "store")) == ["slide_0.h5", "slide_1.h5"]


@pytest.mark.slow
@pytest.mark.slow
def test_two_slides_at_once_give_the_same(paths, tmp_path, capsys):
    embed_slides(paths, Colors(), tmp_path / "one", **SETTINGS)
    embed_slides(paths, Colors(), tmp_path / "two", n_jobs=2, verbose=True, **SETTINGS)
    assert_same(features_of(tmp_path / "one"), features_of(tmp_path / "two"))
    shown = capsys.readouterr().err
    assert "4/4" in shown and "patch/s" in shown


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"embedder": object()}, TypeError, "embedder has no method transform"),
        ({"on_error": "ignore"}, ValueError, 'on_error must be "raise" or "skip"'),
        ({"mpp": {"other": 1.0}}, ValueError, "mpp names 'other'"),
        ({"slides": "a.tif"}, TypeError, "got the one path"),
    ],
)
def test_arguments(paths, tmp_path, change, error, message):
    arguments = {"slides": paths, "embedder": Colors(), "folder": tmp_path, **change}
    with pytest.raises(error, match=message):
        embed_slides(**arguments)


# --- killed -----------------------------------------------------------------------------------

CHILD = """
import sys
sys.path[:0] = {tests!r}
from test_embed import SETTINGS, Colors
from proportion_ssl.slides import embed_slides
print("ready", flush=True)
embed_slides({paths!r}, Colors(), {store!r}, **SETTINGS)
"""


def run_and_kill(paths, store, after):
    """A run in another process, killed so many seconds after it began; whether it was."""
    code = CHILD.format(tests=TESTS, paths=paths, store=str(store))
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\n"
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    child.stdout.close()
    return child.wait() == -signal.SIGKILL


def probabilities_from(store):
    """Of all patches, by a classifier that learns from the files: slide 0 labeled, the others bags."""
    files = sorted(Path(store).glob("*.h5"))
    instances, labeled = FeatureSequence(files[1:]), np.asarray(FeatureSequence(files[:1]))
    stained = np.median(labeled[:, 1])  # the green of half of the labeled patches is below

    def classes(features):
        return np.where(features[:, 1] < stained, "stained", "pale")

    names = instances.names[instances.slide_ids]
    shares = [np.mean(classes(instances[names == name]) == "pale") for name in instances.names]
    bags = Bags(instances, names, [(share, 1 - share) for share in shares])
    model = NegativePseudoLabelClassifier(max_epochs=3, random_state=0)
    model.fit(labeled, classes(labeled), bags)
    return model.predict_proba(FeatureSequence(files))


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("n_kills", [int(os.environ.get("PROPORTION_SSL_KILLS", "3"))])
def test_killed_and_resumed(paths, tmp_path, record_property, n_kills):
    """No file is half-read; features and predictions are those of a run that nobody disturbed.

    ``PROPORTION_SSL_KILLS=50`` kills as many runs.
    """
    start = time.perf_counter()
    embed_slides(paths, Colors(), tmp_path / "undisturbed", **SETTINGS)
    seconds = time.perf_counter() - start
    expected = features_of(tmp_path / "undisturbed")
    predicted = probabilities_from(tmp_path / "undisturbed")
    assert len(np.unique(predicted.argmax(axis=1))) == 2, "something is there to be told apart"
    rng = np.random.default_rng(0)
    killed = resumed = 0
    for turn in range(n_kills):
        store = tmp_path / f"store_{turn}"
        killed += run_and_kill(paths, store, rng.uniform(0, seconds))
        kept = features_of(store)  # raises for a file that is not whole
        for name, features in kept.items():
            np.testing.assert_array_equal(features, expected[name])
        embed_slides(paths, Colors(), store, **SETTINGS)
        assert_same(features_of(store), expected)
        np.testing.assert_array_equal(probabilities_from(store), predicted)
        resumed += 0 < len(kept) < len(expected)
    record_property("killed", killed)
    record_property("with_some_files", resumed)
    assert killed > 0


def test_what_killed_runs_left_behind_is_removed(paths, tmp_path):
    abandoned = tmp_path / ".slide_0.h5.1-ab.tmp"
    abandoned.write_bytes(b"half a file")
    os.utime(abandoned, (1e9, 1e9))
    embed_slides(paths[:1], Colors(), tmp_path, **SETTINGS)
    assert os.listdir(tmp_path) == ["slide_0.h5"]


DASK = """
import os, signal, sys, threading, time
sys.path[:0] = {tests!r}
import joblib
from dask.distributed import Client, LocalCluster
from test_embed import SETTINGS, SlowColors
from proportion_ssl.slides import embed_slides

def main():
    with LocalCluster(2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        pids = client.run(os.getpid)
        assert len(pids) == 2
        def kill():
            time.sleep(0.8)
            os.kill(list(pids.values())[0], signal.SIGKILL)
        killer = threading.Thread(target=kill)
        killer.start()
        with joblib.parallel_config(backend="dask"):
            run = embed_slides({paths!r}, SlowColors(), {store!r}, **SETTINGS)
        killer.join()
        client.wait_for_workers(2)
        assert set(client.run(os.getpid).values()) != set(pids.values())
        print("done", len(run.results), len(run.failures))

if __name__ == "__main__":
    main()
"""


class SlowColors(Colors):
    """Half a second per block, so that a worker is certainly in the middle of a slide."""

    def transform(self, images):
        time.sleep(0.5)
        return super().transform(images)


@pytest.mark.slow
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_dask_worker_is_killed_and_its_slides_are_done_again(paths, tmp_path):
    pytest.importorskip("dask.distributed", reason="pip install proportion_ssl[dask]")
    embed_slides(paths, Colors(), tmp_path / "here", **SETTINGS)
    script = tmp_path / "there.py"
    script.write_text(DASK.format(tests=TESTS, paths=paths, store=str(tmp_path / "there")))
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "done 4 0" in run.stdout
    assert_same(features_of(tmp_path / "here"), features_of(tmp_path / "there"))


# --- larger than memory -----------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """Files of three slides of Gaussian features, and the same in memory."""
    rng = np.random.default_rng(0)
    grid = patch_grid((4000, 3000), mpp=0.5, magnification=10)
    arrays, files = {}, {}
    for name, n in {"b": 40, "a": 25, "empty": 0, "c": 47}.items():
        arrays[name] = rng.normal(size=(n, 6)).astype(np.float32)
        files[name] = tmp_path / f"{name}.h5"
        write_features(
            files[name],
            (part for part in (arrays[name][:10], arrays[name][10:])),
            grid[:n],
            name=name,
            dimensions=(4000, 3000),
            mpp=0.5,
            settings={"a": 1},
        )
    return files, arrays


def test_sequence_is_indexed_like_an_array(stored, monkeypatch):
    monkeypatch.setattr("proportion_ssl.slides.features.sequence.MAPPED_FILES", 2)
    files, arrays = stored
    whole = np.concatenate(list(arrays.values()))
    sequence = FeatureSequence(files)
    assert sequence.shape == whole.shape and len(sequence) == 112 and sequence.dtype == np.float32
    assert sequence.names.tolist() == ["b", "a", "empty", "c"]
    assert np.bincount(sequence.slide_ids).tolist() == [40, 25, 0, 47]
    rng = np.random.default_rng(0)
    for index in (
        *(3, -1, np.int64(64), slice(None), slice(30, 80, 3), slice(0, 0), [111, 0, 41, 0]),
        *(rng.integers(0, 112, 500), rng.random(112) < 0.3, (slice(5), 2), (7, slice(2))),
    ):
        np.testing.assert_array_equal(sequence[index], whole[index])
    np.testing.assert_array_equal(np.asarray(sequence), whole)
    np.testing.assert_array_equal(np.concatenate(list(sequence.batches(30))), whole)
    np.testing.assert_array_equal(np.stack(list(sequence)), whole)
    copy = pickle.loads(pickle.dumps(sequence))
    np.testing.assert_array_equal(copy[[5, 70]], whole[[5, 70]])
    assert len(pickle.dumps(sequence)) < 5000, "the features do not travel"
    with pytest.raises(IndexError):
        sequence[112]


def test_sequence_refuses_what_it_cannot_map(stored, tmp_path):
    files, _ = stored
    with pytest.raises(TypeError, match="got the one"):
        FeatureSequence(str(files["a"]))
    with pytest.raises(ValueError, match="paths is empty"):
        FeatureSequence([])
    with pytest.raises(ValueError, match="same name"):
        FeatureSequence([files["a"], files["a"]])
    truncated = tmp_path / "d.h5"
    truncated.write_bytes(files["a"].read_bytes()[:-100])
    with pytest.raises(FeatureFileError, match="truncated"):
        FeatureSequence([truncated])
    grid = patch_grid((4000, 3000), mpp=0.5, magnification=10)[:2]
    facts = {"name": "w", "dimensions": (4000, 3000), "mpp": 0.5, "settings": {}}
    write_features(tmp_path / "w.h5", np.ones((2, 5)), grid, **facts)
    with pytest.raises(ValueError, match=r"w\.h5 has 5 features per patch, but .*a\.h5 has 6"):
        FeatureSequence([files["a"], tmp_path / "w.h5"])


GRID = patch_grid((4000, 3000), mpp=0.5, magnification=10)
MADE = {"embedder": "uni", "magnifications": [10.0], "colors": None, "size": 224, "slide": "a"}


@pytest.mark.parametrize(
    ("settings", "magnification", "message"),
    [
        ({"embedder": "conch"}, 10, 'embedder is "conch", not "uni"'),
        ({"magnifications": [10.0, 5.0]}, 10, r"magnifications is \[10.0, 5.0\], not"),
        ({"magnifications": [20.0]}, 20, r"magnifications is \[20.0\]"),
        ({}, 20, "patch_mpp is 0.5, not 1.0"),
        (
            {"colors": ["ReinhardNormalizer", {"mean_": [1.0] * 40}]},
            10,
            r"colors is .*\.\.\., not null",
        ),
        ({"size": 256}, 10, "size is 256, not 224"),
        ({"encoder": "uni2"}, 10, 'encoder is "uni2", not not given'),
        ({"slide": "b", "slide_mpp": 0.4, "min_fraction": 0.1, "stride": 112}, 10, None),
    ],
)
def test_features_made_in_different_ways_do_not_mix(tmp_path, settings, magnification, message):
    for name, made, m in (("one", MADE, 10), ("other", {**MADE, **settings}, magnification)):
        grid = patch_grid((4000, 3000), mpp=0.5, magnification=m)[:3]
        facts = {"name": name, "dimensions": (4000, 3000), "mpp": 0.5, "settings": made}
        write_features(tmp_path / f"{name}.h5", np.ones((3, 8)), grid, **facts)
    files = [tmp_path / "one.h5", tmp_path / "other.h5"]
    if message is None:
        assert FeatureSequence(files).shape == (6, 8)
        return
    with pytest.raises(ValueError, match=rf"other\.h5 were made in another way.*{message}"):
        FeatureSequence(files)


def test_sequence_compares_rows_with_their_checksums(tmp_path):
    path = tmp_path / "a.h5"
    grid = patch_grid((40000, 30000), mpp=0.5, magnification=10)[:200]
    features = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    facts = {"name": "a", "dimensions": (40000, 30000), "mpp": 0.5, "settings": {}}
    write_features(path, features, grid, **facts)
    content = bytearray(path.read_bytes())
    content[-4 * 6 * (200 - 70)] ^= 1  # of patch 70
    path.write_bytes(content)
    sequence = FeatureSequence([path])
    for rows in ([0, 63], slice(128, 200)):
        np.testing.assert_array_equal(sequence[rows], features[rows])
    for rows in (64, [0, 127], slice(None)):
        with pytest.raises(FeatureFileError, match=r"a\.h5: damaged: .* patches 64 to 127 .*again"):
            sequence[rows]
    copy = pickle.loads(pickle.dumps(sequence))
    with pytest.raises(FeatureFileError, match="damaged"):
        copy[70]


def test_sequence_notices_that_a_file_was_replaced(stored, tmp_path):
    files, arrays = stored
    sequence = FeatureSequence(files)
    facts = {"name": "a", "dimensions": (4000, 3000), "mpp": 0.5, "settings": {"a": 1}}
    write_features(files["a"], arrays["a"] + 1, GRID[:25], **facts)
    with pytest.raises(FeatureFileError, match=r"a\.h5: the file has changed since this sequence"):
        sequence[:]


@pytest.mark.parametrize(
    "blocks", [[np.ones((3, 2))], [np.ones((2, 2)), np.ones((2, 3))], [], [np.ones((5, 2))]]
)
def test_blocks_must_cover_the_patches(tmp_path, blocks):
    grid = patch_grid((4000, 3000), mpp=0.5, magnification=10)[:4]
    facts = {"name": "w", "dimensions": (4000, 3000), "mpp": 0.5, "settings": {}}
    with pytest.raises(ValueError, match="one row per patch"):
        write_features(tmp_path / "w.h5", iter(blocks), grid, **facts)
    assert os.listdir(tmp_path) == []


def test_training_from_files_equals_training_from_memory(stored):
    files, arrays = stored
    del files["empty"], arrays["empty"]
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(40, 6)).astype(np.float32), np.repeat(["x", "y"], 20)
    X[y == "y"] += 1
    proportions = pd.DataFrame([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], list("abc"), ["x", "y"])
    sequence = FeatureSequence(files)
    names = sequence.names[sequence.slide_ids]
    whole = np.concatenate(list(arrays.values()))
    fitted = []
    for instances in (sequence, whole):
        model = NegativePseudoLabelClassifier(max_epochs=5, random_state=0)
        fitted.append(model.fit(X, y, Bags(instances, names, proportions)))
    from_files, from_memory = fitted
    np.testing.assert_array_equal(from_files.signed_labels_, from_memory.signed_labels_)
    assert (from_files.signed_labels_ != 0).any()
    expected = from_memory.predict_proba(whole)
    np.testing.assert_array_equal(from_files.predict_proba(whole), expected)
    np.testing.assert_array_equal(from_files.predict_proba(sequence), expected)
    with pytest.raises(ValueError, match="6 features"):
        from_files.fit(X[:, :5], y)
        from_files.predict(sequence)


def test_features_are_not_copied_into_memory(stored, monkeypatch):
    """No part of fitting or predicting asks for all rows as one array."""
    files, _ = stored
    del files["empty"]
    sequence = FeatureSequence(files)

    def refuse(self, dtype=None, copy=None):
        raise AssertionError("the features of the whole cohort were read at once")

    monkeypatch.setattr(FeatureSequence, "__array__", refuse)
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(40, 6)), np.repeat([0, 1], 20)
    proportions = pd.DataFrame([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], list("abc"), [0, 1])
    bags = Bags(sequence, sequence.names[sequence.slide_ids], proportions)
    model = NegativePseudoLabelClassifier(max_epochs=2, random_state=0).fit(X, y, bags)
    assert model.predict(sequence).shape == (112,)


def test_a_given_resolution_that_the_file_contradicts_is_told(tmp_path, caplog):
    path = write_slide(tmp_path / "s.tif", texture(400, 400), mpp=0.5)
    for mpp, told in ((1.0, True), (0.5, False)):
        caplog.clear()
        embed_slides([path], Colors(), tmp_path / str(mpp), mpp={"s": mpp}, **SETTINGS)
        assert (
            "s: the given 1 microns per pixel are used, but the file states 0.5" in caplog.text
        ) is told
