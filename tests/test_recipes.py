"""Every recipe says where it is from and is accepted by train.py."""

import dataclasses
import re

import pytest
from absl import flags as absl_flags
from conftest import ROOT

import models
import train
from runtime import console, flags
from training import parts
from training.recipe import Recipe

RECIPES = sorted((ROOT / "recipes").glob("*.flags"))


def test_there_are_recipes_for_the_papers():
    named = " ".join(path.stem for path in RECIPES)
    for name in ("alexnet", "vgg", "googlenet", "resnet50", "wrn", "resnext", "densenet", "dpn"):
        assert name in named
    for name in ("mobilenet", "cifar100", "svhn", "mnist", "lenet5"):
        assert name in named
    stems = {path.stem for path in RECIPES}
    assert stems >= {f"cifar_resnet{depth}" for depth in (20, 32, 44, 56, 110)}
    assert stems >= {"cifar_resnet110_sd", "cifar_preresnet110", "nin_cifar", "all_cnn_c"}
    assert stems >= {"densenet40_k12", "wrn16_4", "cifarnet_slim", "mnist_lenet5_distorted"}


def test_the_error_in_a_recipe_is_that_of_the_table():
    for path in RECIPES:
        variant = models.VARIANTS.get(path.stem)
        error = variant and re.match(r"[\d.]+", variant.error)
        if error and path.stem != "lenet5":  # whose recipe is for the built-in digits
            assert error[0] in path.read_text(), path.stem


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet110", "cifar_preresnet110"])
def test_residual_networks_learn_for_64_000_updates_of_all_images(name):
    text = (ROOT / "recipes" / f"{name}.flags").read_text()
    assert "--batch_size" not in text
    epochs, updates = int(re.search(r"^--epochs=(\d+)$", text, re.M)[1]), 50_000 // parts.BATCH_SIZE
    assert abs(epochs * updates - 64_000) < updates / 2


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_names_its_source_and_its_figure_and_can_be_used(path):
    lines = path.read_text().splitlines()
    comment = " ".join(line for line in lines if line.startswith("#"))
    assert re.search(r"arXiv:\d|19\d\d|20\d\d|No paper|built-in", comment) and re.search(
        "%|published no", comment
    )
    assert lines[0].startswith("#") and all(len(line) <= 110 for line in lines)
    try:
        assert not console.parse(["train.py", f"--flagfile={path}"])
        recipe = flags.value_of(Recipe)
    finally:
        console.parse(["train.py"])
        absl_flags.FLAGS.unparse_flags()
    if path.stem in models.names():  # is used without being asked for: digits are not mirrored
        assert not any(line.startswith(("--augment", "--data")) for line in lines)
    model = recipe.model or path.stem  # the network of that name
    assert model in models.names()
    augment, size = recipe.augment or models.policy(model), recipe.batch_size or 128
    recipe = dataclasses.replace(recipe, model=model, augment=augment, batch_size=size)
    parts.check(recipe, replicas=1)
    parts.policy(recipe)
    schedule = parts.schedule(recipe, steps_per_epoch=100)
    rates = [schedule.rate(step) for step in range(0, schedule.total_steps, 100)]
    assert all(0 < rate <= parts.learning_rate(recipe) * 1.0001 for rate in rates)


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--flagfile=x"], True),
        (["-flagfile", "x"], True),
        (["--data", "flagfiles"], False),
        (["--data=flagfile=x"], False),
        (["--noflagfile"], False),
    ],
)
def test_a_flag_file_is_known_by_its_flag(words, given):
    assert any(map(train.FLAGFILE.match, words)) is given
