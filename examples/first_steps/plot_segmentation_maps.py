"""
Slides, maps and proportions
============================

Four plots to look at before any score: a slide beside its true and predicted classes (the paper's
Figure 5), maps of several systems (Figure 6), predicted against recorded proportions of every
slide, and the confusion matrix.
"""

# %%
# A small synthetic cohort, written to files: four outlined slides, eight slides with recorded
# proportions only, and two test slides. Stains differ little, as after normalization. Here the
# outlines of all slides are used to keep tumor patches only; without outlines, a classifier
# proposes the tumor patches (``examples/segment_slides.py``). Features come from random filters,
# which need no download.
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.metrics import ConfusionMatrixDisplay

from proportion_ssl import (
    Bags,
    NegativePseudoLabelClassifier,
    PatchEmbedder,
    load_cohort,
    mean_iou_score,
)
from proportion_ssl.datasets import make_slides
from proportion_ssl.displays import ProportionDisplay, SegmentationDisplay
from proportion_ssl.embedding import RandomFilterFeatures
from proportion_ssl.slides import (
    SlidePatches,
    class_fractions,
    open_slide,
    patch_labels,
    read_annotations,
    stitch,
)

N_OUTLINED, N_BAGS, N_TEST = 4, 8, 2
manifest = make_slides(
    Path(tempfile.mkdtemp()),
    n_labeled=N_OUTLINED + N_BAGS,
    n_bags=0,
    n_test=N_TEST,
    slide_size=2016,
    stain_variation=0.2,
    architecture_variation=0.5,
    random_state=1,
)
cohort = load_cohort(manifest)
CLASSES = list(cohort.classes)
embedder = PatchEmbedder(module=RandomFilterFeatures())


def read(name):
    """Grid, classes and features of the tumor patches of a slide, and its thumbnail."""
    row = cohort.slides.loc[name]
    with open_slide(row.path) as slide:
        grid = slide.grid(magnification=10, size=112)
        fractions = class_fractions(
            read_annotations(row.annotation), grid, [*CLASSES, "non-cancer"]
        )
        labels = patch_labels(
            fractions.fractions, [*CLASSES, "non-cancer"], ignored=fractions.ignored
        )
        tumor = np.isin(labels.astype(str), CLASSES)
        grid = grid[tumor]
        features = embedder.transform(SlidePatches(slide, grid))
        return grid, labels[tumor].astype(str), features, slide.thumbnail(4.0)


slides = {name: read(name) for name in [*cohort.labeled, *cohort.test]}
outlined, weak = cohort.labeled[:N_OUTLINED], cohort.labeled[N_OUTLINED:]
recorded = pd.DataFrame(
    [[np.mean(slides[name][1] == c) for c in CLASSES] for name in weak], index=weak, columns=CLASSES
)
print(recorded.round(2))

# %%
# Two systems: one that learns from the four outlined slides alone, one that also uses the
# proportions.
X = np.concatenate([slides[name][2] for name in outlined])
y = np.concatenate([slides[name][1] for name in outlined])
bags = Bags(
    np.concatenate([slides[name][2] for name in weak]),
    np.repeat(weak, [len(slides[name][1]) for name in weak]),
    recorded,
)
systems = {
    "supervised": NegativePseudoLabelClassifier(random_state=0).fit(X, y),
    "proposed": NegativePseudoLabelClassifier(random_state=0).fit(X, y, bags),
}

# %%
# Figures 5 and 6: the slide, the truth, and the maps of both systems, in the colors of the paper.
# The scale bar is computed from the size of a patch, 112 pixels at 10x.
for name in cohort.test:
    grid, truth, features, thumbnail = slides[name]

    def as_map(labels, grid=grid):
        codes = [CLASSES.index(label) for label in labels]
        return stitch(codes, grid.cells, grid.shape)

    predictions = {system: model.predict(features) for system, model in systems.items()}
    scores = {system: mean_iou_score(truth, labels) for system, labels in predictions.items()}
    print(name, {system: round(score, 2) for system, score in scores.items()})
    display = SegmentationDisplay.from_predictions(
        as_map(truth),
        {f"{s} (mIoU {scores[s]:.2f})": as_map(labels) for s, labels in predictions.items()},
        classes=CLASSES,
        thumbnail=thumbnail,
        cell_pixels=112 * grid.mpp / 4.0,
        patch_um=112 * grid.mpp,
    )

# %%
# The same in colors that are distinguishable with any color vision.
display.plot(colors="colorblind")

# %%
# Recorded and predicted proportions of the eight slides: bars per slide, and one point per slide
# and class. The distance from the diagonal is the error. The second system was trained to agree
# with these records; the maps above show how it predicts slides that it was not trained on.
for model in systems.values():
    ProportionDisplay.from_estimator(model, bags)

# %%
# The confusion matrix of the test slides, with scikit-learn's own display.
truth = np.concatenate([slides[name][1] for name in cohort.test])
features = np.concatenate([slides[name][2] for name in cohort.test])
figure, axes = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
for ax, (system, model) in zip(axes, systems.items(), strict=True):
    ConfusionMatrixDisplay.from_predictions(
        *(truth, model.predict(features)),
        labels=CLASSES,
        normalize="true",
        values_format=".2f",
        xticks_rotation=40,
        colorbar=False,
        ax=ax,
    )
    ax.set_title(system)
plt.show()
