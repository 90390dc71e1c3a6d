"""`fsis convert CONFIG.yaml`: the file that is written, and the command."""

import pathlib
import runpy
import subprocess
import sys

import pytest
from detectron_files import (
    AUGMENTED,
    C4_1X,
    C4_MASKS,
    C5,
    DETECTOR,
    FASTER_1X,
    FPN_MASKS,
    GROUP_NORM,
    HALF_RATE,
    KEYPOINTS,
    ONE_IMAGE,
    P2,
    PLAIN,
    PYRAMID,
    TWICE,
    X_32X8D,
    write,
)

from fsis_jax.config import base_config
from fsis_jax.conversion.detectron.yaml_file import convert_yaml, import_yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = {
    "faster": (DETECTOR, FASTER_1X, PYRAMID),
    "mask": FPN_MASKS,
    "c4": (*C4_1X, C4_MASKS),
    "resnext-152": (*FPN_MASKS, ONE_IMAGE, HALF_RATE, X_32X8D, AUGMENTED),
    "group-norm": (*FPN_MASKS, TWICE, GROUP_NORM),
    "keypoints": (DETECTOR, FASTER_1X, PYRAMID, KEYPOINTS),
    "p2": (DETECTOR, FASTER_1X, PYRAMID, P2),
    "c5": (DETECTOR, FASTER_1X, PYRAMID, C5),
    "other-classes": (*FPN_MASKS, "MODEL: {NUM_CLASSES: 21}\nRNG_SEED: 5"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_python_in_our_style_and_gives_the_config(tmp_path, kind):
    source, output = write(tmp_path, *KINDS[kind]), tmp_path / f"{kind}.py"
    told = convert_yaml(source, output)
    imported = import_yaml(source)
    assert runpy.run_path(str(output))["get_config"]() == imported.config
    text = output.read_text()
    for note in imported.notes:
        assert note in told
        assert note.replace(" ", "") in text.replace("\n#", "").replace(" ", "")
    for command in (["format", "--check", "--diff"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", ROOT / "pyproject.toml", output],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_file_says_only_what_differs(tmp_path):
    convert_yaml(write(tmp_path, *FPN_MASKS), tmp_path / "out.py")
    config, base = runpy.run_path(str(tmp_path / "out.py"))["get_config"](), base_config()
    lines = [line.strip() for line in (tmp_path / "out.py").read_text().splitlines()]
    assignments = [line.partition(" = ") for line in lines if line.startswith(("config.", "model."))]
    assert len(assignments) == len(PLAIN)
    for name, _, _ in assignments:
        key = name.removeprefix("config.")
        parts = [config, base]
        for step in key.split("."):
            parts = [part[step] for part in parts]
        assert parts[0] != parts[1], name


def test_command_line(tmp_path, fsis):
    source, output = write(tmp_path, *FPN_MASKS), tmp_path / "configs" / "coco.py"
    outcome = fsis("convert", source, "-o", output)
    assert outcome.status == 0, outcome
    assert outcome.stdout.startswith("recognised a Mask R-CNN with a ResNet-50 (fpn)\n")
    assert "  TRAIN.DATASETS: config.data.root says where the images are\n" in outcome.stdout
    again = fsis("convert", source, "-o", output)
    assert again.status == 2
    assert "coco.py: exists already; give another --output" in again.stderr
    assert "a config is a Python file" in fsis("convert", source, "-o", tmp_path / "coco.json").stderr
    assert "a config, not weights" in fsis("convert", source, "-o", tmp_path / "a.py", "--resume").stderr
    assert "a config, not weights" in fsis("convert", source, "--to-pytorch", tmp_path / "a.pth").stderr
    assert "no such file" in fsis("convert", tmp_path / "missing.yml", "-o", tmp_path / "a.py").stderr


def test_nothing_is_written_for_a_bad_file(tmp_path, fsis):
    outcome = fsis("convert", write(tmp_path, *FPN_MASKS, "SOLVER: {MOMENTUM: 0.8}"), "-o", tmp_path / "out.py")
    assert outcome.status == 2
    assert not (tmp_path / "out.py").exists()
