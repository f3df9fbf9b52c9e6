"""Candidates for `benchmarks.turns`, which import no framework."""

import subprocess
import sys
import time
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np


def counting(setting, *, cost=0.0):
    while True:
        time.sleep(cost)
        yield np.zeros([setting.batch_size, setting.size, setting.size, 3], np.uint8)


def littering(setting):
    """Leaves shared memory and a process that does not end."""
    memory = shared_memory.SharedMemory(setting.folder, create=True, size=1)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", setting.folder])
    while memory:
        yield [0] * setting.batch_size


def broken_later(setting):
    yield np.zeros([setting.batch_size])
    raise ValueError("out of images")


def meeting(setting, *, own, other):
    """Needs another candidate that starts at the same time."""
    Path(own).touch()
    deadline = time.monotonic() + 20
    while not Path(other).exists():
        if time.monotonic() > deadline:
            raise TimeoutError("nobody came")
        time.sleep(0.02)
    yield from counting(setting)


def area(network, size):
    """Stands for `stacks.multiply_adds`."""
    return size**2
