"""Names what is in images, with a trained network.

python classify.py img.jpg            the five likeliest classes, by the newest run's best
python classify.py FOLDER --json      one JSON object per image and line
python classify.py img.jpg --checkpoint=best.safetensors    one file is enough
"""

import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Iterator

from absl import flags

import console

with console.quiet_import():
    import numpy as np

    import trained
    from data import decode, pipeline, sources, views, workers
    from engine import devices, steps

FLAGS = flags.FLAGS

flags.DEFINE_string("run_dir", None, "the run folder; the newest")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or a file")
flags.DEFINE_string("model", None, "a network with --init_from, without any run")
flags.DEFINE_string("init_from", None, "its weights: keras, or a file that Keras wrote")
flags.DEFINE_integer("top_k", 5, "how many classes to name", 1)
flags.DEFINE_enum("crops", "1", [str(count) for count in views.VIEWS], "views of each image")
flags.DEFINE_bool("json", False, "one JSON object per image and line")
flags.DEFINE_integer("threads", devices.cores(), "CPU threads", 1)

BATCH_SIZE = 32


def main(argv: list[str]) -> None:
    """Parses the flags and classifies every image that is named."""
    places = console.parse(argv)
    devices.configure(FLAGS.threads)
    devices.set_precision("auto")
    with console.user_errors():
        images = [image for place in places for image in listed(place)]
        if not any(os.path.exists(image.path) for image in images):
            raise FileNotFoundError(f"expected image files or folders of images, received {places}")
        network = trained.open_network(
            FLAGS.run_dir, FLAGS.checkpoint, model=FLAGS.model, init_from=FLAGS.init_from
        )
    classifier = Classifier(
        network, crops=int(FLAGS.crops), top_k=FLAGS.top_k, processes=FLAGS.threads
    )
    show = show_json if FLAGS.json else show_table
    failed = 0
    with console.user_errors():
        for result in classifier.results(images):
            try:
                show(result)
            except BrokenPipeError:  # `classify.py ... | head` ends quietly
                os._exit(128 + signal.SIGPIPE)
            failed += "error" in result
    sys.exit(console.FAILED if failed else 0)


def listed(place: str) -> list[sources.Example]:
    """The images of a place; one that does not exist is found out when it is read."""
    try:
        return sources.open_images(place)
    except FileNotFoundError:
        return [sources.Example(place, sources.UNLABELLED, place)]


class Classifier:
    """A network that names images."""

    def __init__(self, network: trained.Trained, *, crops: int, top_k: int, processes: int) -> None:
        """Takes a network, the views of each image, how many classes to name, and who decodes."""
        self._network = network
        self._crops, self._top_k, self._processes = crops, top_k, processes

    def results(self, images: list[sources.Example]) -> Iterator[dict]:
        """Per image `{"image", "predictions"}` or `{"image", "error"}`, in order.

        Strangers' files are decoded in processes of their own, as in a conversion.
        """
        processes = min(self._processes, len(images))
        stored = workers.stored(images, self._network.storage, processes)
        with contextlib.closing(stored):
            pairs = zip(images, stored, strict=True)
            while some := list(itertools.islice(pairs, BATCH_SIZE)):
                yield from self._batch(some)

    def _batch(
        self, some: list[tuple[sources.Example, decode.Stored | workers.Rejected]]
    ) -> list[dict]:
        results, views_of = [], {}
        size = self._network.model.input_shape[1]
        for index, (image, stored) in enumerate(some):
            results.append({"image": image.name})
            if isinstance(stored, workers.Rejected):
                results[index]["error"] = stored.reason
            else:
                views_of[index] = pipeline.views_of(stored, size=size, crops=self._crops)
        if views_of:
            batch = np.stack(list(views_of.values()))
            probabilities = np.exp(steps.predict(self._network.model, batch))
            for index, row in zip(views_of, probabilities, strict=True):
                results[index]["predictions"] = self._top(row)
        return results

    def _top(self, probabilities: np.ndarray) -> list[dict]:
        best = np.argsort(-probabilities, kind="stable")[: self._top_k]
        return [
            {"class": self._network.class_names[label], "probability": float(probabilities[label])}
            for label in best
        ]


def show_json(result: dict) -> None:
    """One JSON object on a line."""
    print(json.dumps(result), flush=True)


def show_table(result: dict) -> None:
    """The image's name and its classes; an error goes to stderr."""
    if "error" in result:
        line = console.printable(f"error: {result['image']}: {result['error']}")
        print(line, file=sys.stderr, flush=True)
        return
    print(console.printable(result["image"]))
    for prediction in result["predictions"]:
        name = console.printable(prediction["class"])
        print(f"  {100 * prediction['probability']:6.2f} %  {name}", flush=True)


if __name__ == "__main__":
    console.run(main)
