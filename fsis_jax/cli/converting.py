"""`fsis convert`: weights and configs of other projects to ours, and back. `fsis export`: a model to give away.

What each needs is imported when its arguments are read.
"""

import hashlib
from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser, check_exists
from fsis_jax.cli.streams import say
from fsis_jax.conversion.kinds import KINDS
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import user_path
from fsis_jax.io.names import WEIGHTS_SUFFIX
from fsis_jax.pretrained import find_weights

_NO_RUN = "no such folder; give the folder of a training run"


def convert_parser() -> Parser:
    """The arguments of `fsis convert`."""
    parser = Parser(prog="fsis convert", description="Weights and configs of other projects to ours, and weights back.")
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="weights: .pth, .pth.tar or .pkl; a config of Detectron or Detectron.pytorch: .yaml; with --to-pytorch "
        "the folder of a run",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--output",
        "-o",
        metavar="PATH",
        help="new folder for the checkpoint and config.json; of a .yaml the new config file, such as coco.py",
    )
    target.add_argument("--to-pytorch", metavar="FILE", help="new .pth file, as CA_FSIS_Cell saves its own")
    parser.add_argument("--kind", choices=["auto", *KINDS], default="auto", help="default: told from the content")
    parser.add_argument("--resume", action="store_true", help="also the momentum and the step of CA_FSIS_Cell")
    parser.add_argument(
        "--allow-missing", nargs="+", default=[], metavar="PATTERN", help="tensors that may be absent: 'Mask_Head.*'"
    )
    return parser


def convert(arguments: Sequence[str]) -> None:
    """`convert SOURCE --output PATH`, or `convert RUN --to-pytorch FILE`."""
    options = convert_parser().parse_args(arguments)
    source = user_path(options.source)
    is_config = source.suffix in (".yaml", ".yml")
    if is_config and (
        options.to_pytorch is not None or options.kind != "auto" or options.resume or options.allow_missing
    ):
        raise FsisError(f"{source}: a config, not weights; give --output FILE.py and no other option")
    check_exists(options.source, _NO_RUN if options.to_pytorch is not None else "no such file: check the path")
    if is_config:
        from fsis_jax.conversion.detectron.yaml_file import convert_yaml

        say(convert_yaml(source, user_path(options.output)))
        return
    from fsis_jax.conversion import convert as conversion

    if options.to_pytorch is not None:
        file = user_path(options.to_pytorch)
        say(f"{conversion.to_pytorch(source, file)} tensors written to {file}")
        return
    output = user_path(options.output)
    chosen = {"kind": options.kind, "resume": options.resume, "allow_missing": options.allow_missing}
    say(conversion.convert(source, output, **chosen).report(output))


def export_parser() -> Parser:
    """The arguments of `fsis export`."""
    parser = Parser(
        prog="fsis export",
        description="A model to use elsewhere or to give away: the weights of a run in one file, as float16, without "
        "the optimiser; or programs that JAX runs without fsis_jax.",
    )
    parser.add_argument(
        "run",
        metavar="RUN",
        help="the --workdir of a training run (its best step), or a step folder; with --to stablehlo also a weights "
        "file, or a name of weights that come with the package",
    )
    parser.add_argument(
        "--to",
        choices=["weights", "stablehlo"],
        default="weights",
        help="weights: a file for --checkpoint; stablehlo: programs of jax.export for cpu, cuda, tpu (docs/"
        "exports.md); default: weights",
    )
    parser.add_argument(
        "--output",
        "-o",
        required=True,
        metavar="PATH",
        help=f"name of the weights file, such as cells{WEIGHTS_SUFFIX}; a new folder for the programs",
    )
    return parser


def export(arguments: Sequence[str]) -> None:
    """`export RUN --output FILE.npz`, which prints the file's size and its line for `sha256sum -c`, or `--to`."""
    options = export_parser().parse_args(arguments)
    output = user_path(options.output)
    if options.to == "stablehlo":
        weights = find_weights(options.run)
    elif output.suffix != WEIGHTS_SUFFIX:
        raise FsisError(
            f"{options.output}: give a name that ends in {WEIGHTS_SUFFIX}, "
            f"such as {output.stem or 'cells'}{WEIGHTS_SUFFIX}"
        )
    else:
        check_exists(options.run, _NO_RUN)
    from fsis_jax.checkpoints.runs import load_run
    from fsis_jax.checkpoints.weights import load_weights, save_weights

    if options.to == "stablehlo":
        from fsis_jax.inference.stablehlo import export_stablehlo

        trained = load_run(user_path(options.run)) if weights is None else load_weights(weights)
        export_stablehlo(trained, output, say)
        say(f"{output}: {sum(file.stat().st_size for file in output.iterdir()) / 1e6:.1f} MB")
        return
    save_weights(output, load_run(user_path(options.run)))
    say(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
    say(f"{hashlib.sha256(output.read_bytes()).hexdigest()}  {output.name}")
