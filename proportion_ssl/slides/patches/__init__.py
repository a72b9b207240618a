"""Patches of a slide: sequences, tissue, stain, and back to a map."""
