"""Nothing is opened but what was given, links or not."""

import cv2
import numpy as np
import pytest

from fsis_jax.errors import FsisError
from fsis_jax.interactive.folders import Folders


@pytest.fixture
def place(tmp_path):
    """`inside/a.png`, `outside/b.png`, and links to both in `inside`."""
    for name in ("inside/a.png", "outside/b.png", "inside/deeper/c.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), np.zeros((4, 4), np.uint8))
    (tmp_path / "inside/out.png").symlink_to(tmp_path / "outside/b.png")
    (tmp_path / "inside/in.png").symlink_to(tmp_path / "inside/deeper/c.png")
    (tmp_path / "inside/up").symlink_to(tmp_path)
    return tmp_path


def test_what_lies_below_may_be_opened(place):
    folders = Folders([str(place / "inside")])
    assert folders.allowed(str(place / "inside/a.png")) == str(place / "inside/a.png")
    assert folders.allowed(f"{place}/outside/../inside/deeper/c.png") == str(place / "inside/deeper/c.png")
    assert folders.allowed(str(place / "inside/in.png")) == str(place / "inside/deeper/c.png")


@pytest.mark.parametrize(
    "path", ["outside/b.png", "inside/../outside/b.png", "inside/out.png", "inside/up/outside/b.png", "insider.png", ""]
)
def test_what_lies_elsewhere_may_not(place, path):
    with pytest.raises(FsisError, match="not below what may be opened here"):
        Folders([str(place / "inside")]).allowed(f"{place}/{path}")


def test_a_text_that_is_no_path_is_told(place):
    with pytest.raises(FsisError, match="no path of a file"):
        Folders([str(place)]).allowed("a\0.png")


def test_a_file_that_was_given_is_all_that_may_be_opened_of_its_folder(place):
    folders = Folders([str(place / "inside/out.png")])
    assert folders.allowed(str(place / "outside/b.png")) == str(place / "outside/b.png")
    with pytest.raises(FsisError, match="not below"):
        folders.allowed(str(place / "inside/a.png"))
    with pytest.raises(FsisError, match="no such file"):
        Folders([str(place / "inside/nothing.png")])


def test_images_are_those_directly_in_the_folders_without_those_that_links_lead_out_to(place):
    inside = str(place / "inside")
    assert Folders([inside]).images() == [f"{inside}/a.png", f"{inside}/deeper/c.png"]
    assert Folders([f"{inside}/a.png", inside]).images() == [f"{inside}/a.png", f"{inside}/deeper/c.png"]
    (place / "empty").mkdir()
    assert Folders([str(place / "empty")]).images() == []


def test_what_is_no_image_is_told_once(place, caplog):
    (place / "inside/note.txt").write_text("x")
    folders = Folders([str(place / "inside")])
    assert [folders.images() for _ in range(3)] == [
        [str(place / "inside/a.png"), str(place / "inside/deeper/c.png")]
    ] * 3
    assert caplog.text.count("txt") == 1
