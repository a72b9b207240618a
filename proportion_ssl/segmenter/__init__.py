"""Whole slides in, segmented slides out: the one place where slides and learning meet."""

from proportion_ssl.segmenter.evaluation import Evaluation
from proportion_ssl.segmenter.slide_segmentation import SlideSegmentation
from proportion_ssl.segmenter.slide_segmenter import SlideSegmenter
from proportion_ssl.segmenter.systems import System, standard_systems
from proportion_ssl.segmenter.training import CohortFeatures

__all__ = [
    "CohortFeatures",
    "Evaluation",
    "SlideSegmentation",
    "SlideSegmenter",
    "System",
    "standard_systems",
]
