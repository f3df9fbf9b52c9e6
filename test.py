"""Tests a trained network on images that it was not trained on.

python test.py                        the newest run's best checkpoint, validation split
python test.py RUN --crops=10         averaged over ten crops, the AlexNet paper's protocol
python test.py RUN --split=test       the test split, which training never touches
"""

import json
from pathlib import Path

from absl import flags

import console

with console.quiet_import():
    import models
    from data import convert, datasets, pipeline, views
    from engine import checkpoints, devices, runs, steps

FLAGS = flags.FLAGS

flags.DEFINE_string("data", None, "images, archives or shards; those of the run")
flags.DEFINE_enum("split", "validation", ["validation", "test", "train"], "which images")
flags.DEFINE_string("checkpoint", "best", "best, last, a step, or a file")
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
            folder, checkpoint = runs.open_checkpoint(place, FLAGS.checkpoint)
            strategy = devices.make_strategy()
            replicas = strategy.num_replicas_in_sync
            with strategy.scope():
                model = checkpoints.rebuild(checkpoint, models.build, FLAGS.image_size)
            batches = pipeline.test_batches(
                open_data(checkpoint, FLAGS.data),
                FLAGS.split,
                size=model.input_shape[1],
                crops=crops,
                batch_size=max(1, FLAGS.batch_size // replicas),
                threads=FLAGS.threads,
                replicas=replicas,
            )
        totals = steps.Evaluator(strategy, model).evaluate(batches)
        if len(named) > 1:
            print(checkpoint.path)
        report(folder, totals, crops=crops, split=FLAGS.split, checkpoint=str(checkpoint.path))


def open_data(checkpoint: checkpoints.Checkpoint, data: str | None) -> datasets.Dataset:
    """The run's data set, or another one with the same classes.

    Raises:
        ValueError: If the classes are not those that the network was trained on.
    """
    trained = checkpoint.about["flags"]
    folder = convert.prepare(
        data or trained["data"],
        val_data=None if data else trained["val_data"],
        image_size=checkpoint.about["network"]["image_size"],
    )
    dataset = datasets.load(folder)
    if list(dataset.class_names) != checkpoint.about["class_names"]:
        raise ValueError(
            f"the classes of {dataset.folder} are not those of {checkpoint.path}: expected "
            f"{_short(checkpoint.about['class_names'])}, received {_short(dataset.class_names)}"
        )
    return dataset


def _short(names: list[str]) -> str:
    return f"{len(names)} classes {', '.join(names[:3])}, ..."


def report(folder: Path, totals: steps.Totals, **how: str | int) -> None:
    """Prints the accuracies and writes them, with how they were found, into the run's test.json."""
    result = {**totals.means, "examples": int(totals.examples), **how}
    (folder / "test.json").write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"top-1 {100 * result['top1_accuracy']:.2f} %  top-5 {100 * result['top5_accuracy']:.2f} %"
        f"  (n = {result['examples']})"
    )


if __name__ == "__main__":
    console.run(main)
