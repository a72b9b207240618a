"""Output files for a slide: label maps, images, outlines, tables."""
