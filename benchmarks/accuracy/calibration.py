"""From which held-out data the temperature of `RobustProportionClassifier` is best chosen.

    python benchmarks/accuracy/calibration.py --data DATA [--draws 10]

Exact records. A fit finds the temperature of its labeled slides and the one of its bags, both held out; the
expected calibration error on the test bags is measured with each, with alternatives made from them, and with
the temperature that is best on the test labels. Fits that fell back have no labels of bags and are left out.
All sets served development.
"""

from __future__ import annotations

import warnings
from unittest import mock

import numpy as np
import pandas as pd
from heads_and_rules import find_draw, over_draws
from real_bags import record
from rules_tables import calibration_of
from scipy.special import softmax

from proportion_ssl import Bags, RobustProportionClassifier
from proportion_ssl.estimators import _learners
from proportion_ssl.evaluation import reliability
from proportion_ssl.heads._temperature import fit_temperature


def fit(draw, seed):
    """A classifier with the preset, and the temperatures that its fit could have used."""
    found = {}

    def of_labels(logits, fold, labels):
        held_out = fold >= 0
        found["left-out slides, median of the folds"] = typical(logits, fold, labels)
        found["left-out slides, folds pooled"] = fit_temperature(logits[held_out], labels[held_out])
        return found["left-out slides, median of the folds"]

    def of_bags(sums):
        found["left-out bags"] = most_probable(sums)
        return found["left-out bags"]

    typical, most_probable = _learners.typical_temperature, _learners.most_probable_temperature
    bags = Bags(
        draw.X_bags, draw.bags, record(draw.shares(), "exact", np.random.default_rng([seed, 2]))
    )
    wrapped = {"typical_temperature": of_labels, "most_probable_temperature": of_bags}
    with mock.patch.multiple(_learners, **wrapped), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the row says whether the fit fell back
        model = RobustProportionClassifier(random_state=seed)
        model.fit(draw.X, draw.y, bags, groups=draw.groups)
    return model, found


def run(options, name, seed):
    """Calibration errors of one draw, by the way to choose the temperature."""
    draw = find_draw(options, name, seed)
    if draw is None:
        return None
    model, found = fit(draw, seed)
    if model.fell_back_ or found["left-out slides, median of the folds"] is None:
        return None
    by_slides, by_bags = found["left-out slides, median of the folds"], found["left-out bags"]
    used = {
        "larger of left-out slides and left-out bags (the method used)": max(by_slides, by_bags)
    }
    ways = used | {"their geometric mean": np.sqrt(by_slides * by_bags)} | found
    logits = np.log(model.predict_proba(draw.X_test))

    def error(temperature):
        p = softmax(logits * max(by_slides, by_bags) / temperature, axis=1)
        return reliability(draw.y_test, p, classes=model.classes_).ece

    row = {way: error(temperature) for way, temperature in ways.items()}
    best = min(np.geomspace(0.2, 50, 100), key=error)
    row["best on the test labels"] = error(best)
    return {"set": name, "seed": seed, "best temperature": best, **row}


def main(arguments=None):
    options, results = over_draws(run, __doc__, arguments)
    rows = [row for row in results if row is not None]
    if not rows:
        raise SystemExit("All fits fell back, so that no temperature was chosen; take more draws.")
    groups = pd.DataFrame(rows).drop(columns="seed").groupby("set", sort=False)
    print(f"Draws: {groups.size().to_dict()}")
    print(groups["best temperature"].describe()[["min", "50%", "max"]].round(1).to_string())
    errors = groups.mean().drop(columns="best temperature").T
    print(errors.round(3).to_string())
    if options.docs:
        options.docs.mkdir(parents=True, exist_ok=True)
        calibration_of(errors).to_csv(options.docs / "calibration.csv", index=False)


if __name__ == "__main__":
    main()
