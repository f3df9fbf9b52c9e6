"""Measures what storing reduced photographs as JPEG costs in accuracy, bytes and decoding time.

    python benchmarks/storage.py --data=PHOTOS,PHOTOS --weights=mobilenet_075=FILE,...

PHOTOS are folders that contain, at any depth, class folders named by WordNet id. Each photograph is
reduced to a shorter side of 256 pixels as in a conversion and stored in each of `WAYS`.

`accuracy`: Networks with published weights (files of Keras Applications or, for SqueezeNet, of
torchvision as safetensors) classify the central view of the stored images, as in test.py. Top-1
accuracy is coarse with few images, so the report adds the number of images that change sides, the
change of the right class' probability, and the loss with its standard error over the images, all
relative to the uncompressed pixels.

`speed`: Our input pipeline reads shards of each way and makes training batches of 128 crops of 224
pixels. Every way has its own process; they take turns. The result is the ratio to "420-95", in
images per second and in CPU time per image, which is valid on a busy machine too.

Tables and figures go to benchmarks/results; parts that are not run keep their previous figures.
"""

import argparse
import dataclasses
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console

with console.quiet_import():
    import cv2
    import keras
    import numpy as np
    import safetensors.numpy

    import models
    from benchmarks import tables, turns
    from benchmarks.choices import choice
    from benchmarks.setting import BATCH_SIZE, Setting
    from benchmarks.storage_ways import (
        CROP,
        POLICIES,
        SHORT_SIDE,
        WAYS,
        Way,
        described,
        network_rows,
        speed_rows,
        title,
    )
    from data import pipeline
    from data.images import decode
    from data.shards import copies, records
    from data.sources import imagenet
    from engine import devices
    from engine.evaluator import predict
    from models import registry
    from models.tools import keras_weights

RESULTS = Path(__file__).resolve().parent / "results"
_VIEWS = 25  # views per batch, few because each takes much memory


def photographs(folders: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """Reads and reduces all photographs that are larger than `SHORT_SIDE`.

    Returns:
        Images, uint8 [H, W, 3] in OpenCV's channel order, and their labels, int32 [n].

    Raises:
        ValueError: If there are no such photographs.
    """
    names = {name: label for label, name in enumerate(imagenet.class_names())}
    images, labels = [], []
    for path in sorted(path for folder in folders for path in Path(folder).rglob("*.*")):
        (name,) = imagenet.readable_names([path.parent.name])
        if name in names and path.is_file():
            image = cv2.cvtColor(decode.decode(path.read_bytes()), cv2.COLOR_RGB2BGR)
            if min(image.shape[:2]) > SHORT_SIDE:
                images.append(reduced(image))
                labels.append(names[name])
    if not images:
        raise ValueError(
            f"{', '.join(folders)}: expected images of more than {SHORT_SIDE} pixels in folders "
            "named by WordNet id, found none"
        )
    return images, np.array(labels, np.int32)


def reduced(image: np.ndarray) -> np.ndarray:
    """Reduces the shorter side to `SHORT_SIDE`, as in a conversion."""
    shorter = min(image.shape[:2])
    size = [max(SHORT_SIDE, round(side * SHORT_SIDE / shorter)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def network(name: str, path: str) -> keras.Model:
    """Builds our network with published weights.

    Raises:
        FileNotFoundError: If the file of weights does not exist.
        ValueError: If the weights do not fit the network.
    """
    classes = len(imagenet.class_names())
    if name in keras_weights.names():
        model = models.build(name, classes, **keras_weights.options(name))
        keras_weights.load(name, model, path)
        return model
    pixel = {"mean": registry.IMAGENET_MEAN, "std": registry.IMAGENET_STD}
    model = models.build(name, classes, preprocessing="standardised", **pixel)
    _load_squeezenet(model, safetensors.numpy.load_file(path))
    return model


def _load_squeezenet(model: keras.Model, tensors: dict[str, np.ndarray]) -> None:
    """Copies torchvision's tensors, whose layers are numbered in our order."""

    def place(name: str) -> tuple:
        numbers = [int(number) for number in re.findall(r"\.(\d+)\.", name)]
        return name.startswith("classifier"), numbers, "squeeze" not in name, name

    kernels = sorted((name for name in tensors if name.endswith(".weight")), key=place)
    convolutions = [each for each in model.layers if isinstance(each, keras.layers.Conv2D)]
    if len(kernels) != len(convolutions):
        raise ValueError(f"expected {len(convolutions)} kernels, received {len(kernels)}")
    for layer, name in zip(convolutions, kernels, strict=True):
        bias = tensors[name.replace(".weight", ".bias")]
        layer.set_weights([tensors[name].transpose(2, 3, 1, 0), bias])


def stored(encoded: bytes, image: np.ndarray) -> decode.Stored:
    """Wraps an encoded image as a stored one."""
    nothing = (0.0, 0.0, 0.0)
    return decode.Stored(encoded, "JPEG", *image.shape[:2], nothing, nothing)


def views(images: Sequence[np.ndarray], way: Way | None, size: int) -> np.ndarray:
    """Returns central views, uint8 [n, 1, S, S, 3], of images stored in a way (None: pixels)."""
    if way:
        kept = [stored(way.encode(image), image) for image in images]
    else:
        rgb = [cv2.cvtColor(image, cv2.COLOR_BGR2RGB).tobytes() for image in images]
        kept = [
            dataclasses.replace(stored(pixels, image), format="RAW")
            for pixels, image in zip(rgb, images, strict=True)
        ]
    return pipeline.views_of(kept, size=size, crops=1)


def judged(model: keras.Model, seen: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Scores the predictions of a network.

    Returns:
        float64 [2, n]: 1 for correct predictions, and the log probability of the right class.
    """
    parts = range(0, len(seen), _VIEWS)
    found = np.concatenate([predict(model, seen[i : i + _VIEWS]) for i in parts])
    right = found.argmax(axis=1) == labels
    return np.stack([right, found[np.arange(len(labels)), labels]]).astype(np.float64)


def against(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Compares two results of `judged` for the same images.

    Returns:
        `top1_accuracy`; the numbers of images `lost` and `gained`; `probability_change`, the mean
        absolute difference of the right class' probability; `loss`, the mean log loss;
        `loss_change`, the increase of the loss; and `loss_error`, the standard error of the change.
    """
    (right_before, log_before), (right_after, log_after) = before, after
    changes = log_before - log_after
    return {
        "top1_accuracy": float(right_after.mean()),
        "lost": int((right_before > right_after).sum()),
        "gained": int((right_before < right_after).sum()),
        "probability_change": float(np.abs(np.exp(log_after) - np.exp(log_before)).mean()),
        "loss": float(-log_after.mean()),
        "loss_change": float(changes.mean()),
        "loss_error": float(changes.std(ddof=1) / len(changes) ** 0.5),
    }


def accuracies(options: argparse.Namespace) -> dict:
    """Measures the accuracy of every network with every way."""
    devices.configure(options.threads)
    devices.set_precision("float32")
    images, labels = photographs(options.data)
    ways = {name: WAYS[name] for name in options.ways}
    bytes_per_image = {
        name: statistics.mean(len(way.encode(image)) for image in images)
        for name, way in ways.items()
    }
    networks = {}
    for name, path in options.weights:
        model = network(name, path)
        size = model.input_shape[1]
        before = judged(model, views(images, None, size), labels)
        rows = {"none": against(before, before)}
        for way_name, way in ways.items():
            rows[way_name] = against(before, judged(model, views(images, way, size), labels))
        networks[name] = rows
        print("", name, tables.text(network_rows(rows)), sep="\n", flush=True)
    raw = statistics.mean(image.size for image in images)
    return {
        "images": len(images),
        "bytes_per_image": {"none": raw, **bytes_per_image},
        "networks": networks,
    }


def speeds(options: argparse.Namespace) -> dict:
    """Measures the speed of our pipeline with every way, for each policy."""
    images, labels = photographs(options.data)
    policies, load = {}, os.getloadavg()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for name in options.ways:
            folder = Path(scratch, name, "shards")
            write_shards(folder, images, labels, WAYS[name], options.examples)
        for policy in POLICIES:
            results = turns.measure(
                [candidate(name, policy, Path(scratch, name), options) for name in options.ways],
                seconds=options.seconds,
                repeat=options.repeat,
                say=print,
            )
            print("", policy, tables.text(speed_rows(results)), sep="\n", flush=True)
            policies[policy] = results
    return {
        "images": len(images),
        "examples": options.examples,
        "threads": options.threads,
        "load": [load[0], os.getloadavg()[0]],
        "policies": policies,
    }


def candidate(
    name: str, policy: str, folder: Path, options: argparse.Namespace
) -> tuple[turns.Candidate, Setting]:
    """Returns our pipeline as a candidate on the shards of a way, and its setting."""
    batch_size = min(BATCH_SIZE, options.examples)
    setting = Setting(POLICIES[policy], str(folder), "", CROP, batch_size, options.threads)
    return turns.Candidate(name, title(name), "benchmarks.candidates:ours"), setting


def write_shards(
    folder: Path, images: Sequence[np.ndarray], labels: np.ndarray, way: Way, examples: int
) -> None:
    """Writes a data set of one shard, repeating the images up to `examples`."""
    folder.mkdir(parents=True)
    kept = [
        records.example_bytes(
            encoded=way.encode(image),
            format="JPEG",
            label=int(label),
            height=image.shape[0],
            width=image.shape[1],
            filename=f"{number}.jpg",
        )
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    file = records.shard_name("train", 0, 1)
    shard = records.write_shard(folder / file, (kept[i % len(kept)] for i in range(examples)))
    entry = {"file": file, **dict(zip(("examples", "bytes", "sha256"), shard, strict=True))}
    description = {
        "format_version": copies.FORMAT_VERSION,
        **dataclasses.asdict(decode.Storage(SHORT_SIDE, way.quality, "jpeg")),
        "class_names": list(imagenet.class_names()),
        "mean": registry.IMAGENET_MEAN,
        "std": registry.IMAGENET_STD,
        "fingerprint": "",
        "splits": {"train": {"examples": shard[0], "shards": [entry]}},
    }
    (folder / "dataset.json").write_text(json.dumps(description))


PARTS = {"accuracy": accuracies, "speed": speeds}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parses the flags."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, type=lambda text: text.split(","), help="folders")
    parser.add_argument("--weights", type=_pairs, default=[], help="NETWORK=FILE,NETWORK=FILE,...")
    parser.add_argument("--part", type=choice(PARTS), default=list(PARTS), help="what to measure")
    parser.add_argument("--ways", type=choice(WAYS), default=list(WAYS), help="by name")
    parser.add_argument("--seconds", type=float, default=4, help="of every turn (4)")
    parser.add_argument("--repeat", type=int, default=7, help="turns of every way (7)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the pipeline")
    parser.add_argument("--examples", type=int, default=4096, help="of an epoch (4096)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a folder")
    parser.add_argument("--scratch", help="a folder for shards, some GB of them")
    return parser.parse_args(argv)


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [tuple(part.split("=", 1)) for part in text.split(",")]
    known = [*keras_weights.names(), "squeezenet1_0", "squeezenet1_1"]
    if wrong := [pair for pair in pairs if len(pair) != 2 or pair[0] not in known]:
        raise argparse.ArgumentTypeError(
            f"expected NETWORK=FILE of {', '.join(known)}, received {'='.join(wrong[0])}"
        )
    return pairs


def _without_files(argv: list[str] | None) -> list[str]:
    """Returns the command line without the paths of the weights."""
    words = sys.argv[1:] if argv is None else argv
    return [
        re.sub("=[^=,]+(?=,|$)", "=FILE", word) if word.startswith("--weights=") else word
        for word in words
    ]


def main(argv: list[str] | None = None) -> None:
    """Parses the command line, measures and writes the results."""
    options = parse(argv)
    with console.user_errors():
        if "accuracy" in options.part and not options.weights:
            raise ValueError("--weights is missing, expected NETWORK=FILE for accuracy")
        path = options.output / "storage.json"
        report = json.loads(path.read_text()) if path.is_file() else {}
        options.output.mkdir(parents=True, exist_ok=True)
        for part in options.part:
            about = {
                "command": tables.command("benchmarks/storage.py", _without_files(argv)),
                "machine": tables.machine(),
            }
            report[part] = about | PARTS[part](options)
            path.write_text(json.dumps(report, indent=1) + "\n")
            (options.output / "storage.md").write_text(described(report))
        print(f"\nwritten: {options.output}")


if __name__ == "__main__":
    main()
