"""Tests a trained network on images that it was not trained on.

python test.py                        the newest run's best checkpoint, validation split
python test.py RUN --crops=10         averaged over ten crops, the AlexNet paper's protocol
python test.py RUN --split=test       the test split, which training never touches
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

import console

with console.quiet_import():
    import trained
    from data import convert, datasets, pipeline, views
    from engine import devices, steps

FLAGS = flags.FLAGS

flags.DEFINE_string("data", None, "images, archives or shards; those of the run")
flags.DEFINE_enum("split", "validation", ["validation", "test", "train"], "which images")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or a file")
flags.DEFINE_string("model", None, "a network with --init_from, without any run")
flags.DEFINE_string("init_from", None, "its weights: keras, or a file that Keras wrote")
flags.DEFINE_enum("crops", "1", [str(count) for count in views.VIEWS], "views of each image")
flags.DEFINE_integer("image_size", None, "side of the crops in pixels; as trained", 1)
flags.DEFINE_integer("batch_size", 100, "images at a time, over all replicas", 1)
flags.DEFINE_integer("threads", devices.cores(), "CPU threads", 1)


def main(argv: list[str]) -> None:
    """Parses the flags and tests each run or checkpoint that is named."""
    named = console.parse(argv)
    devices.configure(FLAGS.threads)
    devices.set_precision("auto")
    crops = int(FLAGS.crops)
    for place in named or [None]:
        with console.user_errors():
            strategy = devices.make_strategy()
            network = trained.open_network(
                place,
                FLAGS.checkpoint,
                model=FLAGS.model,
                init_from=FLAGS.init_from,
                image_size=FLAGS.image_size,
                strategy=strategy,
            )
            replicas = strategy.num_replicas_in_sync
            batches = pipeline.test_batches(
                open_data(network, FLAGS.data),
                FLAGS.split,
                size=network.model.input_shape[1],
                crops=crops,
                batch_size=max(1, FLAGS.batch_size // replicas),
                threads=FLAGS.threads,
                replicas=replicas,
            )
        totals = steps.Evaluator(strategy, network.model).evaluate(batches)
        if len(named) > 1:
            print(network.name)
        report(network.folder, totals, crops=crops, split=FLAGS.split, checkpoint=network.name)


def open_data(network: trained.Trained, data: str | None) -> datasets.Dataset:
    """The network's own data set, or another one with the same classes.

    Raises:
        ValueError: If the classes are not those that the network knows.
    """
    if data is None and network.data is None:
        raise ValueError("--data is missing, expected images to test on")
    data, val_data = (data, None) if data else network.data
    folder = convert.prepare(data, val_data=val_data, image_size=network.image_size)
    dataset = datasets.load(folder)
    if list(dataset.class_names) != network.class_names:
        raise ValueError(
            f"the classes of {data} are not those of {network.name}: expected "
            f"{_short(network.class_names)}, received {_short(dataset.class_names)}"
        )
    return dataset


def _short(names: Sequence[str]) -> str:
    return f"{len(names)} classes {', '.join(names[:3])}, ..."


def report(folder: Path | None, totals: steps.Totals, **how: str | int) -> None:
    """Prints the accuracies and writes them, with how they were found, into the run's test.json."""
    result = {**totals.means, "examples": int(totals.examples), **how}
    if folder is not None:
        (folder / "test.json").write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"top-1 {100 * result['top1_accuracy']:.2f} %  top-5 {100 * result['top5_accuracy']:.2f} %"
        f"  (n = {result['examples']})"
    )


if __name__ == "__main__":
    console.run(main)
