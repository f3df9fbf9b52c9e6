"""Creates the folder of a new run or reopens that of an earlier one."""

import os
from collections.abc import Mapping
from pathlib import Path

from data.checks import integrity
from data.images.names import readable
from data.sources import archives, folders, sources
from engine import checkpoints, runs
from models.tools import graphs, published
from runtime import flags
from training.agreement import check_weights, other_than_the_chief
from training.build import Setup, settle, source_digest, take_weights
from training.log import Log
from training.parts import is_ours
from training.recipe import Recipe, Running
from training.state import State, restored


def _absolute(value: str) -> str:
    return os.path.abspath(value) if sources.is_path(value) else value


PATHS = {  # flags that may hold a path, with the function that makes it absolute
    "data": _absolute,
    "val_data": _absolute,
    "run_dir": _absolute,
    "init_from": published.absolute,
}


def name_of(recipe: Recipe) -> str:
    """Returns the name of a new run's folder: DATA-MODEL."""
    return f"{data_name(recipe.data)}-{recipe.model}"


def data_name(data: str) -> str:
    """Returns a name for the data that is fit for a folder's name."""
    if data.startswith("tfds:"):
        return data.removeprefix("tfds:").replace("/", "_")
    name = archives.without_suffix(Path(data).resolve().name)
    return folders.cut(readable(name))


def open_run(setup: Setup) -> tuple[Setup, Log, State]:
    """Creates the folder of a new run or restores an earlier one.

    Raises:
        ValueError: If another training uses the folder, or another worker has different data.
        PeerLost: If another worker has different weights.
        OSError: If the folder cannot be written.
    """
    folder = setup.running.run_dir or str(runs.make_folder(name_of(setup.recipe)))
    log = Log(setup, folder, kept_flags(setup, folder))
    log.lock()
    if not setup.running.resume and log.run.step_files():
        raise ValueError(f"another training has written {folder}, expected a new one")
    if other := other_than_the_chief(setup, setup.dataset.fingerprint):
        raise ValueError(f"{other} has other data than the chief, expected the same")
    with integrity.naming_damage(setup.dataset):
        setup, state = _restore(setup, log) if setup.running.resume else _begin(setup, log)
    check_weights(setup, folder)
    return setup, log, state


def kept_flags(setup: Setup, folder: str) -> dict:
    """Returns all flags, with absolute paths: a run may be resumed from another folder."""
    values = flags.values(setup.recipe, setup.running) | {"run_dir": folder}
    return values | {name: change(values[name]) for name, change in PATHS.items() if values[name]}


def _typed(setup: Setup, kept: Mapping) -> dict[str, str]:
    """Returns the paths as they were typed, where run.json holds absolute ones instead."""
    values, begun = flags.values(setup.recipe, setup.running), setup.begun
    before = begun.get("typed", {})
    same = {name: before[name] for name in before if kept[name] == begun["flags"][name]}
    return same | {n: values[n] for n in PATHS if values[n] and values[n] != kept[n]}


def _begin(setup: Setup, log: Log) -> tuple[Setup, State]:
    """Starts a run at step 0; writes run.json."""
    setup.update.restart_averages()
    setup = settle(setup)
    defaults = flags.values(Recipe(), Running())
    del defaults["threads"]  # the machine's
    log.run.write_settings(
        {
            **_place(setup, log),
            "defaults": defaults,
            "repeats": sorted(flags.names(Recipe, Running, repeats=True)),
            "precision": setup.precision,
            "network": setup.network,
            "new_layers": setup.new_layers,
            "started_from": source_digest(setup.recipe),
            "micro_batch": setup.micro_batch,
            "cost": {
                "parameters": graphs.parameters(setup.model.trainable_weights),
                "multiply_adds": graphs.multiply_adds(setup.model),
            },
            "class_names": setup.dataset.class_names,
            "versions": checkpoints.versions(),
            "device": setup.device,
        }
    )
    log.introduce()
    if source := setup.recipe.init_from:
        learning = graphs.parameters(setup.model.trainable_weights)
        new = ", ".join(setup.new_layers) or "none"
        said = source if is_ours(source) else published.find(setup.recipe.model, source)
        log.say(f"weights from {said}; new: {new}; {learning:,} parameters learn")
    if setup.trunk_and_head:
        log.say("the frozen layers see every image once: their outputs are kept in memory")
    log.show_start()
    return setup, State()


def _restore(setup: Setup, log: Log) -> tuple[Setup, State]:
    """Restores the newest checkpoint of the run; starts at step 0 if it has none."""
    run, begun = log.run, setup.begun
    run.remove_litter()
    checkpoint = run.last(log.say)
    if checkpoint is None:
        log.forget_after(-1)
        log.say(f"{run.folder} was stopped before its first checkpoint: from step 0")
        if begun.get("started_from") != source_digest(setup.recipe):
            raise ValueError(f"{setup.recipe.init_from} has changed since this run was started")
        take_weights(setup.recipe, setup.model, setup.batches)
        return _begin(setup, log)
    _compare_surroundings(setup, log, checkpoint)
    state = restored(setup, checkpoint)
    log.forget_after(setup.trainer.step)
    run.write_settings({**begun, **_place(setup, log)})
    log.introduce()
    log.say(f"resuming at step {setup.trainer.step}")
    return setup, state


def _compare_surroundings(setup: Setup, log: Log, checkpoint: checkpoints.Checkpoint) -> None:
    """Warns if versions or devices differ from those of a checkpoint."""
    now = {**checkpoints.versions(), **setup.device}
    before = {**checkpoint.about["versions"], **checkpoint.about["device"]}
    for name in sorted(now | before):
        if now.get(name) != before.get(name):
            log.say(
                f"warning: {name} was {before.get(name)}, is {now.get(name)}: "
                "the results may differ in the last bits"
            )


def _place(setup: Setup, log: Log) -> dict:
    """Returns the entries of run.json that may change when the run is resumed."""
    dataset = setup.dataset
    return {
        "flags": log.flags,
        "typed": _typed(setup, log.flags),
        "data": {
            "folder": os.path.abspath(dataset.folder),
            "fingerprint": dataset.fingerprint,
            "examples": {split: dataset.num_examples(split) for split in dataset.splits},
        },
    }
