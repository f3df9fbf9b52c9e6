"""mixup and CutMix against their papers' equations."""

import numpy as np
import pytest
import tensorflow as tf

from engine import mixing
from engine.mixing import Mixing

SIDE = 32


def plan(mix, batch_size=4096, step=0, seed=0):
    return mixing.plan(mix, seed, tf.constant(step, tf.int64), batch_size, SIDE).numpy()


def test_a_plan_is_a_function_of_seed_and_step_and_the_same_for_both_of_a_pair():
    rows = plan(Mixing(0.2, 1.0))
    np.testing.assert_array_equal(plan(Mixing(0.2, 1.0)), rows)
    np.testing.assert_array_equal(rows[::2], rows[1::2])
    for other in (plan(Mixing(0.2, 1.0), step=1), plan(Mixing(0.2, 1.0), seed=1)):
        assert (other != rows).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_shares_are_of_the_beta_distribution(alpha):
    rows = plan(Mixing(mixup=alpha))
    assert (rows[:, :4] == [0, 0, SIDE, SIDE]).all()
    shares = rows[::2, 4]
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_mixup_lays_neighbours_over_each_other():
    images = np.random.default_rng(0).uniform(0, 255, (8, SIDE, SIDE, 3)).astype(np.float32)
    rows = plan(Mixing(mixup=1.0), 8)
    mixed, own = mixing.mixed(tf.constant(images), tf.constant(rows))
    share = (1 - rows[:, 4])[:, None, None, None]
    swapped = images[[1, 0, 3, 2, 5, 4, 7, 6]]
    np.testing.assert_allclose(mixed, share * images + (1 - share) * swapped, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(own, 1 - rows[:, 4], rtol=1e-5)


def test_cutmix_puts_a_rectangle_of_one_into_the_other():
    images = np.random.default_rng(0).uniform(0, 255, (512, SIDE, SIDE, 3)).astype(np.float32)
    rows = plan(Mixing(cutmix=1.0), 512)
    mixed, own = mixing.mixed(tf.constant(images), tf.constant(rows))
    for number in range(512):
        top, left, bottom, right = rows[number, :4].astype(int)
        expected = images[number].copy()
        expected[top:bottom, left:right] = images[number ^ 1][top:bottom, left:right]
        np.testing.assert_allclose(mixed[number], expected, rtol=1e-4, atol=1e-4)
        area = (bottom - top) * (right - left) / SIDE**2
        assert float(own[number]) == pytest.approx(1 - area, abs=1e-6)
    areas = 1 - own.numpy()[::2]
    # E[1 - Beta(1, 1)] is a half; rectangles are cut off at the border.
    assert 0.3 < areas.mean() < 0.5


def test_with_both_half_of_the_pairs_go_each_way():
    rows = plan(Mixing(mixup=1.0, cutmix=1.0))
    assert (rows[:, 4] == 1).mean() == pytest.approx(0.5, abs=0.05)


def test_neighbours_of_labels():
    assert mixing.neighbours(tf.constant([5, 6, 7, 8])).numpy().tolist() == [6, 5, 8, 7]
