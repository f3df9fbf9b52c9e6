"""The checks of a machine with a GPU, in a dry run on the CPU, and how a check ends."""

import json
import os
import time
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import tables
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import checks
from benchmarks.gpu.jobs import Jobs

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


@pytest.mark.slow
def test_a_dry_run_reports_every_check_and_keeps_what_it_does_not_run_again(command, tmp_path):
    words = ["-m", "benchmarks.gpu", "--dry_run", f"--output={tmp_path}"]
    done = command(*words, "--all", f"--logs={tmp_path / 'logs'}")
    assert done.returncode == 0, done.stdout + done.stderr
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
    assert command(*words, "--only=memory").returncode == 0
    after = json.loads((tmp_path / "gpu-dry_run.json").read_text())["sections"]
    assert {**after, "memory": None} == {**before, "memory": None}
    assert os.listdir(tmp_path / "logs" / "memory") == ["check.log"]
