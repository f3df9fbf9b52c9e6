"""The trainings of benchmarks/comparisons.py can be done, and are told from each other."""

import dataclasses
import re
import shutil

import cv2
import pytest
import trained
from absl import flags as absl_flags

import models
import train  # noqa: F401  defines the flags
from benchmarks import comparisons, kept, plan, scripts, trainings, verdicts
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
    words = comparisons.COMPARISONS[name].training(training, 0).command
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
    """So that it is trained once."""
    found = {}
    for name, training in TRAININGS:
        words = comparisons.COMPARISONS[name].training(training, 0)
        found.setdefault(words, []).append(f"{name}-{training}")
    shared = [names for names in found.values() if len(names) > 1]
    assert shared == [
        ["norms-batch-faster", "optimizers-momentum", "kernels-study2017_3x3"],
        ["norms-lrn", "activations-lrn"],
        ["norms-none", "activations-none"],
        ["depth-cifar_resnet20", "shortcuts-A"],
    ]


def test_all_trainings_of_a_seed_come_before_those_of_the_next():
    order = [(job.training.seed, job.title) for job in comparisons.jobs(["norms"])]
    titles = ["batch", "batch-faster", "lrn", "none"]
    assert order == [(seed, title) for seed in range(3) for title in titles]
    assert all(comparison.seeds >= 3 for comparison in comparisons.COMPARISONS.values())


@pytest.mark.slow
def test_what_was_trained_is_compared_and_not_trained_again(
    photographs, command, tmp_path, capsys, monkeypatch
):
    def run(*words, seconds=None):
        done = command(*words)
        assert done.returncode == 0, done.stderr
        print(done.stdout)
        return True

    monkeypatch.setattr(scripts, "run", run)
    monkeypatch.setattr(plan, "measured_rate", lambda training, say: 1000.0)
    whole = comparisons.COMPARISONS["relu_tanh"]
    one = whole._replace(trainings={"tanh": whole.trainings["tanh-2012"]}, seeds=1)
    monkeypatch.setattr(comparisons, "COMPARISONS", {"relu_tanh": one})
    for split in ("train", "test"):
        shutil.copytree(photographs, tmp_path / "data" / split)
    run("-m", "data.convert", tmp_path / "data", tmp_path / "shards")
    words = [f"--data={tmp_path}/shards", f"--runs={tmp_path}/runs", f"--output={tmp_path}"]
    words += ["--max_steps=1", "--batch_size=8", "--hours=1"]
    comparisons.main(words)
    comparisons.main(words)
    said = capsys.readouterr().out
    assert said.count("relu_tanh: tanh, seed") == said.count("0 left  validation") == 1
    assert said.count("95 % intervals") == 1
    page = (tmp_path / "comparisons.md").read_text()
    results = trainings.read(tmp_path / "trainings.jsonl").values()
    tops = [result["tests"]["1"]["top1"] for result in results]
    assert f"| {verdicts.percent(tops)} |" in re.sub(" +", " ", page)
    assert "| tanh " in page and "epochs to" not in page and "--model=cifarnet" in page
    assert "fewer than two trainings with two seeds, no verdict" in page
    assert "](comparisons-relu_tanh.png)" in page
    assert cv2.imread(str(tmp_path / "comparisons-relu_tanh.png")).shape[1] > 1000
    assert [result["steps"] for result in results] == [1]
    assert len(list(tmp_path.glob("runs/*/run.json"))) == 1


def results(title, *tops, curve=(0.3, 0.8)):
    trained_ones = [
        comparisons.COMPARISONS["relu_tanh"].training(title, seed) for seed in range(len(tops))
    ]
    return [
        trained.result(training, top1, curve)
        for training, top1 in zip(trained_ones, tops, strict=True)
    ]


def test_a_page_tells_means_spread_epochs_and_what_is_better(tmp_path):
    found = {
        "relu-2012": results("relu-2012", 0.70, 0.71, 0.72),
        "tanh-2012": results("tanh-2012", 0.60, 0.61, 0.62, curve=(0.3, 0.4, 0.76)),
        "relu-today": results("relu-today", 0.69, 0.73, 0.71, curve=(0.5, 0.6)),
    }
    for result in sum(found.values(), []):
        kept.append(tmp_path / "trainings.jsonl", result)
    comparisons.main([f"--output={tmp_path}"])
    page = re.sub(" +", " ", (tmp_path / "comparisons.md").read_text())
    cells = "80.00 ± 0.00 | 2 | 100 | 2.0 | 1,234 | 5.0 | 2.0 ± 0.0 |"
    assert f"| relu-2012 | 3 | 71.00 ± 1.00 | {cells}" in page
    assert "| relu-today | 3 | 71.00 ± 2.00 |" in page and "| not within 2 epochs |" in page
    assert (
        "Test top-1: relu-2012 is better than tanh-2012 by 10.0 points; it shows no difference "
        "beyond the spread to relu-today. relu-today is better than tanh-2012 by 10.0 points."
    ) in page
    assert "25 % training error: relu-2012 is better than tanh-2012 by 1.0 epochs." in page
    others = len(comparisons.COMPARISONS) - 1
    assert "| relu_tanh | 4 | 9 | 12 |" in page and page.count("Not trained yet.") == others
    assert verdicts.RULE in page


def test_a_difference_counts_only_beyond_both_deviations():
    values = {"a": [3.0, 5.0], "b": [1.0, 3.0], "c": [0.9, 0.9], "d": [9.0]}
    assert verdicts.verdict(values, "points") == [
        "a is better than c by 3.1 points; it shows no difference beyond the spread to b.",
        "b shows no difference beyond the spread to c.",
    ]
    small = {"a": [1.00, 1.01], "b": [1.10, 1.11]}
    assert verdicts.verdict(small, "epochs", lower=True) == ["a is better than b by 0.1 epochs."]
    assert verdicts.verdict({"a": [1.0], "b": [2.0]}, "points") == []


def test_the_page_of_the_project_tells_what_was_kept():
    results = trainings.read(trainings.RESULTS / trainings.FILE)
    page = (trainings.RESULTS / "comparisons.md").read_text()
    for name in comparisons.COMPARISONS:
        found = comparisons.kept_results(name, results)
        picture = f"comparisons-{name}.png" if any(found.values()) else None
        assert "\n\n".join(comparisons.section(name, found, picture)) in page


def test_some_seeds_that_did_not_reach_an_error_are_counted():
    found = {"relu-2012": results("relu-2012", 0.7) + results("relu-2012", 0.7, curve=(0.1, 0.2))}
    assert comparisons.table(found)[1][-1] == "1 of 2 not within 2 epochs"


def test_wrong_names_and_flags_are_refused(capsys):
    for words, message in (
        (["--only=z"], "unknown names ['z'], expected some of relu_tanh,"),
        (["--hour=1"], "expected another --output with flags of train.py, received ['--hour=1']"),
    ):
        with pytest.raises(SystemExit):
            comparisons.main(words)
        assert message in capsys.readouterr().err
