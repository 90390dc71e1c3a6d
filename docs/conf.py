"""Sphinx: `python -m sphinx -W docs site` makes the site of the pages in this folder (extra `docs`)."""

import pathlib
import re
import sys

from sphinx.application import Sphinx

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import fsis_jax  # noqa: E402

project = "fsis_jax"
author = copyright = "The fsis_jax authors"
version = release = fsis_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["results.json"]
nitpicky = True
# What annotations name and has no page here: other packages, and our modules below the front door.
nitpick_ignore_regex = [("py:.*", r"(?!fsis_jax\.ops\.).*")]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

highlight_language = "none"
default_role = "literal"  # docstrings have single backquotes, as Markdown
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "undoc-members": False}
autosummary_generate = False
napoleon_numpy_docstring = False

PAGES = {
    "../CONTRIBUTING.md": "contributing.md",
    "../README.md": "index.md",
    "../benchmarks/README.md": "times.md",
    "../kernels/README.md": "kernels.md",
}
"""What the pages link to outside of this folder -> the page of the site that has it."""


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _link_to_pages)
    app.connect("autodoc-process-signature", _short_types)


def _link_to_pages(app: Sphinx, name: str, source: list[str]) -> None:
    for target, page in PAGES.items():
        source[0] = source[0].replace(f"]({target}", f"]({page}")


def _short_types(
    app: Sphinx, what: str, name: str, value: object, options: object, arguments: str | None, result: str | None
) -> tuple[str | None, str | None]:
    """Arrays as the sources name them."""
    return tuple(text and re.sub(r"jaxlib\._jax\.|~?numpy\.(?=ndarray)", "", text) for text in (arguments, result))


html_theme = "furo"
html_title = f"fsis_jax {release}"
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
