"""Losses of signed labels and of class proportions, as functions and torch modules."""

from proportion_ssl.losses.complementary import (
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
from proportion_ssl.losses.signed_labels import (
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

__all__ = [
    "GradientAscentComplementaryLoss",
    "MultiComplementaryLoss",
    "MultiNegativeLoss",
    "NegativeLoss",
    "NonNegativeComplementaryLoss",
    "OneVersusAllLoss",
    "PairwiseComparisonLoss",
    "PositiveLoss",
    "SignedLabelLoss",
    "UnbiasedComplementaryLoss",
    "log_not",
    "multi_complementary_loss",
    "multi_negative_loss",
    "negative_loss",
    "one_versus_all_loss",
    "pairwise_comparison_loss",
    "positive_loss",
    "proportion_loss",
    "unbiased_complementary_loss",
]
