"""Tumor proposals against a classifier that learns "non-cancer" itself, on synthetic whole slides.

Two segmenters learn from the same slides and records: one proposes tumor from three magnifications and trains
on the proposals of each bag, one learns "non-cancer" as a class from all tissue, records being shares of the
cancer (``SlideSegmenter(proposer=None)``). Each cohort has 6 outlined slides, 20 recorded and 6 test slides;
features are random filters, so that no weights are needed. Scores with 95% intervals over the test slides of
all cohorts, and paired differences.

    python benchmarks/tissue/non_cancer.py --output results/non_cancer
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from proportion_ssl import NegativePseudoLabelClassifier, PatchEmbedder, SlideSegmenter
from proportion_ssl.datasets import make_slides
from proportion_ssl.embedding import RandomFilterFeatures
from proportion_ssl.evaluation import bootstrap_scores, compare_systems

METRICS = ("mIoU", "OP", "tumor_recall", "tumor_precision")
SEGMENTERS = {
    "proposals": {},
    "a class": {"proposer": None},
    "proposals, published rule": {"classifier": NegativePseudoLabelClassifier(random_state=0)},
    "a class, published rule": {
        "classifier": NegativePseudoLabelClassifier(random_state=0),
        "proposer": None,
    },
}
PAIRS = (("a class", "proposals"), ("a class, published rule", "proposals, published rule"))


def confusions(seed: int, folder: Path) -> dict[str, np.ndarray]:
    """Confusion matrices of the test slides, by segmenter."""
    manifest = folder / f"cohort_{seed}" / "cohort.csv"
    if not manifest.exists():
        make_slides(manifest.parent, random_state=seed, overwrite=True)
    found = {}
    for name, settings in SEGMENTERS.items():
        embedder = PatchEmbedder(module=RandomFilterFeatures())
        segmenter = SlideSegmenter(embedder=embedder, random_state=0, **settings)
        data = segmenter.read_cohort(manifest, features=folder / f"features_{seed}")
        segmenter.fit_features(data)
        evaluation = segmenter.evaluate(manifest, features=folder / f"features_{seed}")
        found[name] = np.stack(list(evaluation.confusion_by_case.values()))
        print(seed, name, evaluation.pooled.round(3).to_dict(), flush=True)
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("results/non_cancer"))
    options = parser.parse_args(arguments)
    parts = [confusions(seed, options.output) for seed in options.seeds]
    pooled = {name: np.concatenate([part[name] for part in parts]) for name in SEGMENTERS}
    rows = []
    for metric in METRICS:
        for name, matrices in pooled.items():
            n_classes = matrices.shape[1] - 1
            score = bootstrap_scores(matrices, metric=metric, n_classes=n_classes)
            rows.append((metric, name, score.score, score.low, score.high))
        for system, reference in PAIRS:
            table = compare_systems(
                {name: pooled[name] for name in (system, reference)},
                reference=reference,
                metric=metric,
                n_classes=n_classes,
            )
            difference = table[["difference", "low", "high"]].iloc[0]
            rows.append((metric, f"{system} - {reference}", *difference))
    table = pd.DataFrame(rows, columns=["metric", "segmenter", "score", "low", "high"]).round(3)
    print(table.to_string(index=False))
    table.to_csv(options.output / "non_cancer.csv", index=False)


if __name__ == "__main__":
    main()
