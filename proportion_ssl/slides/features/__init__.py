"""Feature files of patches, computed for whole cohorts with resumption."""
