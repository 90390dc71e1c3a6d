"""`fsis export`, and which model `fsis segment` and `fsis references` take."""

import hashlib
import pathlib

import numpy as np
import pytest
import tifffile

from fsis_jax import pretrained

pytestmark = pytest.mark.usefixtures("quick_compile")

SEGMENT = ["segment", "good.png", "--references", "crop.png", "--output", "out", "--min-score", "0", "--save", "labels"]


@pytest.fixture
def weights(fsis, desk):
    """A weights file of the run `W`, which none of the commands here is told about by itself."""
    outcome = fsis("export", "W", "--output", "w.npz")
    assert outcome.status == 0, outcome.stderr
    return outcome, desk / "w.npz"


@pytest.fixture
def no_default(monkeypatch):
    monkeypatch.delenv("FSIS_WEIGHTS", raising=False)


def _labels():
    path = pathlib.Path("out/good-labels.tif")
    labels = tifffile.imread(path)
    path.unlink()
    assert labels.any()
    return labels


def test_the_file_and_its_digest_are_told(weights):
    outcome, file = weights
    size, digest = outcome.stdout.splitlines()
    assert size == f"{file}: {file.stat().st_size / 1e6:.1f} MB"
    assert digest == f"{hashlib.sha256(file.read_bytes()).hexdigest()}  w.npz"


def test_the_model_is_named_in_any_way(fsis, weights, desk, no_default, monkeypatch, caplog):
    """By a file, by the environment, and as one that comes with the package, which is the default."""
    _, file = weights
    assert fsis(*SEGMENT, "--checkpoint", "w.npz").status == 0
    expected = _labels()
    assert caplog.messages == []
    monkeypatch.setattr(pretrained, "FOLDER", desk)
    (desk / "cells-base.npz").symlink_to(file)
    (desk / "SHA256SUMS").write_text(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  cells-base.npz\n")
    assert fsis(*SEGMENT, "--checkpoint", "cells-base").status == 0
    np.testing.assert_array_equal(_labels(), expected)
    assert fsis(*SEGMENT).status == 0
    assert caplog.messages == ["no --checkpoint: the model is cells-base"]
    np.testing.assert_array_equal(_labels(), expected)
    monkeypatch.setenv("FSIS_WEIGHTS", "w.npz")
    assert fsis("references", "--references", "crop.png", "-o", "x.refs").status == 0
    assert fsis(*(part.replace("crop.png", "x.refs") for part in SEGMENT)).status == 0
    assert caplog.messages[1:] == ["no --checkpoint: the model is w.npz"] * 2
    np.testing.assert_array_equal(_labels(), expected)
    assert fsis(*SEGMENT, "--checkpoint", "W").status == 0
    assert len(caplog.messages) == 3
    # Rounded weights are another model, and so they are for encoded references.
    error = fsis(*(part.replace("crop.png", "x.refs") for part in SEGMENT), "--checkpoint", "W").error
    assert "encoded by another model: encode their crops again with this one, or segment with that one (--ch" in error


def test_a_default_that_is_not_there(fsis, desk, no_default, monkeypatch, caplog):
    monkeypatch.setattr(pretrained, "FOLDER", desk / "nowhere")
    missing = "a part of fsis_jax that cannot be read (No such file or directory): install fsis_jax again"
    assert fsis(*SEGMENT).error == f"fsis: error: {desk}/nowhere/cells-base.npz: {missing}"
    assert caplog.messages == ["no --checkpoint: the model is cells-base"]
    monkeypatch.setenv("FSIS_WEIGHTS", "cell-small")
    assert fsis(*SEGMENT).error == (
        f"fsis: error: {desk}/cell-small: no such file or folder; give the folder of a training run, a weights "
        "file, or the name of weights that come with the package: cells-base, cells-small, cells-small-gpu, cells-drawn"
    )
    assert not (desk / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["W", "-o", "w.pth"], "w.pth: give a name that ends in .npz, such as w.npz"),
        (["W"], "required: --output/-o"),
        (["none", "-o", "w.npz"], "none: no such folder; give the folder of a training run"),
        (["good.png", "-o", "w.npz"], "good.png: no such folder; give the folder of a training run"),
        (["W", "--to", "stablehlo", "-o", "W"], "W: exists already: delete it or choose another folder"),
        (["none", "--to", "stablehlo", "-o", "x"], "none: no such file or folder; give the folder of a training run"),
        (["W", "-o", "crop.png/w.npz"], "crop.png/w.npz: cannot be written (File exists): a part of the path is"),
    ],
)
def test_what_cannot_be_exported(fsis, desk, arguments, message):
    before = sorted(desk.iterdir())
    assert message in fsis("export", *arguments).error
    assert sorted(desk.iterdir()) == before
