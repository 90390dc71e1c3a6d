"""ResNets by their depth: for those who check a config, too, and build none."""

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Depth -> blocks of each stage (He et al. 2015, table 1; 10, which that paper has not, compiles in half the time)."""
