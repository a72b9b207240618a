"""Draw the picture of README from a finished ``proportion-ssl demo``.

python docs/readme_picture.py segmentation docs/_static/segmentation.png
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from proportion_ssl import SlideSegmenter, load_cohort
from proportion_ssl.colors import class_colors
from proportion_ssl.segmenter import standard_systems
from proportion_ssl.segmenter.prediction import models_of
from proportion_ssl.segmenter.slide_features import NON_CANCER
from proportion_ssl.segmenter.training import fit_classifier, make_bags
from proportion_ssl.slides import open_slide, stitch


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("output", type=Path, help="output folder of the demo")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--slide", default="test_04")
    options = parser.parse_args()
    manifest = next(options.output.glob("synthetic_cohort_*/cohort.csv"))
    cohort = load_cohort(manifest)
    robust = SlideSegmenter.load(options.output / "model.segmenter")
    features = options.output / "features"
    data = robust.read_cohort(cohort, features=features)
    bags, _ = make_bags(data, robust.proposer_)
    system = standard_systems(0)["supervised"]
    model = fit_classifier(data, data.labeled, bags, system.classifier, system.records)
    with_records, slide = robust.models_, cohort.slides.at[options.slide, "path"]
    segmented = {}
    for title, models in (
        ("outlined slides only", models_of(model, robust.proposer_)),
        ("with recorded proportions", with_records),
    ):
        robust.models_ = models
        segmented[title] = robust.segment(slide, features=features)
    one = segmented["with recorded proportions"]
    names = [*cohort.classes, NON_CANCER]
    labels = data.outlined[options.slide].labels
    truth = [names.index(label) if label in names else -1 for label in labels]
    maps = {"truth": stitch(np.array(truth), one.grid.cells, one.grid.shape)}
    maps.update({title: each.label_map() for title, each in segmented.items()})
    recorded = cohort.proportions.loc[options.slide]
    draw(slide, maps, names, segmented, recorded, one).savefig(options.picture, dpi=110)


def draw(path, maps, names, segmented, recorded, one):
    """The slide, three maps over it, and bars of the proportions."""
    colors = {name: np.array(color) / 255 for name, color in class_colors(names).items()}
    with open_slide(path) as slide:
        picture = slide.thumbnail(4.0)
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.3), width_ratios=[1, 1, 1, 1, 1.15])
    cell = one.cell_um / (one.mpp[0] * one.dimensions[0] / picture.shape[1])
    for ax, (title, values) in zip(axes, {"slide": None, **maps}.items(), strict=False):
        ax.imshow(picture)
        if values is not None:
            layer = np.zeros((*values.shape, 4))
            for index, name in enumerate(names):
                layer[values == index] = (*colors[name], 0.55)
            extent = (0, values.shape[1] * cell, values.shape[0] * cell, 0)
            ax.imshow(layer, extent=extent, interpolation="nearest")
        ax.set(
            title=title,
            xticks=[],
            yticks=[],
            xlim=(0, picture.shape[1]),
            ylim=(picture.shape[0], 0),
        )
    ax = axes[-1]
    rows = {"recorded": recorded, **{title: each.proportions for title, each in segmented.items()}}
    for row, (title, shares) in enumerate(rows.items()):
        left = 0.0
        for name, share in shares.items():
            ax.barh(row, share, 0.5, left=left, color=colors[name], edgecolor="white")
            left += share
        ax.text(0, row - 0.29, title, fontsize=9, va="bottom")
    ax.set(title="proportions of the cancer", yticks=[], xlim=(0, 1), ylim=(2.4, -0.65))
    ax.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1))
    ax.spines[["top", "right", "left"]].set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colors[name]) for name in names]
    figure.legend(handles, names, ncols=len(names), loc="lower center", frameon=False)
    figure.subplots_adjust(left=0.01, right=0.985, bottom=0.16, top=0.9, wspace=0.06)
    return figure


if __name__ == "__main__":
    main()
