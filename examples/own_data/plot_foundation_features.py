"""
Features of a foundation model, from HDF5 files
===============================================

If you already have features of a foundation model, in one HDF5 file per slide as CLAM and TRIDENT
write them, no slide has to be embedded: read the features, group them into bags, and fit.
"""

# %%
# Such a folder, simulated: 24 slides with 256 features per patch. (Real files have 768 to 2560
# features and thousands of patches.) Half of the files are written by this package, half in CLAM's
# layout.
import tempfile
from pathlib import Path

import h5py
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from proportion_ssl import Bags, NegativePseudoLabelClassifier, bag_proportion_error, mean_iou_score
from proportion_ssl.datasets import make_bags
from proportion_ssl.proportions import class_proportions
from proportion_ssl.slides import patch_grid, read_features, stitch, write_features

CLASSES = np.array(["acinar", "lepidic", "papillary", "solid"])
folder = Path(tempfile.mkdtemp())
grid = patch_grid((3584, 2688), mpp=0.5, magnification=10)  # 8 x 6 patches of 224 pixels at 10x
data = make_bags(
    *(16,), bag_size=48, n_features=256, class_separation=0.25, slide_shift=0.5, random_state=1
)
true = {}
for parts in (
    (data.X_labeled, data.y, data.groups),
    (data.bags.X, data.y_bags, data.bags.names[data.bags.index]),
    (data.X_test[: 4 * 48], data.y_test[: 4 * 48], data.groups_test[: 4 * 48]),
):
    for number in np.unique(parts[2]):
        rows = parts[2] == number
        slide, order = f"slide_{number:02d}", np.argsort(parts[1][rows], kind="stable")
        features, true[slide] = parts[0][rows][order], CLASSES[parts[1][rows][order]]
        path = folder / f"{slide}.h5"
        if number % 2:
            write_features(
                *(path, features, grid),
                name=slide,
                dimensions=(3584, 2688),
                mpp=0.5,
                settings={"model": "my foundation model", "version": 2},
            )
        else:
            with h5py.File(path, "w") as file:
                file["features"], file["coords"] = features, grid.locations

# %%
# One function reads both. ``settings`` describes the encoder, if the file states it. With
# ``expected=``, a file of another encoder is an error.
stored = {path.stem: read_features(path) for path in sorted(folder.glob("*.h5"))}
for slide in ("slide_01", "slide_02"):
    print(slide, stored[slide].features.shape, stored[slide].settings)
try:
    read_features(folder / "slide_01.h5", expected={"model": "another one"})
except ValueError as error:
    print("refused:", str(error).split(": ", 1)[1])

# %%
# Four slides are outlined, sixteen have reported proportions (here: exact shares, in a table with
# one row per slide), and four are test slides. The features need no scaling, since the head
# standardizes them.
labeled = [f"slide_{number:02d}" for number in range(4)]
weak = [f"slide_{number:02d}" for number in range(4, 20)]
test = [f"slide_{number:02d}" for number in range(20, 24)]
reports = pd.DataFrame({s: [np.mean(true[s] == c) for c in CLASSES] for s in true}, index=CLASSES).T
print(reports.loc[weak[:3]].map("{:.0%}".format).to_string())

X = np.concatenate([stored[slide].features for slide in labeled])
y = np.concatenate([true[slide] for slide in labeled])
bags = Bags([stored[slide].features for slide in weak], weak, reports.loc[weak])
supervised = NegativePseudoLabelClassifier(max_epochs=30, random_state=0).fit(X, y)
proposed = NegativePseudoLabelClassifier(max_epochs=30, random_state=0).fit(X, y, bags)

# %%
# Mean IoU on the four test slides, and the error of their predicted proportions.
X_test = np.concatenate([stored[slide].features for slide in test])
y_test, ids = np.concatenate([true[s] for s in test]), np.repeat(test, 48)
for name, model in (("supervised", supervised), ("proposed", proposed)):
    predicted = model.predict(X_test)
    error = bag_proportion_error(reports.loc[test], predicted, bag_ids=ids, labels=CLASSES)
    score = mean_iou_score(y_test, predicted)
    print(f"{name:10} mean IoU {score:.3f}, error of the proportions {error:.3f}")

# %%
# Maps of the predictions, from the coordinates in the files. The patches of these slides are sorted
# by class, so that errors are easy to see.
figure, axes = plt.subplots(3, 4, figsize=(9, 5.2), layout="constrained")
shown = (
    ("true", true),
    ("supervised", {s: supervised.predict(stored[s].features) for s in test}),
    ("proposed", {s: proposed.predict(stored[s].features) for s in test}),
)
for row, (name, labels) in zip(axes, shown, strict=True):
    for ax, slide in zip(row, test, strict=True):
        codes = np.searchsorted(CLASSES, labels[slide])
        ax.imshow(stitch(codes, grid.cells, grid.shape), cmap="viridis", vmin=0, vmax=3)
        ax.set_xticks([], [])
        ax.set_yticks([], [])
        if name == "true":
            ax.set_title(slide, fontsize=10)
            continue
        shares = class_proportions(codes, np.zeros(48, int), n_bags=1, n_classes=4)[0]
        off = np.abs(shares - reports.loc[slide]).sum()
        ax.set_xlabel(f"{np.mean(labels[slide] == true[slide]):.0%} correct, SAE {off:.2f}")
    row[0].set_ylabel(name)
swatches = [plt.Rectangle((0, 0), 1, 1, color=plt.get_cmap("viridis")(i / 3)) for i in range(4)]
figure.legend(swatches, CLASSES, loc="outside lower center", ncols=4, frameon=False)
plt.show()
