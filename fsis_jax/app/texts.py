"""What the page says, as HTML. Names of files may have any characters: they are escaped."""

import base64
import html
from collections.abc import Mapping

import cv2
import numpy as np

from fsis_jax.errors import FsisError
from fsis_jax.interactive import kinds
from fsis_jax.interactive.kinds import colour, title
from fsis_jax.interactive.learning import told
from fsis_jax.interactive.session import Session
from fsis_jax.interactive.state import NOT_THIS, VERDICTS, Reference, Result
from fsis_jax.interactive.task import Task
from fsis_jax.interactive.view import View
from fsis_jax.io.decoding import to_rgb8
from fsis_jax.io.intensity import find_stretch

_MISSING = cv2.putText(np.full((48, 48, 3), 128, np.uint8), "?", (14, 36), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (255,) * 3, 3)
"""Of an example whose image cannot be read."""


class Crops:
    """The examples, as small pictures."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pictures: dict[Reference, str] = {}

    def text(self, path: str, view: View | None, chosen: str) -> str:
        """Those of now, beside the names of their kinds.

        Args:
            path: of the image that is open, if one is ...
            view: ... which is not opened again.
            chosen: the kind that the next box is an example of.
        """
        state = self._session.state
        shown = ""
        for row, kind in enumerate([*state.kinds, NOT_THIS]):
            name = html.escape(title(kind, state.kinds, self._session.settings.category), quote=True)
            own = "".join(
                self._crop(number, each, view if each.image == path else None)
                for number, each in enumerate(state.references)
                if each.kind == kind
            )
            edits = ""
            if kind != NOT_THIS:
                edits = (
                    f"<button aria-label='rename {name}' title='rename' data-name='{name}' "
                    f"onclick='fsisRename({row}, this.dataset.name)'>&#9998;</button>"
                )
            if kind != NOT_THIS and len(state.kinds) > 1:
                edits += (
                    f"<button aria-label='remove {name}' title='remove' onclick='fsisAsk(\"drop {row}\")'>&times;"
                    "</button>"
                )
            shown += (
                f"<div class='kind{' on' * (kind == chosen)}' style='--kind: {colour(kind, state.kinds)}'>"
                f"<button class='name' aria-pressed='{str(kind == chosen).lower()}' onclick='fsisAsk(\"kind {row}\")'>"
                f"<i></i>{name}</button>{edits}<span class='crops'>{own}</span></div>"
            )
        hint = "" if state.references else "<p class='soft'>Drag a box around a typical cell in the image.</p>"
        return shown + hint

    def _crop(self, number: int, each: Reference, view: View | None) -> str:
        """One of them, with the cross that takes it away."""
        return (
            f"<span title='{html.escape(str(each), quote=True)}'>"
            f"<img alt='example {number + 1}' src='{self._picture(each, view)}'>"
            f"<button aria-label='take example {number + 1} away' onclick='fsisAsk(\"forget {number}\")'>&times;"
            "</button></span>"
        )

    def _picture(self, reference: Reference, view: View | None) -> str:
        """A data URL."""
        if reference not in self._pictures:
            try:
                pixels = self._pixels(reference, view)
            except FsisError:  # the image is gone, or not as it was; the network tells it when it is asked
                pixels = _MISSING
            png = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
            self._pictures[reference] = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        return self._pictures[reference]

    def _pixels(self, reference: Reference, view: View | None) -> np.ndarray:
        """(h, w, 3) uint8."""
        if view is not None:
            return view.picture(reference.box, int(reference.box[2] - reference.box[0]))[0]
        with self._session.open(reference.image) as image:  # without a look at all of it, which may take a minute
            x1, y1, x2, y2 = map(int, reference.box)
            crop = np.asarray(image[y1:y2, x1:x2])
            return to_rgb8(crop, stretch=find_stretch(crop))


def counts(session: Session, result: Result | None) -> str:
    """How many cells count, and what was said of others."""
    if result is None:
        return "<p class='soft'>Nothing was segmented yet.</p>"
    each = kinds.counts(result, session.filters, session.state.kinds)
    count = sum(each.values())
    verdicts = list(result.verdicts.values())
    said = [f"{verdicts.count(verdict)} {verdict}" for verdict in VERDICTS if verdict in verdicts]
    if result.added:
        said.append(f"{len(result.added)} added")
    where = "in the part that was segmented" if result.part else "in the image"
    if session.state.corrections:
        said.append(told(session.state.corrections))
    here = f"<p class='soft'>{', '.join(said)}</p>" if said else ""
    why = session.why_earlier(result)
    old = f"<p class='bad'>{why[0].upper()}{why[1:]}: segment again.</p>" if why else ""
    legend = _legend(session, each)
    causes = "".join(f"<p class='soft'>{html.escape(cause)}</p>" for cause in session.causes(result))
    return f"<span class='count'>{count}</span> {'cell' if count == 1 else 'cells'} {where}{legend}{here}{old}{causes}"


def _legend(session: Session, each: Mapping[str, int]) -> str:
    """The colours of several kinds, with their counts; nothing of one."""
    known = session.state.kinds
    if len(each) == 1:
        return ""
    entries = [
        f"<span style='--kind: {colour(kind, known)}'><i></i>{html.escape(title(kind, known, None))} "
        f"<b>{count}</b></span>"
        for kind, count in each.items()
    ]
    return f"<div class='legend'>{' '.join(entries)}</div>"


def unsaved(session: Session) -> str:
    """That what is done is not kept, while it is so."""
    return f"<p class='bad'>{html.escape(session.unsaved)}</p>" if session.unsaved else ""


def work(task: Task | None) -> str:
    """What is being done, and how far it is; or why it failed."""
    if task is None:
        return ""
    if not task.running:
        return f"<p class='bad'>{html.escape(task.error)}</p>" if task.error else ""
    tiles = f", {task.unit} {task.finished} of {task.total}" if task.total > 1 else ""
    first = "" if task.finished else "; the first time takes longer"
    if task.stopping:
        tiles, first = f": stops after this {task.unit}", ""
    share = max(100 * task.finished / task.total if task.total else 0, 4)
    bar = f"<div class='bar'><i style='width:{share:.0f}%'></i></div>"
    return f"<p class='soft'>{html.escape(task.name)}{tiles}{first}</p>{bar}"


def short(path: str) -> str:
    """The last parts of a path."""
    return "/".join(path.rsplit("/", 2)[-2:])
