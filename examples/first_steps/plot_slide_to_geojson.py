"""
A slide, from annotation to GeoJSON
===================================

From outlines drawn in QuPath to predicted outlines that QuPath can show. In between, the slide is
divided into patches, each patch gets the class that covers half of it or more, and a classifier is
trained on the patches.
"""

# %%
# Six small synthetic slides as real files: pyramidal TIFFs at 0.5 microns per pixel, with outlines
# in QuPath's GeoJSON. Five slides are for training; the outlines of the sixth are used for
# evaluation only. All six have the same stain and architecture, unlike real slides: the share of
# correct patches below shows that the code works, and says nothing about accuracy on real slides.
import json
import tempfile
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from proportion_ssl import (
    NegativePseudoLabelClassifier,
    PatchEmbedder,
    load_cohort,
    overall_pixel_score,
)
from proportion_ssl.datasets import make_slides
from proportion_ssl.embedding import RandomFilterFeatures
from proportion_ssl.slides import (
    SlidePatches,
    class_fractions,
    open_slide,
    overlay_picture,
    patch_labels,
    prediction_regions,
    read_annotations,
    tissue_grid,
    write_geojson,
)

folder = Path(tempfile.mkdtemp())
manifest = make_slides(
    *(folder,),
    n_labeled=5,
    n_bags=0,
    n_test=1,
    slide_size=2240,
    stain_variation=0.0,
    architecture_variation=0.0,
    random_state=4,
)
cohort = load_cohort(manifest)
NAMES = [*cohort.classes, "non-cancer"]

# %%
# Patches of 112 pixels at 10x, only where there is tissue. Each gets the class that covers half of
# it or more. A patch without such a class, or with more than a quarter "vague", gets no label.
# Features come from random filters, which need no download; for real slides use
# ``PatchEmbedder()``, a MobileNetV2 with ImageNet weights.
embedder = PatchEmbedder(module=RandomFilterFeatures())


def read(name):
    """Grid, features, labels and thumbnail of a slide."""
    row = cohort.slides.loc[name]
    with open_slide(row.path) as slide:
        grid = tissue_grid(slide, slide.grid(magnification=10, size=112))
        regions = read_annotations(row.annotation)
        fractions = class_fractions(regions, grid, NAMES)
        labels = patch_labels(fractions.fractions, NAMES, ignored=fractions.ignored)
        features = embedder.transform(SlidePatches(slide, grid))
        return grid, features, labels, slide.thumbnail(4.0), slide.dimensions, slide.mpp


slides = {name: read(name) for name in [*cohort.labeled, *cohort.test]}
for name, (grid, _, labels, *_) in slides.items():
    counts = Counter(str(label) for label in labels)
    print(f"{name}: {len(grid)} patches;", ", ".join(f"{k} {v}" for k, v in counts.most_common()))

# %%
# Train on the five outlined slides and predict the sixth.
X = np.concatenate([slides[name][1] for name in cohort.labeled])
y = np.concatenate([slides[name][2] for name in cohort.labeled])
known = y != None  # noqa: E711 - element by element
model = NegativePseudoLabelClassifier(random_state=0).fit(X[known], y[known].astype(str))

name = cohort.test[0]
grid, features, truth, thumbnail, dimensions, mpp = slides[name]
probabilities = model.predict_proba(features)
predicted = model.classes_[probabilities.argmax(axis=1)]
judged = truth != None  # noqa: E711
right = overall_pixel_score(truth[judged].astype(str), predicted[judged])
print(f"{right:.0%} of the patches of {name} are correct")

# %%
# Neighboring patches of one class are merged to regions. Drag the file onto the slide in QuPath:
# every region has a class, color, area and mean probability.
order = [list(model.classes_).index(c) for c in NAMES if c in model.classes_]
names = [NAMES[i] for i in range(len(NAMES)) if NAMES[i] in model.classes_]
regions = prediction_regions(
    predicted.tolist(), grid, names, mpp=mpp, probabilities=probabilities[:, order]
)
write_geojson(folder / "prediction.geojson", regions)
feature = json.loads((folder / "prediction.geojson").read_text())["features"][0]
print(len(regions), "regions; the first:", json.dumps(feature["properties"])[:300])
assert sum(r.geometry.area for r in read_annotations(folder / "prediction.geojson")) > 0

pictures = {
    "slide": Image.fromarray(np.asarray(thumbnail)),
    "outlined": overlay_picture(thumbnail, dimensions, list(truth), grid, NAMES),
    f"predicted ({right:.0%} correct)": overlay_picture(
        thumbnail, dimensions, predicted.tolist(), grid, NAMES
    ),
}
widths = [picture.width for picture in pictures.values()]  # overlays have a legend beside them
figure, axes = plt.subplots(
    *(1, 3), figsize=(11, 3.4), layout="constrained", gridspec_kw={"width_ratios": widths}
)
for ax, (title, picture) in zip(axes, pictures.items(), strict=True):
    ax.imshow(picture)
    ax.set_title(title)
    ax.set_axis_off()
plt.show()
