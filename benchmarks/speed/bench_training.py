"""Training of the head at the scale of the paper's study: beside a bare torch loop, and beside the embedding.

- `times_bare_loop`: milliseconds per step of `train_epochs` (skorch's loop, callbacks and history included)
  by those of a loop in plain torch that does the same steps: same module, loss, optimizer and instances,
  which it gathers from one tensor. Taken in turns, for batches of 18, 64 and 256.
- `share_of_embedding` (with `--fit`): seconds of one fit of the proposed method, default settings, from
  cached features, by those of embedding all 72,604 patches, extrapolated from `--images` of them.

One line of JSON comes out.

    python benchmarks/speed/bench_training.py
    python benchmarks/speed/bench_training.py --fit
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch

from proportion_ssl import Bags, HeadClassifier, NegativePseudoLabelClassifier, PatchEmbedder
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.training import train_epochs

N_LABELED, N_BAG_PATCHES, N_BAGS, N_FEATURES, N_CLASSES = 19_890, 52_714, 400, 1280, 5


def make_study(seed=0):
    """Features of normal distributions with a shift per slide; labels; slides of the bag patches."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 0.1, (N_CLASSES, N_FEATURES)).astype(np.float32)
    shifts = rng.normal(0, 0.2, (N_BAGS, N_FEATURES)).astype(np.float32)
    y = rng.integers(0, N_CLASSES, N_LABELED)
    slides = np.sort(rng.integers(0, N_BAGS, N_BAG_PATCHES))
    slides[:N_BAGS] = np.arange(N_BAGS)
    shares = rng.dirichlet(np.full(N_CLASSES, 0.5), N_BAGS)
    y_bags = np.array([rng.choice(N_CLASSES, p=shares[slide]) for slide in slides])
    X = means[y] + rng.standard_normal((N_LABELED, N_FEATURES), dtype=np.float32)
    noise = rng.standard_normal((N_BAG_PATCHES, N_FEATURES), dtype=np.float32)
    return X, y, means[y_bags] + shifts[slides] + noise, y_bags, slides


def step_ratio(X, y, X_bags, y_bags, batch_size, n_steps, rounds):
    """Milliseconds per step of our loop and of the bare one, medians over the rounds."""
    signed = np.eye(N_CLASSES, dtype=np.int8)[np.concatenate([y, y_bags])]
    rng = np.random.default_rng(0)
    negative = rng.permutation(len(signed))[: len(signed) // 20]
    signed[negative] = -signed[negative]
    everything, targets = torch.from_numpy(np.concatenate([X, X_bags])), torch.from_numpy(signed)
    nets = {}
    for name in ("ours", "bare"):
        nets[name] = HeadClassifier(batch_size=batch_size)
        nets[name].initialize_for(X, np.arange(len(X)), np.arange(N_CLASSES))
    seconds = {"ours": [], "bare": []}
    for turn in range(rounds + 1):  # the first one warms up
        rows = rng.permutation(len(signed))[: n_steps * batch_size]
        data = SignedDataset([X, X_bags], signed, rows)
        start = time.perf_counter()
        train_epochs(nets["ours"], data, None, 1)
        middle = time.perf_counter()
        bare_epoch(nets["bare"], everything, targets, torch.from_numpy(rows), batch_size)
        if turn:
            seconds["ours"].append((middle - start) / n_steps)
            seconds["bare"].append((time.perf_counter() - middle) / n_steps)
    return {name: float(np.median(values)) * 1e3 for name, values in seconds.items()}


def bare_epoch(net, X, signed, rows, batch_size):
    """One epoch in plain torch."""
    module, optimizer, loss_of = net.module_, net.optimizer_, net.criterion_
    module.train()
    order = rows[torch.randperm(len(rows))]
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        optimizer.zero_grad()
        loss = loss_of(module(X[batch]), signed[batch])
        loss.backward()
        optimizer.step()


def share_of_embedding(X, y, X_bags, slides, y_bags, weights, n_images):
    """Seconds of a fit, and of embedding all patches."""
    shares = np.stack(
        [np.bincount(y_bags[slides == s], minlength=N_CLASSES) for s in range(N_BAGS)]
    )
    bags = Bags(X_bags, slides, shares / shares.sum(axis=1, keepdims=True))
    start = time.perf_counter()
    model = NegativePseudoLabelClassifier(random_state=0).fit(X, y, bags)
    fit = time.perf_counter() - start
    embedder = PatchEmbedder(weights=weights)
    images = np.random.default_rng(0).integers(0, 256, (n_images, 224, 224, 3), dtype=np.uint8)
    embedder.transform(images[:64])
    start = time.perf_counter()
    embedder.transform(images)
    per_image = (time.perf_counter() - start) / n_images
    return {
        "fit": fit,
        "embedding": per_image * (N_LABELED + N_BAG_PATCHES),
        "rounds": model.n_iter_,
        "epochs of the refit": model.refit_history_["n_epochs"],
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fit", action="store_true", help="also a whole fit, and the embedding")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--weights", help="state dict of MobileNetV2; random without")
    options = parser.parse_args(arguments)
    X, y, X_bags, y_bags, slides = make_study()
    milliseconds = {
        size: step_ratio(X, y, X_bags, y_bags, size, options.steps, options.rounds)
        for size in (18, 64, 256)
    }
    result = {
        "benchmark": "training",
        "times_bare_loop": {
            size: round(ms["ours"] / ms["bare"], 2) for size, ms in milliseconds.items()
        },
        "milliseconds_per_step": {
            size: {name: round(value, 3) for name, value in ms.items()}
            for size, ms in milliseconds.items()
        },
        "settings": {
            "steps": options.steps,
            "rounds": options.rounds,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    }
    if options.fit:
        seconds = share_of_embedding(
            *(X, y, X_bags, slides, y_bags), options.weights, options.images
        )
        result["share_of_embedding"] = round(seconds["fit"] / seconds["embedding"], 3)
        result["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
