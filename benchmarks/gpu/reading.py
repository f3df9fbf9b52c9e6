"""The check of the input pipeline: threads, deterministic kernels, and the meter's prediction."""

import csv
import json
import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from benchmarks import tables, turns
from benchmarks.gpu.jobs import ON_CPU, Jobs, leave_out, require
from benchmarks.gpu.sections import Section
from benchmarks.setting import Setting
from runtime.cores import cores

THREADS = (1, 2, 4, 8, 16)
SIZE, BATCH_SIZE = 224, 256
SECONDS, REPEAT = 3.0, 3
NETWORKS = ["resnet50", "alexnet"]
WAYS = {
    "ours": ("ours", "benchmarks.candidates:ours_in_calls"),
    "deterministic": ("ours, deterministic kernels", "benchmarks.gpu.reading:deterministic"),
    "torch": ("PyTorch's DataLoader", "benchmarks.peers.pytorch:tensors"),
}


def check(options: Namespace, section: Section) -> None:
    """Measures the pipeline alone, then compares the meter with a training."""
    if not options.data:
        leave_out(section, "it needs --data=FOLDER of shards with a shorter side of 256 pixels")
        return
    ways = dict(WAYS)
    if not options.images:
        del ways["torch"]
        section.note(
            "PyTorch's DataLoader was left out: it needs --images=FOLDER of class folders."
        )
    folder = linked(options)
    titles = [title for title, _ in ways.values()]
    section.header("threads", *(f"{title}, images/s" for title in titles))
    batch_size = _batch_size(options)
    for threads in _thread_counts(options):
        setting = Setting("256", str(folder), "", SIZE, batch_size, threads)
        section.row(threads, *_rates(setting, ways, options, section))
    networks = options.networks or (["cifar_resnet20"] if options.dry_run else NETWORKS)
    for network in networks:
        section.note(_predicted(network, options))


def deterministic(setting: Setting) -> Iterator[range]:
    """Reads our pipeline as training does, with TensorFlow's deterministic kernels."""
    import tensorflow as tf

    from benchmarks import candidates

    tf.config.experimental.enable_op_determinism()
    yield from candidates.ours_in_calls(setting)


def linked(options: Namespace) -> Path:
    """Makes the folder of a `Setting`: links to the shards and to the files."""
    folder = Path(options.work, "setting")
    folder.mkdir()
    (folder / "shards").symlink_to(options.data)
    if options.images:
        classes = sorted(path for path in Path(options.images).iterdir() if path.is_dir())
        for label, images in enumerate(classes):
            place = folder / "files" / str(label)
            place.mkdir(parents=True)
            for image in images.rglob("*.jp*g"):
                (place / f"{label}-{image.stem}.jpg").symlink_to(image)
    return folder


def _batch_size(options: Namespace) -> int:
    return 8 if options.dry_run else BATCH_SIZE


def _thread_counts(options: Namespace) -> list[int]:
    counts = [count for count in THREADS if count <= cores()]
    return counts[:1] if options.dry_run else counts


def _rates(setting: Setting, ways: dict, options: Namespace, section: Section) -> list[str]:
    """Returns the images per second of each way; notes what fails."""
    pairs = [
        (turns.Candidate(name, title, function), setting)
        for name, (title, function) in ways.items()
    ]
    with mock.patch.dict(os.environ, ON_CPU):  # the pipeline needs no GPU
        results = turns.measure(
            pairs,
            seconds=0.3 if options.dry_run else SECONDS,
            repeat=1 if options.dry_run else REPEAT,
            say=section.note,
        )
    rates = {result["name"]: tables.summary(result)["median"] for result in results}
    return [f"{rates[name]:,.0f}" if name in rates else "" for name in ways]


def _predicted(network: str, options: Namespace) -> str:
    """Returns a sentence that compares the meter with the second epoch of a training."""
    jobs = Jobs(options, 1)
    batch_size = _batch_size(options)
    words = [f"--model={network}", f"--data={options.data}", f"--batch_size={batch_size}"]
    done = jobs.run("train.py", "--meter", "--json", *words)
    require(done, f"train.py --meter with {network}")
    verdict = json.loads(done.output.splitlines()[-1])
    folder = jobs.folder(network)
    require(jobs.train(folder, *words, "--epochs=2"), f"train.py with {network}")
    with open(folder / "metrics.csv", newline="") as file:
        first, second = csv.DictReader(file)
    images = batch_size * (int(second["step"]) - int(first["step"]))
    measured = images / float(second["images_per_second"])
    predicted = verdict["epoch_seconds"]
    return (
        f"{network}: the meter names {verdict['bottleneck']} as the bottleneck and predicts an "
        f"epoch of {predicted:.1f} s; the second epoch of a training took {measured:.1f} s "
        f"({predicted / measured - 1:+.1%})."
    )
