"""Data sets as records, episodes out of them, and batches for training."""
