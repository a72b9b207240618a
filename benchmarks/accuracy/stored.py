"""Runs in few small files, which are kept under version control, and back.

`stored_runs` holds `runs.csv`, one line per fit, and for each set the labels that every fit predicts for its
test patches. Scores, intervals and comparisons follow from it without a fit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from runs import KEYS, file_name, predictions_file

STORED = Path(__file__).parent / "stored_runs"
KINDS = ("alone", "with record")
#: Where a system predicts no probabilities, it cannot use a record.
NOTHING = -1


def store(folder: Path, stored: Path) -> None:
    """Add the runs of a folder of `run_all` to the stored ones; those of the same task are replaced."""
    if (stored / "runs.csv").exists():
        unpack(stored, folder)
    stored.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(folder / "runs.csv").sort_values(KEYS, ignore_index=True)
    for name, of_set in table.groupby("set"):
        found = {}
        for key in of_set[KEYS].itertuples(index=False, name=None):
            with np.load(predictions_file(folder, key)) as labels:
                found[key] = {kind: labels[kind] for kind in KINDS if kind in labels.files}
        classes = np.unique(
            [label for run in found.values() for one in run.values() for label in one]
        )
        arrays = {"classes": classes}
        for draw, rows in of_set.groupby(KEYS[1:-1], sort=False):
            of_draw = [found[key] for key in rows[KEYS].itertuples(index=False, name=None)]
            arrays[_name(draw, "systems")] = rows["system"].to_numpy(dtype=str)
            for kind in KINDS:
                size = len(of_draw), len(of_draw[0]["alone"])
                codes = np.full(size, NOTHING, dtype=np.min_scalar_type(-len(classes)))
                for row, labels in zip(codes, of_draw, strict=True):
                    if kind in labels:
                        row[:] = np.searchsorted(classes, labels[kind])
                arrays[_name(draw, kind)] = codes
        file = _file(stored, name)
        partial = file.with_suffix(".partial")
        with partial.open("wb") as opened:
            np.savez_compressed(opened, **arrays)
        partial.replace(file)
    partial = stored / "runs.partial"
    table.to_csv(partial, index=False)
    partial.replace(stored / "runs.csv")


def unpack(stored: Path, folder: Path) -> None:
    """Add the stored runs to a folder of `run_all`, which then goes on from them.

    Runs that the folder has stay as they are.
    """
    table, file = pd.read_csv(stored / "runs.csv"), folder / "runs.csv"
    there = pd.read_csv(file) if file.exists() else table.iloc[:0]
    here = pd.MultiIndex.from_frame(there[KEYS])
    table = table[~pd.MultiIndex.from_frame(table[KEYS]).isin(here)]
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    for name, of_set in table.groupby("set"):
        with np.load(_file(stored, name)) as arrays:
            classes = arrays["classes"]
            for draw, rows in of_set.groupby(KEYS[1:-1], sort=False):
                codes = {kind: arrays[_name(draw, kind)] for kind in KINDS}
                numbers = {system: n for n, system in enumerate(arrays[_name(draw, "systems")])}
                for key in rows[KEYS].itertuples(index=False, name=None):
                    of_run = {kind: of_kind[numbers[key[-1]]] for kind, of_kind in codes.items()}
                    labels = {
                        kind: classes[one] for kind, one in of_run.items() if one[0] != NOTHING
                    }
                    np.savez_compressed(predictions_file(folder, key), **labels)
    pd.concat([there, table]).to_csv(file, index=False)


def _file(stored, name):
    return stored / f"{file_name(name)}.npz"


def _name(draw, kind):
    return "-".join([*map(str, draw), kind])
