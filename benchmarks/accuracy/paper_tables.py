"""Tables 1 and 2 of the paper, and its modern rivals beside them, on one set of slides in one regime.

    python benchmarks/accuracy/paper_tables.py --set lc25000_evaluation --data DATA

`--set` is one of the sets of `study.py` (all but the synthetic ones need `--data`, the folder of real
data), or the manifest of your own slides (with `--features`, a folder of one feature file per slide).
All systems see
the same folds by slide, the same features and the same number of epochs; the tables state their
optimization steps.

A system's settings are chosen by fits of 30 epochs that leave out a quarter of the bags of the fold: weight
decay first, then the parameter of its own. Those whose predicted proportions of the left-out bags are
nearest to the recorded ones are fitted on all bags, with all epochs, and tested. No test slide takes part
in the choice, and the ceiling knows no label of the bags that choose.

Into `--output` go `table1.md`, `table2.md`, `table3.md` (rivals and ceiling), `table.csv` (scores with 95%
intervals over slides, differences to "Proposed" paired by slide, p values of exchange tests corrected by Holm
for the number of systems), `runs.csv` (one line per fit, with the settings chosen), `grid.json` and maps of
test slides. A run that was interrupted goes on where it stopped. Protocol "paper" takes the paper's
learning rate and batch size, "fast" the package's defaults.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from protocol import Task
from runs import formatted, key_of, predictions_file, run_all, summarize
from study import REGIMES, Source, load_study
from systems import PROTOCOLS, SYSTEMS, TABLE_1, TABLE_2

from proportion_ssl.displays import SegmentationDisplay
from proportion_ssl.slides import stitch

RIVALS = tuple(name for name in SYSTEMS if name not in (*TABLE_1, *TABLE_2))
TABLES = {
    "table1": ("Table 1: the paper's comparison", TABLE_1),
    "table2": ("Table 2: its ablation", TABLE_2),
    "table3": ("Rivals since, and the ceiling (labels of all bags known)", ("Proposed", *RIVALS)),
}


def markdown(table: pd.DataFrame, title: str) -> str:
    """A formatted table."""
    rows = [["system", *table.columns], *([name, *row] for name, *row in table.itertuples())]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"# {title}", "", lines[0], "|---" * len(rows[0]) + "|", *lines[1:], ""])


def draw_maps(tasks, folder, n_slides=3):
    """Test slides of the first fold as each system labels them: Figure 6."""
    first = tasks[0]
    study = load_study(first.source, stain_shift=first.regime != "no shift")
    if study.shapes is None:
        return
    roles = list(study.folds(first.seed, first.n_folds))[first.fold]
    slides = study.slides[study.rows(roles.test)]
    shown = [task for task in tasks if (task.seed, task.fold) == (first.seed, first.fold)]
    for slide in np.unique(slides)[:n_slides]:
        here, rows = slides == slide, study.slides == slide
        place = study.cells[rows], study.shapes[slide]
        maps = {"truth": stitch(_codes(study.labels[rows], study.classes), *place)}
        for task in shown:
            with np.load(predictions_file(folder, key_of(task))) as predicted:
                codes = _codes(predicted["alone"][here], study.classes)
            maps[task.system] = stitch(codes, *place)
        display = SegmentationDisplay(maps, study.classes).plot()
        display.figure_.savefig(folder / f"map_{slide}.png", dpi=120)


def _codes(labels, classes):
    return np.searchsorted(classes, labels)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--set", required=True, help="a set of study.py, or a manifest")
    parser.add_argument("--data", type=Path, help="folder of real data")
    parser.add_argument(
        "--features", type=Path, help="with a manifest: folder of one .h5 per slide"
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, default="fast")
    parser.add_argument("--regime", choices=REGIMES, default="exact", help="not of a manifest")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cohort-seed", type=int, default=0)
    parser.add_argument(
        "--n-folds", type=int, default=5, help="parts that the slides are split into"
    )
    parser.add_argument("--folds", type=int, help="how many of them are run; default: all")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--cache", type=Path, default=Path("results/features"))
    parser.add_argument("--output", type=Path, default=Path("results/paper_tables"))
    parser.add_argument("--n-jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    source = Source(options.set, options.data, options.features, options.cache, options.cohort_seed)
    load_study(source, stain_shift=options.regime != "no shift")  # embeds before processes start
    embedded = time.perf_counter()
    tasks = [
        Task(source, options.regime, options.protocol, options.n_folds, *draw, name)
        for *draw, name in product(
            range(options.first_seed, options.first_seed + options.seeds),
            range(options.folds or options.n_folds),
            options.systems,
        )
    ]
    runs = run_all(tasks, options.output, options.n_jobs)
    summary = summarize(tasks, options.output, runs)
    summary.to_csv(options.output / "table.csv")
    grids = {name: [str(grid) for grid in SYSTEMS[name].grids] for name in options.systems}
    (options.output / "grid.json").write_text(json.dumps(grids, indent=1))
    shown = formatted(summary)
    for stem, (title, wanted) in TABLES.items():
        names = [name for name in wanted if name in options.systems]
        (options.output / f"{stem}.md").write_text(markdown(shown.loc[names], title))
    draw_maps(tasks, options.output)
    print(shown.to_string())
    print("\nSettings chosen")
    print(runs.groupby(["system", "setting"], sort=False).size().to_string())
    print(
        json.dumps(
            {
                "benchmark": "paper_tables",
                "set": source.name,
                "protocol": options.protocol,
                "regime": options.regime,
                "runs": len(runs),
                "n_jobs": options.n_jobs,
                "mIoU": summary["mIoU"].round(4).to_dict(),
                "seconds from cached features": round(time.perf_counter() - embedded, 1),
                "seconds": round(time.perf_counter() - start, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
