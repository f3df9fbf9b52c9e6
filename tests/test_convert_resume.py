"""convert: stopped at any moment and started again, it goes on and ends with the same bytes."""

import dataclasses
import json
import os
import re
import shutil
import signal
import tarfile
import threading
import time
from pathlib import Path

import pytest
from conversions import SHARDS, accounted, contents, options

from data import convert, opening
from data.conversion import conversion, description
from data.conversion.journal import Journal
from data.images.decode import Storage
from data.sources import sources
from runtime import files

# Adds two shards and no more.
SLOW = """
import itertools, sys, time
from data import convert
from data.conversion import journal

add, calls = journal.Journal.add, itertools.count(1)

def slow(*args):
    time.sleep(60 * (next(calls) > 2))
    add(*args)

journal.Journal.add = slow
convert.main(sys.argv[1:])
"""


@pytest.fixture
def finish(command):
    """Converts to the end; returns what is said on stderr."""

    def convert_all(*words):
        result = command("-m", "data.convert", *words)
        assert result.returncode == 0, result.stderr
        return result.stderr

    return convert_all


@pytest.mark.parametrize(
    ("place", "name", "nth", "kept"),
    [
        ("data.shards.records", "example_bytes", 1, 0),
        ("data.shards.records", "example_bytes", 17, 2),  # in the midst of a shard
        ("data.shards.records", "seal", 3, 2),  # written, but perhaps not on the disk
        ("data.conversion.journal", "Journal.add", 4, 3),  # on the disk, but not accounted for
        ("data.conversion.conversion", "write_description", 1, SHARDS + 1),
        (
            "data.conversion.description",
            "write",
            1,
            SHARDS + 1,
        ),  # between rejected.csv and dataset.json
        ("data.conversion.conversion", "publish", 1, SHARDS + 1),
    ],
)
def test_whole_shards_are_kept(place, name, nth, kept, images, whole, killed, finish, tmp_path):
    words = options(images, tmp_path / "out")
    assert killed(place, name, nth, *words)
    assert not (tmp_path / "out").exists()
    before = accounted(tmp_path / "out.partial")
    assert kept - 1 <= len(before) <= kept  # the last one is made safe in the background
    said = finish(*words, "--workers=1")
    assert (f"going on: {len(before)} of {SHARDS + 1} shards" in said) == bool(before)
    assert contents(tmp_path / "out") == whole
    after = {path.name: path.stat() for path in (tmp_path / "out").iterdir()}
    for name, row in before.items():
        assert row == (after[name].st_ino, after[name].st_mtime_ns)
    assert not (tmp_path / "out.partial").exists()


def test_a_disk_that_fails_for_a_while_rejects_no_image(
    images, whole, tmp_path, monkeypatch, capsys
):
    def open_failing(*args, **options):
        source = sources.open_source(*args, **options)

        def failing(scratch):
            splits = source.list_splits(scratch)
            first = splits["validation"][0]
            splits["validation"][0] = dataclasses.replace(first, path="/proc/self/mem", size=9)
            return splits  # whoever reads that file receives EIO

        return dataclasses.replace(source, list_splits=failing)

    words = list(map(str, options(images, tmp_path / "out")))
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(convert, "open_source", open_failing)
        convert.main(words)
    *_, kept, line = capsys.readouterr().err.splitlines()
    assert end.value.code == 1 and "is kept: started again" in kept
    reason = "cannot be read: Input/output error: the disk or network fails, not the image"
    assert re.fullmatch(rf"error: class_./\d+.jpg {reason}", line)
    assert len(accounted(tmp_path / "out.partial")) == SHARDS
    convert.main(words)
    assert f"going on: {SHARDS} of {SHARDS + 1} shards" in capsys.readouterr().err
    assert contents(tmp_path / "out") == whole


def test_killed_again_and_again(images, whole, killed, finish, tmp_path):
    words = options(images, tmp_path / "out")
    kept = [0]
    while killed("os", "fsync", 7, *words):  # a shard and a half
        kept.append(len(accounted(tmp_path / "out.partial")))
        assert len(kept) < 10
    assert kept == sorted(kept) and len(set(kept)) > 3
    assert contents(tmp_path / "out") == whole


def test_killed_after_the_end(images, whole, killed, tmp_path, command):
    words = options(images, tmp_path / "out")
    assert killed("data.conversion.conversion", "remove", 1, *words)
    assert contents(tmp_path / "out") == whole
    again = command("-m", "data.convert", *words)
    assert again.returncode == 2 and "holds a conversion already" in again.stderr


@pytest.mark.parametrize("archived", [False, True])
def test_other_sources_go_on_too(archived, photographs, killed, finish, tmp_path):
    data = archive(photographs, tmp_path / "archives") if archived else "digits"
    words = (data, "--shards=4")
    assert killed("data.conversion.journal", "Journal.add", 3, words[0], tmp_path / "out", words[1])
    assert "going on: 2 of 5 shards" in finish(words[0], tmp_path / "out", words[1])
    finish(words[0], tmp_path / "whole", words[1])
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def archive(photographs, folder):
    """ILSVRC2012's training images: a .tar file of one .tar file per class."""
    folder.mkdir()
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as outer:
        for i, path in enumerate(sorted(photographs.iterdir())):
            name = folder / f"n0000000{i}.tar"
            with tarfile.open(name, "w") as inner:
                for image in sorted(path.iterdir()):
                    inner.add(image, image.name)
            outer.add(name, name.name)
            name.unlink()
    return folder


def test_shards_that_all_are_rejected_go_on_too(photographs, killed, finish, tmp_path):
    root = shutil.copytree(photographs, tmp_path / "images")
    for i in range(9):
        (root / f"class_{i % 3}" / f"{i}.jpg").write_bytes(b"no image")
    words = ("--shards=48", "--validation_fraction=0")
    finish(root, tmp_path / "whole", *words)
    assert len(contents(tmp_path / "whole")) == 48 - 9 + 2
    for nth in (5, 25):
        assert killed("data.conversion.journal", "Journal.add", nth, root, tmp_path / "out", *words)
    assert killed("pathlib", "Path.rename", 3, root, tmp_path / "out", *words)
    finish(root, tmp_path / "out", *words)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_shards_of_another_conversion_are_not_used(images, whole, killed, finish, tmp_path):
    words = options(images, tmp_path / "out")
    for other in ("--seed=1", "--quality=50", "--shards=5"):
        assert killed("data.conversion.journal", "Journal.add", 5, *words, other)
        (tmp_path / "out.partial" / "scratch-0" / "spool").touch()
        said = finish(*words)
        assert "removed, it is of other images" in said and "going on" not in said
        assert contents(tmp_path / "out") == whole
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
        shutil.rmtree(tmp_path / "out")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("file", ["shards/{}", "{}.account"])
def test_what_is_damaged_is_made_again(damage, file, images, whole, tmp_path, monkeypatch, capsys):
    source, output = sources.open_source(images), tmp_path / "out"

    def run():
        conversion.convert(source, output, Storage(32), shards=SHARDS, workers=1)

    with monkeypatch.context() as patch:
        patch.setattr(conversion, "write_description", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run()
    partial = tmp_path / "out.partial"
    assert f"{partial} is kept" in capsys.readouterr().err
    before = accounted(partial)
    damage(partial / file.format("train-00001-of-00006.tfrecord"))
    run()
    said = capsys.readouterr().err
    assert "converting 7 images" in said
    assert ("train-00001-of-00006.tfrecord is damaged" in said) == file.startswith("shards")
    assert contents(output) == whole
    kept = [output / name for name in before if name != "train-00001-of-00006.tfrecord"]
    assert [path.stat().st_ino for path in kept] == [before[path.name][0] for path in kept]


def test_more_bad_files_may_be_tolerated_later(photographs, tmp_path, capsys):
    root = shutil.copytree(photographs, tmp_path / "images")
    for i in range(20):
        (root / f"class_{i % 3}" / f"{i}.jpg").write_bytes(b"no image")
    source = sources.open_source(root)
    with pytest.raises(ValueError, match="11 of 48"):
        conversion.convert(source, tmp_path / "out", Storage(32), shards=SHARDS, workers=1)
    assert (tmp_path / "out.partial").exists()
    with pytest.raises(ValueError, match="11 of 48"):
        conversion.convert(source, tmp_path / "out", Storage(32), shards=SHARDS, workers=1)
    capsys.readouterr()
    for output in ("out", "whole"):
        conversion.convert(
            source, tmp_path / output, Storage(32), shards=SHARDS, workers=1, max_bad=0.5
        )
    assert "going on: " in capsys.readouterr().err
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_folder_of_the_users_is_left_alone(images, tmp_path):
    mine = tmp_path / "out.partial"
    mine.mkdir()
    (mine / "photo.jpg").touch()
    with pytest.raises(FileExistsError, match="exists and is not the folder of a conversion"):
        conversion.convert(sources.open_source(images), tmp_path / "out", Storage(32))
    assert [path.name for path in mine.iterdir()] == ["photo.jpg"]


def test_a_second_conversion_waits_or_says_why_not(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONVNETS_CACHE", str(tmp_path / "cache"))
    add, waiting = Journal.add, threading.Event()

    def slow(*args):
        waiting.wait(60)
        add(*args)

    monkeypatch.setattr(Journal, "add", slow)
    prepare = lambda: made.append(opening.prepare(images, image_size=32, progress=False)[0])  # noqa: E731
    made = []
    first, second = (threading.Thread(target=prepare) for _ in range(2))
    first.start()
    while not (started := list(tmp_path.glob("cache/*.partial/conversion.json"))):
        time.sleep(0.01)
    output = started[0].parent.with_suffix("")
    with pytest.raises(ValueError, match="another process is converting into"):
        conversion.convert(sources.open_source(images), output, Storage())
    second.start()
    while "waiting for it" not in (said := capsys.readouterr().out):
        time.sleep(0.01)
    assert len(said.splitlines()) <= 3
    waiting.set()
    first.join()
    second.join()
    assert made == [output, output]
    assert list(output.parent.iterdir()) == [output]


def test_a_waiting_process_goes_on_where_a_killed_one_was(images, whole, server, tmp_path, capsys):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    first = server.start(script, *options(images, tmp_path / "out", "--workers=1"))
    while len(list(tmp_path.glob("out.partial/*.account"))) < 2:
        assert first.poll() is None
        time.sleep(0.02)
    source = sources.open_source(images)
    conversion.convert(
        source, tmp_path / "out", Storage(32), shards=SHARDS, workers=1, on_wait=first.kill
    )
    first.wait()
    assert "going on: 2 of 7 shards" in capsys.readouterr().err
    assert contents(tmp_path / "out") == whole


def test_a_lock_that_was_removed_is_no_claim(tmp_path):
    """A folder is removed while another process waits for it."""
    waits = []

    def on_wait():
        waits.append(files.remove(tmp_path / "out.partial"))
        first.__exit__(None, None, None)

    first = files.claimed(tmp_path / "out")
    first.__enter__()
    with files.claimed(tmp_path / "out", on_wait) as folder:
        assert waits and os.listdir(folder) == ["conversion.lock"]
        with pytest.raises(ValueError, match="another process"):
            files.claimed(tmp_path / "out").__enter__()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_who_stops_it_is_told_that_it_goes_on(number, images, whole, stopped, finish, tmp_path):
    words = options(images, tmp_path / "out")
    result = stopped(number, "data.shards.records", "example_bytes", 17, *words)
    assert result.returncode == 128 + number
    kept, error = result.stderr.splitlines()[-2:]
    assert kept.startswith(f"{tmp_path / 'out.partial'} is kept: started again")
    assert error == "error: interrupted"
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial" / "scratch-0").exists()
    assert len(accounted(tmp_path / "out.partial")) == 2
    assert "going on: 2 of 7 shards" in finish(*words)
    assert contents(tmp_path / "out") == whole


def test_a_conversion_stopped_before_its_first_shard_leaves_nothing(images, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "write_shards", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        conversion.convert(sources.open_source(images), tmp_path / "out", Storage(32))
    assert not list(tmp_path.iterdir())


def test_the_partial_folder_says_what_it_is_of(images, killed, tmp_path):
    assert killed("data.shards.records", "seal", 2, *options(images, tmp_path / "out"))
    key = json.loads((tmp_path / "out.partial" / "conversion.json").read_text())
    assert key["shards"] == {"train": SHARDS, "validation": 1}
    assert key["fingerprint"] == description.fingerprint(sources.open_source(images), Storage(32))
