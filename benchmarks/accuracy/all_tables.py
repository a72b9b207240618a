"""All tables of the documentation, from all sets and regimes, in one command.

    python benchmarks/accuracy/all_tables.py --data DATA
    python benchmarks/accuracy/all_tables.py --data DATA --resume   # go on from `stored_runs`

Runs are kept in `--output` and go on where they stopped; `paper_tables.py` says how systems are tuned and
tested. Into `docs/benchmarks` go `results.csv` (every number), `made_with.json`, a table for readers
(`<part>-<set>-<regime>.csv`), a picture of each part and set, `best.csv`, the best three systems of each
table, `sources.csv` and `as_in_source.csv`, systems beside themselves in the settings of their authors' code,
and `systems.csv`, where each system and its tests are. `--only-write` runs nothing and writes what is
complete. `--store` adds the runs to `stored_runs`; a run of the same fit is replaced.
"""

from __future__ import annotations

import argparse
import inspect
import json
import platform
import time
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from protocol import Task
from runs import KEYS, compare_pairs, formatted, key_of, run_all, summarize
from stored import STORED, store, unpack
from study import REGIMES, Source, load_study
from systems import SOURCES, SYSTEMS, source_name, source_settings

import proportion_ssl
from proportion_ssl import __version__

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "benchmarks"


class Part(NamedTuple):
    """Systems on one set in one regime."""

    name: str
    set: str
    regime: str
    seeds: int
    folds: int  # that are run, of five
    systems: tuple[str, ...]

    def tasks(self, source: Source) -> list[Task]:
        """All runs, complete folds first."""
        draws = product(range(self.seeds), range(self.folds), self.systems)
        return [Task(source, self.regime, "fast", N_FOLDS, *draw) for draw in draws]


N_FOLDS = 5
EVERYTHING = tuple(SYSTEMS)
#: The paper's own systems and those without a net: a fit takes seconds.
QUICK = (
    *("Supervised", "Supervised, discriminant", "Pseudo labeling", "Adaptive", "Single negative"),
    *("Multi negative", "Adaptive + single", "Proposed", "Proposed, discriminant head"),
    *("Mean map", "Alternating mean map", "Inverse calibration", "Robust", "Ceiling"),
)
REAL = ("chula_rbc", "her2st_expression")
LARGE = "synthetic_large_bags"
PARTS = (
    *(Part("quick", "lc25000_evaluation", regime, 1, 5, QUICK) for regime in REGIMES),
    *(Part("all", "lc25000_evaluation", regime, 1, 5, EVERYTHING) for regime in REGIMES),
    *(Part("all", "lc25000_development", r, 1, 5, EVERYTHING) for r in ("exact", "rough")),
    *(Part("all", name, r, 1, 3, EVERYTHING) for name in REAL for r in REGIMES[:-1]),
    *(Part("all", LARGE, r, 1, 3, EVERYTHING) for r in ("exact", "rough")),
    *(Part("quick", name, r, 1, 3, QUICK) for name in REAL for r in REGIMES[:-1]),
    *(Part("quick", LARGE, r, 1, 3, QUICK) for r in ("exact", "rough")),
)
#: Baselines whose tests are those of another file.
TESTED_WITH = {
    "assignment_classifier": "assignment",
    "fixmatch_proportion": "hypergeometric",
    "llp_vat": "vat",
    "softmatch": "fixmatch",
}
#: Not ranked among the best: they know every label.
CEILINGS = ("Ceiling",)
DIGITS = 5


def is_complete(tasks: list[Task], folder: Path) -> bool:
    """Whether all of these were run."""
    file = folder / "runs.csv"
    done = set(pd.read_csv(file)[KEYS].itertuples(index=False, name=None)) if file.exists() else ()
    return all(key_of(task) in done for task in tasks)


def best(results: pd.DataFrame, n: int = 3) -> pd.DataFrame:
    """The first systems of each set and regime, and the place of the published method."""
    rows = []
    for (part, name, regime), table in results.groupby(["part", "set", "regime"], sort=False):
        ranked = table[~table["system"].isin(CEILINGS)].sort_values("mIoU", ascending=False)
        shown = formatted(ranked.set_index("system"))["mIoU [95%]"]
        row = {"systems": part, "set": name, "records": regime}
        for place, system in enumerate(shown.index[:n], 1):
            row[str(place)] = f"{system}: {shown[system]}"
        place = shown.index.get_loc("Proposed") + 1
        row["Proposed"] = f"{place} of {len(shown)}: {shown['Proposed']}"
        rows.append(row)
    return pd.DataFrame(rows)


def compare_sources(source: Source, options: argparse.Namespace) -> pd.DataFrame | None:
    """Systems as shipped beside themselves as in the source, with exact records; None: not complete."""
    everything = (*SOURCES, *map(source_name, SOURCES))
    tasks = Part("sources", source.name, "exact", 1, N_FOLDS, everything).tasks(source)
    if options.only_write and not is_complete(tasks, options.output):
        print("not complete, left out: settings of the sources")
        return None
    runs = run_all(tasks, options.output, options.n_jobs)
    return compare_pairs(tasks, options.output, runs, {name: source_name(name) for name in SOURCES})


def write_sources(table: pd.DataFrame, folder: Path) -> None:
    """The comparison with the settings of the sources, for readers."""
    shown = pd.DataFrame(index=table.index)
    for column in ("as shipped", "as in the source"):
        shown[column] = table[column].map("{:.3f}".format).str.lstrip("0")
    ends = table[["difference", "low", "high"]].map("{:+.3f}".format)
    ends = ends.apply(lambda column: column.str.replace("0.", ".", n=1, regex=False))
    shown["difference [95%]"] = [f"{d} [{low}, {high}]" for d, low, high in ends.to_numpy()]
    shown["p (Holm)"] = table["p"].map("{:.3f}".format)
    shown["steps"] = [
        f"{shipped:,.0f} / {other:,.0f}"
        for shipped, other in table[["steps as shipped", "steps as in the source"]].to_numpy()
    ]
    shown["settings of the source"] = [
        ", ".join(f"{key} {value:g}" for key, value in source_settings(name).items())
        for name in table.index
    ]
    shown.to_csv(folder / "as_in_source.csv")


def systems_of(results: pd.DataFrame) -> pd.DataFrame:
    """Class, file with its length (to 50 lines), tests and number of runs of each system."""
    # the runs of a set with some records serve every part
    each = results.groupby(["system", "set", "regime"])["runs"].max()
    runs, rows = each.groupby("system").sum(), []
    for name, system in SYSTEMS.items():
        cls = type(system.make({}))
        path = Path(inspect.getfile(cls))
        file = path.relative_to(Path(proportion_ssl.__file__).parents[1])
        row = {"system": name, "class": f":class:`~{public_name(cls)}`", "file": file.as_posix()}
        row["lines (about)"] = 50 * round(len(path.read_text(encoding="utf-8").splitlines()) / 50)
        row["tests"] = tests_of(file).as_posix()
        rows.append({**row, "runs": int(runs.get(name, 0))})
    return pd.DataFrame(rows)


def tests_of(file: Path) -> Path:
    """The tests of a system's file."""
    tests = Path("tests") / file.parent.name
    stem = file.stem
    if file.parent.name == "baselines":
        stem = f"baselines_{TESTED_WITH.get(stem, stem)}"
    found = tests / f"test_{stem}.py"
    if not (ROOT / found).exists():
        raise FileNotFoundError(
            f"{file} has no {found}; add the tests, or name them in TESTED_WITH."
        )
    return found


def public_name(cls: type) -> str:
    """Where users import a class from."""
    top = "proportion_ssl"
    if hasattr(proportion_ssl, cls.__name__):
        return f"{top}.{cls.__name__}"
    return f"{top}.{cls.__module__.split('.')[1]}.{cls.__name__}"


def draw(of_set: pd.DataFrame, path: Path) -> None:
    """Every system's mIoU with its interval over slides, a panel per regime."""
    regimes = [regime for regime in REGIMES if regime in set(of_set["regime"])]
    order = of_set[of_set["regime"] == regimes[0]].sort_values("mIoU")["system"].tolist()
    figure, panels = plt.subplots(
        1,
        len(regimes),
        figsize=(2.2 + 1.9 * len(regimes), 0.2 * len(order) + 1),
        sharey=True,
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for panel, regime in zip(panels[0], regimes, strict=True):
        table = of_set[of_set["regime"] == regime].set_index("system").loc[order]
        rows = np.arange(len(order))
        reach = [table["mIoU"] - table["low"], table["high"] - table["mIoU"]]
        for is_shown, color in ((False, "0.45"), (True, "C0")):
            here = [(system in ("Proposed", "Robust")) == is_shown for system in order]
            panel.errorbar(
                table["mIoU"][here],
                rows[here],
                xerr=[part[here] for part in reach],
                fmt="o",
                markersize=3.5,
                linewidth=1,
                color=color,
            )
        panel.set(title=regime, xlabel="mIoU", yticks=rows, yticklabels=order)
        panel.tick_params(labelsize=7)
        panel.grid(axis="x", color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(results: pd.DataFrame, folder: Path) -> None:
    """Tables for readers and pictures, from all numbers."""
    for (part, name, regime), table in results.groupby(["part", "set", "regime"], sort=False):
        shown = formatted(table.set_index("system").dropna(axis=1, how="all"))
        shown.to_csv(folder / f"{part}-{name}-{regime.replace(' ', '_')}.csv")
    for (part, name), table in results.groupby(["part", "set"], sort=False):
        draw(table, folder / f"{part}-{name}.png")
    best(results).to_csv(folder / "best.csv", index=False)
    systems_of(results).to_csv(folder / "systems.csv", index=False)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only-write", action="store_true", help="write what is complete")
    parser.add_argument(
        "--resume", type=Path, nargs="?", const=STORED, help="go on from stored runs"
    )
    parser.add_argument("--store", type=Path, nargs="?", const=STORED, help="keep the runs there")
    parser.add_argument("--cache", type=Path, default=Path("results/features"))
    parser.add_argument("--output", type=Path, default=Path("results/all_tables"))
    parser.add_argument("--docs", type=Path, default=DOCS)
    parser.add_argument("--n-jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    if options.resume:
        unpack(options.resume, options.output)
    start, found = time.perf_counter(), []
    for part in PARTS:
        tasks = part.tasks(Source(part.set, options.data, None, options.cache))
        if options.only_write and not is_complete(tasks, options.output):
            print(f"not complete, left out: {part.name}, {part.set}, {part.regime}")
            continue
        load_study(tasks[0].source, stain_shift=part.regime != "no shift")  # embeds once
        runs = run_all(tasks, options.output, options.n_jobs)
        summary = summarize(tasks, options.output, runs).reset_index()
        for position, (name, value) in enumerate(
            (("part", part.name), ("set", part.set), ("regime", part.regime))
        ):
            summary.insert(position, name, value)
        found.append(summary)
        print(f"{part.name}, {part.set}, {part.regime}: {time.perf_counter() - start:.0f} s")
    if not found:
        raise SystemExit(f"No set and regime is complete in {options.output}: nothing was written.")
    options.docs.mkdir(parents=True, exist_ok=True)
    results = pd.concat(found, ignore_index=True).round(DIGITS)
    results.to_csv(options.docs / "results.csv", index=False)
    write(results, options.docs)
    source = Source("lc25000_evaluation", options.data, None, options.cache)
    has_source = any(part.set == source.name for part in PARTS)
    sources = compare_sources(source, options) if has_source else None
    if sources is not None:
        sources = sources.round(DIGITS)
        sources.to_csv(options.docs / "sources.csv")
        write_sources(sources, options.docs)
    made_with = {
        "proportion_ssl": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "scikit-learn", "torch", "skorch")},
        "hours of fits, summed over jobs": round(
            (results["runs"] * (results["seconds of fit"] + results["seconds of choice"])).sum()
            / 3600,
            2,
        ),
    }
    (options.docs / "made_with.json").write_text(json.dumps(made_with, indent=1) + "\n")
    if options.store:
        store(options.output, options.store)


if __name__ == "__main__":
    main()
