"""The dock widget: boxes in Shapes layers are examples, what is found is a Labels layer, and clicks correct it.

All is done by the session of `interactive`, as on the page of `fsis app`; results go to the same files.
"""

import atexit
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
from fsis_jax.interactive.folders import Folders
from fsis_jax.interactive.kinds import colour, title
from fsis_jax.interactive.learning import told
from fsis_jax.interactive.pointing import Tool, clicked
from fsis_jax.interactive.saved import hold
from fsis_jax.interactive.session import UPLOADS, Session
from fsis_jax.interactive.state import NOT_THIS, Filters, Reference
from fsis_jax.interactive.task import Task
from fsis_jax.io.names import DEFAULT, FILES
from fsis_jax.napari.layers import KIND, boxes, features, kept_at, label_colours, label_image, plane, rectangle, summary

if TYPE_CHECKING:
    import napari

_TOOLS: dict[str, Tool] = dict(look="move", wrong="wrong", right="right", **{"other kind": "other"}, delete="deleted")
MISSED = "missed cells"
"""Name of the Shapes layer whose boxes are cells that were missed."""


class Dock(Container):
    """The widget of one viewer.

    Args:
        napari_viewer: napari gives it by this name.
    """

    def __init__(self, napari_viewer: "napari.viewer.Viewer") -> None:
        self._viewer = napari_viewer
        self.session: Session | None = None
        self._cells: Any = None  # the Labels layer
        self._shown = ""  # path of the image that it is of
        self.image = ComboBox(label="image", choices=self._images)
        self.output = FileEdit(label="results", mode="d", value=pathlib.Path.home() / "fsis-napari")
        self.kind = ComboBox(label="kind", choices=self._kinds)
        self.new_kind = LineEdit(label="another kind")
        self.add = PushButton(text="Add kind")
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
                *(self.image, self.output, self.kind, self.new_kind, self.add, self.segment, self.stop, self.progress),
                *(self.score, self.tool, self.learn, self.missed, self.undo, self.redo),
                *(self.files, self.export, self.training, self.message),
            ]
        )
        self.add.clicked.connect(self._guarded(self._add_kind))
        self.segment.clicked.connect(self._guarded(self._segment))
        self.stop.clicked.connect(lambda: self.session and self.session.task and self.session.task.stop())
        self.score.changed.connect(self._guarded(self._filter))
        self.tool.changed.connect(lambda _: self._choose_cells())
        self.learn.changed.connect(self._guarded(lambda: self._ready().learn(self.learn.value)))
        self.kind.changed.connect(lambda kind: self._choose_examples(kind))
        self.missed.clicked.connect(self._guarded(self._add_missed))
        self.undo.clicked.connect(self._guarded(lambda: self._ready().undo()))
        self.redo.clicked.connect(self._guarded(lambda: self._ready().redo()))
        self.export.clicked.connect(self._guarded(self._export))
        self._viewer.layers.events.inserted.connect(lambda _: self._image_added())
        self._viewer.layers.events.removed.connect(lambda _: self._layers_changed())
        self._image_added()

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

    def _images(self, _: object = None) -> list[str]:
        return [layer.name for layer in self._viewer.layers if type(layer).__name__ == "Image"]

    def _examples(self) -> dict[str, Any]:
        """Kind -> its Shapes layer, in the order of the layers, what is not wanted last."""
        found = {layer.metadata[KIND]: layer for layer in self._viewer.layers if KIND in layer.metadata}
        return {**{kind: layer for kind, layer in found.items() if kind != NOT_THIS}, **found}

    def _kinds(self, _: object = None) -> list[tuple[str, str]]:
        kinds = [kind for kind in self._examples() if kind != NOT_THIS] or [""]
        return [(title(kind, kinds, None), kind) for kind in (*kinds, NOT_THIS)]

    def _layers_changed(self) -> None:
        """The choices are those of the layers."""
        self.image.reset_choices()
        self.kind.reset_choices()

    def _image_added(self) -> None:
        """Layers for examples as soon as there is an image; not when some are removed, as all are at the end."""
        self._layers_changed()
        if self.image.value is not None and not self._examples():
            for kind in ("", NOT_THIS):
                self._add_layer(kind, [""])
            self._layers_changed()

    def _add_layer(self, kind: str, kinds: list[str]) -> None:
        like = self._viewer.layers[self.image.value]
        self._viewer.add_shapes(
            ndim=2,
            name=title(kind, kinds, None) if kind == NOT_THIS else f"examples: {title(kind, kinds, None)}",
            metadata={KIND: kind},
            edge_color=colour(kind, kinds),
            face_color="transparent",
            edge_width=2,
            scale=like.scale[-2:],
            translate=like.translate[-2:],
        ).mode = "add_rectangle"

    def _add_kind(self) -> None:
        name = self.new_kind.value.strip()
        layers = self._examples()
        kinds = [kind for kind in layers if kind != NOT_THIS]
        if not layers or not name or name in (*kinds, NOT_THIS):
            raise FsisError(
                "open an image, and give another name" if not layers else "give a name that is not there yet"
            )
        if kinds == [""]:
            first = title("", kinds, None)
            layers[""].metadata, layers[""].name = {KIND: first}, f"examples: {first}"
            kinds = [first]
        self._add_layer(name, [*kinds, name])
        self.new_kind.value = ""
        self.kind.reset_choices()
        self.kind.value = name

    def _choose_examples(self, kind: str) -> None:
        """Draw in the layer of the kind that is chosen, unless clicks mean something."""
        layer = self._examples().get(kind)
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

    def _load(self) -> Session:
        """The session of the folder, which may be one that is gone on with."""
        output = pathlib.Path(self.output.value)
        atexit.register(hold(output).release)
        session = Session(Segmenter.from_pretrained(), Folders([], [output / UPLOADS]), output)
        session.load()
        return session

    def _path(self, session: Session) -> str:
        """The file of the image that is chosen: its own, or else its pixels in one that is written."""
        if self.image.value is None:
            raise FsisError("no image: open one, or File > Open Sample > fsis")
        layer = self._viewer.layers[self.image.value]
        source = getattr(layer.source, "path", None)
        pixels = plane(layer.data, layer.rgb)
        if source is not None:
            session.folders.allow(source)
            with session.open(source) as image:
                if tuple(image.shape[:2]) == pixels.shape[:2]:
                    return session.folders.allowed(source)
        name = "".join(sign if sign.isalnum() else "_" for sign in self.image.value)
        return session.folders.allowed(str(kept_at(session.uploads / f"{name}.tif", pixels, rgb=layer.rgb)))

    def _segment(self) -> None:
        if self.session is None:
            self._loaded()
            return
        session, path = self.session, self._path(self.session)
        layers = self._examples()
        shown = [Reference(path, box, kind) for kind, layer in layers.items() for box in boxes(layer.data)]
        others = [reference for reference in session.state.references if reference.image != path]
        session.show([kind for kind in layers if kind != NOT_THIS], [*others, *shown])
        self._shown = path
        self._watch(session.segment(path))

    def _loaded(self) -> None:
        """Load the model in a thread, and segment then."""
        from napari.qt.threading import thread_worker

        def use(session: Session) -> None:
            self.session = session
            self.score.value = session.filters.min_score
            self._restore(session)
            self._guarded(self._segment)()

        worker = thread_worker(self._load)()
        worker.returned.connect(use)
        worker.errored.connect(lambda error: setattr(self.message, "value", str(error)))
        worker.finished.connect(lambda: self._busy(self._running()))
        self.segment.enabled = False
        self.message.value = "The model is loaded ..."
        worker.start()

    def _restore(self, session: Session) -> None:
        """Boxes of a session that is gone on with, unless some were drawn."""
        layers = self._examples()
        path = self._path(session)
        if any(len(layer.data) for layer in layers.values()):
            return
        for kind in session.state.kinds:
            if kind and kind not in layers:
                self.new_kind.value = kind
                self._add_kind()
        for reference in session.state.references:
            if reference.image == path:
                self._examples()[reference.kind].add_rectangles(rectangle(reference.box))

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
        self.stop.visible = self.progress.visible = busy

    def _filter(self) -> None:
        if self.session is not None:
            filters = self.session.filters
            self.session.set_filters(Filters(round(self.score.value, 4), filters.min_area, filters.max_area))

    def _add_missed(self) -> None:
        """The boxes of their layer, which is made by the first press."""
        if MISSED not in self._viewer.layers:
            like = self._viewer.layers[self.image.value] if self.image.value else None
            if like is None:
                raise FsisError("no image: open one first")
            options = {"scale": like.scale[-2:], "translate": like.translate[-2:], "face_color": "transparent"}
            self._viewer.add_shapes(ndim=2, name=MISSED, edge_color="white", edge_width=2, **options)
            self._viewer.layers[MISSED].mode = "add_rectangle"
            return
        session, layer = self._ready(), self._viewer.layers[MISSED]
        for box in boxes(layer.data):
            kind = self.kind.value if self.kind.value in session.state.kinds else None
            session.add_cell(self._shown, box, kind)
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
        session = self._ready()
        kind = self.kind.value if self.kind.value in (*session.state.kinds, NOT_THIS) else session.state.kinds[0]
        clicked(session, self._shown, x, y, _TOOLS[self.tool.value], kind)

    def _export(self) -> None:
        session = self._ready()
        chosen, data = list(self.files.value), self.training.value
        self._watch(export_training_data(session) if data else export_images(session, [self._shown], chosen))

    def _show(self) -> None:
        """The result as it is now."""
        session = self.session
        result = None if session is None else session.result(self._shown)
        if session is None or result is None:
            if self._cells is not None and self._cells in self._viewer.layers:
                self._viewer.layers.remove(self._cells)
            self._cells = None
            return
        kinds, filters = session.state.kinds, session.filters
        labels, table = label_image(result, filters), features(result, filters, kinds, None)
        if self._cells is None or self._cells not in self._viewer.layers:
            like = self._viewer.layers[self.image.value]
            place = {"scale": like.scale[-2:], "translate": like.translate[-2:]}
            self._cells = self._viewer.add_labels(labels, name="cells", features=table, **place)
            self._cells.contour = 2
            self._cells.mouse_drag_callbacks.append(self._click)
        else:
            self._cells.data, self._cells.features = labels, table
        if len(kinds) > 1 or result.found.kind_scores is not None:
            self._cells.colormap = label_colours(result, filters, kinds)
        self.learn.value = session.state.learning
        learnt, old = told(session.state.corrections), "" if session.is_current(result) else "the examples have changed"
        self.message.value = "; ".join(filter(None, [summary(result, filters, kinds), learnt, old]))
