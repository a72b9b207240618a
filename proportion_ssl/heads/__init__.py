"""Heads that are solved for: linear classifiers of features that learn from labels and from soft labels."""

from proportion_ssl.heads._base import SoftLabelHead
from proportion_ssl.heads.discriminant import DiscriminantClassifier
from proportion_ssl.heads.logistic import SoftLogisticRegression

__all__ = ["DiscriminantClassifier", "SoftLabelHead", "SoftLogisticRegression"]
