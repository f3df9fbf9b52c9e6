"""One command, several seeds (`--seeds`)."""

import os
import signal
import subprocess
import time

import pytest
from conftest import DONE, step_files

from runtime import console
from training import seeds

WORDS = ["--seeds=2", "--seed=5", "--epochs=1", "--batch_size=256"]


@pytest.mark.slow
def test_every_seed_is_a_run_and_they_are_compared(command, tmp_path, finished):
    done = command("train.py", *WORDS, f"--run_dir={tmp_path}/x")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "x-seeds.html").is_file()
    *_, row, page = done.stdout.splitlines()
    assert row.split()[1] == "2" and "±" in row and page == f"page: {tmp_path}/x-seeds.html"
    alone = finished(tmp_path / "alone", *WORDS[1:], "--seed=6")
    ends = [(tmp_path / f"x-seed{seed}" / "train.log").read_text() for seed in (5, 6)]
    assert [DONE.search(end).groups() == alone for end in ends] == [False, True]


@pytest.mark.slow
def test_the_same_command_goes_on(tmp_path, command, server):
    words = ["train.py", "--seeds=2", "--epochs=10", "--checkpoint_steps=10"]
    words.append(f"--run_dir={tmp_path}/x")
    process = server.start(*words)
    while not step_files(tmp_path / "x-seed0") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "the same command goes on here" in errors and not (tmp_path / "x-seed1").exists()
    other = command(*words[:-1], "--batch_size=64", words[-1])
    assert other.returncode == 2 and "would change what" in other.stderr
    assert "the same command" not in other.stderr
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout and (tmp_path / "x-seed1" / "metrics.csv").exists()


def test_what_is_about_one_training_is_refused(command):
    done = command("train.py", "--seeds=2", "--resume")
    assert done.returncode == 2 and "--resume is about one training" in done.stderr


@pytest.fixture
def heard():
    """Signals that nothing else takes here; their handlers come back."""
    numbers, found = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), []
    before = {
        number: signal.signal(number, lambda *got: found.append(got[0])) for number in numbers
    }
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signal_while_a_training_starts_is_for_that_training(number, moment, heard, monkeypatch):
    start = subprocess.Popen

    def start_and_signal(*words, **options):
        if moment == "before":
            os.kill(os.getpid(), number)
        process = start(*words, **options)
        if moment == "after":
            os.kill(os.getpid(), number)
        return process

    monkeypatch.setattr(seeds.subprocess, "Popen", start_and_signal)
    assert seeds._call(["sleep", "5"]) == 128 + number
    assert heard == []


def test_a_signal_as_a_training_ends_stops_what_follows(heard):
    assert seeds._call(["sh", "-c", "trap : TERM; kill -TERM $PPID; sleep 0.3"]) == 143
    assert seeds._call(["true"]) == 0


def test_what_nohup_ignores_is_ignored_by_the_training_too(heard):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert seeds._call(["sh", "-c", "kill -HUP $$; exit 7"]) == 7
    assert signal.SIGHUP not in console.stop_signals()
