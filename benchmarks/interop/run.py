"""Features and predictions to other tools and back, by their own code; see README.md beside this file."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import shapely

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "_helpers"), str(Path(__file__).parent)]

from foreign_features import write_stamp  # noqa: E402
from slide_files import write_slide  # noqa: E402
from there import example  # noqa: E402

from proportion_ssl.slides import (  # noqa: E402
    FeatureSequence,
    Region,
    patch_grid,
    prediction_regions,
    read_annotations,
    read_features,
    write_annotation_store,
    write_features,
    write_geojson,
    write_zarr,
)

TOOLS = ("geopandas", "lazyslide", "torchmil", "tiatoolbox", "timm", "trident", "stamp")


def own_h5(path):
    """The example as an h5 of this package."""
    features, cells = example()
    grid = patch_grid((9000, 7000), mpp=0.25, patch_mpp=0.5, size=256)
    order = {tuple(cell): at for at, cell in enumerate(grid.cells.tolist())}
    kept = grid[[order[(row, column)] for column, row in cells.tolist()]]
    facts = {"name": "slide", "dimensions": (9000, 7000), "mpp": 0.25}
    write_features(path, features, kept, settings={"encoder": "uni_v1"}, **facts)


def before_geopandas(folder, n=100_000):
    """Tiles with the probabilities of three classes, and outlines of the same map."""
    side = int(np.ceil(np.sqrt(n)))
    grid = patch_grid((side * 224, side * 224), mpp=1.0, patch_mpp=1.0)[:n]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), size=n)
    classes = ["acinar", "lepidic", "solid"]
    given = {"mpp": 1.0, "probabilities": probabilities}
    labels = probabilities.argmax(axis=1)
    tiles = prediction_regions(labels, grid, classes, per="patch", **given)
    write_geojson(folder / "tiles.geojson", tiles, object_type="tile")
    write_geojson(folder / "regions.geojson", prediction_regions(labels, grid, classes, **given))
    found = {}
    for name in ("tiles", "regions"):
        regions = read_annotations(folder / f"{name}.geojson")
        areas = {c: sum(r.geometry.area for r in regions if r.class_name == c) for c in classes}
        found[name] = {"n": len(regions), "areas": areas}
    first = probabilities[np.lexsort((grid.boxes[:, 0], grid.boxes[:, 1]))[0]]
    found["first"] = {f"prob_{name}": p for name, p in zip(classes, first.tolist(), strict=True)}
    (folder / "found.json").write_text(json.dumps(found))


def before_lazyslide(folder):
    rng = np.random.default_rng(0)
    pixels = np.full((2048, 2048, 3), 243, np.uint8)
    pixels[256:1792, 256:1024] = (190, 112, 176)
    pixels[256:1792, 1024:1792] = (140, 60, 150)
    noise = rng.integers(-25, 25, (1536, 1536, 1))
    pixels[256:1792, 256:1792] = np.clip(pixels[256:1792, 256:1792] + noise, 0, 255)
    write_slide(folder / "slide.tif", pixels, mpp=0.5, compression=None)


def check_torchmil(folder):
    features, cells = example()
    stored = read_features(folder / "features" / "a.npy")
    assert np.array_equal(stored.features, features) and np.array_equal(
        stored.locations, cells * 512
    )
    ours = folder / "ours"
    for part in ("features", "coords"):
        (ours / part).mkdir(parents=True)
        own_h5(ours / part / "a.h5")


def before_tiatoolbox(folder):
    regions = [
        Region("solid", shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 4, 4)), (255, 0, 0)),
        Region("acinar", shapely.box(20, 0, 22, 1), None, None, {"prob_acinar": 0.75}),
    ]
    write_annotation_store(folder / "ours.db", regions)
    listed = sorted([r.class_name, r.geometry.area, list(r.geometry.bounds)] for r in regions)
    (folder / "store.json").write_text(json.dumps({"regions": listed, "at_corner": 1}))
    grid = patch_grid((9000, 70000), mpp=0.25, patch_mpp=0.25, size=256)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(2), size=len(grid))
    write_zarr(folder / "ours.zarr", probabilities, grid, ["acinar", "solid"])
    np.save(folder / "probabilities.npy", probabilities)
    np.save(folder / "boxes.npy", grid.boxes)


def check_trident(folder):
    features, cells = example()
    stored = read_features(folder / "slide.h5", mpp=0.25)
    assert np.array_equal(stored.features, features) and np.array_equal(
        stored.locations, cells * 512
    )
    assert (stored.program, stored.encoder, stored.grid.mpp) == ("TRIDENT", "uni_v1", 0.5)
    assert np.array_equal(FeatureSequence([folder / "slide.h5"])[[3, 0]], features[[3, 0]])
    own_h5(folder / "ours.h5")
    with h5py.File(folder / "ours.h5") as file:
        assert np.array_equal(file["coords"][:], cells * 512)


def before_stamp(folder):
    features, cells = example()
    write_stamp(folder / "ours_stamp.h5", features, cells * 256.0)


BEFORE = {
    "geopandas": before_geopandas,
    "lazyslide": before_lazyslide,
    "tiatoolbox": before_tiatoolbox,
    "stamp": before_stamp,
}
BETWEEN = {"torchmil": check_torchmil, "trident": check_trident}


def call(python, tool, step, folder, source):
    command = [
        python,
        str(Path(__file__).with_name("there.py")),
        tool,
        step,
        str(folder),
        source or "",
    ]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT), "HOME": "/tmp"},
    )
    if run.returncode:
        raise RuntimeError(run.stderr.strip().splitlines()[-1] if run.stderr.strip() else "ended")
    return json.loads(run.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="+", default=[], metavar="TOOL=PATH")
    parser.add_argument("--source", nargs="*", default=[], metavar="TOOL=PATH")
    options = parser.parse_args()
    pythons = dict(pair.split("=", 1) for pair in options.python)
    sources = dict(pair.split("=", 1) for pair in options.source)
    failed = False
    for tool in (tool for tool in TOOLS if tool in pythons):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                BEFORE.get(tool, lambda folder: None)(folder)
                about = call(pythons[tool], tool, "write", folder, sources.get(tool))
                BETWEEN.get(tool, lambda folder: None)(folder)
                read = call(pythons[tool], tool, "read", folder, sources.get(tool))
                print(json.dumps({"tool": tool, "version": about, "read back": read}), flush=True)
            except Exception as error:
                failed = True
                reason = f"{type(error).__name__}: {error}"
                print(json.dumps({"tool": tool, "failed": reason}), flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
