"""The command line: `fsis train | evaluate | segment | convert | data ...`. Thin: parse, call, print.

Bad input ends in one line on stderr and exit status 2; Ctrl-C in status 130.
"""

import argparse
import collections
import difflib
import importlib.util
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from fsis_jax.config import check_config, user_path
from fsis_jax.conversion.convert import convert as convert_file
from fsis_jax.conversion.convert import to_pytorch
from fsis_jax.conversion.sources import KINDS
from fsis_jax.data.check import check, format_report
from fsis_jax.data.from_config import held_out, open_split
from fsis_jax.data.synthetic import generate
from fsis_jax.errors import FsisError
from fsis_jax.evaluation.protocol import format_table, run_protocol, write_results
from fsis_jax.inference.instances import Instances
from fsis_jax.inference.segmenter import References, Segmenter
from fsis_jax.io.exports import write_coco, write_labels, write_overlay
from fsis_jax.io.files import write_failure
from fsis_jax.io.images import check_image, overview, read_image
from fsis_jax.training.config_file import read_config
from fsis_jax.training.loop import train_and_evaluate

Command = Callable[[Sequence[str]], None]


def main() -> NoReturn:
    """The installed command `fsis`."""
    commands: dict[str, Command] = {
        "train": train,
        "evaluate": evaluate,
        "segment": segment,
        "convert": convert,
        "data": data,
    }
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in commands:
        asked = name in ("-h", "--help")
        usage = f"usage: fsis {{{','.join(commands)}}} ...  (each with --help)"
        print(usage, file=sys.stdout if asked else sys.stderr)
        sys.exit(0 if asked else 2)
    run(commands[name], sys.argv[2:])


def run(command: Command, arguments: Sequence[str]) -> NoReturn:
    """Run a command as a program: logging, the compilation cache, errors in one line, the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("fsis_jax").setLevel(logging.INFO)
    # Threads of the checkpoint library that meet a full disk; the error itself is raised here.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _unraisable
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(cache, "fsis_jax", "xla"))
    try:
        command(arguments)
    except FsisError as error:
        print(f"fsis: error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"fsis: error: {write_failure(error.filename or 'output', error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("fsis: stopped; what was written is complete", file=sys.stderr)
        sys.exit(130)
    sys.exit(0)


def _unraisable(problem: "sys.UnraisableHookArgs") -> None:
    if str(problem.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(problem)


# -- train and evaluate: ml_collections configs -----------------------------------------------------------------


def _parse_config(command: str, arguments: Sequence[str]) -> tuple[ConfigDict, pathlib.Path]:
    parser = argparse.ArgumentParser(
        prog=command,
        description="Any key of the config is changed by --config.a.b=VALUE; fsis_jax/config.py lists them.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE", help="one of configs/, a file of your own like them, or the config.json of a run"
    )
    parser.add_argument("--workdir", metavar="DIR", help="folder of the run; default: runs/NAME of the config file")
    options, changes = parser.parse_known_args(arguments)
    if options.config is None:
        raise FsisError("no --config; give --config configs/quickstart.py [--workdir DIR] [--config.KEY=VALUE ...]")
    path = user_path(options.config)
    config = _change(_load_config(path), command, changes)
    check_config(config)
    return config, user_path(options.workdir or f"runs/{path.stem}")


def _load_config(path: pathlib.Path) -> ConfigDict:
    if path.suffix == ".json":
        return read_config(path)
    spec = importlib.util.spec_from_file_location("fsis_jax_user_config", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise FsisError(f"{path}: no such config file; give a Python file like configs/quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise FsisError(f"{path}: defines no get_config(); write a file like configs/quickstart.py")
    config: ConfigDict = module.get_config()
    return config


def _change(config: ConfigDict, command: str, changes: Sequence[str]) -> ConfigDict:
    """The config after `--config.a.b=VALUE ...`, with each value of the type that the key has."""
    for change in changes:
        if not change.startswith("--config.") and change.startswith("--"):
            raise FsisError(f"unknown argument {change!r}; known are --config, --workdir and --config.KEY=VALUE")
        key = change.removeprefix("--config.").partition("=")[0]
        part: Any = config
        for name in key.split(".") if key != change else ():
            if not isinstance(part, ConfigDict) or name not in part:
                close = difflib.get_close_matches(name, part if isinstance(part, ConfigDict) else (), n=1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise FsisError(f"the config has no key {key!r}; {hint}fsis_jax/config.py lists the keys")
            part = part[name]
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=[command, *changes])
        extra = values([command, *changes])[1:]
    except (flags.Error, TypeError, ValueError) as error:
        raise FsisError(f"{' '.join(str(error).split())}; fsis_jax/config.py says what each key takes") from error
    if extra:
        raise FsisError(f"unknown argument {extra[0]!r}; known are --config, --workdir and --config.KEY=VALUE")
    return config


def train(arguments: Sequence[str]) -> None:
    """`train --config FILE [--workdir DIR]`: train, or go on where the folder's last checkpoint stopped."""
    config, workdir = _parse_config("train", arguments)
    train_and_evaluate(config, workdir)


def evaluate(arguments: Sequence[str]) -> None:
    """`evaluate --config FILE --workdir DIR`: test a trained model; writes DIR/evaluation/NAME.json and overlays."""
    config, workdir = _parse_config("evaluate", arguments)
    settings = config.eval
    segmenter = Segmenter.from_checkpoint(workdir)
    targets, references = open_split(config, "test"), open_split(config, "train")
    seen, unseen = held_out(targets, config.data.fold)
    folder = workdir / "evaluation" / f"{settings.split}-{settings.shots}shot-{settings.references}"
    results = run_protocol(
        segmenter,
        targets,
        references,
        {"seen": seen, "unseen": unseen, "all": seen + unseen}[settings.split],
        settings=settings,
        seed=config.seed,
        overlays=folder,
    )
    path = write_results(folder.with_suffix(".json"), config, results)
    print(format_table(results))
    print(f"written to {path}")


# -- segment ------------------------------------------------------------------------------------------------------


def segment(arguments: Sequence[str]) -> None:
    """`segment IMAGE... --references CROP... --checkpoint W --output OUT`."""
    parser = argparse.ArgumentParser(prog="fsis segment", description="Segment every cell like the references.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="PNG, JPEG or TIFF; 8 or 16 bit, grey or colour")
    parser.add_argument(
        "--references",
        nargs="+",
        required=True,
        metavar="CROP",
        help="one to five crops of one cell each, without much margin, at the scale of the images",
    )
    parser.add_argument("--checkpoint", required=True, metavar="W", help="the --workdir of a training run")
    parser.add_argument(
        "--output", required=True, metavar="OUT", help="folder for NAME-labels.tif, NAME-overlay.png, instances.json"
    )
    parser.add_argument(
        "--min-score", type=float, help="least score of an instance; default: the best on the validation images"
    )
    parser.add_argument(
        "--tile",
        type=int,
        default=0,
        metavar="PIXELS",
        help="side of the tiles of larger images, each prepared as an image of its own; default: as the model needs",
    )
    options = parser.parse_args(arguments)
    names = [pathlib.Path(path).stem for path in options.images]
    for name in names:
        if names.count(name) > 1:
            raise FsisError(f"two images are called {name!r}: give them other names, or segment them into two folders")
    for path in options.images:
        check_image(path)  # now, and not hours later; damaged pixels are found when it is their turn
    crops = {path: read_image(path) for path in options.references}
    segmenter = Segmenter.from_checkpoint(options.checkpoint)
    if options.min_score is not None:
        segmenter.min_score = options.min_score
    references = segmenter.encode_references(list(crops.values()), names=list(crops))
    output = user_path(options.output)
    found: dict[str, Instances] = {}
    images: collections.deque[np.ndarray] = collections.deque()

    def jobs() -> Iterator[tuple[np.ndarray, References]]:
        for path in options.images:
            images.append(read_image(path))
            yield images[-1], references

    with tqdm(total=len(names), unit="image", file=sys.stderr, disable=None) as bar:

        def advance(tile: int, tiles: int) -> None:
            if len(names) > 1:
                bar.set_postfix_str(f"tile {tile}/{tiles}" if tiles > 1 else "")
                return
            bar.unit, bar.total = "tile", tiles
            bar.update()

        results = segmenter.segment_all(jobs(), tile=options.tile, progress=advance)
        counted = (everything.without_overlaps() for everything in results)
        try:
            for name, path, instances in zip(names, options.images, counted, strict=True):
                picture, scale = overview(images.popleft())
                write_labels(output / f"{name}-labels.tif", instances.labels())
                write_overlay(output / f"{name}-overlay.png", picture, instances, list(references.images), scale=scale)
                found[os.path.basename(path)] = instances
                tqdm.write(f"{path}: {len(instances)} cells")
                if len(names) > 1:
                    bar.update()
        except FsisError as error:
            if not found:
                raise
            raise FsisError(f"{error}; {output} has the {len(found)} of {len(names)} images before it") from error
        finally:
            if found:
                write_coco(output / "instances.json", found)


# -- convert ------------------------------------------------------------------------------------------------------


def convert(arguments: Sequence[str]) -> None:
    """`convert SOURCE --output DIR`, or `convert RUN --to-pytorch FILE`."""
    parser = argparse.ArgumentParser(prog="fsis convert", description="Weights of other projects to ours, and back.")
    parser.add_argument(
        "source", metavar="SOURCE", help=".pth, .pth.tar or .pkl; with --to-pytorch the folder of a run"
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", metavar="DIR", help="new folder for the checkpoint and config.json")
    target.add_argument("--to-pytorch", metavar="FILE", help="new .pth file, as CA_FSIS_Cell saves its own")
    parser.add_argument("--kind", choices=["auto", *KINDS], default="auto", help="default: told from the content")
    parser.add_argument("--resume", action="store_true", help="also the momentum and the step of CA_FSIS_Cell")
    parser.add_argument(
        "--allow-missing", nargs="+", default=[], metavar="PATTERN", help="tensors that may be absent: 'Mask_Head.*'"
    )
    options = parser.parse_args(arguments)
    source = user_path(options.source)
    if options.to_pytorch is not None:
        file = user_path(options.to_pytorch)
        print(f"{to_pytorch(source, file)} tensors written to {file}")
        return
    output = user_path(options.output)
    print(
        convert_file(
            source, output, kind=options.kind, resume=options.resume, allow_missing=options.allow_missing
        ).report(output)
    )


# -- data ---------------------------------------------------------------------------------------------------------


def data(arguments: Sequence[str]) -> None:
    """`data check DIR | synthetic --output DIR | prepare DIR --output DIR`."""
    parser = argparse.ArgumentParser(prog="fsis data", description="Check, make and prepare data sets.")
    actions = parser.add_subparsers(dest="action", required=True)
    checking = actions.add_parser("check", help="validate a folder: a table, and every problem; status 1 if any")
    checking.add_argument("root", metavar="DIR")
    making = actions.add_parser("synthetic", help="make synthetic cells")
    making.add_argument("--layout", choices=["coco", "fis_cell"], default="coco")
    making.add_argument("--output", required=True, metavar="DIR")
    making.add_argument("--seed", type=int, default=0)
    preparing = actions.add_parser("prepare", help="turn a folder into an array_record data set (tensorflow-datasets)")
    preparing.add_argument("root", metavar="DIR")
    preparing.add_argument("--output", required=True, metavar="DIR")
    options = parser.parse_args(arguments)
    if options.action == "check":
        report = check(options.root)
        print(format_report(report))
        if report.problems:
            sys.exit(1)
    elif options.action == "synthetic":
        print(generate(options.output, seed=options.seed, layout=options.layout))
    else:
        from fsis_jax.data.prepared import prepare  # tensorflow-datasets takes seconds to import

        print(prepare(options.root, options.output))
