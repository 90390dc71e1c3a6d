"""An image of discs, and a session over it with a random model."""

import pathlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from tiny import get_config
from tiny_detector import tiny_detector

from fsis_jax.checkpoints.weights import Trained, save_weights
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.interactive.folders import Folders
from fsis_jax.interactive.session import UPLOADS, Session


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """(60, 80) uint8."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :80]
    pixels = rng.integers(0, 60, (60, 80))
    for y, x in ((15, 20), (40, 30), (30, 60)):
        pixels[(rows - y) ** 2 + (columns - x) ** 2 < 100] += 190
    return pixels.astype(np.uint8)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A weights file of a random detector: it finds something everywhere, and nothing in particular."""
    config = get_config()
    path = tmp_path_factory.mktemp("weights") / "random.npz"
    save_weights(path, Trained.of(tiny_detector(config), config, {"min_score": 0.5}))
    return str(path)


@pytest.fixture(scope="module")
def segmenter(weights: str, quick_compile) -> Segmenter:
    return Segmenter.from_pretrained(weights)


@pytest.fixture
def folder(tmp_path: pathlib.Path, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The working folder: `a.png`, and `b.png`, which is its mirror image."""
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    cv2.imwrite(str(tmp_path / "b.png"), picture[:, ::-1])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def new_session(segmenter: Segmenter, folder: pathlib.Path, weights: str) -> Iterator[Callable[[], Session]]:
    """A session over the working folder, with results in `out`; no thread of it outlives the test."""
    made: list[Session] = []

    def new() -> Session:
        folders = Folders(["."], [folder / "out" / UPLOADS])
        made.append(Session(segmenter, folders, folder / "out", checkpoint=weights))
        return made[-1]

    yield new
    for session in made:
        session.stop()


@pytest.fixture
def session(new_session: Callable[[], Session]) -> Session:
    return new_session()
