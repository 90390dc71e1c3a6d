"""A run in parts gives the files of one run, byte for byte; what is missing or of another run is told."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from pictures import draw_discs, written

from fsis_jax.errors import FsisError
from fsis_jax.inference import programs
from fsis_jax.inference.files_run import segment_from
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.part_plan import Part, Target, make_plan
from fsis_jax.inference.parts import Merged, PartsFolder, segment_part
from fsis_jax.inference.segment_files import segment_files
from fsis_jax.io.intensity import Stretch

pytestmark = pytest.mark.usefixtures("quick_compile")

SETTINGS = OutputSettings(("labels", "table", "geojson"), tile=64)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five small images, and a large one, half of which shows nothing."""
    folder = tmp_path_factory.mktemp("pictures")
    small = [draw_discs(folder / f"small{seed}.png", (60, 60), discs=12, seed=seed) for seed in range(5)]
    return small, draw_discs(folder / "large.png", (150, 140), discs=12, seed=5, empty_below=75)


@pytest.fixture(scope="module")
def alone(segmenter, references, pictures, tmp_path_factory):
    """The results of one run: name of a file -> its bytes."""
    folder = tmp_path_factory.mktemp("alone")
    outcomes = list(segment_files(segmenter, [*pictures[0], pictures[1]], references, folder, SETTINGS))
    assert all(outcome.cells for outcome in outcomes)
    return written(folder)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def run(segmenter, references, out):
    """Parts of a run, by number, of so many; what each says of its images."""

    def call(paths, numbers, count, settings=SETTINGS, segmenter=segmenter, references=references):
        groups = [(settings, paths)]
        return [
            dict(segment_part(segmenter, groups, references, out, Part(number, count), {"a": 1})) for number in numbers
        ]

    return call


@pytest.fixture
def merge(segmenter, references, out):
    def call(paths, settings=SETTINGS):
        folder = PartsFolder(out)
        source = Merged(segmenter, [(settings, paths)], references, folder, folder.plan())
        return list(segment_from(source, paths, references, out, settings))

    return call


@pytest.fixture
def no_network(monkeypatch):
    def stop():
        def called(*_, **__):
            raise AssertionError("the network")

        monkeypatch.setattr(programs, "find", called)

    return stop


@pytest.mark.parametrize("count", [2, 4])
def test_parts_give_the_bytes_of_one_run(run, merge, pictures, out, alone, no_network, count):
    paths = [*pictures[0], pictures[1]]
    told = run(paths, range(count, 0, -1), count)
    assert {path for part in told for path in part} == {*paths}
    assert all(pictures[1] in part for part in told)  # it is divided
    assert sum(len(part) for part in told) == 5 + count
    no_network()
    outcomes = merge(paths)
    assert not any(outcome.error for outcome in outcomes)
    assert written(out) == alone
    assert [again.cells for again in merge(paths)] == [outcome.cells for outcome in outcomes]


def test_a_part_that_is_killed_goes_on_and_one_that_is_run_twice_does_no_harm(
    segmenter, references, run, merge, pictures, out, alone, no_network
):
    large = pictures[1]
    groups = [(SETTINGS, [large])]

    def stop(path, tile, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(segment_part(segmenter, groups, references, out, Part(1, 2), {}, progress=stop))
    (journal,) = (out / ".parts" / "tiles" / "large").iterdir()
    with open(journal, "ab") as file:
        file.write(b"cut off")
    run([large], (2,), 2)
    with pytest.raises(FsisError, match=r"out: part 1 of 2 is missing: run `fsis segment \.\.\. --part 1/2`"):
        merge([large])
    done = []
    list(segment_part(segmenter, groups, references, out, Part(1, 2), {}, progress=lambda *now: done.append(now)))
    assert done
    assert done[0][1] == 2  # of its tiles it had one
    no_network()
    run([large], (1, 2, 1), 2)
    (outcome,) = merge([large])
    assert outcome.files
    assert {name: alone[name] for name in written(out) if name != "summary.csv"} == {
        name: content for name, content in written(out).items() if name != "summary.csv"
    }


def test_parts_that_differ_are_refused(run, segmenter, pictures, references, out, monkeypatch):
    small = pictures[0][:2]
    run(small, (1,), 2)

    def refused(what, *arguments, **named):
        with pytest.raises(FsisError, match=f"out: has parts of a run with other {what}") as failure:
            run(*arguments, **named)
        assert "\n" not in str(failure.value)
        return str(failure.value)

    assert "parts (3, there 2): run all alike, or choose another folder" in refused("parts", small, (1,), 3)
    refused("images", pictures[0][:3], (2,), 2)
    refused("settings", small, (2,), 2, dataclasses.replace(SETTINGS, tile=48))
    refused("settings", small, (2,), 2, segmenter=segmenter.with_options(min_score=0.3))
    other = segmenter.encode_references([np.tile(np.arange(24, dtype=np.uint8), (24, 1))])
    refused("references", small, (2,), 2, references=other)
    plan = json.loads((out / ".parts" / "plan.json").read_text())
    for key in ("weights", "version of fsis_jax", "version of jaxlib", "number of threads", "processor", "device"):
        changed = {**plan, "shared": {**plan["shared"], key: "other"}}
        (out / ".parts" / "plan.json").write_text(json.dumps(changed))
        refused(key, small, (2,), 2)
    (out / ".parts" / "plan.json").write_text("{}")
    with pytest.raises(FsisError, match=r"plan\.json: is no plan of parts: delete .*\.parts"):
        run(small, (2,), 2)


def test_images_that_fail_or_change_are_told(run, merge, pictures, out, tmp_path):
    good, changing, bad = (shutil.copy(path, tmp_path) for path in pictures[0][:3])
    with open(bad, "r+b") as file:
        file.truncate(60)
    paths = [good, changing, bad]
    told = {path: error for part in run(paths, (1, 2), 2) for path, error in part.items()}
    assert (told[good], told[changing]) == ("", "")
    assert bad in told[bad]
    draw_discs(changing, (60, 60), discs=12, seed=77)
    outcomes = {outcome.image: outcome.error for outcome in merge(paths)}
    assert outcomes[good] == ""
    assert outcomes[bad] == told[bad]
    assert "small1: the image has changed since part" in outcomes[changing]
    shutil.copy(pictures[0][2], bad)
    run(paths, (1, 2), 2)
    assert not any(outcome.error for outcome in merge(paths))


def test_shares_are_even_and_stretches_are_those_of_the_whole(segmenter, references, pictures):
    plan = make_plan(segmenter, [(SETTINGS, [*pictures[0], pictures[1]])], references, 3, {})
    *small, large = plan.targets
    assert sorted(target.owner for target in small) == [1, 1, 2, 2, 3]
    assert all(target.tiles == 1 for target in small)
    assert large.owner is None
    shares = [[*large.tiles_of(Part(number, 3))] for number in (1, 2, 3)]
    assert sorted(tile for share in shares for tile in share) == [*range(large.tiles)]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    (stretch,) = large.stretches
    assert isinstance(stretch, Stretch)
    assert [*Target("a", 7, 2).tiles_of(Part(2, 3))] == [*range(7)]
    assert [*Target("a", 7, 2).tiles_of(Part(1, 3))] == []
