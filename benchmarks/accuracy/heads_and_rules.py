"""Every head with every label rule, on composed cohorts and on sets of real bags.

    python benchmarks/accuracy/heads_and_rules.py --data DATA

Heads: the trained net, the discriminant, logistic regression. Rules: none (labeled instances alone),
fixed threshold, adaptive positive labels, the published rule (adaptive and negative), assignment of all,
soft assignment, EM with the recorded shares as priors; "preset" is `RobustProportionClassifier`;
"ceiling" has the label of every instance. Records are exact, rounded to 10%, rough (off by about 10
points), or of another bag in 20% of the cases. Of each fit: mIoU on the test bags, expected calibration
error, and both again with the records of the test bags (of the same regime) given to the prediction.
Recovered is the share of the distance from the supervised net to the net's ceiling.

Runs are resumed from the CSV. Cohorts 0 to 2 and both real sets served development: no figure from here
is an estimate for data that were never looked at.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from real_bags import REGIMES, draw_real, draw_virtual, record
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
from proportion_ssl.evaluation import reliability
from proportion_ssl.heads import DiscriminantClassifier, SoftLogisticRegression
from proportion_ssl.pseudo_labels import Selector


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
SETS = ("lc25000", "chula_rbc", "her2st_expression")


def find_draw(options, name, seed):
    """The draw of a set and seed; cohort ``seed % 3`` of the composed ones."""
    if name == "lc25000":
        return draw_virtual(options.data, options.cache, seed % 3, seed)
    return draw_real(options.data / "real" / name, seed)


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
        row[f"mIoU{suffix}"] = mean_iou_score(draw.y_test, probabilities.argmax(axis=1))
        row[f"ECE{suffix}"] = reliability(draw.y_test, probabilities, classes=model.classes_).ece
    return row


def wanted(options):
    """Set, seed, head, rule and regime of all runs; what knows no record is done once."""
    for name in options.sets:
        for seed in range(options.seeds):
            for head in HEADS:
                for rule in ("none", "ceiling"):
                    yield name, seed, head, rule, "exact"
            for regime in options.regimes:
                yield name, seed, "discriminant", "preset", regime
                for head in options.heads:
                    for rule in options.rules:
                        yield name, seed, head, rule, regime


def summarize(table):
    """Means over the draws, and the recovered share where there is something to recover."""
    keys = ["set", "seed"]
    nets = table[table["head"] == "net"].set_index(["rule", *keys])["mIoU"]
    bottom, top = nets.get("none"), nets.get("ceiling")
    table = table.join(bottom.rename("bottom"), on=keys).join(top.rename("top"), on=keys)
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


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--regimes", nargs="+", default=REGIMES, choices=REGIMES)
    parser.add_argument("--heads", nargs="+", default=list(HEADS), choices=list(HEADS))
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=list(RULES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path("results/features"))
    parser.add_argument("--output", type=Path, default=Path("results/heads_and_rules.csv"))
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
    print(summarize(pd.DataFrame(rows)).round(3).to_string())


if __name__ == "__main__":
    main()
