"""Training steps of several stacks on one repeated batch: ours, Keras' `fit`, PyTorch's.

Every function returns an endless generator, whose elements have the number of images of a call as
their length. All stacks have the same network, batch, momentum and loss, without weight decay, and
use a GPU if available. Each function imports its own stack, so the others need not be installed.
"""

import dataclasses
import os
from collections.abc import Iterator

from benchmarks.setting import Setting

RATE, MOMENTUM, CLASSES = 1e-3, 0.9, 1000
CALL_SECONDS = 1.0  # approximate length of a call, so that its overhead is negligible


def ours(
    setting: Setting,
    *,
    network: str,
    batch_size: int,
    precision: str,
    deterministic: bool = False,
) -> Iterator[range]:
    """Runs our training step, several per call; `deterministic` chooses TensorFlow's kernels."""
    if deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    return of_a_run(
        setting,
        network=_described(setting, network),
        optimizer="momentum",
        batch_size=batch_size,
        precision=precision,
    )


def of_a_run(
    setting: Setting, *, network: dict, optimizer: str, batch_size: int, precision: str
) -> Iterator[range]:
    """Runs our training step, several per call, with a network described as in run.json."""
    from engine import devices, optimizers
    from engine.gradients import Gradients
    from engine.trainer import Trainer
    from engine.updates import Update

    tf, model, batches = _prepared(setting, network, batch_size, precision)
    optimizer = optimizers.build(optimizer, RATE, MOMENTUM)
    strategy = devices.make_strategy()
    xla = devices.compiles("auto", strategy)
    options = {"batch_size": batch_size, "seed": 0, "xla": xla}
    gradients = Gradients(strategy, model, optimizer.iterations, **options)
    trainer = Trainer(strategy, model, gradients, Update(strategy, model, optimizer, xla=xla))
    iterator = trainer.iterate(batches)
    return _calls(lambda count: trainer.train(iterator, [RATE] * count), batch_size)


def of_flags(setting: Setting, *, words: list[str]) -> Iterator[range]:
    """Runs the training step that flags of train.py describe, on images of ten classes."""
    import models
    import train  # noqa: F401  defines the flags
    from engine import devices
    from runtime import console, flags
    from training import parts
    from training.recipe import Recipe

    console.parse(["train.py", *words])
    recipe = flags.value_of(Recipe)
    size = recipe.image_size or models.image_size(recipe.model)
    network = {"name": recipe.model, "num_classes": 10, "image_size": size}
    return of_a_run(
        dataclasses.replace(setting, size=size),
        network=network | parts.network_options(recipe),
        optimizer=recipe.optimizer,
        batch_size=recipe.batch_size or parts.BATCH_SIZE,
        precision=devices.precision_here(recipe.precision),
    )


def keras_fit(
    setting: Setting, *, network: str, batch_size: int, precision: str
) -> Iterator[range]:
    """Trains the same network from Keras' own layers only, with `compile` and `fit`."""
    import keras

    from models import layers

    layers.BatchNorm.call = keras.layers.BatchNormalization.call
    layers.GroupedConv2D.convolution_op = keras.layers.Conv2D.convolution_op
    _, model, batches = _prepared(setting, _described(setting, network), batch_size, precision)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(RATE, MOMENTUM), loss={"logits": loss})
    batches = batches.map(lambda images, labels, weights: (images, {"logits": labels}))

    def fit(count: int) -> None:
        model.fit(batches, steps_per_epoch=count, verbose=0)

    return _calls(fit, batch_size)


def jax_step(setting: Setting, *, network: str, batch_size: int, precision: str) -> Iterator[range]:
    """Runs a compiled JAX step with our network, which is our only code that runs on JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # shares the GPU with other stacks
    import jax
    import keras

    import models

    keras.config.set_dtype_policy(precision)
    model = models.build(**_described(setting, network))
    optimizer = keras.optimizers.SGD(RATE, MOMENTUM)
    optimizer.build(model.trainable_variables)
    keys = jax.random.split(jax.random.key(0))
    shape = (batch_size, setting.size, setting.size, 3)
    images = jax.random.randint(keys[0], shape, 0, 256, "uint8")
    labels = jax.random.randint(keys[1], (batch_size,), 0, CLASSES)

    def loss(trainable, others):
        pixels = images.astype("float32")
        heads, others = model.stateless_call(trainable, others, pixels, training=True)
        chosen = jax.nn.log_softmax(heads["logits"])[jax.numpy.arange(batch_size), labels]
        return -chosen.mean(), others

    def step(_, state):
        trainable, others, slots = state
        gradients, others = jax.grad(loss, has_aux=True)(trainable, others)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return trainable, others, slots

    steps = jax.jit(lambda state, count: jax.lax.fori_loop(0, count, step, state), donate_argnums=0)
    kinds = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = tuple([variable.value for variable in variables] for variables in kinds)

    def train(count: int) -> None:
        nonlocal state
        state = jax.block_until_ready(steps(state, count))

    return _calls(train, batch_size)


def torch_step(
    setting: Setting, *, network: str, batch_size: int, precision: str, compiled: bool = False
) -> Iterator[range]:
    """Runs PyTorch's training step, channels last, with autocast for bfloat16."""
    import torch

    from benchmarks.peers import networks

    torch.set_num_threads(setting.threads)
    torch.backends.cudnn.benchmark = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = networks.NETWORKS[network]().to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    images = torch.randn(batch_size, 3, setting.size, setting.size, device=device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch_size,), device=device)
    forward = torch.compile(model) if compiled else model

    def train(count: int) -> None:
        for _ in range(count):
            with torch.autocast(device, torch.bfloat16, enabled=precision == "mixed_bfloat16"):
                loss = torch.nn.functional.cross_entropy(forward(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return _calls(train, batch_size)


def multiply_adds(network: str, size: int) -> int:
    """Counts the multiply-adds per image on the CPU, to leave GPU memory to the measured stacks."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import models
    from models.tools import graphs

    return graphs.multiply_adds(models.build(network, CLASSES, image_size=size))


def _described(setting, network):
    return {"name": network, "num_classes": CLASSES, "image_size": setting.size}


def _prepared(setting, network, batch_size, precision):
    """Returns TensorFlow, the network, and a repeated batch (images, labels, weights)."""
    import tensorflow as tf

    import models
    from engine import devices

    devices.configure(setting.threads)
    devices.set_precision(precision)
    model = models.build(**network)
    shape = [batch_size, setting.size, setting.size, 3]
    images = tf.cast(tf.random.stateless_uniform(shape, [0, 0], 0, 256, tf.int32), tf.uint8)
    classes = network["num_classes"]
    labels = tf.random.stateless_uniform([batch_size], [0, 1], 0, classes, tf.int32)
    batch = (images, labels, tf.ones([batch_size]))
    return tf, model, tf.data.Dataset.from_tensors(batch).cache().repeat()


def _calls(train, batch_size):
    """Yields calls of about `CALL_SECONDS` each, after two warm-up calls."""
    import time

    train(1)
    began = time.perf_counter()
    train(2)
    each = (time.perf_counter() - began) / 2
    count = max(1, min(64, round(CALL_SECONDS / each)))
    while True:
        train(count)
        yield range(count * batch_size)
