"""Images per second of `PatchEmbedder` against torchvision and against bare inference engines.

Sides, taken in turns in one process on the same images:

- eager: torchvision's MobileNetV2 as usual (`eval`, `no_grad`, batches of 32) on ready, normalized
  float images, so the network alone;
- embedder: `PatchEmbedder.transform` on uint8 images, conversion and normalization included;
- ONNX Runtime and OpenVINO called bare on ready float images, each in two ways: batches of 32 on
  all threads, and single images on as many independent threads.

The peak memory of eager and embedder is that of a process of its own, imports included. One line
of JSON comes out. Needs the engines: pip install proportion_ssl[fast] onnxruntime onnx onnxscript

    python benchmarks/speed/bench_embedding.py
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

BATCH = 32


def make_images(n):
    return np.random.default_rng(0).integers(0, 256, (n, 224, 224, 3), dtype=np.uint8)


def normalize(images):
    from torchvision.transforms.functional import normalize

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255
    return normalize(pixels, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def load_network(weights):
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2()
    if weights:
        network.load_state_dict(torch.load(weights, weights_only=True))
    network.classifier = torch.nn.Identity()
    return network.eval()


def eager_side(network):
    def run(pixels):
        with torch.no_grad():
            return torch.cat([network(batch) for batch in pixels.split(BATCH)]).numpy()

    return run


def embedder_side(network):
    from proportion_ssl.embedding.patch_embedder import PatchEmbedder

    return PatchEmbedder(module=network, batch_size=BATCH).transform


def engine_sides(network, threads, pixels):
    """Name -> function of ready float images, for both engines, from one ONNX file."""
    import onnxruntime

    from proportion_ssl.embedding._openvino import import_openvino  # without its telemetry

    openvino = import_openvino()
    pool = ThreadPoolExecutor(threads)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paths = {size: str(Path(folder) / f"{size}.onnx") for size in (1, BATCH)}
        for size, path in paths.items():
            torch.onnx.export(
                network, (pixels[:size],), path, dynamo=True, external_data=False, verbose=False
            )

        def onnxruntime_session(path, per_session):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = per_session
            session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            name = session.get_inputs()[0].name
            return lambda batch: session.run(None, {name: batch})[0]

        def openvino_compiled(path, streams):
            settings = {
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
            }
            return openvino.Core().compile_model(path, "CPU", settings)

        whole = onnxruntime_session(paths[BATCH], threads)
        single = onnxruntime_session(paths[1], 1)
        request = openvino_compiled(paths[BATCH], 1).create_infer_request()
        queue = openvino.AsyncInferQueue(openvino_compiled(paths[1], threads), threads)

    def split(pixels, size):
        pixels = pixels.numpy()
        return [pixels[i : i + size] for i in range(0, len(pixels), size)]

    def openvino_single(pixels):
        rows = [None] * len(pixels)

        def keep(request, row):
            rows[row] = request.get_output_tensor(0).data.copy()

        queue.set_callback(keep)
        for row, image in enumerate(split(pixels, 1)):
            queue.start_async([image], row, share_inputs=True)
        queue.wait_all()
        return np.concatenate(rows)

    def openvino_whole(pixels):
        parts = []
        for batch in split(pixels, BATCH):
            request.infer([batch], share_inputs=True)
            parts.append(request.get_output_tensor(0).data.copy())
        return np.concatenate(parts)

    return {
        "onnxruntime": lambda pixels: np.concatenate([whole(b) for b in split(pixels, BATCH)]),
        "onnxruntime_single": lambda pixels: np.concatenate(
            list(pool.map(single, split(pixels, 1)))
        ),
        "openvino": openvino_whole,
        "openvino_single": openvino_single,
    }


def measure_peak(side, arguments):
    """Peak resident memory in MB of a process that does one side alone."""
    command = [sys.executable, __file__, "--peak-of", side, "--images", str(arguments.images)]
    command += ["--threads", str(arguments.threads)]
    command += ["--weights", arguments.weights] if arguments.weights else []
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_for_peak(side, arguments):
    images = make_images(arguments.images)
    network = load_network(arguments.weights)
    if side == "eager":
        run = eager_side(network)
        for start in range(0, len(images), BATCH):
            run(normalize(images[start : start + BATCH]))
    else:
        embedder_side(network)(images)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=128, help=f"a multiple of {BATCH}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--weights", help="state dict of MobileNetV2; random without")
    parser.add_argument("--peak-of", choices=["eager", "embedder"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.images % BATCH:
        parser.error(f"--images must be a multiple of {BATCH}")
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        run_for_peak(arguments.peak_of, arguments)
        return

    peak = {side: measure_peak(side, arguments) for side in ("eager", "embedder")}
    network = load_network(arguments.weights)
    images = make_images(arguments.images)
    pixels = normalize(images)
    sides = {
        "eager": (eager_side(network), pixels),
        "embedder": (embedder_side(network), images),
    }
    for name, run in engine_sides(network, arguments.threads, pixels).items():
        sides[name] = (run, pixels)

    expected = sides["eager"][0](pixels)
    errors = {}
    speeds = {name: [] for name in sides}
    for turn in range(arguments.rounds + 1):  # the first one warms up
        for name, (run, data) in sides.items():
            start = time.perf_counter()
            features = run(data)
            seconds = time.perf_counter() - start
            if turn:
                speeds[name].append(len(images) / seconds)
            errors[name] = float(np.abs(features - expected).max() / np.abs(expected).max())

    median = {name: float(np.median(values)) for name, values in speeds.items()}
    fastest = max((name for name in sides if name.startswith(("onnx", "openvino"))), key=median.get)
    print(
        json.dumps(
            {
                "benchmark": "embedding",
                "times_eager": round(median["embedder"] / median["eager"], 2),
                "share_of_fastest_bare_engine": round(median["embedder"] / median[fastest], 3),
                "fastest_bare_engine": fastest,
                "peak_memory_of_eager": round(peak["embedder"] / peak["eager"], 3),
                "images_per_second": {name: round(value, 1) for name, value in median.items()},
                "peak_mb": {name: round(value) for name, value in peak.items()},
                "relative_error": errors,
                "settings": {
                    "images": arguments.images,
                    "batch_size": BATCH,
                    "rounds": arguments.rounds,
                    "threads": arguments.threads,
                    "weights": arguments.weights or "random",
                    "torch": torch.__version__,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
