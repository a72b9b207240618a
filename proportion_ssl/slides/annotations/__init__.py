"""Outlines of pathologists, from the files of many programs, and labels of patches."""
