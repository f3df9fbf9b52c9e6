"""Training images that grow (`--first_image_size`)."""

import keras
import numpy as np
import pytest
from conftest import killed_at

import models
from models.tools import graphs
from training import parts
from training.recipe import Recipe


def sides(first, full, epochs):
    recipe = Recipe(first_image_size=first, image_size=full, epochs=epochs)
    return [parts.side(recipe, epoch) for epoch in range(epochs)]


def test_sides_grow_in_steps_until_three_quarters_of_the_epochs():
    assert sides(16, 32, 8) == [16, 16, 20, 24, 24, 28, 32, 32]
    assert sides(160, 224, 16) == [160] * 6 + [188] * 5 + [216] + [224] * 4
    assert sides(32, 32, 4) == [32] * 4
    assert sides(None, 32, 3) == [32] * 3


def test_a_network_sees_smaller_images_through_the_same_weights():
    model = models.build("cifar_resnet20", 3, image_size=32)
    small = models.build("cifar_resnet20", 3, image_size=20)
    small.set_weights(model.get_weights())
    images = np.random.default_rng(0).uniform(0, 255, [2, 20, 20, 3]).astype("float32")
    graphs.require_size(model, 20)
    np.testing.assert_allclose(
        model.call(images, training=True)["logits"],
        small(images, training=True)["logits"],
        rtol=1e-5,
        atol=1e-5,
    )
    keras.utils.clear_session()


@pytest.mark.slow
def test_a_run_goes_on_in_the_midst_of_it(photographs, tmp_path, finished):
    words = [f"--data={photographs}", "--model=nin_cifar", "--batch_size=16", "--epochs=4"]
    words += ["--first_image_size=28", "--histograms", "--checkpoint_steps=5", "--keep=9"]
    whole = finished(tmp_path / "whole", *words)
    assert "training images grow from 28 to 32 pixels" in (tmp_path / "whole/train.log").read_text()
    stopped = killed_at(5, tmp_path / "whole", tmp_path / "stopped")
    assert finished(stopped, "--resume") == whole


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--model=lenet5", "--first_image_size=16"], "cannot be trained on images of 16 pixels"),
        (["--model=nin_cifar", "--first_image_size=40"], "expects at most the 32 pixels"),
    ],
)
def test_what_cannot_grow_is_refused(words, complaint, command, tmp_path):
    done = command("train.py", *words, f"--run_dir={tmp_path}/run")
    assert done.returncode == 2 and complaint in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and not (tmp_path / "run").exists()
