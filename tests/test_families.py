"""Networks that differ in kind: train.py trains one, a step trains fewer blocks of the others."""

import numpy as np
import pytest
import reduced
import tensorflow as tf
import trainers

from engine import losses, optimizers


@pytest.mark.slow
def test_train_trains_a_whole_network(tmp_path, finished):
    words = ["--model=mobilenet_025", "--image_size=32", "--batch_size=8", "--max_steps=2"]
    assert finished(tmp_path / "run", *words)[0] == "2"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["dsn", "dpn68", "densenet40_k12", "resnext29_8x64d", "fractalnet21"]
)
def test_two_steps(name):
    model = reduced.build(name, 3)
    before = [variable.numpy() for variable in model.trainable_variables]
    optimizer = optimizers.build("momentum", 0.01, 0.9)
    options = {"batch_size": 4, "objective": losses.Objective(aux_weight=0.3)}
    trainer = trainers.build(tf.distribute.get_strategy(), model, optimizer, **options)
    images = np.random.default_rng(0).integers(0, 256, (8, *model.input_shape[1:]), np.uint8)
    labels, weights = np.arange(8, dtype=np.int32) % 3, np.ones(8, np.float32)
    rows = tf.data.Dataset.from_tensor_slices((images, labels, weights)).batch(4)
    trainer.train(trainer.iterate(rows), [0.01, 0.01])
    changed = [
        (variable.numpy() != value).any()
        for variable, value in zip(model.trainable_variables, before, strict=True)
    ]
    assert np.mean(changed) > 0.9
