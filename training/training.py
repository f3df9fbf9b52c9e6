"""One training: its network, its state and its loop; `train.py` sets it up from flags."""

import contextlib
import dataclasses
import functools
import hashlib
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf

import models
from data.checks import integrity
from data.images.names import readable
from data.pipeline import augment
from data.shards import datasets
from data.sources import archives, folders
from engine import averages, checkpoints, cluster, devices, losses, optimizers, runs, steps
from models import layers
from models.tools import graphs, keras_weights
from runtime import console
from training import batches, finetune, frozen, log, profiling, recipe

CALL_SECONDS = 0.5  # of training between two looks at signals and the clock
SUMMARY_STEPS = 50
_DIGITS = 12  # hexadecimal ones of a digest that a float64 can hold
ROLLBACK = 0.1  # of the learning rate, after a loss that was not finite


def data_name(data: str) -> str:
    """What `--data` is called in the name of the run folder."""
    if data.startswith("tfds:"):
        return data.removeprefix("tfds:").replace("/", "_")
    name = archives.without_suffix(Path(data).resolve().name)
    return folders.cut(readable(name))


@dataclasses.dataclass
class State:
    """What a checkpoint holds besides tensors and the schedule.

    Attributes:
        epoch: Totals of the training steps of the unfinished epoch.
        recent: Totals of those since the last point of the curves.
        best_accuracy: Highest validation top-1 accuracy so far; -1 before the first.
        best_of_epochs: The same at the ends of epochs only: stopping between does not change it.
        stale: Epochs since then.
        slower: Factor of the schedule's learning rates, below 1 after a rollback.
    """

    epoch: steps.Totals = steps.Totals()
    recent: steps.Totals = steps.Totals()
    best_accuracy: float = -1.0
    best_of_epochs: float = -1.0
    stale: int = 0
    slower: float = 1.0

    @classmethod
    def from_json(cls, values: Mapping) -> "State":
        """The inverse of `dataclasses.asdict`."""
        totals = {name: steps.Totals(**values[name]) for name in ("epoch", "recent")}
        return cls(**{**values, **totals})


class Training:
    """One run: its network, its state and its loop."""

    def __init__(
        self,
        options: SimpleNamespace,
        dataset: datasets.Dataset,
        precision: str,
        strategy: tf.distribute.Strategy,
        workers: cluster.Cluster = cluster.Cluster(),  # noqa: B008
        begun: dict | None = None,
    ) -> None:
        """Builds everything for step 0; writes nothing.

        Args:
            options: The flags.
            dataset: What to train on.
            precision: One of `devices.PRECISIONS`.
            strategy: Over whose replicas to train.
            workers: The processes that do, this one among them.
            begun: What run.json says of a run that goes on.

        Raises:
            ValueError: If flags, network and data do not go together.
        """
        self.options, self.dataset = options, dataset
        self.strategy, self.workers = strategy, workers
        self.precision = devices.set_precision(precision)
        self.replicas = self.strategy.num_replicas_in_sync
        self._begun = begun = begun or {}
        self.network = begun.get("network") or recipe.network(options, dataset)
        self.feed = batches.Feed(
            options,
            dataset,
            size=self.network["image_size"],
            replicas=self.replicas,
            share=(workers.index, workers.size),
        )
        self.steps_per_epoch = self.feed.steps_per_epoch
        self.total = options.epochs * self.steps_per_epoch
        self.end = min(self.total, options.max_steps or self.total)
        self.schedule = recipe.schedule(options, self.steps_per_epoch)
        self.average = None
        keras.utils.set_random_seed(options.seed)
        with self.strategy.scope():
            self.model = models.build(**self.network, aux_heads=True)
            if options.init:
                layers.initialise(self.model, options.init, options.seed)
            self.new_layers = begun.get("new_layers")
            if self.new_layers is None:
                self.new_layers = self._take_weights()
            finetune.freeze(self.model, options.freeze, self.new_layers)
            self.halves = self._halves()
            if not self.model.trainable_variables:
                raise ValueError(
                    f"--freeze={options.freeze} leaves nothing to learn: no layer is new"
                )
            self.optimizer = optimizers.build(
                options.optimizer,
                recipe.learning_rate(options),
                options.momentum,
                options.weight_decay,
            )
        for side in recipe.sides(options):
            graphs.require_size(self.model, side)
        if options.ema:
            self.average = averages.Average(self.strategy, self.model, options.ema)
        self.micro_batch = begun.get("micro_batch") or recipe.micro_batch(options)
        self.trainer = self._trainer()
        self.evaluator = steps.Evaluator(self.strategy, self.learner)
        self.variables = checkpoints.named_variables(
            self.model, self.optimizer, self.average and self.average.variables
        )
        if options.early_stopping and not dataset.num_examples("validation"):
            raise ValueError("--early_stopping expects validation images, the data has none")
        self.state = State()
        self.chronicle = log.Chronicle(options, self.feed, self.model, workers, self.end)
        self.last = steps.Totals()
        self.confusion = None
        self.stopped_by = 0  # the signal

    @functools.cached_property
    def _objective(self) -> losses.Objective:
        return recipe.objective(self.options, self.dataset)

    def _trainer(self) -> steps.Trainer:
        options = self.options
        return steps.Trainer(
            self.strategy,
            self.learner,
            self.optimizer,
            batch_size=options.batch_size,
            seed=options.seed,
            objective=self._objective,
            micro_batch=self.micro_batch,
            clip_norm=options.clip_norm,
            colour=self._colour if self.feed.policy.colour else None,
            mix=recipe.mix(options),
            average=self.average,
            factors=self._factors(),
            xla=devices.compiles(options.xla, self.strategy),
        )

    def _factors(self) -> dict[str, float]:
        """Of the learning rates of single variables, by path."""
        found = finetune.factors(self.model, self.options.old_rate, self.new_layers)
        rate = self.options.norm_bias_rate
        own = {path: rate * found.get(path, 1.0) for path in graphs.norm_biases(self.model)}
        return found | own if rate != 1 else found

    def _halves(self) -> frozen.Halves | None:
        """The network in two parts, where one is frozen and always sees the same."""
        options = self.options
        varies = options.first_image_size or recipe.mix(options) or not self.feed.policy.is_fixed
        images = options.overfit_batch or options.cache == "none" or self.replicas > 1
        if options.freeze == "none" or varies or images:
            return None
        examples = sum(map(self.dataset.num_examples, self.dataset.splits))
        return frozen.halves(self.model, examples)

    @property
    def learner(self) -> keras.Model:
        """What is trained: the network, or its head on features that were computed before."""
        return self.halves.head if self.halves else self.model

    @functools.cached_property
    def features(self) -> frozen.Features:
        """What the frozen part makes of the images."""
        return frozen.Features(
            self.halves.trunk,
            self.dataset,
            batch_size=self.options.batch_size,
            threads=self.options.threads,
        )

    @property
    def run(self) -> runs.Run:
        """The run folder."""
        return self.chronicle.run

    @property
    def device(self) -> dict:
        """What bit-identical results depend on besides versions, as JSON values."""
        return devices.describe(self.strategy, self.options.threads, self.workers.size)

    @functools.cached_property
    def profile(self) -> profiling.Profile:
        """A recording of some steps, or of none."""
        count = self.options.profile if self.workers.is_chief else None
        return profiling.Profile(self.run.folder / "train", count)

    def _colour(self, images: tf.Tensor, step: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """The policy's colour part, of the images at some places of the global batch."""
        draws = augment.colour_draws(self.options.seed, step, self.options.batch_size)
        return self.feed.policy.colour(images, tf.gather(draws, places))

    def prepare(self) -> None:
        """Writes the folder of a new run, or takes up an earlier one."""
        if not self.options.run_dir:
            name = f"{data_name(self.options.data)}-{self.options.model}"
            self.options.run_dir = str(runs.make_folder(name))
        self.lock = self.run.lock()
        if not self.options.resume and self.run.step_files():
            raise ValueError(f"another training has written {self.run.folder}, expected a new one")
        if other := self._other_than_the_chief(self.dataset.fingerprint):
            raise ValueError(f"{other} has other data than the chief, expected the same")
        with integrity.named(self.dataset):
            if self.options.resume:
                self.restore()
            else:
                self.begin()
        self._check_weights()

    def _check_weights(self) -> None:
        """Raises PeerLost if another worker has other weights than the chief."""
        if other := self._other_than_the_chief(checkpoints.weights_digest(self.model)):
            raise cluster.PeerLost(
                f"{other} goes on from other weights than the chief: start all of them again; "
                f"does {self.run.folder} show the same files to all?"
            )

    def _other_than_the_chief(self, text: str) -> str | None:
        """The name of a worker that has another text; all must call it."""
        mine = int(hashlib.sha256(text.encode()).hexdigest()[:_DIGITS], 16)
        (chiefs,), *others = self.workers.gathered(self.strategy, [mine])
        different = [index for index, (digest,) in enumerate(others, 1) if digest != chiefs]
        return self.workers.name(different[0]) if different else None

    def begin(self) -> None:
        """Starts at step 0: writes the folder of the run."""
        if self.average:
            self.average.start()
        self.settle()
        self.run.write_settings(
            {
                **self._place(),
                "precision": self.precision,
                "network": self.network,
                "new_layers": self.new_layers,
                "started_from": self._source_digest(),
                "micro_batch": self.micro_batch,
                "cost": {
                    "parameters": graphs.parameters(self.model.trainable_weights),
                    "multiply_adds": graphs.multiply_adds(self.model),
                },
                "class_names": self.dataset.class_names,
                "versions": checkpoints.versions(),
                "device": self.device,
            }
        )
        self.chronicle.introduce(self.precision, self.replicas)
        if self.options.init_from:
            learning = graphs.parameters(self.model.trainable_weights)
            new = ", ".join(self.new_layers) or "none"
            source = self.options.init_from
            self.chronicle.say(f"weights from {source}; new: {new}; {learning:,} parameters learn")
        if self.halves:
            self.chronicle.say("what is frozen sees every image once: its output is kept in memory")
        self.chronicle.show_start()

    def _place(self) -> dict:
        """What run.json says that may be another when the run goes on."""
        return {
            "flags": recipe.recorded(self.options),
            "typed": recipe.typed(self.options, self._begun),
            "data": {
                "folder": os.path.abspath(self.dataset.folder),
                "fingerprint": self.dataset.fingerprint,
                "examples": {s: self.dataset.num_examples(s) for s in self.dataset.splits},
            },
        }

    def restore(self) -> None:
        """Takes up the newest checkpoint of the run, if it has one."""
        begun = self._begun
        self.run.remove_litter()
        checkpoint = self.run.last(self.chronicle.say)
        if checkpoint is None:
            self.chronicle.forget_after(-1)
            self.chronicle.say(
                f"{self.run.folder} was stopped before its first checkpoint: from step 0"
            )
            if begun.get("started_from") != self._source_digest():
                raise ValueError(f"{self.options.init_from} has changed since this run was started")
            self._take_weights()
            return self.begin()
        now = {**checkpoints.versions(), **self.device}
        before = {**checkpoint.about["versions"], **checkpoint.about["device"]}
        for name in sorted(now | before):
            if now.get(name) != before.get(name):
                self.chronicle.say(
                    f"warning: {name} was {before.get(name)}, is {now.get(name)}: "
                    "the results may differ in the last bits"
                )
        self._take_up(checkpoint)
        self.run.write_settings({**begun, **self._place()})
        self.chronicle.introduce(self.precision, self.replicas)
        self.chronicle.say(f"resuming at step {self.trainer.step}")

    def _take_up(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Makes everything as it was at a checkpoint."""
        checkpoints.assign(self.variables, checkpoint)
        self.schedule.state = checkpoint.about["schedule"]
        self.state = State.from_json(checkpoint.about["state"])
        self.chronicle.forget_after(self.trainer.step)

    def _take_weights(self) -> list[str]:
        """Takes the weights of `--init_from`; returns the layers that have none from there.

        Raises:
            ValueError: If they are not of this network.
        """
        source = self.options.init_from
        if recipe.is_ours(source):
            checkpoint = recipe.origin(self.options)
            return finetune.take_over(self.model, checkpoint, self.dataset.class_names)
        if source:
            return keras_weights.load(self.options.model, self.model, source)
        for layer in self.model.layers:
            if hasattr(layer, "measure"):
                before = keras.Model(self.model.input, layer.input)
                layer.measure(before(images).numpy() for images in self.feed.centres())
        return [layer.name for layer in self.model.layers]

    def _source_digest(self) -> str | None:
        """Of the weights of `--init_from`, where they are ours."""
        if not recipe.is_ours(self.options.init_from):
            return None
        return recipe.origin(self.options).about["sha256"]

    def settle(self) -> None:
        """Where it is open how much is computed at a time, halves it until there is memory enough.

        Raises:
            ValueError: If there never is.
        """
        if self.options.micro_batch != "auto" or self.micro_batch:
            return
        self.micro_batch = self.options.batch_size
        while not self.trainer.fits():
            if self.micro_batch % 2:
                raise ValueError(
                    f"the device has too little memory for {self.micro_batch} images at a time"
                )
            self.micro_batch //= 2
            self.trainer = self._trainer()

    def go(self) -> None:
        """Trains to the end; stops early, with a checkpoint, at a signal."""
        interrupts = console.Interrupts("stopping after this step\n")
        try:
            if self.trainer.step < self.end and not self._gave_up:
                with integrity.named(self.dataset):
                    self._train(interrupts)
            self.chronicle.saving.wait()
            self.profile.end()
            ended = self.trainer.step >= self.end or self._gave_up
            if ended and self.last.examples:
                self.chronicle.draw(self.trainer.step, self.confusion)
            self._wait_for_all()
        except steps.NotFinite as error:
            with contextlib.suppress(OSError):  # one error is enough
                self.chronicle.saving.wait()
            advice = "the checkpoints are from before: try a smaller --learning_rate"
            saw = self.chronicle.what_it_saw(error.step)
            console.fail(f"{error}; {advice}; {saw}", console.FAILED)
        except tf.errors.OpError:  # such as: another worker has ended
            with contextlib.suppress(OSError):
                self.chronicle.saving.wait()
            raise
        except (OSError, ValueError, integrity.DamagedShard) as error:  # also: no good checkpoint
            console.fail(error, console.FAILED)
        self._conclude()

    def _wait_for_all(self) -> None:
        """Lets no worker go on alone, or end while another one needs it."""
        self.workers.gathered(self.strategy, [0.0])

    def _conclude(self) -> None:
        """Says how it ended."""
        if self._gave_up and self.trainer.step < self.end:
            self.chronicle.say(f"stopped early: no better accuracy in {self.state.stale} epochs")
        elif self.stopped_by and self.trainer.step < self.end:
            self.chronicle.say(f"stopped; go on with: {self.chronicle.resume_command}")
            sys.exit(128 + self.stopped_by)
        if self.options.overfit_batch and self.last.examples:
            self.chronicle.judge_overfitting(self.last.means)
        digest = checkpoints.weights_digest(self.model)
        done = f"done: step {self.trainer.step}  weights sha256 {digest}"
        self.chronicle.say(done)
        if not self.workers.is_chief:
            print(done, flush=True)

    def _train(self, interrupts: console.Interrupts) -> None:
        """Trains; where `--on_nan` says so, goes back once to the last checkpoint."""
        try:
            return self._loop(interrupts)
        except steps.NotFinite as error:
            self.chronicle.saving.wait()
            self._wait_for_all()
            back = self.options.on_nan == "rollback" and self.state.slower == 1
            checkpoint = self.run.last(self.chronicle.say) if back else None
            if checkpoint is None:
                raise
            why = str(error)
        self._take_up(checkpoint)
        self._check_weights()
        self.state.slower = ROLLBACK
        self.chronicle.say(
            f"warning: {why}; back to step {self.trainer.step} "
            f"with {ROLLBACK:g} of the learning rate"
        )
        self._loop(interrupts)

    def batches(self, first: int, end: int) -> tf.data.Dataset:
        """Those of the steps from `first` to before `end`, or the features of their images."""
        if self.halves:
            return self.features.train_batches(seed=self.options.seed, first=first, end=end)
        return self.feed.batches(first, end)

    def _loop(self, interrupts: console.Interrupts) -> None:
        step = self.trainer.step
        iterator, until = None, step
        count = 1
        stopping = False
        while step < self.end and not stopping and not self._gave_up:
            if step == until:
                until = self.feed.same_side_until(step, self.end)
                iterator = self.trainer.iterate(self.batches(step, until))
            rates = [self._rate(step + i) for i in range(count)]
            began = time.perf_counter()
            done = self.profile.call(functools.partial(self.trainer.train, iterator, rates), count)
            self.chronicle.saving.check()
            seconds = time.perf_counter() - began
            step += count
            self.state.epoch += done.totals
            self.state.recent += done.totals
            self.last = done.totals
            self.chronicle.meter.add(count * self.options.batch_size, seconds, done.waited)
            self.chronicle.update(step, self.state.epoch.means)
            if self._due(step, self.steps_per_epoch, SUMMARY_STEPS):
                self._add_point(step, rates[-1], done.gradient_norm)
            seconds, stopping = self._agreed(seconds, interrupts)
            ends = step == self.end or self._due(step, self.steps_per_epoch)
            saves = ends or stopping or self._due(step, self.options.checkpoint_steps)
            if saves and not math.isfinite(self.trainer.weight_norm()):  # before it is validated
                raise steps.NotFinite(step - 1, rates[-1])
            if ends:
                self._finish_epoch(step, rates[-1])
            elif saves:
                self._save(step)
            count = self._call_size(step, count, seconds)

    def _agreed(self, seconds: float, interrupts: console.Interrupts) -> tuple[float, bool]:
        """How long the slowest worker took, and whether to stop: when one is told to, all do.

        Looked at once: who stops has saved.
        """
        mine = [seconds, interrupts.received or 0]
        slowest, signal = self.workers.gathered(self.strategy, mine).max(axis=0)
        self.stopped_by = int(signal)
        return float(slowest), bool(signal)

    def _rate(self, step: int) -> float:
        return self.state.slower * self.schedule.rate(step)

    @staticmethod
    def _due(step: int, *periods: int | None) -> bool:
        return any(period and step % period == 0 for period in periods)

    def _call_size(self, step: int, count: int, seconds: float) -> int:
        """Steps of the next call: about `CALL_SECONDS` long, up to where something is due."""
        periods = (self.steps_per_epoch, SUMMARY_STEPS, self.options.checkpoint_steps)
        if self.options.overfit_batch:  # the last one is judged, by itself
            return 1
        room = min([self.end - step, *(period - step % period for period in periods if period)])
        return max(1, min(room, steps.MAX_STEPS, int(CALL_SECONDS * count / seconds)))

    def _add_point(self, step: int, rate: float, gradient_norm: float) -> None:
        """Adds a point to the curves, of the steps since the one before."""
        norms = {"gradient_norm": gradient_norm, "weight_norm": self.trainer.weight_norm()}
        self.chronicle.point(step, {**self.state.recent.means, "learning_rate": rate, **norms})
        self.state.recent = steps.Totals()

    def _finish_epoch(self, step: int, rate: float) -> None:
        """Validates, tells of it, moves the schedule at a true end, saves."""
        train, validation = self.state.epoch.means, {}
        if self.validation is not None:
            self.confusion = np.zeros([self.dataset.num_classes] * 2, np.int64)
            with self.average.in_use() if self.average else contextlib.nullcontext():
                validation = self.evaluator.evaluate(self.validation, self.confusion).means
        self.chronicle.epoch(step, rate, train, validation)
        if self._due(step, self.steps_per_epoch):
            self.schedule.plateau.observe(1 - (validation or train)["top1_accuracy"])
            self.state.epoch = steps.Totals()
            self.chronicle.meter.reset()
        accuracy = validation.get("top1_accuracy", -1.0)
        best = accuracy > self.state.best_accuracy
        self.state.best_accuracy = max(accuracy, self.state.best_accuracy)
        if self._due(step, self.steps_per_epoch):
            self.state.stale = 0 if accuracy > self.state.best_of_epochs else self.state.stale + 1
            self.state.best_of_epochs = max(accuracy, self.state.best_of_epochs)
        self._save(step, best=best)

    @property
    def _gave_up(self) -> bool:
        """Whether `--early_stopping` ends the training."""
        return 0 < (self.options.early_stopping or 0) <= self.state.stale

    @functools.cached_property
    def validation(self) -> tf.data.Dataset | None:
        """What is validated on; None where there are no such images."""
        if not self.dataset.num_examples("validation"):
            return None
        return self.features.test_batches("validation") if self.halves else self.feed.validation

    def _save(self, step: int, *, best: bool = False) -> None:
        """Writes a checkpoint."""
        about = {
            "step": step,
            "flags": recipe.recorded(self.options),
            "network": self.network,
            "class_names": self.dataset.class_names,
            "storage": self.dataset.storage,
            "data_fingerprint": self.dataset.fingerprint,
            "versions": checkpoints.versions(),
            "device": self.device,
            "schedule": self.schedule.state,
            "state": dataclasses.asdict(self.state),
        }
        tensors = checkpoints.values(self.variables)
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise steps.NotFinite(step - 1, self._rate(step - 1))
        self.chronicle.save(tensors, about, best=best)
