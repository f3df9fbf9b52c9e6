"""Compares the throughput of classify.py on a folder of images with that of the network alone.

    python benchmarks/classify.py --data=PHOTOS --model=resnet18 --count=5000

The images are repeated up to `--count`. The network alone is measured before and after, on one
batch of decoded images. Both use all cores; on a busy machine CPU time is more reliable than speed.
"""

import itertools
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from runtime import console
from runtime.cores import cores

with console.quiet_import():
    import numpy as np

    import models
    from data.images import decode
    from engine import devices
    from inference import classifier, inputs, loading

SECONDS = 10  # length of each measurement of the network alone


def untrained(name: str) -> loading.Trained:
    """Builds an untrained network with 1,000 classes."""
    model, side = models.build(name, 1000), models.image_size(name)
    names = [str(label) for label in range(1000)]
    storage = decode.storage_for(side)
    return loading.Trained(model, names, storage, None, side, name, None)


def alone(
    image_classifier: classifier.Classifier, batch: np.ndarray
) -> tuple[list[float], list[float]]:
    """Measures the network alone: images per second, and CPU seconds per image, by batch."""
    speeds, costs, end = [], [], time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < end:
        worked = cpu()
        image_classifier.predict(batch)
        speeds.append(len(batch) / (time.perf_counter() - began))
        costs.append((cpu() - worked) / len(batch))
    return speeds, costs


def cpu() -> float:
    """Returns the CPU seconds of this process and its terminated children."""
    return sum(os.times()[:4])


def main() -> None:
    """Measures and prints one line."""
    parser = console.Parser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", required=True, help="folder of images")
    parser.add_argument("--model", default="resnet18", choices=models.names())
    parser.add_argument("--count", type=int, default=5000, help="images")
    options = parser.parse_args()
    devices.configure(cores())
    devices.set_precision("auto", training=False)
    images = list(
        itertools.islice(itertools.cycle(inputs.list_images([options.data])), options.count)
    )
    network = untrained(options.model)
    side = network.model.input_shape[1]
    noise = np.random.default_rng(0).integers(
        0, 256, (classifier.BATCH_SIZE, 1, side, side, 3), np.uint8
    )
    with classifier.Classifier(network, processes=cores()) as image_classifier:
        image_classifier.predict(noise)
        speeds, costs = alone(image_classifier, noise)
    worked, began = cpu(), time.perf_counter()
    with classifier.Classifier(network, processes=cores()) as image_classifier:
        failed = sum(answer.error is not None for answer in image_classifier.answers(images))
        speed = len(images) / (time.perf_counter() - began)
    cost = (cpu() - worked) / len(images)
    with classifier.Classifier(network, processes=cores()) as image_classifier:
        image_classifier.predict(noise)
        for found, more in zip((speeds, costs), alone(image_classifier, noise), strict=True):
            found += more
    own, own_cost = statistics.median(speeds), statistics.median(costs)
    print(
        f"{options.model}: {speed:,.1f} images/s of {len(images):,} files ({failed} bad), the "
        f"network alone {own:,.1f}: {100 * speed / own:.0f} %; CPU {1000 * cost:.2f} ms "
        f"per image, the network alone {1000 * own_cost:.2f}: {100 * own_cost / cost:.0f} %"
    )


if __name__ == "__main__":
    main()
