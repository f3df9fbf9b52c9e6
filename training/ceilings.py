"""Upper limits of this machine for any pipeline: decoding JPEGs, copying memory."""

import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import tensorflow as tf

from data.shards import records
from data.shards.datasets import Dataset

_SAMPLE = 256  # images to decode
_COPIED = 64 << 20  # bytes, larger than the CPU caches


def decoding(dataset: Dataset, threads: int, seconds: float) -> float | None:
    """Measures how many whole JPEGs per second libjpeg-turbo decodes from memory.

    Args:
        dataset: Data set whose train split provides a sample.
        threads: Number of threads that decode in parallel.
        seconds: Minimum duration of the measurement.

    Returns:
        Images per second; None if the sample has no JPEGs.
    """
    paths = [shard.path for shard in dataset.shards("train")]
    sample = map(records.parse, tf.data.TFRecordDataset(paths).take(_SAMPLE))
    encoded = [np.frombuffer(s["encoded"].numpy(), np.uint8) for s in sample if _is_jpeg(s)]
    if not encoded:
        return None

    def decode(worker):
        done, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            cv2.imdecode(encoded[(worker + done) % len(encoded)], cv2.IMREAD_COLOR)
            done += 1
        return done / (time.perf_counter() - begin)

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(decode, range(threads)))


def _is_jpeg(record: dict[str, tf.Tensor]) -> bool:
    """Decides by content, since tools name formats differently; raw pixels may be any bytes."""
    return record["format"].numpy() != records.RAW and bool(tf.io.is_jpeg(record["encoded"]))


def copying(seconds: float) -> float:
    """Measures how many bytes of memory one thread copies per second."""
    source, target = np.ones(_COPIED, np.uint8), np.zeros(_COPIED, np.uint8)
    done, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < seconds:
        np.copyto(target, source)
        done += _COPIED
    return done / passed
