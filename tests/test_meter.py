"""Where the time goes: the verdict in staged cases, and what is printed of it."""

import json
import re
import time
from types import SimpleNamespace

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf
import trainers
from conftest import photograph

from data import pipeline
from data.conversion import conversion
from data.images import decode
from data.pipeline import augment, encoded
from data.shards import datasets
from data.sources import sources
from engine import optimizers
from training import meter, progress
from training.log import Log
from training.recipe import Recipe, Running

SECONDS = 0.4
SIZE, BATCH = 32, 16
QUICK = """
import runpy
from training import meter
meter.measure.__defaults__ = (0.1,)
runpy.run_path("train.py", run_name="__main__")
"""


def network(seconds=0.0):
    """One dense layer, and as much waiting as is wanted: a device of any speed."""

    def wait(logits):
        time.sleep(seconds)
        return logits

    class Slow(keras.layers.Layer):
        def call(self, logits):
            slow = tf.numpy_function(wait, [tf.stop_gradient(logits)], tf.float32)
            return logits + 0 * tf.ensure_shape(slow, logits.shape)

    images = keras.Input((SIZE, SIZE, 3), name="images")
    logits = keras.layers.Dense(3, name="fc")(keras.layers.Flatten(name="flatten")(images))
    return keras.Model(images, {"logits": Slow(name="slow")(logits) if seconds else logits})


def training(folder, *, cache="none", storage=None, seconds=0.0):
    """What the meter has to know of a training on the images of a folder."""
    source = sources.open_source(folder, validation_fraction=0.0)
    shards = folder.parent / f"shards-{folder.name}"
    conversion.convert(source, shards, storage or decode.Storage(short_side=SIZE), progress=False)
    options = {"batch_size": BATCH, "seed": 0, "threads": 2}
    dataset, policy = datasets.load(shards), augment.POLICIES["none"]
    trainer = trainers.build(
        tf.distribute.get_strategy(),
        network(seconds),
        optimizers.build("momentum", 0.1, 0.9),
        batch_size=BATCH,
        seed=0,
    )
    return SimpleNamespace(
        dataset=dataset,
        batches=SimpleNamespace(dataset=dataset, policy=policy, cache=cache, size=SIZE),
        network={"image_size": SIZE},
        recipe=Recipe(batch_size=BATCH, seed=0),
        running=Running(threads=2),
        trainer=trainer,
        replicas=1,
        total=10,
        steps_per_epoch=3,
        train_batches=lambda first, end: pipeline.train_batches(
            dataset, policy, **options, size=SIZE, cache=cache, step=first, steps=end
        ),
    )


@pytest.fixture
def images(tmp_path):
    """Writes a folder of 48 square photographs in three classes."""

    def write(side):
        for seed in range(48):
            folder = tmp_path / "images" / f"class_{seed % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(seed).integers(0, 30, (side, side, 3), np.uint8)
            cv2.imwrite(str(folder / f"{seed}.jpg"), photograph(seed, side, side) // 2 + noise)
        return tmp_path / "images"

    return write


@pytest.mark.slow
def test_a_slow_disk(images, monkeypatch):
    read = encoded.Encoded.read

    def throttled(self, window):
        def wait(records):
            time.sleep(0.1)
            return records

        return tf.ensure_shape(tf.numpy_function(wait, [read(self, window)], tf.string), [None])

    monkeypatch.setattr(encoded.Encoded, "read", throttled)
    verdict = meter.measure(training(images(SIZE)), SECONDS)
    assert verdict.bottleneck == "read"
    assert verdict.advice.startswith("--cache=memory: the images are read once")
    assert verdict.stages[meter.ALL].input_wait_fraction > 0.9


@pytest.mark.slow
def test_large_images(images, monkeypatch):
    monkeypatch.setattr("data.pipeline.decoded._AUTO_BYTES", 0)  # too large for the cache
    stored = decode.Storage(short_side=0)
    verdict = meter.measure(training(images(600), storage=stored), SECONDS)
    print(verdict)
    assert verdict.bottleneck == "decode"
    assert "python -m data.convert SOURCE SHARDS --short_side=256" in verdict.advice
    whole = verdict.ceilings["libjpeg-turbo, whole images"]
    assert verdict.stages["decode"].images_per_second < 3 * whole


@pytest.mark.slow
def test_a_slow_network(images):
    verdict = meter.measure(training(images(SIZE), seconds=0.05), SECONDS)
    assert verdict.bottleneck == meter.STEP
    assert "the input could feed" in verdict.advice
    together = verdict.stages[meter.ALL]
    assert together.input_wait_fraction < 0.1
    # Three steps of 0.05 s each: sleeping is the same on every machine.
    assert verdict.epoch_seconds == pytest.approx(3 * 0.05, rel=0.5)
    table = "\n".join(meter.lines(verdict))
    for name in ("read", "decode", "augment", "batch", meter.STEP, meter.ALL):
        assert re.search(rf"^{name} +[\d,]+ +[\d,.]+ █+", table, re.MULTILINE), name
    assert "\nthe bottleneck: train step\n" in table and "\nwhat would help most: " in table


@pytest.mark.slow
def test_tiny_images_that_are_decoded_one_by_one(images, tmp_path):
    verdict = meter.measure(training(images(SIZE)), 2 * SECONDS)
    print(verdict)
    assert verdict.bottleneck in ("read", "decode")  # each about 20 us for an image of a kilobyte
    assert verdict.advice.startswith("--cache=memory: the images are ")
    assert verdict.stages[meter.ALL].input_wait_fraction > 0.2
    folder = images(SIZE).rename(tmp_path / "again")
    cached = meter.measure(training(folder, cache="memory"), SECONDS)
    assert "decode" not in cached.stages


def speeds(**rates):
    return {name.replace("_", " "): meter.Speed(rate, 1e6 / rate) for name, rate in rates.items()}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({"read": 900, "decode": 100, "augment": 95, "batch": 90, "train_step": 200}, "decode"),
        ({"read": 110, "decode": 100, "augment": 100, "batch": 95, "train_step": 200}, "read"),
        ({"read": 900, "decode": 800, "augment": 100, "batch": 95, "train_step": 200}, "augment"),
        ({"read": 900, "augment": 800, "batch": 95, "train_step": 200}, "batch"),
        # What disturbed the measurement of "augment" is not its own: "batch" holds it too.
        ({"read": 100, "decode": 60, "augment": 20, "batch": 50, "train_step": 200}, "read"),
        (
            {"read": 900, "decode": 800, "augment": 300, "batch": 250, "train_step": 200},
            "train step",
        ),
    ],
)
def test_the_bottleneck_is_the_stage_that_adds_most(rates, expected):
    assert meter.bottleneck(speeds(**rates), threads=1) == expected


def test_a_training_that_waits_says_once_what_would_help(images):
    said = []
    waiting = SimpleNamespace(_setup=training(images(SIZE)), say=said.append)
    waiting.meter, waiting._advised = progress.Meter(), False
    for seconds, lines in ((60, 0), (5, 0), (20, 1), (20, 1)):  # the first fills the memory
        waiting.meter.add(100, seconds, 0.3 * seconds)
        Log._advise(waiting)
        assert len(said) == lines
    assert said[0].startswith("30 % of the time is waiting for images; what would help: --cache")
    waiting.meter, waiting._advised = progress.Meter(), False
    for _ in range(2):
        waiting.meter.add(100, 60, 6)
        Log._advise(waiting)
    assert len(said) == 1


@pytest.mark.slow
def test_the_meter_of_a_training_writes_nothing_but_its_verdict(command, tmp_path):
    script = tmp_path / "quick.py"
    script.write_text(QUICK)
    words = ["--data=digits", "--meter", "--batch_size=64", f"--run_dir={tmp_path / 'run'}"]
    done = command(script, *words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {
        "stages", "ceilings", "epoch_seconds", "bottleneck", "advice",
    }  # fmt: skip
    assert not (tmp_path / "run").exists()
