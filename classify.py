"""Classifies images and videos with a trained network.

python classify.py img.jpg            top five classes, newest run's best checkpoint
python classify.py FOLDER --json      one JSON object per image and line
python classify.py img.jpg --checkpoint=best.safetensors    one file is enough
python classify.py 'photos/**/*.jpg' film.mp4 --csv         patterns; one video frame per second
find . -name '*.jpg' | python classify.py -                 paths on stdin
python classify.py img.jpg --explain=DIR                    Grad-CAM heat maps of the top class
python classify.py --serve            a web page, http://127.0.0.1:8000
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

flags.DEFINE_string("run_dir", None, "Run folder (default: the newest run with a checkpoint).")
flags.DEFINE_string("checkpoint", "best", "Checkpoint of the run: best, last, a step, or a file.")
flags.DEFINE_string("model", None, "Network to use with the weights of --init_from, without a run.")
flags.DEFINE_string("init_from", None, "Weights of --model: keras, or a file that Keras wrote.")
flags.DEFINE_integer("top_k", 5, "Number of classes to report per image.", 1)
flags.DEFINE_enum(
    "crops",
    "1",
    [str(count) for count in views.VIEWS],
    "Views of each image whose predictions are averaged; 2: the centre crop and its mirror image.",
)
flags.DEFINE_float(
    "threshold",
    None,
    "Mark an image as unsure if its top probability is lower (default: no marks).",
    0.0,
    1.0,
)
flags.DEFINE_integer(
    "every", None, "Classify every Nth frame of a video (default: one per second).", 1
)
flags.DEFINE_bool("json", False, "Print one JSON object per image, each on its own line.")
flags.DEFINE_bool("csv", False, "Print CSV, with one row per reported class.")
flags.DEFINE_string(
    "explain", None, "Folder for Grad-CAM heat maps of the top class (default: no heat maps)."
)
flags.DEFINE_string(
    "features",
    None,
    "File (.npz) for the input features of the network's classifier (default: no file).",
)
flags.DEFINE_bool("serve", False, "Serve a web page that classifies uploaded images.")
flags.DEFINE_string(
    "host", "127.0.0.1", "Address that --serve listens on; the default accepts this machine only."
)
flags.DEFINE_integer("port", 8000, "Port that --serve listens on; 0: any free port.", 0, 65535)
flags.DEFINE_integer("max_megabytes", 32, "Maximum size of a request to --serve in MiB.", 1)
flags.DEFINE_integer("threads", cores(), "CPU threads.", 1)

OUTPUT_FLAGS = ("json", "csv", "explain", "features", "every")  # flags that --serve refuses
SERVE_PACKAGES = ("flask", "waitress", "werkzeug")  # packages that --serve needs


def main(argv: list[str]) -> None:
    """Parses the flags and classifies every image on the command line, or serves the page."""
    arguments = console.parse(argv)
    devices.configure(FLAGS.threads)
    devices.set_precision("auto", training=False)
    output_flags = [name for name in OUTPUT_FLAGS if FLAGS[name].value]
    options = {"crops": int(FLAGS.crops), "top_k": FLAGS.top_k, "threshold": FLAGS.threshold}
    with console.user_errors():
        passed_over = PassedOver()
        images = [] if FLAGS.serve else list_images(arguments, passed_over)
        check_flags(arguments, output_flags, serves=FLAGS.serve)
        if FLAGS.serve:
            extras.require(SERVE_PACKAGES, "--serve", "requirements-serve.txt")
        network = loading.open_network(
            FLAGS.run_dir, FLAGS.checkpoint, model=FLAGS.model, init_from=FLAGS.init_from
        )
        if FLAGS.serve:
            from inference import serve

            server_options = {
                "host": FLAGS.host,
                "port": FLAGS.port,
                "max_megabytes": FLAGS.max_megabytes,
            }
            serve.serve(network, processes=FLAGS.threads, **server_options, **options)
            return
        outputs = Outputs(network, output_flags, explain=FLAGS.explain, features=FLAGS.features)
        image_classifier = classifier.Classifier(
            network,
            processes=min(FLAGS.threads, len(images))
            if isinstance(images, list)
            else FLAGS.threads,
            every=FLAGS.every,
            explains="explain" in output_flags,
            features="features" in output_flags,
            **options,
        )
        with image_classifier:
            failed = classify(image_classifier, images, outputs)
    if parts := passed_over.parts():
        print(console.printable(f"passed over: {', '.join(parts)}"), file=sys.stderr)
    failed += len(passed_over.closed)
    sys.exit(console.FAILED if failed else 0)


def list_images(
    arguments: list[str], passed_over: PassedOver
) -> list[sources.Example] | Iterator[sources.Example | None]:
    """Lists the images to classify.

    Args:
        arguments: Positional arguments of the command line.
        passed_over: Collects the files in folders that are not images.

    Returns:
        A list of all images, or the iterator of `inputs.list_images` if paths are read from stdin.

    Raises:
        FileNotFoundError: If none of the images exists.
    """
    images = inputs.list_images(arguments, passed_over)
    if inputs.STDIN in arguments:
        return images
    images = list(images)
    if not any(os.path.exists(image.path) for image in images):
        raise FileNotFoundError(f"expected image files or folders of images, received {arguments}")
    return images


def check_flags(arguments: list[str], output_flags: list[str], *, serves: bool) -> None:
    """Raises ValueError for flags that contradict each other."""
    if {"json", "csv"} <= set(output_flags):
        raise ValueError("expected one of --json and --csv, received both")
    if serves and arguments:
        raise ValueError(f"--serve expects no image arguments, received {arguments}")
    if serves and output_flags:
        raise ValueError(f"--serve cannot be combined with --{output_flags[0]}")


def classify(
    image_classifier: classifier.Classifier,
    images: Iterable[sources.Example | None],
    outputs: "Outputs",
) -> int:
    """Classifies the images and returns the number that could not be read.

    Raises:
        FileNotFoundError: If there are no images.
    """
    answer, failed = None, 0
    for answer in image_classifier.answers(images):
        outputs.add(answer, image_classifier.described(answer))
        failed += answer.error is not None
    if answer is None:
        raise FileNotFoundError("expected paths of images on stdin, received none")
    outputs.end()
    return failed


class Outputs:
    """Writes answers to the console, heat maps to a folder and features to a file."""

    def __init__(
        self,
        network: loading.Trained,
        output_flags: list[str],
        *,
        explain: str | None,
        features: str | None,
    ) -> None:
        """Opens the outputs and creates the folder of heat maps.

        Args:
            network: Trained network.
            output_flags: Names in `OUTPUT_FLAGS` of the flags that are set.
            explain: Folder for the heat maps (default: no heat maps).
            features: File for the features (default: no features).

        Raises:
            OSError: If a folder does not exist or cannot be created.
        """
        self._class_names, self._count = network.class_names, 0
        self._pictures = Path(explain) if explain else None
        self._embeddings = (
            embeddings.Embeddings(features, network.class_names) if features else None
        )
        if self._pictures:
            self._pictures.mkdir(parents=True, exist_ok=True)
        self._print_result = printer_for(output_flags)

    def add(self, answer: classifier.Answer, result: dict) -> None:
        """Prints the result of an answer, and stores its heat map and features if requested.

        Args:
            answer: Answer of the network.
            result: The same answer as `Classifier.described` returns it.
        """
        self._count += 1
        if self._pictures and not answer.error:
            path = overlay.path_for(self._pictures, self._count, answer.image, answer.frame)
            path.write_bytes(classifier.explanation(answer))
            class_name = self._class_names[answer.label]
            result = {**result, "explained": {"class": class_name, "picture": str(path)}}
        if self._embeddings:
            self._embeddings.add(answer)
        self._print_result(result)

    def end(self) -> None:
        """Writes the file of features."""
        if self._embeddings:
            self._embeddings.write()


def printer_for(output_flags: list[str]) -> Callable[[dict], None]:
    """Returns the function that prints a result, as JSON, CSV or (default) a table."""
    if "csv" in output_flags:
        return answers.Csv()
    return answers.show_json if "json" in output_flags else answers.show_table


if __name__ == "__main__":
    console.run(
        main, exit_on_closed_pipe=True
    )  # a closed pipe, as in `classify.py ... | head`, is no error
