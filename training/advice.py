"""Advice: the change that would speed up the input pipeline most."""

import shutil

from data.images.decode import storage_for
from data.pipeline import augment, decoded
from data.shards.datasets import Dataset

_RAW_BYTES = 3  # bytes per pixel


def faster(dataset: Dataset, policy: augment.Policy, *, size: int, cache: str, stage: str) -> str:
    """Returns the change that would help a training that waits for its images.

    Args:
        dataset: Data set of the training.
        policy: Augmentation policy.
        size: Side of the training images in pixels.
        cache: "memory" or "none", as `decoded.chosen_cache` returns it.
        stage: Slowest stage, a key of `stages.input_stages`.

    Returns:
        A sentence without a full stop, with the flag or command to type if there is one.
    """
    if stage == "read":
        return _less_to_read(dataset, size)
    is_raw = dataset.encodings["train"] == "raw"
    if stage in ("decode", "augment") and cache == "none" and not is_raw:
        return _less_to_decode(dataset, size)
    if policy.window is augment.resized_window:
        return "--augment=alexnet, which cuts without resizing, or more cores (--threads)"
    return "more cores (--threads)"


def _less_to_read(dataset: Dataset, size: int) -> str:
    encoding = dataset.encodings["train"]
    if encoding != "raw" and decoded.chosen_cache(dataset, "auto") == "memory":
        return "--cache=memory: the images are read once"
    if encoding in ("raw", "png"):
        return f"smaller records, which lose a little: {_convert(size)} --encoding=jpeg"
    if _is_larger_than_needed(dataset, size):
        return f"smaller images: {_convert(size)}"
    return "a faster disk: the shards on a local one, or memory enough to keep them all"


def _less_to_decode(dataset: Dataset, size: int) -> str:
    if decoded.chosen_cache(dataset, "auto") == "memory":
        return "--cache=memory: the images are decoded once"
    if _is_larger_than_needed(dataset, size):
        return f"smaller images: {_convert(size)}"
    side = storage_for(size).short_side
    squares = _RAW_BYTES * side**2 * sum(map(dataset.num_examples, dataset.splits))
    needed = min(squares, decoded.decoded_bytes(dataset))  # small images are not enlarged
    if needed < shutil.disk_usage(dataset.folder).free:
        return f"decoded records, {needed / 1e9:,.1f} GB: {_convert(size)} --encoding=raw"
    return "more cores (--threads)"


def _is_larger_than_needed(dataset: Dataset, size: int) -> bool:
    side = dataset.storage["short_side"]
    return not side or side > storage_for(size).short_side


def _convert(size: int) -> str:
    side = storage_for(size).short_side
    return f"python -m data.convert SOURCE SHARDS --short_side={side}"
