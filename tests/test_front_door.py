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


def test_a_file_that_is_not_there_is_told_before_what_reads_files_is_imported(tmp_path):
    """So are the arguments: within a third of a second, where importing JAX alone takes a second."""
    program = (
        "import sys\nfrom fsis_jax.cli import main\nsys.argv = ['fsis', 'segment', *sys.argv[1:]]\ntry:\n    main()\n"
    )
    program += "finally:\n    print(*{'jax', 'cv2', 'numpy', 'tifffile'} & set(sys.modules))"
    image = tmp_path / "a.png"
    image.touch()
    there, output = [str(image), "--references", str(image)], ["--output", str(tmp_path / "out")]
    missing = tmp_path / "b.png"
    for arguments, status in (
        (["--help"], 0),
        ([str(missing), *there[1:], *output], 2),
        ([*there[:2], str(missing), *output], 2),
        ([*there, "--reference", f"{missing}:1,2,30,40", *output], 2),
        ([*there, "--kind", f"dead={missing}", *output], 2),
        ([*there, "--not", str(missing), *output], 2),
        ([*there, "--reference-mask", str(missing), *output], 2),
        ([*there, "--checkpoint", str(missing), *output], 2),
    ):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (status, "")
        assert status == 0 or f"fsis: error: {missing}: no such file" in done.stderr


def _run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
