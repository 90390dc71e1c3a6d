"""What is taken away from a session: files as `fsis segment` writes them, the references, and training data."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from fsis_jax.errors import FsisError
from fsis_jax.inference.finished_images import content_digest
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.training_data import CorrectedImage, write_training_data
from fsis_jax.interactive.command import segment_command, short_path
from fsis_jax.interactive.learning import refined
from fsis_jax.interactive.loading import images_of
from fsis_jax.interactive.session import Session
from fsis_jax.interactive.state import NAMELESS, Result
from fsis_jax.interactive.task import Task
from fsis_jax.io.image_file import ImageFile
from fsis_jax.io.outputs import check_names, check_results, file_name, write_outputs

REFERENCES_FILE = "session.refs"
TRAINING_FOLDER = "training"


def export(session: Session, path: str, kinds: Sequence[str]) -> dict[str, str]:
    """Write the cells that count in an image as `fsis segment` does, and the session beside them.

    Returns:
        Kind -> file.

    Raises:
        FsisError: not the whole image was segmented with the references as they are now; or as `write_outputs`.
    """
    result = session.segmented(path)
    if not session.is_finished(path):
        why = "only a part of it was segmented" if result.part else session.why_earlier(result)
        raise FsisError(f"{path}: {why}: segment the image first")
    name = session.settings.name(path)
    check_results(images_of(session.state), [name], session.output, kinds)
    with _opened(session, path, result) as image:
        files = write_outputs(
            session.output,
            name,
            image,
            _cells(session, result),
            kinds,
            file_name=file_name(path),
            references=list(session.encode(result.references).images),
            pixel_size=session.pixel_size(image),
        )
    session.save()
    return files


def export_images(session: Session, paths: Sequence[str], kinds: Sequence[str]) -> Task:
    """Begin to `export` images, and the references as `fsis segment --references` takes them.

    Raises:
        FsisError: there is nothing to write, two images have one name, or something else is at work.
    """
    if not kinds:
        raise FsisError("nothing to export: choose at least one kind of file")
    if not paths:
        raise FsisError("no image was segmented as a whole with these examples: segment one first")
    check_names(paths)

    def work(task: Task) -> str:
        files: list[str] = []
        for number, path in enumerate(paths):
            task.advance(number, len(paths))
            files += export(session, path, kinds).values()
        export_references(session)
        names = [*map(os.path.basename, files), REFERENCES_FILE]
        told = ", ".join(names) if len(paths) == 1 else f"{len(files)} files of {len(paths)} images, {REFERENCES_FILE}"
        return f"{short_path(str(session.output))}: {told}"

    return session.begin("exporting", work)


def export_references(session: Session) -> str:
    """Write the references, with the corrections, as `fsis segment --references` takes them; the file.

    Raises:
        FsisError: there are none, or the file cannot be written.
    """
    state = session.state
    if not state.references:
        raise FsisError("no example yet: draw a box around a cell first")
    file = session.output / REFERENCES_FILE
    refined(session.encode(state.references), state.corrections).save(file)
    return str(file)


def export_training_data(session: Session) -> Task:
    """Begin to write the corrected images as a folder for training, in the place of the one written before.

    Raises:
        FsisError: nothing was corrected yet, or something else is at work.
    """
    corrected = corrected_images(session)

    def work(task: Task) -> str:
        folder, images, cells = write_corrected(session, task, corrected)
        return f"{short_path(str(folder))}: {cells} cells in {images} images, to train on (--config.data.root)"

    return session.begin("writing training data", work)


def corrected_images(session: Session) -> dict[str, Result]:
    """The results of which something was said, by the paths of their images, as corrections have them.

    Raises:
        FsisError: there is none.
    """
    state = session.state
    corrected = {path: session.segmented(path) for path, each in state.results.items() if each.verdicts or each.added}
    if not corrected:
        raise FsisError("nothing was corrected yet: mark what is wrong or right, or add what was missed")
    return corrected


def write_corrected(session: Session, task: Task, corrected: Mapping[str, Result]) -> tuple[pathlib.Path, int, int]:
    """Write such images as a folder for training.

    Returns:
        The folder, and how many windows and cells are in it.

    Raises:
        FsisError: there is no cell, or an image cannot be read, or the folder cannot be written.
    """

    def images_of() -> Iterator[CorrectedImage]:
        for number, (path, result) in enumerate(corrected.items()):
            task.advance(number, len(corrected))
            with _opened(session, path, result) as image:
                yield CorrectedImage(image, _cells(session, result).without_overlaps(), result.part)

    folder = session.output / TRAINING_FOLDER
    return folder, *write_training_data(folder, images_of())


def _opened(session: Session, path: str, result: Result) -> ImageFile:
    """The image that something was found in.

    Raises:
        FsisError: it cannot be read, or another one has taken its place.
    """
    image = session.open(path)
    if not result.is_of((image.shape[0], image.shape[1]), content_digest(path)):
        image.close()
        raise FsisError(f"{path}: another image is there than was segmented: segment it again")
    return image


def _cells(session: Session, result: Result) -> Instances:
    """The cells that count, with what files call the kind without a name."""
    counted = result.counted(session.filters)
    category = session.settings.category or NAMELESS
    return dataclasses.replace(counted, names=tuple(name or category for name in counted.names))


def command(session: Session, path: str, kinds: Sequence[str]) -> str:
    """The `fsis segment` that gives what `export` writes of an image, but for what was said of its own cells.

    With corrections it takes the references that `export_references` writes.
    """
    state = session.state
    return segment_command(
        path,
        str(session.output / REFERENCES_FILE) if state.corrections else state.references,
        session.filters,
        dataclasses.replace(session.settings, save=tuple(kinds)),
        session.output,
        checkpoint=session.checkpoint,
        min_score=session.segmenter.min_score,
    )
