"""A named pipe in the place of a file: nobody may ever write to it, and nothing waits for that."""

import os

import numpy as np
import pytest
import tifffile

from fsis_jax.checkpoints.config_file import read_config
from fsis_jax.conversion.detectron.settings import read_settings
from fsis_jax.conversion.torch_file import read_file
from fsis_jax.data.coco_files import read_json
from fsis_jax.errors import FsisError
from fsis_jax.inference.references_file import load_references
from fsis_jax.io.finding import image_files
from fsis_jax.io.geojson import read_geojson_boxes
from fsis_jax.io.rois import read_roi_boxes
from fsis_jax.io.source import open_image

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")

READERS = (open_image, read_roi_boxes, read_geojson_boxes, load_references, read_json, read_file, read_settings)


@pytest.mark.parametrize("read", [*READERS, read_config, lambda path: image_files([str(path)])])
def test_no_reader_waits(tmp_path, read):
    path = tmp_path / "x.png"
    os.mkfifo(path)
    with pytest.raises(FsisError, match=r"x\.png: (cannot be read \(a pipe or a device, not a file\)|neither a file)"):
        read(path)


@pytest.mark.parametrize("name", ["pipe.ome.tif", "../b.ome.tif", "/etc/hostname"])
def test_a_set_of_ome_tiff_has_files_beside_it_only(tmp_path, name):
    folder = tmp_path / "set"
    folder.mkdir()
    os.mkfifo(folder / "pipe.ome.tif")
    tifffile.imwrite(tmp_path / "b.ome.tif", np.ones((8, 8), np.uint8))
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="8" SizeY="8" SizeZ="1" SizeC="1" SizeT="2">'
        '<TiffData IFD="0" FirstT="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        f'<TiffData IFD="0" FirstT="1" PlaneCount="1"><UUID FileName="{name}">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    path = folder / "a.ome.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8), description=text, metadata=None)
    with pytest.raises(FsisError, match=r"a\.ome\.tif: .* \(a part in '.*', which is no file beside it\): copy or exp"):
        open_image(path, page=1)
