"""Fit of RobustProportionClassifier from feature files that are not held in memory.

- `equality`: largest differences of probabilities and (relative) weights between the fit that holds its
  features and the one that reads them anew in every round.
- `files`: a cohort of float16 files (`--slides` x `--patches` x `--features`, `--format npy` or `h5`),
  made up and deleted afterwards: seconds of the fit, seconds per slide and pass, seconds to predict all
  patches, peak memory of the process and of its largest worker, and the size of the features in float32.
- `memory`: the same of simulated cohorts of `--memory-slides` slides of 2000 x 512.
- `simulated`: features that are drawn from a seed whenever they are read, 10,000 patches x 1024 a slide,
  cohorts of `--simulated` slides: seconds of the processor with and without drawing, the slope, and on how
  many workers of one core 10,000 slides take an hour.

A fit of 11 rounds reads every bag 14 times: once for the principal components, once per round, once to judge
the records, once at the end for the temperature. JSON comes out; the sizes that were measured are in it.

    python benchmarks/speed/bench_out_of_core.py
    python benchmarks/speed/bench_out_of_core.py --only files --patches 10000 --format h5 --n-jobs 2
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from joblib.externals.loky import get_reusable_executor

from proportion_ssl import Bags, RobustProportionClassifier
from proportion_ssl.estimators import _out_of_core as out_of_core
from proportion_ssl.slides import FeatureSequence

N_CLASSES, N_LABELED, N_PASSES = 5, 2000, 14


class SimulatedFeatures:
    """Features of slides that are drawn from the seed of their slide whenever they are read.

    Parameters
    ----------
    slides : ndarray of int, shape (n_slides,)
        Seeds.
    n_patches, n_features : int
    """

    dtype = np.dtype(np.float32)

    def __init__(self, slides, n_patches, n_features):
        self.slides, self.n_patches = slides, n_patches
        self.shape = (len(slides) * n_patches, n_features)
        self.names = np.array([f"{slide:06d}" for slide in slides.tolist()])
        self.slide_ids = np.repeat(np.arange(len(slides)), n_patches)
        self._drawn = None

    def __len__(self):
        return self.shape[0]

    def narrow(self, rows):
        """One slide of the cohort."""
        rows = np.asarray(rows)
        first, last = rows[0] // self.n_patches, rows[-1] // self.n_patches
        if first != last or len(rows) != self.n_patches:
            raise ValueError("only whole slides are drawn")
        return SimulatedFeatures(self.slides[first : first + 1], self.n_patches, self.shape[1])

    def __getitem__(self, rows):
        if len(self.slides) != 1:
            raise ValueError("rows are read slide by slide")
        if self._drawn is None:
            self._drawn = draw_slide(int(self.slides[0]), self.n_patches, self.shape[1])[0]
        return self._drawn[rows]

    def batches(self, batch_size=4096):
        for start in range(0, len(self), batch_size):
            yield self[start : start + batch_size]

    def __getstate__(self):
        return {**self.__dict__, "_drawn": None}


def class_means(n_features):
    return np.random.default_rng(0).normal(0, 0.05, (N_CLASSES, n_features)).astype(np.float32)


def shares_of(slide):
    return np.random.default_rng([slide, 0]).dirichlet(np.full(N_CLASSES, 0.5))


def draw_slide(slide, n_patches, n_features):
    """Features around the means of the classes, with a shift of the slide; and classes."""
    rng = np.random.default_rng([slide, 1])
    y = rng.choice(N_CLASSES, n_patches, p=shares_of(slide))
    X = rng.standard_normal((n_patches, n_features), dtype=np.float32)
    X += rng.normal(0, 0.2, n_features).astype(np.float32)
    means = class_means(n_features)
    for c in range(N_CLASSES):
        X[y == c] += means[c]
    return X, y


def labeled(n_features):
    """Labeled patches of five slides."""
    parts = [draw_slide(10**6 + slide, N_LABELED // 5, n_features) for slide in range(5)]
    X, y = (np.concatenate(part) for part in zip(*parts, strict=True))
    return X, y, np.repeat(np.arange(5), N_LABELED // 5)


def simulated_bags(n_slides, n_patches, n_features):
    features = SimulatedFeatures(np.arange(n_slides), n_patches, n_features)
    return Bags(features, None, np.stack([shares_of(slide) for slide in range(n_slides)]))


def write_npy(path, X):
    np.save(path, X)


def write_h5(path, X):
    """As TRIDENT lays features out."""
    side = int(np.ceil(len(X) ** 0.5))
    places = np.arange(len(X))
    about = {"patch_size": 256, "patch_size_level0": 256, "overlap": 0, "name": path.stem}
    about |= {"level0_magnification": 20, "target_magnification": 20, "savetodir": str(path.parent)}
    about |= {"level0_width": 256 * side, "level0_height": 256 * side}
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=X, chunks=(min(len(X), 500), X.shape[1]))
        coords = file.create_dataset(
            "coords", data=256 * np.stack([places % side, places // side], 1)
        )
        coords.attrs.update(about)


def file_bags(folder, n_slides, n_patches, n_features, *, write=write_npy):
    """Features of the same slides in files of half precision."""
    paths = {}
    for slide in range(n_slides):
        name = f"{slide:06d}"
        paths[name] = path = Path(folder) / f"{name}.{write.__name__.removeprefix('write_')}"
        write(path, draw_slide(slide, n_patches, n_features)[0].astype(np.float16))
    return Bags(FeatureSequence(paths), None, np.stack([shares_of(s) for s in range(n_slides)]))


def fit(bags, *, streamed=True, n_components=200, n_jobs=None):
    """Seconds of the clock and of the processor (of this process), and fitted model."""
    out_of_core.MOST_HELD = 0 if streamed else np.inf
    X, y, groups = labeled(bags.X.shape[1])
    model = RobustProportionClassifier(n_components=n_components, n_jobs=n_jobs, random_state=0)
    starts = time.perf_counter(), time.process_time()
    model.fit(X, y, bags, groups=groups)
    return (time.perf_counter() - starts[0], time.process_time() - starts[1]), model


def peak_mib():
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def largest_worker_mib():
    """Largest resident memory so far of a process that this one has started, as Linux tells it."""
    peaks = [0.0]
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            lines = Path("/proc", child, "status").read_text().splitlines()
            peaks += [float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return max(peaks)


def equality(n_slides, n_patches, n_features):
    with tempfile.TemporaryDirectory() as folder:
        bags = file_bags(folder, n_slides, n_patches, n_features)
        (held_seconds, held), (seconds, streamed) = (fit(bags, streamed=s) for s in (False, True))
    X = draw_slide(2 * 10**6, 5000, n_features)[0]
    one, other = (model.estimator_.head.coefficients()[0] for model in (held, streamed))
    return {
        "sizes": [n_slides, n_patches, n_features],
        "probabilities": float(np.abs(held.predict_proba(X) - streamed.predict_proba(X)).max()),
        "weights": float(np.abs(one - other).max() / np.abs(one).max()),
        "fell_back": streamed.fell_back_,
        "temperature": abs(held.temperature_ / streamed.temperature_ - 1),
        "seconds_held": held_seconds,
        "seconds_streamed": seconds,
    }


def _in_process(make, sizes, n_jobs):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        bags = make(folder, *sizes)
        fit(make(other, 8, 100, sizes[2]), n_components=50)  # imports, buffers
        before = peak_mib()
        seconds, model = fit(bags, n_jobs=n_jobs)
        after_fit, worker = peak_mib(), largest_worker_mib()
        X, y = draw_slide(2 * 10**6, 5000, sizes[2])
        accuracy = float((model.predict(X) == y).mean())
        predicting = None
        if isinstance(bags.X, FeatureSequence):
            start = time.perf_counter()
            model.predict(bags.X)
            predicting = time.perf_counter() - start
        get_reusable_executor().shutdown()  # else the end of this process waits for idle workers
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = *seconds, used.ru_utime + used.ru_stime
        return seconds, before, (after_fit, peak_mib(), worker), accuracy, predicting


def measured(make, sizes, n_jobs=None):
    """A fit in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        measures = pool.submit(_in_process, make, sizes, n_jobs).result()
    seconds, before, (peak, peak_with_prediction, worker), accuracy, predicting = measures
    of_prediction = (
        {}
        if predicting is None
        else {
            "seconds_of_prediction": round(predicting, 1),
            "peak_mib_with_prediction": round(peak_with_prediction),
            "largest_worker_mib": round(worker),
        }
    )
    return {
        "sizes": list(sizes),
        "seconds": round(seconds[0], 1),
        "cpu_seconds": round(seconds[1], 2),
        "cpu_seconds_of_workers": round(seconds[2], 2),
        "seconds_per_slide_and_pass": round(seconds[0] / sizes[0] / N_PASSES, 4),
        "cpu_seconds_per_slide_and_pass": round(seconds[1] / sizes[0] / N_PASSES, 4),
        "peak_mib": round(peak),
        "beyond_imports_mib": round(peak - before),
        "features_mib_float32": round(np.prod(sizes) * 4 / 2**20),
        "accuracy": round(accuracy, 3),
        **of_prediction,
    }


def make_simulated(folder, *sizes):
    return simulated_bags(*sizes)


def simulated(counts, n_patches, n_features):
    fits = [measured(make_simulated, (n, n_patches, n_features)) for n in counts]
    start = time.process_time()
    for slide in range(3):
        draw_slide(slide, n_patches, n_features)
    drawing = (time.process_time() - start) / 3
    slides, seconds = np.array(counts), np.array([one["cpu_seconds"] for one in fits])
    slope, constant = np.polyfit(slides, seconds, 1)
    without = slope - N_PASSES * drawing
    return {
        "fits": fits,
        "cpu_seconds_per_slide": slope,
        "constant_cpu_seconds": constant,
        "largest_residual_share": float(
            np.abs(np.polyval([slope, constant], slides) / seconds - 1).max()
        ),
        "of_it_drawing": N_PASSES * drawing,
        "workers_for_10000_slides_in_an_hour": int(np.ceil(10_000 * slope / 3600)),
        "the_same_without_drawing": int(np.ceil(10_000 * without / 3600)),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--slides", type=int, default=400)
    parser.add_argument("--patches", type=int, default=500)
    parser.add_argument("--features", type=int, default=1536)
    parser.add_argument("--format", choices=["npy", "h5"], default="npy")
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--simulated", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--memory-slides", type=int, nargs="+", default=[10, 20, 40])
    parser.add_argument("--only", nargs="+", choices=["equality", "files", "memory", "simulated"])
    arguments = parser.parse_args()
    sizes = arguments.slides, arguments.patches, arguments.features
    n_jobs = arguments.n_jobs
    write = {"npy": write_npy, "h5": write_h5}[arguments.format]
    parts = {
        "equality": lambda: equality(40, 250, 512),
        "files": lambda: measured(partial(file_bags, write=write), sizes, n_jobs),
        "memory": lambda: [
            measured(make_simulated, (n, 2000, 512)) for n in arguments.memory_slides
        ],
        "simulated": lambda: simulated(arguments.simulated, 10_000, 1024),
    }
    out = {"cpu_count": os.cpu_count(), "n_jobs": n_jobs}
    out |= {name: part() for name, part in parts.items() if name in (arguments.only or parts)}
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
