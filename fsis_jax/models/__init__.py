"""flax.nnx modules: backbone, pyramid, co-attention, RPN, relation heads, and the detector that ties them."""
