"""Where the data of a study come from, and how its slides are split.

A study is a table of patches with features, slides and, where known, labels; some slides were outlined and
the others have recorded proportions. Three sources: virtual slides of real H&E patches, a synthetic cohort,
and a manifest of one's own with a folder of feature files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from histology_cohort import N_LABELED, N_SLIDES, N_TEST, load_virtual_cohort, roughen

from proportion_ssl import load_cohort
from proportion_ssl.datasets import make_bags
from proportion_ssl.proportions import class_proportions
from proportion_ssl.slides import (
    PatchGrid,
    class_fractions,
    patch_labels,
    read_annotations,
    read_features,
)

REGIMES = ("exact", "rough", "no shift")


@dataclass(frozen=True)
class Fold:
    """Slides by what one fold uses them for."""

    labeled: np.ndarray
    bags: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Study:
    """Patches of all slides."""

    features: np.ndarray  # (n_patches, n_features)
    labels: np.ndarray  # (n_patches,) class names; "" where nothing is known
    slides: np.ndarray  # (n_patches,) slide names
    classes: list[str]
    proportions: pd.DataFrame  # recorded share of each class, one row per slide that has a record
    shapes: dict[str, tuple[int, int]]  # grid of each slide, for pictures
    cells: np.ndarray  # (n_patches, 2) row and column in it
    roles: Fold | None = None  # fixed by a manifest; None: drawn anew for each seed

    def folds(self, seed: int, n_folds: int) -> Iterator[Fold]:
        """Folds by slide; every outlined slide is tested once.

        With roles of a manifest the outlined slides are split and all others stay bags. Otherwise all slides
        are dealt: each fold tests its share, 4 others are outlined, the rest are bags.
        """
        rng = np.random.default_rng([seed, 3])
        if self.roles is not None:
            for test in np.array_split(rng.permutation(self.roles.labeled), n_folds):
                labeled = np.setdiff1d(self.roles.labeled, test)
                yield Fold(labeled, self.roles.bags, np.sort(test))
            return
        order = rng.permutation(np.unique(self.slides))
        n_test = len(order) * N_TEST // N_SLIDES
        for fold in range(n_folds):
            turned = np.roll(order, -fold * n_test)
            test, rest = turned[:n_test], turned[n_test:]
            for _ in range(len(rest)):  # those first in line whose outlines show every class
                labeled = rest[:N_LABELED]
                if set(self.labels[self.rows(labeled)]) == set(self.classes):
                    break
                rest = np.roll(rest, -1)
            yield Fold(labeled, rest[N_LABELED:], test)

    def rows(self, slides: np.ndarray) -> np.ndarray:
        """Which patches are of these slides, bool of shape (n_patches,)."""
        return np.isin(self.slides, slides)


@lru_cache(maxsize=2)
def load_study(data: str, features: str | None, cache: str, regime: str, cohort_seed: int) -> Study:
    """The study that a command line names: a folder of real patches, "synthetic", or a manifest."""
    if data == "synthetic":
        return synthetic(regime=regime, seed=cohort_seed)
    if Path(data).is_dir():
        return virtual_slides(Path(data), Path(cache), regime=regime, seed=cohort_seed)
    if features is None:
        raise SystemExit(f"{data} is a manifest: give the folder of feature files with --features.")
    return own_slides(Path(data), Path(features))


def virtual_slides(data: Path, cache: Path, *, regime: str, seed: int) -> Study:
    """60 slides of 60 real patches, see `histology_cohort`."""
    cohort = load_virtual_cohort(data, cache, seed=seed, stain_shift=regime != "no shift")
    slides = np.char.add("slide_", np.char.zfill(cohort.slides.astype(str), 2))
    names, index = np.unique(slides, return_inverse=True)
    return _composed(
        cohort.features,
        np.array(cohort.classes)[cohort.labels],
        slides,
        (names, index),
        regime,
        seed,
    )


def synthetic(*, regime: str, seed: int) -> Study:
    """60 slides of 60 patches from normal distributions, shifted slide by slide."""
    data = make_bags(
        *(N_SLIDES - 10,), bag_size=60, n_labeled_slides=4, n_test_slides=6, n_features=64,
        class_separation=0.45, slide_shift=0.0 if regime == "no shift" else 0.5, random_state=seed,
    )  # fmt: skip
    features = np.concatenate([data.X_labeled, data.bags.X, data.X_test])
    labels = np.concatenate([data.y, data.y_bags, data.y_test])
    numbers = np.concatenate([data.groups, data.bags.names[data.bags.index], data.groups_test])
    slides = np.char.add("slide_", np.char.zfill(numbers.astype(str), 2))
    labels = np.char.add("class_", labels.astype(str))
    return _composed(features, labels, slides, np.unique(slides, return_inverse=True), regime, seed)


def _composed(features, labels, slides, grouped, regime, seed):
    """A study whose labels are all known; shares are counted, and in the rough regime roughened."""
    names, index = grouped
    classes, codes = np.unique(labels, return_inverse=True)
    shares = class_proportions(codes, index, n_bags=len(names), n_classes=len(classes))
    if regime == "rough":
        shares = roughen(shares, np.random.default_rng([seed, 2]))
    position = np.concatenate([np.arange(n) for n in np.bincount(index)])
    order = np.argsort(index, kind="stable")
    cells = np.empty((len(index), 2), dtype=np.int64)
    cells[order] = np.stack([position // 10, position % 10], axis=1)
    height = -(-int(np.bincount(index).max()) // 10)
    return Study(
        features=features.astype(np.float32),
        labels=labels,
        slides=slides,
        classes=classes.tolist(),
        proportions=pd.DataFrame(shares, index=names, columns=classes),
        shapes=dict.fromkeys(names.tolist(), (height, 10)),
        cells=cells,
    )


def own_slides(manifest: Path, features: Path) -> Study:
    """Slides of a manifest, with one feature file per slide (`<slide>.h5`) in a folder.

    Outlined slides are those of the roles "labeled" and "test"; the folds are made of them. Patches
    without a majority class are left out.
    """
    cohort = load_cohort(manifest)
    parts, shapes = [], {}
    outlined = [*cohort.labeled, *cohort.test]
    for row in cohort.slides.itertuples():
        stored = read_features(features / f"{row.Index}.h5")
        grid = stored.grid if stored.grid is not None else _grid_of(stored, row.Index)
        labels = np.full(len(stored), "", dtype=object)
        if row.Index in outlined and row.annotation is not None:
            found = class_fractions(read_annotations(row.annotation), grid, cohort.classes)
            labels = patch_labels(found.fractions, cohort.classes, ignored=found.ignored)
            labels = np.array([label or "" for label in labels], dtype=object)
        kept = (labels != "") | (row.Index not in outlined)
        parts.append(
            (
                stored.features[kept],
                labels[kept],
                np.repeat(row.Index, kept.sum()),
                grid.cells[kept],
            )
        )
        shapes[row.Index] = grid.shape
    X, labels, slides, cells = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Study(
        X,
        labels.astype(str),
        slides.astype(str),
        list(cohort.classes),
        cohort.proportions.dropna(),
        shapes,
        cells,
        roles=Fold(np.array(outlined), np.array(cohort.bags), np.array([])),
    )


def _grid_of(stored, name):
    """Windows of a feature file of another program, one cell each, in its order."""
    if stored.patch_size_level0 is None:
        raise ValueError(
            f"The feature file of {name} does not say how large a patch is (patch_size_level0); without it "
            "outlines cannot be laid over the patches. Make it with embed_slides, TRIDENT or CLAM."
        )
    side = round(stored.patch_size_level0)
    boxes = np.hstack([stored.locations, stored.locations + side])
    corner = stored.locations.min(axis=0)
    cells = (stored.locations - corner)[:, ::-1] // side
    shape = tuple((cells.max(axis=0) + 1).tolist())
    return PatchGrid(boxes, cells, shape, (224, 224), 1.0)
