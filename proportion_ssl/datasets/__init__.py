"""Data to learn and test on: synthetic bags, synthetic slides, and the user's own cohort."""

from proportion_ssl.datasets._bags import BagData, make_bags
from proportion_ssl.datasets._cohort import Cohort, load_cohort
from proportion_ssl.datasets._slides import make_slides

__all__ = ["BagData", "Cohort", "load_cohort", "make_bags", "make_slides"]
