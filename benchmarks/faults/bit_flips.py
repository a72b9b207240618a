"""Single bits of stored files flipped: every reader must notice, or read what was written.

Three files are made: features of a slide (read as a whole and as a sequence), a fitted classifier
(`proportion_ssl.save`), and an exported network. In each of many copies one random bit is flipped, and the
copy is read by a process of its own, which may die. What comes of it is one of

- ``refused``: the error that the reader documents;
- ``same``: the bit does not matter (unused bytes, dates in a zip file);
- ``differs``: something else was read without a word;
- ``other error``: an error that is not documented;
- ``died``: the process was ended by a signal.

One line of JSON comes out; it fails unless all are refused or the same.

    python benchmarks/faults/bit_flips.py --flips 1000
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

KINDS = ("features", "sequence", "model", "exported")
N_PATCHES, N_FEATURES = 150, 24


def digest(*parts):
    """Hash of arrays and plain values."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(
            np.ascontiguousarray(part).tobytes() if hasattr(part, "shape") else repr(part).encode()
        )
    return whole.hexdigest()


# --- files ------------------------------------------------------------------------------------


def make(kind, path):
    {"features": make_features, "sequence": make_features, "model": make_model, "exported": export}[
        kind
    ](path)


def make_features(path):
    from proportion_ssl.slides import patch_grid, write_features

    grid = patch_grid((9000, 7000), mpp=0.499, magnification=10)[:N_PATCHES]
    features = np.random.default_rng(0).normal(size=(N_PATCHES, N_FEATURES))
    settings = {"embedder": "ab" * 32, "magnifications": [10.0], "colors": ["Reinhard", [1.5, 2.5]]}
    facts = {"name": "slide", "dimensions": (9000, 7000), "mpp": 0.499, "origin": (3, 4)}
    write_features(path, features, grid, settings=settings, **facts)


def make_model(path):
    from proportion_ssl import NegativePseudoLabelClassifier, save
    from proportion_ssl.datasets import make_bags

    data = make_bags(n_bags=4, random_state=0)
    model = NegativePseudoLabelClassifier(max_epochs=2, random_state=0)
    save(model.fit(data.X_labeled, data.y, data.bags), path)


def export(path):
    import torch
    from torch import nn

    from proportion_ssl import PatchEmbedder

    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    PatchEmbedder(module=nn.Sequential(*layers)).export(path, size=32)


# --- readers ----------------------------------------------------------------------------------


def read_features_file(path):
    from proportion_ssl.slides import FeatureFileError, read_features

    try:
        stored = read_features(path)
    except FeatureFileError:
        return "refused"
    facts = {
        key: value
        for key, value in vars(stored).items()
        if key not in ("features", "locations", "grid")
    }
    return digest(
        *(stored.features, stored.locations, sorted(facts.items(), key=str)),
        *(
            (grid.boxes, grid.cells, grid.shape, grid.size, grid.mpp)
            if (grid := stored.grid)
            else ()
        ),
    )


def read_sequence(path):
    from proportion_ssl.slides import FeatureFileError, FeatureSequence

    try:
        sequence = FeatureSequence([path])
        return digest(np.asarray(sequence), sequence[[5, 149, 70]], sequence.shape)
    except FeatureFileError:
        return "refused"


def read_model(path):
    from proportion_ssl import load
    from proportion_ssl.datasets import make_bags
    from proportion_ssl.persistence import ModelFileError

    try:
        model = load(path)
    except ModelFileError:
        return "refused"
    X = make_bags(n_bags=4, random_state=0).X_test
    kept = {
        key: value
        for key, value in vars(model).items()
        if isinstance(value, np.ndarray | str | int | float)
    }
    return digest(
        model.predict_proba(X), model.get_params(deep=False).keys(), *sorted(kept.items(), key=str)
    )


def read_exported(path):
    from proportion_ssl import ExportedEmbedder
    from proportion_ssl.embedding import ExportedFileError

    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    embedder = ExportedEmbedder(path, n_threads=1)
    try:
        return digest(embedder.transform(images), embedder.fingerprint())
    except ExportedFileError:
        return "refused"


READERS = {
    "features": read_features_file,
    "sequence": read_sequence,
    "model": read_model,
    "exported": read_exported,
}


# --- flips ------------------------------------------------------------------------------------


def places(kind, size, n):
    """Bits of a file of so many bytes, the same in every process."""
    return np.random.default_rng(KINDS.index(kind)).choice(
        8 * size, size=min(n, 8 * size), replace=False
    )


def read_flipped(kind, path, n, first):
    """In a process of its own: one line per flip from the `first` on."""
    path = Path(path)
    whole, copy = path.read_bytes(), path.with_name(f"flipped{path.suffix}")
    expected = READERS[kind](str(path))
    assert expected != "refused"
    for number, bit in list(enumerate(places(kind, len(whole), n).tolist()))[first:]:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        copy.write_bytes(flipped)
        try:
            found = READERS[kind](str(copy))
            outcome = found if found == "refused" else "same" if found == expected else "differs"
        except Exception as error:
            outcome = f"other error: {type(error).__name__}: {str(error)[:80]}"
        copy.unlink()
        print(json.dumps([number, outcome]), flush=True)


def count(kind, n, folder):
    """Outcomes of `n` flips."""
    path = Path(folder) / f"{kind}.{'zip' if kind == 'exported' else 'file'}"
    make(kind, path)
    n = len(places(kind, path.stat().st_size, n))
    outcomes = {}
    while len(outcomes) < n:
        command = [sys.executable, __file__, "--read", kind, str(path), str(n), str(len(outcomes))]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
        outcomes.update(lines)
        if run.returncode < 0:
            outcomes[len(outcomes)] = f"died of signal {-run.returncode}"
        elif run.returncode:
            raise SystemExit(run.stderr)
    return Counter(outcomes.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--read", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        kind, path, n, first = arguments.read
        read_flipped(kind, path, int(n), int(first))
        return
    found = {}
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as folder:
            found[kind] = count(kind, arguments.flips, folder)
    print(json.dumps({"benchmark": "bit_flips", "flips": arguments.flips, "outcomes": found}))
    if any(set(outcomes) - {"refused", "same"} for outcomes in found.values()):
        raise SystemExit("Not every damaged file was refused or read as it was written.")


if __name__ == "__main__":
    main()
