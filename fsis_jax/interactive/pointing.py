"""What a click and a box do with each tool, in any front end."""

from typing import Literal, cast

from fsis_jax.errors import FsisError
from fsis_jax.interactive.editing import Editing
from fsis_jax.interactive.state import NOT_THIS, Verdict
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
    if tool == "example" and _example_forgotten(session, path, x, y):
        return
    result = session.result(path)
    if result is None or tool in ("move", "example", "add"):
        return
    added, found = result.added_at(x, y), result.instance_at(x, y, session.filters)
    if added is not None and tool == "other":
        session.change_cell(path, added, kind)
    elif added is not None and tool != "right":
        session.remove_cell(path, added)
    elif found is None:
        return
    elif tool == "other" and result.kinds.get(found) != kind:
        session.mark_kind(path, found, kind)
    elif tool == "other" or result.verdicts.get(found) == tool:
        session.mark(path, found, None)
    else:
        session.mark(path, found, cast(Verdict, tool))


def _example_forgotten(session: Editing, path: str, x: float, y: float) -> bool:
    """Take the first example away whose box holds a point, if there is one."""
    for number, reference in enumerate(session.state.references):
        x1, y1, x2, y2 = reference.box
        if reference.image == path and x1 <= x <= x2 and y1 <= y <= y2:
            session.remove_reference(number)
            return True
    return False
