"""The command line: `fsis train | evaluate | segment | data ...`. Thin: parse, call, print.

Bad input ends in one line on stderr and exit status 2; Ctrl-C in status 130.
"""

import argparse
import json
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from fsis_jax.config import check_config, user_path
from fsis_jax.data.check import check, format_report
from fsis_jax.data.fis_cell import prepare
from fsis_jax.data.from_config import held_out, open_split
from fsis_jax.data.synthetic import generate
from fsis_jax.errors import FsisError
from fsis_jax.evaluation.protocol import test
from fsis_jax.evaluation.table import format_table
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.io.exports import write_coco, write_labels, write_overlay
from fsis_jax.io.files import atomic_write
from fsis_jax.io.images import read_image, to_rgb8
from fsis_jax.training.loop import train_and_evaluate

CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def main() -> NoReturn:
    """The installed command `fsis`."""
    commands: dict[str, Callable[[Sequence[str]], None]] = {
        "train": run_train,
        "evaluate": run_evaluate,
        "segment": run_segment,
        "data": run_data,
    }
    if len(sys.argv) < 2 or sys.argv[1] not in commands:
        asked_for_help = len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help")
        print(
            f"usage: fsis {{{','.join(commands)}}} ...  (each with --help)",
            file=sys.stdout if asked_for_help else sys.stderr,
        )
        sys.exit(0 if asked_for_help else 2)
    run(commands[sys.argv[1]], sys.argv[2:])


def run(command: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> NoReturn:
    """Run a command as a program: logging, the compilation cache, errors in one line, the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("fsis_jax").setLevel(logging.INFO)
    if CACHE_VARIABLE not in os.environ:
        base = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
        jax.config.update("jax_compilation_cache_dir", os.path.join(base, "fsis_jax", "xla"))
    try:
        command(arguments)
    except FsisError as error:
        print(f"fsis: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("fsis: stopped; the last checkpoint or output is complete", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


# -- train and evaluate: ml_collections configs -----------------------------------------------------------------


def _parse_config(command: str, arguments: Sequence[str]) -> tuple[ConfigDict, pathlib.Path]:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config", None, "A file of configs/; --config.a.b=value changes a key.", flag_values=values
    )
    flags.DEFINE_string("workdir", None, "Folder of the run; default runs/<name of the config>.", flag_values=values)
    flags.DEFINE_bool("help", False, "Show the flags.", short_name="h", flag_values=values)
    try:
        extra = values([command, *arguments])[1:]
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        message = " ".join(str(error).split())
        raise FsisError(f"{message}; the keys are listed in fsis_jax/config.py") from error
    if values.help:
        print(
            f"{command} --config FILE [--workdir DIR] [--config.KEY=VALUE ...]\n{values.main_module_help()}{values.get_help()}"
        )
        sys.exit(0)
    if values.config is None or extra:
        problem = f"unknown argument {extra[0]!r}" if extra else "no --config"
        raise FsisError(f"{problem}; give --config configs/quickstart.py [--workdir DIR] [--config.KEY=VALUE ...]")
    config: ConfigDict = values.config
    check_config(config)
    name = pathlib.Path(config_flags.get_config_filename(values["config"])).stem
    return config, user_path(values.workdir or f"runs/{name}")


def run_train(arguments: Sequence[str]) -> None:
    """`train --config FILE`: see scripts/train.py."""
    config, workdir = _parse_config("train", arguments)
    train_and_evaluate(config, workdir)


def run_evaluate(arguments: Sequence[str]) -> None:
    """`evaluate --config FILE --workdir W`: see scripts/evaluate.py."""
    config, workdir = _parse_config("evaluate", arguments)
    settings = config.eval
    segmenter = Segmenter.from_checkpoint(workdir)
    targets, train = open_split(config, "test"), open_split(config, "train")
    seen, unseen = held_out(targets, config.data.fold)
    categories = {"seen": seen, "unseen": unseen, "all": seen + unseen}[settings.split]
    name = f"{settings.split}-{settings.shots}shot-{settings.references}"
    results = test(
        segmenter,
        targets,
        train,
        categories,
        shots=settings.shots,
        references=settings.references,
        repeats=settings.repeats,
        seed=config.seed,
        max_images=settings.max_images,
        overlays=workdir / "evaluation" / name,
        overlay_count=settings.overlays,
    )
    path = workdir / "evaluation" / f"{name}.json"
    with atomic_write(path) as file:
        file.write(json.dumps({"config": json.loads(config.to_json_best_effort()), **results}, indent=1).encode())
    print(format_table(results))
    print(path)


# -- segment ------------------------------------------------------------------------------------------------------


def run_segment(arguments: Sequence[str]) -> None:
    """`segment IMAGE... --references CROP... --checkpoint W --output OUT`."""
    parser = argparse.ArgumentParser(prog="fsis segment", description="Segment every cell like the references.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="PNG, JPEG or TIFF, 8 or 16 bit, grey or colour")
    parser.add_argument(
        "--references",
        nargs="+",
        required=True,
        metavar="CROP",
        help="one to five crops of one cell each, at the scale of the images",
    )
    parser.add_argument("--checkpoint", required=True, metavar="W", help="the folder of a training run")
    parser.add_argument(
        "--output",
        required=True,
        metavar="OUT",
        help="folder for IMAGE-labels.tif, IMAGE-overlay.png and instances.json",
    )
    parser.add_argument(
        "--min-score", type=float, help="least score of an instance; default: the best on the run's validation images"
    )
    options = parser.parse_args(arguments)
    output = user_path(options.output)
    names = [pathlib.Path(image).stem for image in options.images]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise FsisError(
            f"two images are called {double[0]!r}: their outputs would overwrite each other; segment them into two folders"
        )
    segmenter = Segmenter.from_checkpoint(options.checkpoint)
    if options.min_score is not None:
        segmenter.min_score = options.min_score
    crops = [read_image(path) for path in options.references]
    for path, crop in zip(options.references, crops, strict=True):
        if min(crop.shape[:2]) < 2:
            raise FsisError(
                f"{path}: a reference of {crop.shape[1]}x{crop.shape[0]} pixels shows no cell; give a crop around one cell"
            )
    references = segmenter.encode_references(crops)
    found: dict[str, Any] = {}
    for name, path in zip(names, options.images, strict=True):
        image = read_image(path)
        instances = segmenter.segment(image, references).without_overlaps()
        write_labels(output / f"{name}-labels.tif", instances.labels())
        write_overlay(
            output / f"{name}-overlay.png", to_rgb8(image, stretch=True), instances, references=list(references.images)
        )
        found[os.path.basename(path)] = instances
        print(f"{path}: {len(instances)} cells")
    write_coco(output / "instances.json", found)
