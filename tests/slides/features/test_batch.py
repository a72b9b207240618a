"""A cohort with broken slides: they are named, the others are done, nothing is lost."""

import logging
import os
import pickle
import signal
import sys
import time
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
from slide_files import damage_tile, texture, write_slide

from proportion_ssl.slides import (
    CohortError,
    NoTissueError,
    SlideError,
    SlidePatches,
    open_slide,
    process_slides,
    read_annotations,
    slide_summary,
    tissue_grid,
    write_table,
)
from proportion_ssl.slides.features.batch import SHOWN_FAILURES, SlideFailure
from proportion_ssl.slides.maps.write import prediction_regions, write_geojson

CLASSES = ["dark", "light"]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Eight slides, of which the third is truncated and the sixth has no resolution."""
    folder = tmp_path_factory.mktemp("cohort")
    paths = []
    for i in range(8):
        path = folder / f"slide_{i}.tif"
        write_slide(path, texture(512, 512, seed=i), mpp=None if i == 5 else 2.0)
        paths.append(path)
    paths[2].write_bytes(paths[2].read_bytes()[:30_000])
    return paths


BROKEN = {"slide_2": "truncated", "slide_5": "no resolution metadata"}
GOOD = [f"slide_{i}" for i in (0, 1, 3, 4, 6, 7)]


def segment(path):
    """A whole job on one slide: patches, labels, outlines beside the slide, a row of the table."""
    with open_slide(path) as slide:
        grid = slide.grid(patch_mpp=2.0, size=64)
        means = np.array([patch.mean() for patch in SlidePatches(slide, grid)])
        labels = np.where(means < np.median(means), "dark", "light")
        regions = prediction_regions(labels, grid, CLASSES, mpp=slide.mpp_xy)
        write_geojson(Path(path).with_suffix(".geojson"), regions)
        return slide_summary(slide.name, labels, grid, CLASSES, mpp=slide.mpp_xy)


def check(run):
    assert list(run.results) == GOOD and list(run.failures) == list(BROKEN)
    for name, reason in BROKEN.items():
        failure = run.failures[name]
        assert failure.slide == name and failure.error == "SlideError"
        assert f"{name}.tif" in failure.reason and reason in failure.reason
        assert "open_slide" in failure.traceback
    assert [row["slide"] for row in run.results.values()] == GOOD
    assert all(row["n_patches"] == 64 for row in run.results.values())


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "n_jobs"), [("loky", None), ("loky", 2), ("threading", 2)])
def test_six_of_eight_slides(paths, tmp_path, caplog, backend, n_jobs):
    with joblib.parallel_config(backend), caplog.at_level(logging.WARNING):
        run = process_slides(paths, segment, on_error="skip", n_jobs=n_jobs)
    check(run)
    assert len(caplog.records) == 2, "each failure is logged when it happens"
    write_table(tmp_path / "table.csv", list(run.results.values()))
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["slide"].tolist() == GOOD
    np.testing.assert_allclose(table["predicted_dark"] + table["predicted_light"], 1)
    for path in paths:
        outlines = path.with_suffix(".geojson")
        assert outlines.exists() == (path.stem in GOOD)
        if outlines.exists():
            assert {r.class_name for r in read_annotations(outlines)} == set(CLASSES)
            outlines.unlink()


def test_raising_comes_after_the_others_are_done(paths):
    with pytest.raises(CohortError, match="2 of 8 slides failed") as caught:
        process_slides(paths, segment)
    check(caught.value.run)
    message = str(caught.value)
    for name, reason in BROKEN.items():
        assert f"- {name}: SlideError: " in message and reason in message


def test_the_error_survives_pickling(paths):
    with pytest.raises(CohortError) as caught:
        process_slides(paths[1:3], segment)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value) and list(copy.run.results) == ["slide_1"]


def test_a_cohort_without_failures(paths):
    run = process_slides(paths[:2], segment)
    assert list(run.results) == GOOD[:2] and run.failures == {}
    assert process_slides([], segment).results == {}


def test_a_mapping_gives_the_function_more_than_a_path(paths):
    cohort = {"A": (paths[5], 0.25), "B": (paths[0], None)}

    def mpp_of(entry):
        path, mpp = entry
        with open_slide(path, mpp=mpp) as slide:
            return slide.mpp

    assert process_slides(cohort, mpp_of).results == {"A": 0.25, "B": 2.0}


def blank(path):
    with open_slide(path) as slide:
        return len(tissue_grid(slide, slide.grid(patch_mpp=2.0, size=64)))


def test_every_kind_of_broken_slide_is_named(tmp_path):
    """Truncated, wrong extension, unreadable tile, no tissue, missing, a folder."""
    good, unreadable = tmp_path / "good.tif", tmp_path / "unreadable.tif"
    framed = np.full((1024, 1024, 3), 240, dtype=np.uint8)
    framed[256:768, 256:768] = texture(512, 512)
    write_slide(good, framed, mpp=2.0)
    write_slide(unreadable, framed, mpp=2.0)
    damage_tile(unreadable, index=5)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(good.read_bytes()[:-40_000])
    wrong = tmp_path / "wrong.svs"
    wrong.write_bytes(b"%PDF-1.4 a report, not a slide" * 50)
    empty = tmp_path / "empty.tif"
    write_slide(empty, np.full((1024, 1024, 3), 240, dtype=np.uint8), mpp=2.0)
    folder = tmp_path / "folder.tif"
    folder.mkdir()
    paths = [cut, wrong, unreadable, empty, tmp_path / "missing.svs", folder, good]
    run = process_slides(paths, blank, on_error="skip")
    assert list(run.results) == ["good"] and run.results["good"] > 40
    reasons = {
        "cut": ("SlideError", "truncated"),
        "wrong": ("SlideError", "cannot be opened"),
        "unreadable": ("SlideError", "damaged there"),
        "empty": ("NoTissueError", "shows no tissue"),
        "missing": ("FileNotFoundError", "slide not found"),
        "folder": ("SlideError", "is a folder"),
    }
    assert list(run.failures) == list(reasons)
    for name, (error, reason) in reasons.items():
        assert run.failures[name].error == error
        assert reason in run.failures[name].reason and name in run.failures[name].reason


def test_too_little_tissue_is_told_from_none(tmp_path):
    pixels = np.full((1024, 1024, 3), 240, dtype=np.uint8)
    pixels[:160, :160] = texture(160, 160)
    path = write_slide(tmp_path / "corner.tif", pixels, mpp=2.0)
    with open_slide(path) as slide:
        grid = slide.grid(patch_mpp=2.0, size=512)
        with pytest.raises(
            NoTissueError, match=r"corner\.tif has no patch with 25% tissue among 4"
        ):
            tissue_grid(slide, grid)
        assert tissue_grid(slide, grid, min_fraction=0.05).cells.tolist() == [[0, 0]]
        for bad in (0, 1.5, float("nan")):
            with pytest.raises(ValueError, match="min_fraction must lie in"):
                tissue_grid(slide, grid, min_fraction=bad)
        with pytest.raises(ValueError, match="has no windows"):
            tissue_grid(slide, grid[:0])
    assert issubclass(NoTissueError, SlideError)


def test_a_slide_coarser_than_the_overview(tmp_path):
    """The overview then has the slide's own resolution, not the one asked for."""
    pixels = np.full((512, 512, 3), 240, dtype=np.uint8)
    pixels[128:144, 128:144] = texture(16, 16)  # 160 um, at 4 um per pixel it would be debris
    with open_slide(write_slide(tmp_path / "a.tif", pixels, mpp=10.0)) as slide:
        grid = slide.grid(patch_mpp=10.0, size=16)
        kept = tissue_grid(slide, grid, min_fraction=0.7, overview_mpp=4.0)
    assert kept.cells.tolist() == [[8, 8]]


def fail_with(error):
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_interrupts_go_through_at_once(on_error, error):
    done = []

    def function(entry):
        done.append(entry)
        if entry == 2:
            raise error

    with pytest.raises(error):
        process_slides({str(i): i for i in range(5)}, function, on_error=on_error)
    assert done == [0, 1, 2]


class Awkward(Exception):
    """An error that pickles, but cannot be unpickled: it would take a pool down with it."""

    def __init__(self, code, detail):
        super().__init__(f"{code}\n{detail}")


def raise_awkward(entry):
    if entry == 1:
        raise Awkward(3, "boom")
    return entry


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_errors_of_any_kind_come_back_from_other_processes(n_jobs):
    run = process_slides(
        {str(i): i for i in range(4)}, raise_awkward, on_error="skip", n_jobs=n_jobs
    )
    assert run.results == {"0": 0, "2": 2, "3": 3}
    assert str(run.failures["1"]) == "1: Awkward: 3 boom"


def end_own_process(entry):
    if entry == "last":
        time.sleep(2)  # the others are done by then
        os.kill(os.getpid(), signal.SIGKILL)
    return entry


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_what_was_done_outlives_a_worker_process():
    cohort = {name: name for name in ("a", "b", "c", "last")}
    run = process_slides(cohort, end_own_process, on_error="skip", n_jobs=2)
    assert run.results == {"a": "a", "b": "b", "c": "c"}
    assert list(run.failures) == ["last"]
    assert "a worker process was killed" in run.failures["last"].reason


def test_long_lists_of_failures_are_cut_but_name_all():
    n = SHOWN_FAILURES + 5
    with pytest.raises(CohortError, match=f"{n} of {n} slides failed") as caught:
        process_slides({f"s{i:02d}": ValueError("no") for i in range(n)}, fail_with)
    message = str(caught.value)
    assert f"and 5 more: s{SHOWN_FAILURES}" in message and f"s{n - 1}" in message
    assert message.count("ValueError") == SHOWN_FAILURES


def test_results_keep_the_order_given():
    def slow_first(entry):
        time.sleep(0.2 if entry == 0 else 0)
        return entry

    with joblib.parallel_config("threading"):
        run = process_slides({str(i): i for i in range(6)}, slow_first, n_jobs=2)
    assert list(run.results.values()) == list(range(6))


def test_verbose_shows_a_bar(capsys):
    process_slides({"a": 1, "b": 2}, abs, verbose=True)
    assert "2/2" in capsys.readouterr().err
    process_slides({"a": 1, "b": 2}, abs)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((["a.svs"], abs, "ignore"), ValueError, 'on_error must be "raise" or "skip"'),
        (("a.svs", abs, "skip"), TypeError, "list of paths or a mapping, got the one path"),
        ((["x/a.svs", "y/a.tif"], abs, "skip"), ValueError, "two slides are named 'a'"),
        ((["a.svs"], 3, "skip"), TypeError, "function must be callable"),
        (([3], abs, "skip"), TypeError, "PathLike object, not int"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    slides, function, on_error = arguments
    with pytest.raises(error, match=message):
        process_slides(slides, function, on_error=on_error)


def test_failures_are_rows_of_a_table(paths, tmp_path):
    run = process_slides(paths[:3], segment, on_error="skip")
    assert isinstance(run.failures["slide_2"], SlideFailure)
    write_table(tmp_path / "failures.csv", [vars(f) for f in run.failures.values()])
    assert pd.read_csv(tmp_path / "failures.csv")["slide"].tolist() == ["slide_2"]
