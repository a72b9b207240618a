"""Share of outlined patches that the tissue mask keeps, per slide and class, and of glass that it keeps.

Slides of known classes (see ``scenes.py``) with stain of the usual density, of densities that differ
threefold between classes, or of a third of the usual density in all classes; on glass of eight tints, with
a white part that the scanner left out, and without glass. A patch (224 um) is kept if a quarter of it is
tissue. Masks: ours with its rule for patches, and the rules of ``rules.py``; ``--other FILE`` adds the
``tissue_mask`` of another ``tissue.py``.

    python benchmarks/tissue/bench_tissue.py --patches /data/patches

``--patches`` names a folder with LC25000 (``lc25000/groups.csv`` and pictures); without it there are
painted slides only. Settings were chosen on seeds 0 to 3 and the photographs of even number
(``--seeds 0 4 --half 0``); report others. One line of JSON comes out, and tables on the standard error.
"""

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import rules
import scenes

from proportion_ssl.slides import tissue_mask
from proportion_ssl.slides.patches.tissue import _with_airspaces

GLASS = {
    "usual": (243, 241, 244),
    "white": (252, 252, 252),
    "paper": (255, 255, 255),
    "warm": (240, 232, 218),
    "cool": (226, 233, 242),
    "pink": (244, 230, 238),
    "gray": (205, 205, 207),
    "dark": (180, 178, 182),
}
DENSITIES = ("usual", "threefold", "pale")
MIN_FRACTION = 0.25
MPPS = (4, 8, 16)


def ours(image, mpp):
    """As `tissue_grid` chooses patches."""
    return _with_airspaces(tissue_mask(image, mpp=mpp), mpp)


def draw_densities(kind, n, rng):
    """Factor on the optical density of each class."""
    if kind == "usual":
        return np.ones(n)
    if kind == "pale":
        return np.full(n, 1 / 3)
    third = max(1, n // 3)
    densities = 3.0 ** -rng.uniform(0, 1, n)
    order = rng.permutation(n)
    densities[order[:third]], densities[order[-third:]] = 1 / 3, 1.0
    return densities


def photographs(seeds, half, patches):
    """(source, density, glass, windows, classes, picture) of every condition and seed."""
    for seed in seeds:
        rng = np.random.default_rng(1000 + seed)
        found = {"painted": scenes.paint_scene(seed)}
        if patches:
            found["real"] = scenes.compose_scene(seed, patches, half)
            found["real, no glass"] = scenes.compose_scene(seed, patches, half, with_glass=False)
        for source, scene in found.items():
            n = len(scene.classes)
            for kind in DENSITIES:
                for glass in ("usual", "warm", "gray") if source == "real, no glass" else GLASS:
                    densities = draw_densities(kind, n, rng)
                    picture = scenes.photograph(scene, densities, GLASS[glass], seed)
                    yield source, kind, glass, scene.windows, scene.classes, picture
            if source != "real, no glass":
                densities = draw_densities("threefold", n, rng)
                picture = scenes.photograph(scene, densities, (224, 220, 228), seed, unscanned=0.25)
                windows = scene.windows.copy()
                windows[:, 7] = np.where(windows[:, 7] == scenes.GLASS, scenes.GLASS, -2)
                windows[:, 8:] = scenes.GLASS
                yield source, "threefold", "unscanned", windows, scene.classes, picture


def tissue_shares(mask):
    """Share of tissue in each window."""
    n = scenes.N_WINDOWS
    rows, columns = (np.round(np.linspace(0, side, n + 1)).astype(int) for side in mask.shape)
    sums = np.add.reduceat(
        np.add.reduceat(mask, rows[:-1], axis=0, dtype=int), columns[:-1], axis=1
    )
    return sums / (np.diff(rows)[:, np.newaxis] * np.diff(columns))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=Path, help="folder that holds lc25000")
    parser.add_argument("--seeds", type=int, nargs=2, default=(100, 104), metavar=("FIRST", "END"))
    parser.add_argument("--half", type=int, choices=(0, 1), default=1, help="of the photographs")
    parser.add_argument("--other", type=Path, help="another tissue.py to compare with")
    options = parser.parse_args()
    masks = {"ours": ours}
    if options.other:
        spec = importlib.util.spec_from_file_location("other", options.other)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        masks["other"] = lambda image, mpp: module.tissue_mask(image, mpp=mpp)
    masks |= rules.RULES

    rows, seconds, agreement = [], dict.fromkeys(masks, 0.0), []
    for number, (source, kind, glass, windows, classes, picture) in enumerate(
        photographs(range(*options.seeds), options.half, options.patches)
    ):
        overview = scenes.overview(picture, 8)
        for name, mask in masks.items():
            start = time.process_time()
            kept = tissue_shares(mask(overview, 8)) >= MIN_FRACTION
            seconds[name] += time.process_time() - start
            where = {"source": source, "density": kind, "glass": glass, "mask": name}
            for index, label in enumerate([*classes, "glass"]):
                of_class = windows == (scenes.GLASS if label == "glass" else index)
                if of_class.any():
                    count = {"n": of_class.sum(), "kept": kept[of_class].sum()}
                    rows.append({**where, "slide": number, "class": label, **count})
        chosen = [
            tissue_shares(ours(scenes.overview(picture, mpp), mpp)) >= MIN_FRACTION for mpp in MPPS
        ]
        judged = windows != -2
        agreement.append([np.mean((c == chosen[1])[judged]) for c in chosen])
    table = pd.DataFrame(rows)
    result = {
        "benchmark": "tissue",
        "kept": summarize(table, ["source", "density"]),
        "kept_by_glass": summarize(table[table["density"] == "threefold"], ["glass"]),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "same_patches_as_at_8_um": dict(
            zip(map(str, MPPS), np.mean(agreement, axis=0).round(4).tolist(), strict=True)
        ),
        "settings": {"seeds": list(options.seeds), "half": options.half},
    }
    print(json.dumps(result))


def summarize(table, by):
    """Least, mean and overall share kept over slides and classes, and glass kept; printed as well."""
    of_tissue = table[table["class"] != "glass"]
    of_tissue = of_tissue.assign(share=of_tissue["kept"] / of_tissue["n"])
    groups = of_tissue.groupby([*by, "mask"], sort=False)
    out = groups["share"].agg(["min", "mean"])
    out["below_98"] = groups["share"].agg(lambda shares: (shares < 0.98).sum())
    out["classes"] = groups.size()
    sums = groups[["kept", "n"]].sum()
    out["patches"] = sums["kept"] / sums["n"]
    glass = table[table["class"] == "glass"].groupby([*by, "mask"], sort=False)[["kept", "n"]].sum()
    out["glass_kept"] = glass["kept"] / glass["n"]
    out = out.round(4)
    with pd.option_context(
        "display.width", 200, "display.max_rows", None, "display.max_columns", None
    ):
        print(out, file=sys.stderr)
    return [
        {key: None if value != value else value for key, value in row.items()}
        for row in out.reset_index().to_dict("records")
    ]


if __name__ == "__main__":
    main()
