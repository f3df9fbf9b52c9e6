r"""Trains networks for 32 pixels on JAX, with all images in device memory, in minutes on a GPU.

    python benchmarks/on_jax.py CIFAR10 FOLDER @recipes/cifar_fast.flags \
        "--model=cifar_resnet20 --epochs=150 --batch_size=256 --optimizer=nesterov \
         --learning_rate=0.4 --weight_decay=5e-4 --schedule=one_cycle"

CIFAR10 has the folders train/CLASS and test/CLASS. A training is given by flags of train.py, or by
`@` and a recipe's file; `FLAGS` lists the supported ones. Networks, schedules, updates and the
augmentation `cifar` are the same as in train.py; shuffling and random draws are JAX's own.

The test accuracy is printed and written to FOLDER/on_jax.json: with one view, with two (mirrored),
and with six (both also shifted by a pixel along the diagonal, as in arXiv:2404.00498, but of equal
weight; `test.py --crops=6` has the paper's weights, but no reflected borders). The network's
weights go to FOLDER, for Keras' `load_weights` on any backend.
"""

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

os.environ["KERAS_BACKEND"] = "jax"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import jax
import numpy as np

from runtime import console

with console.quiet_import():
    import keras

    import models
    from benchmarks import tables
    from data.images import examples
    from data.images.names import natural_order
    from data.sources import folders
    from engine import optimizers, schedules
    from models.tools import graphs

PADDING = 4  # pixels on each side
BATCH = 500  # images per batch in testing
MEASURED = 5000  # images for layers that compute statistics of them
VIEWS = [(shift, mirrored) for shift in (0, -1, 1) for mirrored in (False, True)]
REPORTED = (1, 2, 6)  # numbers of views to average, from the first one on


class Flags(argparse.ArgumentParser):
    """Parser of a training's flags, also from files with comments after #."""

    def convert_arg_line_to_args(self, line: str) -> list[str]:
        """Splits a line of a file into flags."""
        return shlex.split(line, comments=True)


FLAGS = Flags("a training", fromfile_prefix_chars="@", allow_abbrev=False)
FLAGS.add_argument("--model", default="cifar_resnet20")
FLAGS.add_argument("--epochs", type=int, required=True)
FLAGS.add_argument("--batch_size", type=int, default=128)
FLAGS.add_argument("--optimizer", choices=("momentum", "nesterov"), default="momentum")
FLAGS.add_argument("--learning_rate", type=float, required=True)
FLAGS.add_argument("--momentum", type=float, default=0.9)
FLAGS.add_argument("--weight_decay", type=float, default=5e-4)
FLAGS.add_argument("--norm_bias_rate", type=float, default=1.0)
FLAGS.add_argument("--label_smoothing", type=float, default=0.0)
FLAGS.add_argument("--schedule", choices=("step", "cosine", "one_cycle", "constant"), required=True)
FLAGS.add_argument("--milestones", default="0.5,0.75")
FLAGS.add_argument("--seed", type=int, default=0)


class State(NamedTuple):
    """State of a training step: values of variables, in the order of the model's variables."""

    trainable: list[jax.Array]
    others: list[jax.Array]
    slots: list[jax.Array]


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """Adapts one of our schedules to Keras by a table with the rate of every step."""

    def __init__(self, schedule: schedules.Schedule) -> None:
        """Computes the table."""
        rates = [schedule.rate(step) for step in range(schedule.total_steps)]
        self._rates = np.array(rates, np.float32)

    def __call__(self, step: jax.Array) -> jax.Array:
        """Returns the learning rate of a step."""
        return keras.ops.take(self._rates, step)


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads class folders as images, uint8 [N, 32, 32, 3] in RGB, and labels, int32 [N].

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If it holds no images, or a file is not an image of 32 x 32 pixels.
    """
    listing = folders.list_class_folders(folder)
    found = examples.labelled(listing, sorted(listing, key=natural_order), folder.name)
    if not found:
        raise ValueError(f"{folder} holds no class folders with images")
    images = [cv2.imread(example.path, cv2.IMREAD_COLOR_RGB) for example in found]
    for image, example in zip(images, found, strict=True):
        if image is None or image.shape != (32, 32, 3):
            raise ValueError(f"{example.path} is no image of 32 x 32 pixels")
    return np.stack(images), np.array([example.label for example in found], np.int32)


def varied(images: jax.Array, key: jax.Array) -> jax.Array:
    """Augments like `cifar`: random crops after padding with zeros, half of them mirrored."""
    moves, mirrors = jax.random.split(key)
    corners = jax.random.randint(moves, [len(images), 2], 0, 2 * PADDING + 1)
    mirrored = jax.random.bernoulli(mirrors, shape=[len(images), 1, 1, 1])
    beside = (PADDING, PADDING)
    padded = jax.numpy.pad(images, [(0, 0), beside, beside, (0, 0)])

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

    windows = jax.vmap(cut)(padded, corners)
    return jax.numpy.where(mirrored, windows[:, :, ::-1], windows)


def build(options: argparse.Namespace, images: np.ndarray, classes: int) -> keras.Model:
    """Builds the network of a training with its initial weights."""
    keras.utils.set_random_seed(options.seed)
    pixels = images.reshape(-1, 3)
    model = models.build(options.model, classes, mean=pixels.mean(0), std=pixels.std(0))
    for layer in model.layers:
        if hasattr(layer, "measure"):
            before = keras.Model(model.input, layer.input)
            layer.measure([np.asarray(before(images[:MEASURED].astype("float32")))])
    return model


def updates(
    options: argparse.Namespace,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    classes: int,
) -> Callable:
    """Returns the training step: (state, images, labels) -> (state, accuracy)."""
    decays = [options.weight_decay * (len(each.shape) > 1) for each in model.trainable_variables]
    rates = dict.fromkeys(graphs.norm_biases(model), options.norm_bias_rate)
    factors = [rates.get(each.path, 1.0) for each in model.trainable_variables]

    def loss(trainable, others, images, labels):
        heads, others = model.stateless_call(trainable, others, images, training=True)
        logits, targets = heads["logits"], jax.nn.one_hot(labels, classes)
        targets += options.label_smoothing * (1 / classes - targets)
        entropies = -(targets * jax.nn.log_softmax(logits)).sum(1)
        return entropies.mean(), (others, (logits.argmax(1) == labels).mean())

    def update(state, images, labels):
        gradients, (others, right) = jax.grad(loss, has_aux=True)(
            state.trainable, state.others, images, labels
        )
        columns = (state.trainable, gradients, decays, factors)
        gradients = [  # with momentum, scaling the gradient scales the rate
            factor * (gradient + decay * weight)
            for weight, gradient, decay, factor in zip(*columns, strict=True)
        ]
        trainable, slots = optimizer.stateless_apply(state.slots, gradients, state.trainable)
        return State(trainable, others, slots), right

    return update


def train(
    options: argparse.Namespace, images: np.ndarray, labels: np.ndarray
) -> tuple[keras.Model, float]:
    """Trains a network; returns it and the training accuracy of the last epoch, a fraction."""
    classes = int(labels.max()) + 1
    size, steps = options.batch_size, len(images) // options.batch_size
    schedule = schedules.Schedule(
        options.schedule,
        options.learning_rate,
        steps * options.epochs,
        milestones=tuple(map(float, options.milestones.split(","))),
    )
    model = build(options, images, classes)
    optimizer = optimizers.build(options.optimizer, Rates(schedule), options.momentum)
    optimizer.build(model.trainable_variables)
    update = updates(options, model, optimizer, classes)
    pixels, answers = jax.numpy.asarray(images), jax.numpy.asarray(labels)

    @jax.jit
    def epoch(state, key):
        def step(state, turn):
            key, places = turn
            batch = varied(pixels[places], key).astype("float32")
            return update(state, batch, answers[places])

        order, draws = jax.random.split(key)
        places = jax.random.permutation(order, len(images))[: steps * size].reshape([steps, size])
        state, right = jax.lax.scan(step, state, (jax.random.split(draws, steps), places))
        return state, right.mean()

    state = State(*map(values, (*kinds(model), optimizer.variables)))
    for number in range(options.epochs):
        key = jax.random.fold_in(jax.random.key(options.seed), number)
        state, accuracy = epoch(state, key)
    for variables, found in zip(kinds(model), (state.trainable, state.others), strict=True):
        for variable, value in zip(variables, found, strict=True):
            variable.assign(value)
    return model, float(accuracy)


def kinds(model: keras.Model) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """Splits the variables for `stateless_call`: trainable and non-trainable ones."""
    return model.trainable_variables, model.non_trainable_variables


def values(variables: list[keras.Variable]) -> list[jax.Array]:
    """Returns the values of variables."""
    return [variable.value for variable in variables]


def test(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Returns top-1 accuracies in %, by the number of views averaged."""

    @jax.jit
    def probabilities(trainable, others, batch):
        return jax.nn.softmax(model.stateless_call(trainable, others, batch)[0]["logits"])

    weights = [values(variables) for variables in kinds(model)]
    around = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)], "reflect").astype("float32")
    sums, found = 0.0, {}  # sum of the probabilities over the views so far
    for count, (shift, mirrored) in enumerate(VIEWS, 1):
        view = around[:, 1 + shift : 33 + shift, 1 + shift : 33 + shift]
        view = view[:, :, ::-1] if mirrored else view
        parts = [view[start : start + BATCH] for start in range(0, len(view), BATCH)]
        sums += np.concatenate([probabilities(*weights, part) for part in parts])
        found[count] = 100 * float((sums.argmax(1) == labels).mean())
    return {count: found[count] for count in REPORTED}


def main(argv: list[str] | None = None) -> None:
    """Parses the command line, trains and tests."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", type=Path, help="folder of train/CLASS and test/CLASS")
    parser.add_argument("output", type=Path, help="folder for weights and accuracies")
    parser.add_argument("trainings", nargs="+", help="flags of train.py, or @FILE")
    parser.add_argument("--precision", default="mixed_bfloat16", help="or float32")
    options = parser.parse_args(argv)
    keras.config.set_dtype_policy(options.precision)
    options.output.mkdir(parents=True, exist_ok=True)
    report = {"machine": tables.machine(), "precision": options.precision, "trainings": []}
    with console.user_errors():
        images, tests = read(options.data / "train"), read(options.data / "test")
        for number, words in enumerate(options.trainings):
            began = time.perf_counter()
            model, accuracy = train(FLAGS.parse_args(shlex.split(words)), *images)
            seconds = time.perf_counter() - began
            found = {"training": words, "seconds": seconds, "training top-1": 100 * accuracy}
            found["test top-1 by views"] = test(model, *tests)
            report["trainings"].append(found)
            print(json.dumps(found), flush=True)
            model.save_weights(options.output / f"{number}.weights.h5")
            (options.output / "on_jax.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
