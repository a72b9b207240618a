"""Recorded class proportions: bags of instances, counts, intervals and identifiability."""

from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.counts import class_proportions, count_per_bag, sum_absolute_error
from proportion_ssl.proportions.identifiability import IdentifiabilityWarning, identifiability
from proportion_ssl.proportions.spots import bags_from_anndata
from proportion_ssl.proportions.weak_records import OrderRecord, PartialRecord

__all__ = [
    "Bags",
    "IdentifiabilityWarning",
    "OrderRecord",
    "PartialRecord",
    "bags_from_anndata",
    "class_proportions",
    "count_per_bag",
    "identifiability",
    "sum_absolute_error",
]
