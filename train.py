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

from absl import flags as absl_flags

from runtime import console, flags

with console.quiet_import():
    import tensorflow as tf

    from data.checks import integrity
    from engine import checkpoints, cluster, optimizers, runs
    from engine.totals import Totals
    from engine.trainer import MAX_STEPS, NotFinite
    from models.tools import keras_weights
    from training import find_lr, meter, seeds, show_step
    from training.agreement import slowest_and_signal, wait_for_all
    from training.build import Setup, settle
    from training.log import Log
    from training.recipe import Recipe, Running, headings
    from training.run_folder import data_name, open_run
    from training.start import default_model, resume, start
    from training.state import State, rolled_back, save, validate

FLAGS = absl_flags.FLAGS
flags.define(Recipe, Running)

CALL_SECONDS = 0.5  # time between two looks at signals and the clock
SUMMARY_STEPS = 50  # between two points of the curves
RECIPES = Path(__file__).parent / "recipes"
FLAGFILE = re.compile(r"--?flagfile(=|$)")


def main(argv: list[str]) -> None:
    """Parses the flags, sets everything up, trains."""
    if unexpected := console.parse(argv, headings=headings()):
        console.fail(f"expected flags only, such as --data={unexpected[0]}, received {unexpected}")
    given = flags.given(Recipe, Running)
    if FLAGS.seeds > 1:
        return print("\n".join(train_all(argv, FLAGS.flag_values_dict(), given)))
    talk = sys.stderr if FLAGS.json else sys.stdout  # --json prints nothing else on stdout
    program, *words = argv
    files, typed = apart(words)
    default = RECIPES / f"{FLAGS.model or default_model(FLAGS.data)}.flags"
    if default.exists() and not files and not FLAGS.resume:
        print(f"settings: those of recipes/{default.name} where no flag is given", file=talk)
        files = [f"--flagfile={default}"]
        words = [*files, *words]
    of_files, of_hand = (values([program, *each]) for each in (files, typed))
    console.parse([program, *words])
    recipe, running = flags.value_of(Recipe), flags.value_of(Running)
    if line := foreign_rate(recipe, vars(Recipe()) | of_files, of_hand):
        recipe = dataclasses.replace(recipe, learning_rate=None)
        given.pop("learning_rate", None)
        print(line, file=talk)
    try:
        for line in run(recipe, running, given, talk):
            print(line)
    except cluster.PeerLost as error:
        with console.leaving():  # what is cleaned up otherwise might wait for who is gone
            console.fail(error, console.START_AGAIN)


def run(
    recipe: Recipe, running: Running, given: Mapping[str, object], talk: TextIO
) -> Iterable[str]:
    """Trains, or does what a flag asks for instead; returns lines about that.

    Args:
        recipe: What to train.
        running: How to run.
        given: The flags on the command line.
        talk: What is printed meanwhile goes there.
    """
    with console.user_errors():
        refuse_ambiguous(given)
        if running.json and not running.meter:
            raise ValueError("--json is the form of what --meter measures: expected --meter too")
        workers = cluster.from_environment()
    # With others, TensorFlow's cleaning up would wait for them, 5 s and more.
    leaving = console.leaving() if workers.size > 1 else contextlib.nullcontext()
    with leaving, console.tensorflow_errors(), workers.guarded():
        with console.user_errors(), contextlib.redirect_stdout(talk):
            setup = resume(given, workers) if running.resume else start(recipe, running, workers)
            lines = instead(setup)
            if lines is None:
                setup, log, state = open_run(setup)
        if lines is None:
            go(setup, log, state)
    return lines or ()


def go(setup: Setup, log: Log, state: State) -> None:
    """Trains to the end; a signal stops it early, with a checkpoint."""
    interrupts = console.Interrupts("stopping after this step\n")
    try:
        with integrity.named(setup.dataset):
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
        with contextlib.suppress(OSError):  # one error is enough
            log.saving.wait()
        advice = "the checkpoints are from before: try a smaller --learning_rate"
        console.fail(f"{error}; {advice}; {log.what_it_saw(error.step)}", console.FAILED)
    except tf.errors.OpError:  # such as: another worker has ended
        with contextlib.suppress(OSError):
            log.saving.wait()
        raise
    except (OSError, ValueError, integrity.DamagedShard) as error:  # also: no good checkpoint
        console.fail(error, console.FAILED)
    conclude(setup, log, state, stop)


def train(setup: Setup, log: Log, state: State, interrupts: console.Interrupts) -> int:
    """Trains to the end, or until a signal; returns the signal's number, 0 for none.

    Every call of the trainer does several steps: as many as take about `CALL_SECONDS`, up to where
    something is due.

    Raises:
        NotFinite: If the loss or a weight is not finite; no checkpoint holds it.
    """
    trainer, epoch = setup.trainer, setup.steps_per_epoch
    step = same_side_until = trainer.step
    count, stop = 1, 0
    while not stop and not has_ended(setup, state):
        if step == same_side_until:  # at first, and where images grow
            same_side_until = setup.batches.same_side_until(step, setup.end)
            batches = trainer.iterate(setup.train_batches(step, same_side_until))
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

        seconds, stop = slowest_and_signal(setup, seconds, interrupts.received)
        validates = step == setup.end or due(step, epoch)
        saves = validates or stop or due(step, setup.running.checkpoint_steps)
        if saves and not math.isfinite(trainer.weight_norm()):  # before it is validated
            raise NotFinite(step - 1, rates[-1])
        is_best = validates and validate(setup, log, state, rates[-1])
        if saves:
            save(setup, log, state, best=is_best)
        count = call_size(setup, step, int(CALL_SECONDS * count / seconds))
    return stop


def due(step: int, *periods: int | None) -> bool:
    """Whether a step ends one of some periods."""
    return any(period and step % period == 0 for period in periods)


def call_size(setup: Setup, step: int, wanted: int) -> int:
    """The number of steps of the next call: as many as wanted, up to where something is due."""
    if setup.recipe.overfit_batch:  # the last one is judged, by itself
        return 1
    periods = (setup.steps_per_epoch, SUMMARY_STEPS, setup.running.checkpoint_steps)
    left = min([setup.end - step, *(period - step % period for period in periods if period)])
    return max(1, min(left, MAX_STEPS, wanted))


def has_ended(setup: Setup, state: State) -> bool:
    """Whether all steps are done, or `--early_stopping` ends the training."""
    return setup.trainer.step >= setup.end or state.gave_up(setup.recipe.early_stopping)


def conclude(setup: Setup, log: Log, state: State, stop: int) -> None:
    """Says how the training ended; exits where a signal has stopped it."""
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


def instead(setup: Setup) -> list[str] | None:
    """Does what a flag asks for instead of training; returns lines about it, None to train."""
    running = setup.running
    if running.meter and (setup.halves or setup.recipe.first_image_size):
        raise ValueError(
            "--meter measures one kind of steps: not those of --first_image_size, nor those that "
            "see what a frozen part made of the images (--cache=none lets them see images)"
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
    argv: list[str], options: Mapping[str, object], given: Mapping[str, object]
) -> list[str]:
    """Trains once for each of `--seeds`; returns lines that compare the runs."""
    numbers = range(options["seed"], options["seed"] + options["seeds"])
    for name in sorted(given.keys() & {"resume", *flags.names(Running, alone=True)}):
        console.fail(f"--{name} is about one training, received --seeds={len(numbers)} too")
    model = options["model"] or default_model(options["data"])
    run_dir = options["run_dir"] or runs.ROOT / f"{data_name(options['data'])}-{model}"
    with console.user_errors():
        if cluster.from_environment().size > 1:
            raise ValueError("--seeds is for one process, received several workers")
        return seeds.train(argv, numbers, str(run_dir))


def refuse_ambiguous(given: Mapping[str, object]) -> None:
    """Raises ValueError for a word that was given and is a path too."""
    for name, word in (("data", "digits"), ("init_from", keras_weights.DOWNLOAD)):
        if name in given:
            console.refuse_ambiguous(given[name], word, f"--{name}=")


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


def values(argv: list[str]) -> dict[str, object]:
    """Parses a command line; returns the values of the flags that it gives."""
    console.parse(argv)
    return flags.given(Recipe, Running)


def foreign_rate(recipe: Recipe, without: Mapping[str, object], typed: Mapping) -> str:
    """Says so where the learning rate is for another optimizer than the one that was typed.

    Args:
        recipe: What is to be trained.
        without: The flags without those that were typed: of the flag files, and the defaults.
        typed: Flags on the command line itself.

    Returns:
        A line for the user; an empty one where the rate is right.
    """
    name, rate = recipe.optimizer, without["learning_rate"]
    if rate is None or "learning_rate" in typed or name == without["optimizer"]:
        return ""
    its_own = optimizers.OPTIMIZERS[name].learning_rate
    return f"learning rate: {its_own:g}, that of {name}; {rate:g} is for {without['optimizer']}"


if __name__ == "__main__":
    console.run(main)
