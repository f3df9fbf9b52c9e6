"""convert: the same bytes every time, all of it or nothing, every input accounted for."""

import collections
import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import photograph

from data import convert, opening
from data.conversion import conversion, description, estimate, plan
from data.images import decode
from data.images.decode import Storage
from data.images.examples import Example
from data.shards import datasets, records
from data.sources import sources


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Three classes of 20 JPEG files of 30 x 40 pixels and more."""
    root = tmp_path_factory.mktemp("photographs") / "photographs"
    for i in range(60):
        folder = root / f"class_{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        size = (40 + i, 30 + i)
        cv2.imwrite(str(folder / f"{i}.jpg"), cv2.resize(noise, size))
    return root


def converted(source, output, storage=None, **options):
    options = {"workers": 2, "progress": False, **options}
    return conversion.convert(source, output, storage or Storage(short_side=32), **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def rows(folder, split):
    """The records of a split, in stored order."""
    paths = sorted(map(str, Path(folder).glob(f"{split}-*.tfrecord")))
    return [records.parse(row, filename=True) for row in tf.data.TFRecordDataset(paths)]


def names(folder, split):
    return [row["filename"].numpy().decode() for row in rows(folder, split)]


def rejected(folder):
    with open(Path(folder) / "rejected.csv", newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_everything_is_stored_once_in_a_shuffled_order(photographs, tmp_path):
    source = sources.open_source(photographs)
    description = converted(source, tmp_path / "out", shards=4)
    assert json.loads((tmp_path / "out" / "dataset.json").read_text()) == description
    splits = source.list_splits(tmp_path)
    labels = {e.name: e.label for examples in splits.values() for e in examples}
    for split, examples in splits.items():
        stored = names(tmp_path / "out", split)
        assert sorted(stored) == sorted(example.name for example in examples)
        assert stored != [example.name for example in examples]
        for row in rows(tmp_path / "out", split):
            assert labels[row["filename"].numpy().decode()] == int(row["label"])
            height, width, _ = decode.decode(row["encoded"].numpy()).shape
            assert (height, width) == (int(row["height"]), int(row["width"]))
            assert height <= 32
    assert rejected(tmp_path / "out") == [["path", "reason"]]


def test_the_description_fits_the_shards(photographs, tmp_path):
    description = converted(sources.open_source(photographs), tmp_path / "out", shards=4)
    listed = {"dataset.json", "rejected.csv"}
    for split, count in (("train", 54), ("validation", 6)):
        entry = description["splits"][split]
        assert entry["examples"] == count == sum(s["examples"] for s in entry["shards"])
        for i, shard in enumerate(entry["shards"]):
            assert shard["file"] == records.shard_name(split, i, len(entry["shards"]))
            data = (tmp_path / "out" / shard["file"]).read_bytes()
            assert len(data) == shard["bytes"]
            assert hashlib.sha256(data).hexdigest() == shard["sha256"]
            listed.add(shard["file"])
    assert len(description["splits"]["train"]["shards"]) == 4
    assert set(contents(tmp_path / "out")) == listed
    assert description["class_names"] == ["class_0", "class_1", "class_2"]
    expected = {"format_version": 1, "name": "photographs", "short_side": 32, "quality": None}
    expected |= {"encoding": "auto", "bits": 16, "seed": 0, "validation_fraction": 0.1}
    assert expected.items() <= description.items()


def test_mean_and_deviation_are_those_of_the_stored_train_pixels(photographs, tmp_path):
    storage = Storage(short_side=16, encoding="raw")
    description = converted(sources.open_source(photographs), tmp_path / "out", storage)
    stored = rows(tmp_path / "out", "train")
    pixels = np.stack([np.frombuffer(row["encoded"].numpy(), np.uint8) for row in stored])
    pixels = pixels.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(description["mean"], pixels.mean(axis=0))
    np.testing.assert_allclose(description["std"], pixels.std(axis=0))


def test_the_same_bytes_with_any_number_of_workers(photographs, tmp_path):
    source = sources.open_source(photographs)
    for workers in (1, 3):
        converted(source, tmp_path / str(workers), workers=workers, shards=3)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    other = sources.open_source(photographs, seed=1)
    converted(other, tmp_path / "other", shards=3)
    assert names(tmp_path / "other", "train") != names(tmp_path / "1", "train")


def test_small_jpegs_keep_their_bytes(photographs, tmp_path):
    source = sources.open_source(photographs, validation_fraction=0)
    converted(source, tmp_path / "out", Storage(short_side=0))
    for row in rows(tmp_path / "out", "train"):
        path = photographs / row["filename"].numpy().decode()
        assert row["encoded"].numpy() == path.read_bytes()


def damaged_copy(photographs, folder, count):
    root = folder / "damaged"
    shutil.copytree(photographs, root)
    files = sorted(root.rglob("*.jpg"))[:count]
    for file in files:
        file.write_bytes(b"this, is\nno image")
    return root, [str(file.relative_to(root)) for file in files]


def test_bad_files_are_listed_and_left_out(photographs, tmp_path):
    root, bad = damaged_copy(photographs, tmp_path, 10)
    description = converted(sources.open_source(root), tmp_path / "out")
    table = rejected(tmp_path / "out")
    assert table[0] == ["path", "reason"]
    assert sorted(path for path, _ in table[1:]) == bad
    assert all("not an image" in reason for _, reason in table[1:])
    assert description["rejected"] == 10
    stored = names(tmp_path / "out", "train") + names(tmp_path / "out", "validation")
    assert len(stored) == 50 and not set(stored) & set(bad)
    assert (root / bad[0]).read_bytes() == b"this, is\nno image"


def test_too_many_bad_files_stop_the_conversion(photographs, tmp_path):
    root, bad = damaged_copy(photographs, tmp_path, 11)
    with pytest.raises(ValueError, match=r"^11 of 60 images .*\.jpg \(not an image") as error:
        converted(sources.open_source(root), tmp_path / "out")
    listed = tmp_path / "out.rejected.csv"
    assert str(listed) in str(error.value) and "--max_bad" in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", listed.name]
    with open(listed, newline="") as file:
        assert sorted(row["path"] for row in csv.DictReader(file)) == bad
    converted(sources.open_source(root), tmp_path / "out", max_bad=0.2)
    assert len(rejected(tmp_path / "out")) == 12
    assert not listed.exists()


@pytest.mark.parametrize(("bad", "said"), [("abc", "of the train split"), ("b", "of the class b")])
def test_a_split_or_a_class_without_images_left_is_an_error(bad, said, tmp_path):
    for i in range(12):
        path = tmp_path / "x" / "abc"[i % 3] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), photograph(i))
        if path.parent.name in bad:
            path.write_bytes(b"%PDF-1.7")
    with pytest.raises(ValueError, match=f"{said}.* can be used: .*jpg .*PDF"):
        converted(sources.open_source(tmp_path / "x"), tmp_path / "out", max_bad=1)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_was_read_is_described(photographs, tmp_path):
    root = shutil.copytree(photographs, tmp_path / "x")
    for name, data in {"0.jpg": b"", "a.cr2": b"", "@eaDir/1.jpg": b"", "old/9.png": b""}.items():
        path = root / "class_0" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (root / "class_1" / "gone.jpg").symlink_to("/not/mounted.jpg")
    cv2.imwrite(str(root / "class_0" / "old" / "9.png"), photograph(99))
    description = converted(sources.open_source(root), tmp_path / "out", Storage(32))
    splits = description["splits"]
    assert np.add(splits["train"]["classes"], splits["validation"]["classes"]).tolist() == [
        20,
        20,
        20,
    ]
    assert sum(splits["train"]["classes"]) == splits["train"]["examples"]
    assert description["passed_over"] == ["1 .cr2", "1 unreadable file", "folders @eaDir"]
    assert description["joined"] == "class_0 (old)"
    assert (description["rejected"], description["unreadable"]) == (2, 1)
    told = opening.summary_lines(datasets.load(tmp_path / "out"))
    assert told[0].startswith("classes: class_0 (")
    assert told[1:] == [
        "joined, each into one class: class_0 (old)",
        "passed over: 1 .cr2, 1 unreadable file, folders @eaDir",
        f"left out: 1 file that cannot be decoded, listed in {tmp_path}/out/rejected.csv",
    ]


SIXTEEN_BIT = ((255, 8), (256, 10), (1023, 10), (2672, 12), (16383, 14), (16384, 16), (65535, 16))


@pytest.mark.parametrize(("largest", "bits"), SIXTEEN_BIT)
def test_images_of_16_bits_are_scaled_by_those_that_train_uses(largest, bits, tmp_path):
    pixels = np.linspace(0, largest, 30 * 30 * 3).astype(np.uint16).reshape(30, 30, 3)
    for split, name, image in (
        ("train", "a/1", pixels),
        ("train", "b/1", pixels // 2),
        ("train", "b/2", (pixels // 256).astype(np.uint8)),  # of 8 bits: is not scaled
        ("val", "a/2", pixels * (2 if largest < 32768 else 1)),
    ):
        path = tmp_path / "x" / split / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        description = converted(sources.open_source(tmp_path / "x"), folder, workers=workers)
        assert description["bits"] == bits
        stored = {row["filename"].numpy().decode(): row for row in rows(folder, "train")}
        stored |= {row["filename"].numpy().decode(): row for row in rows(folder, "validation")}
        images = {
            name: np.frombuffer(row["encoded"].numpy(), np.uint8).reshape(30, 30, 3)[..., ::-1]
            for name, row in stored.items()
        }
        np.testing.assert_array_equal(images["a/1.png"], pixels >> (bits - 8))
        np.testing.assert_array_equal(images["b/1.png"], pixels // 2 >> (bits - 8))
        np.testing.assert_array_equal(images["b/2.png"], pixels // 256)
        other = np.minimum(pixels * (2 if largest < 32768 else 1), 2**bits - 1)
        np.testing.assert_array_equal(images["a/2.png"], other >> (bits - 8))
    assert datasets.load(tmp_path / "1").storage["bits"] == bits


@pytest.mark.parametrize(("colour", "side"), [(False, 64), (True, 64), (False, 65)])
def test_small_grey_images_are_known(colour, side, tmp_path):
    for number in range(4):
        for suffix in ("png", "jpg"):
            path = tmp_path / "x" / "ab"[number % 2] / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = photograph(number, side, 30)
            cv2.imwrite(str(path), image if colour and number == 3 else image[..., 0])
    description = converted(sources.open_source(tmp_path / "x"), tmp_path / "out", Storage(256))
    assert description["small_grey"] is (not colour and side == 64)


def test_splits_say_how_they_are_stored(tmp_path):
    for split, suffixes in {
        "train": ("png", "bmp"),
        "val": ("jpg",),
        "test": ("jpg", "png"),
    }.items():
        for number, suffix in enumerate(2 * suffixes):
            path = tmp_path / "x" / split / "ab"[number % 2] / f"{number}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), photograph(number))
    description = converted(sources.open_source(tmp_path / "x"), tmp_path / "out", Storage(128))
    encodings = {name: split["encoding"] for name, split in description["splits"].items()}
    assert encodings == {"train": "raw", "validation": "jpeg", "test": "mixed"}
    for row in rows(tmp_path / "out", "train"):
        original = cv2.imread(str(tmp_path / "x/train" / row["filename"].numpy().decode()))
        assert row["encoded"].numpy() == original[..., ::-1].tobytes()


def test_shards_left_empty_are_left_out(photographs, tmp_path):
    root, bad = damaged_copy(photographs, tmp_path, 9)
    source = sources.open_source(root, validation_fraction=0)
    description = converted(source, tmp_path / "out", shards=60)
    shards = description["splits"]["train"]["shards"]
    assert [shard["examples"] for shard in shards] == [1] * 51
    assert shards[-1]["file"] == "train-00050-of-00051.tfrecord"


@pytest.mark.parametrize(
    ("count", "size", "storage", "expected"),
    [
        (5_000, 130_000, Storage(), 1250),
        (5_000_000, 100_000, Storage(64), 4883),  # 1,024 shards
        (5_000, 5 << 20, Storage(short_side=0), 25),  # 128 MiB
        (5_000_000, 5 << 20, Storage(short_side=0), 25),
        (10, 1 << 30, Storage(short_side=0), 1),
        (5_000, 5 << 20, Storage(256, encoding="raw"), 341),  # 64 MiB
    ],
)
def test_a_shard_fits_into_memory(count, size, storage, expected):
    examples = [Example("x", 0, "x", 0, size)] * count
    assert plan._examples_per_shard(examples, storage, None) == expected
    assert plan._examples_per_shard(examples, storage, 2) == count / 2


def test_outputs_that_are_taken_are_refused(photographs, tmp_path):
    source = sources.open_source(photographs)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    (tmp_path / "empty").mkdir()
    converted(source, tmp_path / "empty")
    before = contents(tmp_path / "empty")
    for taken in ("mine", "empty"):
        with pytest.raises(ValueError, match=taken):
            converted(source, tmp_path / taken)
    assert contents(tmp_path / "empty") == before
    for wrong in ({"shards": 0}, {"workers": 0}, {"max_bad": 2}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            converted(source, tmp_path / "out", **wrong)


def test_too_little_space_is_found_before_the_work(photographs, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")(10**9, 10**9, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="too little space"):
        converted(sources.open_source(photographs), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_many_images_are_estimated_from_a_sample(photographs, tmp_path, monkeypatch, capsys):
    source = sources.open_source(photographs)
    converted(source, tmp_path / "few", progress=True)
    assert "free" not in capsys.readouterr().err
    monkeypatch.setattr(estimate, "_MANY_PER_WORKER", 29)
    converted(source, tmp_path / "many", progress=True)
    line = capsys.readouterr().err.splitlines()[0]
    assert re.fullmatch(r"60 images: about \d+ s, 0\.\d MB of .* GB that are free", line)
    assert contents(tmp_path / "few") == contents(tmp_path / "many")
    expected = estimate.estimate(
        source.list_splits(tmp_path)["train"] * 2, Storage(32), 2, tmp_path
    )
    described = json.loads((tmp_path / "few" / "dataset.json").read_text())["splits"]["train"]
    size = sum(shard["bytes"] for shard in described["shards"])
    assert expected.images == 108 and expected.bytes == pytest.approx(2 * size, rel=0.01)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few", "many"]


def test_an_estimate_in_words():
    long = estimate.Estimate(1_281_167, 12_345, 43_210_000_000)
    assert str(long) == "1,281,167 images: about 3 h 25 min, 43.2 GB"
    assert str(estimate.Estimate(60_000, 301, 66_234_567)).endswith("about 5 min 1 s, 66.2 MB")


def test_the_estimate_decides_whether_there_is_space(monkeypatch):
    usage = collections.namedtuple("usage", "total used free")(10**12, 0, 5 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    examples = [Example("x", 0, "x", 0, 10**6)] * 10**5
    few = estimate.Estimate(10**5, 1, 4 * 10**9)
    assert estimate.check_space("x", examples, Storage(), few) == usage.free
    with pytest.raises(OSError, match="x: expected 6.6 GB, 5.0 GB are free"):
        estimate.check_space("x", examples, Storage(), None)
    with pytest.raises(OSError, match="x: expected 5.2 GB"):
        estimate.check_space("x", examples, Storage(), estimate.Estimate(1, 1, 4_950_000_000))


def test_digits(tmp_path):
    source = sources.open_source("digits")
    description = converted(source, tmp_path / "out", source.storage)
    assert {split: entry["examples"] for split, entry in description["splits"].items()} == {
        "train": 1437,
        "validation": 360,
    }
    assert description["encoding"] == "raw" and description["short_side"] == 8
    assert len(rows(tmp_path / "out", "validation")[0]["encoded"].numpy()) == 8 * 8 * 3
    assert "scratch" not in str(sorted(contents(tmp_path / "out")))


def test_prepare_converts_once_and_again_after_a_change(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONVNETS_CACHE", str(tmp_path / "cache"))
    root = shutil.copytree(photographs, tmp_path / "my photos")

    def prepare(**options):
        return opening.prepare(root, progress=False, **{"image_size": 32, **options})[0]

    first = prepare()
    assert re.fullmatch(r"my_photos-[0-9a-f]{16}", first.name)
    times = {path: path.stat().st_mtime_ns for path in first.glob("*.tfrecord")}
    assert prepare() == first
    assert {path: path.stat().st_mtime_ns for path in first.glob("*.tfrecord")} == times
    assert [line.split()[2] for line in capsys.readouterr().out.splitlines()] == [
        "converting,",
        "converted",
    ]
    assert prepare(image_size=224) == first  # both are stored at 256 pixels
    assert prepare(image_size=299) != first
    assert prepare(validation_fraction=0.5) != first
    (root / "class_0" / "0.jpg").unlink()
    assert prepare() != first


def test_what_is_passed_over_is_that_of_today(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVNETS_CACHE", str(tmp_path / "cache"))
    root = shutil.copytree(photographs, tmp_path / "x")
    first = opening.open_dataset(root, image_size=32, progress=False)
    assert first.passed_over == ()
    (root / "class_0" / "a.cr2").touch()
    again = opening.open_dataset(root, image_size=32, progress=False)
    assert again.folder == first.folder and again.passed_over == ("1 .cr2",)
    assert opening.summary_lines(again)[1] == "passed over: 1 .cr2"


def test_prepare_takes_shards_as_they_are(photographs, tmp_path):
    converted(sources.open_source(photographs), tmp_path / "out")
    assert opening.prepare(tmp_path / "out", image_size=32) == (tmp_path / "out", None)
    assert not opening.is_converted(photographs) and not opening.is_converted("digits")
    labels = tmp_path / "theirs" / "dataset.json"  # as StyleGAN's tools write it
    labels.parent.mkdir()
    labels.write_text('{"labels": [["00000/img00000000.png", 6]]}')
    assert not opening.is_converted(labels.parent)
    (tmp_path / "out" / "dataset.json").unlink()
    assert opening.is_converted(tmp_path / "out")
    with pytest.raises(ValueError, match="val_data"):
        opening.prepare(tmp_path / "out", image_size=32, val_data=photographs)


def test_of_two_conversions_at_once_the_first_wins(photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVNETS_CACHE", str(tmp_path))
    describe = conversion.write_description

    def overtaken(folder, source, storage, written):
        other = tmp_path / f"{source.name}-{description.fingerprint(source, storage)[:16]}"
        other.mkdir()
        (other / "dataset.json").write_text("the other's")
        return describe(folder, source, storage, written)

    monkeypatch.setattr(conversion, "write_description", overtaken)
    folder, _ = opening.prepare(photographs, image_size=32, progress=False)
    assert contents(folder)["dataset.json"] == b"the other's"
    assert list(tmp_path.iterdir()) == [folder]


def test_the_command(photographs, tmp_path, command):
    options = ("--short_side=16", "--encoding=raw", "--workers=1")
    result = command("-m", "data.convert", photographs, tmp_path / "out", *options)
    assert result.returncode == 0
    assert "train 54, validation 6; 3 classes; 0 rejected" in result.stdout
    assert [line.split()[0] for line in result.stderr.splitlines()] == ["converting", "converted"]
    description = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert (description["short_side"], description["encoding"]) == (16, "raw")


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (["/nonexistent", "out"], 2, "nonexistent"),
        (["digits", "out", "--no_such_flag"], 2, "no_such_flag"),
        (["digits", "out", "--short_side=0"], 2, "short_side"),
        (["BAD", "out"], 2, "train split"),
    ],
)
def test_errors_of_the_command(arguments, code, word, tmp_path, monkeypatch, capsys):
    for i in range(4):
        path = tmp_path / "BAD" / f"{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"bad")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        convert.main(arguments)
    assert end.value.code == code
    printed = capsys.readouterr().err.splitlines()
    errors = [line for line in printed if line.startswith("error: ")]
    assert len(errors) == 1 and word in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["BAD"]
