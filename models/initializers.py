"""Initial values of kernels: those that several papers share, and the choices of `--init`."""

import functools

import keras

from models import registry
from runtime import randomness

# All but the first two keep the variance of the signal that passes through the kernel.
INITIALIZERS = {
    "normal": functools.partial(keras.initializers.RandomNormal, stddev=0.01),
    "uniform": functools.partial(keras.initializers.RandomUniform, -0.05, 0.05),
    "lecun_normal": keras.initializers.LecunNormal,
    "lecun_uniform": keras.initializers.LecunUniform,
    "glorot_normal": keras.initializers.GlorotNormal,
    "glorot_uniform": keras.initializers.GlorotUniform,
    "he_normal": keras.initializers.HeNormal,
    "he_uniform": keras.initializers.HeUniform,
}


# Each call returns a new initializer: one object used twice gives equal weights to equal shapes.
def he_normal(fan: str = "fan_out"):
    """He et al. (2015), not truncated as `keras.initializers.HeNormal` is."""
    return keras.initializers.VarianceScaling(2.0, fan, "untruncated_normal")


def caffe_xavier():
    """Caffe's "xavier": uniform, with variance 1 / fan-in."""
    return keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")


def torch_uniform():
    """Torch's default for convolutions and dense layers: uniform within 1 / sqrt(fan-in)."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


def initialise(model: keras.Model, kind: str, seed: int):
    """Redraws every kernel of a model; biases and normalisation keep their values.

    Args:
        model: Model whose weights exist.
        kind: One of `INITIALIZERS`.
        seed: Seed of the draws, combined with each kernel's path.

    Raises:
        ValueError: If `kind` is unknown.
    """
    registry.require_one_of("initializer", kind, INITIALIZERS)
    for weight in model.trainable_weights:
        if len(weight.shape) < 2:
            continue
        draw = INITIALIZERS[kind](seed=randomness.named_key(seed, weight.path))
        *window, channels, multiplier = weight.shape
        if "depthwise" in weight.path and multiplier == 1:  # each channel has a kernel of its own
            weight.assign(keras.ops.reshape(draw((*window, 1, channels)), weight.shape))
        else:
            weight.assign(draw(weight.shape))
