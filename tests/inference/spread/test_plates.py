"""A plate in, labels per well and field out: the same files from one process, from parts and from Dask's workers."""

import pytest
from drawn_plate import FIELDS, draw_plate

from fsis_jax.inference import programs
from fsis_jax.inference.files_run import segment_from
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.part_plan import Part
from fsis_jax.inference.parts import Merged, PartsFolder, segment_part
from fsis_jax.inference.segment_files import segment_files
from fsis_jax.io.finding import image_files

pytestmark = [
    pytest.mark.usefixtures("quick_compile"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
SETTINGS = OutputSettings(("labels", "zarr"), channel="DAPI")


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    return image_files([draw_plate(tmp_path_factory.mktemp("plates") / "plate.zarr", "0.5")])


@pytest.fixture(scope="module")
def alone(segmenter, references, fields, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    assert all(outcome.cells for outcome in segment_files(segmenter, fields, references, folder, SETTINGS))
    return folder


def _tree(folder):
    """Name of each file and link below a folder -> its bytes, or where it leads from there."""
    inside = [path for path in folder.rglob("*") if not {".parts", ".tiles", "images.jsonl"} & {*path.parts}]
    links = {path.relative_to(folder): path.resolve().name for path in inside if path.is_symlink()}
    return links | {path.relative_to(folder): path.read_bytes() for path in inside if path.is_file()}


def test_a_plate_comes_out_and_nothing_is_done_twice(segmenter, references, fields, alone, monkeypatch):
    plate = alone / "plate-DAPI.zarr"
    assert [field for field in FIELDS if (plate / field / "labels" / "cell" / "0").is_dir()] == [*FIELDS]
    assert all((plate / field / "s0").resolve().is_dir() for field in FIELDS)
    before = _tree(alone)

    def called(*_, **__):
        raise AssertionError("the network")

    monkeypatch.setattr(programs, "find", called)
    list(segment_files(segmenter, fields, references, alone, SETTINGS))
    assert _tree(alone) == before


def test_parts_give_the_same_plate(segmenter, references, fields, alone, tmp_path):
    groups = [(SETTINGS, fields)]
    for number in (1, 2):
        list(segment_part(segmenter, groups, references, tmp_path, Part(number, 2), {}))
    folder = PartsFolder(tmp_path)
    source = Merged(segmenter, groups, references, folder, folder.plan())
    list(segment_from(source, fields, references, tmp_path, SETTINGS))
    assert _tree(tmp_path) == _tree(alone)


def test_workers_give_the_same_plate(segmenter, references, fields, alone, client, tmp_path):
    list(segment_files(segmenter, fields, references, tmp_path, SETTINGS, client=client))
    assert _tree(tmp_path) == _tree(alone)
