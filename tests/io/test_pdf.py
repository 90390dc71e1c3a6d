"""Pages of a PDF: whole, in bounded memory, or not at all."""

import errno
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, PdfParser

from fsis_jax.errors import OutputError
from fsis_jax.io.pdf import write_pdf

_GROWTH = """
import resource, sys
from fsis_jax.io.pdf import write_pdf

def peak(count):
    write_pdf(sys.argv[2], {str(number): sys.argv[1] for number in range(count)})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

first = peak(2)
print(peak(16) - first)
"""


@pytest.fixture
def picture(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 150, 3), np.uint8)).save(path)
    return path


def _sizes(path: pathlib.Path) -> list[tuple[int, int]]:
    """Width and height of each page in points."""
    with PdfParser.PdfParser(str(path)) as pdf:
        boxes = [pdf.read_indirect(page)[b"MediaBox"] for page in pdf.pages]
    return [(round(width), round(height)) for _, _, width, height in boxes]


def test_a_page_for_each_picture(tmp_path: pathlib.Path, picture: pathlib.Path) -> None:
    grey = tmp_path / "grey.png"
    Image.new("L", (300, 266)).save(grey)
    write_pdf(tmp_path / "a.pdf", {"a.tif: 3 cells": picture, "b.tif: 0 cells": grey, "c.tif: 1 cells": picture})
    assert _sizes(tmp_path / "a.pdf") == [(72, 64), (144, 144), (72, 64)]


@pytest.mark.parametrize("caption", ["Zelle (µm) Ω.tif", "細胞.tif", "🔬 \\ )(", "a\udce9.tif", "two\nlines", ""])
def test_captions(tmp_path: pathlib.Path, picture: pathlib.Path, caption: str) -> None:
    write_pdf(tmp_path / "a.pdf", {caption: picture})
    assert len(_sizes(tmp_path / "a.pdf")) == 1


def test_memory_does_not_grow_with_the_pages(tmp_path: pathlib.Path) -> None:
    """A page of 12 MB; MiB that 14 more of them add to the peak."""
    Image.new("RGB", (2000, 2000)).save(tmp_path / "a.png")
    command = [sys.executable, "-c", _GROWTH, tmp_path / "a.png", tmp_path / "a.pdf"]
    grown = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    assert int(grown) < 24
    assert len(_sizes(tmp_path / "a.pdf")) == 16


def test_a_full_disk_leaves_nothing(
    tmp_path: pathlib.Path, picture: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"a\.pdf: cannot be written \(No space left on device\)"):
        write_pdf(tmp_path / "a.pdf", {"a": picture})
    assert list(tmp_path.iterdir()) == [picture]
