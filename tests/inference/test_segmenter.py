"""The Segmenter on a barely trained detector: what goes in, what comes out, and how often it compiles."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import nnx
from seen import candidates

from fsis_jax.checkpoints import runs, weights
from fsis_jax.checkpoints.config_file import config_of
from fsis_jax.checkpoints.runs import open_run
from fsis_jax.errors import FsisError
from fsis_jax.inference import programs as module
from fsis_jax.inference.job import Job
from fsis_jax.inference.journal import Journal
from fsis_jax.inference.segmenter import DEFAULT_MIN_SCORE, Segmenter
from fsis_jax.inference.tidying import WHOLE_CELLS, Tidying
from fsis_jax.inference.tiling import merge_tiles
from fsis_jax.models.detector import Detector
from fsis_jax.models.normalise import normalise

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def image():
    """(60, 80) uint8 that uses the whole range, so that stretching by its percentiles changes little."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:60, :80]
    image = rng.integers(0, 60, (60, 80))
    for y, x in ((15, 20), (40, 30), (30, 60)):
        image[(rows - y) ** 2 + (columns - x) ** 2 < 100] += 190
    return image.astype(np.uint8)


@pytest.fixture(scope="module")
def crop(image):
    return image[5:26, 10:31]


def _same(first, second):
    """But for the order of instances whose scores differ by rounding alone."""
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-5)
    assert first.size == second.size
    if len(first):
        apart = np.abs(first.boxes[:, None] - second.boxes[None]).max(axis=-1)
        assert max(apart.min(axis=0).max(), apart.min(axis=1).max()) < 1e-2
        np.testing.assert_allclose(first.scores, second.scores[apart.argmin(axis=1)], atol=1e-5)
    numbers = np.stack([first.labels(0.0).ravel(), second.labels(0.0).ravel()])
    counts = {len(np.unique(numbers, axis=1)[0]), *(len(np.unique(row)) for row in numbers)}
    assert len(counts) == 1  # the numbers pair off


def test_what_comes_out(segmenter, image, crop):
    found = candidates(segmenter, image, [crop])
    assert found.size == (60, 80)
    assert len(found) > 0
    assert found.min_score == segmenter.min_score
    assert (np.diff(found.scores) <= 0).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [80, 60, 80, 60]).all()
    labels = found.labels(0.0)
    assert labels.shape == (60, 80)
    assert labels.dtype == np.int32
    assert sorted(np.unique(labels)) == list(range(labels.max() + 1))


def test_what_a_user_holds_is_what_counts(segmenter, image, crop):
    every = candidates(segmenter, image, [crop])
    middle = float(np.median(every.scores))
    for threshold in (0, middle, 1):
        found = segmenter.segment(image, [crop], min_score=threshold)
        assert len(found) == found.labels().max(initial=0) == len(WHOLE_CELLS(every, threshold))
        assert found.min_score == threshold
        assert (found.scores >= threshold).all()
        assert len(found.without_overlaps()) == len(found)
    assert len(every) >= len(segmenter.segment(image, [crop], min_score=0)) > 0
    raw = segmenter.segment(image, [crop], min_score=0, tidying=Tidying(whole=False))
    np.testing.assert_array_equal(raw.labels(), every.labels(0))
    ((_, default),) = segmenter.segment_all([Job(image, [crop])])
    assert default.min_score == segmenter.min_score
    assert len(default) == len(WHOLE_CELLS(every, segmenter.min_score)) > 0
    assert len(every.without_overlaps()) == every.labels().max(initial=0)


def test_references_are_encoded_once_for_any_number_of_images(segmenter, image, crop):
    references = segmenter.encode_references([crop, crop[2:], crop[:, 3:]])
    assert references.images.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(references.sides, [[21, 21], [19, 21], [21, 18]])
    _same(candidates(segmenter, image, references), candidates(segmenter, image, [crop, crop[2:], crop[:, 3:]]))
    # The features are the mean over the shots.
    singles = [segmenter.encode_references([c]).features for c in (crop, crop[2:], crop[:, 3:])]
    for level, features in references.features.items():
        np.testing.assert_allclose(features, np.mean([single[level] for single in singles], axis=0), atol=1e-5)


@pytest.mark.parametrize("kind", ["rgb", "rgba", "one channel", "uint16", "float"])
def test_the_same_picture_in_another_format_gives_the_same_cells(segmenter, image, crop, kind):
    def change(x):
        if kind == "rgb":
            return np.stack([x] * 3, axis=-1)
        if kind == "rgba":
            return np.stack([x] * 3 + [np.full_like(x, 7)], axis=-1)
        if kind == "one channel":
            return x[..., None]
        return x.astype(np.uint16) * 100 + 3 if kind == "uint16" else x / np.float32(1000)

    _same(candidates(segmenter, change(image), [change(crop)]), candidates(segmenter, image, [crop]))


def test_a_crop_of_nothing_is_an_error_that_names_it(segmenter, image):
    with pytest.raises(FsisError, match="no reference given"):
        candidates(segmenter, image, [])
    with pytest.raises(FsisError, match=r"dot\.png: a reference of 1x1 pixels shows no cell; give a crop"):
        segmenter.encode_references([image[:1, :1]], names=["dot.png"])
    with pytest.raises(FsisError, match="reference 2: a reference of 9x1 pixels"):
        segmenter.encode_references([image[:9, :9], image[:1, :9]])


def test_references_that_show_nothing_are_refused_and_odd_sizes_told(segmenter, image, crop, caplog):
    with pytest.raises(FsisError, match=r"reference 2: shows nothing, all its pixels have one value: give a crop"):
        segmenter.encode_references([crop, np.zeros((20, 20), np.uint8)])
    with pytest.raises(FsisError, match=r"empty.tif: shows nothing, none of its pixels has a value"):
        segmenter.encode_references([np.full((20, 20), np.nan)], names=["empty.tif"])
    segmenter.encode_references([np.zeros((20, 20), np.uint8)], checked=False)  # as a data set may have it
    assert caplog.messages == []
    sides = np.array([(20, 20), (20, 20), (70, 70)])
    segmenter.encode_references([crop] * 3, sides=sides)
    segmenter.encode_references([crop] * 3, sides=sides)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(
        "reference 1, reference 3: references of 20 to 70 pixels: images are read at two scales"
    )
    least = segmenter.config.data.transform.reference_pixels / segmenter.config.data.transform.max_scale
    small = segmenter.encode_references([crop], sides=np.full((1, 2), least), pixel_size=1.0)
    assert len(caplog.messages) == 1  # the images' pixel size is not known yet
    segmenter.segment(image, small, pixel_size=2.0)
    assert len(caplog.messages) == 2
    assert caplog.messages[1].startswith(
        f"references of {least / 2:.3g} pixels, and this model reads cells of {least:.3g}"
    )


def test_mixed_sizes_compile_at_most_once_for_each_canvas(segmenter, crop):
    rng = np.random.default_rng(1)
    sizes = [(64, 64), (30, 60), (33, 95), (96, 96), (70, 71), (150, 100), (40, 200), (1, 5)]  # two of them in tiles
    before = module.find.count
    for size in sizes:
        found = candidates(segmenter, rng.integers(0, 255, size, np.uint8), [crop])
        assert found.size == size
    assert module.find.count - before <= len(segmenter.config.data.test_canvases)
    # Nor does another segmenter of the same run compile again.
    before = (module.find.count, module.encode.count)
    other = Segmenter(segmenter.model, segmenter.config)
    candidates(other, rng.integers(0, 255, (50, 60), np.uint8), [crop])
    assert (module.find.count, module.encode.count) == before


def _tiled(rng):
    return rng.integers(0, 255, (130, 150), np.uint8)  # of the tiny model, 16 tiles or more


def test_a_large_image_is_segmented_in_tiles_by_one_program(segmenter, crop):
    image = _tiled(np.random.default_rng(2))
    references = segmenter.encode_references([crop])
    candidates(segmenter, image, references)
    before = module.find.count
    steps = []
    ((_, found),) = segmenter.candidates([Job(image, references)], progress=lambda _, *step: steps.append(step))
    assert module.find.count == before
    assert steps == [(i + 1, len(steps)) for i in range(len(steps))]
    assert len(steps) >= 16
    assert found.size == image.shape
    assert found.min_score == segmenter.min_score
    assert len(found) > segmenter.config.model.detections.max_instances  # which is the limit of a tile
    assert (found.boxes[:, 2:].max(axis=0) > 100).all()
    assert found.labels(0.0).shape == image.shape


def test_tiles_in_batches_give_the_same(segmenter, crop):
    image = _tiled(np.random.default_rng(3))
    batched = Segmenter(segmenter.model, segmenter.config, tile_batch=5)
    _same(candidates(batched, image, [crop]), candidates(segmenter, image, [crop]))


def test_tiles_of_a_given_side(segmenter, image, crop):
    steps = []
    ((_, found),) = segmenter.candidates([Job(image, [crop])], tile=50, progress=lambda _, *step: steps.append(step))
    assert len(steps) > 1
    assert found.size == image.shape
    _same(candidates(segmenter, image, [crop], tile=80), candidates(segmenter, image, [crop]))


def test_a_stream_keeps_the_order_and_reads_one_image_ahead(segmenter, image, crop):
    references = segmenter.encode_references([crop])
    images = [image, _tiled(np.random.default_rng(4)), image[:40], image[:, :30]]
    read = []

    def jobs():
        for number, pixels in enumerate(images):
            read.append(number)
            yield Job(pixels, references)

    stream = segmenter.candidates(jobs())
    assert read == []
    for number, pixels in enumerate(images):
        job, found = next(stream)
        assert job.image is pixels
        assert read == list(range(min(number + 2, len(images))))
        assert found.size == pixels.shape
        _same(found, candidates(segmenter, pixels, references))
    assert next(stream, None) is None


@pytest.mark.parametrize("tiled", [False, True])
def test_an_image_that_cannot_be_read_does_not_take_the_one_before_it_along(segmenter, image, crop, tiled):
    references = segmenter.encode_references([crop])
    first = _tiled(np.random.default_rng(5)) if tiled else image

    def jobs():
        yield Job(first, references)
        raise FsisError("second.png: damaged")

    stream = segmenter.candidates(jobs())
    _same(next(stream)[1], candidates(segmenter, first, references))
    with pytest.raises(FsisError, match=r"second\.png: damaged"):
        next(stream)


def test_the_next_batch_is_given_to_the_device_before_the_last_one_is_waited_for(segmenter, image, crop, monkeypatch):
    references, events = segmenter.encode_references([crop]), []
    detect, get = module.find, module.jax.device_get
    monkeypatch.setattr(module, "find", lambda *arguments: events.append("detect") or detect(*arguments))
    monkeypatch.setattr(module.jax, "device_get", lambda tree: events.append("get") or get(tree))
    list(segmenter.candidates([Job(image[:, :60], references)] * 4))
    assert events == ["detect", "detect", "get", "detect", "get", "detect", "get", "get"]


def test_the_score_threshold_comes_from_the_validation(tiny_run, segmenter):
    checkpoints, step = open_run(tiny_run.workdir)
    with_threshold = checkpoints.meta(step)
    checkpoints.close()
    assert segmenter.min_score == with_threshold["validation"]["min_score"]
    assert config_of(with_threshold).to_dict() == segmenter.config.to_dict()


def test_a_threshold_of_its_own_is_kept(tiny_run, tmp_path, monkeypatch):
    real = runs.open_run

    def stored(validation):
        def patched(path):
            checkpoints, step = real(path)
            meta = checkpoints.meta
            monkeypatch.setattr(checkpoints, "meta", lambda step: {**meta(step), "validation": validation})
            return checkpoints, step

        monkeypatch.setattr(runs, "open_run", patched)
        return Segmenter.from_checkpoint(tiny_run.workdir).min_score

    assert stored({"mask_ap50": 0.7, "min_score": 0.31}) == 0.31
    assert stored(None) == DEFAULT_MIN_SCORE


def test_a_step_can_be_chosen(tiny_run, segmenter, image, crop):
    checkpoints, best = runs.open_run(tiny_run.workdir)
    checkpoints.close()
    expected = candidates(segmenter, image, [crop])
    for step in checkpoints.steps():
        found = candidates(Segmenter.from_checkpoint(checkpoints.folder / str(step)), image, [crop])
        if step == best:
            _same(found, expected)
        else:
            assert not np.array_equal(found.scores, expected.scores)


def test_a_weights_file_is_the_model_with_rounded_parameters(tiny_run, segmenter, image, crop, tmp_path, monkeypatch):
    weights.save_weights(tmp_path / "w.npz", runs.load_run(tiny_run.workdir))
    shipped = Segmenter.from_pretrained(tmp_path / "w.npz")
    graph, state = nnx.split(segmenter.model)
    model = nnx.merge(graph, jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), state))
    rounded = Segmenter(model, segmenter.config)
    assert shipped.fingerprint == rounded.fingerprint != segmenter.fingerprint
    assert shipped.min_score == segmenter.min_score
    found = candidates(shipped, image, [crop])
    assert len(found) > 0
    _same(found, candidates(rounded, image, [crop]))
    monkeypatch.setenv("FSIS_WEIGHTS", str(tmp_path / "w.npz"))
    assert Segmenter.from_pretrained().fingerprint == shipped.fingerprint
    assert Segmenter.from_pretrained(tiny_run.workdir).fingerprint == segmenter.fingerprint


_LATER = """
import sys, numpy as np
from fsis_jax import Segmenter
segmenter = Segmenter.from_pretrained(sys.argv[1])
image, crop = (np.load(path) for path in sys.argv[2:4])
found = segmenter.segment(image, [crop], min_score=0)
assert len(found) > 0
np.savez(sys.argv[4], boxes=found.boxes, scores=found.scores, labels=found.labels())
print(*sys.modules)
"""


def test_a_later_process_builds_no_detector_and_finds_the_same(segmenter, image, crop, tmp_path):
    weights.save_weights(tmp_path / "w.npz", weights.Trained.of(segmenter.model, segmenter.config, {"min_score": 0.0}))
    here = Segmenter.from_pretrained(tmp_path / "w.npz").segment(image, [crop], min_score=0)
    files = [tmp_path / "image.npy", tmp_path / "crop.npy"]
    for path, pixels in zip(files, (image, crop), strict=True):
        np.save(path, pixels)
    command = [sys.executable, "-c", _LATER, *map(str, (tmp_path / "w.npz", *files, tmp_path / "found.npz"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Without Flax nothing was traced.
    assert not {"flax", "orbax", "optax", "grain", "zarr", "fsis_jax.models.detector"} & set(done.stdout.split())
    with np.load(tmp_path / "found.npz") as there:
        np.testing.assert_array_equal(there["boxes"], here.boxes)
        np.testing.assert_array_equal(there["scores"], here.scores)
        np.testing.assert_array_equal(there["labels"], here.labels())


def test_the_model_can_be_looked_into(segmenter, crop):
    references = segmenter.encode_references([crop])
    features = segmenter.model.encode_references(normalise(references.images[None]))
    for level, expected in references.features.items():
        np.testing.assert_allclose(features[level], expected, atol=1e-3)


def test_no_checkpoint_no_segmenter(tmp_path, tiny_run):
    with pytest.raises(FsisError, match=r"nowhere: no such folder; give the folder of a training run"):
        Segmenter.from_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FsisError, match="no folder 'checkpoints' in it"):
        Segmenter.from_checkpoint(tmp_path)
    with pytest.raises(FsisError, match="there is no step 7; there are "):
        Segmenter.from_checkpoint(tiny_run.workdir / "checkpoints" / "7")


def test_arrays_that_do_not_fit_the_config_are_named(tiny_run, monkeypatch):
    def wider(meta):
        config = config_of(json.loads(json.dumps(meta)))
        config.model.box_head.hidden = 40
        return config

    monkeypatch.setattr(runs, "config_of", wider)
    with pytest.raises(FsisError, match=r"another architecture: .* of another shape \(box_head/\S+ .* instead of"):
        Segmenter.from_checkpoint(tiny_run.workdir)


def test_a_fresh_detector_has_the_default_threshold(segmenter):
    model = segmenter.model
    assert isinstance(model, Detector)
    assert Segmenter(model, segmenter.config).min_score == DEFAULT_MIN_SCORE


# -- large images -------------------------------------------------------------------------------------------------


def test_finished_tiles_are_taken_from_the_journal(segmenter, crop, tmp_path, monkeypatch):
    image = _tiled(np.random.default_rng(6))
    references = segmenter.encode_references([crop])
    whole = candidates(segmenter, image, references)
    journal = Journal(tmp_path / "tiles", "key")
    steps = []

    def stop(_, done, total):
        steps.append(done)
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(segmenter.candidates([Job(image, references, journal=journal)], progress=stop))
    journal.close()
    again = Journal(tmp_path / "tiles", "key")
    assert len(again.finished) >= 7
    job = Job(image, references, journal=again)
    partial = segmenter.found_so_far(job)
    assert 0 < len(partial) < len(whole)
    assert partial.size == image.shape
    detect = module.find
    called = []
    monkeypatch.setattr(module, "find", lambda *arguments: called.append(1) or detect(*arguments))
    left = len(again.finished)
    ((_, found),) = segmenter.candidates([job], progress=lambda _, done, total: steps.append(total))
    assert len(called) == steps[-1] - left
    np.testing.assert_array_equal(found.boxes, whole.boxes)
    np.testing.assert_array_equal(found.labels(0.0), whole.labels(0.0))
    np.testing.assert_array_equal(segmenter.found_so_far(job).boxes, whole.boxes)
    again.close()


def test_an_image_that_is_read_whole_has_no_journal(segmenter, image, crop, tmp_path):
    list(segmenter.candidates([Job(image[:, :60], [crop], journal=Journal(tmp_path / "tiles", "key"))]))
    assert not (tmp_path / "tiles").exists()


def test_tiles_that_show_nothing_are_not_given_to_the_device(segmenter, crop, monkeypatch):
    image = np.zeros((130, 150), np.uint8)
    image[:60, :70] = np.random.default_rng(7).integers(0, 255, (60, 70))
    detect, called = module.find, []
    monkeypatch.setattr(module, "find", lambda *arguments: called.append(1) or detect(*arguments))
    steps = []
    ((_, found),) = segmenter.candidates([Job(image, [crop])], progress=lambda _, *step: steps.append(step))
    assert 0 < len(called) < steps[-1][1] / 2
    assert len(found) > 0
    assert found.boxes[:, 2].max() < 130
    nothing = candidates(segmenter, np.zeros((300, 200), np.uint8), [crop])
    assert len(nothing) == 0
    assert (nothing.size, nothing.min_score) == ((300, 200), segmenter.min_score)


def test_pixel_sizes_relate_an_image_to_references_of_another_magnification(segmenter, image, crop):
    told = segmenter.encode_references([crop], sides=np.array([[42, 42]]), pixel_size=0.25)
    _same(candidates(segmenter, image, told, pixel_size=0.5), candidates(segmenter, image, [crop]))
    assert len(candidates(segmenter, image, told).boxes) > 0  # not known: taken as it is


def test_references_of_another_model_are_refused(segmenter, image, crop):
    references = segmenter.encode_references([crop])
    assert references.model == segmenter.fingerprint
    other = Segmenter(segmenter.model, segmenter.config)
    assert other.fingerprint == segmenter.fingerprint
    other.config = segmenter.config.copy_and_resolve_references()
    other.config.data.tile_overlap = 3.0  # which has nothing to do with references
    del other.fingerprint
    assert other.fingerprint == segmenter.fingerprint
    other.config.model.detections.max_instances = 7
    del other.fingerprint
    with pytest.raises(FsisError, match="the references were encoded by another model: encode their crops again"):
        candidates(other, image, references)


def test_the_stages_one_by_one_give_the_same(segmenter, crop):
    image = _tiled(np.random.default_rng(8))
    references = segmenter.encode_references([crop])
    plan = segmenter.plan(image, references)
    parts = []
    for tile in plan.tiles:
        prepared = plan.prepare(tile)
        assert prepared.shape == (*plan.canvas, 3)
        detections = segmenter.detect(plan, [prepared], references)
        assert isinstance(detections.masks, np.ndarray)
        parts.append(segmenter.paste(plan, tile, detections, 0))
    found = merge_tiles(parts, plan.tiles, plan.size, plan.margin)
    whole = candidates(segmenter, image, references)
    np.testing.assert_array_equal(found.boxes, whole.boxes)
    np.testing.assert_array_equal(found.labels(0.0), whole.labels(0.0))
    assert found.min_score == whole.min_score
