"""A slide file as one image: sources, levels, tiles, resampling."""
