"""What a click and a box do with each tool, in any front end."""

from typing import Literal, cast

from fsis_jax.errors import FsisError
from fsis_jax.interactive.editing import Editing
from fsis_jax.interactive.judging import as_shown, said, with_added_of, without_added
from fsis_jax.interactive.state import NOT_THIS, Filters, Result, Verdict
from fsis_jax.io.outlines import Box

Tool = Literal["move", "example", "wrong", "right", "other", "deleted", "add"]


def box_drawn(session: Editing, path: str, box: Box, tool: Tool, kind: str) -> str:
    """An example, or a cell that was missed; other tools draw no boxes.

    Args:
        kind: that is chosen, of the cell in the box.

    Returns:
        What there is to say of it, or "".

    Raises:
        FsisError: as `add_reference` and `add_cell`.
    """
    if tool == "example":
        session.add_reference(path, box, kind)
    if tool != "add":
        return ""
    if kind == NOT_THIS:
        raise FsisError("a cell that was missed is of a kind: choose it on the left")
    if session.add_cell(path, box, kind):
        return "Added, with the outline that the model has for it."
    return "Added as an ellipse: the model has no outline there."


def clicked(session: Editing, path: str, x: float, y: float, tool: Tool, kind: str) -> None:
    """Say something of the cell with this point, or take it back where it was said before; or take an example away.

    Args:
        kind: that is chosen, for the tool "other".

    Raises:
        FsisError: there is no other kind.
    """
    if tool == "other" and kind == "":
        raise FsisError("there is one kind only: name another one first")
    if tool == "other" and kind == NOT_THIS:
        tool = "wrong"
    if tool == "example":
        session.remove_reference_at(path, x, y)
    elif tool not in ("move", "add") and session.result(path) is not None:
        filters = session.filters
        session.correct(path, lambda result, shown: _pointed(result, shown, (x, y), filters, tool, kind))


def _pointed(
    result: Result, shown: Result, point: tuple[float, float], filters: Filters, tool: Tool, kind: str
) -> Result:
    """As `Editing.correct` asks for it, of a click with a tool that says something of cells."""
    added, found = shown.added_at(*point), shown.instance_at(*point, filters)
    if added is not None and tool == "other":
        return with_added_of(result, added, kind)
    if added is not None and tool != "right":
        return without_added(result, added)
    if found is None:
        return result
    if tool == "other" and result.kinds.get(found) != kind:
        return said(result, found, "right", kind)
    if tool == "other" or result.verdicts.get(found) == tool:
        return said(result, found, None)
    return as_shown(result, shown, found) if tool == "right" else said(result, found, cast(Verdict, tool))
