"""Trains a network on images.

python train.py                       LeNet-5 on the built-in digits
python train.py --data=IMAGES         AlexNet on a folder of images (converted on first use)
python train.py --data=IMAGES --model=resnet50 --epochs=90
python train.py --resume              goes on where the newest run stopped
python train.py --flagfile=recipes/alexnet_imagenet.flags --data=ILSVRC2012
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO

from runtime import console, flags

with console.quiet_import():
    import tensorflow as tf

    from data.checks import integrity
    from engine import checkpoints, cluster, optimizers, runs
    from engine.totals import Totals
    from engine.trainer import MAX_STEPS, NotFinite
    from models.tools import published
    from training import find_lr, meter, seeds, show_step
    from training.agreement import slowest_and_signal, wait_for_all
    from training.build import Setup, settle
    from training.log import Log
    from training.recipe import Recipe, Running
    from training.run_folder import name_of, open_run
    from training.start import default_model, resume, start
    from training.state import State, rolled_back, save, validate

flags.define(Recipe, Running)

CALL_SECONDS = 0.5  # target duration of one call of the trainer; signals are checked in between
SUMMARY_STEPS = 50  # steps between two points of the TensorBoard curves
RECIPES = Path(__file__).parent / "recipes"
FLAGFILE = re.compile(r"--?flagfile(=|$)")


def main(argv: list[str]) -> None:
    """Parses the flags and trains."""
    if unexpected := console.parse(argv, descriptions=(Recipe, Running)):
        console.fail(f"expected flags only, such as --data={unexpected[0]}, received {unexpected}")
    recipe, running = flags.value_of(Recipe), flags.value_of(Running)
    given = flags.given(Recipe, Running)
    if running.seeds > 1:
        return print("\n".join(train_all(argv, recipe, running, given)))
    messages = sys.stderr if running.json else sys.stdout  # --json keeps stdout for the result
    recipe, running = with_recipe_file(argv, recipe, running, given, messages)
    try:
        for line in run(recipe, running, given, messages):
            print(line)
    except cluster.PeerLost as error:
        with console.leaving():  # a normal exit might wait for the lost worker
            console.fail(error, console.START_AGAIN)


def run(
    recipe: Recipe, running: Running, given: Mapping[str, object], messages: TextIO
) -> Iterable[str]:
    """Trains, or performs another task that a flag selects and returns its output lines.

    Args:
        recipe: Settings that decide the trained weights.
        running: Settings of the run, such as folder, threads and cache.
        given: Flags that were set, by name.
        messages: Stream for the messages of the setup.
    """
    with console.user_errors():
        refuse_ambiguous(given)
        if running.json and not running.meter:
            raise ValueError("--json prints the result of --meter: expected --meter too")
        workers = cluster.from_environment()
    # With several workers, TensorFlow's cleanup would wait for the others for 5 s or more.
    leaving = console.leaving() if workers.size > 1 else contextlib.nullcontext()
    with leaving, console.tensorflow_errors(), workers.guarded():
        with console.user_errors(), contextlib.redirect_stdout(messages):
            if running.resume:
                setup = resume(given, workers)
            else:
                setup = start(recipe, running, workers, given)
            lines = perform_other_task(setup)
            if lines is None:
                setup, log, state = open_run(setup)
        if lines is None:
            train_and_report(setup, log, state)
    return lines or ()


def train_and_report(setup: Setup, log: Log, state: State) -> None:
    """Trains to the end or until a signal arrives; ends with an error line if that fails."""
    interrupts = console.Interrupts("stopping after this step\n")
    try:
        with integrity.naming_damage(setup.dataset):
            try:
                stop = train(setup, log, state, interrupts)
            except NotFinite as error:
                state = rolled_back(setup, log, state, error)
                stop = train(setup, log, state, interrupts)
        log.saving.wait()
        log.profile.end()
        if log.last.examples and has_ended(setup, state):
            log.draw(setup.trainer.step)
        wait_for_all(setup)
    except NotFinite as error:
        with contextlib.suppress(OSError):  # report the first error only
            log.saving.wait()
        advice = "all checkpoints are from earlier steps: try a smaller --learning_rate"
        console.fail(f"{error}; {advice}; {log.list_images(error.step)}", console.FAILED)
    except tf.errors.OpError:  # for example because another worker has stopped
        with contextlib.suppress(OSError):
            log.saving.wait()
        raise
    except (OSError, ValueError, integrity.DamagedShard) as error:  # such as no intact checkpoint
        console.fail(error, console.FAILED)
    conclude(setup, log, state, stop)


def train(setup: Setup, log: Log, state: State, interrupts: console.Interrupts) -> int:
    """Trains to the end or until a signal arrives; returns the signal's number, or 0 for none.

    Each call of the trainer runs several steps: as many as fit in about `CALL_SECONDS`, but never
    past a step at which a summary, a validation or a checkpoint is due.

    Raises:
        NotFinite: If the loss or a weight is not finite; no checkpoint contains such values.
    """
    trainer, epoch = setup.trainer, setup.steps_per_epoch
    step = size_change = trainer.step
    count, stop = 1, 0
    while not stop and not has_ended(setup, state):
        if step == size_change:  # at the start, and whenever the image size changes
            size_change = setup.batches.next_size_change(step, setup.end)
            batches = trainer.iterate(setup.train_batches(step, size_change))
        rates = [state.slower * setup.schedule.rate(step + i) for i in range(count)]

        began = time.perf_counter()
        done = log.profile.call(functools.partial(trainer.train, batches, rates), count)
        log.saving.check()
        seconds = time.perf_counter() - began

        step += count
        state.add(done.totals)
        log.steps(step, done, count, seconds, state.epoch.means)
        if due(step, epoch, SUMMARY_STEPS):
            norms = {"gradient_norm": done.gradient_norm, "weight_norm": trainer.weight_norm()}
            log.point(step, {**state.recent.means, "learning_rate": rates[-1], **norms})
            state.recent = Totals()

        slowest_seconds, stop = slowest_and_signal(setup, seconds, interrupts.received)
        validates = step == setup.end or due(step, epoch)
        saves = validates or stop or due(step, setup.running.checkpoint_steps)
        if saves and not math.isfinite(trainer.weight_norm()):  # before a validation
            raise NotFinite(step - 1, rates[-1])
        is_best = validates and validate(setup, log, state, rates[-1])
        if saves:
            save(setup, log, state, best=is_best)
        count = call_size(setup, step, int(CALL_SECONDS * count / slowest_seconds))
    return stop


def due(step: int, *periods: int | None) -> bool:
    """Whether a step is a multiple of any of the periods."""
    return any(period and step % period == 0 for period in periods)


def call_size(setup: Setup, step: int, wanted: int) -> int:
    """Returns the number of steps of the next call: `wanted`, but not past the next due step."""
    if setup.recipe.overfit_batch:  # `judge_overfitting` needs the last step's scores alone
        return 1
    periods = (setup.steps_per_epoch, SUMMARY_STEPS, setup.running.checkpoint_steps)
    until_due = min([setup.end - step, *(period - step % period for period in periods if period)])
    return max(1, min(until_due, MAX_STEPS, wanted))


def has_ended(setup: Setup, state: State) -> bool:
    """Whether all steps are done or `--early_stopping` ends the training."""
    return setup.trainer.step >= setup.end or state.gave_up(setup.recipe.early_stopping)


def conclude(setup: Setup, log: Log, state: State, stop: int) -> None:
    """Reports how the training ended; exits with 128 + signal if one has stopped it."""
    step = setup.trainer.step
    if step < setup.end and has_ended(setup, state):
        log.say(f"stopped early: no better accuracy in {state.stale} epochs")
    elif step < setup.end and stop:
        log.say(f"stopped; go on with: {log.resume_command}")
        sys.exit(128 + stop)
    if setup.recipe.overfit_batch and log.last.examples:
        log.judge_overfitting()
    done = f"done: step {step}  weights sha256 {checkpoints.weights_digest(setup.model)}"
    log.say(done)
    if not setup.workers.is_chief:
        print(done, flush=True)


def perform_other_task(setup: Setup) -> list[str] | None:
    """Performs the task that a flag selects instead of training; or returns None."""
    running = setup.running
    if running.meter and (setup.trunk_and_head or setup.recipe.first_image_size):
        raise ValueError(
            "--meter measures steps of one kind on images: expected no --first_image_size, and "
            "--cache=none if layers are frozen"
        )
    if running.meter:
        verdict = meter.measure(settle(setup))
        return [verdict.as_json()] if running.json else meter.lines(verdict)
    if running.show_step is not None:
        return show_step.draw_step(setup, running.show_step)
    if running.find_lr:
        setup = settle(setup)
        return find_lr.report(setup, find_lr.find(setup))
    return None


def train_all(
    argv: list[str], recipe: Recipe, running: Running, given: Mapping[str, object]
) -> list[str]:
    """Trains once for each of `--seeds`; returns lines that compare the runs."""
    numbers = range(recipe.seed, recipe.seed + running.seeds)
    for name in sorted(given.keys() & {"resume", *flags.names(Running, alone=True)}):
        console.fail(f"--{name} is about one training, received --seeds={len(numbers)} too")
    recipe = dataclasses.replace(recipe, model=recipe.model or default_model(recipe.data))
    run_dir = running.run_dir or runs.ROOT / name_of(recipe)
    with console.user_errors():
        if cluster.from_environment().size > 1:
            raise ValueError("--seeds is for one process, received several workers")
        return seeds.train(argv, numbers, str(run_dir))


def refuse_ambiguous(given: Mapping[str, object]) -> None:
    """Raises ValueError if a keyword given as a flag value is also the path of a file."""
    words = [("init_from", source) for source in published.SOURCES]
    for name, word in (("data", "digits"), *words):
        if name in given:
            console.refuse_ambiguous(given[name], word, f"--{name}=")


def with_recipe_file(
    argv: list[str],
    recipe: Recipe,
    running: Running,
    given: dict[str, object],
    messages: TextIO,
) -> tuple[Recipe, Running]:
    """Takes the settings of recipes/MODEL.flags, if it exists, for flags that are not given.

    A learning rate from a flag file is dropped if `--optimizer` selects another optimizer.

    Args:
        argv: Command line.
        recipe: Recipe that the command line alone describes.
        running: Settings of the run that the command line alone describes.
        given: Flags that were set, by name; loses a dropped learning rate.
        messages: Stream for lines that tell the user about either change.
    """
    program, *words = argv
    files, typed = split_flagfiles(words)
    default = RECIPES / f"{recipe.model or default_model(recipe.data)}.flags"
    if default.exists() and not files and not running.resume:
        print(f"settings: from recipes/{default.name}, except for the flags given", file=messages)
        files = [f"--flagfile={default}"]
        words = [*files, *words]
    from_files, from_typed = (flag_values([program, *each]) for each in (files, typed))
    console.parse([program, *words])
    recipe, running = flags.value_of(Recipe), flags.value_of(Running)
    if line := mismatched_rate(recipe, flags.values(Recipe()) | from_files, from_typed):
        recipe = dataclasses.replace(recipe, learning_rate=None)
        given.pop("learning_rate", None)
        print(line, file=messages)
    return recipe, running


def split_flagfiles(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Splits the words of a command line into `--flagfile` flags and all others."""
    files, others = [], []
    words = iter(words)
    for word in words:
        is_file = FLAGFILE.match(word)
        (files if is_file else others).append(word)
        if is_file and not is_file[1]:  # the file's name is the next word
            files += itertools.islice(words, 1)
    return files, others


def flag_values(argv: list[str]) -> dict[str, object]:
    """Parses a command line; returns the flags that it sets, by name."""
    console.parse(argv)
    return flags.given(Recipe, Running)


def mismatched_rate(
    recipe: Recipe, untyped: Mapping[str, object], typed: Mapping[str, object]
) -> str:
    """Detects a learning rate from a flag file that is meant for another optimizer.

    Args:
        recipe: Settings from all flags.
        untyped: Values of all flags if none were typed on the command line.
        typed: Flags typed on the command line, by name.

    Returns:
        A line for the user; empty if the learning rate suits the optimizer.
    """
    name, rate = recipe.optimizer, untyped["learning_rate"]
    if rate is None or "learning_rate" in typed or name == untyped["optimizer"]:
        return ""
    default = optimizers.OPTIMIZERS[name].learning_rate
    return (
        f"learning rate: {default:g}, the default of {name}; {rate:g} is for {untyped['optimizer']}"
    )


if __name__ == "__main__":
    console.run(main)
