"""Error for unusable feature files."""

from __future__ import annotations


class FeatureFileError(ValueError):
    """A feature file is damaged, incomplete, or not the expected one."""
