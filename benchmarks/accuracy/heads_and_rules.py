"""Every head with every label rule, on composed cohorts and on sets of real bags.

    python benchmarks/accuracy/heads_and_rules.py --data DATA

Heads: the trained net, the discriminant, logistic regression. Rules: none (labeled instances alone),
fixed threshold, adaptive positive labels, the published rule (adaptive and negative), assignment of all,
soft assignment, EM with the recorded shares as priors; "preset" is `RobustProportionClassifier`;
"ceiling" has the label of every instance. Records are exact, rounded to 10%, rough (off by about 10
points), or of another bag in 20% of the cases. Of each fit: mIoU on the test bags, expected calibration
error, and both again with the records of the test bags (of the same regime) given to the prediction.
Recovered is the share of the distance from the supervised net to the net's ceiling.

The CSV keeps the confusion matrix of each test group (slide, patient, block of pictures). Intervals and
differences, to the supervised head and to the published rule with the net, resample these groups, the
same ones in every draw that tests them; p values are corrected for the number of systems by Holm's method.

Rounded records are given to the preset alone. Runs are resumed from the CSV, whose default is kept with the
sources; `--docs` writes the tables of the first three draws. Cohorts 0 to 2 and both real sets served
development: no figure from here is an estimate for data that were never looked at.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from real_bags import REGIMES, draw_real, draw_virtual, record
from rules_tables import N_DRAWS, write
from scipy.special import softmax
from tqdm import tqdm

from proportion_ssl import (
    AdaptiveSelector,
    AssignmentSelector,
    Bags,
    HeadClassifier,
    NegativePseudoLabelClassifier,
    NegativeSelector,
    RobustProportionClassifier,
    SoftAssignmentSelector,
    ThresholdSelector,
    mean_iou_score,
)
from proportion_ssl.evaluation import (
    bootstrap_scores,
    compare_systems,
    confusion_scores,
    reliability,
    slide_confusions,
)
from proportion_ssl.heads import DiscriminantClassifier, SoftLogisticRegression
from proportion_ssl.pseudo_labels import Selector

#: Runs of the page, with the confusion matrices of every test group.
RUNS = Path(__file__).parent / "stored_runs" / "heads_and_rules.csv.gz"


class PriorSelector(Selector):
    """Soft labels of EM: predictions times recorded shares, for a classifier of evenly frequent classes."""

    def select(self, probabilities, bag_index, bag_proportions):
        shares = np.maximum(bag_proportions[bag_index], 1e-6)
        return softmax(np.log(np.maximum(probabilities, 1e-12)) + np.log(shares), axis=1).astype(
            np.float32
        )


HEADS = {
    "net": HeadClassifier,
    "discriminant": DiscriminantClassifier,
    "logistic": SoftLogisticRegression,
}
RULES = {
    "threshold": (ThresholdSelector(), None),
    "adaptive": (AdaptiveSelector(), None),
    "published": (AdaptiveSelector(), NegativeSelector()),
    "assignment": (AssignmentSelector(tolerance=2), None),
    "soft assignment": (SoftAssignmentSelector(), None),
    "EM": (PriorSelector(), None),
}
#: Rules that look at no record.
BLIND = ("none", "ceiling", "threshold")
ALL_RULES = ("none", "ceiling", "preset", *RULES)
SETS = ("lc25000", "chula_rbc", "her2st_expression")


def find_draw(options, name, seed):
    """The draw of a set and seed; cohort ``seed % 3`` of the composed ones."""
    if name == "lc25000":
        return draw_virtual(options.data, options.cache, seed % 3, seed)
    return draw_real(options.data / "real" / name, seed)


def over_draws(run, doc, arguments=None):
    """Options of the command line, and what ``run(options, name, seed)`` returns for each set and draw."""
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--cache", type=Path, default=Path("results/features"))
    parser.add_argument("--docs", type=Path, help="write the tables of the documentation there")
    parser.add_argument("--n-jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    to_do = [(name, seed) for name in options.sets for seed in range(options.draws)]
    results = Parallel(options.n_jobs, return_as="generator")(
        delayed(run)(options, *key) for key in to_do
    )
    return options, list(tqdm(results, total=len(to_do), unit="draw"))


def fit(draw, head, rule, regime, seed):
    """A fitted classifier."""
    shares = record(draw.shares(), regime, np.random.default_rng([seed, 2]))
    bags = Bags(draw.X_bags, draw.bags, shares)
    if rule == "preset":
        model = RobustProportionClassifier(random_state=seed)
        return model.fit(draw.X, draw.y, bags, groups=draw.groups)
    model = NegativePseudoLabelClassifier(HEADS[head](), random_state=seed)
    if rule == "ceiling":
        X, y = np.concatenate([draw.X, draw.X_bags]), np.concatenate([draw.y, draw.y_bags])
        return model.fit(X, y)
    # a net validates by patches: few slides show every class more than once
    groups = None if head == "net" else draw.groups
    if rule == "none":
        return model.fit(draw.X, draw.y, groups=groups)
    positive, negative = RULES[rule]
    model.set_params(positive_selector=positive, negative_selector=negative)
    return model.fit(draw.X, draw.y, bags, groups=groups)


def run(options, name, seed, head, rule, regime):
    """One row of the table."""
    draw = find_draw(options, name, seed)
    if draw is None:
        return None
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(draw, head, rule, regime, seed)
    row = {
        "set": name,
        "seed": seed,
        "head": head,
        "rule": rule,
        "regime": regime,
        "seconds": time.perf_counter() - start,
        "fell_back": getattr(model, "fell_back_", False),
        "warnings": len(caught),
    }
    known = record(draw.shares(test=True), regime, np.random.default_rng([seed, 4]))
    given = {"bag_ids": draw.bags_test, "bag_proportions": known}
    for suffix, arguments in (("", {}), (" with record", given)):
        probabilities = model.predict_proba(draw.X_test, **arguments)
        predicted = model.classes_[probabilities.argmax(axis=1)]
        row[f"mIoU{suffix}"] = mean_iou_score(draw.y_test, predicted)
        row[f"ECE{suffix}"] = reliability(draw.y_test, probabilities, classes=model.classes_).ece
        confusions, groups = slide_confusions(
            draw.y_test, predicted, draw.groups_test, classes=range(draw.n_classes)
        )
        by_group = dict(zip(groups.tolist(), confusions.tolist(), strict=True))
        row[f"confusions{suffix}"] = json.dumps(by_group, separators=(",", ":"))
    return row


def wanted(options):
    """Set, seed, head, rule and regime of all runs; what looks at no record is done once."""
    learned = [regime for regime in options.regimes if regime != "rounded"]
    for name in options.sets:
        for seed in range(options.seeds):
            if "preset" in options.rules:
                for regime in options.regimes:
                    yield name, seed, "discriminant", "preset", regime
            for head in options.heads:
                for rule in [rule for rule in options.rules if rule != "preset"]:
                    blind = rule in BLIND
                    for regime in ("exact",) if blind else learned:
                        yield name, seed, head, rule, regime


def summarize(table):
    """Means over the draws, and the recovered share where there is something to recover."""
    keys = ["set", "seed"]
    nets = table[table["head"] == "net"]
    for side, rule in (("bottom", "none"), ("top", "ceiling")):
        known = nets[nets["rule"] == rule].set_index(keys)["mIoU"]
        table = table.join(known.rename(side), on=keys)
    table["gain"], table["gap"] = table["mIoU"] - table["bottom"], table["top"] - table["bottom"]
    groups = table.groupby(["set", "regime", "head", "rule"], sort=False)
    summary = groups[
        [
            "mIoU",
            "ECE",
            "mIoU with record",
            "ECE with record",
            "gain",
            "gap",
            "seconds",
            "fell_back",
        ]
    ].mean()
    summary.insert(1, "sd", groups["mIoU"].std())
    summary.insert(2, "lowest gain", groups["gain"].min())
    summary["recovered"] = summary.pop("gain") / summary.pop("gap")
    return summary


def compare(table, suffix=""):
    """Intervals of the mean mIoU over the draws, and differences to two references, by set and regime."""
    found = []
    for name, of_set in table.groupby("set", sort=False):
        blind = of_set[of_set["rule"].isin(BLIND)]
        for regime in [one for one in REGIMES if one in set(of_set["regime"])]:
            rows = pd.concat([blind, of_set[of_set["regime"] == regime]])
            rows = rows.drop_duplicates(["head", "rule", "seed"])
            systems, groups, metric = _matrices(rows, f"confusions{suffix}")
            options = {"groups": groups, "metric": metric}
            part = pd.DataFrame(
                {one: bootstrap_scores(systems[one], **options)[:4] for one in systems},
                index=["mIoU", "low", "high", "groups"],
            ).T
            for reference in ("net none", "net published"):
                if reference in systems and len(systems) > 1:
                    differences = compare_systems(systems, reference=reference, **options)
                    differences = differences.set_index("system")
                    for column in ("difference", "low", "high", "p_adjusted"):
                        part[f"{column} to {reference}"] = differences[column]
            found.append(pd.concat({(name, regime): part}, names=["set", "regime", "system"]))
    return pd.concat(found)


def _matrices(rows, column):
    """Matrices of the systems that have all draws, with those of the draws side by side, and their score."""
    seeds = sorted(rows["seed"].unique())
    counts = rows.groupby(["head", "rule"], sort=False)["seed"].nunique()
    stored = {
        (row["head"], row["rule"], row["seed"]): json.loads(row[column])
        for row in rows.to_dict("records")
    }
    groups = sorted({group for one in stored.values() for group in one})
    n_classes = len(next(iter(next(iter(stored.values())).values())))
    systems = {}
    for system in counts.index[counts == len(seeds)]:
        matrices = np.zeros((len(groups), n_classes, len(seeds), n_classes))
        for number, seed in enumerate(seeds):
            for group, matrix in stored[(*system, seed)].items():
                matrices[groups.index(group), :, number] = matrix
        systems[" ".join(system)] = matrices.reshape(len(groups), n_classes, -1)

    def mean_over_draws(matrices):
        each = matrices.reshape(*matrices.shape[:-1], len(seeds), n_classes)
        scores = confusion_scores(np.moveaxis(each, -2, -3))["mIoU"]
        known = ~np.isnan(scores)  # a resample may miss all groups of a draw
        return np.where(known, scores, 0).sum(axis=-1) / known.sum(axis=-1)

    return systems, groups, mean_over_draws


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--regimes", nargs="+", default=REGIMES, choices=REGIMES)
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--rules", nargs="+", default=ALL_RULES, choices=ALL_RULES)
    parser.add_argument("--seeds", type=int, default=N_DRAWS)
    parser.add_argument("--cache", type=Path, default=Path("results/features"))
    parser.add_argument("--output", type=Path, default=RUNS)
    parser.add_argument("--docs", type=Path, help="write the tables of the documentation there")
    parser.add_argument("--n-jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(options.output).to_dict("records") if options.output.exists() else []
    keys = ("set", "seed", "head", "rule", "regime")
    done = {tuple(row[key] for key in keys) for row in rows}
    to_do = [key for key in wanted(options) if key not in done]
    results = Parallel(options.n_jobs, return_as="generator_unordered")(
        delayed(run)(options, *key) for key in to_do
    )
    for row in tqdm(results, total=len(to_do), desc="fits", unit="fit"):
        if row is not None:
            rows.append(row)
            pd.DataFrame(rows).to_csv(options.output, index=False)
    table = pd.DataFrame(rows)
    print(summarize(table).round(3).to_string())
    for suffix in ("", " with record"):
        print(f"\nmIoU{suffix}\n{compare(table, suffix).round(3).to_string()}")
    if options.docs:
        options.docs.mkdir(parents=True, exist_ok=True)
        first = table[table["seed"] < N_DRAWS]
        write(first, summarize(first), compare(first), options.docs)


if __name__ == "__main__":
    main()
