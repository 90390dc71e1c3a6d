"""The Shapes layers that boxes are drawn in: examples of each kind, and cells that were missed, of each image its own.

They follow the kinds of the session, which are kept nowhere else: no layer makes a kind.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fsis_jax.interactive.kinds import colour, title
from fsis_jax.interactive.state import NOT_THIS, Reference
from fsis_jax.io.outlines import Box
from fsis_jax.napari.layers import boxes, rectangle

if TYPE_CHECKING:
    import napari

MISSED = None
"""In the place of a kind: cells that were missed."""
_IMAGE, _KIND = "fsis_image", "fsis_kind"
"""Keys in the metadata of a layer: the `unique_id` of the layer of its image; its kind."""


class BoxLayers:
    """Those of a viewer. An image is given as its layer."""

    def __init__(self, viewer: "napari.viewer.Viewer") -> None:
        self._viewer = viewer

    def of(self, image: Any) -> dict[str | None, Any]:
        """Kind -> its layer, of an image."""
        own = [layer for layer in self._viewer.layers if layer.metadata.get(_IMAGE) == image.unique_id]
        return {layer.metadata[_KIND]: layer for layer in own}

    def follow(self, image: Any, kinds: Sequence[str]) -> None:
        """Show a layer for each kind, and for what is not wanted; hide those of other images and of other kinds.

        The first kind keeps its layer when it gets a name, or loses it by undo.
        """
        layers = self.of(image)
        if kinds[0] not in layers:
            for kind in [kind for kind in layers if kind not in (*kinds, NOT_THIS, MISSED)][:1]:
                layers[kind].metadata[_KIND] = kinds[0]
        for kind in (*kinds, NOT_THIS):
            name = title(kind, kinds, None) if kind == NOT_THIS else f"examples: {title(kind, kinds, None)}"
            layer = self.of(image).get(kind) or self._added(image, kind)
            layer.name = f"{name} ({image.name})"
            layer.edge_color = layer.current_edge_color = colour(kind, kinds)
        for layer in self._viewer.layers:
            if _IMAGE in layer.metadata:
                wanted = layer.metadata[_KIND] in (*kinds, NOT_THIS, MISSED)
                layer.visible = wanted and layer.metadata[_IMAGE] == image.unique_id

    def add_missed(self, image: Any) -> None:
        """Make the layer for cells that were missed."""
        layer = self._added(image, MISSED)
        layer.name = f"missed cells ({image.name})"
        layer.edge_color = layer.current_edge_color = "white"

    def boxes(self, image: Any, kinds: Sequence[str]) -> dict[str, list[Box]]:
        """Kind -> the boxes of its layer, and of that of what is not wanted."""
        layers = self.of(image)
        return {kind: boxes(layers[kind].data) for kind in (*kinds, NOT_THIS) if kind in layers}

    def add(self, image: Any, references: Iterable[Reference]) -> None:
        """Draw examples of an image that are in no layer yet."""
        layers = self.of(image)
        for reference in references:
            layer = layers[reference.kind]
            if reference.box not in boxes(layer.data):
                layer.add_rectangles(rectangle(reference.box))

    def _added(self, image: Any, kind: str | None) -> Any:
        metadata: Mapping[str, Any] = {_IMAGE: image.unique_id, _KIND: kind}
        place = {"scale": image.scale[-2:], "translate": image.translate[-2:]}
        layer = self._viewer.add_shapes(ndim=2, metadata=metadata, face_color="transparent", edge_width=2, **place)
        layer.mode = "add_rectangle"
        return layer
