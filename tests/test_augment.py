import math
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data.pipeline import augment, views

HEIGHTS = tf.constant([256, 300, 32, 8, 1, 500], tf.int32)
WIDTHS = tf.constant([341, 256, 32, 8, 700, 375], tf.int32)
SIZE = 227


def many(values, times=2000):
    return tf.repeat(values, times)


def uniform(rows, columns=augment.GEOMETRY_DRAWS, seed=0):
    draws = np.random.default_rng(seed).random([rows, columns], np.float32)
    draws[0], draws[-1] = 0, 1 - 2.0**-23  # the ends of what can be drawn
    return tf.constant(draws)


@pytest.mark.parametrize("name", augment.POLICIES)
def test_windows_are_not_empty_and_inside_unless_padded(name):
    policy = augment.POLICIES[name]
    height, width = many(HEIGHTS), many(WIDTHS)
    top, left, h, w = policy.window(height, width, SIZE, uniform(len(height))).numpy().T
    assert (h > 0).all() and (w > 0).all()
    inside = (top >= 0) & (left >= 0) & (top + h <= height) & (left + w <= width)
    assert inside.numpy().all() == (name not in ("cifar", "cifar_reflected", "airbench"))


@pytest.mark.parametrize("name", augment.POLICIES)
def test_one_image_and_a_batch_of_images_agree(name):
    window, draws = augment.POLICIES[name].window, uniform(len(HEIGHTS))
    batch = window(HEIGHTS, WIDTHS, SIZE, draws).numpy()
    for row, height, width, drawn in zip(batch, HEIGHTS, WIDTHS, draws, strict=True):
        np.testing.assert_array_equal(window(height, width, SIZE, drawn).numpy(), row)


def test_policies_that_cut_nothing_take_the_test_view():
    centre = views.windows(HEIGHTS, WIDTHS, SIZE, crops=1)[:, 0].numpy()
    for name in ("none", "digits"):
        policy = augment.POLICIES[name]
        drawn = policy.window(HEIGHTS, WIDTHS, SIZE, uniform(len(HEIGHTS))).numpy()
        np.testing.assert_array_equal(drawn, centre)
        assert not policy.mirror


def test_alexnet_windows_are_spread_evenly_over_all_places():
    height, width = many(tf.constant([256]), 30_000), many(tf.constant([341]), 30_000)
    windows = augment.POLICIES["alexnet"].window(height, width, SIZE, uniform(30_000)).numpy()
    assert set(windows[:, 2]) == set(windows[:, 3]) == {SIZE}
    for starts, places in ((windows[:, 0], 30), (windows[:, 1], 115)):
        counts = np.bincount(starts, minlength=places)
        assert len(counts) == places
        assert abs(counts / counts.mean() - 1).max() < 0.35


def test_cifar_windows_move_by_up_to_four_pixels():
    side = many(tf.constant([32]))
    windows = augment.POLICIES["cifar"].window(side, side, 32, uniform(2000)).numpy()
    assert set(windows[:, 0]) == set(windows[:, 1]) == set(range(-4, 5))
    assert set(windows[:, 2:].ravel()) == {32}


def test_inception_windows_have_the_papers_areas_and_ratios():
    height, width = many(tf.constant([400]), 5000), many(tf.constant([500]), 5000)
    _, _, h, w = augment.POLICIES["inception"].window(height, width, 224, uniform(5000)).numpy().T
    area, ratio = h * w / 200_000, w / h
    assert 0.079 < area.min() < 0.1 and 0.97 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.35
    assert abs(np.median(np.log(ratio))) < 0.02


def test_small_warp():
    image = np.zeros([32, 32, 3], np.uint8)
    image[4:8, 14:18] = 255  # above the centre
    middle = tf.fill([2, augment.GEOMETRY_DRAWS], 0.5)
    images = tf.constant(np.stack([image, image[::-1]]))
    np.testing.assert_array_equal(augment.small_warp(images, middle), images)

    def centre(draws):
        (moved,) = augment.small_warp(images[:1], tf.constant([draws])).numpy()[..., 0]
        return (np.argwhere(moved) * moved[moved > 0][:, None]).sum(0) / moved.sum()

    y, x = centre([0.5, 0.5, 0.5, 0.5])
    np.testing.assert_allclose(centre([0.5, 1.0, 0.0, 0.5]), (y + 3.2, x - 3.2), atol=0.1)
    angle, radius = math.radians(12), 15.5 - y
    turned = (15.5 - radius * math.cos(angle), x - radius * math.sin(angle))
    other_way = (turned[0], x + radius * math.sin(angle))
    np.testing.assert_allclose(centre([0.0, 0.5, 0.5, 0.5]), other_way, atol=0.3)
    np.testing.assert_allclose(centre([1.0, 0.5, 0.5, 0.5]), turned, atol=0.3)


def test_pca_noise_is_krizhevskys():
    images = tf.random.stateless_uniform([3, 4, 4, 3], [0, 1], maxval=255.0)
    # Standard normal deviates of 0, 1 and -2 along the three axes.
    draws = tf.constant([[0.5] * 3, [0.8413447, 0.5, 0.5], [0.5, 0.0227501, 0.5]])
    noise = (augment.pca_noise(images, draws) - images).numpy()
    assert np.ptp(noise, axis=(1, 2)).max() < 1e-4  # the same on every pixel
    first = 5.546 * np.array([-0.5675, -0.5808, -0.5836])
    second = -2 * 0.4794 * np.array([0.7192, -0.0045, -0.6948])
    np.testing.assert_allclose(noise[:, 0, 0], [[0, 0, 0], first, second], atol=2e-3)


@pytest.mark.parametrize("name", [n for n, p in augment.POLICIES.items() if p.colour])
def test_colours_stay_finite_and_differ_between_images(name):
    images = tf.fill([2, 4, 4, 3], 100.0) * tf.constant([1.0, 0.5, 0.2])
    ends = tf.constant([[0.0] * augment.COLOUR_DRAWS, [1 - 2.0**-23] * augment.COLOUR_DRAWS])
    changed = augment.POLICIES[name].colour(images, ends).numpy()
    assert np.isfinite(changed).all()
    assert abs(changed[0] - changed[1]).max() > 1
    assert changed.shape == images.shape and changed.dtype == np.float32


def test_colour_jitter_changes_one_thing_at_a_time():
    images = tf.random.stateless_uniform([1, 8, 8, 3], [0, 1], maxval=255.0)
    pixels = images.numpy()
    grey = pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)

    def jittered(*draws):
        return augment.colour_jitter(images, tf.constant([draws])).numpy()

    np.testing.assert_allclose(jittered(0.5, 0.5, 0.5), pixels, rtol=1e-5)
    np.testing.assert_allclose(jittered(1.0, 0.5, 0.5), 1.4 * pixels, rtol=1e-5)
    contrast = grey.mean() + 0.6 * (pixels - grey.mean())
    np.testing.assert_allclose(jittered(0.5, 0.0, 0.5), contrast, rtol=1e-4)
    np.testing.assert_allclose(jittered(0.5, 0.5, 0.0), grey + 0.6 * (pixels - grey), rtol=1e-4)


def test_colour_draws_are_a_function_of_seed_and_step():
    in_graph = tf.function(lambda step: augment.colour_draws(3, step, 64), autograph=False)
    draws = in_graph(tf.constant(7, tf.int64)).numpy()
    np.testing.assert_array_equal(draws, augment.colour_draws(3, 7, 64))
    assert draws.shape == (64, augment.COLOUR_DRAWS) and draws.dtype == np.float32
    assert draws.min() >= 0 and draws.max() < 1 and len(np.unique(draws)) == draws.size
    for other in ((3, 8), (4, 7), (7, 3)):
        assert not np.isin(augment.colour_draws(*other, 64), draws).any()


def test_nothing_random_in_data_has_a_state():
    stateful = re.compile(
        r"tf\.random\.(?!stateless_|experimental\.stateless_)|tf\.image\.random_"
        r"|np\.random\.(?!default_rng|Generator)"
    )
    for path in Path(augment.__file__).parent.glob("*.py"):
        assert not stateful.search(path.read_text()), path
