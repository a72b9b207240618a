"""Stored runs of the benchmarks: what goes in comes out."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

FOLDER = Path(__file__).parents[2] / "benchmarks" / "accuracy"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    yield
    for name in ("stored", "runs", "protocol", "study", "systems"):
        sys.modules.pop(name, None)


def key(system="a", of_set="s", fold=0):
    return (of_set, 0, "exact", "fast", 0, fold, system)


def write(folder, runs):
    """A folder of runs, with the steps and the labels of each."""
    from runs import KEYS, predictions_file

    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    rows = [dict(zip(KEYS, name, strict=True)) | {"steps": steps} for name, steps, _ in runs]
    pd.DataFrame(rows).to_csv(folder / "runs.csv", index=False)
    for name, _, labels in runs:
        np.savez(predictions_file(folder, name), **labels)


def read(folder):
    """Steps and labels of the runs of a folder."""
    from runs import KEYS, predictions_file

    table = pd.read_csv(folder / "runs.csv")
    assert not table.duplicated(KEYS).any()
    found = {}
    for row in table.itertuples(index=False):
        name = tuple(row)[: len(KEYS)]
        with np.load(predictions_file(folder, name)) as labels:
            found[name] = row.steps, {kind: labels[kind].tolist() for kind in labels.files}
    return found


def test_runs_come_back_as_they_were(tmp_path):
    from stored import store, unpack

    runs = [
        (key("one, with a comma"), 3, {"alone": ["a", "c"], "with record": ["b", "d"]}),
        (key("no record"), 4, {"alone": ["c", "a"]}),
        (key("one, with a comma", fold=1), 5, {"alone": ["a", "a", "c"]}),
        (key("a", "x/y.csv"), 6, {"alone": [1, 2]}),
        (key("a", "z/y.csv"), 7, {"alone": [2, 2]}),
    ]
    write(tmp_path / "runs", runs)
    store(tmp_path / "runs", tmp_path / "stored")
    unpack(tmp_path / "stored", tmp_path / "again")
    assert read(tmp_path / "again") == {name: tuple(rest) for name, *rest in runs}
    assert not list((tmp_path / "stored").glob("*.partial"))


def test_many_classes_come_back(tmp_path):
    from runs import predictions_file
    from stored import store, unpack

    labels = np.random.default_rng(0).permutation(400)
    write(tmp_path / "runs", [(key(), 1, {"alone": labels})])
    store(tmp_path / "runs", tmp_path / "stored")
    unpack(tmp_path / "stored", tmp_path / "again")
    with np.load(predictions_file(tmp_path / "again", key())) as found:
        assert_array_equal(found["alone"], labels)


def test_a_part_is_added_and_replaces_the_same_runs(tmp_path):
    from stored import store, unpack

    old = [(key(s, t), 1, {"alone": [0, 1]}) for s in "ab" for t in "st"]
    write(tmp_path / "old", old)
    store(tmp_path / "old", tmp_path / "stored")
    write(tmp_path / "new", [(key("b", "s"), 9, {"alone": [2, 0]})])
    store(tmp_path / "new", tmp_path / "stored")
    unpack(tmp_path / "stored", tmp_path / "again")
    expected = {name: (steps, labels) for name, steps, labels in old}
    assert read(tmp_path / "again") == expected | {key("b", "s"): (9, {"alone": [2, 0]})}


def test_runs_of_a_folder_stay_when_stored_ones_are_added(tmp_path):
    from stored import store, unpack

    write(tmp_path / "old", [(key("a"), 1, {"alone": [0, 1]}), (key("b"), 2, {"alone": [1, 1]})])
    store(tmp_path / "old", tmp_path / "stored")
    write(tmp_path / "new", [(key("a"), 9, {"alone": [2, 2]})])
    for _ in range(2):
        unpack(tmp_path / "stored", tmp_path / "new")
        assert read(tmp_path / "new") == {
            key("a"): (9, {"alone": [2, 2]}),
            key("b"): (2, {"alone": [1, 1]}),
        }


def test_a_store_that_was_interrupted_gives_no_wrong_labels(tmp_path):
    from stored import store, unpack

    write(tmp_path / "old", [(key("b"), 1, {"alone": [0, 1]})])
    store(tmp_path / "old", tmp_path / "stored")
    before = (tmp_path / "stored" / "runs.csv").read_bytes()
    write(tmp_path / "new", [(key("a"), 2, {"alone": [1, 1]})])
    store(tmp_path / "new", tmp_path / "stored")
    (tmp_path / "stored" / "runs.csv").write_bytes(before)  # it is written last
    unpack(tmp_path / "stored", tmp_path / "again")
    assert read(tmp_path / "again") == {key("b"): (1, {"alone": [0, 1]})}
