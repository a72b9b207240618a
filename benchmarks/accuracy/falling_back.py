"""How often fits go back to the labeled instances alone, with good records and with records that say nothing.

    python benchmarks/accuracy/falling_back.py --data DATA --sets her2st_expression --draws 10

Records are exact, rough, name only the predominant class, or are exchanged at random between the bags; the
latter also without the check. Heads are discriminants; the rules are those of the published method and of
`RobustProportionClassifier`. For each fit: the gain in mIoU over the labeled instances alone, and whether it
fell back. All sets served development.
"""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pandas as pd
from heads_and_rules import find_draw, over_draws
from real_bags import record
from rules_tables import falling_back_of

from proportion_ssl import (
    Bags,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    mean_iou_score,
)
from proportion_ssl.estimators._learners import SolvedLearner
from proportion_ssl.heads import DiscriminantClassifier

#: Principal components of each set; fewer than the default make a fit short.
COMPONENTS = {"lc25000": 200, "chula_rbc": 100, "her2st_expression": None}
UNCHECKED = "exchanged, no check"
KINDS = ("exact", "rough", "predominant", "exchanged", UNCHECKED)


def models(name, seed):
    """The published rule and the preset, with the same head."""
    n = COMPONENTS[name]
    return {
        "published": NegativePseudoLabelClassifier(DiscriminantClassifier(n), random_state=seed),
        "preset": RobustProportionClassifier(n_components=n, random_state=seed),
    }


def bags_of(draw, shares, kind, rng):
    """The bags of a draw with one kind of record."""
    if kind == "predominant":
        largest = shares.argmax(axis=1)
        return Bags.from_predominant(
            draw.X_bags, draw.bags, largest, classes=np.arange(shares.shape[1])
        )
    if kind.startswith("exchanged"):
        recorded = shares[rng.permutation(len(shares))]
    else:
        recorded = record(shares, kind, rng)
    return Bags(draw.X_bags, draw.bags, recorded)


def unchecked():
    """What the labels of the bags do to the score if nothing stops them."""
    never = {"return_value": False}
    return mock.patch.multiple(
        SolvedLearner, _bags_say_so=mock.Mock(**never), _slides_say_so=mock.Mock(**never)
    )


def run(options, name, seed):
    """One row per kind of record and rule."""
    draw = find_draw(options, name, seed)
    if draw is None:
        return []
    rows, shares = [], draw.shares()
    alone = models(name, seed)["published"].fit(draw.X, draw.y, groups=draw.groups)
    before = mean_iou_score(draw.y_test, alone.predict(draw.X_test))
    for kind in KINDS:
        rng = np.random.default_rng([seed, 2])
        bags = bags_of(draw, shares, kind, rng)
        check = unchecked() if kind == UNCHECKED else nullcontext()
        for rule, model in models(name, seed).items():
            with check, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the row says what they say
                model.fit(draw.X, draw.y, bags, groups=draw.groups)
            gain = mean_iou_score(draw.y_test, model.predict(draw.X_test)) - before
            row = {"set": name, "seed": seed, "records": kind, "rule": rule}
            rows.append(row | {"gain": gain, "fell back": model.fell_back_})
    return rows


def main(arguments=None):
    options, results = over_draws(run, __doc__, arguments)
    rows = [row for of_draw in results for row in of_draw]
    table = pd.DataFrame(rows)
    groups = table.groupby(["set", "rule", "records"], sort=False)
    summary = groups["fell back"].agg(["sum", "count"])
    summary["mean gain"], summary["lowest gain"] = groups["gain"].mean(), groups["gain"].min()
    print(summary.round(3).to_string())
    if options.docs:
        options.docs.mkdir(parents=True, exist_ok=True)
        falling_back_of(table).to_csv(options.docs / "falling_back.csv", index=False)


if __name__ == "__main__":
    main()
