"""Tables 1 and 2 of the paper, and its modern rivals beside them, in one command.

    python benchmarks/accuracy/paper_tables.py --data DATA --protocol fast --seeds 1

`--data` is the folder of real patches (virtual slides, see `histology_cohort.py`), `synthetic`, or the
manifest of your own slides (with `--features`, a folder of one feature file per slide). All systems see the
same folds by slide, the same features and the same number of epochs.

Three settings of every system are tried by fits of 30 epochs that leave out a quarter of the bags of the
fold: the one whose predicted proportions of these are nearest to the recorded ones is fitted on all bags,
with all epochs, and tested. No test slide takes part in the choice.

Into `--output` go `table1.md`, `table2.md`, `table3.md` (rivals and ceiling), `table.csv` (mean, spread,
paired differences to "Proposed" with a paired t test over folds and seeds, corrected by Holm for the number
of systems), `runs.csv` (one line per fit, with the settings chosen), `grid.json` and maps of test slides. A
run that was interrupted goes on where it stopped. Protocol "paper" takes the paper's learning rate and
batch size, "fast" the package's defaults.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import ttest_rel
from sklearn.preprocessing import StandardScaler
from study import REGIMES, load_study
from systems import PRINTED, PROTOCOLS, SYSTEMS, TABLE_1, TABLE_2
from tqdm import tqdm

from proportion_ssl import (
    Bags,
    ClassifyAndCount,
    mean_iou_score,
    overall_pixel_score,
    per_class_score,
)
from proportion_ssl.displays import SegmentationDisplay
from proportion_ssl.evaluation import adjust_p_values
from proportion_ssl.slides import stitch

METRICS = ("OP", "PC", "mIoU")
LEFT_OUT = 0.25  # share of the bags that choose the settings
TRIAL_EPOCHS = 30  # of the fits that choose; those that are tested have all


def _seeded(model, seed, setting):
    """The system with one of its settings; some draw nothing and take no seed."""
    seeds = {"random_state": seed} if "random_state" in model.get_params() else {}
    return model.set_params(**seeds, **setting)


def choose(system, training, labeled, bags, seed):
    """Error of the proportions of left-out bags for every setting of the grid; the smallest wins."""
    order = np.random.default_rng([seed, 4]).permutation(bags.names)
    n_out = max(1, round(LEFT_OUT * len(order)))
    errors = []
    for setting in system.grid:
        model = system.make({**training, "max_epochs": TRIAL_EPOCHS})
        model = _seeded(model, seed, setting)
        counter = ClassifyAndCount(model).fit(order[n_out:], labeled=labeled, bags=bags)
        errors.append(-counter.score(order[:n_out]))
    return int(np.argmin(errors)), errors


def run(source, protocol, seed, fold, name, n_folds):
    """Scores of one system on the test slides of one fold, and its labels of them."""
    study = load_study(*source)
    system, training = SYSTEMS[name], PROTOCOLS[protocol]
    roles = list(study.folds(seed, n_folds))[fold]
    is_bag, is_test = study.rows(roles.bags), study.rows(roles.test)
    # nets standardise by the labelled patches; for systems without a net the scale matters
    scaler = StandardScaler().fit(study.features[study.rows(roles.labeled) | is_bag])
    features = scaler.transform(study.features)
    train = study.rows(roles.labeled) | (is_bag if system.uses_labels_of_bags else False)
    recorded = study.proportions.loc[np.sort(roles.bags)]
    bags = Bags(features[is_bag], study.slides[is_bag], recorded)
    labeled = (features[train], study.labels[train])
    start = time.perf_counter()
    chosen, errors = choose(system, training, labeled, bags, seed)
    chosen_after = time.perf_counter()
    model = _seeded(system.make(training), seed, system.grid[chosen])
    model.fit(*labeled, bags)
    fitted_after = time.perf_counter()
    y, predicted = study.labels[is_test], model.predict(features[is_test])
    row = {
        "seed": seed,
        "fold": fold,
        "system": name,
        "OP": overall_pixel_score(y, predicted, labels=study.classes),
        "PC": per_class_score(y, predicted, labels=study.classes),
        "mIoU": mean_iou_score(y, predicted, labels=study.classes),
        "setting": str(system.grid[chosen]),
        "errors of left-out bags": json.dumps([round(error, 4) for error in errors]),
        "seconds of choice": chosen_after - start,
        "seconds of fit": fitted_after - chosen_after,
    }
    return row, predicted


def refuse_other_runs(options):
    """Stop where the folder holds runs of other data: they would be taken for those of this one."""
    this = {
        name: str(getattr(options, name)) for name in ("data", "features", "cohort_seed", "n_folds")
    }
    file = options.output / "data.json"
    if file.exists() and (other := json.loads(file.read_text())) != this:
        raise SystemExit(
            f"{options.output} holds runs of {other}, not of {this}; give another --output."
        )
    options.output.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(this))


def run_all(options, source):
    """One line per system, fold and seed; those of an earlier start are read."""
    file, maps = options.output / "runs.csv", options.output / "predictions"
    maps.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(file).to_dict("records") if file.exists() else []
    done = {(row["seed"], row["fold"], row["system"]) for row in rows}
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    wanted = [(s, f, name) for s in seeds for f in range(options.folds) for name in options.systems]
    to_do = [key for key in wanted if key not in done]
    results = Parallel(n_jobs=options.n_jobs, return_as="generator_unordered")(
        delayed(run)(source, options.protocol, *key, options.n_folds) for key in to_do
    )
    for row, predicted in tqdm(results, total=len(to_do), desc="systems x folds", unit="run"):
        np.save(maps / f"{row['seed']}_{row['fold']}_{row['system']}.npy", predicted)
        rows.append(row)
        partial = file.with_suffix(".partial")
        pd.DataFrame(rows).to_csv(partial, index=False)
        partial.replace(file)
    table = pd.DataFrame(rows)
    asked = pd.MultiIndex.from_tuples(wanted)
    return table[pd.MultiIndex.from_frame(table[["seed", "fold", "system"]]).isin(asked)]


def summarise(runs, names):
    """Mean and spread of every system, and its paired difference to "Proposed"."""
    wide = runs.pivot(index=["seed", "fold"], columns="system", values=list(METRICS))
    rows = {}
    for name in names:
        of_system = runs[runs["system"] == name]
        row = {}
        for metric in METRICS:
            row[metric], row[f"{metric} sd"] = of_system[metric].mean(), of_system[metric].std()
        if "Proposed" in names and name != "Proposed":
            difference = wide["mIoU"][name] - wide["mIoU"]["Proposed"]
            row["mIoU to Proposed"] = difference.mean()
            row["standard error"] = difference.std() / np.sqrt(len(difference))
            if len(difference) > 1:
                row["p"] = ttest_rel(wide["mIoU"][name], wide["mIoU"]["Proposed"]).pvalue
        row["seconds of fit"] = of_system["seconds of fit"].mean()
        row["seconds with choice"] = row["seconds of fit"] + of_system["seconds of choice"].mean()
        rows[name] = row
    table = pd.DataFrame(rows).T.rename_axis("system")
    if "p" in table:
        table["p corrected"] = adjust_p_values(table["p"])
    return table


def write_table(path, title, summary, names):
    """Markdown, with the paper's figures beside ours."""
    columns = [
        "system",
        *METRICS,
        "printed OP",
        "PC",
        "mIoU",
        "mIoU to Proposed",
        "p (Holm)",
        "s per fit",
    ]
    lines = [f"# {title}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name in names:
        row = summary.loc[name]
        cells = [name, *(f"{row[m]:.3f} +- {row[f'{m} sd']:.3f}" for m in METRICS)]
        cells += [f"{value:.3f}" for value in PRINTED[name]] if name in PRINTED else ["", "", ""]
        if np.isnan(row.get("mIoU to Proposed", np.nan)):
            cells += ["", ""]
        else:
            cells.append(f"{row['mIoU to Proposed']:+.3f} (se {row['standard error']:.3f})")
            p = row.get("p corrected", np.nan)
            cells.append("" if np.isnan(p) else f"{p:.3f}")
        lines.append("| " + " | ".join([*cells, f"{row['seconds of fit']:.1f}"]) + " |")
    path.write_text("\n".join(lines) + "\n")


def draw_maps(options, source, n_slides=3):
    """Test slides of the first fold as each system labels them: Figure 6."""
    study = load_study(*source)
    roles = next(iter(study.folds(options.first_seed, options.n_folds)))
    slides = study.slides[study.rows(roles.test)]
    for slide in np.unique(slides)[:n_slides]:
        here, rows = slides == slide, study.slides == slide
        place = study.cells[rows], study.shapes[slide]
        maps = {"truth": stitch(_codes(study.labels[rows], study.classes), *place)}
        for name in options.systems:
            file = options.output / "predictions" / f"{options.first_seed}_0_{name}.npy"
            maps[name] = stitch(
                _codes(np.load(file, allow_pickle=False)[here], study.classes), *place
            )
        display = SegmentationDisplay(maps, study.classes).plot()
        display.figure_.savefig(options.output / f"map_{slide}.png", dpi=120)


def _codes(labels, classes):
    return np.searchsorted(classes, labels)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--data", required=True, help="folder of real patches, 'synthetic', or a manifest"
    )
    parser.add_argument("--features", help="with a manifest: folder of one .h5 per slide")
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
    parser.add_argument("--cache", default="results/features")
    parser.add_argument("--output", type=Path, default=Path("results/paper_tables"))
    parser.add_argument("--n-jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    options.folds = options.folds or options.n_folds
    start = time.perf_counter()
    source = (options.data, options.features, options.cache, options.regime, options.cohort_seed)
    options.output = options.output / f"{options.protocol}_{options.regime.replace(' ', '_')}"
    refuse_other_runs(options)
    load_study(*source)  # embeds once, before the processes start
    embedded = time.perf_counter()
    runs = run_all(options, source)
    summary = summarise(runs, options.systems)
    summary.to_csv(options.output / "table.csv")
    grids = {name: [str(setting) for setting in SYSTEMS[name].grid] for name in options.systems}
    (options.output / "grid.json").write_text(json.dumps(grids, indent=1))
    rivals = [name for name in SYSTEMS if name not in (*TABLE_1, *TABLE_2)]
    for number, title, wanted in (
        (1, "Table 1: the paper's comparison", TABLE_1),
        (2, "Table 2: its ablation", TABLE_2),
        (3, "Rivals since, and the ceiling (labels of all bags known)", ("Proposed", *rivals)),
    ):
        names = [name for name in wanted if name in options.systems]
        write_table(options.output / f"table{number}.md", title, summary, names)
    draw_maps(options, source)
    print(summary.round(3).to_string())
    print("\nSettings chosen, times")
    print(runs.groupby(["system", "setting"], sort=False).size().to_string())
    print(
        json.dumps(
            {
                "benchmark": "paper_tables",
                "data": "synthetic" if options.data == "synthetic" else "own or real",
                "protocol": options.protocol,
                "regime": options.regime,
                "seeds": options.seeds,
                "folds": options.folds,
                "n_jobs": options.n_jobs,
                "mIoU": summary["mIoU"].round(4).to_dict(),
                "seconds from cached features": round(time.perf_counter() - embedded, 1),
                "seconds": round(time.perf_counter() - start, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
