"""Draw the diagrams and plots of the guide that no example draws; ``conf.py`` does so for every build.

python docs/pictures.py docs/_pictures
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.ticker import PercentFormatter

from proportion_ssl.colors import class_colors
from proportion_ssl.displays import SelectivityDisplay
from proportion_ssl.evaluation import conformal_errors, conformal_intervals
from proportion_ssl.nets import HeadClassifier
from proportion_ssl.segmenter import smooth_probabilities

INK, GREEN, BLUE, ORANGE, WHITE = "#222222", "#d9ead3", "#d6e6f4", "#fce5cd", "#ffffff"

#: Steps of the pages per tool: files, how they are read, what learns, what is written and opened where.
NEIGHBORS = {
    "trident": (
        ("TRIDENT", "features_uni_v1/", "NAME.h5"),
        ("read", "cohort.csv,", "outlines, features"),
        ("learn", "SlideSegmenter", ".fit"),
        ("write", "segment_cohort:", "NAME.geojson"),
        ("QuPath", "drag onto", "the slide"),
    ),
    "clam": (
        ("CLAM", "pt_files/NAME.pt", "patches/NAME.h5"),
        ("read", "read_features", "(..., mpp=...)"),
        ("learn", "fit(X, y, bags)", "predict_proba"),
        ("write", "prediction_regions", "write_geojson"),
        ("QuPath", "drag onto", "the slide"),
    ),
    "stamp": (
        ("STAMP", "uni2-1a2b3c4d/", "NAME.h5"),
        ("read", "FeatureSequence", "read_features"),
        ("learn", "fit(X, y, bags)", "predict_proba"),
        ("write", "prediction_regions", "write_geojson"),
        ("QuPath", "drag onto", "the slide"),
    ),
    "more_features": (
        ("other features", "slideflow, eva,", "torchmil, NumPy"),
        ("read", "read_features", "(..., coords=...)"),
        ("learn", "fit(X, y, bags)", "predict_proba"),
        ("write", "prediction_regions", "write_geojson"),
        ("QuPath", "drag onto", "the slide"),
    ),
    "lazyslide": (
        ("LazySlide", "feature table", "uni_tiles"),
        ("read", "read_wsi_tiles", "(wsi, \"uni\")"),
        ("learn", "fit(X, y, bags)", "predict_proba"),
        ("write", "write_wsi_", "predictions"),
        ("LazySlide", "zs.pl.tiles", "wsi.write"),
    ),
    "qupath": (
        ("QuPath", "outlines:", "export GeoJSON"),
        ("read", "read_annotations", "patch_labels"),
        ("learn", "fit(X, y, bags)", "predict_proba"),
        ("write", "prediction_regions", "write_geojson"),
        ("QuPath", "areas, or tiles", "with probabilities"),
    ),
    "tiatoolbox": (
        ("slides", "SVS, NDPI,", "MRXS, TIFF, ..."),
        ("read", "open_slide", "PatchEmbedder"),
        ("learn", "fit(X, y, bags)", "predict_proba"),
        ("write", "write_annotation_", "store, write_zarr"),
        ("TIAToolbox", "SQLiteStore,", "visualization"),
    ),
}  # fmt: skip


def draw(folder):
    """Write every picture of the guide to a folder, and return their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {f"from_{name}": neighbor(steps) for name, steps in NEIGHBORS.items()}
    figures |= {
        name: make()
        for name, make in {
            "overview": overview,
            "neighbors": neighbors,
            "sizes": sizes,
            "decision": decision,
            "commands": commands,
            "rounds": rounds,
            "example_bag": example_bag,
            "defaults": defaults,
            "sums": sums,
            "questions": questions,
        }.items()
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=130)
    return sorted(folder / f"{name}.png" for name in figures)


# Boxes and arrows


def canvas(width, height):
    """Figure and axes whose unit is an inch."""
    figure = Figure(figsize=(width, height), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(0, height))
    ax.set_axis_off()
    return figure, ax


def box(ax, x, y, width, height, lines, color, bold=True, size=13):
    """A box around its center (x, y); the first line is a title."""
    corner = (x - width / 2, y - height / 2)
    style = "round,pad=0,rounding_size=0.08"
    patch = FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=color, edgecolor=INK)
    ax.add_patch(patch)
    step = 0.02 * size
    for i, line in enumerate(lines):
        weight = "bold" if bold and i == 0 else "normal"
        below = (len(lines) - 1) / 2 - i
        text = {"ha": "center", "va": "center", "fontsize": size, "color": INK}
        ax.text(x, y + below * step, line, fontweight=weight, **text)


def arrow(ax, start, end, label=None, bend=0.0, shift=(0.0, 0.12)):
    """An arrow with words beside its middle."""
    style = {"arrowstyle": "-|>", "mutation_scale": 16, "linewidth": 1.6, "color": INK}
    curve = f"arc3,rad={bend}"
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle=curve, shrinkA=0, shrinkB=0, **style))
    if label:
        x, y = (np.array(start) + end) / 2 + shift
        ax.text(x, y, label, ha="center", va="center", fontsize=12, color=INK)


def neighbor(steps):
    """Files of another program, the functions between, and the program that shows the result."""
    figure, ax = canvas(5.6, 2.3)
    width, height = 1.68, 0.92
    places = ((0.9, 1.72), (2.8, 1.72), (4.7, 1.72), (4.7, 0.55), (2.8, 0.55))
    colors = (ORANGE, BLUE, GREEN, BLUE, ORANGE)
    for (x, y), lines, color in zip(places, steps, colors, strict=True):
        box(ax, x, y, width, height, lines, color, size=11.5)
    for (x, y), (to_x, to_y) in pairwise(places):
        across, down = np.sign(to_x - x) * width / 2, np.sign(to_y - y) * height / 2
        arrow(ax, (x + across, y + down), (to_x - across, to_y - down))
    return figure


def overview():
    """What goes in and what comes out."""
    figure, ax = canvas(8.4, 3.1)
    inputs = (
        ("slides, or features", "of another program"),
        ("outlines", "of a few slides"),
        ("percentages", "of many slides"),
    )
    outputs = (
        ("maps", "GeoJSON, TIFF, PNG"),
        ("percentages", "with intervals"),
        ("report", "scores, doubtful slides"),
    )
    for y, there, here in zip((2.6, 1.55, 0.5), inputs, outputs, strict=True):
        box(ax, 1.28, y, 2.45, 0.85, there, ORANGE)
        box(ax, 7.12, y, 2.45, 0.85, here, GREEN)
        bend = 0.12 * np.sign(y - 1.55)
        arrow(ax, (2.55, y), (3.15, 1.55 + 0.25 * np.sign(y - 1.55)), bend=-bend)
        arrow(ax, (5.25, 1.55 + 0.25 * np.sign(y - 1.55)), (5.85, y), bend=-bend)
    box(ax, 4.2, 1.55, 2.0, 1.5, ("one classifier", "of patches,", "trained on both"), BLUE)
    return figure


def neighbors():
    """Programs whose files are read, and programs that open what is written."""
    figure, ax = canvas(8.4, 3.1)
    inputs = (
        ("features", "TRIDENT, CLAM, STAMP,", "slideflow, eva, torchmil"),
        ("objects", "LazySlide, AnnData;", "encoders of timm"),
        ("outlines", "QuPath, ASAP, HALO,", "ImageScope, NDP.view, ..."),
    )
    outputs = (
        ("GeoJSON", "QuPath, geopandas"),
        ("stores", "TIAToolbox, LazySlide,", "Digital Slide Archive"),
        ("rasters, tables", "OME-TIFF, zarr, WSInfer"),
    )
    for y, there, here in zip((2.55, 1.55, 0.55), inputs, outputs, strict=True):
        box(ax, 1.36, y, 2.6, 0.9, there, ORANGE, size=12)
        box(ax, 7.04, y, 2.6, 0.9, here, GREEN, size=12)
        arrow(ax, (2.68, y), (3.28, 1.55 + 0.25 * np.sign(y - 1.55)))
        arrow(ax, (5.12, 1.55 + 0.25 * np.sign(y - 1.55)), (5.72, y))
    box(ax, 4.2, 1.55, 1.8, 1.3, ("proportion_ssl", "fit, predict"), BLUE)
    return figure


def decision():
    """Which class for which data."""
    figure, ax = canvas(8.4, 4.2)
    box(ax, 4.2, 3.85, 3.3, 0.5, ("What do you have?",), WHITE)
    questions = (
        (1.3, ("slides, or feature", "files of another", "program")),
        (4.2, ("arrays of", "features")),
        (7.1, ("images of patches,", "layers to be", "fine-tuned")),
    )
    for x, lines in questions:
        arrow(ax, (4.2 + (x - 4.2) * 0.5, 3.6), (x, 2.95))
        box(ax, x, 2.5, 2.3, 0.9, lines, ORANGE, bold=False)
    box(ax, 1.3, 0.6, 2.45, 0.95, ("SlideSegmenter", "proportion-ssl run"), GREEN, size=12)
    box(ax, 4.2, 0.6, 2.75, 0.95, ("RobustProportion", "Classifier"), GREEN, size=12)
    box(ax, 7.1, 0.6, 2.5, 0.95, ("NegativePseudoLabel", "Classifier"), GREEN, size=12)
    for x in (1.3, 4.2, 7.1):
        arrow(ax, (x, 2.05), (x, 1.08))
    arrow(ax, (5.0, 2.05), (6.5, 1.08))
    words = {"va": "center", "fontsize": 10.5, "color": INK}
    ax.text(4.1, 1.57, "rough or wrong\npercentages", ha="right", **words)
    ax.text(5.75, 1.3, "published\nmethod", ha="right", **words)
    return figure


def commands():
    """Files and commands of a cohort."""
    figure, ax = canvas(8.4, 2.75)
    for y, lines in (
        (2.3, ("cohort.csv",)),
        (1.55, ("slides/", "or features")),
        (0.8, ("outlines/",)),
    ):
        box(ax, 0.85, y, 1.5, 0.62, lines, ORANGE, size=12)
        arrow(ax, (1.62, y), (2.1, 1.55 + 0.2 * np.sign(y - 1.55)))
    box(ax, 2.75, 1.55, 1.25, 0.9, ("check", "all problems", "at once"), BLUE, size=12)
    arrow(ax, (3.4, 1.55), (3.8, 1.55))
    box(ax, 4.42, 1.55, 1.2, 0.9, ("run", "train, test,", "map"), BLUE, size=12)
    results = (("report.html",), ("slides/", "maps, GeoJSON"), ("model.segmenter",))
    for y, lines in zip((2.3, 1.55, 0.8), results, strict=True):
        box(ax, 6.2, y, 1.7, 0.62, lines, GREEN, size=11.5)
        arrow(ax, (5.04, 1.55 + 0.2 * np.sign(y - 1.55)), (5.33, y))
    box(ax, 7.78, 0.8, 0.95, 0.62, ("apply",), BLUE, size=12)
    box(ax, 7.78, 2.1, 0.95, 0.75, ("maps of", "new slides"), GREEN, bold=False, size=11.5)
    arrow(ax, (7.07, 0.8), (7.29, 0.8))
    arrow(ax, (7.78, 1.13), (7.78, 1.7))
    box(ax, 4.2, 0.3, 1.7, 0.42, ("features/ (kept)",), WHITE, bold=False, size=11.5)
    arrow(ax, (4.42, 1.08), (4.42, 0.53))
    return figure


def rounds():
    """The loop of negative pseudo labeling."""
    figure, ax = canvas(8.4, 3.0)
    box(ax, 1.1, 2.35, 2.0, 0.9, ("1  fit", "on labeled patches"), ORANGE)
    box(ax, 4.2, 2.35, 2.2, 0.9, ("2  predict bags", "compare proportions"), BLUE)
    box(ax, 7.25, 2.35, 2.1, 0.9, ("3  positive labels", "most confident"), GREEN)
    box(ax, 7.25, 0.65, 2.1, 0.9, ("4  negative labels", "least confident"), GREEN)
    box(ax, 4.2, 0.65, 2.2, 0.9, ("5  train", "on all labels"), ORANGE)
    arrow(ax, (2.12, 2.35), (3.08, 2.35))
    arrow(ax, (5.32, 2.35), (6.18, 2.35), "error", shift=(0, 0.15))
    arrow(ax, (7.25, 1.88), (7.25, 1.12))
    arrow(ax, (6.18, 0.65), (5.32, 0.65))
    arrow(ax, (4.2, 1.12), (4.2, 1.88), "next round", shift=(0.55, 0))
    return figure


def sums():
    """One round over files: bags go to workers, sums come back."""
    figure, ax = canvas(8.4, 2.7)
    for y in (2.25, 1.35, 0.45):
        box(ax, 0.85, y, 1.5, 0.62, ("features", "of one slide"), ORANGE, bold=False, size=12)
        arrow(ax, (1.62, y), (2.15, y))
        box(ax, 3.25, y, 2.15, 0.62, ("worker", "predict, label, add up"), BLUE, size=12)
        arrow(ax, (4.35, y), (5.0, 1.35 + 0.2 * np.sign(y - 1.35)))
    box(ax, 5.75, 1.35, 1.45, 0.9, ("sums", "moments", "by class"), WHITE, size=12)
    arrow(ax, (6.5, 1.35), (6.95, 1.35))
    box(ax, 7.62, 1.35, 1.3, 0.9, ("new head", "solved in", "closed form"), GREEN, size=12)
    ax.plot([7.62, 7.62], [0.9, 0.3], color=INK, linewidth=1.6)
    arrow(ax, (7.62, 0.3), (4.33, 0.3))
    ax.text(6.3, 0.46, "next round", ha="center", va="center", fontsize=12, color=INK)
    return figure


# Plots


def sizes():
    """Disk space of an environment, as the page of the installation states it."""
    names = (
        "CUDA build of PyTorch",
        "the same without triton",
        "CPU build of PyTorch",
        "no PyTorch: apply only",
    )
    values = (6.0, 5.0, 1.3, 0.6)
    figure = Figure(figsize=(8, 2.3), layout="constrained", facecolor="white")
    ax = figure.subplots()
    ax.barh(names, values, color=["#9aa7b5", "#9aa7b5", "#0072b2", "#0072b2"])
    for row, value in enumerate(values):
        ax.text(value + 0.08, row, f"{value:g} GB", va="center", fontsize=12)
    ax.invert_yaxis()
    ax.set(xlim=(0, 7), xticks=[])
    ax.tick_params(axis="y", length=0, labelsize=12)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    return figure


def example_bag():
    """The worked example of the page about the method."""
    figure = Figure(figsize=(7.4, 3.4), layout="constrained", facecolor="white")
    colors = {
        name: np.array(color) / 255 for name, color in class_colors(["acinar", "solid"]).items()
    }
    SelectivityDisplay.from_predictions(
        [0.5, 0.5], [0.75, 0.25], classes=["acinar", "solid"], colors=colors, ax=figure.subplots()
    )
    return figure


def defaults():
    """Learning rate and weight decay that nets take by default, read from nets of many widths."""
    widths = (32, 128, 512, 1280, 2560)
    rates, decays = [], []
    for width in widths:
        net = HeadClassifier(max_epochs=1, random_state=0)
        net.fit(np.eye(8, width, dtype=np.float32), [0, 1] * 4)
        groups = net.optimizer_.param_groups
        rates.append(groups[0]["lr"])
        decays.append(max(group["weight_decay"] for group in groups))
    figure = Figure(figsize=(8, 2.9), layout="constrained", facecolor="white")
    for ax, values, title in zip(
        figure.subplots(1, 2), (rates, decays), ("learning rate", "weight decay"), strict=True
    ):
        ax.plot(widths, values, marker="o", color="#0072b2")
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.minorticks_off()
        ax.set_xticks(widths, widths, fontsize=11)
        ax.set_yticks(values, [f"{value:.2g}" for value in values], fontsize=11)
        ax.set_xlabel("features per patch", fontsize=12)
        ax.set_title(title, fontsize=13)
        ax.grid(alpha=0.3)
    return figure


def questions():
    """A map of single patches, smoothed, the probability of one class, and percentages with intervals."""
    names = ["acinar", "lepidic", "solid"]
    colors = np.array(list(class_colors(names).values())) / 255
    rng = np.random.default_rng(5)
    rows, columns = np.divmod(np.arange(18 * 22), 22)
    truth = np.where(rows + 0.4 * columns < 9, 0, np.where(columns < 12, 1, 2))
    logits = 1.2 * np.eye(3)[truth] + rng.normal(0, 0.9, (len(truth), 3))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    smooth = smooth_probabilities(np.column_stack([rows, columns]), probabilities, 0.3)
    figure = Figure(figsize=(8.4, 2.7), layout="constrained", facecolor="white")
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1, 0.8))
    for ax, values, title in zip(
        axes, (probabilities, smooth), ("single patches", "with neighbors"), strict=False
    ):
        ax.imshow(colors[values.argmax(axis=1)].reshape(18, 22, 3))
        ax.set_title(title, fontsize=12)
    axes[2].imshow(probabilities[:, 2].reshape(18, 22), cmap="viridis", vmin=0, vmax=1)
    axes[2].set_title("probability of solid", fontsize=12)
    for ax in axes[:3]:
        ax.set(xticks=[], yticks=[])
    shares = np.bincount(smooth.argmax(axis=1), minlength=3)[np.newaxis] / len(smooth)
    recorded = rng.dirichlet([2, 2, 2], 40)
    off = np.clip(recorded + rng.normal(0, 0.06, recorded.shape), 0.01, None)
    off /= off.sum(axis=1, keepdims=True)
    low, high = conformal_intervals(shares, conformal_errors(off, recorded, recorded))
    shares = shares[0]
    axes[3].bar(names, shares, color=colors, alpha=0.6, edgecolor="black")
    axes[3].errorbar(
        names, shares, yerr=(shares - low[0], high[0] - shares), fmt="none", ecolor=INK, capsize=4
    )
    axes[3].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[3].tick_params(axis="x", labelsize=10, rotation=35)
    axes[3].set_title("90% intervals", fontsize=12)
    axes[3].spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    draw(sys.argv[1])
