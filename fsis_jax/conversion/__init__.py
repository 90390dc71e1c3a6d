"""Weights of other projects: reading their files without running them, and names and layouts of their tensors."""
