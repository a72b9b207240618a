"""Feature files of other programs: one module each, all reached through :func:`read_stored`."""

from proportion_ssl.slides.features.formats.registry import read_stored
from proportion_ssl.slides.features.formats.stored import PatchFacts, StoredFeatures

__all__ = ["PatchFacts", "StoredFeatures", "read_stored"]
