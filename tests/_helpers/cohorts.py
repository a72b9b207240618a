"""A cohort of tiny slides with outlines, written in a second, and an embedder without a network."""

import hashlib
import json

import numpy as np
import pandas as pd
from slide_files import write_slide

PATCH, N, MPP = 32, 12, 4.0
CLASSES = ("acinar", "solid")
SETTINGS = {"magnifications": (2.5, 1.25), "patch_size": PATCH}
_COLORS = {"acinar": (190, 112, 176), "solid": (182, 108, 174), "non-cancer": (205, 135, 190)}
_PERIODS = {"acinar": 9.0, "solid": 4.0, "non-cancer": 17.0}


class Texture:
    """Moments of the channels and of their gradients."""

    def __init__(self, version="1"):
        self.version = version

    def transform(self, images):
        values = np.asarray(images, dtype=np.float32) / 255
        down, right = np.diff(values, axis=1), np.diff(values, axis=2)
        parts = [values.mean((1, 2)), values.std((1, 2)), down.std((1, 2)), right.std((1, 2))]
        return np.hstack([part.reshape(len(values), -1) for part in parts])

    def fingerprint(self):
        return hashlib.sha256(f"texture {self.version}".encode()).hexdigest()

    def __repr__(self):
        return f"Texture({self.version!r})"


def tissue(name, height, width, seed):
    """Pixels of one class: its color, waves of its period, noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    period = _PERIODS[name]
    waves = np.sin(2 * np.pi * rows / period) * np.sin(2 * np.pi * columns / period)
    noise = rng.normal(0, 14, (height, width, 1))
    return np.clip(np.array(_COLORS[name]) + 28 * waves[..., None] + noise, 0, 255).astype(np.uint8)


def layout(share):
    """Class of each of N x N patches: a row of rest, then acinar in the given share, solid below."""
    names = np.full((N, N), "", dtype=object)
    inside = names[1:-1, 1:-1]
    inside[0] = "non-cancer"
    cells = inside[1:].reshape(-1)
    n = round(share * len(cells))
    cells[:n], cells[n:] = "acinar", "solid"
    inside[1:] = cells.reshape(inside[1:].shape)
    return names


def write_one(path, share, seed, mpp=MPP):
    """A slide whose cancer is acinar in that share; returns the layout of its patches."""
    names = layout(share)
    pixels = np.full((N * PATCH, N * PATCH, 3), 243, dtype=np.uint8)
    for row in range(N):
        for column in range(N):
            if names[row, column]:
                at = np.s_[row * PATCH : (row + 1) * PATCH, column * PATCH : (column + 1) * PATCH]
                patch_seed = (seed, row, column)
                pixels[at] = tissue(names[row, column], PATCH, PATCH, patch_seed)
    write_slide(path, pixels, mpp=mpp, compression=None)
    return names


def write_outlines(path, names):
    """GeoJSON of QuPath with a box per patch."""
    features = []
    for row, column in zip(*np.nonzero(names != ""), strict=True):
        x, y = int(column) * PATCH, int(row) * PATCH
        ring = [[x, y], [x + PATCH, y], [x + PATCH, y + PATCH], [x, y + PATCH], [x, y]]
        properties = {"classification": {"name": names[row, column]}}
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def write_cohort(folder, *, labeled=3, bags=6, test=2, cases=None, suffix=".tif"):
    """Manifest of a cohort; every slide has outlines, and its proportions to a whole percent."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    roles = ["labeled"] * labeled + ["bag"] * bags + ["test"] * test
    for number, role in enumerate(roles):
        name = f"{role}_{number}"
        share = (0.3, 0.7, 0.5, 0.1, 0.9)[number % 5]
        names = write_one(folder / f"{name}{suffix}", share, number)
        write_outlines(folder / f"{name}.geojson", names)
        cancer = names[(names != "") & (names != "non-cancer")]
        acinar = 100 * float((cancer == "acinar").mean())
        is_outlined = role != "bag"
        rows.append(
            {
                "slide": f"{name}{suffix}",
                "annotation": f"{name}.geojson" if is_outlined else "",
                "role": role,
                "acinar": "" if role == "labeled" else round(acinar, 1),
                "solid": "" if role == "labeled" else round(100 - acinar, 1),
                **({} if cases is None else {"case": cases[number]}),
            }
        )
    manifest = folder / "cohort.csv"
    pd.DataFrame(rows).to_csv(manifest, index=False)
    return manifest
