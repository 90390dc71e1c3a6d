"""What tests of work that several processes share have in common."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def segmenter(segmenter):
    """Finds something everywhere."""
    return segmenter.with_options(min_score=0.0)


@pytest.fixture(scope="module")
def references(segmenter):
    return segmenter.encode_references([np.tile(np.arange(20, dtype=np.uint8), (20, 1))])
