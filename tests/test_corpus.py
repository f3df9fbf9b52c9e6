"""Strangers' files: the same outcome in conversion, doctor and classify.py; nothing is lost."""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys

import corpus
import pytest
from conftest import ROOT

from data import doctor
from data.conversion import conversion
from data.images import decode
from data.shards import datasets
from data.sources import sources

SECONDS, BYTES = 5, 2 << 30  # that one file may cost


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of one class, and the names of its images and of its other files."""
    folder = tmp_path_factory.mktemp("corpus") / "images" / "class"
    folder.mkdir(parents=True)
    sound, bad = corpus.write(folder)
    (folder.parent / "other").mkdir()
    (folder.parent / "other" / "1.jpg").write_bytes((folder / "plain.jpg").read_bytes())
    return folder, sound, bad


def test_there_are_many(files):
    _, sound, bad = files
    assert len(sound) + len(bad) >= 100 and len(bad) > 60


def test_conversion_stores_the_images_and_lists_the_others(files, tmp_path):
    folder, sound, bad = files
    before = sorted(os.listdir(folder))
    source = sources.open_source(folder.parent, validation_fraction=0.0)
    conversion.convert(
        source, tmp_path / "shards", decode.Storage(32), max_bad=1.0, workers=2, progress=False
    )
    with open(tmp_path / "shards" / "rejected.csv", newline="", errors="surrogateescape") as file:
        rejected = {os.path.basename(row["path"]): row["reason"] for row in csv.DictReader(file)}
    assert set(rejected) == bad
    assert all(reason and "\n" not in reason for reason in rejected.values())
    assert datasets.load(tmp_path / "shards").num_examples("train") == len(sound) + 1
    assert sorted(os.listdir(folder)) == before


def test_the_doctor_finds_the_same(files):
    folder, sound, bad = files
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        doctor.main([str(folder.parent), "--json", "--validation_fraction=0", "--workers=2"])
    out.seek(0)
    unusable = {"unreadable", "no_image", "truncated", "damaged", "too_large"}
    found = {
        os.path.basename(place["image"])
        for finding in json.loads(out.read())["findings"]
        if finding["kind"] in unusable
        for place in finding["places"]
    }
    assert found == bad


def test_classify_says_the_same(files, tmp_path, command):
    folder, sound, bad = files
    done = command("train.py", "--max_steps=1", f"--run_dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    done = command("classify.py", f"--run_dir={tmp_path}/run", "--json", folder)
    assert done.returncode == 1
    results = [json.loads(line) for line in done.stdout.splitlines()]
    named = {os.path.basename(result["image"]): result for result in results}
    assert len(named) == len(results)
    assert {name for name, result in named.items() if "predictions" in result} == sound
    assert {name for name, result in named.items() if "error" in result} == bad


COSTS = """
import re, sys, time
from pathlib import Path
from data.images import workers
from data.images.decode import Storage
from data.images.examples import Example

slowest = 0
for path in Path(sys.argv[1]).iterdir():
    begin = time.perf_counter()
    workers.store_example(Example(path.name, 0, str(path)), Storage())
    slowest = max(slowest, time.perf_counter() - begin)
status = Path("/proc/self/status").read_text()  # getrusage counts the parent, which forked
print(slowest, 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]))
"""


def test_no_file_costs_much(files):
    words = [sys.executable, "-c", COSTS, files[0]]
    seconds, memory = subprocess.check_output(words, cwd=ROOT, text=True).split()
    assert float(seconds) < SECONDS and int(memory) < BYTES
