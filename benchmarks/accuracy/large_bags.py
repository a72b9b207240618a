"""Bags of 1,000 to 10,000 real patches: accuracy, time and memory of systems by the size of the bags.

    python benchmarks/accuracy/large_bags.py --data DATA

A large bag is composed of one source: a slide of the composed H&E cohorts (patches of its own photographs, in
its own stain), a block of pictures of blood cells, or a region of a breast cancer section. Patches are drawn
from it with replacement, so a bag of 10,000 holds no more kinds of patches than its source; what grows is the
number of patches that one record speaks of. "as it is" is the source itself. Records are exact, of the bag
that was drawn. Labeled and test patches stay as they are.

Systems that draw 64 patches of a bag in a step are compared with the whole bag's record allowing for one
standard deviation of chance, or with targets drawn for the part ("hypergeometric").

Every fit runs in a process of its own, whose peak memory is measured beside that of the same process before
the fit. Runs are resumed from the CSV.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from heads_and_rules import SETS, find_draw
from rules_tables import large_bags_of
from tqdm import tqdm

from proportion_ssl import (
    Bags,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    mean_iou_score,
)
from proportion_ssl.baselines import (
    FixMatchProportionClassifier,
    HypergeometricTargets,
    ProportionLossClassifier,
)
from proportion_ssl.heads import DiscriminantClassifier
from proportion_ssl.proportions import class_proportions

AS_IT_IS = 0
SIZES = (AS_IT_IS, 1000, 3000, 10_000)


def systems(seed):
    """Unfitted classifiers by name; "labeled alone" get no bags."""
    settings = {"random_state": seed}
    return {
        "net, labeled alone": NegativePseudoLabelClassifier(**settings),
        "discriminant, labeled alone": NegativePseudoLabelClassifier(
            DiscriminantClassifier(), **settings
        ),
        "published, net": NegativePseudoLabelClassifier(**settings),
        "published, discriminant": NegativePseudoLabelClassifier(
            DiscriminantClassifier(), **settings
        ),
        "RobustProportionClassifier": RobustProportionClassifier(**settings),
        "proportion loss": ProportionLossClassifier(**settings),
        "proportion loss, hypergeometric": ProportionLossClassifier(
            augmentation=HypergeometricTargets(), **settings
        ),
        "FixMatch + proportion loss, hypergeometric": FixMatchProportionClassifier(**settings),
    }


ALONE = ("net, labeled alone", "discriminant, labeled alone")


def compose(draw, sources, size, n_bags, seed):
    """Features, bag of each instance, and proportions; sources are numbers, one per instance of the bags.

    Bags of every size have the same sources.
    """
    chosen = np.random.default_rng([seed, 11]).permutation(np.unique(sources))[:n_bags]
    rng = np.random.default_rng([seed, size, 12])
    rows, bags = [], []
    for number, source in enumerate(chosen):
        here = np.flatnonzero(sources == source)
        taken = here if size == AS_IT_IS else rng.choice(here, size)
        rows.append(taken)
        bags.append(np.full(len(taken), number))
    rows, bags = np.concatenate(rows), np.concatenate(bags)
    counted = {"n_bags": len(chosen), "n_classes": draw.n_classes}
    return draw.X_bags[rows], bags, class_proportions(draw.y_bags[rows], bags, **counted)


def sources_of(options, name, draw):
    """What a large bag is drawn from: bags as they are, of the blood cells blocks of pictures."""
    if name != "chula_rbc":
        return draw.bags
    with np.load(options.data / "real" / name / "features.npz", allow_pickle=True) as stored:
        bags, first = np.unique(stored["sid"].astype(int), return_index=True)
        block = stored["group"][first].astype(int)
    return block[np.searchsorted(bags, draw.bags)]


def run(options, name, seed, size, system):
    """One row of the table."""
    draw = find_draw(options, name, seed)
    if draw is None:
        return None
    model, bags, arguments = systems(seed)[system], None, {}
    if system not in ALONE:
        sources = sources_of(options, name, draw)
        X, index, shares = compose(draw, sources, size, options.bags, seed)
        bags = Bags(X, index, shares)
    # a net validates by patches: few slides show every class more than once
    if "discriminant" in system or system == "RobustProportionClassifier":
        arguments["groups"] = draw.groups
    before, start = peak_memory(), time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row says what they say
        model.fit(draw.X, draw.y, bags, **arguments)
    seconds = time.perf_counter() - start
    return {
        "set": name,
        "seed": seed,
        "size": size,
        "system": system,
        "mIoU": mean_iou_score(draw.y_test, model.predict(draw.X_test)),
        "seconds": seconds,
        "GB before": before,
        "GB": peak_memory(),
        "fell_back": getattr(model, "fell_back_", False),
    }


def peak_memory():
    """Largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def wanted(options):
    """Set, seed, size and system of all runs."""
    for seed in range(options.seeds):
        for name in options.sets:
            for size in options.sizes:
                for system in systems(0):
                    if system not in ALONE or size == options.sizes[0]:
                        yield name, seed, size, system


def summarize(table):
    """Means over the draws, and seconds per 1,000 patches more in every bag."""
    summary = table.pivot_table(
        index=["set", "system"], columns="size", values=["mIoU", "seconds", "GB"], sort=False
    )
    for (name, system), part in table.groupby(["set", "system"], sort=False):
        part = part[part["size"] > 0]
        if part["size"].nunique() > 1:
            slope = np.polyfit(part["size"] / 1000, part["seconds"], 1)[0]
            summary.loc[(name, system), ("seconds per 1,000", "")] = slope
    return summary


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--bags", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("results/features"))
    parser.add_argument("--output", type=Path, default=Path("results/large_bags.csv"))
    parser.add_argument("--docs", type=Path, help="write the tables of the documentation there")
    options = parser.parse_args(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(options.output).to_dict("records") if options.output.exists() else []
    done = {tuple(row[key] for key in ("set", "seed", "size", "system")) for row in rows}
    to_do = [key for key in wanted(options) if key not in done]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for key in tqdm(to_do, desc="fits", unit="fit"):
            row = pool.submit(run, options, *key).result()
            if row is not None:
                rows.append(row)
                pd.DataFrame(rows).to_csv(options.output, index=False)
    table = pd.DataFrame(rows)
    summary = summarize(table)
    print(summary.round(3).to_string())
    if options.docs:
        options.docs.mkdir(parents=True, exist_ok=True)
        shown = large_bags_of(table, summary[("seconds per 1,000", "")])
        shown.to_csv(options.docs / "large_bags.csv", index=False)


if __name__ == "__main__":
    main()
