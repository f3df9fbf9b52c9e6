"""Sets up a training: a new one from flags, or an earlier one with its saved settings."""

import dataclasses
from collections.abc import Collection, Mapping

import models
from data import opening
from data.checks import integrity
from data.images import reading
from data.shards import copies, datasets
from engine import cluster, runs
from models.tools import graphs
from runtime import flags
from training import finetune, parts
from training.agreement import join
from training.build import Setup, build
from training.recipe import Recipe, Running


def default_model(data: str) -> str:
    """Returns the default network for the data."""
    return "lenet5" if data == "digits" else "alexnet"


def start(
    recipe: Recipe, running: Running, workers: cluster.Cluster, given: Collection[str]
) -> Setup:
    """Sets up a new run; writes no files except converted data.

    Args:
        recipe: Settings that decide the trained weights.
        running: Settings of the run, such as folder, threads and cache.
        workers: Processes that train together, including this one.
        given: Names of the flags that were set; fine-tuning changes the defaults of the others.

    Raises:
        ValueError: If flags, network and data are incompatible.
        FileNotFoundError: If the data or the weights of `--init_from` do not exist.
        PeerLost: If another worker is missing.
    """
    recipe = dataclasses.replace(recipe, model=recipe.model or default_model(recipe.data))
    if running.run_dir and runs.Run(running.run_dir).step_files():
        raise ValueError(
            f"the run folder {running.run_dir} holds checkpoints already, expected a new one; "
            "add --resume to go on with it"
        )
    strategy = join(recipe, running, workers, recipe.precision)
    flags.check_finite(recipe, running)
    parts.check(recipe, strategy.num_replicas_in_sync)  # before a conversion that may take hours
    dataset = open_data(recipe, running, strategy.num_replicas_in_sync)
    if recipe.init_from and finetune.has_other_classes(recipe, dataset):
        defaults = finetune.defaults(recipe, dataset, given)
        recipe = dataclasses.replace(recipe, **defaults)
        words = " ".join(f"--{name}={value}" for name, value in defaults.items())
        print(f"fine-tuning to other classes: {words or 'all flags as given'}")
    recipe = parts.resolved(recipe, dataset)
    with integrity.naming_damage(dataset):
        return build(recipe, running, dataset, recipe.precision, strategy, workers)


def resume(given: Mapping[str, object], workers: cluster.Cluster) -> Setup:
    """Sets up an earlier run with its saved settings, except for flags that may change.

    Args:
        given: Flags that were set, by name.
        workers: Processes that train together, including this one.

    Raises:
        ValueError: If a flag would change the trained weights, or the data has changed.
        FileNotFoundError: If there is no run.
        PeerLost: If another worker is missing.
    """
    run = runs.Run(given["run_dir"]) if given.get("run_dir") else runs.newest()
    begun = run.settings()
    if given.get("find_lr"):
        raise ValueError("--find_lr is for a new training, received --resume too")
    recipe, running = (flags.restored(kind, begun["flags"]) for kind in (Recipe, Running))
    saved = flags.values(recipe, running)
    for name in sorted(given.keys() - _resumable(recipe, workers)):
        if given[name] != saved[name]:
            raise ValueError(
                f"--{name}={given[name]} would change what {run.folder} trains; it was started "
                f"with --{name}={saved[name]}; a new run starts from its weights with "
                f"--init_from={run.folder}"
            )
    changed = saved | given | {"run_dir": str(run.folder), "resume": True}
    recipe, running = (flags.restored(kind, changed) for kind in (Recipe, Running))
    strategy = join(recipe, running, workers, begun["precision"])
    if opening.is_converted(recipe.data) and "val_data" not in given:
        recipe = dataclasses.replace(recipe, val_data=None)  # the shards have a validation split
    then = copies.Expected(begun["data"]["fingerprint"], begun["data"]["folder"])
    dataset = open_data(recipe, running, strategy.num_replicas_in_sync, then)
    check_classes(begun["class_names"], dataset, run)
    with integrity.naming_damage(dataset):
        return build(recipe, running, dataset, begun["precision"], strategy, workers, begun)


def _resumable(recipe: Recipe, workers: cluster.Cluster) -> set[str]:
    """Returns the names of the flags that may change on `--resume`."""
    names = flags.names(Recipe, Running, resumable=True)
    by_progress = recipe.first_image_size or recipe.lookahead
    if recipe.schedule in ("constant", "plateau") and not by_progress:
        names.add("epochs")
    if workers.size > 1:
        names |= flags.names(Recipe, Running, of_worker=True)
    if recipe.freeze != "none":  # decides whether features are cached: changes last bits
        names.remove("cache")
    return names


def check_classes(before: list[str], dataset: datasets.Dataset, run: runs.Run) -> None:
    """Raises ValueError if a run, begun by an earlier version, has other classes than its data."""
    if not dataset.has_classes(before):
        raise ValueError(
            f"{run.folder} cannot go on: the classes of its data were read as "
            f"{reading.shortened(before)}, and are {reading.shortened(dataset.class_names)}; "
            "expected a new run"
        )


def open_data(
    recipe: Recipe, running: Running, replicas: int, expected: copies.Expected | None = None
) -> datasets.Dataset:
    """Opens the data set as shards; converts it first if that is needed and it can be trained on.

    Args:
        recipe: Settings that decide the trained weights.
        running: Settings of the run, such as folder, threads and cache.
        replicas: Number of replicas that share a batch.
        expected: Data that a resumed run has begun with (default: any).

    Raises:
        ValueError: If the data cannot be trained on, or is not the expected data.
    """

    def check(images: int | None) -> None:
        if images is not None:
            parts.check_batch(recipe, images, replicas)
        if expected is None:  # a resumed run was checked when it began
            options = parts.network_options(recipe) | {"image_size": size}
            model = models.build(recipe.model, 2, aux_heads=True, **options)
            finetune.freeze(model, recipe.freeze, ())
            for side in parts.sides(recipe):
                graphs.require_size(model, side)

    size = recipe.image_size or models.image_size(recipe.model)
    dataset = opening.open_dataset(
        recipe.data,
        val_data=recipe.val_data,
        image_size=size,
        check=check,
        expected=expected,
        verify=running.verify,
    )
    if not dataset.num_examples("train"):
        raise ValueError(f"{recipe.data} has no training images, expected a train split")
    print(*opening.summary_lines(dataset), sep="\n")
    return dataset
