"""One command, several seeds (`--seeds`)."""

import os
import signal
import subprocess
import time

import pytest
from conftest import DONE, step_files

from runtime import console
from training import seeds

# Each training in a fork: a new process would import TensorFlow for 4 s.
FORKING = """
import os, runpy, signal, sys, types
from training import seeds

class Fork:
    def __init__(self, command, start_new_session):
        self.pid = os.fork()
        if self.pid:
            return
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        train(command[1:])
        os._exit(0)

    def send_signal(self, number):
        os.kill(self.pid, number)

    def wait(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

def train(words):
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")

seeds.subprocess = types.SimpleNamespace(Popen=Fork)
train(["train.py", *sys.argv[1:]])
"""


@pytest.mark.slow
def test_every_seed_is_a_run_the_same_command_goes_on_and_they_are_compared(
    command, server, tmp_path, finished
):
    script = tmp_path / "forking.py"
    script.write_text(FORKING)
    words = ["--epochs=3", "--checkpoint_steps=5"]
    several = ["--seeds=2", "--seed=5", *words, f"--run_dir={tmp_path}/x"]
    process = server.start(script, *several)
    while not step_files(tmp_path / "x-seed5") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "the same command goes on here" in errors and not (tmp_path / "x-seed6").exists()
    other = command("train.py", *several, "--batch_size=64")
    assert other.returncode == 2 and "would change what" in other.stderr
    assert "the same command" not in other.stderr
    done = command(script, *several)
    assert done.returncode == 0, done.stderr
    assert "resuming at step" in done.stdout
    assert (tmp_path / "x-seeds.html").is_file()
    *_, row, page = done.stdout.splitlines()
    assert row.split()[1] == "2" and "±" in row and page == f"page: {tmp_path}/x-seeds.html"
    alone = finished(tmp_path / "alone", *words, "--seed=6")
    ends = [(tmp_path / f"x-seed{seed}" / "train.log").read_text() for seed in (5, 6)]
    assert [DONE.search(end).groups() == alone for end in ends] == [False, True]


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
