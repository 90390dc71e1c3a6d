"""What the page says, as HTML. Names of files may have any characters: they are escaped."""

import base64
import contextlib
import html

import cv2
import numpy as np

from fsis_jax.interactive.session import Session
from fsis_jax.interactive.state import VERDICTS, Reference, Result
from fsis_jax.interactive.task import Task
from fsis_jax.interactive.view import View


class Crops:
    """The examples, as small pictures."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pictures: dict[Reference, str] = {}

    def text(self, path: str, view: View | None) -> str:
        """Those of now.

        Args:
            path: of the image that is open, if one is ...
            view: ... which is not opened again.
        """
        references = self._session.state.references
        if not references:
            return "<p class='soft'>Drag a box around a typical cell in the image.</p>"
        shown = "".join(
            f"<span title='{html.escape(str(each), quote=True)}'>"
            f"<img alt='example {number}' src='{self._picture(each, view if each.image == path else None)}'>"
            f"<button aria-label='take example {number} away' onclick='fsisAsk(\"forget {number - 1}\")'>&times;"
            "</button></span>"
            for number, each in enumerate(references, start=1)
        )
        return f"<div class='crops'>{shown}</div>"

    def _picture(self, reference: Reference, view: View | None) -> str:
        """A data URL."""
        if reference not in self._pictures:
            with contextlib.ExitStack() as stack:
                if view is None:
                    view = View(stack.enter_context(self._session.open(reference.image)))
                pixels, _ = view.picture(reference.box, int(reference.box[2] - reference.box[0]))
            png = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
            self._pictures[reference] = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        return self._pictures[reference]


def counts(session: Session, result: Result | None) -> str:
    """How many cells count, and what was said of others."""
    if result is None:
        return "<p class='soft'>Nothing was segmented yet.</p>"
    count = int(np.count_nonzero(result.kept(session.filters)))
    if result.added:  # which may cover others
        count = len(result.counted(session.filters).without_overlaps())
    verdicts = list(result.verdicts.values())
    said = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts]
    if result.added:
        said.append(f"{len(result.added)} added")
    where = "in the part that was segmented" if result.part else "in the image"
    told = f"<p class='soft'>{', '.join(said)}</p>" if said else ""
    old = "" if session.is_current(result) else "<p class='bad'>The examples have changed: segment again.</p>"
    return f"<span class='count'>{count}</span> {'cell' if count == 1 else 'cells'} {where}{told}{old}"


def work(task: Task | None) -> str:
    """What is being done, and how far it is; or why it failed."""
    if task is None:
        return ""
    if not task.running:
        return f"<p class='bad'>{html.escape(task.error)}</p>" if task.error else ""
    tiles = f", part {task.finished} of {task.total}" if task.total > 1 else ""
    first = "" if task.finished else "; the first time takes longer"
    if task.stopping:
        tiles, first = ": stops after this part", ""
    share = max(100 * task.finished / task.total if task.total else 0, 4)
    bar = f"<div class='bar'><i style='width:{share:.0f}%'></i></div>"
    return f"<p class='soft'>{html.escape(task.name)}{tiles}{first}</p>{bar}"


def short(path: str) -> str:
    """The last parts of a path."""
    return "/".join(path.rsplit("/", 2)[-2:])
