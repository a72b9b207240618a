"""Patch classifiers from a few labelled patches and many bags with known class proportions."""

from proportion_ssl._version import __version__
from proportion_ssl.bags import Bags
from proportion_ssl.classifier import PAPER_SETTINGS, NegativePseudoLabelClassifier
from proportion_ssl.complementary import (
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
from proportion_ssl.embedding import PatchEmbedder
from proportion_ssl.identifiability import IdentifiabilityWarning, identifiability
from proportion_ssl.losses import (
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
from proportion_ssl.metrics import (
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
from proportion_ssl.nets.field_of_view import AdaptiveFusion, FixedFusion, MultiFieldOfViewNet
from proportion_ssl.nets.net import HeadClassifier, MobileNetV2Classifier, SignedLabelNet
from proportion_ssl.persistence import ModelFileError, load, save
from proportion_ssl.picking import (
    merge_rounds,
    pick_least_confident,
    pick_most_confident,
    sign_labels,
)
from proportion_ssl.proportions import class_proportions, count_per_bag, sum_absolute_error
from proportion_ssl.proposals import Proposals, TumorProposer
from proportion_ssl.quantification import ClassifyAndCount
from proportion_ssl.reporting import ReportSlide, report
from proportion_ssl.robust import RobustProportionClassifier
from proportion_ssl.selection import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativeSelector,
    Selector,
    SoftAssignmentSelector,
    ThresholdSelector,
)
from proportion_ssl.selectivity import (
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
