import numpy as np
import pytest
import tensorflow as tf

from data import pipeline
from data.images import decode
from data.pipeline import views
from engine import evaluator


@pytest.mark.parametrize(
    ("shorter", "size", "side"),
    [
        (256, 227, 227),  # untouched pixels
        (256, 224, 224),
        (342, 299, 299),
        (32, 32, 32),  # the whole image
        (8, 32, 8),  # all of it, enlarged
        (256, 32, 224),  # 7/8 of it, reduced
        (1, 227, 1),
    ],
)
def test_crop_side(shorter, size, side):
    assert int(views.crop_side(shorter, size)) == side


def test_five_views_are_the_corners_and_the_centre():
    windows = views.windows(tf.constant(256), tf.constant(340), 227, crops=5).numpy()
    corners = [(0, 0), (0, 113), (29, 0), (29, 113)]
    assert windows.tolist() == [[y, x, 227, 227] for y, x in [*corners, (14, 56)]]


def test_ten_views_are_the_five_and_their_mirror_images():
    height, width = tf.constant(300), tf.constant(256)
    five, ten = (views.windows(height, width, 224, crops).numpy() for crops in (5, 10))
    np.testing.assert_array_equal(ten, np.concatenate([five, five]))
    assert views.mirrored(10).numpy().tolist() == [False] * 5 + [True] * 5
    assert not views.mirrored(5).numpy().any()


def test_one_view_is_the_centre():
    height, width = tf.constant(300), tf.constant(256)
    centre = views.windows(height, width, 224, crops=1).numpy()
    np.testing.assert_array_equal(centre[0], views.windows(height, width, 224, crops=5).numpy()[4])


@pytest.mark.parametrize("crops", views.VIEWS)
def test_views_come_in_batches_and_only_moved_ones_leave_the_image(crops):
    height, width = tf.constant([1, 8, 333, 500]), tf.constant([999, 8, 500, 375])
    windows = views.windows(height, width, 227, crops).numpy()
    assert windows.shape == (4, crops, 4)
    moved = np.array([view.moved for view in views.VIEWS[crops]])
    for of_image, h, w in zip(windows, height.numpy(), width.numpy(), strict=True):
        begin, end = of_image[:, :2], of_image[:, :2] + of_image[:, 2:]
        assert (begin[moved == 0] >= 0).all() and (end[moved == 0] <= [h, w]).all()
        assert (begin < [h, w]).all() and (end > 0).all()  # none is entirely outside


@pytest.mark.parametrize(
    ("height", "width", "size", "corner", "side", "step"),
    [
        (32, 32, 32, (0, 0), 32, 1),
        (8, 8, 32, (0, 0), 8, 1),  # at least one pixel of an image that is enlarged
        (1, 5, 32, (0, 2), 1, 0),  # else nothing of the image would be left
        (256, 340, 224, (16, 58), 224, 7),  # stays inside of a larger image
        (32, 40, 32, (0, 4), 32, 1),
    ],
)
def test_six_views_are_the_centre_and_two_moved_and_their_mirror_images(
    height, width, size, corner, side, step
):
    windows = views.windows(tf.constant(height), tf.constant(width), size, crops=6).numpy()
    moves = np.array([0, -step, step] * 2)[:, np.newaxis]
    assert windows[:, :2].tolist() == (np.array(corner) + moves).tolist()
    assert (windows[:, 2:] == side).all()
    assert views.mirrored(6).numpy().tolist() == [False] * 3 + [True] * 3
    assert views.weights(6) == [1 / 4, 1 / 8, 1 / 8] * 2


def test_views_have_equal_weights_but_for_six_and_a_centre():
    for crops in (1, 2, 5, 10):
        assert views.weights(crops) == [1 / crops] * crops
    assert {crops: views.centre(crops) for crops in views.VIEWS} == {1: 0, 2: 0, 5: 4, 6: 0, 10: 4}


def test_six_views_of_an_image_are_black_outside_of_it():
    image = np.random.default_rng(0).integers(1, 256, [32, 32, 3], np.uint8)
    stored = decode.prepare_pixels(image, decode.Storage())
    padded = np.pad(image[..., ::-1], [(1, 1), (1, 1), (0, 0)])
    plain = [padded[at : at + 32, at : at + 32] for at in (1, 0, 2)]
    expected = [*plain, *(view[:, ::-1] for view in plain)]
    np.testing.assert_array_equal(pipeline.views_of([stored], size=32, crops=6)[0], expected)


def test_weighted_views_are_averaged_as_probabilities():
    logits = np.random.default_rng(0).normal(size=[2 * 6, 5]).astype(np.float32)
    found = evaluator.averaged(tf.constant(logits), views.weights(6), temperature=2.0).numpy()
    powers = np.exp(logits.reshape([2, 6, 5]) / 2)
    probabilities = powers / powers.sum(-1, keepdims=True)
    expected = np.average(probabilities, axis=1, weights=[2, 1, 1, 2, 1, 1])
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)
