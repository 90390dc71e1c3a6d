"""A file that is given to a front end stays if it is an image, under a plain name, and replaces nothing."""

import pathlib

import pytest

from fsis_jax.errors import FsisError
from fsis_jax.interactive import receiving
from fsis_jax.interactive.receiving import Received


def receive(session, name, data):
    received = Received(session.uploads, name)
    try:
        received.add(data[:10])
        received.add(data[10:])
        return received.keep(session.open)
    finally:
        received.drop()


def test_an_image_is_kept_once(session, folder):
    data = (folder / "a.png").read_bytes()
    path = receive(session, "x.png", data)
    assert pathlib.Path(path) == folder / "out/uploads/x.png"
    assert pathlib.Path(path).read_bytes() == data
    assert receive(session, "x.png", data) == path
    other = receive(session, "x.png", (folder / "b.png").read_bytes())
    assert other == str(folder / "out/uploads/x-2.png")
    assert sorted(file.name for file in session.uploads.iterdir()) == ["x-2.png", "x.png"]
    assert path in session.folders.images()


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/x.png", "x.png"),
        ("C:\\cells\\y.PNG", "y.PNG"),
        ("a\nb<i>.png", "a_b_i_.png"),
        ("." + "z" * 500 + ".png", "z" * 116 + ".png"),
        ("細胞" * 50 + ".png", "細胞" * 19 + ".png"),
    ],
)
def test_names_lead_nowhere_else(session, folder, name, kept):
    path = receive(session, name, (folder / "a.png").read_bytes())
    assert pathlib.Path(path) == folder / "out/uploads" / kept


@pytest.mark.parametrize("name", ["", ".png", "x.exe", "x", "x.zarr", "../..", "a.png/"])
def test_what_is_no_image_by_its_name_is_refused(session, name):
    with pytest.raises(FsisError, match="no image by its name"):
        Received(session.uploads, name)
    assert not session.uploads.exists()


def test_what_is_no_image_or_too_large_does_not_stay(session, folder, monkeypatch):
    with pytest.raises(FsisError, match=r"broken\.png: "):
        receive(session, "broken.png", b"\x89PNG\r\n\x1a\n and then nothing")
    monkeypatch.setattr(receiving, "MOST_BYTES", 100)
    with pytest.raises(FsisError, match="larger than"):
        receive(session, "large.png", (folder / "a.png").read_bytes())
    assert list(session.uploads.iterdir()) == []
