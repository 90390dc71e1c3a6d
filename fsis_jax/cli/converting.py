"""`fsis convert`: weights of PyTorch projects to ours, and back."""

from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser
from fsis_jax.config import user_path
from fsis_jax.conversion.convert import convert as convert_file
from fsis_jax.conversion.convert import to_pytorch
from fsis_jax.conversion.sources import KINDS


def convert_parser() -> Parser:
    """Of `convert`."""
    parser = Parser(prog="fsis convert", description="Weights of other projects to ours, and back.")
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
    return parser


def convert(arguments: Sequence[str]) -> None:
    """`convert SOURCE --output DIR`, or `convert RUN --to-pytorch FILE`."""
    options = convert_parser().parse_args(arguments)
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
