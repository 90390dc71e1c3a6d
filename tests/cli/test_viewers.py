"""The scripts for QuPath and Fiji: they are Groovy, and the commands that they give do what they expect."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import numpy as np
import pytest
import roifile

from fsis_jax.io.geojson import read_geojson_boxes
from fsis_jax.io.rois import read_roi_boxes

pytestmark = pytest.mark.usefixtures("quick_compile")

VIEWERS = pathlib.Path(__file__).parents[2] / "viewers"
QUPATH, FIJI = (VIEWERS / name for name in ("qupath.groovy", "fiji.ijm"))
ANY_SCORE = ["--min-score", "0"]
"""The detector of these tests is barely trained."""


def _commands(script, start, end, values):
    """The commands of a script, without their first word: texts as they are, and names by their values."""
    found = re.findall(rf"{re.escape(start)}fsis, (.+?){re.escape(end)}", script.read_text())
    return [
        [part.strip('"') if part.startswith('"') else str(values[part]) for part in command.split(", ")]
        for command in found
    ]


@pytest.mark.skipif(shutil.which("groovyc") is None, reason="groovyc is not installed")
def test_the_script_of_qupath_is_groovy(tmp_path):
    java = shutil.which("java")
    home = {"JAVA_HOME": str(pathlib.Path(java).resolve().parents[1])} if java else {}  # Debian's groovyc asks for it
    command = ["groovyc", "-d", tmp_path, QUPATH]
    done = subprocess.run(command, env=os.environ | home, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.glob("*.class"))


def test_the_commands_of_qupath(fsis, desk, cell):
    """From annotations, as QuPath exports them, to detections."""
    _, (x1, y1, x2, y2) = cell
    ring = [[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]
    properties = {"objectType": "annotation", "classification": {"name": "reference", "color": [200, 0, 0]}}
    feature = {
        "type": "Feature",
        "id": "2a6b2b9e-5f0e-4f0c-9d0e-0c5d3c1d9f01",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": properties,
    }
    output, image = desk / "fsis/1", desk / "good.png"
    outlines = output / "references.json"
    output.mkdir(parents=True)
    outlines.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    values = {"outlines": outlines, "image": image, "encoded": desk / "fsis/references.refs", "output": output}
    encode, segment = _commands(QUPATH, "execute([", "]", values | {"foundClass": "cell"})
    for command in (encode, segment + ANY_SCORE):
        outcome = fsis(*command, "--checkpoint", "W")
        assert outcome.status == 0, outcome.stderr
    (found,) = output.glob("*.geojson")
    boxes = read_geojson_boxes(found)
    assert {kind for _, kind in boxes} == {"cell"}
    features = json.loads(found.read_text())["features"]
    assert {feature["properties"]["objectType"] for feature in features} == {"detection"}


def test_the_command_of_fiji(fsis, desk, cell):
    """From ROIs, as the ROI Manager saves them, to ROIs."""
    _, (x1, y1, x2, y2) = cell
    roi = roifile.ImagejRoi.frompoints(np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]))
    roifile.roiwrite(desk / "examples.zip", [roi])
    values = {"image": desk / "good.png", "examples": desk / "examples.zip", "output": desk / "found"}
    (command,) = _commands(FIJI, "exec(", "))", values)
    outcome = fsis(*command, *ANY_SCORE, "--checkpoint", "W")
    assert outcome.status == 0, outcome.stderr
    (found,) = (desk / "found").glob("*-rois.zip")
    assert read_roi_boxes(found)
    assert list((desk / "found").glob("*-table.csv"))
