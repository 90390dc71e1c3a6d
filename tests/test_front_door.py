"""What users import from `fsis_jax` itself, and what that does not import."""

import subprocess
import sys

import pytest

import fsis_jax
from fsis_jax.cli import COMMANDS

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


def test_to_segment_files_imports_dask_only_with_a_client():
    loaded = _run("import sys; from fsis_jax import OutputSettings, segment_files; print(*sys.modules)")
    assert "fsis_jax.inference.segment_files" in loaded
    assert [name for name in loaded if name.startswith((*HEAVY, "distributed", "dask"))] == []


def test_fsis_segment_imports_neither_training_nor_flax_nor_scipy():
    loaded = _run("import sys; import fsis_jax.cli.segmenting_run; print(*sys.modules)")
    assert "fsis_jax.inference.segmenter" in loaded
    assert [name for name in loaded if name.startswith((*HEAVY, "flax", "scipy", "zarr", "matplotlib"))] == []


THERE = "{there} --references {there} --output out"
"""Arguments of `fsis segment` that are right so far."""


@pytest.mark.parametrize(
    ("command", "wrong", "told"),
    [
        ("demo", "--checkpoint {}", "no such file or folder"),
        ("app", "{}", "no such file or folder"),
        ("app", "{there} --checkpoint {}", "no such file or folder"),
        ("train", "--config {}", "no such config file"),
        ("train", "--config {there} --stepp 3", "unknown argument"),
        ("evaluate", "--config {}", "no such config file"),
        ("evaluate", "--config {there} --checkpoint {}", "no such file or folder"),
        ("segment", "{} --references {there} --output out", "no such file"),
        ("segment", "{there} --references {} --output out", "no such file"),
        ("segment", THERE + " --reference {}:1,2,30,40", "no such file"),
        ("segment", THERE + " --kind dead={}", "no such file"),
        ("segment", THERE + " --not {}", "no such file"),
        ("segment", THERE + " --reference-mask {}", "no such file"),
        ("segment", THERE + " --checkpoint {}", "no such file or folder"),
        ("merge", "{}", "has no parts"),
        ("references", "--references {} --output x.refs", "no such file"),
        ("refine", "{} --result {there} --wrong 1 --output x.refs", "no such file"),
        ("refine", "{there} --result {} --wrong 1 --output x.refs", "no results"),
        ("refine", "{there} --result {there} --corrected {} --output x.refs", "no such file"),
        ("refine", "{there} --result {there} --wrong 1 --output x.refs --checkpoint {}", "no such file or folder"),
        ("corrections", "{} --output x", "no results"),
        ("corrections", "--corrected {}={there} --output x", "no such file"),
        ("corrections", "--corrected {there}={} --output x", "no such file"),
        ("convert", "{} --output x", "no such file"),
        ("convert", "{} --to-pytorch x", "no such folder"),
        ("export", "{} --output x.npz", "no such folder"),
        ("export", "{} --output x --to stablehlo", "no such file or folder"),
    ],
)
def test_a_path_where_nothing_is_is_told_before_what_reads_it_is_imported(tmp_path, command, wrong, told):
    there, missing = tmp_path / "a.png", tmp_path / "b.png"
    there.touch()
    status, error = _fsis_without_libraries(command, *wrong.replace("{there}", str(there)).format(missing).split())
    assert (status, error.count("\n")) == (2, 1)
    assert error.startswith("fsis: error: ")
    assert told in error


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_no_library(command):
    """It is there within a third of a second, where importing JAX alone takes a second."""
    assert _fsis_without_libraries(command, "--help") == (0, "")


def _fsis_without_libraries(*arguments: str) -> tuple[int, str]:
    """The exit status of `fsis`, and what it says on stderr, which it must say without these."""
    program = "import sys\nfrom fsis_jax.cli import main\ntry:\n    main()\n"
    program += "finally:\n    print(*{'jax', 'numpy', 'cv2', 'tifffile', 'ml_collections', 'absl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == ""
    return done.returncode, done.stderr


def _run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
