"""Strangers' folders through all commands: what was read is said, and everything after works."""

import csv
import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest
from conftest import ROOT, photograph

import models
from data import convert, opening
from data.sources import folders
from training.run_folder import data_name

pytestmark = pytest.mark.slow
LENET = ("--model=lenet5", "--batch_size=4", "--schedule=constant")


def planted(root, *names, count=6, suffix=".jpg"):
    """Class folders of a few photographs."""
    for number, name in enumerate(names):
        os.makedirs(root / name, exist_ok=True)
        for i in range(count):
            data = cv2.imencode(suffix, photograph(100 * number + i, 40, 40))[1].tobytes()
            (root / name / f"{i}{suffix}").write_bytes(data)
    return root


@pytest.fixture
def succeeds(command):
    """Runs a command that must succeed; returns its lines."""

    def run(*words):
        done = command(*words)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr and "Traceback" not in done.stderr
        return done.stdout.splitlines()

    return run


def test_a_training_says_what_it_read_and_how_it_varies_it(succeeds, tmp_path):
    root = planted(tmp_path / "x", "train/cat", "train/dog", "val/cat", "old")
    (root / "train/cat/notes.csv").touch()
    (root / "train/cat/0.jpg").write_bytes(b"")
    (root / "train/dog/gone.jpg").symlink_to("/not/mounted.jpg")
    run_dir = f"--run_dir={tmp_path}/run"
    first = succeeds("train.py", f"--data={root}", run_dir, "--max_steps=2", *LENET)
    again = succeeds("train.py", "--resume", run_dir, "--max_steps=3")
    (rejected,) = [line.split()[-1] for line in first if line.startswith("left out:")]
    for lines in (first, again):
        assert "classes: cat (5), dog (6)" in lines
        assert "passed over: 1 .csv, 1 unreadable file, folders old" in lines
        assert f"left out: 1 file that cannot be decoded, listed in {rejected}" in lines
        assert "warning: the validation split has no images of dog" in lines
        assert f"augment: {models.policy('lenet5')} (of lenet5)" in lines
    with open(rejected, newline="") as file:
        rows = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert set(rows) == {"cat/0.jpg", "dog/gone.jpg"}
    assert rows["cat/0.jpg"].startswith("an empty file")
    words = ("--augment=inception", f"--run_dir={tmp_path}/other", "--max_steps=1", *LENET)
    assert "augment: inception (as given)" in succeeds("train.py", f"--data={root}", *words)


def test_a_class_without_a_usable_image_is_refused_and_nothing_stays(command, tmp_path, cache):
    root = planted(tmp_path / "hopeless", "cat", "dog", "fish")
    for path in (root / "fish").iterdir():
        path.write_bytes(b"%PDF-1.7")
    done = command("train.py", f"--data={root}", f"--run_dir={tmp_path}/run", *LENET)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "the class fish" in error and "PDF" in error
    assert not list(cache.glob("hopeless*"))


def test_a_run_inside_its_own_data_goes_on(succeeds, tmp_path):
    root = planted(tmp_path / "photos", "cat", "dog")
    words = (f"--data={root}", f"--run_dir={root}/runs/first", "--max_steps=2", *LENET)
    assert "classes: cat (5), dog (5)" in succeeds("train.py", *words)
    assert list((root / "runs/first").rglob("*.png"))  # which are no images of a class
    succeeds("test.py", root / "runs/first")
    assert "passed over: folders runs" in succeeds(
        "train.py", "--resume", f"--run_dir={root}/runs/first", "--max_steps=4"
    )
    other = succeeds("train.py", f"--data={root}", f"--run_dir={root}/runs/second", *words[2:])
    assert "classes: cat (5), dog (5)" in other


def test_odd_names_work_everywhere(succeeds, tmp_path):
    odd = [os.fsdecode(b"caf\xe9"), "\u72ac\u3000\u732b", "\U0001f408 \U0001f415", "a\u00a0b", "$1"]
    shown = ["$1", "a\u00a0b", "caf\\xe9", "\u72ac\u3000\u732b", "\U0001f408 \U0001f415"]
    root, run_dir = planted(tmp_path / "odd", *odd, count=4), tmp_path / "run"
    succeeds("train.py", f"--data={root}", f"--run_dir={run_dir}", "--max_steps=2", *LENET)
    assert json.loads((run_dir / "run.json").read_text())["class_names"] == shown
    succeeds("test.py", run_dir)
    with open(run_dir / "test/predictions.csv", newline="", encoding="utf-8") as file:
        assert {row["label"] for row in csv.DictReader(file)} == set(shown)
    succeeds("test.py", run_dir, f"--images={root}")
    assert json.loads((run_dir / "test.json").read_text())["examples"] == 20
    succeeds("export.py", run_dir, "--format=keras")
    labels = (run_dir / "export/keras/labels.txt").read_text(encoding="utf-8")
    assert labels.split("\n") == [*shown, ""]
    succeeds("-m", "report", run_dir)
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in shown)


@pytest.mark.parametrize("bits", [12, 16])
def test_images_of_many_bits_are_the_same_to_all_commands(bits, succeeds, tmp_path):
    for number in range(16):
        name = ("dark", "light")[number % 2]
        path = tmp_path / "x" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = photograph(number, 40, 40)[..., 0].astype(np.uint16) // 3 + 120 * (name == "light")
        cv2.imwrite(str(path), grey << (bits - 8))
    run_dir = tmp_path / "run"
    words = (f"--run_dir={run_dir}", "--max_steps=20", *LENET)
    succeeds("train.py", f"--data={tmp_path}/x", *words)
    folder = json.loads((run_dir / "run.json").read_text())["data"]["folder"]
    description = json.loads((ROOT / folder / "dataset.json").read_text())
    assert description["bits"] == bits and min(description["mean"]) > 40
    succeeds("test.py", run_dir)
    answers = succeeds("classify.py", tmp_path / "x", f"--run_dir={run_dir}", "--json")
    said = map(json.loads, answers)
    first = {os.path.relpath(row["image"], tmp_path / "x"): row["predictions"][0] for row in said}
    with open(run_dir / "test/predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert row["prediction"] == first[row["filename"]]["class"]
        probability = first[row["filename"]]["probability"]
        assert float(row["probability"]) == pytest.approx(probability, abs=1e-3)


def test_an_archive_is_trained_on(succeeds, tmp_path):
    root = planted(tmp_path / "flowers", "cat", "dog")
    for kind in ("zip", "gztar"):
        path = shutil.make_archive(tmp_path / kind, kind, tmp_path, root.name)
        words = (f"--run_dir={tmp_path}/run-{kind}", "--max_steps=2", *LENET)
        assert "classes: cat (5), dog (5)" in succeeds("train.py", f"--data={path}", *words)
        succeeds("test.py", f"{tmp_path}/run-{kind}")


def test_names_are_cut_to_what_file_systems_take(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVNETS_CACHE", str(tmp_path / "cache"))
    for name in ("x" * 250, "\u732b" * 80):
        root = planted(tmp_path / name, "cat", "dog", name[0])
        folder, _ = opening.prepare(root, image_size=32, progress=False)
        assert folder.name.startswith(name[:60]) and (folder / "dataset.json").exists()
        (tmp_path / "runs" / f"{data_name(str(root))}-inception_resnet_v2").mkdir(parents=True)
        assert len(os.fsencode(folders.name_of(str(root)))) <= 200


def test_a_given_word_that_is_a_folder_too_is_refused(tmp_path, monkeypatch, capsys):
    import train

    for name in ("digits", "keras"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    train.refuse_ambiguous({})  # without flags, digits are the built-in ones
    for flag, word in {"data": "digits", "init_from": "keras"}.items():
        with pytest.raises(ValueError, match=rf"--{flag}={word} is built in.*\./{word}"):
            train.refuse_ambiguous({flag: word})
    with pytest.raises(SystemExit) as end:
        convert.main(["digits", "out"])
    assert end.value.code == 2 and "expected ./digits" in capsys.readouterr().err


def test_a_run_outlives_its_folder(succeeds, command, finished, tmp_path):
    def facts():
        return json.loads((run / "run.json").read_text())

    def refused(*words):
        done = command(*words)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    images, run = planted(tmp_path / "images", "cat", "dog"), tmp_path / "run"
    resume = ("train.py", "--resume", f"--run_dir={run}")
    typed = os.path.relpath(images, ROOT)
    finished(run, f"--data={typed}", "--max_steps=1", *LENET)
    copy = facts()["data"]["folder"]
    assert (facts()["flags"]["data"], facts()["typed"]) == (str(images), {"data": typed})
    moved = images.rename(tmp_path / "moved")
    assert f"testing on its converted copy, {copy}" in "\n".join(succeeds("test.py", run))
    assert f"--data={copy}" in refused(*resume, "--max_steps=2")
    succeeds(*resume, "--max_steps=2", f"--data={moved}")
    assert (facts()["flags"]["data"], facts()["typed"]) == (str(moved), {})
    shutil.copy(moved / "cat" / "0.jpg", moved / "cat" / "heron.jpg")
    assert "1 added (cat/heron.jpg); testing on" in "\n".join(succeeds("test.py", run))
    tested = json.loads((run / "test.json").read_text())["examples"]
    assert tested == facts()["data"]["examples"]["validation"]
    way = f"1 added (cat/heron.jpg); its converted copy still exists, continue with --data={copy}"
    assert way in refused(*resume, "--max_steps=3")
    assert finished(run, "--resume", "--max_steps=3", f"--data={copy}") == finished(
        tmp_path / "whole", f"--data={copy}", "--max_steps=3", *LENET
    )
    other = tmp_path / "other"
    finished(other, f"--data={moved}", "--max_steps=1", *LENET)
    shutil.rmtree(copy := json.loads((other / "run.json").read_text())["data"]["folder"])
    shutil.rmtree(moved)
    assert re.search(f"{moved}: .*{copy}", refused("test.py", other))
