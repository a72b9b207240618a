"""Where the data of a study come from, and how its slides are split.

A study is a table of patches with features, slides and, where known, labels; some slides were outlined and
the others have recorded proportions. Sources: virtual slides of real H&E patches, sets of real bags, a
synthetic cohort with small or large bags, and a manifest of one's own with a folder of feature files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from histology_cohort import N_LABELED, N_SLIDES, N_TEST, load_virtual_cohort
from real_bags import GROUPS, draw_groups, load_real, record

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

#: What is on record: "wrong" exchanges the records of 20% of the bags, "no shift" leaves out the stain.
REGIMES = ("exact", "rounded", "rough", "wrong", "no shift")
#: Halves of the photographs of LC25000, two sets of real bags, and normal distributions.
SETS = (
    "lc25000_evaluation",
    "lc25000_development",
    "chula_rbc",
    "her2st_expression",
    "synthetic",
    "synthetic_large_bags",
)


class Source(NamedTuple):
    """What a command line names: a set of `SETS` with the folder of real data, or a manifest."""

    name: str
    data: Path | None
    features: Path | None
    cache: Path
    cohort_seed: int = 0


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
    proportions: pd.DataFrame  # share of each class, one row per slide: counted, or as recorded
    cases: pd.Series  # patient of each slide, or the slide itself: what intervals resample
    shapes: dict[str, tuple[int, int]] | None = None  # grid of each slide, for pictures
    cells: np.ndarray | None = None  # (n_patches, 2) row and column in it
    roles: Fold | None = None  # fixed by a manifest; None: drawn anew for each seed
    groups: tuple[int, int] | None = None  # cases that are outlined and that test, of real sets

    def folds(self, seed: int, n_folds: int) -> Iterator[Fold]:
        """Folds by slide.

        With roles of a manifest the outlined slides are split and all others stay bags. Sets of real bags
        draw whole cases for each role, anew for each fold. Otherwise all slides are dealt: each fold tests
        its share, 4 others are outlined, the rest are bags, and every slide is tested once.
        """
        rng = np.random.default_rng([seed, 3])
        if self.roles is not None:
            for test in np.array_split(rng.permutation(self.roles.labeled), n_folds):
                labeled = np.setdiff1d(self.roles.labeled, test)
                yield Fold(labeled, self.roles.bags, np.sort(test))
            return
        if self.groups is not None:
            cases = self.cases.loc[self.slides].to_numpy()
            codes = np.searchsorted(self.classes, self.labels)
            for fold in range(n_folds):
                labeled, test = draw_groups(
                    codes, cases, self.groups, np.random.default_rng([seed, fold, 7])
                )
                parts = (labeled, ~labeled & ~test, test)
                yield Fold(*(np.unique(self.slides[part]) for part in parts))
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

    def recorded(self, slides: np.ndarray, regime: str, rng: np.random.Generator) -> pd.DataFrame:
        """Proportions of slides as they are on record, in sorted order of their names."""
        names = np.sort(slides)
        shares = self.proportions.loc[names]
        if self.roles is not None:
            return shares
        return pd.DataFrame(record(shares.to_numpy(), regime, rng), names, shares.columns)


@lru_cache(maxsize=2)
def load_study(source: Source, *, stain_shift: bool = True) -> Study:
    """The study of a command line; without stain shift where the set has one that can be left out."""
    name, seed = source.name, source.cohort_seed
    if name.startswith("synthetic"):
        size = 1000 if name == "synthetic_large_bags" else 60
        return synthetic(seed=seed, bag_size=size, slide_shift=0.5 if stain_shift else 0.0)
    if name in SETS and source.data is None:
        raise SystemExit(f"{name} needs the folder of real data: give it with --data.")
    if name.startswith("lc25000"):
        photographs = name.removeprefix("lc25000_")
        return virtual_slides(source, seed=seed, stain_shift=stain_shift, photographs=photographs)
    if not stain_shift:
        raise SystemExit(f"{name} has the stains that it has: 'no shift' is of composed slides.")
    if name in SETS:
        return real_bags(source.data / "real" / name)
    if source.features is None:
        raise SystemExit(f"{name} is a manifest: give the folder of feature files with --features.")
    return own_slides(Path(name), source.features)


def virtual_slides(source: Source, *, seed: int, stain_shift: bool, photographs: str) -> Study:
    """60 slides of 60 real patches, see `histology_cohort`."""
    cohort = load_virtual_cohort(
        source.data, source.cache, seed=seed, stain_shift=stain_shift, photographs=photographs
    )
    slides = np.char.add("slide_", np.char.zfill(cohort.slides.astype(str), 2))
    return _composed(cohort.features, np.array(cohort.classes)[cohort.labels], slides)


def real_bags(folder: Path) -> Study:
    """A set of real bags; its groups are patients or blocks of pictures."""
    X, y, bag, group = load_real(folder)
    slides = np.char.add("bag_", np.char.zfill(bag.astype(str), 4))
    names, first = np.unique(slides, return_index=True)
    labels = np.char.add("class_", np.char.zfill(y.astype(str), 2))
    study = _composed(X, labels, slides)
    cases = pd.Series(np.char.add("group_", group.astype(str))[first], index=names)
    return Study(
        **(
            vars(study)
            | {"cases": cases, "groups": GROUPS[folder.name], "shapes": None, "cells": None}
        )
    )


def synthetic(*, seed: int, bag_size: int = 60, slide_shift: float = 0.5) -> Study:
    """60 slides of patches from normal distributions, shifted slide by slide."""
    data = make_bags(
        *(N_SLIDES - 10,), bag_size=bag_size, n_labeled_slides=4, n_test_slides=6, n_features=64,
        class_separation=0.45, slide_shift=slide_shift, random_state=seed,
    )  # fmt: skip
    features = np.concatenate([data.X_labeled, data.bags.X, data.X_test])
    labels = np.concatenate([data.y, data.y_bags, data.y_test])
    numbers = np.concatenate([data.groups, data.bags.names[data.bags.index], data.groups_test])
    slides = np.char.add("slide_", np.char.zfill(numbers.astype(str), 2))
    return _composed(features, np.char.add("class_", labels.astype(str)), slides)


def _composed(features, labels, slides):
    """A study whose labels are all known; shares are counted."""
    names, index = np.unique(slides, return_inverse=True)
    classes, codes = np.unique(labels, return_inverse=True)
    shares = class_proportions(codes, index, n_bags=len(names), n_classes=len(classes))
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
        cases=pd.Series(names, index=names),
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
        pd.Series(cohort.slides.index, index=cohort.slides.index),
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
