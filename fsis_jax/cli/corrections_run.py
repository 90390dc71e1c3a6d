"""What `fsis corrections` does: it makes data to train on of what a person corrected."""

import argparse
import pathlib
import shlex
from collections.abc import Iterator, Mapping, Sequence

from fsis_jax.errors import FsisError
from fsis_jax.inference.corrections import Correction, corrections_in
from fsis_jax.inference.drawn_cells import read_cells
from fsis_jax.inference.training_data import CorrectedImage, suited_steps, write_training_data
from fsis_jax.io.all_planes import PlaneChoice
from fsis_jax.io.source import open_image


def run_corrections(options: argparse.Namespace, folder: pathlib.Path, corrected: Mapping[str, str]) -> None:
    """`fsis corrections`, of its arguments.

    Args:
        folder: the new one.
        corrected: image, by its name in the results or by its path -> file of its cells.
    """
    chosen = _chosen(options, corrected)
    images, cells = write_training_data(folder, _read(chosen))
    as_written = sum(not each.corrected for each in chosen)
    told = f" ({as_written} as `fsis segment` wrote {'them' if as_written > 1 else 'it'})" if as_written else ""
    print(f"{folder}: {cells} cells in {images} pictures, of {len(chosen)} image{'s' * (len(chosen) > 1)}{told}")
    print(f"next: {next_command(options.output, images)}")


def next_command(folder: str, images: int) -> str:
    """The training that suits so many images."""
    root = shlex.quote(f"--config.data.root={folder}")
    steps = f"--config.training.steps={suited_steps(images)}"
    return f"fsis train --config configs/few_images.py {root} {steps} --workdir runs/few_images"


def _chosen(options: argparse.Namespace, corrected: Mapping[str, str]) -> list[Correction]:
    plane = PlaneChoice(options.series, options.channel, options.page)
    if options.result is not None:
        return corrections_in(options.result, options.image, corrected, plane=plane)
    return [Correction(image, file, corrected=True, plane=plane) for image, file in corrected.items()]


def _read(chosen: Sequence[Correction]) -> Iterator[CorrectedImage]:
    named: dict[tuple[str, ...], str] = {}
    for each in chosen:
        with open_image(each.image, **each.plane._asdict()) as image:
            cells = read_cells(each.file, (image.shape[0], image.shape[1]), open_image)
            if len(cells):
                named.setdefault(cells.names, each.file)
                _check_names(named)
            yield CorrectedImage(image, cells)


def _check_names(named: dict[tuple[str, ...], str]) -> None:
    """Raise FsisError where some files have classes and others none, which would make them a category of their own."""
    classes = {name for names in named for name in names}
    if () in named and classes - {"cell"}:
        known = ", ".join(sorted(classes))
        raise FsisError(f"{named[()]}: its cells have no class, those of other images have ({known}): give them one")
