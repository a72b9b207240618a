"""Rows of the paper's Table 2 on virtual slides of real H&E patches.

    python benchmarks/accuracy/bench_histology.py --data DATA --seeds 5

prints mean +- standard deviation over seeds of OP, PC and mIoU on the test slides, and how much of the
distance from "supervised" to "ceiling" (every bag label known) each row recovers; the last line is JSON.
Slides are composed by `histology_cohort.py`: one cohort, whose roles are drawn anew for each seed. The
same seed starts every row, so that rows compare pairwise.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from histology_cohort import draw_roles, load_virtual_cohort, roughen
from joblib import Parallel, delayed

from proportion_ssl import (
    Bags,
    NegativePseudoLabelClassifier,
    ThresholdSelector,
    mean_iou_score,
    overall_pixel_score,
    per_class_score,
)
from proportion_ssl.proportions import class_proportions

SYSTEMS = {
    "supervised": {"positive_selector": None, "negative_selector": None},
    "fixed .95": {"positive_selector": ThresholdSelector(), "negative_selector": None},
    "adaptive": {"negative_selector": None},
    "adaptive + single": {"multi_negative": False},
    "adaptive + multi": {},
    "ceiling": {"positive_selector": None, "negative_selector": None},
}


class Draw(NamedTuple):
    """The patches of a cohort by their use in one draw of roles, and what is true of them."""

    is_labeled: np.ndarray  # (n_patches,) bool, like the next two
    is_bag: np.ndarray
    is_test: np.ndarray
    labels: np.ndarray  # (n_patches,) class names
    bags: np.ndarray  # (n_bags,) slides, sorted
    proportions: np.ndarray  # (n_bags, n_classes)


def draw(cohort, seed):
    """Patches and true proportions under the roles of a seed."""
    roles = draw_roles(seed)
    is_labeled, is_bag, is_test = (
        np.isin(cohort.slides, slides) for slides in (roles.labeled, roles.bags, roles.test)
    )
    labels = np.array(cohort.classes)[cohort.labels]
    bags, index = np.unique(cohort.slides[is_bag], return_inverse=True)
    proportions = class_proportions(
        cohort.labels[is_bag], index, n_bags=len(bags), n_classes=len(cohort.classes)
    )
    return Draw(is_labeled, is_bag, is_test, labels, bags, proportions)


def run(cohort, seed, name, *, rough, settings):
    """Scores of one row on the test slides of one seed."""
    is_labeled, is_bag, is_test, labels, _, proportions = draw(cohort, seed)
    if rough:
        proportions = roughen(proportions, np.random.default_rng([seed, 2]))
    bags = Bags(cohort.features[is_bag], cohort.slides[is_bag], proportions)
    train = is_labeled | is_bag if name == "ceiling" else is_labeled
    model = NegativePseudoLabelClassifier(random_state=seed, **{**settings, **SYSTEMS[name]})
    start = time.perf_counter()
    model.fit(cohort.features[train], labels[train], bags)
    seconds = time.perf_counter() - start
    y, predicted = labels[is_test], model.predict(cohort.features[is_test])
    return {
        "system": name,
        "seed": seed,
        "OP": overall_pixel_score(y, predicted, labels=cohort.classes),
        "PC": per_class_score(y, predicted, labels=cohort.classes),
        "mIoU": mean_iou_score(y, predicted, labels=cohort.classes),
        "seconds": seconds,
    }


def recovered(table: pd.DataFrame) -> pd.Series:
    """Share of the distance from supervised to ceiling, of the means over seeds."""
    means = table.groupby("system", sort=False)["mIoU"].mean()
    return (means - means["supervised"]) / (means["ceiling"] - means["supervised"])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--cohort-seed", type=int, default=0)
    parser.add_argument("--rough", action="store_true", help="proportions off by 10 points")
    parser.add_argument("--no-shift", action="store_true", help="leave the stain as it is")
    parser.add_argument("--cache", type=Path, default=Path("results/features"))
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON, of every row")
    options = parser.parse_args(arguments)
    cohort = load_virtual_cohort(
        options.data, options.cache, seed=options.cohort_seed, stain_shift=not options.no_shift
    )
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    rows = Parallel(n_jobs=options.n_jobs)(
        delayed(run)(cohort, seed, name, rough=options.rough, settings=options.settings)
        for seed in seeds
        for name in SYSTEMS
    )
    table = pd.DataFrame(rows)
    groups = table.drop(columns="seed").groupby("system", sort=False)
    mean, spread = groups.mean(), groups.std()
    shown = mean[["OP", "PC", "mIoU"]].map("{:.3f}".format)
    shown += " +- " + spread[["OP", "PC", "mIoU"]].map("{:.3f}".format)
    shown["recovered"] = recovered(table).map("{:.2f}".format)
    shown["seconds"] = mean["seconds"].map("{:.1f}".format)
    print(shown.to_string())
    print(
        json.dumps(
            {
                "benchmark": "histology",
                "cohort_seed": options.cohort_seed,
                "seeds": list(seeds),
                "rough": options.rough,
                "stain_shift": not options.no_shift,
                "settings": options.settings,
                "mIoU": mean["mIoU"].round(4).to_dict(),
                "mIoU_sd": spread["mIoU"].round(4).to_dict(),
                "recovered": recovered(table).round(4).to_dict(),
            }
        )
    )


if __name__ == "__main__":
    main()
