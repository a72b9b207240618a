"""What neighboring patches are worth in a map, with and without the record of the slide.

Real tissue: spots of a set of `real_bags.py` whose `xy` are places on a grid; whole patients are drawn for
each role, and the weight is chosen on labeled patients left out in turn. A cohort of slides: its features
(of an earlier run), the weight of `SlideSegmenter.calibrate`, differences paired by test slide.

    python benchmarks/accuracy/smoothing.py --real FOLDER/her2st_expression [--draws 10]
    python benchmarks/accuracy/smoothing.py --cohort RUN/synthetic_cohort_0/cohort.csv --features RUN/features
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from real_bags import GROUPS

from proportion_ssl import (
    Bags,
    PatchEmbedder,
    RobustProportionClassifier,
    SlideSegmenter,
    mean_iou_score,
)
from proportion_ssl.evaluation import compare_systems
from proportion_ssl.segmenter import choose_weight, smooth_probabilities
from proportion_ssl.segmenter.prediction import evaluate_models


def real_draw(folder: Path, seed: int) -> dict[str, float]:
    """Mean IoU of one draw of patients: patches alone and with neighbors, without and with records."""
    with np.load(folder / "features.npz", allow_pickle=True) as stored:
        X, y, bag = (stored[k] for k in ("E", "y", "sid"))
        group, cells = stored["group"], np.rint(stored["xy"]).astype(int)
    X, y, bag = X.astype(np.float32), y.astype(int), np.unique(bag, return_inverse=True)[1]
    n_labeled, n_test = GROUPS[folder.name]
    rng, classes = np.random.default_rng([seed, 7]), np.unique(y)
    while True:
        order = rng.permutation(np.unique(group))
        labeled = np.isin(group, order[:n_labeled])
        test = np.isin(group, order[n_labeled : n_labeled + n_test])
        if np.bincount(y[labeled], minlength=len(classes)).min() >= 3:
            break
    rest = ~labeled & ~test
    shares = pd.crosstab(bag, y, normalize="index").reindex(columns=classes, fill_value=0.0)

    def fit(names):
        chosen = np.isin(group, names)
        names = np.unique(bag[rest])
        bags = Bags(X[rest], bag[rest], shares.loc[names])
        model = RobustProportionClassifier(random_state=0, classes=classes.tolist())
        return model.fit(X[chosen], y[chosen], bags)

    left_out = np.zeros((len(y), len(classes)))
    for name in order[:n_labeled]:
        model = fit([other for other in order[:n_labeled] if other != name])
        left_out[group == name] = model.predict_proba(X[group == name])
    given = (cells[labeled], left_out[labeled], y[labeled], group[labeled])
    weight = choose_weight(*given, classes=classes)
    model, result = fit(order[:n_labeled]), {"weight": weight}
    records = {"bag_ids": bag[test], "bag_proportions": shares.loc[np.unique(bag[test])]}
    for name, more in (("", {}), (" with record", records)):
        p = model.predict_proba(X[test], **more)
        for w in (0.0, weight, 0.4):
            q = smooth_probabilities(
                cells[test],
                p,
                w,
                slide_ids=bag[test] if more else group[test],
                keep_shares=bool(more),
            )
            key = "alone" if w == 0 else "chosen" if w == weight else f"weight {w:g}"
            result[f"{key}{name}"] = mean_iou_score(y[test], q.argmax(axis=1))
        if weight == 0:
            result[f"chosen{name}"] = result[f"alone{name}"]
        if weight == 0.4:
            result[f"weight 0.4{name}"] = result[f"chosen{name}"]
    return result


def real(folder: Path, draws: int) -> None:
    """Print the mean over draws, and paired differences."""
    table = pd.DataFrame([real_draw(folder, seed) for seed in range(draws)])
    print(table.round(3).to_string())
    for name in ("", " with record"):
        for key in ("chosen", "weight 0.4"):
            gain = table[f"{key}{name}"] - table[f"alone{name}"]
            error = gain.std(ddof=1) / np.sqrt(len(gain))
            before = table[f"alone{name}"].mean()
            print(
                f"{key}{name}: mIoU {before:.3f} {gain.mean():+.3f} +- {error:.3f} (standard error)"
            )


def cohort(manifest: Path, features: Path, weights: str, seed: int) -> None:
    """Print the scores on test slides of patches alone and with neighbors."""
    segmenter = SlideSegmenter(embedder=PatchEmbedder(weights=weights), random_state=seed)
    data = segmenter.read_cohort(manifest, features=features)
    segmenter.fit_features(data)
    segmenter.calibrate_features(data)
    print(f"chosen weight {segmenter.smoothing_:g}")
    names = [name for name in data.cohort.test if name in data.slides]
    found = {
        weight: evaluate_models(data, names, replace(segmenter.models_, smoothing=weight))
        for weight in dict.fromkeys((0.0, segmenter.smoothing_, 0.2, 0.4, 1.0))
    }
    print(
        pd.DataFrame({weight: one.pooled for weight, one in found.items()}).T.round(3).to_string()
    )
    stacks = {
        f"{weight:g}": np.stack(list(one.confusion_by_case.values()))
        for weight, one in found.items()
    }
    for name in list(stacks)[1:]:
        pair = {name: stacks[name], "0": stacks["0"]}
        n_classes = len(data.cohort.classes)
        print(compare_systems(pair, metric="mIoU", n_classes=n_classes).round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--real", type=Path)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--features", type=Path)
    parser.add_argument("--weights", default="imagenet", help="of the embedder of these features")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.real is not None:
        real(options.real, options.draws)
    if options.cohort is not None:
        cohort(options.cohort, options.features, options.weights, options.seed)


if __name__ == "__main__":
    main()
