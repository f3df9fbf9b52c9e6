"""Variations of training images, against what can be computed by hand."""

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import photograph
from PIL import Image

from data.pipeline import augment, variations
from data.pipeline.variations import Variations

SIDE = 48
IMAGE = photograph(0, SIDE, SIDE)
DRAWS = np.random.default_rng(0).random((200, 5)).astype(np.float32)
ALL = {
    "rotate": 15.0,
    "translate": 0.1,
    "shear": 8.0,
    "elastic": 0.03,
    "randaugment": (2, 9.0),
    "jitter": 0.4,
    "channel_shift": 20.0,
    "erase": 1.0,
}


@pytest.mark.parametrize("name", ALL)
def test_each_changes_the_image_and_is_a_function_of_the_draws(name):
    vary = Variations(**{name: ALL[name]})
    assert vary and not Variations()
    before = IMAGE.copy()
    results = [vary(IMAGE, draws) for draws in DRAWS[:20]]
    assert all(result.shape == IMAGE.shape and result.dtype == np.uint8 for result in results)
    assert len({result.tobytes() for result in results}) > 10
    np.testing.assert_array_equal(vary(IMAGE, DRAWS[3]), results[3])
    np.testing.assert_array_equal(IMAGE, before)


def test_what_one_draws_does_not_depend_on_the_others():
    """Both paint over the same rectangle, whatever else is asked for."""
    alone, after = Variations(erase=1.0), Variations(erase=1.0, channel_shift=2.0)
    for draws in DRAWS[:10]:
        difference = np.abs(alone(IMAGE, draws).astype(int) - after(IMAGE, draws))
        assert difference.max() <= 2


def test_a_rotation_by_hand():
    """A dot ends where the rotation of its place ends, within the limits."""
    image = np.zeros((SIDE + 1, SIDE + 1, 3), np.uint8)
    centre = SIDE // 2
    image[centre, centre + 20] = 255
    angles = []
    for draws in DRAWS:
        turned = Variations(rotate=30.0)(image, draws)[..., 0].astype(float)
        y, x = (
            np.average(each, weights=turned) - centre for each in np.mgrid[: SIDE + 1, : SIDE + 1]
        )
        assert np.hypot(y, x) == pytest.approx(20, abs=0.6)
        angles.append(np.degrees(np.arctan2(y, x)))
    assert -31 < min(angles) < -25 and 25 < max(angles) < 31


def test_a_translation_by_hand():
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[20, 20] = 255
    for draws in DRAWS[:50]:
        moved = Variations(translate=0.2)(image, draws)[..., 0].astype(float)
        shift = [np.average(each, weights=moved) - 20 for each in np.mgrid[:SIDE, :SIDE]]
        assert np.abs(shift).max() <= 0.2 * SIDE + 0.1


def test_a_shear_moves_rows_against_each_other():
    image = np.zeros((SIDE + 1, SIDE + 1, 3), np.uint8)
    image[:, SIDE // 2] = 255
    sheared = Variations(shear=30.0)(image, DRAWS[0])[..., 0].astype(float)
    columns = [np.average(np.arange(SIDE + 1), weights=row) for row in sheared[10:-10]]
    steps = np.diff(columns)
    assert np.abs(steps).max() <= np.tan(np.radians(30)) + 0.05
    assert steps.std() < 0.05 and abs(steps.mean()) > 0.01


def test_an_elastic_displacement_has_the_asked_size():
    ramp = np.zeros((SIDE, SIDE, 3), np.uint8)
    ramp[..., 0] = np.arange(SIDE) * 4
    moved = [
        Variations(elastic=0.04)(ramp, draws)[8:-8, 8:-8, 0] / 4 - np.arange(SIDE)[8:-8]
        for draws in DRAWS[:50]
    ]
    assert np.std(moved) == pytest.approx(0.04 * SIDE, rel=0.2)


def test_a_channel_shift_by_hand():
    shifts = []
    for draws in DRAWS:
        grey = np.full((4, 4, 3), 128, np.uint8)
        shifted = Variations(channel_shift=20.0)(grey, draws).astype(int) - 128
        assert (shifted == shifted[0, 0]).all()
        shifts.append(shifted[0, 0])
    assert np.abs(shifts).max() <= 20 and np.std(shifts, axis=0) == pytest.approx(
        20 / 3**0.5, rel=0.2
    )
    bright = np.full((4, 4, 3), 250, np.uint8)
    assert Variations(channel_shift=20.0)(bright, DRAWS[0]).min() >= 230  # nothing wraps around


def test_jitter_changes_grey_by_the_factor_of_brightness_alone():
    grey = np.full((4, 4, 3), 100, np.uint8)
    values = [Variations(jitter=0.4)(grey, draws) for draws in DRAWS]
    assert all((value == value[0, 0]).all() for value in values)
    first = [int(value[0, 0, 0]) for value in values]
    assert 60 <= min(first) < 66 and 134 < max(first) <= 140


def test_erasing_paints_one_rectangle_of_the_asked_area():
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    areas = []
    for draws in DRAWS:
        painted = Variations(erase=1.0)(black, draws).any(axis=-1)
        rows, columns = painted.any(axis=1), painted.any(axis=0)
        assert painted.sum() == rows.sum() * columns.sum()
        areas.append(painted.mean())
    assert 0.01 < min(areas) < 0.06 and 0.25 < max(areas) < 0.36
    untouched = [(Variations(erase=0.25)(black, draws) == 0).all() for draws in DRAWS]
    assert np.mean(untouched) == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize("name", variations.OPERATIONS)
def test_randaugments_operations(name):
    pixels = IMAGE // 2 + 20  # neither black nor white
    picture = Image.fromarray(pixels)
    strong, other = (
        np.asarray(variations.OPERATIONS[name](picture, 0.9, sign)).astype(int) for sign in (1, -1)
    )
    assert strong.shape == IMAGE.shape
    assert (strong != pixels).any() == (name != "identity")
    both_ways = {"autocontrast", "equalize", "solarize", "posterize", "identity"}
    assert (strong == other).all() == (name in both_ways)


def test_randaugment_does_so_many_operations(monkeypatch):
    done = []
    counting = {"only": lambda picture, part, sign: done.append((part, sign)) or picture}
    monkeypatch.setattr(variations, "OPERATIONS", counting)
    Variations(randaugment=(3, 5.0))(IMAGE, DRAWS[0])
    assert len(done) == 3 and {part for part, _ in done} == {0.5}


def test_scale_draws_the_shorter_side_first():
    draws = tf.constant(np.random.default_rng(0).random((500, 5)), tf.float32)
    height, width = tf.fill([500], 256), tf.fill([500], 300)
    window = augment.scaled_window(256, 512, 224)
    top, left, side, same = window(height, width, 224, draws).numpy().T
    assert (side == same).all() and side.max() <= 224 and side.min() >= 112
    assert (top >= 0).all() and (top + side <= 256).all() and (left + side <= 300).all()
    scaled = 256 * 224 / side
    assert np.mean(scaled) == pytest.approx(384, rel=0.03)


def test_opencv_warps_as_we_mean_it():
    """The matrix of `_moved` maps places of the image to places of the result."""
    image = np.zeros((9, 9, 3), np.uint8)
    image[4, 2] = 255
    moved = variations._warped(image, np.float64([[1, 0, 3], [0, 1, -1]]))
    assert moved[3, 5].min() == 255 and cv2.countNonZero(moved[..., 0]) == 1
