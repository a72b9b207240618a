"""Selectors and metrics on ten million instances, against one sort of the same length.

In turns, each round: `numpy.argsort` of as many random float64, every selector on float32 probabilities of
six classes in bags of 1,000, and the metrics on labels. ``times_argsort`` are medians of the ratios within a
round; ``slope`` is that of time against number of instances on a log-log line, from a hundredth of the
largest number on. ``peak_mb`` is the resident peak of the process, input included (Linux). One line of JSON
comes out.

    python benchmarks/speed/bench_selection.py
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from proportion_ssl import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativeSelector,
    SoftAssignmentSelector,
    ThresholdSelector,
    bag_proportion_error,
    mean_iou_score,
)

N_CLASSES, BAG_SIZE = 6, 1000


def make_case(n):
    """Probabilities, bags, recorded proportions, and labels of n instances."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, N_CLASSES)).astype(np.float32)
    np.exp(2 * logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    bag_ids = np.repeat(np.arange(n // BAG_SIZE), BAG_SIZE)
    proportions = rng.dirichlet(np.ones(N_CLASSES), n // BAG_SIZE)
    labels = rng.integers(0, N_CLASSES, n)
    return logits, bag_ids, proportions, labels, logits.argmax(axis=1), rng.random(n)


def sides(case):
    """Name -> function without arguments."""
    probabilities, bag_ids, proportions, labels, predicted, keys = case
    found = {"argsort": lambda: np.argsort(keys)}
    for selector in (
        ThresholdSelector(),
        AdaptiveSelector(),
        NegativeSelector(),
        AssignmentSelector(),
        SoftAssignmentSelector(),
    ):
        found[type(selector).__name__] = lambda selector=selector: selector.transform(
            probabilities, bag_ids=bag_ids, bag_proportions=proportions
        )
    classes = range(N_CLASSES)
    found["mean_iou_score"] = lambda: mean_iou_score(labels, predicted, labels=classes)
    found["bag_proportion_error"] = lambda: bag_proportion_error(
        proportions, predicted, bag_ids=bag_ids, labels=classes
    )
    return found


def measure(case, rounds):
    """Seconds of every side and round, sides in turns."""
    seconds = {name: [] for name in sides(case)}
    for _ in range(rounds):
        for name, run in sides(case).items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    numbers = [options.instances // divisor for divisor in (100, 30, 10, 3, 1)]
    numbers = [n // BAG_SIZE * BAG_SIZE for n in numbers]
    measured = [measure(make_case(n), options.rounds) for n in numbers]
    largest = measured[-1]
    times, slope = {}, {}
    for name in list(largest)[1:]:
        times[name] = round(float(np.median(largest[name] / largest["argsort"])), 2)
        medians = [np.median(seconds[name]) for seconds in measured]
        slope[name] = round(float(np.polyfit(np.log(numbers), np.log(medians), 1)[0]), 3)
    peak = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    print(
        json.dumps(
            {
                "benchmark": "selection",
                "times_argsort": times,
                "slope": slope,
                "seconds": {n: round(float(np.median(s)), 3) for n, s in largest.items()},
                "peak_mb": int(peak) // 1024,
                "settings": {
                    "instances": numbers,
                    "bag_size": BAG_SIZE,
                    "classes": N_CLASSES,
                    "rounds": options.rounds,
                    "numpy": np.__version__,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
