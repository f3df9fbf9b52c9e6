"""The trainings of benchmarks/comparisons.py can be done, and are told from each other."""

import dataclasses
import json
import re
import shutil

import cv2
import pytest
from absl import flags as absl_flags

import models
import train  # noqa: F401  defines the flags
from benchmarks import comparisons
from report import history
from runtime import console, flags
from training import parts
from training.recipe import Recipe

TRAININGS = [
    (name, training)
    for name, comparison in comparisons.COMPARISONS.items()
    for training in comparison.trainings
]


@pytest.mark.parametrize("name, training", TRAININGS)
def test_its_flags_are_right(name, training):
    words = comparisons.COMPARISONS[name].words(training)
    try:
        assert not console.parse(["train.py", *words])
        recipe = flags.value_of(Recipe)
    finally:
        console.parse(["train.py"])
        absl_flags.FLAGS.unparse_flags()
    augment = recipe.augment or models.policy(recipe.model)
    size = recipe.batch_size or 128
    parts.check(dataclasses.replace(recipe, augment=augment, batch_size=size), replicas=1)


def test_a_training_of_two_comparisons_is_one():
    """So that it is trained once: the folder's name is made of its flags."""
    found = {}
    for name, training in TRAININGS:
        words = comparisons.COMPARISONS[name].words(training)
        found.setdefault(" ".join(words), []).append(f"{name}-{training}")
    shared = [names for names in found.values() if len(names) > 1]
    assert shared == [
        ["optimizers-momentum", "kernels-study2017_3x3"],
        ["norms-lrn", "activations-relu-lrn"],
        ["norms-none", "activations-relu-none"],
    ]


@pytest.mark.slow
def test_what_was_trained_is_compared_and_not_trained_again(
    photographs, command, tmp_path, capsys, monkeypatch
):
    def run(*words):
        done = command(*words)
        assert done.returncode == 0, done.stderr
        print(done.stdout)

    monkeypatch.setattr(comparisons, "_run", run)
    whole = comparisons.COMPARISONS["relu_tanh"]
    one = whole._replace(trainings={"tanh": whole.trainings["tanh-2012"]})
    monkeypatch.setitem(comparisons.COMPARISONS, "relu_tanh", one)
    for split in ("train", "test"):
        shutil.copytree(photographs, tmp_path / "data" / split)
    words = [f"--data={tmp_path}/data", f"--runs={tmp_path}/runs", f"--output={tmp_path}"]
    words += ["--only=relu_tanh", "--max_steps=1", "--batch_size=8", "--seconds=0.1"]
    comparisons.main(words)
    comparisons.train("relu_tanh", tmp_path / "runs", f"{tmp_path}/data", words[4:6])
    said = capsys.readouterr().out
    assert said.count("relu_tanh: tanh") == 2 and said.count("0 left  validation") == 1
    assert said.count("95 % intervals") == 1
    table = (tmp_path / "comparison-relu_tanh.md").read_text()
    tested = json.loads(next(tmp_path.glob("runs/*/test.json")).read_text())["top1_accuracy"]
    assert f"| {100 * tested:.2f} |" in re.sub(" +", " ", table)
    assert "| tanh " in table and "epochs to" not in table and "--model=cifarnet" in table
    assert "](comparison-relu_tanh.png)" in table
    assert cv2.imread(str(tmp_path / "comparison-relu_tanh.png")).shape[1] > 1000


def test_a_training_that_fails_ends_the_comparison():
    comparisons._run("-c", "pass")
    with pytest.raises(RuntimeError, match="-c 'raise SystemExit.3.' ended with exit code 3"):
        comparisons._run("-c", "raise SystemExit(3)")


def test_epochs_to_a_training_error_are_told_where_one_training_came_so_far():
    def run(*accuracies):
        rows = [
            {"epoch": 1.0 + n, "step": 10 + 10 * n, "train_top1_accuracy": accuracy}
            for n, accuracy in enumerate(accuracies)
        ]
        settings = {"flags": {"batch_size": 6}, "cost": {"parameters": 1234, "multiply_adds": 5e6}}
        return history.History(None, settings, rows, {"top1_accuracy": 0.5})

    rates = {"fast": 2.0, "slow": 1.0}
    head, fast, slow = comparisons.table({"fast": run(0.7, 0.75), "slow": run(0.1, 0.7)}, rates)
    assert head[-1] == "epochs to 25 % training error"
    assert fast == ["fast", "50.00", "75.00", "2", "2", "1.0", "1,234", "5.0", "2"]
    assert slow == ["slow", "50.00", "70.00", "2", "1", "2.0", "1,234", "5.0", "more than 2"]
    head, _ = comparisons.table({"slow": run(0.1, 0.7)}, rates)
    assert head[-1] == "million multiply-adds"


def test_a_wrong_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        comparisons.main(["--data=x", "--runs=y", "--only=z"])
    assert "unknown comparisons ['z']" in capsys.readouterr().err
