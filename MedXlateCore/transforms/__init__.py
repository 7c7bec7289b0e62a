"""Grids and intensities: one resample in and one out, normalisers, foreground."""
