"""NVIDIA DALI on the CPU, from our shards or from memory: batches [B, S, S, 3]."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from nvidia.dali import fn, pipeline_def, tfrecord, types

from benchmarks.peers import AREA, PREFETCH, RATIO, SHUFFLED
from benchmarks.setting import Setting


def dali(setting: Setting) -> Iterator[np.ndarray]:
    """Runs a pipeline without a break between epochs."""

    @pipeline_def(
        batch_size=setting.batch_size,
        num_threads=setting.threads,
        device_id=None,
        prefetch_queue_depth=PREFETCH,
        seed=0,
    )
    def images():
        return _varied(setting)

    running = images()
    running.build()
    while True:
        (batch,) = running.run()
        yield np.asarray(batch.as_tensor())


def _varied(setting: Setting):
    if setting.about.small:
        return _moved(setting)
    if not setting.about.decodes:
        return _cut(setting)
    return _resized(setting) if setting.about.resizes else _cropped(setting)


def _resized(setting: Setting):
    image = fn.decoders.image_random_crop(
        _records(setting), random_area=AREA, random_aspect_ratio=RATIO
    )
    image = fn.resize(image, size=[setting.size] * 2)
    return fn.flip(image, horizontal=fn.random.coin_flip())


def _cropped(setting: Setting):
    image = fn.decoders.image_crop(_records(setting), **_window(setting))
    return fn.flip(image, horizontal=fn.random.coin_flip())


def _cut(setting: Setting):
    side = setting.pixels().shape[1]
    image = fn.reinterpret(_records(setting), shape=[side, side, 3], layout="HWC")
    image = fn.crop(image, **_window(setting))
    return fn.flip(image, horizontal=fn.random.coin_flip())


def _moved(setting: Setting):
    """Reads small images from memory, a batch at a time."""
    pixels, choose = np.array(setting.pixels()), np.random.default_rng(0)

    def take() -> np.ndarray:
        return pixels[choose.integers(len(pixels), size=setting.batch_size)]

    image = fn.external_source(source=take, batch=True, layout="HWC")
    steps = [float(step) for step in range(-setting.padding, setting.padding + 1)]
    start = fn.cast(fn.random.uniform(values=steps, shape=[2]), dtype=types.INT32)
    size = [setting.size] * 2
    image = fn.slice(image, start, size, axes=(0, 1), out_of_bounds_policy="pad")
    return fn.flip(image, horizontal=fn.random.coin_flip())


def _window(setting: Setting) -> dict:
    return {
        "crop": [setting.size] * 2,
        "crop_pos_x": fn.random.uniform(range=(0.0, 1.0)),
        "crop_pos_y": fn.random.uniform(range=(0.0, 1.0)),
    }


def _records(setting: Setting):
    """Reads the images of our shards through a shuffle buffer."""
    shards = sorted(setting.path("shards").glob("*.tfrecord"))
    return fn.readers.tfrecord(
        path=[str(shard) for shard in shards],
        index_path=[str(_index(shard, setting.path("dali"))) for shard in shards],
        features={"image/encoded": tfrecord.FixedLenFeature((), tfrecord.string, "")},
        random_shuffle=True,
        initial_fill=SHUFFLED,
    )["image/encoded"]


def _index(shard: Path, folder: Path) -> Path:
    """Writes the offset and length of every record, like DALI's tfrecord2idx."""
    folder.mkdir(exist_ok=True)
    path, at, lines = folder / f"{shard.name}.idx", 0, []
    with shard.open("rb") as records:
        while length := records.read(8):
            size = struct.unpack("<Q", length)[0] + 16  # including its length and two checksums
            lines.append(f"{at} {size}\n")
            at = records.seek(at + size)
    path.write_text("".join(lines))
    return path
