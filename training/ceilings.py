"""What this machine can do at best, whatever the pipeline: decoding JPEGs, copying memory."""

import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import tensorflow as tf

from data.shards import records
from data.shards.datasets import Dataset

_SAMPLE = 256  # images
_COPIED = 64 << 20  # bytes, more than the caches hold


def decoding(dataset: Dataset, threads: int, seconds: float) -> float | None:
    """Whole JPEGs of a train split that libjpeg-turbo decodes in a second, from memory.

    Args:
        dataset: Has the split, of which a sample is decoded.
        threads: That decode at the same time.
        seconds: How long to measure, at least.

    Returns:
        Images per second; None where there is no JPEG in the sample.
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
    """By content, since other tools spell formats otherwise; raw pixels may be any bytes."""
    return record["format"].numpy() != records.RAW and bool(tf.io.is_jpeg(record["encoded"]))


def copying(seconds: float) -> float:
    """Bytes of memory that one thread copies in a second."""
    source, target = np.ones(_COPIED, np.uint8), np.zeros(_COPIED, np.uint8)
    done, begin = 0, time.perf_counter()
    while (passed := time.perf_counter() - begin) < seconds:
        np.copyto(target, source)
        done += _COPIED
    return done / passed
