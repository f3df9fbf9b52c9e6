"""Every family on another backend: JAX builds it, runs it and trains with it."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import models

SMALL = {
    "lenet5": {},
    "alexnet": {"image_size": 67},
    "zfnet": {"image_size": 67},
    "overfeat_fast": {"image_size": 75},
    "nin": {"image_size": 67},
    "vgg11": {"image_size": 32},
    "googlenet": {"image_size": 64},
    "inception_v2": {"image_size": 64},
    "inception_v3": {"image_size": 75},
    "inception_v4": {"image_size": 75},
    "inception_resnet_v1": {"image_size": 75},
    "xception": {"image_size": 71},
    "nasnet_mobile": {"image_size": 32},
    "resnet18": {"image_size": 32, "depths": [1, 1, 1, 1]},
    "resnext50_32x4d": {"image_size": 32, "depths": [1, 1, 1, 1]},
    "wrn16_4": {"depth": 10, "width": 1, "dropout": 0.3},
    "cifar_preresnet164": {"image_size": 16, "depths": [1, 1, 1]},
    "cifar_resnet110_sd": {"image_size": 16, "depths": [1, 1, 1]},
    "densenet40_k12": {"image_size": 16, "depths": [1, 1, 1], "dropout": 0.2},
    "fractalnet21": {"image_size": 16, "filters": [4, 4, 8]},
    "dpn68": {"image_size": 32, "depths": [1, 1, 1, 1]},
    "cifarnet": {},
    "all_cnn_c": {},
    "dsn": {},
    "highway19": {},
    "squeezenet1_1": {"image_size": 64},
    "mobilenet_025": {"image_size": 32},
    "study2017_3x3": {},
}

SCRIPT = """
import json, sys
import keras, models, numpy as np
for name, options in json.loads(sys.argv[1]).items():
    model = models.build(name, 3, **options)
    images = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:])).astype("float32")
    for training in (False, True):
        logits = np.asarray(model(images, training=training)["logits"])
        assert logits.shape == (2, 3) and logits.dtype == "float32", name
        assert np.isfinite(logits).all(), name
    print(keras.backend.backend(), name, flush=True)
"""


def test_every_family_is_tried():
    tried = {family for family in models.FAMILIES if set(family.VARIANTS) & set(SMALL)}
    missing = [family.__name__ for family in models.FAMILIES if family not in tried]
    assert not missing


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("jax"), reason="JAX is not installed")
def test_every_family_runs():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(SMALL)],
        cwd=Path(models.__file__).parent.parent,
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split("\n")[:-1] == [f"jax {name}" for name in SMALL]
