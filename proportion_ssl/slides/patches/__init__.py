"""Patches of a slide: sequences, tissue, stain, and maps of patches."""
