import gzip
import hashlib
import json
import os
import re
import shutil
import zlib

import cv2
import numpy as np
import pytest
import tensorflow as tf

from data import opening
from data.shards import copies, datasets, foreign, records


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


PIXEL = cv2.imencode(".jpg", np.zeros([4, 4, 3], np.uint8))[1].tobytes()


def example(features):
    """A record of any features: bytes, integers or numbers, one or a list of them."""
    made = {}
    for key, value in features.items():
        values = value if isinstance(value, list) else [value]
        lists = {bytes: ("bytes_list", tf.train.BytesList), int: ("int64_list", tf.train.Int64List)}
        name, kind = lists.get(type(values[0]), ("float_list", tf.train.FloatList))
        made[key] = tf.train.Feature(**{name: kind(value=values)})
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def image(label, text=b"", **more):
    features = {"image/encoded": PIXEL, "image/class/label": label, "image/class/text": text}
    return example(features | more)


def labelled(folder, labels, lines=None, texts=None):
    """Shards of these labels, what they mean where that is known, and a file of labels."""
    folder.mkdir(exist_ok=True)
    rows = [image(label, (texts or {}).get(label, "").encode()) for label in labels]
    records.write_shard(folder / "train-00000-of-00001", rows)
    if lines is not None:
        (folder / "labels.txt").write_text("\n".join(lines) + "\n")
    return folder


ABC = ["a", "b", "c"]
FROM_0, FROM_1 = dict(enumerate(ABC)), dict(enumerate(ABC, 1))


@pytest.mark.parametrize(
    "labels, lines, texts, expected",
    [
        # by the records
        ([1, 2, 3], None, FROM_1, FROM_1),
        ([0, 1, 2], None, FROM_0, FROM_0),
        ([1, 3], None, FROM_1, {1: "a", 2: "class_1", 3: "c"}),
        # by the file: from 0 or from 1, whichever fits
        ([0, 1, 2], ABC, None, FROM_0),
        ([0, 1], ABC, None, FROM_0),
        ([1, 2, 3], ABC, None, FROM_1),
        ([3], ABC, None, FROM_1),
        ([1, 2], ["background", *ABC], None, FROM_1),
        ([1], ["__background__", *ABC], None, FROM_1),
        ([0, 1], ["dummy", "a"], None, {0: "dummy", 1: "a"}),
        ([1, 2], ["0:a", "1:b", "2: c"], None, FROM_0),
        ([1], ["1:a", "2:b", "3:c"], None, FROM_1),
        ([1], ["0:unused", "1:a", "2:b", "3:c"], None, FROM_1),
        # by both
        ([1, 2, 3], ABC, FROM_1, FROM_1),
        ([1, 2], ABC, FROM_1, FROM_1),
        ([1, 2], ABC, FROM_0, FROM_0),
        ([0, 1], ["background", *ABC], FROM_0, FROM_0),
        ([1, 2, 3], ABC, {1: "x", 2: "y", 3: "z"}, FROM_1),
        ([1, 2], ["x", "y", "z"], FROM_1, {1: "a", 2: "b"}),
        ([1, 2, 3], ABC, {1: "A, alpha", 2: "beta", 3: "gamma, C"}, FROM_1),
    ],
)
def test_the_names_of_foreign_classes(tmp_path, labels, lines, texts, expected):
    dataset = datasets.load(labelled(tmp_path / "x", labels, lines, texts))
    assert dict(enumerate(dataset.class_names, dataset.label_offset)) == expected


@pytest.mark.parametrize(
    "labels, lines, texts, complaint",
    [
        ([1, 2], ABC, None, "3 names, and labels from 1 to 2 .* expected lines .* as 1:a"),
        ([0, 1], ["background", *ABC], None, "first name may be that of label 0 or of label 1"),
        ([0, 3], ABC, None, "3 names, and labels from 0 to 3 .* expected a name for every label"),
        ([1, 4], ABC, None, "3 names, and labels from 1 to 4"),
        ([0, 1], [], None, "0 names"),
        ([0, 2], ["0:a", "1:b"], None, "expected a line for label 2, found none"),
        ([0, 1], ["0:a", "b"], None, "each with its own number"),
        ([0, 1], ["0:a", "0:b"], None, "each with its own number"),
        ([0, 1, 2], ABC, {0: "b", 1: "c", 2: "a"}, "'b' for label 1 and 'a' .* label 0 say 'b'"),
        ([1, 2], ["0:tench", "1:crane"], {1: "tench, Tinca"}, "records of label 1 say 'tench, T"),
    ],
)
def test_names_that_are_open_or_wrong_are_refused(tmp_path, labels, lines, texts, complaint):
    folder = labelled(tmp_path / "x", labels, lines, texts)
    with pytest.raises(ValueError, match=f"^{folder}/labels.txt: .*{complaint}"):
        datasets.load(folder)


def test_a_label_that_means_two_things_is_refused(tmp_path):
    folder = labelled(tmp_path / "x", [])
    for shard, text in (("train-00000-of-00001", b"cat"), ("test-00000-of-00001", b"dog")):
        records.write_shard(folder / shard, [image(1, text), image(1)])
    with pytest.raises(ValueError, match="label 1 has ('cat' and 'dog'|'dog' and 'cat')"):
        datasets.load(folder)


@pytest.mark.parametrize(
    "name, data",
    [
        ("labels.txt", "\ufeffé\r\nb\u2028\r\n\r\n".encode("utf-8")),
        ("labels.txt", "é\r\nb\u2028\r\n".encode("utf-16")),
        ("label.labels.txt", "é\rb\u2028".encode()),
    ],
)
def test_files_of_labels_as_editors_write_them(tmp_path, name, data):
    folder = labelled(tmp_path / "x", [0, 1])
    (folder / name).write_bytes(data)
    assert datasets.load(folder).class_names == ("é", "b")


@pytest.mark.parametrize(
    "files, expected",
    [
        (["pets_train.record-00000-of-00002", "pets_train.record-00001-of-00002",
          "pets_val.record-00000-of-00001"], {"train": [0, 1], "validation": [2]}),
        (["pets-test.tfrecord-00000-of-00001", "pets-train.tfrecord-00000-of-00001"],
         {"test": [0], "train": [1]}),
        (["coco_train2017_00000-of-00001.tfrecord"], {"train": [0]}),
        (["train.tfrecord", "Valid.tfrecords"], {"train": [0], "validation": [1]}),
        (["pets_train.record", "pets_testing.record"], {"train": [0], "test": [1]}),
        (["train_2.tfrec", "train_10.tfrec"], {"train": [0, 1]}),
        (["x.record-00000-of-00002", "x.record-00001-of-00002"], {"train": [0, 1]}),
        (["data-2.tfrecord", "data-10.tfrecord"], {"train": [0, 1]}),
        (["cats.tfrecord"], {"train": [0]}),
        (["train-00000-of-00001", "extra.tfrecord", "train.tfrecord.gz"], {"train": [0]}),
        (["train.tfrecord", "extra.tfrecord"], {"train": [0]}),
    ],
)  # fmt: skip
def test_names_of_foreign_shards(tmp_path, capsys, files, expected):
    for number, name in enumerate(files):
        records.write_shard(tmp_path / name, [image(number)])
    (tmp_path / "._train-00000-of-00001").write_bytes(b"of macOS")
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(b"of TensorFlow")
    assert opening.is_converted(tmp_path)
    dataset = opening.open_dataset(tmp_path, image_size=32)
    found = {split: [files.index(os.path.basename(shard.path)) for shard in dataset.shards(split)]
             for split in dataset.splits}  # fmt: skip
    assert found == expected
    assert ("no validation split" in capsys.readouterr().out) == ("validation" not in expected)
    taken = {number for split in expected.values() for number in split}
    assert set(dataset.passed_over) == {f for n, f in enumerate(files) if n not in taken}


@pytest.mark.parametrize(
    "files",
    [
        ["a.tfrecord", "b.tfrecord"],
        ["a_train.tfrecord", "b_train.tfrecord"],
        ["a-train-00000-of-00001", "b-train-00000-of-00001"],
        ["train-00000-of-00001", "train-00000-of-00001.tfrecord"],
    ],
)
def test_shards_that_may_be_one_split_or_not_are_refused(tmp_path, files):
    for name in files:
        records.write_shard(tmp_path / name, [image(0)])
    with pytest.raises(ValueError, match=f"one series of train .* found {', '.join(files)}$"):
        datasets.load(tmp_path)


def test_class_folders_beside_a_file_of_records_are_what_counts(tmp_path):
    (tmp_path / "cat").mkdir()
    records.write_shard(tmp_path / "train.tfrecord", [image(0)])
    assert not opening.is_converted(tmp_path)
    assert opening.is_converted(tmp_path / "train.tfrecord")


@pytest.mark.parametrize(
    "name, split",
    [("x.tfrecord", "train"), ("pets_val.record", "validation"), ("test-00001-of-00009", "test")],
)
def test_a_single_shard_is_what_it_is_called(tmp_path, name, split):
    records.write_shard(tmp_path / name, [image(0), image(1)])
    dataset = opening.open_dataset(tmp_path / name, image_size=32)
    assert {name: dataset.num_examples(name) for name in dataset.splits} == {split: 2}


DETECTION = {"image/encoded": PIXEL, "image/object/class/label": [1, 2]}


@pytest.mark.parametrize(
    "content, complaint",
    [
        (lambda shard: gzip.compress(shard), "compressed .gzip.* image/encoded .* gzip -dc"),
        (lambda shard: zlib.compress(shard), "compressed .zlib.* image/encoded"),
        (lambda shard: b"to buy: milk\n" * 9, "expected TFRecords with .* found no TFRecords"),
        (lambda shard: b"milk", "expected TFRecords with .* found no TFRecords"),
        (lambda shard: b"%PDF-1.7" + bytes(99), "found a PDF document"),
        (lambda shard: gzip.compress(b"milk"), "found a gzip archive"),
        (lambda shard: shard[:-1], "is no whole shard: record 2 is cut off"),
        (lambda shard: shard[:-20] + b"x" + shard[-19:], "no whole shard: record 2.* is damaged"),
        (lambda shard: shard[:20] + b"x" + shard[21:], "no whole shard: record 0.* is damaged"),
    ],
)
def test_what_is_no_shard_is_one_line(tmp_path, content, complaint):
    path = tmp_path / "train-00000-of-00001"
    records.write_shard(path, map(image, range(3)))
    path.write_bytes(content(path.read_bytes()))
    with pytest.raises(ValueError, match=f"^{path}.* ?{complaint}") as error:
        datasets.load(tmp_path)
    assert_plain(error)


def assert_plain(error):
    internals = r"\n|function_node|Error|\[Op|serialized|/device"
    assert not re.search(internals, str(error.value))


@pytest.mark.parametrize(
    "features, complaint",
    [
        ({"image_raw": b"x", "label": 1}, "the keys image_raw, label; expected image/encoded and "),
        ({}, "the keys none; expected image/encoded and image/class/label"),
        (DETECTION, "have no labels, expected image/class/label.*image/object/class/label"),
        (
            {"image/encoded": PIXEL, "image/class/label": b"cat"},
            "image/class/label as bytes_list of 1;",
        ),
        (
            {"image/encoded": PIXEL, "image/class/label": 1.0},
            "image/class/label as float_list of 1;",
        ),
        (
            {"image/encoded": PIXEL, "image/class/label": [1, 2]},
            "as int64_list of 2; expected int64_list of 1",
        ),
        ({"image/encoded": PIXEL, "image/class/label": -2}, "1 of 3 train records have no labels"),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_records_of_other_things_say_their_keys(tmp_path, features, complaint, place):
    rows = [image(0), image(1)]
    rows.insert(place, example(features))
    records.write_shard(tmp_path / "train-00000-of-00001", rows)
    if features == DETECTION and place:
        complaint = "1 of 3 train records have no labels, expected image/class/label"
    with pytest.raises(ValueError, match=f"^{tmp_path}.*{complaint}") as error:
        datasets.load(tmp_path)
    assert_plain(error)


def test_records_that_are_no_examples(tmp_path):
    records.write_shard(tmp_path / "train-00000-of-00001", [b"\xff\xff"])
    with pytest.raises(ValueError, match="record 0 has no tf.train.Example"):
        datasets.load(tmp_path)
    records.write_shard(tmp_path / "train-00000-of-00001", [])
    with pytest.raises(ValueError, match="expected records of images, found none"):
        datasets.load(tmp_path)


def test_a_test_split_may_have_no_labels(tmp_path):
    records.write_shard(tmp_path / "train-00000-of-00001", map(image, (1, 2)))
    records.write_shard(tmp_path / "test-00000-of-00001", [example({"image/encoded": PIXEL})])
    dataset = datasets.load(tmp_path)
    assert (dataset.label_offset, dataset.class_counts["test"]) == (1, (0, 0))


def test_foreign_shards_are_known_by_content_wherever_they_lie(tmp_path, monkeypatch):
    folder = labelled(tmp_path / "x", [0, 1], ["cat", "dog"])
    first = datasets.load(folder)
    with monkeypatch.context() as patch:
        patch.setattr(foreign, "_survey", None)
        moved = shutil.copytree(folder, tmp_path / "y", copy_function=shutil.copyfile)
        assert datasets.load(moved).fingerprint == first.fingerprint
    (folder / "labels.txt").write_text("dog\ncat\n")
    assert datasets.load(folder).class_names == ("dog", "cat")
    monkeypatch.setattr(foreign, "_VERSION", "next")
    monkeypatch.setattr(foreign, "_survey", None)  # what another version found is not used
    with pytest.raises(TypeError):
        datasets.load(moved)


def test_a_run_of_an_earlier_version_knows_its_shards(tmp_path):
    folder = labelled(tmp_path / "x", [0, 1], ["cat", "dog"])
    lines = ""
    for path in (folder / "labels.txt", folder / "train-00000-of-00001"):
        status = path.stat()
        lines += f"{path} {status.st_size} {status.st_mtime_ns}\n"
    expected = hashlib.sha256(lines.encode()).hexdigest()
    options = {"image_size": 32, "expected": copies.Expected(expected)}
    assert opening.open_dataset(folder, **options).fingerprint != expected
    os.utime(folder / "train-00000-of-00001", (1, 1))
    with pytest.raises(ValueError, match="is not the data that the run was started with"):
        opening.open_dataset(folder, **options)


def test_whether_a_network_has_these_classes(converted, tmp_path):
    ours, theirs = datasets.load(converted), datasets.load(labelled(tmp_path / "x", [0, 1], "ab"))
    assert ours.has_classes(["cat", "dog"]) and theirs.has_classes(["a", "b"])
    assert not ours.has_classes(["dog", "cat"]) and not theirs.has_classes(["a", "b", "c"])
    nameless = ["class_0", "class_1"]  # as earlier versions called theirs
    assert theirs.has_classes(nameless) and not ours.has_classes(nameless)
    assert not theirs.has_classes(nameless[::-1])


def test_incomplete_and_damaged_foreign_shards(tmp_path):
    folder = write_foreign(tmp_path / "bad", {"train-00000-of-00002": [0, 1]})
    with pytest.raises(ValueError, match="expected 2 files, received 1"):
        datasets.load(folder)
    shard = write_foreign(folder, {"train-00001-of-00002": [0]}) / "train-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"{shard} is no whole shard") as error:
        datasets.load(folder)
    assert "\n" not in str(error.value)
