"""Trains a network on JAX: whole epochs in one compiled call, all images in device memory."""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np

import models
from benchmarks.in_memory import augment, averages
from benchmarks.in_memory.images import Images
from engine import optimizers, schedules
from models.tools import graphs

MEASURED = 5000  # images for layers that compute statistics of them

Weights = tuple[list[jax.Array], list[jax.Array]]


class Trained(NamedTuple):
    """A trained network.

    Attributes:
        model: The network with its weights for inference.
        network: Arguments of `models.build`.
        step: Updates done.
        accuracy: Training top-1 accuracy of the last epoch, of varied images, in [0, 1].
    """

    model: keras.Model
    network: dict
    step: int
    accuracy: float


class State(NamedTuple):
    """State of a training.

    Attributes:
        weights: Values of the trainable and of the other variables, in the model's order.
        slots: Values of the optimizer's variables.
        slow: Slow weights, or None.
        average: Moving average of the weights, or None.
    """

    weights: Weights
    slots: list[jax.Array]
    slow: Weights | None
    average: Weights | None


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """Adapts one of our schedules to Keras by a table with the rate of every step."""

    def __init__(self, schedule: schedules.Schedule) -> None:
        """Computes the table."""
        rates = [schedule.rate(step) for step in range(schedule.total_steps)]
        self._rates = np.array(rates, np.float32)

    def __call__(self, step: jax.Array) -> jax.Array:
        """Returns the learning rate of a step."""
        return keras.ops.take(self._rates, step)


def policy(options: argparse.Namespace) -> str:
    """Returns the name of a training's augmentation policy (default: the network's).

    Raises:
        ValueError: If the network's policy is not among `augment.POLICIES`.
    """
    name = options.augment or models.policy(options.model)
    if name not in augment.POLICIES:
        raise ValueError(
            f"{options.model} is trained with --augment={name}, which needs train.py: expected "
            f"--augment={' or '.join(augment.POLICIES)}"
        )
    return name


def train(options: argparse.Namespace, images: Images) -> Trained:
    """Trains a network.

    Args:
        options: Flags, see `flags.parse`.
        images: The images.

    Raises:
        ValueError: If network, flags and images are incompatible.
    """
    varied = augment.POLICIES[policy(options)]
    pixels, labels = images.train
    size, steps = options.batch_size, len(pixels) // options.batch_size
    if not steps:
        raise ValueError(f"--batch_size={size} is more than the {len(pixels)} training images")
    model, network = _network(options, images)
    schedule = _schedule(options, steps)
    optimizer = optimizers.build(options.optimizer, Rates(schedule), options.momentum)
    optimizer.build(model.trainable_variables)
    update = _updates(options, model, optimizer, schedule.total_steps)
    pixels, labels = jnp.asarray(pixels), jnp.asarray(labels)
    shuffling, first = jax.random.split(jax.random.key(options.seed))
    first = jax.random.bernoulli(first, shape=[len(pixels)])  # mirrored in the first epoch

    @jax.jit
    def epoch(state, number):
        def step(state, turn):
            key, places, done = turn
            turned = first[places] ^ (number % 2 == 1)
            batch = augment.vary(varied, pixels[places], turned, key).astype("float32")
            return update(state, batch, labels[places], done)

        order, draws = jax.random.split(jax.random.fold_in(shuffling, number))
        places = jax.random.permutation(order, len(pixels))[: steps * size].reshape([steps, size])
        done = number * steps + jnp.arange(1, steps + 1)
        state, right = jax.lax.scan(step, state, (jax.random.split(draws, steps), places, done))
        return state, right.mean()

    weights = tuple(map(values, kinds(model)))
    slow, average = (weights if on else None for on in (options.lookahead, options.ema))
    state = State(weights, values(optimizer.variables), slow, average)
    for number in range(options.epochs):
        state, accuracy = epoch(state, number)
    for variables, found in zip(kinds(model), state.average or state.weights, strict=True):
        for variable, value in zip(variables, found, strict=True):
            variable.assign(value)
    return Trained(model, network, schedule.total_steps, float(accuracy))


def _network(options: argparse.Namespace, images: Images) -> tuple[keras.Model, dict]:
    """Builds the network with its initial weights; returns also its arguments."""
    if models.aux_weight(options.model):
        raise ValueError(f"{options.model} has auxiliary heads, which need train.py")
    keras.utils.clear_session()  # numbers names from the start, as in a process of its own
    keras.utils.set_random_seed(options.seed)
    pixels, _ = images.train
    colours = pixels.reshape(-1, 3)
    network = {
        "name": options.model,
        "num_classes": len(images.class_names),
        "image_size": pixels.shape[1],
        "mean": colours.mean(0).tolist(),
        "std": colours.std(0).tolist(),
    }
    model = models.build(**network)
    for layer in model.layers:
        if hasattr(layer, "measure"):
            before = keras.Model(model.input, layer.input)
            layer.measure([np.asarray(before(pixels[:MEASURED].astype("float32")))])
    return model, network


def _schedule(options: argparse.Namespace, steps_per_epoch: int) -> schedules.Schedule:
    return schedules.Schedule(
        options.schedule,
        options.learning_rate,
        options.epochs * steps_per_epoch,
        warmup_steps=round(options.warmup_epochs * steps_per_epoch),
        milestones=tuple(map(float, options.milestones)),
        decay=options.decay,
        decay_steps=options.decay_epochs * steps_per_epoch,
        power=options.power,
    )


def _updates(
    options: argparse.Namespace,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    total: int,
) -> Callable:
    """Returns the training step: (state, images, labels, updates done then) -> (state, accuracy).

    Args:
        options: Flags of the training.
        model: The network.
        optimizer: Built optimizer.
        total: Updates in the whole training.
    """
    decays = [options.weight_decay * (len(each.shape) > 1) for each in model.trainable_variables]
    rates = dict.fromkeys(graphs.norm_biases(model), options.norm_bias_rate)
    factors = [rates.get(each.path, 1.0) for each in model.trainable_variables]

    def loss(trainable, others, images, labels):
        heads, others = model.stateless_call(trainable, others, images, training=True)
        logits = heads["logits"]
        targets = jax.nn.one_hot(labels, logits.shape[1])
        targets += options.label_smoothing * (1 / logits.shape[1] - targets)
        entropies = -(targets * jax.nn.log_softmax(logits)).sum(1)
        return entropies.mean(), (others, (logits.argmax(1) == labels).mean())

    def update(state, images, labels, done):
        trainable, others = state.weights
        gradients, (others, right) = jax.grad(loss, has_aux=True)(trainable, others, images, labels)
        gradients = [  # with momentum, scaling the gradient scales the rate
            factor * (gradient + decay * weight)
            for weight, gradient, decay, factor in zip(
                trainable, gradients, decays, factors, strict=True
            )
        ]
        trainable, slots = optimizer.stateless_apply(state.slots, gradients, trainable)
        weights, slow, average = (trainable, others), state.slow, state.average
        if options.lookahead:
            slow, weights = averages.look_ahead(slow, weights, done, options.lookahead, total)
        if options.ema:
            average = averages.update(average, weights, done, options.ema)
        return State(weights, slots, slow, average), right

    return update


def kinds(model: keras.Model) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """Splits the variables for `stateless_call`: trainable and non-trainable ones."""
    return model.trainable_variables, model.non_trainable_variables


def values(variables: list[keras.Variable]) -> list[jax.Array]:
    """Returns the values of variables."""
    return [variable.value for variable in variables]
