"""Experiments: several methods, one split, one budget, one table."""
