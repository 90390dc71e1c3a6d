"""What is measured of cells, and how kinds compete by it."""

import numpy as np
import pytest

from fsis_jax.inference.traits import TRAITS, KindModel, kind_scores, measure, raised

COUNT = len(TRAITS)


def test_the_traits_of_a_disc_on_a_dark_ground():
    rows, columns = np.mgrid[:40, :60]
    image = np.where((rows - 20) ** 2 + (columns - 30) ** 2 < 100, 204, 51).astype(np.uint8)
    (found,) = measure(image, np.array([[20, 10, 40, 30]]))
    traits = dict(zip(TRAITS, found.tolist(), strict=True))
    assert traits["log size"] == pytest.approx(np.log(20))
    assert traits["elongation"] == 0
    assert traits["brightness"] == pytest.approx(0.8)
    assert traits["texture"] == pytest.approx(0, abs=1e-6)
    assert 0.2 < traits["surroundings"] < 0.5
    assert [traits[name] for name in ("red", "green", "blue")] == [0, 0, 0]


def test_colours_are_differences_from_their_mean():
    image = np.zeros((10, 10, 3), np.uint8)
    image[..., 0] = 153
    (found,) = measure(image, np.array([[2, 2, 8, 8]]))
    np.testing.assert_allclose(found[2:], [0.2, 0, 0.2, 0.4, -0.2, -0.2], atol=1e-6)


@pytest.mark.parametrize("box", [[-5, -5, 3, 3], [57, 38, 70, 50], [30.2, 20.1, 30.4, 20.3], [70, 50, 80, 60]])
def test_boxes_at_the_border_or_without_a_pixel_have_traits(box):
    assert np.isfinite(measure(np.full((40, 60), 7, np.uint8), np.array([box], float))).all()


def _traits(**values):
    found = np.zeros(COUNT, np.float32)
    for name, value in values.items():
        found[TRAITS.index(name.replace("_", " "))] = value
    return found


def test_what_is_like_the_examples_of_a_kind_is_of_it():
    examples = np.array([_traits(log_size=3, brightness=0.4), _traits(log_size=2.4, brightness=0.9)])
    model = KindModel(examples, np.array([0, 1]), 2)
    shares, nothing = model.log_odds(np.array([examples[0], examples[1], examples.mean(0)]))
    assert shares[0].argmax() == 0
    assert shares[1].argmax() == 1
    np.testing.assert_allclose(shares[2], np.log([0.5, 0.5]), atol=1e-5)
    np.testing.assert_allclose(np.exp(shares).sum(1), 1)
    np.testing.assert_array_equal(nothing, 0)


def test_cells_that_stand_out_less_than_the_examples_are_faint():
    dark = _traits(brightness=0.3, surroundings=0.7)  # on a light ground
    model = KindModel(np.array([dark, dark]), np.zeros(2, np.int32), 1)
    spread = 0.12 * np.sqrt(8 / 10)  # two equal examples make it smaller
    cells = [dark, _traits(brightness=0.1), _traits(brightness=0.3 + 2 * spread), _traits(brightness=0.9)]
    faint = model.faintness(np.array(cells))[:, 0]
    np.testing.assert_allclose(faint[:3], [0, 0, np.log(2)], atol=1e-6)  # darker ones are not
    assert faint[3] > faint[2]
    bright = KindModel(np.array([_traits(brightness=0.8, surroundings=0.2)]), np.zeros(1, np.int32), 1)
    np.testing.assert_array_equal(bright.faintness(np.array(cells))[:, 0] > 0, [True, True, True, False])


def test_nothing_is_faint_where_no_brightness_is_known():
    unknown = _traits(log_size=3)
    unknown[2:] = np.nan
    model = KindModel(np.array([unknown, _traits(brightness=0.9, surroundings=0.1)]), np.arange(2), 2)
    np.testing.assert_array_equal(model.faintness(np.array([_traits(brightness=0.1)])) > 0, [[False, True]])
    empty = KindModel(np.zeros((0, COUNT)), np.zeros(0, int), 1)
    np.testing.assert_array_equal(empty.faintness(np.array([_traits(brightness=0.1)])), [[0]])


def test_a_trait_that_is_not_known_of_one_kind_does_not_count():
    bright, unknown = _traits(brightness=0.9), _traits(log_size=1)
    unknown[2:] = np.nan
    shares, _ = KindModel(np.array([bright, unknown]), np.array([0, 1]), 2).log_odds(
        np.array([_traits(brightness=0.9)])
    )
    by_size, _ = KindModel(np.array([bright, unknown]), np.array([0, 1]), 2).log_odds(np.array([_traits()]))
    np.testing.assert_allclose(shares, by_size)


def test_examples_of_nothing_count_against_what_is_like_them_the_more_there_are():
    cell, dust = _traits(brightness=0.5), _traits(brightness=1)
    odds = []
    for count in (1, 10):
        model = KindModel(np.array([cell, *[dust] * count]), np.array([0, *[1] * count]), 1)
        odds.append(model.log_odds(np.array([cell, dust]))[1])
        assert odds[-1][0] == 0 < odds[-1][1]  # what is like the cells does not gain
    assert odds[1][1] > odds[0][1]


def _known(*shares):
    """A model that gives these shares of the kinds to any traits."""

    class Known(KindModel):
        def log_odds(self, traits):
            return np.log(np.array([shares])), np.zeros(len(traits))

    return Known(np.zeros((0, COUNT)), np.zeros(0, int), len(shares))


def test_kinds_and_none_compete_in_one_softmax():
    found = kind_scores(np.array([[0, np.log(2), 0.5]]), np.zeros((1, COUNT)), _known(0.5, 0.5))
    # 0.5, 1 and 1 of 2.5; half of the kinds' share goes to none.
    np.testing.assert_allclose(found, [[0.1, 0.2, 0.7]], atol=1e-6)
    assert found.dtype == np.float32


def test_one_kind_has_the_score_of_the_network():
    found = kind_scores(np.array([[1.5, 1]]), np.zeros((1, COUNT)), _known(1.0))
    np.testing.assert_allclose(found, [[1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(1.5))]], rtol=1e-6)


def test_a_kind_that_is_not_looked_for_gets_nothing():
    found = kind_scores(np.array([[2.0, -np.inf, 1]]), np.zeros((1, COUNT)), _known(0.5, 0.5))
    assert found[0, 1] == 0
    assert found.sum() == pytest.approx(1)


def test_raised_keeps_the_proportions():
    np.testing.assert_allclose(raised(np.array([[0.1, 0.2, 0.7]]), np.array([0.6])), [[0.2, 0.4, 0.4]], atol=1e-6)
