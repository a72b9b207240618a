"""Whole slides: reading, patches, tissue, stain, annotations, and writing of predictions."""

from proportion_ssl.slides.annotations._dropped import dropped_share
from proportion_ssl.slides.annotations.read import (
    AnnotationError,
    ClassFractions,
    Region,
    class_fractions,
    patch_labels,
    read_annotations,
    read_label_map,
)
from proportion_ssl.slides.features.batch import (
    CohortError,
    CohortRun,
    SlideFailure,
    process_slides,
)
from proportion_ssl.slides.features.embed import embed_slides
from proportion_ssl.slides.features.files import (
    FeatureFileError,
    PatchFeatures,
    file_fingerprint,
    read_features,
    write_features,
)
from proportion_ssl.slides.features.folder import find_features
from proportion_ssl.slides.features.scverse import read_wsi_tiles, write_wsi_predictions
from proportion_ssl.slides.features.sequence import FeatureSequence
from proportion_ssl.slides.grid import MPP_AT_1X, PatchGrid, magnification_to_mpp, patch_grid
from proportion_ssl.slides.maps.write import (
    label_picture,
    overlay_picture,
    prediction_regions,
    slide_summary,
    write_annotation_store,
    write_dsa,
    write_geojson,
    write_label_map,
    write_picture,
    write_probability_map,
    write_table,
    write_wsinfer,
    write_zarr,
)
from proportion_ssl.slides.patches.mosaic import stitch, unstitch
from proportion_ssl.slides.patches.sequences import PatchSequence, SlidePatches
from proportion_ssl.slides.patches.stain import (
    MacenkoNormalizer,
    NormalizedPatches,
    ReinhardNormalizer,
)
from proportion_ssl.slides.patches.tissue import ink_mask, tissue_fraction, tissue_grid, tissue_mask
from proportion_ssl.slides.reading.slide import NoTissueError, Slide, SlideError, open_slide

__all__ = [
    "MPP_AT_1X",
    "AnnotationError",
    "ClassFractions",
    "CohortError",
    "CohortRun",
    "FeatureFileError",
    "FeatureSequence",
    "MacenkoNormalizer",
    "NoTissueError",
    "NormalizedPatches",
    "PatchFeatures",
    "PatchGrid",
    "PatchSequence",
    "Region",
    "ReinhardNormalizer",
    "Slide",
    "SlideError",
    "SlideFailure",
    "SlidePatches",
    "class_fractions",
    "dropped_share",
    "embed_slides",
    "file_fingerprint",
    "find_features",
    "ink_mask",
    "label_picture",
    "magnification_to_mpp",
    "open_slide",
    "overlay_picture",
    "patch_grid",
    "patch_labels",
    "prediction_regions",
    "process_slides",
    "read_annotations",
    "read_features",
    "read_label_map",
    "read_wsi_tiles",
    "slide_summary",
    "stitch",
    "tissue_fraction",
    "tissue_grid",
    "tissue_mask",
    "unstitch",
    "write_annotation_store",
    "write_dsa",
    "write_features",
    "write_geojson",
    "write_label_map",
    "write_picture",
    "write_probability_map",
    "write_table",
    "write_wsi_predictions",
    "write_wsinfer",
    "write_zarr",
]
