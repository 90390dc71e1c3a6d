"""What users import from `fsis_jax` itself, and what that does not import."""

import subprocess
import sys

import pytest

import fsis_jax

HEAVY = ("grain", "orbax", "tensorflow_datasets", "fsis_jax.training", "fsis_jax.data", "fsis_jax.evaluation")


@pytest.mark.parametrize("name", fsis_jax.__all__)
def test_every_name_is_there_and_listed(name):
    assert getattr(fsis_jax, name) is not None
    assert name in dir(fsis_jax)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'segmenter_'"):
        _ = fsis_jax.segmenter_


def test_to_import_the_package_alone_imports_no_library():
    _run("import fsis_jax, sys; assert not {'jax', 'numpy'} & set(sys.modules)")


def test_to_segment_with_weights_imports_no_training():
    loaded = _run(
        "import sys; from fsis_jax import Segmenter, write_outputs; Segmenter.from_pretrained(); print(*sys.modules)"
    )
    assert "fsis_jax.inference.segmenter" in loaded
    assert [name for name in loaded if name.startswith(HEAVY)] == []


def _run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
