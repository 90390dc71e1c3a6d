"""The dock widget: boxes in Shapes layers are examples, what is found is a Labels layer, and clicks correct it.

All is done by the session of `interactive`, as on the page of `fsis app`; results go to the same files.
"""

import atexit
import functools
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import (
    CheckBox,
    ComboBox,
    Container,
    FileEdit,
    FloatSlider,
    Label,
    LineEdit,
    ProgressBar,
    PushButton,
    Select,
)

from fsis_jax.errors import FsisError
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.interactive.exporting import export_images, export_training_data
from fsis_jax.interactive.folders import Everywhere
from fsis_jax.interactive.kinds import title
from fsis_jax.interactive.learning import told
from fsis_jax.interactive.pointing import Tool, clicked
from fsis_jax.interactive.saved import hold, saved_checkpoint
from fsis_jax.interactive.session import SESSION_FILE, Session
from fsis_jax.interactive.state import NOT_THIS, Filters, State
from fsis_jax.interactive.task import Task
from fsis_jax.io.names import DEFAULT, FILES
from fsis_jax.napari.box_layers import MISSED, BoxLayers
from fsis_jax.napari.layers import boxes, features, file_of, label_colours, label_image, summary

if TYPE_CHECKING:
    import napari

_TOOLS: dict[str, Tool] = dict(look="move", wrong="wrong", right="right", **{"other kind": "other"}, delete="deleted")


class Dock(Container):
    """The widget of one viewer.

    Args:
        napari_viewer: napari gives it by this name.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        self._viewer = napari_viewer
        self._boxes = BoxLayers(napari_viewer)
        self.session: Session | None = None
        self._cells: Any = None  # the Labels layer
        self._paths: dict[Any, str] = {}  # `unique_id` of a layer -> the file of its image
        self._followed: object = None
        self.image = ComboBox(label="image", choices=self._images)
        self.output = FileEdit(label="results", mode="d", value=pathlib.Path.home() / "fsis-napari")
        self.kind = ComboBox(label="kind", choices=self._kinds)
        self.new_kind = LineEdit(label="another kind")
        self.add = PushButton(text="Add kind")
        self.remove_kind = PushButton(text="Remove kind")
        self.segment = PushButton(text="Segment")
        self.stop = PushButton(text="Stop", visible=False)
        self.progress = ProgressBar(visible=False)
        self.score = FloatSlider(label="least score", min=0, max=1, step=0.01, value=0.5)
        self.tool = ComboBox(label="a click means", choices=list(_TOOLS))
        self.learn = CheckBox(text="learn from corrections", value=True)
        self.missed = PushButton(text="Add missed cells")
        self.undo, self.redo = PushButton(text="Undo"), PushButton(text="Redo")
        self.files = Select(label="files", choices=list(FILES), value=list(DEFAULT))
        self.export = PushButton(text="Export")
        self.training = CheckBox(text="as training data", value=False)
        self.message = Label(value="Draw boxes around cells, then segment.")
        super().__init__(
            widgets=[
                *(self.image, self.output, self.kind, self.new_kind, self.add, self.remove_kind),
                *(self.segment, self.stop, self.progress),
                *(self.score, self.tool, self.learn, self.missed, self.undo, self.redo),
                *(self.files, self.export, self.training, self.message),
            ]
        )
        self.add.clicked.connect(self._guarded(lambda: self._with_session(self._add_kind)))
        self.remove_kind.clicked.connect(self._guarded(lambda: self._ready().remove_kind(self.kind.value)))
        self.segment.clicked.connect(self._guarded(lambda: self._with_session(self._segment)))
        self.stop.clicked.connect(lambda: self.session and self.session.task and self.session.task.stop())
        self.score.changed.connect(self._guarded(self._filter))
        self.tool.changed.connect(lambda _: self._choose_cells())
        self.learn.changed.connect(self._guarded(lambda: self._ready().learn(self.learn.value)))
        self.image.changed.connect(lambda _: self._show())
        self.kind.changed.connect(lambda kind: self._choose_examples(kind))
        self.missed.clicked.connect(self._guarded(self._add_missed))
        self.undo.clicked.connect(self._guarded(lambda: self._ready().undo()))
        self.redo.clicked.connect(self._guarded(lambda: self._ready().redo()))
        self.export.clicked.connect(self._guarded(self._export))
        self._viewer.layers.events.inserted.connect(lambda _: self._layers_changed())
        self._viewer.layers.events.removed.connect(lambda _: self._layers_changed())
        self._layers_changed()

    def _guarded(self, act: Callable[[], object]) -> Callable[..., None]:
        """Show what came of it; bad input is told in its one line."""

        def call(*_: Any) -> None:
            try:
                act()
            except FsisError as error:
                self.message.value = str(error)
            else:
                self._show()

        return call

    def _images(self, _: object = None) -> list[tuple[str, Any]]:
        return [(layer.name, layer) for layer in self._viewer.layers if type(layer).__name__ == "Image"]

    @property
    def _state(self) -> State:
        return State() if self.session is None else self.session.state

    def _kinds(self, _: object = None) -> list[tuple[str, str]]:
        kinds = self._state.kinds
        return [(title(kind, kinds, None), kind) for kind in (*kinds, NOT_THIS)]

    def _layers_changed(self) -> None:
        """The images that can be chosen are those of the layers."""
        self.image.reset_choices()
        self._follow()

    def _follow(self) -> None:
        """Show layers for the examples of the image and the kinds, if these are others than before."""
        image, kinds = self.image.value, self._state.kinds
        if image is not None and self._followed != (image.unique_id, kinds):
            self._followed = image.unique_id, kinds
            self._boxes.follow(image, kinds)
            self.kind.reset_choices()

    def _add_kind(self, session: Session) -> None:
        name = self.new_kind.value.strip()
        session.add_kind(name)
        self.new_kind.value = ""
        self.kind.reset_choices()
        self._follow()
        self.kind.value = name

    def _choose_examples(self, kind: str) -> None:
        """Draw in the layer of the kind that is chosen, unless clicks mean something."""
        layer = None if self.image.value is None else self._boxes.of(self.image.value).get(kind)
        if layer is not None and self.tool.value == "look":
            self._viewer.layers.selection.active = layer

    def _choose_cells(self) -> None:
        if self._cells is not None and self.tool.value != "look":
            self._viewer.layers.selection.active = self._cells
            self._cells.mode = "pan_zoom"

    def _ready(self) -> Session:
        if self.session is None:
            raise FsisError("nothing was segmented yet: draw boxes around cells, then segment")
        return self.session

    def _chosen(self) -> Any:
        """The layer of the image that is chosen."""
        if self.image.value is None:
            raise FsisError("no image: open one, or File > Open Sample > fsis")
        return self.image.value

    def _path(self) -> str:
        """The file of that image, as it was segmented last."""
        image = self._chosen()
        if image.unique_id not in self._paths:
            raise FsisError(f"{image.name}: not segmented yet: segment it first")
        return self._paths[image.unique_id]

    def _with_session(self, act: Callable[[Session], object]) -> None:
        """Do something with the session, which is loaded in a thread before, if it is not yet."""
        from napari.qt.threading import thread_worker

        if self.session is not None:
            act(self.session)
            return

        def use(session: Session) -> None:
            self.session = session
            self.output.enabled = False
            self.score.value = session.filters.min_score
            self._guarded(lambda: act(session))()

        output = pathlib.Path(self.output.value)
        worker = thread_worker(lambda: session_in(output))()
        worker.returned.connect(use)
        worker.errored.connect(lambda error: setattr(self.message, "value", str(error)))
        worker.finished.connect(lambda: self._busy(self._running()))
        self.segment.enabled = self.add.enabled = False
        self.message.value = "The model is loaded ..."
        worker.start()

    def _segment(self, session: Session) -> None:
        image, kinds = self._chosen(), session.state.kinds
        path = session.folders.allowed(file_of(image, session.uploads))
        self._boxes.follow(image, kinds)
        before = self._paths.get(image.unique_id)
        if before != path:  # a session that is gone on with has its examples
            self._boxes.add(image, [each for each in session.state.references if each.image == path])
            if before is not None:  # the layer has other pixels now
                session.show(before, {})
        self._paths[image.unique_id] = path
        session.show(path, self._boxes.boxes(image, kinds))
        self._watch(session.segment(path))

    def _watch(self, task: Task) -> None:
        """Show how far a piece of work is, and what came of it."""
        from napari.qt.threading import thread_worker

        def wait() -> Any:
            while task.running:
                task.wait(0.1)
                yield task.finished, task.total

        def advanced(parts: tuple[int, int]) -> None:
            self.progress.max = max(parts[1], 1)
            self.progress.value = parts[0]
            self.message.value = f"{task.name} ..."

        worker = thread_worker(wait)()
        worker.yielded.connect(advanced)
        worker.finished.connect(lambda: self._ended(task))
        self._busy(True)
        worker.start()

    def _ended(self, task: Task) -> None:
        self._busy(False)
        self._show()
        if task.error or task.told:
            self.message.value = task.error or task.told

    def _running(self) -> bool:
        return self.session is not None and self.session.task is not None and self.session.task.running

    def _busy(self, busy: bool) -> None:
        self.segment.enabled = self.export.enabled = not busy
        self.add.enabled = True
        self.stop.visible = self.progress.visible = busy

    def _filter(self) -> None:
        if self.session is not None:
            filters = self.session.filters
            self.session.set_filters(Filters(round(self.score.value, 4), filters.min_area, filters.max_area))

    def _add_missed(self) -> None:
        """The boxes of their layer, which is made by the first press."""
        image = self._chosen()
        layer = self._boxes.of(image).get(MISSED)
        if layer is None:
            self._boxes.add_missed(image)
            return
        kind = None if self.kind.value == NOT_THIS else self.kind.value
        self._ready().add_cells(self._path(), boxes(layer.data), kind)
        layer.data = []

    def _click(self, layer: Any, event: Any) -> Any:
        """What napari calls with a press of a button of the mouse."""
        yield
        dragged = False
        while event.type == "mouse_move":
            dragged = True
            yield
        if not dragged and self.tool.value != "look":
            y, x = layer.world_to_data(event.position)[-2:]
            self._guarded(lambda: self._correct(float(x) + 0.5, float(y) + 0.5))()

    def _correct(self, x: float, y: float) -> None:
        """A click on a point, in pixels of the image, with the tool and the kind that are chosen."""
        clicked(self._ready(), self._path(), x, y, _TOOLS[self.tool.value], self.kind.value)

    def _export(self) -> None:
        session, data = self._ready(), self.training.value
        paths, chosen = [] if data else [self._path()], list(self.files.value)
        self._watch(export_training_data(session) if data else export_images(session, paths, chosen))

    def _show(self) -> None:
        """The result of the image that is chosen, as it is now."""
        self._follow()
        session, image = self.session, self.image.value
        if session is None or image is None:
            return
        result = session.result(self._paths.get(image.unique_id, ""))
        there = self._cells is not None and self._cells in self._viewer.layers
        if result is None:
            if there:
                self._viewer.layers.remove(self._cells)
            return
        kinds, filters = session.state.kinds, session.filters
        labels, table = label_image(result, filters), features(result, filters, kinds, None)
        if there:
            self._cells.data, self._cells.features = labels, table
        else:
            self._cells = self._viewer.add_labels(labels, name="cells", features=table)
            self._cells.contour = 2
            self._cells.mouse_drag_callbacks.append(self._click)
        self._cells.scale, self._cells.translate = image.scale[-2:], image.translate[-2:]
        if len(kinds) > 1 or result.found.kind_scores is not None:
            self._cells.colormap = label_colours(result, filters, kinds)
        self.learn.value = session.state.learning
        learnt, old = told(session.state.corrections), session.why_earlier(result)
        lines = [summary(result, filters, kinds), *session.causes(result), learnt, old, session.unsaved]
        self.message.value = "; ".join(filter(None, lines))


@functools.cache
def session_in(output: pathlib.Path) -> Session:
    """The session of a folder, which may be one that is gone on with, for all widgets until this process ends.

    Raises:
        FsisError: another program is at work on it, it is damaged, or its model or an image of it is gone.
    """
    lock = hold(output)
    try:
        checkpoint = saved_checkpoint(output / SESSION_FILE)
        session = Session(Segmenter.from_pretrained(checkpoint), Everywhere(), output, checkpoint=checkpoint)
        session.load()
    except BaseException:
        lock.release()
        raise
    session.keep()
    atexit.register(lock.release)
    atexit.register(session.close)  # before
    return session
