import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import losses


def test_cross_entropy_is_a_weighted_sum():
    logits = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    labels, weights = np.array([1, 0, 3]), np.array([1, 0, 2], np.float32)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -(weights * log_probabilities[np.arange(3), labels]).sum()
    assert float(losses.cross_entropy(logits, labels, weights)) == pytest.approx(expected, rel=1e-5)


def test_l2_gradient_is_the_decay_times_the_kernel_and_spares_biases():
    kernel, bias = keras.Variable([[1.0, -2.0]]), keras.Variable([5.0])
    with tf.GradientTape() as tape:
        loss = losses.l2([kernel, bias], 0.1)
    of_kernel, of_bias = tape.gradient(loss, [kernel.value, bias.value])
    np.testing.assert_allclose(of_kernel, [[0.1, -0.2]])
    assert of_bias is None
