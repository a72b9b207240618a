"""Segment whole slides by subtype, from a few outlined slides and many with proportions only.

Without arguments a synthetic cohort is written and segmented:

    python examples/segment_slides.py

With a manifest (columns slide, annotation, role, one per class with percentages) your own:

    python examples/segment_slides.py --cohort cohort.csv --weights mobilenet_v2.pth

Steps: tile every slide at 10x inside its tissue; embed the patches by a frozen MobileNetV2; find
tumour in the slides without outlines, by a linear classifier of cancer against the rest that the
outlined slides train; fit "supervised" (outlined slides only) and "proposed" (outlined slides and the
proportions of the others); compare both by cross-validation over the outlined slides and on the test
slides; write maps, overlays, outlines for QuPath, tables and the fitted model.
"""

# %%
import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from proportion_ssl import (
    Bags,
    NegativePseudoLabelClassifier,
    PatchEmbedder,
    bag_proportion_error,
    mean_iou_score,
    overall_pixel_score,
    per_class_score,
)
from proportion_ssl.datasets import load_cohort, make_slides
from proportion_ssl.nets import RandomFilterFeatures, WeightsNotAvailableError
from proportion_ssl.slides import (
    FeatureFileError,
    PatchGrid,
    SlidePatches,
    class_fractions,
    file_fingerprint,
    label_picture,
    open_slide,
    overlay_picture,
    patch_labels,
    prediction_regions,
    read_annotations,
    read_features,
    slide_summary,
    tissue_fraction,
    tissue_mask,
    write_features,
    write_geojson,
    write_label_map,
    write_picture,
    write_table,
)

MAGNIFICATION, PATCH, MIN_TISSUE, OVERVIEW_MPP = 10, 224, 0.25, 8.0
NOT_CANCER = "non-cancer"


@dataclass
class Tiles:
    """What is kept of a slide once its pixels have been read."""

    grid: PatchGrid
    features: np.ndarray  # (n_patches, n_features)
    labels: np.ndarray  # class names from the outlines, None where there is no majority
    overview: np.ndarray
    dimensions: tuple[int, int]
    mpp: float
    origin: tuple[int, int]


# %% One slide: patches inside the tissue, their features, their labels


def choose_embedder(weights):
    """A frozen MobileNetV2; only this demonstration goes on with random filters."""
    embedder = PatchEmbedder(weights=weights or "imagenet")
    try:
        embedder.fingerprint()
    except WeightsNotAvailableError as error:
        reason = str(error).split("(")[0].strip()
        print(
            "No ImageNet weights: without network and --weights this demonstration goes on with RANDOM "
            f"filters as features, which costs accuracy. ({reason})"
        )
        return PatchEmbedder(module=RandomFilterFeatures())
    return embedder


def embed(slide, grid, embedder, store):
    """Features of the patches, from the store if they were computed with the same settings."""
    settings = {"embedder": embedder.fingerprint(), "slide": file_fingerprint(slide.path)}
    path = store / f"{slide.name}.h5"
    if path.exists():
        try:
            stored = read_features(path, {**settings, "patch_mpp": grid.mpp})
        except FeatureFileError as error:
            print(f"Features of {slide.name} are computed again: {error}")
        else:
            if np.array_equal(stored.locations, grid.locations):
                return stored.features
    features = embedder.transform(SlidePatches(slide, grid))
    write_features(
        path,
        features,
        grid,
        name=slide.name,
        dimensions=slide.dimensions,
        mpp=slide.mpp,
        settings=settings,
    )
    return features


def tile(row, classes, embedder, store):
    """Read one slide of the manifest."""
    with open_slide(row.path, mpp=None if np.isnan(row.mpp) else row.mpp) as slide:
        overview = slide.thumbnail(OVERVIEW_MPP)
        grid = slide.grid(magnification=MAGNIFICATION, size=PATCH)
        mask = tissue_mask(overview, mpp=OVERVIEW_MPP)
        grid = grid[tissue_fraction(mask, grid, slide.dimensions) >= MIN_TISSUE]
        if len(grid) == 0:
            raise ValueError(f"Slide {slide.name} has no patch with {MIN_TISSUE:.0%} tissue.")
        features = embed(slide, grid, embedder, store)
        labels = np.full(len(grid), None, dtype=object)
        if row.annotation is not None:
            regions = read_annotations(row.annotation, offset=slide.bounds[:2])
            names = [*classes, NOT_CANCER]
            fractions = class_fractions(regions, grid, names)
            labels = patch_labels(fractions.fractions, names, ignored=fractions.ignored)
        return Tiles(
            *(grid, features, labels, overview, slide.dimensions, slide.mpp, slide.bounds[:2])
        )


# %% The cohort: labelled patches, bags, and the two systems


def labelled_patches(tiles, slides, wanted):
    """Features, labels and slide of the patches that carry one of the wanted labels."""
    labels = np.concatenate([tiles[s].labels for s in slides])
    keep = np.isin(labels.astype(str), wanted)
    X = np.concatenate([tiles[s].features for s in slides])
    groups = np.repeat(slides, [len(tiles[s].labels) for s in slides])
    return X[keep], labels[keep].astype(str), groups[keep]


def fit_tumour_detector(tiles, slides, classes):
    """Linear classifier of cancer (True) against the rest; None if nothing else is outlined."""
    X, y, _ = labelled_patches(tiles, slides, [*classes, NOT_CANCER])
    is_cancer = y != NOT_CANCER
    if is_cancer.all():
        return None
    detector = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.01))
    return detector.fit(X.astype(np.float64), is_cancer)


def find_tumour(detector, features):
    """Which patches to call cancer; all if there is no detector."""
    if detector is None:
        return np.ones(len(features), dtype=bool)
    return detector.predict(features.astype(np.float64))


def make_bags_of(tiles, slides, detector, proportions):
    """The tumour patches of each weakly labelled slide, with its recorded proportions."""
    found = {s: tiles[s].features[find_tumour(detector, tiles[s].features)] for s in slides}
    empty = [s for s, features in found.items() if len(features) == 0]
    if empty:
        print(f"Left out, no tumour found: {', '.join(empty)}")
    kept = [s for s in slides if s not in empty]
    return Bags([found[s] for s in kept], kept, proportions.loc[kept])


def fit_systems(tiles, slides, bags, detector_classes, seed):
    """Supervised and proposed, on the patches of some outlined slides."""
    X, y, _ = labelled_patches(tiles, slides, detector_classes)
    systems = {}
    for name, given in (("supervised", None), ("proposed", bags)):
        model = NegativePseudoLabelClassifier(random_state=seed)
        systems[name] = model.fit(X, y, given)
    return systems


def scores(model, X, y, groups, classes, proportions):
    """OP, PC, mIoU and error of proportions on the labelled tumour patches of some slides."""
    predicted = model.predict(X)
    slides = np.unique(groups)
    recorded = proportions.loc[slides].dropna()
    known = np.isin(groups, recorded.index)
    error = np.nan
    if known.any():
        error = bag_proportion_error(
            recorded, predicted[known], bag_ids=groups[known], labels=classes
        )
    return {
        "OP": overall_pixel_score(y, predicted, labels=classes),
        "PC": per_class_score(y, predicted, labels=classes),
        "mIoU": mean_iou_score(y, predicted, labels=classes),
        "proportion error": error,
    }


def cross_validate_slides(tiles, cohort, seed):
    """Scores of both systems on each outlined slide in turn left out (at most 5 folds)."""
    classes, slides = cohort.classes, np.array(cohort.labeled)
    rows = []
    folds = GroupKFold(min(5, len(slides))).split(slides, groups=slides)
    for train, test in tqdm(list(folds), desc="cross-validation", unit="fold"):
        X, y, groups = labelled_patches(tiles, slides[test], classes)
        present = np.unique(labelled_patches(tiles, slides[train], classes)[1])
        if len(present) < len(classes) or len(y) == 0:
            print(f"Fold of {', '.join(slides[test])} left out: a class has no patch to train on.")
            continue
        detector = fit_tumour_detector(tiles, slides[train], classes)
        bags = make_bags_of(tiles, cohort.bags, detector, cohort.proportions)
        for name, model in fit_systems(tiles, slides[train], bags, classes, seed).items():
            measured = scores(model, X, y, groups, classes, cohort.proportions)
            rows.append({"system": name, **measured})
    return pd.DataFrame(rows)


# %% What a person looks at


def write_slide(folder, slide, tiles, detector, model, classes, recorded):
    """Label map, overlay, outlines and numbers of one test slide."""
    names = [*classes, NOT_CANCER]
    tumour = find_tumour(detector, tiles.features)
    probabilities = np.zeros((len(tiles.grid), len(names)))
    probabilities[~tumour, -1] = 1.0
    order = [list(model.classes_).index(name) for name in classes]
    if tumour.any():
        probabilities[tumour, :-1] = model.predict_proba(tiles.features[tumour])[:, order]
    labels = [names[i] for i in probabilities.argmax(axis=1)]
    write_label_map(folder / f"{slide}_labels.tif", labels, tiles.grid, names)
    write_picture(folder / f"{slide}_labels.png", label_picture(labels, tiles.grid, names))
    view = (tiles.overview, tiles.dimensions)
    write_picture(
        folder / f"{slide}_overlay.png", overlay_picture(*view, labels, tiles.grid, names)
    )
    truth = overlay_picture(*view, list(tiles.labels), tiles.grid, names)
    write_picture(folder / f"{slide}_truth.png", truth)
    regions = prediction_regions(
        labels, tiles.grid, names, mpp=tiles.mpp, probabilities=probabilities
    )
    write_geojson(folder / f"{slide}.geojson", regions, offset=tiles.origin)
    return slide_summary(
        slide,
        labels,
        tiles.grid,
        names,
        mpp=tiles.mpp,
        probabilities=probabilities,
        recorded=None if recorded.isna().any() else recorded.to_dict(),
    )


def mean_and_spread(table):
    """Scores of each system as mean +- standard deviation over the rows."""
    groups = table.groupby("system", sort=False)
    spread = groups.std().map("{:.3f}".format)
    return groups.mean().map("{:.3f}".format) + " +- " + spread


# %% All of it


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cohort", type=Path, help="manifest of your own slides")
    parser.add_argument("--weights", type=Path, help="state dict of torchvision's mobilenet_v2")
    parser.add_argument("--output", type=Path, default=Path("segmentation"))
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic cohort and the nets")
    options = parser.parse_args(arguments)
    clock, costs = time.perf_counter(), {}

    def done(stage):
        nonlocal clock
        costs[stage], clock = round(time.perf_counter() - clock, 1), time.perf_counter()

    options.output.mkdir(parents=True, exist_ok=True)
    manifest = options.cohort
    if manifest is None:
        folder = options.output / f"synthetic_cohort_{options.seed}"
        manifest = folder / "cohort.csv"
        if not manifest.exists():
            make_slides(folder, random_state=options.seed, n_jobs=2, verbose=True, overwrite=True)
    cohort = load_cohort(manifest)
    done("synthetic slides")

    embedder = choose_embedder(options.weights)
    store = options.output / "features"
    store.mkdir(exist_ok=True)
    rows = tqdm(cohort.slides.itertuples(), total=len(cohort.slides), desc="slides", unit="slide")
    tiles = {row.Index: tile(row, cohort.classes, embedder, store) for row in rows}
    done("tile and embed")

    folds = cross_validate_slides(tiles, cohort, options.seed)
    done("cross-validation")

    detector = fit_tumour_detector(tiles, cohort.labeled, cohort.classes)
    bags = make_bags_of(tiles, cohort.bags, detector, cohort.proportions)
    systems = fit_systems(tiles, cohort.labeled, bags, cohort.classes, options.seed)
    done("fit")

    X, y, groups = labelled_patches(tiles, cohort.test, cohort.classes)
    on_test = pd.DataFrame(
        {
            name: scores(model, X, y, groups, cohort.classes, cohort.proportions)
            for name, model in systems.items()
        }
    ).T.rename_axis("system")
    summaries = [
        write_slide(
            options.output,
            *(slide, tiles[slide], detector, systems["proposed"], cohort.classes),
            cohort.proportions.loc[slide],
        )
        for slide in tqdm(cohort.test, desc="maps", unit="slide")
    ]
    write_table(options.output / "slides.csv", summaries)
    write_table(options.output / "test.csv", on_test.reset_index())
    write_table(options.output / "cross_validation.csv", folds)
    joblib.dump(
        {"detector": detector, "embedder": embedder, **systems}, options.output / "model.joblib"
    )
    done("maps and tables")

    n_patches = sum(len(t.grid) for t in tiles.values())
    print(f"\n{len(tiles)} slides, {n_patches} patches, {bags.n_instances} in {bags.n_bags} bags")
    print("\nCross-validation over outlined slides (mean +- sd over folds)")
    print(mean_and_spread(folds).to_string())
    print("\nTest slides (patches of all slides pooled)")
    print(on_test.round(3).to_string())
    print("\nTest slides, predicted against recorded proportions: slides.csv")
    print(pd.DataFrame(summaries).round(3).to_string(index=False))
    print(f"\nSeconds by stage: {json.dumps(costs)}")
    print(f"Maps (*_labels.png, *_overlay.png, *_truth.png), tables and model in {options.output}")


if __name__ == "__main__":
    main()
