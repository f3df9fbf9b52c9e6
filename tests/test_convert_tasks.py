"""convert by several tasks: in any order, at once or killed, they end with the same bytes."""

import collections
import errno
import fcntl
import functools
import json
import re
import shutil
import signal
import threading
import time

import pytest
from conversions import SHARDS, accounted, contents, options

from data import convert
from data.conversion import conversion, journal, tasks
from data.conversion.conversion import Conversion
from data.conversion.plan import Task
from data.images.decode import Storage
from data.sources import sources
from runtime import files
from runtime.files import BusyError

# Runs conversions at the same time, a list of their command lines; prints their exit codes.
TOGETHER = """
import json, os, sys
from data import convert

children = []
for argv in json.loads(sys.argv[1]):
    children.append(os.fork())
    if not children[-1]:
        code = 0
        try:
            convert.main(argv)
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        os._exit(code)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@pytest.fixture
def output(tmp_path):
    """What the tasks of a test make, beside `out.partial`."""
    return tmp_path / "out"


@pytest.fixture
def converts(images, output, capsys):
    """Runs the command in this process; returns its exit code and what it says."""

    def run(*words, source=images):
        capsys.readouterr()
        code = 0
        try:
            convert.main([str(word) for word in options(source, output, "--workers=1", *words)])
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def conversion_of(images, output):
    """The conversion that the command makes."""
    return functools.partial(
        Conversion, sources.open_source(images), output, Storage(32), shards=SHARDS, workers=1
    )


@pytest.fixture
def in_thread():
    """Starts a function in a thread; returns what waits for its result."""

    def start(function, *args):
        results = []
        thread = threading.Thread(target=lambda: results.append(function(*args)))
        thread.start()

        def result():
            thread.join(60)
            return results[0]

        return result

    return start


@pytest.fixture
def gate(monkeypatch):
    """Holds up a function's first call; returns two events: that it came, and that it may go on."""

    def hold(place, name):
        function, called, opened = getattr(place, name), threading.Event(), threading.Event()

        def held(*args, **kwargs):
            if not called.is_set():
                called.set()
                opened.wait(60)
            return function(*args, **kwargs)

        monkeypatch.setattr(place, name, held)
        return called, opened

    return hold


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_tasks_one_after_the_other(order, converts, whole, output):
    left = SHARDS + 1
    for i in order:
        assert not output.exists()
        code, said, _ = converts(f"--task={i}/3")
        count = 3 if i == 0 else 2
        left -= count
        what = f"still to be made: {left}" if left else "all are there"
        assert code == 0
        assert said.splitlines()[0] == f"task {i}/3: {count} of 7 shards done; {what}"
    assert "2 rejected" in said.splitlines()[1]
    assert whole["rejected.csv"].count(b"\n") == 3
    assert contents(output) == whole
    assert [path.name for path in output.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("data", ["images", "digits"])
def test_tasks_at_the_same_time(data, command, images, whole, output, tmp_path):
    words = options(images, output) if data == "images" else ("digits", output, "--shards=4")
    if data == "digits":
        assert (
            command("-m", "data.convert", "digits", tmp_path / "one", "--shards=4").returncode == 0
        )
        whole = contents(tmp_path / "one")
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    lines = [[*map(str, words), "--workers=1", f"--task={i}/3"] for i in range(3)]
    result = command(script, json.dumps(lines))
    assert result.stdout.splitlines()[-1] == "[0, 0, 0]", result.stderr
    assert len(re.findall("^/.* rejected", result.stdout, re.M)) == 1
    assert contents(output) == whole
    assert not files.partial(output).exists()


def test_a_killed_task_goes_on(converts, killed, images, whole, output):
    partial = files.partial(output)
    assert killed(
        "data.conversion.journal", "Journal.add", 2, *options(images, output, "--task=1/3")
    )
    before = accounted(partial)
    assert list(before) == ["train-00001-of-00006.tfrecord"]
    (partial / "shards" / "train-00004-of-00006.tfrecord").write_bytes(b"the first records")
    for i in (0, 2):
        assert converts(f"--task={i}/3")[0] == 0
    assert before.items() <= accounted(partial).items()

    before = accounted(partial)
    code, said, error = converts("--finish")
    expected = f"error: {partial}: missing shards: 1 of 7, those of --task=1/3\n"
    assert (code, said, error) == (2, "", expected)
    assert accounted(partial) == before and not output.exists()

    code, said, error = converts("--task=1/3")
    assert code == 0 and "going on: 1 of 2 shards" in error
    assert contents(output) == whole
    kept = {name: (output / name).stat() for name in before}
    assert {name: (row.st_ino, row.st_mtime_ns) for name, row in kept.items()} == before


@pytest.mark.parametrize(
    ("place", "name"),
    [("data.conversion.tasks", "finish"), ("data.conversion.conversion", "publish")],
)
def test_a_killed_finish_goes_on(place, name, converts, killed, images, whole, output):
    assert converts("--task=1/2")[0] == 0
    assert killed(place, name, 1, *options(images, output, "--task=0/2"))
    assert not output.exists()
    code, said, _ = converts("--finish")
    assert code == 0 and said.startswith(f"{output}: train ")
    assert contents(output) == whole
    assert not files.partial(output).exists()


def test_what_is_done_is_left_as_it_is(converts, whole, output):
    partial = files.partial(output)
    assert converts("--task=1/2")[0] == 0
    before = accounted(partial)
    code, said, _ = converts("--task=1/2")
    assert (code, said) == (0, "task 1/2: 3 of 7 shards done; still to be made: 4\n")
    assert accounted(partial) == before
    assert converts("--task=0/2")[0] == 0
    assert contents(output) == whole
    assert converts("--task=1/2") == (0, f"task 1/2: nothing to do; {output} is complete\n", "")
    assert converts("--finish") == (0, f"{output} is complete\n", "")
    for part in ("--task=1/2", "--finish"):
        code, _, error = converts(part, "--quality=50")
        assert code == 2 and "holds a conversion already" in error
    assert contents(output) == whole
    assert not files.partial(output).exists()


def test_more_tasks_than_shards(converts, output):
    surplus = functools.partial(converts, "--task=2/4", "--shards=1")
    assert surplus() == (0, "task 2/4: nothing to do; still to be made: 2\n", "")
    for i in (1, 0):
        assert converts(f"--task={i}/4", "--shards=1")[0] == 0
    assert len(contents(output)) == 2 + 2
    assert surplus() == (0, f"task 2/4: nothing to do; {output} is complete\n", "")


def test_shards_that_all_are_rejected(photographs, converts, killed, tmp_path, output):
    root = tmp_path / "images"
    for i in range(12):
        (root / f"class_{i % 3}").mkdir(parents=True, exist_ok=True)
        shutil.copy(photographs / f"class_{i % 3}" / f"{i}.jpg", root / f"class_{i % 3}")
    for i in range(3):
        (root / f"class_{i % 3}" / f"{i}.jpg").write_bytes(b"no image")
    words = ("--shards=12", "--validation_fraction=0")
    convert.main([str(root), str(tmp_path / "one"), "--short_side=32", *words])
    assert converts("--task=0/2", *words, source=root)[0] == 0
    assert killed("pathlib", "Path.rename", 3, *options(root, output, *words, "--task=1/2"))
    code, _, error = converts("--finish", *words, source=root)  # two have other names already
    assert code == 2 and "missing shards: 2 of 12, those of --task=" in error
    for i in range(2):
        assert converts(f"--task={i}/2", *words, source=root)[0] == 0
    assert len(contents(output)) == 12 - 3 + 2
    assert contents(output) == contents(tmp_path / "one")


@pytest.mark.parametrize(
    "words",
    [
        ["--task=3/3"],
        ["--task=-1/2"],
        ["--task=a/b"],
        ["--task=1/0"],
        ["--task=1"],
        ["--task=0/2/3"],
        ["--task="],
        ["--task=0/2", "--finish"],
        ["--finish"],
    ],
)
def test_wrong_values(words, converts, tmp_path):
    code, said, error = converts(*words)
    assert (code, said) == (2, "")
    assert error.startswith("error: ") and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_another_conversion_is_refused(converts, output, whole, monkeypatch):
    partial = files.partial(output)
    converts("--task=0/3")
    before = accounted(partial)
    versions = {**conversion.made_with(), "opencv": "0"}
    for words, difference in (
        (["--task=1/3", "--quality=50"], "images or options"),
        (["--finish", "--seed=1"], "images or options"),
        (["--task=1/3", "--shards=5"], "number of shards"),
        (["--task=1/2"], "number of tasks"),
        ([], "number of tasks"),
        (["--task=1/3"], "versions"),
    ):
        with monkeypatch.context() as patch:
            if difference == "versions":
                patch.setattr(conversion, "made_with", lambda: versions)
            code, said, error = converts(*words)
        expected = f"error: {partial} is of a conversion with another {difference}: expected the "
        assert (code, said) == (2, "") and error.startswith(expected)
        assert len(error.splitlines()) == 1
        assert accounted(partial) == before
    converts("--task=1/3")
    converts("--task=2/3")
    assert contents(output) == whole


def test_what_a_plain_conversion_left_is_not_a_task_s(converts, killed, images, whole, output):
    assert killed("data.conversion.journal", "Journal.add", 3, *options(images, output))
    before = accounted(files.partial(output))
    code, _, error = converts("--task=0/3")
    assert code == 2 and "another number of tasks" in error
    assert accounted(files.partial(output)) == before
    assert converts()[0] == 0
    assert contents(output) == whole


def test_two_other_conversions_begin_at_once(tmp_path, in_thread, gate):
    """The second sees what the first is of, though both find an empty folder."""
    called, opened = gate(journal, "_clear_for")
    first = in_thread(journal.Journal, tmp_path, {"tasks": 3}, print)
    called.wait(60)

    def refused():
        with pytest.raises(journal.PartialError, match="number of tasks"):
            journal.Journal(tmp_path, {"tasks": 2}, print)
        return True

    second = in_thread(refused)
    time.sleep(0.1)
    opened.set()
    assert first() and second()
    assert journal.tasks_of(tmp_path) == 3


def test_who_may_work_beside_a_task(conversion_of, whole, output, in_thread, gate):
    made = conversion_of(progress=False)
    called, opened = gate(conversion, "write_shards")
    first = in_thread(tasks.run, made, Task(1, 3))
    called.wait(60)
    with pytest.raises(BusyError, match=f"^another process is doing task 1/3 of {output}$"):
        tasks.run(made, Task(1, 3))
    with pytest.raises(BusyError, match=f"^another process is converting into {output}$"):
        conversion.convert(made.source, output, made.storage)
    assert files.partial(output).exists()
    assert not any(tasks.run(made, Task(i, 3)) for i in (0, 2))
    opened.set()
    assert first()
    assert contents(output) == whole


def test_no_task_works_beside_a_plain_conversion(conversion_of, whole, output, in_thread, gate):
    made = conversion_of(progress=False)
    called, opened = gate(conversion, "plan")
    plain = in_thread(conversion.run, made)
    called.wait(60)
    with pytest.raises(BusyError, match=f"^another process is converting into {output}$"):
        tasks.run(made, Task(1, 3))
    opened.set()
    assert plain() and contents(output) == whole


def test_of_two_that_finish_at_once_one_publishes(
    conversion_of, whole, output, in_thread, monkeypatch, capsys
):
    made, both, finish = conversion_of(progress=False), threading.Barrier(2), tasks.finish

    def together(*args):
        both.wait(60)
        return finish(*args)

    accounts = tasks.accounts_in

    def seen(*args):
        both.wait(60)  # nobody has a claim any more, and all shards are there
        return accounts(*args)

    monkeypatch.setattr(tasks, "accounts_in", seen)
    monkeypatch.setattr(tasks, "finish", together)
    results = [in_thread(tasks.run, made, Task(i, 2)) for i in range(2)]
    assert sorted(bool(result()) for result in results) == [False, True]
    said = capsys.readouterr().out.splitlines()
    assert sorted(line.split("; ")[-1] for line in said) == [
        f"{output} is complete",
        "all are there",
        "all are there",
    ]
    assert contents(output) == whole
    assert not files.partial(output).exists()


def test_a_task_waits_for_who_finishes(conversion_of, whole, output, in_thread, gate, capsys):
    made = conversion_of()
    tasks.run(made, Task(1, 2))
    called, opened = gate(conversion, "write_description")
    last = in_thread(tasks.run, made, Task(0, 2))
    called.wait(60)
    capsys.readouterr()
    again, finisher = in_thread(tasks.run, made, Task(1, 2)), in_thread(tasks.finish, made)
    said, end = "", time.monotonic() + 30
    while said.count("waiting for the process") < 2 and time.monotonic() < end:
        said += capsys.readouterr().err
        time.sleep(0.01)
    opened.set()
    assert last() and again() is None and finisher() is None
    lines = capsys.readouterr().out.splitlines()
    assert f"task 1/2: nothing to do; {output} is complete" in lines
    assert f"{output} is complete" in lines
    assert contents(output) == whole
    assert not files.partial(output).exists()


def test_too_many_bad_files_of_all_tasks_together(photographs, converts, output, tmp_path):
    root = shutil.copytree(photographs, tmp_path / "images")
    for i in range(12):
        (root / f"class_{i % 3}" / f"{i}.jpg").write_bytes(b"no image")
    assert converts("--task=0/2", source=root)[0] == 0
    code, said, error = converts("--task=1/2", source=root)
    assert code == 2 and "error: 12 of 48 images cannot be used, expected at most 10" in error
    assert f"{files.partial(output)} is kept" in error and not output.exists()
    assert converts("--finish", source=root)[0] == 2
    assert converts("--finish", "--max_bad=0.5", source=root)[0] == 0
    found = contents(output)
    shutil.rmtree(output)
    code, _, error = converts("--task=0/1", source=root)
    assert code == 2 and "error: 11 of 48 images" in error  # of one task, while it works
    shutil.rmtree(files.partial(output))
    converts("--max_bad=0.5", source=root)
    assert contents(output) == found


def test_space_is_needed_for_the_share_only(converts, output, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")(10**9, 10**9, 30_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    code, _, error = converts()  # 48 images of 1,024 bytes at most
    assert code == 2 and "too little space" in error
    assert not list(output.parent.iterdir())
    assert converts("--task=0/3")[0] == 0


def test_a_task_stopped_before_any_shard_leaves_nothing(conversion_of, output, monkeypatch):
    monkeypatch.setattr(conversion, "write_shards", lambda *_, **__: 1 / 0)
    with files.claimed(output, shared=True) as partial:
        with pytest.raises(ZeroDivisionError):
            tasks.run(conversion_of(), Task(0, 2))
        assert partial.exists()  # there is another task
    with pytest.raises(ZeroDivisionError):
        tasks.run(conversion_of(), Task(0, 2))
    assert not list(output.parent.iterdir())


def test_who_stops_a_task_is_told_that_it_goes_on(stopped, images, output):
    words = options(images, output, "--task=1/3")
    result = stopped(signal.SIGTERM, "data.shards.records", "example_bytes", 10, *words)
    assert result.returncode == 128 + signal.SIGTERM
    kept, error = result.stderr.splitlines()[-2:]
    assert kept.startswith(f"{files.partial(output)} is kept: started again")
    assert error == "error: interrupted"


def test_a_damaged_shard_is_found(converts, whole, output):
    converts("--task=0/2")
    shard = files.partial(output) / "shards" / "train-00002-of-00006.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-1])
    code, _, error = converts("--task=1/2")
    assert code == 2 and "missing shards: 1 of 7, those of --task=0/2" in error
    code, _, error = converts("--task=0/2")
    assert code == 0 and contents(output) == whole


def test_a_file_system_without_locks(converts, monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    code, _, error = converts("--task=0/2")
    assert code == 2 and "cannot lock files (No locks available)" in error
    assert len(error.splitlines()) == 1


def test_shares_are_all_the_shards_once():
    planned = list(range(7))
    for count in (1, 2, 3, 7, 9):
        shares = [Task(i, count).share(planned) for i in range(count)]
        assert sorted(sum(shares, [])) == planned
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
