"""Classifiers that learn from labeled patches and from bags with recorded class proportions."""

from proportion_ssl.estimators._learners import HarmfulLabelsWarning
from proportion_ssl.estimators.classify_and_count import ClassifyAndCount
from proportion_ssl.estimators.negative_pseudo_label import (
    PAPER_SETTINGS,
    NegativePseudoLabelClassifier,
)
from proportion_ssl.estimators.robust_proportion import RobustProportionClassifier
from proportion_ssl.estimators.tumor_proposer import Proposals, TumorProposer

__all__ = [
    "PAPER_SETTINGS",
    "ClassifyAndCount",
    "HarmfulLabelsWarning",
    "NegativePseudoLabelClassifier",
    "Proposals",
    "RobustProportionClassifier",
    "TumorProposer",
]
