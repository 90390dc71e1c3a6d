"""`fsis train` and `fsis evaluate`: their arguments. What they do is imported when it is asked for."""

import argparse
from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser
from fsis_jax.cli.reference_options import check_checkpoint
from fsis_jax.cli.spelling import suggestion
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import user_path


def config_parser(command: str) -> Parser:
    """The arguments of `fsis train` and `fsis evaluate`; what it does not know are changes of the config."""
    parser = Parser(
        prog=f"fsis {command}",
        description="Any key of the config is changed by --config.a.b=VALUE; fsis_jax/config.py lists them.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="needed: one of configs/, a file of your own like them, or the config.json of a run",
    )
    parser.add_argument("--workdir", metavar="DIR", help="folder of the run; default: runs/NAME of the config file")
    parser.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="the checkpoint of step N of the run; default: "
        + ("the last one, to go on from" if command == "train" else "the best one"),
    )
    if command == "evaluate":
        parser.add_argument(
            "--checkpoint",
            metavar="W",
            help="the model: a run, a weights file of `fsis export`, or a shipped name; default: the run in DIR",
        )
        parser.add_argument(
            "--allow-seen",
            action="store_true",
            help="test kinds as unseen that the model has learnt from; the results are then named seen-as-unseen",
        )
    return parser


def train(arguments: Sequence[str]) -> None:
    """`train --config FILE [--workdir DIR]`: train, or go on where the folder's last checkpoint stopped."""
    options = _parsed("train", arguments)
    from fsis_jax.cli.training_run import run_train

    run_train(options)


def evaluate(arguments: Sequence[str]) -> None:
    """`evaluate --config FILE --workdir DIR`: test a model; writes DIR/evaluation/[WEIGHTS-]NAME.json and overlays."""
    options = _parsed("evaluate", arguments)
    if options.checkpoint:
        check_checkpoint(options.checkpoint)
    from fsis_jax.cli.training_run import run_evaluate

    run_evaluate(options)


def _parsed(command: str, arguments: Sequence[str]) -> argparse.Namespace:
    """The arguments, with absolute paths in `config` and `workdir`, and in `changes` those of the config."""
    options, changes = config_parser(command).parse_known_args(arguments)
    if options.config is None:
        raise FsisError("no --config; give --config configs/quickstart.py [--workdir DIR] [--config.KEY=VALUE ...]")
    for change in changes:
        if change.startswith("--") and not change.startswith("--config."):
            raise _unknown(change, command)
    options.changes, options.config = changes, user_path(options.config)
    if not options.config.is_file():
        raise FsisError(f"{options.config}: no such config file; give a Python file like configs/quickstart.py")
    options.workdir = user_path(options.workdir or f"runs/{options.config.stem}")
    return options


def _unknown(argument: str, command: str) -> FsisError:
    known = [*(["--allow-seen", "--checkpoint"] if command == "evaluate" else []), "--config", "--step", "--workdir"]
    hint = suggestion(argument.partition("=")[0], known)
    return FsisError(f"unknown argument {argument!r}; {hint}known are {', '.join(known)} and --config.KEY=VALUE")
