from . import baselines as baselines
from . import datasets as datasets
from . import displays as displays
from . import metrics as metrics
from . import nets as nets
from ._version import __version__
from .bags import Bags
from .classifier import PAPER_SETTINGS, NegativePseudoLabelClassifier
from .complementary import (
    GradientAscentComplementaryLoss,
    MultiComplementaryLoss,
    NonNegativeComplementaryLoss,
    OneVersusAllLoss,
    PairwiseComparisonLoss,
    UnbiasedComplementaryLoss,
    multi_complementary_loss,
    one_versus_all_loss,
    pairwise_comparison_loss,
    unbiased_complementary_loss,
)
from .embedding import PatchEmbedder
from .engine import NotInstalledError
from .exported import ExportedEmbedder, ExportedFileError
from .identifiability import IdentifiabilityWarning, identifiability
from .losses import (
    MultiNegativeLoss,
    NegativeLoss,
    PositiveLoss,
    SignedLabelLoss,
    log_not,
    multi_negative_loss,
    negative_loss,
    positive_loss,
    proportion_loss,
)
from .metrics import (
    SegmentationConfusion,
    bag_proportion_error,
    mean_iou_score,
    mean_iou_scorer,
    overall_pixel_score,
    overall_pixel_scorer,
    per_class_score,
    per_class_scorer,
    proportion_error,
    proportion_error_scorer,
    segmentation_confusion_matrix,
)
from .nets.field_of_view import AdaptiveFusion, FixedFusion, MultiFieldOfViewNet
from .nets.net import HeadClassifier, MobileNetV2Classifier, SignedLabelNet
from .persistence import ModelFileError, load, save
from .picking import (
    merge_rounds,
    pick_least_confident,
    pick_most_confident,
    sign_labels,
)
from .proportions import class_proportions, count_per_bag, sum_absolute_error
from .proposals import Proposals, TumorProposer
from .quantification import ClassifyAndCount
from .reporting import ReportSlide, report
from .robust import RobustProportionClassifier
from .selection import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativeSelector,
    Selector,
    SoftAssignmentSelector,
    ThresholdSelector,
)
from .selectivity import (
    negative_selectivity,
    positive_selectivity,
    selection_counts,
)

__all__ = [
    "PAPER_SETTINGS",
    "AdaptiveFusion",
    "AdaptiveSelector",
    "AssignmentSelector",
    "Bags",
    "ClassifyAndCount",
    "ExportedEmbedder",
    "ExportedFileError",
    "FixedFusion",
    "GradientAscentComplementaryLoss",
    "HeadClassifier",
    "IdentifiabilityWarning",
    "MobileNetV2Classifier",
    "ModelFileError",
    "MultiComplementaryLoss",
    "MultiFieldOfViewNet",
    "MultiNegativeLoss",
    "NegativeLoss",
    "NegativePseudoLabelClassifier",
    "NegativeSelector",
    "NonNegativeComplementaryLoss",
    "NotInstalledError",
    "OneVersusAllLoss",
    "PairwiseComparisonLoss",
    "PatchEmbedder",
    "PositiveLoss",
    "Proposals",
    "ReportSlide",
    "RobustProportionClassifier",
    "SegmentationConfusion",
    "Selector",
    "SignedLabelLoss",
    "SignedLabelNet",
    "SoftAssignmentSelector",
    "ThresholdSelector",
    "TumorProposer",
    "UnbiasedComplementaryLoss",
    "__version__",
    "bag_proportion_error",
    "class_proportions",
    "count_per_bag",
    "identifiability",
    "load",
    "log_not",
    "mean_iou_score",
    "mean_iou_scorer",
    "merge_rounds",
    "multi_complementary_loss",
    "multi_negative_loss",
    "negative_loss",
    "negative_selectivity",
    "one_versus_all_loss",
    "overall_pixel_score",
    "overall_pixel_scorer",
    "pairwise_comparison_loss",
    "per_class_score",
    "per_class_scorer",
    "pick_least_confident",
    "pick_most_confident",
    "positive_loss",
    "positive_selectivity",
    "proportion_error",
    "proportion_error_scorer",
    "proportion_loss",
    "report",
    "save",
    "segmentation_confusion_matrix",
    "selection_counts",
    "sign_labels",
    "sum_absolute_error",
    "unbiased_complementary_loss",
]
