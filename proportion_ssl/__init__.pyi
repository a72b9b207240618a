from . import baselines as baselines
from . import datasets as datasets
from . import displays as displays
from . import embedding as embedding
from . import estimators as estimators
from . import evaluation as evaluation
from . import losses as losses
from . import metrics as metrics
from . import nets as nets
from . import persistence as persistence
from . import proportions as proportions
from . import pseudo_labels as pseudo_labels
from . import reporting as reporting
from . import segmenter as segmenter
from . import slides as slides
from ._version import __version__
from .embedding import ExportedEmbedder, PatchEmbedder
from .estimators import (
    PAPER_SETTINGS,
    ClassifyAndCount,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    TumorProposer,
)
from .manifest import load_cohort
from .metrics import bag_proportion_error, mean_iou_score, overall_pixel_score, per_class_score
from .nets import HeadClassifier, MobileNetV2Classifier, MultiFieldOfViewNet
from .persistence import load, save
from .proportions import Bags
from .pseudo_labels import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativeSelector,
    SoftAssignmentSelector,
    ThresholdSelector,
)
from .reporting import ReportSlide, report
from .segmenter import SlideSegmenter

__all__ = [
    "PAPER_SETTINGS",
    "AdaptiveSelector",
    "AssignmentSelector",
    "Bags",
    "ClassifyAndCount",
    "ExportedEmbedder",
    "HeadClassifier",
    "MobileNetV2Classifier",
    "MultiFieldOfViewNet",
    "NegativePseudoLabelClassifier",
    "NegativeSelector",
    "PatchEmbedder",
    "ReportSlide",
    "RobustProportionClassifier",
    "SlideSegmenter",
    "SoftAssignmentSelector",
    "ThresholdSelector",
    "TumorProposer",
    "__version__",
    "bag_proportion_error",
    "load",
    "load_cohort",
    "mean_iou_score",
    "overall_pixel_score",
    "per_class_score",
    "report",
    "save",
]
