"""Trains 20 steps on N logical CPU devices: `python -m tests.replicas NETWORK N FILE.npz`.

A process of its own, because TensorFlow mixes the collectives of two strategies in one.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from engine import averages, checkpoints, devices, losses, mixing, optimizers, steps
from models import layers
from tests.conftest import photograph

BATCH, STEPS, RATE = 16, 20, 0.01


def towers():
    """What AlexNet is made of: two towers and local response normalisation."""
    images = keras.Input((32, 32, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="normalize")(images)
    x = layers.conv(x, 16, 5, stride=2, name="conv1")
    x = layers.LocalResponseNorm(name="norm1")(keras.layers.Activation("tanh")(x))
    x = layers.conv(layers.pool(x, 3, 2, name="pool1"), 32, 3, groups=2, name="conv2")
    x = keras.layers.Flatten(name="flatten")(keras.layers.Activation("tanh")(x))
    return keras.Model(images, {"logits": layers.logits(x, 10, name="fc")})


def batch_norm():
    """Smooth: where a ReLU is, one rounding in millions flips a unit and moves all gradients."""
    images = keras.Input((32, 32, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="normalize")(images)
    for index in (1, 2):
        x = keras.layers.Conv2D(16, 3, strides=2, use_bias=False, name=f"conv{index}")(x)
        x = keras.layers.Activation("tanh")(layers.BatchNorm(name=f"norm{index}")(x))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(images, {"logits": keras.layers.Dense(10, name="fc")(x)})


NETWORKS = {"towers": towers, "batch_norm": batch_norm}
METHODS = {
    "objective": losses.Objective(l2=5e-4, l1=1e-5, smoothing=0.1, class_weights=(0.5, 1.5) * 5),
    "clip_norm": 0.5,
    "micro_batch": BATCH // 2,
    "mix": mixing.Mixing(0.2, 1.0),
}


def main(name, replicas, file):
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration() for _ in range(replicas)]
    tf.config.set_logical_device_configuration(cpu, logical)
    strategy = devices.make_strategy()
    if strategy.num_replicas_in_sync != replicas:
        sys.exit(f"{strategy.num_replicas_in_sync} replicas")
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = NETWORKS[name]()
        optimizer = optimizers.build("momentum", RATE, 0.9)
    average = averages.Average(strategy, model, 0.9)
    factors = {model.trainable_variables[0].path: 0.5}
    trainer = steps.Trainer(
        strategy,
        model,
        optimizer,
        batch_size=BATCH,
        seed=0,
        average=average,
        factors=factors,
        **METHODS,
    )
    generator = np.random.default_rng(0)
    size = model.input_shape[1]
    images = np.stack([photograph(seed, size, size) for seed in range(BATCH * STEPS)])
    labels = generator.integers(0, 10, BATCH * STEPS, dtype=np.int32)
    weights = np.ones(BATCH * STEPS, np.float32)
    batches = tf.data.Dataset.from_tensor_slices((images, labels, weights))
    batches = batches.batch(BATCH // replicas)
    iterator = trainer.iterate(batches)
    for count in (1, 4, STEPS - 5):
        progress = trainer.train(iterator, [RATE] * count)
    padded = tf.data.Dataset.from_tensor_slices(
        (images[:12, None], labels[:12], np.array([1] * 11 + [0], np.float32))
    ).batch(12 // replicas)
    totals = steps.Evaluator(strategy, model).evaluate(padded)
    tensors = checkpoints.values(checkpoints.named_variables(model, optimizer, average.variables))
    np.savez(
        file,
        examples=progress.totals.examples,
        loss=progress.totals.loss,
        evaluated=totals.examples,
        evaluation_loss=totals.loss,
        **tensors,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
