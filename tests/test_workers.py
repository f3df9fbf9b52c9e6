"""workers: results in order, whatever happens to a process."""

import contextlib
import errno
import functools
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from data import doctor
from data.conversion import conversion
from data.images import sandbox, workers
from data.images.decode import Storage, Stored
from data.images.examples import Example
from data.images.workers import Rejected
from data.shards import datasets
from data.sources.sources import open_source

ROOT = Path(__file__).parent.parent


@pytest.fixture
def examples(tmp_path):
    made = []
    for i in range(70):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.full((4 + i, 4, 3), i, np.uint8))
        made.append(Example(path.name, 0, str(path)))
    return made


class Bomb:
    """Kills the process that unpickles it, as a decoder's crash would."""

    size = 0

    def __reduce__(self):
        return os.abort, ()


def test_results_come_in_order_and_bad_files_are_rejected(examples, tmp_path):
    (tmp_path / "40.png").write_bytes(b"no image")
    (tmp_path / "50.png").unlink()
    results = list(workers.stored(examples, Storage(), 2))
    rejected = {i: r.reason for i, r in enumerate(results) if isinstance(r, Rejected)}
    assert sorted(rejected) == [40, 50]
    assert "not an image" in rejected[40] and "No such file" in rejected[50]
    heights = [result.height for result in results if isinstance(result, Stored)]
    assert heights == [4 + i for i in range(70) if i not in (40, 50)]


def test_relative_paths_are_those_of_the_parent(examples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = list(workers.stored([Example("7.png", 0, "7.png")], Storage(), 1))
    assert [result.height for result in results] == [11]


def test_a_crash_costs_one_file(examples):
    examples[33] = Bomb()
    results = list(workers.stored(examples, Storage(), 2))
    assert results[33] == Rejected("decoder crashed")
    assert [result.height for result in results[34:]] == [4 + i for i in range(34, 70)]


class Doing:
    """Does something in the worker that reads it."""

    name, size = "doing", 0

    def __init__(self, *does):
        self._does = functools.partial(*does)

    def __reduce__(self):
        return functools.partial(SimpleNamespace, read=self._does), ()


READ = operator.methodcaller("read")


def test_a_file_has_so_much_time(monkeypatch):
    monkeypatch.setattr(workers, "SECONDS_PER_IMAGE", 1)
    endless = Doing(sum, range(10**15))
    stalled = Doing(time.sleep, 1.5)  # as for a disk
    late = Rejected("takes over 1 s")
    assert list(workers.map_examples([endless, stalled, endless], READ, 1)) == [late, None, late]


def test_a_stopped_machine_takes_no_time(monkeypatch):
    monkeypatch.setattr(workers, "SECONDS_PER_IMAGE", 1)
    pool = workers.WorkerPool(1)
    number = pool._workers[0]._process.pid

    def go_on():
        while Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.05)
        time.sleep(1.5)
        os.kill(number, signal.SIGCONT)

    threading.Thread(target=go_on, daemon=True).start()
    with contextlib.closing(pool):
        assert list(pool.map_examples([Doing(signal.raise_signal, signal.SIGSTOP)], READ)) == [None]


FAILED = "/proc/self/mem"  # opens, and cannot be read: EIO


def test_a_failing_disk_is_not_the_image(examples):
    examples[3] = Example("cat/3.png", 0, FAILED)
    line = "cat/3.png cannot be read: Input/output error: the disk or network fails, not the image"
    for attempt in (
        lambda: list(workers.stored(examples[:5], Storage(), 1)),
        lambda: workers.bits_in_use(examples[:5], 1),
    ):
        with pytest.raises(workers.DiskError, match=f"^{line}$"):
            attempt()
    results = list(workers.prepared(examples[:5], Storage(), 1))  # the others can be looked at
    reason = "cannot be read: Input/output error"
    assert [each for each in results if isinstance(each, Rejected)] == [results[3]]
    assert results[3].reason == reason


@pytest.mark.parametrize("number", ["ESTALE", "ETIMEDOUT", "ENXIO", "ENOENT", "EACCES", "EISDIR"])
def test_of_errors_some_are_the_disks(number):
    number = getattr(errno, number)

    def read(example):
        raise OSError(number, os.strerror(number))

    found = workers._run_guarded(Example("x", 0, "x"), read, 1)
    of_image = number in (errno.ENOENT, errno.EACCES, errno.EISDIR)
    assert found == Rejected(f"cannot be read: {os.strerror(number)}", "" if of_image else "x")


def test_a_file_has_so_much_memory(examples):
    allocate = functools.partial(np.full, sandbox.MEMORY, dtype=np.uint8)
    results = list(workers.map_examples(examples[:2], allocate, 1))
    assert results == 2 * [Rejected("needs more memory than there is")]


def test_a_mistake_of_ours_is_not_taken_for_a_bad_file(examples):
    with pytest.raises(RuntimeError, match="worker failed.*NoneType"):
        list(workers.stored(examples, None, 1))


def test_stopping_early_leaves_no_process(examples, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1]
    )
    results = workers.stored(examples, Storage(), 2)
    next(results)
    results.close()
    assert len(started) == 2 and all(process.returncode is not None for process in started)


def test_a_conversion_and_the_doctor_use_the_allowed_cores_only(photographs, tmp_path, monkeypatch):
    crews = []

    class Counted(workers.WorkerPool):
        def __init__(self, count):
            crews.append(count)
            super().__init__(count)

    monkeypatch.setattr(workers, "WorkerPool", Counted)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    source, shards, before = open_source(photographs), tmp_path / "shards", os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        conversion.convert(source, shards, Storage(short_side=8), progress=False)
        doctor.examine_source(source)
        doctor.examine_shards(datasets.described(shards))
    finally:
        os.sched_setaffinity(0, before)
    assert len(crews) >= 3 and set(crews) == {1}


PARENT = """
import subprocess, sys
from data.images import workers
from data.images.decode import Storage
from data.images.examples import Example
class Popen(subprocess.Popen):
    def __init__(self, *a, **k):
        super().__init__(*a, **k)
        print(self.pid, flush=True)
subprocess.Popen = Popen
everything = (Example("x", 0, sys.argv[1]) for _ in range(10**6))
for i, _ in enumerate(workers.stored(everything, Storage(), 2)):
    if i == 100:
        print("busy", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent_and_say_nothing(number, examples):
    command = [sys.executable, "-c", PARENT, examples[0].path]
    parent = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    lines = [parent.stdout.readline().strip() for _ in range(3)]
    assert lines[-1] == "busy"
    parent.send_signal(number)
    assert parent.communicate(timeout=20)[1] == ""
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in lines[:2]):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.05)


def test_a_terminal_that_closes_is_the_parents_affair(examples):
    pool = workers.WorkerPool(1)
    try:
        before = list(pool.prepared(examples[:1], Storage()))
        process = pool._workers[0]._process
        process.send_signal(signal.SIGHUP)
        (after,) = pool.prepared(examples[:1], Storage())
        assert not isinstance(after, Rejected) and len(before) == 1
        assert pool._workers[0]._process is process
    finally:
        pool.close()
