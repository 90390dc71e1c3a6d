"""What the arguments of `fsis segment` stand for: the model, the references, the images and how they are read."""

import argparse
import dataclasses
import pathlib

import jax

from fsis_jax.cli.many_planes import Group, each_plane
from fsis_jax.cli.references_given import NO_REFERENCE, load_model, read_examples
from fsis_jax.errors import FsisError
from fsis_jax.inference.augmentation import variants
from fsis_jax.inference.example_cells import encode_examples
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.references import References
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.inference.tidying import Tidying
from fsis_jax.io.all_planes import ALL
from fsis_jax.io.atomic import user_path
from fsis_jax.io.finding import image_files
from fsis_jax.io.names import FILES
from fsis_jax.io.outputs import check_results
from fsis_jax.pretrained import default_weights


@dataclasses.dataclass(frozen=True)
class PreparedRun:
    """A run of `fsis segment` before its first image."""

    segmenter: Segmenter
    references: References | None
    settings: OutputSettings
    """As the arguments say, which may be of all planes."""
    groups: list[Group]
    """Those of each plane, with the images that have it."""
    output: pathlib.Path

    @property
    def paths(self) -> list[str]:
        """Of all images, once."""
        return list(dict.fromkeys(path for _, own in self.groups for path in own))

    @property
    def count(self) -> int:
        """How many images and planes there are."""
        return sum(len(own) for _, own in self.groups)


def prepare(options: argparse.Namespace, *, encoded: References | None = None) -> PreparedRun:
    """Read the model and the references, and look which images and planes there are.

    Args:
        options: of `segment_parser`.
        encoded: references that take the place of those in the arguments.

    Raises:
        FsisError: arguments that do not go together, or files that cannot be read.
    """
    paths = image_files(options.images)
    only = paths[0] if len(paths) == 1 else None
    saved, examples = (encoded, []) if encoded is not None else read_examples(options, only)
    segmenter = load_model(options.checkpoint)
    if segmenter.names:
        _check_closed_set(segmenter, options, saved is not None or len(examples) > 0)
    elif saved is None and not examples:
        raise FsisError(NO_REFERENCE)
    segmenter = segmenter.with_options(
        min_score=options.min_score,
        variants=variants(flip=True, scales=segmenter.config.eval.scales) if options.augment else None,
        devices=jax.local_devices() if jax.local_device_count() > 1 else None,
    )
    references = saved or (encode_examples(segmenter, examples, options.category) if examples else None)
    kinds = list(dict.fromkeys([*(FILES if "all" in options.save else ()), *options.save]))
    kinds = [kind for kind in kinds if kind != "all"]
    if options.pdf and "overlay" not in kinds:
        kinds.append("overlay")
    if options.link and (options.page != ALL or "labels" not in kinds):
        raise FsisError(f"--link {options.link}: links the planes of --page all by their labels: give both, or neither")
    output = user_path(options.output)
    settings = OutputSettings(
        save=tuple(kinds),
        channel=options.channel,
        page=options.page,
        series=options.series,
        pixel_size=options.pixel_size,
        tile=options.tile,
        category=options.category,
        tidying=Tidying(
            whole=not options.raw_masks,
            exclude_edges=options.exclude_edges,
            min_area=options.min_area,
            max_area=options.max_area,
        ),
    )
    groups = each_plane(paths, settings, options.link)
    read = [*options.references, options.reference_mask, options.reference_outlines, options.reference_image]
    names = [chosen.name(path) for chosen, own in groups for path in own]
    check_results([path for path in read if path], names, output, kinds)
    return PreparedRun(segmenter, references, settings, groups, output)


def _check_closed_set(segmenter: Segmenter, options: argparse.Namespace, referenced: bool) -> None:
    """Raise FsisError where a model of named categories is asked for what only references do."""
    known = ", ".join(segmenter.names[:5]) + ", ..." * (len(segmenter.names) > 5)
    name = options.checkpoint or default_weights()
    if referenced:
        raise FsisError(f"{name} finds what it knows by name ({known}): leave the references out")
    if options.category is not None:
        raise FsisError(f"--category {options.category}: {name} has names of its own ({known}): leave it out")
