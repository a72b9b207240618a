"""Read slide files: sources, levels, tiles, resampling."""
