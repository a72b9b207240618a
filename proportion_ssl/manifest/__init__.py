"""Manifest of a cohort of slides: files, roles, cases and recorded class proportions."""

from proportion_ssl.manifest._cohort import Cohort
from proportion_ssl.manifest._proportions import read_proportions
from proportion_ssl.manifest._read import load_cohort
from proportion_ssl.manifest._resolutions import read_resolutions

__all__ = ["Cohort", "load_cohort", "read_proportions", "read_resolutions"]
