"""The checks of a machine with a GPU, in a dry run on the CPU, and how a check ends."""

import functools
import importlib
import json
import signal
import time
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import checks, forked
from benchmarks.gpu.jobs import Jobs
from benchmarks.gpu.sections import Section

FAKES = """
import subprocess
import sys
import time


def endless(options, section):
    section.header("number", "process")
    words = [sys.executable, "-c", "import time; time.sleep(600)"]
    section.row("1", subprocess.Popen(words, start_new_session=True).pid)
    time.sleep(600)


def broken(options, section):
    section.header("number", "square")
    section.row("2", "4")
    raise ValueError("out of numbers")
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Runs a function of `FAKES` as a check."""
    (tmp_path / "fakes.py").write_text(FAKES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def run(name, limit):
        check = checks.Check(name, name.title(), f"fakes:{name}", limit)
        return checks.run(check, {}, tmp_path / "logs", tmp_path / "work")

    return run


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_check_is_killed_at_its_limit_and_keeps_its_rows(fake):
    began = time.perf_counter()
    section = fake("endless", 5)
    assert time.perf_counter() - began < 30
    (header, (number, process)) = section["rows"]
    assert header == ["number", "process"] and number == "1"
    assert section["failed"] == "it was stopped at its limit of 5 s"
    time.sleep(0.1)
    assert not is_alive(int(process))


def test_a_check_that_fails_keeps_its_rows_and_says_why(fake):
    section = fake("broken", 60)
    assert section["rows"] == [["number", "square"], ["2", "4"]]
    assert section["failed"] == "ValueError: out of numbers"
    assert section["title"] == "Broken"


def test_without_a_gpu_it_is_one_error_line(monkeypatch, capsys):
    monkeypatch.setattr(tables, "_gpus", list)
    with pytest.raises(SystemExit) as ended:
        gpu.main([])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "finds no NVIDIA GPU; --dry_run" in line


def test_a_process_that_fails_is_quoted_by_its_error(tmp_path):
    jobs = Jobs(Namespace(logs=tmp_path, work=tmp_path, dry_run=False), 1)
    done = jobs.run("-c", "import sys; print(1); sys.exit('error: two is not one')")
    assert (done.code, done.output) == (1, "1\n")
    assert done.line == "error: two is not one"
    assert jobs.run("-c", "import os; print(os.environ['A'])", environment={"A": "b"}).line == "b"


def test_a_process_of_a_dry_run_is_a_fork(tmp_path, monkeypatch):
    """With nothing preloaded, which would take seconds."""
    monkeypatch.setattr(forked, "PRELOADED", "json")
    script, files = tmp_path / "script.py", (tmp_path / "output", tmp_path / "errors")
    script.write_text("import os, sys; print(sys.argv[1:], os.environ['A']); sys.exit('no')")
    process = forked.Process([str(script), "--one"], {"A": "b"}, *files)
    assert process.wait() == process.poll() == 1
    assert [file.read_text() for file in files] == ["['--one'] b\n", "no\n"]
    script.write_text("import time; time.sleep(600)")
    process = forked.Process([str(script)], {}, *files)
    assert process.poll() is None
    process.kill()
    assert process.wait() == -signal.SIGKILL


@pytest.fixture
def here(server, monkeypatch):
    """Checks run in this process; what they start, in forks of the tests' server."""

    def run(check, options, logs, work, keep):
        logs.mkdir(parents=True)
        work.mkdir()
        section = Section(work / "section.json", check.title)
        module, name = check.function.split(":")
        function = getattr(importlib.import_module(module), name)
        function(Namespace(**options, logs=str(logs), work=str(work)), section)
        return {**section.content(), "seconds": 1, "date": "2026-01-01"}

    def start(words, environment, output, errors):
        process = server.start(*words, stdout=output, stderr=errors, environment=environment)
        process.wait = functools.partial(process.wait, 600)  # looks again and again, others start
        return process

    monkeypatch.setattr(checks, "run", run)
    monkeypatch.setattr(forked, "Process", start)


@pytest.mark.slow
def test_a_dry_run_reports_every_check_and_keeps_what_it_does_not_run_again(
    here, command, tmp_path
):
    output = f"--output={tmp_path}"
    gpu.main(["--dry_run", "--all", output, f"--logs={tmp_path / 'logs'}"])
    report = json.loads((tmp_path / "gpu-dry_run.json").read_text())
    page = (tmp_path / "gpu-dry_run.md").read_text()
    assert list(report["sections"]) == list(checks.CHECKS)
    for name, check in checks.CHECKS.items():
        section = report["sections"][name]
        assert f"## {check.title}\n" in page
        assert section["failed"] is None
        assert section["rows"] or section["notes"][0].startswith("Left out: "), name
    assert "**no**" not in page
    assert any((tmp_path / "logs" / "commands").glob("*.stdout"))

    before = report["sections"]
    done = command("-m", "benchmarks.gpu", "--dry_run", "--only=memory", output)
    assert done.returncode == 0, done.stderr
    after = json.loads((tmp_path / "gpu-dry_run.json").read_text())["sections"]
    assert {**after, "memory": None} == {**before, "memory": None}
    assert after["memory"]["failed"] is None and after["memory"] != before["memory"]
