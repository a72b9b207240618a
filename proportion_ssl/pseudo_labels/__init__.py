"""Pseudo labels from predictions and recorded proportions: selectors and the functions below them."""

from proportion_ssl.pseudo_labels.picking import (
    merge_rounds,
    pick_least_confident,
    pick_most_confident,
    sign_labels,
)
from proportion_ssl.pseudo_labels.recorded import probabilities_given_records
from proportion_ssl.pseudo_labels.selectivity import (
    negative_selectivity,
    positive_selectivity,
    selection_counts,
)
from proportion_ssl.pseudo_labels.selectors import (
    AdaptiveSelector,
    AssignmentSelector,
    NegativeSelector,
    Selector,
    SoftAssignmentSelector,
    ThresholdSelector,
)

__all__ = [
    "AdaptiveSelector",
    "AssignmentSelector",
    "NegativeSelector",
    "Selector",
    "SoftAssignmentSelector",
    "ThresholdSelector",
    "merge_rounds",
    "negative_selectivity",
    "pick_least_confident",
    "pick_most_confident",
    "positive_selectivity",
    "probabilities_given_records",
    "selection_counts",
    "sign_labels",
]
