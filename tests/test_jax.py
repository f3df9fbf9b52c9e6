"""Every family on another backend: JAX builds and traces all, runs three, and trains in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import reduced

import models

# Networks with most of `models.layers` run; the others are traced, since compiling takes minutes.
RUN = ["alexnet_one_gpu", "airbench94", "cifar_resnet20"]
SCRIPT = f"""
import sys
sys.path.append("tests")
import functools, jax, keras, numpy as np, reduced

def values(variables):
    if name in {RUN}:
        return [variable.value for variable in variables]
    return [jax.ShapeDtypeStruct(variable.shape, variable.dtype) for variable in variables]

for name in reduced.CHEAPEST:
    with keras.StatelessScope(initialize_variables=name in {RUN}):
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


@pytest.mark.slow
def test_every_family_runs():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=Path(models.__file__).parent.parent,
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split("\n")[:-1] == [f"jax {name}" for name in reduced.CHEAPEST]


@pytest.fixture
def coloured(tmp_path):
    """Two classes of 32 x 32 images in train/CLASS and test/CLASS: bluish and greenish."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 4)):
        for channel, name in enumerate(("blue", "green")):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = draws.integers(0, 100, [32, 32, 3], np.uint8)
                image[..., channel] += 150
                cv2.imwrite(str(folder / f"{number}.png"), image)
    return tmp_path / "data"


@pytest.mark.slow
def test_training_in_memory(coloured, tmp_path):
    recipe = tmp_path / "short.flags"
    recipe.write_text("# of nobody's paper\n--epochs=3\n--schedule=one_cycle\n")
    words = "--model=airbench94 --learning_rate=0.1 --batch_size=4 --norm_bias_rate=2"
    result = subprocess.run(
        [
            *(sys.executable, "benchmarks/on_jax.py", coloured, tmp_path / "out"),
            *(f"{words} @{recipe}", "--precision=float32"),
        ],
        cwd=Path(models.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    (found,) = json.loads((tmp_path / "out" / "on_jax.json").read_text())["trainings"]
    assert found["training top-1"] == 100
    assert found["test top-1 by views"]["1"] >= 75
    assert (tmp_path / "out" / "0.weights.h5").exists()
