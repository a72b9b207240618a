"""Whether suggested slides beat slides drawn at random: which to outline next, which records to read again.

Synthetic cohorts: 2 labeled slides, 40 bags, 20 test slides. Outlining adds the true labels of three bags
to the training patches, of a linear classifier that sees labels alone or of the robust one. For reading
again, the largest and the smallest share of 8 records are exchanged.

    python benchmarks/accuracy/suggestions.py [--cohorts 20]
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import LogisticRegression

from proportion_ssl import Bags, RobustProportionClassifier, mean_iou_score
from proportion_ssl.datasets import BagData, make_bags
from proportion_ssl.evaluation import suggest_slides

N_MORE, N_WRONG, N_FOLDS = 3, 8, 4


def left_out_probabilities(data: BagData, bags: Bags) -> np.ndarray:
    """Of all patches in bags, by classifiers that did not learn from their record."""
    probabilities = np.zeros((bags.n_instances, 4))
    for fold in range(N_FOLDS):
        kept = np.flatnonzero(np.arange(bags.n_bags) % N_FOLDS != fold)
        rest = Bags([bags.X[bags.index == b] for b in kept], proportions=bags.proportions[kept])
        model = fit(data.X_labeled, data.y, rest, data.groups)
        left = ~np.isin(bags.index, kept)
        probabilities[left] = model.predict_proba(bags.X[left])
    return probabilities


def fit(X: np.ndarray, y: np.ndarray, bags: Bags, groups: np.ndarray) -> RobustProportionClassifier:
    return RobustProportionClassifier(random_state=0).fit(X, y, bags, groups=groups)


def score_with(data: BagData, chosen: np.ndarray, records: bool) -> float:
    """Mean IoU on new slides when the chosen bags are outlined as well."""
    bags = data.bags
    more = np.isin(bags.index, chosen)
    X = np.vstack([data.X_labeled, bags.X[more]])
    y = np.concatenate([data.y, data.y_bags[more]])
    if records:
        model = fit(X, y, bags, np.concatenate([data.groups, 1000 + bags.index[more]]))
    else:
        model = LogisticRegression(max_iter=500).fit(X, y)
    return mean_iou_score(data.y_test, model.predict(data.X_test))


def one_cohort(seed: int) -> dict[str, float]:
    """Gain of suggested and of random outlines; share of wrong records among the first to read again."""
    data = make_bags(
        40, n_labeled_slides=2, n_test_slides=20, class_separation=1.0, random_state=seed
    )
    bags, rng = data.bags, np.random.default_rng(seed)
    table = suggest_slides(left_out_probabilities(data, bags), bags.index, bags.lower, bags.upper)
    row = {}
    by_chance = [rng.permutation(bags.n_bags)[:N_MORE] for _ in range(4)]
    for name, records in (("labels", False), ("robust", True)):
        row[f"{name}_start"] = score_with(data, np.array([], dtype=int), records)
        row[f"{name}_suggested"] = score_with(data, table.index[:N_MORE].to_numpy(), records)
        row[f"{name}_random"] = float(np.mean([score_with(data, c, records) for c in by_chance]))
    wrong = rng.permutation(bags.n_bags)[:N_WRONG]
    records = bags.proportions.copy()
    order = np.argsort(records[wrong], axis=1)
    for bag, ranks in zip(wrong, order, strict=True):  # largest and smallest change places
        records[bag, ranks[[0, -1]]] = records[bag, ranks[[-1, 0]]]
    noisy = Bags([bags.X[bags.index == b] for b in range(bags.n_bags)], proportions=records)
    again = suggest_slides(left_out_probabilities(data, noisy), noisy.index, records, records)
    first = again.sort_values("reread_rank").index[:N_WRONG]
    return {**row, "wrong_found": float(np.isin(first, wrong).mean())}


def main() -> None:
    """Print means and paired differences."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cohorts", type=int, default=20)
    table = pd.DataFrame([one_cohort(seed) for seed in range(parser.parse_args().cohorts)])
    print(table.mean().round(3).to_string())
    for name in ("labels", "robust"):
        difference = table[f"{name}_suggested"] - table[f"{name}_random"]
        reach = stats.t.ppf(0.975, len(table) - 1) * stats.sem(difference)
        print(f"{name}, suggested - random: {difference.mean():+.3f} +- {reach:.3f} (95%)")
    print(f"wrong records among the first {N_WRONG} by chance: {N_WRONG / 40:.2f}")


if __name__ == "__main__":
    main()
