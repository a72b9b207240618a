"""Read outlines from the annotation files of many programs, and label patches."""
