"""Another backend: JAX trains in memory as train.py does, and builds and traces all families."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import keras
import numpy as np
import pytest
import reduced
import tensorflow as tf

import models
from benchmarks import shipped
from benchmarks.in_memory import augment, averages, flags, images, training
from data.pipeline import augment as ours
from data.pipeline import pixels, views
from engine import averages as engine_averages
from engine import checkpoints, schedules
from models import layers
from training import parts
from training.recipe import Recipe

jax.config.update("jax_platforms", "cpu")  # leaves a GPU's memory to TensorFlow

TESTS = Path(__file__).parent
RECIPES = TESTS.parent / "recipes"
PIXELS = np.random.default_rng(0).integers(0, 256, [4, 32, 32, 3], np.uint8)
# Networks with most of `models.layers` run, as the trained one does; the others are traced, since
# compiling takes minutes.
RUN = ["alexnet_one_gpu", "cifar_resnet20"]
SCRIPT = f"""
import runpy, sys

class Missing:  # TensorFlow, as if it were not installed
    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            raise ModuleNotFoundError("no TensorFlow")

sys.meta_path.insert(0, Missing())
runpy.run_path("{TESTS.parent}/benchmarks/on_jax.py", run_name="__main__")  # sets the backend
print("trained", flush=True)
sys.path.append("{TESTS}")
import functools, jax, keras, numpy as np, pathlib, reduced
from benchmarks.in_memory import images
from engine import checkpoints
import models

jax.config.update("jax_disable_most_optimizations", True)

data, output = map(pathlib.Path, sys.argv[1:3])
network = checkpoints.rebuild(checkpoints.read(output / "0.safetensors"), models.build)
pixels, _ = images.read(data).test
np.save(output / "logits.npy", network(pixels.astype("float32"))["logits"])

def values(variables):
    if name in {RUN}:
        return [variable.value for variable in variables]
    return [jax.ShapeDtypeStruct(variable.shape, variable.dtype) for variable in variables]

for name in reduced.CHEAPEST:
    with keras.StatelessScope(initialize_variables=name in {RUN + ["airbench94"]}):
        model = reduced.build(name, 3)
    shape = (2, *model.input_shape[1:])
    images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
    states = [values(model.trainable_variables), values(model.non_trainable_variables)]
    for training in (False, True):
        call = functools.partial(model.stateless_call, training=training)
        run = jax.jit(call) if name in {RUN} else functools.partial(jax.eval_shape, call)
        logits = run(*states, images)[0]["logits"]
        assert logits.shape == (2, 3) and logits.dtype == "float32", name
        assert name not in {RUN} or np.isfinite(logits).all(), name
    print(keras.backend.backend(), name, flush=True)
"""


def coloured(root):
    """Two classes of 32 x 32 images in train/CLASS and test/CLASS: bluish and greenish."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 4)):
        for channel, name in enumerate(("blue", "green")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = draws.integers(0, 100, [32, 32, 3], np.uint8)
                image[..., channel] += 150
                cv2.imwrite(str(folder / f"{number}.png"), image)
    return root


@pytest.mark.parametrize("name", augment.POLICIES)
def test_images_are_varied_as_train_py_does(name):
    policy, theirs = augment.POLICIES[name], ours.POLICIES[name]
    assert not (theirs.warp or theirs.vary or theirs.colour)
    assert policy[1:] == (theirs.mirror, theirs.alternates, theirs.reflects)
    ends = tf.constant([[0.0] * ours.GEOMETRY_DRAWS, [1 - 2.0**-23] * ours.GEOMETRY_DRAWS])
    sides = tf.constant([32, 32])
    (low, *_), (high, *_) = theirs.window(sides, sides, 32, ends).numpy()
    places = range(low, high + 1)
    grid = np.array([(top, left, 32, 32) for top in places for left in places], np.int32)
    possible = {
        mirrored: pixels.crop(
            PIXELS,
            np.stack([grid] * len(PIXELS)),
            np.full([len(PIXELS), len(grid)], mirrored),
            32,
            reflects=theirs.reflects,
        )
        for mirrored in (False, True)
    }
    seen = set()
    for number in range(16):
        turned = np.random.default_rng(number).random(len(PIXELS)) < 0.5
        varied = np.asarray(augment.vary(policy, PIXELS, turned, jax.random.key(number)))
        for image, result in enumerate(varied):
            found = [
                (mirrored, place)
                for mirrored, crops in possible.items()
                for place in np.flatnonzero((crops[image] == result).all((1, 2, 3)))
            ]
            assert len(found) == 1
            assert not policy.alternates or found[0][0] == turned[image]
            seen.add(found[0])
    assert {mirrored for mirrored, _ in seen} == {False, policy.mirror}
    assert len({place for _, place in seen}) >= min(len(grid), 15)


@pytest.mark.parametrize("count", augment.VIEWS)
def test_views_are_those_of_test_py(count):
    weights = [augment.VIEWS[count][augment.View(v.moved, v.mirrored)] for v in views.VIEWS[count]]
    assert weights == views.weights(count)
    windows = views.windows(tf.fill([4], 32), tf.fill([4], 32), 32, count).numpy()
    mirrored = np.tile(views.mirrored(count).numpy(), [4, 1])
    for number, view in enumerate(views.VIEWS[count]):
        which = slice(number, number + 1)
        expected = pixels.crop(PIXELS, windows[:, which], mirrored[:, which], 32)[:, 0]
        seen = augment.seen(augment.View(view.moved, view.mirrored), PIXELS)
        np.testing.assert_array_equal(seen, expected)


def test_averages_are_those_of_the_engine():
    """Over five steps with other weights each, of which lookahead changes three."""
    total, strategy, draws = 5, tf.distribute.get_strategy(), np.random.default_rng(0)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.BatchNorm()(keras.layers.Dense(2)(inputs)))
    lookahead = engine_averages.Lookahead(strategy, model, 2, total)
    average = engine_averages.Average(strategy, model, 0.4)
    start = {weight.path: weight.numpy() for weight in model.weights}
    slow = mean = {**start, "seed": np.uint32(7)}
    for done in range(1, total + 1):
        weights = {"seed": np.uint32(7 + done)}
        for weight in model.weights:
            weight.assign(draws.normal(size=weight.shape))
            weights[weight.path] = weight.numpy()
        for each in (lookahead, average):
            each.update(tf.constant(done))
        slow, weights = averages.look_ahead(slow, jax.tree.map(np.asarray, weights), done, 2, total)
        mean = averages.update(mean, weights, done, 0.4)
        assert slow["seed"] == weights["seed"] == mean["seed"] == 7 + done
        for weight in model.weights:
            path = weight.path
            np.testing.assert_allclose(weights[path], weight.numpy(), atol=1e-6)
            np.testing.assert_allclose(slow[path], lookahead.variables[path].numpy(), atol=1e-6)
            np.testing.assert_allclose(mean[path], average.variables[path].numpy(), atol=1e-6)


def test_flags_are_those_of_train_py():
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    defaults |= {"model": "cifar_resnet20", "batch_size": parts.BATCH_SIZE}
    defaults["milestones"] = Recipe().milestones
    for name, options in flags.FLAGS.items():
        assert options.get("required") or options.get("default") == defaults[name], name


@pytest.mark.parametrize("name", ["cifar_fast", "cifar_resnet20", "cifar_preresnet110"])
def test_recipes_are_taken_with_their_schedule_and_policy(name):
    options = flags.parse(f"@{RECIPES / name}.flags --augment=none")
    assert training.policy(options) == "none"
    options = flags.parse(f"@{RECIPES / name}.flags")
    assert training.policy(options) == models.policy(options.model)
    given = dict.fromkeys(("schedule", "milestones", "decay", "decay_epochs", "power"))
    given |= {"learning_rate": None, "epochs": None, "warmup_epochs": None}
    recipe = Recipe(**{name: getattr(options, name) for name in given})
    found, expected = training._schedule(options, 10), parts.schedule(recipe, 10)
    assert found == dataclasses.replace(expected, plateau=schedules.Plateau())


USUAL = "--epochs=1 --learning_rate=0.1 --schedule=triangle"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--lookahead=0", "--lookahead: expected 1 to inf, received 0"),
        ("--ema=1", "--ema: expected 0 to 0.999999, received 1"),
        ("--epochs=many", "--epochs: invalid int value: 'many'"),
        ("--milestones=0.5,2", "--milestones: invalid fractions of --epochs value: '0.5,2'"),
        ("--schedule=plateau", "invalid choice: 'plateau'"),
        ("--mixup=1", "unrecognized arguments: --mixup=1"),
    ],
)
def test_wrong_flags_are_named(words, message, capsys):
    with pytest.raises(SystemExit):
        flags.parse(f"{USUAL} {words}")
    assert message in capsys.readouterr().err


def test_what_it_cannot_train_is_named(tmp_path):
    with pytest.raises(ValueError, match="alexnet is trained with --augment=alexnet, which needs"):
        training.policy(flags.parse(f"{USUAL} --model=alexnet"))
    data = images.read(coloured(tmp_path / "data"))
    with pytest.raises(ValueError, match="--batch_size=9 is more than the 8 training images"):
        training.train(flags.parse(f"{USUAL} --batch_size=9"), data)
    cv2.imwrite(str(tmp_path / "data/test/blue/0.png"), np.zeros([32, 31, 3], np.uint8))
    with pytest.raises(ValueError, match="0.png: expected 32 x 32 pixels, received 31 x 32"):
        images.read(tmp_path / "data")
    shutil.rmtree(tmp_path / "data/test")
    with pytest.raises(FileNotFoundError, match="test: no such folder"):
        images.read(tmp_path / "data")


@pytest.mark.slow
def test_training_in_memory_and_every_family(tmp_path, command):
    recipe, script = tmp_path / "short.flags", tmp_path / "script.py"
    recipe.write_text("# of nobody's paper\n--epochs=3\n--schedule=triangle\n--lookahead=2\n")
    script.write_text(SCRIPT)
    data, output = coloured(tmp_path / "data"), tmp_path / "out"
    words = "--model=airbench94 --learning_rate=0.1 --batch_size=4 --norm_bias_rate=2 --ema=0.5"
    result = subprocess.run(
        [sys.executable, script, data, output, f"{words} @{recipe}", "--precision=float32"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    (found,) = json.loads((output / "on_jax.json").read_text())["trainings"]
    assert found["training top-1"] == 100
    assert found["test top-1 by views"]["1"] >= 75
    families = result.stdout.partition("trained\n")[2].splitlines()
    assert families == [f"jax {name}" for name in reduced.CHEAPEST]
    check_file(output, data, found["test top-1 by views"], command)


def check_file(output, data, accuracies, command):
    """The file is a checkpoint of the same network, for test.py with and without --data."""
    file = output / "0.safetensors"
    network = checkpoints.rebuild(checkpoints.read(file), models.build)
    batch, _ = images.read(data).test
    logits = network(batch.astype("float32"), training=False)["logits"]
    np.testing.assert_allclose(logits, np.load(output / "logits.npy"), rtol=1e-3, atol=1e-4)
    for words, count in (((file,), "1"), ((file, "--crops=6", f"--data={data}"), "6")):
        done = command("test.py", *words, "--split=test")
        assert done.returncode == 0, done.stderr
        assert f"top-1 {accuracies[count]:.2f} %" in done.stdout
    shipped.copy(checkpoints.read(file), output / "copy.safetensors", trains=False)
    assert str(output.parent) not in json.dumps(checkpoints.read(output / "copy.safetensors").about)
