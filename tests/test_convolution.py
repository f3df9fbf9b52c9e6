"""Convolution as a product of matrices is TensorFlow's convolution, forward and backward."""

import numpy as np
import pytest

from benchmarks import claims, convolution


@pytest.mark.parametrize("name", convolution.CASES)
def test_it_is_tensorflows(name):
    found = convolution.differences(convolution.CASES[name])
    assert len(found) == 3 and max(found.values()) < 1e-5


def test_the_gradients_by_differences():
    """In float64, whatever TensorFlow says."""
    random = np.random.default_rng(0)
    images, kernel = random.normal(size=(1, 5, 5, 2)), random.normal(size=(3, 3, 2, 2))
    weights = random.normal(size=(1, 3, 3, 2))
    how = {"stride": 2, "padding": 1}

    def loss():
        return (convolution.forward(images, kernel, **how) * weights).sum()

    gradients = convolution.backward(images, kernel, weights, **how)
    for array, gradient in zip((images, kernel), gradients, strict=True):
        for place in ((0, 0, 0, 0), (0, 2, 1, 1)):
            before, step = loss(), 1e-6
            array[place] += step
            slope = (loss() - before) / step
            array[place] -= step
            assert slope == pytest.approx(gradient[place], abs=1e-4)


def test_counts_of_the_claims():
    from models.tools import graphs

    small = claims.chain(28, 192, claims.conv(16, 1), claims.conv(32, 5))
    assert round(graphs.multiply_adds(small) / 1e6, 1) == 12.4
    assert "62,006" in claims.sizes() and "659,272" in claims.sizes()
