"""Virtual slides composed of real H&E patches, with known patch labels.

A cohort is 60 slides of 60 patches. The class shares of a slide follow Dirichlet(0.5, ..., 0.5), its
counts a multinomial. A slide owns two source photographs per class; no photograph is shared between
slides as long as they last, so that patches of one slide resemble each other and no photograph is
on both sides of a split. Each slide has its own stain: optical density, split into hematoxylin,
eosin and residual by the matrix of Ruifrok and Johnston (2001), each channel scaled by
exp(N(0, 0.25)) and shifted by N(0, 0.1), then gamma exp(N(0, 0.2)).

A cohort can be composed of all photographs, or of one of two halves, split once for all: "development" and
"evaluation". A slide then owns one photograph per class. The package's settings were chosen on cohorts
0 to 2 of all photographs, before the halves were split.

The patches are LC25000 (Borkowski et al., arXiv:1912.12142): `patches/lc25000/groups.csv` lists
path, class and source photograph of each.
"""

from __future__ import annotations

import hashlib
import inspect
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from proportion_ssl import PatchEmbedder

N_SLIDES, N_PATCHES = 60, 60
#: Photographs of each class that a slide owns, by the part of them that a cohort is composed of.
TILES_PER_CLASS = {"all": 2, "development": 1, "evaluation": 1}
N_LABELED, N_BAGS, N_TEST = 4, 44, 12
RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
RUIFROK /= np.linalg.norm(RUIFROK, axis=1, keepdims=True)


@dataclass(frozen=True)
class VirtualCohort:
    """Features, labels and slides of all patches of a cohort."""

    features: np.ndarray  # (n_patches, 1280) float32
    labels: np.ndarray  # (n_patches,) class index
    slides: np.ndarray  # (n_patches,) slide index
    classes: list[str]


@dataclass(frozen=True)
class Roles:
    """One draw of what each slide is used for; arrays of slide indices."""

    labeled: np.ndarray
    bags: np.ndarray
    test: np.ndarray


def restain(image: np.ndarray, scale: np.ndarray, shift: np.ndarray, gamma: float) -> np.ndarray:
    """Change the stain of an RGB uint8 image through its hematoxylin-eosin densities."""
    density = -np.log((image.astype(np.float64) + 1.0) / 256.0)
    stains = density @ np.linalg.inv(RUIFROK) * scale + shift
    rgb = np.exp(-np.clip(stains @ RUIFROK, 0.0, None)) ** gamma
    return np.clip(rgb * 255.0 + 0.5, 0, 255).astype(np.uint8)


def choose_photographs(groups: pd.DataFrame, photographs: str) -> pd.DataFrame:
    """Patches of all photographs, or of the half of each class for development or evaluation."""
    if photographs == "all":
        return groups
    rng, chosen = np.random.default_rng(2020), []
    for name in sorted(groups["class"].unique()):
        tiles = np.sort(groups.loc[groups["class"] == name, "source_tile"].unique())
        halves = np.array_split(rng.permutation(tiles), 2)
        chosen.extend(halves[("development", "evaluation").index(photographs)])
    return groups[groups["source_tile"].isin(chosen)]


def compose(
    groups: pd.DataFrame, rng: np.random.Generator, tiles_per_class: int
) -> tuple[list[str], np.ndarray, list]:
    """Paths and labels slide by slide, and the stain of each slide."""
    classes = sorted(groups["class"].unique())
    tiles = {}
    for name in classes:
        of_class = rng.permutation(groups.loc[groups["class"] == name, "source_tile"].unique())
        tiles[name] = np.resize(of_class, N_SLIDES * tiles_per_class).reshape(N_SLIDES, -1)
    paths, labels, stains = [], [], []
    for slide in range(N_SLIDES):
        shares = rng.dirichlet(np.full(len(classes), 0.5))
        for label, count in enumerate(rng.multinomial(N_PATCHES, shares)):
            owned = groups.loc[groups["source_tile"].isin(tiles[classes[label]][slide]), "path"]
            shuffled = rng.permutation(owned.to_numpy())
            paths.extend(np.resize(shuffled, count))
            labels.extend([label] * count)
        stains.append(
            (np.exp(rng.normal(0, 0.25, 3)), rng.normal(0, 0.1, 3), np.exp(rng.normal(0, 0.2)))
        )
    return paths, np.array(labels), stains


def load_virtual_cohort(
    data: Path, cache: Path, *, seed: int, stain_shift: bool, photographs: str = "all"
) -> VirtualCohort:
    """Compose the cohort of a seed and embed it once; features are cached in a folder."""
    folder, weights = data / "patches" / "lc25000", data / "weights" / "mobilenet_v2_imagenet.pth"
    groups = choose_photographs(pd.read_csv(folder / "groups.csv"), photographs)
    rng = np.random.default_rng(seed)
    paths, labels, stains = compose(groups, rng, TILES_PER_CLASS[photographs])
    classes = sorted(groups["class"].unique())
    slides = np.repeat(np.arange(N_SLIDES), N_PATCHES)
    used = (groups.to_csv(), *(inspect.getsource(part) for part in (compose, restain)))
    recipe = hashlib.sha256("".join(used).encode() + weights.read_bytes()).hexdigest()[:12]
    file = cache / f"histology_{recipe}_{seed}_{'shift' if stain_shift else 'plain'}.npy"
    if file.exists():
        return VirtualCohort(np.load(file), labels, slides, classes)
    embedder = PatchEmbedder(weights=weights)
    features = []
    for slide in tqdm(range(N_SLIDES), desc="embedding slides", unit="slide"):
        images = [
            np.asarray(Image.open(folder / paths[i]).convert("RGB"))
            for i in np.flatnonzero(slides == slide)
        ]
        if stain_shift:
            images = [restain(image, *stains[slide]) for image in images]
        features.append(embedder.fit_transform(np.stack(images)))
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npy")
    np.save(partial, np.concatenate(features))
    partial.replace(file)
    return VirtualCohort(np.load(file), labels, slides, classes)


def draw_roles(seed: int) -> Roles:
    """Slides for labels, bags and test, drawn anew for each seed."""
    order = np.random.default_rng([seed, 1]).permutation(N_SLIDES)
    return Roles(
        labeled=order[:N_LABELED],
        bags=order[N_LABELED : N_LABELED + N_BAGS],
        test=order[N_LABELED + N_BAGS : N_LABELED + N_BAGS + N_TEST],
    )


def roughen(proportions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Proportions as people write them: off by about 10 points, rounded to 5%, classes kept."""
    noisy = proportions + np.where(proportions > 0, rng.normal(0, 0.1, proportions.shape), 0.0)
    rounded = np.round(np.clip(noisy, 0, None) / 0.05) * 0.05
    empty = rounded.sum(axis=1) == 0
    rounded[empty] = proportions[empty]
    return rounded / rounded.sum(axis=1, keepdims=True)
