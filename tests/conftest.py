import contextlib
import csv
import gc
import os
import re
import shutil
import signal
import subprocess
import tracemalloc
from pathlib import Path

import cv2
import forkserver
import numpy as np
import pytest
from conversions import STOPPED, contents, options

from runtime import console

with console.quiet_import():
    import tensorflow as tf

ROOT = Path(__file__).parent.parent
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
DONE = re.compile(r"^done: step (\d+)  weights sha256 ([0-9a-f]{64})$", re.M)


def pytest_collection_modifyitems(items):
    """The slow ones first: at the end no process waits for another."""
    items.sort(key=lambda item: "slow" not in item.keywords)


def pytest_collection_finish():
    """Garbage collections pass over what was imported, which takes them 0.2 s otherwise."""
    gc.freeze()


@contextlib.contextmanager
def memory(limit):
    """Checks that no more bytes than this are taken at any time."""
    tracemalloc.start()
    try:
        yield
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Converted data goes here, never into the home folder."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["CONVNETS_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def server(cache, tmp_path_factory):
    """Starts scripts of the project: `server.start("train.py", "--epochs=1")`."""
    server = forkserver.Server(tmp_path_factory.mktemp("output"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def command(server):
    """Runs a script of the project to its end: `command("train.py", "--epochs=1")`."""

    def run(*words):
        process = server.start(*words)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    return run


@pytest.fixture
def finished(command):
    """Trains to the end; returns the step and the digest of the last line."""

    def train(run_dir, *words):
        done = command("train.py", f"--run_dir={run_dir}", *words)
        assert done.returncode == 0, done.stderr
        return DONE.fullmatch(done.stdout.splitlines()[-1]).groups()

    return train


def step_files(run_dir):
    return sorted(path.name for path in run_dir.glob("checkpoints/step-*.safetensors"))


def killed_at(step, whole, run_dir):
    """Copies a run folder as if its training had been killed after the checkpoint of a step."""
    shutil.copytree(whole, run_dir)
    for name in step_files(run_dir):
        if name > f"step-{step:08d}.safetensors":
            (run_dir / "checkpoints" / name).unlink()
    assert step_files(run_dir)[-1] == f"step-{step:08d}.safetensors"
    return run_dir


def metrics(run_dir):
    with open(run_dir / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def curves(run_dir):
    """What TensorBoard draws: (step, value) of every scalar in a run folder, by its path."""
    found = {}
    for path in sorted(run_dir.glob("*/*tfevents*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                tensor = tf.make_ndarray(value.tensor)
                if tensor.dtype == np.float32 and tensor.ndim == 0:
                    points = found.setdefault(f"{path.parent.name}/{value.tag}", [])
                    points.append((event.step, float(tensor)))
    return {name: sorted(points) for name, points in found.items()}


def photograph(seed, height=80, width=100):
    """A picture of smooth coloured noise, uint8 [H, W, 3]."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A flat folder of 48 JPEG files in 3 class folders."""
    root = tmp_path_factory.mktemp("data") / "photographs"
    for seed in range(48):
        folder = root / f"class_{seed % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{seed}.jpg"), photograph(seed))
    return root


@pytest.fixture(scope="module")
def images(photographs, tmp_path_factory):
    """48 images, two of them unreadable."""
    root = shutil.copytree(photographs, tmp_path_factory.mktemp("images") / "images")
    for i in (7, 30):
        (root / f"class_{i % 3}" / f"{i}.jpg").write_bytes(b"no image")
    return root


@pytest.fixture
def stopped(command, tmp_path_factory):
    """Starts a conversion that gets a signal in the n-th call of a function."""
    script = tmp_path_factory.mktemp("script") / "stopped.py"
    script.write_text(STOPPED)
    return lambda number, *words: command(script, int(number), *words)


@pytest.fixture
def killed(stopped):
    """Whether a conversion died of SIGKILL in the n-th call of a function."""
    return lambda *words: stopped(signal.SIGKILL, *words).returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(images, command, tmp_path_factory):
    """What an uninterrupted conversion makes of `images`."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    assert command("-m", "data.convert", *options(images, folder)).returncode == 0
    return contents(folder)
