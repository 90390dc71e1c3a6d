"""Execute the notebooks in notebooks/, each in a temporary folder, and write them with what came out.

python scripts/run_notebooks.py [NOTEBOOK ...] [--output DIR]

Needs the extra `notebooks`. Stops at the first notebook that fails; files before it are written.
"""

import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from fsis_jax.cli import run
from fsis_jax.cli.parsing import Parser
from fsis_jax.errors import FsisError
from fsis_jax.io.atomic import atomic_write

NOTEBOOKS = pathlib.Path(__file__).resolve().parent.parent / "notebooks"
_SECONDS = 900
"""That a cell may take."""


def run_notebooks(arguments: Sequence[str]) -> None:
    """Of all notebooks, or of those that are named."""
    parser = Parser(prog="run_notebooks.py", description=__doc__)
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="default: all of notebooks/")
    parser.add_argument("--output", metavar="DIR", help="default: in the place of the notebooks")
    options = parser.parse_args(arguments)
    for path in map(pathlib.Path, options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))):
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        _execute(notebook, path)
        written = path if options.output is None else pathlib.Path(options.output, path.name)
        with atomic_write(written) as file:
            file.write(f"{nbformat.writes(notebook)}\n".encode())
        print(f"{written}: {time.perf_counter() - start:.0f} s, {written.stat().st_size >> 10} kB")


def _execute(notebook: nbformat.NotebookNode, path: pathlib.Path) -> None:
    """In place, by the running Python.

    Raises:
        FsisError: a cell failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
        )
        try:
            client.execute()
        except CellExecutionError as error:
            raise FsisError(f"{path}: a cell fails with {error.ename}: {error.evalue}: run it in Jupyter") from error


if __name__ == "__main__":
    run(run_notebooks, sys.argv[1:])
