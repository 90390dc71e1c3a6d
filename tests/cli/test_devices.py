"""A device that cannot be started, or lacks memory, is told as such, and never as damage; so are our own faults."""

import os
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest

from fsis_jax.checkpoints import weights
from fsis_jax.data import prepared
from fsis_jax.inference import programs, references, references_file
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.pretrained import DEFAULT_NAME, shipped_file


def command(*arguments, platform):
    return subprocess.run(
        [sys.executable, "-m", "fsis_jax", *map(str, arguments)],
        env={**os.environ, "JAX_PLATFORMS": platform},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_device_that_is_not_there(desk, tiny_data):
    arguments = ("segment", "good.png", "--references", "crop.png", "--output", "out")
    outcome = command(*arguments, platform="abacus")
    assert outcome.returncode == 2
    last = outcome.stderr.splitlines()[-1]
    assert last.startswith("fsis: error: JAX cannot start the device that JAX_PLATFORMS=abacus asks for (")
    assert last.endswith(": unset JAX_PLATFORMS or set it to cpu, or install the driver and the JAX of that device")
    assert "Traceback" not in outcome.stderr
    assert command("data", "check", tiny_data, platform="abacus").returncode == 0


@pytest.mark.slow
def test_four_devices_write_the_bytes_of_one(desk, quick_compile, monkeypatch):
    """Tiles of a large image and whole images, spread over the devices."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=4")
    large = np.tile(cv2.imread("good.png", cv2.IMREAD_GRAYSCALE), (2, 3))
    cv2.imwrite("large.png", large)
    cv2.imwrite("other.png", 255 - large[:60, :60])
    options = ("--references", "crop.png", "--checkpoint", "W", "--min-score", "0", "--tile", "64", "--augment")
    program = ("import sys, jax; from fsis_jax import cli; assert jax.local_device_count() == 4; {} cli.main()").format
    one = program("jax.local_devices = lambda: jax.devices()[:1];")
    for name, code in ("one", one), ("four", program("")):
        arguments = ("segment", "good.png", "large.png", "other.png", *options, "--output", name, "--save", "all")
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    files = {path.name for path in (desk / "one").iterdir() if path.is_file()} - {"images.jsonl"}
    assert len(files) == 3 * 6 + 1
    for name in files:
        assert (desk / "four" / name).read_bytes() == (desk / "one" / name).read_bytes(), name


def test_all_devices_take_tiles_and_images_in_turn(fsis, desk, quick_compile, monkeypatch):
    """Seen without compiling for several: one device that stands for three."""
    large = np.tile(cv2.imread("good.png", cv2.IMREAD_GRAYSCALE), (2, 2))
    cv2.imwrite("large.png", large)
    options = ("segment", "good.png", "large.png", "--references", "crop.png", "--checkpoint", "W", "--min-score", "0")
    options = (*options, "--tile", "64", "--save", "labels", "table")
    assert fsis(*options, "--output", "one").status == 0
    used = []
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1] * 3)
    monkeypatch.setattr(jax, "local_device_count", lambda: 3)
    real = programs.Network.__init__

    def watched(self, architecture, arrays, devices):
        used.append(len(devices))
        real(self, architecture, arrays, devices)

    monkeypatch.setattr(programs.Network, "__init__", watched)
    assert fsis(*options, "--output", "three").status == 0
    assert used[-1] == 3
    for name in ("good-labels.tif", "large-labels.tif", "large-table.csv", "summary.csv"):
        assert (desk / "three" / name).read_bytes() == (desk / "one" / name).read_bytes()


def test_a_device_that_does_not_say_why(fsis, desk, monkeypatch):
    """JAX asserts that a plugin for CUDA is there."""

    def missing(*_):
        raise AssertionError

    monkeypatch.setattr(Segmenter, "from_pretrained", missing)
    monkeypatch.setattr(jax, "devices", missing)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    error = fsis("segment", "good.png", "--references", "crop.png", "--output", "out", "--checkpoint", "W").error
    assert error.startswith("fsis: error: JAX cannot start any device: unset JAX_PLATFORMS or set it to cpu")


@pytest.mark.parametrize("where", ["from_pretrained", "candidates"])
def test_too_little_memory_on_the_device(fsis, desk, monkeypatch, where):
    def fails(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99999 bytes.\nand more")

    monkeypatch.setattr(Segmenter, where, fails)
    error = fsis("segment", "good.png", "--references", "crop.png", "--output", "out", "--checkpoint", "W").error
    assert error == (
        "fsis: error: the device has too little memory (RESOURCE_EXHAUSTED: Out of memory allocating 99999 bytes. "
        "and more): end other programs that use it, or set JAX_PLATFORMS=cpu"
    )


FAULTS = [TypeError("ours"), RuntimeError("ours"), jax.errors.JaxRuntimeError("INTERNAL: ours"), AssertionError("ours")]


@pytest.fixture(params=FAULTS, ids=lambda fault: type(fault).__name__)
def fails(request):
    def raises(*_, **__):
        raise request.param

    return raises


def test_a_fault_of_the_program_stays_one(fsis, desk, monkeypatch, fails):
    monkeypatch.setattr(Segmenter, "from_pretrained", fails)
    monkeypatch.setattr(sys, "argv", ["fsis", "segment", "good.png", "--references", "crop.png", "--output", "out"])
    from fsis_jax import cli

    with pytest.raises(Exception, match="ours"):
        cli.main()


def test_no_weights_are_damaged_where_jax_fails(monkeypatch, fails):
    """While it is asked what arrays there must be, which may trace the detector, or while the detector is built."""
    for name in ("shapes", "model"):
        with monkeypatch.context() as patch:
            patch.setattr(weights.Architecture, name, fails)
            with pytest.raises(Exception, match="ours"):
                assert weights.load_weights(shipped_file(DEFAULT_NAME)).model


def test_no_references_are_damaged_where_the_program_fails(tmp_path, monkeypatch, fails):
    array = jax.numpy.zeros((1, 2, 2, 4), jax.numpy.bfloat16)
    found = references.References({3: array}, np.ones((1, 2), np.float32), np.zeros((1, 8, 8, 3), np.uint8), model="m")
    found.save(tmp_path / "x.refs")
    assert references_file.load_references(tmp_path / "x.refs").features[3].dtype == array.dtype
    monkeypatch.setattr(references_file, "References", fails)
    with pytest.raises(Exception, match="ours"):
        references_file.load_references(tmp_path / "x.refs")


def test_no_prepared_data_are_damaged_where_a_library_is_missing(tiny_data, tmp_path, monkeypatch):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'array_record'")

    root = prepared.prepare(tiny_data, tmp_path / "prepared")
    monkeypatch.setattr(prepared.tfds, "builder_from_directory", missing)
    with pytest.raises(ModuleNotFoundError):
        prepared.PreparedSource(root, "train")
