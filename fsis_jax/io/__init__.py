"""Files in and out: images that are read, results that are written."""
