"""A training that is stopped, at any moment, ends as if it had not been."""

import json
import os
import random
import signal
import time

import pytest
from conftest import DONE, curves, killed_at, metrics, step_files
from test_datasets import FROM_1, labelled

from data.shards import datasets


def wait_for_checkpoint(run_dir, process):
    before = step_files(run_dir)
    while process.poll() is None and step_files(run_dir) == before:
        time.sleep(0.02)


# Small, but with dropout and alternating mirroring, or with BatchNorm and every method.
STOPPED = {
    "dropout": [
        "--model=lenet5",
        "--dropout=0.5",
        "--augment=airbench",
        "--schedule=triangle",
        "--batch_size=8",
        "--epochs=12",
        "--checkpoint_steps=3",
    ],
    "everything": [
        "--model=airbench94",
        "--batch_size=8",
        "--micro_batch=4",
        "--epochs=4",
        "--checkpoint_steps=7",
        "--optimizer=lamb",
        "--schedule=one_cycle",
        "--warmup_epochs=1",
        "--clip_norm=1",
        "--ema=0.9",
        "--lookahead=3",
        "--l1=1e-6",
        "--label_smoothing=0.1",
        "--class_weights=balanced",
        "--early_stopping=50",
        "--mixup=0.2",
        "--cutmix=1",
        "--randaugment=2,9",
        "--rotate=10",
        "--translate=0.1",
        "--shear=5",
        "--elastic=0.02",
        "--jitter=0.4",
        "--channel_shift=10",
        "--erase=0.25",
        "--augment=alexnet",
        "--scale=32,40",
        "--init=he_normal",
        "--first_image_size=28",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, number",
    [("dropout", signal.SIGINT), ("everything", signal.SIGKILL)],  # tests.stress kills has more
)
def test_stopped_at_random_moments_it_ends_as_if_it_had_not_been(
    name, number, photographs, tmp_path, finished, server
):
    words = [f"--data={photographs}", *STOPPED[name]]
    whole, run_dir = tmp_path / "whole", tmp_path / "stopped"
    expected = finished(whole, *words)
    process = server.start("train.py", f"--run_dir={run_dir}", *words)
    wait_for_checkpoint(run_dir, process)
    time.sleep(random.uniform(0, 0.3))
    process.send_signal(number)
    output, errors = process.communicate(timeout=120)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number, errors
        assert f"python train.py --resume --run_dir={run_dir}" in output.splitlines()[-1]
    assert finished(run_dir, "--resume") == expected
    for mine, others in zip(metrics(run_dir), metrics(whole), strict=True):
        for column in ("step", "learning_rate", "train_loss", "validation_loss"):
            assert mine[column] == others[column]
    resumed, uninterrupted = curves(run_dir), curves(whole)
    assert resumed["train/loss"] == uninterrupted["train/loss"]
    steps = [
        {name: [step for step, _ in points] for name, points in each.items()}
        for each in (resumed, uninterrupted)
    ]
    assert steps[0] == steps[1]


# A session of its own, whose terminal is the one that the first word names.
IN_A_TERMINAL = """
import os, runpy, sys
os.setsid()
terminal = os.open(sys.argv.pop(1), os.O_RDWR)
for descriptor in range(3):
    os.dup2(terminal, descriptor)
os.close(terminal)
runpy.run_path("train.py", run_name="__main__")
"""


@pytest.mark.slow
def test_a_terminal_that_closes_stops_a_training_with_a_checkpoint(server, tmp_path):
    run_dir, script = tmp_path / "run", tmp_path / "train.py"
    script.write_text(IN_A_TERMINAL)
    terminal, inside = os.openpty()
    process = server.start(script, os.ttyname(inside), "--epochs=500", f"--run_dir={run_dir}")
    wait_for_checkpoint(run_dir, process)
    process.send_signal(signal.SIGHUP)  # a shell does, and then the kernel
    os.close(inside)
    os.close(terminal)
    assert process.wait(60) == 128 + signal.SIGHUP
    *_, last = (run_dir / "train.log").read_text().splitlines()
    assert last.startswith(f"stopped; go on with: python train.py --resume --run_dir={run_dir}")
    assert int(step_files(run_dir)[-1][5:13]) > int(metrics(run_dir)[0]["step"])


@pytest.mark.slow
def test_replicas_stop_and_go_on_too(tmp_path, server):
    words = ["--data=digits", "--epochs=3", "--batch_size=64", "--checkpoint_steps=10"]
    words += ["--devices=2", "--keep=9"]
    expected, _ = server.start("train.py", f"--run_dir={tmp_path}/whole", *words).communicate()
    assert "2 replica(s)" in expected and "batches of 64 (32 for each replica)" in expected
    run_dir = killed_at(10, tmp_path / "whole", tmp_path / "stopped")
    for number, code in ((signal.SIGTERM, 143), (0, 0)):
        process = server.start("train.py", f"--run_dir={run_dir}", "--resume", *words)
        if number:
            wait_for_checkpoint(run_dir, process)
            process.send_signal(number)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
    assert DONE.search(output).groups() == DONE.search(expected).groups()


def test_what_xla_compiles_goes_on_too(tmp_path, finished, command):
    words = ("--data=digits", "--xla=on", "--deterministic=on", "--max_steps=4")
    whole = finished(tmp_path / "whole", *words, "--checkpoint_steps=2")
    stopped = killed_at(2, tmp_path / "whole", tmp_path / "stopped")
    refused = command("train.py", f"--run_dir={stopped}", "--resume", "--devices=2")
    assert refused.returncode == 2 and "--xla=on expects one replica" in refused.stderr
    assert finished(stopped, "--resume", "--max_steps=4") == whole


@pytest.fixture(scope="module")
def unimproved(photographs, command, tmp_path_factory):
    """A training whose accuracy stays what it is: two rules count the epochs of that."""
    words = [f"--data={photographs}", "--model=lenet5", "--batch_size=8", "--epochs=9"]
    words += ["--learning_rate=1e-5", "--schedule=plateau", "--patience=1", "--early_stopping=3"]
    run_dir = tmp_path_factory.mktemp("unimproved") / "run"
    done = command("train.py", f"--run_dir={run_dir}", *words)
    assert done.returncode == 0, done.stderr
    return words, run_dir, done.stdout


def test_early_stopping_ends_after_so_many_epochs_for_good(unimproved, command):
    _, run_dir, said = unimproved
    assert "stopped early: no better accuracy in 3 epochs" in said
    rows = metrics(run_dir)
    epochs = [int(row["epoch"]) for row in rows]
    accuracies = [float(row["validation_top1_accuracy"]) for row in rows]
    assert epochs[-1] == accuracies.index(max(accuracies)) + 1 + 3 < 9
    again = command("train.py", "--resume", f"--run_dir={run_dir}")
    assert again.stdout.splitlines()[-1] == said.splitlines()[-1]
    assert len(metrics(run_dir)) == len(epochs)


def test_stopping_early_validates_and_going_on_changes_nothing(unimproved, tmp_path, finished):
    """Away from an epoch's end a stop leaves alone what counts epochs."""
    words, whole, said = unimproved
    run_dir = tmp_path / "run"
    assert finished(run_dir, *words, "--max_steps=8")[0] == "8"
    assert [row["step"] for row in metrics(run_dir)] == ["5", "8"]
    assert (run_dir / "checkpoints" / "best.safetensors").exists()
    assert finished(run_dir, "--resume", "--max_steps=1000") == DONE.search(said).groups()
    for column in ("step", "learning_rate"):
        assert [row[column] for row in metrics(run_dir)] == [row[column] for row in metrics(whole)]
    assert len({row["learning_rate"] for row in metrics(whole)}) > 1


def test_a_run_on_shards_of_another_tool_that_an_earlier_version_began(command, tmp_path):
    """Then the fingerprint was of places and times, and only a file of labels gave names."""
    folder, run_dir = labelled(tmp_path / "x", [1, 2, 1, 2], texts=FROM_1), tmp_path / "run"
    words = ("--model=lenet5", "--batch_size=2", "--schedule=constant", "--max_steps=1")
    run_flag = f"--run_dir={run_dir}"
    assert command("train.py", f"--data={folder}", run_flag, *words).returncode == 0
    path = run_dir / "run.json"
    begun = json.loads(path.read_text())
    assert begun["class_names"] == ["a", "b"]
    begun["data"]["fingerprint"] = datasets.load(folder).earlier_fingerprints[0]
    path.write_text(json.dumps(begun | {"class_names": ["a", "b", "class_2"]}))
    done = command("train.py", "--resume", run_flag, "--max_steps=2")
    assert done.returncode == 2 and "were read as a, b, class_2, and are a, b;" in done.stderr
    path.write_text(json.dumps(begun | {"class_names": ["class_0", "class_1"]}))
    done = command("train.py", "--resume", run_flag, "--max_steps=2")
    assert done.returncode == 0, done.stderr
