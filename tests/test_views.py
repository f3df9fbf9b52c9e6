import numpy as np
import pytest
import tensorflow as tf

from data.pipeline import views


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
def test_views_lie_inside_and_come_in_batches(crops):
    height, width = tf.constant([1, 8, 333, 500]), tf.constant([999, 8, 500, 375])
    windows = views.windows(height, width, 227, crops).numpy()
    assert windows.shape == (4, crops, 4)
    for of_image, h, w in zip(windows, height.numpy(), width.numpy(), strict=True):
        assert (of_image[:, :2] >= 0).all()
        assert (of_image[:, :2] + of_image[:, 2:] <= [h, w]).all()
