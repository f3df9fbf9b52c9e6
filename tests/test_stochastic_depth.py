"""Stochastic depth: which blocks survive, what is left of the others, and testing."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import trainers

import models
from engine import checkpoints, optimizers
from models import stochastic_depth

DEPTHS = {"depths": (2, 2, 2)}
IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")


def test_survival_falls_linearly_to_the_last_block():
    odds = stochastic_depth.linear_decay(54, 0.5)
    assert (odds[0], odds[26], odds[-1]) == pytest.approx((1 - 0.5 / 54, 0.75, 0.5))
    model = models.build("cifar_resnet110_sd", 10, **DEPTHS)
    built = [each.probability for each in model.layers if each.name.endswith("survival")]
    assert built == pytest.approx([11 / 12, 10 / 12, 9 / 12, 8 / 12, 7 / 12, 6 / 12])


@pytest.mark.parametrize("survival", [0.0, 1.0])
def test_a_block_is_the_shortcut_or_the_residual_block(survival):
    model = models.build("cifar_resnet110_sd", 10, depths=(1, 1, 1), survival=survival)
    last = "stage3_block1"
    inner = keras.Model(
        model.input,
        [model.get_layer(f"{last}_{each}").output for each in ("shortcut", "norm2", "relu")],
    )
    statistics = [f"{last}_norm1", f"{last}_norm2"]
    before = [model.get_layer(each).moving_mean.numpy() for each in statistics]
    shortcut, residual, result = (np.asarray(each) for each in inner(IMAGES, training=True))
    assert np.any(residual)
    np.testing.assert_allclose(result, np.maximum(shortcut + survival * residual, 0), atol=1e-5)
    after = [model.get_layer(each).moving_mean.numpy() for each in statistics]
    assert [bool(np.any(a != b)) for a, b in zip(after, before, strict=True)] == [survival == 1] * 2


def test_testing_weighs_the_residual_with_its_probability():
    model = models.build("cifar_resnet110_sd", 10, depths=(1, 1, 1))
    last = "stage2_block1"
    inner = keras.Model(
        model.input,
        [model.get_layer(f"{last}_{each}").output for each in ("shortcut", "norm2", "relu")],
    )
    shortcut, residual, result = (np.asarray(each) for each in inner(IMAGES, training=False))
    expected = np.maximum(shortcut + (1 - 0.5 * 2 / 3) * residual, 0)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_draws_follow_the_seed_generator_and_the_probability():
    layer = stochastic_depth.Survival(0.7, name="survival")
    drawn = []
    for step in range(400):
        layer.seed_generator.next = lambda ordered=True, step=step: np.uint32([7, step])
        drawn.append(float(layer(IMAGES, training=True)[0]))
    assert set(drawn) == {0.0, 1.0} and np.mean(drawn) == pytest.approx(0.7, abs=0.07)
    layer.seed_generator.next = lambda ordered=True: np.uint32([7, 3])
    assert float(layer(IMAGES, training=True)[0]) == drawn[3]


def test_shortcuts_average_where_they_shrink():
    x = np.arange(16, dtype="float32").reshape(1, 4, 4, 1)
    images = keras.Input((4, 4, 1))
    shrunk = stochastic_depth.average_and_pad(images, 3, stride=2, name="block")
    y = np.asarray(keras.Model(images, shrunk)(x))
    np.testing.assert_allclose(y[0, ..., 0], [[2.5, 4.5], [10.5, 12.5]])
    assert y.shape == (1, 2, 2, 3) and not y[..., 1:].any()
    assert stochastic_depth.average_and_pad(images, 1, stride=1, name="same") is images


def test_the_draws_follow_the_clock(tmp_path):
    """Six steps, and three with three more after a checkpoint: the same weights."""

    def made():
        keras.utils.clear_session()  # names begin anew, as in a new process
        keras.utils.set_random_seed(1)
        strategy = tf.distribute.get_strategy()
        model = models.build("cifar_resnet110_sd", 10, image_size=16, depths=(1, 1, 1))
        optimizer = optimizers.build("momentum", 0.1, 0.9)
        trainer = trainers.build(strategy, model, optimizer, batch_size=4, seed=3)
        return trainer, checkpoints.named_variables(model, optimizer)

    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), np.uint8)
    rows = (images, np.arange(24, dtype=np.int32) % 10, np.ones(24, np.float32))
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(4)
    trainer, variables = made()
    trainer.train(trainer.iterate(batches), [0.1] * 6)
    expected = checkpoints.digest(checkpoints.values(variables))
    trainer, variables = made()
    trainer.train(trainer.iterate(batches), [0.1] * 3)
    checkpoints.write(tmp_path / "x.safetensors", checkpoints.values(variables), {})
    trainer, variables = made()
    checkpoints.assign(variables, checkpoints.read(tmp_path / "x.safetensors"))
    trainer.train(trainer.iterate(batches.skip(3)), [0.1] * 3)
    assert checkpoints.digest(checkpoints.values(variables)) == expected
