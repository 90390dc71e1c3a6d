"""`fsis train` and `fsis evaluate` as a user gives them: what they write, and one line for each kind of bad input."""

import json
import pathlib
import re
import shutil
import types

import pytest
import tiny_closed_set
from memory_source import disc_source
from scripts_of_tests import TESTS, TINY_CONFIG, script
from toy import toy  # noqa: F401 (a fixture)

from fsis_jax.cli import training, training_run
from fsis_jax.cli.training_run import changed_config
from fsis_jax.errors import FsisError
from fsis_jax.inference.segmenter import Segmenter
from fsis_jax.preprocess.records import Subset

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def train(fsis, tiny_data, tmp_path):
    """`fsis train` on the tiny config and data; the folder of the run is `tmp_path / "run"`."""

    def call(*arguments, config=TINY_CONFIG):
        options = ["--config", config, "--workdir", tmp_path / "run", f"--config.data.root={tiny_data}"]
        return fsis("train", *options, *arguments)

    return call


def _edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


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
        ("--config.parallel=threads", "config.parallel is 'threads'; it must be one of: shard_map, pmap"),
        ("--config.model.compute_dtype=int8", "config.model.compute_dtype is 'int8'; it must be one of: float32, "),
        ("--config.training.batch_size=0", "config.training.batch_size is 0; it must be a whole number, at least 1"),
        ("--config.data.validation_fraction=1.5", "fraction is 1.5; it must be a number, at least 0 and below 1"),
        ("--config.data.transform.shortest_side=-5", "shortest_side is -5; it must be a whole number, at least 1"),
        (
            "--config.data.train_canvases=((50,64),)",
            r"config.data.train_canvases is \(\(50, 64\),\); .* multiples of 32",
        ),
        (
            "--config.data.train_canvases=(64,64)",
            r"config.data.train_canvases is \(64, 64\); it must be .*\(256, 256\)",
        ),
        ("--config.eval.shots=a", r"config.eval.shots is \('a',\); it must be one or more values like \(1, 3, 5\)"),
        ("--config.eval.shots=", r"config.eval.shots is \('',\); it must be one or more"),
        ("--config.eval.shots=1.5", r"config.eval.shots is \(1.5,\); it must be one or more"),
        ("--config.data.fold=9", r"config.data.fold is 9; the data set has folds \[1, 2, 3\], and 0 for none"),
        ("--nonsense", "unknown argument '--nonsense'; known are --config, --step, --workdir and --config.KEY=VALUE"),
        ("nonsense", "unknown argument 'nonsense'"),
        ("--config.model.backbone.norm=frozen", "config.init_from is empty.*--config.init_from=CHECKPOINT"),
        ("--config.init_from=/nowhere", "/nowhere: no such file or folder; give the folder"),
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
    options = training._parsed("train", arguments.split())
    config = changed_config(options.config, options.changes)
    assert config.seed == 5
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.data.synthetic is True
    assert config.data.root == "3"
    assert options.workdir == pathlib.Path("runs/tiny").absolute()
    assert changed_config(TINY_CONFIG, []).training.steps == 12


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
    for part in ("fsis: error: step ", "the loss is not finite (colour ", ".png", "the last checkpoint is kept"):
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
        "import shutil, sys, toy\n"
        "from fsis_jax.training import loop, run, step\n"
        "from fsis_jax import cli\n"
        "run.Detector = toy.ToyDetector\n"
        "step.training_losses = toy.toy_losses\n"
        "loop.validate = lambda *_, **__: {'mask_ap50': 0.5, 'f1': 0.5, 'min_score': 0.25}\n"
        "usage = shutil.disk_usage('.')\n"
        "shutil.disk_usage = lambda _: usage\n"
        'cli.run(cli.command("train"), sys.argv[1:])\n'
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
    assert results["model"]["weights"] == str(tiny_run.workdir)
    folds = json.loads((tiny_run.data / "folds.json").read_text())
    assert len(results["mean"]["mask"]["categories"]) == len(folds["1"])
    assert len(list(path.with_suffix("").glob("*.png"))) == 1


def test_evaluation_with_references_of_the_target_itself(fsis, tiny_run):
    options = ("--config", TINY_CONFIG, "--workdir", tiny_run.workdir, f"--config.data.root={tiny_run.data}")
    outcome = fsis("evaluate", *options, "--config.eval.references=target", "--config.eval.split=all")
    assert outcome.status == 0, outcome.stderr
    assert (tiny_run.workdir / "evaluation" / "all-1shot-target.json").is_file()
    assert len(outcome.stdout.splitlines()) == 1 + 9 + 1 + 1


def test_several_numbers_of_references_mosaics_and_the_baseline(fsis, tiny_run, tmp_path):
    options = ("--config", TINY_CONFIG, f"--config.data.root={tiny_run.data}", "--config.eval.repeats=1")
    options += ("--workdir", tmp_path, "--config.eval.split=all")
    model = ("--checkpoint", tiny_run.workdir)
    outcome = fsis("evaluate", *options, *model, "--config.eval.shots=1,3", "--config.eval.references=wrong")
    assert outcome.status == 0, outcome.stderr
    outcome = fsis("evaluate", *options, *model, "--config.eval.mosaics=2")
    assert outcome.status == 0, outcome.stderr
    assert outcome.stdout.splitlines()[0].split() == ["images", "2.000", "±", "0.000"]
    outcome = fsis("evaluate", *options, "--config.eval.otsu=True")
    assert outcome.status == 0, outcome.stderr
    names = {path.name for path in (tmp_path / "evaluation").glob("*.json")}
    of_the_model = {
        f"{tiny_run.workdir.name}-{n}.json" for n in ("all-1shot-wrong", "all-3shot-wrong", "mosaics-all-1shot")
    }
    assert names == {*of_the_model, "otsu-all.json"}
    segmenter = Segmenter.from_checkpoint(tiny_run.workdir)
    for name in of_the_model:
        assert json.loads((tmp_path / "evaluation" / name).read_text())["model"] == {
            "weights": str(tiny_run.workdir),
            "fingerprint": segmenter.fingerprint,
            "min_score": segmenter.min_score,
        }
    otsu = json.loads((tmp_path / "evaluation" / "otsu-all.json").read_text())
    assert otsu["model"] is None
    assert otsu["mean"]["mask"]["AP50"] > 0.1
    assert set(otsu["mean"]) == {"mask", "box", "mask_box", "bioimage", "histology", "touching"}


def test_evaluation_errors(fsis, tiny_run, tmp_path):
    options = ("--config", TINY_CONFIG, f"--config.data.root={tiny_run.data}")
    assert "no such folder; give the folder" in fsis("evaluate", *options, "--workdir", tmp_path / "none").error
    error = fsis("evaluate", *options, "--workdir", tiny_run.workdir, "--config.data.fold=0").error
    assert "no image shows a cell of the categories []; check eval.split and data.fold" in error
    seen = ("--workdir", tiny_run.workdir, "--config.data.fold=2", "--config.eval.split=seen")
    error = fsis("evaluate", *options, *seen).error
    assert re.search(r"has not learnt from .+: a test of these is none of seen kinds; give the config", error)


def test_a_fold_may_name_what_no_test_image_shows(fsis, tiny_run, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(tiny_run.data, data)
    train, folds = (json.loads((data / name).read_text()) for name in ("annotations/train.json", "folds.json"))
    train["categories"].append({"id": 99, "name": "of other images"})
    (data / "annotations/train.json").write_text(json.dumps(train))
    (data / "folds.json").write_text(json.dumps({**folds, "1": [*folds["1"], 99]}))
    options = ("--config", TINY_CONFIG, f"--config.data.root={data}", "--workdir", tmp_path, "--config.eval.otsu=True")
    assert fsis("evaluate", *options, "--config.eval.split=unseen").status == 0


def test_categories_without_references_are_named_and_left_out(caplog):
    source = disc_source(2)
    train = Subset(source, [i for i, one in enumerate(source.annotations) if 2 not in one.classes])
    assert training_run._with_references((1, 2), source, train) == (1,)
    assert f"the training images show no cell of them: {source.categories[2]}" in caplog.text
    with pytest.raises(
        FsisError, match=f"show no cell of {source.categories[2]}: there are no references to test with"
    ):
        training_run._with_references((2,), source, train)


def test_a_config_of_other_classes_or_keypoints_than_the_model(fsis, tiny_run, tmp_path, monkeypatch):
    data = f"--config.data.root={tiny_run.data}"
    error = fsis("evaluate", "--config", tiny_closed_set.__file__, "--workdir", tiny_run.workdir, data).error
    assert (
        f"config.model.classes is {tiny_closed_set.NAMES}, but {tiny_run.workdir} was trained with (): "
        "give the config of "
        "its run, --config RUN/config.json"
    ) in error
    model = types.SimpleNamespace(config=tiny_closed_set.keypoint_config())
    monkeypatch.setattr(Segmenter, "from_pretrained", lambda _: model)
    posed = tmp_path / "posed.npz"
    posed.touch()
    options = ("--config", tiny_closed_set.__file__, "--workdir", tmp_path, "--checkpoint", posed, data)
    error = fsis("evaluate", *options).error
    assert f"config.model.keypoint_head.kind is 'none', but {posed} was trained with 'convs': give the config" in error
