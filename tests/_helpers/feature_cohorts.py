"""A cohort of which only features, outlines and records are there, as other programs leave it."""

import h5py
import numpy as np
import pandas as pd
from cohorts import PATCH, N, layout, write_outlines
from foreign_features import write_clam_coords, write_clam_features, write_stamp, write_trident

MPP = 4.0
MEANS = {"acinar": 0, "solid": 1, "non-cancer": 2}
ROLES = ["labeled"] * 3 + ["bag"] * 6 + ["test"] * 2


def slide_features(names, seed):
    """Features and (column, row) of the patches of a slide: Gaussian around the mean of the class."""
    cells = np.argwhere(names != "")
    rng = np.random.default_rng(seed)
    centers = np.eye(3, 12)[[MEANS[name] for name in names[tuple(cells.T)]]] * 4
    return (centers + rng.normal(size=(len(cells), 12))).astype(np.float32), cells[:, ::-1]


def trident_file(path, features, cells):
    """2.5x of a slide of 2.5x."""
    about = {"patch_size": PATCH, "patch_size_level0": PATCH, "level0_width": N * PATCH}
    magnifications = {"level0_magnification": 2.5, "target_magnification": 2.5}
    write_trident(path, features, cells * PATCH, **about, **magnifications, level0_height=N * PATCH)


def stamp_file(path, features, cells):
    side = PATCH * MPP
    write_stamp(path, features, cells * side, tile_size_um=side, tile_size_px=PATCH)


def clam_file(path, features, cells):
    write_clam_features(path, features, cells * PATCH)


WRITERS = {"TRIDENT": trident_file, "STAMP": stamp_file, "CLAM": clam_file}


def add_clam_patches(features):
    """CLAM's folder ``patches`` beside that of the features: coordinates with their attributes."""
    patches = features.parent / "patches"
    patches.mkdir()
    for path in features.glob("*.h5"):
        with h5py.File(path) as file:
            coords = file["coords"][:]
        side = N * PATCH
        write_clam_coords(
            patches / path.name, coords, patch_size=PATCH, level_dim=np.array([side, side])
        )


def write_feature_cohort(folder, *, program="TRIDENT", mpp=False, prefix="case.", suffix=".svs"):
    """Manifest, outlines and folder of features; slides themselves are not there."""
    features = folder / "features"
    features.mkdir(parents=True)
    rows = []
    for number, role in enumerate(ROLES):
        name, share = f"{prefix}{role}_{number}", (0.3, 0.7, 0.5, 0.1, 0.9)[number % 5]
        names = layout(share)
        write_outlines(folder / f"{name}.geojson", names)
        WRITERS[program](features / f"{name}.h5", *slide_features(names, number))
        acinar = round(
            100 * float((names[(names != "") & (names != "non-cancer")] == "acinar").mean()), 1
        )
        rows.append(
            {
                "slide": f"slides/{name}{suffix}",
                "annotation": "" if role == "bag" else f"{name}.geojson",
                "role": role,
                "acinar": "" if role == "labeled" else acinar,
                "solid": "" if role == "labeled" else round(100 - acinar, 1),
                **({"mpp": MPP} if mpp else {}),
            }
        )
    manifest = folder / "cohort.csv"
    pd.DataFrame(rows).to_csv(manifest, index=False)
    return manifest, features
