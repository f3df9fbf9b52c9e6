"""The trained networks in `weights/` are what their table says."""

import hashlib
import json
import re

import pytest
from conftest import ROOT

FOLDER = ROOT / "weights"
ROW = re.compile(r"^\| (\S+\.safetensors) \| .* \| ([\d.]+) \| (.*) \| ([0-9a-f]{64}) \|$", re.M)
ROWS = ROW.findall((FOLDER / "README.md").read_text())


def test_every_file_is_in_the_table_and_they_are_small():
    files = sorted(FOLDER.glob("*.safetensors"))
    assert sorted(name for name, *_ in ROWS) == [path.name for path in files]
    assert sum(path.stat().st_size for path in files) < 12e6


@pytest.mark.parametrize("name, accuracy, images, sha256", ROWS, ids=[row[0] for row in ROWS])
def test_a_file_is_whole_names_no_place_and_classifies(name, accuracy, images, sha256, command):
    path = FOLDER / name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    header = path.read_bytes()[:20_000]
    assert b"/tmp" not in header and b"/home" not in header and b"/work" not in header
    done = command("classify.py", "data/samples/digit_3.png", f"--checkpoint={path}", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["predictions"]) == 5
    if "digits" in images:
        tested = command("test.py", path)
        assert f"top-1 {accuracy} %" in tested.stdout
