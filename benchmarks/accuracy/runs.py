"""Fits of many tasks, resumed where they stopped, and what their tables say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from protocol import Task, run
from study import load_study
from systems import PRINTED
from tqdm import tqdm

from proportion_ssl.evaluation import (
    adjust_p_values,
    bootstrap_scores,
    compare_systems,
    confusion_scores,
    slide_confusions,
)

METRICS = ("OP", "PC", "mIoU")
KEYS = ["set", "cohort", "regime", "protocol", "seed", "fold", "system"]
REFERENCE = "Proposed"


def key_of(task: Task) -> tuple:
    """What names a task in `runs.csv`."""
    name, cohort = task.source.name, task.source.cohort_seed
    return (name, cohort, task.regime, task.protocol, task.seed, task.fold, task.system)


def file_name(of_set: str) -> str:
    """Name of a set, which may be the path of a table, as a part of file names."""
    return quote(of_set, safe="")


def predictions_file(folder: Path, key: tuple) -> Path:
    """Labels that a task predicts for its test patches, by its key."""
    name, cohort, regime, protocol, seed, fold, system = key
    source, draw = f"{file_name(name)}_{cohort}", f"{seed}_{fold}"
    names = (source, regime.replace(" ", "_"), protocol, draw, system)
    return folder / "predictions" / ("-".join(names) + ".npz")


def run_all(tasks: Iterable[Task], folder: Path, n_jobs: int) -> pd.DataFrame:
    """One row per task; those of an earlier start are read."""
    tasks = list(tasks)
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    file = folder / "runs.csv"
    rows = pd.read_csv(file).to_dict("records") if file.exists() else []
    done = {tuple(row[name] for name in KEYS) for row in rows}
    to_do = [task for task in tasks if key_of(task) not in done]
    results = Parallel(n_jobs=n_jobs, return_as="generator_unordered")(
        delayed(_keep)(task, folder) for task in to_do
    )
    for row in tqdm(results, total=len(to_do), desc="systems x folds", unit="run"):
        rows.append(row)
        partial = file.with_suffix(".partial")
        pd.DataFrame(rows).to_csv(partial, index=False)
        partial.replace(file)
    table = pd.DataFrame(rows)
    asked = pd.MultiIndex.from_tuples([key_of(task) for task in tasks])
    return table[pd.MultiIndex.from_frame(table[KEYS]).isin(asked)]


def _keep(task, folder):
    row, predicted = run(task, folder)
    np.savez_compressed(predictions_file(folder, key_of(task)), **predicted)
    return row


def confusions(tasks: Iterable[Task], folder: Path) -> dict[str, dict[str, list[np.ndarray]]]:
    """Confusion matrices of the test slides, without and with their records; and their cases.

    Returns a dict of "alone", "with record" and "cases"; they hold, for each system, an array per run, of
    matrices (n_slides, n_classes, n_classes) or cases (n_slides,).
    """
    found: dict[str, dict] = {"alone": {}, "with record": {}, "cases": {}}
    for task in tasks:
        study = load_study(task.source, stain_shift=task.regime != "no shift")
        roles = list(study.folds(task.seed, task.n_folds))[task.fold]
        is_test = study.rows(roles.test)
        truth, slides = study.labels[is_test], study.slides[is_test]
        with np.load(predictions_file(folder, key_of(task))) as predicted:
            for name in predicted.files:
                matrices, names = slide_confusions(truth, predicted[name], slides, study.classes)
                found[name].setdefault(task.system, []).append(matrices)
        found["cases"].setdefault(task.system, []).append(study.cases.loc[names].to_numpy())
    return found


def summarize(tasks: Iterable[Task], folder: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Scores of every system with intervals over slides, and differences to the published method.

    All test slides of all seeds and folds are pooled; slides, or patients where these are known, are
    resampled. Differences are paired by slide, p values corrected by Holm over the systems.
    """
    found = confusions(tasks, folder)
    pooled = {
        kind: {name: np.concatenate(parts) for name, parts in of_kind.items()}
        for kind, of_kind in found.items()
    }
    rows = {}
    for name, matrices in pooled["alone"].items():
        of_system = runs[runs["system"] == name]
        interval = bootstrap_scores(matrices, groups=pooled["cases"][name])
        scores = confusion_scores(matrices.sum(axis=0))
        each = [float(confusion_scores(part.sum(axis=0))["mIoU"]) for part in found["alone"][name]]
        row = {metric: float(scores[metric]) for metric in METRICS}
        row |= {"low": interval.low, "high": interval.high}
        row["sd of runs"] = float(np.std(each, ddof=1)) if len(each) > 1 else np.nan
        if name in pooled["with record"]:
            total = pooled["with record"][name].sum(axis=0)
            row["mIoU with record"] = float(confusion_scores(total)["mIoU"])
        row |= {
            "runs": len(of_system),
            "slides": len(matrices),
            "cases": interval.n_groups,
            "fell back": int(of_system["fell back"].sum()),
            "steps": of_system["steps"].mean(),
            "seconds of fit": of_system["seconds of fit"].mean(),
            "seconds of choice": of_system["seconds of choice"].mean(),
        }
        rows[name] = row
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")
    if REFERENCE in rows and len(rows) > 1:
        compared = compare_systems(
            pooled["alone"], groups=pooled["cases"][REFERENCE], reference=REFERENCE
        ).set_index("system")
        names = {"difference": "to Proposed", "low": "from", "high": "up to", "p_adjusted": "p"}
        table = table.join(compared[list(names)].rename(columns=names))
    return table


def compare_pairs(
    tasks: Iterable[Task], folder: Path, runs: pd.DataFrame, pairs: dict[str, str]
) -> pd.DataFrame:
    """Scores of each system and of its counterpart, and their differences paired by slide.

    P values are corrected by Holm over the pairs.
    """
    found = confusions(tasks, folder)
    rows = {}
    for name, other in pairs.items():
        both = {key: np.concatenate(found["alone"][key]) for key in (name, other)}
        cases = np.concatenate(found["cases"][name])
        compared = compare_systems(both, groups=cases, reference=name).iloc[0]
        row = {}
        for label, key in (("as shipped", name), ("as in the source", other)):
            row[label] = bootstrap_scores(both[key], groups=cases).score
            row[f"steps {label}"] = runs[runs["system"] == key]["steps"].mean()
        rows[name] = row | compared[["difference", "low", "high", "p"]].to_dict()
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")
    table["p"] = adjust_p_values(table["p"])
    return table


def recovered(table: pd.DataFrame) -> pd.Series:
    """Share of the distance from the supervised net to the net with every label."""
    bottom, top = table.loc["Supervised", "mIoU"], table.loc["Ceiling", "mIoU"]
    return (table["mIoU"] - bottom) / (top - bottom)


def formatted(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that a reader wants, as text."""
    shown = pd.DataFrame(index=table.index)
    shown["OP"], shown["PC"] = table["OP"].map(_score), table["PC"].map(_score)
    shown["mIoU [95%]"] = [
        f"{_score(row.mIoU)} [{_score(row.low)}, {_score(row.high)}]" for row in table.itertuples()
    ]
    if "to Proposed" in table:
        columns = table[["to Proposed", "from", "up to", "p"]].itertuples(index=False, name=None)
        shown["to Proposed [95%]"], shown["p (Holm)"] = zip(
            *(_difference(*values) for values in columns), strict=True
        )
    if {"Supervised", "Ceiling"} <= set(table.index):
        shown["recovered"] = recovered(table).map("{:.2f}".format)
    if "mIoU with record" in table:
        shown["mIoU with record"] = table["mIoU with record"].map(_score)
    if table["fell back"].any():
        shown["fell back"] = [
            f"{row['fell back']:.0f} of {row['runs']:.0f}" for _, row in table.iterrows()
        ]
    shown["steps"] = table["steps"].map(lambda steps: f"{steps:,.0f}" if steps else "")
    shown["seconds"] = table["seconds of fit"].map("{:.1f}".format)
    if len(printed := [name for name in table.index if name in PRINTED]):
        shown["mIoU in print"] = [
            _score(PRINTED[name][2]) if name in printed else "" for name in table.index
        ]
    return shown


def _score(value):
    return "" if np.isnan(value) else f"{value:.3f}".lstrip("0")


def _difference(value, low, high, p):
    if np.isnan(value):
        return "", ""
    signed = [f"{number:+.3f}".replace("0.", ".", 1) for number in (value, low, high)]
    return f"{signed[0]} [{signed[1]}, {signed[2]}]", "" if np.isnan(p) else f"{p:.3f}"
