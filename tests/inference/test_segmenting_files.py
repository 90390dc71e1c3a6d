"""Image files into a folder of results: what is done again, what is not, and what is never lost."""

import dataclasses
import json
import os
import pathlib

import cv2
import numpy as np
import pytest
import tifffile

from fsis_jax.errors import FsisError, OutputError
from fsis_jax.inference import files_run as files
from fsis_jax.inference import finished_images, opening
from fsis_jax.inference.lock import acquire
from fsis_jax.inference.output_settings import OutputSettings
from fsis_jax.inference.segment_files import segment_files
from fsis_jax.io.source import open_image

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def segmenter(segmenter):
    return segmenter.with_options(min_score=0.0)


@pytest.fixture
def image(tmp_path):
    """Writes an image of discs; gives its path."""

    def write(name, seed=0, size=(60, 60)):
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 60, size, np.uint8)
        for y, x in rng.integers(15, 45, (3, 2)).tolist():
            cv2.circle(pixels, (x, y), 9, int(rng.integers(150, 250)), -1)
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), pixels)
        return str(path)

    return write


@pytest.fixture
def run(segmenter, tmp_path):
    """`segment_files` of paths into `tmp_path / "out"`; its outcomes."""

    def call(*paths, crop=30, save=("labels", "table"), force=False, **settings):
        references = segmenter.encode_references([np.tile(np.arange(crop, dtype=np.uint8), (crop, 1))])
        return list(
            segment_files(segmenter, paths, references, tmp_path / "out", OutputSettings(save, **settings), force=force)
        )

    return call


def _labels(tmp_path):
    return tifffile.imread(tmp_path / "out" / "a-labels.tif")


def test_another_image_of_the_same_name_does_not_take_the_place_of_results(run, image, tmp_path):
    first, second = image("x/a.png", 0), image("y/a.png", 1)
    run(first)
    labels = _labels(tmp_path)
    with pytest.raises(FsisError, match=r"y/a\.png: .*out has the results of .*x/a\.png, of the same name: choose"):
        run(second)
    np.testing.assert_array_equal(_labels(tmp_path), labels)
    os.remove(first)  # it was moved
    run(second)


def test_one_image_in_two_spellings_is_one_image(run, image, tmp_path, monkeypatch):
    path = image("a.png")
    (made,) = run(path)
    monkeypatch.chdir(tmp_path)
    (again,) = run("a.png")
    assert (again.cells, again.image) == (made.cells, "a.png")
    assert len((tmp_path / "out" / "images.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_files_of_two_runs_are_never_called_finished(run, image, tmp_path, monkeypatch, moved):
    path = image("a.png")
    (first,) = run(path, crop=30)
    labels = _labels(tmp_path)
    replace, calls = os.replace, []

    def interrupted(source, target):
        if ".partial" in str(source) and not str(source).endswith(".tmp"):
            if len(calls) == moved:
                raise KeyboardInterrupt
            calls.append(target)
        replace(source, target)

    def note(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", interrupted)
        if moved == 2:
            patched.setattr(files._Run, "_note", note)
        with pytest.raises(KeyboardInterrupt):
            run(path, crop=20)
    (again,) = run(path, crop=30)
    assert again.cells == first.cells
    np.testing.assert_array_equal(_labels(tmp_path), labels)
    assert len((tmp_path / "out" / "a-table.csv").read_text().splitlines()) == first.cells + 1


def test_a_line_that_was_cut_off_costs_no_other(run, image, tmp_path):
    one, two = image("a.png", 0), image("b.png", 1)
    run(one)
    record = tmp_path / "out" / "images.jsonl"
    record.write_bytes(record.read_bytes()[:-20])
    run(two)
    before = (tmp_path / "out" / "b-labels.tif").stat().st_mtime_ns
    run(one, two)
    assert (tmp_path / "out" / "b-labels.tif").stat().st_mtime_ns == before


def test_images_that_fail_are_closed_before_the_next(segmenter, image, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"bad{number}.tif") for number in range(3)]
    for path in paths:
        options = {"tile": (32, 32), "compression": "zlib", "photometric": "minisblack"}
        tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (60, 60), np.uint8), **options)
        with tifffile.TiffFile(path) as tiff:
            offset = tiff.pages[0].dataoffsets[-1]
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(b"no zlib stream")
    opened, real = set(), opening.open_image

    def counted(path, **options):
        found = real(path, **options)
        opened.add(path)
        close = found.close
        monkeypatch.setattr(found, "close", lambda: (opened.discard(path), close()))
        return found

    monkeypatch.setattr(opening, "open_image", counted)
    references = segmenter.encode_references([np.tile(np.arange(30, dtype=np.uint8), (30, 1))])
    errors = []
    for outcome in segment_files(segmenter, [*paths, image("a.png")], references, tmp_path / "out"):
        errors.append(outcome.error)
        assert not opened
    assert ["damaged" in error for error in errors] == [True, True, True, False]


def test_a_result_never_takes_the_place_of_an_image(run, image, tmp_path):
    one, two = image("out/a.png"), image("out/a-labels.tif.png")
    os.rename(two, tmp_path / "out" / "a-labels.tif")
    with pytest.raises(FsisError, match=r"a-labels\.tif: would be replaced by a result: choose another folder"):
        run(one, str(tmp_path / "out" / ".." / "out" / "a-labels.tif"))


def test_an_image_too_large_for_coco_fails_before_it_is_segmented(run, image, monkeypatch):
    monkeypatch.setattr("fsis_jax.io.writers._COCO_LIMIT", 10)
    monkeypatch.setattr("fsis_jax.inference.programs.find", None)
    (outcome,) = run(image("a.png"), save=("labels", "coco"))
    assert "too many for COCO's run lengths: save geojson" in outcome.error


def test_settings_of_the_tiles_are_part_of_what_is_done(run, image, segmenter, tmp_path):
    path = image("a.png", size=(200, 200))
    run(path)
    before = segmenter.config.data.tile_overlap
    segmenter.config.data.tile_overlap = 1.0
    try:
        run(path)
    finally:
        segmenter.config.data.tile_overlap = before
    assert len((tmp_path / "out" / "images.jsonl").read_text().splitlines()) >= 2


# -- planes of one file ---------------------------------------------------------------------------------------------


@pytest.fixture
def stack(tmp_path):
    """Writes an OME-TIFF of two channels and three sections; gives its path."""

    def write(*channels):
        pixels = np.random.default_rng(0).integers(0, 255, (3, len(channels), 60, 60), np.uint8)
        path = str(tmp_path / "a.ome.tif")
        tifffile.imwrite(path, pixels, metadata={"axes": "ZCYX", "Channel": {"Name": list(channels)}})
        return path

    return write


def test_each_plane_has_results_of_its_own(run, stack, tmp_path):
    path = stack("DAPI", "GFP")
    chosen = [("DAPI", "Z1"), ("GFP", "Z1"), ("GFP", "z3"), ("2", "2")]
    names = ["a-DAPI-Z1", "a-GFP-Z1", "a-GFP-Z3", "a-C2"]
    for (channel, page), name in zip(chosen, names, strict=True):
        (outcome,) = run(path, channel=channel, page=page)
        assert outcome.files["labels"] == str(tmp_path / "out" / f"{name}-labels.tif")
    written = os.listdir(tmp_path / "out")
    results = [f"{name}-{end}" for name in names for end in ("labels.tif", "table.csv")]
    assert sorted(written) == sorted(["images.jsonl", "summary.csv", *results])
    before = {file: (tmp_path / "out" / file).stat().st_mtime_ns for file in written}
    run(path, channel="DAPI", page="Z1")
    assert {file: (tmp_path / "out" / file).stat().st_mtime_ns for file in written} == before


def test_pages_that_are_numbers_alone_share_a_name_and_so_need_folders(run, tmp_path):
    path = str(tmp_path / "stack.tif")
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (3, 60, 60), np.uint8), photometric="minisblack")
    (outcome,) = run(path, page="2")
    assert outcome.files["table"] == str(tmp_path / "out" / "stack-table.csv")
    with pytest.raises(FsisError, match=r"has the results of its plane P2, of the same name stack: choose"):
        run(path, page="3")
    run(path, page="2")


def test_odd_names_of_channels_are_no_paths_and_do_not_meet(run, stack, tmp_path):
    path = stack("../a/b", "..\\a:b")
    (outcome,) = run(path, channel="../a/b", page="Z1,")[:1]
    assert "no page" in outcome.error
    (outcome,) = run(path, channel="../a/b", page="Z1")
    assert outcome.files["table"] == str(tmp_path / "out" / "a-.._a_b-Z1-table.csv")
    with pytest.raises(FsisError, match=r"has the results of its plane \.\./a/b,Z1, of the same name a-.*: choose"):
        run(path, channel="..\\a:b", page="Z1")


# -- several runs in one folder -------------------------------------------------------------------------------------


def _write_lock(path, **values):
    """As if a process had it: this machine's first one, which is always there."""
    with acquire(path) as lock:
        holder = dataclasses.asdict(lock.holder)
    path.write_text(json.dumps({**holder, "pid": 1, "started": "", **values}))


def test_what_another_run_is_at_work_on_comes_last(run, image, tmp_path, monkeypatch, caplog):
    paths = [image("a.png", 0), image("b.png", 1)]
    lock = tmp_path / "out" / "a.lock"
    _write_lock(lock)
    monkeypatch.setattr(files.time, "sleep", lambda _: lock.unlink())
    assert [pathlib.Path(outcome.image).name for outcome in run(*paths)] == ["b.png", "a.png"]
    assert "a.png: another run is at work on it (process 1 on" in caplog.text
    assert "waiting for the other run" in caplog.text
    assert not list(tmp_path.glob("out/*.lock"))


def test_what_another_run_has_done_meanwhile_is_not_done_again(run, image, tmp_path, monkeypatch):
    path = image("a.png")
    (first,) = run(path)
    record = tmp_path / "out" / "images.jsonl"
    line = record.read_text()
    record.unlink()
    lock = tmp_path / "out" / "a.lock"
    _write_lock(lock)
    monkeypatch.setattr(files.time, "sleep", lambda _: (record.write_text(line), lock.unlink()))
    monkeypatch.setattr("fsis_jax.inference.programs.find", None)
    assert run(path) == [first]


def test_what_another_run_has_written_with_other_settings_is_not_replaced(run, image, segmenter, tmp_path, monkeypatch):
    path, lock = image("a.png"), tmp_path / "out" / "a.lock"
    _write_lock(lock)

    def other(_):
        monkeypatch.undo()
        lock.unlink()
        run(path, crop=20)

    monkeypatch.setattr(files.time, "sleep", other)
    (outcome,) = run(path, crop=30)
    assert "another run (process" in outcome.error
    assert "has written a to" in outcome.error
    (again,) = run(path, crop=30)  # a later run replaces what it finds
    assert not again.error


def test_locks_of_other_machines_and_of_processes_that_are_gone(run, image, tmp_path):
    paths = [image("a.png", 0), image("b.png", 1), image("c.png", 2)]
    _write_lock(tmp_path / "out" / "a.lock", host="elsewhere")
    _write_lock(tmp_path / "out" / "c.lock", pid=99999999)
    refused, *others = run(*paths)
    assert "a.lock: another run is at work on this result (process 1 on elsewhere)" in refused.error
    assert [outcome.error for outcome in others] == ["", ""]
    assert not run(*paths, force=True)[-1].error
    assert not list(tmp_path.glob("out/*.lock"))


def test_a_run_leaves_no_lock_however_it_ends(run, image, tmp_path, monkeypatch):
    good, bad = image("a.png"), tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    assert [bool(outcome.error) for outcome in run(good, str(bad))] == [False, True]
    for error in (KeyboardInterrupt, OSError(28, "No space left on device")):

        def fail(*_, error=error):
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(files.os, "replace", fail)
            with pytest.raises((KeyboardInterrupt, FsisError)):
                run(image("b.png"), good, crop=20)
        assert not list(tmp_path.glob("out/*.lock"))


def test_a_picture_of_one_stain_in_colour_is_told(run, image, tmp_path, caplog):
    grey = cv2.imread(image("a.png"), cv2.IMREAD_GRAYSCALE)
    green = str(tmp_path / "green.png")
    cv2.imwrite(green, np.dstack([0 * grey, grey, 0 * grey]))
    run(green, str(tmp_path / "a.png"))
    assert [message for message in caplog.messages if "colour" in message] == [
        f"{green}: read as colour, but shows one stain: --channel green reads it as grey"
    ]
    caplog.clear()
    run(green, channel="green")
    assert not [message for message in caplog.messages if "colour" in message]


def _record(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out" / "images.jsonl").read_text().splitlines()]


def test_results_that_are_not_as_they_were_written_are_made_again(run, image, tmp_path, caplog):
    path, out = image("a.png"), tmp_path / "out"
    (first,) = run(path)
    labels, table = (out / "a-labels.tif").read_bytes(), (out / "a-table.csv").read_bytes()
    assert _record(tmp_path)[-1]["written"]["labels"][0] == len(labels)
    for file, content in (("a-labels.tif", b""), ("a-table.csv", table.replace(b"1", b"2")), ("a-table.csv", b"")):
        (out / file).write_bytes(content)
        caplog.clear()
        (again,) = run(path)
        assert [r.message for r in caplog.records if "not as it" in r.message] == [
            f"{out / file}: not as it was written: made again"
        ]
        assert (again.cells, (out / "a-table.csv").read_bytes()) == (first.cells, table)
        assert (out / "a-labels.tif").read_bytes() == labels
    lines = len(_record(tmp_path))
    run(path)
    assert len(_record(tmp_path)) == lines


@pytest.mark.parametrize("side", [60, 4200])
def test_other_pixels_of_the_same_size_and_time_are_another_image(run, tmp_path, side):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((side, side), np.uint8))
    before = os.stat(path)
    key = finished_images.identity(str(path))
    with open(path, "r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"0123456789")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_size == before.st_size
    changed = finished_images.identity(str(path))
    assert key[0][:2] == changed[0][:2]
    assert key != changed


def test_force_makes_results_again(run, image, tmp_path):
    paths = image("a.png"), image("b.png", 1)
    run(*paths)
    lines = len(_record(tmp_path))
    run(*paths)
    assert len(_record(tmp_path)) == lines
    outcomes = run(*paths, force=True)
    assert [outcome.image for outcome in outcomes] == list(paths)
    assert len(_record(tmp_path)) > lines + 1


def test_folders_and_files_of_a_user_stay(run, image, tmp_path):
    path, out = image("a.png"), tmp_path / "out"
    (out / "a.partial").mkdir(parents=True)
    mine = out / "a.partial" / "thesis.txt"
    mine.write_text("two years of work")
    with pytest.raises(FsisError, match=r"a\.partial: a folder that fsis did not make: rename it or choose another"):
        run(path)
    assert mine.read_text() == "two years of work"
    mine.unlink()
    run(path)  # an empty folder is nobody's
    assert not (out / "a.partial").exists()


@pytest.mark.parametrize("link", ["images.jsonl", "a.partial", ".tiles", ".tiles/a"])
def test_links_in_the_folder_are_not_followed(run, image, tmp_path, link):
    path, out, mine = image("a.png", size=(300, 300)), tmp_path / "out", tmp_path / "mine"
    (out / link).parent.mkdir(parents=True)
    if link in ("a.partial", ".tiles"):
        mine.mkdir()
        (mine / "a").write_text("mine")
    else:
        mine.write_text("mine")
    (out / link).symlink_to(mine)
    with pytest.raises(FsisError, match=r"out/.* \(Too many levels of symbolic links\): a symbolic link has that name"):
        run(path, tile=128)
    assert (mine / "a" if mine.is_dir() else mine).read_text() == "mine"
    assert not mine.is_dir() or len(list(mine.iterdir())) == 1


def test_a_link_in_the_place_of_a_result_is_replaced(run, image, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a-table.csv").symlink_to(mine)
    run(image("a.png"))
    assert mine.read_text() == "mine"
    assert not (tmp_path / "out" / "a-table.csv").is_symlink()


@pytest.mark.parametrize("replaced", [True, False])
def test_a_folder_that_is_removed_meanwhile_is_an_error(segmenter, image, tmp_path, replaced):
    references = segmenter.encode_references([np.tile(np.arange(30, dtype=np.uint8), (30, 1))])
    out = tmp_path / "parent" / "out"
    started = segment_files(segmenter, [image("a.png"), image("b.png", 1)], references, out)
    next(started)
    (tmp_path / "parent").rename(tmp_path / "elsewhere")
    if replaced:
        out.mkdir(parents=True)
    with pytest.raises(FsisError, match="out: was removed or replaced while images were segmented into it: run the"):
        list(started)


def test_folders_of_zarr_are_results_like_files(run, image, tmp_path, caplog):
    path = image("a.png")
    (made,) = run(path, save=("labels", "zarr", "zarr-0.4"))
    folder = tmp_path / "out" / "a.zarr"
    assert made.files["zarr"] == str(folder)
    assert not (tmp_path / "out" / "a.partial").exists()
    with open_image(folder / "labels" / "cell", labels=True) as labels:
        np.testing.assert_array_equal(labels[:, :], _labels(tmp_path))
    before = folder.stat().st_ino
    assert run(path, save=("zarr",)) == [made]
    assert folder.stat().st_ino == before
    (chunk,) = [file for file in (folder / "labels" / "cell" / "0" / "c").rglob("*") if file.is_file()]
    chunk.write_bytes(chunk.read_bytes()[:-1])
    run(path, save=("zarr",))
    assert [record.getMessage() for record in caplog.records] == [f"{folder}: not as it was written: made again"]
    assert folder.stat().st_ino != before
    with open_image(folder / "labels" / "cell", labels=True) as labels:
        np.testing.assert_array_equal(labels[:, :], _labels(tmp_path))
    (tmp_path / "out" / "b.zarr").mkdir()
    with pytest.raises(OutputError, match=r"b\.zarr: cannot be written .*: a folder has that name"):
        run(image("b.png"), save=("zarr",))
    assert [*(tmp_path / "out" / "b.zarr").iterdir()] == []
