"""Features of patches in files, computed for whole cohorts, resumably."""
