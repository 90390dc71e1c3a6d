"""The plugin of napari (extra `napari`): a dock widget over the session of `interactive`, sample data, and a reader.

`napari.yaml` is its npe2 manifest. Nothing here imports Qt before napari asks for a widget, and nothing else of the
project imports napari.
"""
