"""Synthetic data for training and testing: bags of features, and whole slides."""

from proportion_ssl import _moved
from proportion_ssl.datasets._bags import BagData, make_bags
from proportion_ssl.datasets._slides import make_slides

__all__ = ["BagData", "make_bags", "make_slides"]

__getattr__ = _moved.follow(__name__, _moved.FROM_DATASETS)
