"""The trainings of benchmarks/comparisons.py can be done, and are told from each other."""

import json
import re
import shutil
from types import SimpleNamespace

import cv2
import pytest
from absl import flags

import console
import models
import settings
import train
from benchmarks import comparisons

TRAININGS = [
    (name, training)
    for name, comparison in comparisons.COMPARISONS.items()
    for training in comparison.trainings
]


@pytest.mark.parametrize("name, training", TRAININGS, ids="-".join)
def test_its_flags_are_right(name, training):
    words = comparisons.COMPARISONS[name].words(training)
    try:
        assert not console.parse(["train.py", *words])
        options = SimpleNamespace(**{flag: train.FLAGS[flag].value for flag in train.FLAGS})
    finally:
        console.parse(["train.py"])
        flags.FLAGS.unparse_flags()
    options.batch_size = options.batch_size or 128
    options.augment = options.augment or models.policy(options.model)
    settings.check(options, replicas=1)


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
    photographs, tmp_path, capfd, monkeypatch
):
    whole = comparisons.COMPARISONS["relu_tanh"]
    one = whole._replace(trainings={"tanh": whole.trainings["tanh-2012"]})
    monkeypatch.setitem(comparisons.COMPARISONS, "relu_tanh", one)
    for split in ("train", "test"):
        shutil.copytree(photographs, tmp_path / "data" / split)
    words = [f"--data={tmp_path}/data", f"--runs={tmp_path}/runs", f"--output={tmp_path}"]
    words += ["--only=relu_tanh", "--max_steps=1", "--batch_size=8", "--seconds=0.1"]
    comparisons.main(words)
    comparisons.train("relu_tanh", tmp_path / "runs", f"{tmp_path}/data", words[4:6])
    said = capfd.readouterr().out
    assert said.count("relu_tanh: tanh") == 2 and said.count("0 left  validation") == 1
    assert said.count("95 % intervals") == 1
    table = (tmp_path / "comparison-relu_tanh.md").read_text()
    tested = json.loads(next(tmp_path.glob("runs/*/test.json")).read_text())["top1_accuracy"]
    assert f"| {100 * tested:.2f} |" in re.sub(" +", " ", table)
    assert "| tanh " in table and "more than 1" in table and "--model=cifarnet" in table
    assert "](comparison-relu_tanh.png)" in table
    assert cv2.imread(str(tmp_path / "comparison-relu_tanh.png")).shape[1] > 1000


def test_a_wrong_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        comparisons.main(["--data=x", "--runs=y", "--only=z"])
    assert "unknown comparisons ['z']" in capsys.readouterr().err
