"""What is left of the gain when proportions are rounded, estimated, or of another slide.

    python benchmarks/accuracy/robustness.py --data DATA --seeds 10

Virtual slides of real H&E patches, composed by `histology_cohort.py`: every seed is a cohort of its own with
roles of its own; seeds whose outlined slides lack a class are passed over. Five regimes: exact
proportions; rounded to 10%; off by about 10 points and rounded to 5%; 20% of the bags with the
proportions of another one; exact, without stain shift. For every system the share of the distance from
"supervised" to "ceiling" (every bag label known) in mIoU that it recovers on the test slides: mean +-
standard deviation over the seeds of the share of each seed, and the difference to
"published" (Tokunaga et al.) with its standard error, paired by seed. For "robust" also the area under
the ROC curve with which its list of doubtful bags finds the exchanged ones. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from bench_histology import draw
from histology_cohort import N_PATCHES, N_SLIDES, compose, draw_roles, load_virtual_cohort, roughen
from joblib import Parallel, delayed
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from proportion_ssl import (
    AssignmentSelector,
    Bags,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    ThresholdSelector,
    mean_iou_score,
)

REGIMES = ("exact", "rounded to 10%", "off by 10 points", "20% wrong bags", "no stain shift")


def classifier(**settings):
    """A classifier as a function of the seed."""
    return lambda seed: NegativePseudoLabelClassifier(random_state=seed, **settings)


SYSTEMS = {
    "supervised": classifier(positive_selector=None, negative_selector=None),
    "fixed .95": classifier(positive_selector=ThresholdSelector(), negative_selector=None),
    "adaptive": classifier(negative_selector=None),
    "published": classifier(),
    "assignment": classifier(
        positive_selector=AssignmentSelector(tolerance=2), negative_selector=None
    ),
    "agreement": classifier(
        positive_selector=AssignmentSelector(tolerance=0), negative_selector=None
    ),
    "robust": lambda seed: RobustProportionClassifier(random_state=seed),
    "ceiling": classifier(positive_selector=None, negative_selector=None),
}


def record(proportions, regime, rng):
    """Recorded proportions of a regime, and which bags bear those of another."""
    wrong = np.zeros(len(proportions), dtype=bool)
    if regime == "rounded to 10%":
        rounded = np.round(proportions * 10) / 10
        rounded = np.where(rounded.sum(axis=1, keepdims=True) > 0, rounded, proportions)
        return rounded / rounded.sum(axis=1, keepdims=True), wrong
    if regime == "off by 10 points":
        return roughen(proportions, rng), wrong
    if regime == "20% wrong bags":
        chosen = rng.choice(len(proportions), round(0.2 * len(proportions)), replace=False)
        proportions, wrong[chosen] = proportions.copy(), True
        proportions[chosen] = proportions[np.roll(chosen, 1)]
    return proportions, wrong


def run(data, cache, regime, seed, name):
    """mIoU of one system on the test slides of one seed."""
    cohort = load_virtual_cohort(data, cache, seed=seed, stain_shift=regime != "no stain shift")
    is_labeled, is_bag, is_test, labels, names, true = draw(cohort, seed)
    recorded, wrong = record(true, regime, np.random.default_rng([seed, 2]))
    bags = Bags(cohort.features[is_bag], cohort.slides[is_bag], recorded)
    train = is_labeled | is_bag if name == "ceiling" else is_labeled
    start = time.perf_counter()
    model = SYSTEMS[name](seed).fit(cohort.features[train], labels[train], bags)
    row: dict = {
        "regime": regime,
        "seed": seed,
        "system": name,
        "seconds": time.perf_counter() - start,
    }
    row["mIoU"] = mean_iou_score(labels[is_test], model.predict(cohort.features[is_test]))
    if name == "robust":
        row["trust"] = model.trust_
        if wrong.any():
            found = model.bag_reliability_["distance"].loc[names]
            row["auc"] = roc_auc_score(wrong, found)
    return row


def seeds_with_all_classes(data, first, n_seeds):
    """The first seeds whose outlined slides show every class: another class could not be learnt."""
    groups = pd.read_csv(data / "patches" / "lc25000" / "groups.csv")
    slides = np.repeat(np.arange(N_SLIDES), N_PATCHES)

    def shows_all(seed):
        labels = compose(groups, np.random.default_rng(seed))[1]
        outlined = labels[np.isin(slides, draw_roles(seed).labeled)]
        return len(np.unique(outlined)) == groups["class"].nunique()

    return list(itertools.islice(filter(shows_all, itertools.count(first)), n_seeds))


def summarise(table):
    """Recovered shares and paired differences to the published method, by regime and system."""
    wide = table.pivot(index=["regime", "seed"], columns="system", values="mIoU")
    gap = wide["ceiling"] - wide["supervised"]
    shares = wide.sub(wide["supervised"], axis=0).div(gap, axis=0)
    rows = []
    for regime in table["regime"].unique():
        for system in table["system"].unique():
            share, seeds = shares.loc[regime, system], len(shares.loc[regime])
            paired = share - shares.loc[regime, "published"]
            rows.append(
                {
                    "regime": regime,
                    "system": system,
                    "mIoU": wide.loc[regime, system].mean(),
                    "recovered": share.mean(),
                    "sd": share.std(),
                    "above published": paired.mean(),
                    "standard error": paired.std() / np.sqrt(seeds),
                }
            )
    return pd.DataFrame(rows)


def run_all(options, seeds):
    """Table of all runs; those that the CSV of an earlier start holds are not done again."""
    options.output.mkdir(parents=True, exist_ok=True)
    file = options.output / "robustness.csv"
    rows = pd.read_csv(file).to_dict("records") if file.exists() else []
    done = {(row["regime"], row["seed"], row["system"]) for row in rows}
    wanted = [
        (regime, seed, name) for seed in seeds for regime in options.regimes for name in SYSTEMS
    ]
    # What the proportions are makes no difference to the first and the last row.
    same = {
        key: ("exact", *key[1:])
        for key in wanted
        if key[2] in ("supervised", "ceiling") and key[0] != "no stain shift"
    }
    to_do = sorted({same.get(key, key) for key in wanted} - done, key=lambda key: key[1])
    results = Parallel(n_jobs=options.n_jobs, return_as="generator_unordered")(
        delayed(run)(options.data, options.cache, *key) for key in to_do
    )
    for row in tqdm(results, total=len(to_do), desc="fits", unit="fit"):
        rows.append(row)
        pd.DataFrame(rows).to_csv(file, index=False)
    by_key = {(row["regime"], row["seed"], row["system"]): row for row in rows}
    return pd.DataFrame([{**by_key[same.get(key, key)], "regime": key[0]} for key in wanted])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=10, help="0 to 2 served development")
    parser.add_argument("--regimes", nargs="+", default=REGIMES, choices=REGIMES)
    parser.add_argument("--cache", type=Path, default=Path("results/features"))
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("results/robustness"),
        help="folder of the table of all runs",
    )
    parser.add_argument("--n-jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    seeds = seeds_with_all_classes(options.data, options.first_seed, options.seeds)
    for seed in seeds:  # embed once, before the processes start
        for shifted in {regime != "no stain shift" for regime in options.regimes}:
            load_virtual_cohort(options.data, options.cache, seed=seed, stain_shift=shifted)
    table = run_all(options, seeds)
    summary = summarise(table)
    print(summary.round(3).to_string(index=False))
    robust = table[table["system"] == "robust"].groupby("regime", sort=False)
    print(
        "\nrobust: trust in the records, and area under ROC of the doubtful bags (means over seeds)"
    )
    print(robust[["trust", "auc"]].mean().round(3).to_string())
    print(
        json.dumps(
            {
                "benchmark": "robustness",
                "seeds": seeds,
                "recovered": {
                    regime: rows.set_index("system")["recovered"].round(3).to_dict()
                    for regime, rows in summary.groupby("regime", sort=False)
                },
                "seconds per fit": table.groupby("system", sort=False)["seconds"]
                .mean()
                .round(1)
                .to_dict(),
            }
        )
    )


if __name__ == "__main__":
    main()
