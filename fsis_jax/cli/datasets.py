"""`fsis data`: check, make and prepare data sets. What each action needs is imported when its arguments are read."""

import sys
from collections.abc import Sequence

from fsis_jax.cli.parsing import Parser
from fsis_jax.cli.streams import say


def data_parser() -> Parser:
    """The arguments of `fsis data`."""
    parser = Parser(prog="fsis data", description="Check, make and prepare data sets.")
    actions = parser.add_subparsers(dest="action", required=True)
    checking = actions.add_parser("check", help="validate a folder: a table, and every problem; status 1 if any")
    checking.add_argument("root", metavar="DIR", help="folder with COCO annotations, or FIS-Cell's")
    making = actions.add_parser("synthetic", help="make synthetic cells")
    making.add_argument("--layout", choices=["coco", "fis_cell"], default="coco")
    making.add_argument("--output", required=True, metavar="DIR")
    making.add_argument("--seed", type=int, default=0)
    making.add_argument("--images-per-category", type=int, default=20, metavar="N", help="that show it alone")
    making.add_argument("--two-category-images", type=int, default=90, metavar="N", help="in the whole data set")
    making.add_argument(
        "--random-categories", type=int, default=0, metavar="N", help="further ones, of looks drawn at random"
    )
    making.add_argument(
        "--crowded-categories", type=int, default=0, metavar="N", help="further ones, of cells that touch, many long"
    )
    making.add_argument(
        "--flat-categories", type=int, default=0, metavar="N", help="further ones, of flat cells in transmitted light"
    )
    preparing = actions.add_parser("prepare", help="turn a folder into an array_record data set (tensorflow-datasets)")
    preparing.add_argument("root", metavar="DIR", help="folder with COCO annotations, or FIS-Cell's")
    preparing.add_argument("--output", required=True, metavar="DIR")
    merging = actions.add_parser("merge", help="make one COCO folder of several")
    merging.add_argument("roots", nargs="+", metavar="DIR", help="folders with COCO annotations")
    merging.add_argument("--output", required=True, metavar="DIR")
    merging.add_argument(
        "--folds", metavar="FILE", help='JSON of folds by name, like {"1": ["yeast"]}; without it, their own by number'
    )
    return parser


def data(arguments: Sequence[str]) -> None:
    """`data check DIR | synthetic --output DIR | prepare DIR --output DIR | merge DIR DIR --output DIR`."""
    options = data_parser().parse_args(arguments)
    if options.action == "check":
        from fsis_jax.data.check import check, format_report

        report = check(options.root)
        say(format_report(report))
        if report.problems:
            sys.exit(1)
    elif options.action == "synthetic":
        from fsis_jax.synthetic.generate import generate

        made = generate(
            options.output,
            seed=options.seed,
            layout=options.layout,
            images_per_category=options.images_per_category,
            two_category_images=options.two_category_images,
            random_categories=options.random_categories,
            crowded_categories=options.crowded_categories,
            flat_categories=options.flat_categories,
        )
        say(made)
    elif options.action == "merge":
        from fsis_jax.data.merging import merge_folders

        say(merge_folders(options.roots, options.output, folds=options.folds))
    else:
        from fsis_jax.data.prepared import prepare  # tensorflow-datasets takes seconds to import

        say(prepare(options.root, options.output))
