"""What tests of segmenting share."""

import pytest

from fsis_jax.inference.segmenter import Segmenter


@pytest.fixture(scope="module")
def segmenter(tiny_run, quick_compile) -> Segmenter:
    """The barely trained detector of `tiny_run`."""
    return Segmenter.from_checkpoint(tiny_run.workdir)
