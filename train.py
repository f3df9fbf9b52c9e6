"""Trains a network on images.

python train.py                       LeNet-5 on the built-in digits
python train.py --data=IMAGES         AlexNet on a folder of images (converted on first use)
python train.py --data=IMAGES --model=resnet50 --epochs=90
python train.py --resume              goes on where the newest run stopped
python train.py --flagfile=recipes/alexnet_imagenet.flags --data=ILSVRC2012
"""

import contextlib
import itertools
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

from absl import flags

from runtime import console

with console.quiet_import():
    import tensorflow as tf

    import models
    from data import opening
    from data.checks import integrity
    from data.images import reading
    from data.pipeline import augment, decoded
    from data.shards import copies, datasets
    from engine import checkpoints, cluster, devices, optimizers, runs, schedules
    from models import layers
    from models.tools import graphs, keras_weights
    from training import find_lr, finetune, meter, recipe, show_step
    from training.training import Training, data_name

FLAGS = flags.FLAGS

flags.DEFINE_string("data", "digits", "digits, tfds:NAME, or a path: images, archives or shards")
flags.DEFINE_enum("model", None, models.names(), "the network; lenet5 for digits, else alexnet")
flags.DEFINE_string("val_data", None, "a separate folder of validation images")
flags.DEFINE_integer("image_size", None, "side of the crops in pixels; the network's", 1)
flags.DEFINE_integer("first_image_size", None, "smaller images at first, which grow; image_size", 1)
flags.DEFINE_string("run_dir", None, "everything the run writes; runs/DATA-MODEL")
flags.DEFINE_bool("resume", False, "go on with the newest run, or that of --run_dir")
flags.DEFINE_integer("batch_size", None, "examples of an update, over all replicas; 128", 1)
flags.DEFINE_integer("epochs", 90, "passes over the training images", 1)
flags.DEFINE_string("micro_batch", None, "images at a time, over all replicas, or auto; the batch")
flags.DEFINE_enum("optimizer", "momentum", list(optimizers.OPTIMIZERS), "how weights are updated")
flags.DEFINE_float("learning_rate", None, "before any decay; the optimizer's", 1e-12)
flags.DEFINE_integer("base_batch", None, "scale the rate by batch_size / this", 1)
flags.DEFINE_float("momentum", 0.9, "of the running mean of gradients", 0.0, 1.0)
flags.DEFINE_float("weight_decay", 5e-4, "lambda of the L2 loss lambda / 2 |w|^2", 0.0)
flags.DEFINE_float("l1", 0.0, "lambda of the L1 loss lambda |w|", 0.0)
flags.DEFINE_float("label_smoothing", 0.0, "part of each target given to all classes", 0.0, 0.999)
flags.DEFINE_enum(
    "class_weights", "none", ["none", "balanced"], "balanced: rare classes count more"
)
flags.DEFINE_float("clip_norm", None, "shorten longer gradients to this", 1e-12)
flags.DEFINE_float(
    "ema", 0.0, "decay of a moving average of the weights, such as 0.999", 0.0, 0.999999
)
flags.DEFINE_enum("schedule", "plateau", list(schedules.SCHEDULES), "how the learning rate falls")
flags.DEFINE_list("milestones", ["0.5", "0.75"], "where step decays: fractions of --epochs")
flags.DEFINE_float("decay", 0.1, "of one decay: step, plateau, exponential", 1e-12, 1.0)
flags.DEFINE_float("decay_epochs", 2.0, "in which exponential decays once", 1e-12)
flags.DEFINE_float("power", 1.0, "exponent of polynomial", 0.0)
flags.DEFINE_integer("patience", 5, "epochs without improvement before plateau decays", 1)
flags.DEFINE_float("warmup_epochs", 0.0, "epochs in which the learning rate rises linearly", 0)
flags.DEFINE_integer("early_stopping", None, "end after N epochs without a better accuracy", 1)
flags.DEFINE_enum("augment", None, list(augment.POLICIES), "augmentation; by network and data")
flags.DEFINE_list("scale", None, "in place of alexnet's cut: one of the image at LOW,HIGH pixels")
flags.DEFINE_float("rotate", 0.0, "degrees at most", 0.0, 180.0)
flags.DEFINE_float("translate", 0.0, "part of the side at most", 0.0, 1.0)
flags.DEFINE_float("shear", 0.0, "degrees at most", 0.0, 80.0)
flags.DEFINE_float("elastic", 0.0, "typical displacement, as a part of the side", 0.0, 1.0)
flags.DEFINE_list("randaugment", None, "NUMBER,MAGNITUDE of operations, such as 2,9")
flags.DEFINE_float("jitter", 0.0, "of brightness, contrast, saturation: part at most", 0.0, 1.0)
flags.DEFINE_float("channel_shift", 0.0, "of 255 levels, added to each channel at most", 0.0, 255.0)
flags.DEFINE_float("erase", 0.0, "probability that a rectangle is painted over", 0.0, 1.0)
flags.DEFINE_float("mixup", 0.0, "alpha: lay pairs of images over each other", 0.0)
flags.DEFINE_float("cutmix", 0.0, "alpha: put a part of an image into another", 0.0)
flags.DEFINE_string("activation", None, f"of {models.owners('activation')}; the paper's")
flags.DEFINE_string(
    "norm", None, f"{', '.join(layers.NORMS)}, of {models.owners('norm')}; the paper's"
)
flags.DEFINE_string("pooling", None, f"of {models.owners('pooling')}; the paper's")
flags.DEFINE_float(
    "dropout", None, f"dropped part, of {models.owners('dropout')}; the paper's", 0.0, 1.0
)
flags.DEFINE_float(
    "width", None, f"factor of the channels, of {models.owners('width')}; the paper's", 0.0
)
flags.DEFINE_enum("preprocessing", None, models.PREPROCESSINGS, "of images; the paper's")
flags.DEFINE_enum("init", None, list(layers.INITIALIZERS), "how kernels start; as in the paper")
flags.DEFINE_string("init_from", None, "start from weights: a run, a file, or keras")
flags.DEFINE_string("freeze", "none", "of --init_from: none, all (but what is new) or stage:N")
flags.DEFINE_float("old_rate", 1.0, "factor of the learning rate of what is not new", 0.0, 1.0)
flags.DEFINE_float(
    "norm_bias_rate", 1.0, "factor of the rate of BatchNorm's biases, such as 64", 0.0
)
flags.DEFINE_integer("seed", 0, "everything random is a function of it", 0)
flags.DEFINE_integer("seeds", 1, "train N times, with --seed and the numbers after it; compare", 1)
flags.DEFINE_enum("precision", "auto", devices.PRECISIONS, "auto: the fastest that is safe here")
flags.DEFINE_enum("xla", "auto", ["auto", "on", "off"], "compile the step; auto: on one GPU")
flags.DEFINE_integer("checkpoint_steps", None, "save every N steps too, not only every epoch", 1)
flags.DEFINE_integer("keep", 2, "how many checkpoints to keep besides the best", 1)
flags.DEFINE_enum(
    "on_nan", "stop", ["stop", "rollback"], "rollback: once, with a tenth of the rate"
)
flags.DEFINE_bool("histograms", False, "of weights and gradients, for TensorBoard, every epoch")
flags.DEFINE_integer("profile", None, "record what the device does in N steps, for TensorBoard", 1)
flags.DEFINE_integer("max_steps", None, "stop after N optimizer updates in all", 1)
flags.DEFINE_integer("threads", devices.cores(), "CPU threads", 1)
flags.DEFINE_string("devices", "all", "a number of GPUs or of parts of the CPU, or GPUs as in 0,2")
flags.DEFINE_float("cluster_timeout", 300.0, "seconds to wait for other machines' processes", 1)
flags.DEFINE_enum("cache", "auto", decoded.CACHES, "decode all images to memory; auto: if small")
flags.DEFINE_bool("overfit_batch", False, "a check: train on the first batch alone")
flags.DEFINE_bool("verify", False, "compare the shards' sha256, which reads every byte")
flags.DEFINE_bool("meter", False, "measure where the time goes, and train nothing")
flags.DEFINE_bool("json", False, "the measurement of --meter as one line of JSON")
flags.DEFINE_bool("find_lr", False, "try rising learning rates, propose one, and train nothing")
flags.DEFINE_integer("show_step", None, "draw the images of a step, and train nothing", 0)
flags.DEFINE_bool("log_device_placement", False, "print the device of every operation")

# What --resume may change, because it does not change what is trained.
HARMLESS = {
    "data",  # it has to be the same: compared by its content
    "val_data",
    "run_dir",
    "resume",
    "checkpoint_steps",
    "keep",
    "on_nan",
    "histograms",
    "profile",
    "max_steps",
    "threads",
    "devices",
    "cluster_timeout",
    "cache",
    "verify",
    "meter",
    "json",
    "show_step",
    "log_device_placement",
}
# What may differ between the machines that train together.
OWN = {"data", "val_data", "run_dir", "threads", "devices", "cache", "verify", "profile"}
ALONE = ("meter", "find_lr", "show_step")  # what only one process can do
RECIPES = Path(__file__).parent / "recipes"
FLAGFILE = re.compile(r"--?flagfile(=|$)")


def main(argv: list[str]) -> None:
    """Parses the flags, sets everything up, trains."""
    if unexpected := console.parse(argv):
        console.fail(f"expected flags only, such as --data={unexpected[0]}, received {unexpected}")
    own = [flag for flag in FLAGS.get_key_flags_for_module(sys.argv[0]) if flag.name != "help"]
    given = {flag.name for flag in own if flag.present}
    defaults = {flag.name: flag.default for flag in own}
    if FLAGS.seeds > 1:
        return print("\n".join(train_all(argv, FLAGS.flag_values_dict(), given)))
    talk = sys.stderr if FLAGS.json else sys.stdout  # --json prints nothing else on stdout
    program, *words = argv
    files, typed = apart(words)
    recipe = RECIPES / f"{FLAGS.model or default_model(FLAGS.data)}.flags"
    if recipe.exists() and not files and not FLAGS.resume:
        print(f"settings: those of recipes/{recipe.name} where no flag is given", file=talk)
        files = [f"--flagfile={recipe}"]
        words = [*files, *words]
    of_files, of_hand = (values([program, *each], own) for each in (files, typed))
    console.parse([program, *words])
    options = SimpleNamespace(**{flag.name: flag.value for flag in own})
    if line := drop_foreign_rate(options, defaults | of_files, of_hand):
        given.discard("learning_rate")
        print(line, file=talk)
    try:
        for line in run(options, given, defaults, talk):
            print(line)
    except cluster.PeerLost as error:
        with console.leaving():  # what is cleaned up otherwise might wait for who is gone
            console.fail(error, console.START_AGAIN)


def apart(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Those words of a command line that name flag files, and the others."""
    files, others = [], []
    words = iter(words)
    for word in words:
        is_file = FLAGFILE.match(word)
        (files if is_file else others).append(word)
        if is_file and not is_file[1]:  # the name is a word of its own
            files += itertools.islice(words, 1)
    return files, others


def values(argv: list[str], own: Iterable[flags.Flag]) -> dict[str, object]:
    """Parses a command line; returns the values of the flags that it gives."""
    console.parse(argv)
    return {flag.name: flag.value for flag in own if flag.present}


def drop_foreign_rate(options: SimpleNamespace, recipe: dict, typed: dict) -> str:
    """Drops a recipe's learning rate where the optimizer is not the recipe's.

    Args:
        options: All flags; the optimizer's own rate takes the place of the recipe's.
        recipe: The flags without those that were typed.
        typed: Flags on the command line itself.

    Returns:
        A line for the user; an empty one where nothing is dropped.
    """
    name, rate = options.optimizer, recipe["learning_rate"]
    if rate is None or "learning_rate" in typed or name == recipe["optimizer"]:
        return ""
    options.learning_rate = None
    its_own = optimizers.OPTIMIZERS[name].learning_rate
    return f"learning rate: {its_own:g}, that of {name}; {rate:g} is for {recipe['optimizer']}"


def run(options: SimpleNamespace, given: set[str], defaults: dict, talk: TextIO) -> Iterable[str]:
    """Trains, or does what a flag asks for instead; returns lines about that.

    Args:
        options: The flags.
        given: Names of those on the command line.
        defaults: Values of all flags without it.
        talk: What is printed meanwhile goes there.
    """
    with console.user_errors():
        refuse_ambiguous(options, given)
        if options.json and not options.meter:
            raise ValueError("--json is the form of what --meter measures: expected --meter too")
        workers = cluster.from_environment()
    # With others, TensorFlow's cleaning up would wait for them, 5 s and more.
    leaving = console.leaving() if workers.size > 1 else contextlib.nullcontext()
    with leaving, console.tensorflow_errors(), workers.guarded():
        with console.user_errors(), contextlib.redirect_stdout(talk):
            if options.resume:
                training = resume(options, given, defaults, workers)
            else:
                training = start(options, workers)
            says = instead(training)
            if says is None:
                training.prepare()
        if says is None:
            training.go()
    return says or ()


def refuse_ambiguous(options: SimpleNamespace, given: set[str]) -> None:
    """Raises ValueError for a word that was given and is a path too."""
    for name, word in (("data", "digits"), ("init_from", keras_weights.DOWNLOAD)):
        if name in given:
            console.refuse_ambiguous(vars(options)[name], word, f"--{name}=")


def train_all(argv: list[str], options: dict, given: set[str]) -> list[str]:
    """Trains once for each of `--seeds`; returns lines that compare the runs."""
    seeds = range(options["seed"], options["seed"] + options["seeds"])
    for name in given & {"resume", *ALONE}:
        console.fail(f"--{name} is about one training, received --seeds={len(seeds)} too")
    model = options["model"] or default_model(options["data"])
    run_dir = options["run_dir"] or runs.ROOT / f"{data_name(options['data'])}-{model}"
    with console.user_errors():
        if cluster.from_environment().size > 1:
            raise ValueError("--seeds is for one process, received several workers")
        return seeds.train(argv, seeds, str(run_dir))


def instead(training: Training) -> list[str] | None:
    """Does what a flag asks for instead of training; returns lines about it, None to train."""
    options = training.options
    if options.meter and (training.halves or options.first_image_size):
        raise ValueError(
            "--meter measures one kind of steps: not those of --first_image_size, nor those that "
            "see what a frozen part made of the images (--cache=none lets them see images)"
        )
    if options.meter or options.find_lr:
        training.settle()
    if options.meter:
        verdict = meter.measure(training)
        return [verdict.as_json()] if options.json else meter.lines(verdict)
    if options.show_step is not None:
        return show_step.draw_step(training, options.show_step)
    if options.find_lr:
        return find_lr.report(training, find_lr.find(training))
    return None


def default_model(data: str) -> str:
    """The network for a data set when none is named."""
    return "lenet5" if data == "digits" else "alexnet"


def join(
    options: SimpleNamespace, workers: cluster.Cluster, precision: str
) -> tf.distribute.Strategy:
    """Starts TensorFlow, in all processes that train together once all are there.

    Raises:
        PeerLost: If one does not come, or takes up another moment of the run.
        ValueError: If they were not started alike, or devices are wrong.
    """
    devices.configure(options.threads, options.log_device_placement, options.devices)
    if remark := devices.unused():
        print(remark, flush=True)
    if workers.size > 1:
        meet(options, workers, precision)
    strategy = workers.strategy() if workers.size > 1 else devices.make_strategy()
    if options.xla == "on" and strategy.num_replicas_in_sync > 1:
        raise ValueError(f"--xla=on expects one replica, received {strategy.num_replicas_in_sync}")
    return strategy


def meet(options: SimpleNamespace, workers: cluster.Cluster, precision: str) -> None:
    """Waits until all workers are there, and finds out whether they were started alike."""
    refuse(options, workers)
    shared = {name: value for name, value in vars(options).items() if name not in OWN}
    here = {
        "GPUs": len(tf.config.get_visible_devices("GPU")),
        "precision": devices.precision_here(precision),
    }
    word = {"flags": shared, "versions": checkpoints.versions(), "devices": here}
    compare(workers, cluster.meet(workers, word, options.cluster_timeout))


def refuse(options: SimpleNamespace, workers: cluster.Cluster) -> None:
    """Raises ValueError for flags that do not go together with several workers."""
    for name in ALONE:
        if vars(options)[name] is not None and vars(options)[name] is not False:
            raise ValueError(f"--{name} is for one process, received {workers.size} workers")
    if not options.run_dir:
        raise ValueError("several workers expect --run_dir, the same for all")
    if options.micro_batch == "auto" and not options.resume:
        raise ValueError("several workers expect --micro_batch with a number, received auto")
    if options.devices not in ("all", "1") and not tf.config.list_physical_devices("GPU"):
        raise ValueError(
            f"--devices={options.devices} divides the CPU of one process, received "
            f"{workers.size} workers"
        )


def compare(workers: cluster.Cluster, words: list[dict]) -> None:
    """Finds differences between what the workers were started with.

    Raises:
        PeerLost: If only some go on with a run: one was started again when others were not yet.
        ValueError: If there is another difference.
    """
    for index, kind in itertools.product(range(1, workers.size), words[0]):
        for name, value in words[0][kind].items():
            other = words[index].get(kind, {}).get(name)
            if other == value:
                continue
            if name == "resume":
                raise cluster.PeerLost("not all workers were started with --resume: start again")
            raise ValueError(
                f"{workers.name(index)} has {name}={other}, {workers.name(0)} {name}={value}: "
                "expected the same"
            )


def start(options: SimpleNamespace, workers: cluster.Cluster) -> Training:
    """Sets up a new run; nothing is written but converted data."""
    options.model = options.model or default_model(options.data)
    if options.run_dir and runs.Run(options.run_dir).step_files():
        raise ValueError(
            f"the run folder {options.run_dir} holds checkpoints already, expected a new one; "
            "add --resume to go on with it"
        )
    strategy = join(options, workers, options.precision)
    recipe.check(options, strategy.num_replicas_in_sync)  # before data is converted for hours
    dataset = open_data(options, strategy.num_replicas_in_sync)
    if options.learning_rate is None:
        options.learning_rate = optimizers.OPTIMIZERS[options.optimizer].learning_rate
    options.batch_size = recipe.batch_size(options, dataset.num_examples("train"))
    if options.augment is None:
        options.augment, _ = recipe.default_augment(options, dataset)
    with integrity.named(dataset):
        return Training(options, dataset, options.precision, strategy, workers)


def resume(
    options: SimpleNamespace, given: set[str], defaults: dict, workers: cluster.Cluster
) -> Training:
    """Sets up an earlier run as it was, except for harmless flags given anew."""
    run = runs.Run(options.run_dir) if options.run_dir else runs.newest()
    begun = run.settings()
    saved = {**defaults, **begun["flags"]}  # an older run lacks the newest flags
    if options.find_lr:
        raise ValueError("--find_lr is for a new training, received --resume too")
    harmless = set(HARMLESS)
    if saved["schedule"] in ("constant", "plateau") and not saved["first_image_size"]:
        harmless.add("epochs")
    if workers.size > 1:
        harmless |= OWN
    if saved["freeze"] != "none":  # it decides whether features are kept: other last bits
        harmless.remove("cache")
    for name in sorted(given):
        value = getattr(options, name)
        if name not in harmless and value != saved[name]:
            raise ValueError(
                f"--{name}={value} would change what {run.folder} trains; it was started with "
                f"--{name}={saved[name]}; a new run starts from its weights with "
                f"--init_from={run.folder}"
            )
    changed = {name: getattr(options, name) for name in given}
    options = SimpleNamespace(**{**saved, **changed, "run_dir": str(run.folder), "resume": True})
    strategy = join(options, workers, begun["precision"])
    if opening.is_converted(options.data) and "val_data" not in given:
        options.val_data = None  # the shards have a validation split
    then = copies.Expected(begun["data"]["fingerprint"], begun["data"]["folder"])
    dataset = open_data(options, strategy.num_replicas_in_sync, then)
    check_classes(begun["class_names"], dataset, run)
    with integrity.named(dataset):
        return Training(options, dataset, begun["precision"], strategy, workers, begun)


def check_classes(before: list[str], dataset: datasets.Dataset, run: runs.Run) -> None:
    """Raises ValueError if a run has read the data's classes otherwise, as an earlier version."""
    if not dataset.has_classes(before):
        raise ValueError(
            f"{run.folder} cannot go on: the classes of its data were read as "
            f"{reading.shortened(before)}, and are {reading.shortened(dataset.class_names)}; "
            "expected a new run"
        )


def open_data(
    options: SimpleNamespace, replicas: int, expected: copies.Expected | None = None
) -> datasets.Dataset:
    """The data set as shards; converted now if it was not before and can be trained on."""

    def check(images: int | None) -> None:
        if images is not None:
            recipe.check_batch(options, images, replicas)
        if expected is None:  # not for a run that has begun
            given = recipe.network_options(options)
            given = {**given, "image_size": size}
            model = models.build(options.model, 2, aux_heads=True, **given)
            finetune.freeze(model, options.freeze, ())
            for side in recipe.sides(options):
                graphs.require_size(model, side)

    size = options.image_size or models.image_size(options.model)
    dataset = opening.open_dataset(
        options.data,
        val_data=options.val_data,
        image_size=size,
        check=check,
        expected=expected,
        verify=options.verify,
    )
    if not dataset.num_examples("train"):
        raise ValueError(f"{options.data} has no training images, expected a train split")
    print(*opening.told(dataset), sep="\n")
    return dataset


if __name__ == "__main__":
    console.run(main)
