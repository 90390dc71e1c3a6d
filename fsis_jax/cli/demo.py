"""`fsis demo`: its arguments. What it does is imported when it is asked for."""

from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser
from fsis_jax.cli.reference_options import check_checkpoint


def demo_parser() -> Parser:
    """The arguments of `fsis demo`."""
    parser = Parser(
        prog="fsis demo", description="See it work: segment two kinds of cell on an image that the command draws."
    )
    parser.add_argument(
        "--output", "-o", default="fsis-demo", metavar="DIR", help="folder: a new one, or that of an earlier demo"
    )
    parser.add_argument("--checkpoint", metavar="W", help="the model, and its default, as for `fsis segment`")
    return parser


def demo(arguments: Sequence[str]) -> None:
    """`demo [--output DIR] [--checkpoint W]`."""
    options = demo_parser().parse_args(arguments)
    check_checkpoint(options.checkpoint)
    from fsis_jax.cli.demo_run import run_demo

    run_demo(options)
