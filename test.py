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
    from data import convert, damage, datasets, pipeline, views
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
flags.DEFINE_bool("verify", False, "compare the shards' sha256, which reads every byte")
flags.DEFINE_integer("threads", devices.cores(), "CPU threads", 1)


def main(argv: list[str]) -> None:
    """Parses the flags and tests each run or checkpoint that is named."""
    named = console.parse(argv)
    devices.configure(FLAGS.threads)
    devices.set_precision("auto")
    crops = int(FLAGS.crops)
    with console.user_errors():
        strategy = devices.make_strategy()
        networks = [
            trained.open_network(
                place,
                FLAGS.checkpoint,
                model=FLAGS.model,
                init_from=FLAGS.init_from,
                image_size=FLAGS.image_size,
                strategy=strategy,
            )
            for place in named or [None]
        ]
        sets = [
            open_data(network, FLAGS.data, FLAGS.split, verify=FLAGS.verify) for network in networks
        ]
    replicas = strategy.num_replicas_in_sync
    for network, dataset in zip(networks, sets, strict=True):
        batches = pipeline.test_batches(
            dataset,
            FLAGS.split,
            size=network.model.input_shape[1],
            crops=crops,
            batch_size=max(1, FLAGS.batch_size // replicas),
            threads=FLAGS.threads,
            replicas=replicas,
        )
        with console.user_errors():
            with damage.named(dataset):
                totals = steps.Evaluator(strategy, network.model).evaluate(batches)
            if len(networks) > 1:
                print(network.name)
            report(network.folder, totals, crops=crops, split=FLAGS.split, checkpoint=network.name)


def open_data(
    network: trained.Trained, data: str | None, split: str, *, verify: bool
) -> datasets.Dataset:
    """The network's own data set, or another one with the same classes.

    Raises:
        ValueError: If the data has changed, its classes are not those that the network knows, or
            the split does not exist or has no labels.
    """
    if data is None and network.data is None:
        raise ValueError("--data is missing, expected images to test on")
    of_run = network.data if data is None else (data, None)
    dataset = convert.open_dataset(
        of_run[0],
        val_data=of_run[1],
        image_size=network.image_size,
        expected=network.data_fingerprint if data is None else None,
        verify=verify,
    )
    if list(dataset.class_names) != network.class_names:
        raise ValueError(
            f"the classes of {of_run[0]} are not those of {network.name}: expected "
            f"{_short(network.class_names)}, received {_short(dataset.class_names)}"
        )
    if not pipeline.has_labels(dataset, split):
        raise ValueError(f"the {split} split of {of_run[0]} has no labels: use classify.py on it")
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
