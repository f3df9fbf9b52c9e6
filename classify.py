"""Classifies images and videos with a trained network.

python classify.py img.jpg            the five likeliest classes, by the newest run's best
python classify.py FOLDER --json      one JSON object per image and line
python classify.py img.jpg --checkpoint=best.safetensors    one file is enough
python classify.py 'photos/**/*.jpg' film.mp4 --csv         patterns, and a frame of each second
find . -name '*.jpg' | python classify.py -                 paths on stdin
python classify.py img.jpg --explain=DIR                    what in the image speaks for its class
python classify.py --serve            a page to try it, http://127.0.0.1:8000
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from absl import flags

from runtime import console
from runtime.cores import cores

with console.quiet_import():
    from data.images.reading import PassedOver
    from data.pipeline import views
    from data.sources import sources
    from engine import devices
    from inference import classifier, embeddings, extras, inputs, loading
    from report import answers, overlay

FLAGS = flags.FLAGS

flags.DEFINE_string("run_dir", None, "the run folder; the newest")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or a file")
flags.DEFINE_string("model", None, "a network with --init_from, without any run")
flags.DEFINE_string("init_from", None, "its weights: keras, or a file that Keras wrote")
flags.DEFINE_integer("top_k", 5, "how many classes to name", 1)
flags.DEFINE_enum("crops", "1", [str(count) for count in views.VIEWS], "views of each image")
flags.DEFINE_float("threshold", None, "probability below which it is called unsure", 0.0, 1.0)
flags.DEFINE_integer("every", None, "of so many frames of a video the first; one a second", 1)
flags.DEFINE_bool("json", False, "one JSON object per image and line")
flags.DEFINE_bool("csv", False, "a table with a row for each class that is named")
flags.DEFINE_string("explain", None, "folder for pictures of what speaks for the first class")
flags.DEFINE_string("features", None, "file (.npz) for what the network's classifier gets")
flags.DEFINE_bool("serve", False, "a page to try it, on this machine only")
flags.DEFINE_string("host", "127.0.0.1", "address of the page; others let other machines in")
flags.DEFINE_integer("port", 8000, "its port; 0 for any that is free", 0, 65535)
flags.DEFINE_integer("max_megabytes", 32, "the most that may be sent to the page at once", 1)
flags.DEFINE_integer("threads", cores(), "CPU threads", 1)

OF_FILES = ("json", "csv", "explain", "features", "every")  # flags that --serve refuses
SERVING = ("flask", "waitress", "werkzeug")  # packages that --serve needs


def main(argv: list[str]) -> None:
    """Parses the flags and classifies every image on the command line, or serves the page."""
    named = console.parse(argv)
    devices.configure(FLAGS.threads)
    devices.set_precision("auto", training=False)
    given = [name for name in OF_FILES if FLAGS[name].value]
    options = {"crops": int(FLAGS.crops), "top_k": FLAGS.top_k, "threshold": FLAGS.threshold}
    with console.user_errors():
        passed_over = PassedOver()
        images = [] if FLAGS.serve else wanted(named, passed_over)
        refuse_nonsense(named, given, serves=FLAGS.serve)
        if FLAGS.serve:
            extras.require(SERVING, "--serve", "requirements-serve.txt")
        network = loading.open_network(
            FLAGS.run_dir, FLAGS.checkpoint, model=FLAGS.model, init_from=FLAGS.init_from
        )
        if FLAGS.serve:
            from inference import serve

            page = {"host": FLAGS.host, "port": FLAGS.port, "max_megabytes": FLAGS.max_megabytes}
            serve.serve(network, processes=FLAGS.threads, **page, **options)
            return
        outputs = Outputs(network, given, explain=FLAGS.explain, features=FLAGS.features)
        of_network = classifier.Classifier(
            network,
            processes=min(FLAGS.threads, len(images))
            if isinstance(images, list)
            else FLAGS.threads,
            every=FLAGS.every,
            explains="explain" in given,
            features="features" in given,
            **options,
        )
        with of_network:
            failed = classify(of_network, images, outputs)
    if parts := passed_over.parts():
        print(console.printable(f"passed over: {', '.join(parts)}"), file=sys.stderr)
    failed += len(passed_over.closed)
    sys.exit(console.FAILED if failed else 0)


def wanted(
    named: list[str], passed_over: PassedOver
) -> list[sources.Example] | Iterator[sources.Example | None]:
    """Lists the images to classify.

    Args:
        named: Positional arguments of the command line.
        passed_over: Collects the files in folders that are not images.

    Returns:
        A list of all images, or the iterator of `inputs.listed` if paths are read from stdin.

    Raises:
        FileNotFoundError: If none of the images exists.
    """
    images = inputs.listed(named, passed_over)
    if inputs.STDIN in named:
        return images
    images = list(images)
    if not any(os.path.exists(image.path) for image in images):
        raise FileNotFoundError(f"expected image files or folders of images, received {named}")
    return images


def refuse_nonsense(named: list[str], given: list[str], *, serves: bool) -> None:
    """Raises ValueError for flags that contradict each other."""
    if {"json", "csv"} <= set(given):
        raise ValueError("expected one of --json and --csv, received both")
    if serves and named:
        raise ValueError(f"--serve gets its images from the page, received {named}")
    if serves and given:
        raise ValueError(f"--serve does not go together with --{given[0]}")


def classify(
    of_network: classifier.Classifier, images: Iterable[sources.Example | None], outputs: "Outputs"
) -> int:
    """Classifies the images and returns the number that could not be read.

    Raises:
        FileNotFoundError: If there are no images.
    """
    answer, failed = None, 0
    for answer in of_network.answers(images):
        outputs.add(answer, of_network.described(answer))
        failed += answer.error is not None
    if answer is None:
        raise FileNotFoundError("expected paths of images on stdin, received none")
    outputs.end()
    return failed


class Outputs:
    """Writes answers to the console, to heat-map pictures and to a file of features."""

    def __init__(
        self,
        network: loading.Trained,
        given: list[str],
        *,
        explain: str | None,
        features: str | None,
    ) -> None:
        """Opens the outputs and makes the folder of pictures.

        Args:
            network: Network that gives the answers.
            given: Flags out of `OF_FILES` that are set.
            explain: Folder for the pictures (default: no pictures).
            features: File for the features (default: no features).

        Raises:
            OSError: If a folder does not exist or cannot be made.
        """
        self._class_names, self._count = network.class_names, 0
        self._pictures = Path(explain) if explain else None
        self._embeddings = (
            embeddings.Embeddings(features, network.class_names) if features else None
        )
        if self._pictures:
            self._pictures.mkdir(parents=True, exist_ok=True)
        self._show = shown_as(given)

    def add(self, answer: classifier.Answer, result: dict) -> None:
        """Shows an answer's result from `Classifier.described`; keeps its picture and features."""
        self._count += 1
        if self._pictures and not answer.error:
            path = overlay.path_for(self._pictures, self._count, answer.image, answer.frame)
            path.write_bytes(classifier.explanation(answer))
            named = self._class_names[answer.label]
            result = {**result, "explained": {"class": named, "picture": str(path)}}
        if self._embeddings:
            self._embeddings.add(answer)
        self._show(result)

    def end(self) -> None:
        """Writes the file of features."""
        if self._embeddings:
            self._embeddings.write()


def shown_as(given: list[str]) -> Callable[[dict], None]:
    """Returns the function that shows a result: as JSON, as CSV or (default) as a table."""
    if "csv" in given:
        return answers.Csv()
    return answers.show_json if "json" in given else answers.show_table


if __name__ == "__main__":
    console.run(main, ends=True)  # a closed pipe, as in `classify.py ... | head`, is no error
