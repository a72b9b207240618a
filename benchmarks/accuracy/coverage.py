"""How often the intervals of ``proportion_ssl.evaluation`` hold the truth, in simulated cohorts.

Scores: slides of lognormal size, class shares Dirichlet(0.6), accuracy per slide and class Beta(8, 2);
the truth is the score of 20,000 slides. Proportions: shares Dirichlet(0.7), a model with a bias per class
and errors of 40%.

    python benchmarks/accuracy/coverage.py [--cohorts 2000]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

from proportion_ssl.evaluation import (
    bootstrap_scores,
    compare_systems,
    conformal_errors,
    conformal_intervals,
    confusion_scores,
)
from proportion_ssl.proportions.intervals import rounding_interval

SCORES = ("OP", "PC", "mIoU")


def draw_slides(n: int, rng: np.random.Generator, n_classes: int = 5) -> np.ndarray:
    """Confusion matrices of slides, shape (n, n_classes, n_classes)."""
    sizes = rng.lognormal(6, 0.6, n)
    n_true = rng.poisson(sizes[:, np.newaxis] * rng.dirichlet(np.full(n_classes, 0.6), n))
    right = rng.beta(8, 2, (n, n_classes))
    wrong = rng.dirichlet(np.full(n_classes - 1, 0.7), (n, n_classes)) * (
        1 - right[..., np.newaxis]
    )
    p = np.zeros((n, n_classes, n_classes))
    off = ~np.eye(n_classes, dtype=bool)
    p[:, off] = wrong.reshape(n, -1)
    p[:, ~off] = right
    return rng.multinomial(n_true, p).astype(float)


def draw_proportions(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted shares of slides, each of shape (n, 4)."""
    true = rng.dirichlet(np.full(4, 0.7), n)
    predicted = (true + 0.01) * np.exp(rng.normal(0, 0.4, true.shape) + np.linspace(-0.2, 0.2, 4))
    return true, predicted / predicted.sum(axis=1, keepdims=True)


def cover_scores(n_cohorts: int, rng: np.random.Generator) -> pd.DataFrame:
    """Coverage and mean width of 95% intervals by the number of slides."""
    truth = confusion_scores(draw_slides(20_000, rng).sum(axis=0))
    rows = []
    for n in (5, 8, 12, 20, 50, 100):
        found = {
            name: np.array(
                [
                    bootstrap_scores(draw_slides(n, rng), metric=name, n_resamples=1000)[1:3]
                    for _ in range(n_cohorts)
                ]
            )
            for name in SCORES
        }
        row = {"slides": n}
        for name, ends in found.items():
            inside = (ends[:, 0] <= truth[name]) & (truth[name] <= ends[:, 1])
            row |= {name: inside.mean(), f"width_{name}": (ends[:, 1] - ends[:, 0]).mean()}
        rows.append(row)
    return pd.DataFrame(rows)


def cover_proportions(n_cohorts: int, rng: np.random.Generator) -> pd.DataFrame:
    """Coverage (least over classes) and mean width of 90% intervals of proportions."""
    rows = []
    for n in (9, 20, 50, 100):
        for step in (None, 0.05, 0.1, 0.25):
            inside, width = [], []
            for _ in range(n_cohorts):
                true, predicted = draw_proportions(n + 20, rng)
                record = true[:n]
                ends = record, record
                if step is not None:
                    ends = rounding_interval(np.round(record / step) * step, step)
                low, high = conformal_intervals(
                    predicted[n:], conformal_errors(predicted[:n], *ends)
                )
                inside.append(((low <= true[n:]) & (true[n:] <= high)).mean(axis=0))
                width.append((high - low).mean())
            least = np.mean(inside, axis=0).min()
            rows.append(
                {"bags": n, "rounding": step or 0, "coverage": least, "width": np.mean(width)}
            )
    return pd.DataFrame(rows)


def time_functions(rng: np.random.Generator) -> dict[str, float]:
    """Seconds on 400 slides."""
    slides = draw_slides(400, rng, n_classes=7)
    seconds = {}
    for name, call in (
        ("bootstrap_scores", lambda: bootstrap_scores(slides)),
        ("compare_systems, 3 systems", lambda: compare_systems(dict.fromkeys("ABC", slides))),
    ):
        start = time.perf_counter()
        call()
        seconds[name] = time.perf_counter() - start
    return seconds


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cohorts", type=int, default=2000)
    n_cohorts = parser.parse_args().cohorts
    rng = np.random.default_rng(0)
    error = np.sqrt(0.95 * 0.05 / n_cohorts)
    print(f"95% intervals of scores, {n_cohorts} cohorts; standard error of a coverage {error:.4f}")
    print(cover_scores(n_cohorts, rng).round(3).to_string(index=False))
    print(f"\n90% intervals of proportions, {n_cohorts // 10} cohorts")
    print(cover_proportions(n_cohorts // 10, rng).round(3).to_string(index=False))
    print(f"\nseconds at 400 slides: {time_functions(rng)}")


if __name__ == "__main__":
    main()
