"""The network of the fastest CIFAR-10 trainings, and what it needs."""

import keras
import numpy as np
import pytest

import models
from engine import checkpoints
from models import airbench
from models.tools import graphs

WORDS = ["--model=airbench94", "--batch_size=8", "--learning_rate=0.05", "--schedule=constant"]


@pytest.fixture(autouse=True)
def session():
    yield
    keras.utils.clear_session()


def smooth_images(count):
    """Neighbouring pixels and channels are alike, as in photographs."""
    images = np.random.default_rng(0).normal(size=[count, 20, 20, 3])
    images = images + np.roll(images, 1, axis=2) + images.mean(axis=3, keepdims=True)
    return images.astype("float32")


def test_whitened_patches_are_white():
    layer = models.build("airbench94", 10).get_layer("whiten")
    images = smooth_images(400)
    layer.measure([images[:150], images[150:]])
    found = np.array(layer(images)).reshape([-1, 24])
    np.testing.assert_allclose(found[:, :12], -found[:, 12:], atol=1e-5)
    np.testing.assert_allclose(found[:, :12].T @ found[:, :12] / len(found), np.eye(12), atol=5e-3)
    assert [weight.path for weight in layer.trainable_weights] == ["whiten/bias"]


@pytest.mark.parametrize("shape", [(3, 3, 4, 6), (3, 3, 6, 4)])
def test_the_first_filters_pass_their_channel_on(shape):
    kernel = np.array(airbench.Identity()(shape))
    images = np.random.default_rng(0).normal(size=[2, 5, 5, shape[2]]).astype("float32")
    found = np.array(keras.ops.conv(images, kernel, padding="same"))
    count = min(shape[2:])
    np.testing.assert_array_equal(found[..., :count], images[..., :count])
    assert np.abs(kernel[..., count:]).min(initial=1) > 0


def weights(run_dir):
    return checkpoints.read(run_dir / "checkpoints" / "best.safetensors").tensors


@pytest.mark.slow
def test_whitening_stays_and_biases_of_batch_norm_learn_faster(photographs, tmp_path, finished):
    """Whitening comes from the images and stays; --norm_bias_rate multiplies the biases' rate."""
    words = [f"--data={photographs}", *WORDS]
    finished(tmp_path / "usual", *words, "--max_steps=1")
    finished(tmp_path / "fast", *words, "--max_steps=1", "--norm_bias_rate=64")
    finished(tmp_path / "other", *words, "--max_steps=2", "--seed=5")
    usual, fast, other = (weights(tmp_path / name) for name in ("usual", "fast", "other"))
    np.testing.assert_array_equal(usual["model/whiten/kernel"], other["model/whiten/kernel"])
    assert np.abs(usual["model/whiten/bias"] - other["model/whiten/bias"]).max() > 0
    biases = [f"model/{path}" for path in graphs.norm_biases(models.build("airbench94", 3))]
    assert len(biases) == 6
    for name in biases:
        np.testing.assert_allclose(fast[name], 64 * usual[name], rtol=1e-4)  # they started at 0
    np.testing.assert_array_equal(fast["model/fc/kernel"], usual["model/fc/kernel"])
