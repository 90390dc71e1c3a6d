"""The threshold by the references' own score: how they are laid out, and what follows from what is found of them."""

import numpy as np
import pytest
import tiny
from tiny_closed_set import discs, untrained

from fsis_jax.inference.calibration import Calibration, lay_out, own_score
from fsis_jax.inference.job import Job
from fsis_jax.inference.segmenter import Segmenter


def test_references_lie_at_the_size_that_the_network_knows():
    square = np.full((32, 32, 3), 200, np.uint8)
    upright = np.zeros((32, 32, 3), np.uint8)
    upright[:, 8:24] = 100  # a crop of 2:1 in the middle of its square
    laid, boxes = lay_out(np.stack([square, upright]), np.array([(60, 60), (40, 20)]), 20.0, (64, 96))
    np.testing.assert_array_equal(boxes, [(5, 5, 25, 25), (30 + 14, 7, 30 + 14 + 14, 7 + 28)])
    assert laid.shape == (64, 96, 3)
    assert (laid[:30, :30] == 200).all()  # around it its border goes on
    assert (laid[:42, 30:72] == 100).all()  # and not the square's
    assert not laid[42:].any()


def test_what_has_no_room_is_left_out():
    images, sides = np.full((5, 32, 32, 3), 9, np.uint8), np.full((5, 2), 50.0)
    assert len(lay_out(images, sides, 20.0, (64, 64))[1]) == 4
    assert len(lay_out(images, sides, 20.0, (32, 32))[1]) == 1
    _, boxes = lay_out(images, sides, 40.0, (32, 32))
    assert boxes.shape == (0, 4)
    assert own_score(boxes, np.zeros((3, 4)), np.ones(3)) == 0


def test_the_own_score_is_the_median_of_those_found():
    references = np.array([(0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10)], np.float32)
    boxes = np.array([(0, 0, 10, 10), (0, 0, 10, 8), (20, 0, 30, 9), (40, 0, 50, 4), (60, 1, 70, 10)], np.float32)
    scores = np.array([0.3, 0.9, 0.5, 0.8, 0.2])
    assert own_score(references, boxes, scores) == 0.5  # of 0.9, 0.5 and 0.2: the third has too small a box
    assert own_score(references, boxes[:0], scores[:0]) == 0


@pytest.mark.usefixtures("quick_compile")
def test_the_threshold_follows_the_references_and_a_given_one_holds():
    plain = untrained(tiny.get_config())
    image = discs((64, 64))
    references = plain.encode_references([image[10:33, 20:44]])

    def threshold(segmenter):
        return next(segmenter.candidates([Job(image, references)]))[1].min_score

    def calibrated(slope, offset, own=None):
        line = Calibration(slope, offset, known={} if own is None else {measured: own})
        return Segmenter(plain.model, plain.config, min_score=0.2, calibration=line)

    first = Calibration(0.5, 0.1)
    found = threshold(Segmenter(plain.model, plain.config, min_score=0.2, calibration=first))
    ((measured, own),) = first.known.items()
    assert found == pytest.approx(0.5 * own + 0.1 if own else 0.2)
    assert threshold(calibrated(0.5, 0.1, 0.6)) == pytest.approx(0.4)
    assert threshold(calibrated(0.5, 0.1, 0.0)) == 0.2  # not one of them was found
    assert threshold(calibrated(0.0, 2.0, 0.6)) == 0.95
    assert threshold(calibrated(0.5, 0.1, 0.6).with_options(min_score=0.37)) == 0.37
    assert threshold(plain) == plain.min_score
