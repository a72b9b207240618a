"""Data to learn and test on: synthetic bags, synthetic slides, and the user's own cohort."""

from proportion_ssl.datasets._bags import BagData, make_bags

__all__ = ["BagData", "make_bags"]
