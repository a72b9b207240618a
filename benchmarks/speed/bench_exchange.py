"""Reading other programs' features within bounded memory, and writing many tiles.

    python benchmarks/speed/bench_exchange.py tiles --tiles 100000
    python benchmarks/speed/bench_exchange.py features --slides 400 --patches 10000 --folder /scratch

``tiles``: seconds, peak memory and size of 100,000 tiles with three probabilities as GeoJSON, packed; then
the file is opened by shapely and by this package's reader, each in a process of its own.

``features``: files in TRIDENT's layout (chunks of one row, half precision) are made; seconds and peak memory
of a `FeatureSequence` over all of them read in order and at random.
"""

import argparse
import gzip
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

CLASSES = ["acinar", "lepidic", "solid"]


def measured(function, *arguments):
    """Seconds, MiB above what the process had before, and the result, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (function, arguments))


def _measure(function, arguments):
    import proportion_ssl.slides  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": round(seconds, 1), "MiB": round((peak - before) / 1024), **result}


def write_tiles(path, n):
    from proportion_ssl.slides import patch_grid, prediction_regions, write_geojson

    side = int(np.ceil(np.sqrt(n)))
    grid = patch_grid((side * 224, side * 224), mpp=1.0, patch_mpp=1.0)[:n]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), size=n)
    labels = probabilities.argmax(axis=1)
    tiles = prediction_regions(
        labels, grid, CLASSES, mpp=1.0, probabilities=probabilities, per="patch"
    )
    write_geojson(path, tiles, object_type="tile")
    return {"MB": round(path.stat().st_size / 1e6, 1)}


def open_by_shapely(path):
    import shapely

    features = json.loads(gzip.decompress(path.read_bytes()))["features"]
    shapes = shapely.from_geojson([json.dumps(feature["geometry"]) for feature in features])
    return {"tiles": len(shapes), "area": float(shapely.area(shapes).sum())}


def open_by_reader(path):
    from proportion_ssl.slides import read_annotations

    regions = read_annotations(path)
    return {"tiles": len(regions), "area": float(sum(region.geometry.area for region in regions))}


def make_features(folder, slides, patches, width):
    """Chunks of one row of a dataset are written at once here, as fast as HDF5 can."""
    rng = np.random.default_rng(0)
    block = rng.normal(size=(patches, width)).astype(np.float16)
    for number in range(slides):
        with h5py.File(folder / f"slide_{number:04}.h5", "w", libver="latest") as file:
            features = file.create_dataset(
                "features", data=block, chunks=(1, width), maxshape=(None, width)
            )
            features.attrs["encoder"] = "uni2-h"
            side = int(np.ceil(np.sqrt(patches)))
            coords = np.stack(np.divmod(np.arange(patches), side), axis=1) * 512
            file.create_dataset("coords", data=coords).attrs.update(
                {"patch_size": 256, "patch_size_level0": 512, "overlap": 0}
            )
            file["coords"].attrs.update({"level0_magnification": 40, "target_magnification": 20})


def read_in_order(folder):
    from proportion_ssl.slides import FeatureSequence, find_features

    sequence = FeatureSequence(find_features(folder))
    total = np.zeros(sequence.shape[1])
    for batch in sequence.batches():
        total += batch.sum(axis=0)
    return {"rows": len(sequence)}


def read_at_random(folder, batches=200):
    from proportion_ssl.slides import FeatureSequence, find_features

    sequence = FeatureSequence(find_features(folder))
    rng = np.random.default_rng(0)
    for _ in range(batches):
        assert sequence[rng.integers(0, len(sequence), 512)].dtype == np.float32
    return {"rows": batches * 512}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["tiles", "features"])
    parser.add_argument("--tiles", type=int, default=100_000)
    parser.add_argument("--slides", type=int, default=400)
    parser.add_argument("--patches", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, found = Path(name), {"benchmark": f"exchange {options.what}"}
        if options.what == "tiles":
            path = folder / "tiles.geojson.gz"
            found["write"] = measured(write_tiles, path, options.tiles)
            found["shapely"] = measured(open_by_shapely, path)
            found["read_annotations"] = measured(open_by_reader, path)
        else:
            start = time.perf_counter()
            make_features(folder, options.slides, options.patches, options.width)
            found["made"] = {"seconds": round(time.perf_counter() - start, 1)}
            found["GB"] = round(sum(path.stat().st_size for path in folder.iterdir()) / 1e9, 1)
            found["in order"] = measured(read_in_order, folder)
            found["at random"] = measured(read_at_random, folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
