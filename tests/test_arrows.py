"""Which package imports which is what docs/architecture.md draws, and nothing goes round in a circle."""

import ast
import graphlib
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "fsis_jax").rglob("*.py")
}


def _imported(tree: ast.AST) -> Iterator[str]:
    """What is imported anywhere in a file, inside of functions too, but for what type checkers alone read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        yield from _imported(node)


def _module(name: str) -> str | None:
    """The module of the project that a dotted name lies in."""
    while name not in MODULES and "." in name:
        name = name.rpartition(".")[0]
    return name if name in MODULES else None


def _package(module: str) -> str:
    """Its folder below fsis_jax, or the file, where it lies there itself."""
    return module.split(".")[1]


def _arrows() -> dict[str, set[str]]:
    found = {}
    for name, path in MODULES.items():
        others = {_module(other) for other in _imported(ast.parse(path.read_text()))}
        found[name] = {other for other in others if other not in (None, name, "fsis_jax")}
    return found


def test_no_circle_of_files():
    graphlib.TopologicalSorter(_arrows()).prepare()


def test_the_drawing_of_packages_is_what_the_code_imports_and_has_no_circle():
    arrows = {}
    for name, others in _arrows().items():
        if name not in ("fsis_jax", "fsis_jax.__main__"):
            arrows.setdefault(_package(name), set()).update(_package(other) for other in others)
    arrows = {name: others - {name} for name, others in arrows.items()}
    graphlib.TopologicalSorter(arrows).prepare()
    text = (ROOT / "docs" / "architecture.md").read_text()
    (drawing,) = re.findall(r"## Arrows\n.*?```\n(.*?)```", text, re.DOTALL)
    drawn = {}
    for line in drawing.splitlines():
        name, _, others = line.partition("->")
        drawn[name.strip()] = set(others.replace(",", " ").split())
    assert drawn == arrows, "\n" + draw(arrows)


def draw(arrows: dict[str, set[str]]) -> str:
    """The drawing: who is imported by none first."""
    order = list(reversed(list(graphlib.TopologicalSorter(arrows).static_order())))
    return "\n".join(f"{name:<13}-> {', '.join(sorted(arrows[name], key=order.index))}" for name in order)


def test_no_file_is_long():
    assert {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 350} == {}
