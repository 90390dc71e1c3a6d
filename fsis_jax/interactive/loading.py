"""What of a saved session can be gone on with: its images may have changed since."""

import dataclasses
import itertools
import logging
import os
import pathlib

from fsis_jax.errors import FsisError
from fsis_jax.inference.finished_images import content_digest
from fsis_jax.interactive.editing import Editing
from fsis_jax.interactive.state import State
from fsis_jax.io.atomic import atomic_write

_logger = logging.getLogger(__name__)


def images_of(state: State) -> list[str]:
    """Paths of the images that references or results are of."""
    return list(dict.fromkeys([*(reference.image for reference in state.references), *state.results]))


def what_is_there(state: State, session: Editing, file: pathlib.Path) -> State:
    """A state without the images that are gone, their examples and their results; a warning tells each.

    Args:
        session: opens images.
        file: that the state was read from; if an image is gone, a copy of it is kept beside it.

    Returns:
        `state` itself if no image is gone.

    Raises:
        FsisError: an image may not be opened, cannot be read or is another one.
        OutputError: the copy cannot be written.
    """
    gone = []
    for path in images_of(state):
        if os.path.exists(session.folders.allowed(path)):
            _check(path, state, session, file)
        else:
            gone.append(path)
    if not gone:
        return state
    names = (file.with_stem(f"{file.stem}-{number}") for number in itertools.count(1))
    copy = next(name for name in names if not name.exists())
    content = file.read_bytes()
    with atomic_write(copy) as written:
        written.write(content)
    for path in gone:
        _logger.warning(f"{path}: no such file: left out, with its examples and results, which {copy} still has")
    return dataclasses.replace(
        state,
        references=tuple(reference for reference in state.references if reference.image not in gone),
        results={path: result for path, result in state.results.items() if path not in gone},
    )


def _check(path: str, state: State, session: Editing, file: pathlib.Path) -> None:
    """Raise FsisError unless an image is as it was, as far as that can be seen at once."""
    try:
        with session.open(path) as image:
            size = (image.shape[0], image.shape[1])
    except FsisError as error:
        raise FsisError(f"{file}: {error}; or choose another folder (--output)") from error
    result = state.results.get(path)
    if result is not None and not result.is_of(size, content_digest(path)):
        (height, width), (now_high, now_wide) = result.found.size, size
        raise FsisError(
            f"{file}: {path} is another image now, of {now_wide}x{now_high} pixels, not that of {width}x{height} that "
            "was segmented: put that one back, or choose another folder (--output)"
        )
