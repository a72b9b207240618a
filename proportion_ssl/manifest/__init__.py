"""Manifest of a cohort of slides: files, roles, cases and recorded class proportions."""

from proportion_ssl.manifest._cohort import Cohort
from proportion_ssl.manifest._read import load_cohort

__all__ = ["Cohort", "load_cohort"]
