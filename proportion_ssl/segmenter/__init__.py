"""From whole slides to segmented slides: the only package that uses both slides and learning."""

from proportion_ssl.segmenter.calibration import Calibration
from proportion_ssl.segmenter.check import CohortCheck, CohortProblem, check_cohort
from proportion_ssl.segmenter.context import choose_weight, smooth_probabilities
from proportion_ssl.segmenter.evaluation import Evaluation
from proportion_ssl.segmenter.feature_folder import TrainingData, read_training_data
from proportion_ssl.segmenter.slide_segmentation import SlideSegmentation
from proportion_ssl.segmenter.slide_segmenter import SlideSegmenter
from proportion_ssl.segmenter.systems import System, standard_systems
from proportion_ssl.segmenter.tile_predictor import TilePredictor
from proportion_ssl.segmenter.training import CohortFeatures

__all__ = [
    "Calibration",
    "CohortCheck",
    "CohortFeatures",
    "CohortProblem",
    "Evaluation",
    "SlideSegmentation",
    "SlideSegmenter",
    "System",
    "TilePredictor",
    "TrainingData",
    "check_cohort",
    "choose_weight",
    "read_training_data",
    "smooth_probabilities",
    "standard_systems",
]
