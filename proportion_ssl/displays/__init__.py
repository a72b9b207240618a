"""Matplotlib displays of slides, proportions, pseudo labels, learning and agreement."""

from proportion_ssl.displays._evaluation import (
    BlandAltmanDisplay,
    ReliabilityDisplay,
    RiskCoverageDisplay,
)
from proportion_ssl.displays._learning import LearningDisplay
from proportion_ssl.displays._proportions import ProportionDisplay
from proportion_ssl.displays._pseudo_labels import PseudoLabelDisplay
from proportion_ssl.displays._segmentation import SegmentationDisplay
from proportion_ssl.displays._selectivity import SelectivityDisplay

__all__ = [
    "BlandAltmanDisplay",
    "LearningDisplay",
    "ProportionDisplay",
    "PseudoLabelDisplay",
    "ReliabilityDisplay",
    "RiskCoverageDisplay",
    "SegmentationDisplay",
    "SelectivityDisplay",
]
