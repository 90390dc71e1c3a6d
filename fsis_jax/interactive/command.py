"""The `fsis segment` that does without a front end what was done with one."""

import dataclasses
import os
import pathlib
import shlex
from collections.abc import Sequence

import numpy as np

from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.interactive.state import NOT_THIS, Filters, Reference


def segment_command(
    path: str,
    references: Sequence[Reference] | str,
    filters: Filters,
    settings: OutputSettings,
    output: str | os.PathLike[str],
    *,
    checkpoint: str | None,
    min_score: float,
) -> str:
    """A line for a shell, with paths from the working folder on where they lie below it.

    Args:
        references: boxes, or a file of encoded ones.
        checkpoint: None for the default model.
        min_score: the model's own, which needs no option.
    """
    parts = ["fsis", "segment", short_path(path)]
    if isinstance(references, str):
        parts, references = [*parts, "--references", short_path(references)], ()
    shown = [dataclasses.replace(reference, image=short_path(reference.image)) for reference in references]
    for reference in shown:
        if not reference.kind:
            parts += ["--reference", str(reference)]
    for kind in dict.fromkeys(reference.kind for reference in shown if reference.kind):
        first, *others = [str(reference) for reference in shown if reference.kind == kind]
        parts += ["--not", first, *others] if kind == NOT_THIS else ["--kind", f"{kind}={first}", *others]
    options = {
        "--checkpoint": None if checkpoint is None else short_path(checkpoint),
        "--channel": settings.channel,
        "--page": settings.page,
        "--series": settings.series,
        "--pixel-size": settings.pixel_size,
        "--tile": settings.tile or None,
        "--category": settings.category,
        "--min-score": None if filters.min_score == min_score else filters.min_score,
        "--min-area": filters.min_area or None,
        "--max-area": None if np.isinf(filters.max_area) else filters.max_area,
    }
    for option, value in options.items():
        if value is not None:
            parts += [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]
    return shlex.join([*parts, "--save", *settings.save, "--output", short_path(os.fspath(output))])


def short_path(path: str) -> str:
    """A path from the working folder on, if it lies below it; one that no command takes for an option."""
    place, here = pathlib.Path(os.path.abspath(path)), pathlib.Path.cwd()
    short = str(place.relative_to(here)) if place.is_relative_to(here) else path
    return f"./{short}" if short.startswith("-") else short
