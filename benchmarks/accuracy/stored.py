"""Runs in few small files, which are kept under version control, and back.

`stored_runs` holds `runs.csv`, one line per fit, and for each set the labels that every fit predicts for its
test patches. Scores, intervals and comparisons follow from it without a fit.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from runs import KEYS, predictions_file

STORED = Path(__file__).parent / "stored_runs"
KINDS = ("alone", "with record")
#: Where a system predicts no probabilities, it cannot use a record.
NOTHING = 255


def store(folder: Path, stored: Path) -> None:
    """Write the runs of a folder of `run_all` to few files, in place of those that are there."""
    stored.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(folder / "runs.csv").sort_values(KEYS, ignore_index=True)
    for name, of_set in table.groupby("set"):
        found = {}
        for key in of_set[KEYS].itertuples(index=False, name=None):
            with np.load(predictions_file(folder, key)) as labels:
                found[key] = {kind: labels[kind] for kind in KINDS if kind in labels.files}
        classes = np.unique([label for of_run in found.values() for label in of_run["alone"]])
        arrays = {"classes": classes}
        for draw, rows in of_set.groupby(KEYS[1:-1], sort=False):
            of_draw = [found[key] for key in rows[KEYS].itertuples(index=False, name=None)]
            for kind in KINDS:
                codes = np.full((len(of_draw), len(of_draw[0]["alone"])), NOTHING, dtype=np.uint8)
                for row, labels in zip(codes, of_draw, strict=True):
                    if kind in labels:
                        row[:] = np.searchsorted(classes, labels[kind])
                arrays[_name(draw, kind)] = codes
        np.savez_compressed(_file(stored, name), **arrays)
    table.to_csv(stored / "runs.csv", index=False)


def unpack(stored: Path, folder: Path) -> None:
    """Add the stored runs to a folder of `run_all`, which then goes on from them."""
    table = pd.read_csv(stored / "runs.csv")
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    for name, of_set in table.groupby("set"):
        with np.load(_file(stored, name)) as arrays:
            classes = arrays["classes"]
            for draw, rows in of_set.groupby(KEYS[1:-1], sort=False):
                codes = {kind: arrays[_name(draw, kind)] for kind in KINDS}
                for number, key in enumerate(rows[KEYS].itertuples(index=False, name=None)):
                    labels = {
                        kind: classes[of_kind[number]]
                        for kind, of_kind in codes.items()
                        if of_kind[number][0] != NOTHING
                    }
                    np.savez_compressed(predictions_file(folder, key), **labels)
    file = folder / "runs.csv"
    if file.exists():
        table = pd.concat([pd.read_csv(file), table]).drop_duplicates(KEYS)
    table.to_csv(file, index=False)


def _file(stored, name):
    return stored / f"{Path(name).stem}.npz"


def _name(draw, kind):
    return "-".join([*map(str, draw), kind])
