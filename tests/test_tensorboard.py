"""TensorBoard's pages about runs answer."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from conftest import curves


@pytest.fixture(scope="module")
def runs(command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for name, rate in (("slow", 0.001), ("fast", 0.05)):
        words = [f"--run_dir={folder}/{name}", "--epochs=1", f"--learning_rate={rate}"]
        done = command("train.py", *words, "--histograms", "--profile=4")
        assert done.returncode == 0, done.stderr
        assert command("test.py", folder / name).returncode == 0
    return folder


@pytest.fixture(scope="module")
def board(runs):
    """Asks a TensorBoard: `board("images/tags")`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--logdir", str(runs), "--port", str(port), "--host", "127.0.0.1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(what, body=None):
        address = f"http://127.0.0.1:{port}/data/plugin/{what}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if "fast/test" in ask("images/tags"):
                break
        except OSError:
            time.sleep(0.5)
    yield ask
    process.terminate()
    process.wait()


@pytest.mark.slow
def test_pictures_are_shown(board):
    tags = board("images/tags")
    assert {"augmented", "filters"} <= set(tags["fast/train"])
    assert {"confusion_matrix", "results"} <= set(tags["fast/validation"])
    assert {"confusion_matrix", "reliability", "mistakes/00"} <= set(tags["fast/test"])


@pytest.mark.slow
def test_hparams_puts_the_runs_side_by_side(board):
    experiment = board("hparams/experiment", {"experimentName": ""})
    names = {info["name"] for info in experiment["hparamInfos"]}
    assert {"learning_rate", "optimizer", "model"} <= names
    wanted = {
        "experimentName": "",
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_RUNNING", "STATUS_SUCCESS"],
        "colParams": [{"metric": {"group": "validation", "tag": "top1_accuracy"}}],
        "startIndex": 0,
        "sliceSize": 10,
    }
    groups = board("hparams/session_groups", wanted)["sessionGroups"]
    assert {group["hparams"]["learning_rate"] for group in groups} == {0.001, 0.05}
    accuracies = [group["metricValues"][0]["value"] for group in groups]
    assert len(accuracies) == 2 and accuracies[0] != accuracies[1]


@pytest.mark.slow
def test_histograms_and_a_profile_are_written(board, runs):
    tags = board("histograms/tags")["fast/train"]
    assert {"weights/conv1/kernel", "gradients/conv1/kernel"} <= set(tags)
    assert list((runs / "fast" / "train" / "plugins" / "profile").rglob("*.xplane.pb"))
    assert any(re.match("train/loss", name) for name in curves(runs / "fast"))
