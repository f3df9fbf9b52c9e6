"""What is said of a slow input, and what the machine could do, for every way to store images."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from test_pipeline import FORMATS, photo, write_dataset

from data.pipeline import augment
from training import advice, ceilings

CACHED = "--cache=memory: the images are {}"
CONVERT = "python -m data.convert SOURCE SHARDS --short_side=256"
AS_JPEG = f"smaller records, which lose a little: {CONVERT} --encoding=jpeg"
CORES = "more cores (--threads)"
DISK = "a faster disk: the shards on a local one, or memory enough to keep them all"

# What would help if the slowest stage is (read, decode) and the set is too large for the memory.
TOO_LARGE = {
    "jpeg": (DISK, f"decoded records, 0.1 GB: {CONVERT} --encoding=raw"),
    "png": (AS_JPEG, f"decoded records, 0.1 GB: {CONVERT} --encoding=raw"),
    "mixed": (DISK, f"decoded records, 0.1 GB: {CONVERT} --encoding=raw"),
    "unknown": (DISK, f"decoded records, 0.1 GB: {CONVERT} --encoding=raw"),
    "raw": (AS_JPEG, CORES),
}


@pytest.fixture(params=FORMATS)
def dataset(request, tmp_path):
    """Images of 180 x 200, of the size that they are needed in."""
    images = [photo(180, 200, seed) for seed in range(6)]
    dataset = write_dataset(tmp_path, images, encoding=request.param)
    return dataclasses.replace(dataset, storage={"short_side": 256})


def said(dataset, **changes):
    options = {"size": 224, "cache": "none", **changes}
    return [
        advice.faster(dataset, augment.POLICIES["alexnet"], stage=stage, **options)
        for stage in ("read", "decode")
    ]


def test_a_set_that_fits_is_kept_in_memory(dataset):
    if dataset.encodings["train"] == "raw":
        assert said(dataset) == [AS_JPEG, CORES]
    else:
        assert said(dataset) == [CACHED.format("read once"), CACHED.format("decoded once")]


def test_a_larger_set_is_stored_in_another_way(dataset, monkeypatch):
    monkeypatch.setattr("data.pipeline.decoded._AUTO_BYTES", 0)
    monkeypatch.setattr(dataset.__class__, "num_examples", lambda self, split: 500)
    assert said(dataset) == list(TOO_LARGE[dataset.encodings["train"]])


def test_decoded_records_need_a_disk(dataset, monkeypatch):
    monkeypatch.setattr("data.pipeline.decoded._AUTO_BYTES", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert said(dataset)[1] == CORES


def test_images_that_are_too_large_are_reduced(dataset, monkeypatch):
    monkeypatch.setattr("data.pipeline.decoded._AUTO_BYTES", 0)
    whole = dataclasses.replace(dataset, storage={"short_side": 0})
    encoding = whole.encodings["train"]
    smaller = f"smaller images: {CONVERT}"
    read = AS_JPEG if encoding in ("raw", "png") else smaller
    assert said(whole) == [read, CORES if encoding == "raw" else smaller]


def test_the_ceiling_is_that_of_the_jpegs(dataset):
    rate = ceilings.decoding(dataset, threads=1, seconds=0.01)
    assert bool(rate) == (dataset.encodings["train"] in ("jpeg", "mixed", "unknown"))


def test_raw_pixels_that_begin_as_a_jpeg_does_are_not_decoded(tmp_path):
    images = [np.full([8, 8, 3], [255, 216, 255], np.uint8)] * 3
    assert ceilings.decoding(write_dataset(tmp_path, images), threads=1, seconds=0.01) is None
