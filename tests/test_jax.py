"""Every family on another backend: JAX builds and runs it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import reduced

import models

SCRIPT = """
import sys
sys.path.append("tests")
import keras, numpy as np, reduced
for name in reduced.CHEAPEST:
    model = reduced.build(name, 3)
    images = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    for training in (False, True):
        logits = np.asarray(model(images, training=training)["logits"])
        assert logits.shape == (2, 3) and logits.dtype == "float32", name
        assert np.isfinite(logits).all(), name
    print(keras.backend.backend(), name, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("jax"), reason="JAX is not installed")
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
