"""Segment whole slides by subtype, from a few outlined slides and many with proportions only.

The steps of ``proportion-ssl run cohort.csv`` in Python. Without a manifest, a synthetic
cohort is written first:

    python examples/segment_slides.py [cohort.csv] [mobilenet_v2.pth]
"""

# %%
import sys
from pathlib import Path

from proportion_ssl import PatchEmbedder, SlideSegmenter, load_cohort
from proportion_ssl.datasets import make_slides
from proportion_ssl.embedding import RandomFilterFeatures
from proportion_ssl.segmenter import standard_systems

output = Path("segmentation")
manifest = Path(sys.argv[1]) if len(sys.argv) > 1 else None
if manifest is None:
    manifest = make_slides(output / "synthetic", random_state=0, n_jobs=2, overwrite=True)

# Random filters are enough for a demonstration; slides of patients need pretrained weights.
weights = sys.argv[2] if len(sys.argv) > 2 else None
embedder = (
    PatchEmbedder(weights=weights) if weights else PatchEmbedder(module=RandomFilterFeatures())
)

# %% Fit on outlined and recorded slides; features are kept for a second run
cohort = load_cohort(manifest)
segmenter = SlideSegmenter(embedder=embedder, random_state=0, n_jobs=2, verbose=True)
data = segmenter.read_cohort(cohort, features=output / "features")
segmenter.fit_features(data)
print("slides that failed:", list(segmenter.failures_) or "none")
print("outlined windows without tissue:\n", segmenter.dropped_.round(2).to_string())

# %% Scores: cases left out in turn, and the test slides
systems = standard_systems(random_state=0)
scores = segmenter.cross_validate_features(data, systems=systems)
print(scores.groupby("system")[["OP", "mIoU", "proportion_error"]].mean().round(3).to_string())
print(segmenter.evaluate_features(data, cohort.test).by_slide.round(3).to_string())

# %% Maps, outlines for QuPath and tables of the test slides
run = segmenter.segment_cohort(cohort, output / "slides", features=output / "features")
for name, segmentation in run.results.items():
    print(name, segmentation.proportions.round(2).to_dict())

# %% The model file, which is all that a new slide needs
segmenter.save(output / "model.segmenter")
again = SlideSegmenter.load(output / "model.segmenter")
print(again.segment(cohort.slides.at[cohort.test[0], "path"]).proportions.round(2).to_dict())
