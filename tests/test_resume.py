"""A training that is stopped, at any moment, ends as if it had not been."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import DONE, ROOT, curves, metrics, step_files
from test_datasets import FROM_1, labelled

from data.shards import datasets


def wait_for_checkpoint(run_dir, process):
    before = step_files(run_dir)
    while process.poll() is None and step_files(run_dir) == before:
        time.sleep(0.02)


# Small, but with dropout and PCA noise, or with BatchNorm and every method.
STOPPED = {
    "lenet5": ["--data=digits", "--epochs=15", "--checkpoint_steps=10"],
    "dropout": [
        "--data={photographs}",
        "--model=cifarnet",
        "--dropout=0.5",
        "--augment=alexnet",
        "--batch_size=8",
        "--epochs=5",
        "--checkpoint_steps=3",
    ],
    "everything": [
        "--data={photographs}",
        "--model=airbench94",
        "--batch_size=8",
        "--micro_batch=4",
        "--epochs=6",
        "--checkpoint_steps=7",
        "--optimizer=lamb",
        "--schedule=one_cycle",
        "--warmup_epochs=1",
        "--clip_norm=1",
        "--ema=0.9",
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
    "name, signals",
    [  # python -m tests.stress kills has more
        ("lenet5", [signal.SIGINT]),
        ("dropout", [signal.SIGKILL]),
        ("everything", [signal.SIGKILL]),
    ],
)
def test_stopped_at_random_moments_it_ends_as_if_it_had_not_been(
    name, signals, photographs, tmp_path, finished, server
):
    words = [word.format(photographs=photographs) for word in STOPPED[name]]
    whole, run_dir = tmp_path / "whole", tmp_path / "stopped"
    expected, stops = finished(whole, *words), 0
    for number in signals:
        resume = ["--resume"] if (run_dir / "run.json").exists() else []
        process = server.start("train.py", f"--run_dir={run_dir}", *resume, *words)
        wait_for_checkpoint(run_dir, process)
        time.sleep(random.uniform(0, 0.3))
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
        if process.returncode == 0:
            continue  # it had ended before
        stops += 1
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number, errors
            assert f"python train.py --resume --run_dir={run_dir}" in output.splitlines()[-1]
    assert stops >= len(signals) - 1
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


@pytest.mark.slow
def test_a_terminal_that_closes_stops_a_training_with_a_checkpoint(tmp_path):
    run_dir = tmp_path / "run"
    words = ["train.py", "--epochs=500", f"--run_dir={run_dir}"]
    terminal, inside = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", sys.executable, *words],
        cwd=ROOT,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests have nohup
    )
    os.close(inside)
    wait_for_checkpoint(run_dir, process)
    process.send_signal(signal.SIGHUP)  # a shell does, and then the kernel
    os.close(terminal)
    assert process.wait(60) == 128 + signal.SIGHUP
    *_, last = (run_dir / "train.log").read_text().splitlines()
    assert last.startswith(f"stopped; go on with: python train.py --resume --run_dir={run_dir}")
    assert int(step_files(run_dir)[-1][5:13]) > int(metrics(run_dir)[0]["step"])


@pytest.mark.slow
def test_replicas_stop_and_go_on_too(tmp_path, server):
    words = ["--data=digits", "--epochs=5", "--batch_size=64", "--checkpoint_steps=10"]
    words.append("--devices=2")
    expected, _ = server.start("train.py", f"--run_dir={tmp_path}/whole", *words).communicate()
    assert "2 replica(s)" in expected and "batches of 64 (32 for each replica)" in expected
    run_dir = tmp_path / "stopped"
    for number, code, resume in (
        (signal.SIGTERM, 143, ()),
        (signal.SIGKILL, -9, ["--resume"]),
        (0, 0, ["--resume"]),
    ):
        process = server.start("train.py", f"--run_dir={run_dir}", *resume, *words)
        if number:
            wait_for_checkpoint(run_dir, process)
            process.send_signal(number)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
    assert DONE.search(output).groups() == DONE.search(expected).groups()


def test_what_xla_compiles_goes_on_too(tmp_path, finished, command):
    words = ("--data=digits", "--xla=on", "--deterministic=on")
    whole = finished(tmp_path / "whole", *words, "--max_steps=4")
    finished(tmp_path / "stopped", *words, "--max_steps=2")
    again = ("train.py", f"--run_dir={tmp_path}/stopped", "--resume", "--max_steps=4")
    refused = command(*again, "--devices=2")
    assert refused.returncode == 2 and "--xla=on expects one replica" in refused.stderr
    assert finished(tmp_path / "stopped", "--resume", "--max_steps=4") == whole


def test_stopping_early_validates_and_going_on_changes_nothing(photographs, tmp_path, finished):
    """Away from an epoch's end a stop leaves the schedule's state alone (plateau counts epochs)."""
    words = [
        f"--data={photographs}",
        "--model=lenet5",
        "--schedule=plateau",
        "--patience=1",
        "--batch_size=8",
        "--epochs=4",
    ]
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    assert finished(run_dir, *words, "--max_steps=8")[0] == "8"
    assert [row["step"] for row in metrics(run_dir)] == ["5", "8"]
    assert (run_dir / "checkpoints" / "best.safetensors").exists()
    assert finished(run_dir, "--resume", "--max_steps=9")[0] == "9"
    assert [row["step"] for row in metrics(run_dir)] == ["5", "9"]
    assert finished(run_dir, "--resume", "--max_steps=1000") == finished(whole, *words)
    rates = [row["learning_rate"] for row in metrics(whole)]
    assert rates == [row["learning_rate"] for row in metrics(run_dir)]
    assert len(set(rates)) > 1


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
