"""What a training tells: on the console, in its run folder and to TensorBoard.

Only the chief of several workers does; the others read what is in the folder.
"""

import copy
import functools
import math
import shlex
from collections.abc import Mapping
from types import SimpleNamespace

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data.pipeline import pipeline
from engine import cluster, runs, summaries
from models.tools import graphs
from report import history, plots
from training import advice, background, progress, recipe, warnings
from training.batches import Feed

SHOWN = 16  # images of the first batch, in TensorBoard
WAITS_TOO_LONG = 0.2  # of the time, for input
ADVICE_SECONDS = 10  # of training, before advice is given
LEARNT = 0.99  # of the one batch of --overfit_batch


class Chronicle:
    """The account of one training.

    Attributes:
        meter: How fast it goes.
        saving: Writes a checkpoint while the training goes on.
    """

    def __init__(
        self,
        options: SimpleNamespace,
        feed: Feed,
        model: keras.Model,
        workers: cluster.Cluster,
        end: int,
    ) -> None:
        """Writes nothing yet.

        Args:
            options: The flags; `run_dir` may be set later.
            feed: What the training sees.
            model: What it trains.
            workers: The processes that do.
            end: The step at which it ends.
        """
        self._options, self._feed, self._model, self._end = options, feed, model, end
        self._workers, self._writes = workers, workers.is_chief
        self.meter = progress.Meter()
        self.saving = background.Background()
        self._doubts = warnings.Doubts(model)
        self._advised = False
        self._start_line()

    def _start_line(self) -> None:
        epochs, length = self._options.epochs, self._feed.steps_per_epoch
        self._line = progress.Line(epochs, length, shown=self._writes)

    @property
    def run(self) -> runs.Run:
        """The run folder."""
        return (runs.Run if self._writes else runs.Watched)(self._options.run_dir)

    @functools.cached_property
    def summaries(self) -> summaries.Summaries:
        """What TensorBoard shows of the run."""
        kind = summaries.Summaries if self._writes else summaries.Silent
        return kind(self.run.folder)

    @property
    def resume_command(self) -> str:
        """What goes on with the run."""
        return f"python train.py --resume --run_dir={shlex.quote(self._options.run_dir)}"

    def say(self, line: str) -> None:
        """Prints a line, and keeps it in train.log."""
        if self._writes:
            tqdm.write(line)
        self.run.log(line)

    def forget_after(self, step: int) -> None:
        """Drops what metrics.csv and the curves say of later steps, which come again."""
        self.run.keep_metrics(step)
        self.summaries.keep(step)
        self._start_line()

    def introduce(self, precision: str, replicas: int) -> None:
        """Says what is trained on what."""
        options, feed = self._options, self._feed
        dataset, size = feed.dataset, feed.size
        parameters = graphs.parameters(self._model.trainable_weights)
        of_workers = f" of {self._workers.size} workers" * (self._workers.size > 1)
        self.say(
            f"{options.model}: {parameters:,} parameters, {size} x {size} pixels, {precision}; "
            f"{replicas} replica(s){of_workers}, {options.threads} threads"
        )
        if first := options.first_image_size:
            self.say(f"training images grow from {first} to {size} pixels")
        each = f" ({options.batch_size // replicas} for each replica)" * (replicas > 1)
        counts = ", ".join(f"{dataset.num_examples(s):,} {s}" for s in dataset.splits)
        self.say(
            f"{options.data}: {counts}; {dataset.num_classes} classes; "
            f"batches of {options.batch_size}{each}, {feed.steps_per_epoch} steps an epoch"
        )
        default, why = recipe.default_augment(options, dataset)
        reason = why if options.augment == default else "as given"
        self.say(f"augment: {options.augment} ({reason})")
        shorter = pipeline.shorter_side(dataset)
        if shorter < size:
            self.say(f"the images ({shorter} pixels) are enlarged to the network's {size}")
        self.say(f"run folder: {self.run.folder}")

    def show_start(self) -> None:
        """Shows flags, network and first images."""
        self.summaries.flags(vars(self._options))
        if self._writes:
            self.summaries.graph(self._model)
            self.summaries.images("augmented", self._feed.images_of(0)[:SHOWN], 0)

    def update(self, step: int, means: Mapping[str, float]) -> None:
        """Shows how far the training is.

        Args:
            step: Optimizer updates done.
            means: Of the epoch so far, as `steps.Totals.means`.
        """
        self._line.update(step, self._describe(step, means))
        self._advise()

    def _describe(self, step: int, means: Mapping[str, float]) -> str:
        speed = self.meter.images_per_second
        left = (self._end - step) * self._options.batch_size / speed
        return (
            f"step {step}/{self._end}  loss {means['loss']:.4f}  "
            f"top-1 {100 * means['top1_accuracy']:.2f} %  {speed:,.0f} images/s  "
            f"{progress.duration(left)} left"
        )

    def _advise(self) -> None:
        """Says once what would help a training that waits for its images."""
        waits = self.meter.input_wait_fraction > WAITS_TOO_LONG
        begins = self.meter.calls < 2 or self.meter.seconds < ADVICE_SECONDS
        if self._advised or begins or not waits:
            return
        self._advised, feed = True, self._feed
        change = advice.faster(
            feed.dataset, feed.policy, size=feed.size, cache=feed.cache, stage="decode"
        )
        self.say(
            f"{100 * self.meter.input_wait_fraction:.0f} % of the time is waiting for images; "
            f"what would help: {change} (add --meter to see where the time goes)"
        )

    def point(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a point to the curves; how fast it goes is added to it."""
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
        """Tells of an epoch that has ended, or of the part of one that was trained.

        Args:
            step: Optimizer updates done.
            rate: The last one's learning rate.
            train: Over its training steps, as `steps.Totals.means`.
            validation: As `steps.Totals.means`; empty where nothing was validated.
        """
        number = math.ceil(step / self._feed.steps_per_epoch)
        text = f"epoch {number}/{self._options.epochs}  {self._describe(step, train)}"
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
            for doubt in self._doubts.raised(train["loss"], *self._feed.sample):
                self.say(f"warning: {doubt}")
        if validation:
            text += f"  validation top-1 {100 * validation['top1_accuracy']:.2f} %"
            row |= {f"validation_{name}": value for name, value in validation.items()}
            self.summaries.scalars("validation", validation, step)
        self.run.log(text)
        self._line.finish(text, last=step == self._end)
        self.run.add_metrics(row)
        self.summaries.filters(self._model, step)
        if self._options.histograms and self._writes:
            weights = {weight.path: weight.numpy() for weight in self._model.trainable_weights}
            self.summaries.histograms("weights", weights, step)
            gradients = self._doubts.gradients(*self._feed.sample)
            self.summaries.histograms("gradients", gradients, step)

    def save(self, tensors: Mapping[str, np.ndarray], about: Mapping, *, best: bool) -> None:
        """Writes a checkpoint, of copies, while the training goes on; the curves before it."""
        self.summaries.flush()
        save = functools.partial(self.run.save, tensors, copy.deepcopy(about))
        self.saving.start(functools.partial(save, keep=self._options.keep, best=best))

    def draw(self, step: int, confusion: np.ndarray | None) -> None:
        """Draws the curves, what the last validation took for what, and the first filters."""
        if not self._writes:
            return
        drawn = {"results": plots.results(history.read(self.run.folder).rows)}
        if confusion is not None:
            names = self._feed.dataset.class_names
            drawn["confusion_matrix"] = plots.confusion(confusion, names)
        for name, grid in summaries.pictures_of_filters(self._model).items():
            drawn[name.replace("/", "-")] = tf.io.encode_png(grid).numpy()
        for name, picture in drawn.items():
            self.run.add_picture(name, picture)
        self.summaries.pictures("validation", drawn, step)
        self.summaries.flush()

    def judge_overfitting(self, means: Mapping[str, float]) -> None:
        """Says whether the network has learnt the one batch that it saw."""
        learnt = (
            f"one batch, again and again: loss {means['loss']:.4f}, "
            f"top-1 {100 * means['top1_accuracy']:.2f} %"
        )
        if means["top1_accuracy"] >= LEARNT:
            self.say(f"{learnt}: the network can learn")
        else:
            self.say(f"warning: {learnt}: expected nearly 100 %; look at it with --show_step=0")

    def what_it_saw(self, step: int) -> str:
        """Lists the images of a step in a file; returns where, and how to draw them."""
        name = f"step-{step:08d}"
        show = f"{self.resume_command} --show_step={step}"
        origins = enumerate(self._feed.origins_of(step))
        rows = [(number, origin.filename, origin.label) for number, origin in origins]
        try:
            self.run.add_table(name, [("number", "filename", "label"), *rows])
        except OSError as error:
            return f"its images are drawn by: {show} (no list of them: {error})"
        return f"its images are listed in {self.run.folder / name}.csv and drawn by: {show}"
