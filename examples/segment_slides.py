"""Segment whole slides by subtype, from a few outlined slides and many with proportions only.

Without arguments a synthetic cohort is written and segmented:

    python examples/segment_slides.py

With a manifest (columns slide, annotation, role, one per class with percentages) your own:

    python examples/segment_slides.py --cohort cohort.csv --weights mobilenet_v2.pth

If it has other columns, say which are classes: --classes lepidic acinar papillary.

Steps: tile every slide at 10x inside its tissue; give all slides the colours of the first outlined
one; embed each patch as seen at 10x, 5x and 2.5x by a frozen MobileNetV2; propose the tumour patches
of the slides without outlines, by a multi-field-of-view net of cancer against the rest that the
outlined slides train; fit "supervised" (outlined slides only) and "proposed" (outlined slides and the
proportions of the others) on the 10x features; compare both by cross-validation over the outlined
slides and on the test slides; write maps, overlays, outlines for QuPath, tables and the fitted model.

A slide that cannot be read is named, and the others go on. Features are kept in files: a second run
reads them.
"""

# %%
import argparse
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold
from tqdm import tqdm

from proportion_ssl import (
    Bags,
    MultiFieldOfViewNet,
    NegativePseudoLabelClassifier,
    PatchEmbedder,
    ReportSlide,
    TumorProposer,
    bag_proportion_error,
    load_cohort,
    mean_iou_score,
    overall_pixel_score,
    per_class_score,
    report,
)
from proportion_ssl.datasets import make_slides
from proportion_ssl.embedding import RandomFilterFeatures, WeightsNotAvailableError
from proportion_ssl.slides import (
    PatchGrid,
    ReinhardNormalizer,
    SlideError,
    SlidePatches,
    class_fractions,
    embed_slides,
    label_picture,
    open_slide,
    overlay_picture,
    patch_labels,
    prediction_regions,
    process_slides,
    read_annotations,
    read_features,
    slide_summary,
    stitch,
    tissue_grid,
    write_geojson,
    write_label_map,
    write_picture,
    write_table,
)

VIEWS = (10, 5, 2.5)  # magnifications; patches lie side by side at the first
PATCH, OVERVIEW_MPP = 224, 8.0
NOT_CANCER = "non-cancer"


@dataclass
class Tiles:
    """What is kept of a slide once its pixels have been read."""

    grid: PatchGrid
    views: np.ndarray  # (n_patches, len(VIEWS) * n_features), features of all magnifications
    labels: np.ndarray  # class names from the outlines, None where there is no majority
    overview: np.ndarray
    dimensions: tuple[int, int]
    mpp: float
    origin: tuple[int, int]

    @property
    def features(self):
        """Features at the first magnification."""
        return self.views[:, : self.views.shape[1] // len(VIEWS)]


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


def fit_normalizer(rows):
    """Stain normalisation to the first outlined slide that can be read."""
    for row in rows.itertuples():
        try:
            with open_slide(row.path, mpp=None if np.isnan(row.mpp) else row.mpp) as slide:
                grid = tissue_grid(slide, slide.grid(magnification=VIEWS[0], size=PATCH))
                return ReinhardNormalizer().fit(SlidePatches(slide, grid))
        except SlideError as error:
            print(f"Not the reference of colours: {error}")
    raise SystemExit("None of the outlined slides can be read.")


def tile(row, feature_file, classes):
    """What a slide of the manifest shows, beside the features that were computed before."""
    stored = read_features(feature_file)
    grid = stored.grid
    with open_slide(row.path, mpp=None if np.isnan(row.mpp) else row.mpp) as slide:
        overview = slide.thumbnail(OVERVIEW_MPP)
        labels = np.full(len(grid), None, dtype=object)
        if row.annotation is not None:
            regions = read_annotations(row.annotation, offset=slide.bounds[:2])
            names = [*classes, NOT_CANCER]
            fractions = class_fractions(regions, grid, names)
            labels = patch_labels(fractions.fractions, names, ignored=fractions.ignored)
        return Tiles(
            *(grid, stored.features, labels, overview),
            *(slide.dimensions, slide.mpp, slide.bounds[:2]),
        )


# %% The cohort: labelled patches, bags, and the two systems


def labelled_patches(tiles, slides, wanted, *, all_views=False):
    """Features, labels and slide of the patches that carry one of the wanted labels."""
    labels = np.concatenate([tiles[s].labels for s in slides])
    keep = np.isin(labels.astype(str), wanted)
    X = np.concatenate([tiles[s].views if all_views else tiles[s].features for s in slides])
    groups = np.repeat(slides, [len(tiles[s].labels) for s in slides])
    return X[keep], labels[keep].astype(str), groups[keep]


def fit_proposer(tiles, slides, classes, n_views):
    """Tumour against the rest, from outlined slides; None if nothing else is outlined."""
    X, y, groups = labelled_patches(tiles, slides, [*classes, NOT_CANCER], all_views=n_views > 1)
    if NOT_CANCER not in y:
        return None
    net = MultiFieldOfViewNet(n_views, random_state=0)
    return TumorProposer(net).fit(X, y != NOT_CANCER, groups=groups)


def find_tumour(proposer, tiles):
    """Which patches of a slide are proposed as cancer; all if there is no proposer."""
    if proposer is None:
        return np.ones(len(tiles.grid), dtype=bool)
    return proposer.propose(tiles.views).is_tumor


def make_bags_of(tiles, slides, proposer, proportions):
    """The tumour patches of each weakly labelled slide, with its recorded proportions."""
    found = {s: tiles[s].features[find_tumour(proposer, tiles[s])] for s in slides}
    empty = [s for s, features in found.items() if len(features) == 0]
    if empty:
        print(f"Left out, no tumour found: {', '.join(empty)}")
    kept = [s for s in slides if s not in empty]
    return Bags([found[s] for s in kept], kept, proportions.loc[kept])


def compare_proposals(tiles, cohort, proposer):
    """Recall and precision of the tumour proposals on the test slides, one and all magnifications."""
    if not any((tiles[s].labels == NOT_CANCER).any() for s in cohort.test):
        return pd.DataFrame()
    fitted = {
        f"{VIEWS[0]}x alone": fit_proposer(tiles, cohort.labeled, cohort.classes, 1),
        " + ".join(f"{view}x" for view in VIEWS): proposer,
    }
    rows = {}
    for name, one in fitted.items():
        wanted, all_views = [*cohort.classes, NOT_CANCER], one.net.n_views > 1
        X, y, _ = labelled_patches(tiles, cohort.test, wanted, all_views=all_views)
        proposed, is_tumour = one.propose(X).is_tumor, y != NOT_CANCER
        rows[name] = {
            "recall": proposed[is_tumour].mean(),
            "precision": is_tumour[proposed].mean(),
            "threshold": one.threshold_,
            "recall, labelled slides left out": one.recall_,
            "precision, labelled slides left out": one.precision_,
        }
    return pd.DataFrame(rows).T.rename_axis("proposals")


def fit_systems(tiles, slides, bags, classes, seed):
    """Supervised and proposed, on the patches of some outlined slides."""
    X, y, _ = labelled_patches(tiles, slides, classes)
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
    """Scores of both systems on outlined slides left out in turn (at most 5 folds)."""
    classes, slides = cohort.classes, np.array(cohort.labeled)
    rows = []
    folds = GroupKFold(min(5, len(slides))).split(slides, groups=slides)
    for train, test in tqdm(list(folds), desc="cross-validation", unit="fold"):
        X, y, groups = labelled_patches(tiles, slides[test], classes)
        present = np.unique(labelled_patches(tiles, slides[train], classes)[1])
        if len(present) < len(classes) or len(y) == 0:
            print(f"Fold of {', '.join(slides[test])} left out: a class has no patch to train on.")
            continue
        proposer = fit_proposer(tiles, slides[train], classes, len(VIEWS))
        bags = make_bags_of(tiles, cohort.bags, proposer, cohort.proportions)
        for name, model in fit_systems(tiles, slides[train], bags, classes, seed).items():
            measured = scores(model, X, y, groups, classes, cohort.proportions)
            rows.append({"system": name, **measured})
    return pd.DataFrame(rows)


# %% What a person looks at


def write_slide(folder, slide, tiles, proposer, model, classes, recorded):
    """Label map, overlay, outlines, numbers and part of the report of one test slide."""
    names = [*classes, NOT_CANCER]
    tumour = find_tumour(proposer, tiles)
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
    recorded = None if recorded.isna().any() else recorded.to_dict()
    summary = slide_summary(
        slide,
        labels,
        tiles.grid,
        names,
        mpp=tiles.mpp,
        probabilities=probabilities,
        recorded=recorded,
    )
    predicted = (
        pd.Series(labels).value_counts(normalize=True).reindex(names, fill_value=0.0)[classes]
    )
    truth = [names.index(label) if label in names else -1 for label in tiles.labels]
    thumbnail_mpp = tiles.mpp * tiles.dimensions[0] / tiles.overview.shape[1]
    page = ReportSlide(
        slide,
        tiles.overview,
        stitch(probabilities.argmax(axis=1), tiles.grid.cells, tiles.grid.shape),
        truth=stitch(np.array(truth), tiles.grid.cells, tiles.grid.shape),
        recorded=recorded,
        predicted=predicted / predicted.sum() if tumour.any() else None,
        cell_pixels=PATCH * tiles.grid.mpp / thumbnail_mpp,
        mpp=thumbnail_mpp,
    )
    return summary, page


def mean_and_spread(table):
    """Scores of each system as mean +- standard deviation over the rows."""
    groups = table.groupby("system", sort=False)
    spread = groups.std().map("{:.3f}".format)
    return groups.mean().map("{:.3f}".format) + " +- " + spread


def percentages(summaries, classes):
    """Predicted and recorded proportions of each slide, side by side."""
    table = 100 * pd.DataFrame(summaries).set_index("slide").drop(columns="n_patches")
    return pd.DataFrame(
        {
            name: [
                " / ".join("-" if np.isnan(share) else f"{share:.0f}" for share in shares)
                for shares in table.reindex(
                    columns=[f"predicted_{name}", f"recorded_{name}"]
                ).values
            ]
            for name in classes
        },
        index=table.index,
    )


# %% All of it


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--cohort", type=Path, help="manifest of your own slides")
    parser.add_argument(
        "--classes", nargs="+", help="columns of the manifest that are classes; default: all others"
    )
    parser.add_argument("--weights", type=Path, help="state dict of torchvision's mobilenet_v2")
    parser.add_argument("--output", type=Path, default=Path("segmentation"))
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic cohort and the nets")
    options = parser.parse_args(arguments)
    clock, costs = time.perf_counter(), {}

    def done(stage):
        nonlocal clock
        costs[stage], clock = round(time.perf_counter() - clock, 1), time.perf_counter()
        print(f"{stage}: {costs[stage]:.0f} s", flush=True)

    options.output.mkdir(parents=True, exist_ok=True)
    manifest = options.cohort
    if manifest is None:
        folder = options.output / f"synthetic_cohort_{options.seed}"
        manifest = folder / "cohort.csv"
        if not manifest.exists():
            make_slides(folder, random_state=options.seed, n_jobs=2, verbose=True, overwrite=True)
    try:
        cohort = load_cohort(manifest, classes=options.classes)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(str(error)) from error
    done("cohort" if options.cohort else "synthetic slides")

    embedder = choose_embedder(options.weights)
    normalizer = fit_normalizer(cohort.slides.loc[cohort.labeled])
    embedded = embed_slides(
        cohort.slides["path"].to_dict(),
        embedder,
        options.output / "features",
        magnification=VIEWS,
        size=PATCH,
        normalizer=normalizer,
        mpp=cohort.slides["mpp"].dropna().to_dict(),
        on_error="skip",
        verbose=True,
    )
    done("tissue, reading and embedding")
    rows = {row.Index: row for row in cohort.slides.itertuples() if row.Index in embedded.results}
    read = process_slides(
        {name: (row, embedded.results[name]) for name, row in rows.items()},
        lambda entry: tile(*entry, cohort.classes),
        on_error="skip",
    )
    tiles = read.results
    cohort = replace(cohort, slides=cohort.slides.loc[list(tiles)])
    done("overviews and outlines")

    folds = cross_validate_slides(tiles, cohort, options.seed)
    done("cross-validation")

    print("Fitting both systems on all outlined slides", flush=True)
    proposer = fit_proposer(tiles, cohort.labeled, cohort.classes, len(VIEWS))
    bags = make_bags_of(tiles, cohort.bags, proposer, cohort.proportions)
    systems = fit_systems(tiles, cohort.labeled, bags, cohort.classes, options.seed)
    done("fit")

    X, y, groups = labelled_patches(tiles, cohort.test, cohort.classes)
    on_test = pd.DataFrame(
        {
            name: scores(model, X, y, groups, cohort.classes, cohort.proportions)
            for name, model in systems.items()
            if len(y)  # test slides may come without outlines
        }
    ).T.rename_axis("system")
    written = [
        write_slide(
            options.output,
            *(slide, tiles[slide], proposer, systems["proposed"], cohort.classes),
            cohort.proportions.loc[slide],
        )
        for slide in tqdm(cohort.test, desc="maps", unit="slide")
    ]
    summaries = [summary for summary, _ in written]
    report(
        options.output / "report.html",
        slides=[page for _, page in written],
        classes=[*cohort.classes, NOT_CANCER],
        metrics=folds,
        history=systems["proposed"].history_,
        history_classes=systems["proposed"].classes_,
        settings=systems["proposed"].get_params(),
    )
    write_table(options.output / "slides.csv", summaries)
    write_table(options.output / "test.csv", on_test.reset_index())
    write_table(options.output / "cross_validation.csv", folds)
    how_read = {"magnification": VIEWS, "size": PATCH, "normalizer": normalizer}
    fitted = {"embedder": embedder, "patches": how_read, "proposer": proposer, **systems}
    joblib.dump(fitted, options.output / "model.joblib")
    done("maps and tables")

    n_patches = sum(len(t.grid) for t in tiles.values())
    print(f"\n{len(tiles)} slides, {n_patches} patches, {bags.n_instances} in {bags.n_bags} bags")
    for failure in [*embedded.failures.values(), *read.failures.values()]:
        print(f"Left out, not readable: {failure}")
    proposals = pd.DataFrame() if proposer is None else compare_proposals(tiles, cohort, proposer)
    if len(proposals):
        write_table(options.output / "proposals.csv", proposals.reset_index())
        print("\nTumour proposals on the test slides")
        print(proposals.round(3).T.to_string())
    print("\nCross-validation over outlined slides (mean +- sd over folds)")
    print(mean_and_spread(folds).to_string())
    print("\nTest slides (patches of all slides pooled)")
    print(on_test.round(3).to_string())
    print("\nTest slides, predicted / recorded per cent (more in slides.csv)")
    print(percentages(summaries, cohort.classes).to_string())
    print(f"\nSeconds by stage: {json.dumps(costs)}")
    n_views = len(VIEWS) * n_patches
    rate = n_views / max(costs["tissue, reading and embedding"], 0.1)
    print(f"Features of {n_views} patches, all magnifications counted, at {rate:.0f} per second")
    print(f"Open {options.output / 'report.html'} in a browser.")
    print(f"Maps (*_labels.png, *_overlay.png, *_truth.png), tables and model in {options.output}")


if __name__ == "__main__":
    main()
