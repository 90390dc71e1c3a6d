"""In the place of napari and magicgui, as far as the dock widget uses them, for tests where neither is."""

import importlib
import sys
import types

import numpy as np

from fsis_jax.errors import FsisError


class Signal:
    def __init__(self):
        self.calls = []

    def connect(self, call):
        self.calls.append(call)

    def emit(self, *values):
        for call in self.calls:
            call(*values)


class Widget:
    def __init__(self, value=None, visible=True, **_):
        self.changed, self.clicked = Signal(), Signal()
        self._value, self.visible, self.enabled = value, visible, True

    @property
    def value(self):
        return self._value

    @value.setter
    def value(self, value):
        before, self._value = self._value, value
        if value is not before:
            self.changed.emit(value)


class ComboBox(Widget):
    def __init__(self, choices=(), **options):
        super().__init__(**options)
        self._choices = choices
        self.reset_choices()

    def reset_choices(self):
        choices = self._choices(self) if callable(self._choices) else self._choices
        self.choices = [each[1] if isinstance(each, tuple) else each for each in choices]
        if self.value not in self.choices:
            self.value = self.choices[0] if self.choices else None


class Layer:
    visible, mode = True, ""

    def __init__(self, name="", data=(), metadata=None, scale=(1.0, 1.0), translate=(0.0, 0.0), path=None, **_):
        self.name, self.data, self.metadata, self.unique_id = name, data, metadata or {}, object()
        self.scale, self.translate = np.array(scale), np.array(translate)
        self.rgb, self.source = False, types.SimpleNamespace(path=path)


class Image(Layer):
    pass


class Shapes(Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.data = []

    def add_rectangles(self, corners):
        self.data = [*self.data, corners]


class Labels(Layer):
    def __init__(self, data, features, **options):
        super().__init__(data=data, **options)
        self.features, self.mouse_drag_callbacks = features, []


class Layers(list):
    def __init__(self):
        self.events = types.SimpleNamespace(inserted=Signal(), removed=Signal())
        self.selection = types.SimpleNamespace(active=None)

    def remove(self, layer):
        super().remove(layer)
        self.events.removed.emit(layer)


class Viewer:
    def __init__(self):
        self.layers = Layers()

    def add(self, layer):
        self.layers.append(layer)
        self.layers.events.inserted.emit(layer)
        return layer

    def add_shapes(self, **options):
        return self.add(Shapes(**options))

    def add_labels(self, data, **options):
        return self.add(Labels(data, **options))

    def named(self, name):
        (layer,) = [layer for layer in self.layers if layer.name == name]
        return layer


class Worker:
    """Works at once, in the thread that starts it."""

    def __init__(self, work):
        self.work = work
        self.returned, self.errored, self.yielded, self.finished = Signal(), Signal(), Signal(), Signal()

    def start(self):
        try:
            result = self.work()
        except FsisError as error:
            self.errored.emit(error)
        else:
            if isinstance(result, types.GeneratorType):
                for each in result:
                    self.yielded.emit(each)
            else:
                self.returned.emit(result)
        self.finished.emit()


def modules():
    """Name -> module."""
    names = "CheckBox Container FileEdit FloatSlider Label LineEdit ProgressBar PushButton Select"
    widgets = {name: type(name, (Widget,), {}) for name in names.split()}
    widgets["Container"] = type("Container", (), {"__init__": lambda self, widgets: None})
    found = {
        "magicgui.widgets": {**widgets, "ComboBox": ComboBox},
        "napari.qt.threading": {"thread_worker": lambda work: lambda: Worker(work)},
    }
    for name in ("magicgui", "napari", "napari.qt"):
        found[name] = {}
    for name, members in found.items():
        found[name] = types.ModuleType(name)
        vars(found[name]).update(members)
    return found


def made_with(monkeypatch, name):
    """A module that imports these in the place of what is installed, apart from the one that others import."""
    for each, module in modules().items():
        monkeypatch.setitem(sys.modules, each, module)
    others = sys.modules.pop(name, None)
    made = importlib.import_module(name)
    del sys.modules[name]
    if others is not None:
        sys.modules[name] = others
    return made
