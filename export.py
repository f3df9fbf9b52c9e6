"""Exports a trained network to formats that need none of this project's code.

python export.py                              the newest run's best checkpoint as a SavedModel
python export.py RUN --format=onnx            into RUN/export/onnx
python export.py best.safetensors --format=keras --output=PLACE

An export is a folder with the model, labels.txt with the class names, and README.md, a model card
that describes the network and how to call it. The model maps uint8 images (a SavedModel also
accepts the bytes of image files) to probabilities. The export is compared with the trained network
on real images, and is only kept if both agree.
"""

import dataclasses
import errno
import importlib.util
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from runtime import console, files, flags
from runtime.cores import cores
from runtime.flags import flag

with console.quiet_import():
    import numpy as np
    import tensorflow as tf

    import models
    from data import pipeline
    from data.images import resized, workers
    from data.pipeline import views
    from data.sources import sources
    from engine import checkpoints, devices
    from engine.evaluator import predict
    from inference import loading
    from inference.export import card, formats
    from models.tools import graphs


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of an export."""

    format: str = flag(
        "saved_model", "Format of the export.", heading="Export", choices=tuple(formats.FORMATS)
    )
    output: str | None = flag(None, "Folder to create (default: RUN/export/FORMAT).")
    images: list[str] | None = flag(
        None,
        "Images and folders of images to compare the export on (default: 12 images of this "
        "repository and of scikit-learn).",
    )
    threads: int = flag(cores(), "CPU threads.", low=1)


flags.define(loading.Weights, Options)

TOLERANCE = 1e-4  # largest difference of a probability
_MAX_IMAGES = 100
_BATCH_SIZE = 10
_SPARE_BYTES = 64 << 20  # upper bound of an export's size without the weights


def main(argv: list[str]) -> None:
    """Parses the flags and writes the export."""
    arguments = console.parse(argv, descriptions=(loading.Weights, Options))
    weights, options = flags.value_of(loading.Weights), flags.value_of(Options)
    devices.configure(options.threads)
    devices.set_precision("float32")
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.get_logger().setLevel("ERROR")
    format = formats.FORMATS[options.format]
    with console.user_errors():
        if len(arguments) > 1:
            raise ValueError(f"expected one run or checkpoint, received {' '.join(arguments)}")
        format.require()
        network = loading.open_network(arguments[0] if arguments else None, weights)
        output = new_output_folder(options.output, network, options.format)
        samples = open_samples(options.images, network, options.threads)
        require_space(output, network)
        with files.new_folder(output) as folder:
            format.write(network, folder)
            (folder / formats.LABELS).write_text(formats.labels(network), encoding="utf-8")
            agreements = {"views": agreement(network, samples, format.open(folder))}
            if options.format == "saved_model":
                predict_bytes = formats.open_bytes_predictor(folder)
                agreements["files"] = agreement_on_files(network, samples, predict_bytes)
            card.write(folder / "README.md", facts(network, options.format, agreements))
        print(f"done: {output}")


def new_output_folder(output: str | None, network: loading.Trained, format: str) -> Path:
    """Returns the path of the export (default: RUN/export/FORMAT), which does not exist yet.

    Raises:
        ValueError: If the path exists, or is not given for a network that belongs to no run.
        OSError: If no folder can be created there.
    """
    if output is None and network.folder is None:
        raise ValueError(
            f"--output is missing, expected a folder: {network.name} belongs to no run"
        )
    path = network.folder / "export" / format if output is None else Path(output)
    if os.path.lexists(path):
        raise ValueError(f"{path} exists already, expected a folder to create")
    ancestor = _existing(path)
    if not ancestor.is_dir():
        raise NotADirectoryError(f"{ancestor} is a file, expected a folder to create {path} in")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise PermissionError(f"{ancestor} is not writable, expected a folder to create {path} in")
    return path


def _existing(path: Path) -> Path:
    return next(ancestor for ancestor in path.absolute().parents if os.path.lexists(ancestor))


def require_space(output: Path, network: loading.Trained) -> None:
    """Raises OSError if the disk has too little free space for the export."""
    needed = 4 * graphs.parameters(network.model.weights) + _SPARE_BYTES
    if needed > (free := shutil.disk_usage(_existing(output)).free):
        raise OSError(
            errno.ENOSPC,
            f"{output} needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB of the disk are free",
        )


class Samples(NamedTuple):
    """Real images to compare the export on.

    Attributes:
        files: Bytes of the n image files.
        centres: Central views, uint8 [n, S, S, 3], one per image, as classify.py sees it.
        views: All views, uint8 [N, S, S, 3], several per image if there are few images.
    """

    files: list[bytes]
    centres: np.ndarray
    views: np.ndarray


def open_samples(paths: list[str] | None, network: loading.Trained, processes: int) -> Samples:
    """Reads the sample images, at most `_MAX_IMAGES` evenly spaced ones.

    Args:
        paths: Image files and folders (default: `_default_images`).
        network: Network that will see the images.
        processes: Upper limit of decoding processes.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        ValueError: If none of the files is an image.
    """
    listed = [image for path in paths or _default_images() for image in sources.open_images(path)]
    chosen = listed[:: -(-len(listed) // _MAX_IMAGES) or 1]
    stored = workers.prepared(chosen, network.storage, max(1, min(processes, len(chosen))))
    pairs = [
        (image.read(), result)
        for image, result in zip(chosen, stored, strict=True)
        if not isinstance(result, workers.Rejected)
    ]
    if not pairs:
        raise ValueError(f"--images expects images, received {', '.join(paths)}")
    size = network.model.input_shape[1]
    crops = 1 if len(pairs) >= _MAX_IMAGES else max(views.VIEWS)

    def cut_views(crops):
        return np.concatenate(
            pipeline.views_of([result for _, result in pairs], size=size, crops=crops)
        )

    return Samples([data for data, _ in pairs], cut_views(1), cut_views(crops))


def _default_images() -> list[str]:
    """Returns the paths of this repository's ten digits and scikit-learn's two photographs."""
    folder = Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / "images"
    return [str(Path(__file__).parent / "data" / "samples"), *map(str, folder.glob("*.jpg"))]


def agreement(network: loading.Trained, samples: Samples, exported: formats.Predictor) -> dict:
    """Compares the probabilities of the export with the network's on the same views.

    Returns:
        The `count` of views, the number of `images`, and the largest `difference` between two
        probabilities.

    Raises:
        RuntimeError: If the difference is above `TOLERANCE`.
    """
    difference = 0.0
    for start in range(0, len(samples.views), _BATCH_SIZE):
        images = samples.views[start : start + _BATCH_SIZE]
        largest = np.abs(exported(images) - probabilities(network, images)).max()
        difference = max(difference, float(np.nan_to_num(largest, nan=1.0)))
    result = {"count": len(samples.views), "images": len(samples.files), "difference": difference}
    if difference > TOLERANCE:
        raise RuntimeError(
            f"the export is not the network, and was removed: probabilities differ by "
            f"{difference:.1e}, expected at most {TOLERANCE:.0e}"
        )
    print(
        f"{result['count']} views of {result['images']} images: probabilities differ by at most "
        f"{difference:.1e}"
    )
    return result


def agreement_on_files(
    network: loading.Trained, samples: Samples, exported: Callable[[bytes], np.ndarray]
) -> dict:
    """Compares the export's answers to image files with classify.py's answers.

    The pixels differ slightly, because the export decodes and resizes with TensorFlow, not with
    OpenCV or Pillow.

    Returns:
        The `count` of files, the `largest` and the `mean` of the largest difference per file, and
        the number of files with the `same` top class.
    """
    differences, same = [], 0
    for data, image in zip(samples.files, samples.centres, strict=True):
        try:
            received = exported(data)
        except tf.errors.InvalidArgumentError:  # TensorFlow cannot decode this format
            continue
        expected = probabilities(network, image[np.newaxis])[0]
        differences.append(float(np.abs(received - expected).max()))
        same += int(received.argmax() == expected.argmax())
    result = {
        "count": len(differences),
        "same": same,
        "largest": max(differences, default=0.0),
        "mean": float(np.mean(differences or 0.0)),
    }
    print(
        f"{result['count']} files, decoded and resized by the export: probabilities differ from "
        f"classify.py's by at most {result['largest']:.1e}, on average {result['mean']:.1e}; "
        f"{same} of {result['count']} have the same first class"
    )
    return result


def probabilities(network: loading.Trained, images: np.ndarray) -> np.ndarray:
    """Returns the network's probabilities, float32 [B, K], for images uint8 [B, S, S, 3]."""
    return np.exp(predict(network.model, images[:, np.newaxis], network.temperature))


def facts(network: loading.Trained, format: str, agreements: dict) -> dict:
    """Collects the facts for the model card."""
    row, size = models.VARIANTS[network.model.name], network.model.input_shape[1]
    storage = network.storage
    stored = storage.short_side or round(size / 0.875)
    installed = {name: metadata.version(name) for name in formats.FORMATS[format].packages}
    return {
        "format": format,
        "title": formats.FORMATS[format].title,
        "file": formats.FORMATS[format].file,
        "network": network,
        "name": network.model.name,
        "paper": row.paper,
        "parameters": graphs.parameters(network.model.trainable_weights),
        "size": size,
        "cut": int(views.crop_side(stored, size)) / stored,
        "resized": storage if isinstance(storage, resized.Resized) else None,
        "data": Path(network.origin.data).name if network.origin else None,
        "accuracies": card.accuracies(network.folder, network.digest, network.step),
        "agreement": agreements,
        "tolerance": TOLERANCE,
        "versions": checkpoints.versions() | installed,
    }


if __name__ == "__main__":
    console.run(main)
