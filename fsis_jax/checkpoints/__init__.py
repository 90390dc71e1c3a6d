"""What a model is on a disk: folders of runs, weights files, and the config that belongs to them."""
