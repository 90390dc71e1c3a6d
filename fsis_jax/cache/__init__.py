"""What one process finds out at length and later ones read: compiled programs, and shapes of arrays."""
