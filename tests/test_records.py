"""records: written and read back, under the field's keys."""

import hashlib

import pytest
import tensorflow as tf

from data.shards import records

DEFAULTS = {"encoded": b"\xff\xd8", "format": "JPEG", "label": 3, "height": 5, "width": 7}


def example(**changes):
    return records.example_bytes(**{**DEFAULTS, "filename": "cat/1.jpg", **changes})


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / records.shard_name("train", 0, 16)
    assert path.name == "train-00000-of-00016.tfrecord"
    examples, size, digest = records.write_shard(path, (example(label=i) for i in range(4)))
    data = path.read_bytes()
    assert (examples, size, digest) == (4, len(data), hashlib.sha256(data).hexdigest())
    parsed = [records.parse(row) for row in tf.data.TFRecordDataset(str(path))]
    assert [int(row["label"]) for row in parsed] == [0, 1, 2, 3]
    assert set(parsed[0]) == {"encoded", "format", "label", "height", "width"}
    assert parsed[0]["encoded"].numpy() == b"\xff\xd8"
    assert parsed[0]["format"].numpy() == records.JPEG
    assert (int(parsed[0]["height"]), int(parsed[0]["width"])) == (5, 7)


def test_file_names_are_bytes(tmp_path):
    for name in ("katze/ä.jpg", "odd/\udcff.jpg"):
        parsed = records.parse(example(filename=name), filename=True)
        assert parsed["filename"].numpy().decode("utf-8", "surrogateescape") == name


def test_the_keys_are_the_ones_the_field_shares():
    feature = tf.train.Example.FromString(example()).features.feature
    assert set(feature) == {
        "image/encoded",
        "image/format",
        "image/class/label",
        "image/height",
        "image/width",
        "image/filename",
    }
    assert feature["image/format"].bytes_list.value[0] == b"JPEG"


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"label": -1, "encoded": b""},
        {"label": 300, "height": 127, "width": 128, "filename": ""},
        {"encoded": bytes(range(256)) * 300, "format": "RAW", "height": 2**31},
    ],
)
def test_the_bytes_are_those_that_protobuf_writes(values):
    written = example(**values)
    message = tf.train.Example.FromString(written)
    assert message.SerializeToString(deterministic=True) == written
    wanted = {**DEFAULTS, **values}
    parsed = records.parse(written)
    assert parsed["encoded"].numpy() == wanted["encoded"]
    for name in ("label", "height", "width"):
        assert int(parsed[name]) == wanted[name]


@pytest.mark.parametrize("format", [records.JPEG, records.PNG, records.RAW])
def test_a_record_says_its_format(format):
    parsed = records.parse([example(format=format.decode())] * 2)
    assert parsed["format"].numpy().tolist() == [format] * 2


def test_foreign_records_without_sizes_are_read():
    value = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"x"]))
    foreign = tf.train.Example(features=tf.train.Features(feature={"image/encoded": value}))
    parsed = records.parse(foreign.SerializeToString(), filename=True)
    assert (int(parsed["label"]), int(parsed["height"]), parsed["filename"].numpy()) == (-1, 0, b"")
    assert parsed["format"].numpy() == b""


def test_a_shard_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="cannot be written"):
        records.write_shard(tmp_path / "none" / "x", [example()])
