import json

import cv2
import numpy as np
import pytest

from data import datasets, foreign, records


def serialized(label, image_format="JPEG", **without):
    extension = {"JPEG": ".jpg", "PNG": ".png"}[image_format]
    encoded = cv2.imencode(extension, np.full([6, 8, 3], 40 * label, np.uint8))[1].tobytes()
    sizes = {"height": 6, "width": 8, **without}
    return records.example_bytes(
        encoded=encoded, format=image_format, label=label, filename=f"{label}", **sizes
    )


@pytest.fixture
def converted(tmp_path):
    """A folder as a conversion leaves it: two shards of training images and one of validation."""
    splits = {}
    for split, labels in (("train", [[0, 1], [1]]), ("validation", [[0]])):
        shards = []
        for index, of_shard in enumerate(labels):
            name = records.shard_name(split, index, len(labels))
            facts = records.write_shard(tmp_path / name, map(serialized, of_shard))
            row = zip(("examples", "bytes", "sha256"), facts, strict=True)
            shards.append({"file": name, **dict(row)})
        splits[split] = {"examples": sum(map(len, labels)), "shards": shards}
    description = {
        "format_version": 1,
        "name": "two",
        "class_names": ["cat", "dog"],
        "mean": [1.0, 2.0, 3.0],
        "std": [4.0, 5.0, 6.0],
        "short_side": 256,
        "quality": 95,
        "encoding": "jpeg",
        "fingerprint": "abc",
        "splits": splits,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    return tmp_path


def describe(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_load(converted):
    dataset = datasets.load(str(converted), verify=True)
    assert dataset.class_names == ("cat", "dog") and dataset.num_classes == 2
    assert dataset.mean == (1, 2, 3) and dataset.std == (4, 5, 6)
    assert dataset.storage == {"short_side": 256, "quality": 95, "encoding": "jpeg"}
    assert (dataset.fingerprint, dataset.label_offset) == ("abc", 0)
    assert dataset.encodings == {"train": "jpeg", "validation": "jpeg"}
    assert (dataset.class_counts, dataset.passed_over, dataset.rejected) == ({}, (), 0)
    counts = [dataset.num_examples(split) for split in ("train", "validation", "test")]
    assert counts == [3, 1, 0]
    assert [shard.examples for shard in dataset.shards("train")] == [2, 1]
    assert dataset.shards("train")[1].path == str(converted / "train-00001-of-00002.tfrecord")


def test_what_a_description_says_of_its_splits(converted):
    splits = json.loads((converted / "dataset.json").read_text())["splits"]
    splits["train"] |= {"encoding": "mixed", "classes": [1, 2]}
    splits["validation"] |= {"encoding": "png", "classes": None}
    said = {"passed_over": ["24 .cr2", "folders @eaDir"], "rejected": 3}
    storage = {"short_side": 256, "quality": None, "encoding": "auto", "bits": 12}
    describe(converted, splits=splits, **said, **storage)
    dataset = datasets.load(converted)
    assert dataset.encodings == {"train": "mixed", "validation": "png"}
    assert dataset.class_counts == {"train": (1, 2)}
    assert (dataset.passed_over, dataset.rejected) == (("24 .cr2", "folders @eaDir"), 3)
    assert dataset.storage == storage


def test_older_descriptions_say_one_encoding_for_all_splits(converted):
    describe(converted, encoding="raw")
    assert datasets.load(converted).encodings == {"train": "raw", "validation": "raw"}


def test_missing_and_cut_shards_are_named(converted):
    shard = converted / "train-00001-of-00002.tfrecord"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"{shard} is damaged, expected {len(whole)} bytes"):
        datasets.load(converted)
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard} is missing"):
        datasets.load(converted)


def test_a_flipped_bit_is_found_by_verify(converted):
    shard = converted / "validation-00000-of-00001.tfrecord"
    content = bytearray(shard.read_bytes())
    content[50] ^= 1
    shard.write_bytes(content)
    datasets.load(converted)
    with pytest.raises(ValueError, match=f"{shard} is damaged, expected sha256"):
        datasets.load(converted, verify=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 2},
        {"splits": {"train": {"shards": [{"file": "../x", "examples": 1}]}}},
        {"splits": {"train": {"shards": [
            {"file": "../x", "examples": 1, "bytes": 1, "sha256": ""}
        ]}}},
        {"class_names": None},
        {"encoding": "webp"},
        {"encoding": "auto"},  # of no split, where they do not say it
        {"record_encoding": "png"},
    ],
)  # fmt: skip
def test_a_description_of_no_use_is_one_line(converted, changes):
    describe(converted, **changes)
    with pytest.raises(ValueError, match="format_version 1") as error:
        datasets.load(converted)
    assert "\n" not in str(error.value) and str(converted) in str(error.value)


def test_damaged_json(converted):
    (converted / "dataset.json").write_text('{"format_version": 1,')
    with pytest.raises(ValueError, match=r"dataset.json is damaged, expected JSON"):
        datasets.load(converted)


def test_folders_without_data(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        datasets.load(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no data set"):
        datasets.load(tmp_path)


def write_foreign(folder, names_and_labels, **options):
    folder.mkdir(exist_ok=True)
    for name, labels in names_and_labels.items():
        records.write_shard(folder / name, [serialized(label, **options) for label in labels])
    return folder


def test_shards_of_model_garden(tmp_path, capsys):
    folder = write_foreign(
        tmp_path / "imagenet",
        {
            "train-00000-of-00002": [2, 1],
            "train-00001-of-00002": [3],
            "validation-00000-of-00001": [2],
        },
    )
    dataset = datasets.load(folder)
    assert dataset.class_names == ("class_0", "class_1", "class_2")
    assert dataset.label_offset == 1
    assert dataset.encodings == {"train": "jpeg", "validation": "jpeg"}
    assert [shard.examples for shard in dataset.shards("train")] == [2, 1]
    assert dataset.num_examples("validation") == 1
    assert dataset.class_counts == {"train": (1, 1, 1), "validation": (0, 1, 0)}
    assert "3 classes, labels from 1" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir())[0].startswith("train")  # nothing added


def test_shards_of_slim_with_names(tmp_path):
    folder = write_foreign(
        tmp_path / "flowers",
        {
            "flowers_train_00000-of-00001.tfrecord": [1],
            "flowers_validation_00000-of-00001.tfrecord": [1],
        },
        image_format="PNG",
    )
    (folder / "labels.txt").write_text("\ufeff0:daisy\r\n1:dandelion\n2:roses\n")
    dataset = datasets.load(folder)
    assert dataset.class_names == ("daisy", "dandelion", "roses")
    assert dataset.label_offset == 0
    assert dataset.encodings == {"train": "unknown", "validation": "unknown"}
    (folder / "labels.txt").write_text("0:background\n1:daisy\n")
    dataset = datasets.load(folder)
    assert (dataset.class_names, dataset.label_offset) == (("daisy",), 1)


def test_jpegs_of_unknown_size_are_opened_like_any_image(tmp_path):
    folder = write_foreign(tmp_path / "sizeless", {"train-0-of-1": [0, 1]}, height=0, width=0)
    assert datasets.load(folder).encodings == {"train": "unknown"}


def test_foreign_shards_are_read_once_until_they_change(tmp_path, monkeypatch):
    folder = write_foreign(tmp_path / "once", {"train-0-of-1": [0, 1]})
    first = datasets.load(folder)
    with monkeypatch.context() as patch:
        patch.setattr(foreign, "_survey", None)
        assert datasets.load(folder) == first
    write_foreign(folder, {"train-0-of-1": [0, 1, 2]})
    assert datasets.load(folder).num_examples("train") == 3


def test_the_way_to_foreign_shards_does_not_count(tmp_path, monkeypatch):
    folder = write_foreign(tmp_path / "folder", {"train-0-of-1": [0, 1]})
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    ways = (folder, "folder", "folder/../folder", "link")
    assert len({datasets.load(way).fingerprint for way in ways}) == 1


def test_incomplete_and_damaged_foreign_shards(tmp_path):
    folder = write_foreign(tmp_path / "bad", {"train-00000-of-00002": [0, 1]})
    with pytest.raises(ValueError, match="expected 2 files. Received: 1"):
        datasets.load(folder)
    shard = write_foreign(folder, {"train-00001-of-00002": [0]}) / "train-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"{shard} is no whole shard") as error:
        datasets.load(folder)
    assert "\n" not in str(error.value)
