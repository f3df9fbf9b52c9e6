"""The log of a training: console, run folder and TensorBoard.

With several workers only the chief writes; the others just read the run folder.
"""

import copy
import functools
import math
import shlex
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data import pipeline
from engine import devices, runs, summaries
from engine.totals import Totals
from engine.trainer import Progress
from models.tools import graphs
from report import history, plots
from training import advice, background, characters, profiling, progress, warnings
from training.build import Setup

SHOWN = 16  # images of the first batch shown in TensorBoard
WAITS_TOO_LONG = 0.2  # fraction of the time spent waiting for input that triggers advice
ADVICE_SECONDS = 10  # training time measured before advice is given
LEARNT = 0.99  # top-1 accuracy at which --overfit_batch counts as successful


class Log:
    """The log of one training.

    Attributes:
        run: Run folder.
        flags: All flags, with absolute paths.
        meter: Training speed.
        saving: Background thread that writes the checkpoints.
        last: Scores of the last call of the training step; empty before the first call.
        confusion: Confusion matrix of the last validation, int64 [K, K], rows: true classes,
            columns: predicted classes; None before the first validation.
    """

    def __init__(self, setup: Setup, folder: str, flags: dict) -> None:
        """Sets the run folder; writes no files.

        Args:
            setup: Objects of the training.
            folder: Path of the run folder.
            flags: All flags, with absolute paths.
        """
        self._setup, self._writes = setup, setup.workers.is_chief
        self.run = (runs.Run if self._writes else runs.Watched)(folder)
        self.flags = flags
        self.meter = progress.Meter()
        self.saving = background.Background()
        self.last = Totals()
        self.confusion: np.ndarray | None = None
        self._doubts = warnings.Doubts(setup.model)
        self._advised = False
        self._start_line()

    def _start_line(self) -> None:
        epochs, length = self._setup.recipe.epochs, self._setup.steps_per_epoch
        self._line = progress.Line(epochs, length, shown=self._writes)

    def lock(self) -> None:
        """Locks the run folder until the process ends, see `runs.Run.lock`."""
        self._lock = self.run.lock()

    @functools.cached_property
    def summaries(self) -> summaries.Summaries:
        """Writer of the TensorBoard event files."""
        kind = summaries.Summaries if self._writes else summaries.Silent
        return kind(self.run.folder)

    @functools.cached_property
    def profile(self) -> profiling.Profile:
        """Profiler of the steps that `--profile` asks for."""
        count = self._setup.running.profile if self._writes else None
        return profiling.Profile(self.run.folder / "train", count)

    @property
    def resume_command(self) -> str:
        """Command that resumes the run."""
        return f"python train.py --resume --run_dir={shlex.quote(str(self.run.folder))}"

    def say(self, line: str) -> None:
        """Prints a line and appends it to train.log."""
        if self._writes:
            tqdm.write(line)
        self.run.log(line)

    def forget_after(self, step: int) -> None:
        """Drops the metrics and curve points after `step`, since these steps are repeated."""
        self.run.keep_metrics(step)
        self.summaries.keep(step)
        self._start_line()

    def introduce(self) -> None:
        """Prints a summary of network, devices, data and settings."""
        setup, recipe = self._setup, self._setup.recipe
        dataset, size, replicas = setup.dataset, setup.batches.size, setup.replicas
        parameters = graphs.parameters(setup.model.trainable_weights)
        of_workers = f" of {setup.workers.size} workers" * (setup.workers.size > 1)
        self.say(
            f"{recipe.model}: {parameters:,} parameters, {size} x {size} pixels, "
            f"{setup.precision}; {replicas} replica(s){of_workers}, {setup.running.threads} threads"
        )
        if first := recipe.first_image_size:
            self.say(f"training images grow from {first} to {size} pixels")
        each = f" ({recipe.batch_size // replicas} for each replica)" * (replicas > 1)
        counts = ", ".join(f"{dataset.num_examples(s):,} {s}" for s in dataset.splits)
        self.say(
            f"{recipe.data}: {counts}; {dataset.num_classes} classes; "
            f"batches of {recipe.batch_size}{each}, {setup.steps_per_epoch} steps an epoch"
        )
        default, why = characters.default_augment(recipe, dataset, tuned=setup.is_tuned)
        reason = why if recipe.augment == default else "as given"
        self.say(f"augment: {recipe.augment} ({reason})")
        shorter = pipeline.shorter_side(dataset)
        if shorter < size:
            self.say(f"the images ({shorter} pixels) are enlarged to the network's {size}")
        if not devices.is_exact(recipe.deterministic):
            self.say(
                f"not exact: with --deterministic={recipe.deterministic} on a GPU, this training "
                "repeated or resumed gives slightly different weights"
            )
        self.say(f"run folder: {self.run.folder}")

    def show_start(self) -> None:
        """Writes flags, network graph and first images to TensorBoard."""
        self.summaries.flags(self.flags)
        if self._writes:
            self.summaries.graph(self._setup.model)
            self.summaries.images("augmented", self._setup.batches.images_of(0)[:SHOWN], 0)

    def steps(self, step: int, done: Progress, count: int, seconds: float, means: Mapping) -> None:
        """Shows the progress after a call of the training step.

        Args:
            step: Optimizer updates done.
            done: Result of the call.
            count: Number of steps in the call.
            seconds: Duration of the call.
            means: Mean scores of the epoch so far, see `Totals.means`.
        """
        self.last = done.totals
        self.meter.add(count * self._setup.recipe.batch_size, seconds, done.waited)
        self._line.update(step, self._describe(step, means))
        self._advise()

    def _describe(self, step: int, means: Mapping[str, float]) -> str:
        speed = self.meter.images_per_second
        left = (self._setup.end - step) * self._setup.recipe.batch_size / speed
        return (
            f"step {step}/{self._setup.end}  loss {means['loss']:.4f}  "
            f"top-1 {100 * means['top1_accuracy']:.2f} %  {speed:,.0f} images/s  "
            f"{progress.clock(left)} left"
        )

    def _advise(self) -> None:
        """Prints advice, once, if the training waits too long for its images."""
        waits = self.meter.input_wait_fraction > WAITS_TOO_LONG
        begins = self.meter.calls < 2 or self.meter.seconds < ADVICE_SECONDS
        if self._advised or begins or not waits:
            return
        self._advised, batches = True, self._setup.batches
        change = advice.faster(
            batches.dataset,
            batches.policy,
            size=batches.size,
            cache=batches.cache,
            stage="decode",
        )
        self.say(
            f"{100 * self.meter.input_wait_fraction:.0f} % of the time is waiting for images; "
            f"what would help: {change} (add --meter to see where the time goes)"
        )

    def point(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to the training curves, together with the current speed."""
        speed = {
            "images_per_second": self.meter.images_per_second,
            "input_wait_fraction": self.meter.input_wait_fraction,
        }
        self.summaries.scalars("train", {**values, **speed}, step)

    def epoch(
        self,
        step: int,
        rate: float,
        train: Mapping[str, float],
        validation: Mapping[str, float],
    ) -> None:
        """Logs an epoch, or the part of it that was trained before a stop.

        Args:
            step: Optimizer updates done.
            rate: Learning rate of the last step.
            train: Mean training scores of the epoch, see `Totals.means`.
            validation: Mean validation scores; empty if there are no validation images.
        """
        number = math.ceil(step / self._setup.steps_per_epoch)
        text = f"epoch {number}/{self._setup.recipe.epochs}  {self._describe(step, train)}"
        row = {
            "epoch": number,
            "step": step,
            "learning_rate": rate,
            "train_loss": train["loss"],
            "train_top1_accuracy": train["top1_accuracy"],
            "images_per_second": self.meter.images_per_second,
            "input_wait_fraction": self.meter.input_wait_fraction,
        }
        if step >= warnings.MIN_STEPS and self._writes:
            for doubt in self._doubts.raised(train["loss"], *self._setup.batches.sample):
                self.say(f"warning: {doubt}")
        if validation:
            text += f"  validation top-1 {100 * validation['top1_accuracy']:.2f} %"
            row |= {f"validation_{name}": value for name, value in validation.items()}
            self.summaries.scalars("validation", validation, step)
        self.run.log(text)
        self._line.finish(text, last=step == self._setup.end)
        self.run.add_metrics(row)
        self.summaries.filters(self._setup.model, step)
        if self._setup.running.histograms and self._writes:
            weights = {
                weight.path: weight.numpy() for weight in self._setup.model.trainable_weights
            }
            self.summaries.histograms("weights", weights, step)
            gradients = self._doubts.gradients(*self._setup.batches.sample)
            self.summaries.histograms("gradients", gradients, step)

    def save(self, tensors: Mapping[str, np.ndarray], about: Mapping, *, best: bool) -> None:
        """Flushes the curves, then writes a checkpoint in the background."""
        self.summaries.flush()
        save = functools.partial(self.run.save, tensors, copy.deepcopy(about))
        self.saving.start(functools.partial(save, keep=self._setup.running.keep, best=best))

    def draw(self, step: int) -> None:
        """Draws the curves, the last confusion matrix and the filters of the first layer."""
        if not self._writes:
            return
        drawn = {"results": plots.results(history.read(self.run.folder).rows)}
        if self.confusion is not None:
            names = self._setup.dataset.class_names
            drawn["confusion_matrix"] = plots.confusion(self.confusion, names)
        for name, grid in summaries.pictures_of_filters(self._setup.model).items():
            drawn[name.replace("/", "-")] = tf.io.encode_png(grid).numpy()
        for name, picture in drawn.items():
            self.run.add_picture(name, picture)
        self.summaries.pictures("validation", drawn, step)
        self.summaries.flush()

    def judge_overfitting(self) -> None:
        """Reports whether the network has learnt the single batch of `--overfit_batch`."""
        means = self.last.means
        learnt = (
            f"one batch, again and again: loss {means['loss']:.4f}, "
            f"top-1 {100 * means['top1_accuracy']:.2f} %"
        )
        if means["top1_accuracy"] >= LEARNT:
            self.say(f"{learnt}: the network can learn")
        else:
            self.say(f"warning: {learnt}: expected nearly 100 %; look at it with --show_step=0")

    def list_images(self, step: int) -> str:
        """Lists the images of a step in a CSV file; returns a line with its path."""
        name = f"step-{step:08d}"
        show = f"{self.resume_command} --show_step={step}"
        origins = enumerate(self._setup.batches.origins_of(step))
        rows = [(number, origin.filename, origin.label) for number, origin in origins]
        try:
            self.run.add_table(name, [("number", "filename", "label"), *rows])
        except OSError as error:
            return f"its images are drawn by: {show} (no list of them: {error})"
        return f"its images are listed in {self.run.folder / name}.csv and drawn by: {show}"
