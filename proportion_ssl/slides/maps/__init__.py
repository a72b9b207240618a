"""What is written for a slide: label maps, pictures, outlines, tables."""
