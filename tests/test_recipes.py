"""Every recipe says where it is from and is accepted by train.py."""

import re
from types import SimpleNamespace

import pytest
from absl import flags
from conftest import ROOT

import models
import train
from runtime import console
from training import recipe

RECIPES = sorted((ROOT / "recipes").glob("*.flags"))


def test_there_are_recipes_for_the_papers():
    named = " ".join(path.stem for path in RECIPES)
    for name in ("alexnet", "vgg", "googlenet", "resnet50", "wrn", "resnext", "densenet", "dpn"):
        assert name in named
    for name in ("mobilenet", "cifar100", "svhn", "mnist", "lenet5"):
        assert name in named


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
        options = SimpleNamespace(**{name: train.FLAGS[name].value for name in train.FLAGS})
    finally:
        console.parse(["train.py"])
        flags.FLAGS.unparse_flags()
    if path.stem in models.names():  # is used without being asked for: digits are not mirrored
        assert not any(line.startswith(("--augment", "--data")) for line in lines)
    if options.model is None:  # of the network of that name
        options.model = path.stem
    assert options.model in models.names()
    options.batch_size = options.batch_size or 128
    options.augment = options.augment or models.policy(options.model)
    recipe.check(options, replicas=1)
    recipe.policy(options)
    schedule = recipe.schedule(options, steps_per_epoch=100)
    rates = [schedule.rate(step) for step in range(0, schedule.total_steps, 100)]
    assert all(0 < rate <= recipe.learning_rate(options) * 1.0001 for rate in rates)


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
