"""A whole slide from file to classes at 10x, against TIAToolbox's PatchPredictor.

Two slides of one picture are written, one that stores 10x and one in which 10x is made from 20x (the
usual layout of an Aperio scan at 20x), half of each glass. Sides, in turns, each in a process of its own
with two threads and the same torchvision MobileNetV2 of random weights:

- ``ours``: `embed_slides` (tissue, reading, decoding, network, feature file) and a linear layer on the
  stored features;
- ``exported``: the same with the network that `PatchEmbedder.export` wrote beforehand, without torch;
- ``tiatoolbox``: PatchPredictor with the whole network, on a mask of the same patches;
- ``reading`` and ``inference``: our halves alone, pixels thrown away and pixels made up.

Times begin when imports are done; the first compilation of a network is not counted on either side.
``largest_possible_share`` is what ``share_of_slower_half`` would be if no core ever waited, where
inference is the slower half: the halves share the cores, so together they take at least the sum of
their processor time.
Peak memory is the resident one of the process, imports included (Linux). ``area_4`` is our peak memory
for a slide of four times the area, divided by that for one. Exporting is no part of the times either. One
line of JSON comes out.

TIAToolbox 2.1.3 asks for older versions of torch and of some forty other packages than this package, so it
gets an environment of its own (7 GB):

    python3 -m venv tia && tia/bin/pip install torch torchvision psutil
    tia/bin/pip install "numpy<2.4.4" "pandas<3.0.3" "dask<2026.7.1" "zarr<3.2,>=3.0.8" \\
        "tifffile<2026.3.3" "imagecodecs<2026.3.6" "openslide-bin<4.0.1.2" "openslide-python<1.4.6" \\
        "wsidicom<0.34" "scikit-image<0.26.1" "scikit-learn<1.9" "numba<0.66" "bokeh<3.9.1" \\
        "transformers<5.14.1" "timm<1.0.28" "huggingface_hub<1.24" "matplotlib<3.11.1" "s3fs<2026.6" \\
        "shapely<=2.1.2" "pillow<12.2" aiohttp flask flask-cors glymur joblib opencv-python pydicom \\
        pyyaml requests SimpleITK tqdm umap-learn defusedxml
    tia/bin/pip install --no-deps tiatoolbox==2.1.3
    python benchmarks/speed/bench_slide.py --tiatoolbox tia/bin/python

``--without-tiatoolbox`` measures our side alone. Needs pip install proportion_ssl[fast].
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

PATCH, BATCH, THREADS = 224, 32, 2
EXPORTED = "network.zip"  # beside the slides
LAYOUTS = {"10x_stored": (1, 2, 4, 16), "10x_from_20x": (1, 4, 16)}


# --- slides -----------------------------------------------------------------------------------


def write_slide(path, size, factors, mpp=0.5, tile=256):
    """An SVS-like pyramid, written tile by tile: nuclei and stroma in the middle, glass around."""
    import tifffile

    options = {"tile": (tile, tile), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for factor in factors:
            n = size // factor
            tif.write(
                level_tiles(size, factor, tile),
                shape=(n, n, 3),
                dtype=np.uint8,
                subfiletype=int(factor > 1),
                resolution=(1e4 / (mpp * factor), 1e4 / (mpp * factor)),
                resolutionunit="CENTIMETER",
                compressionargs={"level": 80},
                **options,
            )


def level_tiles(size, factor, tile):
    """Tiles of one level of the picture, row by row, each made from its place alone."""
    block = picture(2048, np.random.default_rng(0))
    n = size // factor
    block = block.reshape(2048 // factor, factor, 2048 // factor, factor, 3).mean(axis=(1, 3))
    block = block.round().astype(np.uint8)
    pixel = np.arange(-(-n // tile) * tile)
    period = pixel % len(block)
    inside = np.abs((pixel + 0.5) / n - 0.5) < 0.36  # the rest is glass, half of the slide
    for y in range(0, n, tile):
        for x in range(0, n, tile):
            rows, columns = slice(y, y + tile), slice(x, x + tile)
            tissue = (inside[rows, np.newaxis] & inside[columns])[..., np.newaxis]
            pixels = block[period[rows, np.newaxis], period[columns]]
            yield np.where(tissue, pixels, np.uint8(242))


def picture(n, rng):
    """Blobs of 8 um and noise in the colors of H&E."""
    coarse = rng.normal(0, 1, (n // 16, n // 16, 1)).repeat(16, axis=0).repeat(16, axis=1)
    fine = rng.normal(0, 1, (n, n, 1))
    pixels = np.array([190, 120, 175]) + 28 * coarse + 10 * fine * np.array([0.8, 1.2, 0.9])
    return np.clip(pixels, 0, 255).astype(np.uint8)


# --- sides, each run in a process of its own --------------------------------------------------


class Stopwatch:
    """Seconds on the wall and of all threads of this process, since it was made."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self):
        return {
            "seconds": time.perf_counter() - self.wall,
            "cpu_seconds": time.process_time() - self.cpu,
        }


def load_network():
    import torch
    import torchvision

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(num_classes=6).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.fill_(1.8)  # with 1 the signal of random weights dies out
        network.classifier[1].weight.normal_(std=0.05)
    return network


def make_embedder(network):
    from proportion_ssl import PatchEmbedder
    from proportion_ssl.embedding import MobileNetV2Features

    return PatchEmbedder(module=MobileNetV2Features(network), batch_size=BATCH)


def load_embedder(network):
    embedder = make_embedder(network)
    embedder.transform(np.zeros((1, PATCH, PATCH, 3), dtype=np.uint8))  # compiles it
    return embedder


def last_layer(network):
    layer = network.classifier[1]
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()


def export(file):
    """The network in a file for the side without torch, and its last layer beside it."""
    network = load_network()
    make_embedder(network).export(file, size=PATCH)
    np.savez(f"{file}.npz", *last_layer(network))


def run_ours(path, folder):
    network = load_network()
    return classify(path, folder, load_embedder(network), *last_layer(network))


def run_exported(path, folder):
    from proportion_ssl import ExportedEmbedder

    file = Path(path).with_name(EXPORTED)
    embedder = ExportedEmbedder(file, batch_size=BATCH)  # OMP_NUM_THREADS says how many threads
    embedder.transform(np.zeros((1, PATCH, PATCH, 3), dtype=np.uint8))  # compiles it
    with np.load(f"{file}.npz") as layer:
        return classify(path, folder, embedder, *layer.values())


def classify(path, folder, embedder, weight, bias):
    from proportion_ssl.slides import FeatureSequence, embed_slides, read_features

    watch = Stopwatch()
    run = embed_slides([path], embedder, folder / "features", magnification=10, size=PATCH)
    stored = next(iter(run.results.values()))
    features = FeatureSequence([stored])
    classes = [(batch @ weight.T + bias).argmax(axis=1) for batch in features.batches()]
    times = watch.read()
    locations = read_features(stored).locations
    return np.concatenate(classes), locations, times


def run_reading(path, folder):
    from proportion_ssl.slides import SlidePatches, open_slide, tissue_grid

    watch = Stopwatch()
    with open_slide(path) as slide:
        patches = SlidePatches(slide, tissue_grid(slide, slide.grid(magnification=10, size=PATCH)))
        n = sum(len(batch) for batch in patches.batches(256))
    return np.zeros(n, dtype=int), patches.grid.locations, watch.read()


def run_inference(path, folder):
    network = load_network()
    embedder = load_embedder(network)
    _, locations, _ = run_reading(path, folder)
    images = np.random.default_rng(0).integers(0, 256, (256, PATCH, PATCH, 3), dtype=np.uint8)
    watch = Stopwatch()
    for done in range(0, len(locations), 256):
        embedder.transform(images[: len(locations) - done])
    return np.zeros(len(locations), dtype=int), locations, watch.read()


def run_tiatoolbox(path, folder):
    import logging

    import torch
    import zarr
    from tiatoolbox import logger
    from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig
    from tiatoolbox.models.engine.patch_predictor import PatchPredictor
    from tiatoolbox.models.models_abc import ModelABC

    logger.setLevel(logging.ERROR)
    network = load_network()
    mean = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)

    class Model(ModelABC):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            return torch.softmax(self.network(images), -1)

        @staticmethod
        def infer_batch(model, batch_data, device="cpu"):
            pixels = batch_data.to(device).permute(0, 3, 1, 2).float().div_(255)
            with torch.inference_mode():
                return model((pixels - mean) / std).cpu().numpy()

        @staticmethod
        def postproc(image):
            return np.argmax(image, -1)

    settings = IOPatchPredictorConfig(
        input_resolutions=[{"units": "power", "resolution": 10}],
        patch_input_shape=(PATCH, PATCH),
        stride_shape=(PATCH, PATCH),
    )
    engine = PatchPredictor(
        model=Model(), batch_size=BATCH, num_workers=0, device="cpu", verbose=False
    )
    watch = Stopwatch()
    out = engine.run(
        images=[path],
        masks=[str(folder / "mask.png")],
        patch_mode=False,
        ioconfig=settings,
        save_dir=str(folder / "tiatoolbox"),
        overwrite=True,
        output_type="zarr",
    )
    times = watch.read()
    stored = zarr.open(str(next(iter(out.values()))), mode="r")
    locations = np.asarray(stored["coordinates"])[:, :2] * 2  # of 10x pixels, to level 0
    return np.asarray(stored["predictions"]), locations, times


SIDES = {
    "ours": run_ours,
    "exported": run_exported,
    "reading": run_reading,
    "inference": run_inference,
    "tiatoolbox": run_tiatoolbox,
}


def run_side(side, path, folder):
    classes, locations, times = SIDES[side](path, folder)
    order = np.lexsort((locations[:, 0], locations[:, 1]))
    # not ru_maxrss, which begins with the memory of the process that started this one
    status = Path("/proc/self/status").read_text().split("VmHWM:")[1]
    peak_mb = int(status.split()[0]) / 1024
    np.savez(folder / f"{side}.npz", classes=classes[order], locations=locations[order])
    print(json.dumps({**times, "peak_mb": peak_mb, "n": len(classes)}))


def measure(side, path, python):
    """Seconds, peak memory, and what came out, of one side in a new process and folder."""
    with tempfile.TemporaryDirectory() as folder:
        if side == "tiatoolbox":
            write_mask(path, Path(folder) / "mask.png")
        command = [python, __file__, "--side", side, "--slide", path, "--folder", folder]
        environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
        run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if run.returncode:
            sys.exit(f"{side} failed:\n{run.stderr[-3000:]}")
        measured = json.loads(run.stdout.strip().splitlines()[-1])
        with np.load(Path(folder) / f"{side}.npz") as result:
            return {**measured, "classes": result["classes"], "locations": result["locations"]}


def write_mask(path, target):
    """The patches that our side takes, as a mask of 1 pixel per 16, a little smaller each."""
    from PIL import Image

    from proportion_ssl.slides import open_slide, tissue_grid

    with open_slide(path) as slide:
        grid = tissue_grid(slide, slide.grid(magnification=10, size=PATCH))
        mask = np.zeros((slide.dimensions[1] // 16, slide.dimensions[0] // 16), dtype=np.uint8)
    for x0, y0, x1, y1 in (grid.boxes // 16).tolist():
        mask[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = 255
    Image.fromarray(mask).save(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiatoolbox", help="python of the environment that has TIAToolbox")
    parser.add_argument("--without-tiatoolbox", action="store_true")
    parser.add_argument("--size", type=int, default=16576, help="side of the slide at 20x")
    parser.add_argument("--rounds", type=int, default=5)
    for name in ("--side", "--slide", "--folder", "--export"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        export(options.export)
        return
    if options.side:
        run_side(options.side, options.slide, Path(options.folder))
        return
    if bool(options.tiatoolbox) == options.without_tiatoolbox:
        parser.error("give --tiatoolbox PYTHON (the docstring says how), or --without-tiatoolbox")
    sides = [side for side in SIDES if side != "tiatoolbox" or options.tiatoolbox]
    if options.without_tiatoolbox:
        print("TIAToolbox is LEFT OUT: no comparison with it is made.", file=sys.stderr)

    result = {"benchmark": "slide"}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / EXPORTED)
        subprocess.run([sys.executable, __file__, "--export", file], check=True)
        for layout, factors in LAYOUTS.items():
            path = str(Path(folder) / f"{layout}.tif")
            write_slide(path, options.size, factors)
            runs = {side: [] for side in sides}
            for _ in range(options.rounds):
                for side in sides:
                    python = options.tiatoolbox if side == "tiatoolbox" else sys.executable
                    runs[side].append(measure(side, path, python))
            result[layout] = compare(runs)
        large = str(Path(folder) / "large.tif")
        write_slide(large, 2 * options.size, LAYOUTS["10x_from_20x"])
        result["area_4"] = {}
        for side in ("ours", "exported"):
            peak = measure(side, large, sys.executable)["peak_mb"]
            result["area_4"][side] = round(peak / result["10x_from_20x"]["peak_mb"][side], 3)
    result["settings"] = {"size": options.size, "rounds": options.rounds, "threads": THREADS}
    print(json.dumps(result))


def compare(runs):
    """Medians over the rounds, and the ratios that matter."""
    rate = {side: median(run["n"] / run["seconds"] for run in runs[side]) for side in runs}
    cpu = {side: median(1e3 * run["cpu_seconds"] / run["n"] for run in runs[side]) for side in runs}
    peak = {side: median(run["peak_mb"] for run in runs[side]) for side in runs}
    slower = min(rate["reading"], rate["inference"])
    ours = ("ours", "exported")
    found = {
        "n_patches": runs["ours"][0]["n"],
        "share_of_slower_half": {side: round(rate[side] / slower, 3) for side in ours},
        "largest_possible_share": {
            side: round(min(1.0, cpu["inference"] / cpu[side]), 3) for side in ours
        },
        "patches_per_second": {side: round(value, 1) for side, value in rate.items()},
        "cpu_ms_per_patch": {side: round(value, 2) for side, value in cpu.items()},
        "peak_mb": {side: round(value) for side, value in peak.items()},
    }
    if "tiatoolbox" in runs:
        found["against_tiatoolbox"] = {side: against(runs, rate, peak, side) for side in ours}
    return found


def against(runs, rate, peak, side):
    """One of our sides beside TIAToolbox."""
    mine, theirs = runs[side][0], runs["tiatoolbox"][0]
    same_patches = np.array_equal(mine["locations"], theirs["locations"])
    return {
        "times_patches_per_second": round(rate[side] / rate["tiatoolbox"], 2),
        "peak_memory": round(peak[side] / peak["tiatoolbox"], 3),
        "same_patches": same_patches,
        "same_predictions": float((mine["classes"] == theirs["classes"]).mean())
        if same_patches
        else None,
    }


if __name__ == "__main__":
    main()
