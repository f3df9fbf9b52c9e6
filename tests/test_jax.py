"""Another backend, in one process: JAX trains in memory, builds all families and traces them."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import reduced

TESTS = Path(__file__).parent
# Networks with most of `models.layers` run, as the trained one does; the others are traced, since
# compiling takes minutes.
RUN = ["alexnet_one_gpu", "cifar_resnet20"]
SCRIPT = f"""
import runpy, sys

runpy.run_path("{TESTS.parent}/benchmarks/on_jax.py", run_name="__main__")  # sets the backend
print("trained", flush=True)
sys.path.append("{TESTS}")
import functools, jax, keras, numpy as np, reduced

jax.config.update("jax_disable_most_optimizations", True)

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


@pytest.mark.slow
def test_training_in_memory_and_every_family(tmp_path):
    recipe, script = tmp_path / "short.flags", tmp_path / "script.py"
    recipe.write_text("# of nobody's paper\n--epochs=3\n--schedule=one_cycle\n")
    script.write_text(SCRIPT)
    words = "--model=airbench94 --learning_rate=0.1 --batch_size=4 --norm_bias_rate=2"
    result = subprocess.run(
        [
            *(sys.executable, script, coloured(tmp_path / "data"), tmp_path / "out"),
            *(f"{words} @{recipe}", "--precision=float32"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    (found,) = json.loads((tmp_path / "out" / "on_jax.json").read_text())["trainings"]
    assert found["training top-1"] == 100
    assert found["test top-1 by views"]["1"] >= 75
    assert (tmp_path / "out" / "0.weights.h5").exists()
    families = result.stdout.partition("trained\n")[2].splitlines()
    assert families == [f"jax {name}" for name in reduced.CHEAPEST]
