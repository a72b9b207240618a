"""
A cohort embedded on Dask workers
=================================

Slides are independent, so their features can be computed on the machines of a cluster that can read
the same files. :func:`~proportion_ssl.slides.embed_slides` passes its slides to joblib, and joblib
passes them to Dask: the only change is one ``with`` statement.

Here the cluster is two processes on this machine; for a real cluster, give ``Client`` the address
of its scheduler. Dask comes with ``pip install "proportion_ssl[dask]"``.
"""

# %%
# Four small synthetic slides with tissue on the left and glass on the right.
import tempfile
import time
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import tifffile
from dask.distributed import Client, LocalCluster

from proportion_ssl import PatchEmbedder
from proportion_ssl.embedding import RandomFilterFeatures
from proportion_ssl.slides import FeatureSequence, embed_slides, read_features, stitch


def write_slides(folder, n=4):
    paths = []
    for i in range(n):
        rng = np.random.default_rng(i)
        nuclei = rng.integers(-60, 30, (96, 64 + 8 * i, 1)).repeat(8, axis=0).repeat(8, axis=1)
        pixels = np.full((768, 1024, 3), 240)
        pixels[:, : nuclei.shape[1]] = np.array([200, 130, 180]) + nuclei
        paths.append(folder / f"slide_{i}.tif")
        tifffile.imwrite(
            paths[-1],
            pixels.clip(0, 255).astype(np.uint8),
            tile=(256, 256),
            photometric="rgb",
            resolution=(5000, 5000),
            resolutionunit="CENTIMETER",  # 5000 pixels: 2 microns each
        )
    return paths


# %%
# The file of a slide appears when it is complete. Dask replaces a worker that dies, and its slide
# is processed again. A run that was stopped continues where it was. The files are the same for any
# number of workers.
def embed_on(backend, paths, folder):
    begin = time.perf_counter()
    with joblib.parallel_config(backend):
        embedder = PatchEmbedder(module=RandomFilterFeatures())
        run = embed_slides(paths, embedder, folder, magnification=5, size=96)
    return run.results, time.perf_counter() - begin


def main():
    folder = Path(tempfile.mkdtemp())
    paths = write_slides(folder)
    here, seconds_here = embed_on("sequential", paths, folder / "here")
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster) as client,
    ):
        print("workers:", len(client.scheduler_info()["workers"]))
        there, seconds_there = embed_on("dask", paths, folder / "there")
    one, other = FeatureSequence(here), FeatureSequence(there)
    print(f"{one}: one process {seconds_here:.1f} s, two Dask workers {seconds_there:.1f} s")
    print("largest difference:", np.abs(one[:] - other[:]).max())

    _, axes = plt.subplots(1, len(there), figsize=(8, 2), layout="constrained")
    for ax, (name, path) in zip(axes, there.items(), strict=True):
        stored = read_features(path)
        image = stitch(stored.features[:, 0], stored.grid.cells, stored.grid.shape, fill=np.nan)
        ax.imshow(image, cmap="cividis")
        ax.set(title=name, xticks=[], yticks=[])
    plt.show()


# %%
# The pictures show the first feature of every patch with tissue. A script that starts processes
# needs ``if __name__ == "__main__"``, because each process imports the script.
if __name__ == "__main__":
    main()
