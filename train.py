"""Trains a network on images.

python train.py                       LeNet-5 on the built-in digits
python train.py --data=IMAGES         AlexNet on a folder of images (converted on first use)
python train.py --data=IMAGES --model=resnet50 --epochs=90
python train.py --resume              goes on where the newest run stopped
python train.py --flagfile=recipes/alexnet_imagenet.flags --data=ILSVRC2012
"""

import dataclasses
import functools
import math
import shlex
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from absl import flags
from tqdm import tqdm

import console

with console.quiet_import():
    import keras
    import tensorflow as tf

    import meter
    import models
    from data import augment, convert, datasets, decoded, pipeline
    from engine import (
        checkpoints,
        devices,
        optimizers,
        progress,
        runs,
        schedules,
        steps,
        summaries,
    )
    from models import keras_weights

FLAGS = flags.FLAGS

flags.DEFINE_string("data", "digits", "digits, tfds:NAME, or a path: images, archives or shards")
flags.DEFINE_enum("model", None, models.names(), "the network; lenet5 for digits, else alexnet")
flags.DEFINE_string("val_data", None, "a separate folder of validation images")
flags.DEFINE_integer("image_size", None, "side of the crops in pixels; the network's", 1)
flags.DEFINE_string("run_dir", None, "everything the run writes; runs/DATA-MODEL")
flags.DEFINE_bool("resume", False, "go on with the newest run, or that of --run_dir")
flags.DEFINE_integer("batch_size", None, "examples of an update, over all replicas; 128", 1)
flags.DEFINE_integer("epochs", 90, "passes over the training images", 1)
flags.DEFINE_enum("optimizer", "momentum", list(optimizers.OPTIMIZERS), "how weights are updated")
flags.DEFINE_float("learning_rate", None, "before any decay; the optimizer's", 1e-12)
flags.DEFINE_float("momentum", 0.9, "of the running mean of gradients", 0.0, 1.0)
flags.DEFINE_float("weight_decay", 5e-4, "lambda of the L2 loss lambda / 2 |w|^2", 0.0)
flags.DEFINE_enum("schedule", "plateau", list(schedules.SCHEDULES), "how the learning rate falls")
flags.DEFINE_list("milestones", ["0.5", "0.75"], "where step decays: fractions of --epochs")
flags.DEFINE_float("decay", 0.1, "factor of one decay, for step and plateau", 0.0, 1.0)
flags.DEFINE_integer("patience", 5, "epochs without improvement before plateau decays", 1)
flags.DEFINE_float("warmup_epochs", 0, "epochs in which the learning rate rises linearly", 0)
flags.DEFINE_enum("augment", None, list(augment.POLICIES), "augmentation; by network and data")
flags.DEFINE_string("activation", None, "of AlexNet, VGG and the CIFAR nets; the paper's")
flags.DEFINE_string("norm", None, "none, lrn or batch, of AlexNet, GoogLeNet, VGG; the paper's")
flags.DEFINE_string("pooling", None, "of AlexNet and the CIFAR nets; the paper's")
flags.DEFINE_float("dropout", None, "fraction that is dropped; the paper's", 0.0, 1.0)
flags.DEFINE_float("width", None, "multiplier of the channels, of MobileNet and WRN", 0.0)
flags.DEFINE_string("init_from", None, "start from weights: keras, or a file that Keras wrote")
flags.DEFINE_integer("seed", 0, "everything random is a function of it", 0)
flags.DEFINE_enum("precision", "auto", devices.PRECISIONS, "auto: the fastest that is safe here")
flags.DEFINE_integer("checkpoint_steps", None, "save every N steps too, not only every epoch", 1)
flags.DEFINE_integer("keep", 2, "how many checkpoints to keep besides the best", 1)
flags.DEFINE_integer("max_steps", None, "stop after N optimizer updates in all", 1)
flags.DEFINE_integer("threads", devices.cores(), "CPU threads", 1)
flags.DEFINE_enum("cache", "auto", decoded.CACHES, "decode all images to memory; auto: if small")
flags.DEFINE_bool("verify", False, "compare the shards' sha256, which reads every byte")
flags.DEFINE_bool("meter", False, "measure where the time goes, and train nothing")
flags.DEFINE_bool("json", False, "the measurement of --meter as one line of JSON")
flags.DEFINE_integer("show_step", None, "draw the images of a step, and train nothing", 0)
flags.DEFINE_bool("log_device_placement", False, "print the device of every operation")

# What --resume may change, because it does not change what is trained.
HARMLESS = {
    "run_dir",
    "resume",
    "checkpoint_steps",
    "keep",
    "max_steps",
    "threads",
    "cache",
    "verify",
    "meter",
    "json",
    "show_step",
    "log_device_placement",
}
RECIPES = Path(__file__).parent / "recipes"
VARIED = ("activation", "norm", "pooling", "dropout", "width")  # the networks' own options
CALL_SECONDS = 0.5  # of training between two looks at signals and the clock
SUMMARY_STEPS = 50
METER_STEPS = 20_000  # planned at least, so that no measurement begins anew


def main(argv: list[str]) -> None:
    """Parses the flags, sets everything up, trains."""
    if unexpected := console.parse(argv):
        console.fail(f"expected flags only, such as --data={unexpected[0]}, received {unexpected}")
    own = [flag for flag in FLAGS.get_key_flags_for_module(sys.argv[0]) if flag.name != "help"]
    given = {flag.name for flag in own if flag.present}
    if not FLAGS.resume:
        recipe = RECIPES / f"{FLAGS.model or default_model(FLAGS.data)}.flags"
        if recipe.exists() and not any(word.lstrip("-").startswith("flagfile") for word in argv):
            print(f"settings: those of recipes/{recipe.name} where no flag is given")
            console.parse([argv[0], f"--flagfile={recipe}", *argv[1:]])
    options = SimpleNamespace(**{flag.name: flag.value for flag in own})
    if "optimizer" in given and "learning_rate" not in given:
        options.learning_rate = None  # the recipe's is for its own optimizer
    with console.user_errors():
        training = resume(options, given) if options.resume else start(options)
        if options.meter:
            return show_speed(training)
        if options.show_step is not None:
            return show_step(training, options.show_step)
        training.prepare()
    training.go()


def default_model(data: str) -> str:
    """The network for a data set when none is named."""
    return "lenet5" if data == "digits" else "alexnet"


def start(options: SimpleNamespace) -> "Training":
    """Sets up a new run; nothing is written but converted data."""
    options.model = options.model or default_model(options.data)
    if options.run_dir and runs.Run(options.run_dir).step_files():
        raise ValueError(
            f"the run folder {options.run_dir} holds checkpoints already, expected a new one; "
            "add --resume to go on with it"
        )
    check(options)
    dataset = open_data(options)
    if options.learning_rate is None:
        options.learning_rate = optimizers.OPTIMIZERS[options.optimizer].learning_rate
    if options.batch_size is None:
        options.batch_size = min(128, dataset.num_examples("train"))
    if options.augment is None:
        options.augment = default_policy(options.model, dataset.class_names)
    return Training(options, dataset, options.precision)


def check(options: SimpleNamespace) -> None:
    """Finds what is wrong with the flags before data is converted for hours.

    Raises:
        ValueError: If a flag's value is out of range.
        FileNotFoundError: If the file of `--init_from` does not exist.
    """
    devices.configure(options.threads, options.log_device_placement)
    for name, value in vars(options).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name} expects a finite number, received {value}")
    if options.seed >= 2**32:
        raise ValueError(f"--seed expects a number below {2**32}, received {options.seed}")
    milestones(options)
    replicas = devices.make_strategy().num_replicas_in_sync
    if options.batch_size and options.batch_size % replicas:
        raise ValueError(
            f"--batch_size is global and must be divisible by the {replicas} replicas, "
            f"received {options.batch_size}"
        )
    if options.init_from not in (None, keras_weights.DOWNLOAD):
        if not Path(options.init_from).is_file():
            raise FileNotFoundError(f"--init_from expects a file, received {options.init_from}")
    network_options(options)


def milestones(options: SimpleNamespace) -> tuple[float, ...]:
    """Where `--schedule=step` decays, as numbers.

    Raises:
        ValueError: If they are not fractions.
    """
    try:
        fractions = tuple(float(text) for text in options.milestones)
    except ValueError:
        fractions = (math.nan,)
    if not all(0 < fraction < 1 for fraction in fractions):
        raise ValueError(
            "--milestones expects fractions of --epochs such as 0.5,0.75, "
            f"received {','.join(options.milestones)}"
        )
    return fractions


def default_policy(model: str, class_names: tuple[str, ...]) -> str:
    """The network's own policy, but characters and digits are never mirrored."""
    characters = all(len(name) == 1 and name.isalnum() for name in class_names)
    return "digits" if characters else models.policy(model)


def data_name(data: str) -> str:
    """What `--data` is called in the name of the run folder."""
    if data.startswith("tfds:"):
        return data.removeprefix("tfds:").replace("/", "_")
    return Path(data).resolve().name


def resume(options: SimpleNamespace, given: set[str]) -> "Training":
    """Sets up an earlier run as it was, except for harmless flags given anew."""
    run = runs.Run(options.run_dir) if options.run_dir else runs.newest()
    settings = run.settings()
    saved = {**vars(options), **settings["flags"]}  # an older run may lack the newest flags
    harmless = HARMLESS | ({"epochs"} if saved["schedule"] in ("constant", "plateau") else set())
    for name in sorted(given):
        value = getattr(options, name)
        if name not in harmless and value != saved[name]:
            raise ValueError(
                f"--{name}={value} would change what {run.folder} trains; it was started with "
                f"--{name}={saved[name]}"
            )
    changed = {name: getattr(options, name) for name in given}
    options = SimpleNamespace(**{**saved, **changed, "run_dir": str(run.folder), "resume": True})
    devices.configure(options.threads, options.log_device_placement)
    dataset = open_data(options, expected=settings["data"]["fingerprint"])
    return Training(options, dataset, settings["precision"])


def open_data(options: SimpleNamespace, expected: str | None = None) -> datasets.Dataset:
    """The data set as shards; converted now if it was not before and the network can be built."""
    size = options.image_size or models.image_size(options.model)
    dataset = convert.open_dataset(
        options.data,
        val_data=options.val_data,
        image_size=size,
        check=lambda: models.build(options.model, 2, image_size=size, **network_options(options)),
        expected=expected,
        verify=options.verify,
    )
    if not dataset.num_examples("train"):
        raise ValueError(f"{options.data} has no training images, expected a train split")
    return dataset


def show_speed(training: "Training") -> None:
    """Prints where the time of a training goes."""
    options, network = training.options, training.network
    source = meter.Input(
        training.dataset,
        training.policy,
        size=network["image_size"],
        batch_size=options.batch_size,
        seed=options.seed,
        steps=max(training.total, METER_STEPS),
        threads=options.threads,
        cache=options.cache,
    )
    verdict = meter.measure(
        source,
        training.trainer,
        training.batches(0, source.steps),
        replicas=training.replicas,
        steps_per_epoch=training.steps_per_epoch,
    )
    print(verdict.as_json() if options.json else "\n".join(meter.lines(verdict)))


def show_step(training: "Training", step: int) -> None:
    """Draws what a step is trained on."""


def network_options(options: SimpleNamespace) -> dict:
    """The network's own options that were given, and those that weights from elsewhere need."""
    given = {name: vars(options)[name] for name in VARIED if vars(options)[name] is not None}
    return given | (keras_weights.options(options.model) if options.init_from else {})


@dataclasses.dataclass
class State:
    """What a checkpoint holds besides tensors and the schedule.

    Attributes:
        totals: Of the training steps of the unfinished epoch.
        best_accuracy: Highest validation top-1 accuracy so far; -1 before the first.
    """

    totals: steps.Totals = dataclasses.field(default_factory=steps.Totals)
    best_accuracy: float = -1.0


class Training:
    """One run: its network, its state and its loop."""

    def __init__(self, options: SimpleNamespace, dataset: datasets.Dataset, precision: str) -> None:
        """Builds everything for step 0; writes nothing.

        Raises:
            ValueError: If flags, network and data do not go together.
        """
        self.options, self.dataset = options, dataset
        self.strategy = devices.make_strategy()
        self.precision = devices.set_precision(precision)
        self.replicas = self.strategy.num_replicas_in_sync
        self.steps_per_epoch = self._count_steps()
        self.total = options.epochs * self.steps_per_epoch
        self.end = min(self.total, options.max_steps or self.total)
        self.network = {
            "name": options.model,
            "num_classes": dataset.num_classes,
            "image_size": options.image_size or models.image_size(options.model),
            "mean": list(dataset.mean),
            "std": list(dataset.std),
            **network_options(options),
        }
        self.policy = augment.POLICIES[options.augment]
        self.schedule = self._schedule()
        keras.utils.set_random_seed(options.seed)
        with self.strategy.scope():
            self.model = models.build(**self.network, aux_heads=True)
            self.optimizer = optimizers.build(
                options.optimizer, options.learning_rate, options.momentum
            )
        self.trainer = steps.Trainer(
            self.strategy,
            self.model,
            self.optimizer,
            batch_size=options.batch_size,
            weight_decay=options.weight_decay,
            seed=options.seed,
            colour=self._colour if self.policy.colour else None,
            aux_weight=models.aux_weight(options.model),
        )
        self.evaluator = steps.Evaluator(self.strategy, self.model)
        self.variables = checkpoints.named_variables(self.model, self.optimizer)
        self.validation = self._validation_batches()
        self.state = State()
        self.meter = progress.Meter()

    @property
    def run(self) -> runs.Run:
        """The run folder."""
        return runs.Run(self.options.run_dir)

    @functools.cached_property
    def summaries(self) -> summaries.Summaries:
        """What TensorBoard shows of the run."""
        return summaries.Summaries(self.run.folder)

    def _count_steps(self) -> int:
        """Steps of an epoch."""
        batch_size, examples = self.options.batch_size, self.dataset.num_examples("train")
        if batch_size > examples:
            raise ValueError(
                f"--batch_size={batch_size} is more than the {examples} training images"
            )
        return examples // batch_size

    def _schedule(self) -> schedules.Schedule:
        options = self.options
        return schedules.Schedule(
            options.schedule,
            options.learning_rate,
            self.total,
            warmup_steps=round(options.warmup_epochs * self.steps_per_epoch),
            milestones=milestones(options),
            decay=options.decay,
            plateau=schedules.Plateau(options.patience),
        )

    def _colour(self, images: tf.Tensor, step: tf.Tensor, replica: tf.Tensor) -> tf.Tensor:
        """The policy's colour part; drawn for the global batch, of which a replica has a part."""
        draws = augment.colour_draws(self.options.seed, step, self.options.batch_size)
        mine = tf.reshape(draws, [self.replicas, -1, draws.shape[-1]])[replica]
        return self.policy.colour(images, mine)

    def say(self, line: str) -> None:
        """Prints a line, and keeps it in train.log."""
        tqdm.write(line)
        self.run.log(line)

    def prepare(self) -> None:
        """Writes the folder of a new run, or takes up an earlier one."""
        if self.options.resume:
            return self.restore(self.run.settings())
        if not self.options.run_dir:
            name = f"{data_name(self.options.data)}-{self.options.model}"
            self.options.run_dir = str(runs.make_folder(name))
        self.begin()

    def begin(self) -> None:
        """Starts at step 0: takes weights from elsewhere, then writes the folder of the run."""
        weights = self._weights_from_elsewhere()
        self.run.write_settings(
            {
                "flags": vars(self.options),
                "precision": self.precision,
                "class_names": self.dataset.class_names,
                "data": {
                    "folder": str(self.dataset.folder),
                    "fingerprint": self.dataset.fingerprint,
                    "examples": {s: self.dataset.num_examples(s) for s in self.dataset.splits},
                },
                "versions": checkpoints.versions(),
                "device": devices.describe(self.strategy, self.options.threads),
            }
        )
        self._introduce()
        if weights:
            self.say(weights)
        self.summaries.flags(vars(self.options))
        self.summaries.graph(self.model)
        self._show_batch()

    def restore(self, settings: dict) -> None:
        """Takes up the newest checkpoint of the run, if it has one."""
        self.run.remove_litter()
        checkpoint = self.run.last(self.say)
        if checkpoint is None:
            self.say(f"{self.run.folder} was stopped before its first checkpoint: from step 0")
            return self.begin()
        now = {
            **checkpoints.versions(),
            **devices.describe(self.strategy, self.options.threads),
        }
        before = {**checkpoint.about["versions"], **checkpoint.about["device"]}
        for name in sorted(now):
            if now[name] != before.get(name):
                self.say(
                    f"warning: {name} was {before.get(name)}, is {now[name]}: "
                    "the results may differ in the last bits"
                )
        checkpoints.assign(self.variables, checkpoint)
        self.schedule.state = checkpoint.about["schedule"]
        self.state = State(
            steps.Totals(**checkpoint.about["totals"]), checkpoint.about["best_accuracy"]
        )
        self.run.keep_metrics(self.trainer.step)
        self.run.write_settings({**settings, "flags": vars(self.options)})
        self._introduce()
        self.say(f"resuming at step {self.trainer.step}")

    def _weights_from_elsewhere(self) -> str:
        """Loads those of `--init_from`; returns a line about it, empty without."""
        source = self.options.init_from
        if not source:
            return ""
        kept = keras_weights.load(self.options.model, self.model, source)
        return f"weights from {source}; new: {', '.join(kept) or 'none'}"

    def _introduce(self) -> None:
        """Says what is trained on what."""
        dataset, size = self.dataset, self.network["image_size"]
        parameters = sum(math.prod(v.shape) for v in self.model.trainable_weights)
        self.say(
            f"{self.options.model}: {parameters:,} parameters, {size} x {size} pixels, "
            f"{self.precision}; {self.replicas} replica(s), {self.options.threads} threads"
        )
        counts = ", ".join(f"{dataset.num_examples(s):,} {s}" for s in dataset.splits)
        self.say(
            f"{self.options.data}: {counts}; {dataset.num_classes} classes; "
            f"batches of {self.options.batch_size}, {self.steps_per_epoch} steps an epoch"
        )
        shorter = pipeline.shorter_side(dataset)
        if shorter < size:
            self.say(f"the images ({shorter} pixels) are enlarged to the network's {size}")
        self.say(f"run folder: {self.run.folder}")

    def batches(self, first: int, end: int) -> tf.data.Dataset:
        """Those of the steps from `first` to before `end`, as the trainer iterates over them."""
        return pipeline.train_batches(
            self.dataset,
            self.policy,
            size=self.network["image_size"],
            batch_size=self.options.batch_size,
            seed=self.options.seed,
            step=first,
            steps=end,
            threads=self.options.threads,
            per_batch=self.options.batch_size // self.replicas,
            cache=self.options.cache,
        )

    def _show_batch(self, count: int = 16) -> None:
        """Shows images of the first batch as the network will see them."""
        images = next(iter(self.batches(0, 1)))[0][:count]
        if self.policy.colour:
            draws = augment.colour_draws(self.options.seed, 0, self.options.batch_size)
            images = self.policy.colour(tf.cast(images, tf.float32), draws[: len(images)])
        pictures = tf.saturate_cast(images, tf.uint8).numpy()
        self.summaries.images("augmented", pictures, 0)

    def go(self) -> None:
        """Trains to the end; stops early, with a checkpoint, at a signal."""
        interrupts = console.Interrupts(lambda: print("stopping after this step", file=sys.stderr))
        try:
            if self.trainer.step < self.end:
                self._loop(interrupts)
        except (steps.NotFinite, OSError) as error:
            console.fail(error, console.FAILED)
        if interrupts.received and self.trainer.step < self.end:
            run_dir = shlex.quote(self.options.run_dir)
            self.say(f"stopped; go on with: python train.py --resume --run_dir={run_dir}")
            sys.exit(interrupts.exit_code)
        digest = checkpoints.weights_digest(self.model)
        self.say(f"done: step {self.trainer.step}  weights sha256 {digest}")

    def _loop(self, interrupts: console.Interrupts) -> None:
        step = self.trainer.step
        iterator = self.trainer.iterate(self.batches(step, self.end))
        line = progress.Line(self.options.epochs, self.steps_per_epoch)
        count = 1
        stopping = False
        while step < self.end and not stopping:
            rates = [self.schedule.rate(step + i) for i in range(count)]
            began = time.perf_counter()
            done = self.trainer.train(iterator, rates)
            seconds = time.perf_counter() - began
            step += count
            self.state.totals += done.totals
            self.meter.add(count * self.options.batch_size, seconds, done.waited)
            line.update(step, self._describe(step))
            if self._due(step, self.steps_per_epoch, SUMMARY_STEPS):
                self._summarise(step, rates[-1], done)
            stopping = interrupts.received is not None  # looked at once: who stops has saved
            ends = step == self.end or self._due(step, self.steps_per_epoch)
            saves = ends or stopping or self._due(step, self.options.checkpoint_steps)
            if saves and not math.isfinite(self.trainer.weight_norm()):
                raise steps.NotFinite(step - 1, rates[-1])
            if ends:
                self._finish_epoch(step, rates[-1], line)
            elif saves:
                self._save(step)
            count = self._call_size(step, count, seconds)

    @staticmethod
    def _due(step: int, *periods: int | None) -> bool:
        return any(period and step % period == 0 for period in periods)

    def _call_size(self, step: int, count: int, seconds: float) -> int:
        """Steps of the next call: about `CALL_SECONDS` long, up to where something is due."""
        periods = (self.steps_per_epoch, SUMMARY_STEPS, self.options.checkpoint_steps)
        room = min([self.end - step, *(period - step % period for period in periods if period)])
        return max(1, min(room, steps.MAX_STEPS, int(CALL_SECONDS * count / seconds)))

    def _describe(self, step: int) -> str:
        means, speed = self.state.totals.means, self.meter.images_per_second
        left = (self.end - step) * self.options.batch_size / speed
        return (
            f"step {step}/{self.end}  loss {means['loss']:.4f}  "
            f"top-1 {100 * means['top1_accuracy']:.2f} %  {speed:,.0f} images/s  "
            f"{progress.duration(left)} left"
        )

    def _summarise(self, step: int, rate: float, done: steps.Progress) -> None:
        values = {
            **done.totals.means,
            "learning_rate": rate,
            "gradient_norm": done.gradient_norm,
            "weight_norm": self.trainer.weight_norm(),
            "images_per_second": self.meter.images_per_second,
            "input_wait_fraction": self.meter.input_wait_fraction,
        }
        self.summaries.scalars("train", values, step)

    def _finish_epoch(self, step: int, rate: float, line: progress.Line) -> None:
        """Validates, writes the metrics row, moves the schedule at a true end, saves."""
        train, validation = self.state.totals.means, {}
        if self.validation is not None:
            validation = self.evaluator.evaluate(self.validation).means
        epoch = math.ceil(step / self.steps_per_epoch)
        text = f"epoch {epoch}/{self.options.epochs}  {self._describe(step)}"
        row = {
            "epoch": epoch,
            "step": step,
            "learning_rate": rate,
            "train_loss": train["loss"],
            "train_top1_accuracy": train["top1_accuracy"],
            "images_per_second": self.meter.images_per_second,
            "input_wait_fraction": self.meter.input_wait_fraction,
        }
        if validation:
            text += f"  validation top-1 {100 * validation['top1_accuracy']:.2f} %"
            row |= {f"validation_{name}": value for name, value in validation.items()}
            self.summaries.scalars("validation", validation, step)
        self.run.log(text)
        line.finish(text, last=step == self.end)
        self.run.add_metrics(row)
        if self._due(step, self.steps_per_epoch):
            self.schedule.plateau.observe(1 - (validation or train)["top1_accuracy"])
            self.state.totals = steps.Totals()
            self.meter.reset()
        self.summaries.filters(self.model, step)
        self.summaries.flush()
        accuracy = validation.get("top1_accuracy", -1.0)
        best = accuracy > self.state.best_accuracy
        self.state.best_accuracy = max(accuracy, self.state.best_accuracy)
        self._save(step, best=best)

    def _validation_batches(self) -> tf.data.Dataset | None:
        """The validation split's centre crops; made once, read every epoch."""
        if not self.dataset.num_examples("validation"):
            return None
        return pipeline.test_batches(
            self.dataset,
            "validation",
            size=self.network["image_size"],
            crops=1,
            batch_size=self.options.batch_size // self.replicas,
            threads=self.options.threads,
            replicas=self.replicas,
            cache=self.options.cache,
        )

    def _save(self, step: int, *, best: bool = False) -> None:
        about = {
            "step": step,
            "flags": vars(self.options),
            "network": self.network,
            "class_names": self.dataset.class_names,
            "storage": self.dataset.storage,
            "data_fingerprint": self.dataset.fingerprint,
            "versions": checkpoints.versions(),
            "device": devices.describe(self.strategy, self.options.threads),
            "schedule": self.schedule.state,
            "totals": dataclasses.asdict(self.state.totals),
            "best_accuracy": self.state.best_accuracy,
        }
        tensors = checkpoints.values(self.variables)
        self.run.save(tensors, about, keep=self.options.keep, best=best)


if __name__ == "__main__":
    console.run(main)
