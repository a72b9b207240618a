"""The error of feature files that cannot be used as they are."""

from __future__ import annotations


class FeatureFileError(ValueError):
    """A feature file that is broken, incomplete, or not the one expected."""
