"""Drawn cells: their looks, the drawing, and data sets of them."""
