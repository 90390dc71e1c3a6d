"""The weights that come with the package: all there, whole, in the wheel, and which are taken by default."""

import hashlib
import re

import pytest

from fsis_jax import pretrained
from fsis_jax.checkpoints.weights import load_weights
from fsis_jax.errors import FsisError
from fsis_jax.pretrained import SHIPPED, SUMS, default_weights, shipped_file


@pytest.mark.parametrize("name", SHIPPED)
def test_what_comes_with_the_package_is_whole(name):
    assert load_weights(shipped_file(name)).validation


def test_the_default(monkeypatch):
    monkeypatch.delenv("FSIS_WEIGHTS", raising=False)
    assert default_weights() == "cells-base"
    monkeypatch.setenv("FSIS_WEIGHTS", "")
    assert default_weights() == "cells-base"
    monkeypatch.setenv("FSIS_WEIGHTS", "~/mine.npz")
    assert default_weights() == "~/mine.npz"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    (tmp_path / "cells-small.npz").write_bytes(b"weights")
    return tmp_path


@pytest.mark.parametrize("mark", [" ", "*"])
def test_the_digest_is_checked(folder, mark):
    """`sha256sum` writes a space before the name, or a star for binary files."""
    line = f"{hashlib.sha256(b'weights').hexdigest()} {mark}"
    (folder / SUMS).write_text(f"{'0' * 64} {mark}other.npz\n{line}cells-small.npz\n")
    assert shipped_file("cells-small") == folder / "cells-small.npz"
    (folder / SUMS).write_text(f"{line}other.npz\n{'0' * 64} {mark}cells-small.npz\n")
    message = (
        f"{folder}/cells-small.npz: its SHA-256 is not that in SHA256SUMS, so it is damaged: install fsis_jax again"
    )
    with pytest.raises(FsisError, match=f"^{re.escape(message)}$"):
        shipped_file("cells-small")


@pytest.mark.parametrize("name", ["cells-small.npz", SUMS])
def test_a_missing_file(folder, name):
    (folder / SUMS).touch()
    (folder / name).unlink()
    with pytest.raises(FsisError, match=rf"{name}: a part of fsis_jax that cannot be read \(No such file .*again$"):
        shipped_file("cells-small")
