"""Losses of signed labels and of class proportions, as functions and torch modules."""

from proportion_ssl.losses import _renamed
from proportion_ssl.losses.complementary import (
    gradient_ascent_complementary_loss,
    multi_complementary_loss,
    non_negative_complementary_loss,
    one_versus_all_loss,
    pairwise_comparison_loss,
    unbiased_complementary_loss,
)
from proportion_ssl.losses.counts import count_loss
from proportion_ssl.losses.signed_labels import (
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
    "NegativeLoss",
    "PositiveLoss",
    "SignedLabelLoss",
    "count_loss",
    "gradient_ascent_complementary_loss",
    "log_not",
    "multi_complementary_loss",
    "multi_negative_loss",
    "negative_loss",
    "non_negative_complementary_loss",
    "one_versus_all_loss",
    "pairwise_comparison_loss",
    "positive_loss",
    "proportion_loss",
    "unbiased_complementary_loss",
]

__getattr__ = _renamed.find
