"""Tests a trained network on held-out images.

python test.py                        the newest run's best checkpoint, validation split
python test.py RUN --crops=10         ten crops, averaged: the AlexNet paper's protocol
python test.py RUN --split=test       the test split, which training never touches
python test.py RUN RUN RUN            several runs, compared with each other, and their ensemble
python test.py RUN --images=FOLDER    class folders, without conversion
python test.py --model=resnet50 --init_from=timm --images=ILSVRC2012_img_val     published weights
"""

import contextlib
import dataclasses
from collections.abc import Sequence

from runtime import console, flags
from runtime.cores import cores
from runtime.flags import flag

with console.quiet_import():
    from data import opening, pipeline
    from data.checks import integrity
    from data.images import decode
    from data.pipeline import views
    from data.shards import datasets
    from engine import devices
    from inference import evaluation, loading, testsets


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings of a test."""

    data: str | None = flag(
        None,
        "Images, archives or shards to test on (default: the run's data).",
        heading="Images",
    )
    images: str | None = flag(
        None,
        "Class folders, or ILSVRC2012_img_val with the development kit beside it, to test on "
        "without conversion (default: --data).",
    )
    split: str = flag(
        "validation",
        "Split of the data to test on.",
        choices=("validation", "test", "train"),
    )
    verify: bool = flag(False, "Compare the sha256 of every shard, which reads every byte.")

    crops: str = flag(
        "1",
        views.HELP,
        heading="Views",
        choices=tuple(map(str, views.VIEWS)),
    )
    dense: bool = flag(
        False,
        "Apply the network convolutionally to whole images with a shorter side of --image_size.",
    )
    image_size: list[str] | None = flag(
        None,
        "Side of the crops in pixels, or several sides whose predictions are averaged (default: "
        "the network's).",
    )

    batch_size: int = flag(100, "Images per batch, over all replicas.", heading="Machine", low=1)
    threads: int = flag(cores(), "CPU threads.", low=1)
    devices: str = flag(
        "all", "Number of GPUs or of parts of the CPU, or indices of GPUs, such as 0,2."
    )


flags.define(loading.Weights, Options)


def main(argv: list[str]) -> None:
    """Parses the flags, tests each run or checkpoint on the command line, and compares them."""
    arguments = console.parse(argv, descriptions=(loading.Weights, Options))
    weights, options = flags.value_of(loading.Weights), flags.value_of(Options)
    with console.user_errors():
        devices.configure(options.threads, devices=options.devices)
        devices.set_precision("auto", training=False)
        if remark := devices.unused():
            print(remark)
        tests = [Test(path, weights, options) for path in arguments or [None]]
        outcomes = []
        for test in tests:
            if len(tests) > 1 or test.network.origin is None:
                print(console.printable(test.described()))
            outcomes.append(test.run())
        if len(tests) > 1:
            print("\n".join(evaluation.compared([test.network.name for test in tests], outcomes)))


class Test:
    """A test of one network on one set of images."""

    def __init__(self, path: str | None, weights: loading.Weights, options: Options) -> None:
        """Opens the network and the images, and converts the data set where necessary.

        Args:
            path: Run or checkpoint (default: the newest run).
            weights: Weights of the network.
            options: Settings of the test.

        Raises:
            ValueError: If a flag is invalid, or contradicts another flag or the network.
            FileNotFoundError: If the run, the checkpoint or the data does not exist.
        """
        if options.dense and int(options.crops) > 2:
            raise ValueError(
                f"--dense tests on whole images, expected --crops=1 or 2, received {options.crops}"
            )
        self._options, self._strategy = options, devices.make_strategy()
        self._networks = [
            loading.open_network(
                path,
                weights,
                image_size=None if options.dense else size,
                strategy=self._strategy,
            )
            for size in parse_sizes(options.image_size)
        ]
        self.network = self._networks[0]
        self._sizes = parse_sizes(options.image_size)
        if self._sizes == [None]:
            self._sizes = [self.network.image_size]
        if options.images:
            self._images = testsets.Folder(
                options.images,
                self.network.class_names,
                {
                    size: network.storage
                    for size, network in zip(self._sizes, self._networks, strict=True)
                },
                options.threads,
            )
            self._shard_errors = contextlib.nullcontext()
        else:
            dataset = open_data(self.network, options.data, options.split, verify=options.verify)
            self._images = testsets.Split(dataset, options.split)
            self._shard_errors = integrity.naming_damage(dataset)

    def described(self) -> str:
        """Says which network this is, and how published weights see files of images."""
        storages = [network.storage for network in self._networks]
        if not self._options.images or isinstance(storages[0], decode.Storage):
            return self.network.name
        if self._options.dense:
            return f"{self.network.name}; whole images"
        return f"{self.network.name}; {', '.join(map(str, storages))}"

    def run(self) -> evaluation.Outcome:
        """Runs the test, prints the results and writes them into the run folder."""
        options, replicas = self._options, self._strategy.num_replicas_in_sync
        as_trained = self._sizes == [self.network.image_size] and not options.dense
        as_validated = as_trained and options.crops == "1"
        own_images = not (options.data or options.images) and options.split == "validation"
        settings = evaluation.TestSettings(
            split="images" if options.images else options.split,
            data=options.images or options.data,
            crops=int(options.crops),
            dense=options.dense,
            batch_size=max(1, options.batch_size // replicas),
            threads=options.threads,
            replicas=replicas,
            is_own_validation=own_images and as_validated and self.network.folder is not None,
        )
        with self._shard_errors:
            outcome = evaluation.test(
                self._networks, self._sizes, self._images, settings, self._strategy
            )
        figures = evaluation.compute_figures(self.network, outcome, settings, self._sizes)
        lines = [*self._images.remarks(), *evaluation.lines(figures, outcome.predictions)]
        print(*map(console.printable, lines), sep="\n")
        if self.network.folder is not None:
            evaluation.write(self.network, figures, outcome, self._images)
            if settings.is_own_validation:
                evaluation.write_temperature(self.network.folder, figures)
        return outcome


def parse_sizes(values: list[str] | None) -> list[int | None]:
    """Parses the image sizes of a flag, where None stands for the network's own size.

    Raises:
        ValueError: If a size is not a positive integer.
    """
    if not values:
        return [None]
    if not all(value.isdecimal() and int(value) for value in values):
        raise ValueError(
            f"--image_size expects pixels, such as 224,256, received {','.join(values)}"
        )
    return list(map(int, values))


def open_data(
    network: loading.Trained, data: str | None, split: str, *, verify: bool
) -> datasets.Dataset:
    """Opens the data set the network was trained on, or another one with the same classes.

    If the original images are missing or have changed since training, opens their converted copy
    and prints a line that says so.

    Raises:
        ValueError: If the data is missing, its classes differ from the network's, or the split
            does not exist or has no labels.
    """
    console.refuse_ambiguous(data, "digits", "--data=")
    if data is None and network.origin is None:
        raise ValueError("--data is missing, expected images to test on")
    origin = network.origin if data is None else loading.Origin(data)
    options = {"image_size": network.image_size, "verify": verify}
    try:
        dataset = opening.open_dataset(
            origin.data, val_data=origin.val_data, expected=origin.expected, **options
        )
    except opening.ChangedDataError as error:
        if error.copy is None:
            raise
        print(f"{error.reason}; testing on its converted copy, {error.copy}")
        dataset = opening.open_dataset(error.copy, **options)
    if not dataset.has_classes(network.class_names):
        raise ValueError(
            f"the classes of {origin.data} differ from those of {network.name}: expected "
            f"{_short(network.class_names)}, received {_short(dataset.class_names)}"
        )
    if not pipeline.has_labels(dataset, split):
        raise ValueError(f"the {split} split of {origin.data} has no labels: use classify.py on it")
    return dataset


def _short(names: Sequence[str]) -> str:
    return f"{len(names)} classes {', '.join(names[:3])}, ..."


if __name__ == "__main__":
    console.run(main)
