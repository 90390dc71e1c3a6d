"""Measuring what a model finds against ground truth."""
