"""The commands as a user gives them: what they write, and one line for each kind of bad input."""

import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pycocotools.mask
import pytest
import tifffile
from conftest import TESTS, TINY_CONFIG, script
from pycocotools.coco import COCO
from toy import toy  # noqa: F401 (a fixture)

from fsis_jax import cli
from fsis_jax.io.images import read_image

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def train(fsis, tiny_data, tmp_path):
    """`fsis train` on the tiny config and data; the folder of the run is `tmp_path / "run"`."""

    def call(*arguments, config=TINY_CONFIG):
        options = ["--config", config, "--workdir", tmp_path / "run", f"--config.data.root={tiny_data}"]
        return fsis("train", *options, *arguments)

    return call


@pytest.fixture
def data(tiny_data, tmp_path):
    """A copy of the data that a test may damage."""
    return pathlib.Path(shutil.copytree(tiny_data, tmp_path / "data"))


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# -- the command itself -------------------------------------------------------------------------------------------


def test_without_a_command_the_usage_is_an_error(fsis, capsys):
    outcome = fsis()
    assert outcome.status == 2
    assert "usage: fsis {train,evaluate,segment,convert,data} ..." in outcome.stderr
    assert "usage: fsis" in fsis("--help").stdout


def test_ctrl_c_ends_in_one_line(fsis, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "data", interrupted)
    outcome = fsis("data")
    assert outcome.status == 130
    assert outcome.stderr == "fsis: stopped; what was written is complete\n"


# -- train: wrong configs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.model.nonsense=1", "the config has no key 'model.nonsense'; fsis_jax/config.py lists the keys"),
        ("--config.training.step=4", "no key 'training.step'; did you mean 'steps'[?]"),
        ("--config.nonsense.fold=1", "no key 'nonsense.fold'"),
        ("--config.seed.fold=1", "no key 'seed.fold'"),
        ("--config.training.steps=many", "--config.training.steps=many: .*config.py says what each key takes"),
        ("--config.data.synthetic=perhaps", "--config.data.synthetic=perhaps"),
        ("--config.data=3", "--config.data is provided after --config.data.root"),
        ("--config.parallel=threads", "config.parallel is 'threads'; use one of: shard_map, pmap"),
        ("--config.model.compute_dtype=int8", "config.model.compute_dtype is 'int8'; use one of: float32, "),
        ("--config.training.batch_size=0", "config.training.batch_size is 0; it must be at least 1"),
        ("--config.training.log_every=0", "config.training.log_every is 0; it must be at least 1"),
        ("--config.optimizer.accumulate=0", "config.optimizer.accumulate is 0; it must be at least 1"),
        ("--config.training.steps=-4", "config.training.steps is -4; it must be at least 0"),
        ("--config.data.validation_fraction=1.5", "validation_fraction is 1.5; it must be from 0 to below 1"),
        ("--config.data.transform.shortest_side=-5", "shortest_side=-5 is out of range"),
        ("--config.data.train_canvases=((50,64),)", r"config.data.train_canvases is \(\(50, 64\),\); give .*32"),
        ("--config.data.train_canvases=(64,64)", r"config.data.train_canvases is \(64, 64\); give .*\(\(256, 256\),\)"),
        ("--config.data.fold=9", r"config.data.fold is 9; the data set has folds \[1, 2, 3\], and 0 for none"),
        ("--nonsense", "unknown argument '--nonsense'; known are --config, --workdir and --config.KEY=VALUE"),
        ("nonsense", "unknown argument 'nonsense'"),
        ("--config.model.backbone.norm=frozen", "config.init_from is empty.*--config.init_from=CHECKPOINT"),
        ("--config.init_from=/nowhere", "/nowhere: no such folder; give the --workdir"),
    ],
)
def test_a_wrong_setting_is_one_line_and_writes_nothing(train, toy, tmp_path, argument, message):  # noqa: F811
    error = train(argument).error
    assert re.search(message, error), error
    assert not (tmp_path / "run").exists()


def test_what_is_no_config_file(train, fsis, tmp_path):
    assert "no --config; give --config configs/quickstart.py" in fsis("train").error
    error = train(config=tmp_path / "none.py").error
    assert f"{tmp_path / 'none.py'}: no such config file; give a Python file like configs/quickstart.py" in error
    (tmp_path / "empty.py").write_text("")
    assert (
        "empty.py: defines no get_config(); write a file like configs/quickstart.py"
        in train(config=tmp_path / "empty.py").error
    )
    assert "no such config file" in train(config=tmp_path).error


def test_values_take_the_type_of_their_key():
    arguments = (
        f"--config.seed 5 --config {TINY_CONFIG} --config.optimizer.learning_rate=1 --config.data.synthetic "
        "--config.data.root=3 --config.training.steps=7"
    )
    config, workdir = cli._parse_config("train", arguments.split())
    assert config.seed == 5
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.data.synthetic is True
    assert config.data.root == "3"
    assert workdir == pathlib.Path("runs/tiny").absolute()
    assert cli._parse_config("train", ["--config", str(TINY_CONFIG)])[0].training.steps == 12


def test_help_tells_how_keys_are_changed(fsis):
    outcome = fsis("train", "--help")
    assert outcome.status == 0
    assert "--config.a.b=VALUE" in outcome.stdout


def test_missing_data_tells_how_to_get_some(fsis, tmp_path):
    error = fsis("train", "--config", TINY_CONFIG, f"--config.data.root={tmp_path / 'none'}").error
    assert f"{tmp_path / 'none'}: no such data folder" in error
    assert "fsis data synthetic --output DIR" in error
    assert "configs/quickstart.py" in error


def test_the_repository_configs_can_be_read(fsis, tmp_path):
    for name in ("fis_cell", "cells_cpu", "quickstart", "overfit"):
        config = TESTS.parent / "configs" / f"{name}.py"
        # The data folder is looked at after the whole config was checked.
        changes = [f"--config.data.root={tmp_path / 'none'}", "--config.data.synthetic=false"]
        assert "no such data folder" in fsis("train", "--config", config, *changes).error


# -- train: wrong data --------------------------------------------------------------------------------------------


def test_a_truncated_image_stops_the_training(train, toy, data, tmp_path):  # noqa: F811
    for path in (data / "images").iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    outcome = train(f"--config.data.root={data}")
    last = outcome.stderr.strip().splitlines()[-1]
    assert outcome.status == 2
    assert "Traceback" not in outcome.stderr
    assert last.startswith("fsis: error: ")
    assert ".png: " in last
    assert "copy or export the file again" in last


def test_a_missing_image_stops_the_training_before_it_starts(train, toy, data, tmp_path):  # noqa: F811
    first = min(json.loads((data / "annotations/train.json").read_text())["images"], key=lambda image: image["id"])
    (data / "images" / first["file_name"]).unlink()
    assert (
        f"{first['file_name']}: no such image: restore it or remove it from"
        in train(f"--config.data.root={data}").error
    )
    assert not (tmp_path / "run").exists()


def test_a_category_that_no_fold_names(train, fsis, data, tmp_path):
    _edit(data / "folds.json", lambda folds: folds.update({"1": []}))
    error = train(f"--config.data.root={data}").error
    assert "category id" in error
    assert f"which no fold names: add it to {data / 'folds.json'} or correct it" in error
    outcome = fsis("data", "check", data)
    assert outcome.status == 1
    assert "which no fold names" in outcome.stdout


def test_an_annotation_outside_its_image(fsis, data):
    damaged = {}

    def move(content):
        row, image = content["annotations"][3], content["images"][0]
        far = image["width"] + 500
        damaged["id"] = row["id"]
        row["bbox"] = [far, 5, 10, 10]
        row["segmentation"] = [[far, 5, far + 10, 5, far + 10, 15, far, 15]]

    _edit(data / "annotations/train.json", move)
    outcome = fsis("data", "check", data)
    assert outcome.status == 1
    assert f"annotations/train.json: annotation {damaged['id']}: " in outcome.stdout
    assert "1 problem\n" in outcome.stdout
    clean = fsis("data", "check", data.parent / "nowhere")
    assert "no such data folder" in clean.error


def test_a_sound_folder_passes_the_check(fsis, tiny_data):
    outcome = fsis("data", "check", tiny_data)
    assert outcome.status == 0
    assert "no problems" in outcome.stdout
    assert "33/11 (44)" in outcome.stdout


# -- train: runs --------------------------------------------------------------------------------------------------


def test_a_run_by_command_line_keys(train, toy, tmp_path):  # noqa: F811
    outcome = train("--config.training.steps=4", "--config.parallel=pmap", "--config.data.train_canvases=((96,96),)")
    assert outcome.status == 0, outcome.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["training"]["steps"] == 4
    assert config["parallel"] == "pmap"
    assert config["data"]["train_canvases"] == [[96, 96]]
    assert (tmp_path / "run" / "checkpoints" / "4").is_dir()


def test_a_checkpoint_of_another_architecture(train, toy, tiny_run, tmp_path):  # noqa: F811
    """The toy detector has other parameters than that of the run."""
    before = sorted(tiny_run.workdir.rglob("*"))
    outcome = train("--workdir", tiny_run.workdir)
    assert outcome.status == 2
    assert "a checkpoint of another architecture: 2 missing (bias, kernel); " in outcome.error
    assert " extra (backbone/" in outcome.error
    assert sorted(tiny_run.workdir.rglob("*")) == before
    error = train(f"--config.init_from={tiny_run.workdir}").error
    assert "a checkpoint of another architecture" in error
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite(train, toy, tmp_path):  # noqa: F811
    outcome = train("--config.optimizer.name=sgd", "--config.optimizer.learning_rate=1e30")
    assert outcome.status == 2
    last = outcome.stderr.strip().splitlines()[-1]
    assert "Traceback" not in outcome.stderr
    for part in ("fsis: error: step ", "the loss is not finite (colour ", "image ids [", "the last checkpoint is kept"):
        assert part in last


def test_a_full_disk_while_a_checkpoint_is_saved(train, toy, small_disk):  # noqa: F811
    (small_disk / "filler").write_bytes(bytes(1_000_000))
    outcome = train("--workdir", small_disk / "run")
    assert outcome.status == 2
    last = outcome.stderr.strip().splitlines()[-1]
    assert "Traceback" not in outcome.stderr
    assert last.startswith(f"fsis: error: {small_disk / 'run' / 'checkpoints'}: cannot be written (No space left")
    assert "free some space" in last
    assert not list((small_disk / "run" / "checkpoints").iterdir())


def test_a_disk_that_fills_up_while_a_checkpoint_is_written(tiny_run, small_disk, tmp_path):
    """In a process of its own: the storage library's threads report what they meet on stderr themselves."""
    program = tmp_path / "train.py"
    program.write_text(
        "import shutil, sys, toy, fsis_jax.training.loop as loop, fsis_jax.training.step as step\n"
        "from fsis_jax import cli\n"
        "loop.Detector = toy.ToyDetector\n"
        "step.training_losses = toy.toy_losses\n"
        "loop.validate = lambda *_, **__: {'mask_ap50': 0.5, 'f1': 0.5, 'min_score': 0.25}\n"
        "usage = shutil.disk_usage('.')\n"
        "shutil.disk_usage = lambda _: usage\n"
        "cli.run(cli.train, sys.argv[1:])\n"
    )
    (small_disk / "filler").write_bytes(bytes(1_470_000))
    arguments = ["--workdir", small_disk / "run", f"--config.data.root={tiny_run.data}"]
    process = script(program, *arguments, PYTHONPATH=str(TESTS))
    _, stderr = process.communicate()
    assert process.returncode == 2, stderr
    assert "Traceback" not in stderr
    assert "RESOURCE_EXHAUSTED" not in stderr
    assert stderr.strip().splitlines()[-1].startswith("fsis: error: ")
    assert "No space left" in stderr.strip().splitlines()[-1]
    assert not list(small_disk.rglob("*.orbax-checkpoint-tmp"))


# -- evaluate -----------------------------------------------------------------------------------------------------


def test_evaluation_from_end_to_end(tiny_run):
    arguments = ("--workdir", tiny_run.workdir, f"--config.data.root={tiny_run.data}")
    process = script("evaluate.py", *arguments, "--config.eval.split=unseen", "--config.eval.shots=2")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    path = tiny_run.workdir / "evaluation" / "unseen-2shot-train.json"
    assert stdout.splitlines()[-1] == f"written to {path}"
    assert stdout.splitlines()[0].split()[:3] == ["category", "mask", "AP"]
    results = json.loads(path.read_text())
    assert len(results["repeats"]) == 2
    folds = json.loads((tiny_run.data / "folds.json").read_text())
    assert len(results["mean"]["mask"]["categories"]) == len(folds["1"])
    assert len(list(path.with_suffix("").glob("*.png"))) == 1


def test_evaluation_with_references_of_the_target_itself(fsis, tiny_run):
    options = ("--config", TINY_CONFIG, "--workdir", tiny_run.workdir, f"--config.data.root={tiny_run.data}")
    outcome = fsis("evaluate", *options, "--config.eval.references=target", "--config.eval.split=all")
    assert outcome.status == 0, outcome.stderr
    assert (tiny_run.workdir / "evaluation" / "all-1shot-target.json").is_file()
    assert len(outcome.stdout.splitlines()) == 1 + 9 + 1 + 1


def test_evaluation_errors(fsis, tiny_run, tmp_path):
    options = ("--config", TINY_CONFIG, f"--config.data.root={tiny_run.data}")
    assert "no such folder; give the --workdir" in fsis("evaluate", *options, "--workdir", tmp_path / "none").error
    error = fsis("evaluate", *options, "--workdir", tiny_run.workdir, "--config.data.fold=0").error
    assert "no image shows a cell of the categories []; check eval.split and data.fold" in error


# -- segment ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tiny_run, tmp_path_factory):
    """One image in several formats, and a crop of a cell of it."""
    folder = tmp_path_factory.mktemp("pictures")
    content = json.loads((tiny_run.data / "annotations/test.json").read_text())
    row = content["annotations"][0]
    name = next(image["file_name"] for image in content["images"] if image["id"] == row["image_id"])
    grey = cv2.imread(str(tiny_run.data / "images" / name), cv2.IMREAD_GRAYSCALE)
    x, y, width, height = map(int, row["bbox"])
    cv2.imwrite(str(folder / "crop.png"), grey[y : y + height, x : x + width])
    cv2.imwrite(str(folder / "grey.png"), grey)
    cv2.imwrite(str(folder / "rgba.png"), cv2.merge([grey, grey, grey, np.full_like(grey, 9)]))
    tifffile.imwrite(folder / "deep.tif", grey.astype(np.uint16) * 200)
    cv2.imwrite(str(folder / "photo.jpg"), cv2.merge([grey, grey, grey]))
    cv2.imwrite(str(folder / "dot.png"), grey[:1, :1])
    (folder / "cut.png").write_bytes((folder / "grey.png").read_bytes()[:-200])
    whole = (folder / "grey.png").read_bytes()
    header, end = whole[:33], whole[-12:]
    (folder / "hollow.png").write_bytes(header + end)  # sound chunks, but no pixels
    (folder / "other").mkdir()
    cv2.imwrite(str(folder / "other" / "grey.png"), grey)
    return folder


@pytest.fixture
def segment(fsis, tiny_run, pictures, tmp_path):
    """`fsis segment` of pictures; the output goes to `tmp_path / "out"`."""

    def call(*names, references=("crop.png",), checkpoint=tiny_run.workdir, extra=()):
        paths = [pictures / name for name in names]
        crops = [pictures / name for name in references]
        output = ("--output", tmp_path / "out")
        return fsis("segment", *paths, "--references", *crops, "--checkpoint", checkpoint, *output, *extra)

    return call


def test_segmentation_of_images_of_any_format(segment, pictures, tmp_path):
    names = ["grey.png", "rgba.png", "deep.tif", "photo.jpg"]
    outcome = segment(*names, references=("crop.png", "crop.png"), extra=("--min-score", "0"))
    assert outcome.status == 0, outcome.stderr
    size = read_image(pictures / "grey.png").shape
    counts = []
    for line, name in zip(outcome.stdout.splitlines(), names, strict=True):
        stem = pathlib.Path(name).stem
        labels = tifffile.imread(tmp_path / "out" / f"{stem}-labels.tif")
        assert labels.dtype == np.int32
        assert labels.shape == size
        counts.append(int(labels.max()))
        assert sorted(np.unique(labels)) == list(range(counts[-1] + 1))
        assert line == f"{pictures / name}: {counts[-1]} cells"
        overlay = read_image(tmp_path / "out" / f"{stem}-overlay.png")
        assert overlay.dtype == np.uint8
        assert overlay.ndim == 3
    assert counts[0] == counts[1] == counts[2] > 0  # the same pixels
    results = COCO(tmp_path / "out" / "instances.json")
    assert [image["file_name"] for image in results.loadImgs(results.getImgIds())] == names
    for image_id, count in zip(results.getImgIds(), counts, strict=True):
        rows = results.loadAnns(results.getAnnIds(imgIds=[image_id]))
        assert len(rows) == count
        assert all(0 <= row["score"] <= 1 for row in rows)
        assert all(pycocotools.mask.area(row["segmentation"]) == row["area"] > 0 for row in rows)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["instances.json", *(f"{pathlib.Path(n).stem}-{kind}" for n in names for kind in ("labels.tif", "overlay.png"))]
    )


def test_a_large_image_in_tiles(segment, pictures, tmp_path):
    grey = read_image(pictures / "grey.png")
    large = np.tile(grey, (2, 3))
    tifffile.imwrite(pictures / "large.tif", large)
    outcome = segment("large.tif", extra=("--min-score", "0", "--tile", "64"))
    assert outcome.status == 0, outcome.stderr
    labels = tifffile.imread(tmp_path / "out" / "large-labels.tif")
    assert labels.shape == large.shape
    assert outcome.stdout == f"{pictures / 'large.tif'}: {labels.max()} cells\n"
    assert labels.max() > 8  # the most that the model gives at once


def test_an_image_without_a_cell_is_a_result_too(segment, tmp_path):
    outcome = segment("grey.png", extra=("--min-score", "1.01"))
    assert outcome.status == 0
    assert outcome.stdout.endswith("grey.png: 0 cells\n")
    assert not tifffile.imread(tmp_path / "out" / "grey-labels.tif").any()
    assert COCO(tmp_path / "out" / "instances.json").getAnnIds() == []


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (["none.png"], {}, "none.png: no such file: check the path"),
        (["grey.png", "cut.png"], {}, "cut.png: "),
        (["hollow.png", "grey.png"], {}, "hollow.png: damaged or unknown image data"),
        (["grey.png"], {"references": ("none.png",)}, "none.png: no such file"),
        (["grey.png"], {"references": ("crop.png", "dot.png")}, "dot.png: a reference of 1x1 pixels shows no cell"),
        (["grey.png", "other/grey.png"], {}, "two images are called 'grey': give them other names"),
        (["grey.png"], {"extra": ("--tile", "5")}, "tiles of 5 pixels: give a side of at least 32"),
        (["grey.png"], {"checkpoint": "/nowhere"}, "/nowhere: no such folder; give the --workdir of a training run"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(segment, tmp_path, images, options, message):
    assert message in segment(*images, **options).error
    assert not (tmp_path / "out").exists()


def test_damaged_pixels_cost_no_image_before_them(segment, tmp_path):
    outcome = segment("grey.png", "rgba.png", "hollow.png", "photo.jpg")
    assert "hollow.png: damaged or unknown image data" in outcome.error
    assert outcome.error.endswith(f"; {tmp_path / 'out'} has the 2 of 4 images before it")
    assert [line.split(":")[0].rsplit("/")[-1] for line in outcome.stdout.splitlines()] == ["grey.png", "rgba.png"]
    results = COCO(tmp_path / "out" / "instances.json")
    assert [image["file_name"] for image in results.loadImgs(results.getImgIds())] == ["grey.png", "rgba.png"]
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_missing_options_are_named(fsis):
    outcome = fsis("segment", "image.png")
    assert outcome.status == 2
    assert "the following arguments are required: --references, --checkpoint, --output" in outcome.stderr


def test_a_full_disk_leaves_no_half_written_output(segment, monkeypatch, tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fsis_jax.io.files.os.fsync", full)
    error = segment("grey.png").error
    assert "grey-labels.tif: cannot be written (No space left on device): free some space" in error
    assert not list((tmp_path / "out").iterdir())


def test_output_that_cannot_be_a_folder(segment, tmp_path):
    (tmp_path / "out").write_text("a file")
    assert "out" in segment("grey.png").error
    assert (tmp_path / "out").read_text() == "a file"


def test_an_error_of_a_script_is_exactly_one_line(pictures, tmp_path):
    command = [sys.executable, TESTS.parent / "scripts" / "segment.py", pictures / "none.png", "--references"]
    result = subprocess.run(
        [*command, pictures / "crop.png", "--checkpoint", "none", "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == f"fsis: error: {pictures / 'none.png'}: no such file: check the path\n"
    assert result.stdout == ""


# -- data ---------------------------------------------------------------------------------------------------------


def test_synthetic_data_in_the_layout_of_fis_cell(fsis, tmp_path, monkeypatch):
    made = {}
    monkeypatch.setattr(cli, "generate", lambda output, **options: made.update(output=output, **options) or output)
    assert fsis("data", "synthetic", "--layout", "fis_cell", "--output", "x", "--seed", "3").status == 0
    assert made == {"output": "x", "layout": "fis_cell", "seed": 3}


def test_data_is_not_written_over(fsis, data):
    before = sorted(data.rglob("*"))
    assert (
        f"{data}: exists already: delete it or choose another folder"
        in fsis("data", "synthetic", "--output", data).error
    )
    assert sorted(data.rglob("*")) == before
