"""Classifies images and videos with a trained network.

python classify.py img.jpg            top five classes, newest run's best checkpoint
python classify.py FOLDER --json      one JSON object per image and line
python classify.py img.jpg --checkpoint=best.safetensors    one file is enough
python classify.py 'photos/**/*.jpg' film.mp4 --csv         patterns; one video frame per second
find . -name '*.jpg' | python classify.py -                 paths on stdin
python classify.py img.jpg --explain=DIR                    Grad-CAM heat maps of the top class
python classify.py --serve            a web page, http://127.0.0.1:8000
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from runtime import console, extras, flags
from runtime.cores import cores
from runtime.flags import flag

with console.quiet_import():
    from data.images.reading import PassedOver
    from data.pipeline import views
    from data.sources import sources
    from engine import devices, runs
    from inference import classifier, embeddings, inputs, loading
    from report import answers, overlay


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of a classification."""

    run_dir: str | None = flag(None, "Run folder (default: the newest run with a checkpoint).")

    top_k: int = flag(5, "Number of classes to report per image.", heading="Predictions", low=1)
    crops: str = flag(
        "1",
        views.HELP,
        choices=tuple(map(str, views.VIEWS)),
    )
    threshold: float | None = flag(
        None,
        "Mark an image as unsure if its top probability is lower (default: no marks).",
        low=0.0,
        high=1.0,
    )
    every: int | None = flag(
        None, "Classify every Nth frame of a video (default: one per second).", low=1
    )
    threads: int = flag(cores(), "CPU threads.", low=1)

    json: bool = flag(
        False, "Print one JSON object per image, each on its own line.", heading="Output"
    )
    csv: bool = flag(False, "Print CSV, with one row per reported class.")
    explain: str | None = flag(
        None, "Folder for Grad-CAM heat maps of the top class (default: no heat maps)."
    )
    features: str | None = flag(
        None, "File (.npz) for the input features of the network's classifier (default: no file)."
    )

    serve: bool = flag(
        False, "Serve a web page that classifies uploaded images.", heading="Web page"
    )
    host: str = flag(
        "127.0.0.1", "Address that --serve listens on; the default accepts this machine only."
    )
    port: int = flag(8000, "Port that --serve listens on; 0: any free port.", low=0, high=65535)
    max_megabytes: int = flag(32, "Maximum size of a request to --serve in MiB.", low=1)


flags.define(loading.Weights, Options)

OUTPUT_FLAGS = ("json", "csv", "explain", "features", "every")  # --serve refuses them
WITHOUT_A_RUN = loading.Weights(
    model="mobilenet_100", init_from="timm:mobilenetv1_100.ra4_e3600_r224_in1k"
)
SERVE_PACKAGES = ("flask", "waitress", "werkzeug")  # packages that --serve needs


def main(argv: list[str]) -> None:
    """Parses the flags and classifies every image on the command line, or serves the page."""
    arguments = console.parse(argv, descriptions=(loading.Weights, Options))
    weights, options = flags.value_of(loading.Weights), flags.value_of(Options)
    devices.configure(options.threads)
    devices.set_precision("auto", training=False)
    with console.user_errors():
        check(options, arguments)
        if options.serve:
            return serve_page(weights, options)
        passed_over = PassedOver()
        images = list_images(arguments, passed_over)
        network = open_network(options.run_dir, weights)
        outputs = Outputs(network, options)
        are_known = isinstance(images, list)
        image_classifier = classifier.Classifier(
            network,
            processes=min(options.threads, len(images)) if are_known else options.threads,
            every=options.every,
            explains=bool(options.explain),
            features=bool(options.features),
            **prediction_options(options),
        )
        with image_classifier:
            failed = classify(image_classifier, images, outputs)
    if parts := passed_over.parts():
        print(console.printable(f"passed over: {', '.join(parts)}"), file=sys.stderr)
    failed += len(passed_over.closed)
    sys.exit(console.FAILED if failed else 0)


def prediction_options(options: Options) -> dict:
    """Returns the arguments that a classifier and the page have in common."""
    return {
        "crops": int(options.crops),
        "top_k": options.top_k,
        "threshold": options.threshold,
    }


def check(options: Options, arguments: list[str]) -> None:
    """Raises ValueError for flags that contradict each other."""
    if options.json and options.csv:
        raise ValueError("expected one of --json and --csv, received both")
    if options.serve and arguments:
        raise ValueError(f"--serve expects no image arguments, received {arguments}")
    for name in OUTPUT_FLAGS:
        if options.serve and getattr(options, name):
            raise ValueError(f"--serve cannot be combined with --{name}")


def serve_page(weights: loading.Weights, options: Options) -> None:
    """Serves the web page until a signal arrives."""
    extras.require(SERVE_PACKAGES, "--serve", "requirements-serve.txt")
    from inference import serve

    serve.serve(
        open_network(options.run_dir, weights),
        processes=options.threads,
        host=options.host,
        port=options.port,
        max_megabytes=options.max_megabytes,
        **prediction_options(options),
    )


def open_network(run_dir: str | None, weights: loading.Weights) -> loading.Trained:
    """Opens the chosen network, else the newest run's, else one that knows ImageNet's classes."""
    if run_dir or weights != loading.Weights() or runs.any_saved():
        return loading.open_network(run_dir, weights)
    network = loading.open_network(None, WITHOUT_A_RUN)
    print(f"no run found: {network.name}", file=sys.stderr)
    return network


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

    def __init__(self, network: loading.Trained, options: Options) -> None:
        """Opens the outputs and creates the folder of heat maps.

        Args:
            network: Trained network.
            options: Settings of the classification.

        Raises:
            OSError: If a folder does not exist or cannot be created.
        """
        self._class_names, self._count = network.class_names, 0
        self._pictures = Path(options.explain) if options.explain else None
        self._embeddings = None
        if options.features:
            self._embeddings = embeddings.Embeddings(options.features, network.class_names)
        if self._pictures:
            self._pictures.mkdir(parents=True, exist_ok=True)
        self._print_result = printer_for(options)

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


def printer_for(options: Options) -> Callable[[dict], None]:
    """Returns the function that prints a result, as JSON, CSV or (default) a table."""
    if options.csv:
        return answers.Csv()
    return answers.show_json if options.json else answers.show_table


if __name__ == "__main__":
    console.run(
        main, exit_on_closed_pipe=True
    )  # a closed pipe, as in `classify.py ... | head`, is no error
