"""Trains 20 steps on N logical CPU devices: `python -m tests.replicas N FILE.npz`.

With TF_CONFIG in the environment it is one of its workers, with a device each, and N is 1. A
process of its own, because TensorFlow mixes the collectives of two strategies in one.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from engine import averages, checkpoints, cluster, devices, losses, mixing, optimizers
from engine.dropout_seeds import DropoutSeeds
from engine.evaluator import Evaluator
from models import layers, ops, pools
from tests import trainers

BATCH, STEPS, RATE = 24, 20, 0.01
TESTED = 12  # the last of them is filling
METHODS = {
    "objective": losses.Objective(
        l2=5e-4, l1=1e-5, smoothing=0.1, aux_weight=0.3, class_weights=(0.5, 1.5) * 5
    ),
    "clip_norm": 0.5,
    "micro_batch": BATCH // 2,
    "mix": mixing.Mixing(0.2, 1.0),
}


def network():
    """Towers, both norms, an auxiliary head.

    Smooth: where a ReLU is, one rounding in millions flips a unit and moves all gradients.
    """
    images = keras.Input((32, 32, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="normalize")(images)
    x = ops.conv(x, 16, 5, stride=2, name="conv1")
    x = layers.LocalResponseNorm(name="norm1")(keras.layers.Activation("tanh")(x))
    x = ops.conv(pools.pool(x, 3, 2, name="pool1"), 32, 3, groups=2, name="conv2")
    x = keras.layers.Activation("tanh")(layers.BatchNorm(name="norm2")(x))
    aux = keras.layers.GlobalAveragePooling2D(name="aux_pool")(x)
    x = keras.layers.Conv2D(16, 3, strides=2, use_bias=False, name="conv3")(x)
    x = ops.activate(layers.BatchNorm(name="norm3")(x), "gelu", name="gelu3")
    x = keras.layers.Flatten(name="flatten")(x)
    logits = {"logits": ops.logits(x, 10, name="fc"), "aux1": ops.logits(aux, 10, name="aux")}
    return keras.Model(images, logits)


def masks(strategy):
    """What dropout leaves of ones in two draws of one step: bool [2, replicas here, 1000]."""
    with strategy.scope():
        layer = keras.layers.Dropout(0.5, name="dropout")
        step = tf.Variable(3, dtype=tf.int64)
    model = keras.Sequential([layer])
    model(tf.ones([1, 1]))
    DropoutSeeds(model, seed=0, step=step)
    draw = tf.function(lambda: strategy.run(lambda: layer(tf.ones([1000]), training=True)))
    drawn = [strategy.experimental_local_results(draw()) for _ in range(2)]
    return np.array([[mask.numpy() > 0 for mask in each] for each in drawn])


def far_from_zero(strategy):
    """What BatchNorm makes of numbers whose mean is 100,000 times their deviation, and learns."""
    with strategy.scope():
        layer = layers.BatchNorm(name="far", momentum=0.5)
        layer.build([None, 4, 4, 2])
    x = tf.random.stateless_normal([8, 4, 4, 2], [1, 2], mean=1e4, stddev=0.1)
    learn = tf.function(lambda: strategy.run(lambda: layer(x, training=True)))
    for _ in range(40):
        outputs = strategy.experimental_local_results(learn())[0]
    return np.stack([outputs.numpy().std(axis=(0, 1, 2)), layer.moving_variance.numpy()])


def main(count, file):
    workers = cluster.from_environment()
    devices.configure(1, devices=str(count))
    strategy = workers.strategy() if workers.size > 1 else devices.make_strategy()
    replicas = strategy.num_replicas_in_sync
    if replicas != count * workers.size:
        sys.exit(f"{replicas} replicas")
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = network()
        optimizer = optimizers.build("momentum", RATE, 0.9)
    average = averages.Average(strategy, model, 0.9)
    lookahead = averages.Lookahead(strategy, model, 4, STEPS)
    factors = {model.trainable_variables[0].path: 0.5}
    trainer = trainers.build(
        strategy,
        model,
        optimizer,
        batch_size=BATCH,
        seed=0,
        average=average,
        lookahead=lookahead,
        factors=factors,
        **METHODS,
    )
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, [BATCH * STEPS, 8, 8, 3], dtype=np.uint8)
    images = images.repeat(4, axis=1).repeat(4, axis=2)
    labels = generator.integers(0, 10, BATCH * STEPS, dtype=np.int32)
    weights = np.ones(BATCH * STEPS, np.float32)

    def mine(batch, *columns):
        """This worker's part of every batch, in batches of its replicas."""
        parts = [
            column.reshape([-1, workers.size, batch // workers.size, *column.shape[1:]])
            for column in columns
        ]
        flat = [part[:, workers.index].reshape([-1, *part.shape[3:]]) for part in parts]
        return tf.data.Dataset.from_tensor_slices(tuple(flat)).batch(batch // replicas)

    iterator = trainer.iterate(mine(BATCH, images, labels, weights))
    for done in (1, 4, STEPS - 5):
        progress = trainer.train(iterator, [RATE] * done)
    padded = np.array([1] * (TESTED - 1) + [0], np.float32)
    batches = mine(TESTED, images[:TESTED, None], labels[:TESTED], padded)
    confusion = np.zeros([10, 10], np.int64)
    totals = Evaluator(strategy, model).evaluate(batches, confusion)
    copies = (average.variables, lookahead.variables)
    tensors = checkpoints.values(checkpoints.named_variables(model, optimizer, *copies))
    np.savez(
        file,
        examples=progress.totals.examples,
        loss=progress.totals.loss,
        norm=progress.gradient_norm,
        evaluated=totals.examples,
        evaluation_loss=totals.loss,
        confusion=confusion,
        masks=masks(strategy),
        far=far_from_zero(strategy),
        gathered=workers.gathered(strategy, [workers.index, 0.25]),
        **tensors,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
