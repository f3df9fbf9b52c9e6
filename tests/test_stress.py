"""Small shares of what `python -m tests.stress` does."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

from tests.stress import __main__ as stress
from tests.stress import files
from tests.stress.damages import DAMAGES
from tests.stress.images import mutated_images
from tests.stress.saves import killed_saves


def wrong(counts):
    return {name: counts[name] for name in stress.WRONG if counts[name]}


@pytest.mark.slow
def test_trainings_killed_at_random_moments(command):
    """A seed that kills one training twice; a process that can fork: TensorFlow is not started."""
    done = command("-m", "tests.stress", "kills", "--count=2", "--seed=26")
    assert done.returncode == 0, done.stdout + done.stderr
    kills, trainings = re.match(r"kills: (\d+), trainings: (\d+), ", done.stdout).groups()
    assert int(kills) >= 2 and int(trainings) >= 1
    assert "different: 0" in done.stdout and "cannot resume: 0" in done.stdout


@pytest.mark.slow
def test_any_settings_are_resumed(command):
    """A seed that draws the quickest network, in float32."""
    done = command("-m", "tests.stress", "settings", "--count=1", "--seed=57")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("trainings: 1, cannot resume: 0, different: 0")


def test_a_save_killed_at_each_of_its_steps(tmp_path):
    counts = killed_saves(1, tmp_path, 0)
    assert counts["kills"] > 20 and not wrong(counts)


def test_damaged_checkpoints(tmp_path):
    counts = files.damaged_checkpoints(200, tmp_path, seed=0)
    assert all(counts[kind] > 10 for kind in DAMAGES) and not wrong(counts)


def test_damaged_shards(tmp_path):
    counts = files.damaged_shards(24, tmp_path, seed=0)
    assert sum(counts[kind] for kind in (*DAMAGES, "cut between")) > 20 and not wrong(counts)


def test_mutated_images(tmp_path, capfd):
    counts = mutated_images(2000, tmp_path, seed=2)
    assert capfd.readouterr().err == ""  # Pillow would say something of one of these
    assert counts["decoded"] > 200 and counts["rejected"] > 200 and not wrong(counts)
    assert counts["decoded"] + counts["rejected"] == 2000


MAY_MOUNT = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]).returncode


@pytest.mark.slow
@pytest.mark.skipif(MAY_MOUNT != 0, reason="mounts are not allowed here")
def test_full_disks():
    command = ["unshare", "-rm", sys.executable, "-m", "tests.stress", "disks", "--count=4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"trainings: 2, .*conversions: 2 ", done.stdout)


def test_what_is_wrong_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.checkpoints._seal", lambda text, tensors: "")
    monkeypatch.setattr("engine.checkpoints.digest", lambda tensors: "")
    assert files.damaged_checkpoints(200, tmp_path / "damaged", seed=0)["unnoticed"]
